//! Sharing of a store by several coordinators: one of them leads at a time, all others follow.
//!
//! The store keeps a *lease*: its holder, its epoch, and its expiry by the store's own clock. Taking the lease over raises the
//! epoch, so that every batch of an earlier leader is refused in its own transaction, however late it comes. A leader trusts its
//! lease for [`LeadershipLease::lasts`] from before its request, by its own monotonic clock: it stops before another leader can
//! begin.

use std::pin::Pin;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use crate::backend::Reading;
use crate::batch::Epoch;
use crate::error::LeadershipError;
use crate::store::{FollowerParts, Parts};

/// Usual duration of a lease after it was taken or renewed, and the shortest: it holds several [`RENEW_INTERVAL`]s. A member that
/// has another duration leads with that one, and the others wait for the end of its lease, not of their own.
pub const LEASE: Duration = Duration::from_millis(1200);
/// Interval at which a leader renews its lease.
pub const RENEW_INTERVAL: Duration = Duration::from_millis(300);
/// Interval at which a follower checks whether the lease has expired.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(150);
/// Time for which a member is listed after its last sign of life.
pub const MEMBER_KEPT: Duration = Duration::from_mins(10);

/// A coordinator that shares the store: one run of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Id of the run of the process.
    pub id: Uuid,
    /// Name of the coordinator, the same in its next run.
    pub name: String,
    /// Address for clients.
    pub public_address: String,
    /// Address for workers and other coordinators.
    pub internal_address: String,
    /// Version of the program.
    pub version: String,
    /// Start of the process.
    pub started_at: Timestamp,
}

/// A member as seen by the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// The member.
    pub member: Member,
    /// Time since the member's last announcement, by the store's clock.
    pub last_contact: Duration,
    /// Epoch of the member's lease, if it leads.
    pub leads: Option<Epoch>,
}

/// A reading of the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Instant of the reading, by the monotonic clock of this process.
    pub instant: Instant,
    /// The store's time.
    pub at: Timestamp,
}

/// A lease that was taken or renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadershipLease {
    /// Epoch of the lease.
    pub epoch: Epoch,
    /// Longest time that the lease may be trusted, counted by a monotonic clock from before the call that returned it.
    pub lasts: Duration,
}

/// The answer to [`Leadership::acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The caller leads.
    Leads(LeadershipLease),
    /// Another member leads.
    Held {
        /// Id of the leading member.
        by: Uuid,
        /// Epoch of the leading member.
        epoch: Epoch,
        /// Time from now until the lease expires unless it is renewed.
        expires_in: Duration,
    },
}

/// A coordinator's access to the lease, by a connection of its own. Calls block, for the duration of a lease at most, and belong on
/// a thread of their own.
pub trait Leadership: Send {
    /// Announces this member to the others, or repeats the announcement.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn announce(&mut self, member: &Member) -> Result<(), LeadershipError>;

    /// Takes the lease over if it has expired, or if this member holds it already: each success is a new epoch.
    ///
    /// # Errors
    /// The store cannot be reached. The lease may have been taken; another call begins another epoch.
    fn acquire(&mut self, member: Uuid) -> Result<Acquired, LeadershipError>;

    /// Renews the lease of an epoch before it expires.
    ///
    /// # Errors
    /// The lease has expired or was taken over ([`LeadershipError::Lost`]), or the store cannot be reached: then the term goes on
    /// until the end of its trust.
    fn renew(&mut self, epoch: Epoch) -> Result<LeadershipLease, LeadershipError>;

    /// Lets the lease of an epoch expire now, so that another member can take it over. Without effect on a later epoch. The
    /// caller has closed its [`crate::Store`] before, so that all its changes are committed.
    ///
    /// # Errors
    /// The store cannot be reached: the lease expires by itself.
    fn resign(&mut self, epoch: Epoch) -> Result<(), LeadershipError>;

    /// Removes a member that stops from the list.
    ///
    /// # Errors
    /// The store cannot be reached: the others find it silent.
    fn leave(&mut self, member: Uuid) -> Result<(), LeadershipError>;
}

/// Resolves with a description when a store is found to have lost committed data.
pub type Losing = Pin<Box<dyn Future<Output = String> + Send>>;

/// A store that several coordinators share.
pub trait Shared: Send + Sync {
    /// An access to the lease.
    fn leadership(&self) -> Box<dyn Leadership>;

    /// Opens the store for the leader of an epoch: reads, and changes that are refused once the epoch has passed. Blocks.
    ///
    /// # Errors
    /// The epoch has passed, or the store cannot be reached.
    fn lead(&self, epoch: Epoch) -> Result<Parts, LeadershipError>;

    /// Opens the store for a follower: reads, and submissions of jobs. Blocks.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn follow(&self) -> Result<FollowerParts, LeadershipError>;

    /// Resolves when the store has lost commits, as a replica that did not get the last ones. Users of the store must restart. By
    /// default never.
    fn lost(&self) -> Losing {
        Box::pin(std::future::pending())
    }

    /// The newest reading of the store's clock, by which all coordinators date events. `None` if the store has no clock of its
    /// own.
    fn clock(&self) -> Option<watch::Receiver<ClockReading>> {
        None
    }

    /// Every member that was announced within [`MEMBER_KEPT`], by the time of its start.
    fn members(&self) -> Reading<'_, Vec<MemberStatus>>;
}
