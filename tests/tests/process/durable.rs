//! P1 with `kill -9`: what was acknowledged is there after a restart, once.

use client::{ClientError, Retries};
use tests::process::{Cluster, Writers};
use wire::{ErrorKind, v1};

/// Writers, each with a secret of its own.
const WRITERS: usize = 4;
/// How often the control node is killed.
const KILLS: usize = 3;
/// Writes that must be acknowledged between two kills.
const WRITES: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn writes_acknowledged_before_kills_of_the_control_node_are_all_there_and_none_twice() {
    let mut cluster = Cluster::start(2).await;
    let operator = cluster.operator();
    operator.found().await;
    let mut writers = Writers::start((0..WRITERS).map(|_| cluster.operator()).collect()).await;
    for _ in 0..KILLS {
        writers.go_on(WRITES).await;
        cluster.take_control().kill();
        cluster.start_control().await;
    }
    let written = writers.end().await;
    let last = operator.set("COUNTER_0", b"the last").await.1;
    operator.live(last).await;
    written.judge(&operator, &[cluster.reader(1), cluster.reader(2)], last, &[(0, b"the last")]).await;
}

#[tokio::test]
async fn request_repeated_after_a_kill_returns_the_first_reply_and_with_other_content_is_refused() {
    let mut cluster = Cluster::prepare(0);
    cluster.start_control().await;
    let operator = cluster.operator();
    operator.found().await;
    operator.try_create("API_KEY", b"first").await.unwrap();
    let set = |value: &[u8]| v1::SetValueRequest {
        secret: Some(operator.secret("API_KEY")),
        value: value.into(),
        request_id: "00112233445566778899aabbccddeeff".into(),
        ..Default::default()
    };
    let first = operator.client.set_value(set(b"second")).await.unwrap();
    cluster.take_control().kill();
    let config = cluster.control_client(Some(&cluster.operator_token()), None).retries(Retries::NONE);
    let down: ClientError = client::Client::new(config).unwrap().set_value(set(b"second")).await.unwrap_err();
    assert_eq!(down.kind(), ErrorKind::Unavailable);
    cluster.start_control().await;
    let again = operator.client.set_value(set(b"second")).await.unwrap();
    assert_eq!((again.version, again.receipt), (first.version, first.receipt));
    let other = operator.client.set_value(set(b"third")).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::RequestReused, "{}", other.error);
    let (version, _) = operator.set("API_KEY", b"third").await;
    assert_eq!(version, first.version + 1);
}
