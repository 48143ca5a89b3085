//! An edge, from its parts to its end.

use std::{
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use ::doors::{LookupLimits, Offer};
use enrol::{Layout, Peers, Remote, Renewal, Trust};
use feed::{CoreOptions, FollowerOptions};
use lookup::{Lookup, Served, Serving};
use runtime::{
    TokioSpawn, Undrained,
    config::EdgeConfig,
    health::Readiness,
    tls::{ClientCertificates, ClientTls, Expect, PeerIdentity, ServerTls},
};
use seal::KeyRing;
use seams::Spawn;
use state::FEATURE_LEVEL_MAX;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use types::{ClusterId, NodeId};
use wire::v1::status_server::StatusServer;

use crate::{
    EdgeError, EdgeOptions, EdgeStatus,
    anchor::load_anchor,
    dial::ControlDial,
    doors::Doors,
    follow::{Blocking, Following, Seen},
    glue::Glue,
    keys::{EdgeKeys, ensure_node_key},
    revoked::Mark,
    status::{self, Checks, StatusService, StatusSource},
    upstream::Upstream,
};

/// Secrets whose served lookups are counted one by one: 100 accounts at the default limit, about 500 KiB.
const SERVED_ROWS_MAX: usize = 10_000;

/// The longest request for a status: it says nothing. It is read before the caller is known.
const STATUS_REQUEST_BYTES_MAX: usize = 4096;

/// Where an edge can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The UNIX socket.
    pub unix: PathBuf,
    /// gRPC over TLS.
    pub grpc: SocketAddr,
    /// Health and metrics over HTTP.
    pub health: SocketAddr,
}

/// A running edge. Dropping it leaves it running until its runtime ends; [`Edge::shutdown`] ends it in order.
pub struct Edge {
    addresses: Addresses,
    lookup: Arc<Lookup>,
    readiness: Readiness,
    checks: Arc<Checks>,
    source: Arc<StatusSource>,
    tasks: TokioSpawn,
    _lock: runtime::DataLock,
}

impl Edge {
    /// Binds, recovers the last good state from disk, opens the doors, and begins to follow. When it returns, what was good before a
    /// restart is served, with or without a control plane. Call it on a tokio runtime, which the edge's tasks then use.
    ///
    /// # Errors
    /// [`EdgeError`]: a key, certificate or address of the configuration cannot be used, or the data folder cannot.
    pub async fn start(options: EdgeOptions) -> Result<Self, EdgeError> {
        let EdgeOptions { config, clock, entropy, disk, metrics, observer, level_max } = options;
        let level_max =
            level_max.map_or_else(|| runtime::feature_level_max(FEATURE_LEVEL_MAX), |level| Ok(level.min(FEATURE_LEVEL_MAX)))?;
        let server_tls = ServerTls::load(&config.tls, ClientCertificates::Optional)?;
        let (cluster, node) = own_identity(&config, &server_tls)?;
        let peers = Peers::read(&Layout::edge(&config).peers)?;
        let anchor = load_anchor(&config.keys.signers, cluster)?;
        let pair = ensure_node_key(&config.keys.node, &*entropy)?;
        let data = &config.node.data_dir;
        disk.create_dir_all(data).map_err(failed("create the folder (node.data_dir)", data))?;
        let owner = std::fs::metadata(data).map_err(failed("look at the folder (node.data_dir)", data))?.uid();
        let lock = runtime::DataLock::acquire(data)?;
        let doors = Doors::bind(&config).await?;
        let addresses = Addresses { unix: config.listen.unix.path.clone(), grpc: doors.grpc_address, health: doors.health_address };

        let ring = Arc::new(KeyRing::with_cache(cluster, config.limits.deks_cached_max));
        let serving = Arc::new(Serving::new(Arc::clone(&clock), Arc::clone(&ring)));
        let renewing = Upstream::renewal(cluster, Arc::clone(&serving), peers.clone());
        let renewing_tls = ClientTls::load(&config.tls, Expect::Judge(Arc::new(renewing)))?;
        let judge = Upstream::feed(cluster, Arc::clone(&serving), peers);
        let client_tls = ClientTls::load(&config.tls, Expect::Judge(Arc::new(judge)))?;
        let lookup = Arc::new(Lookup::new(Arc::clone(&serving), Arc::new(Served::new(SERVED_ROWS_MAX)), &config.node.name));
        let keys = Arc::new(EdgeKeys::open(node, pair, ring, Arc::clone(&disk), data.join("keks"))?);
        let mark = Arc::new(Mark::new(Arc::clone(&disk), data));
        let glue = Glue { node, serving, keys: Arc::clone(&keys), mark: Arc::clone(&mark), observer };
        if mark.is_set()? {
            glue.revoked("it was marked so in an earlier run");
        }
        let tasks = TokioSpawn::new(Handle::current(), CancellationToken::new());
        let readiness = Readiness::new();
        let checks = Arc::new(Checks::new(&readiness));
        let seen = Seen::default();
        let source = Arc::new(StatusSource {
            cluster,
            node,
            name: config.node.name.clone(),
            owner,
            lookup: Arc::clone(&lookup),
            keys: Arc::clone(&keys),
            mark,
            seen: seen.clone(),
        });

        let users = (server_tls.clone(), client_tls.clone(), renewing_tls);
        let doubted = Arc::new(AtomicBool::new(false));
        let renewal =
            renewal(&config, users, (Arc::clone(lookup.serving()), Arc::clone(&doubted)), Arc::clone(&clock), Arc::clone(&entropy));
        tasks.spawn("renew", Box::pin(renewal.run(tasks.token().child_token())));
        let timer = Arc::clone(&clock);
        let following = Following {
            core: CoreOptions { level_max, ..core_options(&config, cluster, anchor, data.join("feed")) },
            options: FollowerOptions { level: level_max, ..follower_options(&config, cluster, node) },
            clock,
            entropy,
            disk,
            dial: Arc::new(ControlDial::new(config.control.endpoints.clone(), client_tls, doubted)),
            glue: Arc::new(glue),
            keys,
            data: data.clone(),
            table_cache_bytes: config.limits.table_cache_bytes.bytes(),
            blocking: Blocking(Handle::current()),
            seen,
        };
        let follower = following.open().await?;
        tasks.spawn("follow", Box::pin(following.run(follower, tasks.token().child_token())));

        let offer = offer(&config, &lookup, &source, &tasks).await;
        doors.open(offer, &config.connections, server_tls, readiness.clone(), metrics, (&tasks, &timer));
        tasks.spawn("status", Box::pin(status::watch(Arc::clone(&source), Arc::clone(&checks), tasks.token().child_token())));
        let edge = Self { addresses, lookup, readiness, checks, source, tasks, _lock: lock };
        let status = edge.status();
        tracing::info!(node = %config.node.name, id = %node, position = ?status.position, age_ms = status.age_ms, grpc = %edge.addresses.grpc, health = %edge.addresses.health, "edge started");
        Ok(edge)
    }

    /// Where it can be reached; ports that the system chose are filled in.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What readers see.
    pub fn serving(&self) -> &Arc<Serving> {
        self.lookup.serving()
    }

    /// The lookup path itself, for measuring inside the process.
    pub fn lookup(&self) -> &Arc<Lookup> {
        &self.lookup
    }

    /// The checks that `/readyz` shows.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// How it stands.
    pub fn status(&self) -> EdgeStatus {
        self.source.now()
    }

    /// Refuses new work, lets open calls end, closes all files; what has not ended by `deadline` is dropped.
    ///
    /// # Errors
    /// [`Undrained`] naming what was dropped. The state on disk is good in any case.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), Undrained> {
        self.checks.draining();
        self.tasks.drain(deadline).await
    }
}

/// Keeps the certificate fresh: for the doors, the feed, and itself.
fn renewal(
    config: &EdgeConfig,
    (server, feed, own): (ServerTls, ClientTls, ClientTls),
    (serving, doubted): (Arc<Serving>, Arc<AtomicBool>),
    clock: Arc<dyn seams::Clock>,
    entropy: Arc<dyn seams::Entropy>,
) -> Renewal {
    let endpoints = config.control.endpoints.clone();
    let source = Remote::new(move || endpoints.clone(), own.clone(), Arc::clone(&clock));
    Renewal {
        layout: Layout::edge(config),
        name: config.node.name.clone(),
        names: config.certificate_names(),
        clock,
        entropy,
        source: Arc::new(source),
        users: vec![
            Box::new(move |files| server.reload(files)),
            Box::new(move |files| feed.reload(files)),
            Box::new(move |files| own.reload(files)),
        ],
        trust: Some(Box::new(move || serving.root()?.state.trust().ok().flatten().map(|trust| Trust::of(&trust)))),
        doubted,
    }
}

/// The services of both gRPC doors.
async fn offer(config: &EdgeConfig, lookup: &Arc<Lookup>, source: &Arc<StatusSource>, tasks: &TokioSpawn) -> Offer {
    let authenticator = ::doors::authenticator(&config.peer);
    let limits = LookupLimits {
        watches_max: config.limits.watches_max,
        pipelined_max: config.limits.lookups_pipelined_max,
        request_timeout: config.connections.request_timeout,
    };
    let (lookup, name) = (Arc::clone(lookup), config.node.name.clone());
    let offer = Offer::lookups(lookup, authenticator.clone(), name, limits, tasks.token().child_token()).await;
    let status =
        StatusServer::new(StatusService::new(Arc::clone(source), authenticator)).max_decoding_message_size(STATUS_REQUEST_BYTES_MAX);
    offer.with(|routes| routes.add_service(status))
}

/// Cluster and number are the certificate's; the configuration, where it names them, has to agree.
fn own_identity(config: &EdgeConfig, tls: &ServerTls) -> Result<(ClusterId, NodeId), EdgeError> {
    let own = tls.own().identity;
    let wanted = config.node.id.or(own.node()).unwrap_or_default();
    let cluster = match own {
        PeerIdentity::Node { cluster, node } if node == wanted => cluster,
        _ => return Err(EdgeError::Certificate { path: config.tls.cert.clone(), node: wanted }),
    };
    match config.node.cluster {
        Some(configured) if configured != cluster => Err(EdgeError::OtherCluster { configured, certified: cluster }),
        _ => Ok((cluster, wanted)),
    }
}

fn core_options(config: &EdgeConfig, cluster: ClusterId, anchor: feed::Anchor, folder: PathBuf) -> CoreOptions {
    let limits = &config.limits;
    CoreOptions {
        segment_bytes: limits.log_segment_bytes.bytes(),
        // Two snapshot files are kept and the log is cut below the older, so it grows to about twice this.
        snapshot_every_bytes: (limits.log_bytes_max.bytes() / 2).max(limits.log_segment_bytes.bytes()),
        index_bytes_max: limits.index_bytes_max.bytes(),
        unsealed_bytes_max: usize::try_from(limits.received_bytes_max.bytes()).unwrap_or(usize::MAX),
        ..CoreOptions::new(cluster, anchor, folder)
    }
}

fn follower_options(config: &EdgeConfig, cluster: ClusterId, node: NodeId) -> FollowerOptions {
    FollowerOptions {
        backoff_min: config.control.reconnect_min,
        backoff_max: config.control.reconnect_max,
        quiet_max: config.control.silence_max,
        ..FollowerOptions::new(cluster, node)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EdgeError {
    let path = path.to_owned();
    move |source| EdgeError::Disk { operation, path, source }
}
