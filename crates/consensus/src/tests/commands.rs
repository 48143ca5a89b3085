//! Commands to propose.

use state::{
    Command, CommandBody, InitCluster, NewNode, Origin, Principal, Recipient, RequestKey,
    limits::Quota,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, SettingsRecord},
};
use types::{
    AccountId, AccountName, ClusterId, FeatureLevel, KeyDomain, NodeId, NodeName, PrincipalName, RequestId, RootKeyId, StoreId, StoreName,
    TokenId, UnixMillis,
};

/// The first operator's token, by its hash.
const OPERATOR: [u8; 32] = [7; 32];

fn command(principal: Principal, body: CommandBody) -> Command {
    Command {
        level: FeatureLevel::new(1),
        principal,
        stamp: UnixMillis::new(1_700_000_000_000),
        request: None,
        origin: Origin::default(),
        body,
    }
}

/// Sets up the cluster, with these voters registered.
pub(super) fn init(voters: &[u64]) -> Command {
    let cluster = ClusterId::from_bytes([1; 16]);
    let node = |id: &u64| NewNode {
        id: NodeId::new(*id),
        name: NodeName::new(format!("voter-{id}")).unwrap(),
        role: NodeRole::Control,
        public_key: vec![*id as u8; 32],
        envelope_key: vec![*id as u8; 32],
        labels: Default::default(),
        address: None,
        feature_level: FeatureLevel::new(1),
    };
    let body = CommandBody::InitCluster(Box::new(InitCluster {
        cluster,
        settings: SettingsRecord::defaults(cluster),
        signers: voters.iter().map(|id| MemberKey { node: NodeId::new(*id), key: [*id as u8; 32] }).collect(),
        threshold: 1,
        operator_token: OPERATOR,
        operator_token_id: TokenId::from_bytes([2; 16]),
        operator: PrincipalName::new("root").unwrap(),
        domain: KeyDomain::global(),
        commitment: [3; 32],
        envelopes: vec![(Recipient::Root(RootKeyId::from_bytes([4; 16])), EnvelopeRecord { bytes: vec![5; 64] })],
        nodes: voters.iter().map(node).collect(),
        authority: AuthorityRecord { certificate: vec![1], envelopes: Vec::new() },
        recovery: None,
    }));
    command(Principal::System, body)
}

fn id(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The account that [`create_account`] makes.
pub(super) fn account_id(number: u64) -> AccountId {
    AccountId::from_bytes(id(number))
}

/// Makes an account.
pub(super) fn create_account(number: u64) -> Command {
    let body = CommandBody::CreateAccount { account: account_id(number), name: AccountName::new(format!("account-{number}")).unwrap() };
    command(Principal::Operator { token: OPERATOR }, body)
}

/// Makes an account, under a request id, so that it can be sent again.
pub(super) fn create_account_once(number: u64) -> Command {
    Command {
        request: Some(RequestKey { id: RequestId::from_bytes(id(number)), fingerprint: [number as u8; 32] }),
        ..create_account(number)
    }
}

/// Makes a store in an account.
pub(super) fn create_store(account: u64, number: u64) -> Command {
    let body = CommandBody::CreateStore {
        account: account_id(account),
        store: StoreId::from_bytes(id(number)),
        name: StoreName::new(format!("store-{number}")).unwrap(),
    };
    command(Principal::Operator { token: OPERATOR }, body)
}

/// Gives an account a quota of its own, or takes it away.
pub(super) fn set_quota(account: u64, quota: Option<Quota>) -> Command {
    command(Principal::Operator { token: OPERATOR }, CommandBody::SetQuota { account: account_id(account), quota })
}

/// A control node says which feature level it knows.
pub(super) fn update_level(node: u64, level: u32) -> Command {
    let node = NodeId::new(node);
    command(Principal::Node { node }, CommandBody::UpdateNode { node, address: None, feature_level: FeatureLevel::new(level) })
}

/// Raises the feature level.
pub(super) fn raise_level(to: u32) -> Command {
    command(Principal::Operator { token: OPERATOR }, CommandBody::RaiseFeatureLevel { to: FeatureLevel::new(to) })
}
