//! The processes that the kernel has killed for want of memory, counted over the whole machine in `/proc/vmstat`.
//!
//! A program that is killed meanwhile has met no limit of its own: the machine has promised more memory than it has.

use std::fs;
use std::time::{Duration, Instant};

/// A count takes some 50 µs, a twentieth of a short program: it is made once in this time, not for each program.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct MemoryKills {
    /// `None` where the kernel does not tell.
    count: Option<u64>,
    counted_at: Instant,
}

impl MemoryKills {
    pub(crate) fn count() -> Self {
        let shown = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        Self { count: parse(&shown), counted_at: Instant::now() }
    }

    /// Counts anew, unless the last count is recent.
    pub(crate) fn refresh(&mut self) {
        if self.counted_at.elapsed() >= FRESH {
            *self = Self::count();
        }
    }

    /// Whether there are more than at the last count. Counts anew.
    pub(crate) fn have_grown(&mut self) -> bool {
        let before = std::mem::replace(self, Self::count()).count;
        before.zip(self.count).is_some_and(|(before, now)| now > before)
    }
}

fn parse(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_want_of_memory_are_counted_by_their_line() {
        assert_eq!(parse("nr_free_pages 7\noom_kill 12\noom_killed 3\n"), Some(12));
        assert_eq!(parse("nr_free_pages 7\n"), None);
    }

    #[test]
    fn only_a_count_that_was_exceeded_has_grown() {
        let after = |count| MemoryKills { count, counted_at: Instant::now() }.have_grown();
        assert!(!after(Some(u64::MAX)));
        assert!(!after(None));
    }
}
