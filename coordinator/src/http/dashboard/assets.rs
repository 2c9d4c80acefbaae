//! `/assets/{name}`: the style sheet and the scripts.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use service::ApiError;

pub(super) async fn file(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let asset = dashboard::asset(request.path()).ok_or_else(|| ApiError::NotFound(request.path().to_owned()))?;
    Ok(HttpResponse::Ok()
        .content_type(asset.content_type)
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; connect-src 'self'"))
        .body(asset.content))
}
