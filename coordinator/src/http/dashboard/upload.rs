//! `/submit/program`: a program from a form. A browser cannot hash a file without a script, so the file is received whole,
//! within the memory budget of all bodies.

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use dashboard::{SubmitForm, submit_page};
use futures_util::stream;
use model::JobKind;
use multer::{Field, Multipart, parse_boundary};
use service::{ApiError, Caller, read_body};
use tokio::task::yield_now;
use uuid::Uuid;

use super::super::State;
use super::super::programs::{UPLOAD_TIMEOUT, put_whole};
use super::page::{PageError, Visit, html, see_other};

/// The most bytes that a multipart form adds to its file.
pub(crate) const OVERHEAD_BYTES: usize = 64 * 1024;

/// Bytes of the body that are copied at a time.
const PIECE_BYTES: usize = 64 * 1024;

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
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let stored = put_whole(&state, async || FormFile::open(content_type, body.bytes()).await, &caller).await;
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

/// The file of a form, in pieces that are copied from the body one at a time: the parser copies its whole input, and a file may
/// take most of the memory that bodies have.
#[derive(Debug)]
pub(in crate::http) struct FormFile(Field<'static>);

impl FormFile {
    /// Finds the file of a form.
    async fn open(content_type: &str, body: Bytes) -> Result<Self, ApiError> {
        let no_form = |_| invalid("it must be a form with a file (multipart/form-data with a boundary)".to_owned());
        let boundary = parse_boundary(content_type).map_err(no_form)?;
        let mut form = Multipart::new(stream::unfold((body, true), next_piece), boundary);
        while let Some(field) = form.next_field().await.map_err(|_| broken())? {
            if field.name() == Some(FIELD) {
                return Ok(Self(field));
            }
        }
        Err(invalid(format!("the form has no file as {FIELD:?}")))
    }

    /// The next piece; `None` at the end of the file.
    pub(in crate::http) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.0.chunk().await.map_err(|_| broken())
    }
}

/// The first piece of the rest of a body. The parser takes all pieces that are ready: a pause before a piece makes it hand on the
/// earlier ones. There is no pause before the first piece of a body: the parser would take it for the end of a short form.
async fn next_piece((mut rest, is_first): (Bytes, bool)) -> Option<(Result<Bytes, multer::Error>, (Bytes, bool))> {
    if rest.is_empty() {
        return None;
    }
    if !is_first {
        yield_now().await;
    }
    let piece = rest.split_to(PIECE_BYTES.min(rest.len()));
    Some((Ok(piece), (rest, false)))
}

fn invalid(message: String) -> ApiError {
    ApiError::InvalidBody { field: None, message }
}

fn broken() -> ApiError {
    invalid("the form cannot be read: it is cut off, or not as multipart/form-data has it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "multipart/form-data; boundary=B";

    fn form(name: &str, content: &[u8]) -> Bytes {
        let head = format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n");
        [head.as_bytes(), content, b"\r\n--B--\r\n"].concat().into()
    }

    #[tokio::test]
    async fn a_file_is_copied_a_piece_at_a_time() {
        let content: Vec<u8> = (0..1_000_003_u32).flat_map(|number| (number % 251).to_le_bytes()).collect();
        let mut file = FormFile::open(FORM, form(FIELD, &content)).await.expect("it is there");
        let (mut read, mut longest) = (Vec::new(), 0);
        while let Some(piece) = file.next().await.expect("it is whole") {
            longest = longest.max(piece.len());
            read.extend_from_slice(&piece);
        }
        assert!(read == content, "{} bytes of {}", read.len(), content.len());
        // The end of an earlier piece may be the beginning of the boundary, and comes with the next piece.
        assert!(longest <= 2 * PIECE_BYTES, "{longest}");
    }

    #[tokio::test]
    async fn a_form_without_the_file_or_its_end_is_refused() {
        for (content_type, body, told) in [
            ("text/plain", form(FIELD, b"x"), "it must be a form with a file"),
            (FORM, form("other", b"x"), "the form has no file as"),
            (FORM, Bytes::from_static(b"x"), "the form cannot be read"),
        ] {
            let refused = FormFile::open(content_type, body).await.expect_err("it is refused").to_string();
            assert!(refused.contains(told), "{refused}");
        }
        let whole = form(FIELD, b"content");
        let mut cut = FormFile::open(FORM, whole.slice(..whole.len() - 8)).await.expect("its beginning is there");
        let refused = loop {
            match cut.next().await {
                Ok(piece) => assert!(piece.is_some(), "the end is missing"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(refused.contains("it is cut off"), "{refused}");
    }
}
