//! The store in memory, shared by several coordinators of one process, by a clock of the test's own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use super::{Link, Memory, MemoryBackend, lock, reads};
use crate::backend::Reading;
use crate::batch::Epoch;
use crate::error::{LeadershipError, ReadError};
use crate::shared::{Acquired, LEASE, Leadership, LeadershipLease, MEMBER_KEPT, Member, MemberStatus, Shared};
use crate::store::{FollowerParts, Parts};

/// The store's clock: time since some moment.
pub type StoreClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A coordinator's access to a store in memory.
#[derive(Clone)]
pub struct MemoryShared {
    memory: Memory,
    clock: StoreClock,
    link: Link,
    lease: Duration,
}

impl fmt::Debug for MemoryShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryShared").field("memory", &self.memory).field("link", &self.link).finish_non_exhaustive()
    }
}

impl Memory {
    /// A coordinator's access to the store. Each access has a connection of its own; all have the same clock.
    #[must_use]
    pub fn shared(&self, clock: StoreClock) -> MemoryShared {
        MemoryShared { memory: self.clone(), clock, link: Link::default(), lease: LEASE }
    }
}

impl MemoryShared {
    /// The same access with leases of this duration: a leader that renews a long lease late leads on.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// Cuts or restores the connection: while it is cut, nothing that was opened by it can reach the store.
    pub fn cut(&self, is_cut: bool) {
        self.link.0.store(is_cut, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), LeadershipError> {
        self.link.check().map_err(LeadershipError::Unavailable)
    }
}

impl Leadership for MemoryShared {
    fn announce(&mut self, member: &Member) -> Result<(), LeadershipError> {
        self.check()?;
        let now = (self.clock)();
        let mut state = lock(&self.memory.shared.state);
        state.members.retain(|_, (_, seen)| now.saturating_sub(*seen) < MEMBER_KEPT);
        state.members.insert(member.id, (member.clone(), now));
        Ok(())
    }

    fn acquire(&mut self, member: Uuid) -> Result<Acquired, LeadershipError> {
        self.check()?;
        let now = (self.clock)();
        let mut state = lock(&self.memory.shared.state);
        if let Some((by, expires_at)) = state.lease
            && by != member
            && let Some(expires_in) = expires_at.checked_sub(now).filter(|left| !left.is_zero())
        {
            return Ok(Acquired::Held { by, epoch: state.epoch(), expires_in });
        }
        let epoch = state.next_epoch();
        state.lease = Some((member, now + self.lease));
        Ok(Acquired::Leads(LeadershipLease { epoch, lasts: self.lease }))
    }

    fn renew(&mut self, epoch: Epoch) -> Result<LeadershipLease, LeadershipError> {
        self.check()?;
        let now = (self.clock)();
        let mut state = lock(&self.memory.shared.state);
        let current = state.epoch();
        match &mut state.lease {
            Some((_, expires_at)) if current == epoch && *expires_at > now => {
                *expires_at = now + self.lease;
                Ok(LeadershipLease { epoch, lasts: self.lease })
            }
            _ => Err(LeadershipError::Lost { epoch, current }),
        }
    }

    fn resign(&mut self, epoch: Epoch) -> Result<(), LeadershipError> {
        self.check()?;
        let now = (self.clock)();
        let mut state = lock(&self.memory.shared.state);
        if state.epoch() == epoch
            && let Some((_, expires_at)) = &mut state.lease
        {
            *expires_at = (*expires_at).min(now);
        }
        Ok(())
    }

    fn leave(&mut self, member: Uuid) -> Result<(), LeadershipError> {
        self.check()?;
        lock(&self.memory.shared.state).members.remove(&member);
        Ok(())
    }
}

impl Shared for MemoryShared {
    fn leadership(&self) -> Box<dyn Leadership> {
        Box::new(self.clone())
    }

    fn lead(&self, epoch: Epoch) -> Result<Parts, LeadershipError> {
        self.check()?;
        let state = lock(&self.memory.shared.state);
        let current = state.epoch();
        if current != epoch {
            return Err(LeadershipError::Lost { epoch, current });
        }
        let last_batch = state.last.as_ref().map_or(0, |(id, _)| *id);
        drop(state);
        Ok(self.memory.parts(epoch, last_batch, self.link.clone()))
    }

    fn follow(&self) -> Result<FollowerParts, LeadershipError> {
        self.check()?;
        let (shared, link) = (self.memory.shared.clone(), self.link.clone());
        let submitter = Box::new(MemoryBackend { shared: shared.clone(), link: link.clone(), follows: true });
        let latest_event = shared.latest_event.clone();
        let reads = Arc::new(reads::MemoryReads { shared, link });
        Ok(FollowerParts { submitter, reads, objects: self.memory.objects.clone(), latest_event })
    }

    fn members(&self) -> Reading<'_, Vec<MemberStatus>> {
        let now = (self.clock)();
        let read = || {
            self.link.check().map_err(ReadError::Unavailable)?;
            let state = lock(&self.memory.shared.state);
            let holder = state.lease.filter(|&(_, expires_at)| expires_at > now).map(|(holder, _)| holder);
            let mut members: Vec<_> = state
                .members
                .values()
                .map(|(member, seen)| MemberStatus {
                    member: member.clone(),
                    last_contact: now.saturating_sub(*seen),
                    leads: (holder == Some(member.id)).then(|| state.epoch()),
                })
                .filter(|status| status.last_contact < MEMBER_KEPT)
                .collect();
            members.sort_by_key(|status| (status.member.started_at, status.member.id));
            Ok(members)
        };
        Box::pin(std::future::ready(read()))
    }
}
