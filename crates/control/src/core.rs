//! What every operation works with: the log, the keys, the clock.

use std::{sync::Arc, time::Duration};

use consensus::{ClockStanding, Consensus};
use feed::{Liveness, Publisher};
use runtime::TokioSpawn;
use seal::KeyRing;
use seams::{Clock, Entropy};
use state::{Command, CommandBody, Principal, Reply, ReplyBody, RequestKey, State, record::NodeRole};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use types::{ClusterId, FeatureLevel, KeyDomain, NodeId, NodeName, Position, UnixMillis};
use wire::{ErrorKind, PublicError};

use crate::{
    audit::Audit,
    call::{Call, Credential, Sent},
    caller::Caller,
    enrol::Enrolment,
    error, keys,
    limits::Limits,
    lookups::Lookups,
    majority::Majority,
    peers::Transport,
    recent::Recent,
    snapshots::Saves,
    watermarks::Standings,
};

/// How long a look at a node's own view waits for the newest state.
const NEWEST_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether a control node that is not heard is a member still.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The parts of a control node that operations share.
pub(crate) struct Core {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) name: NodeName,
    pub(crate) domain: KeyDomain,
    /// Where others reach this node, as HOST:PORT.
    pub(crate) advertised: String,
    pub(crate) consensus: Consensus,
    /// This node's copy of the audit log.
    pub(crate) audit: Audit,
    /// Connections to other control nodes.
    pub(crate) transport: Transport,
    /// Cancelled when the node is up and serves the public.
    pub(crate) opened: CancellationToken,
    pub(crate) ring: Arc<KeyRing>,
    /// This node's own keys, and what it enrols others with.
    pub(crate) enrolment: Enrolment,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) recent: Arc<Recent>,
    /// When there was last a leader.
    pub(crate) majority: Majority,
    /// What other control nodes said of themselves.
    pub(crate) standings: Arc<Standings>,
    /// What it serves, when it is configured to.
    pub(crate) lookups: Option<Arc<Lookups>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) tasks: Arc<TokioSpawn>,
    /// Changes under way. Full: one more is answered `busy`.
    pub(crate) changes: Arc<Semaphore>,
    /// How often one caller may do what costs others something.
    pub(crate) limits: Limits,
    /// Archives in the making.
    pub(crate) saves: Saves,
    /// The feature level up to which this node goes along.
    pub(crate) level_max: FeatureLevel,
    /// How long a read may take.
    pub(crate) request_timeout: Duration,
}

impl Core {
    /// What certificates and tokens are judged and dated by: this node's wall clock, or that of a majority of the voters where it is known
    /// to differ. Not log time: where no majority is known, that stands still, and a cluster that was off for days comes back by what its
    /// clocks say.
    pub(crate) fn now(&self) -> UnixMillis {
        let wall = self.clock.wall();
        match self.consensus.clocks().standing {
            ClockStanding::Differs { ahead_ms } => UnixMillis::new(wall.get().saturating_add_signed(ahead_ms.saturating_neg())),
            ClockStanding::Agrees | ClockStanding::Split | ClockStanding::Unknown => wall,
        }
    }

    /// From now on public services answer.
    pub(crate) fn open(&self) {
        self.opened.cancel();
    }

    /// Whether public services answer.
    pub(crate) fn is_open(&self) -> bool {
        self.opened.is_cancelled()
    }

    /// Completes when public services answer.
    pub(crate) async fn opened(&self) {
        self.opened.cancelled().await;
    }

    /// Identifies the caller and runs `find` on a state that is new enough to claim absence. The local state is tried first:
    /// what it holds was committed. Only what it does not hold is asked of the newest state, which a node without a majority
    /// refuses to know.
    pub(crate) async fn find<T>(&self, call: &Call, find: impl Fn(&State, &Caller) -> Result<T, PublicError>) -> Result<T, PublicError> {
        some_credential(call)?;
        let on = |state: &State| find(state, &Caller::identify(state, call, self.now())?);
        match on(&self.consensus.local()) {
            // Nothing is refused by a state that may be behind, but what is wrong in itself: a stranger to it may be known by now, and one
            // that it knows may be revoked, and must not learn what this node holds.
            Err(error) if !matches!(error.kind, ErrorKind::InvalidArgument | ErrorKind::TooLarge) => on(&self.newest_for(call).await?),
            found => found,
        }
    }

    /// Identifies the caller and runs `read` on the newest state: what metadata is answered from.
    pub(crate) async fn read<T>(
        &self,
        call: &Call,
        read: impl FnOnce(&State, &Caller) -> Result<T, PublicError>,
    ) -> Result<T, PublicError> {
        some_credential(call)?;
        let state = self.newest_for(call).await?;
        read(&state, &Caller::identify(&state, call, self.now())?)
    }

    /// Identifies the caller for a look at what this node itself knows: on the newest state, and where there is none to be had soon, as
    /// without a majority, on what this node last heard, for no longer than the lease ([`Core::heard_lately`]).
    pub(crate) async fn identify_here(&self, call: &Call) -> Result<(Caller, State), PublicError> {
        some_credential(call)?;
        let newest = tokio::select! {
            biased;
            newest = self.newest() => newest.ok(),
            () = self.clock.sleep(NEWEST_WITHIN) => None,
        };
        let state = match newest {
            Some(state) => state,
            None => self.heard_lately()?,
        };
        Ok((Caller::identify(&state, call, self.now())?, state))
    }

    /// The newest state, or the refusal of a node that cannot know it.
    pub(crate) async fn newest(&self) -> Result<State, PublicError> {
        self.consensus.linearizable().await.map_err(error::not_read)
    }

    /// The same, as long as the caller waits.
    async fn newest_for(&self, call: &Call) -> Result<State, PublicError> {
        tokio::select! {
            biased;
            newest = self.newest() => newest,
            () = self.clock.sleep(call.left(self)) => {
                let message = "no majority has confirmed the newest state in the time given: nothing was done; try again, with more time";
                Err(PublicError::new(ErrorKind::DeadlineExceeded, message))
            }
        }
    }

    /// The first answer to a request that was sent before under the same id, with the same content.
    pub(crate) async fn first_answer(&self, call: &Call) -> Result<Option<Reply>, PublicError> {
        let Some(sent) = call.sent.as_ref().filter(|_| !call.first_try) else { return Ok(None) };
        let recorded = self.find(call, |state, caller| state.request(caller.owner(), sent.id).map_err(error::damaged)).await?;
        let Some(recorded) = recorded else { return Ok(None) };
        // This is an answer, and no command after it is judged by `apply`: the caller has to be one still.
        self.read(call, |_, _| Ok(())).await?;
        if self.fingerprint_like(&recorded.fingerprint, sent)? != Some(recorded.fingerprint) {
            return Err(PublicError::new(
                ErrorKind::RequestReused,
                "the request id was used before, for something else; use a new one for a new request",
            ));
        }
        recorded.result.map(Some).map_err(error::refused)
    }

    /// What a request is told from another by. Content with a value needs a key for it, so that the log betrays nothing of the value;
    /// any other does not, so that a locked node can take it, and every node comes to the same.
    fn fingerprint(&self, state: &State, sent: &Sent) -> Result<[u8; 32], PublicError> {
        if !sent.holds_value {
            return Ok(seal::unkeyed_fingerprint(&[&sent.content]));
        }
        let epoch = keys::active_epoch(self, state)?;
        self.ring.fingerprint(&self.domain, epoch, &[&sent.content]).map_err(|error| error::not_sealed(&error))
    }

    /// The same, in the way that a recorded one was made; none where that tells already that it is of other content. Under the epoch
    /// of the record: a rotation since must not turn a retry into another request.
    fn fingerprint_like(&self, recorded: &[u8; 32], sent: &Sent) -> Result<Option<[u8; 32]>, PublicError> {
        let epoch = seal::fingerprint_epoch(recorded);
        match (epoch == seal::UNKEYED, sent.holds_value) {
            (true, false) => Ok(Some(seal::unkeyed_fingerprint(&[&sent.content]))),
            (false, true) => {
                self.ring.fingerprint(&self.domain, epoch, &[&sent.content]).map(Some).map_err(|error| error::not_sealed(&error))
            }
            (true, true) | (false, false) => Ok(None),
        }
    }

    /// Proposes a command in the caller's name and waits for what `apply` says.
    pub(crate) async fn propose(&self, call: &Call, principal: Principal, body: CommandBody) -> Result<Reply, PublicError> {
        let state = self.consensus.local();
        let request = call.sent.as_ref().map(|sent| -> Result<RequestKey, PublicError> {
            Ok(RequestKey { id: sent.id, fingerprint: self.fingerprint(&state, sent)? })
        });
        let command = Command {
            level: state.feature_level().map_err(error::damaged)?,
            principal,
            stamp: self.clock.wall(),
            request: request.transpose()?,
            origin: call.origin.clone(),
            body,
        };
        let made = made_by(&command.body);
        // From here on it has an entry of its own.
        call.trace.commanded();
        let reply = self.consensus.propose_within(command, call.left(self)).await.map_err(error::not_proposed)?;
        if call.first_try && made != made_of(&reply.body) {
            let message = "an equal request came at the same moment, and has made what this one asks for";
            return Err(PublicError::new(ErrorKind::AlreadyExists, message));
        }
        Ok(reply)
    }

    /// Waits until `position` is live on every edge that counts, and no control node lives whose edges are not known. Safe to cancel.
    pub(crate) async fn wait_live(&self, position: Position) -> Liveness {
        let mut heard = self.standings.subscribe();
        loop {
            heard.look();
            if self.heard_elsewhere().is_empty() {
                let live = self.publisher.acks().wait_live(position, |node| counts(&self.consensus.local(), node)).await;
                if self.heard_elsewhere().is_empty() {
                    return live;
                }
            }
            tokio::select! {
                biased;
                () = heard.changed() => {}
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// On how many of the edges that count `position` is live now.
    pub(crate) fn live(&self, position: Position) -> Liveness {
        let state = self.consensus.local();
        self.publisher.acks().live(position, |node| counts(&state, node))
    }

    /// What every edge that counts holds; none when there is no such edge, or one that has said nothing yet, or may be one that is not
    /// known.
    pub(crate) fn live_everywhere(&self, state: &State) -> Option<Position> {
        if !self.heard_elsewhere().is_empty() {
            return None;
        }
        let rows = self.publisher.acks().rows().into_iter();
        let counted = rows.filter(|row| row.active && counts(state, row.node));
        counted.map(|row| row.durable).min().flatten()
    }

    /// The same, for a question about one change. Right after a write nearly every edge is behind it, and the first of them is answer
    /// enough: what a write costs does not grow with the number of edges.
    pub(crate) fn live_since(&self, state: &State, changed: Position) -> Option<Position> {
        match self.publisher.acks().first_behind(changed, |node| counts(state, node)) {
            Some(_) => None,
            None => self.live_everywhere(state),
        }
    }

    /// The names of edges that do not hold `position` yet.
    pub(crate) fn behind(&self, position: Position, most: usize) -> Vec<String> {
        let state = self.consensus.local();
        let rows = self.publisher.acks().rows().into_iter();
        let behind = rows.filter(|row| row.active && counts(&state, row.node) && row.durable.is_none_or(|durable| durable < position));
        names(&state, behind.map(|row| row.node).take(most))
    }

    /// The names of nodes.
    pub(crate) fn names(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<String> {
        names(&self.consensus.local(), nodes)
    }
}

/// The id of the first thing that a command makes.
fn made_by(body: &CommandBody) -> Option<[u8; 16]> {
    match body {
        CommandBody::CreateStore { store, .. } => Some(*store.as_bytes()),
        CommandBody::CreateSecrets { items, .. } => items.first().map(|item| *item.id.as_bytes()),
        CommandBody::DuplicateSecret { item, .. } => Some(*item.id.as_bytes()),
        _ => None,
    }
}

/// The id of the first thing that was made.
fn made_of(reply: &ReplyBody) -> Option<[u8; 16]> {
    match reply {
        ReplyBody::StoreCreated { store } => Some(*store.as_bytes()),
        ReplyBody::SecretsCreated { secrets } => secrets.first().map(|(id, _)| *id.as_bytes()),
        _ => None,
    }
}

fn names(state: &State, nodes: impl IntoIterator<Item = NodeId>) -> Vec<String> {
    let name = |node: NodeId| state.node(node).ok().flatten().map_or_else(|| node.to_string(), |record| record.name.to_string());
    nodes.into_iter().map(name).collect()
}

/// Without a credential nothing is asked of the state or the log.
fn some_credential(call: &Call) -> Result<(), PublicError> {
    match call.credential {
        Credential::None | Credential::Malformed => Err(Caller::unknown()),
        Credential::Expired => Err(Caller::expired()),
        Credential::Token(_) | Credential::Node { .. } => Ok(()),
    }
}

/// Whether a node is one of those that a receipt waits for: enrolled, unrevoked, no voter. Which of them were seen lately, the
/// acknowledgements know.
pub(crate) fn counts(state: &State, node: NodeId) -> bool {
    state.node(node).ok().flatten().is_some_and(|record| record.revoked.is_none() && record.role == NodeRole::Edge)
}
