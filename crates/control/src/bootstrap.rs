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
    record::{MemberKey, NodeRole, SettingsRecord},
};
use types::{ClusterId, KeyDomain, NameError, NodeId, PrincipalName, TokenId};
use wire::PublicError;

use crate::{
    call::Call,
    core::Core,
    error::damaged,
    keys::{self, FirstEpoch},
};

/// The rows of the registry that this node's configuration vouches for: itself, then what `[[register]]` names.
pub(crate) fn vouched_for(config: &ControlConfig, own: &PeerCertificate) -> Result<Vec<NewNode>, BootstrapError> {
    let unreadable = |path: &Path, source: std::io::Error| BootstrapError::File { path: path.to_owned(), source };
    let key_pair = NodeKeyPair::from_file_bytes(&zeroize::Zeroizing::new(runtime::read_secret_file(&config.keys.node)?))?;
    let own = NewNode {
        id: config.node.id,
        name: config.node.name.clone(),
        role: NodeRole::Control,
        public_key: own.public_key.clone(),
        envelope_key: key_pair.public().encode(),
        labels: BTreeMap::new(),
    };
    let row = |node: &Registered| {
        let certificate = PeerCertificate::read_pem(&node.certificate).map_err(|source| unreadable(&node.certificate, source))?;
        if certificate.identity.node() != Some(node.id) {
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
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) signing_key: [u8; 32],
    pub(crate) settings: SettingsRecord,
    pub(crate) root: &'a dyn RootProvider,
    pub(crate) nodes: &'a [NewNode],
    pub(crate) operator_token: &'a Path,
}

/// Writes the first operator's token to its file, then proposes the command that founds the cluster: settings, signer set, nodes,
/// key epoch 1, first operator. A crash between the two leaves a file whose token the next try replaces.
pub(crate) async fn found(core: &Core, founding: Founding<'_>) -> Result<(), BootstrapError> {
    let domain = KeyDomain::global();
    let edges = founding.nodes.iter().filter(|node| node.role == NodeRole::Edge);
    let recipients = edges.map(|node| Ok((node.id, NodePublicKey::decode(&node.envelope_key)?))).collect::<Result<Vec<_>, SealError>>()?;
    let epoch = FirstEpoch::make(&*core.entropy, founding.root, founding.cluster, &domain, recipients)?;
    let token = OperatorToken::generate(&*core.entropy);
    runtime::write_secret_file(founding.operator_token, format!("{}\n", token.text().expose()).as_bytes())?;
    let init = InitCluster {
        cluster: founding.cluster,
        settings: founding.settings,
        signers: vec![MemberKey { node: founding.node, key: founding.signing_key }],
        threshold: 1,
        operator_token: token.hash(),
        operator_token_id: TokenId::from_bytes(core.entropy.id()),
        operator: PrincipalName::new(FIRST_OPERATOR)?,
        domain,
        commitment: epoch.commitment,
        envelopes: epoch.envelopes,
        nodes: founding.nodes.to_vec(),
    };
    core.propose(&own_call(core), Principal::System, None, CommandBody::InitCluster(Box::new(init)))
        .await
        .map_err(refused("found the cluster"))?;
    tracing::info!(cluster = %founding.cluster, token_file = %founding.operator_token.display(), "founded a new cluster");
    Ok(())
}

/// Registers nodes that the log does not know yet, with envelopes of the epochs that this node holds.
pub(crate) async fn register(core: &Core, nodes: &[NewNode]) -> Result<(), BootstrapError> {
    for node in nodes {
        let known = core.consensus.local().node(node.id).map_err(damaged).map_err(refused("register a node"))?;
        if known.is_none() {
            register_one(core, node).await?;
        }
    }
    Ok(())
}

async fn register_one(core: &Core, node: &NewNode) -> Result<(), BootstrapError> {
    let own = Principal::Node { node: core.node };
    let call = own_call(core);
    core.propose(&call, own, None, CommandBody::RegisterNode { node: node.clone() }).await.map_err(refused("register a node"))?;
    if node.role == NodeRole::Edge {
        let key = NodePublicKey::decode(&node.envelope_key)?;
        for (domain, epoch, envelope) in keys::envelopes_for(&core.ring, &*core.entropy, node.id, &key)? {
            let step = KekStep::AddEnvelopes { envelopes: vec![(state::Recipient::Node(node.id), envelope)] };
            core.propose(&call, own, None, CommandBody::KekEpoch { domain, epoch, step }).await.map_err(refused("hand a node its keys"))?;
        }
    }
    tracing::info!(node = %node.id, name = %node.name, "registered a node");
    Ok(())
}

/// A call that this node makes to itself.
pub(crate) fn own_call(core: &Core) -> Call {
    let origin = state::Origin { peer: "this node".to_owned(), request: types::RequestId::from_bytes(core.entropy.id()).to_string() };
    Call { token: None, node: Some(core.node), origin }
}
