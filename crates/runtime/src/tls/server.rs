//! The accepting side.

use std::{fmt, sync::Arc};

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

use super::{
    ALPN_H2, PeerCertificate, TlsError,
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
        let current = Arc::new(Current { material: ArcSwap::from_pointee(Material::load(files)?), clients });
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

    /// Reads the files again; handshakes from now on use them. Open connections keep what they have.
    ///
    /// # Errors
    /// [`TlsError`]; then the old ones stay in use.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        self.current.material.store(Arc::new(Material::load(files)?));
        Ok(())
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
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Material {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider: Arc<CryptoProvider> = provider();
        let own = material::own_with_authority(files, &provider)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(material::roots(&files.ca)?, provider)
            .build()
            .map_err(|source| TlsError::Unusable { path: files.ca.clone(), source: Box::new(source) })?;
        Ok(Self { own, verifier })
    }
}

/// Resolver and verifier that follow the pointer at each handshake.
struct Current {
    material: ArcSwap<Material>,
    clients: ClientCertificates,
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
        // Voters and renewals go on with an expired certificate; who may, is decided at each call, by the registry.
        let verified = match checked {
            Err(error) if has_expired(&error) && peer.identity.node().is_some() => {
                material.verifier.verify_client_cert(end, between, last_moment(&peer))?
            }
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
