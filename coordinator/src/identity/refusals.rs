//! Addresses of refused workers: a worker asks again every second, and its refusal is logged once a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time from one warning about an address to the next.
const INTERVAL: Duration = Duration::from_secs(60);

/// Addresses that are logged within [`INTERVAL`]: more are not logged, so that the map stays small.
const MAX_ADDRESSES: usize = 1_024;

/// The addresses that were logged, with the time.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<IpAddr, Instant>>);

impl Refusals {
    /// Notes a refusal; whether it is to be logged.
    pub(super) fn is_news(&self, address: IpAddr, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < INTERVAL;
        if logged.get(&address).is_some_and(|at| is_recent(*at)) {
            return false;
        }
        if logged.len() >= MAX_ADDRESSES {
            logged.retain(|_, at| is_recent(*at));
        }
        let has_room = logged.len() < MAX_ADDRESSES;
        if has_room {
            logged.insert(address, now);
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
    fn an_address_is_logged_once_in_a_minute() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        assert!(refusals.is_news(address(1), start) && refusals.is_news(address(2), start));
        assert!(!refusals.is_news(address(1), start + INTERVAL / 2));
        assert!(refusals.is_news(address(1), start + INTERVAL));
        assert!(!refusals.is_news(address(1), start + INTERVAL));
    }

    #[test]
    fn many_addresses_are_logged_up_to_a_bound() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let logged = (0..5_000).filter(|number| refusals.is_news(address(*number), start)).count();
        assert_eq!(logged, MAX_ADDRESSES);
        assert!(refusals.is_news(address(5_000), start + INTERVAL));
    }
}
