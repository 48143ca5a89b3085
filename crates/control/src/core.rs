//! What every operation works with: the log, the keys, the clock.

use std::{sync::Arc, time::Duration};

use consensus::Consensus;
use feed::{Liveness, Publisher};
use runtime::TokioSpawn;
use seal::KeyRing;
use seams::{Clock, Entropy};
use state::{Command, CommandBody, FEATURE_LEVEL_MAX, Principal, Reply, RequestKey, State, record::NodeRole};
use tokio::sync::Semaphore;
use types::{ClusterId, KeyDomain, NodeId, NodeName, Position};
use wire::{ErrorKind, PublicError};

use crate::{
    call::{Call, Credential},
    caller::Caller,
    error, keys,
    recent::Recent,
    watermarks::Standings,
};

/// The parts of a control node that operations share.
pub(crate) struct Core {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) name: NodeName,
    pub(crate) domain: KeyDomain,
    pub(crate) consensus: Consensus,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) recent: Arc<Recent>,
    /// What other control nodes said of themselves.
    pub(crate) standings: Arc<Standings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) tasks: Arc<TokioSpawn>,
    /// Changes under way. Full: one more is answered `busy`.
    pub(crate) changes: Arc<Semaphore>,
    /// How long a read may take.
    pub(crate) request_timeout: Duration,
}

impl Core {
    /// Identifies the caller and runs `find` on a state that is new enough to claim absence. The local state is tried first:
    /// what it holds was committed. Only what it does not hold is asked of the newest state, which a node without a majority
    /// refuses to know.
    pub(crate) async fn find<T>(&self, call: &Call, find: impl Fn(&State, &Caller) -> Result<T, PublicError>) -> Result<T, PublicError> {
        some_credential(call)?;
        let on = |state: &State| find(state, &Caller::identify(state, call, self.clock.wall())?);
        match on(&self.consensus.local()) {
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unauthenticated | ErrorKind::Denied) => {
                on(&self.newest().await?)
            }
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
        let state = self.newest().await?;
        read(&state, &Caller::identify(&state, call, self.clock.wall())?)
    }

    async fn newest(&self) -> Result<State, PublicError> {
        self.consensus.linearizable().await.map_err(error::not_read)
    }

    /// The first answer to a request that was sent before under the same id, with the same content.
    pub(crate) async fn first_answer(&self, call: &Call) -> Result<Option<Reply>, PublicError> {
        let Some(sent) = &call.sent else { return Ok(None) };
        let recorded = self.find(call, |state, caller| state.request(caller.owner(), sent.id).map_err(error::damaged)).await?;
        let Some(recorded) = recorded else { return Ok(None) };
        // Under the epoch that the record was made with: a rotation since must not turn a retry into another request.
        let epoch = seal::fingerprint_epoch(&recorded.fingerprint);
        let fingerprint = self.ring.fingerprint(&self.domain, epoch, &[&sent.content]).map_err(|error| error::not_sealed(&error))?;
        if fingerprint != recorded.fingerprint {
            return Err(PublicError::new(
                ErrorKind::RequestReused,
                "the request id was used before, for something else; use a new one for a new request",
            ));
        }
        recorded.result.map(Some).map_err(error::refused)
    }

    /// Proposes a command in the caller's name and waits for what `apply` says.
    pub(crate) async fn propose(&self, call: &Call, principal: Principal, body: CommandBody) -> Result<Reply, PublicError> {
        let state = self.consensus.local();
        let request = call.sent.as_ref().map(|sent| -> Result<RequestKey, PublicError> {
            let epoch = keys::active_epoch(self, &state)?;
            let fingerprint = self.ring.fingerprint(&self.domain, epoch, &[&sent.content]).map_err(|error| error::not_sealed(&error))?;
            Ok(RequestKey { id: sent.id, fingerprint })
        });
        let command = Command {
            level: state.settings().map_err(error::damaged)?.map_or(FEATURE_LEVEL_MAX, |settings| settings.feature_level),
            principal,
            stamp: self.clock.wall(),
            request: request.transpose()?,
            origin: call.origin.clone(),
            body,
        };
        self.consensus.propose(command).await.map_err(error::not_proposed)
    }

    /// Waits until `position` is live on every edge that counts. Safe to cancel.
    pub(crate) async fn wait_live(&self, position: Position) -> Liveness {
        self.publisher.acks().wait_live(position, |node| counts(&self.consensus.local(), node)).await
    }

    /// On how many of the edges that count `position` is live now.
    pub(crate) fn live(&self, position: Position) -> Liveness {
        let state = self.consensus.local();
        self.publisher.acks().live(position, |node| counts(&state, node))
    }

    /// What every edge that counts holds; none when there is no such edge, or one that has said nothing yet.
    pub(crate) fn live_everywhere(&self, state: &State) -> Option<Position> {
        let rows = self.publisher.acks().rows().into_iter();
        let counted = rows.filter(|row| row.active && counts(state, row.node));
        counted.map(|row| row.durable).min().flatten()
    }

    /// The names of edges that do not hold `position` yet.
    pub(crate) fn behind(&self, position: Position, most: usize) -> Vec<String> {
        let state = self.consensus.local();
        let rows = self.publisher.acks().rows().into_iter();
        let behind = rows.filter(|row| row.active && counts(&state, row.node) && row.durable.is_none_or(|durable| durable < position));
        let name = |node| state.node(node).ok().flatten().map_or_else(|| node.to_string(), |record| record.name.to_string());
        behind.map(|row| name(row.node)).take(most).collect()
    }
}

/// Without a credential nothing is asked of the state or the log.
fn some_credential(call: &Call) -> Result<(), PublicError> {
    match call.credential {
        Credential::None | Credential::Malformed => Err(Caller::unknown()),
        Credential::Token(_) | Credential::Node { .. } => Ok(()),
    }
}

/// Whether a node is one of those that a receipt waits for: enrolled, unrevoked, no voter. Which of them were seen lately, the
/// acknowledgements know.
pub(crate) fn counts(state: &State, node: NodeId) -> bool {
    state.node(node).ok().flatten().is_some_and(|record| record.revoked.is_none() && record.role == NodeRole::Edge)
}
