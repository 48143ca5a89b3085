//! Signatures of control nodes over the chain, and who may make them.
//!
//! Each control node has an Ed25519 key of its own, outside the hierarchy of encryption keys, so a locked node can sign. The
//! signer set is a record of the chain: version, threshold, keys. The first set is pinned by its hash (it comes with the join
//! token); each later one is signed by the threshold of the one before, so a set is trusted by its descent and not by where it was
//! read ([`Trust`]). The first set of a new generation descends from none: the offline recovery key has signed a statement that
//! names it.
//!
//! **Left out**: threshold signatures over seals and checkpoints; one signer of the set is believed for them.

use std::sync::Arc;

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use seams::{
    Entropy,
    mutation::{self, Mutation},
};
use state::{
    Propagated, Signed, SignedGeneration, Statement,
    record::{SetSignature, SignerSetRecord},
};
use types::{ClusterId, Generation, Hash, NodeId, Position};
use zeroize::Zeroizing;

use crate::{Fault, publisher::CHAIN};

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

    /// An Ed25519 signature of bytes that are labelled already, such as [`state::begin_generation`] hands to the recovery key.
    pub fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
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

/// Whether it is an Ed25519 signature of these bytes by this key.
pub fn verifies(key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(bytes, &signature).is_ok())
}

/// What an edge believes to begin with: a signer set of the cluster, by its hash, and the recovery key if it knows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// SHA-256 over [`SignerSetRecord::signing_bytes`] of a set, which is labelled and names the cluster. The first set, or any
    /// later one that was in force when the edge was enrolled: who pins one follows from it on.
    pub first_signer_set: Hash,
    /// The Ed25519 public key by which a new generation is known; none: it is pinned from the first verified state that names one.
    pub recovery: Option<[u8; 32]>,
}

impl Anchor {
    /// The anchor that pins `set`, and no recovery key.
    pub fn of(cluster: ClusterId, set: &SignerSetRecord) -> Self {
        Self { first_signer_set: set.hash(cluster), recovery: None }
    }
}

/// Whether a generation was begun by this statement: of this cluster and chain, under this recovery key.
///
/// # Errors
/// [`Fault::UntrustedGeneration`] with what is wrong.
pub fn verify_generation(cluster: ClusterId, recovery: &[u8; 32], signed: &SignedGeneration) -> Result<(), Fault> {
    let statement = &signed.statement;
    let refuse = |detail: String| Err(Fault::UntrustedGeneration { generation: statement.generation(), detail });
    if statement.cluster != cluster {
        return refuse(format!("its statement is of cluster {}", statement.cluster));
    }
    if statement.chain != CHAIN {
        return refuse(format!("its statement is of chain {}", statement.chain));
    }
    if !verifies(recovery, &statement.signing_bytes(), &signed.signature) {
        return refuse("its statement is not signed by the recovery key that is pinned here".into());
    }
    Ok(())
}

/// The statement that a state keeps of its own generation; none in the first.
pub(crate) fn generation_of(state: &Propagated, generation: Generation) -> Result<Option<SignedGeneration>, Fault> {
    let malformed = |detail: String| Fault::UntrustedGeneration { generation, detail };
    let Some(record) = state.generation_begun(generation).map_err(|error| malformed(error.to_string()))? else { return Ok(None) };
    let signed = SignedGeneration::decode(&record.signed).map_err(|error| malformed(error.to_string()))?;
    if signed.statement.generation() != generation {
        return Err(malformed("the state keeps another generation's statement for it".into()));
    }
    Ok(Some(signed))
}

/// The signer set believed at some point of the chain.
#[derive(Clone)]
pub(crate) struct Trust {
    cluster: ClusterId,
    anchor: Anchor,
    /// The newest set that descends from the anchor; none before the first was seen. Whole, also where members are revoked: a
    /// successor signed by the threshold of it stays valid for those who come later.
    set: Option<Arc<SignerSetRecord>>,
    /// The generation that the set is of.
    generation: Generation,
    /// A statement that has been verified, by which a newer generation may be taken up; none where that is under way for nobody.
    announced: Option<SignedGeneration>,
    /// The newest generation that was ever followed here: no older one is any more.
    floor: Generation,
    /// Members whose signatures over seals and checkpoints count no more: their nodes are revoked.
    revoked: Arc<[NodeId]>,
}

impl Trust {
    pub(crate) fn new(cluster: ClusterId, anchor: Anchor) -> Self {
        let none = Generation::default();
        Self { cluster, anchor, set: None, generation: none, announced: None, floor: none, revoked: Arc::default() }
    }

    /// Pins the recovery key, where none is pinned, and a generation that was followed: no older one is believed any more.
    pub(crate) fn pin(&mut self, recovery: Option<[u8; 32]>, followed: Generation) {
        self.anchor.recovery = self.anchor.recovery.or(recovery);
        self.floor = self.floor.max(followed);
    }

    /// Takes up the statement of a new generation, for who stands at `have`. Nothing else is believed of it yet; the state that comes
    /// must keep the statement too. A statement of what is followed already, or was before, is passed over.
    ///
    /// # Errors
    /// [`Fault::UntrustedGeneration`].
    pub(crate) fn announce(&mut self, have: Position, signed: SignedGeneration) -> Result<(), Fault> {
        let statement = &signed.statement;
        let generation = statement.generation();
        let refuse = |detail: String| Err(Fault::UntrustedGeneration { generation, detail });
        let Some(recovery) = &self.anchor.recovery else {
            return refuse("no recovery key is known here, by which it could be verified; enrol this node anew".into());
        };
        verify_generation(self.cluster, recovery, &signed)?;
        if generation <= have.generation || self.announced.as_ref().is_some_and(|other| other.statement.generation() >= generation) {
            return Ok(());
        }
        if statement.begins.revision <= have.revision {
            return refuse(format!("it begins at {}, which is not above {have}, where this node stands", statement.begins));
        }
        self.announced = Some(signed);
        Ok(())
    }

    /// The stream is gone, and with it what it announced.
    pub(crate) fn forget_announced(&mut self) {
        self.announced = None;
    }

    /// Whether a snapshot at `at` may take the place of what is held at `have`: of the same generation, or of one whose statement was
    /// verified before.
    pub(crate) fn may_move(&self, have: Position, at: Position) -> bool {
        let announced = self.announced.as_ref().map(|signed| signed.statement);
        have == Position::default()
            || at.generation == have.generation
            || announced.is_some_and(|next| next.generation() == at.generation && at >= next.begins)
    }

    /// The trust that holds at `state`: its signer set in force, reached from what is trusted by sets each signed by the one before,
    /// without the members that the registry of `state` has revoked. A newer generation's first set needs no signature of a set
    /// before it, but the statement under the recovery key, which the state keeps.
    pub(crate) fn follow(&self, state: &Propagated) -> Result<Self, Fault> {
        let (version, generation) = (set_in_force(state), state.generation());
        let known = self.set.as_ref().filter(|_| generation == self.generation);
        let trusted = known.map_or(0, |set| set.version);
        if version == 0 || version < trusted {
            let detail = if version == 0 { "there is no settings record".into() } else { format!("set {trusted} was in force before") };
            return Err(Fault::UntrustedSignerSet { version, detail });
        }
        let mut set = match known {
            Some(set) => Arc::clone(set),
            None => Arc::new(self.beginning(state)?),
        };
        if set.version > version {
            return Err(Fault::UntrustedSignerSet { version, detail: format!("set {} was in force before", set.version) });
        }
        for next in set.version + 1..=version {
            let record = signer_set_at(state, next)
                .ok_or_else(|| Fault::UntrustedSignerSet { version: next, detail: "its record is missing or damaged".into() })?;
            verify_successor(self.cluster, &set, &record)?;
            set = Arc::new(record);
        }
        let revoked = set.keys.iter().map(|member| member.node).filter(|node| is_revoked(state, *node)).collect();
        let floor = self.floor.max(generation);
        Ok(Self { cluster: self.cluster, anchor: self.anchor, set: Some(set), generation, announced: None, floor, revoked })
    }

    /// The set to begin with in the generation of `state`: the one that its statement names, or the pinned one.
    fn beginning(&self, state: &Propagated) -> Result<SignerSetRecord, Fault> {
        let generation = state.generation();
        let untrusted = |detail: &str| Fault::UntrustedGeneration { generation, detail: detail.into() };
        if generation < self.generation.max(self.floor) {
            return Err(untrusted("a newer one was followed here before"));
        }
        let Some(signed) = generation_of(state, generation)? else {
            return match self.set {
                Some(_) => Err(untrusted("the state keeps no statement of the recovery key for it")),
                None => self.pinned(state, 1),
            };
        };
        let statement = &signed.statement;
        match &self.anchor.recovery {
            Some(recovery) => verify_generation(self.cluster, recovery, &signed)?,
            // Enrolled since it began: what was pinned is a set of its own.
            None if self.set.is_none() => return self.pinned(state, statement.signer_set),
            None => return Err(untrusted("no recovery key is known here, by which it could be verified; enrol this node anew")),
        }
        signer_set_at(state, statement.signer_set)
            .filter(|set| set.hash(self.cluster) == statement.signer_set_hash)
            .ok_or_else(|| untrusted("its first signer set is not the one that the recovery key has signed"))
    }

    /// The pinned set, which is the one of version `first` or a later one.
    fn pinned(&self, state: &Propagated, first: u32) -> Result<SignerSetRecord, Fault> {
        let refuse = |detail: &str| Fault::UntrustedSignerSet { version: first, detail: detail.into() };
        let mut sets = (first..=u32::MAX).map_while(|version| signer_set_at(state, version)).peekable();
        if sets.peek().is_none() {
            return Err(refuse("its record is missing or damaged"));
        }
        let pinned = sets.find(|set| set.hash(self.cluster) == self.anchor.first_signer_set);
        pinned.ok_or_else(|| refuse(if first == 1 { "it is not the pinned first set" } else { "no set from it on is the pinned one" }))
    }

    /// Whether a signature at `at` under the set of that version can be verified already.
    pub(crate) fn knows(&self, at: Position, signer_set: u32) -> bool {
        at.generation == self.generation && self.set.as_ref().is_some_and(|set| set.version == signer_set)
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
        if verifies(key, &signed.statement.signing_bytes(), &signed.signature) || mutation::is_on(Mutation::SignatureUnchecked) {
            Ok(())
        } else {
            Err(Fault::BadSignature { what, at, signer })
        }
    }
}

/// What a holder of the recovery key believes of `state` without knowing anything else: the generation that the key's statement began,
/// or, in the first one, the first signer set, which the key signed when the cluster was founded.
///
/// # Errors
/// [`Fault::UntrustedGeneration`] or [`Fault::UntrustedSignerSet`] where the key has signed neither: nothing tells such a state from one
/// that somebody made up.
pub fn anchor_by_recovery_key(state: &Propagated, cluster: ClusterId, recovery: [u8; 32]) -> Result<Anchor, Fault> {
    let refuse = |detail: &str| Fault::UntrustedSignerSet { version: 1, detail: detail.into() };
    let first = first_set(state)?;
    let anchor = Anchor { recovery: Some(recovery), ..Anchor::of(cluster, &first) };
    if let Some(signed) = generation_of(state, state.generation())? {
        // What follows from the statement is followed by whoever verifies with the anchor.
        return verify_generation(cluster, &recovery, &signed).map(|()| anchor);
    }
    let signature = state.recovery().ok().flatten().map(|record| record.first_set).unwrap_or_default();
    if verifies(&recovery, &first.signing_bytes(cluster), &signature) {
        Ok(anchor)
    } else {
        Err(refuse("it is not signed by this recovery key"))
    }
}

/// Verifies what a control node signed as a member of the signer set in force at `state`, reached from the first set of its generation,
/// which has to be the anchor's where the caller has one. Returns that first set's anchor: without one of the caller's own it says only that `state`
/// agrees with itself.
///
/// # Errors
/// [`Fault`]: a signer set that does not follow from the one before, or a signature that is none of the set's.
pub fn verify_signed<T: Statement>(
    state: &Propagated,
    cluster: ClusterId,
    anchor: Option<Anchor>,
    what: &'static str,
    signed: &Signed<T>,
) -> Result<Anchor, Fault> {
    let first = first_set(state)?;
    let recovery = state.recovery().ok().flatten().map(|record| record.signing_key);
    let anchor = anchor.unwrap_or_else(|| Anchor { recovery, ..Anchor::of(cluster, &first) });
    Trust::new(cluster, anchor).follow(state)?.verify(what, state.position(), signed)?;
    Ok(anchor)
}

/// The set with which the generation of `state` began.
fn first_set(state: &Propagated) -> Result<SignerSetRecord, Fault> {
    let missing = || Fault::UntrustedSignerSet { version: 1, detail: "its record is missing or damaged".into() };
    state.first_signer_set().ok().flatten().ok_or_else(missing)
}

/// The version of the signer set in force; 0 before the cluster was begun.
pub(crate) fn set_in_force(state: &Propagated) -> u32 {
    state.settings().ok().flatten().map_or(0, |settings| settings.signer_set)
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
    state.signer_set_of(version).ok().flatten().filter(|record| record.version == version)
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
