//! Long answers whose memory counts until the client has taken them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use serde::Serialize;

use crate::ApiError;
use crate::budget::{BodyBudget, Reservation};

/// Bytes that are given to a connection at once. It copies them, and asks for more when it has written most of them.
const PIECE_BYTES: usize = 32 * 1024;

impl BodyBudget {
    /// An answer of JSON, which takes its part of the budget until the client has taken it or is gone.
    ///
    /// # Errors
    /// The budget is exhausted.
    pub fn answer(&self, json: impl Into<Bytes>) -> Result<HttpResponse, ApiError> {
        let left = json.into();
        let held = Held { _reservation: self.reserve_within(left.len())?, left };
        Ok(HttpResponse::Ok().content_type("application/json").body(held))
    }

    /// Like [`Self::answer`], for a value.
    ///
    /// # Errors
    /// The budget is exhausted, or the value is no JSON.
    pub fn answer_value(&self, value: &impl Serialize) -> Result<HttpResponse, ApiError> {
        self.answer(serde_json::to_vec(value).map_err(|error| ApiError::Internal(error.to_string()))?)
    }
}

/// The body of an answer with its part of a budget.
struct Held {
    left: Bytes,
    _reservation: Reservation,
}

impl MessageBody for Held {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let length = self.left.len().min(PIECE_BYTES);
        Poll::Ready((length > 0).then(|| Ok(self.left.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use actix_web::ResponseError;

    use super::*;

    #[tokio::test]
    async fn an_answer_takes_its_part_of_the_budget_until_its_last_piece_is_taken() {
        let budget = BodyBudget::new(1 << 20);
        let json = format!("\"{}\"", "x".repeat(700_000));
        let mut body = budget.answer(json.clone()).expect("there is room").into_body();
        assert_eq!(body.size(), BodySize::Sized(700_002));
        let refused = budget.answer(json.clone()).expect_err("there is no room for two");
        assert_eq!(refused.status_code(), 503);
        assert!(budget.answer("[]").is_ok(), "short answers do not count");
        let mut taken = Vec::new();
        while let Some(piece) = poll_fn(|context| Pin::new(&mut body).poll_next(context)).await {
            let piece = piece.expect("it cannot fail");
            assert!((1..=PIECE_BYTES).contains(&piece.len()));
            assert!(budget.free_bytes() < 700_000, "it is held");
            taken.extend_from_slice(&piece);
        }
        drop(body);
        assert_eq!((taken, budget.free_bytes()), (json.into_bytes(), 1 << 20));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_gives_its_part_back() {
        let budget = BodyBudget::new(1 << 20);
        let answer = budget.answer_value(&vec!["x".repeat(600_000)]).expect("there is room");
        assert!(budget.free_bytes() < 600_000);
        drop(answer);
        assert_eq!(budget.free_bytes(), 1 << 20);
        // A result that was stored when the budget was larger.
        let answer = budget.answer("x".repeat(2 << 20)).expect("alone it has room");
        assert_eq!(budget.free_bytes(), 0);
        drop(answer);
        assert_eq!(budget.free_bytes(), 1 << 20);
    }
}
