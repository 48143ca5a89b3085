//! The operator of a run: founds the cluster, changes its members one step after the other, rotates data keys, revokes tokens and edges.
//!
//! What the faults leave to be done about the members is a list of steps. Each is tried until it is done, at whichever voter answers,
//! as a person would who reads the errors; so a change goes on after the voter that made it has died.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consensus::ChangeError;
use feed::sign_signer_set;
use openraft::AsyncRuntime;
use seams::Entropy;
use state::{
    CommandBody, Grant, GrantScope, InitCluster, NewNode, NewSecret, NewSignerSet, RefusalKind, Role,
    limits::Quota,
    record::{AuthorityRecord, MemberKey, NodeRole, SettingsRecord, SignerSetRecord},
};
use types::{Comment, NodeId, SecretId, SecretName, StoreId, TokenId, ValueId};

use super::{
    World,
    keys::{ACCOUNT, domain},
    load::{Client, Expect, TOKEN},
    oracle::{Fate, Wish},
    runtime::{NodeRuntime, lock},
    voter::{CLUSTER, Change, Voter},
};

/// The operator's own store.
const STORE: StoreId = StoreId::from_bytes([0x0f; 16]);

/// One step of a change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Start(NodeId),
    Register(NodeId),
    Sign(NodeId),
    Change(Change),
    /// A voter that was removed ends.
    End(NodeId),
}

/// The signer set that a run begins with.
pub(super) fn first_signers(voters: &[Arc<Voter>]) -> SignerSetRecord {
    let keys = voters.iter().map(|voter| MemberKey { node: voter.node, key: voter.signing_key().public() }).collect();
    SignerSetRecord { version: 1, threshold: 1, keys, signatures: Vec::new() }
}

fn new_node(id: NodeId, role: NodeRole) -> NewNode {
    NewNode {
        id,
        name: format!("node-{id}").parse().expect("a name"),
        role,
        public_key: vec![id.get() as u8; 32],
        envelope_key: vec![id.get() as u8; 32],
        labels: BTreeMap::new(),
        address: None,
        feature_level: state::FEATURE_LEVEL_MAX,
    }
}

/// Sets up cluster, account and data key: what every writer needs. Goes on until it is done.
pub(super) async fn found(world: &World, client: &Client, offline_max: Option<Duration>) {
    let voters = world.fleet.alive();
    let settings = SettingsRecord {
        quota: Quota { secrets: 100_000, stores: 100, ..Quota::default() },
        edge_offline_max_ms: offline_max.map(|most| most.as_millis() as u64),
        ..SettingsRecord::defaults(CLUSTER)
    };
    let control = voters.iter().map(|voter| new_node(voter.node, NodeRole::Control));
    let edges = world.edges.iter().map(|edge| new_node(edge.node, NodeRole::Edge));
    let init = InitCluster {
        cluster: CLUSTER,
        settings,
        signers: first_signers(&voters).keys,
        threshold: 1,
        operator_token: TOKEN,
        operator_token_id: TokenId::from_bytes([0x71; 16]),
        operator: "tester".parse().expect("a name"),
        domain: domain(),
        commitment: client.shared.keys.commitment,
        envelopes: Vec::new(),
        nodes: control.chain(edges).collect(),
        authority: AuthorityRecord { certificate: vec![0xca; 8], envelopes: Vec::new() },
        recovery: None,
    };
    client.insist(CommandBody::InitCluster(Box::new(init))).await;
    client.insist(CommandBody::CreateAccount { account: ACCOUNT, name: "acme".parse().expect("a name") }).await;
    let (minted, dek) = client.shared.keys.mint();
    client.insist(CommandBody::MintDek { account: ACCOUNT, dek, grace: true }).await;
    client.shared.keys.adopt(minted);
    client.insist(CommandBody::CreateStore { account: ACCOUNT, store: STORE, name: "operators".parse().expect("a name") }).await;
}

/// Does what is to be done, until the clients are told to stop and nothing is left.
pub(super) async fn work(world: &World, client: Client) {
    while !client.shared.stopped() || !lock(&world.todo).is_empty() {
        client.pause(Duration::from_millis(120)).await;
        let step = lock(&world.todo).front().copied();
        let revoke = lock(&world.revoke).take();
        if let Some(step) = step {
            if take(world, &client, step).await {
                lock(&world.todo).pop_front();
                client.shared.history.event(format_args!("operator has done {step:?}"));
                client.shared.history.count("steps of changes of members");
            }
        } else if let Some(edge) = revoke {
            revoke_edge(&client, edge).await;
        } else if !client.shared.stopped() {
            match client.draw(30) {
                0 => rotate(&client, false).await,
                1 => rotate(&client, true).await,
                2 | 3 => try_revoked_token(&client).await,
                _ => {}
            }
        }
    }
}

/// One try of a step; whether it is done.
async fn take(world: &World, client: &Client, step: Step) -> bool {
    match step {
        Step::Start(node) => {
            let Some(voter) = world.fleet.get(node) else { return true };
            world.start_voter(&voter).await;
            true
        }
        Step::Register(node) => {
            client.insist(CommandBody::RegisterNode { node: new_node(node, NodeRole::Control) }).await;
            true
        }
        Step::Sign(node) => sign(world, client, node).await,
        Step::Change(change) => change_members(world, client, change).await,
        Step::End(node) => {
            if let Some(voter) = world.fleet.get(node) {
                voter.stop().await;
                voter.leave();
            }
            true
        }
    }
}

/// The next signer set has this voter too.
async fn sign(world: &World, client: &Client, node: NodeId) -> bool {
    let Some(voter) = world.fleet.somebody(client.draw(u64::MAX)) else { return false };
    let (Some(state), Some(new)) = (voter.read().await, world.fleet.get(node)) else { return false };
    let Ok(Some(set)) = state.propagated().signer_set() else { return false };
    let Some(signer) = set.keys.first().and_then(|key| world.fleet.get(key.node)) else { return false };
    let mut keys = set.keys.clone();
    keys.push(MemberKey { node, key: new.signing_key().public() });
    keys.sort_by_key(|key| key.node);
    let next = SignerSetRecord { version: set.version + 1, threshold: 1, keys, signatures: Vec::new() };
    let signatures = vec![sign_signer_set(&signer.signing_key(), signer.node, CLUSTER, &next)];
    let set = NewSignerSet { version: next.version, threshold: 1, keys: next.keys, signatures };
    client.insist(CommandBody::SetSignerSet { set }).await;
    true
}

async fn change_members(world: &World, client: &Client, change: Change) -> bool {
    let Some(voter) = world.fleet.somebody(client.draw(u64::MAX)) else { return false };
    let Some(outcome) = voter.change(change).await else { return false };
    client.shared.history.event(format_args!("{change:?} at voter {}: {outcome:?}", voter.node));
    match outcome {
        Ok(()) => true,
        // What was lost before may have been done.
        Err(ChangeError::Refused { .. }) => voter.status().is_some_and(|status| match change {
            Change::Remove(node) => status.voters.iter().chain(&status.learners).all(|(member, _)| *member != node),
            Change::Promote(node) => status.voters.iter().any(|(member, _)| *member == node),
            Change::Add(_) => false,
        }),
        Err(_) => false,
    }
}

/// A node's revocation ends the use of all data keys, so the next one follows.
async fn revoke_edge(client: &Client, edge: NodeId) {
    client.insist(CommandBody::RevokeNode { node: edge, epochs: Vec::new(), signer_set: None }).await;
    client.shared.history.count("edges revoked");
    client.shared.oracle.edge_revoked(edge);
    rotate(client, true).await;
}

/// Another data key. Without grace, nothing more is taken that is sealed under the one before.
async fn rotate(client: &Client, grace: bool) {
    let (minted, dek) = client.shared.keys.mint();
    client.insist(CommandBody::MintDek { account: ACCOUNT, dek, grace }).await;
    client.shared.keys.adopt(minted);
    client.shared.history.count("data keys rotated");
    if grace {
        return;
    }
    let (secret, value) = (SecretId::from_bytes(client.entropy.id()), ValueId::from_bytes(client.entropy.id()));
    let name: SecretName = "LATE".parse().expect("a name");
    let Some(sealed) = client.shared.keys.seal_under_the_last(value, client.value(STORE, secret, &name)) else { return };
    let scopes = std::iter::once("workers".parse().expect("a scope")).collect();
    let item = NewSecret { id: secret, name, scopes, comment: Comment::new("").expect("a comment"), value: sealed };
    let body = CommandBody::CreateSecrets { account: ACCOUNT, store: STORE, items: vec![item], new_dek: None };
    client.submit(Wish::Control, body, Expect::Refused(RefusalKind::Reseal)).await;
}

/// An operator's token is made and revoked; nothing that is sent with it afterwards may be done, anywhere.
async fn try_revoked_token(client: &Client) {
    let (token, mut hash) = (TokenId::from_bytes(client.entropy.id()), [0; 32]);
    client.entropy.fill(&mut hash);
    let grants = vec![Grant { role: Role::Admin, scope: GrantScope::Account(ACCOUNT) }];
    let body = CommandBody::CreateOperatorToken { token, hash, name: "late".parse().expect("a name"), grants, expires: None };
    if !matches!(client.submit(Wish::Control, body, Expect::Done).await, Fate::Acknowledged(..)) {
        return;
    }
    let revoked = client.submit(Wish::Control, CommandBody::RevokeOperatorToken { token }, Expect::Done).await;
    if !matches!(revoked, Fate::Acknowledged(..)) {
        return;
    }
    client.shared.history.count("operators' tokens revoked");
    let name = format!("late-{}", client.draw(u64::MAX)).parse().expect("a name");
    let body = CommandBody::CreateStore { account: ACCOUNT, store: StoreId::from_bytes(client.entropy.id()), name };
    client.with_token(hash).submit(Wish::Control, body, Expect::Refused(RefusalKind::Unauthenticated)).await;
    NodeRuntime::sleep(Duration::from_millis(1)).await;
}
