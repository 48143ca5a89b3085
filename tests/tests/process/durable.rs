//! P1 with `kill -9`: what was acknowledged is there after a restart, once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use client::{ClientError, Retries};
use tests::process::{Cluster, Operator, until};
use tokio::task::JoinSet;
use types::Position;
use wire::{ErrorKind, v1};

/// Writers, each with a secret of its own.
const WRITERS: usize = 4;
/// How often the control node is killed.
const KILLS: usize = 3;
/// Writes that must be acknowledged between two kills.
const WRITES: usize = 40;

/// What a writer knows: of each value, the version that the server said it got; none when no answer came.
type Sent = Arc<Mutex<BTreeMap<String, Option<u64>>>>;

#[tokio::test(flavor = "multi_thread")]
async fn writes_acknowledged_before_kills_of_the_control_node_are_all_there_and_none_twice() {
    let mut cluster = Cluster::start(2).await;
    let operator = cluster.operator();
    operator.found().await;
    let mut logs: Vec<Sent> = Vec::new();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        operator.create_bound(&secret(number), b"0").await;
        let sent = Sent::default();
        logs.push(sent.clone());
        // Each has a connection of its own, and sends a failed request again under the same id until it is answered.
        let operator = cluster.operator();
        writers.spawn(async move { write_on(&operator, number, &sent).await });
    }
    for _ in 0..KILLS {
        let before = acknowledged(&logs);
        until("writes to be acknowledged", async || {
            let now = acknowledged(&logs);
            if now >= before + WRITES { Ok(()) } else { Err(format!("{now} after {before}")) }
        })
        .await;
        cluster.take_control().kill();
        cluster.start_control().await;
    }
    writers.abort_all();
    while writers.join_next().await.is_some() {}

    let last = operator.set(&secret(0), b"the last").await.1;
    operator.live(last).await;
    for (number, sent) in logs.iter().enumerate() {
        let sent = sent.lock().unwrap().clone();
        check(&cluster, &operator, number, &sent, last).await;
    }
}

fn secret(number: usize) -> String {
    format!("COUNTER_{number}")
}

fn acknowledged(logs: &[Sent]) -> usize {
    logs.iter().map(|sent| sent.lock().unwrap().values().flatten().count()).sum()
}

/// Writes one value after the other, each under a request id of its own.
async fn write_on(operator: &Operator, number: usize, sent: &Sent) {
    for count in 1_u64.. {
        let value = format!("{number}-{count}");
        sent.lock().unwrap().insert(value.clone(), None);
        let request = v1::SetValueRequest {
            secret: Some(operator.secret(&secret(number))),
            value: value.clone().into_bytes(),
            request_id: format!("{number:016x}{count:016x}"),
            ..Default::default()
        };
        let version = loop {
            match operator.client.set_value(request.clone()).await {
                Ok(reply) => break reply.version,
                Err(error) if error.kind().retryable() => {}
                Err(error) => panic!("{value} was refused: {error}: {}", error.error),
            }
        };
        sent.lock().unwrap().insert(value, Some(version));
    }
}

/// Every acknowledged value stands under the version that was said, at both edges, and the versions have no gap and no repeat: as
/// many as values were sent, less at most the one that was on its way.
async fn check(cluster: &Cluster, operator: &Operator, number: usize, sent: &BTreeMap<String, Option<u64>>, last: Position) {
    let shown = operator.client.show_secret(v1::ShowSecretRequest { secret: Some(operator.secret(&secret(number))) }).await.unwrap();
    let acknowledged: BTreeMap<u64, &String> = sent.iter().filter_map(|(value, version)| version.map(|version| (version, value))).collect();
    let count = u64::try_from(acknowledged.len()).unwrap();
    assert!(count > 0 && *acknowledged.first_key_value().unwrap().0 == 2, "{acknowledged:?}");
    assert_eq!(*acknowledged.last_key_value().unwrap().0, count + 1, "one version a value, although requests were repeated");
    let open = u64::try_from(sent.values().filter(|version| version.is_none()).count()).unwrap();
    let ours = shown.current_version - u64::from(number == 0);
    assert!((count + 1..=count + 1 + open).contains(&ours), "{count} acknowledged, {open} open, current is {}", shown.current_version);

    let kept = operator.client.list_versions(v1::ListVersionsRequest { secret: Some(operator.secret(&secret(number))) }).await.unwrap();
    for edge in 1..=2 {
        let reader = cluster.reader(edge);
        for version in kept.versions.iter().map(|version| version.version) {
            let Some(value) = acknowledged.get(&version) else { continue };
            let mut request = reader.request(&secret(number));
            request.wanted.as_mut().unwrap().which = Some(v1::wanted::Which::Version(version));
            request.freshness = Some(v1::Freshness { min_position: Some(last.into()), max_age_ms: None });
            let found = reader.client.get(request).await.unwrap();
            assert_eq!(found.value, value.as_bytes(), "version {version} at edge-{edge}");
        }
    }
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
