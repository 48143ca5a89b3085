//! The cluster's own certificate authority: a key that signs the certificates of its nodes, and nobody else's.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use types::{Hash, UnixMillis};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertifiedRole, PeerIdentity};

/// Names in one certificate: more than any node has, few enough for one packet.
pub const CERTIFICATE_NAMES_MAX: usize = 32;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The library refuses.
    #[error("cannot make the certificate of {whom}")]
    Make {
        /// Whose it is.
        whom: String,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// The bytes are no certificate of an authority.
    #[error("these bytes are no certificate of a CA")]
    NoAuthority,
    /// Certificate and key are not of one authority.
    #[error("the CA's key does not belong to the CA's certificate")]
    OtherKey,
}

/// From when to when a certificate counts; whole seconds are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then.
    pub not_before: UnixMillis,
    /// Until then.
    pub not_after: UnixMillis,
}

/// How long a cluster's authority counts. Nobody checks it: nodes hold to the authority's key, which is replaced by command.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(30 * 365 * 86_400);
/// Certificates count from up to an hour ago, for machines whose clocks differ.
const BACKDATED_MAX: Duration = Duration::from_secs(3600);

impl Validity {
    /// From now on for `lifetime`, and from a tenth of it ago (at most an hour), for machines whose clocks differ.
    pub fn lease(now: UnixMillis, lifetime: Duration) -> Self {
        let backdated = (lifetime / 10).min(BACKDATED_MAX).as_millis() as u64;
        Self { not_before: UnixMillis::new(now.get().saturating_sub(backdated)), not_after: now.plus(lifetime) }
    }
}

/// What a node's or consumer's certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// Whom it names.
    pub identity: &'a PeerIdentity,
    /// What the node is for; none for a consumer.
    pub role: Option<CertifiedRole>,
    /// The holder's public key, a DER `SubjectPublicKeyInfo`.
    pub public_key: &'a [u8],
    /// DNS names and addresses at which it is reached, besides `localhost`, `127.0.0.1` and `::1`, which every one carries.
    pub names: &'a [String],
    /// When it counts.
    pub validity: Validity,
}

/// A CA certificate with its key. It has no Debug; the key leaves only as the bytes that [`Issuer::create`] returns.
pub struct Issuer {
    certificate: CertificateDer<'static>,
    fingerprint: Hash,
    inner: rcgen::Issuer<'static, KeyPair>,
}

impl Issuer {
    /// A new authority with this name, and its private key as PKCS#8 DER, which the caller wipes.
    ///
    /// # Errors
    /// [`IssueError::Make`].
    pub fn create(name: &str, validity: Validity) -> Result<(Self, Vec<u8>), IssueError> {
        let failed = |source| IssueError::Make { whom: name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let bytes = key.serialize_der();
        Ok((Self::self_signed(name, validity, key)?, bytes))
    }

    /// An authority with this name and key, its certificate made anew.
    pub(crate) fn self_signed(name: &str, validity: Validity, key: KeyPair) -> Result<Self, IssueError> {
        let failed = |source| IssueError::Make { whom: name.to_owned(), source };
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = times(validity);
        params.distinguished_name = common_name(name);
        // No bound on the path: one authority vouches for the next when it is replaced.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Self::with(certificate, key)
    }

    /// The authority of this certificate (DER) and key (PKCS#8 DER).
    ///
    /// # Errors
    /// [`IssueError`] when they are damaged, or do not belong together.
    pub fn open(certificate: &[u8], key: &[u8]) -> Result<Self, IssueError> {
        let failed = |source| IssueError::Make { whom: "the CA's key".to_owned(), source };
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).map_err(failed)?;
        Self::with(certificate.to_vec().into(), key)
    }

    fn with(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, IssueError> {
        let fingerprint = authority_fingerprint(&certificate).ok_or(IssueError::NoAuthority)?;
        if fingerprint != sha256(&rcgen::PublicKeyData::subject_public_key_info(&key)) {
            return Err(IssueError::OtherKey);
        }
        let inner = rcgen::Issuer::from_ca_cert_der(&certificate, key).map_err(|_| IssueError::NoAuthority)?;
        Ok(Self { certificate, fingerprint, inner })
    }

    /// The CA's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the CA's `SubjectPublicKeyInfo`: what join tokens carry.
    pub fn fingerprint(&self) -> Hash {
        self.fingerprint
    }

    /// A certificate, DER, by which this authority vouches for the one that takes over from it: who knows this one, believes that one.
    ///
    /// # Errors
    /// [`IssueError`] when the other's certificate is none.
    pub fn cross(&self, next: &Self, validity: Validity) -> Result<Vec<u8>, IssueError> {
        let (_, certificate) = X509Certificate::from_der(&next.certificate).map_err(|_| IssueError::NoAuthority)?;
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).ok_or(IssueError::NoAuthority)?;
        let failed = |source| IssueError::Make { whom: name.to_owned(), source };
        let key = SubjectPublicKeyInfo::from_der(certificate.public_key().raw).map_err(failed)?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = times(validity);
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&key, &self.inner).map_err(failed)?.der().to_vec())
    }

    /// The authority's name.
    pub fn name(&self) -> String {
        let (_, certificate) = match X509Certificate::from_der(&self.certificate) {
            Ok(read) => read,
            Err(_) => return String::new(),
        };
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        name.unwrap_or_default().to_owned()
    }

    /// Makes a certificate, DER, good for both sides of a connection.
    ///
    /// # Errors
    /// [`IssueError::Make`] when the public key or a name is none.
    pub fn issue(&self, leaf: &Leaf<'_>) -> Result<Vec<u8>, IssueError> {
        let failed = |source| IssueError::Make { whom: leaf.identity.to_string(), source };
        let key = SubjectPublicKeyInfo::from_der(leaf.public_key).map_err(failed)?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = times(leaf.validity);
        params.distinguished_name = common_name(&format!("cinnabar {}", leaf.identity));
        if let Some(role) = leaf.role {
            params.distinguished_name.push(DnType::OrganizationalUnitName, role.name());
        }
        let identity = SanType::URI(Ia5String::try_from(leaf.identity.to_string()).map_err(failed)?);
        let here = [
            SanType::DnsName(Ia5String::try_from("localhost").map_err(failed)?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        params.subject_alt_names = std::iter::once(identity).chain(here).collect();
        for name in leaf.names.iter().take(CERTIFICATE_NAMES_MAX) {
            let name = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(name.as_str()).map_err(failed)?),
            };
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&key, &self.inner).map_err(failed)?.der().to_vec())
    }
}

/// SHA-256 of the `SubjectPublicKeyInfo` in a CA's certificate (DER); none for anything else.
pub fn authority_fingerprint(certificate: &[u8]) -> Option<Hash> {
    let (rest, certificate) = X509Certificate::from_der(certificate).ok()?;
    (rest.is_empty() && certificate.is_ca()).then(|| sha256(certificate.public_key().raw))
}

/// The line before the first certificate of a list of believed authorities; PEM readers pass over it (RFC 7468, section 2).
const TRUST_VERSION: &str = "cinnabar-trust-version: ";

/// A list of believed authorities (DER) as text: its version, then the certificates in their order.
pub fn trust_pem<'a>(version: u32, certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    format!("{TRUST_VERSION}{version}\n{}", certificates_pem(certificates))
}

/// The version of such a text; 0 for one from before the first authority was replaced.
pub fn trust_version(text: &str) -> u32 {
    text.lines().find_map(|line| line.strip_prefix(TRUST_VERSION)?.trim().parse().ok()).unwrap_or(0)
}

/// The first certificate of a PEM file, DER.
///
/// # Errors
/// Of the disk; `Other` when the file holds none.
pub fn first_certificate(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(&crate::read_checked_file(path)?).map(|der| der.to_vec()).map_err(std::io::Error::other)
}

/// Whether a certificate names the CA's key as the one that signed it.
pub fn issued_by(certificate: &[u8], authority: &[u8]) -> bool {
    names_key(certificate, authority).unwrap_or(false)
}

fn names_key(certificate: &[u8], ca: &[u8]) -> Option<bool> {
    use x509_parser::{extensions::ParsedExtension, parse_x509_certificate};
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let (_, ca) = parse_x509_certificate(ca).ok()?;
    let authority = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    let subject = ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(found) => Some(found.0.to_vec()),
        _ => None,
    });
    Some(authority.is_some() && authority == subject)
}

/// Certificates (DER) as one PEM text, in their order.
pub fn certificates_pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let block = |der: &[u8]| pem::encode_config(&pem::Pem::new("CERTIFICATE", der), lines);
    certificates.into_iter().map(block).collect()
}

fn sha256(bytes: &[u8]) -> Hash {
    Hash::from_bytes(Sha256::digest(bytes).into())
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn times(validity: Validity) -> (OffsetDateTime, OffsetDateTime) {
    let at = |time: UnixMillis| OffsetDateTime::from_unix_timestamp((time.get() / 1000) as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (at(validity.not_before), at(validity.not_after))
}

#[cfg(test)]
mod tests {
    use types::{ClusterId, NodeId};

    use super::*;
    use crate::tls::PeerCertificate;

    const VALIDITY: Validity = Validity { not_before: UnixMillis::new(1_800_000_000_000), not_after: UnixMillis::new(1_800_086_400_000) };

    #[test]
    fn issuer_opened_again_signs_for_the_same_authority() {
        let (made, key) = Issuer::create("a CA", VALIDITY).unwrap();
        let opened = Issuer::open(made.certificate(), &key).unwrap();
        assert_eq!(opened.fingerprint(), made.fingerprint());
        assert_eq!(authority_fingerprint(made.certificate()), Some(made.fingerprint()));
        let holder = KeyPair::generate().unwrap();
        let identity = PeerIdentity::Node { cluster: ClusterId::from_bytes([1; 16]), node: NodeId::new(7) };
        let public_key = rcgen::PublicKeyData::subject_public_key_info(&holder);
        let names = ["control-1.example".to_owned(), "10.0.0.1".to_owned()];
        let leaf = |role| Leaf { identity: &identity, role, public_key: &public_key, names: &names, validity: VALIDITY };
        for role in [CertifiedRole::Control, CertifiedRole::Edge, CertifiedRole::Relay] {
            let peer = PeerCertificate::read(&opened.issue(&leaf(Some(role))).unwrap()).unwrap();
            assert_eq!((&peer.identity, peer.role, peer.may_control()), (&identity, Some(role), role == CertifiedRole::Control));
        }
        // As certificates were before they said it.
        let peer = PeerCertificate::read(&opened.issue(&leaf(None)).unwrap()).unwrap();
        assert_eq!((peer.role, peer.may_control()), (None, true));
        assert_eq!((peer.identity, peer.public_key, peer.not_after), (identity, public_key, VALIDITY.not_after));
        assert_eq!(peer.names, ["localhost", "127.0.0.1", "::1", "control-1.example", "10.0.0.1"]);
    }

    #[test]
    fn issuer_refuses_a_key_of_another_authority_and_what_is_no_authority() {
        let (one, key) = Issuer::create("one", VALIDITY).unwrap();
        let (other, _) = Issuer::create("two", VALIDITY).unwrap();
        assert!(matches!(Issuer::open(other.certificate(), &key), Err(IssueError::OtherKey)));
        assert!(matches!(Issuer::open(b"nonsense", &key), Err(IssueError::NoAuthority)));
        assert!(Issuer::open(one.certificate(), b"nonsense").is_err());
    }
}
