//! `/assets/{name}`: the style sheet and the scripts.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use service::{ApiError, Compressed};

pub(super) async fn file(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let path = request.path();
    let (asset, caching) = match (dashboard::asset(path), dashboard::stand_in(path)) {
        (Some(asset), _) => (asset, "public, max-age=31536000, immutable"),
        (None, Some(other)) => (other, "no-store"),
        (None, None) => return Err(ApiError::NotFound(path.to_owned())),
    };
    let mut response = HttpResponse::Ok()
        .content_type(asset.content_type)
        .insert_header((header::CACHE_CONTROL, caching))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; connect-src 'self'"))
        .body(asset.content);
    Compressed::default().mark(&mut response);
    Ok(response)
}
