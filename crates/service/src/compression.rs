//! Answers that are sent in gzip to clients that take it. Handlers mark them; all other answers, such as streams of events, go out
//! as they are written.
//!
//! The length of a compressed answer may tell whether a text that another site chose also stands in a secret beside it (BREACH).
//! Marked answers hold no token, another site's requests for them come without the viewer's cookie, and answers to other methods
//! than `GET`, which repeat what was typed into a form, are not compressed.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{ResponseHead, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_ENCODING, HeaderValue, VARY};
use actix_web::web::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::accept::takes_gzip;

/// A fast level: pages are made again each second, and their size differs little from that of the slow levels.
const LEVEL: Compression = Compression::new(3);

/// Shorter answers fit one packet as they are.
const MIN_BYTES: u64 = 1_000;

/// The compressed form of an answer, made when the first client takes it. Answers with the same body share it.
#[derive(Clone, Debug, Default)]
pub struct Compressed(Arc<OnceLock<Bytes>>);

impl Compressed {
    /// Has an answer sent in this form to clients that take it. The body must be in memory.
    pub fn mark(&self, answer: &mut HttpResponse) {
        answer.extensions_mut().insert(self.clone());
    }

    /// The body to send.
    fn choose<B: MessageBody>(&self, is_taken: bool, head: &mut ResponseHead, body: B) -> EitherBody<B, Bytes> {
        if matches!(body.size(), BodySize::Sized(size) if size < MIN_BYTES) {
            return EitherBody::left(body);
        }
        head.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        if !is_taken {
            return EitherBody::left(body);
        }
        match body.try_into_bytes() {
            Ok(plain) => {
                head.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                EitherBody::right(self.0.get_or_init(|| gzip(&plain)).clone())
            }
            Err(streamed) => EitherBody::left(streamed),
        }
    }
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), LEVEL);
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("memory takes all that is written").into()
}

/// Compresses a marked answer for a client that takes it.
pub(crate) fn compress<B: MessageBody>(response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B, Bytes>> {
    let compressed = response.response().extensions().get::<Compressed>().cloned();
    let Some(compressed) = compressed else { return response.map_into_left_body() };
    let is_taken = response.request().method() == Method::GET && takes_gzip(response.request().headers());
    response.map_body(|head, body| compressed.choose(is_taken, head, body))
}
