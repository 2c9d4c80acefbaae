//! Rules for a job's tasks as a group.

/// The most tasks of a job, 2^53: the largest number that every JSON reader keeps exactly.
pub const MAX_TASKS: u64 = 1 << 53;

/// The order in which a job's tasks are leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By ascending number.
    FirstInFirstOut,
    /// Each slot continues where its last lease ended; a slot without such a place takes the far half of the longest remaining
    /// run. For work that is cheaper where it is contiguous.
    Stripes,
}

/// Effect of a task without attempts left on its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// The job fails immediately: there is no result without the task.
    FailJob,
    /// The other tasks go on; the job fails when all of them are over.
    SkipTask,
}
