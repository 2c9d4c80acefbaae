//! Counts the events of a batch by row.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use model::{Counts, Grain, JobKind};

use super::Subject;

/// A row: the period's grain and start, and the kind.
pub type Row = (Grain, Timestamp, JobKind);

/// Figures of the events of a batch, to be added to the rows of a store.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    rows: BTreeMap<Row, Counts>,
    pending: BTreeMap<JobKind, (i64, i64)>,
    starts: Vec<(Row, String, u64)>,
    /// Places of the rows in `starts`.
    places: HashMap<(Row, String), usize>,
}

impl Tally {
    /// Counts an event. Events are counted in the order of their numbers.
    pub fn count(&mut self, subject: &Subject, at: Timestamp, counts: &Counts) {
        if counts.is_empty() {
            return;
        }
        let (jobs, tasks) = self.pending.entry(subject.kind).or_default();
        *jobs += counts.jobs_pending;
        *tasks += counts.tasks_pending;
        let (jobs, tasks) = (*jobs, *tasks);
        for grain in Grain::STORED {
            let row = (grain, grain.start_of(at), subject.kind);
            let sums = self.rows.entry(row).or_default();
            sums.add(counts);
            (sums.jobs_pending, sums.tasks_pending) = (jobs, tasks);
            if counts.task_starts > 0 {
                self.count_starts(row, subject.task_name(), counts.task_starts);
            }
        }
    }

    fn count_starts(&mut self, row: Row, task: &str, starts: u64) {
        let place = *self.places.entry((row, task.to_owned())).or_insert_with(|| {
            self.starts.push((row, task.to_owned(), 0));
            self.starts.len() - 1
        });
        self.starts[place].2 += starts;
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The change of the open jobs and tasks of each kind, in the order of the kinds.
    pub fn pending(&self) -> impl Iterator<Item = (JobKind, i64, i64)> {
        self.pending.iter().map(|(&kind, &(jobs, tasks))| (kind, jobs, tasks))
    }

    /// The figures to add to each row, in the order of the rows. Pending figures are the change from the beginning of the batch
    /// to the row's last event.
    pub fn rows(&self) -> impl Iterator<Item = (Row, &Counts)> {
        self.rows.iter().map(|(&row, counts)| (row, counts))
    }

    /// The starts to be added by the name of the tasks, in the order of the events.
    pub fn starts(&self) -> impl Iterator<Item = (Row, &str, u64)> {
        self.starts.iter().map(|(row, task, starts)| (*row, task.as_str(), *starts))
    }
}
