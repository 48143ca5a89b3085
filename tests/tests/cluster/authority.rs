//! P7 for a stolen control node: the certificate authority's key that it had is worth nothing once the cluster has replaced it.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use client::{Client, ClientError, Config, Identity, Retries, Tls};
use enrol::{CertifiedRole, Issuer, Leaf, NodeKey, Validity, certificates_pem};
use runtime::{
    RealClock, TokioSpawn,
    config::TlsFiles,
    listen::{AcceptLimits, accept_tls},
    tls::{ClientCertificates, ClientTls, Expect, PeerCertificate, PeerIdentity, ServerTls},
};
use seal::{NodeKeyPair, RecoveryKey};
use seams::Clock;
use state::Recipient;
use tests::process::{Cli, Fleet, Reader, Role, until};
use types::{ClusterId, ConsumerRef, NodeId, Position};
use wire::{ErrorKind, v1};

use crate::ground::{configured, context, contexts, text};

/// The certificate authority, as whoever took a control node's disk can use it.
struct Thief {
    issuer: Issuer,
    cluster: ClusterId,
    account: String,
    ca_pem: String,
    folder: tempfile::TempDir,
}

impl Thief {
    /// Opens the key with what lies on a node's disk. The record is read from an archive here; the thief has it in the node's own log.
    async fn rob(fleet: &Fleet, node: &str) -> Self {
        let file = fleet.folder().join("look.cbsnap");
        fleet.cli.ok(&["snapshot", "save", &text(&file), "--force"]).await;
        let recovery = RecoveryKey::parse(fs::read_to_string(fleet.recovery_key()).unwrap().trim()).unwrap();
        let origin = control::snapshots::Origin::RecoveryKey(recovery.public().signing);
        let state = control::snapshots::open(fs::File::open(file).unwrap(), recovery.opening(), origin).unwrap().state;
        let pair = NodeKeyPair::from_file_bytes(&fs::read(fleet.data(node).join("identity/envelope.key")).unwrap()).unwrap();
        let PeerIdentity::Node { cluster, node } = own(fleet, node).identity else { panic!("a node's certificate") };
        let authority = state.authority().unwrap().unwrap();
        let envelope = authority.envelope(Recipient::Node(node)).unwrap();
        let key = seal::open_authority(cluster, node, &pair, &envelope.bytes).unwrap();
        let issuer = Issuer::open(&authority.certificate, key.expose()).unwrap();
        let ca_pem = certificates_pem([authority.certificate.as_slice()]);
        let account = context(fleet).account.unwrap();
        Self { issuer, cluster, account, ca_pem, folder: tempfile::tempdir().unwrap() }
    }

    /// A certificate of its own making.
    fn forge(&self, name: &str, identity: &PeerIdentity, role: Option<CertifiedRole>) -> TlsFiles {
        let at = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        let files = TlsFiles { cert: at("pem"), key: at("key"), ca: at("ca") };
        let key = NodeKey::kept_or_new(&files.key).unwrap();
        let validity = Validity::lease(RealClock::new().wall(), Duration::from_secs(86_400));
        let leaf = Leaf { identity, role, public_key: &key.public_key(), names: &[], validity };
        fs::write(&files.cert, certificates_pem([self.issuer.issue(&leaf).unwrap().as_slice()])).unwrap();
        fs::write(&files.ca, &self.ca_pem).unwrap();
        files
    }

    /// The usual consumer, by a forged certificate, at a TLS port.
    fn consumer(&self, believes: String, at: &str) -> Client {
        let consumer = ConsumerRef::parse(self.account.parse().unwrap(), "worker/web").unwrap();
        let files = self.forge("web", &PeerIdentity::Consumer { cluster: self.cluster, consumer }, None);
        let identity =
            Identity { certificate_pem: fs::read_to_string(&files.cert).unwrap(), key_pem: fs::read_to_string(&files.key).unwrap().into() };
        let tls = Tls { ca_pem: believes, identity: Some(identity), server_name: None };
        Client::new(Config::tls([at], tls).retries(Retries::NONE)).unwrap()
    }

    async fn get(&self, client: &Client) -> Result<Vec<u8>, ClientError> {
        Reader::new(client.clone(), &self.account).get("A").await.map(|found| found.value)
    }

    /// A server that claims to be a control node; whoever believes it would show it tokens.
    async fn serve(&self) -> SocketAddr {
        let identity = PeerIdentity::Node { cluster: self.cluster, node: NodeId::new(4711) };
        let tls = ServerTls::load(&self.forge("server", &identity, Some(CertifiedRole::Control)), ClientCertificates::Optional).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let tasks = TokioSpawn::new(tokio::runtime::Handle::current(), Default::default());
        let limits = AcceptLimits::from(&runtime::config::ConnectionLimits::default());
        let mut accepted = accept_tls(listener, tls, limits, &tasks);
        tokio::spawn(async move { while futures::StreamExt::next(&mut accepted).await.is_some() {} });
        at
    }
}

/// What a node's certificate says.
fn own(fleet: &Fleet, node: &str) -> PeerCertificate {
    PeerCertificate::read_pem(&fleet.data(node).join("identity/node.pem")).unwrap()
}

/// Whether who believes what a node believes would speak with that server.
async fn believed(fleet: &Fleet, node: &str, server: SocketAddr) -> bool {
    let ca = fleet.data(node).join("identity/ca.pem");
    let tls = ClientTls::without_certificate(&ca, Expect::Host { cluster: None }).unwrap();
    tls.connect(&server.into()).await.is_ok()
}

/// Waits until an edge serves a secret from a state that is as new.
async fn until_read(fleet: &Fleet, edge: &str, name: &str, position: Position) {
    let reader = fleet.reader(edge);
    until(&format!("{edge} to serve {name}"), async || {
        reader.get_at(name, position).await.map(drop).map_err(|error| error.error.to_string())
    })
    .await;
}

async fn shown(fleet: &Fleet) -> serde_json::Value {
    fleet.cli.ok(&["--format", "json", "cluster", "ca", "show"]).await.json()
}

fn ca_text(file: &Path) -> String {
    cli::Contexts::load(file).unwrap().contexts.into_values().next().unwrap().ca
}

#[tokio::test(flavor = "multi_thread")]
async fn authority_of_a_stolen_control_node_is_replaced_by_its_revocation_and_then_believed_by_nobody() {
    let mut fleet = Fleet::start(3, 2).await;
    let operator = fleet.operator();
    operator.live(operator.create_bound("A", b"1").await).await;
    let thief = Thief::rob(&fleet, "control-3").await;
    let (edge, control) = (configured(&fleet, "edge-1", "grpc"), configured(&fleet, "control-1", "grpc"));
    let first = context(&fleet).ca;
    let server = thief.serve().await;
    let forged = thief.consumer(first.clone(), &edge);
    assert_eq!(thief.get(&forged).await.unwrap(), b"1", "before, whoever has the key is any consumer");
    for node in ["edge-1", "control-1"] {
        assert!(believed(&fleet, node, server).await, "{node} would believe its server");
    }
    // Another operator's context, which hears of nothing; and an edge that sleeps through it all.
    let elsewhere = fleet.folder().join("cli/elsewhere.toml");
    fs::copy(contexts(&fleet), &elsewhere).unwrap();
    fleet.stop("edge-2").await;
    let voided = fleet.token("edge-3", Role::Edge).await;

    if fleet.leader().await == "control-3" {
        fleet.cli.ok(&["cluster", "transfer", "control-1"]).await;
    }
    fleet.kill("control-3");
    fleet.cli.ok(&["cluster", "remove", "control-3", "--yes"]).await;
    fleet.cli.ok(&["node", "revoke", "control-3", "--yes"]).await;
    until("all nodes that are up to have new certificates", async || {
        let shown = shown(&fleet).await;
        let behind = shown["behind"].as_array().unwrap();
        if behind.len() == 1 && behind[0] == "edge-2" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let window = shown(&fleet).await;
    assert_eq!((&window["authorities"][0]["number"], &window["authorities"][1]["number"]), (&2.into(), &1.into()), "{window}");
    assert!(window["authorities"][1]["drop_by"].is_string(), "what may be stolen is believed for a bounded time: {window}");

    // While both are believed, all goes on, also for who knows the old one only; and whoever asks anything learns the new one.
    until_read(&fleet, "edge-1", "B", operator.create_bound("B", b"2").await).await;
    let other = Cli::new(&fleet.folder().join("cli"), &elsewhere);
    assert_eq!(ca_text(&elsewhere), first);
    other.ok(&["whoami"]).await;
    assert_ne!(ca_text(&elsewhere), first);
    assert_eq!(ca_text(&elsewhere), context(&fleet).ca);
    let listed = fleet.cli.ok(&["--format", "json", "node", "token", "list"]).await.json();
    let state = listed.as_array().unwrap().iter().find(|row| row["name"] == "edge-3").unwrap()["state"].clone();
    assert_eq!(state, "revoked", "a join token pins the old one: {}", voided.display());

    let early = fleet.cli.pipe(b"", &["cluster", "ca", "finish", "--yes"]).await;
    assert!(early.code != 0 && early.stderr.contains("edge-2"), "{early:?}");
    fleet.cli.ok(&["cluster", "ca", "finish", "--force", "--yes"]).await;
    let now = context(&fleet).ca;
    until("the stolen key to be worth nothing", async || {
        let open = thief.get(&forged).await;
        let fresh = thief.get(&thief.consumer(now.clone(), &edge)).await;
        let door = thief.consumer(now.clone(), &control).status(v1::ShowStatusRequest {}).await;
        let servers = [believed(&fleet, "edge-1", server).await, believed(&fleet, "control-1", server).await];
        let refused = |kind: Option<ErrorKind>| kind == Some(ErrorKind::Unavailable);
        let kinds =
            [open.map_err(|error| error.kind()).err(), fresh.map_err(|error| error.kind()).err(), door.map_err(|error| error.kind()).err()];
        if kinds.into_iter().all(refused) && servers == [false; 2] { Ok(()) } else { Err(format!("{kinds:?} {servers:?}")) }
    })
    .await;
    let last = operator.create_bound("C", b"3").await;
    until_read(&fleet, "edge-1", "C", last).await;

    // The sleeper's certificate is by a CA that nobody believes: its registered key lets it renew, and it follows again.
    fleet.start_node("edge-2").await;
    until_read(&fleet, "edge-2", "C", last).await;
    let end = shown(&fleet).await;
    assert_eq!((end["behind"].as_array().unwrap().len(), end["authorities"].as_array().unwrap().len()), (0, 1), "{end}");
    fleet.add_edge("edge-4").await;
}
