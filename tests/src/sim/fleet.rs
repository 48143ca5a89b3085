//! All voters of a run, those that were added and those that are gone for ever.

use std::sync::{Arc, Mutex};

use types::NodeId;

use super::{runtime::lock, voter::Voter};

/// The voters. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Fleet(Arc<Mutex<Vec<Arc<Voter>>>>);

impl Fleet {
    pub(super) fn add(&self, voter: Arc<Voter>) {
        lock(&self.0).push(voter);
    }

    /// All that may run, in the order in which they came.
    pub(super) fn alive(&self) -> Vec<Arc<Voter>> {
        lock(&self.0).iter().filter(|voter| !voter.is_gone()).cloned().collect()
    }

    pub(super) fn running(&self) -> Vec<Arc<Voter>> {
        self.alive().into_iter().filter(|voter| voter.is_running()).collect()
    }

    pub(super) fn get(&self, node: NodeId) -> Option<Arc<Voter>> {
        lock(&self.0).iter().find(|voter| voter.node == node).cloned()
    }

    /// Somebody of those that run, by a draw.
    pub(super) fn somebody(&self, draw: u64) -> Option<Arc<Voter>> {
        let running = self.running();
        running.get((draw % running.len().max(1) as u64) as usize).cloned()
    }

    /// Who holds itself to lead, in the highest term, and the term.
    pub(super) fn leader(&self) -> Option<(u64, Arc<Voter>)> {
        let leading = self.running().into_iter().filter_map(|voter| {
            let status = voter.status()?;
            (status.leader == Some(voter.node)).then_some((status.term, voter))
        });
        leading.max_by_key(|(term, _)| *term)
    }

    pub(super) fn note_acknowledgements(&self) {
        self.alive().iter().for_each(|voter| voter.note_acknowledgements());
    }

    pub(super) fn forget(&self, edge: NodeId) {
        self.alive().iter().for_each(|voter| voter.forget(edge));
    }
}
