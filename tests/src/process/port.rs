//! Ports that nobody else takes, also while their server is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use runtime::OsEntropy;
use seams::Entropy;

/// Below the ports that the system gives to outgoing connections (from 32768 on, on Linux), and above the last one that browsers and Node
/// refuse to call (10080, the last on the list of "bad ports" of the Fetch standard).
const PORTS: std::ops::Range<u16> = 10_081..30_000;
/// Another address of loopback. Who listens there on a port has claimed it, and the system lets only one do so.
const CLAIMS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Ports of 127.0.0.1 for servers that are stopped and started again. They stay claimed as long as this lives: tests that run beside
/// this one, in processes of their own, never get the same.
#[derive(Default)]
pub struct Ports {
    claims: Vec<TcpListener>,
}

impl Ports {
    /// One more address.
    ///
    /// # Panics
    /// When there is none.
    pub fn claim(&mut self) -> SocketAddr {
        for _ in 0..1000 {
            let mut bytes = [0; 2];
            OsEntropy.fill(&mut bytes);
            let port = PORTS.start + u16::from_be_bytes(bytes) % (PORTS.end - PORTS.start);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let Ok(claim) = TcpListener::bind((CLAIMS, port)) else { continue };
            // Somebody who claims nothing may listen there.
            if TcpListener::bind(address).is_ok() {
                self.claims.push(claim);
                return address;
            }
        }
        panic!("no free port from {} to {}", PORTS.start, PORTS.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_that_is_claimed_is_given_to_nobody_else_until_it_is_dropped() {
        let mut ours = Ports::default();
        let port = ours.claim().port();
        assert!(TcpListener::bind((CLAIMS, port)).is_err());
        // Its server may listen, stop, and listen again.
        for _ in 0..2 {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
        drop(ours);
        TcpListener::bind((CLAIMS, port)).unwrap();
    }
}
