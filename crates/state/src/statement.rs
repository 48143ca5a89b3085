//! Statements: the bytes that nodes sign, each type under a label of its own, so that none can stand for another.
//!
//! Signed are a label and the fields in order, each with its length in front (4 bytes, big-endian). `feed` makes and checks the
//! signatures; a signature carries who signed and the version of the signer set that says with which key.
//!
//! ```text
//! offset  bytes  content of an encoded signed statement; numbers are big-endian
//! 0       1      format: 1
//! 1       1      type: 1 seal, 2 checkpoint, 3 acknowledgement, 5 archive (4, a generation: see `generation.rs`)
//! 2       n      fields: cluster 16, chain 4, generation 4, revision 8, hash 32, and then
//!                seal: state root 32; checkpoint: state root 32, time 8; acknowledgement: node 8;
//!                archive: state root 32, header 32
//! 2+n     8      signer's node id
//! 10+n    4      version of the signer set; 0 for an acknowledgement
//! 14+n    64     Ed25519 signature
//! ```

use std::fmt;

use bytes::Bytes;
use types::{ChainId, ClusterId, Generation, Hash, NodeId, Position, Revision, UnixMillis};

use crate::record::SignerSetRecord;

/// Something that is signed.
pub trait Statement: Sized + Copy {
    /// What tells this type from all others, in signed bytes.
    const LABEL: &'static str;
    /// What tells it apart in stored bytes.
    const TYPE: u8;

    /// Calls `field` with each field's bytes, in order.
    fn fields(&self, field: &mut dyn FnMut(&[u8]));

    /// Takes the fields from stored bytes, or nothing if they are cut off.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;

    /// The bytes that are signed.
    fn signing_bytes(&self) -> Vec<u8> {
        let mut bytes = labelled(Self::LABEL);
        self.fields(&mut |field| push(&mut bytes, field));
        bytes
    }
}

fn labelled(label: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    push(&mut bytes, label.as_bytes());
    bytes
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
    bytes.extend_from_slice(part);
}

/// The fields of a statement being read.
#[derive(Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// What follows format and type in stored bytes of a statement of type `T`.
    pub(crate) const fn of<T: Statement>(bytes: &'a [u8]) -> Result<Self, StatementError> {
        match bytes {
            [] | [_] => Err(StatementError::Length { bytes: bytes.len() }),
            [1, kind, rest @ ..] if *kind == T::TYPE => Ok(Self(rest)),
            [1, kind, ..] => Err(StatementError::Type { got: *kind, expected: T::TYPE }),
            [got, ..] => Err(StatementError::Newer { got: *got }),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn position(&mut self) -> Option<Position> {
        Some(Position::new(Generation::new(self.u32()?), Revision::new(self.u64()?)))
    }
}

/// "At this position the chain has this hash and the propagated state this root." Covers every change set up to the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealStatement {
    /// The cluster.
    pub cluster: ClusterId,
    /// The chain.
    pub chain: ChainId,
    /// The position.
    pub position: Position,
    /// The hash of the change set at that position.
    pub chain_hash: Hash,
    /// The root of the propagated state there.
    pub state_root: Hash,
}

impl Statement for SealStatement {
    const LABEL: &'static str = "cinnabar seal v1";
    const TYPE: u8 = 1;

    fn fields(&self, field: &mut dyn FnMut(&[u8])) {
        field(self.cluster.as_bytes());
        field(&self.chain.get().to_be_bytes());
        field(&self.position.generation.get().to_be_bytes());
        field(&self.position.revision.get().to_be_bytes());
        field(self.chain_hash.as_bytes());
        field(self.state_root.as_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            cluster: ClusterId::from_bytes(fields.take()?),
            chain: ChainId::new(fields.u32()?),
            position: fields.position()?,
            chain_hash: Hash::from_bytes(fields.take()?),
            state_root: Hash::from_bytes(fields.take()?),
        })
    }
}

/// A seal with a time: "at this log time the state was still this". Only it advances age and leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointStatement {
    /// The cluster.
    pub cluster: ClusterId,
    /// The chain.
    pub chain: ChainId,
    /// The position.
    pub position: Position,
    /// The hash of the change set at that position.
    pub chain_hash: Hash,
    /// The root of the propagated state there.
    pub state_root: Hash,
    /// Log time, as a tick moved it.
    pub time: UnixMillis,
}

impl CheckpointStatement {
    /// What it says without the time.
    pub const fn seal(&self) -> SealStatement {
        SealStatement {
            cluster: self.cluster,
            chain: self.chain,
            position: self.position,
            chain_hash: self.chain_hash,
            state_root: self.state_root,
        }
    }
}

impl Statement for CheckpointStatement {
    const LABEL: &'static str = "cinnabar checkpoint v1";
    const TYPE: u8 = 2;

    fn fields(&self, field: &mut dyn FnMut(&[u8])) {
        self.seal().fields(field);
        field(&self.time.get().to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let SealStatement { cluster, chain, position, chain_hash, state_root } = SealStatement::read(fields)?;
        Some(Self { cluster, chain, position, chain_hash, state_root, time: UnixMillis::new(fields.u64()?) })
    }
}

/// "This node holds the chain up to this position durably."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckStatement {
    /// The cluster.
    pub cluster: ClusterId,
    /// The chain.
    pub chain: ChainId,
    /// The position.
    pub position: Position,
    /// The hash of the change set at that position.
    pub chain_hash: Hash,
    /// Who holds it.
    pub node: NodeId,
}

impl Statement for AckStatement {
    const LABEL: &'static str = "cinnabar acknowledgement v1";
    const TYPE: u8 = 3;

    fn fields(&self, field: &mut dyn FnMut(&[u8])) {
        field(self.cluster.as_bytes());
        field(&self.chain.get().to_be_bytes());
        field(&self.position.generation.get().to_be_bytes());
        field(&self.position.revision.get().to_be_bytes());
        field(self.chain_hash.as_bytes());
        field(&self.node.get().to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            cluster: ClusterId::from_bytes(fields.take()?),
            chain: ChainId::new(fields.u32()?),
            position: fields.position()?,
            chain_hash: Hash::from_bytes(fields.take()?),
            node: NodeId::new(fields.u64()?),
        })
    }
}

/// "This node saved the state at this position into the archive with this header."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveStatement {
    /// The cluster.
    pub cluster: ClusterId,
    /// The chain.
    pub chain: ChainId,
    /// The position.
    pub position: Position,
    /// The hash of the change set at that position.
    pub chain_hash: Hash,
    /// The root of the propagated state there.
    pub state_root: Hash,
    /// SHA-256 of the archive's header, which holds the hash of all its records.
    pub header: Hash,
}

impl Statement for ArchiveStatement {
    const LABEL: &'static str = "cinnabar archive v1";
    const TYPE: u8 = 5;

    fn fields(&self, field: &mut dyn FnMut(&[u8])) {
        let Self { cluster, chain, position, chain_hash, state_root, header } = *self;
        SealStatement { cluster, chain, position, chain_hash, state_root }.fields(field);
        field(header.as_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let SealStatement { cluster, chain, position, chain_hash, state_root } = SealStatement::read(fields)?;
        Some(Self { cluster, chain, position, chain_hash, state_root, header: Hash::from_bytes(fields.take()?) })
    }
}

impl SignerSetRecord {
    /// The bytes that members of the set before sign, each once, to make this set theirs.
    pub fn signing_bytes(&self, cluster: ClusterId) -> Vec<u8> {
        let mut bytes = labelled("cinnabar signer set v1");
        push(&mut bytes, cluster.as_bytes());
        push(&mut bytes, &self.version.to_be_bytes());
        push(&mut bytes, &self.threshold.to_be_bytes());
        for member in &self.keys {
            push(&mut bytes, &member.node.get().to_be_bytes());
            push(&mut bytes, &member.key);
        }
        bytes
    }
}

/// A statement and a signature of it, verified or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signed<T> {
    /// What is said.
    pub statement: T,
    /// Who says so.
    pub signer: NodeId,
    /// The version of the signer set that has the signer's key.
    pub signer_set: u32,
    /// Ed25519 over [`Statement::signing_bytes`].
    pub signature: [u8; 64],
}

/// Bytes that are no signed statement of the wanted type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Written by a newer Cinnabar.
    #[error("signed statement of format {got}, newest known is 1; a newer Cinnabar wrote it")]
    Newer {
        /// The format byte.
        got: u8,
    },
    /// Another type of statement.
    #[error("signed statement of type {got}, expected {expected}")]
    Type {
        /// The type found.
        got: u8,
        /// The type wanted.
        expected: u8,
    },
    /// Cut off or too long.
    #[error("signed statement of {bytes} bytes is cut off or too long")]
    Length {
        /// Its length.
        bytes: usize,
    },
}

impl<T: Statement> Signed<T> {
    /// The stored bytes, laid out as in the module's header.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[1, T::TYPE]);
        self.statement.fields(&mut |field| bytes.extend_from_slice(field));
        bytes.extend_from_slice(&self.signer.get().to_be_bytes());
        bytes.extend_from_slice(&self.signer_set.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        bytes.into()
    }

    /// Reads stored bytes; does not verify the signature.
    ///
    /// # Errors
    /// [`StatementError`] for a newer format, another type, or a wrong length.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let length = StatementError::Length { bytes: bytes.len() };
        let mut fields = Fields::of::<T>(bytes)?;
        let read = |fields: &mut Fields<'_>| {
            Some(Self {
                statement: T::read(fields)?,
                signer: NodeId::new(fields.u64()?),
                signer_set: fields.u32()?,
                signature: fields.take()?,
            })
        };
        let signed = read(&mut fields).ok_or(length)?;
        if fields.is_empty() { Ok(signed) } else { Err(length) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({:?} by node {}, set {})", self.statement, self.signer, self.signer_set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> SealStatement {
        SealStatement {
            cluster: ClusterId::from_bytes([1; 16]),
            chain: ChainId::new(0),
            position: Position::new(Generation::new(2), Revision::new(3)),
            chain_hash: Hash::from_bytes([4; 32]),
            state_root: Hash::from_bytes([5; 32]),
        }
    }

    fn checkpoint() -> CheckpointStatement {
        let SealStatement { cluster, chain, position, chain_hash, state_root } = seal();
        CheckpointStatement { cluster, chain, position, chain_hash, state_root, time: UnixMillis::new(6) }
    }

    fn signed<T>(statement: T) -> Signed<T> {
        Signed { statement, signer: NodeId::new(7), signer_set: 8, signature: [9; 64] }
    }

    #[test]
    fn signed_round_trips_at_its_stated_length() {
        assert_eq!(Signed::decode(&signed(seal()).encode()), Ok(signed(seal())));
        assert_eq!(Signed::decode(&signed(checkpoint()).encode()), Ok(signed(checkpoint())));
        assert_eq!(signed(seal()).encode().len(), 2 + 96 + 76);
        assert_eq!(signed(checkpoint()).encode().len(), 2 + 104 + 76);
    }

    #[test]
    fn signed_of_another_type_or_length_refused() {
        let bytes = signed(seal()).encode();
        assert_eq!(Signed::<CheckpointStatement>::decode(&bytes), Err(StatementError::Type { got: 1, expected: 2 }));
        for length in 0..bytes.len() {
            assert_eq!(Signed::<SealStatement>::decode(&bytes[..length]), Err(StatementError::Length { bytes: length }), "{length}");
        }
        let mut long = bytes.to_vec();
        long.push(0);
        assert!(Signed::<SealStatement>::decode(&long).is_err());
        long[0] = 2;
        assert_eq!(Signed::<SealStatement>::decode(&long), Err(StatementError::Newer { got: 2 }));
    }

    #[test]
    fn signing_bytes_differ_by_label_and_every_field() {
        let base = seal().signing_bytes();
        assert!(base.starts_with(b"\0\0\0\x10cinnabar seal v1\0\0\0\x10"));
        let others = [
            SealStatement { cluster: ClusterId::from_bytes([2; 16]), ..seal() },
            SealStatement { chain: ChainId::new(1), ..seal() },
            SealStatement { position: Position::new(Generation::new(3), Revision::new(3)), ..seal() },
            SealStatement { position: Position::new(Generation::new(2), Revision::new(4)), ..seal() },
            SealStatement { chain_hash: Hash::from_bytes([6; 32]), ..seal() },
            SealStatement { state_root: Hash::from_bytes([6; 32]), ..seal() },
        ];
        for other in others {
            assert_ne!(other.signing_bytes(), base, "{other:?}");
        }
        assert!(!checkpoint().signing_bytes().starts_with(&base));
        assert_eq!(checkpoint().seal(), seal());
    }
}
