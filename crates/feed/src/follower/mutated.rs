//! What the mutations of an edge do; nothing of it is reached without one ([`seams::mutation`]).

use std::sync::Arc;

use bytes::Bytes;
use seams::mutation::{self, Mutation};
use state::{ChangeSet, Root};

use super::{
    core::{Core, Held, Staged},
    record,
    verify::{self, Verified},
};
use crate::FeedError;

impl Core {
    /// Takes change sets as they come, and what the seal says for granted.
    pub(super) fn take_unsealed(&mut self, seal: &Bytes, staged: &mut Staged) -> Result<(), FeedError> {
        for encoded in std::mem::take(&mut self.unsealed) {
            let set = verify::change_set(encoded)?;
            let _ = staged.held.state.accept(&set);
            staged.entries.push(record::encode(set.encoded(), Some(&seal[..]).filter(|seal| !seal.is_empty())));
            staged.sets.push(set);
        }
        if let Ok(signed) = state::Signed::decode(seal) {
            staged.held.seal = Some(signed);
        }
        Ok(())
    }

    /// Shows what is only verified.
    pub(super) fn publish_unheld(&self, held: &Held) {
        if let Some(seal) = held.seal {
            self.parts.publish.publish(Arc::new(Root { state: held.state.clone(), seal }));
        }
    }

    /// Shows the first half of the first change set that has one, at the position of the whole.
    pub(super) fn publish_half(&self, sets: &[Arc<ChangeSet>]) {
        let (Some(seal), Some(place)) = (self.held.seal, sets.iter().position(|set| set.changes.len() > 1)) else { return };
        let mut state = self.held.state.clone();
        let (before, whole) = (&sets[..place], &sets[place]);
        let (header, changes) = (&whole.header, whole.changes[..whole.changes.len() / 2].to_vec());
        let half = ChangeSet::new(header.chain, header.position, header.time, header.previous, changes);
        if before.iter().map(|set| &**set).chain([&half]).all(|set| state.accept(set).is_ok()) {
            self.parts.publish.publish(Arc::new(Root { state, seal }));
        }
    }
}

/// A proven snapshot; under the mutation with the records of before that it has not.
pub(super) fn laid_on_top(before: &state::Propagated, snapshot: Verified) -> Verified {
    if !mutation::is_on(Mutation::SnapshotPutOnTop) {
        return snapshot;
    }
    let mut loading = before.emptied().load();
    let gone = before.records().filter(|(key, _)| snapshot.state.get(key).is_none());
    gone.chain(snapshot.state.records()).for_each(|(key, content)| loading.put(key.clone(), content.clone()));
    Verified { state: loading.finish(snapshot.state.head()), ..snapshot }
}
