//! `PUT` and `DELETE /worker/register/{worker_id}`: a worker lives, a worker goes.

use std::net::SocketAddr;
use std::time::Instant;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use protocol::{Deregistration, Heartbeat, InvalidWorkerId, WorkerId};
use scheduler::WorkerKey;
use service::{ApiError, Connection, query_from, read_json};
use tracing::{info, warn};

use super::State;
use crate::metrics::EvictionReason;
use crate::registry::{RegisterError, Registered};

pub(super) async fn register(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    state.token.demand(&request)?;
    let worker_id = parse_id(path.into_inner())?;
    let heartbeat: Heartbeat = read_json(body).await?;
    // Registration is a way in: leases go to whoever sent this, and nowhere else.
    let peer =
        request.peer_addr().ok_or_else(|| ApiError::Conflict("the connection has no peer address".to_owned()))?;
    let address = SocketAddr::new(peer.ip().to_canonical(), heartbeat.port);
    let registered = state.registry.register(worker_id.clone(), address, heartbeat, Instant::now()).map_err(explain)?;
    let key = match registered {
        Registered::Again { key } => key,
        Registered::New { key, slots, replaced } => {
            info!(%worker_id, %address, slots, "worker registered");
            admit(&state, &worker_id, key, slots, replaced);
            key
        }
    };
    if let Some(connection) = request.conn_data::<Connection>() {
        connection.when_closed(move || state.registry.note_disconnect(&worker_id, key, Instant::now()));
    }
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn deregister(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.token.demand(&request)?;
    let worker_id = parse_id(path.into_inner())?;
    let Deregistration { boot_id } = query_from(request.query_string())?;
    let Some(key) = state.registry.deregister(&worker_id, boot_id) else {
        return Err(ApiError::NotFound(format!("this path: no worker {worker_id} is registered as {boot_id}")));
    };
    info!(%worker_id, "worker is leaving");
    state.grid.worker_retired(key);
    Ok(HttpResponse::NoContent().finish())
}

fn admit(state: &State, worker_id: &WorkerId, key: WorkerKey, slots: u32, replaced: Option<WorkerKey>) {
    if let Some(replaced) = replaced {
        warn!(%worker_id, "another process registered under this worker's name: what it held is lost");
        state.metrics.evicted(EvictionReason::Replaced);
        state.grid.worker_lost(replaced);
    }
    state.grid.worker_joined(key, slots);
    state.registry.admit(worker_id, key);
    state.grid.slots_changed();
}

fn parse_id(id: String) -> Result<WorkerId, ApiError> {
    let invalid =
        |error: InvalidWorkerId| ApiError::InvalidField { field: "worker_id", message: format!("is wrong: {error}") };
    WorkerId::try_from(id).map_err(invalid)
}

fn explain(error: RegisterError) -> ApiError {
    match error {
        RegisterError::NoPort | RegisterError::Slots => ApiError::InvalidBody(error.to_string()),
        RegisterError::Full => ApiError::Unavailable(error.to_string()),
    }
}
