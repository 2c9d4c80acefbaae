//! Submitting jobs.

use api::{Job, SimulationStarted};
use model::{JobKind, JobState};
use serde_json::Value;
use tempfile::tempdir;

use crate::helpers::{Grid, assert_fails, run_with_input};

#[test]
fn every_kind_of_work_is_submitted() {
    let grid = Grid::start();
    for (arguments, kind, params) in [
        (&["sum-of-primes", "10_000", "1e6"][..], JobKind::SUM_OF_PRIMES, r#"{"a":10000,"b":1000000}"#),
        (&["count-primes", "1", "1e6"], JobKind::COUNT_PRIMES, r#"{"a":1,"b":1000000}"#),
        (
            &["sleep", "--seconds", "0.01", "--tasks", "3", "--fail-rate", "0.25"],
            JobKind::SLEEP,
            r#"{"seconds":0.01,"fail_rate":0.25,"tasks":3}"#,
        ),
    ] {
        let job: Job = grid.json(&[&["job", "submit"], arguments].concat());
        // The grid shows params as they were sent; the order of their fields means nothing.
        let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!((job.kind, value(job.params.get())), (kind, value(params)));
    }
}

#[test]
fn every_option_reaches_the_job() {
    let grid = Grid::start();
    let id = "0190a5b0-1234-7000-8000-000000000001";
    let line = format!(
        "job submit sleep --seconds 0 --priority 9 --tag team=a --tag run=1 --affinity-key shard-1 \
         --affinity-label disk=ssd --require zone=b --require-cpus 2 --require-memory 1GiB --max-attempts 7 \
         --task-timeout 30s --job-timeout 1h --output-name report --id {id}"
    );
    let submit = || grid.json::<Job>(&line.split_whitespace().collect::<Vec<_>>());
    let job = submit();
    let words = |labels: &model::Labels| labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    assert_eq!((job.id.to_string().as_str(), job.priority.get(), job.max_attempts.get()), (id, 9, 7));
    assert_eq!(words(&job.tags), ["run=1", "team=a"]);
    assert_eq!(
        (words(&job.affinity.labels), job.affinity.key.as_deref()),
        (vec!["disk=ssd".to_owned()], Some("shard-1"))
    );
    assert_eq!(words(&job.requires.labels), ["zone=b"]);
    assert_eq!((job.requires.cpus, job.requires.memory_bytes), (Some(2), Some(1 << 30)));
    let seconds = (job.timeout.task_seconds.map(u32::from), job.timeout.job_seconds.map(u32::from));
    assert_eq!((seconds, job.output.as_deref()), ((Some(30), Some(3600)), Some("report")));
    assert_eq!(submit().id, job.id, "the same again is the same job");
    let page: api::JobPage = grid.json(&["job", "list"]);
    assert_eq!(page.jobs.len(), 1);
}

#[test]
fn key_that_is_given_twice_is_refused_with_its_option() {
    let grid = Grid::start();
    for option in ["--tag", "--require", "--affinity-label"] {
        let arguments = ["job", "submit", "sleep", "--seconds", "0", option, "a=1", option, "b=1", option, "a=2"];
        let stderr = assert_fails(&grid.run(&arguments), 2);
        assert!(stderr.contains(&format!("{option} gives a twice: give it once")), "{stderr}");
    }
    let arguments = ["job", "submit", "program", "--program", "p", "--range", "0..1", "--step", "1", "--env", "A=1"];
    let stderr = assert_fails(&grid.run(&[&arguments[..], &["--env", "A=1"]].concat()), 2);
    assert!(stderr.contains("--env gives A twice: give it once"), "{stderr}");
}

#[test]
fn a_range_with_a_number_below_0_is_refused_by_the_numbers_that_it_may_have() {
    let grid = Grid::start();
    let arguments = ["job", "submit", "program", "--program", "p", "--range", "-5..5", "--step", "1"];
    let stderr = assert_fails(&grid.run(&arguments), 2);
    assert!(stderr.contains("'-5..5'") && stderr.contains("an integer from 0"), "{stderr}");
}

#[test]
fn idempotency_key_submits_once_and_refuses_another_job() {
    let grid = Grid::start();
    let first = grid.submit(&["sleep", "--seconds", "0", "--idempotency-key", "k"]);
    assert_eq!(grid.submit(&["sleep", "--seconds", "0", "--idempotency-key", "k"]), first);
    let other = grid.run(&["job", "submit", "sleep", "--seconds", "1", "--idempotency-key", "k"]);
    assert_fails(&other, 2);
}

#[test]
fn tasks_come_from_lines_or_an_array_in_a_file_or_stdin() {
    let grid = Grid::start();
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("tasks");
    for (text, count) in [("{\"n\": 1}\n\n[2]\n\"three\"", 3), ("[{\"n\": 1}, 2]", 2)] {
        std::fs::write(&path, text).expect("write a file");
        let job: Job = grid.json(&["job", "submit", "tasks", path.to_str().expect("UTF-8")]);
        assert_eq!((job.kind, job.tasks.total), (JobKind::TASKS, count));
        let output = run_with_input(&mut grid.command(&["job", "submit", "tasks", "-", "--output", "json"]), text);
        let job: Job = serde_json::from_slice(&output.stdout).expect("a job");
        assert_eq!(job.tasks.total, count);
    }
    let output = run_with_input(&mut grid.command(&["job", "submit", "tasks", "-"]), "1\n{x}\n");
    assert!(assert_fails(&output, 2).contains("line 2"));
}

#[test]
fn whole_job_comes_from_a_file_and_options_win() {
    let grid = Grid::start();
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("job.json");
    let path = path.to_str().expect("UTF-8");
    std::fs::write(path, r#"{"kind":"count-primes","params":{"a":1,"b":100},"priority":2,"tags":{"a":"b"}}"#)
        .expect("write a file");
    let job: Job = grid.json(&["job", "submit", "--file", path, "--priority", "8", "--wait"]);
    assert_eq!((job.kind, job.priority.get(), job.state), (JobKind::COUNT_PRIMES, 8, JobState::Succeeded));
    assert_eq!(job.tags.get("a").map(String::as_str), Some("b"));
    let both = grid.run(&["job", "submit", "--file", path, "sleep", "--seconds", "1"]);
    assert_fails(&both, 2);
}

#[test]
fn simulation_spreads_over_priorities_and_is_waited_for() {
    let grid = Grid::start();
    let arguments = ["simulate", "--tasks", "9", "--seconds", "0.01", "--workers", "3", "--priority", "1,9", "--wait"];
    let started: SimulationStarted = grid.json(&arguments);
    let jobs: Vec<_> = started.jobs.iter().map(|job| (job.priority.get(), job.tasks.succeeded, job.state)).collect();
    assert_eq!(jobs, [(9, 5, JobState::Succeeded), (1, 4, JobState::Succeeded)]);
    let started: SimulationStarted = grid.json(&arguments[..arguments.len() - 3]);
    assert_eq!(started.jobs.iter().map(|job| job.priority.get()).collect::<Vec<_>>(), [5]);
}
