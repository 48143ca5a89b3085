//! A cluster with development certificates: the first node founds it, the others were told of the first and wait to be added.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use client::{Client, Config, Retries, Tls, Token};
use consensus::{AuditLog, AuditOptions, Consensus, Limits, Options, SledTables, Timing, Unconnected};
use control::{Control, ControlOptions};
use enrol::{Founding, Peer, Peers, RecoveryKeys};
use feed::SigningKey;
use runtime::{
    OsEntropy, RealClock, RealDisk, TokioSpawn,
    config::{ConnectionLimits, ControlConfig},
    dev_pki::DevPki,
    listen::{AcceptLimits, accept_tls},
    telemetry::{Metrics, init_metrics},
    tls::{ClientCertificates, ClientTls, Expect, PeerCertificate, ServerTls},
};
use seal::{FileRoot, NodeKeyPair, OperatorToken, RecoveryKey};
use seams::{BoxFuture, Clock, Disk};
use state::{
    Command, CommandBody, NewNode, NewSignerSet, Origin, Principal, State,
    record::{MemberKey, NodeRole, SignerSetRecord},
};
use store::{Drive, SledOptions};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use types::{ClusterId, FeatureLevel, NodeId, UnixMillis};
use wire::v1;

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc3; 16]);
/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The account that the tests work in.
const ACCOUNT: &str = "acme";

/// One recorder serves all tests of this process.
fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| init_metrics().unwrap()).clone()
}

/// The files of all nodes.
pub(crate) struct Ground {
    folder: tempfile::TempDir,
    pki: DevPki,
    /// Where each node listens, by its number.
    ports: Vec<SocketAddr>,
    /// The feature level at which nodes that are started are held, as an older build would be.
    level: Mutex<Option<FeatureLevel>>,
    /// Nodes without the root key, and with another envelope key than the registry's: they open no key epoch.
    locked: Mutex<Vec<u64>>,
    /// The lease with which the cluster is founded, where it is not the usual one.
    lease: Option<Duration>,
    /// Log entries between two snapshot files.
    snapshot_entries: AtomicU64,
    /// How many milliseconds each node's wall clock is ahead, by its number.
    skews: Vec<Arc<AtomicI64>>,
}

/// This machine's clock, set wrong.
struct SkewedClock(RealClock, Arc<AtomicI64>);

impl Clock for SkewedClock {
    fn wall(&self) -> UnixMillis {
        UnixMillis::new(self.0.wall().get().saturating_add_signed(self.1.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}

impl Ground {
    /// Founds a cluster at node 1 and registers as many nodes as asked for.
    pub(crate) async fn new(nodes: u64) -> Self {
        Self::begun(nodes, None, None).await
    }

    /// As [`Ground::new`], with another lease.
    pub(crate) async fn leased(nodes: u64, lease: Duration) -> Self {
        Self::begun(nodes, None, Some(lease)).await
    }

    /// As [`Ground::new`], by nodes that know a feature level only.
    pub(crate) async fn held(nodes: u64, level: u32) -> Self {
        Self::begun(nodes, Some(FeatureLevel::new(level)), None).await
    }

    /// At which level nodes are held that are started from now on.
    pub(crate) fn hold(&self, level: Option<u32>) {
        *self.level.lock().unwrap() = level.map(FeatureLevel::new);
    }

    /// How often nodes that are started from now on write snapshot files.
    pub(crate) fn snapshots_every(&self, entries: u64) {
        self.snapshot_entries.store(entries, Ordering::Relaxed);
    }

    /// Sets a node's wall clock, also while it runs.
    pub(crate) fn set_clock(&self, node: u64, ahead_ms: i64) {
        self.skews[node as usize - 1].store(ahead_ms, Ordering::Relaxed);
    }

    /// Gives a node that does not run another port. Returns where it was.
    pub(crate) fn move_away(&mut self, node: u64) -> String {
        let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::mem::replace(&mut self.ports[node as usize - 1], other).to_string()
    }

    async fn begun(nodes: u64, level: Option<FeatureLevel>, lease: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = DevPki::ensure(&folder.path().join("pki"), CLUSTER, RealClock::new().wall()).unwrap();
        FileRoot::create(&RealDisk, &OsEntropy, &folder.path().join("root.key")).unwrap();
        // Held open together, so that the system gives different ones.
        let held: Vec<_> = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = held.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let ground = Self {
            folder,
            pki,
            ports,
            level: Mutex::new(level),
            locked: Mutex::default(),
            lease,
            snapshot_entries: AtomicU64::new(100_000),
            skews: (0..nodes).map(|_| Arc::default()).collect(),
        };
        for node in 1..=nodes {
            ground.prepare(node);
        }
        ground.found();
        drop(held);
        let first = ground.start(1).await;
        first.ready().await;
        first.stop().await;
        ground.register(nodes).await;
        ground
    }

    fn at(&self, node: u64, name: &str) -> PathBuf {
        self.folder.path().join(format!("node-{node}")).join(name)
    }

    fn prepare(&self, node: u64) {
        RealDisk.create_dir_all(&self.at(node, "data/identity")).unwrap();
        runtime::write_secret_file(&self.at(node, "signing.key"), &SigningKey::generate(&OsEntropy).to_file_bytes()).unwrap();
        runtime::write_secret_file(&self.at(node, "node.key"), &NodeKeyPair::generate(&OsEntropy).unwrap().to_file_bytes()).unwrap();
        if node > 1 {
            let first = Peer { node: NodeId::new(1), address: self.ports[0].to_string(), public_key: self.certificate(1).public_key };
            Peers(vec![first]).write(&self.at(node, "data/identity/peers")).unwrap();
        }
    }

    fn found(&self) {
        let recovery = RecoveryKey::generate(&OsEntropy).unwrap().public();
        let token = OperatorToken::generate(&OsEntropy);
        let (authority_certificate, authority_key) = self.pki.authority().unwrap();
        let founding = Founding {
            cluster: CLUSTER,
            operator_token: token.hash(),
            authority_certificate,
            authority_key,
            recovery: RecoveryKeys { signing: recovery.signing, envelope: recovery.opening.encode(), first_set: Vec::new() },
        };
        founding.write(&self.at(1, "data")).unwrap();
        runtime::write_secret_file(&self.folder.path().join("operator.token"), token.text().expose().as_bytes()).unwrap();
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("operator.token")).unwrap()
    }

    fn certificate(&self, node: u64) -> PeerCertificate {
        PeerCertificate::read_pem(&self.pki.node(NodeId::new(node)).unwrap().cert).unwrap()
    }

    /// What enrolment does: nodes 2 and up enter the registry. Node 1 must not run.
    async fn register(&self, nodes: u64) {
        let new = |node: u64| {
            let key = NodeKeyPair::from_file_bytes(&runtime::read_secret_file(&self.at(node, "node.key")).unwrap()).unwrap();
            NewNode {
                name: format!("control-{node}").parse().unwrap(),
                role: NodeRole::Control,
                envelope_key: key.public().encode(),
                address: Some(self.ports[node as usize - 1].to_string()),
                ..self.new_edge(node)
            }
        };
        self.enter((2..=nodes).map(new).collect()).await;
    }

    /// Edges enter the registry. Node 1 must not run.
    pub(crate) async fn register_edges(&self, edges: &[u64]) {
        self.enter(edges.iter().map(|edge| self.new_edge(*edge)).collect()).await;
    }

    fn new_edge(&self, node: u64) -> NewNode {
        NewNode {
            id: NodeId::new(node),
            name: format!("edge-{node}").parse().unwrap(),
            role: NodeRole::Edge,
            public_key: self.certificate(node).public_key,
            envelope_key: NodeKeyPair::generate(&OsEntropy).unwrap().public().encode(),
            labels: Default::default(),
            address: None,
            feature_level: FeatureLevel::new(1),
        }
    }

    async fn enter(&self, nodes: Vec<NewNode>) {
        self.command(nodes.into_iter().map(|node| CommandBody::RegisterNode { node }).collect()).await;
    }

    /// What enrolment of control nodes also does: all of them sign the feed. Node 1 must not run.
    pub(crate) async fn let_all_sign(&self) {
        let key = |node: u64| SigningKey::from_file_bytes(&runtime::read_secret_file(&self.at(node, "signing.key")).unwrap()).unwrap();
        let members = (1..=self.ports.len() as u64).map(|node| MemberKey { node: NodeId::new(node), key: key(node).public() });
        let mut set = SignerSetRecord { version: 2, threshold: 1, keys: members.collect(), signatures: Vec::new() };
        let signature = feed::sign_signer_set(&key(1), NodeId::new(1), CLUSTER, &set);
        set.signatures.push(signature);
        let SignerSetRecord { version, threshold, keys, signatures } = set;
        self.command(vec![CommandBody::SetSignerSet { set: NewSignerSet { version, threshold, keys, signatures } }]).await;
    }

    /// Commands of the first operator, straight into node 1's log.
    async fn command(&self, bodies: Vec<CommandBody>) -> State {
        let data = self.at(1, "data");
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let options = Options {
            node: NodeId::new(1),
            disk: Arc::new(RealDisk),
            folder: data.join("raft"),
            drive: Drive::Thread,
            tables: Some(Box::new(SledTables { folder: data.join("table"), options: SledOptions::default() })),
            clock: clock.clone(),
            transport: Arc::new(Unconnected),
            applied: Arc::new(()),
            audit: Arc::new(AuditLog::open(Arc::new(RealDisk), AuditOptions::new(data.join("audit"))).unwrap()),
            bootstrap: None,
            timing: Timing::default(),
            limits: Limits::default(),
        };
        let log = Consensus::start(options).await.unwrap();
        for body in bodies {
            let command = Command {
                level: FeatureLevel::new(1),
                principal: Principal::Operator { token: OperatorToken::parse(&self.token()).unwrap().hash() },
                stamp: clock.wall(),
                request: None,
                origin: Origin::default(),
                body,
            };
            log.propose(command).await.unwrap();
        }
        let state = log.local();
        log.shutdown().await;
        state
    }

    /// Takes a node's keys away. It must not run.
    pub(crate) fn lock(&self, node: u64) {
        std::fs::remove_file(self.at(node, "node.key")).unwrap();
        runtime::write_secret_file(&self.at(node, "node.key"), &NodeKeyPair::generate(&OsEntropy).unwrap().to_file_bytes()).unwrap();
        self.locked.lock().unwrap().push(node);
    }

    /// What node 1 holds. It must not run.
    pub(crate) async fn state(&self) -> State {
        self.command(Vec::new()).await
    }

    fn config(&self, node: u64) -> ControlConfig {
        let mut config = ControlConfig::default();
        config.node.name = format!("control-{node}").parse().unwrap();
        config.node.data_dir = self.at(node, "data");
        config.node.cluster = Some(CLUSTER);
        config.listen.grpc = self.ports[node as usize - 1];
        config.listen.health = "127.0.0.1:0".parse().unwrap();
        config.tls = self.pki.node(NodeId::new(node)).unwrap();
        config.limits.snapshot_entries = self.snapshot_entries.load(Ordering::Relaxed);
        config.keys.root = self.folder.path().join("root.key");
        config.keys.signing = self.at(node, "signing.key");
        config.keys.node = self.at(node, "node.key");
        if self.locked.lock().unwrap().contains(&node) {
            config.keys.root = self.at(node, "none.key");
        }
        config.cluster.lease = self.lease.unwrap_or(config.cluster.lease);
        config
    }

    /// Starts a node: its port is open on return.
    pub(crate) async fn start(&self, node: u64) -> Node {
        self.try_start(node).await.unwrap()
    }

    /// The same, or why it did not start, with all causes.
    pub(crate) async fn try_start(&self, node: u64) -> Result<Node, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let level_max = *self.level.lock().unwrap();
        let clock = Arc::new(SkewedClock(RealClock::new(), self.skews[node as usize - 1].clone()));
        let options = ControlOptions { level_max, clock, ..ControlOptions::new(self.config(node), metrics()) };
        let handle = runtime.handle().clone();
        let control = tokio::task::spawn_blocking(move || handle.block_on(Control::start(options))).await.unwrap();
        let text = |error: control::ControlError| {
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        };
        let control = match control {
            Ok(control) => control,
            Err(error) => {
                runtime.shutdown_background();
                return Err(text(error));
            }
        };
        Ok(Node { control, runtime: Some(runtime) })
    }

    /// Starts nodes 1 to 3, all of them voters on return.
    pub(crate) async fn three(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for node in 1..=3 {
            nodes.push(self.start(node).await);
        }
        nodes[0].ready().await;
        let operator = self.client(&[1]);
        for node in [2, 3] {
            self.grow(&operator, node).await;
        }
        for node in &nodes {
            node.ready().await;
        }
        nodes
    }

    /// Adds a node and makes it a voter.
    pub(crate) async fn grow(&self, operator: &Client, node: u64) {
        let name = format!("control-{node}");
        operator.cluster_add(v1::ClusterAddRequest { node: name.clone(), address: String::new() }).await.unwrap();
        operator.cluster_promote(v1::ClusterPromoteRequest { node: name }).await.unwrap();
    }

    /// The first operator, at these nodes in turn.
    pub(crate) fn client(&self, nodes: &[u64]) -> Client {
        self.client_with(nodes, self.token())
    }

    /// The holder of a token, at these nodes in turn.
    pub(crate) fn client_with(&self, nodes: &[u64], token: String) -> Client {
        Client::new(self.reaching(nodes, token)).unwrap()
    }

    /// The first operator, who asks one node once.
    pub(crate) fn once(&self, node: u64) -> Client {
        Client::new(self.reaching(&[node], self.token()).retries(Retries::NONE)).unwrap()
    }

    fn reaching(&self, nodes: &[u64], token: String) -> Config {
        let ca_pem = std::fs::read_to_string(self.pki.ca()).unwrap();
        let at = nodes.iter().map(|node| self.ports[*node as usize - 1].to_string());
        let config = Config::tls(at, Tls { ca_pem, ..Tls::default() });
        config.token(Token::new(token).unwrap()).timeout(PATIENCE)
    }

    /// A channel to `node` with the certificate of `edge`.
    pub(crate) fn channel(&self, edge: u64, node: u64) -> Channel {
        let expect = Expect::Node { cluster: CLUSTER, node: NodeId::new(node) };
        let tls = ClientTls::load(&self.pki.node(NodeId::new(edge)).unwrap(), expect).unwrap();
        tls.channel(&self.ports[node as usize - 1].into())
    }

    /// Serves something else in the place of a node that does not run, under its name and at its port.
    pub(crate) async fn stand_in<S>(&self, node: u64, service: S) -> StandIn
    where
        S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>, Error = std::convert::Infallible>,
        S: tonic::server::NamedService + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let tls = ServerTls::load(&self.pki.node(NodeId::new(node)).unwrap(), ClientCertificates::Required).unwrap();
        let at = self.ports[node as usize - 1];
        let bind = async move {
            loop {
                match tokio::net::TcpListener::bind(at).await {
                    Ok(listener) => return listener,
                    // The node that was killed gives its port back when its threads have ended.
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serving = runtime.spawn(async move {
            let listener = tokio::time::timeout(PATIENCE, bind).await.expect("the port is given back");
            let tasks = TokioSpawn::new(Handle::current(), CancellationToken::new());
            let incoming = accept_tls(listener, tls, AcceptLimits::from(&ConnectionLimits::default()), &tasks);
            tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        });
        serving.await.unwrap();
        StandIn(Some(runtime))
    }

    pub(crate) fn data(&self, node: u64) -> PathBuf {
        self.at(node, "data")
    }
}

/// What stands in for a node. When it is dropped, its connections end as those of a node that is killed.
pub(crate) struct StandIn(Option<tokio::runtime::Runtime>);

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A node on threads of its own, as a process has them.
pub(crate) struct Node {
    pub(crate) control: Control,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Node {
    pub(crate) async fn ready(&self) {
        tokio::time::timeout(PATIENCE, self.control.ready()).await.expect("it gets ready").unwrap();
    }

    pub(crate) async fn stop(self) {
        assert!(self.control.shutdown(PATIENCE).await, "everything ends in time");
    }

    /// Its tasks are dropped where they stand, its sockets closed: nothing is handed over, nobody is told.
    pub(crate) fn kill(self) {}
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The number of the node that leads, as one of them sees it.
#[expect(clippy::disallowed_methods, reason = "whole nodes run in the real world")]
pub(crate) async fn leader(operator: &Client) -> u64 {
    loop {
        let reply = operator.cluster_members(v1::ClusterMembersRequest {}).await.unwrap();
        if let Some(leader) = reply.members.iter().find(|member| member.leader) {
            return leader.node_id;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// With an account and the store `default`.
pub(crate) async fn with_store(operator: &Client) {
    operator.create_account(v1::CreateAccountRequest { name: ACCOUNT.into(), ..Default::default() }).await.unwrap();
    let request = v1::CreateStoreRequest { account: ACCOUNT.into(), name: "default".into(), ..Default::default() };
    operator.create_store(request).await.unwrap();
}

/// Creates a secret in the store `default`.
pub(crate) fn create(name: &str) -> v1::CreateSecretsRequest {
    let item = v1::NewSecret { name: name.into(), value: b"value".to_vec(), scopes: vec!["workers".into()], comment: String::new() };
    let store = Some(v1::StoreRef { account: ACCOUNT.into(), store: "default".into() });
    v1::CreateSecretsRequest { store, secrets: vec![item], ..Default::default() }
}

/// Whether a secret is there.
pub(crate) async fn holds(operator: &Client, name: &str) -> bool {
    operator.show_secret(show(name)).await.is_ok()
}

/// Asks for a secret of the store `default`.
pub(crate) fn show(name: &str) -> v1::ShowSecretRequest {
    v1::ShowSecretRequest { secret: Some(v1::SecretRef { account: ACCOUNT.into(), store: "default".into(), secret: name.into() }) }
}

/// Removes a folder and all in it.
pub(crate) fn wipe(folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
}

/// Waits for something that comes about by itself.
#[expect(clippy::disallowed_methods, reason = "whole nodes run in the real world")]
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Changes the comment of a secret of the store `default`.
pub(crate) fn comment(name: &str, comment: &str) -> v1::EditSecretRequest {
    v1::EditSecretRequest { secret: show(name).secret, comment: Some(comment.into()), ..Default::default() }
}
