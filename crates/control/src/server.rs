//! Starting, running and stopping a control node.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ::enrol::{Founding, Peers};
use bytes::Bytes;
use consensus::{AuditLog, AuditOptions, Bootstrap, Consensus, Limits, Options, SledTables, Timing};
use feed::SigningKey;
use futures::future::BoxFuture;
use runtime::{
    DataLock, DataLockError, TokioSpawn,
    config::{ControlConfig, IDENTITY_FOLDER},
    health::{self, Check, Readiness},
    listen::{AcceptLimits, accept_tls},
    tls::{ClientCertificates, PeerIdentity, ServerTls},
};
use seal::{FileRoot, KeyRing, NodeKeyPair, SealError};
use seams::Spawn;
use state::FEATURE_LEVEL_MAX;
use store::{Drive, SledOptions};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;
use types::{ClusterId, KeyDomain, NodeId};

use crate::{
    audit::{self, Audit, Spool},
    bootstrap::{self, BootstrapError},
    bring_up::{Checks, Parts, bring_up},
    core::Core,
    cuts::Cuts,
    enrol::{Enrolment, Renewals, Visitors},
    glue::{Glue, publisher},
    keys::UnlockError,
    limits,
    lookups::{self, Lookups},
    majority::Majority,
    options::ControlOptions,
    peers::{RaftService, Registry, Transport},
    recent::Recent,
    rest,
    serve::{Internal, serve},
    snapshots::Saves,
    watermarks::{self, Exchange, Members, Standings},
};

/// The folder of the log, in the data folder.
pub(crate) const LOG_FOLDER: &str = "raft";
/// Between two heartbeats of a leader.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// Who hears nothing asks for votes after the longer of these (the leader's lease) and a random time between them: 1.2 to 1.6 s, which is
/// eight heartbeats and more than a busy machine's pauses. Also after a vote that was split, a new leader is there within 3 s.
const ELECTION_MIN: Duration = Duration::from_millis(400);
const ELECTION_MAX: Duration = Duration::from_millis(800);

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
    /// The environment holds the node at a feature level that there is not.
    #[error("the feature level cannot be held there")]
    Level(#[from] runtime::LevelMaxError),
    /// A file of keys.
    #[error("cannot use the key file {}: put it back as it was; if it is lost, let the node join anew under a new name", path.display())]
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
    /// The control nodes that this one was told of.
    #[error("cannot read which control nodes this one was told of when it joined")]
    Peers(#[from] ::enrol::EnrolError),
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
    /// Why the node was not brought up, if that happened after [`Control::start`].
    failed: watch::Receiver<Option<String>>,
    _lock: DataLock,
}

impl Control {
    /// Starts the node. A node that needs nobody else returns when it serves; one that has to wait for others, or to be added to
    /// the cluster, when its port is open: [`Control::readiness`] then says what it waits for, [`Control::ready`] waits along.
    ///
    /// # Errors
    /// [`ControlError`], naming the file, port or key that stands in the way.
    pub async fn start(options: ControlOptions) -> Result<Self, ControlError> {
        let ControlOptions { config, clock, entropy, disk, metrics, observer, level_max } = options;
        let level_max =
            level_max.map_or_else(|| runtime::feature_level_max(FEATURE_LEVEL_MAX), |level| Ok(level.min(FEATURE_LEVEL_MAX)))?;
        let tasks = Arc::new(TokioSpawn::new(tokio::runtime::Handle::current(), CancellationToken::new()));
        let readiness = Readiness::new();
        let (health, health_listener) = listen(config.listen.health, "health").await?;
        let health_task = health::serve(health_listener, readiness.clone(), metrics, tasks.token().clone());
        tasks.spawn("health", Box::pin(async move { log_end("health", health_task.await) }));

        let tls = ServerTls::load(&config.tls, ClientCertificates::Optional)?;
        let (cluster, node) = own_identity(&config, &tls)?;
        let register = bootstrap::vouched_for(&config, &tls.own())?;
        let root = open_root(&*disk, &config.keys.root)?;
        let enrolment = Enrolment {
            envelope_key: read_key(&config.keys.node, NodeKeyPair::from_file_bytes)?,
            root_file: config.keys.root.clone(),
            root_id: root.as_ref().map(seal::RootProvider::root_key_id),
            disk: disk.clone(),
            lifetime: config.certificates.lifetime,
            names: config.certificate_names(),
            certified_by: std::sync::atomic::AtomicU32::new(0),
            visitors: Visitors::default(),
            renewals: Renewals::default(),
        };
        let signing = read_key(&config.keys.signing, SigningKey::from_file_bytes)?;
        let signing_public = signing.public();
        let ring = Arc::new(KeyRing::with_cache(cluster, config.limits.deks_cached_max));

        let recent = Arc::new(Recent::default());
        let publisher = publisher(&config, (cluster, node), signing, &clock);
        if let Some(observer) = observer.clone() {
            publisher.acks().on_acknowledged(move |node, position| observer.acknowledged(node, position));
        }
        let lookups = config.lookups.enabled().then(|| Arc::new(Lookups::new(node, clock.clone(), ring.clone())));
        let data = &config.node.data_dir;
        disk.create_dir_all(data).map_err(|source| ControlError::Io { operation: "create", what: data.display().to_string(), source })?;
        let sled = SledOptions { cache_bytes: config.limits.table_cache_bytes.bytes(), ..SledOptions::default() };
        let lock = DataLock::acquire(data)?;
        let kept = AuditOptions {
            folder: data.join("audit"),
            bytes_max: config.audit.bytes_max.bytes(),
            age_max: config.audit.age_max.duration(),
        };
        let cuts = Arc::new(Cuts { cluster, node, key: read_key(&config.keys.signing, SigningKey::from_file_bytes)? });
        let audit = Arc::new(AuditLog::open_signing(disk.clone(), kept, Some(cuts.clone())).map_err(ControlError::Audit)?);
        let spool = Spool::open(disk.clone(), data).map_err(ControlError::Audit)?;
        let unbound = |::doors::BindError { key, address, source }| ControlError::Io {
            operation: "listen at",
            what: format!("{address} ({key})"),
            source,
        };
        let doors = lookups::bind(&config).await.map_err(unbound)?;
        let (address, listener) = listen(config.listen.grpc, "gRPC").await?;
        let told = Peers::read(&data.join(IDENTITY_FOLDER).join("peers"))?;
        // Whoever has joined a cluster waits to be added to it.
        let founds = data.join(Founding::FILE).exists();
        if told.0.is_empty() {
            bootstrap::may_begin(data)?;
        }
        let advertised = advertised(&config, address);
        let registry = Arc::new(Registry::new(cluster, told.clone()));
        let transport = Transport::new(cluster, config.tls.clone(), registry.clone(), clock.clone());
        let consensus = Consensus::start(Options {
            node,
            disk,
            folder: data.join(LOG_FOLDER),
            drive: Drive::Thread,
            tables: Some(Box::new(SledTables { folder: data.join("table"), options: sled })),
            clock: clock.clone(),
            transport: Arc::new(transport.clone()),
            applied: Arc::new(Glue { publisher: publisher.clone(), recent: recent.clone(), lookups: lookups.clone(), observer }),
            audit: audit.clone(),
            bootstrap: founds.then(|| Bootstrap::alone(node, advertised.clone())),
            timing: Timing { heartbeat: HEARTBEAT, election_min: ELECTION_MIN, election_max: ELECTION_MAX, ..Timing::default() },
            limits: Limits {
                proposals_max: config.limits.proposals_queued_max,
                snapshot_entries: config.limits.snapshot_entries,
                // A node that was away for a little while needs no snapshot.
                keep_entries: config.limits.snapshot_entries / 5,
                segment_bytes: config.limits.log_segment_bytes.bytes(),
                level_max,
                ..Limits::default()
            },
        })
        .await?;
        let core = Arc::new(Core {
            cluster,
            node,
            name: config.node.name.clone(),
            domain: KeyDomain::global(),
            advertised,
            consensus,
            audit: Audit::new(audit, cuts),
            transport,
            opened: CancellationToken::new(),
            ring,
            enrolment,
            publisher,
            recent,
            majority: Majority::new(clock.monotonic()),
            standings: Arc::new(Standings::default()),
            lookups,
            limits: limits::Limits::new(&config.rates, &clock),
            clock,
            entropy,
            tasks: tasks.clone(),
            changes: Arc::new(Semaphore::new(config.limits.proposals_queued_max)),
            saves: Saves::default(),
            level_max,
            request_timeout: config.connections.request_timeout,
        });
        registry.watch(&core);
        tls.ask(registry.clone());
        let raft = RaftService::new(cluster, node, registry, core.tasks.token().clone());
        raft.open(&core.consensus);
        if let Some(serves) = &core.lookups {
            lookups::open(&core, serves, doors, &config, tls.clone(), &readiness).await;
        }
        let exchange = Exchange::of(&core, tls.clone());
        let listening =
            watermarks::listen(exchange.clone(), Arc::new(Members(core.clone())), core.entropy.clone(), core.tasks.token().clone());
        core.tasks.spawn("listen to control nodes", Box::pin(listening));
        let renewal = crate::enrol::renewal(&core, &config, tls.clone(), told);
        core.tasks.spawn("renew", Box::pin(renewal.run(core.tasks.token().child_token())));
        core.tasks.spawn("note calls", Box::pin(audit::keep(core.clone(), spool)));
        let connections = accept_tls(listener, tls.with_http1(), AcceptLimits::from(&config.connections), &core.tasks);
        let server = serve(core.clone(), Internal { raft, exchange }, connections, config.connections.clone());
        core.tasks.spawn("grpc", Box::pin(async move { log_end("gRPC", server.await) }));
        let serving = readiness.check("serving");
        watch_voter(&core, serving.clone());
        let checks = Checks {
            member: readiness.check("member of the cluster"),
            majority: readiness.check("majority"),
            clock: readiness.check("clock"),
            replayed: readiness.check("log replayed"),
            unlocked: readiness.check("keys unlocked"),
            serving,
        };
        let deadline = config.shutdown.deadline;
        let parts = Parts { config, root, signing_key: signing_public, register, checks };
        let (failure, failed) = watch::channel(None);
        let voters = core.consensus.membership().voters;
        // Who founds the cluster is its only voter, though its log may not say so yet.
        let alone = founds || !voters.is_empty() && voters.iter().all(|(voter, _)| *voter == node);
        if alone {
            if let Err(error) = bring_up(&core, parts).await {
                // What was started ends before the folder's lock is let go.
                let _ = core.tasks.drain(deadline).await;
                core.consensus.shutdown().await;
                return Err(error);
            }
            tracing::info!(%node, %address, %health, position = %core.consensus.local().position(), "the control node serves");
        } else {
            tracing::info!(%node, %address, %health, "the control node waits for the others");
            let waiting = core.clone();
            core.tasks.spawn(
                "bring up",
                Box::pin(async move {
                    let cancelled = waiting.tasks.token().clone();
                    let brought = cancelled.run_until_cancelled(bring_up(&waiting, parts)).await;
                    if let Some(Err(error)) = brought {
                        tracing::error!(error = &error as &dyn std::error::Error, "the node cannot be brought up");
                        failure.send_replace(Some(describe(&error)));
                    }
                }),
            );
        }
        Ok(Self { core, address, health, readiness, failed, _lock: lock })
    }

    /// Where gRPC listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What answers a REST request that came by no connection, and so from nowhere: for tests.
    pub fn rest(&self) -> impl Fn(http::Request<Bytes>) -> BoxFuture<'static, http::Response<Bytes>> + Send + Sync + use<> {
        let answering = rest::answering(&self.core);
        move |request| answering(request)
    }

    /// Where lookups are served over TLS, if they are.
    pub fn lookups(&self) -> Option<SocketAddr> {
        self.core.lookups.as_ref()?.address.get().copied()
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

    /// Completes when the voter stops by itself, or cannot be brought up, with the reason: the process should end.
    pub async fn stopped(&self) -> String {
        let mut failed = self.failed.clone();
        tokio::select! {
            biased;
            reason = self.core.consensus.stopped() => reason.to_string(),
            Ok(reason) = failed.wait_for(Option::is_some) => reason.clone().unwrap_or_default(),
        }
    }

    /// Waits until the node serves.
    ///
    /// # Errors
    /// Why it never will, as [`Control::stopped`].
    pub async fn ready(&self) -> Result<(), String> {
        tokio::select! {
            biased;
            () = self.core.opened() => Ok(()),
            reason = self.stopped() => Err(reason),
        }
    }

    /// Hands leadership over, refuses new work, ends streams, waits for what was accepted up to `deadline`, then stops the voter and its disk threads.
    /// Says whether everything ended in time.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        // While this node still answers: the next leader may need its vote.
        self.core.consensus.step_down().await;
        let drained = self.core.tasks.drain(deadline).await;
        if let Err(undrained) = &drained {
            tracing::warn!(?undrained, "not everything ended in time");
        }
        self.core.consensus.shutdown().await;
        drained.is_ok()
    }
}

/// The root key, where this node has one. One that is there and cannot be used is not passed over.
fn open_root(disk: &dyn seams::Disk, path: &std::path::Path) -> Result<Option<FileRoot>, ControlError> {
    match FileRoot::open(disk, path) {
        Ok(root) => Ok(Some(root)),
        Err(SealError::RootFile { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(key(path)(error)),
    }
}

async fn listen(at: SocketAddr, what: &str) -> Result<(SocketAddr, TcpListener), ControlError> {
    let failed = |source| ControlError::Io { operation: "listen at", what: format!("{at} ({what})"), source };
    let listener = TcpListener::bind(at).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// Cluster and number are the certificate's; the configuration, where it names them, has to agree.
fn own_identity(config: &ControlConfig, tls: &ServerTls) -> Result<(ClusterId, NodeId), ControlError> {
    let own = tls.own().identity;
    let cluster = config.node.cluster.unwrap_or(own.cluster());
    let node = config.node.id.or(own.node()).unwrap_or_default();
    let configured = PeerIdentity::Node { cluster, node };
    if own != configured {
        return Err(ControlError::Identity {
            path: config.tls.cert.clone(),
            certificate: own.to_string(),
            configured: configured.to_string(),
        });
    }
    Ok((cluster, node))
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

/// An error and its causes, in one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Where others reach this node: a port that the system chose is known only now.
fn advertised(config: &ControlConfig, address: SocketAddr) -> String {
    match &config.listen.advertise {
        Some(advertise) => advertise.to_string(),
        None => address.to_string(),
    }
}

/// Tells in `/readyz` that the voter has stopped.
fn watch_voter(core: &Arc<Core>, serving: Check) {
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
}
