//! `divvy simulate`.

use api::{Job, Simulation, SimulationStarted};

use crate::arguments::{Format, Simulate};
use crate::failure::Failure;
use crate::job::wait::{announce, failure, until_over};
use crate::print::{print_jobs, print_json};

pub(crate) async fn run(arguments: &Simulate) -> Result<(), Failure> {
    let Simulate { tasks, seconds, workers, .. } = *arguments;
    let simulation = Simulation { tasks, seconds, workers, priorities: arguments.priorities.clone() };
    let grid = arguments.grid.url.client()?;
    let SimulationStarted { jobs } = grid.simulate(&simulation).await?;
    if !arguments.wait {
        return print(arguments.grid.output, jobs);
    }
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    announce(&ids);
    let jobs = until_over(&grid, &ids).await?;
    let failure = failure(&grid, &jobs).await;
    print(arguments.grid.output, jobs)?;
    failure.map_or(Ok(()), Err)
}

fn print(format: Format, jobs: Vec<Job>) -> Result<(), Failure> {
    match format {
        Format::Json => print_json(&SimulationStarted { jobs }),
        Format::Table | Format::Quiet => print_jobs(format, &jobs),
    }
}
