//! `/live`: the stream that a browser keeps open, one for all its tabs. Each second it carries the version of the grid; a
//! page that shows another version asks for itself again.

use std::convert::Infallible;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, Responder};
use actix_web_lab::sse::{self, Sse};
use bytestring::ByteString;
use tokio::sync::mpsc;

use super::super::State;
use super::overview::dashboard_of;
use super::page::PageError;

/// Ticks that may wait for a slow browser: only the last counts.
const WAITING: usize = 2;

pub(super) async fn ticks(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, PageError> {
    let ticks = dashboard_of(&state)?.ticks();
    let (sender, receiver) = mpsc::channel(WAITING);
    actix_web::rt::spawn(async move {
        // The browser may go, which ends the stream.
        let _ = send(&state, ticks, &sender).await;
    });
    Ok(Sse::from_infallible_receiver(receiver).respond_to(&request).map_into_boxed_body())
}

async fn send(
    state: &State,
    mut ticks: tokio::sync::watch::Receiver<String>,
    browser: &mpsc::Sender<sse::Event>,
) -> Option<Infallible> {
    // The browser learns immediately that the stream is there.
    browser.send(sse::Event::Comment(ByteString::from_static("open"))).await.ok()?;
    loop {
        tokio::select! {
            changed = ticks.changed() => changed.ok()?,
            () = browser.closed() => return None,
            () = state.health.drained() => return None,
        }
        let version = ticks.borrow_and_update().clone();
        browser.send(sse::Data::new(version).event("tick").into()).await.ok()?;
    }
}
