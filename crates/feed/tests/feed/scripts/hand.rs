//! What a hand on the wire sends: good bytes, and every kind of bad ones. All of it continues what the edge holds, but for what is
//! said to be wrong.

use std::sync::Arc;

use bytes::Bytes;
use feed::Cut;
use state::{ChangeSet, CheckpointStatement, SealStatement, Signed, SignedGeneration, Statement};
use types::{ChainId, ClusterId, Hash, NodeId, Position, Revision, UnixMillis};
use wire::internal::{GenerationBegun, SnapshotChunk, SnapshotEnd, SubscribeDown, subscribe_down::Message};

use super::{Args, Failure};
use crate::harness::{CONTROL, Plane, START_MS, batch, checkpoint, down, key_of, other_key, put, recovery_key, signing_key};

const WRONG: Hash = Hash::from_bytes([7; 32]);

/// The messages that `what` names, for an edge that holds `held`.
pub(super) fn make(plane: &Plane, held: u64, what: &str, args: &mut Args<'_>) -> Result<Vec<SubscribeDown>, Failure> {
    match what {
        "checkpoint" => Ok(vec![checkpoint(&checkpoint_of(plane, held, args)?)]),
        "snapshot" => snapshot_of(plane, held, args),
        "generation" => generation_of(plane, args),
        "refusal" => {
            let refused = wire::internal::Refused { message: "because".into(), ..Default::default() };
            Ok(vec![down(Message::Refused(refused))])
        }
        _ => batch_of(plane, held as usize, what).map(|message| vec![message]),
    }
}

fn batch_of(plane: &Plane, held: usize, what: &str) -> Result<SubscribeDown, Failure> {
    let rest = plane.sets.get(held..).filter(|rest| !rest.is_empty()).ok_or("control has nothing new")?;
    let first = &rest[0];
    let good = plane.seal();
    let with = |changed: ChangeSet| [&[Arc::new(changed)], &rest[1..]].concat();
    let resealed = |change: fn(&mut SealStatement)| {
        let mut statement = good.statement;
        change(&mut statement);
        batch(rest, Some(&signing_key().sign(statement, CONTROL, 1)))
    };
    Ok(match what {
        "good" => batch(rest, Some(&good)),
        "unsigned" => batch(rest, None),
        "gap" => batch(&rest[1..], Some(&good)),
        "repeat" => batch(&plane.sets[held - 1..], Some(&good)),
        "wrong-hash" => batch(&with(ChangeSet::from_claims(first.header, first.changes.clone(), WRONG)), Some(&good)),
        "changed-record" => batch(&with(ChangeSet::from_claims(first.header, vec![put(1, "another")], first.hash)), Some(&good)),
        "other-branch" => {
            let header = first.header;
            batch(&with(ChangeSet::new(ChainId::new(0), header.position, header.time, WRONG, first.changes.clone())), Some(&good))
        }
        "other-chain" => {
            let header = first.header;
            batch(&with(ChangeSet::new(ChainId::new(3), header.position, header.time, header.previous, first.changes.clone())), Some(&good))
        }
        "flipped-signature" => {
            let mut seal = good;
            seal.signature[10] ^= 1;
            batch(rest, Some(&seal))
        }
        "other-key" => batch(rest, Some(&other_key().sign(good.statement, CONTROL, 1))),
        "stranger" => batch(rest, Some(&other_key().sign(good.statement, NodeId::new(99), 1))),
        "removed-signer" => batch(rest, Some(&signing_key().sign(good.statement, CONTROL, good.signer_set))),
        "other-signer-set" => batch(rest, Some(&signing_key().sign(good.statement, CONTROL, 2))),
        "other-cluster" => resealed(|statement| statement.cluster = ClusterId::from_bytes([1; 16])),
        "other-chain-hash" => resealed(|statement| statement.chain_hash = WRONG),
        "other-root" => resealed(|statement| statement.state_root = WRONG),
        "seal-of-later" => batch(&rest[..1], Some(&good)),
        "cut-off" => {
            let mut message = batch(rest, Some(&good));
            if let Some(Message::Batch(batch)) = &mut message.message {
                batch.change_sets_encoded[0].truncate(40);
            }
            message
        }
        other => return Err(format!("nothing to send by the name of {other}").into()),
    })
}

/// `generation [WRONG]`: the statement of control's own.
fn generation_of(plane: &Plane, args: &mut Args<'_>) -> Result<Vec<SubscribeDown>, Failure> {
    let generation = plane.propagated().generation();
    let record = plane.propagated().generation_begun(generation)?.ok_or("control's generation has no statement")?;
    let mut signed = SignedGeneration::decode(&record.signed)?;
    let wrong = args.0.next_pos().map(|argument| argument.value.as_str());
    let key = match wrong {
        Some("by-other-key") => other_key(),
        // What a control node signs with is not what a generation is signed with.
        Some("by-a-signer") => key_of(plane.node),
        _ => recovery_key(),
    };
    match wrong {
        None | Some("by-other-key" | "by-a-signer") => {}
        Some("of-other-cluster") => signed.statement.cluster = ClusterId::from_bytes([1; 16]),
        Some("below") => signed.statement.begins = Position::new(generation, Revision::new(2)),
        Some("with-other-signers") => signed.statement.signer_set_hash = WRONG,
        Some("changed") => {}
        Some(other) => return Err(format!("no such generation: {other}").into()),
    }
    signed.signature = key.sign_bytes(&signed.statement.signing_bytes());
    if wrong == Some("changed") {
        signed.statement.begins = Position::new(generation, Revision::new(7777));
    }
    Ok(vec![down(Message::Generation(GenerationBegun { signed_encoded: signed.encode() }))])
}

/// `checkpoint [time=MS] [of=REVISION] [WRONG]`; the time is reckoned from the start.
fn checkpoint_of(plane: &Plane, held: u64, args: &mut Args<'_>) -> Result<Signed<CheckpointStatement>, Failure> {
    let of = args.key("of")?.unwrap_or(held);
    let time = START_MS + args.key("time")?.unwrap_or(1000);
    let mut good = plane.checkpoint_of(of, time);
    let resigned = |change: fn(&mut CheckpointStatement)| {
        let mut statement = good.statement;
        change(&mut statement);
        signing_key().sign(statement, CONTROL, 1)
    };
    Ok(match args.0.next_pos().map(|argument| argument.value.as_str()) {
        None => good,
        Some("with-later-time") => {
            good.statement.time = UnixMillis::new(time + 60_000);
            good
        }
        Some("by-other-key") => other_key().sign(good.statement, CONTROL, 1),
        Some("by-stranger") => other_key().sign(good.statement, NodeId::new(99), 1),
        Some("of-other-root") => resigned(|statement| statement.state_root = WRONG),
        Some("of-other-cluster") => resigned(|statement| statement.cluster = ClusterId::from_bytes([1; 16])),
        Some(other) => return Err(format!("no such checkpoint: {other}").into()),
    })
}

/// `snapshot [of=REVISION] [WRONG]`.
fn snapshot_of(plane: &Plane, held: u64, args: &mut Args<'_>) -> Result<Vec<SubscribeDown>, Failure> {
    let of = args.key("of")?.unwrap_or(plane.position().revision.get());
    let (before, state) = (&plane.history[held as usize], &plane.history[of as usize]);
    let mut seal = plane.seal_of(of);
    let wrong = args.0.next_pos().map(|argument| argument.value.as_str());
    if wrong == Some("by-other-key") {
        seal = other_key().sign(seal.statement, CONTROL, 1);
    }
    let cut = Cut::new(state.clone(), seal.encode(), None, 300);
    let mut begin = cut.begin(0);
    let mut chunks: Vec<SnapshotChunk> = (0..cut.chunks()).filter_map(|index| cut.chunk(index)).collect();
    // What the edge holds already it would rightly take over: the bucket that goes missing is one that has changed.
    let changed = |bucket: &u16| before.bucket_hashes()[usize::from(*bucket)] != state.bucket_hashes()[usize::from(*bucket)];
    let lacking = move |chunk: &SnapshotChunk| buckets(chunk).into_iter().find(changed);
    match wrong {
        None | Some("by-other-key") => {}
        Some("lacking-a-record") => {
            let first = chunks.iter_mut().find(|chunk| lacking(chunk).is_some()).ok_or("nothing has changed")?;
            first.records = first.records.slice(record_len(&first.records)..);
        }
        Some("with-a-changed-record") => {
            let last = chunks.last_mut().ok_or("an empty snapshot")?;
            last.records = with_last_byte_changed(&last.records);
        }
        Some("lacking-a-bucket") => {
            let chunk = chunks.iter_mut().find(|chunk| lacking(chunk).is_some()).ok_or("nothing has changed")?;
            *chunk = without_bucket(chunk, lacking(chunk).unwrap_or_default());
        }
        Some("lacking-a-chunk") => drop(chunks.pop()),
        Some("with-other-hashes") => {
            let mut meta = begin.meta.to_vec();
            meta[1000] ^= 1;
            begin.meta = meta.into();
        }
        Some(other) => return Err(format!("no such snapshot: {other}").into()),
    }
    let chunks = chunks.into_iter().map(|chunk| down(Message::SnapshotChunk(chunk)));
    let end = down(Message::SnapshotEnd(SnapshotEnd {}));
    Ok([down(Message::SnapshotBegin(begin))].into_iter().chain(chunks).chain([end]).collect())
}

/// The buckets that a chunk lists, 2 bytes each.
fn buckets(chunk: &SnapshotChunk) -> Vec<u16> {
    chunk.proof.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// The chunk as if there were no such bucket: records and listing go, and what is left is whole for what it lists.
fn without_bucket(chunk: &SnapshotChunk, gone: u16) -> SnapshotChunk {
    let (mut rest, mut records) = (chunk.records.clone(), Vec::new());
    while !rest.is_empty() {
        let record = rest.split_to(record_len(&rest));
        let key = usize::from(u16::from_le_bytes([record[0], record[1]]));
        if state::bucket_of(&state::Key::from_bytes(record.slice(2..2 + key))) != gone {
            records.extend_from_slice(&record);
        }
    }
    let listed = buckets(chunk).into_iter().filter(|bucket| *bucket != gone);
    SnapshotChunk { records: records.into(), proof: listed.flat_map(u16::to_le_bytes).collect(), ..chunk.clone() }
}

/// The length of the first record: key length in 2 bytes, key, value length in 4, value.
fn record_len(records: &[u8]) -> usize {
    let key = usize::from(u16::from_le_bytes([records[0], records[1]]));
    let value = records[2 + key..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    6 + key + value
}

fn with_last_byte_changed(records: &[u8]) -> Bytes {
    let mut records = records.to_vec();
    if let Some(last) = records.last_mut() {
        *last ^= 1;
    }
    records.into()
}
