//! Addresses of refused workers: a worker asks again every second, and the log tells of it once in a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time from one warning about an address to the next.
const INTERVAL: Duration = Duration::from_secs(60);

/// Addresses that the log tells of within [`INTERVAL`].
const MAX_ADDRESSES: usize = 1_024;

/// The addresses that the log told of, with the time.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<IpAddr, Instant>>);

impl Refusals {
    /// Notes a refusal; whether the log is to tell of it.
    pub(super) fn is_news(&self, address: IpAddr, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < INTERVAL;
        if told.get(&address).is_some_and(|at| is_recent(*at)) {
            return false;
        }
        if told.len() >= MAX_ADDRESSES {
            told.retain(|_, at| is_recent(*at));
        }
        let has_room = told.len() < MAX_ADDRESSES;
        if has_room {
            told.insert(address, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn an_address_is_told_of_once_in_a_minute() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        assert!(refusals.is_news(address(1), start) && refusals.is_news(address(2), start));
        assert!(!refusals.is_news(address(1), start + INTERVAL / 2));
        assert!(refusals.is_news(address(1), start + INTERVAL));
        assert!(!refusals.is_news(address(1), start + INTERVAL));
    }

    #[test]
    fn many_addresses_are_told_of_up_to_a_bound() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let told = (0..5_000).filter(|number| refusals.is_news(address(*number), start)).count();
        assert_eq!(told, MAX_ADDRESSES);
        assert!(refusals.is_news(address(5_000), start + INTERVAL));
    }
}
