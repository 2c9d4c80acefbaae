//! The kinds of job, one file each: how parameters become tasks, what a worker does with a lease, what bounds an outcome
//! and how outcomes combine. [`KINDS`] is the one list of them: a kind is added by adding its file and its entry there.

mod count_primes;
mod execute;
mod parameters;
mod prefix_parts;
mod prime_range;
mod program;
mod sieved;
mod sleep;
mod sum_of_primes;
mod tasks;
mod verified;
mod workload;

use model::{InvalidJob, JobKind};

pub use execute::{Execute, ExecuteError, Executors};
pub use parameters::{Input, Parameter, parameters};
pub use program::{
    Combine, InvalidBase64, MAX_OUTPUT_BYTES, ProgramInput, ProgramLimits, ProgramParams, ProgramRange, ProgramWork,
    program_is_reproducible, program_output_bytes, stdin_of,
};
pub use sleep::SleepParams;
pub use tasks::TasksParams;
pub use workload::{
    Accepted, Combined, Contradiction, Division, InvalidReport, Kind, Parsed, Profile, Report, Workload,
};

/// All kinds of job.
pub const KINDS: &[&dyn Kind] =
    &[&sum_of_primes::SumOfPrimes, &count_primes::CountPrimes, &sleep::Sleep, &tasks::Tasks, &program::Program];

/// The kind of this name.
///
/// # Errors
/// No kind has this name; the error lists those that exist.
pub fn kind(name: JobKind) -> Result<&'static dyn Kind, InvalidJob> {
    KINDS.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
        let known: Vec<_> = KINDS.iter().map(|kind| kind.name().to_string()).collect();
        InvalidJob::new("kind", format!("must be one of {}", known.join(", ")))
    })
}
