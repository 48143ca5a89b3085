//! Who is not known gets no answer: without a valid token or certificate nothing answers but health.

use std::fs;

use client::{Client, ClientError, Config, Retries};
use prost::Message;
use runtime::{OsEntropy, RealClock, config::TlsFiles, dev_pki::DevPki, tls::PeerCertificate};
use seal::{ConsumerToken, OperatorToken};
use seams::Clock;
use tests::process::{Cluster, Operator, raw};
use tokio_stream::iter;
use tonic::transport::Channel;
use types::{ClusterId, NodeId};
use wire::{
    ErrorKind, PublicError,
    internal::{Hello, RenewRequest, SubscribeUp, enrol_client::EnrolClient, feed_client::FeedClient, subscribe_up},
    v1::{self, status_client::StatusClient},
};

/// Paths of all calls of the proto files, of those services that `served` names.
fn paths(served: impl Fn(&str) -> bool) -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap().file;
    let mut paths = Vec::new();
    for file in files {
        for service in &file.service {
            let methods = service.method.iter().filter(|_| served(service.name()));
            paths.extend(methods.map(|method| format!("/{}.{}/{}", file.package(), service.name(), method.name())));
        }
    }
    paths
}

#[tokio::test]
async fn control_node_answers_nobody_without_a_good_token_but_health() {
    let mut cluster = Cluster::prepare(1);
    // Every call is made with every bad token, from one address.
    cluster.configure_control(|config| config.rates.failed_logins_per_minute = 0);
    cluster.start_control().await;
    let operator = cluster.operator();
    operator.found().await;
    let (_, consumer_token) = operator.consumer_token().await;

    let calls = paths(|service| !["Lookup", "Raft", "Enrol"].contains(&service));
    assert!(calls.len() > 25 && calls.contains(&"/cinnabar.v1.Secrets/SetValue".to_owned()), "{calls:?}");
    let unknown = OperatorToken::generate(&OsEntropy).text().expose().to_owned();
    let mut damaged = cluster.operator_token();
    let last = damaged.pop().unwrap();
    damaged.push(if last == 'a' { 'b' } else { 'a' });
    let mut channel = raw::connect(cluster.control_config().listen.grpc, &cluster.ca_pem(), None);
    for token in [None, Some(&*unknown), Some(&*damaged), Some(&*consumer_token), Some("nonsense"), Some("")] {
        for path in &calls {
            let answer = raw::call(&mut channel, path, token, raw::framed(b"")).await;
            assert_eq!(answer.error.kind, ErrorKind::Unauthenticated, "{path} with token {token:?}: {answer:?}");
            let shown = token.is_some_and(|token| !token.is_empty() && answer.error.message.contains(token));
            assert!(!shown, "{path} shows the token: {answer:?}");
        }
        let answer = raw::call(&mut channel, "/grpc.health.v1.Health/Check", token, raw::framed(b"")).await;
        assert_eq!(answer.code, 0, "health: {answer:?}");
        let message = raw::framed(&raw::field(7, b"*"));
        let reflection = raw::call(&mut channel, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", token, message).await;
        assert!([12, 16].contains(&reflection.code), "reflection answers {token:?}: {reflection:?}");
        for path in ["/cinnabar.v1.Lookup/Get", "/cinnabar.v1.Nothing/Here", "/", "/metrics"] {
            let answer = raw::call(&mut channel, path, token, raw::framed(b"")).await;
            assert!([12, 16].contains(&answer.code), "{path} with token {token:?}: {answer:?}");
        }
    }
    // The same connection, with the good token.
    let answer = raw::call(&mut channel, "/cinnabar.v1.Status/Show", Some(&cluster.operator_token()), raw::framed(b"")).await;
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[tokio::test]
async fn edge_answers_nobody_without_a_consumer_but_health() {
    let cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;

    let unknown = ConsumerToken::generate(&OsEntropy).text().expose().to_owned();
    let operator_token = cluster.operator_token();
    let mut channel = raw::connect(cluster.edge_config(1).listen.grpc, &cluster.ca_pem(), None);
    for (token, kind) in [
        (None, ErrorKind::Unauthenticated),
        (Some(&*operator_token), ErrorKind::Unauthenticated),
        (Some("nonsense"), ErrorKind::Unauthenticated),
        (Some(&*unknown), ErrorKind::Revoked),
    ] {
        let request = cluster.reader(1).request("API_KEY").encode_to_vec();
        for path in ["/cinnabar.v1.Lookup/Get", "/cinnabar.v1.Lookup/Watch"] {
            let answer = raw::call(&mut channel, path, token, raw::framed(&request)).await;
            // A watch says it in its first message, as a later change may mend it.
            let in_the_stream = path.ends_with("Watch") && answer.code == 0;
            assert!(answer.error.kind == kind || in_the_stream, "{path} with token {token:?}: {answer:?}");
        }
        for path in paths(|service| service == "Status") {
            let answer = raw::call(&mut channel, &path, token, raw::framed(b"")).await;
            assert!(answer.code == 16 || answer.code == 7, "{path} with token {token:?}: {answer:?}");
        }
        for path in paths(|service| !["Lookup", "Status"].contains(&service)) {
            let answer = raw::call(&mut channel, &path, token, raw::framed(b"")).await;
            assert_eq!(answer.code, 12, "an edge does not serve {path}: {answer:?}");
        }
        let answer = raw::call(&mut channel, "/grpc.health.v1.Health/Check", token, raw::framed(b"")).await;
        assert_eq!(answer.code, 0, "health: {answer:?}");
    }

    // Nodes' certificates read no secret, and neither does one of another cluster.
    let pki = pki(&cluster);
    let edge = edge_client(&cluster, &pki.node(NodeId::new(101)).unwrap());
    assert_eq!(get(&edge, &cluster).await, ErrorKind::Unauthenticated);
    let foreign = foreign_pki(&cluster);
    let consumer = types::ConsumerRef::parse(cluster.account().parse().unwrap(), "worker/web").unwrap();
    assert_eq!(get(&edge_client(&cluster, &foreign.consumer(&consumer).unwrap()), &cluster).await, ErrorKind::Unavailable);
    assert!(edge_client(&cluster, &pki.consumer(&consumer).unwrap()).get(cluster.reader(1).request("API_KEY")).await.is_ok());
}

fn edge_client(cluster: &Cluster, files: &TlsFiles) -> Client {
    Client::new(cluster.edge_client(1, None, Some(files)).retries(Retries::NONE)).unwrap()
}

async fn get(client: &Client, cluster: &Cluster) -> ErrorKind {
    client.get(cluster.reader(1).request("API_KEY")).await.unwrap_err().kind()
}

fn pki(cluster: &Cluster) -> DevPki {
    DevPki::ensure(&cluster.data().join("tls"), cluster.control_config().node.cluster.unwrap(), RealClock::new().wall()).unwrap()
}

/// The certificates of a cluster of the same id, whose CA is another.
fn foreign_pki(cluster: &Cluster) -> DevPki {
    let id: ClusterId = cluster.control_config().node.cluster.unwrap();
    DevPki::ensure(&cluster.data().join("foreign"), id, RealClock::new().wall()).unwrap()
}

/// The same CA, without the certificates it has issued: what it issues now has other keys.
fn reissuing_pki(cluster: &Cluster) -> DevPki {
    let folder = cluster.data().join("reissued");
    fs::create_dir(&folder).unwrap();
    for name in ["ca.pem", "ca.key"] {
        fs::copy(cluster.data().join("tls").join(name), folder.join(name)).unwrap();
    }
    DevPki::ensure(&folder, cluster.control_config().node.cluster.unwrap(), RealClock::new().wall()).unwrap()
}

#[tokio::test]
async fn feed_is_for_registered_nodes_with_their_own_key() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_control().await;
    let consumer = types::ConsumerRef::parse(cluster.account().parse().unwrap(), "worker/web").unwrap();
    let pki = pki(&cluster);
    let cases = [
        ("no certificate", None, ErrorKind::Unauthenticated),
        ("a consumer's", Some(pki.consumer(&consumer).unwrap()), ErrorKind::Unauthenticated),
        ("an unregistered node's", Some(pki.node(NodeId::new(999)).unwrap()), ErrorKind::Denied),
        ("the control node's own", Some(pki.node(NodeId::new(1)).unwrap()), ErrorKind::Denied),
        ("a registered number with another key", Some(reissuing_pki(&cluster).node(NodeId::new(101)).unwrap()), ErrorKind::Denied),
        ("another CA's", Some(foreign_pki(&cluster).node(NodeId::new(101)).unwrap()), ErrorKind::Unavailable),
    ];
    for (whose, files, kind) in cases {
        let channel = raw::connect(cluster.control_config().listen.grpc, &cluster.ca_pem(), files.as_ref());
        let refused = subscribe(channel, &cluster, 101).await.unwrap_err();
        let broken = kind == ErrorKind::Unavailable && refused.kind == ErrorKind::Internal;
        assert!(refused.kind == kind || broken, "{whose} certificate: {refused:?}");
    }
    // A node is whom its certificate says, whatever it says itself.
    let own = pki.node(NodeId::new(101)).unwrap();
    let channel = raw::connect(cluster.control_config().listen.grpc, &cluster.ca_pem(), Some(&own));
    assert_eq!(subscribe(channel.clone(), &cluster, 102).await, Ok("refused".to_owned()));
    assert_eq!(subscribe(channel, &cluster, 101).await, Ok("welcome".to_owned()));
    // And the real edge comes up after all of that.
    cluster.start_edge(1).await;
}

/// The same CA and keys, long ago: what it issues has expired.
fn slept_pki(cluster: &Cluster) -> DevPki {
    let folder = cluster.data().join("slept");
    fs::create_dir(&folder).unwrap();
    for name in ["ca.pem", "ca.key", "node-1.key", "node-101.key"] {
        fs::copy(cluster.data().join("tls").join(name), folder.join(name)).unwrap();
    }
    let long_ago = types::UnixMillis::new(1_600_000_000_000);
    DevPki::ensure(&folder, cluster.control_config().node.cluster.unwrap(), long_ago).unwrap()
}

#[tokio::test]
async fn expired_certificate_of_a_node_gets_a_fresh_one_and_nothing_else() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_control().await;
    let (slept, now) = (slept_pki(&cluster), RealClock::new().wall());
    for node in [1, 101] {
        let files = slept.node(NodeId::new(node)).unwrap();
        let own = PeerCertificate::read_pem(&files.cert).unwrap();
        assert!(own.is_expired(now));
        let channel = raw::connect(cluster.control_config().listen.grpc, &cluster.ca_pem(), Some(&files));
        let fed = subscribe(channel.clone(), &cluster, node).await.unwrap_err();
        let asked = StatusClient::new(channel.clone()).show(v1::ShowStatusRequest::default()).await.unwrap_err();
        for refused in [fed, PublicError::from_status(&asked)] {
            assert!(refused.kind == ErrorKind::Unauthenticated && refused.message.contains("expired"), "node {node}: {refused:?}");
        }
        let request = |key: enrol::NodeKey| RenewRequest { certificate_request: key.request(&[]).unwrap().into(), ..Default::default() };
        let mut enrol = EnrolClient::new(channel);
        let another = enrol.renew(request(enrol::NodeKey::generate().unwrap())).await.unwrap_err();
        assert_eq!(PublicError::from_status(&another).kind, ErrorKind::Denied, "a certificate is for the registered key alone");
        let renewed = enrol.renew(request(enrol::NodeKey::read(&files.key).unwrap())).await.unwrap().into_inner();
        let fresh = PeerCertificate::read(&renewed.certificates[0]).unwrap();
        assert!(!fresh.is_expired(now));
        assert_eq!((fresh.identity, fresh.public_key), (own.identity, own.public_key));
    }
}

/// Subscribes as a node that holds nothing; what the first message is.
async fn subscribe(channel: Channel, cluster: &Cluster, node: u64) -> Result<String, PublicError> {
    use wire::internal::subscribe_down::Message;
    let id: ClusterId = cluster.control_config().node.cluster.unwrap();
    let hello = Hello { cluster: id.as_bytes().to_vec().into(), node, feature_level: state::FEATURE_LEVEL_MAX.get(), ..Default::default() };
    let up = SubscribeUp { message: Some(subscribe_up::Message::Hello(hello)) };
    let answer = FeedClient::new(channel).subscribe(iter([up])).await.map_err(|status| PublicError::from_status(&status))?;
    let first = answer.into_inner().message().await.map_err(|status| PublicError::from_status(&status))?;
    Ok(match first.and_then(|down| down.message) {
        Some(Message::Welcome(_)) => "welcome".to_owned(),
        Some(Message::Refused(_)) => "refused".to_owned(),
        other => format!("{other:?}"),
    })
}

#[tokio::test]
async fn nodes_and_consumers_certificates_write_nothing_at_the_control_node() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_control().await;
    let operator = cluster.operator();
    operator.found().await;
    operator.try_create("API_KEY", b"s3cret").await.unwrap();
    let consumer = types::ConsumerRef::parse(cluster.account().parse().unwrap(), "worker/web").unwrap();
    let pki = pki(&cluster);
    for (whose, files, kind) in [
        ("the control node's own", pki.node(NodeId::new(1)).unwrap(), ErrorKind::Denied),
        ("an edge's", pki.node(NodeId::new(101)).unwrap(), ErrorKind::Unauthenticated),
        ("the control node's number with another key", reissuing_pki(&cluster).node(NodeId::new(1)).unwrap(), ErrorKind::Unauthenticated),
        ("an unregistered node's", pki.node(NodeId::new(999)).unwrap(), ErrorKind::Unauthenticated),
        ("a consumer's", pki.consumer(&consumer).unwrap(), ErrorKind::Unauthenticated),
    ] {
        let config: Config = cluster.control_client(None, Some(&files)).retries(Retries::NONE);
        let client = Client::new(config).unwrap();
        for (what, result) in writes(&client, &operator).await {
            assert_eq!(result.map_err(|error| error.kind()), Err(kind), "{what} with {whose} certificate");
        }
        if kind == ErrorKind::Unauthenticated {
            let list = client.list_secrets(v1::ListSecretsRequest { store: Some(operator.store()), page: None }).await;
            assert_eq!(list.unwrap_err().kind(), kind, "a list with {whose} certificate");
        }
    }
    // Whoever believes another CA does not talk to this server at all.
    let tls = client::Tls { ca_pem: fs::read_to_string(foreign_pki(&cluster).ca()).unwrap(), ..Default::default() };
    let token = client::Token::new(cluster.operator_token()).unwrap();
    let config = Config::tls([cluster.control_config().listen.grpc.to_string()], tls).token(token).retries(Retries::NONE);
    let refused = Client::new(config).unwrap().status(v1::ShowStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{}", refused.error);
}

async fn writes(client: &Client, names: &Operator) -> Vec<(&'static str, Result<(), ClientError>)> {
    let item = v1::NewSecret { name: "MORE".into(), value: b"v".to_vec(), scopes: vec!["workers".into()], comment: String::new() };
    let create = v1::CreateSecretsRequest { store: Some(names.store()), secrets: vec![item], ..Default::default() };
    let set = v1::SetValueRequest { secret: Some(names.secret("API_KEY")), value: b"v".to_vec(), ..Default::default() };
    let token = v1::CreateConsumerTokenRequest { consumer: Some(names.web()), ..Default::default() };
    let account = v1::CreateAccountRequest { name: "other".into(), ..Default::default() };
    vec![
        ("create", client.create_secrets(create).await.map(drop)),
        ("set", client.set_value(set).await.map(drop)),
        ("token", client.create_consumer_token(token).await.map(drop)),
        ("account", client.create_account(account).await.map(drop)),
    ]
}
