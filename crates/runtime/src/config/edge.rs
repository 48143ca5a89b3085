//! The configuration of an edge.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    ByteSize, Checks, ConnectionLimits, Fault, FileMode, HostPort, Join, LogConfig, Node, PeerRule, Shutdown, TlsFiles, UnixListen,
    control::{CHANGE_SET_BYTES_MAX, LOG_SEGMENT_BYTES_MAX, node_name},
    sections::{MAX_WAIT_MS, below, check_names, identity, in_ms},
    units::duration,
    within,
};

/// `edge.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Who this node is.
    pub node: Node,
    /// Whom it follows.
    pub control: ControlPlane,
    /// Where it listens.
    pub listen: EdgeListen,
    /// How it gets its first certificate.
    pub join: Join,
    /// Its certificate and whom it believes.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Where its keys lie.
    #[serde(default)]
    pub keys: EdgeKeys,
    /// What its certificate carries.
    pub certificates: EdgeCertificates,
    /// Limits of connections.
    pub connections: ConnectionLimits,
    /// Limits of what is held and queued.
    pub limits: EdgeLimits,
    /// What is logged.
    pub log: LogConfig,
    /// How the server ends.
    pub shutdown: Shutdown,
    /// Which local users may read as which consumers. A caller needs one rule that fits.
    pub peer: Vec<PeerRule>,
}

/// The control plane as an edge sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlPlane {
    /// Addresses of control nodes, tried in turn. Who may feed this edge is decided by its copy of the node registry.
    pub endpoints: Vec<HostPort>,
    /// The shortest wait before a new attempt; it doubles up to the longest, with jitter.
    #[serde(with = "duration")]
    pub reconnect_min: Duration,
    /// The longest wait before a new attempt.
    #[serde(with = "duration")]
    pub reconnect_max: Duration,
    /// Where there are several endpoints, one that brings nothing new for this long is left for the next: a control node that is cut
    /// off from the others can be reached, but is not told what they agree on.
    #[serde(with = "duration")]
    pub silence_max: Duration,
}

/// Where an edge listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeListen {
    /// The socket for the services beside it.
    pub unix: UnixListen,
    /// gRPC under TLS, for services on other machines.
    pub grpc: SocketAddr,
    /// Plain HTTP for `/livez`, `/readyz` and `/metrics`. It asks for no credentials: keep it on loopback or a closed network.
    pub health: SocketAddr,
}

/// The certificate of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeCertificates {
    /// DNS names and addresses at which services reach this edge, besides that of `listen.grpc`.
    pub names: Vec<String>,
}

/// Where an edge's keys lie. A path that does not begin with `/` is below `node.data_dir`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeKeys {
    /// The key that opens envelopes of key-encryption keys, mode 0600; made at the first start when absent.
    pub node: PathBuf,
    /// The first set of signing keys of the control plane, as it was exported there: what an edge believes before it has heard anything.
    pub signers: PathBuf,
}

/// What an edge holds and queues at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeLimits {
    /// Memory for the index; when full, the edge keeps its last position and alarms.
    pub index_bytes_max: ByteSize,
    /// Change sets that were received and not yet applied; when full, the stream is not read.
    pub received_bytes_max: ByteSize,
    /// The size of one file of the log.
    pub log_segment_bytes: ByteSize,
    /// The log is cut to a snapshot file when it is longer than this.
    pub log_bytes_max: ByteSize,
    /// sled's cache.
    pub table_cache_bytes: ByteSize,
    /// Data keys that are kept unwrapped.
    pub deks_cached_max: usize,
    /// Bindings in one `GetMany`, and lookups in flight on one pipelined stream.
    pub lookups_pipelined_max: usize,
    /// `Watch` streams at the same time.
    pub watches_max: usize,
}

/// 1 GiB: about a million secrets of 512 bytes.
const INDEX_BYTES_MAX: ByteSize = ByteSize::from_mib(1024);
/// 32 MiB: four change sets of the largest size.
const RECEIVED_BYTES_MAX: ByteSize = ByteSize::from_mib(32);
/// 16 MiB a segment: an edge writes less than a voter, and purging frees at most this much late.
const LOG_SEGMENT_BYTES: ByteSize = ByteSize::from_mib(16);
/// 256 MiB: replay at the start takes some seconds at most.
const LOG_BYTES_MAX: ByteSize = ByteSize::from_mib(256);
/// 64 MiB: sled is read at the start only.
const TABLE_CACHE_BYTES: ByteSize = ByteSize::from_mib(64);
/// Data keys kept unwrapped: one or two per account, about 100 bytes each.
const DEKS_CACHED_MAX: usize = 10_000;
/// Lookups in one message or in flight on one stream: about a millisecond of work.
pub(super) const LOOKUPS_PIPELINED_MAX: usize = 256;
/// Watches: each is a task and a place in the list that a new root wakes.
pub(super) const WATCHES_MAX: usize = 4096;
/// 100 ms: as soon as a restarted control node can answer.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// 10 s: an edge is stale for at most this much longer than the control plane was away.
const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// 3 s: as many checkpoints that did not come.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Checkpoints come once a second.
const SILENCE_MIN_MS: u128 = 1500;
/// gRPC of an edge.
const GRPC_PORT: u16 = 7500;
/// Health of an edge.
const HEALTH_PORT: u16 = 7501;
/// Owner and group may connect: put the services' users into the group.
const SOCKET_MODE: FileMode = FileMode::new(0o660);

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            node: Node { id: None, name: node_name("edge-1"), data_dir: "/var/lib/cinnabar/edge".into(), cluster: None },
            control: ControlPlane::default(),
            listen: EdgeListen::default(),
            join: Join::default(),
            tls: TlsFiles::default(),
            keys: EdgeKeys::default(),
            certificates: EdgeCertificates::default(),
            connections: ConnectionLimits::default(),
            limits: EdgeLimits::default(),
            log: LogConfig::default(),
            shutdown: Shutdown::default(),
            peer: Vec::new(),
        }
        .resolved()
    }
}

impl EdgeConfig {
    /// The names that this node asks for in its certificate.
    pub fn certificate_names(&self) -> Vec<String> {
        let address = self.listen.grpc.ip();
        // Every certificate carries the names of this machine for itself.
        let own = (!address.is_unspecified() && !address.is_loopback()).then(|| address.to_string());
        own.into_iter().chain(self.certificates.names.iter().cloned()).collect()
    }

    /// Whom it asks to be taken in: `join.endpoints`, else those it will follow.
    pub fn join_endpoints(&self) -> &[HostPort] {
        if self.join.endpoints.is_empty() { &self.control.endpoints } else { &self.join.endpoints }
    }
}

impl Default for ControlPlane {
    fn default() -> Self {
        let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, super::control::GRPC_PORT));
        Self { endpoints: vec![endpoint.into()], reconnect_min: RECONNECT_MIN, reconnect_max: RECONNECT_MAX, silence_max: SILENCE_MAX }
    }
}

impl Default for EdgeListen {
    fn default() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let unix = UnixListen { path: "/run/cinnabar/edge.sock".into(), mode: SOCKET_MODE };
        Self { unix, grpc: at(GRPC_PORT), health: at(HEALTH_PORT) }
    }
}

impl Default for EdgeKeys {
    fn default() -> Self {
        Self { node: identity("envelope.key"), signers: identity("signers") }
    }
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            index_bytes_max: INDEX_BYTES_MAX,
            received_bytes_max: RECEIVED_BYTES_MAX,
            log_segment_bytes: LOG_SEGMENT_BYTES,
            log_bytes_max: LOG_BYTES_MAX,
            table_cache_bytes: TABLE_CACHE_BYTES,
            deks_cached_max: DEKS_CACHED_MAX,
            lookups_pipelined_max: LOOKUPS_PIPELINED_MAX,
            watches_max: WATCHES_MAX,
        }
    }
}

impl Checks for EdgeConfig {
    fn resolved(mut self) -> Self {
        self.node.resolve();
        let data = &self.node.data_dir;
        self.tls.resolve(data);
        below(data, [&mut self.keys.node, &mut self.keys.signers]);
        self
    }

    fn check(&self) -> Result<(), Fault> {
        self.node.check()?;
        check_names("certificates.names", &self.certificates.names)?;
        self.check_control()?;
        if self.listen.grpc == self.listen.health && self.listen.grpc.port() != 0 {
            return Err(("listen.health", "is the address of listen.grpc; give it another port".into()));
        }
        self.check_limits()?;
        for rule in &self.peer {
            if rule.consumers.is_empty() {
                return Err(("peer.consumers", format!("is empty for uid {}; name consumers, or remove the rule", rule.uid)));
            }
        }
        self.connections.check()?;
        self.log.check()?;
        self.shutdown.check()
    }
}

impl EdgeConfig {
    fn check_control(&self) -> Result<(), Fault> {
        let control = &self.control;
        if control.endpoints.is_empty() {
            return Err(("control.endpoints", "is empty; name at least one control node, such as \"control-1.example:7400\"".into()));
        }
        within("control.reconnect_min", control.reconnect_min.as_millis(), 1, MAX_WAIT_MS).map_err(in_ms)?;
        if control.reconnect_max < control.reconnect_min {
            return Err(("control.reconnect_max", "is shorter than control.reconnect_min".into()));
        }
        within("control.reconnect_max", control.reconnect_max.as_millis(), 1, MAX_WAIT_MS).map_err(in_ms)?;
        within("control.silence_max", control.silence_max.as_millis(), SILENCE_MIN_MS, MAX_WAIT_MS).map_err(in_ms)
    }

    fn check_limits(&self) -> Result<(), Fault> {
        let limits = &self.limits;
        let (mib, most) = (ByteSize::from_mib(1), ByteSize::from_bytes(1 << 40));
        within("limits.index_bytes_max", limits.index_bytes_max, mib, most)?;
        within("limits.received_bytes_max", limits.received_bytes_max, ByteSize::from_bytes(2 * CHANGE_SET_BYTES_MAX), most)?;
        within("limits.log_segment_bytes", limits.log_segment_bytes, mib, LOG_SEGMENT_BYTES_MAX)?;
        if limits.log_bytes_max < limits.log_segment_bytes {
            return Err(("limits.log_bytes_max", "is smaller than limits.log_segment_bytes; give it room for at least one segment".into()));
        }
        within("limits.table_cache_bytes", limits.table_cache_bytes, mib, most)?;
        within("limits.deks_cached_max", limits.deks_cached_max, 1, 1 << 24)?;
        within("limits.lookups_pipelined_max", limits.lookups_pipelined_max, 1, 1 << 16)?;
        within("limits.watches_max", limits.watches_max, 1, 1 << 20)
    }
}
