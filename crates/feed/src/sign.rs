//! Signatures of control nodes over the chain, and who may make them.
//!
//! Each control node has an Ed25519 key of its own, outside the hierarchy of encryption keys, so a locked node can sign. The
//! signer set is a record of the chain: version, threshold, keys. The first set is pinned by its hash (it comes with the join
//! token); each later one is signed by the threshold of the one before, so a set is trusted by its descent and not by where it was
//! read.
//!
//! **Left out**: threshold signatures over seals and checkpoints; one signer of the set is believed for them.

use std::sync::Arc;

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use seams::Entropy;
use sha2::{Digest as _, Sha256};
use state::{
    Propagated, Signed, Statement, TypedKey,
    record::{SetSignature, SettingsRecord, SignerSetRecord},
};
use types::{ClusterId, Hash, NodeId, Position};
use zeroize::Zeroizing;

use crate::Fault;

/// A control node's key for seals and checkpoints. Wiped when dropped; it has no Debug, and leaves only as the bytes of its file.
///
/// ```text
/// offset  bytes  content of the file
/// 0       8      "CINSIGN1"
/// 8       32     Ed25519 secret seed (RFC 8032)
/// 40      4      first bytes of the public key, so that damage is found
/// ```
pub struct SigningKey(ed25519_dalek::SigningKey);

/// Bytes that are no signing key's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// Another file, or one of a newer Cinnabar.
    #[error("not a signing key file: it does not begin with CINSIGN1")]
    Format,
    /// Cut off or too long.
    #[error("a signing key file of {got} bytes, expected {}", FILE_BYTES)]
    Length {
        /// The length found.
        got: usize,
    },
    /// The public key does not belong to the secret one.
    #[error("the signing key file is damaged: its check bytes do not fit")]
    Damaged,
}

const MAGIC: &[u8; 8] = b"CINSIGN1";
const FILE_BYTES: usize = 44;

impl SigningKey {
    /// Makes a new key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(&mut *seed);
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// Reads the bytes of a key's file.
    ///
    /// # Errors
    /// [`SigningKeyError`]. The bytes are not repeated in it.
    pub fn from_file_bytes(bytes: &[u8]) -> Result<Self, SigningKeyError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SigningKeyError::Format)?;
        let length = SigningKeyError::Length { got: bytes.len() };
        let (seed, check) = rest.split_first_chunk::<32>().ok_or(length)?;
        if check.len() != FILE_BYTES - 40 {
            return Err(length);
        }
        let key = Self(ed25519_dalek::SigningKey::from_bytes(seed));
        if key.public()[..4] == *check { Ok(key) } else { Err(SigningKeyError::Damaged) }
    }

    /// The bytes for the key's file, which must be readable by its owner only.
    pub fn to_file_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.extend_from_slice(&self.public()[..4]);
        bytes
    }

    /// The public key, as it stands in a signer set.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a statement as `node` of the signer set of that version.
    pub fn sign<T: Statement>(&self, statement: T, node: NodeId, signer_set: u32) -> Signed<T> {
        let signature = self.0.sign(&statement.signing_bytes()).to_bytes();
        Signed { statement, signer: node, signer_set, signature }
    }
}

/// A member's signature over the set that is to follow its own.
pub fn sign_signer_set(key: &SigningKey, node: NodeId, cluster: ClusterId, next: &SignerSetRecord) -> SetSignature {
    SetSignature { signer: node, signature: key.0.sign(&next.signing_bytes(cluster)).to_bytes().to_vec() }
}

/// Whether `next` may follow `set`: one version more, within bounds, and signed by the threshold of `set`'s members.
///
/// # Errors
/// [`Fault::UntrustedSignerSet`] with what is missing.
pub fn verify_successor(cluster: ClusterId, set: &SignerSetRecord, next: &SignerSetRecord) -> Result<(), Fault> {
    let refuse = |detail: String| Fault::UntrustedSignerSet { version: next.version, detail };
    if Some(next.version) != set.version.checked_add(1) {
        return Err(refuse(format!("it does not follow set {}", set.version)));
    }
    if next.threshold == 0 || next.threshold as usize > next.keys.len() {
        return Err(refuse(format!("a threshold of {} with {} members", next.threshold, next.keys.len())));
    }
    let bytes = next.signing_bytes(cluster);
    let mut signers: Vec<NodeId> = next
        .signatures
        .iter()
        .filter(|one| set.key_of(one.signer).is_some_and(|key| verifies(key, &bytes, &one.signature)))
        .map(|one| one.signer)
        .collect();
    signers.sort_unstable();
    signers.dedup();
    if signers.len() < set.threshold.max(1) as usize {
        return Err(refuse(format!("{} of the {} signatures that set {} demands", signers.len(), set.threshold, set.version)));
    }
    Ok(())
}

fn verifies(key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(bytes, &signature).is_ok())
}

/// What an edge believes to begin with: the cluster's first signer set, by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// SHA-256 over [`SignerSetRecord::signing_bytes`] of the first set, which is labelled and names the cluster.
    pub first_signer_set: Hash,
}

impl Anchor {
    /// The anchor that pins `set`.
    pub fn of(cluster: ClusterId, set: &SignerSetRecord) -> Self {
        Self { first_signer_set: Hash::from_bytes(Sha256::digest(set.signing_bytes(cluster)).into()) }
    }
}

/// The signer set believed at some point of the chain.
#[derive(Clone)]
pub(crate) struct Trust {
    cluster: ClusterId,
    anchor: Anchor,
    /// The newest set that descends from the anchor; none before the first was seen. Whole, also where members are revoked: a
    /// successor signed by the threshold of it stays valid for those who come later.
    set: Option<Arc<SignerSetRecord>>,
    /// Members whose signatures over seals and checkpoints count no more: their nodes are revoked.
    revoked: Arc<[NodeId]>,
}

impl Trust {
    pub(crate) fn new(cluster: ClusterId, anchor: Anchor) -> Self {
        Self { cluster, anchor, set: None, revoked: Arc::default() }
    }

    /// The trust that holds at `state`: its signer set in force, reached from what is trusted by sets each signed by the one before,
    /// without the members that the registry of `state` has revoked.
    pub(crate) fn follow(&self, state: &Propagated) -> Result<Self, Fault> {
        let version = set_in_force(state);
        let trusted = self.set.as_ref().map_or(0, |set| set.version);
        if version == 0 || version < trusted {
            let detail = if version == 0 { "there is no settings record".into() } else { format!("set {trusted} was in force before") };
            return Err(Fault::UntrustedSignerSet { version, detail });
        }
        let mut set = self.set.clone();
        for next in trusted + 1..=version {
            let record = signer_set_at(state, next)
                .ok_or_else(|| Fault::UntrustedSignerSet { version: next, detail: "its record is missing or damaged".into() })?;
            match &set {
                Some(set) => verify_successor(self.cluster, set, &record)?,
                None if record.version == 1 && Anchor::of(self.cluster, &record) == self.anchor => {}
                None => return Err(Fault::UntrustedSignerSet { version: next, detail: "it is not the pinned first set".into() }),
            }
            set = Some(Arc::new(record));
        }
        let members = set.iter().flat_map(|set| &set.keys).map(|member| member.node);
        let revoked = members.filter(|node| is_revoked(state, *node)).collect();
        Ok(Self { set, revoked, ..self.clone() })
    }

    /// Whether a signature under the set of that version can be verified already.
    pub(crate) fn knows(&self, signer_set: u32) -> bool {
        self.set.as_ref().is_some_and(|set| set.version == signer_set)
    }

    /// Whether a signature is one of the set's.
    pub(crate) fn verify<T: Statement>(&self, what: &'static str, at: Position, signed: &Signed<T>) -> Result<(), Fault> {
        let (signer, got) = (signed.signer, signed.signer_set);
        let want = self.set.as_ref().map_or(0, |set| set.version);
        let set = self.set.as_ref().filter(|_| got == want).ok_or(Fault::WrongSignerSet { what, at, got, want })?;
        let key = set.key_of(signer).ok_or(Fault::UnknownSigner { what, at, signer, set: want })?;
        if self.revoked.contains(&signer) {
            return Err(Fault::RevokedSigner { what, at, signer });
        }
        if verifies(key, &signed.statement.signing_bytes(), &signed.signature) {
            Ok(())
        } else {
            Err(Fault::BadSignature { what, at, signer })
        }
    }
}

/// The version of the signer set in force; 0 before the cluster was begun.
pub(crate) fn set_in_force(state: &Propagated) -> u32 {
    let settings = state.get(&TypedKey::Settings.encode()).and_then(|bytes| SettingsRecord::decode(bytes).ok());
    settings.map_or(0, |settings| settings.signer_set)
}

/// Whether `node` may sign with `key` at `state`: the set in force has them, and the node is not revoked.
pub(crate) fn may_sign(state: &Propagated, node: NodeId, key: &[u8; 32]) -> bool {
    let set = signer_set_at(state, set_in_force(state));
    set.is_some_and(|set| set.key_of(node) == Some(key)) && !is_revoked(state, node)
}

/// Whether the registry says that a node is revoked. A record that does not decode speaks for nobody.
fn is_revoked(state: &Propagated, node: NodeId) -> bool {
    state.node(node).map_or(true, |record| record.is_some_and(|record| record.revoked.is_some()))
}

fn signer_set_at(state: &Propagated, version: u32) -> Option<SignerSetRecord> {
    let bytes = state.get(&TypedKey::SignerSet { version }.encode())?;
    SignerSetRecord::decode(bytes).ok().filter(|record| record.version == version)
}

#[cfg(test)]
mod tests {
    use seams::sim::SimEntropy;
    use state::record::MemberKey;

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([9; 16]);

    fn key(seed: u64) -> SigningKey {
        SigningKey::generate(&SimEntropy::new(seed))
    }

    fn set(version: u32, threshold: u32, seeds: &[u64]) -> SignerSetRecord {
        let keys = seeds.iter().map(|seed| MemberKey { node: NodeId::new(*seed), key: key(*seed).public() }).collect();
        SignerSetRecord { version, threshold, keys, signatures: Vec::new() }
    }

    fn signed_by(mut next: SignerSetRecord, seeds: &[u64]) -> SignerSetRecord {
        next.signatures = seeds.iter().map(|seed| sign_signer_set(&key(*seed), NodeId::new(*seed), CLUSTER, &next)).collect();
        next
    }

    #[test]
    fn signing_key_file_round_trips_and_damage_is_found() {
        let bytes = key(1).to_file_bytes();
        assert_eq!(SigningKey::from_file_bytes(&bytes).map(|key| key.public()), Ok(key(1).public()));
        assert_eq!(SigningKey::from_file_bytes(&bytes[..43]).err(), Some(SigningKeyError::Length { got: 43 }));
        assert_eq!(SigningKey::from_file_bytes(b"something").err(), Some(SigningKeyError::Format));
        let mut damaged = bytes.to_vec();
        damaged[20] ^= 1;
        assert_eq!(SigningKey::from_file_bytes(&damaged).err(), Some(SigningKeyError::Damaged));
    }

    #[test]
    fn successor_needs_the_threshold_of_distinct_members_of_the_set_before() {
        let first = set(1, 2, &[1, 2, 3]);
        let cases: [(&str, SignerSetRecord, bool); 7] = [
            ("two members", signed_by(set(2, 1, &[4]), &[1, 3]), true),
            ("one member", signed_by(set(2, 1, &[4]), &[1]), false),
            ("one member twice", signed_by(set(2, 1, &[4]), &[1, 1]), false),
            ("strangers", signed_by(set(2, 1, &[4]), &[4, 5]), false),
            ("nobody", set(2, 1, &[4]), false),
            ("a version left out", signed_by(set(3, 1, &[4]), &[1, 2]), false),
            ("a threshold nobody reaches", signed_by(set(2, 2, &[4]), &[1, 2]), false),
        ];
        for (case, next, good) in cases {
            assert_eq!(verify_successor(CLUSTER, &first, &next).is_ok(), good, "{case}");
        }
        let mut changed = signed_by(set(2, 1, &[4]), &[1, 2]);
        changed.keys = set(2, 1, &[5]).keys;
        assert!(verify_successor(CLUSTER, &first, &changed).is_err(), "keys put in after signing");
        let elsewhere = signed_by(set(2, 1, &[4]), &[1, 2]);
        assert!(verify_successor(ClusterId::from_bytes([8; 16]), &first, &elsewhere).is_err(), "signed for another cluster");
    }
}
