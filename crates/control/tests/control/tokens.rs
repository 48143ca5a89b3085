//! Operators' tokens, named by id or by name.

use client::Client;
use wire::{ErrorKind, v1};

use crate::harness::{ACCOUNT, Ground, refused, with_store};

async fn make(client: &Client, name: &str, role: &str, account: &str) -> v1::TokenReply {
    let grant = v1::TokenGrant { role: role.to_owned(), account: account.to_owned(), ..Default::default() };
    client.create_token(v1::CreateTokenRequest { name: name.to_owned(), grants: vec![grant], ..Default::default() }).await.unwrap()
}

fn revoke(token: &str) -> v1::RevokeTokenRequest {
    v1::RevokeTokenRequest { token_id: token.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_is_revoked_by_name_where_only_one_has_it() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    let (first, second) = (make(&operator, "ci", "reporter", ACCOUNT).await, make(&operator, "ci", "reporter", ACCOUNT).await);
    let ambiguous = refused(operator.revoke_token(revoke("ci")).await, ErrorKind::Precondition);
    assert!(ambiguous.contains(&first.token_id) && ambiguous.contains(&second.token_id), "{ambiguous}");
    operator.revoke_token(revoke(&first.token_id)).await.unwrap();
    // The same request once more is answered as before, though nobody has the name by then.
    let request = v1::RevokeTokenRequest { request_id: "a".repeat(32), ..revoke("ci") };
    for _ in 0..2 {
        operator.revoke_token(request.clone()).await.unwrap();
    }
    refused(node.client(&second.token).who_am_i(v1::WhoAmIRequest {}).await, ErrorKind::Unauthenticated);
    let unknown = refused(operator.revoke_token(revoke("ci")).await, ErrorKind::NotFound);
    assert!(unknown.contains("no token has this id or name") && unknown.contains("token list"), "{unknown}");
    // Somebody may paste the token itself: it is not said again.
    let pasted = operator.revoke_token(revoke(&second.token)).await.unwrap_err();
    assert!(!format!("{pasted:?} {pasted} {}", pasted.error).contains(&second.token[8..24]), "the error repeats a token");

    // A token beyond one's reach is unknown by its name as by its id.
    let beyond = make(&operator, "beyond", "super-administrator", "").await;
    let within = make(&operator, "within", "admin", ACCOUNT).await;
    let admin = node.client(&within.token);
    refused(admin.revoke_token(revoke("beyond")).await, ErrorKind::NotFound);
    refused(admin.revoke_token(revoke(&beyond.token_id)).await, ErrorKind::NotFound);
    node.stop().await;
}
