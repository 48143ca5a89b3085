use std::{fs, path::PathBuf};

use seams::Clock;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use types::{AccountId, ClusterId, ConsumerRef, NodeId};

use super::*;
use crate::{
    RealClock,
    config::{HostPort, TlsFiles},
    dev_pki::DevPki,
};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

fn pki(cluster: ClusterId) -> (TempDir, DevPki) {
    let temporary = tempfile::tempdir().unwrap();
    let pki = DevPki::ensure(&temporary.path().join("pki"), cluster, RealClock::new().wall()).unwrap();
    (temporary, pki)
}

fn second_pki() -> (TempDir, DevPki) {
    pki(CLUSTER)
}

fn node(number: u64) -> NodeId {
    NodeId::new(number)
}

/// Accepts these nodes of our cluster, and expired ones when told to.
struct Nodes {
    numbers: Vec<u64>,
    expired: bool,
}

impl Judge for Nodes {
    fn judge(&self, server: &PeerCertificate, expired: bool) -> Result<(), String> {
        match (&server.identity, expired) {
            (_, true) if !self.expired => Err("the server's certificate has expired".to_owned()),
            (PeerIdentity::Node { cluster, node }, _) if *cluster == CLUSTER && self.numbers.contains(&node.get()) => Ok(()),
            (other, _) => Err(format!("the server is {other}, which is not one of those expected")),
        }
    }
}

fn expect_nodes(numbers: &[u64]) -> Expect {
    Expect::Judge(Arc::new(Nodes { numbers: numbers.to_vec(), expired: false }))
}

/// Both ends of one connection that was tried: what the server saw of the client, and whether bytes came through.
async fn meet(server: &ServerTls, client: &ClientTls, host: &str) -> Result<Option<PeerIdentity>, String> {
    let at = if host == "localhost" { "127.0.0.1" } else { host };
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let to: HostPort = format!("{host}:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let acceptor = server.acceptor();
    let accepting = tokio::spawn(async move {
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.map_err(|error| format!("server: {error}"))?;
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        let (_, session) = stream.get_ref();
        assert_eq!(session.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        Ok(session.peer_certificates().map(|chain| PeerCertificate::read(&chain[0]).unwrap().identity))
    });
    let connected = async {
        let mut stream = client.connect(&to).await.map_err(|error| chain(&error))?;
        let mut bytes = [0; 5];
        // In TLS 1.3 a client learns only by reading whether its own certificate was accepted.
        stream.read_exact(&mut bytes).await.map_err(|error| error.to_string())?;
        assert_eq!(&bytes, b"hello");
        Ok::<(), String>(())
    };
    connected.await?;
    accepting.await.unwrap()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn server(files: &TlsFiles, clients: ClientCertificates) -> ServerTls {
    ServerTls::load(files, clients).unwrap()
}

#[tokio::test]
async fn tls_nodes_meet_and_know_each_other() {
    let (_keep, pki) = pki(CLUSTER);
    let server = server(&pki.node(node(1)).unwrap(), ClientCertificates::Required);
    assert_eq!(server.own().identity, PeerIdentity::Node { cluster: CLUSTER, node: node(1) });
    let client = ClientTls::load(&pki.node(node(101)).unwrap(), expect_nodes(&[1, 2])).unwrap();
    // Whatever host name the certificate carries: the node's id is what counts.
    for host in ["127.0.0.1", "localhost"] {
        let seen = meet(&server, &client, host).await.unwrap();
        assert_eq!(seen, Some(PeerIdentity::Node { cluster: CLUSTER, node: node(101) }));
    }
}

#[tokio::test]
async fn tls_client_without_certificate_is_let_in_only_where_tokens_are() {
    let (_keep, pki) = pki(CLUSTER);
    let files = pki.node(node(1)).unwrap();
    let client = ClientTls::without_certificate(&pki.ca(), Expect::Host { cluster: None }).unwrap();
    assert_eq!(meet(&server(&files, ClientCertificates::Optional), &client, "localhost").await, Ok(None));
    let error = meet(&server(&files, ClientCertificates::Required), &client, "localhost").await.unwrap_err();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn tls_consumer_certificate_names_the_consumer_and_is_no_server() {
    let (_keep, pki) = pki(CLUSTER);
    let consumer = ConsumerRef::parse(AccountId::from_bytes([9; 16]), "worker/web").unwrap();
    let files = pki.consumer(&consumer).unwrap();
    let client = ClientTls::load(&files, expect_nodes(&[101])).unwrap();
    let edge = server(&pki.node(node(101)).unwrap(), ClientCertificates::Optional);
    assert_eq!(meet(&edge, &client, "127.0.0.1").await, Ok(Some(PeerIdentity::Consumer { cluster: CLUSTER, consumer })));
    let false_server = server(&files, ClientCertificates::Optional);
    let client = ClientTls::without_certificate(&pki.ca(), Expect::Host { cluster: Some(CLUSTER) }).unwrap();
    let error = meet(&false_server, &client, "localhost").await.unwrap_err();
    assert!(error.contains("the server's certificate is a consumer's"), "{error}");
}

#[tokio::test]
async fn tls_client_refuses_another_node_of_the_same_ca() {
    let (_keep, pki) = pki(CLUSTER);
    let edge = server(&pki.node(node(101)).unwrap(), ClientCertificates::Optional);
    let client = ClientTls::load(&pki.node(node(102)).unwrap(), expect_nodes(&[1])).unwrap();
    let error = meet(&edge, &client, "localhost").await.unwrap_err();
    assert!(error.contains("node/101, which is not one of those expected"), "{error}");
    let client = ClientTls::load(&pki.node(node(102)).unwrap(), Expect::Node { cluster: CLUSTER, node: node(1) }).unwrap();
    let error = meet(&edge, &client, "localhost").await.unwrap_err();
    assert!(error.contains("the server is node 101, not node 1"), "{error}");
}

#[tokio::test]
async fn tls_both_sides_refuse_another_ca_and_another_cluster() {
    let (_keep, ours) = pki(CLUSTER);
    let (_keep_too, theirs) = pki(ClusterId::from_bytes([2; 16]));
    let (our_files, their_files) = (ours.node(node(1)).unwrap(), theirs.node(node(1)).unwrap());
    let required = ClientCertificates::Required;

    let client = ClientTls::load(&our_files, expect_nodes(&[1])).unwrap();
    let error = meet(&server(&their_files, required), &client, "localhost").await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");

    // A client that believes our CA, with a certificate of theirs.
    let mixed = TlsFiles { ca: ours.ca(), ..their_files.clone() };
    let client = ClientTls::load(&mixed, expect_nodes(&[1])).unwrap();
    let error = meet(&server(&our_files, required), &client, "localhost").await.unwrap_err();
    assert!(error.contains("UnknownCA") || error.contains("DecryptError") || error.contains("BadCertificate"), "{error}");

    // Both CAs are believed, but the cluster is another one.
    let both = both_cas(&ours, &theirs);
    let client = ClientTls::load(&TlsFiles { ca: both.clone(), ..their_files.clone() }, expect_nodes(&[1])).unwrap();
    let trusting = server(&TlsFiles { ca: both.clone(), ..our_files.clone() }, required);
    assert!(meet(&trusting, &client, "localhost").await.is_err());
    let client = ClientTls::load(&TlsFiles { ca: both, ..our_files }, expect_nodes(&[1])).unwrap();
    let error = meet(&server(&their_files, ClientCertificates::Optional), &client, "localhost").await.unwrap_err();
    assert!(error.contains("spiffe://02020202020202020202020202020202/node/1, which is not one of those expected"), "{error}");
}

fn both_cas(ours: &DevPki, theirs: &DevPki) -> PathBuf {
    let path = ours.ca().with_file_name("both.pem");
    fs::write(&path, [fs::read(ours.ca()).unwrap(), fs::read(theirs.ca()).unwrap()].concat()).unwrap();
    path
}

#[tokio::test]
async fn tls_reload_takes_effect_at_the_next_handshake() {
    let (_keep, pki) = pki(CLUSTER);
    let server = server(&pki.node(node(1)).unwrap(), ClientCertificates::Required);
    let client = ClientTls::load(&pki.node(node(101)).unwrap(), expect_nodes(&[2])).unwrap();
    assert!(meet(&server, &client, "localhost").await.is_err());
    server.reload(&pki.node(node(2)).unwrap()).unwrap();
    client.reload(&pki.node(node(102)).unwrap()).unwrap();
    assert_eq!(meet(&server, &client, "localhost").await.unwrap().unwrap().node(), Some(node(102)));
    // A bad file changes nothing.
    let bad = TlsFiles { cert: PathBuf::from("nowhere.pem"), ..pki.node(node(3)).unwrap() };
    assert_eq!(server.reload(&bad).unwrap_err().to_string(), "cannot read the certificates in nowhere.pem");
    assert_eq!(server.own().identity.node(), Some(node(2)));
}

/// Certificates that ended long ago.
fn expired_pki() -> (TempDir, DevPki) {
    let temporary = tempfile::tempdir().unwrap();
    let pki = DevPki::ensure(&temporary.path().join("pki"), CLUSTER, types::UnixMillis::new(1_600_000_000_000)).unwrap();
    (temporary, pki)
}

#[tokio::test]
async fn tls_expired_server_is_accepted_by_a_judge_that_says_so_alone() {
    let (_keep, pki) = expired_pki();
    let files = pki.node(node(1)).unwrap();
    let server = server(&files, ClientCertificates::Optional);
    let fingerprint = fingerprint(&pki);
    let refusing = [
        Expect::Node { cluster: CLUSTER, node: node(1) },
        Expect::Host { cluster: None },
        Expect::Authority { cluster: CLUSTER, fingerprint },
        expect_nodes(&[1]),
    ];
    for expect in refusing {
        let client = ClientTls::load(&files, expect).unwrap();
        let error = meet(&server, &client, "localhost").await.unwrap_err();
        assert!(error.to_lowercase().contains("expired"), "{error}");
    }
    let judge = |numbers: &[u64]| Expect::Judge(Arc::new(Nodes { numbers: numbers.to_vec(), expired: true }));
    let client = ClientTls::load(&files, judge(&[1])).unwrap();
    assert!(meet(&server, &client, "localhost").await.is_ok());
    let client = ClientTls::load(&files, judge(&[2])).unwrap();
    assert!(meet(&server, &client, "localhost").await.unwrap_err().contains("not one of those expected"));
}

#[tokio::test]
async fn tls_expired_node_connects_and_is_known_as_expired_but_an_expired_consumer_does_not() {
    let (_keep, old) = expired_pki();
    let ca = old.ca();
    let client = ClientTls::load(&old.node(node(101)).unwrap(), expect_nodes(&[1])).unwrap();
    let consumer = ConsumerRef::parse(AccountId::from_bytes([9; 16]), "worker/web").unwrap();
    let consumer = old.consumer(&consumer).unwrap();
    let expired = PeerCertificate::read_pem(&old.node(node(101)).unwrap().cert).unwrap();
    assert!(expired.is_expired(RealClock::new().wall()) && !expired.is_expired(expired.not_before));
    // The same CA, today: the server's own certificate is good.
    let pki = DevPki::ensure(ca.parent().unwrap(), CLUSTER, RealClock::new().wall()).unwrap();
    let server = server(&pki.node(node(1)).unwrap(), ClientCertificates::Optional);
    let seen = meet(&server, &client, "localhost").await.unwrap();
    assert_eq!(seen, Some(PeerIdentity::Node { cluster: CLUSTER, node: node(101) }));
    let consumer = ClientTls::load(&consumer, expect_nodes(&[1])).unwrap();
    let error = meet(&server, &consumer, "localhost").await.unwrap_err();
    assert!(error.to_lowercase().contains("expired"), "{error}");
}

fn fingerprint(pki: &DevPki) -> types::Hash {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    authority_fingerprint(&CertificateDer::from_pem_file(pki.ca()).unwrap()).unwrap()
}

#[tokio::test]
async fn tls_joining_believes_the_authority_of_its_fingerprint_alone() {
    let (_keep, pki) = pki(CLUSTER);
    let fingerprint = fingerprint(&pki);
    let optional = ClientCertificates::Optional;
    let right = server(&pki.node(node(1)).unwrap(), optional);
    let joining = ClientTls::joining(CLUSTER, fingerprint).unwrap();
    assert_eq!(meet(&right, &joining, "127.0.0.1").await, Ok(None));

    // Whoever else has a certificate of this CA, such as an edge that answers in a control node's place, is not shown the token.
    let error = meet(&right, &joining, "127.0.0.2").await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");

    let (_keep_too, other) = second_pki();
    let error = meet(&server(&other.node(node(1)).unwrap(), optional), &joining, "localhost").await.unwrap_err();
    assert!(error.contains("no CA with the join token's fingerprint"), "{error}");

    // A server that shows the right CA besides a certificate which that CA did not sign.
    let both = TlsFiles { cert: other.ca().with_file_name("mixed.pem"), ..other.node(node(1)).unwrap() };
    let leaf = fs::read(other.node(node(1)).unwrap().cert).unwrap();
    fs::write(&both.cert, [leaf, fs::read(pki.ca()).unwrap()].concat()).unwrap();
    let error = meet(&server(&both, optional), &joining, "localhost").await.unwrap_err();
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");

    let other_cluster = ClientTls::joining(ClusterId::from_bytes([2; 16]), fingerprint).unwrap();
    let error = meet(&right, &other_cluster, "localhost").await.unwrap_err();
    assert!(error.contains("the server belongs to cluster 01010101010101010101010101010101"), "{error}");

    let consumer = ConsumerRef::parse(AccountId::from_bytes([9; 16]), "worker/web").unwrap();
    let error = meet(&server(&pki.consumer(&consumer).unwrap(), optional), &joining, "localhost").await.unwrap_err();
    assert!(error.contains("the server's certificate is a consumer's"), "{error}");
}

#[test]
fn tls_files_that_do_not_fit_are_refused_by_name() {
    let (_keep, pki) = pki(CLUSTER);
    let (one, two) = (pki.node(node(1)).unwrap(), pki.node(node(2)).unwrap());
    let cases = [
        (TlsFiles { key: two.key.clone(), ..one.clone() }, "node-2.key is not usable"),
        (TlsFiles { cert: one.key.clone(), ..one.clone() }, "node-1.key holds no certificate in PEM form"),
        (TlsFiles { key: one.cert.clone(), ..one.clone() }, "node-1.pem holds no private key in PEM form"),
        (TlsFiles { cert: pki.ca(), ..one.clone() }, "ca.pem names no node or consumer"),
        (TlsFiles { ca: one.key.clone(), ..one.clone() }, "node-1.key holds no certificate in PEM form"),
        (TlsFiles { ca: PathBuf::from("nowhere.pem"), ..one }, "cannot read the certificates in nowhere.pem"),
    ];
    for (files, expected) in cases {
        let error = ServerTls::load(&files, ClientCertificates::Optional).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
