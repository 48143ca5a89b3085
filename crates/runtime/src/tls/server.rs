//! The accepting side.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use types::{Hash, UnixMillis};

use super::{
    ALPN_H2, PeerCertificate, TlsError, authority_fingerprint,
    expiry::{has_expired, last_moment},
    material, provider,
};
use crate::config::TlsFiles;

/// Whether a client has to show a certificate. One that it shows must be right in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Only nodes and consumers with certificates connect.
    Required,
    /// A client without one connects, and has to bring a token with each call.
    Optional,
}

/// Who knows nodes by their keys, besides the CA. A node that it knows is let in with whatever certificate it shows for its key, also with
/// one of a CA that was replaced; the certificate then counts as one that has ended.
pub trait Registered: Send + Sync {
    /// Whether the certificate's node stands in the registry with the certificate's key. Must return at once.
    fn is_registered(&self, node: &PeerCertificate) -> bool;
}

/// Who has connected with a certificate.
pub(crate) struct Met {
    pub(crate) certificate: PeerCertificate,
    /// Cancelled when the CA that vouches for the certificate is believed no more; none where the registry vouches for it.
    pub(crate) dropped: Option<CancellationToken>,
}

/// What a TLS listener needs. Clones share the certificate, also when it is reloaded.
#[derive(Clone)]
pub struct ServerTls {
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads the files and builds the configuration; binds nothing.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: &TlsFiles, clients: ClientCertificates) -> Result<Self, TlsError> {
        let current =
            Arc::new(Current { material: ArcSwap::from_pointee(Material::load(files, &[])?), clients, registered: OnceLock::new() });
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| TlsError::Unusable { path: files.cert.clone(), source: Box::new(source) })?;
        let mut config = builder.with_client_cert_verifier(current.clone()).with_cert_resolver(current.clone());
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self { current, config: Arc::new(config) })
    }

    /// Lets clients choose HTTP/1.1 beside HTTP/2, for a listener that serves both.
    #[must_use]
    pub fn with_http1(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols.push(b"http/1.1".to_vec());
        self
    }

    /// Asks from now on about nodes' certificates that the CA does not vouch for.
    pub fn ask(&self, registered: Arc<dyn Registered>) {
        // Set once, when there is a registry.
        let _ = self.current.registered.set(registered);
    }

    /// Reads the files again; handshakes from now on use them. Open connections keep what they have, but those of clients for whom only
    /// a CA vouches that the files name no more: they are cut.
    ///
    /// # Errors
    /// [`TlsError`]; then the old ones stay in use.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let before = self.current.material.load_full();
        let material = Arc::new(Material::load(files, &before.authorities)?);
        self.current.material.store(material.clone());
        for authority in before.authorities.iter().filter(|before| material.authority(&before.fingerprint).is_none()) {
            tracing::warn!(authority = %authority.fingerprint, "a certificate authority is believed no more; the connections that it vouched for are cut");
            authority.dropped.cancel();
        }
        Ok(())
    }

    /// Who is at the other end, after the handshake; none without a certificate.
    pub(crate) fn met(&self, shown: &[CertificateDer<'_>]) -> Result<Option<Met>, Error> {
        let Some((end, between)) = shown.split_first() else { return Ok(None) };
        let peer = PeerCertificate::read(end).map_err(|error| Error::Other(OtherError(Arc::new(error))))?;
        let material = self.current.material.load();
        // When it ended is asked at each call; here only who vouches for it.
        let at = last_moment(&peer);
        let vouches = |authority: &&Authority| authority.verifier.verify_client_cert(end, between, at).is_ok();
        match material.authorities.iter().find(vouches) {
            Some(authority) => Ok(Some(Met { certificate: peer, dropped: Some(authority.dropped.clone()) })),
            None if self.current.knows(&peer, &material) => {
                Ok(Some(Met { certificate: PeerCertificate { not_after: UnixMillis::new(0), ..peer }, dropped: None }))
            }
            None => Err(Error::General("the CA that vouched for the client's certificate is believed no more".into())),
        }
    }

    /// Whom this server's own certificate names, and until when.
    pub fn own(&self) -> PeerCertificate {
        self.current.material.load().own.certificate.clone()
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.own().identity).finish()
    }
}

/// What one set of files says.
struct Material {
    own: material::Own,
    /// Of all authorities.
    verifier: Arc<dyn ClientCertVerifier>,
    /// Each by itself, the one that issues first.
    authorities: Vec<Authority>,
}

/// A CA that is believed.
struct Authority {
    fingerprint: Hash,
    verifier: Arc<dyn ClientCertVerifier>,
    dropped: CancellationToken,
}

impl Material {
    fn load(files: &TlsFiles, before: &[Authority]) -> Result<Self, TlsError> {
        let provider: Arc<CryptoProvider> = provider();
        let own = material::own_with_authority(files, &provider)?;
        let verifier = |roots| {
            let built = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            built.map_err(|source| TlsError::Unusable { path: files.ca.clone(), source: Box::new(source) })
        };
        let mut authorities: Vec<Authority> = Vec::new();
        for (certificate, roots) in material::each_root(&files.ca)? {
            let Some(fingerprint) = authority_fingerprint(&certificate) else { continue };
            if authorities.iter().all(|known| known.fingerprint != fingerprint) {
                let known = before.iter().find(|known| known.fingerprint == fingerprint);
                let dropped = known.map_or_else(CancellationToken::new, |known| known.dropped.clone());
                authorities.push(Authority { fingerprint, verifier: verifier(roots)?, dropped });
            }
        }
        Ok(Self { own, verifier: verifier(material::roots(&files.ca)?)?, authorities })
    }

    fn authority(&self, fingerprint: &Hash) -> Option<&Authority> {
        self.authorities.iter().find(|authority| authority.fingerprint == *fingerprint)
    }
}

/// Resolver and verifier that follow the pointer at each handshake.
struct Current {
    material: ArcSwap<Material>,
    clients: ClientCertificates,
    registered: OnceLock<Arc<dyn Registered>>,
}

impl Current {
    /// Whether the registry vouches for a node of this cluster. The handshake proves that it holds the key.
    fn knows(&self, peer: &PeerCertificate, material: &Material) -> bool {
        peer.identity.node().is_some()
            && peer.identity.cluster() == material.own.certificate.identity.cluster()
            && self.registered.get().is_some_and(|registered| registered.is_registered(peer))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("clients", &self.clients).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.material.load().own.key.clone())
    }
}

impl ClientCertVerifier for Current {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientCertificates::Required
    }

    // No hints: they would tell a stranger which CA to attack, and could not change with the pointer.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let material = self.material.load();
        let checked = material.verifier.verify_client_cert(end, between, now);
        let peer = PeerCertificate::read(end).map_err(|error| Error::Other(OtherError(Arc::new(error))))?;
        // Voters and renewals go on with an expired certificate, or one of a CA that was replaced; who may, is decided at each call, by the
        // registry.
        let ended = |error: &Error| {
            let once = || material.verifier.verify_client_cert(end, between, last_moment(&peer)).is_ok();
            peer.identity.node().is_some() && has_expired(error) && once()
        };
        let verified = match checked {
            Err(error) if ended(&error) || self.knows(&peer, &material) => ClientCertVerified::assertion(),
            checked => checked?,
        };
        // A CA may sign for several clusters; this server is of one.
        if peer.identity.cluster() != material.own.certificate.identity.cluster() {
            return Err(Error::General("the client's certificate is of another cluster".into()));
        }
        Ok(verified)
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
        self.material.load().verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.material.load().verifier.supported_verify_schemes()
    }
}
