//! A cluster with one account, as records.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use seal::{ConsumerToken, DekWrap, Kek, KekName, KeyRing, MintedDek, ValueContext, commitment};
use seams::{
    Entropy,
    sim::{ManualClock, SimEntropy},
};
use state::{
    ChainHead, Key, LargeValues, Propagated, Root, Signed, TypedKey,
    record::{
        BindingRecord, BindingTarget, ConsumerRecord, ConsumerTokenRecord, DekRecord, DekState, SecretRecord, SettingsRecord, StoreRecord,
        ValueRecord, VersionEntry, WrappedDek,
    },
};
use types::{
    AccountId, BindingName, ClusterId, Comment, ConsumerRef, Generation, Hash, KekEpoch, KeyDomain, NodeId, Position, Revision, Scope,
    SecretId, StoreId, TokenId, UnixMillis, ValueId, Version,
};

use crate::{
    Authenticator, Caller, Checkpoint, Connection, ConsumerTarget, Found, FreshnessTarget, Lookup, LookupError, Served, Serving,
    WantedTarget, Which,
};

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
pub(super) const ACCOUNT: AccountId = AccountId::from_bytes([2; 16]);
pub(super) const OTHER_ACCOUNT: AccountId = AccountId::from_bytes([3; 16]);
pub(super) const STORE: StoreId = StoreId::from_bytes([4; 16]);
/// 22 November 2026.
pub(super) const START: UnixMillis = UnixMillis::new(1_795_305_600_000);

pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) serving: Arc<Serving>,
    pub(super) lookup: Arc<Lookup>,
    pub(super) records: BTreeMap<Key, Bytes>,
    /// Where the large values of the next roots lie; none for memory.
    pub(super) place: Option<Arc<dyn LargeValues>>,
    entropy: SimEntropy,
    dek: MintedDek,
    revision: u64,
}

pub(super) fn domain() -> KeyDomain {
    KeyDomain::new("global").unwrap()
}

pub(super) fn epoch() -> KekEpoch {
    KekEpoch::new(1)
}

pub(super) fn binding(name: &str) -> BindingName {
    BindingName::new(name).unwrap()
}

pub(super) fn consumer(text: &str) -> ConsumerRef {
    ConsumerRef::parse(ACCOUNT, text).unwrap()
}

pub(super) fn target(text: &str) -> ConsumerTarget {
    let consumer = consumer(text);
    ConsumerTarget { account: None, kind: consumer.kind, name: consumer.name }
}

pub(super) fn wanted(name: &str) -> WantedTarget {
    WantedTarget { binding: binding(name), secret: None, which: Which::Current }
}

pub(super) fn unbounded() -> FreshnessTarget {
    FreshnessTarget::default()
}

pub(super) fn at(revision: u64) -> Position {
    Position::new(Generation::new(1), Revision::new(revision))
}

/// The caller that a certificate proves.
pub(super) fn certified(text: &str) -> Caller {
    let connection = Connection { identity: Some(consumer(text)), not_after: None, uid: None };
    Authenticator::default().caller(&connection, None, None).unwrap()
}

pub(super) fn bearer(token: &ConsumerToken) -> Caller {
    Authenticator::default().caller(&Connection::default(), Some(token.text().expose()), None).unwrap()
}

/// The plaintext, so that outcomes can be compared and printed.
pub(super) fn opened(outcome: Result<Found, LookupError>) -> Result<(String, u64), LookupError> {
    outcome.map(|found| (String::from_utf8(found.value.expose().to_vec()).unwrap(), found.version.get()))
}

impl World {
    /// `worker/web` has bound `API_KEY` to a secret of scope `workers` whose value is "first".
    pub(super) fn new() -> Self {
        let entropy = SimEntropy::new(7);
        let keys = Arc::new(KeyRing::new(CLUSTER));
        let kek = Kek::generate(&entropy);
        let announced = commitment(&KekName { cluster: CLUSTER, domain: &domain(), epoch: epoch() }, &kek).unwrap();
        keys.install_kek(&domain(), epoch(), &announced, kek).unwrap();
        let dek = keys.mint_dek(&entropy, &domain(), epoch(), ACCOUNT).unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let serving = Arc::new(Serving::new(clock.clone(), keys));
        let lookup = Arc::new(Lookup::new(serving.clone(), Arc::new(Served::new(100)), &"edge-1".parse().unwrap()));
        let mut world = Self { clock, serving, lookup, records: BTreeMap::new(), place: None, entropy, dek, revision: 0 };
        world.found();
        world
    }

    fn found(&mut self) {
        let wraps = vec![WrappedDek { domain: domain(), epoch: epoch(), bytes: self.dek.wrapped.as_bytes().to_vec() }];
        let dek = DekRecord { account: ACCOUNT, id: self.dek.id, wraps, created: START, state: DekState::Active, era: 0 };
        self.put(TypedKey::Settings, SettingsRecord::defaults(CLUSTER).encode());
        self.put(TypedKey::Dek { account: ACCOUNT, dek: self.dek.id }, dek.encode());
        self.store(STORE, "default", ACCOUNT);
        self.consumer("worker/web");
        let secret = self.secret("SECRET", "workers", "first");
        self.bind("worker/web", "API_KEY", self.to_secret(secret));
        self.publish();
        self.checkpoint();
    }

    pub(super) fn put(&mut self, key: TypedKey, bytes: Bytes) {
        self.records.insert(key.encode(), bytes);
    }

    pub(super) fn remove(&mut self, key: TypedKey) {
        self.records.remove(&key.encode()).expect("there is such a record");
    }

    /// The records as a root, one revision on.
    pub(super) fn root(&mut self) -> Arc<Root> {
        self.revision += 1;
        let head = ChainHead { position: at(self.revision), hash: Hash::from_bytes([9; 32]), time: START, ..ChainHead::default() };
        let mut loading = self.place.clone().map_or_else(Propagated::empty, Propagated::empty_with).load();
        for (key, bytes) in &self.records {
            loading.put(key.clone(), bytes.clone().into());
        }
        let state = loading.finish(head);
        let seal = Signed { statement: state.seal_statement(CLUSTER), signer: NodeId::new(1), signer_set: 1, signature: [0; 64] };
        Arc::new(Root { state, seal })
    }

    pub(super) fn publish(&mut self) -> Position {
        let root = self.root();
        self.serving.publish(root);
        at(self.revision)
    }

    pub(super) fn checkpoint(&self) {
        use seams::Clock;
        self.serving.checkpoint(Checkpoint::received(self.clock.wall(), &*self.clock));
    }

    pub(super) fn store(&mut self, store: StoreId, name: &str, account: AccountId) {
        let name: types::StoreName = name.parse().unwrap();
        self.put(TypedKey::Store { store }, StoreRecord { account, name, created: START, modified: START, deleting: false }.encode());
    }

    pub(super) fn consumer(&mut self, text: &str) {
        self.put(TypedKey::Consumer { consumer: consumer(text) }, ConsumerRecord { created: START }.encode());
    }

    pub(super) fn token(&mut self, text: &str, expires: Option<UnixMillis>) -> ConsumerToken {
        let token = ConsumerToken::generate(&self.entropy);
        let token_id = TokenId::from_bytes(self.entropy.id());
        let record = ConsumerTokenRecord { consumer: consumer(text), token_id, created: START, expires };
        self.put(TypedKey::ConsumerToken { hash: token.hash() }, record.encode());
        token
    }

    pub(super) fn secret(&mut self, name: &str, scopes: &str, value: &str) -> SecretId {
        let id = SecretId::from_bytes(self.entropy.id());
        let scopes = scopes.split(',').map(|scope| scope.parse::<Scope>().unwrap()).collect();
        let record = SecretRecord {
            account: ACCOUNT,
            store: STORE,
            name: name.parse().unwrap(),
            scopes,
            comment: Comment::new("").unwrap(),
            created: START,
            modified: START,
            versions: Vec::new(),
            newest: Version::new(0),
            current: Version::new(0),
            previous: None,
            candidate: None,
            deleting: false,
        };
        self.put(TypedKey::SecretName { store: STORE, name: record.name.clone() }, encoded_id(id));
        self.put(TypedKey::Secret { store: STORE, secret: id }, record.encode());
        self.set(id, value);
        id
    }

    pub(super) fn edit(&mut self, id: SecretId, change: impl FnOnce(&mut SecretRecord)) {
        let key = TypedKey::Secret { store: STORE, secret: id };
        let mut record = SecretRecord::decode(&self.records[&key.clone().encode()]).unwrap();
        change(&mut record);
        self.put(key, record.encode());
    }

    /// A new version becomes current.
    pub(super) fn set(&mut self, id: SecretId, value: &str) -> Version {
        let value_id = ValueId::from_bytes(self.entropy.id());
        let mut newest = Version::new(0);
        let mut name = None;
        self.edit(id, |record| {
            newest = record.newest.next().unwrap();
            record.versions.push(VersionEntry { version: newest, value_id, created: START });
            record.previous = (record.current.get() > 0).then_some(record.current);
            (record.current, record.newest) = (newest, newest);
            name = Some(record.name.clone());
        });
        let (domain, name) = (domain(), name.unwrap());
        let context = ValueContext { account: ACCOUNT, store: STORE, secret: id, name: &name, value_id, dek: self.dek.id, domain: &domain };
        let wrap = DekWrap { epoch: epoch(), bytes: self.dek.wrapped.as_bytes() };
        let sealed = self.serving.keys().seal_value(&self.entropy, &context, wrap, value.as_bytes()).unwrap();
        let record = ValueRecord { secret: id, dek: self.dek.id, domain: domain.clone(), sealed };
        self.put(TypedKey::Value { secret: id, value: value_id }, record.encode());
        newest
    }

    pub(super) fn to_secret(&self, id: SecretId) -> BindingTarget {
        BindingTarget::Secret { store: STORE, secret: id, name: "SECRET".parse().unwrap() }
    }

    pub(super) fn to_store(&self) -> BindingTarget {
        BindingTarget::Store { store: STORE, name: "default".parse().unwrap() }
    }

    pub(super) fn bind(&mut self, text: &str, name: &str, target: BindingTarget) {
        let key = TypedKey::Binding { consumer: consumer(text), name: binding(name) };
        self.put(key, BindingRecord { target, created: START }.encode());
    }

    pub(super) fn unbind(&mut self, text: &str, name: &str) {
        self.remove(TypedKey::Binding { consumer: consumer(text), name: binding(name) });
    }

    /// The secret that `worker/web` has bound as `API_KEY`.
    pub(super) fn first(&self) -> SecretId {
        let key = TypedKey::Binding { consumer: consumer("worker/web"), name: binding("API_KEY") };
        match BindingRecord::decode(&self.records[&key.encode()]).unwrap().target {
            BindingTarget::Secret { secret, .. } => secret,
            BindingTarget::Store { .. } => panic!("API_KEY is bound to a secret"),
        }
    }

    /// What `worker/web` gets for `API_KEY`.
    pub(super) fn get(&self) -> Result<(String, u64), LookupError> {
        opened(self.lookup.get(&certified("worker/web"), &wanted("API_KEY"), unbounded()))
    }

    pub(super) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

/// An id as `state` stores it under a name: format 1, then the bytes.
fn encoded_id(id: SecretId) -> Bytes {
    let mut bytes = vec![1];
    bytes.extend_from_slice(id.as_bytes());
    bytes.into()
}
