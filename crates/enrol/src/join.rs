//! Joining: a token for a place in the registry and the first certificate.
//!
//! The keys are made first and kept. The control plane remembers which key used which token, so an attempt whose answer was lost is
//! made again with the same key, and gets the same number. What came is checked against the token and against the key before
//! anything is written, and the certificate is written last.

use std::{io, time::Duration};

use runtime::{
    SecretFileError,
    config::HostPort,
    read_secret_file,
    tls::{ClientTls, PeerCertificate, PeerIdentity, authority_fingerprint, certificates_pem},
    write_checked_file, write_secret_file,
};
use seal::{JoinToken, NodeKeyPair};
use seams::{Clock, Disk, Entropy};
use state::record::{NodeRole, SignerSetRecord};
use types::{ClusterId, NodeId, NodeName};
use wire::internal::{ControlNode, EnrolledRole, JoinReply, JoinRequest, enrol_client::EnrolClient};
use zeroize::Zeroizing;

use crate::{
    EnrolError, Layout, NodeKey, Peer, Peers,
    attempt::{Failed, answer, jittered},
};

/// The first wait when nobody could be asked; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What joining needs.
pub struct JoinOptions<'a> {
    /// Where the identity will lie.
    pub layout: &'a Layout,
    /// What the operator handed over.
    pub token: &'a JoinToken,
    /// Control nodes, asked in turn.
    pub endpoints: &'a [HostPort],
    /// What the node is: the token must be for the same.
    pub role: NodeRole,
    /// The name the node would like.
    pub name: &'a NodeName,
    /// The names it would like in its certificate.
    pub names: &'a [String],
    /// Where others will reach it; control nodes only.
    pub address: Option<&'a HostPort>,
    /// The public half of its key for seals and checkpoints; control nodes only.
    pub signing_key: Option<[u8; 32]>,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub entropy: &'a dyn Entropy,
    /// The disk of the identity's folders.
    pub disk: &'a dyn Disk,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's number.
    pub node: NodeId,
    /// The control nodes there are.
    pub peers: Peers,
}

/// Reads a join token from a file of mode 0600.
///
/// # Errors
/// [`EnrolError::File`], [`EnrolError::Damaged`] when it holds none.
pub fn read_token(path: &std::path::Path) -> Result<JoinToken, EnrolError> {
    let bytes = Zeroizing::new(read_secret_file(path)?);
    let damaged = |detail: String| EnrolError::Damaged { path: path.to_owned(), detail };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it holds no text".to_owned()))?;
    JoinToken::parse(text.trim()).map_err(|error| damaged(error.to_string()))
}

/// The key pair in the file, which opens envelopes; made when there is none.
///
/// # Errors
/// [`EnrolError::File`], [`EnrolError::Damaged`], [`EnrolError::Seal`].
pub fn envelope_key(path: &std::path::Path, entropy: &dyn Entropy) -> Result<NodeKeyPair, EnrolError> {
    match read_secret_file(path) {
        Ok(bytes) => NodeKeyPair::from_file_bytes(&Zeroizing::new(bytes))
            .map_err(|error| EnrolError::Damaged { path: path.to_owned(), detail: error.to_string() }),
        Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let pair = NodeKeyPair::generate(entropy)?;
            write_secret_file(path, &pair.to_file_bytes())?;
            Ok(pair)
        }
        Err(error) => Err(error.into()),
    }
}

/// Joins the cluster of the token. While no endpoint can be reached, it goes on trying; cancelling it between two attempts or in
/// the midst of one leaves keys, and nothing else.
///
/// # Errors
/// [`EnrolError::Refused`] when the control plane says no, [`EnrolError::Nowhere`] when every endpoint shows another CA or cluster than
/// the token's, [`EnrolError::Reply`] when what came does not fit; of files.
pub async fn join(options: &JoinOptions<'_>) -> Result<Joined, EnrolError> {
    let layout = options.layout;
    layout.make_folders(options.disk)?;
    let key = NodeKey::kept_or_new(&layout.tls.key)?;
    let pair = envelope_key(&layout.envelope_key, options.entropy)?;
    let request = JoinRequest {
        token: options.token.expose_secret().to_vec(),
        certificate_request: key.request(options.names)?,
        name: options.name.to_string(),
        envelope_key: pair.public().encode(),
        feature_level: crate::feature_level().get(),
        signing_key: options.signing_key.map(|key| key.to_vec()).unwrap_or_default(),
        address: options.address.map(ToString::to_string).unwrap_or_default(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        role: told(options.role).into(),
    };
    let tls = ClientTls::joining(options.token.cluster(), options.token.ca())?;
    let (endpoint, reply) = anywhere(options, &tls, &request).await?;
    let came = Came::check(options, &key, endpoint, &reply)?;
    came.keep(layout)?;
    tracing::info!(cluster = %came.joined.cluster, node = %came.joined.node, name = reply.name, at = %endpoint, "joined the cluster");
    Ok(came.joined)
}

/// Asks each endpoint in turn until one takes the node in.
async fn anywhere<'a>(options: &JoinOptions<'a>, tls: &ClientTls, request: &JoinRequest) -> Result<(&'a HostPort, JoinReply), EnrolError> {
    let mut wait = RETRY_MIN;
    loop {
        let (mut attempts, mut believed) = (Vec::new(), options.endpoints.is_empty());
        for endpoint in options.endpoints {
            let mut client = EnrolClient::new(tls.channel(endpoint));
            match answer(options.clock, client.join(request.clone())).await {
                Ok(reply) => return Ok((endpoint, reply)),
                Err(Failed::Refused(message)) => return Err(EnrolError::Refused { endpoint: endpoint.to_string(), message }),
                Err(failed) => {
                    believed |= !matches!(failed, Failed::NotBelieved(_));
                    attempts.push(failed.at(endpoint));
                }
            }
        }
        let attempts = attempts.join("; ");
        if !believed || options.endpoints.is_empty() {
            let what = "joining (is the token of this cluster, and are these its control nodes?)";
            return Err(EnrolError::Nowhere { what, attempts });
        }
        tracing::warn!(attempts, again_in = ?wait, "no control node takes this node in yet");
        options.clock.sleep(jittered(options.entropy, wait)).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// A role as the control plane knows it.
const fn told(role: NodeRole) -> EnrolledRole {
    match role {
        NodeRole::Control => EnrolledRole::Control,
        NodeRole::Edge => EnrolledRole::Edge,
        NodeRole::Relay => EnrolledRole::Relay,
    }
}

/// What came, after every check.
struct Came {
    joined: Joined,
    authority: Vec<u8>,
    certificates: Vec<Vec<u8>>,
    signers: SignerSetRecord,
}

impl Came {
    fn check(options: &JoinOptions<'_>, key: &NodeKey, endpoint: &HostPort, reply: &JoinReply) -> Result<Self, EnrolError> {
        let wrong = |detail: &str| EnrolError::Reply { endpoint: endpoint.to_string(), detail: detail.to_owned() };
        let token = options.token;
        let (cluster, node) = (token.cluster(), NodeId::new(reply.node));
        let certificates: Vec<Vec<u8>> = reply.certificates.iter().map(|der| der.to_vec()).collect();
        let leaf = PeerCertificate::read(certificates.first().ok_or_else(|| wrong("it holds no certificate"))?)?;
        if leaf.identity != (PeerIdentity::Node { cluster, node }) || leaf.public_key != key.public_key() {
            return Err(wrong("the certificate is for another node or key"));
        }
        check_clock(options.clock, &leaf, endpoint)?;
        // The last: those before it lead to it from authorities that it took over from, and carry the same key.
        let authority = certificates.iter().rfind(|der| authority_fingerprint(der) == Some(token.ca()));
        let authority = authority.ok_or_else(|| wrong("it does not hold the CA of the token"))?.clone();
        let signers = SignerSetRecord::decode(&reply.signer_set_encoded).map_err(|error| wrong(&error.to_string()))?;
        if signers.hash(cluster) != token.signers() {
            return Err(wrong("its signer set is not the one that the token pins"));
        }
        // A control node that knows what this server is has refused a token for something else; one of an older build has not.
        if reply.role() != told(options.role) {
            return Err(wrong(&format!(
                "the token makes node {node} {}: make a token for the role that this server has",
                said(reply.role())
            )));
        }
        let peers = Peers(reply.control_nodes.iter().map(peer).collect());
        Ok(Self { joined: Joined { cluster, node, peers }, authority, certificates, signers })
    }

    /// Writes it all, the certificate last.
    fn keep(&self, layout: &Layout) -> Result<(), EnrolError> {
        write_checked_file(&layout.tls.ca, certificates_pem([self.authority.as_slice()]).as_bytes())?;
        write_checked_file(&layout.signers, &self.signers.encode())?;
        self.joined.peers.write(&layout.peers)?;
        keep_certificates(layout, &self.certificates)
    }
}

const fn said(role: EnrolledRole) -> &'static str {
    match role {
        EnrolledRole::Control => "a control node",
        EnrolledRole::Edge => "an edge",
        EnrolledRole::Relay => "a relay",
        EnrolledRole::Unspecified => "something that this version does not know",
    }
}

/// A control node, as the control plane tells of it.
pub(crate) fn peer(node: &ControlNode) -> Peer {
    Peer { node: NodeId::new(node.node), address: node.address.clone(), public_key: node.public_key.to_vec() }
}

/// Writes the node's certificate and what leads from it to the CA.
pub(crate) fn keep_certificates(layout: &Layout, certificates: &[Vec<u8>]) -> Result<(), EnrolError> {
    let pem = certificates_pem(certificates.iter().map(Vec::as_slice));
    Ok(write_checked_file(&layout.tls.cert, pem.as_bytes())?)
}

/// A certificate that does not count now is a clock that is wrong.
pub(crate) fn check_clock(clock: &dyn Clock, leaf: &PeerCertificate, endpoint: &impl std::fmt::Display) -> Result<(), EnrolError> {
    let now = clock.wall();
    if leaf.not_before <= now && !leaf.is_expired(now) {
        return Ok(());
    }
    let detail = format!(
        "the fresh certificate counts from {} to {} (ms since 1970), and the clock here says {}: set the clocks of both machines right",
        leaf.not_before.get(),
        leaf.not_after.get(),
        now.get()
    );
    Err(EnrolError::Reply { endpoint: endpoint.to_string(), detail })
}

#[cfg(test)]
mod tests {
    use runtime::{
        RealDisk,
        config::TlsFiles,
        tls::{Issuer, Leaf, Validity},
    };
    use seams::sim::{ManualClock, SimEntropy};
    use state::record::MemberKey;
    use types::UnixMillis;

    use super::*;

    const NOW: UnixMillis = UnixMillis::new(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);
    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    /// What a control plane of this CA answers to this key.
    fn reply(issuer: &Issuer, key: &NodeKey, cluster: ClusterId, certified: u64, at: UnixMillis) -> JoinReply {
        let identity = PeerIdentity::Node { cluster, node: NodeId::new(certified) };
        let leaf = Leaf { identity: &identity, role: None, public_key: &key.public_key(), names: &[], validity: Validity::lease(at, DAY) };
        JoinReply {
            node: 7,
            cluster: cluster.as_bytes().to_vec().into(),
            certificates: vec![issuer.issue(&leaf).unwrap().into(), issuer.certificate().to_vec().into()],
            signer_set_encoded: signers(1).encode(),
            control_nodes: vec![ControlNode { node: 1, name: "control-1".into(), public_key: b"k".to_vec().into(), address: "c:1".into() }],
            name: "edge-1".into(),
            role: EnrolledRole::Edge.into(),
        }
    }

    fn signers(key: u8) -> SignerSetRecord {
        SignerSetRecord { version: 1, threshold: 1, keys: vec![MemberKey { node: NodeId::new(1), key: [key; 32] }], signatures: Vec::new() }
    }

    #[test]
    fn joining_keeps_only_what_fits_the_token_and_the_own_key() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join("identity").join(name);
        let layout = Layout {
            tls: TlsFiles { cert: at("node.pem"), key: at("node.key"), ca: at("ca.pem") },
            envelope_key: at("envelope.key"),
            signing_key: None,
            signers: at("signers"),
            peers: at("peers"),
        };
        let (clock, entropy) = (ManualClock::at(NOW), SimEntropy::new(1));
        let (issuer, _) = Issuer::create("CA", Validity::lease(NOW, DAY)).unwrap();
        let (stranger, _) = Issuer::create("another CA", Validity::lease(NOW, DAY)).unwrap();
        let token = JoinToken::generate(&entropy, CLUSTER, issuer.fingerprint(), signers(1).hash(CLUSTER));
        let (key, other) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let (name, endpoint) = ("edge-1".parse().unwrap(), "control-1:7400".parse().unwrap());
        let options = JoinOptions {
            layout: &layout,
            token: &token,
            endpoints: &[],
            role: NodeRole::Edge,
            name: &name,
            names: &[],
            address: None,
            signing_key: None,
            clock: &clock,
            entropy: &entropy,
            disk: &RealDisk,
        };
        let good = reply(&issuer, &key, CLUSTER, 7, NOW);
        let elsewhere = ClusterId::from_bytes([2; 16]);
        let wrong = [
            ("no certificate", JoinReply { certificates: Vec::new(), ..good.clone() }, "holds no certificate"),
            ("another key", reply(&issuer, &other, CLUSTER, 7, NOW), "another node or key"),
            ("another node", reply(&issuer, &key, CLUSTER, 8, NOW), "another node or key"),
            ("another cluster", reply(&issuer, &key, elsewhere, 7, NOW), "another node or key"),
            ("another CA", reply(&stranger, &key, CLUSTER, 7, NOW), "does not hold the CA of the token"),
            ("other signers", JoinReply { signer_set_encoded: signers(2).encode(), ..good.clone() }, "not the one that the token pins"),
            ("no signers", JoinReply { signer_set_encoded: Vec::new().into(), ..good.clone() }, "cannot be used"),
            ("another role", JoinReply { role: EnrolledRole::Control.into(), ..good.clone() }, "makes node 7 a control node"),
            ("a clock that is behind", reply(&issuer, &key, CLUSTER, 7, NOW.plus(DAY)), "clocks"),
            ("a clock that is ahead", reply(&issuer, &key, CLUSTER, 7, UnixMillis::new(0)), "clocks"),
        ];
        for (what, reply, expected) in wrong {
            let error = Came::check(&options, &key, &endpoint, &reply).err().unwrap_or_else(|| panic!("{what} was believed"));
            assert!(error.to_string().contains(expected), "{what}: {error}");
        }
        let came = Came::check(&options, &key, &endpoint, &good).unwrap();
        layout.make_folders(&RealDisk).unwrap();
        assert!(!layout.is_enrolled());
        came.keep(&layout).unwrap();
        assert!(layout.is_enrolled());
        assert_eq!(layout.certificate().unwrap().identity, PeerIdentity::Node { cluster: CLUSTER, node: NodeId::new(7) });
        assert_eq!(Peers::read(&layout.peers).unwrap().of(NodeId::new(1)).unwrap().address, "c:1");
    }
}
