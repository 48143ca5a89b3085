//! What an edge knows of itself, for people, probes and metrics: one watch turns the parts' states into all three.

use std::{sync::Arc, time::Duration};

use lookup::{Authenticator, Credential, Lookup, LookupError};
use runtime::{
    health::{Check, Readiness},
    listen::Peer,
};
use state::FEATURE_LEVEL_MAX;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use types::{ClusterId, NodeId, NodeName, Position};
use wire::v1;

use crate::{follow::Seen, keys::EdgeKeys, revoked::Mark};

/// How often readiness and gauges follow: as often as checkpoints come.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The state of an edge at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeStatus {
    /// The position that readers see; none before the first root.
    pub position: Option<Position>,
    /// How old it is, in milliseconds; none when that is not known.
    pub age_ms: Option<u64>,
    /// Whether lookups without demands of their own are answered: synced, not revoked, within `edge_offline_max`.
    pub serving: bool,
    /// Whether the stream to the control plane is up.
    pub connected: bool,
    /// Whether the local copy takes what comes: not while its disk fails, until it was opened again.
    pub keeping: bool,
    /// Whether every KEK epoch in use is unlocked.
    pub unlocked: bool,
    /// What is wrong, for people; empty when nothing is.
    pub problems: Vec<String>,
}

/// All that status is read from.
pub(crate) struct StatusSource {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) name: NodeName,
    /// The user who owns the data folder, and so may see everything in any case.
    pub(crate) owner: u32,
    pub(crate) lookup: Arc<Lookup>,
    pub(crate) keys: Arc<EdgeKeys>,
    pub(crate) mark: Arc<Mark>,
    pub(crate) seen: Seen,
}

impl StatusSource {
    /// The state now.
    pub(crate) fn now(&self) -> EdgeStatus {
        let serving = self.lookup.serving();
        let missing = self.keys.missing();
        let synced = serving.position().is_some();
        let mut problems = self.seen.problems();
        if serving.is_revoked() {
            problems.push(format!("this node has been revoked: {}", self.mark.remedy()));
        }
        if synced && !serving.fresh_enough() {
            problems.push(format!("the state is too old to serve: age {}", serving.age()));
        }
        problems.extend(missing.iter().map(|(domain, epoch)| format!("KEK epoch {epoch} of key domain {domain} is missing")));
        EdgeStatus {
            position: serving.position(),
            age_ms: serving.age().millis(),
            serving: serving.fresh_enough() && !serving.is_revoked(),
            connected: self.seen.connected(),
            keeping: self.seen.keeping(),
            unlocked: synced && missing.is_empty() && !serving.keys().is_locked(),
            problems,
        }
    }
}

/// The checks that `/readyz` shows.
pub(crate) struct Checks {
    synced: Check,
    fresh: Check,
    following: Check,
    unlocked: Check,
    accepting: Check,
}

impl Checks {
    pub(crate) fn new(readiness: &Readiness) -> Self {
        let accepting = readiness.check("accepting");
        accepting.ready();
        Self {
            synced: readiness.check("synced"),
            fresh: readiness.check("fresh"),
            following: readiness.check("following"),
            unlocked: readiness.check("unlocked"),
            accepting,
        }
    }

    /// The edge is ending: balancers should look elsewhere.
    pub(crate) fn draining(&self) {
        self.accepting.not_ready("shutting down");
    }

    fn follow(&self, status: &EdgeStatus) {
        let set = |check: &Check, good: bool, reason: &str| if good { check.ready() } else { check.not_ready(reason) };
        set(&self.synced, status.position.is_some(), "no complete copy yet");
        set(&self.fresh, status.serving, "the copy is too old, or this node is revoked");
        set(&self.unlocked, status.unlocked, "a key epoch in use is missing");
        // What is held is served on: an edge that hears nothing, or can keep nothing, is ready while its copy is fresh enough.
        match (status.keeping, status.connected) {
            (false, _) => self.following.limited("its disk takes nothing: the log says why"),
            (true, false) => self.following.limited("no stream to the control plane: the log says why"),
            (true, true) => self.following.ready(),
        }
    }
}

/// Keeps readiness and gauges up to date until `cancel` is cancelled. A problem is logged when it comes and when it goes.
pub(crate) async fn watch(source: Arc<StatusSource>, checks: Arc<Checks>, cancel: CancellationToken) {
    let clock = Arc::clone(source.lookup.serving().clock());
    let mut positions = source.lookup.serving().watch_position();
    let mut told = Vec::new();
    loop {
        let status = source.now();
        checks.follow(&status);
        gauges(&source.name, &status);
        for problem in status.problems.iter().filter(|problem| !told.contains(*problem)) {
            tracing::warn!(node = %source.name, problem, "problem");
        }
        if status.problems.is_empty() && !told.is_empty() {
            tracing::info!(node = %source.name, "no problem any more");
        }
        told = status.problems;
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = clock.sleep(WATCH_INTERVAL) => {}
            // The first root makes the node ready at once, without waiting for the interval.
            Ok(()) = positions.changed(), if status.position.is_none() => {}
        }
    }
}

fn gauges(node: &NodeName, status: &EdgeStatus) {
    let gauge = |name: &'static str, value: f64| metrics::gauge!(name, "node" => node.to_string()).set(value);
    let flag = |name, value| gauge(name, f64::from(u8::from(value)));
    flag("cinnabar_edge_serving", status.serving);
    flag("cinnabar_edge_connected", status.connected);
    flag("cinnabar_edge_keeping", status.keeping);
    flag("cinnabar_edge_unlocked", status.unlocked);
    gauge("cinnabar_edge_problems", status.problems.len() as f64);
    gauge("cinnabar_edge_revision", status.position.map_or(0.0, |position| position.revision.get() as f64));
    gauge("cinnabar_edge_age_seconds", status.age_ms.map_or(f64::INFINITY, |age| age as f64 / 1000.0));
}

/// The `Status` service of an edge.
#[derive(Clone)]
pub(crate) struct StatusService {
    source: Arc<StatusSource>,
    authenticator: Arc<Authenticator>,
}

impl StatusService {
    pub(crate) fn new(source: Arc<StatusSource>, authenticator: Authenticator) -> Self {
        Self { source, authenticator: Arc::new(authenticator) }
    }

    /// Whoever is a consumer in the state served, a node of the cluster, or the user who runs this edge (and root).
    fn may_see<T>(&self, request: &Request<T>) -> Result<(), LookupError> {
        let peer = request.extensions().get::<Peer>();
        let node = peer.and_then(Peer::identity).is_some_and(|identity| identity.node().is_some());
        let owner = peer.and_then(Peer::uid).is_some_and(|uid| uid == 0 || uid == self.source.owner);
        if node || owner {
            return Ok(());
        }
        let caller = Credential::of(request).caller(&self.authenticator, None)?;
        self.source.lookup.whoami(&caller).map(|_| ())
    }
}

#[tonic::async_trait]
impl v1::status_server::Status for StatusService {
    async fn show(&self, request: Request<v1::ShowStatusRequest>) -> Result<Response<v1::NodeStatus>, Status> {
        self.may_see(&request).map_err(|error| error.public())?;
        let status = self.source.now();
        let root = self.source.lookup.serving().root();
        let settings = root.as_ref().and_then(|root| root.state.settings().ok().flatten());
        Ok(Response::new(v1::NodeStatus {
            cluster_id: self.source.cluster.to_string(),
            node_id: self.source.node.get(),
            node_name: self.source.name.to_string(),
            role: v1::NodeRole::Edge.into(),
            position: status.position.map(Into::into),
            chain_hash: root.map(|root| root.state.chain_hash().to_string()).unwrap_or_default(),
            unlocked: status.unlocked,
            feature_level: settings.map_or(FEATURE_LEVEL_MAX, |settings| settings.feature_level).get(),
            age_ms: status.age_ms,
            connected: status.connected,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            problems: status.problems,
            ..v1::NodeStatus::default()
        }))
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIReply>, Status> {
        let who = Credential::of(&request).caller(&self.authenticator, None).and_then(|caller| self.source.lookup.whoami(&caller));
        let (consumer, expires) = who.map_err(|error| error.public())?;
        Ok(Response::new(v1::WhoAmIReply {
            name: consumer.to_string(),
            kind: v1::PrincipalKind::Consumer.into(),
            account_ids: vec![consumer.account.to_string()],
            expires_ms: expires.map_or(0, types::UnixMillis::get),
            ..v1::WhoAmIReply::default()
        }))
    }
}
