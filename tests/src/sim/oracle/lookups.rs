//! What lookups at an edge must answer, judged against the state that the cluster had at the position of the reply.
//!
//! - P3, P6: a value is the one that was current at that position, for a token and a binding that were good there, and no other.
//! - P5: nothing is called absent, unbound or revoked but by a copy in which it is so; a position or an age that was demanded is kept, or the
//!   lookup is refused; and it is refused for nothing else. The age that is told is not younger than what is missing.
//! - P7: a revoked token, and a revoked edge, serve nothing after the bound in force, one second and the skew of clocks.

use std::time::Duration;

use lookup::{Age, LookupError};
use state::{Propagated, record::BindingTarget};
use types::{BindingName, ConsumerRef, NodeId, Position, Scope, SecretName, Version};
use wire::{ErrorKind, parse::FreshnessTarget};

use super::{Books, Oracle};
use crate::sim::{clock::elapsed, runtime::lock};

/// The skew that operators are promised to be borne.
const SKEW: Duration = Duration::from_secs(2);
/// What comes on top of a bound.
const MARGIN: Duration = Duration::from_secs(1);

/// A lookup.
#[derive(Clone)]
pub(in crate::sim) struct Ask {
    pub(in crate::sim) token: [u8; 32],
    pub(in crate::sim) consumer: ConsumerRef,
    pub(in crate::sim) binding: BindingName,
    pub(in crate::sim) secret: Option<SecretName>,
    pub(in crate::sim) freshness: FreshnessTarget,
}

/// What the edge's client was told.
pub(in crate::sim) struct Told {
    pub(in crate::sim) outcome: Result<(Vec<u8>, Version, Position, Age), LookupError>,
    /// What the edge's readers see, and how old it is said to be.
    pub(in crate::sim) shown: Option<Position>,
    pub(in crate::sim) age: Age,
    /// The edge's disk was made to fail.
    pub(in crate::sim) disk_fails: bool,
}

impl Oracle {
    /// A client of an edge has looked something up. Whether it got a value.
    pub(in crate::sim) fn looked_up(&self, edge: NodeId, ask: &Ask, told: &Told) -> bool {
        let books = lock(&self.books);
        self.history.count("lookups");
        let judged = match &told.outcome {
            Ok((value, version, position, age)) => {
                self.history.count("lookups answered");
                books.found(edge, ask, told, (value, *version, *position, *age))
            }
            Err(error) => books.refused(edge, ask, told, error),
        };
        if let Err((promise, what)) = judged {
            let asked = format!("{} {:?} with {:?}", ask.binding, ask.secret, ask.freshness);
            self.history.violated(promise, format_args!("edge {edge} at {:?}, asked for {asked}: {what}", told.shown));
        }
        told.outcome.is_ok()
    }
}

type Judged = Result<(), (&'static str, String)>;

impl Books {
    /// How far the clocks of two nodes can be apart.
    fn skew(&self) -> Duration {
        Duration::from_millis(self.skews.1.abs_diff(self.skews.0))
    }

    fn found(&self, edge: NodeId, ask: &Ask, told: &Told, (value, version, position, age): (&[u8], Version, Position, Age)) -> Judged {
        if told.shown != Some(position) {
            return Err(("P3", format!("it answers from {position}")));
        }
        match self.expected(ask, position) {
            Ok((wanted, at)) if (wanted, at) == (value, version) => {}
            Ok((_, at)) => return Err(("P3", format!("it answers with version {version}, or other bytes; version {at} is right"))),
            Err(kind) => return Err(("P6", format!("it answers with a value; {kind:?} is right"))),
        }
        if self.is_revoked(edge, position) {
            return Err(("P7", "it serves from a root in which it is revoked itself".to_owned()));
        }
        if ask.freshness.min_position.is_some_and(|least| position < least) {
            return Err(("P5", "it answers from before the position that was demanded".to_owned()));
        }
        for bound in [ask.freshness.max_age, self.offline_max].into_iter().flatten() {
            if !age.within(bound) {
                return Err(("P5", format!("it answers at an age of {age}, and {bound:?} was the bound")));
            }
        }
        if let Age::Known(age) = age {
            let by_then = elapsed().saturating_sub(age).saturating_sub(self.skew()).saturating_sub(Duration::from_millis(2));
            let known = self.acknowledgements.partition_point(|(when, _)| *when <= by_then);
            let due = known.checked_sub(1).and_then(|last| self.acknowledgements.get(last)).map(|(_, highest)| *highest);
            if due > Some(position) {
                return Err(("P5", format!("it says that its age is {age:?}, and lacks {due:?}, acknowledged before")));
            }
        }
        self.not_revoked(edge, ask)
    }

    fn not_revoked(&self, edge: NodeId, ask: &Ask) -> Judged {
        let Some(offline_max) = self.offline_max else { return Ok(()) };
        let bound = offline_max + MARGIN + SKEW.max(self.skew());
        let over = |when: Option<&Duration>| when.is_some_and(|when| elapsed() > *when + bound);
        if over(self.revoked_tokens.get(&ask.token)) {
            return Err(("P7", format!("a token serves {bound:?} after its revocation was acknowledged")));
        }
        if over(self.revoked_edges.get(&edge)) {
            return Err(("P7", format!("the edge serves {bound:?} after its revocation was acknowledged")));
        }
        Ok(())
    }

    fn refused(&self, edge: NodeId, ask: &Ask, told: &Told, error: &LookupError) -> Judged {
        let behind = ask.freshness.min_position > told.shown;
        let was_shown = self.edges.get(&edge).filter(|shown| !shown.lost).and_then(|shown| shown.published);
        let wrong = |what: &str| Err(("P5", format!("{what}: {error}")));
        match error.kind() {
            ErrorKind::NotSynced if told.shown.is_none() && was_shown.is_some() => wrong("it has forgotten what it showed"),
            ErrorKind::NotSynced if told.shown.is_none() || behind => Ok(()),
            ErrorKind::NotSynced => wrong("it shows what was asked for"),
            ErrorKind::TooStale => {
                let bounds = [ask.freshness.max_age, self.offline_max];
                if bounds.into_iter().flatten().any(|bound| !told.age.within(bound)) { Ok(()) } else { wrong("no bound was passed") }
            }
            ErrorKind::Unavailable if matches!(error, LookupError::NodeRevoked) => {
                if told.shown.is_some_and(|at| self.is_revoked(edge, at)) { Ok(()) } else { wrong("nobody has revoked it") }
            }
            ErrorKind::Unavailable if told.disk_fails => Ok(()),
            kind @ (ErrorKind::Absent | ErrorKind::NotBound | ErrorKind::Revoked | ErrorKind::ScopeNotAllowed) => {
                let Some(at) = told.shown else { return wrong("it has nothing yet, and knows what is not there") };
                if behind {
                    return wrong("it is behind what was demanded, and knows what is not there");
                }
                match self.expected(ask, at) {
                    Err(expected) if expected == kind => Ok(()),
                    Err(expected) => wrong(&format!("{expected:?} is right")),
                    Ok((_, version)) => wrong(&format!("version {version} is there")),
                }
            }
            _ => wrong("there is no reason for this"),
        }
    }

    fn is_revoked(&self, edge: NodeId, at: Position) -> bool {
        self.known(at).is_some_and(|state| state.node(edge).is_ok_and(|node| node.is_some_and(|node| node.revoked.is_some())))
    }

    fn known(&self, at: Position) -> Option<&Propagated> {
        self.chain.get(at.revision.get() as usize).filter(|known| known.position() == at)
    }

    /// The value that a lookup must get from the state at a position, or the kind of its refusal.
    fn expected(&self, ask: &Ask, at: Position) -> Result<(&[u8], Version), ErrorKind> {
        let damaged = |_| ErrorKind::Internal;
        let state = self.known(at).ok_or(ErrorKind::Internal)?;
        let token = state.consumer_by_token(ask.token).map_err(damaged)?.ok_or(ErrorKind::Revoked)?;
        if token.consumer != ask.consumer {
            return Err(ErrorKind::Internal);
        }
        let binding = state.binding(&ask.consumer, &ask.binding).map_err(damaged)?.ok_or(ErrorKind::NotBound)?;
        let (secret, named) = match (&binding.target, &ask.secret) {
            (BindingTarget::Secret { store, secret, .. }, None) => (state.secret(*store, *secret).map_err(damaged)?, false),
            (BindingTarget::Store { store, .. }, Some(name)) => {
                (state.secret_by_name(*store, name).map_err(damaged)?.map(|(_, secret)| secret), true)
            }
            _ => return Err(ErrorKind::InvalidArgument),
        };
        let secret = secret.ok_or(ErrorKind::Absent)?;
        if !secret.scopes.contains(Scope::of_kind(ask.consumer.kind)) {
            return Err(if named { ErrorKind::Absent } else { ErrorKind::ScopeNotAllowed });
        }
        let current = secret.current_entry().ok_or(ErrorKind::Absent)?;
        let (_, value) = self.values.get(&current.value_id).ok_or(ErrorKind::Internal)?;
        Ok((value, current.version))
    }
}
