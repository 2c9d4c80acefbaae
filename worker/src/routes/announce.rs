//! `POST /announce?epoch`: a coordinator that has just begun to lead asks for the leases that this worker holds. They come
//! with heartbeats, which leave at once; leases of lower epochs are refused from now on.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use service::{ApiError, Query};

use super::State;

pub(super) async fn announce(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    state.token.demand(&request)?;
    state.see(Query::parse(request.query_string())?.demanded("epoch")?)?;
    state.asked.send_replace(());
    Ok(HttpResponse::NoContent().finish())
}
