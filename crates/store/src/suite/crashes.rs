//! Random changes against a plain model, with a copy of the data while the writer runs standing for a crash.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Harness;
use super::helpers::*;
use super::statistics::assert_counted;
use crate::{Change, ChangeKind, Store};
use model::{JobId, JobState};
use proptest::prelude::*;

const TASKS: u64 = 40;
const JOBS: u128 = 3;

#[derive(Clone, Debug)]
enum Step {
    Submit(u128),
    Complete(u128, Range<u64>, u8),
    FailAttempt(u128, Range<u64>, u32),
    FailTasks(u128, Range<u64>),
    Start(u128),
    Pause(u128),
    Resume(u128),
    Cancel(u128),
    Retry(u128),
    Fail(u128),
    Flush,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let job = || 1..=JOBS;
    let run = || (0..TASKS, 1..9_u64).prop_map(|(first, count)| first..(first + count).min(TASKS));
    let step = prop_oneof![
        3 => job().prop_map(Step::Submit),
        20 => (job(), run(), any::<u8>()).prop_map(|(job, run, value)| Step::Complete(job, run, value)),
        6 => (job(), run(), 1..4_u32).prop_map(|(job, run, failures)| Step::FailAttempt(job, run, failures)),
        2 => (job(), run()).prop_map(|(job, run)| Step::FailTasks(job, run)),
        2 => job().prop_map(Step::Start),
        1 => job().prop_map(Step::Pause),
        1 => job().prop_map(Step::Resume),
        1 => job().prop_map(Step::Cancel),
        2 => job().prop_map(Step::Retry),
        1 => job().prop_map(Step::Fail),
        3 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..120)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Open,
    Retry(u32),
    Done,
    Failed,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelJob {
    state: JobState,
    is_started: bool,
    value: u128,
    tasks: Vec<Fate>,
}

impl ModelJob {
    /// Sets what becomes of the tasks, unless one of them is settled.
    fn settle(&mut self, run: &Range<u64>, fate: Fate) -> bool {
        let tasks = &mut self.tasks[run.start as usize..run.end as usize];
        let is_open = tasks.iter().all(|task| !matches!(task, Fate::Done | Fate::Failed));
        if is_open {
            tasks.fill(fate);
        }
        is_open
    }

    fn going_on(&self) -> JobState {
        if self.is_started { JobState::Running } else { JobState::Queued }
    }
}

type Model = BTreeMap<JobId, ModelJob>;

fn change_of(step: &Step) -> Option<Change> {
    let at = at(1);
    Some(match step.clone() {
        Step::Complete(job, run, value) => completed(id(job), run, u128::from(value)),
        Step::FailAttempt(job, run, failures) => failed_attempt(id(job), run, failures),
        Step::FailTasks(job, run) => failed_tasks(id(job), run, 4),
        Step::Start(job) => change(id(job), at, ChangeKind::Started),
        Step::Pause(job) => change(id(job), at, ChangeKind::Paused),
        Step::Resume(job) => change(id(job), at, ChangeKind::Resumed),
        Step::Cancel(job) => change(id(job), at, ChangeKind::Canceled),
        Step::Retry(job) => change(id(job), at, ChangeKind::Retried),
        Step::Fail(job) => ended(id(job), JobState::Failed, None),
        Step::Submit(_) | Step::Flush | Step::Crash => return None,
    })
}

fn apply(model: &mut Model, step: &Step) {
    if let Step::Submit(job) = step {
        let tasks = vec![Fate::Open; TASKS as usize];
        let new = ModelJob { state: JobState::Queued, is_started: false, value: 0, tasks };
        model.entry(id(*job)).or_insert(new);
    }
    let Some(job) = change_of(step).and_then(|change| model.get_mut(&change.job)) else { return };
    if job.state.is_over() && !matches!(step, Step::Retry(_)) {
        return;
    }
    match step {
        Step::Complete(_, run, value) => {
            if job.settle(run, Fate::Done) {
                job.value += u128::from(*value);
            }
        }
        Step::FailAttempt(_, run, failures) => _ = job.settle(run, Fate::Retry(*failures)),
        Step::FailTasks(_, run) => _ = job.settle(run, Fate::Failed),
        Step::Start(_) => {
            job.is_started = true;
            if job.state == JobState::Queued {
                job.state = JobState::Running;
            }
        }
        Step::Pause(_) => job.state = JobState::Paused,
        Step::Resume(_) if job.state == JobState::Paused => job.state = job.going_on(),
        Step::Cancel(_) => job.state = JobState::Canceled,
        Step::Fail(_) => job.state = JobState::Failed,
        Step::Retry(_) => {
            if job.state.is_over() {
                job.state = job.going_on();
            }
            for task in &mut job.tasks {
                if *task != Fate::Done {
                    *task = Fate::Open;
                }
            }
        }
        Step::Resume(_) | Step::Submit(_) | Step::Flush | Step::Crash => {}
    }
}

async fn stored(store: &Store) -> Model {
    let jobs = store.unfinished().await.expect("readable").into_iter().map(|job| {
        let mut tasks = vec![Fate::Open; TASKS as usize];
        let mut set = |run: Range<u64>, fate| tasks[run.start as usize..run.end as usize].fill(fate);
        assert!(job.done.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", job.done);
        job.done.into_iter().for_each(|run| set(run, Fate::Done));
        job.failed.into_iter().for_each(|run| set(run, Fate::Failed));
        job.retries.into_iter().for_each(|(run, failures)| set(run, Fate::Retry(failures)));
        let count = |fate| tasks.iter().filter(|&&task| task == fate).count() as u64;
        assert_eq!((job.record.tasks_done, job.record.tasks_failed), (count(Fate::Done), count(Fate::Failed)));
        let (state, is_started, value) = (job.record.state, job.record.started_at.is_some(), job.record.value);
        (job.record.id, ModelJob { state, is_started, value, tasks })
    });
    jobs.collect()
}

fn unfinished(model: &Model) -> Model {
    model.iter().filter(|(_, job)| !job.state.is_over()).map(|(&id, job)| (id, job.clone())).collect()
}

pub fn after_a_crash_there_is_all_that_was_acknowledged_and_nothing_half_or_twice(harness: &dyn Harness) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    proptest!(ProptestConfig::with_cases(60), |(steps in steps())| {
        // Each case begins with what no case has written.
        let harness = harness.crashed();
        let store = harness.open();
        let mut history = vec![Model::new()];
        let mut acknowledged = 0;
        for step in &steps {
            match step {
                Step::Submit(job) => {
                    runtime.block_on(store.submit(range_job(*job, TASKS))).expect("room");
                }
                Step::Flush => runtime.block_on(store.flush()).expect("room"),
                Step::Crash => {
                    let crashed = harness.crashed();
                    let store = crashed.open();
                    let found = runtime.block_on(stored(&store));
                    runtime.block_on(assert_counted(&store));
                    let possible = &history[acknowledged..];
                    prop_assert!(possible.iter().any(|model| unfinished(model) == found), "{found:?} of {possible:?}");
                }
                Step::Complete(..)
                | Step::FailAttempt(..)
                | Step::FailTasks(..)
                | Step::Start(_)
                | Step::Pause(_)
                | Step::Resume(_)
                | Step::Cancel(_)
                | Step::Retry(_)
                | Step::Fail(_) => _ = store.record(change_of(step).expect("a change")),
            }
            let mut model = history[history.len() - 1].clone();
            apply(&mut model, step);
            history.push(model);
            if matches!(step, Step::Submit(_) | Step::Flush) {
                acknowledged = history.len() - 1;
            }
        }
        store.close().expect("all is committed");
        let store = harness.open();
        runtime.block_on(assert_counted(&store));
        prop_assert_eq!(runtime.block_on(stored(&store)), unfinished(&history[history.len() - 1]));
    });
}
