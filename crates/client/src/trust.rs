//! Whom a client believes, and how it follows when the cluster replaces its certificate authority.
//!
//! Answers name the version of the list of authorities that are believed ([`wire::TRUST_METADATA`]). When that is newer than the client's,
//! the client asks for the list over connections that its own list verifies, and tries it: it asks again over new connections, which the
//! new list verifies. When that answer is the same list, calls go by the new connections, and the list is kept: in memory, and in the file
//! that [`Config::trust_file`] names. Calls that are under way and open streams end where they are. A newer list that somebody else has
//! put into that file is taken over as well, where the client is told to ask ([`Config::trust_asked_every`]): so a client of edges follows.
//!
//! **Invariants**
//! 1. A list is taken over only when it is newer, told by a server that the list before vouches for, and told again by one that it vouches
//!    for itself. One in the file is believed as the configuration is.
//! 2. One attempt at a time; after one that failed the next waits [`RETRY_AFTER`]. No call waits for any of it.
//!
//! **Left out**: asking edges. What an edge in the wrong hands can do ends with its certificate; a list that it told would count for ever.
//! And proof against whoever holds a former authority's key. Until a client has heard of the replacement, such a one can pass for
//! a server, and so tell it any list; after that, no more.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    pin::Pin,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tonic::{Response, metadata::MetadataMap};
use wire::{TRUST_METADATA, v1};

use crate::{
    Client, ClientError, Config, ConfigError, Tls,
    config::Target,
    connect::{self, Route},
    retry,
};

/// The line before the first certificate of a list: its version. PEM readers pass over it (RFC 7468, section 2). As nodes write it.
const VERSION: &str = "cinnabar-trust-version: ";
/// For asking for a list, and for trying it.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// The pause after an attempt that failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The version of a list of authorities as text; 0 for one from before the first replacement.
pub fn trust_version(text: &str) -> u32 {
    text.lines().find_map(|line| line.strip_prefix(VERSION)?.trim().parse().ok()).unwrap_or(0)
}

/// The list of a reply as text, as nodes write it.
pub fn trust_pem(reply: &v1::ShowAuthorityReply) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let blocks = reply.authorities.iter().map(|one| pem::encode_config(&pem::Pem::new("CERTIFICATE", &one.certificate[..]), lines));
    std::iter::once(format!("{VERSION}{}\n", reply.version)).chain(blocks).collect()
}

/// What a client believes, and the ways to its servers that are verified by it.
pub(crate) struct Trust {
    /// What all routes are made from, with the list in force.
    config: RwLock<Config>,
    routes: RwLock<Vec<Route>>,
    /// The version of the list in force.
    held: AtomicU32,
    /// Whether somebody follows a newer one now.
    busy: AtomicBool,
}

impl Trust {
    /// With the newer of the configured list and the one in its file.
    pub(crate) fn new(mut config: Config) -> Result<Self, ConfigError> {
        let mut held = 0;
        if let Target::Tls { tls, .. } = &mut config.target {
            if let Some(kept) = config.trust_file.as_deref().map(kept).transpose()?.flatten()
                && trust_version(&kept) > trust_version(&tls.ca_pem)
            {
                tls.ca_pem = kept;
            }
            held = trust_version(&tls.ca_pem);
        }
        let routes = connect::routes(&config)?;
        Ok(Self { routes: RwLock::new(routes), held: AtomicU32::new(held), config: RwLock::new(config), busy: AtomicBool::new(false) })
    }

    /// A look at the routes.
    pub(crate) fn routes<T>(&self, look: impl FnOnce(&[Route]) -> T) -> T {
        look(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn config(&self) -> Config {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes over to a list: calls take these routes from now on.
    fn go_over(&self, config: Config, routes: Vec<Route>, version: u32) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.held.store(version, Ordering::Release);
        tracing::info!(version, "the cluster has replaced its certificate authority: its list is believed now");
    }

    /// Takes over the list in the file, where it is newer than the one in force.
    fn look_at_file(&self) -> Result<(), ConfigError> {
        let mut config = self.config();
        let Target::Tls { tls, .. } = &mut config.target else { return Ok(()) };
        let Some(kept) = config.trust_file.as_deref().map(kept).transpose()?.flatten() else { return Ok(()) };
        let version = trust_version(&kept);
        if version > self.held.load(Ordering::Acquire) {
            tls.ca_pem = kept;
            let routes = connect::routes(&config)?;
            self.go_over(config, routes, version);
        }
        Ok(())
    }
}

/// The list in a file; none where there is no such file yet.
fn kept(path: &Path) -> Result<Option<String>, ConfigError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::TrustFile { path: path.to_owned(), source }),
    }
}

/// The version that an answer names; 0 for none.
pub(crate) fn named(metadata: &MetadataMap) -> u32 {
    metadata.get(TRUST_METADATA).and_then(|version| version.to_str().ok()?.parse().ok()).unwrap_or(0)
}

impl Client {
    /// Notes what an answer says of the list of authorities, and follows where it is newer.
    pub(crate) fn note_trust<A>(&self, response: &Response<A>) {
        let named = named(response.metadata());
        if named == 0 {
            return;
        }
        let trust = self.trust();
        match &trust.config.read().unwrap_or_else(PoisonError::into_inner).trust_seen {
            Some(seen) => drop(seen.fetch_max(named, Ordering::Relaxed)),
            None if named > trust.held.load(Ordering::Acquire) && !trust.busy.swap(true, Ordering::AcqRel) => {
                drop(tokio::spawn(follow(self.clone())))
            }
            None => {}
        }
    }

    /// The version of the list of certificate authorities that this client believes; 0 from before the first was replaced.
    pub fn trust_held(&self) -> u32 {
        self.trust().held.load(Ordering::Acquire)
    }

    /// Completes once no attempt is under way.
    #[cfg(test)]
    pub(crate) async fn attempted(&self) {
        while self.trust().busy.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
    }

    /// Takes over the cluster's list of authorities, if it is newer.
    async fn take_over(&self) -> Result<(), Untaken> {
        let trust = self.trust();
        let told = self.timeout(ASK_WITHIN).show_authority(v1::ShowAuthorityRequest {}).await.map_err(Untaken::NotTold)?;
        if told.version <= trust.held.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut config = trust.config();
        let Target::Tls { tls, .. } = &mut config.target else { return Ok(()) };
        *tls = Tls { ca_pem: trust_pem(&told), ..tls.clone() };
        // Who only tries must not follow in turn.
        let tried =
            Self::new(Config { trust_seen: Some(Default::default()), trust_file: None, ..config.clone() }).map_err(Untaken::Unusable)?;
        let again = tried.timeout(ASK_WITHIN).show_authority(v1::ShowAuthorityRequest {}).await.map_err(Untaken::NotProven)?;
        if again.version != told.version || trust_pem(&again) != trust_pem(&told) {
            return Err(Untaken::Other);
        }
        // The connections that were just proven.
        let routes = tried.trust().routes(<[Route]>::to_vec);
        if let Some((path, Err(error))) = config.trust_file.as_deref().map(|path| (path, keep(path, &trust_pem(&told)))) {
            tracing::warn!(path = %path.display(), %error, "the new list of certificate authorities was not kept: a restart believes the one before");
        }
        trust.go_over(config, routes, told.version);
        Ok(())
    }
}

/// Why a list was not taken over.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error("the cluster did not tell it")]
    NotTold(#[source] ClientError),
    #[error("it cannot be used")]
    Unusable(#[source] ConfigError),
    #[error("no server is verified by it")]
    NotProven(#[source] ClientError),
    #[error("two servers told different lists")]
    Other,
}

/// In a box: a call may follow, and following calls.
fn follow(client: Client) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if let Err(error) = client.take_over().await {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, cause, "the cluster has a new certificate authority, which is not believed here yet; it is tried again");
            retry::wait(RETRY_AFTER).await;
        }
        client.trust().busy.store(false, Ordering::Release);
    })
}

/// Looks for a newer list in the file and asks for one, again and again, until the client is gone.
pub(crate) async fn ask_every(every: Duration, client: impl Fn() -> Option<Client>) {
    loop {
        retry::wait(every).await;
        let Some(client) = client() else { return };
        let trust = client.trust();
        if !trust.busy.swap(true, Ordering::AcqRel) {
            if let Err(error) = trust.look_at_file() {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "the list of certificate authorities in the file cannot be used: the one before is believed");
            }
            trust.busy.store(false, Ordering::Release);
        }
        // An answer to any call leads to the rest.
        let _ = client.timeout(ASK_WITHIN).show_authority(v1::ShowAuthorityRequest {}).await;
    }
}

/// Writes a list beside its file and renames it, so that a crash leaves the old or the new one.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}
