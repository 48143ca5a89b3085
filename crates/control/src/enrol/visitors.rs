//! How many strangers are heard, and how often: `Join` is open to whoever reaches the port.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime::listen::network;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::{ErrorKind, PublicError};

/// Joins at once: each costs about a millisecond of ciphers and one entry of the log.
const AT_ONCE_MAX: usize = 8;
/// Joins from one address, or network of IPv6, within [`WINDOW`]: a rack of nodes behind one gateway gets in within a minute.
const FROM_ONE_MAX: u32 = 30;
/// How long an attempt counts.
const WINDOW: Duration = Duration::from_secs(10);
/// Addresses that are remembered. When full, strangers at new addresses wait until the oldest window has passed.
const ADDRESSES_MAX: usize = 4096;

/// Counts who asks to be let in.
pub(crate) struct Visitors {
    places: Arc<Semaphore>,
    /// Attempts by address, with the beginning of their window.
    recent: Mutex<BTreeMap<IpAddr, (Duration, u32)>>,
}

impl Default for Visitors {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE_MAX)), recent: Mutex::default() }
    }
}

impl Visitors {
    /// A place, kept while the answer is made.
    pub(crate) fn enter(&self, from: Option<IpAddr>, now: Duration) -> Result<OwnedSemaphorePermit, PublicError> {
        let busy = |wait| PublicError::new(ErrorKind::Busy, "too many nodes ask to join: wait, then ask again").with_retry_after(wait);
        if !from.is_none_or(|address| self.counts(network(address), now)) {
            return Err(busy(WINDOW));
        }
        self.places.clone().try_acquire_owned().map_err(|_| busy(Duration::from_millis(200)))
    }

    fn counts(&self, address: IpAddr, now: Duration) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= ADDRESSES_MAX && !recent.contains_key(&address) {
            recent.retain(|_, (since, _)| now.saturating_sub(*since) < WINDOW);
            if recent.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let (since, count) = recent.entry(address).or_insert((now, 0));
        if now.saturating_sub(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= FROM_ONE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from(number)))
    }

    #[test]
    fn visitor_who_asks_too_often_waits_for_the_window_and_others_do_not() {
        let visitors = Visitors::default();
        let at = Duration::from_secs;
        for _ in 0..FROM_ONE_MAX {
            drop(visitors.enter(address(1), at(100)).unwrap());
        }
        let refused = visitors.enter(address(1), at(109)).err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Busy);
        assert!(visitors.enter(address(2), at(109)).is_ok());
        assert!(visitors.enter(address(1), at(110)).is_ok());
    }

    #[test]
    fn visitor_with_a_whole_network_of_addresses_counts_as_one() {
        let visitors = Visitors::default();
        let of = |network: u16, host: u16| Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host)));
        let now = Duration::from_secs(1);
        for host in 0..FROM_ONE_MAX as u16 {
            drop(visitors.enter(of(1, host), now).unwrap());
        }
        assert!(visitors.enter(of(1, u16::MAX), now).is_err());
        assert!(visitors.enter(of(2, 1), now).is_ok());
        // A server that listens for both sees an IPv4 address in the form of the other.
        let mapped = |number: u32| Some(IpAddr::V6(Ipv4Addr::from(number).to_ipv6_mapped()));
        for number in 0..=FROM_ONE_MAX {
            assert!(visitors.enter(mapped(number), now).is_ok(), "each IPv4 address counts by itself");
        }
    }

    #[test]
    fn visitors_at_once_are_bounded_and_a_place_is_free_again() {
        let visitors = Visitors::default();
        let now = Duration::from_secs(1);
        let held: Vec<_> = (0..AT_ONCE_MAX as u32).map(|number| visitors.enter(address(number), now).unwrap()).collect();
        assert!(visitors.enter(address(99), now).is_err());
        drop(held);
        assert!(visitors.enter(address(99), now).is_ok());
    }

    #[test]
    fn visitors_of_more_addresses_than_are_remembered_wait() {
        let visitors = Visitors::default();
        for number in 0..ADDRESSES_MAX as u32 {
            drop(visitors.enter(address(number), Duration::from_secs(1)).unwrap());
        }
        assert!(visitors.enter(address(u32::MAX), Duration::from_secs(2)).is_err());
        assert!(visitors.enter(address(5), Duration::from_secs(2)).is_ok());
        assert!(visitors.enter(address(u32::MAX), Duration::from_secs(11)).is_ok());
    }
}
