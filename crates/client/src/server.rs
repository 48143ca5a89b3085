//! Whom a client believes to be the server: who the cluster's CA vouches for, under the name that was dialled; and where control nodes are
//! asked, nobody who was certified for something else.

use std::{fmt, sync::Arc};

use rustls::{
    DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ConfigError;

/// The organizational unit of control nodes' certificates.
const CONTROL: &str = "control";

/// A verifier by these roots alone.
pub(crate) fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    control_only: bool,
) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
    let by_name = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let by_name = by_name.map_err(|error| ConfigError::Tls(Error::General(error.to_string())))?;
    Ok(if control_only { Arc::new(ControlNode(by_name)) } else { by_name })
}

/// Refuses what the CA certified for something else than a control node. A certificate that says nothing is held to its name alone.
struct ControlNode(Arc<WebPkiServerVerifier>);

impl fmt::Debug for ControlNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlNode")
    }
}

fn is_something_else(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return true };
    certificate.subject().iter_organizational_unit().any(|unit| unit.as_str() != Ok(CONTROL))
}

impl ServerCertVerifier for ControlNode {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_server_cert(end, between, name, ocsp, now)?;
        if is_something_else(end) {
            return Err(Error::General("the server's certificate is that of an edge or relay, not of a control node".into()));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
