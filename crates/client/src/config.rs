//! What a client is made from.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use zeroize::Zeroizing;

use crate::{ConfigError, Retries};

/// How long a call may take, its repetitions included, when nothing else is said.
const TIMEOUT_USUAL: Duration = Duration::from_secs(10);

/// A bearer token. Wiped when dropped, shown nowhere.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token as it was shown when it was made; blanks and line breaks around it are dropped.
    ///
    /// # Errors
    /// [`ConfigError::Token`] when it could not stand in a header.
    pub fn new(text: impl Into<Zeroizing<String>>) -> Result<Self, ConfigError> {
        let text = text.into();
        let trimmed = text.trim();
        if trimmed.is_empty() || !trimmed.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::Token);
        }
        Ok(Self(Zeroizing::new(trimmed.to_owned())))
    }

    /// The header's text.
    pub(crate) fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.0.as_str()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A client certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, then the chain up to the CA, PEM.
    pub certificate_pem: String,
    /// The private key, PEM (PKCS#8, SEC 1 or PKCS#1).
    pub key_pem: Zeroizing<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// Whom to trust over TCP, and who to be.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The cluster's CA certificates, PEM. No other CA is trusted.
    pub ca_pem: String,
    /// A client certificate; none when a token is enough.
    pub identity: Option<Identity>,
    /// The name that the server's certificate must carry, if it is not the host of the address.
    pub server_name: Option<String>,
}

/// Where the servers are.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Unix(PathBuf),
    Tls { addresses: Vec<String>, tls: Tls },
}

/// What a client is made from: where to, who as, how long and how often.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) target: Target,
    pub(crate) token: Option<Token>,
    pub(crate) timeout: Duration,
    pub(crate) retries: Retries,
    pub(crate) connections: usize,
    pub(crate) trust_seen: Option<Arc<AtomicU32>>,
    pub(crate) trust_file: Option<PathBuf>,
    pub(crate) trust_asked_every: Option<Duration>,
    pub(crate) control_only: bool,
}

impl Config {
    /// A server on a UNIX socket of this machine.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self::to(Target::Unix(socket.into()))
    }

    /// Servers over TLS, each as HOST:PORT. Any of them will do: a call that fails at one is repeated at the next.
    pub fn tls(addresses: impl IntoIterator<Item = impl Into<String>>, tls: Tls) -> Self {
        Self::to(Target::Tls { addresses: addresses.into_iter().map(Into::into).collect(), tls })
    }

    fn to(target: Target) -> Self {
        Self {
            target,
            token: None,
            timeout: TIMEOUT_USUAL,
            retries: Retries::default(),
            connections: 1,
            trust_seen: None,
            trust_file: None,
            trust_asked_every: None,
            control_only: false,
        }
    }

    /// With a token in every call.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// With this much time for each call, repetitions included. 10 s if nothing is said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With another rule for repetitions.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Tells in `seen` the highest version of the list of believed certificate authorities that a server has named, and does not follow
    /// it: whoever wants to know takes care of that, while the old list still counts. Otherwise a client of control nodes asks for the new
    /// list and goes over to it by itself.
    #[must_use]
    pub fn trust_seen(mut self, seen: Arc<AtomicU32>) -> Self {
        self.trust_seen = Some(seen);
        self
    }

    /// Keeps newer lists of certificate authorities in this file, and begins with the one in it where that is newer than the configured
    /// one. Others may write it too: a newer one, such as a copy of a node's `identity/ca.pem` with its first line, is taken over while
    /// the client lives if it [asks](Config::trust_asked_every); write beside it, then rename. It holds nothing secret; but whoever can
    /// write it decides whom the client believes.
    #[must_use]
    pub fn trust_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust_file = Some(path.into());
        self
    }

    /// Asks for a newer list this often, for as long as the client lives, and looks for one in the file of [`Config::trust_file`]: for a
    /// program that may make no call for longer than a former authority is believed, which is ten minutes after a control node was
    /// revoked; and for a client of edges, which hears of a new list by that file alone. At least a second.
    #[must_use]
    pub fn trust_asked_every(mut self, every: Duration) -> Self {
        self.trust_asked_every = Some(every.max(Duration::from_secs(1)));
        self
    }

    /// Of control nodes alone: a server that the CA certified for something else is refused, whatever names its certificate carries.
    #[must_use]
    pub fn control_only(mut self) -> Self {
        self.control_only = true;
        self
    }

    /// With this many connections to each server, used in turn: 1 to 64. One is enough but for heavy use, where two to four help.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 64);
        self
    }

    /// How many servers there are to ask; at least one.
    pub(crate) fn servers(&self) -> usize {
        match &self.target {
            Target::Unix(_) => 1,
            Target::Tls { addresses, .. } => addresses.len().max(1),
        }
    }
}
