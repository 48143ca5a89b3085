//! Somebody on the way between voters and an edge, who can withhold, repeat and change, and must not be believed.

use seams::{Entropy, sim::SimEntropy};
use wire::internal::{SubscribeDown, subscribe_down::Message};

use super::{history::History, net::Tamper};

/// What they do to a batch. The edge must refuse what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// Take a change set out.
    DropsChangeSets,
    /// Send the batch before it again.
    RepeatsBatches,
    /// Turn a bit.
    TurnsBits,
}

/// Somebody on the way who changes about every tenth batch.
pub(super) fn tamper(trick: Trick, seed: u64, history: History) -> Tamper {
    let entropy = SimEntropy::new(seed);
    let mut before: Option<SubscribeDown> = None;
    Box::new(move |message| {
        let Some(Message::Batch(batch)) = &message.message else { return vec![message] };
        let again = before.replace(message.clone());
        if !entropy.number().is_multiple_of(10) || batch.change_sets_encoded.is_empty() {
            return vec![message];
        }
        let mut changed = batch.clone();
        let place = entropy.number() as usize % changed.change_sets_encoded.len();
        let messages = match (trick, again) {
            (Trick::DropsChangeSets, _) => {
                changed.change_sets_encoded.remove(place);
                vec![SubscribeDown { message: Some(Message::Batch(changed)) }]
            }
            (Trick::RepeatsBatches, Some(again)) => vec![again, message],
            (Trick::TurnsBits, _) => {
                let mut bytes = changed.change_sets_encoded[place].to_vec();
                let at = entropy.number() as usize % bytes.len();
                bytes[at] ^= 1 << (entropy.number() % 8);
                changed.change_sets_encoded[place] = bytes.into();
                vec![SubscribeDown { message: Some(Message::Batch(changed)) }]
            }
            _ => return vec![message],
        };
        history.count("batches tampered with");
        messages
    })
}
