//! The server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::own_addresses;

/// Longest wait for the server to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's `nobody` and `nogroup`, as whom a test that runs as root runs the server.
const NOBODY: u32 = 65534;

/// A running server. Dropped, it ends and its directory is deleted.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    address: SocketAddr,
    options: Vec<String>,
    /// Shell that runs before the server, in name spaces of its own; empty for none.
    mount: String,
    postmaster: Mutex<Child>,
    /// Ends the server when this process has ended, however it has.
    guard: Mutex<Child>,
    databases: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Debian's directory of the newest installed version's programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").exists()).collect();
    found.sort();
    found.pop().expect("PostgreSQL is not installed: apt-get install postgresql (scripts/test.sh does so)")
}

/// A command as a user whom the server's programs take: they refuse root.
fn command(program: &str) -> Command {
    let program = programs().join(program);
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

impl Server {
    /// The server of this test binary, which starts with its first use.
    ///
    /// # Panics
    /// PostgreSQL is not installed, or cannot be started.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(&["max_connections=200"]))
    }

    /// Starts a server with these settings, each as `name=value`.
    ///
    /// # Panics
    /// PostgreSQL is not installed, or cannot be started.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        Self::start_with(options, None)
    }

    /// Starts a server whose tables are on a disk of so many megabytes that it alone sees; its log of changes is elsewhere. It
    /// cannot be started again. None where this process may mount nothing.
    ///
    /// # Panics
    /// PostgreSQL is not installed, or cannot be started.
    #[must_use]
    pub fn start_on_small_disk(megabytes: u32) -> Option<Self> {
        let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
        // Without this setting a checkpoint would need a file of its own, and end the server where it has no room.
        let options = ["max_replication_slots=0", "max_wal_senders=0", "wal_level=minimal"];
        tried.is_ok_and(|tried| tried.success()).then(|| Self::start_with(&options, Some(megabytes)))
    }

    fn start_with(options: &[&str], megabytes: Option<u32>) -> Self {
        let directory = TempDir::with_prefix("divvy-postgres-").expect("a directory");
        if geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("the directory is ours");
        }
        let data = data(directory.path());
        let mut initdb = command("initdb");
        initdb.arg("-D").arg(&data).args(["-A", "trust", "-U", "divvy", "--no-sync", "-E", "UTF8"]);
        if megabytes.is_some() {
            initdb.arg("-X").arg(directory.path().join("wal"));
        }
        succeed(&mut initdb);
        let [address] = own_addresses();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let mount = megabytes.map(|megabytes| small_disk(&data, megabytes)).unwrap_or_default();
        let postmaster = spawn(&data, address, &options, &mount);
        let guard = Mutex::new(guard(&postmaster, directory.path()));
        let (postmaster, databases) = (Mutex::new(postmaster), AtomicU32::new(0));
        let server = Self { directory, address, options, mount, postmaster, guard, databases };
        server.wait_until_ready();
        server
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of its data.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        data(self.directory.path())
    }

    /// The directory of its data as it sees it, which may be on a disk of its own.
    #[must_use]
    pub fn inner_data_directory(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", lock(&self.postmaster).id()));
        root.join(self.data_directory().strip_prefix("/").unwrap_or(&self.data_directory()))
    }

    /// Keeps a copy of the data of a server that was stopped, as a replica that gets nothing from now on.
    ///
    /// # Panics
    /// There is no room.
    pub fn keep_copy(&self) {
        succeed(Command::new("cp").arg("-a").arg(self.data_directory()).arg(self.directory.path().join("copy")));
    }

    /// Puts the copy in the place of the data of a server that has ended.
    ///
    /// # Panics
    /// There is no copy.
    pub fn use_copy(&self) {
        fs::remove_dir_all(self.data_directory()).expect("it is ours");
        fs::rename(self.directory.path().join("copy"), self.data_directory()).expect("there is a copy");
    }

    /// The URL of a database by way of an address, its own or a proxy's.
    #[must_use]
    pub fn url_by(address: SocketAddr, database: &str) -> String {
        format!("postgres://divvy@{address}/{database}?sslmode=disable")
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        Self::url_by(self.address, database)
    }

    /// Makes a database that is empty. Returns its name.
    ///
    /// # Panics
    /// The database cannot be made.
    pub fn create_database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The output of a statement, without headings.
    ///
    /// # Panics
    /// The statement fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let output = succeed(&mut self.psql_command(database, sql));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The command that asks a statement, for a test that runs it beside others.
    #[must_use]
    pub fn psql_command(&self, database: &str, sql: &str) -> Command {
        let mut command = command("psql");
        command.args(["-U", "divvy", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]).args(self.place());
        command.args(["-d", database, "-c", sql]).stdin(Stdio::null());
        command
    }

    /// Ends the server as a crash would: all its processes end at once.
    ///
    /// # Panics
    /// The server does not end.
    pub fn kill(&self) {
        let mut postmaster = lock(&self.postmaster);
        let _ = postmaster.kill();
        postmaster.wait().expect("it is ours");
    }

    /// Stops the server in order; connections are ended.
    ///
    /// # Panics
    /// The server does not end.
    pub fn stop(&self) {
        let mut postmaster = lock(&self.postmaster);
        end(&mut postmaster);
    }

    /// Starts the server again after [`Server::kill`] or [`Server::stop`], and returns when it answers.
    ///
    /// # Panics
    /// The server does not start.
    pub fn start_again(&self) {
        let since = Instant::now();
        let data = self.data_directory();
        loop {
            let mut postmaster = spawn(&data, self.address, &self.options, &self.mount);
            // Processes of a server that was killed may be there for a moment, and then another does not start.
            while !self.answers() && postmaster.try_wait().expect("it is ours").is_none() {
                assert!(since.elapsed() < PATIENCE, "the server does not start");
                thread::sleep(Duration::from_millis(10));
            }
            if postmaster.try_wait().expect("it is ours").is_none() {
                let before = std::mem::replace(&mut *lock(&self.guard), guard(&postmaster, self.directory.path()));
                dismiss(before);
                *lock(&self.postmaster) = postmaster;
                return;
            }
            assert!(since.elapsed() < PATIENCE, "the server does not start");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Halts all processes of the server: its connections stay, new ones are taken by the kernel, and nothing is answered.
    ///
    /// # Panics
    /// The kernel does not tell of a process's children.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP).expect("the kernel tells of children");
    }

    /// Lets the processes go on after [`Server::freeze`].
    ///
    /// # Panics
    /// The kernel does not tell of a process's children.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT).expect("the kernel tells of children");
    }

    fn signal_all(&self, signal: Signal) -> std::io::Result<()> {
        let mut postmaster = lock(&self.postmaster);
        if !matches!(postmaster.try_wait(), Ok(None)) {
            return Ok(());
        }
        let pid = postmaster.id();
        // Halted, it starts no more children.
        let _ = kill_process(Pid::from_child(&postmaster), signal);
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(child, signal);
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        let ready = command("pg_isready").arg("-q").args(self.place()).status();
        ready.is_ok_and(|status| status.success())
    }

    /// The server's address, as arguments of PostgreSQL's programs.
    fn place(&self) -> [String; 4] {
        ["-h".to_owned(), self.address.ip().to_string(), "-p".to_owned(), self.address.port().to_string()]
    }

    fn wait_until_ready(&self) {
        let since = Instant::now();
        while !self.answers() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(since.elapsed() < PATIENCE, "the server does not start: {log}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test may have failed while it was frozen.
        let _ = self.signal_all(Signal::CONT);
        end(&mut lock(&self.postmaster));
        let mut guard = lock(&self.guard);
        let _ = guard.kill();
        let _ = guard.wait();
    }
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Shell that puts a disk of so many megabytes in the place of a directory, with what is in it.
fn small_disk(data: &Path, megabytes: u32) -> String {
    let (data, aside) = (data.display(), data.with_file_name("aside"));
    let aside = aside.display();
    format!(
        "cp -a {data} {aside} && mount -t tmpfs -o size={megabytes}m,mode=700 none {data} && \
         chown --reference={aside} {data} && cp -a {aside}/. {data}/ && rm -r {aside}"
    )
}

fn spawn(data: &Path, address: SocketAddr, options: &[String], mount: &str) -> Child {
    let mut server = command("postgres");
    if !mount.is_empty() {
        let inner = std::mem::replace(&mut server, Command::new("unshare"));
        server.args(["--mount", "sh", "-c", &format!("{mount} && exec \"$@\""), "sh"]);
        server.arg(inner.get_program()).args(inner.get_args());
    }
    server.arg("-D").arg(data).args(["-p", &address.port().to_string()]);
    let (listen, sockets) =
        (format!("listen_addresses={}", address.ip()), format!("unix_socket_directories={}", data.display()));
    for option in [listen.as_str(), &sockets, "fsync=off", "full_page_writes=off"] {
        server.args(["-c", option]);
    }
    for option in options {
        server.args(["-c", option]);
    }
    let log = data.with_file_name("log");
    let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
    let errors = log.try_clone().expect("a log");
    server.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap_or_else(|error| panic!("{server:?}: {error}"))
}

/// A process that waits for this one to end and then ends the server and deletes its directory.
fn guard(postmaster: &Child, directory: &Path) -> Child {
    let script = "cat >/dev/null; kill -INT $1 2>/dev/null; for i in $(seq 100); do kill -0 $1 2>/dev/null || break; \
                  sleep 0.1; done; kill -KILL $1 2>/dev/null; rm -rf \"$2\"";
    let mut guard = Command::new("sh");
    guard.args(["-c", script, "guard", &postmaster.id().to_string()]).arg(directory);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // A signal to the test's group is not for it.
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    guard.spawn().expect("sh is there")
}

/// Ends a guard that is not needed any more.
fn dismiss(mut guard: Child) {
    let _ = guard.kill();
    let _ = guard.wait();
}

fn end(postmaster: &mut Child) {
    if !matches!(postmaster.try_wait(), Ok(None)) {
        return;
    }
    let pid = Pid::from_child(postmaster);
    let _ = kill_process(pid, Signal::INT);
    let since = Instant::now();
    while matches!(postmaster.try_wait(), Ok(None)) {
        if since.elapsed() > PATIENCE {
            let _ = postmaster.kill();
        }
        thread::sleep(Duration::from_millis(5));
    }
}
