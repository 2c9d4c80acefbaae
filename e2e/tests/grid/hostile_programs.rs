//! Programs that do what they should not, through the real worker: each is an error on its task, the worker lives, and
//! the next task runs.

use std::fs;
use std::path::Path;

use crate::helpers::{ProgramGrid, Signal, Worker, eventually, heavy, path, processes_marked};

/// The error of a task that runs until its time limit. The others end by themselves: their limit is longer than any test.
const LATE: &str = "it ran for longer than its limit of 2s";

/// Runs a task for each line; each line must fail by the error beside it.
fn all_fail(grid: &ProgramGrid, program: &str, cases: &[(&str, &str)], options: &[&str]) {
    let (late, others): (Vec<_>, Vec<_>) = cases.iter().partition(|(_, error)| *error == LATE);
    for (cases, limit) in [(late, "2s"), (others, "600s")] {
        if cases.is_empty() {
            continue;
        }
        let lines: String = cases.iter().map(|(args, _)| format!("{args}\n")).collect();
        let args = grid.write("cases.jsonl", lines);
        let fixed = ["--args-file", path(&args), "--max-attempts", "1", "--memory", "64MiB", "--task-timeout", limit];
        let job = grid.submit(program, &[&fixed, options].concat());
        grid.ended(&job);
        for ((args, error), task) in cases.into_iter().zip(grid.tasks(&job)) {
            let found = task["last_error"].as_str().unwrap_or_default();
            assert!(found.contains(error), "{args}: {task}");
        }
    }
}

/// The worker is the same process, and runs the next task.
fn next_task_runs(grid: &ProgramGrid, worker: &Worker, program: &str) {
    let args = grid.write("next.jsonl", "[\"write\", 3]\n");
    let job = grid.submit(program, &["--args-file", path(&args)]);
    assert_eq!(grid.result(&job)["tasks"], serde_json::json!(["xxx"]));
    grid.stays_ready(worker);
    let blamed = "it failed a lease";
    assert!(
        !grid.coordinator.log().iter().any(|line| line.contains(blamed)),
        "a task's own failure is not blamed on its worker"
    );
}

/// The number of task directories left below a directory.
fn scratch(directory: &Path) -> usize {
    let runs = fs::read_dir(directory.join("scratch")).into_iter().flatten().flatten();
    runs.flat_map(|run| fs::read_dir(run.path()).into_iter().flatten().flatten())
        .filter(|task| task.path().is_dir())
        .count()
}

#[test]
fn hostile_native_programs_fail_alone_and_the_worker_lives() {
    let _turn = heavy();
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.hostile());
    let worker = grid.worker("worker", &[("DIVVY_ALLOW_NATIVE", "1")]);
    let marker = format!("hostile-{}", std::process::id());
    let marked = |mode: &str| format!("[{mode}, \"0\", {marker:?}]");
    let (orphan, session) = (marked("\"orphan\""), marked("\"orphan in a session\""));
    let cases = [
        ("[\"loop\"]", LATE),
        ("[\"ignore SIGTERM\"]", LATE),
        ("[\"memory\", 100000000000]", "it needs more memory than its limit of 67108864 bytes"),
        ("[\"write\", 1000000000000]", "it wrote more to stdout than its limit of 4096 bytes"),
        ("[\"write\", 4097]", "it wrote more to stdout than its limit of 4096 bytes"),
        ("[\"write to stderr\", 1000000000000]", LATE),
        ("[\"recurse\"]", "it was ended by signal 11"),
        ("[\"fork\"]", "it has more processes and threads than its limit"),
        ("[\"fill\", 1000000000]", "its files need more space than its limit"),
        ("[\"exit\", 7]", "it exited with code 7; the end of its stderr: leaving"),
        ("[\"abort\"]", "it was ended by signal 6"),
    ];
    all_fail(&grid, &program, &cases, &["--output-limit", "4096"]);
    next_task_runs(&grid, &worker, &program);

    let args = grid.write("orphans.jsonl", format!("{orphan}\n{session}\n[\"write\", 4096]\n[\"write\", 4095]\n"));
    let job = grid.submit(&program, &["--args-file", path(&args), "--output-limit", "4096", "--task-timeout", "600s"]);
    grid.ended(&job);
    let tasks = grid.tasks(&job);
    assert_eq!(tasks[2]["result"], "x".repeat(4096), "exactly the limit");
    assert_eq!(tasks[3]["result"], "x".repeat(4095));
    assert!(processes_marked(&marker).is_empty(), "orphans are gone with their task");
    eventually("no file is left", || (scratch(&grid.file("worker")) == 0).then_some(()));
    next_task_runs(&grid, &worker, &program);
}

#[test]
fn native_program_sees_nothing_of_its_worker() {
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.hostile());
    let secret = grid.write("secret", "of the worker");
    let token = [("DIVVY_ALLOW_NATIVE", "1"), ("DIVVY_WORKER_LABELS", "secret=in-the-environment")];
    let worker = grid.worker("worker", &token);
    let pid = worker.pid().as_raw_nonzero();
    let lines = format!("[\"reach outside\", {pid}, {:?}]\n[\"environment\"]\n[\"descriptors\"]\n", path(&secret));
    let args = grid.write("args.jsonl", lines);
    let job = grid.submit(&program, &["--args-file", path(&args)]);
    let result = grid.result(&job);
    let outside = result["tasks"][0].as_str().expect("text");
    assert!(outside.lines().count() > 40, "{outside}");
    for line in outside.lines() {
        assert!(!line.ends_with(": allowed"), "{line}");
    }
    let environment = result["tasks"][1].as_str().expect("text");
    assert!(!environment.contains("DIVVY") && !environment.contains("secret"), "{environment}");
    assert_eq!(result["tasks"][2], "0\n1\n2\n");
    assert_eq!(fs::read_to_string(&secret).expect("there"), "of the worker");
}

#[test]
fn worker_without_the_permission_runs_no_native_program() {
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.hostile());
    let _worker = grid.worker("worker", &[]);
    let submitted = grid.divvy(&["job", "submit", "program", "--program", &program, "--range", "0..1", "--step", "1"]);
    let note = String::from_utf8_lossy(&submitted.stderr);
    assert!(note.contains("DIVVY_ALLOW_NATIVE=1"), "{note}");
}

#[test]
fn worker_that_is_root_warns_of_what_its_native_programs_cannot_do() {
    let is_root = rustix::process::geteuid().is_root();
    let grid = ProgramGrid::start();
    for (allowed, warns) in [("1", is_root), ("0", false)] {
        let worker = grid.worker("worker", &[("DIVVY_ALLOW_NATIVE", allowed)]);
        let is_warning = |line: &String| line.contains("this worker is root, so its native executables cannot");
        assert_eq!(worker.log().iter().any(is_warning), warns, "{:?}", worker.log());
    }
}

/// Stores a module that has `body` and a function `$write` of a length.
fn wasm(grid: &ProgramGrid, name: &str, body: &str) -> String {
    let module = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 2)
          (func $write (param $length i32) (result i32)
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (local.get $length))
            (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          {body})"#
    );
    grid.put(&grid.write(name, wat::parse_str(module).expect("WAT")))
}

#[test]
fn hostile_wasm_programs_fail_alone_and_the_worker_lives() {
    let _turn = heavy();
    let grid = ProgramGrid::start();
    let worker = grid.worker("worker", &[]);
    let cases = [
        ("loop", r#"(func (export "_start") (loop $l (br $l)))"#, LATE),
        (
            "memory",
            r#"(func (export "_start") (loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable)"#,
            "it needs more memory than its limit of 67108864 bytes",
        ),
        (
            // The program ignores the result of `fd_write`.
            "flood",
            r#"(func (export "_start") (local $i i32) (loop $l (drop (call $write (i32.const 65536)))
                (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 64)))))"#,
            "it wrote more to stdout than its limit of 4096 bytes",
        ),
        ("over", r#"(func (export "_start") (drop (call $write (i32.const 4097))))"#, "its limit of 4096 bytes"),
        ("recurse", r#"(func $r (export "_start") (call $r))"#, "it trapped"),
        ("trap", r#"(func (export "_start") unreachable)"#, "it trapped"),
        ("no entry", r#"(func (export "run"))"#, "it cannot be run"),
    ];
    for (name, body, error) in cases {
        let program = wasm(&grid, name, body);
        all_fail(&grid, &program, &[("[]", error)], &["--output-limit", "4096"]);
    }
    let importing = r#"(module (import "env" "secret" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
    let importing = grid.put(&grid.write("import", wat::parse_str(importing).expect("WAT")));
    all_fail(&grid, &importing, &[("[]", "it cannot be run")], &[]);
    let garbage = grid.put(&grid.write("garbage", b"\0asm\x01\0\0\0this is no module"));
    all_fail(&grid, &garbage, &[("[]", "it cannot be run")], &[]);

    let exact = wasm(&grid, "exact", r#"(func (export "_start") (drop (call $write (i32.const 4096))))"#);
    let job = grid.submit(&exact, &["--range", "0..1", "--step", "1", "--output-limit", "4096"]);
    assert_eq!(grid.result(&job)["tasks"][0].as_str().map(str::len), Some(4096));
    grid.stays_ready(&worker);
}

#[test]
fn program_writes_no_lines_into_the_log_of_its_worker() {
    let grid = ProgramGrid::start();
    let worker = grid.worker("worker", &[]);
    // The engine warns of each call about a socket.
    let asks = r#"(module
      (import "wasi_snapshot_preview1" "sock_shutdown" (func $shut_down (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (drop (call $shut_down (i32.const 1) (i32.const 1)))))"#;
    let asks = grid.put(&grid.write("sockets", wat::parse_str(asks).expect("WAT")));
    let job = grid.submit(&asks, &["--range", "0..1", "--step", "1"]);
    grid.result(&job);
    // After this line there are no others of the program.
    worker.signal(Signal::TERM);
    worker.logged("stopping: finishing the held leases");
    let log = worker.log();
    assert!(!log.iter().any(|line| line.contains("wasmtime")), "{log:?}");
}

#[test]
fn named_command_that_is_gone_is_blamed_on_its_worker_and_runs_when_it_is_back() {
    let grid = ProgramGrid::start();
    let install = || {
        let command = grid.write("greet", "#!/bin/sh\necho hello\n");
        fs::set_permissions(&command, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        command
    };
    let command = install();
    let names = grid.names(&format!("[program.greet]\ncommand = [{:?}]\n", path(&command)));
    let _worker = grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    fs::remove_file(&command).expect("removed");
    let once = ["--range", "0..1", "--step", "1", "--max-attempts", "1"];
    let job = grid.submit("greet", &once);
    grid.ended(&job);
    let error = grid.tasks(&job)[0]["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("it cannot be executed") && error.contains(path(&command)), "{error}");
    let is_blamed = || grid.coordinator.log().iter().any(|line| line.contains("it failed a lease")).then_some(());
    eventually("the worker is blamed", is_blamed);
    install();
    assert_eq!(grid.result(&grid.submit("greet", &once))["tasks"], serde_json::json!(["hello\n"]));
}

#[test]
fn file_of_a_program_that_was_changed_on_the_workers_disk_is_fetched_again() {
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.native_example());
    let _worker = grid.worker("worker", &[("DIVVY_ALLOW_NATIVE", "1")]);
    let sum = |beyond: &str| {
        let range = format!("0..{beyond}");
        let job = grid.submit(&program, &["--range", &range, "--step", beyond, "--combine", "sum"]);
        grid.result(&job)["sum"].clone()
    };
    assert_eq!(sum("10"), "45");
    let cached = grid.file("worker").join("programs").join(&program);
    let mut bytes = fs::read(&cached).expect("cached");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::remove_file(&cached).expect("removed");
    fs::write(&cached, bytes).expect("written");
    fs::set_permissions(&cached, std::os::unix::fs::PermissionsExt::from_mode(0o500)).expect("set");
    assert_eq!(sum("11"), "55");
}
