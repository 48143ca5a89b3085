//! A new generation: how the chain goes on after the control plane was lost and restored from a snapshot.
//!
//! A restored control plane may stand before what edges hold. Its chain therefore goes on in the next generation, above every revision
//! that an edge can have, under signers of its own, and one statement says so under the offline recovery key: only by it does an
//! edge take another chain than its own. [`begin_generation`] makes both: the restored state, moved into the new generation, and
//! the statement, which is kept in that state for all who come later.
//!
//! ```text
//! g.r          the snapshot that was restored
//! g+1.n        first change set: nodes, signers and whatever else the restorer brings; the statement covers the state here
//! g+1.n+1      second change set: the statement itself
//! ```
//!
//! ```text
//! offset  bytes  content of an encoded signed statement; numbers are big-endian
//! 0       1      format: 1
//! 1       1      type: 4
//! 2       16     cluster
//! 18      4      chain
//! 22      12     first position: generation 4, revision 8
//! 34      12     position of the snapshot that was restored
//! 46      32     chain hash there
//! 78      32     chain hash at the first position
//! 110     32     state root there
//! 142     4      version of the first signer set
//! 146     32     its hash: SHA-256 over `SignerSetRecord::signing_bytes`
//! 178     64     Ed25519 signature by the recovery key
//! ```

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use types::{ChainId, ClusterId, Generation, Hash, NodeId, Position, Revision, UnixMillis};

use crate::{
    AuditEntry, AuditOutcome, AuditPrincipal, AuditTarget, Change, ChangeSet, CommandKind, Key, Keyspace, NewNode, Origin, Prefix,
    Propagated, ReadError, Recipient, State, Statement, StatementError, TypedKey, Write,
    limits::{CHANGE_SET_BYTES_MAX, CHANGES_MAX, SIGNERS_MAX},
    record::{AuditHeadRecord, GenerationRecord, MemberKey, NodeRecord, NodeRole, SettingsRecord, SignerSetRecord},
    statement::Fields,
};

/// "The chain goes on here, under these signers, from that snapshot." Signed by the offline recovery key alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationStatement {
    /// The cluster.
    pub cluster: ClusterId,
    /// The chain.
    pub chain: ChainId,
    /// The first position of the new generation, above any revision that an edge holds.
    pub begins: Position,
    /// Where the snapshot stood that was restored.
    pub restored: Position,
    /// The chain hash there.
    pub restored_hash: Hash,
    /// The chain hash at the first position.
    pub chain_hash: Hash,
    /// The state root there.
    pub state_root: Hash,
    /// The version of the new generation's first signer set.
    pub signer_set: u32,
    /// Its hash, as [`SignerSetRecord::hash`] gives it.
    pub signer_set_hash: Hash,
}

impl GenerationStatement {
    /// The generation that begins.
    pub const fn generation(&self) -> Generation {
        self.begins.generation
    }
}

impl Statement for GenerationStatement {
    const LABEL: &'static str = "cinnabar generation v1";
    const TYPE: u8 = 4;

    fn fields(&self, field: &mut dyn FnMut(&[u8])) {
        field(self.cluster.as_bytes());
        field(&self.chain.get().to_be_bytes());
        for position in [self.begins, self.restored] {
            field(&position.generation.get().to_be_bytes());
            field(&position.revision.get().to_be_bytes());
        }
        for hash in [self.restored_hash, self.chain_hash, self.state_root] {
            field(hash.as_bytes());
        }
        field(&self.signer_set.to_be_bytes());
        field(self.signer_set_hash.as_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            cluster: ClusterId::from_bytes(fields.take()?),
            chain: ChainId::new(fields.u32()?),
            begins: fields.position()?,
            restored: fields.position()?,
            restored_hash: Hash::from_bytes(fields.take()?),
            chain_hash: Hash::from_bytes(fields.take()?),
            state_root: Hash::from_bytes(fields.take()?),
            signer_set: fields.u32()?,
            signer_set_hash: Hash::from_bytes(fields.take()?),
        })
    }
}

/// A statement and the recovery key's signature of it, verified or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedGeneration {
    /// What is said.
    pub statement: GenerationStatement,
    /// Ed25519 over [`Statement::signing_bytes`] by the recovery key.
    pub signature: [u8; 64],
}

impl SignedGeneration {
    /// The stored bytes, laid out as in the module's header.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(242);
        bytes.extend_from_slice(&[1, GenerationStatement::TYPE]);
        self.statement.fields(&mut |field| bytes.extend_from_slice(field));
        bytes.extend_from_slice(&self.signature);
        bytes.into()
    }

    /// Reads stored bytes; does not verify the signature.
    ///
    /// # Errors
    /// [`StatementError`] for a newer format, another type, or a wrong length.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let length = StatementError::Length { bytes: bytes.len() };
        let mut fields = Fields::of::<GenerationStatement>(bytes)?;
        let statement = GenerationStatement::read(&mut fields).ok_or(length)?;
        let signature = fields.take().ok_or(length)?;
        if fields.is_empty() { Ok(Self { statement, signature }) } else { Err(length) }
    }
}

impl SignerSetRecord {
    /// By what a set is pinned: SHA-256 over [`SignerSetRecord::signing_bytes`].
    pub fn hash(&self, cluster: ClusterId) -> Hash {
        Hash::from_bytes(Sha256::digest(self.signing_bytes(cluster)).into())
    }
}

impl Propagated {
    /// The first signer set of the generation: what who joins now pins, and follows from there on. None in an empty state.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn first_signer_set(&self) -> Result<Option<SignerSetRecord>, ReadError> {
        let begun = self.generation_begun(self.generation())?.and_then(|record| SignedGeneration::decode(&record.signed).ok());
        self.signer_set_of(begun.map_or(1, |signed| signed.statement.signer_set))
    }
}

/// What a restorer brings to a new generation.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// The restorer's clock.
    pub time: UnixMillis,
    /// The new generation begins above this revision and above the restored one: the highest that any edge may hold. Who does not
    /// know it adds [`REVISIONS_SPARED`] to the restored one.
    pub above: Revision,
    /// Nodes that are new in it.
    pub nodes: Vec<NewNode>,
    /// Nodes that are not of it any more: they are marked as revoked, and their envelopes go.
    pub remove: Vec<NodeId>,
    /// Its first signers: control nodes, by rising id. They need no signature of the set before.
    pub signers: Vec<MemberKey>,
    /// How many of them must sign.
    pub threshold: u32,
    /// Further records, propagated or not, such as envelopes and a first operator token. None of the head, the settings, the nodes, the
    /// signers or the generations.
    pub writes: Vec<Write>,
}

/// How far above the restored revision a new generation begins, where nobody knows what edges hold: no plane makes that many between
/// two of its snapshots.
pub const REVISIONS_SPARED: u64 = 1 << 32;

/// A new generation's first state.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The state behind both of its first change sets. The applied index is the restored one's.
    pub state: State,
    /// The statement, which the state holds too.
    pub signed: SignedGeneration,
    /// Its first change sets: what the restorer brought, and the statement.
    pub sets: [Arc<ChangeSet>; 2],
    /// The beginning's own entry in the audit log, which the head in the state accounts for: it has to be durable before the state is.
    pub audit: AuditEntry,
}

/// Why a state cannot go on in a new generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// The restored state is no state of a cluster, or damaged.
    #[error("beginning a generation: the restored state does not decode")]
    Damaged(#[from] ReadError),
    /// The restored state has no settings.
    #[error("beginning a generation: the restored state is empty; there is nothing to go on from")]
    Empty,
    /// The restored state names no recovery key.
    #[error("beginning a generation: the restored state has no recovery key, so no edge could verify what begins; enrol the edges anew")]
    NoRecoveryKey,
    /// The signer set is no proper one.
    #[error("beginning a generation: {0}")]
    Signers(String),
    /// A node is there already, or not there.
    #[error("beginning a generation: {0}")]
    Nodes(String),
    /// A record may not be written so.
    #[error("beginning a generation: the record {0:?} is not for the restorer to write")]
    Record(Key),
    /// The numbers are used up.
    #[error("beginning a generation: there is no generation or revision after {0}")]
    Exhausted(Position),
    /// More than one change set holds.
    #[error("beginning a generation: {changes} changes of {bytes} bytes are more than one change set holds; bring less and write it later")]
    TooLarge {
        /// How many changes there are.
        changes: usize,
        /// Their bytes.
        bytes: usize,
    },
}

/// Moves a restored state into the next generation. `sign` makes the recovery key's signature of the bytes that it is given.
///
/// # Errors
/// [`GenerationError`]; `sign` was then not called, or what it signed is of no use.
pub fn begin_generation(restored: &State, beginning: &Beginning, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<Begun, GenerationError> {
    let settings = restored.settings()?.ok_or(GenerationError::Empty)?;
    if restored.recovery()?.is_none() {
        return Err(GenerationError::NoRecoveryKey);
    }
    let from = restored.head();
    let exhausted = || GenerationError::Exhausted(from.position);
    let generation = from.position.generation.next().ok_or_else(exhausted)?;
    let first = from.position.revision.max(beginning.above).next().ok_or_else(exhausted)?;
    let second = first.next().ok_or_else(exhausted)?;
    let time = restored.last_time().max(beginning.time);

    let mut state = restored.clone();
    let (records, set) = brought(restored, beginning, &settings, time)?;
    let begins = Position::new(generation, first);
    let propagated = records.iter().filter(|(key, _)| key.is_propagated());
    let changes: Vec<Change> = propagated.map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect();
    let begin = ChangeSet::new(from.chain, begins, time, from.hash, changes);
    let (count, bytes) = (begin.changes.len(), begin.encoded().len());
    if count > CHANGES_MAX || bytes > CHANGE_SET_BYTES_MAX {
        return Err(GenerationError::TooLarge { changes: count, bytes });
    }
    state.propagated.advance(&begin);
    for (key, value) in records.into_iter().filter(|(key, _)| !key.is_propagated()) {
        state.control.set(key, value);
    }
    state.time = time;
    let head = restored.audit_head()?;
    let audit = AuditEntry {
        sequence: head.sequence + 1,
        previous: head.hash,
        index: restored.applied_index(),
        time,
        principal: AuditPrincipal::RecoveryKey,
        action: CommandKind::BeginGeneration,
        target: AuditTarget { node: beginning.signers.first().map(|member| member.node), ..AuditTarget::default() },
        outcome: AuditOutcome::Done { position: Position::new(generation, second) },
        request: None,
        origin: Origin { peer: "offline".to_owned(), request: String::new() },
        detail: None,
    };
    let head = AuditHeadRecord { sequence: audit.sequence, hash: AuditEntry::hash_of(&audit.encode()) };
    state.control.set(TypedKey::AuditHead.encode(), Some(head.encode()));

    let statement = GenerationStatement {
        cluster: settings.cluster,
        chain: from.chain,
        begins,
        restored: from.position,
        restored_hash: from.hash,
        chain_hash: begin.hash,
        state_root: state.state_root(),
        signer_set: set.version,
        signer_set_hash: set.hash(settings.cluster),
    };
    let signed = SignedGeneration { statement, signature: sign(&statement.signing_bytes()) };
    let record = GenerationRecord { signed: signed.encode().to_vec() };
    let change = Change { key: TypedKey::Generation { generation }.encode(), value: Some(record.encode()) };
    let says = ChangeSet::new(from.chain, Position::new(generation, second), time, begin.hash, vec![change]);
    state.propagated.advance(&says);
    Ok(Begun { state, signed, sets: [Arc::new(begin), Arc::new(says)], audit })
}

type Records = BTreeMap<Key, Option<Bytes>>;

/// All that changes before the statement, and the new signer set.
fn brought(
    restored: &State,
    beginning: &Beginning,
    settings: &SettingsRecord,
    time: UnixMillis,
) -> Result<(Records, SignerSetRecord), GenerationError> {
    let mut records = Records::new();
    for write in &beginning.writes {
        let keyspace = write.key.keyspace();
        let own = [Keyspace::Head, Keyspace::Settings, Keyspace::SignerSet, Keyspace::Node, Keyspace::Generation];
        if keyspace.is_none_or(|keyspace| own.contains(&keyspace)) || write.key.decode().is_err() {
            return Err(GenerationError::Record(write.key.clone()));
        }
        records.insert(write.key.clone(), write.value.clone());
    }
    let nodes = nodes(restored, beginning, time)?;
    let set = signers(beginning, settings, &nodes)?;
    for (node, record) in nodes {
        records.insert(TypedKey::Node { node }.encode(), Some(record.encode()));
    }
    let envelopes = Prefix::keyspace(Keyspace::Envelope);
    for (key, _) in restored.scan_control(&envelopes) {
        if let Ok(TypedKey::Envelope { recipient: Recipient::Node(node), .. }) = key.decode()
            && beginning.remove.contains(&node)
        {
            records.insert(key.clone(), None);
        }
    }
    let mut totals = restored.totals()?;
    totals.nodes = totals.nodes.saturating_add(u32::try_from(beginning.nodes.len()).unwrap_or(u32::MAX));
    records.insert(TypedKey::Totals.encode(), Some(totals.encode()));
    records.insert(TypedKey::SignerSet { version: set.version }.encode(), Some(set.encode()));
    let settings = SettingsRecord { signer_set: set.version, ..settings.clone() };
    records.insert(TypedKey::Settings.encode(), Some(settings.encode()));
    Ok((records, set))
}

/// The registry's records that the beginning changes, and those of its signers.
fn nodes(restored: &State, beginning: &Beginning, time: UnixMillis) -> Result<BTreeMap<NodeId, NodeRecord>, GenerationError> {
    let mut nodes = BTreeMap::new();
    for node in &beginning.remove {
        let Some(record) = restored.node(*node)? else {
            return Err(GenerationError::Nodes(format!("node {node}, which is to be removed, is not registered")));
        };
        nodes.insert(*node, NodeRecord { revoked: record.revoked.or(Some(time)), ..record });
    }
    for new in &beginning.nodes {
        let record = NodeRecord {
            name: new.name.clone(),
            role: new.role,
            public_key: new.public_key.clone(),
            envelope_key: new.envelope_key.clone(),
            labels: new.labels.clone(),
            address: new.address.clone(),
            feature_level: new.feature_level,
            created: time,
            revoked: None,
        };
        if restored.node(new.id)?.is_some() || nodes.insert(new.id, record).is_some() {
            return Err(GenerationError::Nodes(format!("node {} is registered already; ids are never given again", new.id)));
        }
    }
    for signer in &beginning.signers {
        if !nodes.contains_key(&signer.node)
            && let Some(record) = restored.node(signer.node)?
        {
            nodes.insert(signer.node, record);
        }
    }
    Ok(nodes)
}

fn signers(
    beginning: &Beginning,
    settings: &SettingsRecord,
    nodes: &BTreeMap<NodeId, NodeRecord>,
) -> Result<SignerSetRecord, GenerationError> {
    let refuse = |detail: String| Err(GenerationError::Signers(detail));
    let (keys, threshold) = (&beginning.signers, beginning.threshold);
    let sorted = keys.is_sorted_by(|one, next| one.node < next.node);
    if keys.is_empty() || keys.len() > SIGNERS_MAX || !sorted || threshold == 0 || threshold as usize > keys.len() {
        return refuse(format!("a signer set needs 1 to {SIGNERS_MAX} members by rising node id, and a threshold from 1 to their number"));
    }
    let good = |record: &NodeRecord| record.role == NodeRole::Control && record.revoked.is_none();
    if let Some(member) = keys.iter().find(|member| !nodes.get(&member.node).is_some_and(good)) {
        return refuse(format!("signer {} is no control node in good standing", member.node));
    }
    let Some(version) = settings.signer_set.checked_add(1) else {
        return refuse("the versions of signer sets are used up".into());
    };
    Ok(SignerSetRecord { version, threshold, keys: keys.clone(), signatures: Vec::new() })
}
