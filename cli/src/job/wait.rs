//! `divvy job wait`.

use api::Job;
use api::client::Client;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::JobId;

use crate::arguments::Format;
use crate::failure::Failure;
use crate::follow::follow_job;
use crate::print::print_jobs;

/// Jobs that are followed at the same time, with a connection and a bar each. The others wait for their turn, which
/// costs nothing: all must end.
const MAX_FOLLOWED: usize = 16;

/// Waits until the jobs are over and prints them; fails as they did.
pub(crate) async fn run(grid: &Client, format: Format, ids: &[JobId]) -> Result<(), Failure> {
    let jobs = until_over(grid, ids).await?;
    print_jobs(format, &jobs)?;
    Failure::from_jobs(&jobs).map_or(Ok(()), Err)
}

/// The jobs when they are over, in the order asked; meanwhile a bar each on stderr, where it is a terminal.
pub(crate) async fn until_over(grid: &Client, ids: &[JobId]) -> Result<Vec<Job>, Failure> {
    let bars = MultiProgress::new();
    let follow = |id: JobId| {
        let bars = bars.clone();
        async move {
            let bar = bars.add(ProgressBar::no_length().with_style(style()).with_message(id.to_string()));
            let job = follow_job(grid, id, |done, total| {
                bar.set_length(total);
                bar.set_position(done.max(bar.position()));
            })
            .await;
            bar.finish_and_clear();
            job
        }
    };
    stream::iter(ids.iter().copied()).map(follow).buffered(MAX_FOLLOWED).try_collect().await
}

fn style() -> ProgressStyle {
    let style = "{msg} {bar:40} {percent:>3}% {pos}/{len} tasks, {per_sec}, {eta} left";
    ProgressStyle::with_template(style).expect("a valid template")
}
