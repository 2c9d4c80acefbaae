//! Figures that an event adds to the statistics.

use serde::{Deserialize, Serialize};

use crate::Durations;

/// Changes to a job since the event before: the figures that an event adds to the statistics of its kind and
/// time. Their names are stored, and stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Jobs that were accepted.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_submitted: u64,
    /// Jobs whose first task was leased.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_started: u64,
    /// Jobs that succeeded.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_succeeded: u64,
    /// Jobs that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_failed: u64,
    /// Jobs that were canceled.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_canceled: u64,
    /// Jobs that were retried, whether over or not.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_retried: u64,
    /// Jobs that became open, less those that ended.
    #[serde(skip_serializing_if = "is_none")]
    pub jobs_pending: i64,
    /// Tasks of jobs that were accepted.
    #[serde(skip_serializing_if = "is_zero")]
    pub tasks_submitted: u64,
    /// Tasks whose first attempt has ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub tasks_started: u64,
    /// Tasks that succeeded.
    #[serde(skip_serializing_if = "is_zero")]
    pub tasks_succeeded: u64,
    /// Tasks that ran out of attempts.
    #[serde(skip_serializing_if = "is_zero")]
    pub tasks_failed: u64,
    /// Tasks that were open when their job was canceled or failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub tasks_canceled: u64,
    /// Tasks that were opened again: by a retry, or because their worker was set aside.
    #[serde(skip_serializing_if = "is_zero")]
    pub tasks_retried: u64,
    /// Tasks that became open, less those that succeeded, failed or were canceled.
    #[serde(skip_serializing_if = "is_none")]
    pub tasks_pending: i64,
    /// Tasks of the attempts that ended: a task counts once for each attempt at it.
    #[serde(skip_serializing_if = "is_zero")]
    pub task_starts: u64,
    /// Attempts that ended, completed or failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u64,
    /// Attempts that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts_failed: u64,
    /// Of jobs that started: the time since their submission.
    #[serde(skip_serializing_if = "Durations::is_empty")]
    pub waiting: Durations,
    /// Of jobs that ended and had started: the time since their start, or since their last retry.
    #[serde(skip_serializing_if = "Durations::is_empty")]
    pub running: Durations,
    /// Of attempts that completed: the time that the worker was busy.
    #[serde(skip_serializing_if = "Durations::is_empty")]
    pub computing: Durations,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(figure: &u64) -> bool {
    *figure == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(figure: &i64) -> bool {
    *figure == 0
}

impl Counts {
    /// Whether every figure is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The figures that only grow, with their names, in the order of the fields.
    #[must_use]
    pub fn figures(&self) -> [(&'static str, u64); Self::FIGURES] {
        [
            ("jobs_submitted", self.jobs_submitted),
            ("jobs_started", self.jobs_started),
            ("jobs_succeeded", self.jobs_succeeded),
            ("jobs_failed", self.jobs_failed),
            ("jobs_canceled", self.jobs_canceled),
            ("jobs_retried", self.jobs_retried),
            ("tasks_submitted", self.tasks_submitted),
            ("tasks_started", self.tasks_started),
            ("tasks_succeeded", self.tasks_succeeded),
            ("tasks_failed", self.tasks_failed),
            ("tasks_canceled", self.tasks_canceled),
            ("tasks_retried", self.tasks_retried),
            ("task_starts", self.task_starts),
            ("attempts", self.attempts),
            ("attempts_failed", self.attempts_failed),
        ]
    }

    /// Number of [`Self::figures`].
    pub const FIGURES: usize = 15;

    /// The counts of figures in the order of [`Self::figures`].
    #[must_use]
    pub fn from_figures(figures: [u64; Self::FIGURES]) -> Self {
        let mut counts = Self::default();
        for (field, figure) in counts.figures_mut().into_iter().zip(figures) {
            *field = figure;
        }
        counts
    }

    fn figures_mut(&mut self) -> [&mut u64; Self::FIGURES] {
        [
            &mut self.jobs_submitted,
            &mut self.jobs_started,
            &mut self.jobs_succeeded,
            &mut self.jobs_failed,
            &mut self.jobs_canceled,
            &mut self.jobs_retried,
            &mut self.tasks_submitted,
            &mut self.tasks_started,
            &mut self.tasks_succeeded,
            &mut self.tasks_failed,
            &mut self.tasks_canceled,
            &mut self.tasks_retried,
            &mut self.task_starts,
            &mut self.attempts,
            &mut self.attempts_failed,
        ]
    }

    /// The durations with their names.
    #[must_use]
    pub fn durations(&self) -> [(&'static str, &Durations); 3] {
        [("waiting", &self.waiting), ("running", &self.running), ("computing", &self.computing)]
    }

    /// The durations of a name that [`Self::durations`] has.
    #[must_use]
    pub fn durations_mut(&mut self, name: &str) -> Option<&mut Durations> {
        match name {
            "waiting" => Some(&mut self.waiting),
            "running" => Some(&mut self.running),
            "computing" => Some(&mut self.computing),
            _ => None,
        }
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        for (field, (_, figure)) in self.figures_mut().into_iter().zip(other.figures()) {
            *field = field.saturating_add(figure);
        }
        self.jobs_pending = self.jobs_pending.saturating_add(other.jobs_pending);
        self.tasks_pending = self.tasks_pending.saturating_add(other.tasks_pending);
        self.waiting.add(&other.waiting);
        self.running.add(&other.running);
        self.computing.add(&other.computing);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Counts whose every field has another value.
    fn full() -> Counts {
        let mut counts = Counts::from_figures(std::array::from_fn(|place| place as u64 + 1));
        (counts.jobs_pending, counts.tasks_pending) = (-16, 17);
        for (seconds, name) in [(1, "waiting"), (2, "running"), (3, "computing")] {
            counts.durations_mut(name).expect("a name").record(Duration::from_secs(seconds));
        }
        counts
    }

    #[test]
    fn every_figure_is_written_under_its_name_and_read_again() {
        let counts = full();
        let json = serde_json::to_value(&counts).expect("JSON");
        for (name, figure) in counts.figures() {
            assert_eq!(json[name], figure, "{name}");
        }
        for (name, durations) in counts.durations() {
            assert_eq!(json[name]["sum_us"], durations.sum_us, "{name}");
        }
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(Counts::FIGURES + 2 + 3));
        assert_eq!(serde_json::from_value::<Counts>(json).expect("counts"), counts);
        assert_eq!(serde_json::to_string(&Counts::default()).expect("JSON"), "{}");
    }

    #[test]
    fn counts_add_up_field_by_field() {
        let mut sum = full();
        sum.add(&full());
        for ((name, doubled), (_, once)) in sum.figures().into_iter().zip(full().figures()) {
            assert_eq!(doubled, 2 * once, "{name}");
        }
        assert_eq!((sum.jobs_pending, sum.tasks_pending), (-32, 34));
        for ((name, doubled), (_, once)) in sum.durations().into_iter().zip(full().durations()) {
            assert_eq!((doubled.sum_us, doubled.count()), (2 * once.sum_us, 2), "{name}");
        }
        let mut same = Counts::default();
        same.add(&full());
        assert_eq!(same, full());
        assert!(!same.is_empty() && Counts::default().is_empty());
    }
}
