//! Writing an archive: twice over the records, once for their hash, which the signed header holds, and once for their bytes.

use seal::{ArchiveKey, ArchiveSealer, NodePublicKey};
use seams::Entropy;
use sha2::{Digest, Sha256};
use state::{Key, Signed, State, record::NodeRole, statement::ArchiveStatement};
use types::{NodeId, UnixMillis};

use super::{
    ArchiveError,
    format::{self, CHUNK, CHUNK_BYTES, FOOTER_BYTES, Header, LAST_CHUNK, Recipient, RecordsHash, Totals},
};

/// Nodes that are read in one go.
const NODES_AT_A_TIME: usize = 1000;

/// Who saves, and when.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its clock.
    pub now: UnixMillis,
}

/// Takes the bytes of an archive, part by part, each at most about a chunk.
pub type Sink<'a> = dyn FnMut(Vec<u8>) -> Result<(), ArchiveError> + 'a;

/// An archive about to be written: header and signature are made.
pub struct Draft {
    state: State,
    header: Header,
    beginning: Vec<u8>,
    sealer: ArchiveSealer,
}

impl Draft {
    /// Prepares an archive of `state`. `sign` signs as `identity.node`, and gives none where that node may not sign at this state.
    /// Blocks, for about half a second with 100,000 secrets.
    ///
    /// # Errors
    /// [`ArchiveError::Empty`], [`ArchiveError::NoSigner`], and a record or key that cannot be read.
    pub fn of(
        state: State,
        identity: Identity,
        entropy: &dyn Entropy,
        sign: &dyn Fn(ArchiveStatement) -> Option<Signed<ArchiveStatement>>,
    ) -> Result<Self, ArchiveError> {
        let settings = state.settings()?.ok_or(ArchiveError::Empty)?;
        let mut hash = RecordsHash::default();
        for (key, value) in state.records() {
            hash.add(key.as_bytes(), &value);
        }
        let (records, bytes) = (hash.records, hash.bytes);
        let (id, key) = (entropy.id(), ArchiveKey::generate(entropy));
        let envelope = |(recipient, public): (Recipient, NodePublicKey)| {
            Ok((recipient, seal::seal_archive_key(entropy, settings.cluster, id, recipient, &public, &key)?))
        };
        let header = Header {
            id,
            cluster: settings.cluster,
            created: identity.now,
            chain: state.head().chain,
            position: state.position(),
            chain_hash: state.chain_hash(),
            state_root: state.state_root(),
            applied: state.applied_index(),
            time: state.last_time(),
            level: settings.feature_level,
            records,
            bytes,
            records_hash: hash.end(),
            saved_by: identity.node,
            software: concat!("cinnabar ", env!("CARGO_PKG_VERSION")).to_owned(),
            envelopes: recipients(&state)?.into_iter().map(envelope).collect::<Result<_, ArchiveError>>()?,
        };
        let encoded = header.encode();
        let mut beginning = format::prefix(encoded.len());
        beginning.extend_from_slice(&encoded);
        let header_hash: [u8; 32] = Sha256::digest(&beginning).into();
        let signed = sign(header.statement(header_hash)).filter(|signed| signed.signer == header.saved_by).ok_or(ArchiveError::NoSigner)?;
        beginning.extend_from_slice(&signed.signer_set.to_be_bytes());
        beginning.extend_from_slice(&signed.signature);
        let crc = crc32c::crc32c(&beginning[format::PREFIX_BYTES..]);
        beginning.extend_from_slice(&crc.to_be_bytes());
        Ok(Self { sealer: ArchiveSealer::new(&key, header_hash), state, header, beginning })
    }

    /// What the archive will say of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// About how long it becomes.
    pub fn bytes_about(&self) -> u64 {
        let content = self.header.bytes + self.header.records * format::RECORD_HEADER_BYTES as u64;
        let around = format::CHUNK_HEADER_BYTES + seal::ARCHIVE_CHUNK_EXTRA_BYTES + format::CRC_BYTES;
        content + content.div_ceil(CHUNK_BYTES as u64) * around as u64 + (self.beginning.len() + FOOTER_BYTES) as u64
    }

    /// Writes it, and returns its length. Blocks as `sink` does.
    ///
    /// # Errors
    /// What `sink` gives; a [`SealError`](seal::SealError) only by a defect.
    pub fn write(self, sink: &mut Sink<'_>) -> Result<u64, ArchiveError> {
        let mut out = Counted { sink, file: Sha256::new(), length: 0 };
        out.put(self.beginning)?;
        let chunks = seal_records(&self.state, self.sealer, &mut out)?;
        let mut footer = Totals { chunks, records: self.header.records, length: out.length }.encode().to_vec();
        let file_hash = out.file.clone().chain_update(&footer).finalize();
        footer.extend_from_slice(&file_hash);
        out.put(footer)?;
        Ok(out.length)
    }
}

/// The unrevoked control nodes, and the recovery key where the cluster has one.
fn recipients(state: &State) -> Result<Vec<(Recipient, NodePublicKey)>, ArchiveError> {
    let (mut found, mut after): (_, Option<Key>) = (Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), NODES_AT_A_TIME)?;
        let open = page.items.iter().filter(|(_, record)| record.role == NodeRole::Control && record.revoked.is_none());
        for (node, record) in open.filter(|(_, record)| !record.envelope_key.is_empty()) {
            found.push((Recipient::Node(*node), NodePublicKey::decode(&record.envelope_key)?));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if let Some(recovery) = state.recovery()? {
        found.push((Recipient::Recovery, NodePublicKey::decode(&recovery.envelope_key)?));
    }
    Ok(found)
}

/// Passes bytes on, and keeps count and hash of them.
struct Counted<'a, 'b> {
    sink: &'a mut Sink<'b>,
    file: Sha256,
    length: u64,
}

impl Counted<'_, '_> {
    fn put(&mut self, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.file.update(&bytes);
        self.length += bytes.len() as u64;
        (self.sink)(bytes)
    }
}

fn seal_records(state: &State, mut sealer: ArchiveSealer, out: &mut Counted<'_, '_>) -> Result<u32, ArchiveError> {
    let mut plain = Vec::with_capacity(CHUNK_BYTES + (128 << 10));
    let mut sealed = Vec::new();
    let mut chunks = 0;
    let mut put = |last: bool, plain: &mut Vec<u8>| -> Result<(), ArchiveError> {
        sealer.seal(last, plain, &mut sealed)?;
        let mut chunk = Vec::with_capacity(format::CHUNK_HEADER_BYTES + sealed.len() + format::CRC_BYTES);
        chunk.push(if last { LAST_CHUNK } else { CHUNK });
        chunk.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
        chunk.extend_from_slice(&sealed);
        let crc = crc32c::crc32c(&chunk);
        chunk.extend_from_slice(&crc.to_be_bytes());
        plain.clear();
        chunks += 1;
        out.put(chunk)
    };
    for (key, value) in state.records() {
        // The chunk before is put when more is to come, so that the last one is known for what it is.
        if plain.len() >= CHUNK_BYTES {
            put(false, &mut plain)?;
        }
        plain.extend_from_slice(&format::record_header(key.as_bytes(), &value));
        plain.extend_from_slice(key.as_bytes());
        plain.extend_from_slice(&value);
    }
    put(true, &mut plain)?;
    Ok(chunks)
}
