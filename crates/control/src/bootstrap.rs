//! The first command of a cluster's log, and the nodes that this node's operator vouches for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ::enrol::Founding;
use runtime::{
    SecretFileError,
    config::{ControlConfig, Registered, RegisteredRole},
    tls::PeerCertificate,
};
use seal::{KekName, NodeKeyPair, NodePublicKey, RootProvider, SealError, seal_authority};
use state::{
    CommandBody, FEATURE_LEVEL_MAX, InitCluster, NewNode, Principal,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, RecoveryRecord, SettingsRecord},
};
use types::{ClusterId, KekEpoch, NameError, NodeId, PrincipalName, TokenId};
use wire::PublicError;

use crate::{
    audit::Trace,
    call::{Call, Credential},
    core::Core,
    error::damaged,
    keys::{NewKek, in_keys},
};

/// The rows of the registry that this node's configuration vouches for: itself, then what `[[register]]` names.
pub(crate) fn vouched_for(config: &ControlConfig, certificate: &PeerCertificate) -> Result<Vec<NewNode>, BootstrapError> {
    let unreadable = |path: &Path, source: std::io::Error| BootstrapError::File { path: path.to_owned(), source };
    let key_pair = NodeKeyPair::from_file_bytes(&zeroize::Zeroizing::new(runtime::read_secret_file(&config.keys.node)?))
        .map_err(|source| BootstrapError::NodeKey { path: config.keys.node.clone(), source })?;
    let own = NewNode {
        id: certificate.identity.node().unwrap_or_default(),
        name: config.node.name.clone(),
        role: NodeRole::Control,
        public_key: certificate.public_key.clone(),
        envelope_key: key_pair.public().encode(),
        labels: BTreeMap::new(),
        address: Some(config.advertise().to_string()),
        feature_level: FEATURE_LEVEL_MAX,
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
            address: None,
            feature_level: FEATURE_LEVEL_MAX,
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
    /// The key that opens envelopes.
    #[error("the node key in {} (keys.node) cannot be used: put it back as it was, or let the node join anew under a new name", path.display())]
    NodeKey {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: SealError,
    },
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
    /// The log is empty, and nothing says that a cluster is to be founded here.
    #[error(
        "the log in {} is empty, and there is no file `founding` beside it: if this node was a member before, mount or restore its data, or let it join anew under another identity; to join a cluster, give it a join token; to found a new one, run `cinnabar cluster init`",
        path.display()
    )]
    NotFounded {
        /// The data folder.
        path: PathBuf,
    },
    /// What `cluster init` left is of another cluster than this node's certificate.
    #[error("{} founds cluster {founding}, but this node's certificate is of cluster {own}: run `cinnabar cluster init` again", path.display())]
    OtherFounding {
        /// The file.
        path: PathBuf,
        /// Its cluster.
        founding: ClusterId,
        /// The certificate's cluster.
        own: ClusterId,
    },
    /// The file that `cluster init` left.
    #[error("cannot use what `cinnabar cluster init` left")]
    Founding(#[from] ::enrol::EnrolError),
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

/// What a cluster is founded on, beside what `cluster init` left.
pub(crate) struct Ground<'a> {
    pub(crate) signing_key: [u8; 32],
    pub(crate) settings: SettingsRecord,
    pub(crate) root: Option<&'a dyn RootProvider>,
    /// This node first.
    pub(crate) nodes: &'a [NewNode],
    /// Where `cluster init` left the rest.
    pub(crate) data: &'a Path,
}

/// Refuses to begin a log where there is none and none is to be founded.
pub(crate) fn may_begin(data: &Path) -> Result<(), BootstrapError> {
    let begun = data.join(crate::server::LOG_FOLDER).exists();
    if begun || data.join(Founding::FILE).exists() { Ok(()) } else { Err(BootstrapError::NotFounded { path: data.to_owned() }) }
}

/// Proposes the command that founds the cluster: settings, signer set, nodes, certificate authority, key epoch 1, first operator. What
/// `cluster init` left for it is removed once the log has it; a crash in between is finished by [`finish_founding`].
///
/// An empty log without that file is a disk that was not mounted, or lost, or a node that should join: never a new cluster, for two
/// under one name would both take writes.
pub(crate) async fn found(core: &Core, ground: Ground<'_>) -> Result<(), BootstrapError> {
    let founding = Founding::read(ground.data)?.ok_or_else(|| BootstrapError::NotFounded { path: ground.data.to_owned() })?;
    if founding.cluster != core.cluster {
        return Err(BootstrapError::OtherFounding {
            path: ground.data.join(Founding::FILE),
            founding: founding.cluster,
            own: core.cluster,
        });
    }
    let recovery_key = NodePublicKey::decode(&founding.recovery.envelope)?;
    let holders = ground.nodes.iter().filter(|node| node.role != NodeRole::Relay);
    let recipients = holders.map(|node| Ok((node.id.into(), NodePublicKey::decode(&node.envelope_key)?)));
    let recovery = std::iter::once(Ok((seal::Recipient::Recovery, recovery_key.clone())));
    let recipients = recipients.chain(recovery).collect::<Result<Vec<_>, SealError>>()?;
    let name = KekName { cluster: core.cluster, domain: &core.domain, epoch: KekEpoch::new(1) };
    let epoch = NewKek::make(&*core.entropy, ground.root, &name, recipients)?;
    let init = InitCluster {
        cluster: core.cluster,
        settings: ground.settings,
        signers: vec![MemberKey { node: core.node, key: ground.signing_key }],
        threshold: 1,
        operator_token: founding.operator_token,
        operator_token_id: TokenId::from_bytes(core.entropy.id()),
        operator: PrincipalName::new(FIRST_OPERATOR)?,
        domain: core.domain.clone(),
        commitment: epoch.commitment,
        envelopes: epoch.envelopes,
        nodes: ground.nodes.to_vec(),
        authority: authority(core, &founding, &recovery_key)?,
        recovery: Some(RecoveryRecord {
            signing_key: founding.recovery.signing,
            envelope_key: founding.recovery.envelope.clone(),
            first_set: founding.recovery.first_set.clone(),
        }),
    };
    core.propose(&own_call(core), Principal::System, CommandBody::InitCluster(Box::new(init)))
        .await
        .map_err(refused("found the cluster"))?;
    finish_founding(ground.data)?;
    tracing::info!(cluster = %core.cluster, "founded a new cluster");
    Ok(())
}

/// The certificate authority, its key sealed for this node and for the recovery key.
fn authority(core: &Core, founding: &Founding, recovery: &NodePublicKey) -> Result<AuthorityRecord, BootstrapError> {
    let sealed = |recipient: seal::Recipient, key: &NodePublicKey| {
        let bytes = seal_authority(&*core.entropy, core.cluster, recipient, key, &founding.authority_key)?;
        Ok::<_, SealError>((in_keys(recipient), EnvelopeRecord { bytes }))
    };
    let own = sealed(core.node.into(), core.enrolment.envelope_key.public())?;
    let envelopes = vec![own, sealed(seal::Recipient::Recovery, recovery)?];
    Ok(AuthorityRecord { certificate: founding.authority_certificate.clone(), envelopes })
}

/// Removes what `cluster init` left, once the log has it: the authority's key lies there in the clear.
pub(crate) fn finish_founding(data: &Path) -> Result<(), BootstrapError> {
    Ok(Founding::remove(data)?)
}

/// Registers nodes that the log does not know yet. The envelopes that they lack they get from [`epochs`](crate::epochs), as all do.
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
    }
    Ok(())
}

/// Tells the cluster where this node is reached now, and which level it supports, where the registry says something else.
pub(crate) async fn tell_own(core: &Core) {
    let Ok(Some(record)) = core.consensus.local().node(core.node) else { return };
    let address = Some(core.advertised.clone());
    if record.revoked.is_some() || record.address == address && record.feature_level == core.level_max {
        return;
    }
    let body = CommandBody::UpdateNode { node: core.node, address, feature_level: core.level_max };
    if let Err(error) = core.propose(&own_call(core), Principal::Node { node: core.node }, body).await {
        tracing::warn!(kind = error.kind.name(), reason = error.message, "the registry was not told this node's address and feature level");
    }
}

/// A call that this node makes to itself.
pub(crate) fn own_call(core: &Core) -> Call {
    let origin = state::Origin { peer: "this node".to_owned(), request: types::RequestId::from_bytes(core.entropy.id()).to_string() };
    Call { credential: Credential::None, origin, sent: None, deadline: None, handed_over: false, first_try: false, trace: Trace::default() }
}
