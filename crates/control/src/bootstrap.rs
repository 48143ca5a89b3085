//! The first command of a cluster's log, and the nodes that this node's operator vouches for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use runtime::{
    SecretFileError,
    config::{ControlConfig, Registered, RegisteredRole},
    tls::PeerCertificate,
};
use seal::{NodeKeyPair, NodePublicKey, OperatorToken, RootProvider, SealError};
use state::{
    CommandBody, InitCluster, KekStep, NewNode, Principal,
    record::{EnvelopeRecord, MemberKey, NodeRole, SettingsRecord},
};
use types::{NameError, NodeId, PrincipalName, TokenId};
use wire::PublicError;

use crate::{
    call::{Call, Credential},
    core::Core,
    error::damaged,
    keys::FirstEpoch,
};

/// The rows of the registry that this node's configuration vouches for: itself, then what `[[register]]` names.
pub(crate) fn vouched_for(config: &ControlConfig, certificate: &PeerCertificate) -> Result<Vec<NewNode>, BootstrapError> {
    let unreadable = |path: &Path, source: std::io::Error| BootstrapError::File { path: path.to_owned(), source };
    let key_pair = NodeKeyPair::from_file_bytes(&zeroize::Zeroizing::new(runtime::read_secret_file(&config.keys.node)?))?;
    let own = NewNode {
        id: certificate.identity.node().unwrap_or_default(),
        name: config.node.name.clone(),
        role: NodeRole::Control,
        public_key: certificate.public_key.clone(),
        envelope_key: key_pair.public().encode(),
        labels: BTreeMap::new(),
    };
    let own_cluster = certificate.identity.cluster();
    let row = |node: &Registered| {
        let certificate = PeerCertificate::read_pem(&node.certificate).map_err(|source| unreadable(&node.certificate, source))?;
        if certificate.identity.cluster() != own_cluster || certificate.identity.node() != Some(node.id) {
            return Err(BootstrapError::Certificate {
                path: node.certificate.clone(),
                names: certificate.identity.to_string(),
                node: node.id,
            });
        }
        let envelope_key = node.envelope_key.as_deref().map(|path| std::fs::read(path).map_err(|source| unreadable(path, source)));
        Ok(NewNode {
            id: node.id,
            name: node.name.clone(),
            role: match node.role {
                RegisteredRole::Edge => NodeRole::Edge,
                RegisteredRole::Relay => NodeRole::Relay,
            },
            public_key: certificate.public_key,
            envelope_key: envelope_key.transpose()?.unwrap_or_default(),
            labels: BTreeMap::new(),
        })
    };
    std::iter::once(Ok(own)).chain(config.register.iter().map(row)).collect()
}

/// The name of the first operator.
const FIRST_OPERATOR: &str = "first-operator";

/// Why a cluster did not come into being, or a node was not registered.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The log refused, or could not take, the command.
    #[error("the log did not take the command to {what}: {message}")]
    Refused {
        /// What was commanded.
        what: &'static str,
        /// Why not.
        message: String,
    },
    /// Keys could not be made.
    #[error("cannot make the first keys")]
    Seal(#[from] SealError),
    /// A file of keys, or the first operator's token.
    #[error("cannot use a file of keys")]
    Token(#[from] SecretFileError),
    /// A file that `[[register]]` names.
    #[error("cannot read {}, which [[register]] names", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A cluster was founded here before, and its log is gone.
    #[error(
        "the log is empty, but {} says that this cluster was founded before: mount or restore the node's data. To found a new cluster, give it new keys and certificates and move that file away",
        path.display()
    )]
    FoundedBefore {
        /// The first operator's token.
        path: PathBuf,
    },
    /// A certificate of another node.
    #[error("the certificate {} names {names}, not node {node}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Whom it names.
        names: String,
        /// The node that `[[register]]` gives it to.
        node: NodeId,
    },
    /// A name is not one.
    #[error("a built-in name is refused")]
    Name(#[from] NameError),
}

fn refused(what: &'static str) -> impl Fn(PublicError) -> BootstrapError {
    move |error| BootstrapError::Refused { what, message: error.message }
}

/// What a cluster is founded on.
pub(crate) struct Founding<'a> {
    pub(crate) signing_key: [u8; 32],
    pub(crate) settings: SettingsRecord,
    pub(crate) root: &'a dyn RootProvider,
    pub(crate) nodes: &'a [NewNode],
    pub(crate) operator_token: &'a Path,
}

/// Where the first operator's token waits until its cluster is founded.
fn pending(operator_token: &Path) -> PathBuf {
    let mut name = operator_token.as_os_str().to_owned();
    name.push(".pending");
    name.into()
}

/// Proposes the command that founds the cluster: settings, signer set, nodes, key epoch 1, first operator. The operator's token is
/// written beside its file before, and gets its name after: a crash in between is finished by [`finish_founding`].
///
/// An empty log beside a token file is a disk that was not mounted, or lost, and no new cluster: to found a second one under the same
/// name would let both take writes.
pub(crate) async fn found(core: &Core, founding: Founding<'_>) -> Result<(), BootstrapError> {
    let file = founding.operator_token;
    if file.exists() {
        return Err(BootstrapError::FoundedBefore { path: file.to_owned() });
    }
    let edges = founding.nodes.iter().filter(|node| node.role == NodeRole::Edge);
    let recipients = edges.map(|node| Ok((node.id, NodePublicKey::decode(&node.envelope_key)?))).collect::<Result<Vec<_>, SealError>>()?;
    let epoch = FirstEpoch::make(&*core.entropy, founding.root, core.cluster, &core.domain, recipients)?;
    let token = OperatorToken::generate(&*core.entropy);
    let waiting = pending(file);
    runtime::write_secret_file(&waiting, format!("{}\n", token.text().expose()).as_bytes())?;
    let init = InitCluster {
        cluster: core.cluster,
        settings: founding.settings,
        signers: vec![MemberKey { node: core.node, key: founding.signing_key }],
        threshold: 1,
        operator_token: token.hash(),
        operator_token_id: TokenId::from_bytes(core.entropy.id()),
        operator: PrincipalName::new(FIRST_OPERATOR)?,
        domain: core.domain.clone(),
        commitment: epoch.commitment,
        envelopes: epoch.envelopes,
        nodes: founding.nodes.to_vec(),
    };
    core.propose(&own_call(core), Principal::System, CommandBody::InitCluster(Box::new(init)))
        .await
        .map_err(refused("found the cluster"))?;
    finish_founding(file)?;
    tracing::info!(cluster = %core.cluster, token_file = %file.display(), "founded a new cluster");
    Ok(())
}

/// Gives the first operator's token its name, if a founding before did not come that far.
pub(crate) fn finish_founding(operator_token: &Path) -> Result<(), BootstrapError> {
    let waiting = pending(operator_token);
    match std::fs::rename(&waiting, operator_token) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BootstrapError::File { path: waiting, source: error }),
        _ => Ok(()),
    }
}

/// Registers nodes that the log does not know yet, and gives edges the envelopes that they lack: also those that were registered
/// before, when a crash came between the two.
pub(crate) async fn register(core: &Core, nodes: &[NewNode]) -> Result<(), BootstrapError> {
    let own = Principal::Node { node: core.node };
    let call = own_call(core);
    for node in nodes {
        let known = core.consensus.local().node(node.id).map_err(damaged).map_err(refused("register a node"))?;
        match known {
            None => {
                core.propose(&call, own, CommandBody::RegisterNode { node: node.clone() }).await.map_err(refused("register a node"))?;
                tracing::info!(node = %node.id, name = %node.name, "registered a node");
            }
            Some(record) if record.public_key != node.public_key => {
                tracing::error!(node = %node.id, name = %node.name, "the registry has another key for this node than the configuration; the registry's stays. Give the node a new number, or its old key");
            }
            Some(_) => {}
        }
        if node.role == NodeRole::Edge {
            hand_envelopes(core, &call, own, node).await?;
        }
    }
    Ok(())
}

async fn hand_envelopes(core: &Core, call: &Call, own: Principal, node: &NewNode) -> Result<(), BootstrapError> {
    let key = NodePublicKey::decode(&node.envelope_key)?;
    let recipient = state::Recipient::Node(node.id);
    for (domain, epoch) in core.ring.epochs() {
        let held = core.consensus.local().envelope(&domain, epoch, recipient).map_err(damaged).map_err(refused("hand a node its keys"))?;
        if held.is_some() {
            continue;
        }
        let bytes = core.ring.seal_envelope(&*core.entropy, &domain, epoch, node.id, &key)?;
        let step = KekStep::AddEnvelopes { envelopes: vec![(recipient, EnvelopeRecord { bytes })] };
        core.propose(call, own, CommandBody::KekEpoch { domain, epoch, step }).await.map_err(refused("hand a node its keys"))?;
    }
    Ok(())
}

/// A call that this node makes to itself.
pub(crate) fn own_call(core: &Core) -> Call {
    let origin = state::Origin { peer: "this node".to_owned(), request: types::RequestId::from_bytes(core.entropy.id()).to_string() };
    Call { credential: Credential::None, origin, sent: None }
}
