//! Who a certificate's holder is.

use std::fmt;

use types::{ClusterId, ConsumerRef, NodeId, UnixMillis};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// What a certificate is good for. Written as a SPIFFE id; the cluster is the trust domain, as 32 lower hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerIdentity {
    /// `spiffe://<cluster>/node/<id>`
    Node {
        /// The cluster.
        cluster: ClusterId,
        /// The node's number in the registry, decimal.
        node: NodeId,
    },
    /// `spiffe://<cluster>/account/<account>/<kind>/<name>`
    Consumer {
        /// The cluster.
        cluster: ClusterId,
        /// Who may read.
        consumer: ConsumerRef,
    },
}

/// What the CA says a node is for: the one organizational unit of the certificate's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertifiedRole {
    /// `OU=control`: may vote, and may be shown operators' tokens.
    Control,
    /// `OU=edge`
    Edge,
    /// `OU=relay`
    Relay,
}

impl CertifiedRole {
    /// As it stands in the certificate.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Edge => "edge",
            Self::Relay => "relay",
        }
    }

    /// The role of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Control, Self::Edge, Self::Relay].into_iter().find(|role| role.name() == name)
    }
}

/// What was read from a verified certificate, once per connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Who it names.
    pub identity: PeerIdentity,
    /// What the CA says the node is for; none for a consumer. A node's certificate without one is held to the registry alone, and to
    /// nothing where that does not know the node.
    pub role: Option<CertifiedRole>,
    /// The public key as DER `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7): what the node registry compares.
    pub public_key: Vec<u8>,
    /// The DNS names and addresses it carries besides.
    pub names: Vec<String>,
    /// From when it counts.
    pub not_before: UnixMillis,
    /// When it ends. Zero for one that the CA's signature does not vouch for, but the registry does: see [`super::Registered`].
    pub not_after: UnixMillis,
}

/// A certificate that names no one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is no certificate.
    #[error("not an X.509 certificate")]
    NotX509,
    /// It must have exactly one URI among its alternative names.
    #[error("the certificate has {got} URI names; exactly one, a SPIFFE id, is needed")]
    UriNames {
        /// How many it has.
        got: usize,
    },
    /// It says what its node is for in another way than the CA does.
    #[error("the certificate's organizational unit is {got:?}; a node's says control, edge or relay, once")]
    Role {
        /// What it says, cut after 200 characters.
        got: String,
    },
    /// The URI has another form.
    #[error("{got:?} is no identity; known are spiffe://CLUSTER/node/ID and spiffe://CLUSTER/account/ACCOUNT/KIND/NAME")]
    Form {
        /// The URI, cut after 200 characters.
        got: String,
    },
}

impl PeerIdentity {
    /// The cluster it belongs to.
    pub const fn cluster(&self) -> ClusterId {
        match self {
            Self::Node { cluster, .. } | Self::Consumer { cluster, .. } => *cluster,
        }
    }

    /// The node, when it is one.
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node { node, .. } => Some(*node),
            Self::Consumer { .. } => None,
        }
    }

    /// Parses a SPIFFE id. Only the one way that [`fmt::Display`] writes it is accepted, so that ids can be compared as texts.
    ///
    /// # Errors
    /// [`IdentityError::Form`].
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        let refuse = || IdentityError::Form { got: uri.chars().take(200).collect() };
        let parts: Vec<&str> = uri.strip_prefix("spiffe://").ok_or_else(refuse)?.split('/').collect();
        let parsed = match parts.as_slice() {
            [cluster, "node", id] => parse_node(cluster, id),
            [cluster, "account", account, kind, name] => parse_consumer(cluster, account, kind, name),
            _ => None,
        };
        parsed.filter(|identity| identity.to_string() == uri).ok_or_else(refuse)
    }
}

fn parse_node(cluster: &str, id: &str) -> Option<PeerIdentity> {
    Some(PeerIdentity::Node { cluster: cluster.parse().ok()?, node: id.parse().ok()? })
}

fn parse_consumer(cluster: &str, account: &str, kind: &str, name: &str) -> Option<PeerIdentity> {
    let consumer = ConsumerRef { account: account.parse().ok()?, kind: kind.parse().ok()?, name: name.parse().ok()? };
    Some(PeerIdentity::Consumer { cluster: cluster.parse().ok()?, consumer })
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { cluster, node } => write!(f, "spiffe://{cluster}/node/{node}"),
            Self::Consumer { cluster, consumer } => {
                write!(f, "spiffe://{cluster}/account/{}/{}/{}", consumer.account, consumer.kind, consumer.name)
            }
        }
    }
}

impl PeerCertificate {
    /// Whether its holder may be a control node, as far as the CA says: one that was certified for something else is none, whatever
    /// names it carries.
    pub fn may_control(&self) -> bool {
        self.role.is_none_or(|role| role == CertifiedRole::Control)
    }

    /// Whether it has ended. Asked at each call, not at the handshake alone: a connection may outlive the certificate that opened it.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        self.not_after <= now
    }

    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// Of the disk; `Other` when the file holds no certificate of a node or consumer.
    pub fn read_pem(path: &std::path::Path) -> std::io::Result<Self> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let der = CertificateDer::from_pem_slice(&crate::read_checked_file(path)?).map_err(std::io::Error::other)?;
        Self::read(&der).map_err(std::io::Error::other)
    }

    /// Reads a DER certificate. It proves nothing by itself: signature and validity are the handshake's matter.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn read(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|_| IdentityError::NotX509)?;
        if !rest.is_empty() {
            return Err(IdentityError::NotX509);
        }
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::NotX509)?;
        let names = names.map_or(&[][..], |extension| extension.value.general_names.as_slice());
        let uris: Vec<&str> = names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
        let [uri] = uris.as_slice() else {
            return Err(IdentityError::UriNames { got: uris.len() });
        };
        let identity = PeerIdentity::parse(uri)?;
        let role = role(&identity, &certificate)?;
        let millis = |time: x509_parser::time::ASN1Time| UnixMillis::new(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000));
        Ok(Self {
            identity,
            role,
            public_key: certificate.public_key().raw.to_vec(),
            names: names.iter().filter_map(host_name).collect(),
            not_before: millis(certificate.validity().not_before),
            not_after: millis(certificate.validity().not_after),
        })
    }
}

/// What a node's certificate says that it is for; nothing is read into a consumer's.
fn role(
    identity: &PeerIdentity,
    certificate: &x509_parser::certificate::X509Certificate<'_>,
) -> Result<Option<CertifiedRole>, IdentityError> {
    if identity.node().is_none() {
        return Ok(None);
    }
    let units: Vec<&str> = certificate.subject().iter_organizational_unit().map(|unit| unit.as_str().unwrap_or_default()).collect();
    match units.as_slice() {
        [] => Ok(None),
        [unit] if CertifiedRole::of_name(unit).is_some() => Ok(CertifiedRole::of_name(unit)),
        units => Err(IdentityError::Role { got: units.join(", ").chars().take(200).collect() }),
    }
}

/// A name under which a server is dialled.
fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).ok().map(|octets| std::net::IpAddr::from(octets).to_string());
            let v6 = || <[u8; 16]>::try_from(*bytes).ok().map(|octets| std::net::IpAddr::from(octets).to_string());
            v4().or_else(v6)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_text_round_trips() {
        let c = "00112233445566778899aabbccddeeff";
        for text in [
            format!("spiffe://{c}/node/7"),
            format!("spiffe://{c}/account/{c}/worker/web"),
            format!("spiffe://{c}/account/{c}/container/a.b_c-d"),
        ] {
            assert_eq!(PeerIdentity::parse(&text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn identity_of_any_other_form_is_refused() {
        let c = "00112233445566778899aabbccddeeff";
        let upper = c.to_uppercase();
        for text in [
            String::new(),
            format!("https://{c}/node/7"),
            format!("spiffe://{c}/node/07"),
            format!("spiffe://{c}/node/+7"),
            format!("spiffe://{c}/node/"),
            format!("spiffe://{c}/node/7/"),
            format!("spiffe://{c}/node/7?x"),
            format!("spiffe://{upper}/node/7"),
            format!("spiffe://{c}/nodes/7"),
            format!("spiffe://{c}:1/node/7"),
            format!("spiffe://user@{c}/node/7"),
            "spiffe://cluster/node/7".into(),
            format!("spiffe://{c}/account/{c}/robot/web"),
            format!("spiffe://{c}/account/{c}/worker/%77eb"),
            format!("spiffe://{c}/account/{c}/worker"),
            format!("spiffe://{c}/account/{upper}/worker/web"),
        ] {
            assert!(PeerIdentity::parse(&text).is_err(), "{text}");
        }
    }
}
