//! This node's own certificate: issued by itself, or by another control node while it may not.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use ::enrol::{EnrolError, Layout, Peers, Reload, Remote, Renewal, Renewed, Source, Trust};
use futures::future::BoxFuture;
use runtime::{config::ControlConfig, tls::ServerTls};
use state::record::NodeRole;
use wire::PublicError;

use super::{authority, certificate_request, control_nodes};
use crate::core::Core;

/// Keeps the certificate of this node fresh: for its door, and for its calls to others. `told`: whom it knew when it joined.
pub(crate) fn renewal(core: &Arc<Core>, config: &ControlConfig, door: ServerTls, told: Peers) -> Renewal {
    let asking = core.clone();
    let others = Remote::over(
        move || {
            let mut known = Vec::new();
            let state = control_nodes(&asking.consensus.local()).unwrap_or_default();
            known.extend(state.into_iter().map(|node| (types::NodeId::new(node.node), node.address)));
            known.extend(told.0.iter().map(|peer| (peer.node, peer.address.clone())));
            known.retain(|(node, address)| *node != asking.node && !address.is_empty());
            known.sort_unstable();
            known.dedup();
            let channel = |(node, address): (_, String)| Some((address.clone(), asking.transport.channel(node, &address).ok()?));
            known.into_iter().filter_map(channel).collect()
        },
        core.clock.clone(),
    );
    let calling = core.transport.clone();
    let users: Vec<Reload> = vec![
        Box::new(move |files| door.reload(files)),
        Box::new(move |_| {
            calling.reload();
            Ok(())
        }),
    ];
    Renewal {
        layout: Layout::control(config),
        name: config.node.name.clone(),
        names: config.certificate_names(),
        clock: core.clock.clone(),
        entropy: core.entropy.clone(),
        source: Arc::new(OwnOrOthers { core: core.clone(), others }),
        users,
        trust: Some(Box::new(believed(core.clone(), config.tls.cert.clone()))),
        doubted: Arc::default(),
    }
}

/// The authorities that the state of this node names. On the way it is noted, for the registry to hear, when this node's own certificate
/// is by the one that issues.
fn believed(core: Arc<Core>, certificate: PathBuf) -> impl Fn() -> Option<Trust> {
    move || {
        let state = core.consensus.local();
        let record = state.trust().ok().flatten()?;
        let trust = Trust::of(&record);
        let noted = state.certified_by(core.node).unwrap_or(record.issuing);
        if noted < record.issuing && trust.issued(&certificate).unwrap_or(false) {
            core.enrolment.certified_by.store(record.issuing, Ordering::Relaxed);
        }
        Some(trust)
    }
}

struct OwnOrOthers {
    core: Arc<Core>,
    others: Remote,
}

impl OwnOrOthers {
    /// Who can open the authority's key needs to ask nobody; so a cluster that slept until every certificate ended wakes up.
    fn own(&self, request: &[u8]) -> Result<Vec<Vec<u8>>, PublicError> {
        let core = &*self.core;
        let request = certificate_request(request)?;
        let state = core.consensus.local();
        let issuer = authority::issuer(core, &state)?;
        let certificates = authority::certify(core, &state, &issuer, (core.node, NodeRole::Control), &request.public_key, &request.names)?;
        Ok(certificates.iter().map(|der| der.to_vec()).collect())
    }
}

impl Source for OwnOrOthers {
    fn renew(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Renewed, EnrolError>> {
        Box::pin(async move {
            match self.own(&request) {
                Ok(certificates) => Ok(Renewed { certificates, peers: None, trust: None }),
                Err(error) => {
                    tracing::info!(reason = error.message, "this node cannot renew its own certificate, and asks the other control nodes");
                    self.others.renew(request).await
                }
            }
        })
    }
}
