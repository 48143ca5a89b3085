//! Sections that both servers have.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::{ClusterId, NodeId, NodeName};

use super::{
    Fault,
    units::{FileMode, HostPort, duration},
    within,
};
use crate::tls::CERTIFICATE_NAMES_MAX;

/// The folder in `node.data_dir` that holds a node's keys and certificate, unless others are named.
pub const IDENTITY_FOLDER: &str = "identity";

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its number in the node registry. Absent: the one its certificate names; if given, both must be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<NodeId>,
    /// Its name, for people.
    pub name: NodeName,
    /// The folder of everything it stores; made with mode 0700 when absent.
    pub data_dir: PathBuf,
    /// The cluster it belongs to. Absent: the one its certificate names.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_id")]
    pub cluster: Option<ClusterId>,
}

impl Node {
    /// Puts the data folder where it is, whatever folder the process works in later.
    pub(super) fn resolve(&mut self) {
        if let Ok(absolute) = std::path::absolute(&self.data_dir) {
            self.data_dir = absolute;
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.id {
            Some(id) => within("node.id", id.get(), 1, u64::MAX),
            None => Ok(()),
        }
    }
}

/// A cluster id as 32 hex digits; the type itself serialises to bytes, for stored formats.
mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use types::ClusterId;

    pub(super) fn serialize<S: Serializer>(id: &Option<ClusterId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ClusterId>, D::Error> {
        String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
    }
}

/// The certificate of this node, its key, and whom it believes. PEM files; a path that does not begin with `/` is below
/// `node.data_dir`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// The certificate and what leads from it to the CA, the node's own first.
    pub cert: PathBuf,
    /// Its private key, mode 0600.
    pub key: PathBuf,
    /// The CA certificates that peers are verified against.
    pub ca: PathBuf,
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self { cert: identity("node.pem"), key: identity("node.key"), ca: identity("ca.pem") }
    }
}

impl TlsFiles {
    pub(super) fn resolve(&mut self, data_dir: &Path) {
        below(data_dir, [&mut self.cert, &mut self.key, &mut self.ca]);
    }
}

/// A file in the identity folder, below `node.data_dir`.
pub(super) fn identity(file: &str) -> PathBuf {
    Path::new(IDENTITY_FOLDER).join(file)
}

/// Puts paths that are not absolute below the data folder.
pub(super) fn below<'a>(data_dir: &Path, paths: impl IntoIterator<Item = &'a mut PathBuf>) {
    for path in paths {
        *path = data_dir.join(&*path);
    }
}

/// How a node gets its first certificate. Looked at only while it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Join {
    /// The file with the join token, mode 0600. It is used once and may be deleted then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Control nodes, asked in turn.
    pub endpoints: Vec<HostPort>,
}

/// Names must fit a certificate.
pub(super) fn check_names(key: &'static str, names: &[String]) -> Result<(), Fault> {
    within(key, names.len(), 0, CERTIFICATE_NAMES_MAX - 8)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let named =
        |name: &String| name.parse::<std::net::IpAddr>().is_ok() || !name.is_empty() && name.len() <= 253 && name.chars().all(allowed);
    match names.iter().find(|name| !named(name)) {
        Some(wrong) => Err((key, format!("holds {wrong:?}, which is neither a DNS name nor an address"))),
        None => Ok(()),
    }
}

/// A UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixListen {
    /// Where it lies; the folder must exist.
    pub path: PathBuf,
    /// Its mode: who may connect. What a caller may then read is decided by `[[peer]]` and by tokens.
    pub mode: FileMode,
}

/// How many clients may be connected, and how fast they must be about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionLimits {
    /// Open connections per listener; one more takes the place of the oldest that has made no good call, or is closed at once.
    pub connections_max: usize,
    /// TLS handshakes in progress; one more takes the place of the oldest, once that has lasted a second.
    pub handshakes_max: usize,
    /// From accepting a connection to the end of its TLS handshake.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// A call that takes longer ends with `deadline exceeded`.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Calls at the same time on one connection.
    pub streams_max: u32,
    /// After this time a connection is asked to end and its client to connect anew, which shows its certificate again.
    #[serde(with = "duration")]
    pub connection_age_max: Duration,
}

/// Open connections per listener: a connection costs about 50 KiB with its HTTP/2 windows idle.
const CONNECTIONS_MAX: usize = 4096;
/// Handshakes at once: one costs about 1 ms of a core, and as much memory as an open connection. So many in a second are more than a few
/// cores do; who sends half of one must send more than this in a second to be in anybody's way.
const HANDSHAKES_MAX: usize = 1024;
/// A handshake is two round trips; who needs longer than 5 s holds a place for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any call but `--wait` and streams, which carry their own deadlines.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls per connection: enough for a client that keeps 64 writers or lookups in flight on it.
const STREAMS_MAX: u32 = 256;
/// One hour: the bound on how long a connection outlives a certificate that was swapped.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            handshakes_max: HANDSHAKES_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            streams_max: STREAMS_MAX,
            connection_age_max: CONNECTION_AGE_MAX,
        }
    }
}

impl ConnectionLimits {
    pub(super) fn check(&self) -> Result<(), Fault> {
        within("connections.connections_max", self.connections_max, 1, 1 << 20)?;
        within("connections.handshakes_max", self.handshakes_max, 1, 1 << 16)?;
        within("connections.streams_max", self.streams_max, 1, 1 << 16)?;
        for (key, duration) in [
            ("connections.handshake_timeout", self.handshake_timeout),
            ("connections.request_timeout", self.request_timeout),
            ("connections.connection_age_max", self.connection_age_max),
        ] {
            within(key, duration.as_millis(), 1, MAX_WAIT_MS).map_err(in_ms)?;
        }
        Ok(())
    }
}

/// 30 days: no wait in a server is meant to be longer.
pub(super) const MAX_WAIT_MS: u128 = 30 * 86_400_000;

/// Says that the numbers of a fault are milliseconds.
pub(super) fn in_ms((key, message): Fault) -> Fault {
    (key, format!("{message} milliseconds"))
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    #[default]
    Json,
    /// For a terminal.
    Pretty,
}

/// What is logged; log lines go to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are written, in the syntax of tracing's `EnvFilter`, such as `info,feed=debug`.
    pub filter: String,
}

impl LogConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        crate::telemetry::parse_filter(&self.filter).map(drop).map_err(|error| ("log.filter", error.to_string()))
    }
}

/// The consensus library tells at `info` what it does inside, at length; of it, what matters to an operator is a warning.
const USUAL_FILTER: &str = "info,openraft=warn";

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, filter: USUAL_FILTER.into() }
    }
}

/// How the server ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// From the signal until what has not ended is dropped. Shorter than systemd's `TimeoutStopSec`.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

/// Accepted writes end within milliseconds; 20 s leaves room for a slow disk.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

impl Default for Shutdown {
    fn default() -> Self {
        Self { deadline: SHUTDOWN_DEADLINE }
    }
}

impl Shutdown {
    pub(super) fn check(&self) -> Result<(), Fault> {
        within("shutdown.deadline", self.deadline.as_millis(), 100, 600_000).map_err(in_ms)
    }
}
