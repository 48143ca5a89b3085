//! A control plane of one process: a state that `apply` judges, published over real TLS.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edge::{Edge, EdgeOptions, ensure_node_key};
use feed::{
    Acks, AcksOptions, Anchor, Handover, Inline, Publisher, PublisherOptions, PublisherParts, Session, SigningKey, serve_subscriber,
};
use futures::{Stream, future::BoxFuture};
use runtime::{
    OsEntropy, RealClock, TokioSpawn,
    config::{ConnectionLimits, EdgeConfig, PeerRule, TlsFiles},
    dev_pki::DevPki,
    listen::{AcceptLimits, Peer, accept_tls},
    telemetry::{Metrics, init_metrics},
    tls::{ClientCertificates, ClientTls, Expect, PeerCertificate, ServerTls},
};
use seal::{ConsumerToken, DekWrap, Kek, KekName, KeyRing, MintedDek, ValueContext, commitment};
use seams::{Clock, Entropy, Link, LinkClosed, RecvHalf, SendHalf};
use state::{
    Beginning, Command, CommandBody, InitCluster, NewDek, NewEpoch, NewNode, NewSecret, Origin, Principal, REVISIONS_SPARED, Recipient,
    SealedInput, Stage, State, begin_generation,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, RecoveryRecord, SettingsRecord, WrappedDek},
};
use tokio::{net::TcpListener, runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Channel};
use types::{
    AccountId, ClusterId, Comment, ConsumerRef, FeatureLevel, KekEpoch, KeyDomain, LogIndex, NodeId, Position, Revision, SecretId,
    SecretName, StoreId, TokenId, ValueId,
};
use wire::internal::{
    self as proto, SubscribeDown, SubscribeUp,
    feed_server::{Feed, FeedServer},
};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
pub(crate) const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
const STORE: StoreId = StoreId::from_bytes([0x51; 16]);
pub(crate) const CONTROL: NodeId = NodeId::new(1);
const EDGE: NodeId = NodeId::new(101);
const OPERATOR: [u8; 32] = [0x0e; 32];

fn domain() -> KeyDomain {
    KeyDomain::new("global").unwrap()
}

fn epoch() -> KekEpoch {
    KekEpoch::new(1)
}

/// One recorder serves all tests of this process.
fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| init_metrics().unwrap()).clone()
}

pub(crate) struct Plane {
    pub(crate) folder: tempfile::TempDir,
    clock: Arc<dyn Clock>,
    state: State,
    index: u64,
    ring: KeyRing,
    dek: Option<MintedDek>,
    publisher: Arc<Publisher>,
    /// Whether a subscription is answered by the status "revoked", as a control node does before it opens a stream.
    pub(crate) refusing: Arc<AtomicBool>,
    tls: ServerTls,
    address: SocketAddr,
    server: Option<TokioSpawn>,
    envelope: Vec<u8>,
    secrets: BTreeMap<String, SecretId>,
    pub(crate) token: ConsumerToken,
}

/// Hands every subscriber the edge's envelope: it opens with that edge's key alone.
struct Envelopes(Vec<u8>);

impl Handover for Envelopes {
    fn envelopes(&self, _state: &State, _node: NodeId) -> Vec<proto::Envelope> {
        vec![proto::Envelope { domain: domain().to_string(), epoch: epoch().get(), envelope: self.0.clone().into() }]
    }
}

impl Plane {
    /// With one account and store, the consumer `worker/web` and its token, served and known to one edge.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let pki = DevPki::ensure(&at("pki"), CLUSTER, clock.wall()).unwrap();
        let tls = ServerTls::load(&pki.node(CONTROL).unwrap(), ClientCertificates::Required).unwrap();

        let ring = KeyRing::new(CLUSTER);
        let kek = Kek::generate(&OsEntropy);
        let announced = commitment(&KekName { cluster: CLUSTER, domain: &domain(), epoch: epoch() }, &kek).unwrap();
        ring.install_kek(&domain(), epoch(), &announced, kek).unwrap();
        let node_key = ensure_node_key(&at("node.key"), &OsEntropy).unwrap();
        let envelope = ring.seal_envelope(&OsEntropy, &domain(), epoch(), EDGE, node_key.public()).unwrap();

        let signing = SigningKey::generate(&OsEntropy);
        let signers = vec![MemberKey { node: CONTROL, key: signing.public() }];
        let node = |id, name: &str, role, envelope_key| NewNode {
            id,
            name: name.parse().unwrap(),
            role,
            public_key: PeerCertificate::read_pem(&pki.node(id).unwrap().cert).unwrap().public_key,
            envelope_key,
            labels: BTreeMap::new(),
            address: None,
            feature_level: state::FEATURE_LEVEL_MAX,
        };
        let init = InitCluster {
            cluster: CLUSTER,
            settings: SettingsRecord::defaults(CLUSTER),
            signers,
            threshold: 1,
            operator_token: OPERATOR,
            operator_token_id: TokenId::from_bytes([1; 16]),
            operator: "operator".parse::<types::PrincipalName>().unwrap(),
            domain: domain(),
            commitment: *announced.as_bytes(),
            envelopes: vec![(Recipient::Node(EDGE), EnvelopeRecord { bytes: envelope.clone() })],
            nodes: vec![
                node(CONTROL, "control-1", NodeRole::Control, vec![]),
                node(EDGE, "edge-1", NodeRole::Edge, node_key.public().encode()),
            ],
            authority: AuthorityRecord { certificate: vec![1], envelopes: Vec::new() },
            recovery: Some(RecoveryRecord { signing_key: recovery_key().public(), envelope_key: vec![7; 1218], first_set: Vec::new() }),
        };
        let parts = publisher_parts(&clock, &envelope);
        let publisher = Publisher::new(PublisherOptions::new(CLUSTER, CONTROL), signing, parts, &State::empty());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let token = ConsumerToken::generate(&OsEntropy);
        let mut plane = Self {
            folder,
            clock,
            state: State::empty(),
            index: 0,
            ring,
            dek: None,
            publisher,
            refusing: Arc::default(),
            tls,
            address,
            server: None,
            envelope,
            secrets: BTreeMap::new(),
            token,
        };
        plane.commit(CommandBody::InitCluster(Box::new(init)));
        let first = plane.state.signer_set().unwrap().unwrap();
        std::fs::write(plane.folder.path().join("signers"), Anchor::of(CLUSTER, &first).first_signer_set.to_string()).unwrap();
        plane.commit(CommandBody::CreateAccount { account: ACCOUNT, name: "Acme".parse().unwrap() });
        plane.commit(CommandBody::CreateStore { account: ACCOUNT, store: STORE, name: "default".parse().unwrap() });
        plane.commit(CommandBody::CreateConsumer { consumer: consumer() });
        let (token, hash) = (TokenId::from_bytes([2; 16]), plane.token.hash());
        plane.commit(CommandBody::CreateConsumerToken { consumer: consumer(), token, hash, expires: None });
        plane.serve().await;
        plane
    }

    /// Applies a command and publishes what it changed.
    pub(crate) fn commit(&mut self, body: CommandBody) -> Position {
        let principal =
            if matches!(body, CommandBody::InitCluster(_)) { Principal::System } else { Principal::Operator { token: OPERATOR } };
        let (level, stamp) = (FeatureLevel::new(1), self.clock.wall());
        let command = Command { level, principal, stamp, request: None, origin: Origin::default(), body };
        self.index += 1;
        let applied = self.state.apply(LogIndex::new(self.index), &command).unwrap();
        let reply = applied.result.unwrap();
        self.publisher.applied(applied.change_set.as_slice(), &self.state);
        reply.position
    }

    /// Log time moves, and a checkpoint says so.
    pub(crate) fn tick(&mut self) {
        let stamp = self.clock.wall();
        let principal = Principal::Node { node: CONTROL };
        let command =
            Command { level: FeatureLevel::new(1), principal, stamp, request: None, origin: Origin::default(), body: CommandBody::Tick };
        self.index += 1;
        self.state.apply(LogIndex::new(self.index), &command).unwrap().result.unwrap();
        self.publisher.ticked(&self.state, self.state.last_time());
    }

    /// Creates the secret, or gives it another value.
    pub(crate) fn write(&mut self, name: &str, value: &str) -> Position {
        let mut new_dek = None;
        if self.dek.is_none() {
            let minted = self.ring.mint_dek(&OsEntropy, &domain(), epoch(), ACCOUNT).unwrap();
            let wraps = vec![WrappedDek { domain: domain(), epoch: epoch(), bytes: minted.wrapped.as_bytes().to_vec() }];
            new_dek = Some(NewDek { id: minted.id, wraps, replaces: None });
            self.dek = Some(minted);
        }
        let known = self.secrets.get(name).copied();
        let id = known.unwrap_or_else(|| SecretId::from_bytes(OsEntropy.id()));
        let name_of: SecretName = name.parse().unwrap();
        let value = self.seal(id, &name_of, value);
        self.secrets.insert(name.to_owned(), id);
        self.commit(match known {
            Some(secret) => CommandBody::SetValue {
                account: ACCOUNT,
                store: STORE,
                secret,
                value,
                expect: None,
                stage: Stage::Current,
                scopes: None,
                comment: None,
                new_dek,
            },
            None => {
                let scopes = ["workers".parse::<types::Scope>().unwrap()].into_iter().collect();
                let item = NewSecret { id, name: name_of, scopes, comment: Comment::new("").unwrap(), value };
                CommandBody::CreateSecrets { account: ACCOUNT, store: STORE, items: vec![item], new_dek }
            }
        })
    }

    fn seal(&self, secret: SecretId, name: &SecretName, value: &str) -> SealedInput {
        let dek = self.dek.as_ref().unwrap();
        let (domain, value_id) = (domain(), ValueId::from_bytes(OsEntropy.id()));
        let context = ValueContext { account: ACCOUNT, store: STORE, secret, name, value_id, dek: dek.id, domain: &domain };
        let wrap = DekWrap { epoch: epoch(), bytes: dek.wrapped.as_bytes() };
        let sealed = self.ring.seal_value(&OsEntropy, &context, wrap, value.as_bytes()).unwrap();
        SealedInput { value_id, dek: dek.id, domain, sealed }
    }

    pub(crate) fn bind(&mut self, variable: &str, secret: &str) -> Position {
        let target = state::record::BoundTo::Secret(self.secrets[secret]);
        self.commit(CommandBody::Bind { consumer: consumer(), name: variable.parse().unwrap(), store: STORE, target, replace: false })
    }

    pub(crate) fn unbind(&mut self, variable: &str) -> Position {
        self.commit(CommandBody::Unbind { consumer: consumer(), name: variable.parse().unwrap() })
    }

    /// Revokes the edge. Whatever is sealed from now on is beyond its keys.
    pub(crate) fn revoke(&mut self) {
        let kek = Kek::generate(&OsEntropy);
        let second = KekEpoch::new(2);
        let announced = commitment(&KekName { cluster: CLUSTER, domain: &domain(), epoch: second }, &kek).unwrap();
        let epochs = vec![NewEpoch { domain: domain(), epoch: second, commitment: *announced.as_bytes(), envelopes: Vec::new() }];
        self.commit(CommandBody::RevokeNode { node: EDGE, epochs, signer_set: None });
    }

    /// The state now, as a snapshot for people has it.
    pub(crate) fn copy(&self) -> State {
        self.state.clone()
    }

    /// Goes on from a copy in the next generation, with another signing key; `recovery` signs that it may. Nothing is served yet.
    pub(crate) fn recover(&mut self, copy: &State, recovery: &SigningKey) -> Position {
        let signing = SigningKey::generate(&OsEntropy);
        let beginning = Beginning {
            time: self.clock.wall(),
            above: Revision::new(copy.position().revision.get() + REVISIONS_SPARED),
            signers: vec![MemberKey { node: CONTROL, key: signing.public() }],
            threshold: 1,
            ..Beginning::default()
        };
        let begun = begin_generation(copy, &beginning, |bytes| recovery.sign_bytes(bytes)).unwrap();
        self.state = begun.state;
        self.index = self.state.applied_index().get();
        let parts = publisher_parts(&self.clock, &self.envelope);
        self.publisher = Publisher::new(PublisherOptions::new(CLUSTER, CONTROL), signing, parts, &self.state);
        self.state.position()
    }

    pub(crate) async fn serve(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let tasks = TokioSpawn::new(Handle::current(), CancellationToken::new());
        let incoming = accept_tls(listener, self.tls.clone(), AcceptLimits::from(&ConnectionLimits::default()), &tasks);
        let service = FeedServer::new(FeedService(self.publisher.clone(), tasks.token().clone(), self.refusing.clone()));
        let server = tonic::transport::Server::builder().add_service(service);
        let stop = tasks.token().clone().cancelled_owned();
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop));
        self.server = Some(tasks);
    }

    /// Cuts all streams and stops listening.
    pub(crate) async fn stop(&mut self) {
        self.server.take().unwrap().drain(Duration::from_secs(30)).await.unwrap();
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("edge")
    }

    pub(crate) fn pki(&self) -> DevPki {
        DevPki::ensure(&self.folder.path().join("pki"), CLUSTER, self.clock.wall()).unwrap()
    }

    pub(crate) fn config(&self, peer: Vec<PeerRule>) -> EdgeConfig {
        let at = |name: &str| self.folder.path().join(name);
        let mut config = EdgeConfig::default();
        config.node.id = Some(EDGE);
        config.node.name = "edge-1".parse().unwrap();
        config.node.data_dir = self.data();
        config.control.endpoints = vec![self.address.into()];
        config.control.reconnect_max = Duration::from_millis(200);
        config.listen.unix.path = at("edge.sock");
        config.listen.grpc = "127.0.0.1:0".parse().unwrap();
        config.listen.health = "127.0.0.1:0".parse().unwrap();
        config.tls = self.pki().node(EDGE).unwrap();
        config.keys.node = at("node.key");
        config.keys.signers = at("signers");
        config.peer = peer;
        config
    }

    pub(crate) async fn edge(&self) -> Edge {
        Edge::start(EdgeOptions::new(self.config(Vec::new()), metrics())).await.unwrap()
    }

    pub(crate) async fn edge_with(&self, peer: Vec<PeerRule>) -> Edge {
        Edge::start(EdgeOptions::new(self.config(peer), metrics())).await.unwrap()
    }
}

/// The offline recovery key.
pub(crate) fn recovery_key() -> SigningKey {
    SigningKey::generate(&seams::sim::SimEntropy::new(11))
}

fn publisher_parts(clock: &Arc<dyn Clock>, envelope: &[u8]) -> PublisherParts {
    PublisherParts {
        clock: clock.clone(),
        offload: Arc::new(Inline),
        handover: Arc::new(Envelopes(envelope.to_vec())),
        acks: Acks::new(AcksOptions::default(), clock.clone()),
    }
}

pub(crate) fn options(config: EdgeConfig) -> EdgeOptions {
    EdgeOptions::new(config, metrics())
}

pub(crate) fn consumer() -> ConsumerRef {
    ConsumerRef::parse(ACCOUNT, "worker/web").unwrap()
}

/// A channel over TLS, with a certificate or without.
pub(crate) fn tls_channel(address: SocketAddr, own: Option<&TlsFiles>, ca: &Path) -> Channel {
    let expect = Expect::Node { cluster: CLUSTER, node: EDGE };
    let tls = match own {
        Some(files) => ClientTls::load(files, expect).unwrap(),
        None => ClientTls::without_certificate(ca, expect).unwrap(),
    };
    tls.channel(&address.into())
}

#[derive(Clone)]
struct FeedService(Arc<Publisher>, CancellationToken, Arc<AtomicBool>);

type Frames = std::pin::Pin<Box<dyn Stream<Item = Result<SubscribeDown, Status>> + Send>>;

#[tonic::async_trait]
impl Feed for FeedService {
    type SubscribeStream = Frames;

    async fn subscribe(&self, request: Request<Streaming<SubscribeUp>>) -> Result<Response<Frames>, Status> {
        if self.2.load(Ordering::Acquire) {
            return Err(wire::PublicError::new(wire::ErrorKind::Revoked, "this node was revoked").into());
        }
        let node = request.extensions().get::<Peer>().and_then(Peer::identity).and_then(|identity| identity.node()).unwrap();
        let (sender, frames) = mpsc::channel(4);
        let link = Link { sender: Box::new(Down(sender)), receiver: Box::new(Up(request.into_inner())), peer: node.to_string() };
        let (publisher, stop) = (self.0.clone(), self.1.clone());
        tokio::spawn(async move { stop.run_until_cancelled(serve_subscriber(link, publisher, Session::new(node))).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }
}

struct Down(mpsc::Sender<Result<SubscribeDown, Status>>);

impl SendHalf<SubscribeDown> for Down {
    fn send(&mut self, message: SubscribeDown) -> BoxFuture<'_, Result<(), LinkClosed>> {
        Box::pin(async { self.0.send(Ok(message)).await.map_err(|_| LinkClosed { reason: "gone".into() }) })
    }
}

struct Up(Streaming<SubscribeUp>);

impl RecvHalf<SubscribeUp> for Up {
    fn recv(&mut self) -> BoxFuture<'_, Result<SubscribeUp, LinkClosed>> {
        Box::pin(async { self.0.message().await.ok().flatten().ok_or(LinkClosed { reason: "gone".into() }) })
    }
}
