//! The cluster itself: its beginning, its nodes, its signers and its feature level.

use std::collections::{BTreeMap, BTreeSet};

use types::{FeatureLevel, NodeId, VALUE_BYTES_MAX};

use super::{Judged, View, authorities, enrolment, keks, limits, refuse};
use crate::{
    CallNotes, ChangePhase, Grant, GrantScope, InitCluster, Keyspace, MemberChange, MemberNote, NewEpoch, NewNode, NewSignerSet, Prefix,
    Recipient, RefusalKind, ReplyBody, Role, TypedKey,
    limits::{ADDRESS_BYTES_MAX, LABELS_MAX, NODES_MAX, SIGNERS_MAX, WRAP_BYTES_MAX},
    record::{KekState, NodeRecord, NodeRole, OperatorTokenRecord, SettingsRecord, SignerSetRecord},
};

/// The most bytes of the reason that a note of a failed change holds.
const REASON_BYTES_MAX: usize = 255;

/// Changes nothing: that the command was taken is what the audit log keeps.
pub(super) fn note_membership(note: &MemberNote) -> Judged<ReplyBody> {
    let address = matches!(&note.change, MemberChange::Add { address } if address.len() > ADDRESS_BYTES_MAX);
    let reason = matches!(&note.phase, ChangePhase::Failed { reason } if reason.len() > REASON_BYTES_MAX);
    if address || reason {
        return refuse(RefusalKind::InvalidArgument, "a note of a membership change has an address or a reason that is too long");
    }
    Ok(ReplyBody::MembershipNoted)
}

pub(super) fn note_calls(notes: &CallNotes) -> Judged<ReplyBody> {
    if notes.fits() {
        return Ok(ReplyBody::CallsNoted);
    }
    refuse(RefusalKind::InvalidArgument, "a note of calls has too many rows, or a text that is too long")
}

pub(super) fn init(view: &mut View<'_>, init: &InitCluster) -> Judged<ReplyBody> {
    if view.has(TypedKey::Settings) {
        return refuse(RefusalKind::AlreadyExists, "the cluster is set up already");
    }
    check_settings(init)?;
    let keys: BTreeSet<_> = init.nodes.iter().map(|node| &node.public_key).collect();
    if keys.len() != init.nodes.len() {
        return refuse(RefusalKind::InvalidArgument, "two of the first nodes have the same public key");
    }
    view.put(TypedKey::Settings, &init.settings);
    for node in &init.nodes {
        register(view, node)?;
    }
    let set = SignerSetRecord { version: 1, threshold: init.threshold, keys: init.signers.clone(), signatures: Vec::new() };
    check_signers(view, &set)?;
    view.put(TypedKey::SignerSet { version: 1 }, &set);
    enrolment::put_authority(view, init.authority.clone())?;
    if let Some(recovery) = &init.recovery {
        if recovery.envelope_key.is_empty() || recovery.envelope_key.len() > WRAP_BYTES_MAX {
            return refuse(RefusalKind::InvalidArgument, "the recovery key has a key for envelopes of impossible length");
        }
        view.put(TypedKey::Recovery, recovery);
    }
    let epoch = NewEpoch {
        domain: init.domain.clone(),
        epoch: types::KekEpoch::new(1),
        commitment: init.commitment,
        envelopes: init.envelopes.clone(),
    };
    keks::announce(view, &epoch, KekState::Active)?;
    let token = OperatorTokenRecord {
        token_id: init.operator_token_id,
        name: init.operator.clone(),
        grants: vec![Grant { role: Role::SuperAdministrator, scope: GrantScope::Cluster }],
        created: view.time,
        expires: None,
    };
    super::operators::insert(view, init.operator_token, &token, None)?;
    Ok(ReplyBody::Initialized)
}

fn check_settings(init: &InitCluster) -> Judged<()> {
    let SettingsRecord { cluster, feature_level, quota, dek_uses_max, dek_era, signer_set, .. } = &init.settings;
    let wrong = if *cluster != init.cluster {
        "name another cluster"
    } else if *feature_level < FeatureLevel::new(1) {
        "have no feature level"
    } else if quota.value_bytes as usize > VALUE_BYTES_MAX {
        "allow longer values than there can be"
    } else if *dek_uses_max == 0 {
        "let no data key be used"
    } else if *dek_era != 0 || *signer_set != 1 {
        "do not begin at era 0 and signer set 1"
    } else {
        return Ok(());
    };
    refuse(RefusalKind::InvalidArgument, format!("the settings of the new cluster {wrong}"))
}

pub(super) fn register(view: &mut View<'_>, node: &NewNode) -> Judged<ReplyBody> {
    check_node(node)?;
    if view.has(TypedKey::Node { node: node.id }) {
        return refuse(RefusalKind::AlreadyExists, format!("node {} is registered already; ids are never given again", node.id));
    }
    let nodes = Prefix::keyspace(Keyspace::Node);
    for (key, _) in view.state.scan(&nodes) {
        let Ok(key @ TypedKey::Node { .. }) = key.decode() else { continue };
        let Some(other) = view.read::<NodeRecord>(key)? else { continue };
        if other.public_key == node.public_key {
            let message = format!("the public key is that of node {}, registered before; a node needs a key of its own", other.name);
            return refuse(RefusalKind::AlreadyExists, message);
        }
        if other.name == node.name && other.revoked.is_none() {
            return refuse(RefusalKind::AlreadyExists, format!("a node named {} is registered already", node.name));
        }
    }
    let mut totals = view.totals()?;
    if totals.nodes >= NODES_MAX {
        return refuse(RefusalKind::QuotaExceeded, format!("the registry has {NODES_MAX} nodes, the most that it can hold"));
    }
    totals.nodes += 1;
    view.put(TypedKey::Totals, &totals);
    let record = NodeRecord {
        name: node.name.clone(),
        role: node.role,
        public_key: node.public_key.clone(),
        envelope_key: node.envelope_key.clone(),
        labels: node.labels.clone(),
        address: node.address.clone(),
        feature_level: node.feature_level,
        created: view.time,
        revoked: None,
    };
    view.put(TypedKey::Node { node: node.id }, &record);
    Ok(ReplyBody::NodeRegistered { node: node.id })
}

fn check_node(node: &NewNode) -> Judged<()> {
    if node.public_key.is_empty() || node.public_key.len() > WRAP_BYTES_MAX || node.envelope_key.len() > WRAP_BYTES_MAX {
        return refuse(RefusalKind::InvalidArgument, format!("node {} has keys of impossible length", node.id));
    }
    check_address(node.role, node.address.as_ref())?;
    check_labels(&node.labels)
}

pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Judged<()> {
    const LABEL_BYTES_MAX: usize = 255;
    if labels.len() > LABELS_MAX || labels.iter().any(|(key, value)| key.len().max(value.len()) > LABEL_BYTES_MAX) {
        let message = format!("too many labels, or too long ones: at most {LABELS_MAX}, of {LABEL_BYTES_MAX} bytes each side");
        return refuse(RefusalKind::InvalidArgument, message);
    }
    Ok(())
}

fn check_address(role: NodeRole, address: Option<&String>) -> Judged<()> {
    let wrong = match address {
        Some(_) if role != NodeRole::Control => "only control nodes have an address in the registry",
        Some(address) if address.is_empty() || address.len() > ADDRESS_BYTES_MAX => "the node's address is empty or too long",
        _ => return Ok(()),
    };
    refuse(RefusalKind::InvalidArgument, wrong)
}

/// Takes over what a node says of itself.
pub(super) fn update(view: &mut View<'_>, node: NodeId, address: Option<&String>, feature_level: FeatureLevel) -> Judged<ReplyBody> {
    let Some(record) = view.read::<NodeRecord>(TypedKey::Node { node })? else {
        return refuse(RefusalKind::NotFound, format!("no node {node}"));
    };
    if record.revoked.is_some() {
        return refuse(RefusalKind::Precondition, format!("node {node} is revoked"));
    }
    check_address(record.role, address)?;
    view.put(TypedKey::Node { node }, &NodeRecord { address: address.cloned(), feature_level, ..record });
    Ok(ReplyBody::NodeUpdated)
}

/// Revokes a node in one command: registry, envelopes, new epochs for what it could open, and an end to all data keys in use.
pub(super) fn revoke(view: &mut View<'_>, node: NodeId, epochs: &[NewEpoch], signer_set: Option<&NewSignerSet>) -> Judged<ReplyBody> {
    shut_out(view, node, epochs, signer_set, true)
}

/// The same for a control node whose disk is in nobody's hands: the authority is not to be replaced.
pub(super) fn revoke_lost(view: &mut View<'_>, node: NodeId, epochs: &[NewEpoch], signer_set: Option<&NewSignerSet>) -> Judged<ReplyBody> {
    shut_out(view, node, epochs, signer_set, false)
}

/// `exposes`: whoever has the node has what it could open, so an authority whose key it had must be replaced.
fn shut_out(view: &mut View<'_>, node: NodeId, epochs: &[NewEpoch], signer_set: Option<&NewSignerSet>, exposes: bool) -> Judged<ReplyBody> {
    let Some(record) = view.read::<NodeRecord>(TypedKey::Node { node })? else {
        return refuse(RefusalKind::NotFound, format!("no node {node}"));
    };
    if record.revoked.is_some() {
        return refuse(RefusalKind::Precondition, format!("node {node} is revoked already"));
    }
    if record.role == NodeRole::Control && control_nodes(view)?.iter().all(|other| *other == node) {
        let message = format!("node {node} is the last control node; without one the cluster cannot go on");
        return refuse(RefusalKind::Precondition, message);
    }
    let domains: BTreeSet<_> = epochs.iter().map(|epoch| &epoch.domain).collect();
    if domains.len() != epochs.len() {
        return refuse(RefusalKind::InvalidArgument, "a revocation brings one new epoch for each key domain");
    }
    view.put(TypedKey::Node { node }, &NodeRecord { revoked: Some(view.time), ..record });
    let mut settings = view.settings()?;
    settings.dek_era = settings.dek_era.saturating_add(1);
    view.put(TypedKey::Settings, &settings);
    if enrolment::unshare_authority(view, node)? && exposes {
        authorities::expose(view)?;
    }
    view.delete(TypedKey::Certified { node });
    stop_signing(view, node, signer_set)?;
    let opened = drop_envelopes(view, node)?;
    for epoch in epochs {
        if epoch.envelopes.iter().any(|(recipient, _)| *recipient == Recipient::Node(node)) {
            return refuse(RefusalKind::InvalidArgument, format!("the new epoch has an envelope for node {node}, which is being revoked"));
        }
        keks::announce(view, epoch, KekState::Active)?;
    }
    match opened.iter().find(|domain| epochs.iter().all(|epoch| epoch.domain != **domain)) {
        Some(domain) => {
            let message = format!("node {node} can open the active epoch of the key domain {domain}; its revocation must bring a new one");
            refuse(RefusalKind::InvalidArgument, message)
        }
        None => Ok(ReplyBody::NodeRevoked),
    }
}

/// A signer goes together with its place in the signer set: the set without it is signed by those of the set with it.
fn stop_signing(view: &mut View<'_>, node: NodeId, signer_set: Option<&NewSignerSet>) -> Judged<()> {
    let signs = view.state.signer_set()?.is_some_and(|set| set.key_of(node).is_some());
    match signer_set {
        Some(set) => set_signers(view, set).map(drop),
        None if signs => {
            let message = format!("node {node} is a signer; its revocation must bring the signer set without it");
            refuse(RefusalKind::InvalidArgument, message)
        }
        None => Ok(()),
    }
}

/// Removes a node's envelopes; says of which domains it could open the active epoch.
fn drop_envelopes(view: &mut View<'_>, node: NodeId) -> Judged<BTreeSet<types::KeyDomain>> {
    let all = Prefix::keyspace(Keyspace::Envelope);
    let keys: Vec<_> = view.state.scan_control(&all).filter_map(|(key, _)| key.decode().ok()).collect();
    let mut opened = BTreeSet::new();
    for key in keys {
        if let TypedKey::Envelope { domain, epoch, recipient } = &key
            && *recipient == Recipient::Node(node)
        {
            if view.state.active_kek_epoch(domain)?.is_some_and(|active| active.n == *epoch) {
                opened.insert(domain.clone());
            }
            view.delete(key);
        }
    }
    Ok(opened)
}

/// Adopts the next signer set. That the signatures are good was verified before the proposal, since checking them takes keys and time;
/// their number and signers are checked here, and all who follow the chain of sets verify them for themselves.
pub(super) fn set_signers(view: &mut View<'_>, new: &NewSignerSet) -> Judged<ReplyBody> {
    let NewSignerSet { version, threshold, keys, signatures } = new;
    let mut settings = view.settings()?;
    if settings.signer_set.checked_add(1) != Some(*version) {
        let message = format!("signer set {version} does not follow set {}, which is in force", settings.signer_set);
        return refuse(RefusalKind::Precondition, message);
    }
    let Some(before) = view.read::<SignerSetRecord>(TypedKey::SignerSet { version: settings.signer_set })? else {
        return Err(super::Halt::Broken { what: "the signer set in force is not there" }.into());
    };
    let set = SignerSetRecord { version: *version, threshold: *threshold, keys: keys.clone(), signatures: signatures.clone() };
    check_signers(view, &set)?;
    let members = signatures.iter().filter(|one| before.key_of(one.signer).is_some() && one.signature.len() == 64);
    let signers: BTreeSet<_> = members.map(|one| one.signer).collect();
    if signers.len() != signatures.len() || signers.len() < before.threshold as usize {
        let message = format!(
            "signer set {version} has {} proper signatures by members of set {}, which asks for {}, each once",
            signers.len(),
            before.version,
            before.threshold
        );
        return refuse(RefusalKind::InvalidArgument, message);
    }
    view.put(TypedKey::SignerSet { version: *version }, &set);
    settings.signer_set = *version;
    view.put(TypedKey::Settings, &settings);
    Ok(ReplyBody::SignerSetAdopted { version: *version })
}

fn check_signers(view: &View<'_>, set: &SignerSetRecord) -> Judged<()> {
    let (count, sorted) = (set.keys.len(), set.keys.is_sorted_by(|one, next| one.node < next.node));
    if count == 0 || count > SIGNERS_MAX || !sorted || set.threshold == 0 || set.threshold as usize > count {
        let message = format!("a signer set needs 1 to {SIGNERS_MAX} members by rising node id, and a threshold from 1 to their number");
        return refuse(RefusalKind::InvalidArgument, message);
    }
    for member in &set.keys {
        match view.read::<NodeRecord>(TypedKey::Node { node: member.node })? {
            Some(node) if node.role == NodeRole::Control && node.revoked.is_none() => {}
            _ => return refuse(RefusalKind::InvalidArgument, format!("signer {} is no control node in good standing", member.node)),
        }
    }
    Ok(())
}

/// Raises the level. That this build knows the new one was checked before the command came here.
pub(super) fn raise_level(view: &mut View<'_>, to: FeatureLevel) -> Judged<ReplyBody> {
    let mut settings = view.settings()?;
    if settings.feature_level.next() != Some(to) {
        let message = format!("feature level {} is in force; levels rise by one, not to {to}", settings.feature_level);
        return refuse(RefusalKind::Precondition, message);
    }
    for node in control_nodes(view)? {
        let Some(record) = view.state.node(node)? else { continue };
        if record.feature_level < to {
            let NodeRecord { name, feature_level, .. } = record;
            let message = format!("control node {name} has reported feature level {feature_level}, not {to}: update and start it first");
            return refuse(RefusalKind::Level, message);
        }
    }
    settings.feature_level = to;
    view.put(TypedKey::Settings, &settings);
    if to == limits::LEVEL {
        limits::begin_to_count(view)?;
    }
    Ok(ReplyBody::LevelRaised)
}

/// The control nodes in good standing.
fn control_nodes(view: &View<'_>) -> Judged<Vec<NodeId>> {
    let all = Prefix::keyspace(Keyspace::Node);
    let mut found = Vec::new();
    for (key, _) in view.state.scan(&all) {
        if let Ok(TypedKey::Node { node }) = key.decode()
            && view.state.node(node)?.is_some_and(|record| record.role == NodeRole::Control && record.revoked.is_none())
        {
            found.push(node);
        }
    }
    Ok(found)
}
