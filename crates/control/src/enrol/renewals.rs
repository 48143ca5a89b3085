//! How often a node may have its certificate renewed. Each renewal costs a few signatures and a question to the leader, and may be asked
//! for with a certificate that has ended, or of a node that is revoked.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use types::NodeId;
use wire::{ErrorKind, PublicError};

/// Renewals that one node may ask for at this node within [`WINDOW`]: far more than a node does whose certificates live for a minute.
const OF_ONE_MAX: u32 = 20;
/// How long an attempt counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Nodes that are remembered: as many as may be registered. When full, others wait until the oldest window has passed.
const NODES_MAX: usize = 16_384;

/// Counts who asks for a renewal, with the beginning of their window.
#[derive(Default)]
pub(crate) struct Renewals(Mutex<BTreeMap<Option<NodeId>, (Duration, u32)>>);

impl Renewals {
    /// Counts an attempt of `node`, which has proved that it holds its registered key; none: of somebody whose key this node does not know,
    /// all of whom count as one.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] with the time to wait.
    pub(crate) fn enter(&self, node: Option<NodeId>, now: Duration) -> Result<(), PublicError> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= NODES_MAX && !recent.contains_key(&node) {
            recent.retain(|_, (since, _)| now.saturating_sub(*since) < WINDOW);
            if recent.len() >= NODES_MAX {
                return Err(too_often(WINDOW));
            }
        }
        let (since, count) = recent.entry(node).or_insert((now, 0));
        if now.saturating_sub(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count <= OF_ONE_MAX { Ok(()) } else { Err(too_often(WINDOW.saturating_sub(now.saturating_sub(*since)))) }
    }
}

fn too_often(wait: Duration) -> PublicError {
    let message = format!("this node asks for a new certificate too often, more than {OF_ONE_MAX} times in {} s: wait", WINDOW.as_secs());
    PublicError::new(ErrorKind::Busy, message).with_retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_that_renews_too_often_waits_and_holds_up_nobody_else() {
        let renewals = Renewals::default();
        let (node, now) = (NodeId::new(1), Duration::from_secs(5));
        (0..OF_ONE_MAX).for_each(|_| renewals.enter(Some(node), now).unwrap());
        let refused = renewals.enter(Some(node), now + Duration::from_secs(20)).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Busy, Some(Duration::from_secs(40))));
        renewals.enter(Some(NodeId::new(2)), now).unwrap();
        renewals.enter(Some(node), now + WINDOW).unwrap();
    }

    #[test]
    fn nodes_that_are_remembered_are_bounded() {
        let renewals = Renewals::default();
        (0..NODES_MAX as u64).for_each(|node| renewals.enter(Some(NodeId::new(node)), Duration::ZERO).unwrap());
        assert!(renewals.enter(Some(NodeId::new(u64::MAX)), Duration::from_secs(1)).is_err());
        assert!(renewals.enter(Some(NodeId::new(5)), Duration::from_secs(1)).is_ok());
        assert!(renewals.enter(Some(NodeId::new(u64::MAX)), WINDOW).is_ok());
    }
}
