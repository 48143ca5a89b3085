//! Members with roles, and the tokens that stand for them.

use client::Client;
use wire::{ErrorKind, v1};

use crate::harness::{ACCOUNT, Ground, Node, create, create_store, item, refused, show, with_store};

fn role(role: &str, account: &str, store: &str) -> v1::TokenGrant {
    v1::TokenGrant { role: role.into(), account: account.into(), store: store.into() }
}

fn member(account: &str, name: &str) -> Option<v1::MemberRef> {
    Some(v1::MemberRef { account: account.into(), name: name.into() })
}

async fn make(client: &Client, who: Option<v1::MemberRef>, roles: &[v1::TokenGrant]) -> v1::RoleMember {
    let request = v1::CreateMemberRequest { member: who, roles: roles.to_vec(), ..Default::default() };
    client.create_member(request).await.unwrap().member.unwrap()
}

fn token_of(who: Option<v1::MemberRef>, permission: &str, reach: &[(&str, &str)]) -> v1::CreateTokenRequest {
    let reach = reach.iter().map(|(account, store)| v1::TokenReach { account: (*account).into(), store: (*store).into() });
    v1::CreateTokenRequest { member: who, permission: permission.into(), reach: reach.collect(), ..Default::default() }
}

async fn holder(node: &Node<'_>, by: &Client, request: v1::CreateTokenRequest) -> (String, Client) {
    let made = by.create_token(request).await.unwrap();
    (made.token_id, node.client(&made.token))
}

fn grant(who: Option<v1::MemberRef>, role: v1::TokenGrant) -> v1::GrantRoleRequest {
    v1::GrantRoleRequest { member: who, role: Some(role), ..Default::default() }
}

fn names(list: &v1::ListMembersReply) -> Vec<&str> {
    list.members.iter().map(|member| member.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_of_a_member_are_those_of_all_its_tokens_as_far_as_permission_and_reach_go() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    create_store(&operator, "side").await;
    let ann = member("", "ann@example.com");
    let made = make(&operator, ann.clone(), &[role("reporter", ACCOUNT, "")]).await;
    assert_eq!((made.account_id.as_str(), made.roles.len()), ("", 1));
    let (_, edits) = holder(&node, &operator, token_of(ann.clone(), "edit", &[])).await;
    let (_, reads) = holder(&node, &operator, token_of(ann.clone(), "read", &[])).await;
    let (narrow, side) = holder(&node, &operator, token_of(ann.clone(), "", &[(ACCOUNT, "side")])).await;
    refused(edits.create_secrets(create(vec![item("A", "a")])).await, ErrorKind::Denied);

    // One more role: all tokens have it at once, as far as they go.
    operator.grant_role(grant(ann.clone(), role("admin", ACCOUNT, ""))).await.unwrap();
    edits.create_secrets(create(vec![item("A", "a")])).await.unwrap();
    let message = refused(reads.create_secrets(create(vec![item("B", "b")])).await, ErrorKind::Denied);
    assert!(message.contains("this token is for reading, so it may not manage secrets"), "{message}");
    show(&reads, "A").await.unwrap();
    refused(show(&side, "A").await, ErrorKind::NotFound);
    refused(side.create_secrets(create(vec![item("B", "b")])).await, ErrorKind::NotFound);
    let in_side = v1::CreateSecretsRequest { store: crate::harness::store("side"), ..create(vec![item("B", "b")]) };
    side.create_secrets(in_side).await.unwrap();
    let who = reads.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    assert_eq!((who.name.as_str(), who.permission.as_str()), ("ann@example.com", "read"));

    let listed = operator.list_tokens(v1::ListTokensRequest::default()).await.unwrap().tokens;
    let one = listed.iter().find(|token| token.token_id == narrow).unwrap();
    assert_eq!(one.member, ann);
    assert_eq!((one.permission.as_str(), one.reach.len(), one.grants.len()), ("edit", 1, 2));
    assert!(one.grants.iter().all(|grant| !grant.store.is_empty()), "the roles are shown within the reach: {one:?}");

    // Taken away, it is taken from all.
    let revoke = v1::RevokeRoleRequest { member: ann.clone(), role: Some(role("admin", ACCOUNT, "")), ..Default::default() };
    assert_eq!(operator.revoke_role(revoke.clone()).await.unwrap().member.unwrap().roles.len(), 1);
    refused(operator.revoke_role(revoke).await, ErrorKind::NotFound);
    refused(edits.create_secrets(create(vec![item("C", "c")])).await, ErrorKind::Denied);
    let gone = operator.delete_member(v1::DeleteMemberRequest { member: ann.clone(), ..Default::default() }).await.unwrap();
    assert_eq!(gone.tokens, 3);
    for client in [edits, reads, side] {
        refused(client.who_am_i(v1::WhoAmIRequest {}).await, ErrorKind::Unauthenticated);
    }
    refused(operator.show_member(v1::ShowMemberRequest { member: ann }).await, ErrorKind::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrator_of_an_account_manages_and_sees_what_is_at_home_there() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    operator.create_account(v1::CreateAccountRequest { name: "rival".into(), ..Default::default() }).await.unwrap();
    let boss = v1::CreateTokenRequest { name: "boss".into(), grants: vec![role("super-administrator", ACCOUNT, "")], ..Default::default() };
    let (boss_id, boss) = holder(&node, &operator, boss).await;
    let everywhere = make(&operator, member("", "everywhere"), &[role("super-administrator", "", "")]).await;
    make(&operator, member("rival", "other"), &[role("admin", "", "")]).await;

    // No home is named: it is the only account. The role without a reach is one of the home.
    let dev = make(&boss, member("", "dev"), &[role("admin", "", "")]).await;
    assert_eq!(dev.account_id, dev.roles[0].account);
    assert!(!dev.account_id.is_empty() && everywhere.account_id.is_empty());
    let listed = boss.list_members(v1::ListMembersRequest::default()).await.unwrap();
    assert_eq!(names(&listed), ["dev"]);
    let all = operator.list_members(v1::ListMembersRequest::default()).await.unwrap();
    assert_eq!(all.members.len(), 3);
    assert_eq!(all.members[0].name, "everywhere", "of the cluster first");
    for beyond in [member("rival", "other"), member("rival", "nobody")] {
        refused(boss.show_member(v1::ShowMemberRequest { member: beyond.clone() }).await, ErrorKind::NotFound);
        refused(boss.create_token(token_of(beyond, "edit", &[])).await, ErrorKind::NotFound);
    }
    refused(boss.create_token(token_of(member("", "everywhere"), "edit", &[])).await, ErrorKind::NotFound);

    // Nothing beyond the account is given away.
    for beyond in [role("super-administrator", "rival", ""), role("reporter", "nowhere", "")] {
        refused(boss.grant_role(grant(member("", "dev"), beyond)).await, ErrorKind::NotFound);
    }
    let (dev_token, dev) = holder(&node, &boss, token_of(member("", "dev"), "edit", &[])).await;
    refused(dev.grant_role(grant(member("", "dev"), role("super-administrator", "", ""))).await, ErrorKind::Denied);
    refused(dev.list_tokens(v1::ListTokensRequest::default()).await, ErrorKind::Denied);
    let ids = |list: v1::ListTokensReply| list.tokens.into_iter().map(|token| token.token_id).collect::<std::collections::BTreeSet<_>>();
    let own = ids(boss.list_tokens(v1::ListTokensRequest::default()).await.unwrap());
    assert_eq!(own, [boss_id, dev_token.clone()].into());
    boss.revoke_token(v1::RevokeTokenRequest { token_id: "dev".into(), ..Default::default() }).await.unwrap();
    refused(dev.who_am_i(v1::WhoAmIRequest {}).await, ErrorKind::Unauthenticated);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_is_rolled_once_whoever_repeats_the_request() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    make(&operator, member("", "ci"), &[role("admin", ACCOUNT, "")]).await;
    let (id, old) = holder(&node, &operator, token_of(member("", "ci"), "edit", &[])).await;
    let roll = |keep_id, grace_ms| v1::RollTokenRequest { token_id: id.clone(), keep_id, grace_ms, ..Default::default() };
    refused(operator.roll_token(roll(true, 1000)).await, ErrorKind::InvalidArgument);
    // With time for the old one, under a new id.
    let next = operator.roll_token(roll(false, 3_600_000)).await.unwrap();
    assert_ne!(next.token_id, id);
    let new = node.client(&next.token);
    for client in [&old, &new] {
        client.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    }
    // Under the same id, at once. The same request again shows no token.
    let request = v1::RollTokenRequest { request_id: "b".repeat(32), ..roll(true, 0) };
    let kept = operator.roll_token(request.clone()).await.unwrap();
    assert_eq!(kept.token_id, id);
    refused(old.who_am_i(v1::WhoAmIRequest {}).await, ErrorKind::Unauthenticated);
    node.client(&kept.token).who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    let again = operator.roll_token(request).await.unwrap();
    assert_eq!((again.token_id, again.token), (id.clone(), String::new()));
    node.client(&kept.token).who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    refused(node.client(&next.token).roll_token(roll(true, 0)).await, ErrorKind::NotFound);
    node.stop().await;
}
