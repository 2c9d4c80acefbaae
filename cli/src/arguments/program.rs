//! The arguments of `divvy program`, and of jobs that run programs.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use model::{JobId, ProgramHash, ProgramRef};

use super::values::{duration, integer, job_id, label, memory, number};

#[derive(Debug, Subcommand)]
pub(crate) enum ProgramCommand {
    Put(PutProgram),
    /// Lists the stored programs
    List,
    /// Lists the programs that workers bring, and how many run uploaded ones
    Names,
    /// Shows a stored program
    Show(OneProgram),
    /// Deletes a stored program that no job needs
    Delete(OneProgram),
    Check(CheckProgram),
    Run(RunProgram),
}

/// Stores a program and prints its SHA-256, by which jobs name it.
#[derive(Debug, Args)]
pub(crate) struct PutProgram {
    /// A WebAssembly module or component, or an executable; '-' is stdin
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct OneProgram {
    /// SHA-256 of the program, as `divvy program list` shows it
    #[arg(value_name = "SHA256", value_parser = program_hash, value_hint = ValueHint::Other)]
    pub(crate) program: ProgramHash,
}

/// Tells what a program needs and whether a worker would run it; the exit code is 1 if not.
#[derive(Debug, Args)]
pub(crate) struct CheckProgram {
    /// A WebAssembly module or component, or an executable; '-' is stdin
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Memory that its job would give it, in bytes or such as 512MB or 4GiB [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = memory, value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) memory: Option<u64>,
}

/// Runs a program on this machine as a worker would, within the same limits.
#[derive(Debug, Args)]
pub(crate) struct RunProgram {
    /// A WebAssembly module or component, or an executable; '-' is stdin
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// File that the program reads as its stdin [default: an empty one]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) stdin: Option<PathBuf>,
    /// Time that it may take, such as 30s or 5m [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true, value_hint = ValueHint::Other)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
    /// Arguments of the program
    #[arg(last = true, value_hint = ValueHint::Other)]
    pub(crate) args: Vec<String>,
}

/// The limits of a task of a program, and its environment.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LimitArguments {
    /// Memory of all processes of the program, in bytes or such as 512MB or 4GiB [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = memory, value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) memory: Option<u64>,
    /// Longest stdout of the program, at most what the coordinator allows [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = memory, value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) output_limit: Option<u64>,
    /// A variable of the program's environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = label, value_hint = ValueHint::Other)]
    pub(crate) env: Vec<(String, String)>,
    /// Clocks that go on by a microsecond a reading and random numbers that repeat, for WASI programs
    #[arg(long)]
    pub(crate) reproducible: bool,
}

/// A program once for each part of a range, list of arguments or payload.
#[derive(Debug, Args)]
pub(crate) struct ProgramArguments {
    /// The SHA-256 of a stored program, or the name of one that workers bring
    #[arg(long, value_name = "SHA256|NAME", value_parser = program_ref, value_hint = ValueHint::Other)]
    pub(crate) program: ProgramRef,
    /// A task for each part of FROM to TO, TO not included; it gets the first number of its part and the first after it
    #[arg(long, value_name = "FROM..TO", value_parser = range, requires = "step", conflicts_with = "args_file", value_hint = ValueHint::Other, allow_hyphen_values = true)]
    pub(crate) range: Option<(u64, u64)>,
    /// Numbers of a part
    #[arg(long, value_name = "N", value_parser = step, requires = "range", value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) step: Option<NonZeroU64>,
    /// A task for each line but empty ones: a JSON array of arguments, or one argument as it is; '-' is stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) args_file: Option<PathBuf>,
    /// What each task reads from stdin: one JSON value a line, or one JSON array of them; a string is read as its text
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) payloads: Option<PathBuf>,
    /// How the tasks' results are combined
    #[arg(long, value_enum, default_value_t = CombineName::None, conflicts_with = "combine_program")]
    pub(crate) combine: CombineName,
    /// A program that reads the tasks' results as lines and prints the job's result
    #[arg(long, value_name = "SHA256|NAME", value_parser = program_ref, value_hint = ValueHint::Other)]
    pub(crate) combine_program: Option<ProgramRef>,
    /// The most tasks in one lease, 1 to 1000; more than one pays where tasks take milliseconds
    #[arg(long, value_name = "N", value_parser = integer::<u64>(1..=1000), default_value = "1", value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) tasks_per_lease: u64,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CombineName {
    /// A list of the results
    None,
    /// Their exact sum: each is a decimal integer
    Sum,
    /// The results' bytes, concatenated in task order
    Concat,
}

/// Prints what a job's programs wrote to stderr.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[arg(value_name = "ID", value_parser = job_id, value_hint = ValueHint::Other)]
    pub(crate) id: JobId,
    /// Only of this task
    #[arg(long, value_name = "N", value_parser = integer::<u64>(0..=u64::MAX), value_hint = ValueHint::Other, allow_negative_numbers = true)]
    pub(crate) task: Option<u64>,
    /// Also print what the programs write until the job is over
    #[arg(long)]
    pub(crate) follow: bool,
}

fn program_ref(text: &str) -> Result<ProgramRef, String> {
    text.parse().map_err(|error: model::InvalidJob| error.to_string())
}

fn program_hash(text: &str) -> Result<ProgramHash, String> {
    text.parse().map_err(|_| "give a SHA-256: 64 hexadecimal digits".to_owned())
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("give FROM..TO, such as 0..500_000_000")?;
    let (from, to) = (number(from)?, number(to)?);
    if from < to { Ok((from, to)) } else { Err("FROM must be below TO".to_owned()) }
}

fn step(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(number(text)?).ok_or_else(|| "give 1 at least".to_owned())
}
