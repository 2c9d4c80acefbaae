//! `/live`: a stream that a browser keeps open, one for all its tabs. Each second it carries the present versions of the pages;
//! a page with another version reloads.

use std::convert::Infallible;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, Responder};
use actix_web_lab::sse::{self, Sse};
use bytestring::ByteString;
use service::{Right, until_revoked};
use tokio::sync::{mpsc, watch};

use super::super::State;
use super::overview::dashboard_of;
use super::page::PageError;
use crate::members::Leader;

/// Ticks that may wait for a slow browser: only the last one counts.
const WAITING: usize = 2;

pub(super) async fn ticks(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, PageError> {
    let ticks = dashboard_of(&state)?.ticks();
    let (sender, receiver) = mpsc::channel(WAITING);
    let revoked = until_revoked(&request, Right::Read);
    actix_web::rt::spawn(async move {
        tokio::select! {
            // The browser may leave, which ends the stream.
            _ = send(&state, ticks, &sender) => (),
            () = revoked => (),
        }
    });
    Ok(Sse::from_infallible_receiver(receiver).respond_to(&request).map_into_boxed_body())
}

async fn send(
    state: &State,
    mut ticks: watch::Receiver<String>,
    browser: &mpsc::Sender<sse::Event>,
) -> Option<Infallible> {
    let mut leaders = state.members.leader();
    let own = state.members.own().id;
    let leads_at_first = leaders.borrow_and_update().as_ref().map(|leader| leader.epoch);
    // The leader's pages have other versions than these ticks: the browser reconnects and gets the leader's.
    let is_superseding = |leader: &Option<Leader>| {
        leader.as_ref().is_some_and(|leader| leader.id != own && Some(leader.epoch) != leads_at_first)
    };
    // The browser learns immediately that the stream is open.
    browser.send(sse::Event::Comment(ByteString::from_static("open"))).await.ok()?;
    loop {
        tokio::select! {
            changed = ticks.changed() => changed.ok()?,
            Ok(_) = leaders.wait_for(is_superseding) => return None,
            () = browser.closed() => return None,
            () = state.health.drained() => return None,
        }
        let version = ticks.borrow_and_update().clone();
        browser.send(sse::Data::new(version).event("tick").into()).await.ok()?;
    }
}
