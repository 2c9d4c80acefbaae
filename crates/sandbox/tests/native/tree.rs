use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandbox::{Call, Reason};

use crate::helpers::{
    SLACK, call, command, grid, hostile_path, hostile_program, in_time, processes_marked, reason, text, wait_until,
    with_limits,
};

#[test]
fn orphans_end_with_their_program() {
    let grid = grid();
    for mode in ["orphan", "orphan in a session"] {
        grid.hostile(&call(&[mode, "0"])).expect("it ended by itself");
    }
}

#[test]
fn orphans_end_at_the_time_limit() {
    let grid = grid();
    let limit = Duration::from_millis(300);
    for mode in ["orphan", "orphan in a session"] {
        let call = with_limits(&[mode, "1"], |limits| limits.wall_time = limit);
        assert_eq!(reason(grid.hostile(&call)), Reason::TimeLimit { limit });
    }
}

/// Outside the cage `setsid` works, and grandchildren leave the group and the session.
#[test]
fn orphans_of_a_named_command_end_too() {
    let grid = grid();
    let program = command(&[hostile_path().to_str().expect("UTF-8")]);
    let limit = Duration::from_millis(300);
    let call = with_limits(&["orphan in a session", "1", &grid.marker], |limits| limits.wall_time = limit);
    assert_eq!(reason(grid.run(&program, &call)), Reason::TimeLimit { limit });
    grid.assert_nothing_is_left();
    // The orphan tells of itself before its program is stopped.
    let stop = AtomicBool::new(false);
    let call = crate::helpers::call(&["orphan in a session", "1", &grid.marker]);
    let failure = grid.sandbox.run(&program, &call, &stop, &mut |_| stop.store(true, Ordering::Relaxed));
    let failure = failure.expect_err("endless");
    assert_eq!(failure.reason, Reason::Canceled);
    assert!(String::from_utf8_lossy(&failure.stderr_tail).starts_with("orphan "), "{failure:?}");
    grid.assert_nothing_is_left();
    grid.run(&program, &crate::helpers::call(&["orphan in a session", "0", &grid.marker])).expect("finished");
    grid.assert_nothing_is_left();
}

#[test]
fn a_fork_bomb_outside_the_cage_ends_too() {
    let grid = grid();
    let program = command(&[hostile_path().to_str().expect("UTF-8")]);
    let outcome = grid.run(&program, &call(&["fork", &grid.marker]));
    assert_eq!(reason(outcome), Reason::ProcessLimit { limit: 16 });
    grid.assert_nothing_is_left();
}

#[test]
fn orphans_that_have_ended_are_no_processes_any_more() {
    let grid = grid();
    // Each ends before the next one begins. Then comes time for a look at them.
    let script = "for orphan in $(seq 40); do ended=$( (true &) ); done; sleep 0.3; echo done";
    let finished = grid.run(&command(&["sh", "-c", script]), &call(&[])).expect("finished");
    assert_eq!(text(&finished.stdout), "done\n");
}

#[test]
fn a_stopped_program_gets_one_sigterm() {
    let grid = grid();
    for program in [hostile_program(), command(&[hostile_path().to_str().expect("UTF-8")])] {
        let stop = AtomicBool::new(false);
        let call = with_limits(&["count SIGTERM"], |limits| limits.grace = Duration::from_secs(20));
        // Only what it says at its start lets it be stopped.
        let outcome = grid.sandbox.run(&program, &call, &stop, &mut |_| stop.store(true, Ordering::Relaxed));
        assert_eq!(outcome.expect_err("stopped").stderr_tail, b"ready\n1\n");
    }
}

#[test]
fn a_stopped_program_is_gone_within_a_second() {
    let grid = grid();
    for mode in ["loop", "ignore SIGTERM", "orphan in a session"] {
        let call = Call { args: vec![mode.to_owned(), "1".to_owned(), grid.marker.clone()], ..call(&[]) };
        let outcome = in_time(SLACK, || {
            let stop = AtomicBool::new(false);
            std::thread::scope(|threads| {
                let running = threads.spawn(|| grid.sandbox.run(&hostile_program(), &call, &stop, &mut |_| {}));
                wait_until("the program", || !processes_marked(&grid.marker).is_empty());
                let stopped_at = Instant::now();
                stop.store(true, Ordering::Relaxed);
                let outcome = running.join().expect("no panic");
                grid.assert_nothing_is_left();
                (outcome, stopped_at.elapsed())
            })
        });
        assert_eq!(reason(outcome), Reason::Canceled, "{mode}");
    }
}

#[test]
fn stderr_comes_while_the_program_runs() {
    let grid = grid();
    let stop = AtomicBool::new(false);
    let mut seen = Vec::new();
    let call = with_limits(&["end at SIGTERM"], |limits| limits.grace = Duration::from_secs(20));
    // Only what it says at its start lets it be stopped.
    let outcome = grid.sandbox.run(&hostile_program(), &call, &stop, &mut |chunk| {
        seen.extend_from_slice(chunk);
        stop.store(true, Ordering::Relaxed);
    });
    let failure = outcome.expect_err("stopped");
    assert_eq!(failure.reason, Reason::Canceled);
    assert_eq!(failure.stderr_tail, seen);
    assert_eq!(seen, b"ready\nended cleanly\n");
}

#[test]
fn a_program_with_many_running_threads_weighs_about_as_much_as_one_with_one() {
    let grid = grid();
    let base = rustix::process::getpriority_process(None).expect("a niceness") + 5;
    // By how much the threads are lowered, and the niceness of the session where the kernel has one.
    for (threads, steps, session) in [("1", 0, "nice 0"), ("8", 12, "nice 3"), ("16", 14, "nice 3")] {
        let nice = (base + steps).min(19);
        let call = Call { args: vec!["busy threads".into(), threads.into(), grid.marker.clone()], ..call(&[]) };
        let stop = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            let running = scope.spawn(|| grid.sandbox.run(&hostile_program(), &call, &stop, &mut |_| {}));
            wait_until(&format!("niceness {nice} of {threads} threads"), || {
                let found: Vec<_> = processes_marked(&grid.marker).into_iter().flat_map(niceness).collect();
                found.len().to_string() == threads && found.iter().all(|found| *found == nice)
            });
            wait_until(&format!("the session of {threads} threads"), || {
                let shown = |process| std::fs::read_to_string(format!("/proc/{process}/autogroup")).unwrap_or_default();
                let mut shown = processes_marked(&grid.marker).into_iter().map(shown);
                shown.all(|shown| shown.is_empty() || shown.trim_end().ends_with(session))
            });
            stop.store(true, Ordering::Relaxed);
            running.join().expect("no panic")
        });
        assert_eq!(reason(outcome), Reason::Canceled);
    }
}

/// The niceness of a process's threads.
fn niceness(process: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    let nice = |stat: String| {
        let mut fields = stat.rsplit(')').next().expect("fields").split_whitespace();
        fields.nth(16).expect("fields").parse().expect("a niceness")
    };
    stats.map(nice).collect()
}
