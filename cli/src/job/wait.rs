//! `divvy job wait`.

use std::borrow::Cow;

use api::Job;
use api::client::Client;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{MultiProgress, ProgressBar};
use model::{JobId, JobState, TaskState};

use crate::arguments::Format;
use crate::bar;
use crate::failure::Failure;
use crate::follow::follow_job;
use crate::print::{print_jobs, tell};

/// Jobs that are followed at the same time, with a connection and a bar each. The others wait for their turn, which
/// costs nothing: all must end.
const MAX_FOLLOWED: usize = 16;

/// Waits until the jobs are over and prints them; fails as they did.
pub(crate) async fn run(grid: &Client, format: Format, ids: &[JobId]) -> Result<(), Failure> {
    let jobs = until_over(grid, ids).await?;
    print_jobs(format, &jobs)?;
    failure(grid, &jobs).await.map_or(Ok(()), Err)
}

/// Tells which jobs have been submitted, so that a user who interrupts the wait can return to them.
pub(crate) fn announce(ids: &[JobId]) {
    let ids = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    tell(&format!("submitted; to wait again after an interruption: divvy job wait {ids}"));
}

/// Waits until the jobs are over and returns them in the order of `ids`. Draws a bar for each job on stderr if that is a
/// terminal. A job that cannot be followed, such as an unknown one, ends the wait for the others.
pub(crate) async fn until_over(grid: &Client, ids: &[JobId]) -> Result<Vec<Job>, Failure> {
    let bars = MultiProgress::new();
    let follow = |(place, id): (usize, JobId)| {
        let bars = bars.clone();
        async move {
            let bar = bars.add(ProgressBar::no_length().with_style(bar::with_message()).with_message(id.to_string()));
            let job = follow_job(grid, id, |job| bar::show(&bar, &job.tasks, &job.progress)).await;
            bar.finish_and_clear();
            job.map(|job| (place, job))
        }
    };
    let follows = stream::iter(ids.iter().copied().enumerate()).map(follow);
    let mut jobs: Vec<(usize, Job)> = follows.buffer_unordered(MAX_FOLLOWED).try_collect().await?;
    jobs.sort_unstable_by_key(|(place, _)| *place);
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

/// The failure of jobs that are over and did not succeed, with the error of the first failed task where the job has none.
pub(crate) async fn failure(grid: &Client, jobs: &[Job]) -> Option<Failure> {
    let failure = Failure::from_jobs(jobs)?;
    let (Failure::Failed(message), Some(failed)) = (&failure, jobs.iter().find(|job| job.state == JobState::Failed))
    else {
        return Some(failure);
    };
    let mut message = message.clone();
    let query = vec![("state", TaskState::Failed.as_str().to_owned()), ("limit", "1".to_owned())];
    // An addition: where tasks are not individual, or cannot be asked for, the failure is told as it is.
    let page = grid.task_page(failed.id, &query).await.ok();
    if let Some(task) = page.as_ref().and_then(|page| page.tasks.first()) {
        let error = task.last_error.as_deref().unwrap_or("no error is known");
        if !message.contains(error) {
            message.push_str(&format!("; task {}: {}", task.index, excerpt(error)));
        }
        message.push_str(&format!(". All of them: divvy job tasks {} --state failed", failed.id));
    }
    message.push_str(&format!(". To run what failed again: divvy job retry {}", failed.id));
    Some(Failure::Failed(message))
}

/// The beginning and the end of a long error: a program's ends with the last that it wrote.
fn excerpt(error: &str) -> Cow<'_, str> {
    const START: usize = 100;
    const END: usize = 300;
    let place = |(place, _): (usize, char)| place;
    match (error.char_indices().nth(START).map(place), error.char_indices().nth_back(END - 1).map(place)) {
        (Some(start), Some(end)) if start < end => Cow::Owned(format!("{} … {}", &error[..start], &error[end..])),
        _ => Cow::Borrowed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_told_by_its_beginning_and_its_end() {
        let long =
            format!("it exited with code 3; the end of its stderr: {}é: no column \"price\"", "e\n".repeat(2_000));
        let told = excerpt(&long);
        assert_eq!(told.chars().count(), 403, "{told}");
        assert!(told.starts_with("it exited with code 3") && told.ends_with("é: no column \"price\""), "{told}");
        let short = "x".repeat(400);
        assert_eq!(excerpt(&short), short);
    }
}
