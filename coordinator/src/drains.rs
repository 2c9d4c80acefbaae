//! The drains of workers as the store keeps them: they outlast a change of the leader and a restart of the coordinator.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use model::WorkerId;
use store::{Drain, DrainedWorker, ReadError, Store, WriteError};
use tokio::time::{MissedTickBehavior, interval_at};
use tracing::{debug, info, warn};

use crate::clock::now;
use crate::supervisor::Supervisor;
use crate::term::Term;
use crate::workers::Workers;

/// Time for which the drain of an absent registered process is kept: until then the process may be cut off and return.
const AWAY_FOR: SignedDuration = SignedDuration::from_hours(24);

/// The most drains that are kept: as many as there can be workers. Beyond that the oldest are forgotten.
const MAX_DRAINS: usize = 131_072;

/// Interval at which the drains of processes that are gone are forgotten.
const INTERVAL: Duration = Duration::from_mins(1);

/// Drains the workers of a name: the process that is registered under it, and the one that pulls. The drain is stored before it
/// begins. Returns whether there is such a worker.
pub(crate) async fn drain(term: &Term, workers: &Workers, worker: &WorkerId) -> Result<bool, WriteError> {
    let (boot, pulls) = (workers.boot_id(worker), term.pull_workers.knows(worker));
    if let Some(boot_id) = boot {
        put(&term.store, worker, boot).await?;
        workers.drain(worker, boot_id);
    }
    if pulls {
        put(&term.store, worker, None).await?;
        term.pull_workers.drain(worker);
    }
    let is_known = boot.is_some() || pulls;
    if is_known {
        info!(worker_id = %worker, "drained a worker");
    }
    Ok(is_known)
}

async fn put(store: &Store, worker: &WorkerId, boot: Option<model::BootId>) -> Result<(), WriteError> {
    store.drain(Drain { drained: DrainedWorker { worker: worker.clone(), boot }, at: now().at }).await
}

/// Takes over the drains of earlier terms; to be called before a worker joins the engine.
pub(crate) async fn recall(term: &Term, workers: &Workers) -> Result<(), ReadError> {
    let (registered, pulling): (Vec<_>, Vec<_>) =
        term.store.drains().await?.into_iter().map(|drain| drain.drained).partition(|drained| drained.boot.is_some());
    workers.keep_drained(registered.into_iter().filter_map(|drained| Some((drained.worker, drained.boot?))));
    term.pull_workers.keep_drained(pulling.into_iter().map(|drained| drained.worker), Instant::now());
    Ok(())
}

/// Returns a function that forgets the drain of a pulling worker, whose name another process may have.
pub(crate) fn forgetter(store: Arc<Store>, supervisor: Supervisor) -> impl Fn(WorkerId) + Send + Sync + 'static {
    move |worker| {
        let store = Arc::clone(&store);
        drop(supervisor.spawn_whole(async move { forget(&store, DrainedWorker { worker, boot: None }).await }));
    }
}

async fn forget(store: &Store, drained: DrainedWorker) {
    let worker_id = drained.worker.clone();
    match store.forget_drain(drained).await {
        Ok(()) => debug!(%worker_id, "forgot the drain of a worker that is gone"),
        Err(error) => warn!(%worker_id, %error, "cannot forget the drain of a worker that is gone"),
    }
}

/// Forgets the drains of processes that are gone. Runs for ever.
pub(crate) async fn run(term: Arc<Term>, workers: Arc<Workers>) {
    // The workers need some time to register first.
    let mut ticks = interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !term.trust.holds() {
            continue;
        }
        match term.store.drains().await {
            Ok(drains) => {
                for drained in outdated(drains, &term, &workers) {
                    if let Some(boot_id) = drained.boot {
                        workers.forget_drained(&drained.worker, boot_id);
                    }
                    forget(&term.store, drained).await;
                }
            }
            Err(error) => warn!(%error, "cannot read the drained workers"),
        }
    }
}

/// The drains to forget: those of processes that seem to have ended, and the oldest ones beyond [`MAX_DRAINS`].
fn outdated(mut drains: Vec<Drain>, term: &Term, workers: &Workers) -> Vec<DrainedWorker> {
    drains.sort_by_key(|drain| Reverse(drain.at));
    let (instant, at) = (Instant::now(), now().at);
    let is_gone = |Drain { drained, at: since }: &Drain| match drained.boot {
        None => !term.pull_workers.is_drained(&drained.worker, instant),
        boot => match workers.boot_id(&drained.worker) {
            None => at.duration_since(*since) > AWAY_FOR,
            registered => registered != boot,
        },
    };
    let outdated = drains.into_iter().enumerate().filter(|(place, drain)| *place >= MAX_DRAINS || is_gone(drain));
    outdated.map(|(_, drain)| drain.drained).collect()
}
