//! A control plane of one node made of records, streams in memory, and an edge on a simulated disk.

mod edge;
mod links;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use feed::{Acks, AcksOptions, Anchor, Handover, Inline, NoHandover, Publisher, PublisherOptions, PublisherParts, SigningKey};
use seams::sim::{ManualClock, SimEntropy};
use state::{
    Change, ChangeSet, CheckpointStatement, Key, Propagated, SealStatement, Signed, State, TypedKey,
    record::{HeadRecord, MemberKey, NodeRecord, NodeRole, SettingsRecord, SignerSetRecord},
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

pub fn first_set() -> SignerSetRecord {
    let keys = vec![MemberKey { node: CONTROL, key: signing_key().public() }];
    SignerSetRecord { version: 1, threshold: 1, keys, signatures: Vec::new() }
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
        created: UnixMillis::new(START_MS),
        revoked: None,
    }
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
        let mut plane = Self { clock, publisher, state, sets: Vec::new(), history: vec![Propagated::empty()], ticks: Vec::new() };
        let record = |key: TypedKey, value: Bytes| Change { key: key.encode(), value: Some(value) };
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
        self.publisher = publisher(&self.clock, options, &self.state, Arc::new(NoHandover));
    }

    /// As [`Plane::restart`], on a copy that was made at an earlier revision: what came after it never was.
    pub fn restore(&mut self, revision: u64, options: PublisherOptions) {
        self.sets.truncate(revision as usize);
        self.history.truncate(revision as usize + 1);
        self.state = state_of(&self.history[revision as usize]);
        self.restart(options);
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
        self.seal_by(&signing_key(), 1)
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
    Publisher::new(options, signing_key(), parts, state)
}

pub fn next_set(state: &Propagated, time: u64, changes: Vec<Change>) -> ChangeSet {
    let position = at(state.position().revision.get() + 1);
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
    let records = propagated.records().map(|(key, value)| (key.clone(), value.clone()));
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
