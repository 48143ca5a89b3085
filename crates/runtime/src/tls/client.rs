//! The connecting side.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use types::{ClusterId, Hash, NodeId};

use super::{
    ALPN_H2, PeerCertificate, TlsError, authority_fingerprint, client_provider,
    expiry::{has_expired, last_moment, millis},
    material,
};
use crate::config::{HostPort, TlsFiles};

/// An encrypted connection to a server whose certificate was verified.
pub type ClientTlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connecting and the handshake together; a control node that takes longer is as good as down, and there may be others.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing came for this long is probed, so that a cut without a reset is noticed, also of one direction: a leader
/// that hears nobody would otherwise go on to keep its followers from an election.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A probe that is not answered in this time ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Flow-control window of one stream: 1 MiB, so that one round trip of 10 ms carries 100 MB/s.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of a connection: four streams at full speed.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Decides about a server that holds its certificate's key, at each handshake. Must return at once.
pub trait Judge: Send + Sync {
    /// Whether to go on; `expired`: the certificate counts no more, because it has ended or because its CA is not believed. Then only who
    /// is known by its key may be accepted.
    ///
    /// # Errors
    /// Why not, for the log.
    fn judge(&self, server: &PeerCertificate, expired: bool) -> Result<(), String>;
}

/// Whom a client accepts as the server, besides that the CA must have signed it.
#[derive(Clone)]
pub enum Expect {
    /// Whom the judge accepts, whatever its host name, and if the judge says so with an expired certificate.
    Judge(Arc<dyn Judge>),
    /// This node of this cluster, whatever its host name.
    Node {
        /// The cluster.
        cluster: ClusterId,
        /// Its number.
        node: NodeId,
    },
    /// Any node of a cluster whose certificate carries the host name dialled, and whose chain holds the CA with this fingerprint: for
    /// who has a join token, and no CA certificate yet. The name keeps the token from other nodes of the cluster, which get no
    /// control node's name.
    Authority {
        /// The cluster.
        cluster: ClusterId,
        /// SHA-256 of the CA's `SubjectPublicKeyInfo`.
        fingerprint: Hash,
    },
    /// Any node of a cluster whose certificate carries the host name dialled.
    Host {
        /// The cluster; none accepts any that the CA signs for.
        cluster: Option<ClusterId>,
    },
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("cannot connect to {address}")]
    Tcp {
        /// Who was called.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Somebody answers, who is not accepted or does not accept us.
    #[error("the TLS handshake with {address} failed")]
    Handshake {
        /// Who was called.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No end in time.
    #[error("no connection to {address} within {limit:?}")]
    Timeout {
        /// Who was called.
        address: String,
        /// The bound.
        limit: Duration,
    },
}

/// What a TLS client needs. Clones share the certificate, also when it is reloaded.
#[derive(Clone)]
pub struct ClientTls {
    current: Arc<ArcSwap<Material>>,
    config: Arc<ClientConfig>,
}

struct Material {
    own: Option<material::Own>,
    roots: Arc<RootCertStore>,
}

impl ClientTls {
    /// A client with a certificate of its own: a node, or a consumer.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: &TlsFiles, expect: Expect) -> Result<Self, TlsError> {
        let own = material::own(files, &client_provider())?;
        Self::build(Some(own), &files.ca, expect)
    }

    /// A client that has a token in place of a certificate, and believes this CA.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn without_certificate(ca: &Path, expect: Expect) -> Result<Self, TlsError> {
        Self::build(None, ca, expect)
    }

    /// A client that has a join token: no certificate, and of the CA only the fingerprint.
    ///
    /// # Errors
    /// [`TlsError`] when the library refuses; nothing that a caller does brings that about.
    pub fn joining(cluster: ClusterId, fingerprint: Hash) -> Result<Self, TlsError> {
        let roots = Arc::new(RootCertStore::empty());
        Self::with(Material { own: None, roots }, Path::new("(the join token)"), Expect::Authority { cluster, fingerprint })
    }

    fn build(own: Option<material::Own>, ca: &Path, expect: Expect) -> Result<Self, TlsError> {
        Self::with(Material { own, roots: material::roots(ca)? }, ca, expect)
    }

    fn with(material: Material, ca: &Path, expect: Expect) -> Result<Self, TlsError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Unusable { path: ca.to_owned(), source };
        let current = Arc::new(ArcSwap::from_pointee(material));
        let provider = client_provider();
        let verifier = Verifier { current: current.clone(), expect, algorithms: provider.signature_verification_algorithms };
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|error| unusable(Box::new(error)))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = builder.with_client_cert_resolver(Arc::new(Resolver(current.clone())));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { current, config: Arc::new(config) })
    }

    /// Reads the files again; connections from now on use them.
    ///
    /// # Errors
    /// [`TlsError`]; then the old ones stay in use.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let own = material::own(files, &client_provider())?;
        self.current.store(Arc::new(Material { own: Some(own), roots: material::roots(&files.ca)? }));
        Ok(())
    }

    /// Opens one connection, at most in 5 s.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, to: &HostPort) -> Result<ClientTlsStream, ConnectError> {
        let address = to.to_string();
        match tokio::time::timeout(CONNECT_TIMEOUT, self.dial(to)).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectError::Timeout { address, limit: CONNECT_TIMEOUT }),
        }
    }

    async fn dial(&self, to: &HostPort) -> Result<ClientTlsStream, ConnectError> {
        let tcp = |source| ConnectError::Tcp { address: to.to_string(), source };
        let handshake = |source| ConnectError::Handshake { address: to.to_string(), source };
        let stream = TcpStream::connect((to.host(), to.port())).await.map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        let name = ServerName::try_from(to.host().to_owned()).map_err(|error| handshake(io::Error::other(error)))?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await.map_err(handshake)
    }

    /// A gRPC channel to one server. It connects at the first call, and again whenever the connection was lost.
    pub fn channel(&self, to: &HostPort) -> Channel {
        let tls = self.clone();
        let to_server = to.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, to) = (tls.clone(), to_server.clone());
            async move { tls.connect(&to).await.map(TokioIo::new) }
        });
        endpoint(&to.to_string()).connect_with_connector_lazy(connector)
    }
}

/// A gRPC channel over a UNIX socket. It connects at the first call, and again whenever the connection was lost.
pub(crate) fn unix_channel(path: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let failed = |source| ConnectError::Tcp { address: path.display().to_string(), source };
            UnixStream::connect(&path).await.map(TokioIo::new).map_err(failed)
        }
    });
    endpoint("localhost").connect_with_connector_lazy(connector)
}

/// The connector decides where to go; the URI is only what the `:authority` header says, with `http` because TLS is ours, not tonic's.
fn endpoint(authority: &str) -> Endpoint {
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/").build().unwrap_or_default();
    Endpoint::from(uri)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material = self.current.load();
        f.debug_tuple("ClientTls").field(&material.own.as_ref().map(|own| &own.certificate.identity)).finish()
    }
}

/// Shows our certificate to who asks.
struct Resolver(Arc<ArcSwap<Material>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load().own.as_ref().map(|own| own.key.clone())
    }

    fn has_certs(&self) -> bool {
        self.0.load().own.is_some()
    }
}

/// Chain by the CA in force, then the identity.
struct Verifier {
    current: Arc<ArcSwap<Material>>,
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// Whether it is whom the caller expects; the CA has signed for it.
    fn check_identity(&self, peer: &PeerCertificate, expired: bool) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::General(why));
        let identity = &peer.identity;
        let cluster = match &self.expect {
            Expect::Judge(judge) => return judge.judge(peer, expired).map_err(Error::General),
            Expect::Node { cluster, .. } | Expect::Authority { cluster, .. } => Some(*cluster),
            Expect::Host { cluster } => *cluster,
        };
        if cluster.is_some_and(|cluster| cluster != identity.cluster()) {
            return refuse(format!("the server belongs to cluster {}", identity.cluster()));
        }
        match (identity.node(), &self.expect) {
            (None, _) => refuse("the server's certificate is a consumer's".into()),
            (Some(got), Expect::Authority { .. }) if !peer.may_control() => {
                refuse(format!("the server is node {got}, which the CA certified for something else than a control node"))
            }
            (Some(got), Expect::Node { node, .. }) if got != *node => refuse(format!("the server is node {got}, not node {node}")),
            _ => Ok(()),
        }
    }

    /// The CA that the fingerprint names, out of what the server shows besides its own certificate.
    fn shown_authority(&self, between: &[CertificateDer<'_>]) -> Result<Option<Arc<RootCertStore>>, Error> {
        let Expect::Authority { fingerprint, .. } = &self.expect else { return Ok(None) };
        let authority = between.iter().find(|shown| authority_fingerprint(shown) == Some(*fingerprint));
        let authority = authority.ok_or_else(|| Error::General("the server shows no CA with the join token's fingerprint: it is of another cluster, or its CA was replaced since the token was made, which voids it; make another with `cinnabar node token create`".into()))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        Ok(Some(Arc::new(roots)))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.shown_authority(between)?.unwrap_or_else(|| self.current.load().roots.clone());
        let parsed = ParsedCertificate::try_from(end)?;
        let peer =
            PeerCertificate::read(end).map_err(|error| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))?;
        let check = |now| verify_server_cert_signed_by_trust_anchor(&parsed, &roots, between, now, self.algorithms.all);
        // A judge may know a server by its key: then it needs no certificate that counts.
        let mut ended = peer.is_expired(millis(now));
        match check(now) {
            Err(error) if matches!(self.expect, Expect::Judge(_)) && (!has_expired(&error) || check(last_moment(&peer)).is_err()) => {
                ended = true;
                self.check_identity(&peer, ended).map_err(|_| error)?;
            }
            Err(error) if has_expired(&error) && matches!(self.expect, Expect::Judge(_)) => {}
            checked => checked?,
        }
        if matches!(self.expect, Expect::Host { .. } | Expect::Authority { .. }) {
            rustls::client::verify_server_name(&parsed, name)?;
        }
        self.check_identity(&peer, ended)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
