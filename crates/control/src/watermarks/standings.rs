//! How the other control nodes stand, whom each of them hears, and until when each node's certificate is good.
//!
//! Whom others hear decides whether a receipt is complete ([`Standings::heard_elsewhere`]); the rest is for tables that people read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use feed::{Changes, Changing};
use types::{NodeId, UnixMillis};

use super::Standing;

/// Certificates remembered at the most: as many as rows of acknowledgements. Past it, a node's shows as not known.
const CERTIFICATES_MAX: usize = 100_000;
/// Control nodes remembered at the most: far above any membership.
const CONTROLS_MAX: usize = 1000;

/// What is known of nodes beside what they hold.
pub(crate) struct Standings {
    inner: Mutex<Inner>,
    /// Moves whenever somebody is heard, or not any more, here or elsewhere.
    changed: Changing<u64>,
}

#[derive(Default)]
struct Inner {
    controls: BTreeMap<NodeId, Known>,
    /// Whom each control node hears that is heard.
    hears: BTreeMap<NodeId, BTreeSet<NodeId>>,
    certificates: BTreeMap<NodeId, UnixMillis>,
}

/// Another control node, as last heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// What it said.
    pub(crate) standing: Standing,
    /// When it was last heard, by the monotonic clock.
    pub(crate) at: Duration,
    /// Whether it is heard now.
    pub(crate) now: bool,
}

impl Default for Standings {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: Changing::new(0) }
    }
}

impl Standings {
    /// A control node told how it stands, and whom it hears.
    pub(crate) fn heard(&self, node: NodeId, standing: Standing, hears: impl Iterator<Item = NodeId>, at: Duration) {
        let hears: BTreeSet<NodeId> = hears.take(CONTROLS_MAX).collect();
        let mut inner = self.lock();
        if inner.controls.len() >= CONTROLS_MAX && !inner.controls.contains_key(&node) {
            return;
        }
        let before = inner.controls.insert(node, Known { standing, at, now: true });
        let others = inner.hears.get(&node) != Some(&hears);
        if others {
            inner.hears.insert(node, hears);
        }
        drop(inner);
        if others || before.is_none_or(|before| !before.now) {
            self.moved();
        }
    }

    /// A control node is not heard any more.
    pub(crate) fn lost(&self, node: NodeId, at: Duration) {
        let mut inner = self.lock();
        let Some(known) = inner.controls.get_mut(&node).filter(|known| known.now) else { return };
        *known = Known { at, now: false, ..*known };
        // What it hears is not known any more: it may be the one that is cut off.
        inner.hears.remove(&node);
        drop(inner);
        self.moved();
    }

    /// The control nodes that are heard now.
    pub(crate) fn hears(&self) -> Vec<NodeId> {
        self.lock().controls.iter().filter(|(_, known)| known.now).map(|(node, _)| *node).collect()
    }

    /// Who is not heard at the node `own`, but by a control node that is heard there.
    pub(crate) fn heard_elsewhere(&self, own: NodeId) -> BTreeSet<NodeId> {
        let inner = self.lock();
        let here = |node: &NodeId| inner.controls.get(node).is_some_and(|known| known.now);
        inner.hears.values().flatten().copied().filter(|node| *node != own && !here(node)).collect()
    }

    /// For waiting until somebody is heard, or not any more, here or elsewhere.
    pub(crate) fn subscribe(&self) -> Changes<u64> {
        self.changed.changes()
    }

    fn moved(&self) {
        self.changed.change(|version| *version = version.wrapping_add(1));
    }

    /// Whether a control node is heard now.
    pub(crate) fn is_heard(&self, node: NodeId) -> bool {
        self.control(node).is_some_and(|known| known.now)
    }

    /// A control node, as last heard.
    pub(crate) fn control(&self, node: NodeId) -> Option<Known> {
        self.lock().controls.get(&node).copied()
    }

    /// A node showed a certificate that ends then. A later end replaces an earlier one: certificates are renewed, not shortened.
    pub(crate) fn certificate(&self, node: NodeId, ends: Option<UnixMillis>) {
        let Some(ends) = ends else { return };
        let mut inner = self.lock();
        if inner.certificates.len() < CERTIFICATES_MAX || inner.certificates.contains_key(&node) {
            let known = inner.certificates.entry(node).or_insert(ends);
            *known = ends.max(*known);
        }
    }

    /// When the certificate that a node showed last ends.
    pub(crate) fn certificate_ends(&self, node: NodeId) -> Option<UnixMillis> {
        let inner = self.lock();
        let told = inner.controls.get(&node).and_then(|known| known.standing.certificate_ends);
        told.or_else(|| inner.certificates.get(&node).copied())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
