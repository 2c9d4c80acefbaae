//! Remains of hostile programs in the real worker, of which there must be none; and damaged files of programs.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::helpers::{ProgramGrid, Worker, assert_processes_go, eventually, heavy, path};

/// Ends when the worker stops it.
const ENDLESS: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// Descriptors, threads and children of a process.
fn held(worker: &Worker) -> [usize; 3] {
    let process = format!("/proc/{}", worker.pid().as_raw_nonzero());
    let entries = |path: &str| fs::read_dir(format!("{process}/{path}")).expect("a process").flatten();
    let children = entries("task").filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children = children.map(|list| list.split_whitespace().count()).sum();
    [entries("fd").count(), entries("task").count(), children]
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn worker_holds_no_more_descriptors_threads_children_and_files_after_hostile_programs() {
    let _turn = heavy();
    let grid = ProgramGrid::start();
    let native = grid.put(&grid.hostile());
    let wasm = grid.put(&grid.write("endless", wat::parse_str(ENDLESS).expect("WAT")));
    let worker = grid.worker("worker", &[("DIVVY_ALLOW_NATIVE", "1")]);
    let lines = "[\"loop\"]\n[\"fork\"]\n[\"write\", 1000000]\n[\"memory\", 100000000000]\n[\"fill\", 1000000000]\n\
                 [\"orphan in a session\", \"1\"]\n[\"recurse\"]\n[\"exit\", 1]\n";
    let args = grid.write("hostile.jsonl", lines);
    let limits = ["--max-attempts", "1", "--task-timeout", "1s", "--memory", "64MiB", "--output-limit", "4096"];
    let round = || {
        let native = grid.submit(&native, &[&["--args-file", path(&args)], &limits[..]].concat());
        let wasm = grid.submit(&wasm, &[&["--range", "0..2", "--step", "1"], &limits[..]].concat());
        for (job, tasks) in [(native, 8), (wasm, 2)] {
            assert_eq!(grid.ended(&job)["tasks"]["failed"], tasks);
        }
    };
    round();
    // Each worker's directory has one for each task, beside a lock.
    let scratch = || {
        let workers = fs::read_dir(grid.file("worker").join("scratch")).expect("a directory").flatten();
        let entries = workers.flat_map(|worker| fs::read_dir(worker.path()).into_iter().flatten().flatten());
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    let warm = eventually("the first round is tidied up", || (scratch() == 0).then(|| held(&worker)));
    round();
    round();
    // Connections that are kept open come and go: no more than a few.
    let is_as_before = || {
        let [descriptors, threads, children] = held(&worker);
        descriptors <= warm[0] + 3 && threads <= warm[1] && children <= warm[2] && scratch() == 0
    };
    eventually(&format!("no more than {warm:?} is held"), || is_as_before().then_some(()));
}

#[test]
fn processes_of_a_named_program_that_have_left_its_session_are_gone_with_their_job_and_their_worker() {
    let grid = ProgramGrid::start();
    let names = grid.names(&format!("[program.hostile]\ncommand = [{:?}]\n", path(&grid.hostile())));
    let start_worker = || grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    let worker = start_worker();
    assert_processes_go(&grid, "named", worker, start_worker, |marker| {
        let args = grid.write("args.jsonl", format!("[\"orphan in a session\", 1, {marker:?}]\n"));
        grid.submit("hostile", &["--args-file", path(&args)])
    });
}

#[test]
fn canceled_wasm_program_gives_its_slot_back() {
    let grid = ProgramGrid::start();
    let endless = grid.put(&grid.write("endless", wat::parse_str(ENDLESS).expect("WAT")));
    let _worker = grid.worker("worker", &[]);
    let range = ["--range", "0..1", "--step", "1"];
    let job = grid.submit(&endless, &range);
    eventually("it runs", || (grid.job(&job)["tasks"]["running"] == 1).then_some(()));
    grid.printed(&["job", "cancel", &job]);
    let next = grid.submit(&grid.put(&grid.wasi_example()), &["--range", "0..10", "--step", "10", "--combine", "sum"]);
    assert_eq!(grid.result(&next)["sum"], "45");
}

#[test]
fn gigabyte_is_refused_and_the_coordinator_holds_none_of_it() {
    let grid = ProgramGrid::start();
    let module = grid.write("large.wasm", b"\0asm\x01\0\0\0");
    fs::File::options().write(true).open(&module).expect("open").set_len(1 << 30).expect("sparse");
    let before = grid.coordinator.peak_bytes();
    let refused = grid.divvy(&["program", "put", path(&module)]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("67108864"), "{refused:?}");
    assert!(grid.coordinator.peak_bytes() < before + (64 << 20));
    assert_eq!(grid.printed(&["program", "list", "--output", "quiet"]), "");
}

#[test]
fn compiled_file_that_was_changed_is_compiled_again() {
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.wasi_example());
    let sum = |beyond: &str| {
        let range = format!("0..{beyond}");
        let job = grid.submit(&program, &["--range", &range, "--step", beyond, "--combine", "sum"]);
        grid.result(&job)["sum"].clone()
    };
    let mut worker = grid.worker("worker", &[]);
    assert_eq!(sum("10"), "45");
    worker.kill();

    let is_compiled =
        |file: &&PathBuf| !file.ends_with(&program) && fs::metadata(file).is_ok_and(|file| file.len() > 1_000);
    let files = files_below(&grid.file("worker"));
    let compiled = files.iter().find(is_compiled).unwrap_or_else(|| panic!("{files:?}"));
    let file = fs::File::options().read(true).write(true).open(compiled).expect("open");
    let middle = file.metadata().expect("there").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("read");
    (&file).seek(SeekFrom::Start(middle)).expect("there");
    (&file).write_all(&[byte[0] ^ 1]).expect("written");
    drop(file);

    let worker = grid.worker("worker", &[]);
    assert_eq!(sum("11"), "55");
    grid.stays_ready(&worker);
}

/// Blocks with many locals each live across a table of branches: far more work for the compiler than bytes.
fn compile_bomb() -> Vec<u8> {
    let locals = "(local i64)".repeat(2_000);
    let step = |n: u32| {
        let (to, one, other) = (n % 2_000, n * 7 % 2_000, n * 13 % 2_000);
        format!("(local.set {to} (i64.add (local.get {one}) (local.get {other}))) (br_if 0 (i64.eqz (local.get {to})))")
    };
    let body: String = (0..12_000).map(step).collect();
    let module =
        format!(r#"(module (memory (export "memory") 1) (func (export "_start") {locals} (block (loop {body}))))"#);
    wat::parse_str(module).expect("WAT")
}

#[test]
fn compile_bomb_is_an_error_of_its_task_and_the_next_program_compiles() {
    let _turn = heavy();
    let grid = ProgramGrid::start();
    let bomb = grid.put(&grid.write("bomb", compile_bomb()));
    // The compiler has as much memory as a program.
    let worker = grid.worker("worker", &[("DIVVY_PROGRAM_MEMORY_BYTES", "100663296")]);
    for _ in 0..2 {
        let job = grid.submit(&bomb, &["--range", "0..1", "--step", "1", "--max-attempts", "1"]);
        grid.ended(&job);
        let error = grid.tasks(&job)[0]["last_error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains("compil"), "{error}");
    }
    let next = grid.submit(&grid.put(&grid.wasi_example()), &["--range", "0..10", "--step", "10", "--combine", "sum"]);
    assert_eq!(grid.result(&next)["sum"], "45");
    grid.stays_ready(&worker);
}
