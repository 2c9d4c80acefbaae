//! `/submit/program`: a program from a form. A browser cannot hash a file without a script, so the file is received whole,
//! within the memory budget of all bodies.

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use dashboard::{SubmitForm, submit_page};
use futures_util::stream;
use model::JobKind;
use multer::{Multipart, parse_boundary};
use service::{ApiError, Caller, read_body};
use uuid::Uuid;

use super::super::State;
use super::super::programs::{UPLOAD_TIMEOUT, put_whole};
use super::page::{PageError, Visit, html, see_other};

/// The most bytes that a multipart form adds to its file.
pub(crate) const OVERHEAD_BYTES: usize = 64 * 1024;

/// The name of the form's field.
const FIELD: &str = "program";

pub(super) async fn program(
    state: Data<State>,
    request: HttpRequest,
    body: Payload,
    visit: Visit,
) -> Result<HttpResponse, PageError> {
    let most = usize::try_from(state.programs.max_bytes).unwrap_or(usize::MAX).saturating_add(OVERHEAD_BYTES);
    let body = read_body(&request, body, most, UPLOAD_TIMEOUT, &state.bodies).await?;
    let caller = Caller::of(&request);
    let stored = match file(&request, body.bytes()).await {
        Ok(pieces) => put_whole(&state, &pieces, &caller).await,
        Err(error) => Err(error),
    };
    match stored {
        Ok(hash) => Ok(see_other(&format!("/submit?kind=program&p.program={hash}&uploaded={hash}"))),
        Err(ApiError::InvalidBody { message, .. }) => {
            let key = Uuid::new_v4().to_string();
            let wrong = Some(("job".to_owned(), message));
            let form = SubmitForm { kind: Some(JobKind::PROGRAM), values: &[], wrong, key: &key };
            Ok(html(StatusCode::BAD_REQUEST, &submit_page(&visit.viewer(""), &form)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The pieces of the form's file, which share the memory of the body.
async fn file(request: &HttpRequest, body: Bytes) -> Result<Vec<Bytes>, ApiError> {
    let invalid = |message: String| ApiError::InvalidBody { field: None, message };
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let no_form = |_| invalid("it must be a form with a file (multipart/form-data with a boundary)".to_owned());
    let boundary = parse_boundary(content_type).map_err(no_form)?;
    let mut form = Multipart::new(stream::iter([Ok::<_, multer::Error>(body)]), boundary);
    let broken = |_| invalid("the form cannot be read: it is cut off, or not as multipart/form-data has it".to_owned());
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some(FIELD) {
            continue;
        }
        let mut pieces = Vec::new();
        while let Some(piece) = field.chunk().await.map_err(broken)? {
            pieces.push(piece);
        }
        return Ok(pieces);
    }
    Err(invalid(format!("the form has no file as {FIELD:?}")))
}
