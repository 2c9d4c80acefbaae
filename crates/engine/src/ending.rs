//! Keeps the last figures of jobs that have ended until their ends are stored: the store has older figures until then.

use std::collections::VecDeque;

use model::JobId;
use scheduler::IdMap;

use crate::view::JobView;

#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// The jobs by the numbers of the changes that end them.
    ends: VecDeque<(u64, JobId)>,
    figures: IdMap<JobId, (u64, JobView)>,
}

impl Ending {
    /// Notes that the recorded change of this number ends the job.
    pub(crate) fn ended(&mut self, job: JobId, number: u64, figures: JobView) {
        self.ends.push_back((number, job));
        self.figures.insert(job, (number, figures));
    }

    /// Forgets the figures of jobs whose ends are among the changes up to `number`, which are committed.
    pub(crate) fn stored(&mut self, number: u64) {
        while let Some((end, job)) = self.ends.front().copied().filter(|(end, _)| *end <= number) {
            self.ends.pop_front();
            // A job that was retried may have ended again.
            if self.figures.get(&job).is_some_and(|(latest, _)| *latest == end) {
                self.figures.remove(&job);
            }
        }
    }

    pub(crate) fn figures(&self, job: JobId) -> Option<&JobView> {
        self.figures.get(&job).map(|(_, figures)| figures)
    }
}

#[cfg(test)]
mod tests {
    use model::TaskCounts;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn figures_are_kept_until_the_end_of_their_job_is_stored() {
        let (mut ending, job) = (Ending::default(), JobId(Uuid::nil()));
        let figures = |attempts| JobView {
            started_at: None,
            counts: TaskCounts::default(),
            attempts,
            fraction: 1.0,
            seconds_left: None,
            tasks_per_second: None,
            numbers_done: None,
            verification: None,
        };
        ending.ended(job, 2, figures(1));
        ending.stored(1);
        assert_eq!(ending.figures(job), Some(&figures(1)));
        ending.ended(job, 5, figures(2));
        ending.stored(4);
        assert_eq!(ending.figures(job), Some(&figures(2)));
        ending.stored(5);
        assert_eq!((ending.figures(job), ending.ends.len()), (None, 0));
    }
}
