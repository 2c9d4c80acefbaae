//! `cargo run --release -p bench`: what the kernel and the grid take, held against their goals.
//!
//! Every figure is a ratio or a difference of things measured in turn in one run (A B A B …): speed drifts on a shared
//! machine, and what is measured in turn drifts together. A goal is met when the median meets it.

mod figures;
mod grid;
mod http;
mod kernel;
mod machine;
mod process;
mod reference;
mod tables;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::process::Binaries;
use crate::reference::{PRIMECOUNT, PRIMESIEVE, PRIMESUM, Reference};

/// Measures the kernel and the grid and prints Markdown tables.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds per row, the first of which only warms up
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only these tables
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Table>,
    /// The program to compare with; default: the one on the PATH, else Debian's, unpacked under target/
    #[arg(long, env = "PRIMESIEVE", value_name = "PATH")]
    primesieve: Option<PathBuf>,
    /// The program that sums up to a number; default: the one on the PATH
    #[arg(long, env = "PRIMESUM", value_name = "PATH")]
    primesum: Option<PathBuf>,
    /// The program that counts up to a number; default: the one on the PATH, else Debian's, unpacked under target/
    #[arg(long, env = "PRIMECOUNT", value_name = "PATH")]
    primecount: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    /// One thread against primesieve
    Kernel,
    /// Prefix sums and counts on two threads against primesum and primecount
    Prefix,
    /// Two workers against primesieve and the kernel on two threads
    Grid,
    /// CPU time of the grid against that of the best leases
    Cpu,
    /// Cost of a lease beside its computation
    Leases,
    /// A job of 50 million tasks
    Job,
    /// A single request on an idle grid
    Requests,
    /// One request at a time over two workers and over one
    Dividing,
    /// As many requests as it takes
    Load,
    /// Tasks without work, for workers that fetch them
    Tasks,
    /// From a job's submission to the start of its first task
    Starts,
    /// Cost of many workers, waiting clients and event streams beside unrelated requests
    Growth,
    /// Jobs submitted one by one over HTTP, to SQLite and to PostgreSQL
    Submissions,
    /// From a leader's end to the next one's first lease
    Takeovers,
    /// Events to Kafka and jobs out of it, with a broker of scripts/kafka/fetch.sh
    Kafka,
}

/// The settings that all tables share.
#[derive(Debug)]
struct Setting {
    rounds: usize,
    primesieve: Option<Reference>,
    primesum: Option<Reference>,
    primecount: Option<Reference>,
    binaries: Binaries,
}

fn main() -> anyhow::Result<()> {
    anyhow::ensure!(!cfg!(debug_assertions), "figures of a debug build say nothing: cargo run --release -p bench");
    let arguments = Arguments::parse();
    let binaries = Binaries::build()?;
    let find = |program, given: &Option<PathBuf>| Reference::find(program, given.as_deref(), binaries.cache());
    let primesieve = find(PRIMESIEVE, &arguments.primesieve)?;
    let primesum = find(PRIMESUM, &arguments.primesum)?;
    let primecount = find(PRIMECOUNT, &arguments.primecount)?;
    let setting = Setting { rounds: arguments.rounds.into(), primesieve, primesum, primecount, binaries };
    println!("{}\n", heading(&setting));
    for table in Table::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(table) {
            continue;
        }
        match table {
            Table::Kernel => tables::kernel::print(&setting),
            Table::Prefix => tables::prefix::print(&setting),
            Table::Grid => tables::grid::print(&setting),
            Table::Cpu => tables::cpu::print(&setting),
            Table::Leases => tables::leases::print(&setting),
            Table::Job => tables::job::print(&setting),
            Table::Requests => tables::requests::print(&setting),
            Table::Dividing => tables::dividing::print(&setting),
            Table::Load => tables::load::print(&setting),
            Table::Tasks => tables::tasks::print(&setting),
            Table::Kafka => tables::kafka::print(&setting),
            Table::Starts => tables::starts::print(&setting),
            Table::Growth => tables::growth::print(&setting),
            Table::Submissions => tables::submissions::print(&setting),
            Table::Takeovers => tables::takeovers::print(&setting),
        }?;
        println!();
    }
    Ok(())
}

fn heading(setting: &Setting) -> String {
    let named = |program: &Option<Reference>, name: &str| {
        program.as_ref().map_or_else(|| format!("no {name}"), |program| program.version().to_owned())
    };
    let Setting { primesieve, primesum, primecount, .. } = setting;
    let references = [(primesieve, "primesieve"), (primesum, "primesum"), (primecount, "primecount")];
    let reference = references.map(|(program, name)| named(program, name)).join(", ");
    let (machine, divvy, rounds) = (machine::describe(), env!("CARGO_PKG_VERSION"), setting.rounds);
    format!("{machine}; divvy {divvy}; {reference}; {} counted rounds.", rounds.saturating_sub(1).max(1))
}
