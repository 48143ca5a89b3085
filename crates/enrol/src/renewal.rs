//! Renewal: each certificate is traded for the next one at two thirds of its life.
//!
//! One loop per node looks at the certificate's file twice a minute. When it is due it asks its [`Source`]; when the file has changed,
//! by its own hand or another's, everybody who uses it takes it over. While renewing fails it is tried again, ever more seldom, and
//! with less than a sixth of the life left each failure is an error in the log.
//!
//! **Concurrency**: cancelling it between any two steps leaves the old certificate or the new one, whole.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use runtime::{
    config::{HostPort, TlsFiles},
    tls::{ClientTls, PeerCertificate, TlsError},
};
use seams::{Clock, Entropy};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use types::{NodeName, UnixMillis};
use wire::internal::{RenewRequest, enrol_client::EnrolClient};

use crate::{
    EnrolError, Layout, NodeKey, Peers, Trust,
    attempt::{Failed, answer, jittered},
    join::{check_clock, keep_certificates, peer},
};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it is asked which authorities are believed.
const TRUST_EVERY: Duration = Duration::from_secs(1);
/// For how long a list of authorities is believed that a control node told, and that the replicated state does not name. It lets a node
/// that slept reach the others, by which it comes to the state that names it. Longer it must not count: a control node in the wrong hands
/// could name an authority of its own, and be believed after its revocation.
const TOLD_FOR: Duration = Duration::from_secs(600);
/// Over which time nodes trade their certificates when the authority was replaced.
const REPLACED_SPREAD: Duration = Duration::from_secs(3);
/// The first wait after a failure; it doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest wait after a failure; a shorter life is waited for a twentieth of.
const RETRY_MAX: Duration = Duration::from_secs(600);

/// A fresh certificate, and whom the control plane consists of by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The certificate and the chain up to the CA, each DER.
    pub certificates: Vec<Vec<u8>>,
    /// The control nodes; none when the source does not tell.
    pub peers: Option<Peers>,
    /// The authorities that are believed; none before the first was replaced, or when the source does not tell.
    pub trust: Option<Trust>,
}

/// Where certificates come from.
pub trait Source: Send + Sync {
    /// Trades a request (PKCS#10, DER, signed by the node's key) for a certificate.
    fn renew(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Renewed, EnrolError>>;
}

/// Asks control nodes, by the certificate that is about to end, or has.
pub struct Remote {
    channels: Box<dyn Fn() -> Vec<(String, Channel)> + Send + Sync>,
    clock: Arc<dyn Clock>,
}

impl Remote {
    /// Asks these in turn. `tls` shows the node's own certificate and has a judge who says which servers are believed.
    pub fn new(endpoints: impl Fn() -> Vec<HostPort> + Send + Sync + 'static, tls: ClientTls, clock: Arc<dyn Clock>) -> Self {
        let dial = move || endpoints().into_iter().map(|endpoint| (endpoint.to_string(), tls.channel(&endpoint))).collect();
        Self::over(dial, clock)
    }

    /// Asks in turn over these channels, each with the name of who is at its end.
    pub fn over(channels: impl Fn() -> Vec<(String, Channel)> + Send + Sync + 'static, clock: Arc<dyn Clock>) -> Self {
        Self { channels: Box::new(channels), clock }
    }

    async fn anywhere(&self, request: Vec<u8>) -> Result<Renewed, EnrolError> {
        let request = RenewRequest {
            certificate_request: request.into(),
            feature_level: crate::feature_level().get(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut attempts = Vec::new();
        for (endpoint, channel) in (self.channels)() {
            let mut client = EnrolClient::new(channel);
            match answer(&*self.clock, client.renew(request.clone())).await {
                Ok(reply) => {
                    let certificates = reply.certificates.iter().map(|der| der.to_vec()).collect();
                    let peers = (!reply.control_nodes.is_empty()).then(|| Peers(reply.control_nodes.iter().map(peer).collect()));
                    let authorities = reply.authorities.iter().map(|der| der.to_vec());
                    let trust = Trust::told(reply.trust_version, authorities);
                    return Ok(Renewed { certificates, peers, trust });
                }
                Err(Failed::Refused(message)) => return Err(EnrolError::Refused { endpoint, message }),
                Err(failed) => attempts.push(failed.at(&endpoint)),
            }
        }
        Err(EnrolError::Nowhere { what: "renewing the certificate", attempts: attempts.join("; ") })
    }
}

impl Source for Remote {
    fn renew(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Renewed, EnrolError>> {
        Box::pin(self.anywhere(request))
    }
}

/// Takes over renewed files, such as [`runtime::tls::ServerTls::reload`].
pub type Reload = Box<dyn Fn(&TlsFiles) -> Result<(), TlsError> + Send + Sync>;

/// Says which authorities are believed, as far as the node's state knows; none before the first was replaced.
pub type Believed = Box<dyn Fn() -> Option<Trust> + Send + Sync>;

/// The renewal of one node's certificate.
pub struct Renewal {
    /// Its files.
    pub layout: Layout,
    /// Its name, for log and metrics.
    pub name: NodeName,
    /// The names it would like in its certificate.
    pub names: Vec<String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Where certificates come from.
    pub source: Arc<dyn Source>,
    /// Who uses the files.
    pub users: Vec<Reload>,
    /// Which authorities are believed, as the node's state has it; none where nothing replaces them.
    pub trust: Option<Believed>,
    /// Set by whoever was told that this node's certificate counts no more, though its own clock and state say otherwise: the node slept while
    /// its CA was replaced and dropped. It is then traded, at most once in half a minute.
    pub doubted: Arc<AtomicBool>,
}

/// What the loop remembers between two looks.
#[derive(Default)]
struct Memory {
    /// The certificate that its users hold.
    held: Option<PeerCertificate>,
    /// When it is due: drawn once for each certificate.
    due: UnixMillis,
    /// Failures since the last success.
    failures: u32,
    /// Not before this moment of monotonic time.
    retry_at: Duration,
    /// The version of the authorities that its users believe.
    trusted: Option<u32>,
    /// Whether the certificate was made due because another authority issues.
    hurried: bool,
    /// Since when, in monotonic time, the file names other authorities than the state, and claims to be newer.
    stray_since: Option<Duration>,
    /// When another's doubt was last acted on, in monotonic time.
    doubted_at: Option<Duration>,
}

impl Renewal {
    /// Runs until it is cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut memory = Memory::default();
        loop {
            let wait = match cancel.run_until_cancelled(self.step(&mut memory)).await {
                Some(wait) => wait,
                None => return,
            };
            if cancel.run_until_cancelled(self.clock.sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Looks at the file, renews when it is due, and says how long to wait until the next look.
    async fn step(&self, memory: &mut Memory) -> Duration {
        let wait = self.renew_when_due(memory).await;
        if self.trust.is_some() { wait.min(TRUST_EVERY) } else { wait }
    }

    async fn renew_when_due(&self, memory: &mut Memory) -> Duration {
        self.look(memory);
        self.believe(memory);
        self.heed_doubt(memory);
        let Some(held) = memory.held.clone() else { return LOOK_EVERY };
        let (now, life) = (self.clock.wall(), held.not_after.since(held.not_before));
        if now < memory.due {
            return memory.due.since(now).min(LOOK_EVERY);
        }
        if self.clock.monotonic() < memory.retry_at {
            return (memory.retry_at - self.clock.monotonic()).min(LOOK_EVERY);
        }
        match self.renew(&held).await {
            Ok(until) => {
                tracing::info!(node = %self.name, until_ms = until.get(), "renewed this node's certificate");
                memory.failures = 0;
                self.look(memory);
                memory.due.since(self.clock.wall()).clamp(RETRY_MIN, LOOK_EVERY)
            }
            Err(error) => {
                memory.failures = memory.failures.saturating_add(1);
                let most = (life / 20).clamp(RETRY_MIN, RETRY_MAX);
                let wait = jittered(&*self.entropy, (RETRY_MIN * 2u32.saturating_pow(memory.failures.min(12) - 1)).min(most));
                memory.retry_at = self.clock.monotonic() + wait;
                self.complain(&held, &error, wait);
                wait.min(LOOK_EVERY)
            }
        }
    }

    /// Takes over what is in the file, if it is another certificate than its users hold, and shows how long it lasts.
    fn look(&self, memory: &mut Memory) {
        match self.layout.certificate() {
            Ok(found) if memory.held.as_ref() != Some(&found) => {
                let reload = |user: &Reload| user(&self.layout.tls);
                // At the first look its users have just loaded it.
                match if memory.held.is_some() { self.users.iter().try_for_each(reload) } else { Ok(()) } {
                    Ok(()) => {
                        memory.due = due(&found, &*self.entropy);
                        memory.held = Some(found);
                    }
                    Err(error) => {
                        tracing::error!(node = %self.name, %error, cause = ?std::error::Error::source(&error), "the renewed certificate cannot be used; the old one stays in use")
                    }
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!(node = %self.name, %error, "this node's certificate cannot be read"),
        }
        if let Some(held) = &memory.held {
            let (end, now) = (held.not_after.get() as f64, self.clock.wall().get() as f64);
            metrics::gauge!("cinnabar_certificate_expiry_seconds", "node" => self.name.to_string()).set((end - now) / 1e3);
        }
    }

    /// Believes the authorities that the state names, if it is newer than the file. A certificate by another than the one that issues is
    /// traded at once, for former authorities are believed only for a while.
    fn believe(&self, memory: &mut Memory) {
        let Some(trust) = self.trust.as_ref().and_then(|trust| trust()) else { return };
        let path = &self.layout.tls.ca;
        let held = *memory.trusted.get_or_insert_with(|| Trust::version_in(path));
        if trust.version > held {
            let kept = trust.keep(path).map_err(|error| error.to_string());
            let reload = |user: &Reload| user(&self.layout.tls);
            match kept.and_then(|_| self.users.iter().try_for_each(reload).map_err(|error| error.to_string())) {
                Ok(()) => {
                    tracing::info!(node = %self.name, version = trust.version, authorities = trust.certificates.len(), "this node believes other certificate authorities");
                    memory.trusted = Some(trust.version);
                }
                Err(error) => {
                    tracing::error!(node = %self.name, error, "the certificate authorities that are believed now cannot be taken over; it is tried again");
                    return;
                }
            }
        }
        self.end_stray(memory, &trust);
        let by_another = self.trust_version_is_ours(&trust) && trust.issued(&self.layout.tls.cert).is_ok_and(|issued| !issued);
        if by_another && !memory.hurried {
            memory.hurried = true;
            memory.due = memory.due.min(self.clock.wall().plus(jittered(&*self.entropy, REPLACED_SPREAD)));
            tracing::info!(node = %self.name, "the certificate authority was replaced: this node trades its certificate");
        } else if !by_another {
            memory.hurried = false;
        }
    }

    /// Puts the state's list into the file, where the file has another that the state has not come to name in time. A list of the state's own
    /// version with other content was never the cluster's.
    fn end_stray(&self, memory: &mut Memory, trust: &Trust) {
        let path = &self.layout.tls.ca;
        let Ok(text) = std::fs::read_to_string(path) else { return };
        let told = Trust::version_of(&text);
        let forged = told == trust.version && !text.ends_with(&trust.pem());
        if told <= trust.version && !forged {
            memory.stray_since = None;
            return;
        }
        let now = self.clock.monotonic();
        let since = *memory.stray_since.get_or_insert(now);
        if !forged && now.saturating_sub(since) < TOLD_FOR {
            return;
        }
        let written = runtime::write_checked_file(path, trust.pem().as_bytes()).map_err(|error| error.to_string());
        let reload = |user: &Reload| user(&self.layout.tls);
        match written.and_then(|()| self.users.iter().try_for_each(reload).map_err(|error| error.to_string())) {
            Ok(()) => {
                tracing::error!(node = %self.name, told, version = trust.version, "a control node told of certificate authorities that the cluster does not know: they are believed no more. Look for a control node in the wrong hands");
                memory.trusted = Some(trust.version);
                memory.stray_since = None;
            }
            Err(error) => {
                tracing::error!(node = %self.name, error, "the certificate authorities that are believed now cannot be taken over; it is tried again");
            }
        }
    }

    fn heed_doubt(&self, memory: &mut Memory) {
        let now = self.clock.monotonic();
        if memory.doubted_at.is_some_and(|at| now < at + LOOK_EVERY) || !self.doubted.swap(false, Ordering::Relaxed) {
            return;
        }
        memory.doubted_at = Some(now);
        memory.due = memory.due.min(self.clock.wall());
        tracing::info!(node = %self.name, "a control node says that this node's certificate counts no more: it is traded");
    }

    /// Whether the state's word is as new as the file's: an older one says nothing of the certificate.
    fn trust_version_is_ours(&self, trust: &Trust) -> bool {
        trust.version >= Trust::version_in(&self.layout.tls.ca)
    }

    /// One attempt: the new certificate is checked before it replaces the old one.
    async fn renew(&self, held: &PeerCertificate) -> Result<UnixMillis, EnrolError> {
        let key = NodeKey::read(&self.layout.tls.key)?;
        let renewed = self.source.renew(key.request(&self.names)?).await?;
        let wrong = |detail: &str| EnrolError::Reply { endpoint: "the control plane".to_owned(), detail: detail.to_owned() };
        let leaf = PeerCertificate::read(renewed.certificates.first().ok_or_else(|| wrong("it holds no certificate"))?)?;
        if leaf.identity != held.identity || leaf.public_key != key.public_key() {
            return Err(wrong("the certificate is for another node or key"));
        }
        check_clock(&*self.clock, &leaf, &"the control plane")?;
        // A node that never joined was told of nobody, and goes on so.
        if let Some(peers) = renewed.peers.filter(|peers| !peers.0.is_empty() && self.layout.peers.exists()) {
            peers.write(&self.layout.peers)?;
        }
        if let Some(trust) = renewed.trust {
            trust.keep(&self.layout.tls.ca)?;
        }
        keep_certificates(&self.layout, &renewed.certificates)?;
        Ok(leaf.not_after)
    }

    fn complain(&self, held: &PeerCertificate, error: &EnrolError, again_in: Duration) {
        let (now, life) = (self.clock.wall(), held.not_after.since(held.not_before));
        let left = held.not_after.since(now);
        let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        let error = causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"));
        if held.is_expired(now) {
            tracing::error!(node = %self.name, error, ?again_in, "this node's certificate has EXPIRED and cannot be renewed: others refuse it until it is");
        } else if left < life / 6 {
            tracing::error!(node = %self.name, error, ?again_in, ?left, "this node's certificate ends soon and cannot be renewed");
        } else {
            tracing::warn!(node = %self.name, error, ?again_in, ?left, "this node's certificate was not renewed; it is tried again");
        }
    }
}

/// Two thirds of its life, and up to a twentieth more or less, so that nodes that joined together do not renew together.
fn due(certificate: &PeerCertificate, entropy: &dyn Entropy) -> UnixMillis {
    let life = certificate.not_after.since(certificate.not_before);
    let twentieth = life / 20;
    let share = u32::try_from(entropy.number() % 2001).unwrap_or_default();
    certificate.not_before.plus(life * 2 / 3 - twentieth + twentieth * share / 1000)
}
