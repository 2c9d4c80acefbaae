//! Checks a connection while it lasts, and ends a connection that holds too much, or whose client is gone.

use std::rc::Weak;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;

use super::{FIRST_LOOK, Link, Phase};

/// Interval of the probes of a client whose sending half is closed.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// Checks a connection at intervals.
pub(super) async fn watch(link: Weak<Link>) {
    let mut stuck_since = None;
    let mut last_reads = 0;
    loop {
        let Some(interval) = link.upgrade().map(|link| link.limits.watch_interval) else { return };
        sleep(interval).await;
        let Some(link) = link.upgrade() else { return };
        let now = Instant::now();
        let reads = link.reads.get();
        let is_stuck = reads == last_reads && !link.waits_for_more.get() && link.has_unread();
        last_reads = reads;
        stuck_since = is_stuck.then(|| stuck_since.unwrap_or(now));
        let patience = match link.phase.get() {
            Phase::Between { until } if until < now => {
                if link.has_written_all.get() {
                    // The system would have ended the connection of a client without its answer by now.
                    link.when_lost.set(None);
                }
                return link.cut();
            }
            Phase::Between { .. } | Phase::Answering => continue,
            // The handler may delay reading its body, and bounds that time itself.
            Phase::InHandler { has_body: true, .. } => link.limits.unread_body_timeout,
            Phase::InHandler { has_body: false, .. } => link.limits.watch_interval,
        };
        if stuck_since.is_some_and(|since: Instant| now - since >= patience) {
            return link.cut();
        }
    }
}

/// Probes a client whose sending half is closed, while it is owed an answer.
pub(super) async fn ask(link: Weak<Link>) {
    let (mut asked_at, mut pause) = (None, FIRST_LOOK);
    let started_at = Instant::now();
    loop {
        let Some(this) = link.upgrade() else { return };
        if this.is_between_requests() {
            return this.is_asked_about.set(false);
        }
        let is_due = match asked_at {
            None => started_at.elapsed() >= this.limits.ask_after,
            Some(asked_at) => Instant::elapsed(&asked_at) >= ASK_INTERVAL,
        };
        if is_due && this.ask_whether_there() {
            asked_at = Some(Instant::now());
        }
        let in_handler = matches!(this.phase.get(), Phase::InHandler { .. });
        let is_unknown = in_handler && asked_at.is_none() && started_at.elapsed() > this.limits.half_closed_timeout;
        if this.is_reset() || is_unknown {
            return this.cut();
        }
        drop(this);
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Cuts a connection whose client has said through TLS that it sends nothing more, when its socket ends.
pub(super) async fn await_end(link: Weak<Link>) {
    let mut pause = FIRST_LOOK;
    loop {
        let Some(this) = link.upgrade() else { return };
        if this.is_between_requests() {
            return this.is_asked_about.set(false);
        }
        if this.has_socket_ended() {
            return this.cut();
        }
        drop(this);
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
