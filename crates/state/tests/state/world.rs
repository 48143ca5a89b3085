//! A small cluster for tests: a leader's state, a follower that accepts each change set, and ids made from names.

use std::sync::Arc;

use state::{
    Applied, ChangeSet, Command, CommandBody, InitCluster, NewDek, NewNode, NewSecret, Origin, Principal, Propagated, Recipient,
    RequestKey, SealedInput, State,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, RecoveryRecord, SettingsRecord, WrappedDek},
};
use types::{
    AccountId, ClusterId, Comment, DekId, FeatureLevel, KekEpoch, KeyDomain, LogIndex, NodeId, RequestId, ScopeSet, SealedValue, SecretId,
    StoreId, TokenId, UnixMillis, ValueId,
};

/// The bytes of a name, padded with dots: ids that read as what they are.
pub(crate) fn id(name: &str) -> [u8; 16] {
    let mut bytes = [b'.'; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// A stand-in for the hash of a token.
pub(crate) fn hash(name: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&id(name));
    bytes
}

pub(crate) fn account(name: &str) -> AccountId {
    AccountId::from_bytes(id(name))
}

pub(crate) fn store(name: &str) -> StoreId {
    StoreId::from_bytes(id(name))
}

pub(crate) fn secret(name: &str) -> SecretId {
    SecretId::from_bytes(id(name))
}

pub(crate) fn token(name: &str) -> TokenId {
    TokenId::from_bytes(id(name))
}

pub(crate) fn dek(name: &str) -> DekId {
    DekId::from_bytes(id(name))
}

pub(crate) fn operator(name: &str) -> Principal {
    Principal::Operator { token: hash(name) }
}

pub(crate) fn request(name: &str, content: &str) -> RequestKey {
    RequestKey { id: RequestId::from_bytes(id(name)), fingerprint: hash(content) }
}

/// Bytes in the form of a sealed value of so many bytes, told apart by the value id.
pub(crate) fn sealed(value_id: ValueId, dek: DekId, length: usize) -> SealedInput {
    let mut bytes = vec![value_id.as_bytes()[15]; length + SealedValue::HEADER_BYTES + SealedValue::TAG_BYTES];
    bytes[0] = SealedValue::FORMAT;
    bytes[1..13].copy_from_slice(&value_id.as_bytes()[4..]);
    SealedInput { value_id, dek, domain: KeyDomain::global(), sealed: SealedValue::from_bytes(bytes).unwrap() }
}

pub(crate) fn new_dek(id: DekId, epoch: KekEpoch, replaces: Option<DekId>) -> NewDek {
    NewDek { id, wraps: vec![WrappedDek { domain: KeyDomain::global(), epoch, bytes: id.as_bytes().repeat(4) }], replaces }
}

pub(crate) fn scopes(names: &str) -> ScopeSet {
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.parse::<types::Scope>().unwrap()).collect()
}

pub(crate) fn new_secret(name: &str, scope_names: &str, value: SealedInput) -> NewSecret {
    NewSecret { id: secret(name), name: name.parse().unwrap(), scopes: scopes(scope_names), comment: Comment::default(), value }
}

pub(crate) fn envelope(node: u64) -> (Recipient, EnvelopeRecord) {
    (Recipient::Node(NodeId::new(node)), EnvelopeRecord { bytes: vec![node as u8; 40] })
}

pub(crate) fn new_node(number: u64, name: &str, role: NodeRole) -> NewNode {
    NewNode {
        id: NodeId::new(number),
        name: name.parse().unwrap(),
        role,
        public_key: vec![number as u8; 44],
        envelope_key: vec![number as u8; 32],
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        address: (role == NodeRole::Control).then(|| format!("{name}:7400")),
        feature_level: FeatureLevel::new(1),
    }
}

/// One control node, one edge, the operator `root`.
pub(crate) fn init() -> InitCluster {
    let cluster = ClusterId::from_bytes(id("cluster"));
    InitCluster {
        cluster,
        settings: SettingsRecord::defaults(cluster),
        signers: vec![MemberKey { node: NodeId::new(1), key: [1; 32] }],
        threshold: 1,
        operator_token: hash("root"),
        operator_token_id: token("root"),
        operator: "root".parse().unwrap(),
        domain: KeyDomain::global(),
        commitment: [7; 32],
        envelopes: vec![envelope(1), envelope(2)],
        nodes: vec![new_node(1, "control-1", NodeRole::Control), new_node(2, "edge-1", NodeRole::Edge)],
        authority: AuthorityRecord {
            certificate: vec![8; 60],
            envelopes: vec![envelope(1), (Recipient::Recovery, EnvelopeRecord { bytes: vec![9; 40] })],
        },
        recovery: Some(RecoveryRecord { signing_key: [9; 32], envelope_key: vec![9; 32], first_set: vec![9; 64] }),
    }
}

/// The cluster.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) follower: Propagated,
    pub(crate) log: Vec<Command>,
    pub(crate) sets: Vec<Arc<ChangeSet>>,
    pub(crate) clock: u64,
    values: u64,
}

impl World {
    /// Before any command, at one second past the epoch.
    pub(crate) fn empty() -> Self {
        Self { state: State::empty(), follower: Propagated::empty(), log: Vec::new(), sets: Vec::new(), clock: 1000, values: 0 }
    }

    /// Set up.
    pub(crate) fn new() -> Self {
        let mut world = Self::empty();
        world.apply(Principal::System, None, CommandBody::InitCluster(Box::new(init()))).result.unwrap();
        world
    }

    /// A value id that was not used yet.
    pub(crate) fn value_id(&mut self) -> ValueId {
        self.values += 1;
        ValueId::from_bytes(u128::from(self.values).to_be_bytes())
    }

    /// The data key that is current.
    pub(crate) fn current_dek(&self, account: AccountId) -> Option<DekId> {
        self.state.account(account).unwrap().and_then(|account| account.current_dek)
    }

    pub(crate) fn command(&self, principal: Principal, request: Option<RequestKey>, body: CommandBody) -> Command {
        let origin = Origin { peer: "10.0.0.7:1".into(), request: "trace".into() };
        Command { level: FeatureLevel::new(1), principal, stamp: UnixMillis::new(self.clock), request, origin, body }
    }

    /// Applies a command as a log would deliver it, and has the follower accept what comes of it.
    pub(crate) fn apply(&mut self, principal: Principal, request: Option<RequestKey>, body: CommandBody) -> Applied {
        let command = self.command(principal, request, body);
        let command = Command::decode(&command.encode()).unwrap();
        let index = LogIndex::new(self.log.len() as u64 + 1);
        let applied = self.state.apply(index, &command).unwrap();
        self.log.push(command);
        if let Some(set) = &applied.change_set {
            let sent = ChangeSet::decode(set.encoded().clone()).unwrap();
            self.follower.accept(&sent).unwrap();
            self.sets.push(set.clone());
        }
        self.agree();
        applied
    }

    pub(crate) fn root(&mut self, body: CommandBody) -> Applied {
        self.apply(operator("root"), None, body)
    }

    /// The follower holds what the leader's propagated part holds.
    pub(crate) fn agree(&self) {
        let leader = self.state.propagated();
        assert_eq!(leader.head(), self.follower.head());
        assert_eq!(leader.state_root(), self.follower.state_root());
        assert!(leader.records().eq(self.follower.records()));
    }
}
