//! Outputs of programs that are longer than what stands in a row: from the worker to the object store and to the client,
//! whatever is killed, full or canceled on the way.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::disks::{fill, small_disk};
use crate::helpers::{Coordinator, ProgramGrid, Proxy, Worker, eventually, heavy, path, request, within};

/// A build without optimization takes a while for the hashes.
const LONG: Duration = Duration::from_secs(600);

/// Numbers that are counted up, a line each, cut after so many bytes.
const COUNT: &str = "[program.count]\ncommand = [\"/bin/sh\", \"-c\", \"seq 1 1000000000 | head -c $0\"]\n\
    [program.join]\ncommand = [\"/bin/sh\", \"-c\", \"cat\"]\n\
    [program.noise]\ncommand = [\"/bin/sh\", \"-c\", \"seq 1 1000000000 | tr 0-9 '\\\\200-\\\\211' | head -c $0\"]\n";

const MIB: u64 = 1 << 20;

/// Bytes of an output that come from a worker whose outputs stall: some parts that a store writes at once, and far from all.
const STALLED_AFTER: usize = 24 << 20;

/// The checksum of the same bytes by coreutils.
fn sum_of(bytes: u64) -> String {
    sha256sum(Command::new("sh").args(["-c", &format!("seq 1 1000000000 | head -c {bytes} | sha256sum")]))
}

fn sum_of_file(file: &Path) -> String {
    sha256sum(Command::new("sha256sum").arg(file))
}

fn sha256sum(command: &mut Command) -> String {
    let output = command.output().expect("this test needs coreutils");
    String::from_utf8(output.stdout).expect("digits").split(' ').next().expect("a sum").to_owned()
}

/// The first bytes of the output of the program `count`.
fn counted(bytes: u64) -> String {
    let mut text: String = (0..bytes).map(|number| format!("{}\n", number + 1)).collect();
    text.truncate(usize::try_from(bytes).expect("few"));
    text
}

struct Outputs {
    grid: ProgramGrid,
    names: PathBuf,
}

impl Outputs {
    fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::of(ProgramGrid::start_with(variables))
    }

    fn of(grid: ProgramGrid) -> Self {
        let names = grid.names(COUNT);
        Self { grid, names }
    }

    fn worker(&self, name: &str) -> Worker {
        self.grid.worker(name, &[("DIVVY_PROGRAMS", path(&self.names))])
    }

    /// A worker whose long outputs are handed in half way and no further, so that they are on their way whenever a test looks.
    fn stalling_worker(&self, name: &str) -> Worker {
        let way = Proxy::that_stalls_after(STALLED_AFTER, self.grid.coordinator.internal);
        let coordinator = format!("http://{}", way.address());
        self.grid.worker(name, &[("DIVVY_PROGRAMS", path(&self.names)), ("DIVVY_COORDINATOR", &coordinator)])
    }

    /// A job that prints so many bytes in each task.
    fn submit(&self, program: &str, lengths: &[u64], options: &[&str]) -> String {
        let lines: String = lengths.iter().map(|length| format!("[\"{length}\"]\n")).collect();
        let file = self.grid.write("lengths.jsonl", lines);
        self.grid.submit(program, &[&["--args-file", path(&file), "--output-limit", "1GiB"], options].concat())
    }

    fn succeeds(&self, job: &str) {
        within(LONG, "the job succeeds", || (self.grid.state(job)? == "succeeded").then_some(()));
    }

    /// Writes a task's output to a file.
    fn download(&self, job: &str, task: u64) -> PathBuf {
        let file = self.grid.file("output");
        self.grid.printed(&["job", "result", job, "--task", &task.to_string(), "--file", path(&file)]);
        file
    }

    /// The files of outputs and their lengths, in the data directory as the coordinator sees it: those that are whole, and
    /// those on their way.
    fn files(&self) -> (Vec<u64>, Vec<u64>) {
        let coordinator = &self.grid.coordinator;
        let own = coordinator.data_dir().strip_prefix("/").expect("absolute");
        let mut found = (Vec::new(), Vec::new());
        walk(&coordinator.root().join(own).join("results/outputs"), &mut found);
        found
    }

    /// Waits until some of an output is on its way.
    fn is_under_way(&self) {
        eventually("an output is on its way", || self.files().1.iter().any(|length| *length > 0).then_some(()));
    }
}

fn walk(directory: &Path, found: &mut (Vec<u64>, Vec<u64>)) {
    // It may not be there, or be gone by now.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), found);
        } else if entry.file_name().to_string_lossy().contains('#') {
            found.1.push(metadata.len());
        } else {
            found.0.push(metadata.len());
        }
    }
}

#[test]
fn output_of_200_mib_passes_a_coordinator_and_a_worker_whose_memory_stays_small() {
    let _turn = heavy();
    let outputs = Outputs::start_with(&[("DIVVY_MAX_OUTCOME_MEMORY", "16777216")]);
    let worker = outputs.worker("worker");
    let before = (outputs.grid.coordinator.peak_bytes(), worker.peak_bytes());
    let job = outputs.submit("count", &[200 * MIB], &[]);
    outputs.succeeds(&job);
    let output = outputs.download(&job, 0);
    assert_eq!(sum_of_file(&output), sum_of(200 * MIB));

    let whole = outputs.grid.file("result.json");
    outputs.grid.printed(&["job", "result", &job, "--file", path(&whole)]);
    let counted = Command::new("wc").args(["-l", path(&output)]).output().expect("this test needs coreutils");
    let lines = String::from_utf8_lossy(&counted.stdout).split(' ').next().and_then(|lines| lines.parse::<u64>().ok());
    let expected = r#"{"tasks":[""]}"#.len() as u64 + 200 * MIB + lines.expect("a number");
    assert_eq!(fs::metadata(&whole).expect("a result").len(), expected, "a line break takes two bytes");

    let grown = (outputs.grid.coordinator.peak_bytes() - before.0, worker.peak_bytes() - before.1);
    println!("the coordinator took {} MiB more, the worker {} MiB", grown.0 >> 20, grown.1 >> 20);
    assert!(grown.0 < 96 * MIB && grown.1 < 48 * MIB, "{grown:?}");
    assert_eq!(outputs.grid.coordinator.metric("divvy_handed_in_outputs_bytes_total"), (200 * MIB) as f64);
}

#[test]
fn output_is_exact_though_worker_and_coordinator_are_killed_while_it_is_handed_in() {
    let _turn = heavy();
    let mut outputs = Outputs::start_with(&[]);
    let mut worker = outputs.stalling_worker("worker");
    let job = outputs.submit("count", &[64 * MIB], &[]);
    outputs.is_under_way();
    outputs.grid.coordinator.kill();
    outputs.grid.restart_coordinator();
    eventually("it is handed in anew", || (outputs.files().1.len() == 2).then_some(()));
    worker.kill();
    let _other = outputs.worker("other");
    outputs.succeeds(&job);
    assert_eq!(sum_of_file(&outputs.download(&job, 0)), sum_of(64 * MIB));
    assert_eq!(outputs.files().0, [64 * MIB], "one is whole");
    let tasks = outputs.grid.tasks(&job);
    assert_eq!(tasks[0]["result"]["object"]["bytes"], 64 * MIB, "{tasks:?}");
}

#[test]
fn outputs_at_the_bounds_are_in_the_row_or_an_object_or_an_error() {
    let outputs = Outputs::start_with(&[("DIVVY_MAX_OUTPUT_BYTES", "131072")]);
    let _worker = outputs.worker("worker");
    let limit = |bytes: &'static str| ["--output-limit", bytes, "--max-attempts", "1"];
    let args =
        outputs.grid.write("lengths.jsonl", "[\"65536\"]\n[\"65537\"]\n[\"131071\"]\n[\"131072\"]\n[\"131073\"]\n");
    let submit = |limit: &[&str]| {
        let submit =
            ["job", "submit", "program", "--output", "quiet", "--program", "count", "--args-file", path(&args)];
        outputs.grid.divvy(&[&submit[..], limit].concat())
    };
    let refused = submit(&limit("131073"));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("at most 131072 here (DIVVY_MAX_OUTPUT_BYTES)"), "{message}");
    let job = String::from_utf8(submit(&limit("131072")).stdout).expect("an id").trim_end().to_owned();
    assert_eq!(outputs.grid.ended(&job)["state"], "failed");
    let tasks = outputs.grid.tasks(&job);
    assert!(tasks[0]["result"].as_str().is_some_and(|text| text.len() == 65_536), "{}", tasks[0]);
    for (task, bytes) in [(1, 65_537), (2, 131_071), (3, 131_072)] {
        assert_eq!(tasks[task]["result"]["object"]["bytes"], bytes, "{}", tasks[task]);
    }
    let error = tasks[4]["last_error"].as_str().expect("an error");
    assert_eq!(error, "it wrote more to stdout than its limit of 131072 bytes");
    for (task, bytes) in [(0, 65_536), (1, 65_537), (2, 131_071), (3, 131_072)] {
        assert_eq!(sum_of_file(&outputs.download(&job, task)), sum_of(bytes));
    }
    let result = |task: &str| outputs.grid.ask("GET", &format!("/v1/jobs/{job}/tasks/{task}/result"), "");
    assert!(result("4").problem(409).contains("has no result"));
    assert!(result("5").problem(404).contains("no task"));
    assert!(result("x").problem(404).contains("no task"));
    assert!(result("1").head.contains("content-type: text/plain; charset=utf-8"));
}

#[test]
fn long_outputs_are_listed_joined_and_combined_by_a_program() {
    let outputs = Outputs::start_with(&[]);
    let _worker = outputs.worker("worker");
    let lengths = [100_000, 10, 70_000];
    let parts = lengths.map(counted);
    let listed = outputs.submit("count", &lengths, &[]);
    assert_eq!(outputs.grid.result(&listed), json!({"tasks": parts}));
    let joined = outputs.submit("count", &lengths, &["--combine", "concat"]);
    assert_eq!(outputs.grid.result(&joined), json!({"output": parts.concat()}));
    let lines: String = parts.iter().map(|part| format!("{}\n", part.strip_suffix('\n').unwrap_or(part))).collect();
    let combined = outputs.submit("count", &lengths, &["--combine-program", "join"]);
    assert_eq!(outputs.grid.result(&combined), json!({"output": lines}));
    let added = outputs.submit("count", &[100_000], &["--combine", "sum", "--max-attempts", "1"]);
    assert_eq!(outputs.grid.ended(&added)["state"], "failed", "it is no number");

    let noise = outputs.submit("noise", &[100_001], &[]);
    let result = outputs.grid.result(&noise);
    let file = outputs.download(&noise, 0);
    let base64 = Command::new("base64").args(["-w0", path(&file)]).output().expect("this test needs coreutils");
    assert_eq!(result["tasks"][0]["base64"].as_str().map(str::as_bytes), Some(&base64.stdout[..]));
    assert_eq!(fs::metadata(&file).expect("a file").len(), 100_001);
}

#[test]
fn canceled_job_ends_the_handing_in_of_its_output_and_the_worker_goes_on() {
    let _turn = heavy();
    let outputs = Outputs::start_with(&[]);
    let _worker = outputs.stalling_worker("worker");
    let job = outputs.submit("count", &[128 * MIB], &[]);
    outputs.is_under_way();
    outputs.grid.printed(&["job", "cancel", &job]);
    eventually("nothing of it is left", || (outputs.files() == (Vec::new(), Vec::new())).then_some(()));
    let next = outputs.submit("count", &[10], &[]);
    assert_eq!(outputs.grid.result(&next)["tasks"], json!(["1\n2\n3\n4\n5\n"]));
    assert_eq!(outputs.files(), (Vec::new(), Vec::new()));
}

#[test]
fn output_waits_at_its_worker_while_the_disk_of_the_coordinator_is_full() {
    let _turn = heavy();
    let Some((data_dir, mount)) = small_disk(128) else { return };
    let start = |variables: &[(&str, &str)]| Coordinator::start_with_mount(Arc::clone(&data_dir), &mount, variables);
    let outputs = Outputs::of(ProgramGrid::start_by(start));
    let coordinator = &outputs.grid.coordinator;
    let own = coordinator.root().join(coordinator.data_dir().strip_prefix("/").expect("absolute"));
    let job = outputs.submit("count", &[32 * MIB], &[]);
    let filler = own.join("filler");
    fill(&filler);
    // The beginning of the output finds room, the whole does not, however fast it comes.
    let full = fs::metadata(&filler).expect("it is there").len();
    File::options().write(true).open(&filler).and_then(|file| file.set_len(full - 8 * MIB)).expect("room is freed");
    let _worker = outputs.worker("worker");
    outputs.is_under_way();
    eventually("what has come is deleted again", || outputs.files().1.is_empty().then_some(()));
    assert_eq!(outputs.files().0, [0; 0], "the whole output finds no room");
    assert_eq!(outputs.grid.job(&job)["tasks"]["running"], 1, "no attempt has failed");
    fs::remove_file(&filler).expect("it is there");
    outputs.succeeds(&job);
    assert_eq!(sum_of_file(&outputs.download(&job, 0)), sum_of(32 * MIB));
    assert_eq!(outputs.grid.tasks(&job)[0]["attempts"], 1);
}

#[test]
fn outcome_counts_only_with_outputs_that_its_own_attempt_has_handed_in() {
    let outputs = Outputs::start_with(&[]);
    let job = outputs.submit("count", &[70_000], &[]);
    let internal = outputs.grid.coordinator.internal;
    let claim =
        json!({"worker_id": "puller", "kinds": ["program"], "labels": {"divvy.program.count": "yes"}}).to_string();
    let claim = || {
        let answer = request(internal, "POST", "/v1/worker/claim", &[], &claim);
        (answer.status == 200).then(|| answer.json()["attempt"].clone())
    };
    let content = "x".repeat(70_000);
    let sum = sha256sum(Command::new("sh").args(["-c", "head -c 70000 /dev/zero | tr '\\0' x | sha256sum"]));
    let put = |attempt: &Value, task: u64, query: &str| {
        let attempt = attempt.as_str().expect("an id");
        request(internal, "PUT", &format!("/worker/outputs/{job}/{attempt}/{task}?{query}"), &[], &content)
    };
    let right = format!("bytes=70000&sha256={sum}&text=true");
    let complete = |attempt: &Value, of: &Value| {
        let object = json!({"attempt": of, "bytes": 70_000, "sha256": sum, "text": true});
        let body = json!({"results": [{"object": object}]}).to_string();
        let target = format!("/v1/worker/tasks/{}/complete", attempt.as_str().expect("an id"));
        request(internal, "POST", &target, &[], &body)
    };

    let first = claim().expect("a task");
    assert!(put(&first, 1, &right).problem(409).contains("holds no lease of the task"));
    assert!(put(&Value::from(job.as_str()), 0, &right).problem(409).contains("holds no lease of the task"));
    let wrong = format!("bytes=70000&sha256={}&text=true", "ab".repeat(32));
    assert!(put(&first, 0, &wrong).problem(422).contains("SHA-256"));
    assert!(put(&first, 0, &right.replace("70000", "69999")).problem(422).contains("69999 bytes"));
    assert!(put(&first, 0, &right.replace("70000", "9999999999")).problem(413).contains("1073741824"));
    assert!(complete(&first, &first).problem(400).contains("the output of task 0 was not handed in"));
    assert!(complete(&first, &first).problem(409).contains("holds no lease"), "the attempt has failed");

    let second = eventually("the task is given out again", claim);
    assert_ne!(second, first);
    for _ in 0..2 {
        assert_eq!(put(&second, 0, &right).status, 204, "idempotent");
    }
    assert!(put(&first, 0, &right).problem(409).contains("holds no lease of the task"));
    let target = format!("/worker/outputs/{job}/{}/0?{right}", second.as_str().expect("an id"));
    let other = request(internal, "PUT", &target, &[], &"y".repeat(70_000));
    assert_eq!(other.status, 204, "it is there, and nothing else can take its place");
    assert_eq!(complete(&second, &second).status, 204);
    assert_eq!(outputs.grid.result(&job), json!({"tasks": [content]}));
    assert!(put(&second, 0, &right).problem(409).contains("holds no lease of the task"), "it is done");
}
