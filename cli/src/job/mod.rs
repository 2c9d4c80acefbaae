//! `divvy job`.

mod change;
mod events;
mod explain;
mod list;
mod logs;
mod program;
mod result;
mod show;
mod submit;
mod tasks;
pub(crate) mod wait;

#[cfg(feature = "kafka")]
pub(crate) use events::describe as describe_event;

use api::client::Action;

use crate::arguments::{Job, JobCommand};
use crate::failure::Failure;

pub(crate) async fn run(arguments: &Job) -> Result<(), Failure> {
    let grid = arguments.grid.url.client()?;
    let format = arguments.grid.output;
    match &arguments.command {
        JobCommand::Submit(submit) => submit::run(&grid, format, submit).await,
        JobCommand::List(list) => list::run(&grid, format, list).await,
        JobCommand::Show(show) => show::run(&grid, format, show.id).await,
        JobCommand::Tasks(tasks) => tasks::run(&grid, format, tasks).await,
        JobCommand::Wait(wait) => wait::run(&grid, format, &wait.ids).await,
        JobCommand::Result(result) => result::run(&grid, result).await,
        JobCommand::Cancel(change) => change::run(&grid, format, Action::Cancel, change).await,
        JobCommand::Pause(change) => change::run(&grid, format, Action::Pause, change).await,
        JobCommand::Resume(change) => change::run(&grid, format, Action::Resume, change).await,
        JobCommand::Retry(change) => change::run(&grid, format, Action::Retry, change).await,
        JobCommand::Events(events) => events::run(&grid, format, events).await,
        JobCommand::Logs(logs) => logs::run(&grid, format, logs).await,
        JobCommand::Explain(explain) => explain::run(&grid, format, explain.id).await,
    }
}
