//! A full copy of the propagated state on its way to an edge.
//!
//! Control side: a [`Cut`] is one immutable state at a sealed position. Its beginning carries the head of the chain and the hashes of all
//! buckets; its chunks carry whole buckets in order. Edge side: a [`SnapshotBuilder`] holds the bucket hashes against the sealed state
//! root once, and then proves each chunk by itself the moment it comes: a bucket's records have its hash or they do not, so a
//! record that is missing, changed or added is found in its chunk. Buckets whose hashes equal those of what the edge holds
//! already need not be sent, so a second snapshot after a first is as large as what changed in between.
//!
//! ```text
//! meta of the beginning: the head of the chain (57 bytes, see `head.rs`), then 4096 hashes of 32 bytes, the buckets' in order
//!
//! records of a chunk, one after another, in the order of buckets and then of keys; numbers are little-endian
//! 0       2      key length k
//! 2       k      key
//! 2+k     4      value length v
//! 6+k     v      value
//!
//! proof of a chunk: the numbers of the buckets it holds whole, 2 bytes each, rising
//! ```

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use seams::mutation::{self, Mutation};
use state::{
    BUCKETS, ChainHead, Content, Key, LARGE_VALUE_BYTES, Propagated, SealStatement, Signed, bucket_hash, bucket_of, record_weight,
    root_of_buckets,
};
use types::{ClusterId, Hash, Position, UnixMillis};
use wire::internal as proto;

use crate::{
    Fault,
    follower::{Held, past::ChainMark},
    head,
    publisher::CHAIN,
    serve::{marks_in, position_in, position_out},
    sign::{Anchor, Trust},
};

/// One immutable state at a sealed position, planned into chunks. Shared by all streams that send it.
pub struct Cut {
    state: Propagated,
    seal: Bytes,
    base: Option<Position>,
    meta: Bytes,
    chunks: Vec<Vec<u16>>,
    records_bytes: u64,
    memory_bytes: u64,
}

impl Cut {
    /// Plans a snapshot of `state`, whose seal is `seal`, for subscribers that hold `base` or nothing. Walks over all records.
    pub fn new(state: Propagated, seal: Bytes, base: Option<(Position, &Propagated)>, chunk_bytes: usize) -> Self {
        let hashes = state.bucket_hashes();
        let held = base.map_or_else(|| Propagated::empty().bucket_hashes(), |(_, base)| base.bucket_hashes());
        let mut chunks = Vec::new();
        let (mut chunk, mut bytes, mut records_bytes, mut memory_bytes) = (Vec::new(), 0, 0, 0);
        for bucket in (0..BUCKETS).filter(|bucket| hashes[usize::from(*bucket)] != held[usize::from(*bucket)]) {
            let mut size = 0;
            for (key, content) in state.bucket_records(bucket..bucket + 1) {
                size += key.as_bytes().len() + content.len() + 6;
                memory_bytes += record_weight(key, content.len(), LARGE_VALUE_BYTES);
            }
            if !chunk.is_empty() && bytes + size > chunk_bytes {
                chunks.push(std::mem::take(&mut chunk));
                bytes = 0;
            }
            chunk.push(bucket);
            bytes += size;
            records_bytes += size as u64;
        }
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        let meta = head::encode(&state.head(), hashes.iter().map(|hash| &hash.as_bytes()[..]));
        Self { state, seal, base: base.map(|(position, _)| position), meta, chunks, records_bytes, memory_bytes }
    }

    /// The position it was cut at.
    pub const fn position(&self) -> Position {
        self.state.position()
    }

    /// The chain hash there.
    pub const fn chain_hash(&self) -> Hash {
        self.state.chain_hash()
    }

    /// The state root there.
    pub fn state_root(&self) -> Hash {
        self.state.state_root()
    }

    /// The state itself.
    pub const fn state(&self) -> &Propagated {
        &self.state
    }

    /// The position that a subscriber must hold to make use of it; none when it is complete.
    pub const fn base(&self) -> Option<Position> {
        self.base
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX)
    }

    /// The message that goes before the chunks from `first_chunk` on, without marks of the chain before.
    pub fn begin(&self, first_chunk: u32) -> proto::SnapshotBegin {
        proto::SnapshotBegin {
            position: Some(position_out(self.position())),
            meta: self.meta.clone(),
            chunks: self.chunks(),
            first_chunk,
            seal_encoded: self.seal.clone(),
            records_bytes: self.records_bytes,
            memory_bytes: self.memory_bytes,
            marks: Vec::new(),
        }
    }

    /// One chunk; none past the last, and when a value in it cannot be read.
    pub fn chunk(&self, index: u32) -> Option<proto::SnapshotChunk> {
        let buckets = self.chunks.get(index as usize)?;
        let mut records = BytesMut::new();
        let mut proof = BytesMut::with_capacity(2 * buckets.len());
        for bucket in buckets {
            proof.put_u16_le(*bucket);
            for (key, content) in self.state.bucket_records(*bucket..bucket + 1) {
                let unreadable =
                    |error: &state::Unreadable| tracing::error!(%error, "a snapshot cannot be sent on: a large value cannot be read");
                let value = content.bytes(key).inspect_err(unreadable).ok()?;
                let key = key.as_bytes();
                records.put_u16_le(u16::try_from(key.len()).ok()?);
                records.put_slice(key);
                records.put_u32_le(u32::try_from(value.len()).ok()?);
                records.put_slice(&value);
            }
        }
        Some(proto::SnapshotChunk { index, records: records.freeze(), proof: proof.freeze() })
    }
}

fn decode_meta(meta: &Bytes) -> Result<(ChainHead, Vec<Hash>), Fault> {
    let (head, mut rest) = head::decode("snapshot beginning", meta.clone())?;
    if rest.len() != 32 * usize::from(BUCKETS) {
        return Err(Fault::Malformed { what: "snapshot beginning", detail: format!("{} bytes of bucket hashes", rest.len()) });
    }
    Ok((head, (0..BUCKETS).map(|_| head::next_hash(&mut rest)).collect()))
}

/// A snapshot being received: built beside what is served, proven piece by piece.
pub struct SnapshotBuilder {
    head: ChainHead,
    seal: Bytes,
    hashes: Vec<Hash>,
    /// What the edge held at the beginning: where its buckets have the wanted hashes, they are taken over.
    base: Propagated,
    /// Proven buckets.
    proven: BTreeMap<u16, Vec<(Key, Content)>>,
    state_root: Hash,
    chunks: u32,
    next: u32,
    /// Bytes of memory for the records proven so far, and how many there may be.
    bytes: u64,
    bytes_max: u64,
    /// What the sender says of the chain before.
    marks: Vec<ChainMark>,
}

impl SnapshotBuilder {
    /// Begins, or goes on with `before` when it is the same snapshot. What the seal says is held against the meta here; its signature
    /// is verified here too when its signer set is trusted already, and at the end in any case, when the signer set that lies in the
    /// snapshot itself is proven. At most `bytes_max` of records are taken.
    pub(crate) fn begin(
        cluster: ClusterId,
        begin: &proto::SnapshotBegin,
        held: &Held,
        bytes_max: u64,
        before: Option<Self>,
    ) -> Result<Self, Fault> {
        let (trust, held) = (&held.trust, &held.state);
        let malformed = |error: state::StatementError| Fault::Malformed { what: "seal", detail: error.to_string() };
        let signed = Signed::<SealStatement>::decode(&begin.seal_encoded).map_err(malformed)?;
        let seal = signed.statement;
        let (head, hashes) = decode_meta(&begin.meta)?;
        let at = seal.position;
        if seal.cluster != cluster {
            return Err(Fault::WrongCluster { got: seal.cluster, want: cluster });
        }
        if (seal.chain, head.chain) != (CHAIN, CHAIN) {
            return Err(Fault::WrongChain { got: seal.chain, want: CHAIN });
        }
        if head.position != at || begin.position.map(position_in) != Some(at) || head.hash != seal.chain_hash {
            return Err(Fault::SnapshotWhole { at, detail: "its head is not the sealed one".into() });
        }
        if !trust.may_move(held.position(), at) {
            return Err(Fault::WrongGeneration { got: at, have: held.position() });
        }
        if trust.knows(at, signed.signer_set) {
            trust.verify("seal", at, &signed)?;
        }
        // A sender that does not say is found out by its chunks.
        if begin.memory_bytes > bytes_max {
            return Err(Fault::IndexFull { at, got: begin.memory_bytes, max: bytes_max });
        }
        if root_of_buckets(&hashes) != Some(seal.state_root) {
            return Err(Fault::SnapshotWhole { at, detail: "its bucket hashes do not have the sealed state root".into() });
        }
        match before {
            Some(before)
                if (before.head.position, before.state_root, before.next, before.chunks)
                    == (at, seal.state_root, begin.first_chunk, begin.chunks) =>
            {
                Ok(Self { seal: begin.seal_encoded.clone(), ..before })
            }
            _ if begin.first_chunk == 0 => Ok(Self {
                head,
                seal: begin.seal_encoded.clone(),
                hashes,
                base: held.clone(),
                proven: BTreeMap::new(),
                state_root: seal.state_root,
                chunks: begin.chunks,
                next: 0,
                bytes: 0,
                bytes_max,
                marks: marks_in(&begin.marks, at),
            }),
            _ => Err(Fault::Protocol("a snapshot is gone on with that was never begun")),
        }
    }

    /// Begins as an edge of this cluster does that holds nothing and trusts no signer yet: for whoever reads chunks apart from a stream.
    ///
    /// # Errors
    /// [`Fault`]: the beginning contradicts itself, or is of another cluster.
    pub fn apart(cluster: ClusterId, begin: &proto::SnapshotBegin, bytes_max: u64) -> Result<Self, Fault> {
        let anchor = Anchor { first_signer_set: Hash::ZERO, recovery: None };
        let held = Held { state: Propagated::empty(), trust: Trust::new(cluster, anchor), seal: None };
        Self::begin(cluster, begin, &held, bytes_max, None)
    }

    /// The snapshot's position.
    pub const fn position(&self) -> Position {
        self.head.position
    }

    /// Positions before, and the chain's hashes there. Nobody has signed them: they are good for noticing a fork, and for nothing else.
    pub(crate) fn marks(&self) -> Vec<ChainMark> {
        self.marks.clone()
    }

    /// What to present to go on with it over another stream.
    pub(crate) fn resume(&self) -> proto::SnapshotResume {
        proto::SnapshotResume {
            position: Some(position_out(self.head.position)),
            state_root: Bytes::copy_from_slice(self.state_root.as_bytes()),
            next_chunk: self.next,
        }
    }

    /// Takes one chunk, proven whole or refused.
    ///
    /// # Errors
    /// [`Fault::SnapshotChunk`]: it is not the next one, is cut off, or a bucket has not its hash; [`Fault::IndexFull`].
    pub fn chunk(&mut self, chunk: &proto::SnapshotChunk) -> Result<(), Fault> {
        let refuse = |detail: String| Fault::SnapshotChunk { at: self.head.position, chunk: chunk.index, detail };
        if chunk.index != self.next || chunk.index >= self.chunks {
            return Err(refuse(format!("expected chunk {} of {}", self.next, self.chunks)));
        }
        if !chunk.proof.len().is_multiple_of(2) {
            return Err(refuse("its list of buckets is cut off".into()));
        }
        let listed = chunk.proof.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let mut buckets: BTreeMap<u16, Vec<(Key, Bytes)>> = listed.map(|bucket| (bucket, Vec::new())).collect();
        let mut rest = &chunk.records[..];
        let mut bytes = self.bytes;
        while !rest.is_empty() {
            let (key, value) = take_record(&mut rest).ok_or_else(|| refuse("a record is cut off".into()))?;
            bytes += record_weight(&key, value.len(), self.base.inline_max());
            if bytes > self.bytes_max {
                return Err(Fault::IndexFull { at: self.head.position, got: bytes, max: self.bytes_max });
            }
            let bucket = bucket_of(&key);
            let records = buckets.get_mut(&bucket).ok_or_else(|| refuse(format!("a record of bucket {bucket}, which is not listed")))?;
            records.push((key, value));
        }
        for (bucket, records) in &mut buckets {
            records.sort_by(|(one, _), (other, _)| one.cmp(other));
            let hash = bucket_hash(records.iter().map(|(key, value)| (key, value)));
            if self.hashes.get(usize::from(*bucket)) != Some(&hash) && !mutation::is_on(Mutation::SnapshotUnproven) {
                return Err(refuse(format!("bucket {bucket} has not its hash: a record is missing, changed or added")));
            }
        }
        for (bucket, records) in buckets {
            let records = records.into_iter().map(|(key, value)| {
                let content = self.base.content(&key, value);
                (key, content)
            });
            self.proven.insert(bucket, records.collect());
        }
        self.bytes = bytes;
        self.next += 1;
        Ok(())
    }

    /// The whole state and its seal, once every bucket is proven or taken over. The seal's signature is still to be verified. Nobody
    /// signs the time that stands in a snapshot's head, so it counts up to `proven` only: one far ahead would hold an edge back
    /// for as long after the next damage.
    pub(crate) fn finish(mut self, proven: UnixMillis) -> Result<(Propagated, Bytes), Fault> {
        self.head.time = self.head.time.min(proven);
        let at = self.head.position;
        let missing = |detail: String| Fault::SnapshotWhole { at, detail };
        if self.next != self.chunks {
            return Err(missing(format!("{} of {} chunks came", self.next, self.chunks)));
        }
        let mut proven = self.proven;
        let held = self.base.bucket_hashes();
        let empty = bucket_hash(std::iter::empty());
        let mut loading = self.base.emptied().load();
        let mut put = |(key, content)| loading.put(key, content);
        for bucket in 0..BUCKETS {
            match proven.remove(&bucket) {
                Some(bucket) => bucket.into_iter().for_each(&mut put),
                // A complete snapshot does not list what is empty in it, whatever lies there in what is held.
                None if self.hashes[usize::from(bucket)] == empty => {}
                None if held[usize::from(bucket)] == self.hashes[usize::from(bucket)] => {
                    let records = self.base.bucket_records(bucket..bucket + 1);
                    records.map(|(key, content)| (key.clone(), content.clone())).for_each(&mut put);
                }
                None => return Err(missing(format!("bucket {bucket} is missing"))),
            }
        }
        let state = loading.finish(self.head);
        if state.state_root() == self.state_root || mutation::is_on(Mutation::SnapshotUnproven) {
            Ok((state, self.seal))
        } else {
            Err(Fault::SealedStateRoot { at })
        }
    }
}

/// The next record. It is copied, so that it does not keep the whole message in memory.
fn take_record(rest: &mut &[u8]) -> Option<(Key, Bytes)> {
    let key_len = usize::from(rest.try_get_u16_le().ok()?);
    let (key, after) = rest.split_at_checked(key_len)?;
    *rest = after;
    let value_len = rest.try_get_u32_le().ok()? as usize;
    let (value, after) = rest.split_at_checked(value_len)?;
    *rest = after;
    Some((Key::from_bytes(key), Bytes::copy_from_slice(value)))
}
