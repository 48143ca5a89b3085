//! How a consumer proves who it is, and the second permission check: by the edge, at each lookup, on its own copy (P6).

use client::{Client, ClientError, Retries};
use runtime::{
    RealClock,
    config::{ConsumerPattern, PeerRule},
    dev_pki::DevPki,
};
use seams::Clock;
use tests::process::{CONSUMER, Cluster, Reader, consumer_ref, until};
use types::{ConsumerKind, ConsumerRef};
use wire::{ErrorKind, v1};

/// The reader behind this client, which asks once.
fn reader(cluster: &Cluster, config: client::Config) -> Reader {
    Reader::new(Client::new(config.retries(Retries::NONE)).unwrap(), cluster.account())
}

/// The same request without a consumer: the credential alone says who it is.
async fn get_unnamed(reader: &Reader, binding: &str) -> Result<v1::Found, ClientError> {
    reader.client.get(v1::GetRequest { consumer: None, ..reader.request(binding) }).await
}

fn web(cluster: &Cluster) -> ConsumerRef {
    ConsumerRef::parse(cluster.account().parse().unwrap(), "worker/web").unwrap()
}

#[tokio::test]
async fn consumer_is_known_by_token_certificate_or_uid_and_by_the_strongest_alone() {
    let mut cluster = Cluster::prepare(2);
    // At edge 1 this uid may act as one worker; at edge 2 as nobody.
    let uid = rustix::process::getuid().as_raw();
    let account = cluster.account().parse().unwrap();
    let one = ConsumerPattern::One(ConsumerKind::Worker, CONSUMER.parse().unwrap());
    cluster.configure_edge(1, |config| config.peer = vec![PeerRule { uid, account, consumers: vec![one] }]);
    cluster.configure_edge(2, |config| config.peer = Vec::new());
    cluster.start_control().await;
    cluster.start_edge(1).await;
    cluster.start_edge(2).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.consumer(v1::ConsumerKind::Worker, "other").await;
    operator.create_bound("API_KEY", b"s3cret").await;
    let (_, token) = operator.consumer_token().await;
    operator.live(operator.create_bound("LAST", b"x").await).await;
    let kind = |result: Result<v1::Found, ClientError>| result.map(|found| found.value).map_err(|error| error.kind());
    let value = || Ok(b"s3cret".to_vec());

    let by_uid = cluster.reader(1);
    assert_eq!(kind(by_uid.get("API_KEY").await), value());
    assert_eq!(kind(get_unnamed(&by_uid, "API_KEY").await), value());
    let other =
        v1::GetRequest { consumer: Some(consumer_ref(cluster.account(), v1::ConsumerKind::Worker, "other")), ..by_uid.request("API_KEY") };
    assert_eq!(kind(by_uid.client.get(other.clone()).await), Err(ErrorKind::Denied), "the uid is not mapped to the other worker");
    assert_eq!(kind(cluster.reader(2).get("API_KEY").await), Err(ErrorKind::Denied), "the uid is mapped to nobody");

    let certificate = DevPki::ensure(&cluster.data().join("tls"), cluster.control_config().node.cluster.unwrap(), RealClock::new().wall())
        .unwrap()
        .consumer(&web(&cluster))
        .unwrap();
    let proofs = [
        ("token over the socket", reader(&cluster, cluster.socket_client(2, Some(&token)))),
        ("token over TLS", reader(&cluster, cluster.edge_client(2, Some(&token), None))),
        ("certificate", reader(&cluster, cluster.edge_client(2, None, Some(&certificate)))),
        ("certificate and token", reader(&cluster, cluster.edge_client(2, Some(&token), Some(&certificate)))),
    ];
    for (proof, reader) in &proofs {
        assert_eq!(kind(reader.get("API_KEY").await), value(), "{proof}");
        assert_eq!(kind(get_unnamed(reader, "API_KEY").await), value(), "{proof}");
        assert_eq!(kind(reader.client.get(other.clone()).await), Err(ErrorKind::Denied), "{proof}: is not the other worker");
        assert_eq!(kind(reader.get("NOT_BOUND").await), Err(ErrorKind::NotBound), "{proof}");
    }
    // A bad token is not made up for by a uid or certificate that would do.
    for config in [cluster.socket_client(1, Some("cbc_nonsense")), cluster.edge_client(1, Some("cbc_nonsense"), Some(&certificate))] {
        assert_eq!(kind(reader(&cluster, config).get("API_KEY").await), Err(ErrorKind::Unauthenticated));
    }
    assert_eq!(kind(reader(&cluster, cluster.edge_client(1, None, None)).get("API_KEY").await), Err(ErrorKind::Unauthenticated));
}

#[tokio::test]
async fn token_that_was_revoked_rolled_or_expired_stops_at_the_next_position() {
    let cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.create_bound("API_KEY", b"s3cret").await;
    let (id, token) = operator.consumer_token().await;
    let brief = v1::CreateConsumerTokenRequest { consumer: Some(operator.web()), lifetime_ms: 1, ..Default::default() };
    let brief = operator.client.create_consumer_token(brief).await.unwrap().token;
    let (_, kept) = operator.consumer_token().await;
    operator.live(operator.create_bound("LAST", b"x").await).await;
    let with = |token: &str| reader(&cluster, cluster.socket_client(1, Some(token)));
    let (first, kept) = (with(&token), with(&kept));
    assert_eq!(first.get("API_KEY").await.unwrap().value, b"s3cret");
    until("the brief token to expire", async || match with(&brief).get("API_KEY").await {
        Err(error) if error.kind() == ErrorKind::Revoked => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    let rolled = v1::RollConsumerTokenRequest { consumer: Some(operator.web()), token_id: id, ..Default::default() };
    let rolled = operator.client.roll_consumer_token(rolled).await.unwrap();
    operator.live(rolled.receipt.and_then(|receipt| receipt.position).unwrap().into()).await;
    assert_eq!(first.get("API_KEY").await.unwrap_err().kind(), ErrorKind::Revoked, "rolled without grace");
    let second = with(&rolled.token);
    assert_eq!(second.get("API_KEY").await.unwrap().value, b"s3cret");
    let revoke = v1::RevokeConsumerTokenRequest { consumer: Some(operator.web()), token_id: rolled.token_id, ..Default::default() };
    let receipt = operator.client.revoke_consumer_token(revoke).await.unwrap().receipt.unwrap();
    let refused = second.get_at("API_KEY", receipt.position.unwrap().into()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Revoked, "{}", refused.error);
    assert_eq!(kept.get("API_KEY").await.unwrap().value, b"s3cret", "the other token goes on");

    let gone = v1::DeleteConsumerRequest { consumer: Some(operator.web()), ..Default::default() };
    let receipt = operator.client.delete_consumer(gone).await.unwrap().receipt.unwrap();
    operator.live(receipt.position.unwrap().into()).await;
    for reader in [&kept, &cluster.reader(1)] {
        assert_eq!(reader.get("API_KEY").await.unwrap_err().kind(), ErrorKind::Revoked, "the consumer is gone");
    }
}

#[tokio::test]
async fn permission_is_checked_again_at_each_lookup() {
    let cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    for name in ["UNBOUND", "SCOPED", "REPLACED"] {
        operator.create_bound(name, b"s3cret").await;
    }
    let target = v1::bind_request::Target::Store(operator.store());
    let bind = v1::BindRequest { consumer: Some(operator.web()), name: "ALL".into(), target: Some(target), ..Default::default() };
    let bound = operator.client.bind(bind).await.unwrap().receipt.unwrap().position.unwrap().into();
    operator.live(bound).await;
    let reader = cluster.reader(1);
    for name in ["UNBOUND", "SCOPED", "REPLACED"] {
        assert_eq!(reader.get(name).await.unwrap().value, b"s3cret", "{name}");
    }
    let through_store = async |secret: &str| {
        let mut request = reader.request("ALL");
        request.wanted.as_mut().unwrap().secret = secret.to_owned();
        reader.client.get(request).await.map(|found| found.value).map_err(|error| error.kind())
    };
    assert_eq!(through_store("SCOPED").await, Ok(b"s3cret".to_vec()));

    operator.live(operator.unbind("UNBOUND").await).await;
    assert_eq!(reader.get("UNBOUND").await.unwrap_err().kind(), ErrorKind::NotBound);

    let scopes = Some(v1::ScopeList { scopes: vec!["containers".into()] });
    let edit = v1::EditSecretRequest { secret: Some(operator.secret("SCOPED")), scopes, ..Default::default() };
    let receipt = operator.client.edit_secret(edit).await.unwrap().receipt.unwrap();
    let position = receipt.position.unwrap().into();
    let refused = reader.get_at("SCOPED", position).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ScopeNotAllowed, "{}", refused.error);
    assert!(refused.error.message.contains("lacks the scope workers"), "{}", refused.error);
    assert_eq!(through_store("SCOPED").await, Err(ErrorKind::Absent), "behind a store, what may not be read does not exist");
    // The first check refuses to bind what could not be read.
    let target = v1::bind_request::Target::Secret(operator.secret("SCOPED"));
    let again = v1::BindRequest { consumer: Some(operator.web()), name: "AGAIN".into(), target: Some(target), ..Default::default() };
    let refused = operator.client.bind(again).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ScopeNotAllowed | ErrorKind::Precondition | ErrorKind::Denied), "{}", refused.error);

    operator.delete("REPLACED").await;
    let created = operator.try_create("REPLACED", b"another").await.unwrap();
    operator.live(created).await;
    let refused = reader.get_at("REPLACED", created).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Absent, "a new secret of the same name does not revive the binding: {}", refused.error);
    assert!(refused.error.message.contains("a new one of the same name is another"), "{}", refused.error);
    assert_eq!(through_store("REPLACED").await, Ok(b"another".to_vec()), "the store's binding reads what is in the store");
    operator.unbind("REPLACED").await;
    let bound = operator.bind("REPLACED", "REPLACED").await;
    assert_eq!(reader.get_at("REPLACED", bound).await.map(|found| found.value).unwrap_or_default(), b"another", "bound anew");
}

#[tokio::test]
async fn watch_and_stream_see_each_change_and_its_end() {
    let cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"first").await).await;
    let reader = cluster.reader(1);
    let mut watch = reader.client.watch(reader.request("API_KEY"));
    assert_eq!(watch.next().await.unwrap().unwrap().value, b"first");
    operator.set("API_KEY", b"second").await;
    let found = watch.next().await.unwrap().unwrap();
    assert_eq!((found.value.as_slice(), found.version), (&b"second"[..], 2));
    operator.unbind("API_KEY").await;
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind, ErrorKind::NotBound);
    operator.bind("API_KEY", "API_KEY").await;
    assert_eq!(watch.next().await.unwrap().unwrap().value, b"second", "the watch goes on when a later change mends it");

    let (requests, mut replies) = reader.client.stream(16).await.unwrap();
    for tag in 0..100 {
        requests.send(tag, reader.request(if tag % 2 == 0 { "API_KEY" } else { "NOT_BOUND" })).await.unwrap();
        let (answered, outcome) = replies.next().await.unwrap().unwrap();
        assert_eq!(answered, tag);
        match outcome {
            Ok(found) => assert!(tag % 2 == 0 && found.value == b"second"),
            Err(error) => assert!(tag % 2 == 1 && error.kind == ErrorKind::NotBound),
        }
    }
    drop(requests);
    assert!(replies.next().await.unwrap().is_none(), "ended when all was answered");
    let wanted = ["API_KEY", "NOT_BOUND"].map(|binding| v1::Wanted { binding: binding.into(), ..Default::default() });
    let many = v1::GetManyRequest { consumer: reader.request("").consumer, wanted: wanted.into(), freshness: None };
    let many = reader.client.get_many(many).await.unwrap();
    assert_eq!(many[0].as_ref().unwrap().value, b"second");
    assert_eq!(many[1].as_ref().unwrap_err().kind, ErrorKind::NotBound);
}
