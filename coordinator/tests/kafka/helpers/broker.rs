//! A broker of Apache Kafka: in a process of its own, with an address that stays when it is started again, or the process
//! that all tests share which do not end it, with topics of each test's own.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use test_postgres::{Proxy, own_addresses};

use super::java::java;
use super::{eventually, spawn};

/// The file that `StorageTool format` writes into an empty directory. The tool itself takes a second of processor time.
const FORMATTED: &str =
    "version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\nnode.id=1\ndirectory.id=LdGmRrVKQSyZbV5uMVdRqA\n";

/// The clients that a broker admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    /// Clients by TLS, with a certificate for the broker's address.
    Tls,
    /// Clients by name and password, each for what access lists allow. The first name may do anything.
    Named,
}

/// Names with their passwords.
const NAMED: [(&str, &str); 2] = [("admin", "admin-secret"), ("divvy", "divvy-secret")];

/// Killed when dropped.
pub(crate) struct Broker {
    child: Option<Child>,
    directory: TempDir,
    /// The broker's own address, so that it is free when the broker is started again.
    own: SocketAddr,
    door: Door,
    /// The proxy between the broker and its clients.
    proxy: Option<Proxy>,
    /// The prefix of the names of this test's topics.
    prefix: String,
    is_shared: bool,
    /// Options of the broker's JVM beside those of every JVM.
    options: &'static [&'static str],
    /// Holds the name space of the disk that the broker alone sees.
    disk: Option<Child>,
}

impl Broker {
    /// A broker that serves.
    pub(crate) fn start() -> Self {
        let mut broker = Self::prepare();
        broker.go();
        broker
    }

    /// The broker of all tests that do not end it, with topics of this test's own. It ends with the tests' process.
    pub(crate) fn shared() -> Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        static TESTS: AtomicU32 = AtomicU32::new(1);
        let own = SHARED.get_or_init(Self::start_to_stay).own;
        let number = TESTS.fetch_add(1, Ordering::Relaxed);
        let mut broker = Self::on(own, Door::Open, None);
        (broker.prefix, broker.is_shared) = (format!("test-{number}"), true);
        broker
    }

    /// A broker that has no settings yet.
    fn on(own: SocketAddr, door: Door, proxy: Option<Proxy>) -> Self {
        let (directory, prefix) = (TempDir::new().expect("a directory"), "divvy".to_owned());
        Self { child: None, directory, own, door, proxy, prefix, is_shared: false, options: &[], disk: None }
    }

    fn start_to_stay() -> Self {
        let broker = Self::start();
        // Rust drops no static: the guard process sees its input end when the test ends, and ends the broker.
        let mut guard = Command::new("sh");
        guard.args(["-c", "cat >/dev/null; sleep 1; rm -rf \"$1\"", "guard"]).arg(broker.directory.path());
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A signal to the tests' group is not for it.
        let guard = guard.process_group(0).spawn().expect("sh is there");
        std::mem::forget(guard);
        broker
    }

    /// A broker that clients reach by a proxy alone.
    pub(crate) fn start_behind_proxy() -> Self {
        let mut broker = Self::prepare_behind(Door::Open, Some(Proxy::start));
        broker.go();
        broker
    }

    /// The proxy between the broker and its clients.
    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a proxy")
    }

    /// A broker that takes TLS only, with a certificate for its address.
    pub(crate) fn start_secure() -> Self {
        let mut broker = Self::prepare_behind(Door::Tls, None);
        broker.go();
        broker
    }

    /// A broker that knows `divvy` by name and allows it nothing.
    pub(crate) fn start_guarded() -> Self {
        let mut broker = Self::prepare_behind(Door::Named, None);
        broker.go();
        broker
    }

    /// A broker that is not there yet.
    pub(crate) fn prepare() -> Self {
        Self::prepare_behind(Door::Open, None)
    }

    /// A broker whose records are on a disk of so many megabytes; none where nothing can be mounted.
    pub(crate) fn start_on_small_disk(megabytes: u32) -> Option<Self> {
        let mut broker = Self::prepare();
        let data = broker.path("data");
        let mount = format!(
            "cp -a {data} {data}.aside && mount -t tmpfs -o size={megabytes}m none {data} && cp -a {data}.aside/. {data}/ && \
             touch {data}.mounted && exec sleep infinity",
            data = data.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &mount]);
        let mut disk = spawn(command);
        let is_mounted = eventually("it is mounted, or cannot be", || match disk.try_wait().expect("a process") {
            Some(_) => Some(false),
            None => broker.path("data.mounted").exists().then_some(true),
        });
        broker.disk = Some(disk);
        is_mounted.then(|| {
            broker.go();
            broker
        })
    }

    /// Leaves no room on its disk. Returns the file that takes it.
    pub(crate) fn fill(&self) -> PathBuf {
        let disk = self.disk.as_ref().expect("a disk of its own").id();
        let data = self.path("data");
        let filler =
            Path::new(&format!("/proc/{disk}/root")).join(data.strip_prefix("/").unwrap_or(&data)).join("filler");
        let mut file = fs::File::create(&filler).expect("a file needs no room");
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        filler
    }

    /// Whether the broker's process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("a process").is_some())
    }

    fn prepare_behind(door: Door, proxy: Option<fn(SocketAddr) -> Proxy>) -> Self {
        let [own, controller] = own_addresses();
        let broker = Self::on(own, door, proxy.map(|start| start(own)));
        if door == Door::Tls {
            broker.certify();
        }
        broker.format(&broker.settings(controller), FORMATTED);
        broker
    }

    /// A broker of a cluster by its number and the cluster's settings. It does not run yet.
    pub(super) fn member(own: SocketAddr, node: usize, options: &'static [&'static str], settings: &str) -> Self {
        let mut broker = Self::on(own, Door::Open, None);
        broker.options = options;
        let formatted =
            FORMATTED.replace("node.id=1", &format!("node.id={node}")).replace("=LdG", &format!("={node}dG"));
        broker.format(&format!("{settings}node.id={node}\nlog.dirs={}\n", broker.path("data").display()), &formatted);
        broker
    }

    fn format(&self, settings: &str, formatted: &str) {
        fs::write(self.path("server.properties"), settings).expect("room");
        fs::create_dir(self.path("data")).expect("room");
        fs::write(self.path("data/meta.properties"), formatted).expect("room");
    }

    fn settings(&self, controller: SocketAddr) -> String {
        let (own, directory, address) = (self.own, self.path("data"), self.address());
        let protocol = match self.door {
            Door::Open => "PLAINTEXT",
            Door::Tls => "SSL",
            Door::Named => "SASL_PLAINTEXT",
        };
        let mut settings = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             listeners={protocol}://{own},CONTROLLER://{controller}\n\
             advertised.listeners={protocol}://{address}\ncontroller.listener.names=CONTROLLER\n\
             inter.broker.listener.name={protocol}\ncontroller.quorum.voters=1@{controller}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nnum.partitions=3\nlog.cleaner.enable=false\n\
             log.segment.delete.delay.ms=0\nlog.retention.check.interval.ms=500\n",
            directory.display()
        );
        if self.door == Door::Named {
            let names: String = NAMED.iter().map(|(name, password)| format!(" user_{name}=\"{password}\"")).collect();
            settings += &format!(
                "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
                 listener.name.sasl_plaintext.plain.sasl.jaas.config={}{names};\n\
                 authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 super.users=User:admin;User:ANONYMOUS\n",
                login(NAMED[0])
            );
            let tools = format!(
                "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={};\n",
                login(NAMED[0])
            );
            fs::write(self.path("tools.properties"), tools).expect("room");
        }
        if self.door == Door::Tls {
            settings += &format!(
                "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n",
                self.path("server.pem").display(),
                self.path("ca.pem").display(),
            );
        }
        settings
    }

    /// An authority, and the broker's certificate of it.
    fn certify(&self) {
        let lines = "set -e; cd \"$0\"
            openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority
            openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=broker
            printf \"subjectAltName=IP:$1\" > names
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
            cat server.key server.crt ca.pem > server.pem";
        let made = Command::new("sh")
            .args(["-c", lines])
            .arg(self.directory.path())
            .arg(self.own.ip().to_string())
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts it and waits until it answers.
    pub(crate) fn go(&mut self) {
        self.launch();
        self.wait();
    }

    pub(super) fn launch(&mut self) {
        assert!(!self.is_shared, "other tests use it");
        let mut command = java();
        command.args(self.options).arg("kafka.Kafka").arg(self.path("server.properties"));
        if let Some(disk) = &self.disk {
            let mut inside = Command::new("nsenter");
            inside.args([&format!("--mount=/proc/{}/ns/mnt", disk.id())]);
            inside.arg(command.get_program()).args(command.get_args());
            command = inside;
        }
        self.child = Some(spawn(command));
    }

    pub(super) fn wait(&self) {
        eventually("the broker listens", || TcpStream::connect(self.own).ok());
        eventually("the broker answers", || self.answers().then_some(()));
    }

    fn answers(&self) -> bool {
        let listed = Command::new("kcat").args(self.client()).args(["-L", "-m", "10"]).output();
        listed.expect("kcat, as scripts/test.sh installs it").status.success()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the broker");
            child.wait().expect("wait for the broker");
        }
    }

    /// Takes the records of a topic's first partition from an offset on away, as a loss of power does that comes before the
    /// disk has them. The broker must have been killed; a batch goes as a whole.
    pub(crate) fn truncate(&self, topic: &str, offset: u64) {
        let segment = self.path("data").join(format!("{}-0", self.topic(topic))).join("00000000000000000000.log");
        let bytes = fs::read(&segment).expect("a segment");
        let mut place = 0;
        // The offset of a batch's first record, then the length of what follows.
        while let Some((head, _)) = bytes[place..].split_first_chunk::<12>() {
            let base = u64::from_be_bytes(*head.first_chunk().expect("longer"));
            let length = u32::from_be_bytes(*head.last_chunk().expect("longer"));
            if base >= offset {
                break;
            }
            place += 12 + usize::try_from(length).expect("64 bits");
        }
        assert!(place < bytes.len(), "there is no record {offset}");
        let segment = fs::OpenOptions::new().write(true).open(segment).expect("a segment");
        segment.set_len(place as u64).expect("shorter");
    }

    /// The broker's address for clients.
    pub(crate) fn address(&self) -> String {
        self.proxy.as_ref().map_or(self.own, Proxy::address).to_string()
    }

    /// The value of `DIVVY_KAFKA_PREFIX` for a coordinator of this test.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a topic of this test.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Bytes of records of a topic that it has written.
    pub(crate) fn written(&self, name: &str) -> u64 {
        let start = self.topic(name) + "-";
        let of_topic = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&start);
        let partitions = fs::read_dir(self.path("data")).expect("its data").flatten().filter(of_topic);
        let files = partitions.flat_map(|partition| fs::read_dir(partition.path()).into_iter().flatten().flatten());
        let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
        logs.filter_map(|log| Some(log.metadata().ok()?.len())).sum()
    }

    /// The value of `DIVVY_KAFKA_CONFIG` for this broker.
    pub(crate) fn config(&self) -> String {
        self.config_of(NAMED[1])
    }

    fn config_of(&self, (name, password): (&str, &str)) -> String {
        let named = format!("sasl.mechanism=PLAIN,sasl.username={name},sasl.password={password}");
        match self.door {
            Door::Open => String::new(),
            Door::Tls => format!("security.protocol=ssl,ssl.ca.location={}", self.path("ca.pem").display()),
            Door::Named => format!("security.protocol=sasl_plaintext,{named}"),
        }
    }

    /// Arguments of `kcat`.
    pub(super) fn client(&self) -> Vec<String> {
        let mut arguments = vec!["-b".to_owned(), self.address()];
        for setting in self.config_of(NAMED[0]).split(',').filter(|setting| !setting.is_empty()) {
            arguments.extend(["-X".to_owned(), setting.to_owned()]);
        }
        arguments
    }

    /// Creates, alters or deletes a topic of this test.
    pub(crate) fn change_topic(&self, change: &str, name: &str, options: &[&str]) {
        self.tool("org.apache.kafka.tools.TopicCommand", &[&[change, "--topic", &self.topic(name)], options].concat());
    }

    /// Changes a setting of a topic of this test.
    pub(crate) fn configure_topic(&self, name: &str, setting: &str) {
        let topic = self.topic(name);
        let change = ["--alter", "--entity-type", "topics", "--entity-name", &topic, "--add-config", setting];
        self.tool("kafka.admin.ConfigCommand", &change);
    }

    /// Runs one of Kafka's own tools.
    pub(crate) fn tool(&self, class: &str, arguments: &[&str]) {
        let mut command = java();
        command.arg(class).args(["--bootstrap-server", &self.address()]);
        if self.door == Door::Named {
            command.arg("--command-config").arg(self.path("tools.properties"));
        }
        let output = command.args(arguments).output().expect("java");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{class}: {}", String::from_utf8_lossy(&said));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut disk) = self.disk.take() {
            // The process may be gone already.
            let _ = disk.kill();
            let _ = disk.wait();
        }
    }
}

/// The login of a broker and its tools, as a JAAS configuration.
fn login((name, password): (&str, &str)) -> String {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    format!("{module} required username=\"{name}\" password=\"{password}\"")
}
