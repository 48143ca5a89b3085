//! Starting, running and stopping a control node.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use consensus::{Applied, AuditLog, Bootstrap, Consensus, Limits, Options, SledTables, StopReason, Timing};
use feed::{Acks, AcksOptions, Publisher, PublisherOptions, PublisherParts, SigningKey, WindowLimits};
use runtime::{
    DataLock, DataLockError, TokioSpawn,
    config::{ConnectionLimits, ControlConfig},
    health::{self, Readiness},
    listen::{AcceptLimits, TlsConnection, accept_tls},
    tls::{ClientCertificates, PeerIdentity, ServerTls},
};
use seal::{FileRoot, KeyRing};
use seams::Spawn;
use state::{ChangeSet, NewNode, State, record::SettingsRecord};
use store::{Drive, SledOptions};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use types::{ClusterId, KeyDomain, NodeId, UnixMillis};
use wire::{
    FEED_MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX,
    internal::{feed_server::FeedServer, peers_server::PeersServer},
    v1,
};

use crate::{
    bootstrap::{self, BootstrapError, Founding},
    core::{Core, counts},
    door::{self, Door},
    housekeeping,
    keys::{self, Envelopes, UnlockError},
    marks,
    options::{ControlOptions, Observer},
    recent::Recent,
    services::{FeedService, Services},
    watermarks::{self, Exchange, PeersService, Standings},
};

/// HTTP/2 windows: a stream's, and a connection's.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Nodes that are read in one go.
const NODES_AT_A_TIME: usize = 1000;
/// How long open connections get to end by themselves when the node stops; a stream that a client leaves open ends then.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(3);
/// A silent connection is asked whether it lives this often.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why a control node did not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file or port that the configuration names.
    #[error("cannot {operation} {what}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of keys.
    #[error("cannot use the key file {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate names somebody else than the configuration.
    #[error("the certificate {} is for {certificate}, the configuration for {configured}: give the node the certificate made for it", path.display())]
    Identity {
        /// The certificate.
        path: PathBuf,
        /// Whom it names.
        certificate: String,
        /// Whom the configuration names.
        configured: String,
    },
    /// TLS.
    #[error("cannot set up TLS")]
    Tls(#[from] runtime::tls::TlsError),
    /// The audit log's files.
    #[error("cannot open the audit log")]
    Audit(#[source] store::LogError),
    /// Consensus.
    #[error("cannot start consensus")]
    Consensus(#[from] consensus::StartError),
    /// The log could not be replayed.
    #[error("cannot replay the log")]
    Replay(#[from] consensus::ReadError),
    /// The data belongs to another cluster.
    #[error("the data in {} is of cluster {held}, the certificate of cluster {certificate}: point the node to its own data", path.display())]
    OtherCluster {
        /// The folder.
        path: PathBuf,
        /// The data's cluster.
        held: ClusterId,
        /// The certificate's cluster.
        certificate: ClusterId,
    },
    /// Founding or registering.
    #[error("cannot bring the cluster up")]
    Bootstrap(#[from] BootstrapError),
    /// The data folder is another process's.
    #[error(transparent)]
    Lock(#[from] DataLockError),
    /// Unlocking.
    #[error("cannot unlock with this root key")]
    Unlock(#[from] UnlockError),
}

/// A running control node.
pub struct Control {
    core: Arc<Core>,
    address: SocketAddr,
    health: SocketAddr,
    readiness: Readiness,
    _lock: DataLock,
}

impl Control {
    /// Starts the node and returns when it serves.
    ///
    /// # Errors
    /// [`ControlError`], naming the file, port or key that stands in the way.
    pub async fn start(options: ControlOptions) -> Result<Self, ControlError> {
        let ControlOptions { config, clock, entropy, disk, metrics, observer } = options;
        let tasks = Arc::new(TokioSpawn::new(tokio::runtime::Handle::current(), CancellationToken::new()));
        let readiness = Readiness::new();
        let (health, health_listener) = listen(config.listen.health, "health").await?;
        let health_task = health::serve(health_listener, readiness.clone(), metrics, tasks.token().clone());
        tasks.spawn("health", Box::pin(async move { log_end("health", health_task.await) }));

        let tls = ServerTls::load(&config.tls, ClientCertificates::Optional)?;
        let cluster = own_cluster(&config, &tls)?;
        let register = bootstrap::vouched_for(&config, &tls.own())?;
        let root = FileRoot::open(&*disk, &config.keys.root).map_err(key(&config.keys.root))?;
        let signing = read_key(&config.keys.signing, SigningKey::from_file_bytes)?;
        let signing_public = signing.public();
        let ring = Arc::new(KeyRing::with_cache(cluster, config.limits.deks_cached_max));

        let recent = Arc::new(Recent::default());
        let publisher = publisher(&config, cluster, signing, &clock);
        if let Some(observer) = observer.clone() {
            publisher.acks().on_acknowledged(move |node, position| observer.acknowledged(node, position));
        }
        let data = &config.node.data_dir;
        disk.create_dir_all(data).map_err(|source| ControlError::Io { operation: "create", what: data.display().to_string(), source })?;
        let sled = SledOptions { cache_bytes: config.limits.table_cache_bytes.bytes(), ..SledOptions::default() };
        let lock = DataLock::acquire(data)?;
        let audit = AuditLog::open(disk.clone(), data.join("audit"), Drive::Thread).map_err(ControlError::Audit)?;
        let consensus = Consensus::start(Options {
            node: config.node.id,
            disk,
            folder: data.join("raft"),
            drive: Drive::Thread,
            tables: Some(Box::new(SledTables { folder: data.join("table"), options: sled })),
            clock: clock.clone(),
            transport: Arc::new(consensus::Unconnected),
            applied: Arc::new(Glue { publisher: publisher.clone(), recent: recent.clone(), observer }),
            audit: Arc::new(audit),
            bootstrap: Some(Bootstrap::alone(config.node.id, config.listen.grpc.to_string())),
            timing: Timing::default(),
            limits: Limits {
                proposals_max: config.limits.proposals_queued_max,
                snapshot_entries: config.limits.snapshot_entries,
                segment_bytes: config.limits.log_segment_bytes.bytes(),
                ..Limits::default()
            },
        })
        .await?;
        let core = Arc::new(Core {
            cluster,
            node: config.node.id,
            name: config.node.name.clone(),
            domain: KeyDomain::global(),
            consensus,
            ring,
            publisher,
            recent,
            standings: Arc::new(Standings::default()),
            clock,
            entropy,
            tasks: tasks.clone(),
            changes: Arc::new(Semaphore::new(config.limits.proposals_queued_max)),
            request_timeout: config.connections.request_timeout,
        });
        let parts = Parts { config: &config, tls, root, signing_key: signing_public, register: &register, readiness: &readiness };
        match Self::bring_up(&core, parts).await {
            Ok(address) => {
                tracing::info!(node = %core.node, %address, %health, position = %core.consensus.local().position(), "the control node serves");
                Ok(Self { core, address, health, readiness, _lock: lock })
            }
            Err(error) => {
                // What was started ends before the folder's lock is let go.
                let _ = core.tasks.drain(config.shutdown.deadline).await;
                core.consensus.shutdown().await;
                Err(error)
            }
        }
    }

    /// From a replayed log to an open door: founds or recognises the cluster, unlocks, registers, serves.
    async fn bring_up(core: &Arc<Core>, parts: Parts<'_>) -> Result<SocketAddr, ControlError> {
        let Parts { config, tls, root, signing_key, register, readiness } = parts;
        let (replayed, unlocked, serving) = (readiness.check("log replayed"), readiness.check("keys unlocked"), readiness.check("serving"));
        core.consensus.recovered().await?;
        replayed.ready();
        match core.consensus.local().settings().map_err(UnlockError::Read)? {
            Some(settings) if settings.cluster != core.cluster => {
                let path = config.node.data_dir.clone();
                return Err(ControlError::OtherCluster { path, held: settings.cluster, certificate: core.cluster });
            }
            Some(_) => bootstrap::finish_founding(&config.cluster.operator_token)?,
            None => {
                let settings = SettingsRecord {
                    edge_offline_max_ms: config.cluster.edge_offline_max.duration().map(|duration| duration.as_millis() as u64),
                    lease_ms: config.cluster.lease.as_millis() as u64,
                    ..SettingsRecord::defaults(core.cluster)
                };
                let operator_token = &config.cluster.operator_token;
                bootstrap::found(core, Founding { signing_key, settings, root: &root, nodes: register, operator_token }).await?;
            }
        }
        // A node without the right root key serves metadata and the stream, and says that it is locked.
        match keys::unlock(&core.ring, &root, &core.domain, &core.consensus.local()) {
            Ok(()) => unlocked.ready(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "this node stays locked: it seals no value");
                unlocked.not_ready("locked: the log says why");
            }
        }
        // The root key was needed for unlocking only (P10).
        drop(root);
        bootstrap::register(core, register).await?;
        core.publisher.acks().expect(edges(&core.consensus.local())?);
        let file = config.node.data_dir.join("marks");
        marks::restore(&core.publisher, &file);
        core.tasks.spawn("keep marks", Box::pin(marks::keep(core.clone(), file)));
        core.tasks.spawn("housekeeping", Box::pin(housekeeping::run(core.clone())));

        let exchange = Exchange::of(core, tls.clone());
        let listening = watermarks::listen(exchange.clone(), Arc::new(()), core.entropy.clone(), core.tasks.token().clone());
        core.tasks.spawn("listen to control nodes", Box::pin(listening));
        let (address, listener) = listen(config.listen.grpc, "gRPC").await?;
        let connections = accept_tls(listener, tls, AcceptLimits::from(&config.connections), &core.tasks);
        let server = serve(core.clone(), exchange, connections, config.connections.clone());
        core.tasks.spawn("grpc", Box::pin(async move { log_end("gRPC", server.await) }));
        serving.ready();
        let voter = core.clone();
        core.tasks.spawn(
            "watch the voter",
            Box::pin(async move {
                let cancelled = voter.tasks.token().clone();
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => serving.not_ready("shutting down"),
                    reason = voter.consensus.stopped() => {
                        tracing::error!(%reason, "the voter stopped; this node takes no writes until it is started again");
                        serving.not_ready("the voter stopped: the log says why");
                    }
                }
            }),
        );
        Ok(address)
    }

    /// Where gRPC listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are read.
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    /// Whether the node is ready, and if not, why.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The newest position that this node has applied.
    pub fn position(&self) -> types::Position {
        self.core.consensus.local().position()
    }

    /// Completes when the voter stops by itself, with the reason: the process should end.
    pub async fn stopped(&self) -> StopReason {
        self.core.consensus.stopped().await
    }

    /// Refuses new work, ends streams, waits for what was accepted up to `deadline`, then stops the voter and its disk threads.
    /// Says whether everything ended in time.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let drained = self.core.tasks.drain(deadline).await;
        if let Err(undrained) = &drained {
            tracing::warn!(?undrained, "not everything ended in time");
        }
        self.core.consensus.shutdown().await;
        drained.is_ok()
    }
}

/// What brings a node up, beside what operations share.
struct Parts<'a> {
    config: &'a ControlConfig,
    tls: ServerTls,
    root: FileRoot,
    signing_key: [u8; 32],
    register: &'a [NewNode],
    readiness: &'a Readiness,
}

/// The edges in the registry.
fn edges(state: &State) -> Result<Vec<NodeId>, UnlockError> {
    let (mut edges, mut after) = (Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), NODES_AT_A_TIME)?;
        edges.extend(page.items.iter().map(|(node, _)| *node).filter(|node| counts(state, *node)));
        after = page.next;
        if after.is_none() {
            return Ok(edges);
        }
    }
}

/// Hands what was applied to those who follow.
struct Glue {
    publisher: Arc<Publisher>,
    recent: Arc<Recent>,
    observer: Option<Arc<dyn Observer>>,
}

impl Applied for Glue {
    fn replaced(&self, state: &State) {
        self.recent.start_at(state.position());
        self.publisher.replaced(state);
    }

    fn applied(&self, sets: &[Arc<ChangeSet>], state: &State) {
        if let Some(observer) = self.observer.as_ref().filter(|_| !sets.is_empty()) {
            observer.applied(state.position());
        }
        for set in sets {
            self.recent.applied(set);
        }
        self.publisher.applied(sets, state);
        metrics::gauge!("cinnabar_control_revision").set(state.position().revision.get() as f64);
    }

    fn ticked(&self, state: &State, time: UnixMillis) {
        self.publisher.ticked(state, time);
    }
}

fn publisher(config: &ControlConfig, cluster: ClusterId, signing: SigningKey, clock: &Arc<dyn seams::Clock>) -> Arc<Publisher> {
    let mut options = PublisherOptions::new(cluster, config.node.id);
    options.window = WindowLimits { bytes_max: config.limits.window_bytes.bytes() as usize, ..options.window };
    options.subscribers_max = config.limits.subscribers_max;
    options.cuts_max = config.limits.snapshots_sent_max;
    let parts = PublisherParts {
        clock: clock.clone(),
        offload: Arc::new(Blocking),
        handover: Arc::new(Envelopes),
        acks: Acks::new(AcksOptions::default(), clock.clone()),
    };
    Publisher::new(options, signing, parts, &State::empty())
}

/// Runs the feed's heavy work on tokio's threads for blocking work.
struct Blocking;

impl feed::Offload for Blocking {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
}

async fn serve(
    core: Arc<Core>,
    exchange: Arc<Exchange>,
    connections: ReceiverStream<io::Result<TlsConnection>>,
    limits: ConnectionLimits,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let services = Services(core.clone());
    let door = Door(core.clone());
    let secrets = v1::secrets_server::SecretsServer::new(services.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let feed = FeedServer::new(FeedService(core.clone()))
        .max_decoding_message_size(FEED_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(FEED_MESSAGE_BYTES_MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<v1::secrets_server::SecretsServer<Services>>().await;
    let cancelled = core.tasks.token().clone();
    let cut = CancellationToken::new();
    let cutting = cut.clone();
    let connections = connections.map(move |connection| connection.map(|connection| connection.cut_by(cutting.clone())));
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.streams_max)
        .max_connection_age(limits.connection_age_max)
        .add_service(InterceptedService::new(v1::accounts_server::AccountsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::stores_server::StoresServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(secrets, door.clone()))
        .add_service(InterceptedService::new(v1::consumers_server::ConsumersServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::bindings_server::BindingsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::receipts_server::ReceiptsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::fleet_server::FleetServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::status_server::StatusServer::new(services), door.clone()))
        // The feed has a door of its own: edges, by the key in the registry. So have control nodes.
        .add_service(feed)
        .add_service(PeersServer::new(PeersService { core: core.clone(), exchange }))
        .add_service(health_service)
        .add_service(door::reflection(door)?)
        .serve_with_incoming_shutdown(connections, cancelled.clone().cancelled_owned());
    let mut server = std::pin::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended?),
        () = async {
            cancelled.cancelled().await;
            core.clock.sleep(CONNECTIONS_END_WITHIN).await;
        } => cut.cancel(),
    }
    Ok(server.await?)
}

async fn listen(at: SocketAddr, what: &str) -> Result<(SocketAddr, TcpListener), ControlError> {
    let failed = |source| ControlError::Io { operation: "listen at", what: format!("{at} ({what})"), source };
    let listener = TcpListener::bind(at).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// The cluster is the certificate's; the configuration, where it names one, and the node's number have to agree with it.
fn own_cluster(config: &ControlConfig, tls: &ServerTls) -> Result<ClusterId, ControlError> {
    let own = tls.own().identity;
    let cluster = config.node.cluster.unwrap_or(own.cluster());
    let configured = PeerIdentity::Node { cluster, node: config.node.id };
    if own != configured {
        return Err(ControlError::Identity {
            path: config.tls.cert.clone(),
            certificate: own.to_string(),
            configured: configured.to_string(),
        });
    }
    Ok(cluster)
}

fn key<E: std::error::Error + Send + Sync + 'static>(path: &std::path::Path) -> impl FnOnce(E) -> ControlError {
    let path = path.to_owned();
    move |error| ControlError::Key { path, source: Box::new(error) }
}

fn read_key<T, E: std::error::Error + Send + Sync + 'static>(
    path: &std::path::Path,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<T, ControlError> {
    let bytes = zeroize::Zeroizing::new(runtime::read_secret_file(path).map_err(key(path))?);
    parse(&bytes).map_err(key(path))
}

fn log_end(what: &str, result: Result<(), impl Into<Box<dyn std::error::Error + Send + Sync>>>) {
    if let Err(error) = result {
        let error = error.into();
        tracing::error!(what, %error, cause = ?error.source(), "a server ended with an error");
    }
}
