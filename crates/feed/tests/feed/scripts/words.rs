//! Messages in words.

use std::time::Duration;

use state::{CheckpointStatement, SealStatement, Signed};
use types::{Generation, Position, Revision, UnixMillis};
use wire::internal::{FeedPosition, SubscribeDown, SubscribeUp, subscribe_down::Message, subscribe_up::Message as Up};

use crate::harness::START_MS;

pub(super) fn duration(duration: Duration) -> String {
    match (duration.as_millis(), duration.as_millis() % 1000) {
        (millis, 0) => format!("{}s", millis / 1000),
        (millis, _) => format!("{millis}ms"),
    }
}

/// A time as how long after the start it is.
pub(super) fn time(time: UnixMillis) -> String {
    format!("+{}", duration(time.since(UnixMillis::new(START_MS))))
}

fn position(position: Option<FeedPosition>) -> String {
    let FeedPosition { generation, revision } = position.unwrap_or_default();
    Position::new(Generation::new(generation), Revision::new(revision)).to_string()
}

pub(super) fn up(message: &SubscribeUp) -> String {
    match &message.message {
        Some(Up::Hello(hello)) => {
            let holds = hello.position.map_or("nothing".into(), |held| position(Some(held)));
            let resumes = hello.resume.as_ref().map(|resume| {
                let at = position(resume.position);
                format!(", and of the snapshot of {at} the chunks before {}", resume.next_chunk)
            });
            let passed = hello.marks.last().map(|mark| format!(", passed {}", position(mark.position)));
            format!("hello, holds {holds}{}{}", passed.unwrap_or_default(), resumes.unwrap_or_default())
        }
        Some(Up::Ack(ack)) => format!("ack {}", position(ack.position)),
        None => "nothing".into(),
    }
}

pub(super) fn down(message: &SubscribeDown) -> String {
    match &message.message {
        Some(Message::Welcome(welcome)) => format!("welcome, head is {}", position(welcome.head)),
        Some(Message::Batch(batch)) => {
            let sets: Vec<_> = batch
                .change_sets_encoded
                .iter()
                .filter_map(|set| state::ChangeSet::decode(set.clone()).ok())
                .map(|set| set.header.position)
                .collect();
            let seal = match Signed::<SealStatement>::decode(&batch.seal_encoded) {
                Ok(seal) => format!("seal of {} by node {}", seal.statement.position, seal.signer),
                Err(_) if batch.seal_encoded.is_empty() => "no seal".into(),
                Err(_) => "a seal that is none".into(),
            };
            match &sets[..] {
                [] => format!("batch of nothing, {seal}"),
                [one] => format!("batch {one}, 1 set, {seal}"),
                [first, .., last] => format!("batch {first} to {last}, {} sets, {seal}", sets.len()),
            }
        }
        Some(Message::Checkpoint(checkpoint)) => match Signed::<CheckpointStatement>::decode(&checkpoint.checkpoint_encoded) {
            Ok(signed) => format!("checkpoint of {} for {}", time(signed.statement.time), signed.statement.position),
            Err(_) => "a checkpoint that is none".into(),
        },
        Some(Message::SnapshotBegin(begin)) => {
            let marks = begin.marks.last().map(|mark| format!(", after {}", position(mark.position))).unwrap_or_default();
            format!("snapshot of {}{marks}, chunks {} to {}", position(begin.position), begin.first_chunk, begin.chunks.saturating_sub(1))
        }
        Some(Message::SnapshotChunk(chunk)) => format!("chunk {}, {} buckets", chunk.index, chunk.proof.len() / 2),
        Some(Message::SnapshotEnd(_)) => "end of the snapshot".into(),
        Some(Message::Envelopes(envelopes)) => format!("{} envelopes", envelopes.envelopes.len()),
        Some(Message::AckWanted(_)) => "a signed ack is wanted".into(),
        Some(Message::Generation(begun)) => match state::SignedGeneration::decode(&begun.signed_encoded) {
            Ok(signed) => format!("generation begins at {}, restored at {}", signed.statement.begins, signed.statement.restored),
            Err(_) => "a generation that is none".into(),
        },
        Some(Message::Refused(refused)) => {
            let wait =
                if refused.retry_after_ms > 0 { format!(", stay away for {}s", refused.retry_after_ms / 1000) } else { String::new() };
            format!("refused, {}: {}{wait}", refused.kind().as_str_name(), refused.message)
        }
        None => "nothing".into(),
    }
}
