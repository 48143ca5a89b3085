//! From an open port to a node that serves: waits for the log, founds or recognises the cluster, unlocks, registers.
//!
//! The port is open before: a voter can confirm its log only with the others, which have to reach it, and a node that waits to be added
//! has to hear that it was. Until all is done public services answer `unavailable`, and `/readyz` says what is waited for.

use std::{sync::Arc, time::Duration};

use consensus::ReadError;
use runtime::{config::ControlConfig, health::Check};
use seal::{FileRoot, RootProvider};
use seams::Spawn;
use state::{NewNode, State, record::SettingsRecord};
use types::NodeId;

use crate::{
    bootstrap::{self, Ground},
    clock,
    core::{Core, counts},
    epochs, housekeeping,
    keys::{self, UnlockError},
    majority, marks,
    server::ControlError,
    snapshots,
};

/// Nodes that are read in one go.
const NODES_AT_A_TIME: usize = 1000;
/// How often it is looked whether this node is a member.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What brings a node up, beside what operations share.
pub(crate) struct Parts {
    pub(crate) config: ControlConfig,
    /// The root key, where this node has one.
    pub(crate) root: Option<FileRoot>,
    pub(crate) signing_key: [u8; 32],
    pub(crate) register: Vec<NewNode>,
    pub(crate) checks: Checks,
}

/// What has to be before the node is ready.
pub(crate) struct Checks {
    pub(crate) member: Check,
    pub(crate) majority: Check,
    pub(crate) clock: Check,
    pub(crate) replayed: Check,
    pub(crate) unlocked: Check,
    pub(crate) serving: Check,
}

/// Brings the node up. Takes as long as it takes others to answer; returns early only for what no waiting heals.
pub(crate) async fn bring_up(core: &Arc<Core>, parts: Parts) -> Result<(), ControlError> {
    let Parts { config, root, signing_key, register, checks } = parts;
    let Checks { member, majority, clock, replayed, unlocked, serving } = checks;
    core.tasks.spawn("watch the membership", Box::pin(watch_membership(core.clone(), member.clone())));
    core.tasks.spawn("watch the leader", Box::pin(majority::watch(core.clone(), majority.clone())));
    core.tasks.spawn("watch the clock", Box::pin(clock::watch(core.clone(), clock)));
    loop {
        match core.consensus.recovered().await {
            Ok(()) => break,
            Err(ReadError::Unavailable { reason }) => replayed.not_ready(reason),
            Err(error @ ReadError::Stopped(_)) => return Err(error.into()),
        }
    }
    // A majority has just confirmed a leader.
    replayed.ready();
    majority.ready();
    if core.consensus.membership().holds(core.node) {
        member.ready();
    }
    match core.consensus.local().settings().map_err(UnlockError::Read)? {
        Some(settings) if settings.cluster != core.cluster => {
            let path = config.node.data_dir.clone();
            return Err(ControlError::OtherCluster { path, held: settings.cluster, certificate: core.cluster });
        }
        Some(_) => bootstrap::finish_founding(&config.node.data_dir)?,
        None => {
            let settings = SettingsRecord {
                edge_offline_max_ms: config.cluster.edge_offline_max.duration().map(|duration| duration.as_millis() as u64),
                lease_ms: config.cluster.lease.as_millis() as u64,
                // The highest that the founding nodes support: they are this one, and edges that come later are asked by the feed.
                feature_level: core.level_max,
                ..SettingsRecord::defaults(core.cluster)
            };
            let (root, data) = (root.as_ref().map(|root| root as &dyn RootProvider), &config.node.data_dir);
            bootstrap::found(core, Ground { signing_key, settings, root, nodes: &register, data }).await?;
        }
    }
    // A node that can open no epoch serves metadata and the stream, and says that it is locked.
    let provider = root.as_ref().map(|root| root as &dyn RootProvider);
    let own = (core.node, &core.enrolment.envelope_key);
    match keys::unlock(&core.ring, provider, own, &core.domain, &core.consensus.local()) {
        Ok(()) => unlocked.ready(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "this node stays locked: it seals no value");
            unlocked.not_ready("locked: the log says why");
        }
    }
    // The root key was needed for unlocking only (P10).
    drop(root);
    while let Err(error) = bootstrap::register(core, &register).await {
        // With others the log may have no leader at the moment; alone, nothing changes by waiting.
        if core.consensus.membership().voters.len() < 2 {
            return Err(error.into());
        }
        tracing::warn!(error = &error as &dyn std::error::Error, "nodes that the configuration names are not registered yet; trying again");
        serving.not_ready("the log does not take the registration of nodes: the log of this node says why");
        core.clock.sleep(LOOK_EVERY).await;
    }
    bootstrap::tell_own(core).await;
    core.publisher.acks().expect(edges(&core.consensus.local())?);
    let file = config.node.data_dir.join("marks");
    marks::restore(&core.publisher, &file);
    core.tasks.spawn("keep marks", Box::pin(marks::keep(core.clone(), file)));
    core.tasks.spawn("save snapshots", Box::pin(snapshots::run(core.clone(), snapshots::Schedule::of(&config))));
    core.tasks.spawn("keep key epochs", Box::pin(epochs::keep(core.clone(), unlocked)));
    core.tasks.spawn("housekeeping", Box::pin(housekeeping::run(core.clone())));

    core.open();
    serving.ready();
    Ok(())
}

/// Tells in `/readyz` whether this node is a member, and what to do when it is not.
async fn watch_membership(core: Arc<Core>, check: Check) {
    let cancelled = core.tasks.token().clone();
    let mut was_member = false;
    loop {
        let (name, address) = (&core.name, &core.advertised);
        let members = core.consensus.membership();
        if let Some(known) = members.address(core.node) {
            check.ready();
            was_member = true;
            if known != address {
                tell_address(&core, known).await;
            }
        } else if was_member {
            check.not_ready("removed from the cluster: stop it, and delete its data before it joins again under a new identity");
        } else {
            check.not_ready(format!(
                "waits to be added: run `cinnabar cluster add {name} --address {address}`, then `cinnabar cluster promote {name}`"
            ));
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(LOOK_EVERY) => {}
        }
    }
}

/// This node is reached elsewhere than the members think: it tells them, through whichever of them leads.
async fn tell_address(core: &Core, known: &str) {
    match core.consensus.add_learner(core.node, core.advertised.clone()).await {
        Ok(()) => tracing::info!(known, address = core.advertised, "told the members where this node is reached now"),
        Err(error) => tracing::warn!(known, address = core.advertised, %error, "the members do not know where this node is reached"),
    }
}

/// The edges in the registry.
fn edges(state: &State) -> Result<Vec<NodeId>, UnlockError> {
    let (mut edges, mut after) = (Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), NODES_AT_A_TIME)?;
        edges.extend(page.items.iter().map(|(node, _)| *node).filter(|node| counts(state, *node)));
        after = page.next;
        if after.is_none() {
            return Ok(edges);
        }
    }
}
