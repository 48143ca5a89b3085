//! How often one caller may ask: changes by token, and tokens that nobody knows.

use std::time::Duration;

use client::ClientError;
use runtime::{OsEntropy, RealClock};
use seams::Clock;
use wire::{ErrorKind, v1};

use crate::harness::{ACCOUNT, Ground, metrics, refused, set, until, with_store};

fn unknown() -> String {
    seal::OperatorToken::generate(&OsEntropy).text().expose().to_owned()
}

/// A counter as it is now; 0 where it has not begun.
fn counted(name: &str) -> u64 {
    let text = metrics().render();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap_or_default()
}

/// How long a caller is told to wait.
#[track_caller]
fn told_to_wait<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Duration {
    let error = result.expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.error);
    error.error.retry_after.expect("a refusal says when to ask again")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_changes_too_much_is_told_to_wait_and_the_others_are_not() {
    let ground = Ground::new();
    let mut config = ground.config();
    (config.rates.writes_per_second, config.rates.writes_burst) = (1, 6);
    let node = ground.start_with(config).await;
    let operator = node.operator();
    with_store(&operator).await;
    let grant = v1::TokenGrant { role: "admin".into(), account: ACCOUNT.into(), ..Default::default() };
    let request = v1::CreateTokenRequest { name: "ci".into(), grants: vec![grant], ..Default::default() };
    let other = node.client(&operator.create_token(request).await.unwrap().token);

    // What is refused for another reason counts, too: it was work.
    let wait = loop {
        match operator.set_value(set("NONE", "x")).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => break told_to_wait(other),
        }
    };
    assert!(wait <= Duration::from_millis(1001), "{wait:?}");
    assert!(counted("cinnabar_control_rate_limited_total{limit=\"writes\"}") > 0);
    refused(other.set_value(set("NONE", "x")).await, ErrorKind::NotFound);
    // Reads are free.
    operator.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    // Who waits as told gets in.
    until("a change by who has waited", async || {
        match operator.create_store(v1::CreateStoreRequest { account: ACCOUNT.into(), name: "late".into(), ..Default::default() }).await {
            Ok(_) => Some(()),
            Err(error) => {
                RealClock::new().sleep(told_to_wait::<()>(Err(error))).await;
                None
            }
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_that_shows_unknown_tokens_is_told_to_wait_and_a_good_token_from_there_is_not() {
    const LOGINS: u32 = 20;
    let ground = Ground::new();
    let mut config = ground.config();
    config.rates.failed_logins_per_minute = LOGINS;
    let node = ground.start_with(config).await;
    let operator = node.operator();
    let before = operator.status(v1::ShowStatusRequest {}).await.unwrap().position;

    let (good, bad) = (node.operator(), node.client(&unknown()));
    let mut waits = Vec::new();
    for round in 0..10 * LOGINS {
        // Some are unknown, some have not even the form of a token.
        let stranger = if round % 3 == 0 { node.client("cbo_typo") } else { bad.clone() };
        match stranger.who_am_i(v1::WhoAmIRequest {}).await {
            Err(error) if error.kind() == ErrorKind::Unauthenticated => assert!(waits.is_empty() || round < 2 * LOGINS, "{round}"),
            other => waits.push(told_to_wait(other)),
        }
        good.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    }
    assert!(waits.len() as u32 >= 7 * LOGINS, "{}", waits.len());
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(4)), "{:?}", waits.iter().max());
    assert!(counted("cinnabar_control_rate_limited_total{limit=\"failed_logins\"}") >= u64::from(7 * LOGINS));
    // None of it went into the log: nothing but the tick does.
    assert_eq!(operator.status(v1::ShowStatusRequest {}).await.unwrap().position, before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_has_expired_is_met_as_one_that_never_was() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    let grant = v1::TokenGrant { role: "admin".into(), account: ACCOUNT.into(), ..Default::default() };
    let request = v1::CreateTokenRequest { name: "short".into(), grants: vec![grant], expires_in_ms: 1500, ..Default::default() };
    let short = node.client(&operator.create_token(request).await.unwrap().token);
    // A call under way while the token expires is refused without being taken for a stranger's: what counts is a call begun after.
    until("the token to expire", async || short.who_am_i(v1::WhoAmIRequest {}).await.is_err().then_some(())).await;
    let before = counted("cinnabar_control_failed_logins_total");
    assert!(before <= 1, "{before}");
    let expired = refused(short.who_am_i(v1::WhoAmIRequest {}).await, ErrorKind::Unauthenticated);
    assert_eq!(counted("cinnabar_control_failed_logins_total"), before + 1, "an expired token is looked up as an unknown one is");
    let unknown = refused(node.client(&unknown()).who_am_i(v1::WhoAmIRequest {}).await, ErrorKind::Unauthenticated);
    assert_eq!(expired, unknown);
    assert_eq!(counted("cinnabar_control_failed_logins_total"), before + 2);
    node.stop().await;
}
