//! Users' own programs on the whole grid: the example of the requirements in its three forms, exact while processes are
//! killed; what a user sees of programs and their failures.

use std::fs;
use std::time::{Duration, Instant};

use crate::helpers::{ProgramGrid, Proxy, Signal, Worker, assert_processes_go, eventually, heavy, path, within};

/// The sum of 0 to 499,999,999: n (n - 1) / 2 for n = 500,000,000.
const SUM: &str = "124999999750000000";

/// Longer than any test: a task is not given out again because its worker is late with its list of leases.
const LONG_RECOVERY: (&str, &str) = ("DIVVY_RECOVERY_MS", "600000");

/// The parts of the example, few as in the requirements or many, so that something is under way whenever a process is killed.
const FIVE: [&str; 6] = ["--range", "0..500000000", "--step", "100000000", "--combine", "sum"];
const MANY: [&str; 6] = ["--range", "0..500000000", "--step", "5000000", "--combine", "sum"];

#[test]
fn uploaded_wasi_program_sums_exactly_while_processes_are_killed() {
    let _turn = heavy();
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.wasi_example());
    sums_while_processes_are_killed(grid, &program, &[]);
}

#[test]
fn uploaded_native_program_sums_exactly_while_processes_are_killed() {
    let _turn = heavy();
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.native_example());
    sums_while_processes_are_killed(grid, &program, &[("DIVVY_ALLOW_NATIVE", "1")]);
}

#[test]
fn named_python_program_sums_exactly_while_processes_are_killed() {
    let _turn = heavy();
    let grid = ProgramGrid::start();
    let names = grid.names("");
    sums_while_processes_are_killed(grid, "sum-integers", &[("DIVVY_PROGRAMS", path(&names))]);
}

fn sums_while_processes_are_killed(mut grid: ProgramGrid, program: &str, variables: &[(&str, &str)]) {
    let mut workers: Vec<Worker> = (0..2).map(|number| grid.worker(&format!("worker-{number}"), variables)).collect();
    let five = grid.submit(program, &FIVE);
    assert_eq!(grid.result(&five)["sum"], SUM);
    assert_eq!(grid.job(&five)["tasks"]["total"], 5);

    let many = grid.submit(program, &MANY);
    for round in 0..4 {
        let goal = 5 * (round + 1);
        eventually("the job goes on", || (grid.job(&many)["tasks"]["succeeded"].as_u64() >= Some(goal)).then_some(()));
        let victim = round as usize % 2;
        workers[victim].kill();
        workers[victim] = grid.worker(&format!("worker-{victim}"), variables);
        if round % 2 == 1 {
            grid.coordinator.kill();
            grid.restart_coordinator();
        }
    }
    assert_eq!(grid.result(&many)["sum"], SUM);
    let tasks = grid.tasks(&many);
    assert!(tasks.iter().all(|task| task["state"] == "succeeded"), "{tasks:?}");
}

#[test]
fn without_tokens_programs_are_refused_with_the_way_to_turn_them_on() {
    let coordinator = crate::helpers::Coordinator::start(&[]);
    let hash = "ab".repeat(32);
    let body = r#"{"kind":"program","params":{"program":"x","args":[[]]}}"#;
    for (method, target, body) in [
        ("PUT", format!("/v1/programs/{hash}"), ""),
        ("DELETE", format!("/v1/programs/{hash}"), ""),
        ("POST", "/v1/jobs".to_owned(), body),
    ] {
        let answer = crate::helpers::request(coordinator.public, method, &target, &[], body);
        let message = answer.problem(403);
        assert!(message.contains("DIVVY_API_TOKENS_FILE") && message.contains("divvy token new"), "{message}");
    }
}

#[test]
fn stored_program_is_listed_and_deleted_unless_a_job_needs_it() {
    let grid = ProgramGrid::start();
    let module = grid.write(
        "nothing.wasm",
        wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).expect("WAT"),
    );
    let program = grid.put(&module);
    assert_eq!(grid.put(&module), program, "idempotent");
    let shown = grid.ask("GET", &format!("/v1/programs/{program}"), "").json();
    assert_eq!((&shown["kind"], &shown["uploaded_by"]), (&"wasm".into(), &"ci".into()), "{shown}");
    assert_eq!(grid.printed(&["program", "list", "--output", "quiet"]), program);

    let other = "cd".repeat(32);
    let refused = grid.ask("PUT", &format!("/v1/programs/{other}"), "#!/bin/sh\n").problem(422);
    assert!(refused.contains(&other), "{refused}");
    assert!(grid.ask("PUT", &format!("/v1/programs/{other}"), "MZ").problem(400).contains("neither WebAssembly"));
    let length = (1_u64 << 30).to_string();
    let headers = [("content-length", length.as_str())];
    let too_long = grid.ask_with("PUT", &format!("/v1/programs/{other}"), &headers);
    assert!(too_long.problem(413).contains("67108864"), "{too_long:?}");

    let waiting = grid.divvy(&[
        "job",
        "submit",
        "program",
        "--output",
        "quiet",
        "--program",
        &program,
        "--range",
        "0..9",
        "--step",
        "1",
    ]);
    let (id, note) = (String::from_utf8_lossy(&waiting.stdout), String::from_utf8_lossy(&waiting.stderr));
    assert!(note.starts_with("note: "), "no worker is there: {note}");
    let in_use = grid.divvy(&["program", "delete", &program]);
    assert_eq!(in_use.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&in_use.stderr).contains(id.trim_end()), "{in_use:?}");
    grid.printed(&["job", "cancel", id.trim_end()]);
    grid.printed(&["program", "delete", &program]);
    assert_eq!(grid.printed(&["program", "list", "--output", "quiet"]), "");
    let missing = grid.divvy(&["job", "submit", "program", "--program", &program, "--range", "0..9", "--step", "1"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no program"), "{missing:?}");
}

#[test]
fn upload_whose_answer_is_lost_is_sent_again_and_one_without_a_grid_is_not() {
    let mut grid = ProgramGrid::start();
    let module = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).expect("WAT");
    let module = grid.write("nothing.wasm", module);
    let proxy = Proxy::to(grid.coordinator.public);
    proxy.swallow(b"HTTP/1.1 201 ");
    let url = format!("http://{}", proxy.address());
    let put = ["program", "put", path(&module), "--coordinator", &url];
    let program = grid.printed(&put);
    assert!(proxy.has_swallowed());
    assert_eq!(grid.printed(&["program", "list", "--output", "quiet"]), program);

    grid.coordinator.kill();
    let nobody = grid.divvy(&["program", "put", path(&module)]);
    assert_eq!(nobody.status.code(), Some(3), "at once: {nobody:?}");
}

const TALKER: &str = r#"
[program.talk]
command = ["python3", "-c", "import sys, time; a = sys.argv; print('begun', a[1], file=sys.stderr, flush=True); print(sys.stdin.read() + a[1], end=''); sys.exit(int(a[2]))"]
[program.wait]
command = ["python3", "-c", "import sys, time; print('waits', file=sys.stderr, flush=True); time.sleep(600)"]
[program.gate]
command = ["python3", "-c", """
import os, sys, time
print('begun', file=sys.stderr, flush=True)
time.sleep(0.1)
print('and a little later', file=sys.stderr, flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print('the end', end='', file=sys.stderr)
"""]
[program.join]
command = ["python3", "-c", "import sys; print('+'.join(line.rstrip() for line in sys.stdin))"]
"#;

#[test]
fn named_programs_are_announced_and_get_arguments_payloads_and_a_fold() {
    let grid = ProgramGrid::start();
    let names = grid.names(TALKER);
    let unknown =
        grid.divvy(&["job", "submit", "program", "--program", "nobody-has-it", "--range", "0..1", "--step", "1"]);
    assert!(unknown.status.success());
    let _worker = grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    let unknown =
        grid.divvy(&["job", "submit", "program", "--program", "nobody-has-it", "--range", "0..1", "--step", "1"]);
    let note = String::from_utf8_lossy(&unknown.stderr);
    assert!(note.contains("the program nobody-has-it"), "{note}");
    let listed = grid.printed(&["program", "names", "--output", "quiet"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["gate", "join", "sum-integers", "talk", "wait"]);

    let args = grid.write("args.jsonl", "[\"a\", 0]\n[\"b\", 0]\n[\"c\", 0]\n");
    let payloads = grid.write("payloads.jsonl", "\"x\"\n\"y\"\n{\"z\": 1}\n");
    let files = ["--args-file", path(&args), "--payloads", path(&payloads)];
    let job = grid.submit("talk", &files);
    assert_eq!(grid.result(&job)["tasks"], serde_json::json!(["xa", "yb", "{\"z\": 1}c"]));
    let job = grid.submit("talk", &[&files[..], &["--combine", "concat"]].concat());
    assert_eq!(grid.result(&job)["output"], "xayb{\"z\": 1}c");
    let job = grid.submit("talk", &[&files[..2], &["--combine-program", "join"]].concat());
    assert_eq!(grid.result(&job)["output"], "a+b+c\n");
    assert_eq!(grid.job(&job)["tasks"]["total"], 4);
}

#[test]
fn failing_task_says_its_code_and_the_end_of_its_stderr_and_the_log_is_kept() {
    let grid = ProgramGrid::start();
    let names = grid.names(TALKER);
    let _worker = grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    let args = grid.write("args.jsonl", "[\"a\", 0]\n[\"b\", 3]\n");
    let job = grid.submit("talk", &["--args-file", path(&args), "--max-attempts", "2"]);
    assert_eq!(grid.ended(&job)["state"], "failed");
    let tasks = grid.tasks(&job);
    assert_eq!((&tasks[0]["state"], &tasks[1]["state"]), (&"succeeded".into(), &"failed".into()), "{tasks:?}");
    assert_eq!(tasks[1]["last_error"], "it exited with code 3; the end of its stderr: begun b", "{tasks:?}");
    let logs = grid.printed(&["job", "logs", &job]);
    assert_eq!(logs, "[task 0] begun a\n[task 1] begun b\n[task 1] begun b");
    assert_eq!(grid.printed(&["job", "logs", &job, "--task", "0"]), "[task 0] begun a");
    let waited = grid.divvy(&["job", "wait", &job]);
    let told = String::from_utf8_lossy(&waited.stderr);
    assert!(
        waited.status.code() == Some(1) && told.contains("1 of 2 tasks failed; task 1: it exited with code 3"),
        "{told}"
    );
}

#[test]
fn stderr_outlives_its_worker_and_its_coordinator() {
    let mut grid = ProgramGrid::start();
    let names = grid.names(TALKER);
    let mut worker = grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    let job = grid.submit("wait", &["--range", "0..1", "--step", "1", "--max-attempts", "1"]);
    let log = |grid: &ProgramGrid| grid.ask("GET", &format!("/v1/jobs/{job}/logs"), "").json()["logs"][0].clone();
    eventually("its stderr is seen", || (log(&grid)["text"] == "waits\n").then_some(()));
    grid.coordinator.wait_until_all_is_stored();
    grid.coordinator.kill();
    grid.restart_coordinator_with(&[LONG_RECOVERY]);
    // The program is silent by now.
    eventually("the next coordinator has it", || (log(&grid)["text"] == "waits\n").then_some(()));
    assert_eq!(log(&grid)["ended_at"], serde_json::Value::Null);
    worker.kill();
    assert_eq!(grid.ended(&job)["state"], "failed");
    eventually("it is stored", || log(&grid)["ended_at"].is_string().then_some(()));
    assert_eq!(log(&grid)["text"], "waits\n");
}

#[test]
fn native_program_that_is_to_be_reproducible_is_refused_at_submit() {
    let grid = ProgramGrid::start();
    let program = grid.put(&grid.native_example());
    let params = format!(r#"{{"program":"{program}","args":[["0","1"]],"reproducible":true}}"#);
    let body = format!(r#"{{"kind":"program","params":{params}}}"#);
    let refused = grid.ask("POST", "/v1/jobs", &body).problem(400);
    assert!(refused.contains("reproducible is for WASI programs") && refused.contains(&program), "{refused}");
}

#[test]
fn follower_sees_stderr_before_the_task_ends_and_outlives_the_coordinator() {
    let mut grid = ProgramGrid::start();
    let (gate, names) = (grid.file("gate"), grid.names(TALKER));
    let _worker = grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    let args = grid.write("args.jsonl", format!("[{:?}]\n", path(&gate)));
    let job = grid.submit("gate", &["--args-file", path(&args)]);
    let follower = grid.follow(&["job", "logs", &job, "--follow"]);
    assert_eq!(follower.line().as_deref(), Some("[task 0] begun"));
    assert_eq!(follower.line().as_deref(), Some("[task 0] and a little later"));
    assert_eq!(grid.job(&job)["state"], "running");

    grid.coordinator.wait_until_all_is_stored();
    grid.coordinator.kill();
    grid.restart_coordinator_with(&[LONG_RECOVERY]);
    grid.write("gate", "");
    assert_eq!(follower.line().as_deref(), Some("[task 0] the end"));
    assert_eq!(follower.line(), None, "it ends with the job");
    assert!(follower.succeeds());
}

#[test]
fn log_request_waits_for_what_is_new_and_for_the_end() {
    let grid = ProgramGrid::start();
    let (gate, names) = (grid.file("gate"), grid.names(TALKER));
    let _worker = grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    let args = grid.write("args.jsonl", format!("[{:?}]\n", path(&gate)));
    let job = grid.submit("gate", &["--args-file", path(&args)]);
    let logs = |query: &str| grid.ask("GET", &format!("/v1/jobs/{job}/logs{query}"), "");
    let mut page = logs("").json();
    let (mut answers, mut text) = (0, String::new());
    while !text.contains("later") {
        answers += 1;
        page = logs(&format!("?wait=30s&after={}", page["cursor"].as_str().expect("a cursor"))).json();
        text = page["logs"][0]["text"].as_str().unwrap_or(&text).to_owned();
    }
    // Nothing, the first line, and both.
    assert!(answers <= 3, "each answer has something new: {answers}");
    let after = page["cursor"].as_str().expect("a cursor").to_owned();
    let idle = logs(&format!("?after={after}")).json();
    assert_eq!((&idle["logs"], &idle["is_over"]), (&serde_json::json!([]), &false.into()), "{idle}");
    assert!(logs(&format!("?after={after}&task=1")).problem(404).ends_with("has no task 1"));

    grid.write("gate", "");
    while page["is_over"] == false {
        page = logs(&format!("?wait=30s&after={}", page["cursor"].as_str().expect("a cursor"))).json();
    }
    let whole = logs(&format!("?after={after}")).json();
    assert_eq!(whole["logs"][0]["text"], "begun\nand a little later\nthe end", "{whole}");
    assert_eq!(logs("?after=0-0").json()["logs"], whole["logs"], "of another term: everything");
    assert!(logs("?after=x").problem(400).contains("cursor"));
}

#[test]
fn canceled_job_and_killed_worker_leave_no_process_and_logs_are_seen_meanwhile() {
    let grid = ProgramGrid::start();
    let hostile = grid.put(&grid.hostile());
    let names = grid.names(TALKER);
    let variables = [("DIVVY_ALLOW_NATIVE", "1"), ("DIVVY_PROGRAMS", path(&names))];
    let start_worker = || grid.worker("worker", &variables);
    let worker = start_worker();

    let talking = grid.submit("wait", &["--range", "0..1", "--step", "1"]);
    eventually("its stderr is seen", || (grid.printed(&["job", "logs", &talking]) == "[task 0] waits").then_some(()));
    grid.printed(&["job", "cancel", &talking]);

    assert_processes_go(&grid, "uploaded", worker, start_worker, |marker| {
        let args = grid.write("args.jsonl", format!("[\"orphan\", 1, {marker:?}]\n"));
        grid.submit(&hostile, &["--args-file", path(&args)])
    });
}

#[test]
fn large_outputs_become_a_result_within_the_memory_that_is_set_aside() {
    let _turn = heavy();
    let grid = ProgramGrid::start_with(&[("DIVVY_MAX_OUTCOME_MEMORY", "25165824")]);
    let names =
        grid.names("[program.flood]\ncommand = [\"/bin/sh\", \"-c\", \"head -c 4194304 /dev/zero | tr '\\\\0' x\"]");
    let variables = [("DIVVY_PROGRAMS", path(&names)), ("DIVVY_SLOTS", "4")];
    let _workers = [grid.worker("one", &variables), grid.worker("other", &variables)];
    let arguments = ["--range", "0..100", "--step", "1", "--output-limit", "4194304"];
    let job = grid.submit("flood", &arguments);
    let succeeded = || (grid.state(&job)? == "succeeded").then_some(());
    within(Duration::from_secs(600), "the job succeeds", succeeded);
    let results = fs::read_dir(grid.coordinator.data_dir().join("results")).expect("a directory").flatten();
    let longest = results.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).max();
    let (outputs, between) = (100 * ((4 << 20) + r#""""#.len()), 99);
    assert_eq!(longest, Some((r#"{"tasks":[]}"#.len() + outputs + between) as u64));
    let peak = grid.coordinator.peak_bytes();
    println!("the coordinator took {} MiB for {} MiB of outputs", peak >> 20, 100 << 2);
    assert!(peak < 256 << 20, "{} MiB", peak >> 20);
}

#[test]
fn results_above_the_coordinators_bound_are_a_clear_error_of_their_task() {
    let bounds = [("DIVVY_MAX_RESULT_BYTES", "65536"), ("DIVVY_MAX_OUTPUT_BYTES", "65536")];
    let grid = ProgramGrid::start_with(&bounds);
    let names = grid
        .names("[program.bell]\ncommand = [\"/bin/sh\", \"-c\", \"head -c 20000 /dev/zero | tr '\\\\0' '\\\\007'\"]");
    let worker = grid.worker("worker", &[("DIVVY_PROGRAMS", path(&names))]);
    let range = ["--range", "0..1", "--step", "1", "--max-attempts", "1"];
    let refused = [&["job", "submit", "program", "--program", "bell"], &range[..]].concat();
    let refused = grid.divvy(&refused);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("at most 65536 here"), "{refused:?}");
    let job = grid.submit("bell", &[&range[..], &["--output-limit", "65536"]].concat());
    grid.ended(&job);
    let error = grid.tasks(&job)[0]["last_error"].clone();
    assert_eq!(error, "its results are longer than 65536 bytes of JSON (DIVVY_MAX_RESULT_BYTES)");
    grid.stays_ready(&worker);
}

#[test]
fn draining_worker_hands_a_running_program_back_as_no_failed_attempt() {
    let grid = ProgramGrid::start();
    let names = grid.names(TALKER);
    let variables = [("DIVVY_PROGRAMS", path(&names)), ("DIVVY_DRAIN_TIMEOUT_MS", "300")];
    let mut worker = grid.worker("worker", &variables);
    let job = grid.submit("wait", &["--range", "0..1", "--step", "1"]);
    eventually("it runs", || (grid.job(&job)["tasks"]["running"] == 1).then_some(()));
    let told_at = Instant::now();
    worker.signal(Signal::TERM);
    assert_eq!(worker.exit_status().code(), Some(0));
    assert!(told_at.elapsed() < Duration::from_secs(10), "{:?}", told_at.elapsed());
    eventually("it waits again", || (grid.job(&job)["tasks"]["pending"] == 1).then_some(()));
    assert_eq!(grid.tasks(&job)[0]["attempts"].as_u64().unwrap_or(0), 0, "{:?}", grid.tasks(&job));
}
