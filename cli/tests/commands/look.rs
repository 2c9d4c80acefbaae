//! Seeing jobs, tasks, workers and figures.

use api::{Explanation, Job, JobPage, Stats, TaskPage, WorkerState, WorkerSummary};
use model::{JobState, TaskState};

use crate::helpers::{Grid, assert_fails, eventually};

#[test]
fn jobs_are_listed_by_state_kind_tag_and_up_to_a_limit() {
    let grid = Grid::start();
    let counted = grid.submit(&["count-primes", "1", "100", "--tag", "team=a"]);
    grid.stdout(&["job", "wait", &counted]);
    let paused = grid.submit(&["sleep", "--seconds", "600", "--tag", "team=b"]);
    grid.stdout(&["job", "pause", &paused]);
    let list = |arguments: &[&str]| grid.stdout(&[&["job", "list", "--output", "quiet"], arguments].concat());
    assert_eq!(list(&[]), format!("{paused}\n{counted}\n"), "the newest first");
    assert_eq!(list(&["--state", "paused"]), format!("{paused}\n"));
    assert_eq!(list(&["--state", "paused", "--state", "succeeded"]), format!("{paused}\n{counted}\n"));
    assert_eq!(list(&["--kind", "count-primes"]), format!("{counted}\n"));
    assert_eq!(list(&["--tag", "team=a"]), format!("{counted}\n"));
    assert_eq!(list(&["--tag", "team", "--limit", "1"]), format!("{paused}\n"));
    assert_eq!(list(&["--state", "failed"]), "");
    let page: JobPage = grid.json(&["job", "list", "--limit", "1"]);
    assert!(page.jobs.len() == 1 && page.next_page_token.is_some());
    let cut = grid.run(&["job", "list", "--limit", "1"]);
    assert_eq!(String::from_utf8_lossy(&cut.stderr), "there are more: raise --limit\n");
    let table = grid.stdout(&["job", "list"]);
    assert!(table.starts_with("ID ") && table.contains("team=b") && !table.contains('\u{1b}'), "{table}");
}

#[test]
fn job_is_shown_with_what_it_needs_and_why_it_waits() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "1", "--require", "gpu=yes", "--tag", "team=a"]);
    let job: Job = grid.json(&["job", "show", &id]);
    assert_eq!((job.id.to_string(), job.state), (id.clone(), JobState::Queued));
    let table = grid.stdout(&["job", "show", &id]);
    for part in [&id, "queued", "team=a", "gpu=yes", "0 of 1 succeeded", "notice"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert_eq!(grid.stdout(&["job", "show", &id, "--output", "quiet"]), format!("{id}\n"));
    let explanation: Explanation = grid.json(&["job", "explain", &id]);
    assert!(explanation.state == JobState::Queued && !explanation.reasons.is_empty());
    let text = grid.stdout(&["job", "explain", &id]);
    assert!(text.starts_with("queued\n- "), "{text}");
}

#[test]
fn tasks_are_listed_by_state() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "600", "--tasks", "2500"]);
    eventually("a task runs", || {
        let page: TaskPage = grid.json(&["job", "tasks", &id, "--state", "running"]);
        page.tasks.iter().any(|task| task.state == TaskState::Running).then_some(())
    });
    let page: TaskPage = grid.json(&["job", "tasks", &id, "--limit", "2400"]);
    assert!(page.tasks.iter().map(|task| task.index).eq(0..2400), "over several pages");
    let indices = grid.stdout(&["job", "tasks", &id, "--limit", "3", "--output", "quiet"]);
    assert_eq!(indices, "0\n1\n2\n");
    // Without a limit of its own a script takes the list for all of it.
    let cut = grid.run(&["job", "tasks", &id, "--output", "quiet"]);
    let (lines, stderr) =
        (cut.stdout.iter().filter(|byte| **byte == b'\n').count(), String::from_utf8_lossy(&cut.stderr));
    assert_eq!((lines, &*stderr), (1000, "there are more: raise --limit\n"));
    let whole = grid.submit(&["count-primes", "1", "10"]);
    assert_fails(&grid.run(&["job", "tasks", &whole]), 2);
}

#[test]
fn workers_and_figures_are_shown() {
    let grid = Grid::start();
    // A worker whose heartbeat is not answered in time is not ready until the next one.
    eventually("all are ready", || {
        let workers: Vec<WorkerSummary> = grid.json(&["worker", "list"]);
        workers.iter().all(|worker| worker.state == WorkerState::Ready).then_some(())
    });
    let mut names: Vec<_> = grid.stdout(&["worker", "list", "--output", "quiet"]).lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["worker-1", "worker-2"]);
    assert!(grid.stdout(&["worker", "list"]).starts_with("WORKER "));

    let id = grid.submit(&["sleep", "--seconds", "600", "--tasks", "7", "--priority", "8", "--require", "gpu=yes"]);
    let stats = eventually("both are ready", || {
        let stats: Stats = grid.json(&["stats"]);
        ((stats.workers.ready, stats.workers.slots) == (2, 2)).then_some(stats)
    });
    assert_eq!(stats.queue_depth_by_priority.get(&8), None, "no worker can run them");
    assert_eq!(grid.stdout(&["stats", "--output", "quiet"]), "0\n");
    let table = grid.stdout(&["stats"]);
    assert!(table.contains("0 runnable, 0 paused, 7 that no worker can run"), "{table}");
    assert!(stats.disk.is_some_and(|disk| disk.total_bytes > 0) && table.contains("\ndisk "), "{table}");
    grid.stdout(&["job", "cancel", &id]);
}

#[test]
fn workers_of_both_sorts_are_drained_by_name() {
    let grid = Grid::start();
    let claim = br#"{"worker_id": "puller", "kinds": ["tasks"]}"#;
    grid.post_internal("/v1/worker/claim", claim);
    let drained: Vec<WorkerSummary> = grid.json(&["worker", "drain", "worker-2", "puller"]);
    let names: Vec<_> = drained.iter().map(|worker| (worker.id.as_str(), worker.state)).collect();
    assert_eq!(names, [("puller", WorkerState::Draining), ("worker-2", WorkerState::Draining)]);
    eventually("the other one is ready", || {
        let workers = grid.json::<Stats>(&["stats"]).workers;
        ((workers.ready, workers.draining, workers.pulling) == (1, 2, 0)).then_some(())
    });
    assert_fails(&grid.run(&["worker", "drain", "nobody"]), 2);
    let some = grid.run(&["worker", "drain", "nobody", "worker-1", "--output", "quiet"]);
    assert!(assert_fails(&some, 2).contains("nobody"));
    assert_eq!(String::from_utf8_lossy(&some.stdout), "worker-1\n", "the others are drained, and told");
}
