//! A coordinator that does not lead completes its own answers with what it asks of the leader.

use actix_web::HttpRequest;
use actix_web::web::Data;
use api::Job;

use super::State;
use crate::relay::LeaderRelay;

/// A job that was accepted here, as the leader shows it: only the leader knows that no worker can run it. The leader is not
/// asked where a worker is there that can.
pub(super) async fn as_leader_sees_it(state: &State, request: &HttpRequest, job: Job) -> Job {
    if state.role.term().is_some() || job.state.is_over() || state.workers.can_run(job.kind, &job.requires) {
        return job;
    }
    let Some(relay) = request.app_data::<Data<LeaderRelay>>() else { return job };
    let seen = relay.look_up(request, &format!("/v1/jobs/{}", job.id)).await;
    seen.unwrap_or(job)
}
