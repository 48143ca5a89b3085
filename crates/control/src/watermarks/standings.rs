//! How the other control nodes stand, and until when each node's certificate is good: for tables that people read. Nothing is decided
//! by it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use types::{NodeId, UnixMillis};

use super::Standing;

/// Certificates remembered at the most: as many as rows of acknowledgements. Past it, a node's shows as not known.
const CERTIFICATES_MAX: usize = 100_000;
/// Control nodes remembered at the most: far above any membership.
const CONTROLS_MAX: usize = 1000;

/// What is known of nodes beside what they hold.
#[derive(Default)]
pub(crate) struct Standings(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    controls: BTreeMap<NodeId, Known>,
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

impl Standings {
    /// A control node told how it stands.
    pub(crate) fn heard(&self, node: NodeId, standing: Standing, at: Duration) {
        let mut inner = self.lock();
        if inner.controls.len() < CONTROLS_MAX || inner.controls.contains_key(&node) {
            inner.controls.insert(node, Known { standing, at, now: true });
        }
    }

    /// A control node is not heard any more.
    pub(crate) fn lost(&self, node: NodeId, at: Duration) {
        if let Some(known) = self.lock().controls.get_mut(&node).filter(|known| known.now) {
            *known = Known { at, now: false, ..*known };
        }
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
