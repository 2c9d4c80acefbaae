//! Completes the answers of a coordinator that does not lead with the leader's knowledge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::web::Data;
use api::Job;
use dashmap::DashMap;
use model::{JobKind, Requirements};
use store::Submission;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Accepted, State};
use crate::relay::LeaderRelay;

/// Time for which the answer to a submission waits for the leader's notice on the job.
const PATIENCE: Duration = Duration::from_secs(2);

/// Jobs that the same workers can run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Class {
    kind: JobKind,
    requires: Requirements,
}

/// A notice of the leader on a new job.
#[derive(Debug)]
struct Seen {
    asked_at: Instant,
    notice: Option<String>,
}

/// Notices on new jobs that are being asked for. All jobs of a class have the same notice, so that one question serves all
/// requests that came before it; requests that come while it is under way share the next question.
#[derive(Debug, Default)]
pub(crate) struct Notices(DashMap<Class, Arc<Mutex<Option<Seen>>>>);

/// The place of a request among those that ask for a class.
struct NoticeRequest<'a> {
    notices: &'a Notices,
    class: Class,
    seen: Option<Arc<Mutex<Option<Seen>>>>,
}

impl Notices {
    /// The notice that `ask` finds, or that another request has asked for since the call began.
    async fn share(&self, class: Class, ask: impl Future<Output = Option<String>>) -> Option<String> {
        let came_at = Instant::now();
        let mutex = Arc::clone(&self.0.entry(class.clone()).or_default());
        let _place = NoticeRequest { notices: self, class, seen: Some(Arc::clone(&mutex)) };
        let mut seen = mutex.lock_owned().await;
        if let Some(found) = seen.as_ref().filter(|found| found.asked_at >= came_at) {
            return found.notice.clone();
        }
        let asked_at = Instant::now();
        let notice = ask.await;
        *seen = Some(Seen { asked_at, notice: notice.clone() });
        notice
    }
}

impl Drop for NoticeRequest<'_> {
    fn drop(&mut self) {
        self.seen = None;
        // Kept while another request asks for the class.
        self.notices.0.remove_if(&self.class, |_, seen| Arc::strong_count(seen) == 1);
    }
}

/// An accepted job as the leader shows it: only the leader knows that no worker can run it. The leader is not asked if a known
/// worker can run it.
pub(super) async fn as_leader_sees_it(state: &State, request: &HttpRequest, accepted: Accepted) -> Job {
    let Accepted { mut job, submission, requires } = accepted;
    if state.role.term().is_some() || job.state.is_over() || state.workers.can_run(job.kind, &requires) {
        return job;
    }
    let Some(relay) = request.app_data::<Data<LeaderRelay>>() else { return job };
    let path = format!("/v1/jobs/{}", job.id);
    let seen = relay.look_up::<Job>(request, &path);
    match submission {
        Submission::Existing(_) => seen.await.unwrap_or(job),
        Submission::New => {
            let class = Class { kind: job.kind, requires };
            let notice = state.notices.share(class, async { seen.await.and_then(|job| job.notice) });
            job.notice = timeout(PATIENCE, notice).await.ok().flatten();
            job
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn requests_that_wait_for_the_same_notice_ask_once_and_take_none_that_is_older_than_they_are() {
        let (notices, asked, answered) = (Notices::default(), Cell::new(0), Notify::new());
        let class = |kind| Class { kind, requires: Requirements::default() };
        let ask = || async {
            asked.set(asked.get() + 1);
            let number = asked.get();
            answered.notified().await;
            Some(number.to_string())
        };
        let mut first = Box::pin(notices.share(class(JobKind::TASKS), ask()));
        assert!((&mut first).now_or_never().is_none());
        let mut others = join_all((0..10).map(|_| notices.share(class(JobKind::TASKS), ask())).collect::<Vec<_>>());
        let mut other_class = Box::pin(notices.share(class(JobKind::SLEEP), ask()));
        assert!((&mut others).now_or_never().is_none() && (&mut other_class).now_or_never().is_none());
        assert_eq!(asked.get(), 2, "one question for each class");
        answered.notify_waiters();
        assert_eq!((first.await, other_class.await), (Some("1".to_owned()), Some("2".to_owned())));
        assert!((&mut others).now_or_never().is_none());
        answered.notify_waiters();
        assert!(others.await.into_iter().all(|notice| notice.as_deref() == Some("3")));
        assert!(notices.0.is_empty(), "nothing is kept once nobody asks");
    }

    #[tokio::test]
    async fn a_request_that_leaves_while_it_asks_lets_the_next_one_ask() {
        let notices = Notices::default();
        let class = || Class { kind: JobKind::TASKS, requires: Requirements::default() };
        let mut first = Box::pin(notices.share(class(), std::future::pending()));
        let mut second = Box::pin(notices.share(class(), async { Some("found".to_owned()) }));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(first);
        assert_eq!(second.await.as_deref(), Some("found"));
    }
}
