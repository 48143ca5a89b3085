//! A control plane of one node made of records, streams in memory, and an edge on a simulated disk.

mod edge;
mod links;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use feed::{
    Acks, AcksOptions, Anchor, Handover, Inline, NoHandover, Publisher, PublisherOptions, PublisherParts, SigningKey, sign_signer_set,
};
use seams::sim::{ManualClock, SimEntropy};
use state::{
    Beginning, Change, ChangeSet, CheckpointStatement, Key, NewNode, Propagated, SealStatement, Signed, SignedGeneration, State, TypedKey,
    begin_generation,
    record::{HeadRecord, MemberKey, NodeRecord, NodeRole, RecoveryRecord, SettingsRecord, SignerSetRecord},
};
use types::{ChainId, ClusterId, Generation, Hash, LogIndex, NodeId, NodeName, Position, Revision, SecretId, UnixMillis, ValueId};
use wire::internal::{self as proto, SubscribeDown, subscribe_down::Message};

pub use edge::{Edge, fault_of, take};
pub use links::{Dialer, Line, line, served};

pub const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
pub const CONTROL: NodeId = NodeId::new(1);
pub const EDGE: NodeId = NodeId::new(7);
pub const START_MS: u64 = 1_700_000_000_000;

pub fn at(revision: u64) -> Position {
    Position::new(Generation::new(1), Revision::new(revision))
}

pub fn signing_key() -> SigningKey {
    SigningKey::generate(&SimEntropy::new(42))
}

pub fn other_key() -> SigningKey {
    SigningKey::generate(&SimEntropy::new(43))
}

/// The key that a control node signs with.
pub fn key_of(node: NodeId) -> SigningKey {
    if node == CONTROL { signing_key() } else { SigningKey::generate(&SimEntropy::new(1000 + node.get())) }
}

/// The offline recovery key.
pub fn recovery_key() -> SigningKey {
    SigningKey::generate(&SimEntropy::new(44))
}

pub fn first_set() -> SignerSetRecord {
    let keys = vec![MemberKey { node: CONTROL, key: signing_key().public() }];
    SignerSetRecord { version: 1, threshold: 1, keys, signatures: Vec::new() }
}

/// A set of these nodes, signed by others.
pub fn set_of(version: u32, members: &[NodeId], by: &[NodeId]) -> SignerSetRecord {
    let keys = members.iter().map(|node| MemberKey { node: *node, key: key_of(*node).public() }).collect();
    let mut set = SignerSetRecord { version, threshold: 1, keys, signatures: Vec::new() };
    set.signatures = by.iter().map(|node| sign_signer_set(&key_of(*node), *node, CLUSTER, &set)).collect();
    set
}

pub fn anchor() -> Anchor {
    Anchor::of(CLUSTER, &first_set())
}

pub fn value_key(number: u64) -> Key {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    TypedKey::Value { secret: SecretId::from_bytes(id), value: ValueId::from_bytes(id) }.encode()
}

pub fn put(number: u64, content: impl Into<Vec<u8>>) -> Change {
    Change { key: value_key(number), value: Some(Bytes::from(content.into())) }
}

pub fn delete(number: u64) -> Change {
    Change { key: value_key(number), value: None }
}

fn node(name: &str, role: NodeRole) -> NodeRecord {
    NodeRecord {
        name: NodeName::new(name).unwrap(),
        role,
        public_key: vec![1],
        envelope_key: vec![],
        labels: BTreeMap::new(),
        address: None,
        feature_level: types::FeatureLevel::new(1),
        created: UnixMillis::new(START_MS),
        revoked: None,
    }
}

fn record(key: TypedKey, value: Bytes) -> Change {
    Change { key: key.encode(), value: Some(value) }
}

/// The record of a further control node.
pub fn control_node(id: NodeId) -> NodeRecord {
    NodeRecord { public_key: vec![id.get() as u8], ..node(&format!("control-{id}"), NodeRole::Control) }
}

/// The chain as the control plane makes it.
pub struct Plane {
    pub clock: Arc<ManualClock>,
    pub publisher: Arc<Publisher>,
    pub state: State,
    pub sets: Vec<Arc<ChangeSet>>,
    /// The state after each revision, from 0 on.
    pub history: Vec<Propagated>,
    /// The revision and time of each tick.
    pub ticks: Vec<(u64, u64)>,
    /// The control node that publishes.
    pub node: NodeId,
    /// What published before the control plane was recovered.
    pub replaced: Option<Arc<Publisher>>,
}

/// Small sizes, so that few records make several batches and chunks.
pub fn options() -> PublisherOptions {
    let mut options = PublisherOptions::new(CLUSTER, CONTROL);
    options.window.sets_max = 16;
    options.window.mark_every = 4;
    options.batch_bytes_max = 2000;
    options.chunk_bytes = 2000;
    options
}

impl Plane {
    /// Begun with settings, the signer set and two nodes, at revision 1.
    pub fn new() -> Self {
        Self::with(options())
    }

    pub fn with(options: PublisherOptions) -> Self {
        let clock = Arc::new(ManualClock::at(UnixMillis::new(START_MS)));
        let state = State::empty();
        let publisher = publisher(&clock, options, &state, Arc::new(NoHandover));
        let mut plane = Self {
            clock,
            publisher,
            state,
            sets: Vec::new(),
            history: vec![Propagated::empty()],
            ticks: Vec::new(),
            node: CONTROL,
            replaced: None,
        };
        plane.commit(vec![
            record(TypedKey::Settings, SettingsRecord::defaults(CLUSTER).encode()),
            record(TypedKey::SignerSet { version: 1 }, first_set().encode()),
            record(TypedKey::Node { node: CONTROL }, node("control", NodeRole::Control).encode()),
            record(TypedKey::Node { node: EDGE }, node("edge", NodeRole::Edge).encode()),
        ]);
        plane
    }

    /// A new process of the control node, with an empty window.
    pub fn restart(&mut self, options: PublisherOptions) {
        let options = PublisherOptions { node: self.node, ..options };
        self.publisher = publisher(&self.clock, options, &self.state, Arc::new(NoHandover));
    }

    /// Another control node publishes from here on, with an empty window.
    pub fn publish_by(&mut self, node: NodeId) {
        self.node = node;
        self.restart(PublisherOptions { node, ..options() });
    }

    /// Adopts the next signer set, of these nodes and signed by others; nodes that are new are registered.
    pub fn adopt(&mut self, members: &[NodeId], by: &[NodeId]) {
        let settings = self.propagated().settings().unwrap().unwrap();
        let set = set_of(settings.signer_set + 1, members, by);
        let version = set.version;
        let mut changes = vec![
            record(TypedKey::SignerSet { version }, set.encode()),
            record(TypedKey::Settings, SettingsRecord { signer_set: version, ..settings }.encode()),
        ];
        let new = members.iter().filter(|node| self.propagated().node(**node).unwrap().is_none());
        changes.extend(new.map(|node| record(TypedKey::Node { node: *node }, control_node(*node).encode())));
        self.commit(changes);
    }

    /// Lets the state name the recovery key.
    pub fn name_recovery_key(&mut self, key: &SigningKey) {
        let recovery = RecoveryRecord { signing_key: key.public(), envelope_key: vec![], first_set: vec![] };
        self.commit(vec![record(TypedKey::Recovery, recovery.encode())]);
    }

    /// The control plane is restored from its snapshot of a revision, by another node and in a new generation, which the recovery key
    /// signs. What `restored` answers is the statement; the new plane's first revision is the one after `above`.
    pub fn recover(&mut self, revision: u64, above: u64, node: NodeId, recovery: &SigningKey) -> SignedGeneration {
        let restored = state_of(&self.history[revision as usize]);
        let beginning = Beginning {
            time: UnixMillis::new(self.clock_ms()),
            above: Revision::new(above),
            nodes: vec![NewNode {
                id: node,
                name: NodeName::new(format!("control-{node}")).unwrap(),
                role: NodeRole::Control,
                public_key: vec![node.get() as u8],
                envelope_key: vec![],
                labels: BTreeMap::new(),
                address: None,
                feature_level: types::FeatureLevel::new(1),
            }],
            remove: vec![CONTROL],
            signers: vec![MemberKey { node, key: key_of(node).public() }],
            threshold: 1,
            writes: vec![],
        };
        let begun = begin_generation(&restored, &beginning, |bytes| recovery.sign_bytes(bytes)).unwrap();
        self.state = begun.state;
        // Revisions that no history has are none that a test asks for.
        let last = self.propagated().position().revision.get() as usize;
        let (padding, set) = (self.history[revision as usize].clone(), self.sets[0].clone());
        self.history.resize(last, padding);
        self.history.push(self.propagated().clone());
        self.sets.resize(last - 2, set);
        self.sets.extend(begun.sets);
        self.replaced = Some(self.publisher.clone());
        self.publish_by(node);
        begun.signed
    }

    /// As [`Plane::restart`], on a copy that was made at an earlier revision: what came after it never was.
    pub fn restore(&mut self, revision: u64, options: PublisherOptions) {
        self.sets.truncate(revision as usize);
        self.history.truncate(revision as usize + 1);
        self.state = state_of(&self.history[revision as usize]);
        self.restart(options);
    }

    /// Another control node, which has applied the chain up to a revision.
    pub fn lagging(&self, revision: u64) -> Arc<Publisher> {
        let options = PublisherOptions { node: self.node, ..options() };
        publisher(&self.clock, options, &state_of(&self.history[revision as usize]), Arc::new(NoHandover))
    }

    /// It applies what it lacks.
    pub fn catch_up(&self, publisher: &Publisher) {
        for set in &self.sets[publisher.head().revision.get() as usize..] {
            let state = state_of(&self.history[set.position().revision.get() as usize]);
            publisher.applied(std::slice::from_ref(set), &state);
        }
    }

    /// As [`Plane::restart`], with envelopes to hand over.
    pub fn hand_over(&mut self, handover: Arc<dyn Handover>) {
        self.publisher = publisher(&self.clock, options(), &self.state, handover);
    }

    pub fn propagated(&self) -> &Propagated {
        self.state.propagated()
    }

    pub fn position(&self) -> Position {
        self.propagated().position()
    }

    /// The next change set, not applied.
    pub fn next_set(&self, changes: Vec<Change>) -> ChangeSet {
        next_set(self.propagated(), self.clock_ms(), changes)
    }

    fn clock_ms(&self) -> u64 {
        use seams::Clock;
        self.clock.wall().get()
    }

    /// Applies one change set, and publishes it.
    pub fn commit(&mut self, changes: Vec<Change>) -> Arc<ChangeSet> {
        self.commit_run(vec![changes]).remove(0)
    }

    /// Applies several change sets as one run.
    pub fn commit_run(&mut self, run: Vec<Vec<Change>>) -> Vec<Arc<ChangeSet>> {
        let mut made = Vec::new();
        for mut changes in run {
            changes.sort_by(|one, next| one.key.cmp(&next.key));
            let set = Arc::new(self.next_set(changes));
            let mut propagated = self.propagated().clone();
            propagated.accept(&set).unwrap();
            self.history.push(propagated.clone());
            self.state = state_of(&propagated);
            self.sets.push(set.clone());
            made.push(set);
        }
        self.publisher.applied(&made, &self.state);
        made
    }

    /// Commits `count` small change sets, each a run of its own.
    pub fn write(&mut self, count: u64) {
        for _ in 0..count {
            let revision = self.position().revision.get();
            self.commit(vec![put(revision % 50, format!("value of revision {revision}").repeat(4))]);
        }
    }

    /// A second passes and a tick is applied.
    pub fn tick(&mut self) {
        self.clock.advance(Duration::from_secs(1));
        self.ticks.push((self.position().revision.get(), self.clock_ms()));
        self.publisher.ticked(&self.state, UnixMillis::new(self.clock_ms()));
    }

    pub fn seal(&self) -> Signed<SealStatement> {
        let set = self.propagated().settings().unwrap().unwrap().signer_set;
        key_of(self.node).sign(self.propagated().seal_statement(CLUSTER), self.node, set)
    }

    pub fn seal_by(&self, key: &SigningKey, set: u32) -> Signed<SealStatement> {
        key.sign(self.propagated().seal_statement(CLUSTER), CONTROL, set)
    }

    pub fn checkpoint(&self, time: u64) -> Signed<CheckpointStatement> {
        self.checkpoint_of(self.position().revision.get(), time)
    }

    /// The seal of an earlier revision, as a node that lags signs it.
    pub fn seal_of(&self, revision: u64) -> Signed<SealStatement> {
        signing_key().sign(self.history[revision as usize].seal_statement(CLUSTER), CONTROL, 1)
    }

    pub fn checkpoint_of(&self, revision: u64, time: u64) -> Signed<CheckpointStatement> {
        let SealStatement { cluster, chain, position, chain_hash, state_root } = self.seal_of(revision).statement;
        let statement = CheckpointStatement { cluster, chain, position, chain_hash, state_root, time: UnixMillis::new(time) };
        signing_key().sign(statement, CONTROL, 1)
    }
}

fn publisher(clock: &Arc<ManualClock>, options: PublisherOptions, state: &State, handover: Arc<dyn Handover>) -> Arc<Publisher> {
    let parts = PublisherParts {
        clock: clock.clone(),
        offload: Arc::new(Inline),
        handover,
        acks: Acks::new(AcksOptions::default(), clock.clone()),
    };
    let key = key_of(options.node);
    Publisher::new(options, key, parts, state)
}

pub fn next_set(state: &Propagated, time: u64, changes: Vec<Change>) -> ChangeSet {
    let generation = state.generation().max(Generation::new(1));
    let position = Position::new(generation, Revision::new(state.position().revision.get() + 1));
    ChangeSet::new(ChainId::new(0), position, UnixMillis::new(time), state.chain_hash(), changes)
}

/// A control node's state with this propagated part.
fn state_of(propagated: &Propagated) -> State {
    let head = propagated.head();
    let record = HeadRecord {
        applied: LogIndex::new(head.position.revision.get()),
        time: head.time,
        chain: head.chain,
        position: head.position,
        chain_hash: head.hash,
        changed: head.time,
        state_root: propagated.state_root(),
    };
    let records = propagated.records().map(|(key, content)| (key.clone(), content.bytes(key).unwrap()));
    State::from_records(records.chain([(TypedKey::Head.encode(), record.encode())])).unwrap()
}

pub fn down(message: Message) -> SubscribeDown {
    SubscribeDown { message: Some(message) }
}

/// A batch message of these change sets and this seal.
pub fn batch(sets: &[Arc<ChangeSet>], seal: Option<&Signed<SealStatement>>) -> SubscribeDown {
    down(Message::Batch(proto::Batch {
        change_sets_encoded: sets.iter().map(|set| set.encoded().clone()).collect(),
        seal_encoded: seal.map(Signed::encode).unwrap_or_default(),
    }))
}

pub fn checkpoint(signed: &Signed<CheckpointStatement>) -> SubscribeDown {
    down(Message::Checkpoint(proto::Checkpoint { checkpoint_encoded: signed.encode() }))
}

pub fn root_of(root: &state::Root) -> (Position, Hash) {
    (root.state.position(), root.state.state_root())
}
