//! Begins a term when this coordinator comes to lead, and ends the term when it leads no longer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use service::ended_by_itself;
use store::{Epoch, Retention, Shared, Store};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::election::{Election, Signal};
use crate::members::Members;
use crate::role::{Role, Trust};
use crate::term::{self, RunningTerm, Term, TermParts};

/// Longest time that the last changes of a term may take to be committed when the leadership is given up.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The subject of the error when a part ends although nothing has stopped it.
pub(crate) const PART: &str = "a part of the coordinator";

/// Begins and ends the terms of this coordinator.
pub(crate) struct Terms {
    role: Arc<Role>,
    parts: TermParts,
    running: Option<RunningTerm>,
    /// Terms that are being torn down.
    ending: JoinSet<()>,
    /// `None` where no other coordinator can open the store.
    lead: Option<SharedLead>,
}

/// The lead of a shared store: the election and the parts that it needs.
struct SharedLead {
    shared: Arc<dyn Shared>,
    retention: Retention,
    election: Election,
}

impl Terms {
    /// Leads for the life of the process, over a store that no other one can open.
    pub(crate) async fn alone(role: Arc<Role>, parts: TermParts, store: Arc<Store>) -> anyhow::Result<Self> {
        let (term, queues) = Term::new(&parts.config, store, Trust::for_ever(), false);
        let running = term.start(queues, &parts).await?;
        role.begin(Arc::clone(&running.term));
        Ok(Self { role, parts, running: Some(running), ending: JoinSet::new(), lead: None })
    }

    /// Follows until the election makes this coordinator the leader.
    pub(crate) fn shared(
        role: Arc<Role>,
        parts: TermParts,
        members: &Arc<Members>,
        shared: Arc<dyn Shared>,
    ) -> anyhow::Result<Self> {
        let noticed = Arc::clone(members);
        let election = Election::start(shared.leadership(), members.own().clone(), move || noticed.look_again());
        let election = election.context("start the thread that keeps the leadership")?;
        let lead = SharedLead { shared, retention: parts.config.retention(), election };
        Ok(Self { role, parts, running: None, ending: JoinSet::new(), lead: Some(lead) })
    }

    /// The present term.
    pub(crate) fn term(&self) -> Option<&Arc<Term>> {
        self.running.as_ref().map(|running| &running.term)
    }

    /// Begins and ends terms. Resolves when a part of a term ends although nothing has stopped it.
    pub(crate) async fn run(&mut self) -> anyhow::Error {
        loop {
            let signal = tokio::select! {
                ended = part_ended(&mut self.running) => return ended,
                signal = next_signal(&mut self.lead) => signal,
                Some(_) = self.ending.join_next(), if !self.ending.is_empty() => continue,
            };
            match signal {
                Some(Signal::Begin { epoch, trust }) => self.begin(epoch, trust).await,
                Some(Signal::End { epoch }) => self.end(epoch),
                None => return anyhow!("the thread that keeps the leadership has ended by itself"),
            }
        }
    }

    async fn begin(&mut self, epoch: Epoch, trust: Trust) {
        // No part of an earlier term runs beside this one.
        if let Some(before) = self.term().map(|term| term.epoch) {
            self.end(Epoch(before));
        }
        let Some(lead) = &self.lead else { return };
        let begun = match open(lead, trust.epoch()).await {
            Ok(store) => {
                let (term, queues) = Term::new(&self.parts.config, store, trust.clone(), true);
                let begun = Arc::clone(&term).start(queues, &self.parts).await;
                if begun.is_err() {
                    // The store takes some time to close while the database is away: the lease is given up before.
                    self.ending.spawn(async move { close(term.abandon().await).await });
                }
                begun
            }
            Err(error) => Err(error),
        };
        match begun {
            Ok(running) if trust.holds() => {
                info!(%epoch, "this coordinator leads");
                self.parts.metrics.took_over();
                self.role.begin(Arc::clone(&running.term));
                running.ask_for_lists(&self.parts);
                self.running = Some(running);
            }
            Ok(running) => {
                warn!(%epoch, "the leadership ended before it began");
                self.ending.spawn(tear_down(running));
            }
            Err(error) => {
                warn!(%epoch, error = format!("{error:#}"), "this coordinator cannot lead");
                lead.election.stand_back(epoch);
            }
        }
    }

    /// Ends the term: from now on nothing of it leaves this process. Its tear-down goes on beside the next term.
    fn end(&mut self, epoch: Epoch) {
        if let Some(running) = self.running.take_if(|running| running.term.epoch == epoch.0) {
            info!(%epoch, "this coordinator follows");
            running.term.trust.end();
            self.role.end();
            self.ending.spawn(tear_down(running));
        }
    }

    /// Ends the term so that another coordinator can take over, and leads no more. Changes that clients were promised are
    /// committed.
    pub(crate) async fn step_down(&mut self) {
        self.role.end();
        if let Some(running) = self.running.take() {
            let epoch = running.term.epoch;
            let store = running.stop().await;
            match timeout(FLUSH_TIMEOUT, store.flush()).await {
                Ok(Ok(())) => info!(epoch, "this coordinator gives the leadership up"),
                Ok(Err(error)) => {
                    warn!(epoch, %error, "changes that are not committed are lost: their tasks run again")
                }
                Err(_) => warn!(epoch, "changes that are not committed in time are lost: their tasks run again"),
            }
            self.ending.spawn(close(store));
        }
        if let Some(lead) = &self.lead {
            lead.election.retire().await;
        }
    }

    /// Ends the term if it still runs. A shared store can be led by another coordinator then.
    pub(crate) async fn stop(mut self) {
        if self.lead.is_some() {
            self.step_down().await;
        } else if let Some(running) = self.running.take() {
            running.stop().await;
        }
        self.role.end();
        while self.ending.join_next().await.is_some() {}
    }
}

async fn open(lead: &SharedLead, epoch: Epoch) -> anyhow::Result<Arc<Store>> {
    let (shared, retention) = (Arc::clone(&lead.shared), lead.retention);
    let opened = spawn_blocking(move || {
        let parts = shared.lead(epoch).context("open the store to lead")?;
        Store::start(parts, retention).context("start the store's writer")
    });
    Ok(Arc::new(opened.await.context("open the store")??))
}

async fn part_ended(running: &mut Option<RunningTerm>) -> anyhow::Error {
    let Some(running) = running else { return std::future::pending().await };
    // Without a result all parts have ended.
    ended_by_itself(PART, running.part_ended().await.unwrap_or(Ok(())).map(Ok))
}

async fn next_signal(lead: &mut Option<SharedLead>) -> Option<Signal> {
    let Some(lead) = lead else { return std::future::pending().await };
    lead.election.next().await
}

/// Ends the rest of a term that has lost its lease: its changes are refused.
async fn tear_down(running: RunningTerm) {
    close(running.stop().await).await;
}

async fn close(store: Arc<Store>) {
    if let Err(error) = term::close(store).await {
        warn!(error = format!("{error:#}"), "changes of a term that is over are not committed");
    }
}
