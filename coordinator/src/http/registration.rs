//! `PUT` and `DELETE /worker/register/{worker_id}`: registers a worker, and notes that it leaves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{Heartbeat, MAX_HEARTBEAT_BYTES};
use model::{BootId, InvalidWorkerId, WorkerId};
use service::{ApiError, Connection, Query, parse_json, read_body};
use tracing::{info, warn};

use super::State;
use crate::metrics::EvictionReason;
use crate::workers::{Origin, RegisterError, Registered};

/// The memory budget of all long heartbeats, in bytes: twice the leases of as many slots as there may be. It is separate, so
/// that no load of clients keeps a heartbeat out.
pub(crate) const HEARTBEAT_MEMORY: usize = 64 << 20;

/// Longest time that a heartbeat may take to arrive.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn register(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let worker_id = parse_id(path.into_inner())?;
    let heartbeat: Heartbeat =
        parse_json(&read_body(&request, body, MAX_HEARTBEAT_BYTES, HEARTBEAT_TIMEOUT, &state.heartbeats).await?)?;
    let connection = request.conn_data::<Connection>();
    let origin = origin(&request, connection, heartbeat.port)?;
    let slots = heartbeat.slots;
    let (registered, answer) =
        state.workers.register(&worker_id, origin, heartbeat, Instant::now()).map_err(explain)?;
    match registered {
        Registered::Known | Registered::Leaving => (),
        Registered::New => info!(%worker_id, address = %origin.address, slots, "worker registered"),
        Registered::Replaced { had_left: true } => {
            info!(%worker_id, address = %origin.address, slots, "worker registered again");
            state.metrics.evicted(EvictionReason::Left);
        }
        Registered::Replaced { had_left: false } => {
            warn!(%worker_id, address = %origin.address, slots, "another process registered under this worker's name");
            state.metrics.evicted(EvictionReason::Replaced);
        }
    }
    if let Some(connection) = connection {
        let id = connection.id();
        connection.when_closed(move || state.workers.note_disconnect(&worker_id, id, Instant::now()));
    }
    Ok(HttpResponse::Ok().json(answer))
}

pub(super) async fn deregister(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let worker_id = parse_id(path.into_inner())?;
    let boot_id = BootId(Query::parse(request.query_string())?.demanded("boot_id")?);
    if !state.workers.deregister(&worker_id, boot_id) {
        return Err(ApiError::Unknown(format!("no worker {worker_id} is registered as {boot_id}")));
    }
    info!(%worker_id, "worker is leaving");
    Ok(HttpResponse::NoContent().finish())
}

/// The origin of a heartbeat: leases go to the host that sent it, and nowhere else.
fn origin(request: &HttpRequest, connection: Option<&Connection>, port: u16) -> Result<Origin, ApiError> {
    let peer =
        request.peer_addr().ok_or_else(|| ApiError::Conflict("the connection has no peer address".to_owned()))?;
    let address = SocketAddr::new(peer.ip().to_canonical(), port);
    Ok(Origin { address, connection: connection.map_or(0, Connection::id) })
}

fn parse_id(id: String) -> Result<WorkerId, ApiError> {
    let invalid =
        |error: InvalidWorkerId| ApiError::InvalidField { field: "worker_id", message: format!("is wrong: {error}") };
    WorkerId::try_from(id).map_err(invalid)
}

fn explain(error: RegisterError) -> ApiError {
    match error {
        RegisterError::Field { field, allowed } => {
            ApiError::InvalidField { field, message: format!("must be {allowed}") }
        }
        RegisterError::Full => ApiError::Unavailable(error.to_string()),
        RegisterError::NameTaken { .. } => ApiError::Conflict(error.to_string()),
    }
}
