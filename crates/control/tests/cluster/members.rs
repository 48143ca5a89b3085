//! Members added, replaced and removed over the public API.

use std::sync::Arc;

use consensus::{AuditLog, AuditOptions, verify_entries};
use futures::StreamExt;
use runtime::RealDisk;
use state::{AuditEntry, AuditOutcome, AuditPrincipal, ChangePhase, MemberChange};
use wire::{ErrorKind, v1};

use crate::harness::{Ground, comment, create, holds, leader, until, wipe, with_store};

#[tokio::test(flavor = "multi_thread")]
async fn node_that_was_not_added_says_so_and_serves_nobody() {
    let ground = Ground::new(2).await;
    let first = ground.start(1).await;
    let waiting = ground.start(2).await;
    let report = || waiting.control.readiness().report();
    until("it says what to do", || report().contains("cinnabar cluster add control-2 --address")).await;
    let error = ground.client(&[2]).cluster_members(v1::ClusterMembersRequest {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.error);
    ground.grow(&ground.client(&[1]), 2).await;
    waiting.ready().await;
    let members = ground.client(&[2]).cluster_members(v1::ClusterMembersRequest {}).await.unwrap();
    assert_eq!(members.members.iter().filter(|member| member.role() == v1::MemberRole::Voter).count(), 2);
    for node in [first, waiting] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_whose_disk_is_lost_is_replaced_by_another() {
    let ground = Ground::new(4).await;
    let mut nodes = ground.three().await;
    let operator = ground.client(&[1, 2]);
    with_store(&operator).await;
    operator.create_secrets(create("BEFORE")).await.unwrap();
    nodes.remove(2).kill();
    wipe(&ground.data(3));
    let new = ground.start(4).await;
    ground.grow(&operator, 4).await;
    operator.cluster_remove(v1::ClusterRemoveRequest { node: "control-3".into(), force: false }).await.unwrap();
    new.ready().await;
    let there = ground.client(&[4]);
    assert!(holds(&there, "BEFORE").await);
    there.create_secrets(create("AFTER")).await.unwrap();
    let status = there.cluster_status(v1::ClusterStatusRequest {}).await.unwrap();
    let names: Vec<_> = status.members.iter().filter_map(|row| row.member.as_ref()).map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["control-1", "control-2", "control-4"]);
    for node in nodes.into_iter().chain([new]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request_and_at_shutdown() {
    let ground = Ground::new(3).await;
    let mut nodes = ground.three().await;
    let operator = ground.client(&[1, 2, 3]);
    let to = leader(&operator).await % 3 + 1;
    let request = v1::ClusterTransferRequest { node: format!("control-{to}") };
    let reply = operator.cluster_transfer(request).await.unwrap();
    assert_eq!(reply.member.unwrap().node_id, to);
    let other = to % 3 + 1;
    nodes.remove(to as usize - 1).stop().await;
    let next = leader(&ground.client(&[other])).await;
    assert_ne!(next, to, "another one leads as soon as the leader has ended");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signers_are_the_members_and_a_revoked_one_stays_out() {
    let ground = Ground::new(3).await;
    ground.let_all_sign().await;
    let nodes = ground.three().await;
    let operator = ground.client(&[1, 2]);
    let remove = || v1::ClusterRemoveRequest { node: "control-3".into(), force: false };
    operator.cluster_remove(remove()).await.unwrap();
    ground.grow(&operator, 3).await;
    operator.cluster_remove(remove()).await.unwrap();
    let member = operator.revoke_node(v1::RevokeNodeRequest { node: "control-2".into(), ..Default::default() }).await.unwrap_err();
    assert!(member.kind() == ErrorKind::Precondition && member.error.message.contains("cluster remove control-2"), "{}", member.error);
    operator.revoke_node(v1::RevokeNodeRequest { node: "control-3".into(), ..Default::default() }).await.unwrap();
    let again = operator.cluster_add(v1::ClusterAddRequest { node: "control-3".into(), address: String::new() }).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Precondition, "{}", again.error);
    for node in nodes {
        node.stop().await;
    }
    let state = ground.state().await;
    let set = |version| -> Vec<u64> {
        let set = state.signer_set_of(version).unwrap().unwrap();
        set.keys.iter().map(|member| member.node.get()).collect()
    };
    // Taken out, added again, taken out for good; the revocation found nothing left to change.
    assert_eq!([1, 2, 3, 4, 5].map(set), [vec![1], vec![1, 2, 3], vec![1, 2], vec![1, 2, 3], vec![1, 2]]);
    assert_eq!(state.settings().unwrap().unwrap().signer_set, 5);
    for version in 1..5 {
        let set = |version| state.signer_set_of(version).unwrap().unwrap();
        feed::verify_successor(crate::harness::CLUSTER, &set(version), &set(version + 1)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_moved_is_found_again() {
    let mut ground = Ground::new(3).await;
    let mut nodes = ground.three().await;
    with_store(&ground.client(&[1])).await;
    nodes.remove(2).stop().await;
    let before = ground.move_away(3);
    let moved = ground.start(3).await;
    moved.ready().await;
    let there = ground.client(&[3]);
    there.create_secrets(create("MOVED")).await.unwrap();
    let known = there.cluster_members(v1::ClusterMembersRequest {}).await.unwrap();
    let address = known.members.iter().find(|member| member.node_id == 3).map(|member| member.address.clone()).unwrap();
    assert_ne!(address, before, "the members know where it is now");
    for node in nodes.into_iter().chain([moved]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_is_far_behind_gets_a_snapshot_and_follows_on() {
    let ground = Ground::new(3).await;
    ground.snapshots_every(100);
    let mut nodes = ground.three().await;
    let operator = ground.client(&[1, 2]);
    with_store(&operator).await;
    nodes.remove(2).stop().await;
    operator.create_secrets(create("FIRST")).await.unwrap();
    let edit = |nth: u32| operator.edit_secret(comment("FIRST", &format!("edit {nth}")));
    let mut edits = futures::stream::iter((0..400).map(edit)).buffer_unordered(16);
    while let Some(edited) = edits.next().await {
        edited.unwrap();
    }
    operator.create_secrets(create("LAST")).await.unwrap();
    let back = ground.start(3).await;
    back.ready().await;
    let there = ground.client(&[3]);
    assert!(holds(&there, "LAST").await);
    there.create_secrets(create("AFTER")).await.unwrap();
    for node in nodes.into_iter().chain([back]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_membership_are_audited_before_and_after_with_who_asked() {
    let ground = Ground::new(3).await;
    let nodes = [ground.start(1).await, ground.start(2).await];
    nodes[0].ready().await;
    let operator = ground.client(&[1]);
    ground.grow(&operator, 2).await;
    nodes[1].ready().await;
    operator.cluster_transfer(v1::ClusterTransferRequest { node: "control-2".into() }).await.unwrap();
    operator.cluster_promote(v1::ClusterPromoteRequest { node: "control-3".into() }).await.unwrap_err();
    operator.cluster_remove(v1::ClusterRemoveRequest { node: "control-2".into(), force: true }).await.unwrap();
    let stranger = ground.client_with(&[1], seal::OperatorToken::generate(&runtime::OsEntropy).text().expose().to_owned());
    stranger.cluster_remove(v1::ClusterRemoveRequest { node: "control-2".into(), force: true }).await.unwrap_err();
    for node in nodes {
        node.stop().await;
    }

    let head = ground.state().await.audit_head().unwrap();
    let log = AuditLog::open(Arc::new(RealDisk), AuditOptions::new(ground.data(1).join("audit"))).unwrap();
    let stored = log.read(0..u64::MAX, usize::MAX).unwrap();
    verify_entries(None, stored.clone(), Some((head.sequence, head.hash))).unwrap();
    let entries = stored.iter().map(|(_, entry)| AuditEntry::decode(entry).unwrap());
    let told = entries.filter_map(|entry| {
        let (change, phase) = entry.target.member?;
        assert!(matches!(&entry.principal, AuditPrincipal::Operator { name, .. } if name.to_string() == "first-operator"));
        assert!(matches!(entry.outcome, AuditOutcome::Done { .. }) && !entry.origin.peer.is_empty());
        let phase = match phase {
            ChangePhase::Asked => "asked",
            ChangePhase::Done => "done",
            ChangePhase::Failed { reason } => {
                assert!(!reason.is_empty());
                "failed"
            }
        };
        let change = match change {
            MemberChange::Add { address } => {
                assert!(address.starts_with("127.0.0.1:"));
                "add"
            }
            MemberChange::Promote => "promote",
            MemberChange::Remove { force } => {
                assert!(force);
                "remove"
            }
            MemberChange::Transfer => "transfer",
        };
        Some((entry.target.node.unwrap().get(), change, phase))
    });
    let expected = [(2, "add", "done"), (2, "promote", "done"), (2, "transfer", "done"), (3, "promote", "failed"), (2, "remove", "done")];
    let expected: Vec<_> = expected.into_iter().flat_map(|(node, change, end)| [(node, change, "asked"), (node, change, end)]).collect();
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
