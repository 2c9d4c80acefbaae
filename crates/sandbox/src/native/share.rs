//! The share of the processors that a program has beside those of other slots: about that of one thread, however many of
//! its threads run.
//!
//! Linux weighs sessions against each other where it groups processes by session, and else, as in a container, threads. So
//! a program with several running threads makes its session a little lighter, and its threads lighter by their number. The
//! other programs then keep the processors that they need, and it has all that they leave.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use rustix::process::{Pid, getpriority_process, setpriority_process};

use super::{sys, tree};

/// Niceness of programs beyond that of the watch and of the worker's own threads. Among a thousand processes of a fork bomb
/// the watch would else wait for each one's turn.
const NICE: i32 = 5;
const LOWEST_NICE: i32 = 19;
/// The rank below all niceness, `SCHED_IDLE`.
const IDLE: i32 = LOWEST_NICE + 1;
/// The factor in a thread's weight of a step of niceness.
const STEP: f64 = 1.25;
/// Threads that together weigh as much as one are still moved to its processor: the kernel takes loads for equal that differ
/// by a sixth. So they weigh less than one by this factor.
const MARGIN: f64 = 1.5;
/// Niceness of a session in which several threads run, half the weight of another's.
const LIGHT_SESSION: i32 = 3;

/// The session of this process among those of the machine.
#[derive(Debug)]
pub(crate) struct Session {
    /// `None` where the kernel does not group by session.
    file: Option<File>,
    nice: i32,
}

impl Session {
    /// While this process is dumpable: later the file belongs to root.
    pub(crate) fn open() -> Self {
        Self { file: OpenOptions::new().write(true).open("/proc/self/autogroup").ok(), nice: 0 }
    }

    /// For all that the session has, also without privileges and in both directions. Without privileges the kernel changes
    /// one session of the machine in a tenth of a second: what is refused is set the next time.
    fn set(&mut self, nice: i32) {
        if let Some(file) = &mut self.file
            && nice != self.nice
            && file.write_all(nice.to_string().as_bytes()).is_ok()
        {
            self.nice = nice;
        }
    }
}

/// The share of a program.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    session: &'a mut Session,
    /// The niceness of programs.
    base: i32,
    /// The niceness of its threads, or more. A process without privileges cannot take it back, so nobody does.
    rank: i32,
}

impl<'a> Share<'a> {
    pub(crate) fn new(session: &'a mut Session) -> Self {
        session.set(0);
        let base = niceness_of_programs();
        Self { session, base, rank: base }
    }

    /// Weighs the processes of a program, which have so many threads together.
    pub(crate) fn weigh(&mut self, processes: &[i32], threads: u32) {
        if threads < 2 {
            return self.session.set(0);
        }
        let threads: Vec<_> = processes.iter().flat_map(|process| threads_of(*process)).collect();
        let running = threads.iter().filter(|thread| thread.is_running).count();
        self.session.set(if running > 1 { LIGHT_SESSION } else { 0 });
        self.rank = self.rank.max(rank_of(running, self.base));
        for thread in threads.iter().filter(|thread| thread.rank < self.rank) {
            thread.lower(self.rank);
        }
    }
}

/// The niceness of a program that the calling process starts.
pub(crate) fn niceness_of_programs() -> i32 {
    getpriority_process(None).unwrap_or(0).saturating_add(NICE).min(LOWEST_NICE)
}

/// The rank of threads of which so many run: each of them has its part of what one would have at `base`.
fn rank_of(running: usize, base: i32) -> i32 {
    if running < 2 {
        return base;
    }
    let steps = (running as f64 * MARGIN).log(STEP).ceil();
    base.saturating_add(steps as i32).min(IDLE)
}

#[derive(Debug, PartialEq, Eq)]
struct Thread {
    number: i32,
    /// It runs, or waits for a processor.
    is_running: bool,
    rank: i32,
}

impl Thread {
    /// It may have ended: numbers are given out in turn, so that no other thread has its number so soon.
    fn lower(&self, rank: i32) {
        let Some(thread) = Pid::from_raw(self.number) else { return };
        let _ = if rank == IDLE {
            sys::schedule_as_idle(thread)
        } else {
            setpriority_process(Some(thread), rank).map_err(Into::into)
        };
    }
}

fn threads_of(process: i32) -> impl Iterator<Item = Thread> {
    tree::threads(process).filter_map(move |thread| {
        parse_stat(thread, &fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).ok()?)
    })
}

fn parse_stat(number: i32, stat: &str) -> Option<Thread> {
    // The name before it is the program's choice and may contain anything, parentheses too. The fields after it begin with
    // the third.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let is_running = fields.next()? == "R";
    let nice = fields.nth(19 - 4)?.parse().ok()?;
    let policy: i32 = fields.nth(41 - 20)?.parse().ok()?;
    let has_niceness = matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH);
    Some(Thread { number, is_running, rank: if has_niceness { nice } else { IDLE } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_lower_the_more_of_them_run_and_together_weigh_less_than_one() {
        let ranks = |base| [0, 1, 2, 4, 8, 14, 16, 1000].map(|running| rank_of(running, base));
        assert_eq!(ranks(5), [5, 5, 10, 14, 17, 19, IDLE, IDLE]);
        assert_eq!(ranks(19), [19, 19, IDLE, IDLE, IDLE, IDLE, IDLE, IDLE]);
        for running in 2..=15_usize {
            let weight = running as f64 / STEP.powi(rank_of(running, 5) - 5);
            assert!(weight < 0.7, "{running} weigh {weight}");
        }
    }

    #[test]
    fn a_threads_state_and_rank_are_read_whatever_its_name() {
        let line = |state: &str, nice: i32, policy: i32| {
            format!(
                "7 (a) R (b) {state} 1 2 3 0 -1 4194304 0 0 0 0 1 2 0 0 20 {nice} 1 0 9 1 1 1 1 1 1 1 1 0 0 0 0 0 0 0 17 0 0 {policy} 0"
            )
        };
        let thread = |is_running, rank| Some(Thread { number: 7, is_running, rank });
        assert_eq!(parse_stat(7, &line("R", 5, 0)), thread(true, 5));
        assert_eq!(parse_stat(7, &line("S", -1, 3)), thread(false, -1));
        assert_eq!(parse_stat(7, &line("S", 5, 5)), thread(false, IDLE));
        assert_eq!(parse_stat(7, ""), None);
    }
}
