//! The configuration of a control node.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::{NodeId, NodeName};

use super::{
    AuditConfig, ByteSize, Checks, ConnectionLimits, Fault, HostPort, Join, LogConfig, Never, Node, PeerRule, Rates, Shutdown,
    SnapshotsConfig, TlsFiles, UnixListen,
    sections::{below, check_names, identity, in_ms},
    units::duration,
    within,
};

/// `control.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Who this node is.
    pub node: Node,
    /// Where it listens.
    pub listen: ControlListen,
    /// How it gets its first certificate.
    pub join: Join,
    /// Its certificate and whom it believes.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Where its keys lie.
    #[serde(default)]
    pub keys: ControlKeys,
    /// The certificates that it issues and gets.
    pub certificates: ControlCertificates,
    /// Settings of a new cluster; later they are changed by command.
    pub cluster: NewCluster,
    /// Limits of connections.
    pub connections: ConnectionLimits,
    /// Limits of what is held and queued.
    pub limits: ControlLimits,
    /// How often one caller may do what costs others something.
    pub rates: Rates,
    /// Lookups, when this node serves them too.
    pub lookups: ControlLookups,
    /// How much of the audit log is kept.
    pub audit: AuditConfig,
    /// Archives that are saved by the clock.
    pub snapshots: SnapshotsConfig,
    /// What is logged.
    pub log: LogConfig,
    /// How the server ends.
    pub shutdown: Shutdown,
    /// Nodes that the operator of this machine vouches for: registered when the log does not know them yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub register: Vec<Registered>,
    /// Which local users may read as which consumers on the socket of `[lookups]`. A caller needs one rule that fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer: Vec<PeerRule>,
}

/// Lookups at a control node. It serves them when one of the two addresses is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlLookups {
    /// The socket for the services beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<UnixListen>,
    /// gRPC under TLS, for services on other machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<SocketAddr>,
    /// Bindings in one `GetMany`, and lookups in flight on one pipelined stream.
    pub pipelined_max: usize,
    /// `Watch` streams at the same time.
    pub watches_max: usize,
}

impl ControlLookups {
    /// Whether this node serves lookups.
    pub const fn enabled(&self) -> bool {
        self.unix.is_some() || self.grpc.is_some()
    }

    fn check(&self, listen: &ControlListen, peer: &[PeerRule]) -> Result<(), Fault> {
        let taken = |at: SocketAddr| at.port() != 0 && (at == listen.grpc || at == listen.health);
        if self.grpc.is_some_and(taken) {
            return Err(("lookups.grpc", "is the address of listen.grpc or listen.health; give it another port".into()));
        }
        if self.unix.is_none() && !peer.is_empty() {
            return Err(("peer", "has rules, but there is no socket: give lookups.unix too".into()));
        }
        if let Some(rule) = peer.iter().find(|rule| rule.consumers.is_empty()) {
            return Err(("peer.consumers", format!("is empty for uid {}; list what this user may read as, or remove the rule", rule.uid)));
        }
        within("lookups.pipelined_max", self.pipelined_max, 1, 4096)?;
        within("lookups.watches_max", self.watches_max, 1, 1 << 20)
    }
}

impl Default for ControlLookups {
    fn default() -> Self {
        Self { unix: None, grpc: None, pipelined_max: super::edge::LOOKUPS_PIPELINED_MAX, watches_max: super::edge::WATCHES_MAX }
    }
}

/// One `[[register]]`: a node and the public halves of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// Its number in the registry; its certificate carries the same.
    pub id: NodeId,
    /// Its name, for people.
    pub name: NodeName,
    /// What it is.
    pub role: RegisteredRole,
    /// Its certificate, PEM: the key in it is its identity.
    pub certificate: PathBuf,
    /// The public half of the key that opens its envelopes. A relay has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_key: Option<PathBuf>,
}

/// What a registered node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegisteredRole {
    /// Holds keys and serves lookups.
    Edge,
    /// Feeds others and holds no key.
    Relay,
}

/// Where a control node listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlListen {
    /// gRPC under TLS: operators, edges and other control nodes.
    pub grpc: SocketAddr,
    /// Where others reach gRPC, as HOST:PORT. Absent: `grpc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<HostPort>,
    /// Plain HTTP for `/livez`, `/readyz` and `/metrics`. It asks for no credentials: keep it on loopback or a closed network.
    pub health: SocketAddr,
}

/// Certificates of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlCertificates {
    /// How long a certificate that this node issues counts. Nodes renew at two thirds of it.
    #[serde(with = "duration")]
    pub lifetime: Duration,
    /// DNS names and addresses in this node's own certificate, besides that of `listen.advertise`.
    pub names: Vec<String>,
}

/// Where a control node's keys lie; all with mode 0600. A path that does not begin with `/` is below `node.data_dir`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlKeys {
    /// The root key, when its provider is `file`; may be absent where others hold it. Keep it on another disk than the data, or whoever takes the disk has both.
    pub root: PathBuf,
    /// The key that signs what is sent to edges; made at the first start when absent.
    pub signing: PathBuf,
    /// The key that opens envelopes of key-encryption keys; made at the first start when absent.
    pub node: PathBuf,
}

/// Settings that a new cluster starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewCluster {
    /// How long an edge serves without hearing from the control plane, or `never` for no limit.
    pub edge_offline_max: Never,
    /// How long it serves what is marked fail-closed.
    #[serde(with = "duration")]
    pub lease: Duration,
}

/// What a control node holds and queues at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlLimits {
    /// Commands that wait for the log; one more is refused with `unavailable`.
    pub proposals_queued_max: usize,
    /// Change sets kept in memory for edges that lag; an edge behind them gets a snapshot.
    pub window_bytes: ByteSize,
    /// Edges that subscribe at the same time; one more is told to go to another control node.
    pub subscribers_max: usize,
    /// Snapshots that are sent at the same time; one more edge waits its turn.
    pub snapshots_sent_max: usize,
    /// The size of one file of the log.
    pub log_segment_bytes: ByteSize,
    /// Log entries between two snapshot files.
    pub snapshot_entries: u64,
    /// sled's cache.
    pub table_cache_bytes: ByteSize,
    /// Data keys that are kept unwrapped.
    pub deks_cached_max: usize,
}

/// Commands waiting: about a quarter of a second of the measured write rate, so that a queue never hides an overload.
const PROPOSALS_QUEUED_MAX: usize = 4096;
/// 64 MiB: about a minute of full-rate writes of 1 KiB.
const WINDOW_BYTES: ByteSize = ByteSize::from_mib(64);
/// Edges per control node: each costs two tasks and one flow-control window.
const SUBSCRIBERS_MAX: usize = 4096;
/// Snapshots at once: each reads the whole state, and more would slow each other down.
const SNAPSHOTS_SENT_MAX: usize = 8;
/// 64 MiB a segment: purging frees at most this much late.
const LOG_SEGMENT_BYTES: ByteSize = ByteSize::from_mib(64);
/// Entries between snapshots: replay of this many takes about a second.
const SNAPSHOT_ENTRIES: u64 = 100_000;
/// 64 MiB: sled is read at the start only.
const TABLE_CACHE_BYTES: ByteSize = ByteSize::from_mib(64);
/// Data keys kept unwrapped: one or two per account, about 100 bytes each.
const DEKS_CACHED_MAX: usize = 10_000;
/// 7 days: a long weekend without a control plane, with reserve.
const EDGE_OFFLINE_MAX: Never = Never::after(Duration::from_secs(7 * 86_400));
/// 60 s: sixty missed checkpoints.
const LEASE: Duration = Duration::from_secs(60);
/// 24 hours: long enough for a night without any control node, short enough that a stolen key is soon good for nothing.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(86_400);
/// gRPC of a control node.
pub(super) const GRPC_PORT: u16 = 7400;
/// Health of a control node.
const HEALTH_PORT: u16 = 7401;

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            node: Node { id: None, name: node_name("control-1"), data_dir: "/var/lib/cinnabar/control".into(), cluster: None },
            listen: ControlListen::default(),
            join: Join::default(),
            tls: TlsFiles::default(),
            keys: ControlKeys::default(),
            certificates: ControlCertificates::default(),
            cluster: NewCluster::default(),
            connections: ConnectionLimits::default(),
            limits: ControlLimits::default(),
            rates: Rates::default(),
            lookups: ControlLookups::default(),
            audit: AuditConfig::default(),
            snapshots: SnapshotsConfig::default(),
            log: LogConfig::default(),
            shutdown: Shutdown::default(),
            register: Vec::new(),
            peer: Vec::new(),
        }
        .resolved()
    }
}

impl ControlConfig {
    /// Where others reach this node's gRPC.
    pub fn advertise(&self) -> HostPort {
        self.listen.advertise.clone().unwrap_or_else(|| self.listen.grpc.into())
    }

    /// The names that this node asks for in its certificate.
    pub fn certificate_names(&self) -> Vec<String> {
        let host = self.advertise().host().to_owned();
        std::iter::once(host).chain(self.certificates.names.iter().cloned()).collect()
    }
}

impl Default for ControlCertificates {
    fn default() -> Self {
        Self { lifetime: CERTIFICATE_LIFETIME, names: Vec::new() }
    }
}

/// A name that is written in this crate and known to be one.
pub(super) fn node_name(text: &'static str) -> NodeName {
    #[expect(clippy::expect_used, reason = "a literal, covered by the test of the defaults")]
    text.parse().expect("a default node name is a node name")
}

impl Default for ControlListen {
    fn default() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { grpc: at(GRPC_PORT), advertise: None, health: at(HEALTH_PORT) }
    }
}

impl Default for ControlKeys {
    fn default() -> Self {
        Self { root: identity("root.key"), signing: identity("signing.key"), node: identity("envelope.key") }
    }
}

impl Default for NewCluster {
    fn default() -> Self {
        Self { edge_offline_max: EDGE_OFFLINE_MAX, lease: LEASE }
    }
}

impl Default for ControlLimits {
    fn default() -> Self {
        Self {
            proposals_queued_max: PROPOSALS_QUEUED_MAX,
            window_bytes: WINDOW_BYTES,
            subscribers_max: SUBSCRIBERS_MAX,
            snapshots_sent_max: SNAPSHOTS_SENT_MAX,
            log_segment_bytes: LOG_SEGMENT_BYTES,
            snapshot_entries: SNAPSHOT_ENTRIES,
            table_cache_bytes: TABLE_CACHE_BYTES,
            deks_cached_max: DEKS_CACHED_MAX,
        }
    }
}

/// The largest segment that the log takes.
pub(super) const LOG_SEGMENT_BYTES_MAX: ByteSize = ByteSize::from_mib(2048);

/// The largest change set: a window or segment must hold at least two.
pub(super) const CHANGE_SET_BYTES_MAX: u64 = 8 << 20;

impl Checks for ControlConfig {
    fn resolved(mut self) -> Self {
        self.node.resolve();
        let data = &self.node.data_dir;
        self.tls.resolve(data);
        below(data, [&mut self.keys.root, &mut self.keys.signing, &mut self.keys.node]);
        self
    }

    fn check(&self) -> Result<(), Fault> {
        self.node.check()?;
        if self.listen.grpc == self.listen.health && self.listen.grpc.port() != 0 {
            return Err(("listen.health", "is the address of listen.grpc; give it another port".into()));
        }
        if self.listen.grpc.ip().is_unspecified() && self.listen.advertise.is_none() {
            return Err((
                "listen.advertise",
                "is needed where listen.grpc is every address: say where others reach this node, as HOST:PORT".into(),
            ));
        }
        within("certificates.lifetime", self.certificates.lifetime.as_millis(), 1000, 365 * 86_400_000).map_err(in_ms)?;
        check_names("certificates.names", &self.certificates.names)?;
        within("cluster.lease", self.cluster.lease.as_millis(), 3000, 86_400_000).map_err(in_ms)?;
        if let Some(offline) = self.cluster.edge_offline_max.duration()
            && offline < self.cluster.lease
        {
            return Err(("cluster.edge_offline_max", "is shorter than cluster.lease; it must be at least as long".into()));
        }
        let limits = &self.limits;
        within("limits.proposals_queued_max", limits.proposals_queued_max, 1, 1 << 20)?;
        within("limits.window_bytes", limits.window_bytes, ByteSize::from_bytes(2 * CHANGE_SET_BYTES_MAX), ByteSize::from_bytes(1 << 40))?;
        within("limits.subscribers_max", limits.subscribers_max, 1, 1 << 20)?;
        within("limits.snapshots_sent_max", limits.snapshots_sent_max, 1, 1 << 10)?;
        within("limits.log_segment_bytes", limits.log_segment_bytes, ByteSize::from_mib(1), LOG_SEGMENT_BYTES_MAX)?;
        within("limits.snapshot_entries", limits.snapshot_entries, 100, 1 << 32)?;
        within("limits.table_cache_bytes", limits.table_cache_bytes, ByteSize::from_mib(1), ByteSize::from_bytes(1 << 40))?;
        within("limits.deks_cached_max", limits.deks_cached_max, 1, 1 << 24)?;
        for node in &self.register {
            if (node.role == RegisteredRole::Edge) != node.envelope_key.is_some() {
                return Err(("register.envelope_key", format!("of node {}: an edge needs one, a relay has none", node.id)));
            }
        }
        self.lookups.check(&self.listen, &self.peer)?;
        self.connections.check()?;
        self.rates.check()?;
        self.snapshots.check()?;
        self.audit.check()?;
        self.log.check()?;
        self.shutdown.check()
    }
}
