//! A sandbox over the test host's supervisors, and the hostile program compiled by gcc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use sandbox::{Call, Config, FailedCall, Finished, Limits, LocalProgram, NamedCommand, ProgramHash, Reason, Sandbox};

pub(crate) const TEST_HOST: &str = env!("CARGO_BIN_EXE_sandbox-test-host");
/// Longest time after its limit until a program must have ended.
pub(crate) const SLACK: Duration = Duration::from_secs(1);
/// Longest wait for a condition.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Grid {
    pub(crate) sandbox: Sandbox,
    pub(crate) directory: PathBuf,
    /// Marks the processes of this test.
    pub(crate) marker: String,
    _directory: tempfile::TempDir,
}

pub(crate) type RunResult = Result<Finished, Box<FailedCall>>;

/// A sandbox that runs native programs.
pub(crate) fn grid() -> Grid {
    grid_with(|_| {})
}

pub(crate) fn grid_with(change: impl FnOnce(&mut Config)) -> Grid {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = temporary.path().join("sandbox");
    let mut config = Config { allow_native: true, helper: TEST_HOST.into(), ..Config::new(&directory, 2) };
    change(&mut config);
    let sandbox = Sandbox::open(config).expect("a sandbox");
    let marker = format!("sandbox-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Grid { sandbox, directory, marker, _directory: temporary }
}

/// Limits that a test's program meets soon.
pub(crate) fn limits() -> Limits {
    Limits {
        wall_time: Duration::from_secs(20),
        grace: Duration::from_millis(300),
        memory_bytes: 64 << 20,
        output_bytes: 1 << 20,
        scratch_bytes: 8 << 20,
        processes: 16,
    }
}

pub(crate) fn call(args: &[&str]) -> Call {
    Call { args: args.iter().map(|arg| (*arg).to_owned()).collect(), limits: limits(), ..Call::default() }
}

pub(crate) fn with_limits(args: &[&str], change: impl FnOnce(&mut Limits)) -> Call {
    let mut call = call(args);
    change(&mut call.limits);
    call
}

impl Grid {
    /// Runs the hostile program, marked, and checks that it left nothing and that the next call works.
    pub(crate) fn hostile(&self, call: &Call) -> RunResult {
        let mut call = call.clone();
        call.args.push(self.marker.clone());
        let outcome = in_time(call.limits.wall_time + SLACK, || {
            let started_at = Instant::now();
            let outcome = self.run(&hostile_program(), &call);
            let took = started_at.elapsed();
            self.assert_nothing_is_left();
            (outcome, took)
        });
        self.run(&hostile_program(), &super::helpers::call(&["nothing"])).expect("the next call works");
        outcome
    }

    pub(crate) fn run(&self, program: &LocalProgram, call: &Call) -> RunResult {
        self.sandbox.run(program, call, &AtomicBool::new(false), &mut |_| {})
    }

    pub(crate) fn assert_nothing_is_left(&self) {
        assert_eq!(processes_marked(&self.marker), Vec::<i32>::new(), "processes are left");
        assert_eq!(scratch_directories(&self.directory), Vec::<PathBuf>::new(), "files are left");
    }
}

/// Does something that has to be done in time. It is tried again when it is late, since other processes of the machine
/// may have had its time; what is late by itself is so each time.
pub(crate) fn in_time<T>(limit: Duration, mut act: impl FnMut() -> (T, Duration)) -> T {
    let mut last = Duration::ZERO;
    for _ in 0..4 {
        let (done, took) = act();
        if took <= limit {
            return done;
        }
        last = took;
    }
    panic!("it took {last:?}, more than {limit:?}")
}

/// The reason of a failure that has to be.
pub(crate) fn reason(outcome: RunResult) -> Reason {
    outcome.expect_err("it fails").reason
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

pub(crate) fn hostile_program() -> LocalProgram {
    native(hostile_path())
}

pub(crate) fn native(path: &Path) -> LocalProgram {
    let file = std::fs::File::open(path).expect("the program");
    LocalProgram::Native { sha256: ProgramHash::of_reader(file).expect("read"), path: path.to_owned() }
}

pub(crate) fn hostile_path() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("tests/programs/hostile.c", "hostile"))
}

/// Compiles a C source of this crate for the machine itself.
pub(crate) fn compile(source: &str, name: &str) -> PathBuf {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native");
    std::fs::create_dir_all(&directory).expect("a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let unique = directory.join(format!("{name}-{}", std::process::id()));
    let built =
        Command::new("gcc").args(["-O1", "-pthread", "-o"]).arg(&unique).arg(source).status().expect("gcc runs");
    assert!(built.success(), "gcc");
    let path = directory.join(name);
    // All test processes share the name, so that no build is left over.
    std::fs::rename(unique, &path).expect("renamed");
    path
}

pub(crate) fn command(argv: &[&str]) -> LocalProgram {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    LocalProgram::Named(NamedCommand { argv, ..NamedCommand::default() })
}

/// Processes whose arguments contain the marker.
pub(crate) fn processes_marked(marker: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|process: &i32| is_marked(*process, marker)).collect()
}

fn is_marked(process: i32, marker: &str) -> bool {
    let arguments = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes())
}

/// Directories of tasks below a sandbox's.
pub(crate) fn scratch_directories(sandbox: &Path) -> Vec<PathBuf> {
    let runs = std::fs::read_dir(sandbox.join("scratch")).into_iter().flatten().flatten();
    let tasks = runs.flat_map(|run| std::fs::read_dir(run.path()).into_iter().flatten().flatten());
    tasks.map(|task| task.path()).filter(|path| path.is_dir()).collect()
}

/// Waits for a condition that has to come.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
