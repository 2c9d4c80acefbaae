//! `divvy job cancel`, `pause`, `resume` and `retry`.

use std::time::Instant;

use api::Changed;
use api::client::{Action, Client};
use model::{JobState, counted};

use crate::arguments::{Change, Filter, Format};
use crate::failure::Failure;
use crate::job::list;
use crate::patience::patiently;
use crate::print::{print_jobs, print_json, print_line};

pub(super) async fn run(grid: &Client, format: Format, action: Action, arguments: &Change) -> Result<(), Failure> {
    if arguments.all {
        return change_all(grid, format, action, &arguments.filter).await;
    }
    if arguments.ids.is_empty() {
        let message = "name the jobs by their ids, or give --all for all jobs that --state, --kind and --tag find";
        return Err(Failure::Usage(message.to_owned()));
    }
    if !list::query(&arguments.filter).is_empty() {
        return Err(Failure::Usage("--state, --kind and --tag choose among all jobs: give --all with them".to_owned()));
    }
    let mut jobs = Vec::new();
    let mut failures = Vec::new();
    for &id in &arguments.ids {
        let asked_at = Instant::now();
        match patiently(async || grid.change(id, action, asked_at).await).await.map_err(Failure::from) {
            Ok(job) => jobs.push(job),
            Err(failure) => {
                let is_gone = matches!(failure, Failure::Unreachable { .. });
                failures.push((id, failure));
                if is_gone {
                    break;
                }
            }
        }
    }
    if !jobs.is_empty() {
        print_jobs(format, &jobs)?;
    }
    Failure::first_of(failures).map_or(Ok(()), Err)
}

async fn change_all(grid: &Client, format: Format, action: Action, filter: &Filter) -> Result<(), Failure> {
    let mut query = list::query(filter);
    if filter.state.is_empty() {
        query.extend(usual_states(action).iter().map(|state| ("state", state.as_str().to_owned())));
    }
    let asked_at = Instant::now();
    let changed = patiently(async || grid.change_all(&query, action, asked_at).await).await?;
    match format {
        Format::Table => print_line(&told(changed)),
        Format::Json => print_json(&changed),
        Format::Quiet => print_line(&changed.changed.to_string()),
    }
}

fn told(Changed { matched, changed }: Changed) -> String {
    let all = counted(matched, "job", "jobs");
    if changed == matched { format!("{all} changed") } else { format!("{changed} of {all} changed") }
}

/// The states of the jobs that `--all` means; canceled jobs are not retried.
fn usual_states(action: Action) -> &'static [JobState] {
    match action {
        Action::Cancel => &[JobState::Queued, JobState::Running, JobState::Paused],
        Action::Pause => &[JobState::Queued, JobState::Running],
        Action::Resume => &[JobState::Paused],
        Action::Retry => &[JobState::Failed],
    }
}
