//! Somebody on the way between voters and an edge, who can withhold, repeat and change, and must not be believed.

use bytes::Bytes;
use seams::{Entropy, sim::SimEntropy};
use wire::internal::{SubscribeDown, subscribe_down::Message};

use super::{history::History, net::Tamper};

/// What they do to what is sent. The edge must refuse what comes of it, or pass it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// Take a change set out of a batch.
    DropsChangeSets,
    /// Send the batch before it again.
    RepeatsBatches,
    /// Turn a bit of a change set.
    TurnsBits,
    /// Turn a bit of a seal's signature.
    TurnsSignatures,
    /// Send the checkpoint before it again, after it.
    RepeatsCheckpoints,
    /// Change a record of a snapshot.
    ChangesSnapshots,
}

impl Trick {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DropsChangeSets,
        Self::RepeatsBatches,
        Self::TurnsBits,
        Self::TurnsSignatures,
        Self::RepeatsCheckpoints,
        Self::ChangesSnapshots,
    ];

    /// Of so many messages of the kind that it changes, one is changed.
    const fn one_in(self) -> u64 {
        match self {
            Self::DropsChangeSets | Self::RepeatsBatches | Self::TurnsBits | Self::TurnsSignatures => 10,
            Self::RepeatsCheckpoints => 2,
            Self::ChangesSnapshots => 4,
        }
    }

    const fn is_of(self, message: &Message) -> bool {
        match self {
            Self::RepeatsCheckpoints => matches!(message, Message::Checkpoint(_)),
            Self::ChangesSnapshots => matches!(message, Message::SnapshotChunk(_)),
            _ => matches!(message, Message::Batch(_)),
        }
    }
}

/// The bytes of a signature, which are the last of what is signed.
const SIGNATURE: usize = 64;

/// Somebody on the way who changes a part of what comes by.
pub(super) fn tamper(trick: Trick, seed: u64, history: History) -> Tamper {
    let entropy = SimEntropy::new(seed);
    let mut before: Option<SubscribeDown> = None;
    Box::new(move |message| {
        let Some(kind) = message.message.as_ref().filter(|kind| trick.is_of(kind)) else { return vec![message] };
        let again = before.replace(message.clone());
        if !entropy.number().is_multiple_of(trick.one_in()) {
            return vec![message];
        }
        let sent = match (trick, again) {
            (Trick::RepeatsBatches, Some(again)) => Some(vec![again, message.clone()]),
            (Trick::RepeatsCheckpoints, Some(again)) => Some(vec![message.clone(), again]),
            _ => changed(trick, kind, &entropy).map(|changed| vec![SubscribeDown { message: Some(changed) }]),
        };
        let Some(sent) = sent else { return vec![message] };
        history.count("messages tampered with");
        sent
    })
}

/// What is sent in the place of a message; none where there is nothing in it to change.
fn changed(trick: Trick, message: &Message, entropy: &SimEntropy) -> Option<Message> {
    let mut changed = message.clone();
    match (trick, &mut changed) {
        (Trick::DropsChangeSets | Trick::TurnsBits, Message::Batch(batch)) => {
            let place = entropy.number() as usize % batch.change_sets_encoded.len().max(1);
            let set = batch.change_sets_encoded.get_mut(place)?;
            if trick == Trick::TurnsBits {
                *set = turned(set, set.len(), entropy)?;
            } else {
                batch.change_sets_encoded.remove(place);
            }
        }
        (Trick::TurnsSignatures, Message::Batch(batch)) => batch.seal_encoded = turned(&batch.seal_encoded, SIGNATURE, entropy)?,
        // The end of a chunk is the end of a record's content.
        (Trick::ChangesSnapshots, Message::SnapshotChunk(chunk)) => chunk.records = turned(&chunk.records, 8, entropy)?,
        _ => return None,
    }
    Some(changed)
}

/// The bytes with one bit turned, somewhere in the last so many.
fn turned(bytes: &Bytes, last: usize, entropy: &SimEntropy) -> Option<Bytes> {
    let first = bytes.len().checked_sub(last.max(1))?;
    let mut bytes = bytes.to_vec();
    let at = first + entropy.number() as usize % last.max(1);
    *bytes.get_mut(at)? ^= 1 << (entropy.number() % 8);
    Some(bytes.into())
}
