//! A state with real keys, made by commands.

use feed::SigningKey;
use seal::{NodeKeyPair, RecoveryKey};
use seams::sim::SimEntropy;
use state::{
    Command, CommandBody, InitCluster, NewDek, NewNode, NewSecret, Origin, Principal, SealedInput, State,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, RecoveryRecord, SettingsRecord, SignerSetRecord, WrappedDek},
};
use types::{
    AccountId, ClusterId, DekId, KekEpoch, KeyDomain, LogIndex, NodeId, SealedValue, SecretId, StoreId, TokenId, UnixMillis, ValueId,
};

use super::super::{Draft, Identity};

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
pub(crate) const TOKEN_HASH: [u8; 32] = [0x77; 32];
const NODE: NodeId = NodeId::new(1);
const ACCOUNT: AccountId = AccountId::from_bytes([2; 16]);
const STORE: StoreId = StoreId::from_bytes([3; 16]);

pub(crate) struct World {
    pub(crate) state: State,
    pub(super) node_key: NodeKeyPair,
    pub(super) recovery: RecoveryKey,
    pub(super) signing: SigningKey,
}

impl World {
    /// A cluster of one control node with so many secrets of 2 KiB.
    pub(crate) fn new(secrets: u16) -> Self {
        let entropy = SimEntropy::new(11);
        let (node_key, recovery) = (NodeKeyPair::generate(&entropy).unwrap(), RecoveryKey::generate(&entropy).unwrap());
        let mut world = Self { state: State::empty(), node_key, recovery, signing: SigningKey::generate(&entropy) };
        let first_set = world.first_set();
        world.found(first_set);
        world.fill(secrets);
        world
    }

    /// What somebody makes up who knows this cluster's public keys and has a signing key of their own. `first_set` is what they put in
    /// place of the recovery key's signature, which they cannot make.
    pub(super) fn forged(&self, first_set: Vec<u8>) -> Self {
        let entropy = SimEntropy::new(12);
        let recovery = RecoveryKey::parse(self.recovery.text().expose()).unwrap();
        let (node_key, signing) = (NodeKeyPair::generate(&entropy).unwrap(), SigningKey::generate(&entropy));
        let mut forged = Self { state: State::empty(), node_key, recovery, signing };
        forged.found(first_set);
        forged.fill(1);
        forged
    }

    /// The recovery key's signature over the first signer set, as `cluster init` makes it.
    pub(super) fn first_set(&self) -> Vec<u8> {
        self.recovery.sign(&self.set().signing_bytes(CLUSTER)).to_vec()
    }

    pub(super) fn anchor(&self) -> feed::Anchor {
        feed::Anchor::of(CLUSTER, &self.set())
    }

    fn set(&self) -> SignerSetRecord {
        SignerSetRecord {
            version: 1,
            threshold: 1,
            keys: vec![MemberKey { node: NODE, key: self.signing.public() }],
            signatures: Vec::new(),
        }
    }

    fn fill(&mut self, secrets: u16) {
        let world = self;
        let operator = Principal::Operator { token: TOKEN_HASH };
        world.apply(operator, CommandBody::CreateAccount { account: ACCOUNT, name: "account".parse().unwrap() });
        world.apply(operator, CommandBody::CreateStore { account: ACCOUNT, store: STORE, name: "store".parse().unwrap() });
        let quota = state::limits::Quota { secrets: 1000, ..Default::default() };
        world.apply(operator, CommandBody::SetQuota { account: ACCOUNT, quota: Some(quota) });
        for number in 0..secrets {
            world.secret(operator, number);
        }
    }

    fn found(&mut self, first_set: Vec<u8>) {
        let node = NewNode {
            id: NODE,
            name: "control-1".parse().unwrap(),
            role: NodeRole::Control,
            public_key: vec![5; 44],
            envelope_key: self.node_key.public().encode(),
            labels: [].into(),
            address: Some("control-1:7400".to_owned()),
            feature_level: types::FeatureLevel::new(1),
        };
        let public = self.recovery.public();
        let init = InitCluster {
            cluster: CLUSTER,
            settings: SettingsRecord::defaults(CLUSTER),
            signers: vec![MemberKey { node: NODE, key: self.signing.public() }],
            threshold: 1,
            operator_token: TOKEN_HASH,
            operator_token_id: TokenId::from_bytes([6; 16]),
            operator: "first-operator".parse().unwrap(),
            domain: KeyDomain::global(),
            commitment: [7; 32],
            envelopes: vec![(state::Recipient::Node(NODE), EnvelopeRecord { bytes: vec![1; 40] })],
            nodes: vec![node],
            authority: AuthorityRecord { certificate: vec![8; 60], envelopes: Vec::new() },
            recovery: Some(RecoveryRecord { signing_key: public.signing, envelope_key: public.opening.encode(), first_set }),
        };
        self.apply(Principal::System, CommandBody::InitCluster(Box::new(init)));
    }

    fn secret(&mut self, operator: Principal, number: u16) {
        let id = |kind: u8| {
            let mut bytes = [kind; 16];
            bytes[14..].copy_from_slice(&number.to_be_bytes());
            bytes
        };
        let dek = DekId::from_bytes([9; 16]);
        let mut sealed = vec![0xab; 2048 + 29];
        sealed[0] = SealedValue::FORMAT;
        let value = SealedInput {
            value_id: ValueId::from_bytes(id(4)),
            dek,
            domain: KeyDomain::global(),
            sealed: SealedValue::from_bytes(sealed).unwrap(),
        };
        let wrap = WrappedDek { domain: KeyDomain::global(), epoch: KekEpoch::new(1), bytes: vec![3; 64] };
        let item = NewSecret {
            id: SecretId::from_bytes(id(5)),
            name: format!("SECRET-NAME-{number}").parse().unwrap(),
            scopes: ["workers".parse::<types::Scope>().unwrap()].into_iter().collect(),
            comment: Default::default(),
            value,
        };
        let new_dek = (number == 0).then(|| NewDek { id: dek, wraps: vec![wrap], replaces: None });
        self.apply(operator, CommandBody::CreateSecrets { account: ACCOUNT, store: STORE, items: vec![item], new_dek });
    }

    pub(crate) fn apply(&mut self, principal: Principal, body: CommandBody) {
        let origin = Origin { peer: "test".into(), request: "test".into() };
        let command = Command {
            level: types::FeatureLevel::new(1),
            principal,
            stamp: UnixMillis::new(1_763_826_300_000),
            request: None,
            origin,
            body,
        };
        let index = LogIndex::new(self.state.applied_index().get() + 1);
        self.state.apply(index, &command).unwrap().result.unwrap();
    }

    /// The archive that the node saves.
    pub(super) fn archive(&self) -> Vec<u8> {
        self.archive_signed(&self.signing, 1)
    }

    /// The archive, signed by a key as of a version of the signer set.
    pub(super) fn archive_signed(&self, key: &SigningKey, set: u32) -> Vec<u8> {
        let draft = self.draft(key, set);
        let about = draft.bytes_about();
        let mut bytes = Vec::new();
        let length = draft.write(&mut |part| {
            bytes.extend_from_slice(&part);
            Ok(())
        });
        assert_eq!(length.unwrap(), bytes.len() as u64);
        assert!(about.abs_diff(bytes.len() as u64) < 1000, "{about} is about {}", bytes.len());
        bytes
    }

    pub(super) fn draft(&self, key: &SigningKey, set: u32) -> Draft {
        let identity = Identity { node: NODE, now: UnixMillis::new(1_763_826_300_000) };
        Draft::of(self.state.clone(), identity, &SimEntropy::new(5), &|statement| Some(key.sign(statement, NODE, set))).unwrap()
    }
}
