//! The coordinators of this grid and their leader, as the store lists them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::{CoordinatorRole, CoordinatorSummary};
use service::{ApiError, Health};
use store::shared::{Member, MemberStatus};
use store::{ReadError, Shared};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::role::Role;

/// Interval between reads of the list of members.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shortest interval between reads while a request waits for a leader.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// Longest time that the store may take to answer a read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// A member without an announcement for this time is gone: each announces itself once a second.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// A member that announced itself within this time can lead next.
const LIVES_WITHIN: Duration = Duration::from_secs(3);

/// The member that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) id: Uuid,
    pub(crate) epoch: u64,
    pub(crate) public_address: String,
    pub(crate) internal_address: String,
    pub(crate) version: String,
}

/// The coordinators of the grid, as the store lists them.
pub(crate) struct Members {
    own: Member,
    role: Arc<Role>,
    /// `None` where no other coordinator can open the store.
    shared: Option<Arc<dyn Shared>>,
    leader: watch::Sender<Option<Leader>>,
    has_successor: AtomicBool,
    refresh: Notify,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Members {
    pub(crate) fn new(own: Member, role: Arc<Role>, shared: Option<Arc<dyn Shared>>) -> Self {
        let (leader, has_successor, refresh) = (watch::Sender::new(None), AtomicBool::new(false), Notify::new());
        Self { own, role, shared, leader, has_successor, refresh }
    }

    /// This coordinator.
    pub(crate) fn own(&self) -> &Member {
        &self.own
    }

    /// The other member that leads, as far as this coordinator knows.
    pub(crate) fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.leader.subscribe()
    }

    /// Whether another live member could lead.
    pub(crate) fn has_successor(&self) -> bool {
        self.has_successor.load(Ordering::Relaxed)
    }

    /// The error for work that this coordinator gives up as it stops: another coordinator that can lead does the work.
    pub(crate) fn why_stopping(&self) -> ApiError {
        match self.shared {
            Some(_) => ApiError::NotLeading,
            None => ApiError::Unavailable("the coordinator is stopping".to_owned()),
        }
    }

    /// Makes the next read of the list happen soon: another member may lead.
    pub(crate) fn look_again(&self) {
        self.refresh.notify_one();
    }

    /// All live coordinators, in the order of their starts.
    pub(crate) async fn list(&self) -> Result<Vec<CoordinatorSummary>, ReadError> {
        let Some(shared) = &self.shared else {
            let status = MemberStatus { member: self.own.clone(), last_contact: Duration::ZERO, leads: None };
            return Ok(vec![self.summary(status)]);
        };
        let members = shared.members().await?;
        let living = members.into_iter().filter(|status| status.last_contact < GONE_AFTER);
        Ok(living.map(|status| self.summary(status)).collect())
    }

    fn summary(&self, status: MemberStatus) -> CoordinatorSummary {
        let MemberStatus { member, last_contact, leads } = status;
        let of_own_term = || self.role.term().filter(|_| member.id == self.own.id).map(|term| term.epoch);
        let epoch = leads.map(|epoch| epoch.0).or_else(of_own_term);
        CoordinatorSummary {
            id: member.name,
            instance: member.id,
            public_address: member.public_address,
            internal_address: member.internal_address,
            role: if epoch.is_some() { CoordinatorRole::Leader } else { CoordinatorRole::Standby },
            epoch,
            version: member.version,
            started_at: member.started_at,
            last_contact_ms_ago: u64::try_from(last_contact.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Keeps the leader's address and this service's readiness up to date. Runs for ever.
    pub(crate) async fn run(self: Arc<Self>, health: Health) {
        let Some(shared) = self.shared.clone() else { return std::future::pending().await };
        loop {
            let members = timeout(READ_TIMEOUT, shared.members()).await;
            match members {
                Ok(Ok(members)) => {
                    health.set_obstacle(None);
                    self.note(members);
                }
                Ok(Err(_)) | Err(_) => health.set_obstacle(Some("the store cannot be read")),
            }
            tokio::select! {
                () = sleep(INTERVAL) => (),
                () = self.refresh.notified() => sleep(LEAST_INTERVAL).await,
            }
        }
    }

    fn note(&self, members: Vec<MemberStatus>) {
        let lives = |other: &MemberStatus| other.member.id != self.own.id && other.last_contact < LIVES_WITHIN;
        self.has_successor.store(members.iter().any(lives), Ordering::Relaxed);
        let leader = members.into_iter().find_map(|MemberStatus { member, leads, .. }| {
            let Member { id, public_address, internal_address, version, .. } = member;
            leads.map(|epoch| Leader { id, epoch: epoch.0, public_address, internal_address, version })
        });
        self.leader.send_if_modified(|known| {
            let is_new = *known != leader;
            *known = leader;
            is_new
        });
    }
}
