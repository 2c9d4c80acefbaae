//! A broker of Apache Kafka in a process of its own, with an address that stays when it is started again.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::{eventually, spawn};

const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";
/// Memory and threads enough for a test. Compiling less makes it start sooner.
const JAVA: [&str; 5] =
    ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"];

static TURN: Mutex<()> = Mutex::new(());

/// Killed when dropped.
pub(crate) struct Broker {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    is_secure: bool,
    _turn: MutexGuard<'static, ()>,
}

impl Broker {
    /// A broker that serves.
    pub(crate) fn start() -> Self {
        let mut broker = Self::prepare(false);
        broker.go();
        broker
    }

    /// A broker that takes TLS only, with a certificate for 127.0.0.1.
    pub(crate) fn start_secure() -> Self {
        let mut broker = Self::prepare(true);
        broker.go();
        broker
    }

    /// A broker that is not there yet.
    pub(crate) fn prepare(is_secure: bool) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = TempDir::new().expect("a directory");
        let (port, controller) = (free_port(), free_port());
        let broker = Self { child: None, directory, port, is_secure, _turn: turn };
        if is_secure {
            broker.certify();
        }
        let settings = broker.settings(controller);
        fs::write(broker.path("server.properties"), settings).expect("room");
        let format = ["format", "--cluster-id", CLUSTER, "--standalone", "--config"];
        let status = java().arg("kafka.tools.StorageTool").args(format).arg(broker.path("server.properties")).output();
        let status = status.expect("java, as scripts/test.sh installs it");
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        broker
    }

    fn settings(&self, controller: u16) -> String {
        let (port, directory) = (self.port, self.path("data"));
        let protocol = if self.is_secure { "SSL" } else { "PLAINTEXT" };
        let mut settings = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={protocol}://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             inter.broker.listener.name={protocol}\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nnum.partitions=3\nlog.cleaner.enable=false\n\
             log.segment.delete.delay.ms=0\nlog.retention.check.interval.ms=500\n",
            directory.display()
        );
        if self.is_secure {
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
            printf 'subjectAltName=IP:127.0.0.1' > names
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
            cat server.key server.crt ca.pem > server.pem";
        let made = Command::new("sh").args(["-c", lines]).arg(self.directory.path()).output().expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts it and waits until it answers.
    pub(crate) fn go(&mut self) {
        let mut command = java();
        command.arg("kafka.Kafka").arg(self.path("server.properties"));
        self.child = Some(spawn(command));
        let address = format!("127.0.0.1:{}", self.port);
        eventually("the broker listens", || TcpStream::connect(&address).ok());
        eventually("the broker answers", || self.answers().then_some(()));
    }

    fn answers(&self) -> bool {
        let listed = Command::new("kcat").args(self.client()).args(["-L", "-m", "2"]).output();
        listed.expect("kcat, as scripts/test.sh installs it").status.success()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the broker");
            child.wait().expect("wait for the broker");
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What `DIVVY_KAFKA_CONFIG` is for it.
    pub(crate) fn config(&self) -> String {
        if self.is_secure {
            return format!("security.protocol=ssl,ssl.ca.location={}", self.path("ca.pem").display());
        }
        String::new()
    }

    /// Arguments of `kcat`.
    pub(super) fn client(&self) -> Vec<String> {
        let mut arguments = vec!["-b".to_owned(), self.address()];
        for setting in self.config().split(',').filter(|setting| !setting.is_empty()) {
            arguments.extend(["-X".to_owned(), setting.to_owned()]);
        }
        arguments
    }

    /// One of Kafka's own tools.
    pub(crate) fn tool(&self, class: &str, arguments: &[&str]) {
        let mut command = java();
        command.arg(format!("org.apache.kafka.tools.{class}")).args(["--bootstrap-server", &self.address()]);
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
    }
}

fn java() -> Command {
    let libs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/libs");
    assert!(libs.join(".complete").exists(), "no broker in {}: run scripts/kafka/fetch.sh", libs.display());
    let mut command = Command::new("java");
    command.args(JAVA).arg(libs.join("*"));
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}
