//! The calls of gRPC, and under which row of the table each stands.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use prost::Message;
use state::Operation as O;
use tests::process::Fleet;
use wire::v1;

use super::{Place, Rule, TAKEN, grant};

/// What is made anew before each call, because an allowed one uses it up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fresh {
    Nothing,
    Binding,
    Token,
    Deleted,
}

pub(super) struct Call {
    /// `Service.Call`.
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) fresh: Fresh,
    /// The message: for a place, and what is fresh.
    pub(super) message: fn(&Place, &str) -> Vec<u8>,
}

impl Call {
    pub(super) fn path(&self) -> String {
        format!("/cinnabar.v1.{}", self.name.replace('.', "/"))
    }
}

const fn call(name: &'static str, rule: Rule, message: fn(&Place, &str) -> Vec<u8>) -> Call {
    Call { name, rule, fresh: Fresh::Nothing, message }
}

const fn using_up(fresh: Fresh, name: &'static str, rule: Rule, message: fn(&Place, &str) -> Vec<u8>) -> Call {
    Call { name, rule, fresh, message }
}

/// Lookups are consumers' business, at edges: tests/tests/process/consumers.rs.
pub(super) const ELSEWHERE: [&str; 4] = ["Lookup.Get", "Lookup.GetMany", "Lookup.Watch", "Lookup.Stream"];

/// The name of nobody and nothing.
const NONE: &str = "nobody-of-that-name";

/// The calls that the protocol declares.
pub(super) fn declared() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap().file;
    let public = files.iter().filter(|file| file.package() == "cinnabar.v1").flat_map(|file| &file.service);
    public.flat_map(|service| service.method.iter().map(|method| format!("{}.{}", service.name(), method.name()))).collect()
}

/// Makes what a call uses up: its name or id.
pub(super) async fn fresh(fleet: &Fleet, place: &Place, what: Fresh) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    match what {
        Fresh::Nothing => String::new(),
        Fresh::Binding => {
            let name = format!("FRESH_{}", MADE.fetch_add(1, Ordering::Relaxed));
            place.bind(fleet, &name).await;
            name
        }
        Fresh::Deleted => place.delete_one(fleet, &format!("FRESH_{}", MADE.fetch_add(1, Ordering::Relaxed))).await,
        Fresh::Token => place.make_token(fleet).await,
    }
}

pub(super) fn all() -> Vec<Call> {
    [accounts(), secrets(), consumers(), people(), cluster()].into_iter().flatten().collect()
}

fn accounts() -> Vec<Call> {
    vec![
        call("Accounts.Create", Rule::Cluster(O::ManageAccounts), |_, _| {
            v1::CreateAccountRequest { name: "own".into(), ..Default::default() }.encode_to_vec()
        }),
        call("Accounts.List", Rule::Known, |_, _| v1::ListAccountsRequest::default().encode_to_vec()),
        call("Accounts.Show", Rule::Account(O::ReadMetadata), |place, _| {
            v1::ShowAccountRequest { account: place.account.clone() }.encode_to_vec()
        }),
        call("Accounts.ShowQuota", Rule::Account(O::ReadMetadata), |place, _| {
            v1::ShowQuotaRequest { account: place.account.clone() }.encode_to_vec()
        }),
        call("Accounts.SetQuota", Rule::Over(O::SetQuota), |place, _| {
            v1::SetQuotaRequest { account: place.account.clone(), secrets_max: Some(100), ..Default::default() }.encode_to_vec()
        }),
        call("Stores.Create", Rule::Account(O::ManageStores), |place, _| {
            v1::CreateStoreRequest { account: place.account.clone(), name: "store".into(), ..Default::default() }.encode_to_vec()
        }),
        call("Stores.List", Rule::Account(O::ReadMetadata), |place, _| {
            v1::ListStoresRequest { account: place.account.clone(), page: None }.encode_to_vec()
        }),
        call("Stores.Show", Rule::Account(O::ReadMetadata), |place, _| v1::ShowStoreRequest { store: place.store() }.encode_to_vec()),
        // It holds secrets.
        call("Stores.Delete", Rule::Account(O::ManageStores), |place, _| {
            v1::DeleteStoreRequest { store: place.store(), ..Default::default() }.encode_to_vec()
        }),
    ]
}

fn secrets() -> Vec<Call> {
    let (see, change) = (Rule::Account(O::ReadMetadata), Rule::Account(O::ManageSecrets));
    vec![
        call("Secrets.Create", change, |place, _| {
            let (name, value, scopes) = (TAKEN.into(), b"v".to_vec(), vec!["workers".into()]);
            let new = v1::NewSecret { name, value, scopes, ..Default::default() };
            v1::CreateSecretsRequest { store: place.store(), secrets: vec![new], ..Default::default() }.encode_to_vec()
        }),
        call("Secrets.SetValue", change, |place, _| {
            let (secret, value) = (place.secret(), b"other".to_vec());
            v1::SetValueRequest { secret, value, expect_version: Some(999), ..Default::default() }.encode_to_vec()
        }),
        call("Secrets.Edit", change, |place, _| {
            v1::EditSecretRequest { secret: place.secret(), comment: Some("the same".into()), ..Default::default() }.encode_to_vec()
        }),
        call("Secrets.List", see, |place, _| v1::ListSecretsRequest { store: place.store(), page: None }.encode_to_vec()),
        call("Secrets.Show", see, |place, _| v1::ShowSecretRequest { secret: place.secret() }.encode_to_vec()),
        call("Secrets.Versions", see, |place, _| v1::ListVersionsRequest { secret: place.secret() }.encode_to_vec()),
        // It is bound.
        call("Secrets.Delete", change, |place, _| {
            v1::DeleteSecretsRequest { store: place.store(), secrets: vec![place.secret.clone()], ..Default::default() }.encode_to_vec()
        }),
        call("Secrets.ListDeleted", see, |place, _| v1::ListDeletedSecretsRequest { store: place.store(), page: None }.encode_to_vec()),
        using_up(Fresh::Deleted, "Secrets.Undelete", change, |place, fresh| {
            let secret = place.secret().map(|secret| v1::SecretRef { secret: fresh.into(), ..secret });
            v1::UndeleteSecretRequest { secret, ..Default::default() }.encode_to_vec()
        }),
        call("Secrets.Destroy", change, |place, _| {
            v1::DestroySecretRequest { secret: place.secret(), version: 999, ..Default::default() }.encode_to_vec()
        }),
        call("Secrets.Duplicate", change, |place, _| {
            v1::DuplicateSecretRequest { source: place.secret(), name: TAKEN.into(), ..Default::default() }.encode_to_vec()
        }),
        // There is no candidate.
        call("Secrets.MovePointer", change, |place, _| {
            let promote = v1::PointerMove::Promote.into();
            v1::MovePointerRequest { secret: place.secret(), r#move: promote, ..Default::default() }.encode_to_vec()
        }),
    ]
}

fn consumers() -> Vec<Call> {
    let (see, manage) = (Rule::Account(O::ReadMetadata), Rule::Account(O::ManageConsumers));
    vec![
        call("Bindings.Bind", Rule::Account(O::Bind), |place, _| {
            let target = place.secret().map(v1::bind_request::Target::Secret);
            v1::BindRequest { consumer: place.consumer(), name: place.binding.into(), target, ..Default::default() }.encode_to_vec()
        }),
        using_up(Fresh::Binding, "Bindings.Unbind", Rule::Account(O::Bind), |place, fresh| {
            v1::UnbindRequest { consumer: place.consumer(), name: fresh.into(), ..Default::default() }.encode_to_vec()
        }),
        call("Bindings.List", see, |place, _| {
            v1::ListBindingsRequest { account: place.account.clone(), ..Default::default() }.encode_to_vec()
        }),
        call("Consumers.Create", manage, |place, _| {
            v1::CreateConsumerRequest { consumer: place.consumer(), ..Default::default() }.encode_to_vec()
        }),
        call("Consumers.List", see, |place, _| v1::ListConsumersRequest { account: place.account.clone(), page: None }.encode_to_vec()),
        call("Consumers.Delete", manage, |place, _| {
            let consumer = place.consumer().map(|consumer| v1::ConsumerRef { name: NONE.into(), ..consumer });
            v1::DeleteConsumerRequest { consumer, ..Default::default() }.encode_to_vec()
        }),
        call("Consumers.CreateToken", manage, |place, _| {
            let consumer = place.consumer().map(|consumer| v1::ConsumerRef { name: NONE.into(), ..consumer });
            v1::CreateConsumerTokenRequest { consumer, ..Default::default() }.encode_to_vec()
        }),
        call("Consumers.RollToken", manage, |place, _| {
            v1::RollConsumerTokenRequest { consumer: place.consumer(), token_id: "0".repeat(32), ..Default::default() }.encode_to_vec()
        }),
        call("Consumers.RevokeToken", manage, |place, _| {
            v1::RevokeConsumerTokenRequest { consumer: place.consumer(), token_id: "0".repeat(32), ..Default::default() }.encode_to_vec()
        }),
        call("Consumers.ListTokens", see, |place, _| v1::ListConsumerTokensRequest { consumer: place.consumer() }.encode_to_vec()),
        call("Receipts.WaitLive", Rule::Known, |_, _| {
            let position = Some(v1::Position { generation: 1, revision: 1 });
            v1::WaitLiveRequest { position, deadline_ms: 1000 }.encode_to_vec()
        }),
    ]
}

fn people() -> Vec<Call> {
    let (see, manage) = (Rule::Account(O::ReadTokens), Rule::Account(O::ManageTokens));
    vec![
        call("Members.Create", manage, |place, _| {
            v1::CreateMemberRequest { member: place.member(place.member), ..Default::default() }.encode_to_vec()
        }),
        call("Members.List", Rule::Within(O::ReadTokens), |place, _| {
            v1::ListMembersRequest { account: place.account.clone(), page: None }.encode_to_vec()
        }),
        call("Members.Show", see, |place, _| v1::ShowMemberRequest { member: place.member(place.member) }.encode_to_vec()),
        call("Members.Grant", manage, |place, _| {
            let role = Some(grant("reporter", &place.account));
            v1::GrantRoleRequest { member: place.member(place.member), role, ..Default::default() }.encode_to_vec()
        }),
        call("Members.Revoke", manage, |place, _| {
            let role = Some(grant("deployer", &place.account));
            v1::RevokeRoleRequest { member: place.member(place.member), role, ..Default::default() }.encode_to_vec()
        }),
        call("Members.Delete", manage, |place, _| {
            v1::DeleteMemberRequest { member: place.member(NONE), ..Default::default() }.encode_to_vec()
        }),
        call("Tokens.Create", manage, |place, _| {
            v1::CreateTokenRequest { member: place.member(NONE), ..Default::default() }.encode_to_vec()
        }),
        call("Tokens.List", Rule::Somewhere(O::ReadTokens), |_, _| v1::ListTokensRequest::default().encode_to_vec()),
        using_up(Fresh::Token, "Tokens.Roll", Rule::Unseen(O::ReadTokens, O::ManageTokens), |_, fresh| {
            v1::RollTokenRequest { token_id: fresh.into(), keep_id: true, ..Default::default() }.encode_to_vec()
        }),
        using_up(Fresh::Token, "Tokens.Revoke", Rule::Unseen(O::ReadTokens, O::ManageTokens), |_, fresh| {
            v1::RevokeTokenRequest { token_id: fresh.into(), ..Default::default() }.encode_to_vec()
        }),
        call("Audit.List", Rule::Somewhere(O::ReadAudit), |_, _| v1::ListAuditRequest::default().encode_to_vec()),
        call("Audit.Export", Rule::Somewhere(O::ReadAudit), |_, _| v1::ExportAuditRequest::default().encode_to_vec()),
        call("Status.Show", Rule::Known, |_, _| v1::ShowStatusRequest::default().encode_to_vec()),
        call("Status.WhoAmI", Rule::Known, |_, _| v1::WhoAmIRequest::default().encode_to_vec()),
    ]
}

fn cluster() -> Vec<Call> {
    let (members, nodes, see) = (Rule::Cluster(O::ManageMembership), Rule::Cluster(O::ManageJoinTokens), Rule::Cluster(O::ReadMetadata));
    let look = Rule::Cluster(O::ReadCluster);
    vec![
        call("Cluster.Members", look, |_, _| v1::ClusterMembersRequest::default().encode_to_vec()),
        call("Cluster.Status", look, |_, _| v1::ClusterStatusRequest::default().encode_to_vec()),
        call("Cluster.Add", members, |_, _| v1::ClusterAddRequest { node: NONE.into(), ..Default::default() }.encode_to_vec()),
        call("Cluster.Promote", members, |_, _| v1::ClusterPromoteRequest { node: NONE.into() }.encode_to_vec()),
        call("Cluster.Remove", members, |_, _| v1::ClusterRemoveRequest { node: NONE.into(), force: false }.encode_to_vec()),
        call("Cluster.Transfer", members, |_, _| v1::ClusterTransferRequest { node: NONE.into() }.encode_to_vec()),
        call("Cluster.ShowAuthority", Rule::Known, |_, _| v1::ShowAuthorityRequest::default().encode_to_vec()),
        call("Cluster.RotateAuthority", Rule::Cluster(O::ManageAuthority), |_, _| {
            v1::RotateAuthorityRequest { keep_ms: Some(u64::MAX), ..Default::default() }.encode_to_vec()
        }),
        call("Cluster.FinishAuthority", Rule::Cluster(O::ManageAuthority), |_, _| v1::FinishAuthorityRequest::default().encode_to_vec()),
        call("Fleet.List", see, |_, _| v1::ListFleetRequest::default().encode_to_vec()),
        call("Levels.Show", see, |_, _| v1::ShowLevelRequest::default().encode_to_vec()),
        call("Levels.Raise", Rule::Cluster(O::RaiseLevel), |_, _| {
            v1::RaiseLevelRequest { to: Some(1), ..Default::default() }.encode_to_vec()
        }),
        call("Nodes.List", look, |_, _| v1::ListNodesRequest::default().encode_to_vec()),
        call("Nodes.CreateJoinToken", nodes, |_, _| {
            v1::CreateJoinTokenRequest { role: v1::NodeRole::Edge.into(), uses: u32::MAX, ..Default::default() }.encode_to_vec()
        }),
        call("Nodes.ListJoinTokens", look, |_, _| v1::ListJoinTokensRequest::default().encode_to_vec()),
        call("Nodes.RevokeJoinToken", nodes, |_, _| {
            v1::RevokeJoinTokenRequest { token_id: "0".repeat(32), ..Default::default() }.encode_to_vec()
        }),
        call("Nodes.Revoke", Rule::Cluster(O::RevokeNode), |_, _| {
            v1::RevokeNodeRequest { node: NONE.into(), ..Default::default() }.encode_to_vec()
        }),
        call("Nodes.Exposure", look, |_, _| v1::ExposureRequest { node: NONE.into(), page: None }.encode_to_vec()),
        call("Snapshots.Save", Rule::Cluster(O::SaveSnapshots), |_, _| v1::SaveSnapshotRequest {}.encode_to_vec()),
    ]
}
