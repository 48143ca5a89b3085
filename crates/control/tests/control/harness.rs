//! A control node of one process on a real disk, socket and TLS, and the ways in: typed clients by token, bare channels by
//! certificate, and the log itself while the node is stopped.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use client::{Client, ClientError, Config, Retries, Tls, Token};
use consensus::{AuditLog, AuditOptions, Bootstrap, Consensus, Limits, Options, SledTables, Timing, Unconnected};
use control::{Control, ControlError, ControlOptions};
use enrol::{Founding, RecoveryKeys};
use feed::SigningKey;
use runtime::{
    OsEntropy, RealClock, RealDisk,
    config::{ControlConfig, Registered, RegisteredRole, TlsFiles},
    dev_pki::DevPki,
    telemetry::{Metrics, init_metrics},
    tls::{ClientTls, Expect, PeerCertificate},
};
use seal::{DekWrap, FileRoot, Kek, KekName, KeyRing, NodeKeyPair, OperatorToken, RecoveryKey, RootProvider, ValueContext, commitment};
use seams::{Clock, Entropy};
use state::{
    Command, CommandBody, Grant, InitCluster, NewNode, Origin, Principal, Recipient, State,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, SettingsRecord},
};
use store::{Drive, SledOptions};
use tonic::transport::Channel;
use types::{ClusterId, FeatureLevel, Hash, KekEpoch, KeyDomain, NodeId, StoreId, TokenId, Version};
use wire::{ErrorKind, v1};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
pub(crate) const CONTROL: NodeId = NodeId::new(1);
pub(crate) const EDGE: NodeId = NodeId::new(101);
/// The account that the tests work in.
pub(crate) const ACCOUNT: &str = "acme";
/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One recorder serves all tests of this process.
pub(crate) fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| init_metrics().unwrap()).clone()
}

/// The files of a node, and what outlives its restarts.
pub(crate) struct Ground {
    folder: tempfile::TempDir,
    pub(crate) pki: DevPki,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let pki = DevPki::ensure(&at("pki"), CLUSTER, RealClock::new().wall()).unwrap();
        FileRoot::create(&RealDisk, &OsEntropy, &at("root.key")).unwrap();
        runtime::write_secret_file(&at("signing.key"), &SigningKey::generate(&OsEntropy).to_file_bytes()).unwrap();
        runtime::write_secret_file(&at("node.key"), &NodeKeyPair::generate(&OsEntropy).unwrap().to_file_bytes()).unwrap();
        let ground = Self { folder, pki };
        let token = OperatorToken::generate(&OsEntropy);
        runtime::write_secret_file(&ground.at("operator.token"), token.text().expose().as_bytes()).unwrap();
        ground.write_founding(token.hash());
        ground
    }

    /// What `cluster init` leaves for the first start.
    pub(crate) fn write_founding(&self, operator_token: [u8; 32]) {
        std::fs::create_dir_all(self.data()).unwrap();
        let (authority_certificate, authority_key) = self.pki.authority().unwrap();
        let recovery = RecoveryKey::generate(&OsEntropy).unwrap().public();
        let recovery = RecoveryKeys { signing: recovery.signing, envelope: recovery.opening.encode(), first_set: Vec::new() };
        Founding { cluster: CLUSTER, operator_token, authority_certificate, authority_key, recovery }.write(&self.data()).unwrap();
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.at("data")
    }

    pub(crate) fn config(&self) -> ControlConfig {
        let mut config = ControlConfig::default();
        config.node.id = Some(CONTROL);
        config.node.data_dir = self.data();
        config.node.cluster = Some(CLUSTER);
        config.listen.grpc = "127.0.0.1:0".parse().unwrap();
        // The same at each start, as an address is that others go by.
        config.listen.advertise = Some("control-1.example:7400".parse().unwrap());
        config.listen.health = "127.0.0.1:0".parse().unwrap();
        config.tls = self.pki.node(CONTROL).unwrap();
        config.keys.root = self.at("root.key");
        config.keys.signing = self.at("signing.key");
        config.keys.node = self.at("node.key");
        config
    }

    /// The configuration with one edge registered.
    pub(crate) fn config_with_edge(&self) -> ControlConfig {
        let public = self.at("edge.pub");
        if !public.exists() {
            std::fs::write(&public, NodeKeyPair::generate(&OsEntropy).unwrap().public().encode()).unwrap();
        }
        let certificate = self.pki.node(EDGE).unwrap().cert;
        let name = "edge-1".parse().unwrap();
        let row = Registered { id: EDGE, name, role: RegisteredRole::Edge, certificate, envelope_key: Some(public) };
        ControlConfig { register: vec![row], ..self.config() }
    }

    pub(crate) async fn try_start(&self, config: ControlConfig) -> Result<Control, ControlError> {
        Control::start(ControlOptions::new(config, metrics())).await
    }

    pub(crate) async fn start(&self) -> Node<'_> {
        self.start_with(self.config()).await
    }

    pub(crate) async fn start_with(&self, config: ControlConfig) -> Node<'_> {
        self.node(self.try_start(config).await.unwrap())
    }

    /// A node that was started on these files.
    pub(crate) fn node(&self, control: Control) -> Node<'_> {
        Node { control, ground: self }
    }

    pub(crate) fn first_token(&self) -> String {
        std::fs::read_to_string(self.at("operator.token")).unwrap().trim().to_owned()
    }

    /// The log and state of a node that does not run.
    pub(crate) async fn log(&self) -> Log {
        let data = self.data();
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let options = Options {
            node: CONTROL,
            disk: Arc::new(RealDisk),
            folder: data.join("raft"),
            drive: Drive::Thread,
            tables: Some(Box::new(SledTables { folder: data.join("table"), options: SledOptions::default() })),
            clock: clock.clone(),
            transport: Arc::new(Unconnected),
            applied: Arc::new(()),
            audit: Arc::new(AuditLog::open(Arc::new(RealDisk), AuditOptions::new(data.join("audit"))).unwrap()),
            bootstrap: Some(Bootstrap::alone(CONTROL, "127.0.0.1:0")),
            timing: Timing::default(),
            limits: Limits::default(),
        };
        let consensus = Consensus::start(options).await.unwrap();
        consensus.recovered().await.unwrap();
        Log { consensus, clock }
    }

    /// Founds the cluster as a node does, with other settings; nothing of it can be configured.
    pub(crate) async fn found_with(&self, settings: SettingsRecord) {
        let root = FileRoot::open(&RealDisk, &self.at("root.key")).unwrap();
        let (domain, epoch) = (KeyDomain::global(), KekEpoch::new(1));
        let name = KekName { cluster: CLUSTER, domain: &domain, epoch };
        let kek = Kek::generate(&OsEntropy);
        let wrapped = root.wrap_kek(&OsEntropy, &name, &kek).unwrap().as_bytes().to_vec();
        let token = OperatorToken::generate(&OsEntropy);
        runtime::write_secret_file(&self.at("operator.token"), token.text().expose().as_bytes()).unwrap();
        let signing = SigningKey::from_file_bytes(&runtime::read_secret_file(&self.at("signing.key")).unwrap()).unwrap();
        let node = NodeKeyPair::from_file_bytes(&runtime::read_secret_file(&self.at("node.key")).unwrap()).unwrap();
        let certificate = PeerCertificate::read_pem(&self.pki.node(CONTROL).unwrap().cert).unwrap();
        let init = InitCluster {
            cluster: CLUSTER,
            settings,
            signers: vec![MemberKey { node: CONTROL, key: signing.public() }],
            threshold: 1,
            operator_token: token.hash(),
            operator_token_id: TokenId::from_bytes(OsEntropy.id()),
            operator: "first-operator".parse::<types::PrincipalName>().unwrap(),
            domain: domain.clone(),
            commitment: *commitment(&name, &kek).unwrap().as_bytes(),
            envelopes: vec![(Recipient::Root(root.root_key_id()), EnvelopeRecord { bytes: wrapped })],
            nodes: vec![NewNode {
                id: CONTROL,
                name: "control-1".parse().unwrap(),
                role: NodeRole::Control,
                public_key: certificate.public_key,
                envelope_key: node.public().encode(),
                labels: BTreeMap::new(),
                address: None,
                feature_level: FeatureLevel::new(1),
            }],
            authority: AuthorityRecord { certificate: vec![1], envelopes: Vec::new() },
            recovery: None,
        };
        let log = self.log().await;
        log.propose(Principal::System, CommandBody::InitCluster(Box::new(init))).await;
        log.close().await;
    }

    /// Makes operators' tokens in the first operator's name, for which the public API has no call yet. The node must be stopped.
    pub(crate) async fn operators<const N: usize>(&self, grants: [Vec<Grant>; N]) -> [String; N] {
        let first = Principal::Operator { token: OperatorToken::parse(&self.first_token()).unwrap().hash() };
        let log = self.log().await;
        let tokens = grants.each_ref().map(|_| OperatorToken::generate(&OsEntropy));
        for (token, grants) in tokens.iter().zip(grants) {
            let (id, hash) = (TokenId::from_bytes(OsEntropy.id()), token.hash());
            let name = "tester".parse().unwrap();
            log.propose(first, CommandBody::CreateOperatorToken { token: id, hash, name, grants, expires: None }).await;
        }
        log.close().await;
        tokens.map(|token| token.text().expose().to_owned())
    }
}

/// The log and state of a node that does not run.
pub(crate) struct Log {
    consensus: Consensus,
    clock: Arc<dyn Clock>,
}

impl Log {
    pub(crate) async fn propose(&self, principal: Principal, body: CommandBody) {
        let (level, stamp) = (FeatureLevel::new(1), self.clock.wall());
        self.consensus.propose(Command { level, principal, stamp, request: None, origin: Origin::default(), body }).await.unwrap();
    }

    pub(crate) fn state(&self) -> State {
        self.consensus.local()
    }

    pub(crate) async fn close(self) {
        self.consensus.shutdown().await;
    }

    /// Opens the value of one version with the root key, as an edge would that was handed the epoch.
    pub(crate) fn value(&self, ground: &Ground, store: StoreId, secret: &str, version: u64) -> Vec<u8> {
        let state = self.state();
        let root = FileRoot::open(&RealDisk, &ground.at("root.key")).unwrap();
        let (ring, domain) = (KeyRing::new(CLUSTER), KeyDomain::global());
        let epoch = state.active_kek_epoch(&domain).unwrap().unwrap();
        let envelope = state.envelope(&domain, epoch.n, Recipient::Root(root.root_key_id())).unwrap().unwrap();
        ring.unlock_kek(&root, &domain, epoch.n, &Hash::from_bytes(epoch.commitment), &envelope.bytes).unwrap();
        let (id, record) = state.secret_by_name(store, &secret.parse().unwrap()).unwrap().unwrap();
        let entry = record.versions.iter().find(|entry| entry.version == Version::new(version)).unwrap();
        let value = state.value(id, entry.value_id).unwrap().unwrap();
        let dek = state.dek(record.account, value.dek).unwrap().unwrap();
        let wrap = dek.wrap(&domain).unwrap();
        let context = ValueContext {
            account: record.account,
            store,
            secret: id,
            name: &record.name,
            value_id: entry.value_id,
            dek: value.dek,
            domain: &domain,
        };
        ring.open_value(&context, DekWrap { epoch: wrap.epoch, bytes: &wrap.bytes }, &value.sealed).unwrap().expose().to_vec()
    }
}

/// A running node.
pub(crate) struct Node<'a> {
    pub(crate) control: Control,
    ground: &'a Ground,
}

impl Node<'_> {
    /// The first operator: a super-administrator.
    pub(crate) fn operator(&self) -> Client {
        self.client(&self.ground.first_token())
    }

    /// The first operator's header.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.ground.first_token())
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        let ca_pem = std::fs::read_to_string(self.ground.pki.ca()).unwrap();
        let config = Config::tls([self.control.address().to_string()], Tls { ca_pem, ..Tls::default() });
        Client::new(config.token(Token::new(token.to_owned()).unwrap()).timeout(PATIENCE).retries(Retries::NONE)).unwrap()
    }

    /// A channel with a certificate or without, and no token.
    pub(crate) fn channel(&self, own: Option<&TlsFiles>) -> Channel {
        let expect = Expect::Node { cluster: CLUSTER, node: CONTROL };
        let tls = match own {
            Some(files) => ClientTls::load(files, expect).unwrap(),
            None => ClientTls::without_certificate(&self.ground.pki.ca(), expect).unwrap(),
        };
        tls.channel(&self.control.address().into())
    }

    pub(crate) async fn stop(self) {
        assert!(self.control.shutdown(PATIENCE).await, "everything ends in time");
    }
}

/// With an account and the store `default`.
pub(crate) async fn with_store(client: &Client) -> v1::Store {
    client.create_account(v1::CreateAccountRequest { name: ACCOUNT.into(), ..Default::default() }).await.unwrap();
    create_store(client, "default").await
}

pub(crate) async fn create_store(client: &Client, name: &str) -> v1::Store {
    let request = v1::CreateStoreRequest { account: ACCOUNT.into(), name: name.into(), ..Default::default() };
    client.create_store(request).await.unwrap().store.unwrap()
}

pub(crate) fn store(store: &str) -> Option<v1::StoreRef> {
    Some(v1::StoreRef { account: ACCOUNT.into(), store: store.into() })
}

/// A secret of the store `default`.
pub(crate) fn secret(secret: &str) -> Option<v1::SecretRef> {
    Some(v1::SecretRef { account: ACCOUNT.into(), store: "default".into(), secret: secret.into() })
}

pub(crate) fn worker(name: &str) -> Option<v1::ConsumerRef> {
    Some(v1::ConsumerRef { account: ACCOUNT.into(), kind: v1::ConsumerKind::Worker.into(), name: name.into() })
}

pub(crate) fn item(name: &str, value: impl Into<Vec<u8>>) -> v1::NewSecret {
    v1::NewSecret { name: name.into(), value: value.into(), scopes: vec!["workers".into()], comment: String::new() }
}

/// Creates secrets in the store `default`.
pub(crate) fn create(items: Vec<v1::NewSecret>) -> v1::CreateSecretsRequest {
    v1::CreateSecretsRequest { store: store("default"), secrets: items, ..Default::default() }
}

pub(crate) fn set(name: &str, value: impl Into<Vec<u8>>) -> v1::SetValueRequest {
    v1::SetValueRequest { secret: secret(name), value: value.into(), ..Default::default() }
}

pub(crate) fn delete(names: &[&str], force: bool) -> v1::DeleteSecretsRequest {
    let secrets = names.iter().map(|name| (*name).to_owned()).collect();
    v1::DeleteSecretsRequest { store: store("default"), secrets, force, request_id: String::new() }
}

pub(crate) fn bind(consumer: &str, name: &str, to: &str) -> v1::BindRequest {
    let target = secret(to).map(v1::bind_request::Target::Secret);
    v1::BindRequest { consumer: worker(consumer), name: name.into(), target, request_id: String::new() }
}

pub(crate) fn page(size: u32, token: String) -> Option<v1::Page> {
    Some(v1::Page { size, token })
}

pub(crate) async fn show(client: &Client, name: &str) -> Result<v1::Secret, ClientError> {
    client.show_secret(v1::ShowSecretRequest { secret: secret(name) }).await
}

pub(crate) async fn create_consumer(client: &Client, name: &str) {
    client.create_consumer(v1::CreateConsumerRequest { consumer: worker(name), request_id: String::new() }).await.unwrap();
}

/// The message of an error, which must be of this kind.
#[track_caller]
pub(crate) fn refused<T: fmt::Debug>(result: Result<T, ClientError>, kind: ErrorKind) -> String {
    let error = result.expect_err("must be refused");
    assert_eq!(error.kind(), kind, "{}", error.error);
    error.error.message
}

/// All bytes of all files below a folder, file by file.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found
}

/// Asks until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let search = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never: {what}"))
}
