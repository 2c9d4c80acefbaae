//! Canceling, pausing, resuming and retrying.

use api::{Changed, Job, JobPage};
use model::JobState;

use crate::helpers::{Grid, assert_fails};

#[test]
fn job_is_paused_resumed_canceled_and_retried() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "600"]);
    for (action, states) in [
        ("pause", &[JobState::Paused][..]),
        ("resume", &[JobState::Queued, JobState::Running]),
        ("cancel", &[JobState::Canceled]),
        ("retry", &[JobState::Queued, JobState::Running]),
    ] {
        let job: Job = grid.json(&["job", action, &id]);
        assert!(states.contains(&job.state), "{action}: {}", job.state);
    }
}

#[test]
fn jobs_that_cannot_change_do_not_keep_others_from_it() {
    let grid = Grid::start();
    let over = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &over]);
    let other = grid.submit(&["sleep", "--seconds", "600"]);
    let output = grid.run(&["job", "pause", &over, &other, "--output", "quiet"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{other}\n"));
    assert_fails(&output, 2);
    let unknown = "0190a5b0-0000-7000-8000-000000000001";
    let line = assert_fails(&grid.run(&["job", "cancel", &over, unknown]), 2);
    assert!(line.contains("2 jobs could not be changed") && line.contains(&over), "{line}");
}

#[test]
fn all_jobs_that_a_filter_finds_are_changed() {
    let grid = Grid::start();
    for tag in ["team=a", "team=a", "team=b"] {
        grid.submit(&["sleep", "--seconds", "600", "--tag", tag]);
    }
    let changed: Changed = grid.json(&["job", "cancel", "--all", "--tag", "team=a"]);
    assert_eq!((changed.matched, changed.changed), (2, 2));
    let left: JobPage = grid.json(&["job", "list", "--state", "queued", "--state", "running"]);
    assert_eq!(left.jobs.iter().map(|job| job.tags["team"].as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(grid.stdout(&["job", "cancel", "--all"]), "1 job changed\n");
    assert_eq!(grid.stdout(&["job", "retry", "--all"]), "0 jobs changed\n", "canceled jobs stay canceled");
    assert_eq!(grid.stdout(&["job", "retry", "--all", "--state", "canceled", "--output", "quiet"]), "3\n");
}

#[test]
fn filters_without_all_are_refused() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "600"]);
    assert_fails(&grid.run(&["job", "cancel", &id, "--kind", "sleep"]), 2);
    assert_fails(&grid.run(&["job", "cancel", &id, "--all"]), 2);
    for action in ["cancel", "pause", "resume", "retry"] {
        assert!(assert_fails(&grid.run(&["job", action]), 2).contains("--all"), "{action}");
    }
}
