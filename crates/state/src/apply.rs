//! The one judge: [`apply`] maps a state, an index and a command to what happens.
//!
//! A command passes, in this order: the levels (can this build follow?), the gate (who is it?), the memory of requests (was it
//! answered before?), the table of operations (may they?), and the handler of its kind, which reads and writes through a [`View`].
//! From what the view holds then come the change set, the remembered reply and the audit entry.
//!
//! **Invariants**
//! 1. A function of its arguments: everything that time, chance or keys decide is in the command.
//! 2. A refusal discards all that the handler wrote.
//! 3. Log time never goes back.
//!
//! **Failure**: a [`Refusal`] is an outcome like a [`Reply`]; a [`Halt`] stops the node before anything is changed.

mod authorities;
mod cascade;
mod consumers;
mod deks;
mod deleted;
mod enrolment;
mod entry;
mod gate;
mod keks;
mod limits;
mod members;
mod nodes;
mod operators;
mod reminders;
mod requests;
mod secrets;
mod stores;
mod view;

use std::sync::Arc;

use types::{
    FeatureLevel, LogIndex, UnixMillis,
    mutation::{self, Mutation},
};

use gate::Identity;
pub(crate) use gate::{authorize, authorize_body};
use requests::Known;
use view::View;

use crate::{
    AuditEntry, ChangeSet, Command, CommandBody, FEATURE_LEVEL_MAX, ReadError, Refusal, RefusalKind, Reply, ReplyBody, State, Write,
};

/// Why this node cannot go on: it must stop before applying, and neither reply nor serve what it holds as the newest state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The index does not follow.
    #[error("applying index {index}: index {applied} was applied already; the log and the state do not belong together")]
    Order {
        /// The command's index.
        index: LogIndex,
        /// The state's.
        applied: LogIndex,
    },
    /// The command needs a newer build.
    #[error("applying index {index}: it needs feature level {level}, this node knows up to {known}: update this node")]
    Level {
        /// The command's index.
        index: LogIndex,
        /// The level that it needs.
        level: FeatureLevel,
        /// The level up to which this node goes along.
        known: FeatureLevel,
    },
    /// A record does not decode.
    #[error("applying a command: the state is damaged")]
    Damaged(#[from] ReadError),
    /// Records contradict each other.
    #[error("applying a command: the state is damaged: {what}")]
    Broken {
        /// What does not fit.
        what: &'static str,
    },
}

/// What a command does to a state, before it is done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer to the caller.
    pub result: Result<Reply, Refusal>,
    /// All records that change, by rising key, but the head.
    pub writes: Vec<Write>,
    /// What edges must hear of.
    pub change_set: Option<Arc<ChangeSet>>,
    /// What auditors must hear of.
    pub audit: Option<AuditEntry>,
    /// Log time afterwards.
    pub time: UnixMillis,
}

/// What ends a handler early.
enum Stop {
    Refused(Refusal),
    Halt(Halt),
}

type Judged<T> = Result<T, Stop>;

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<T: Into<Halt>> From<T> for Stop {
    fn from(halt: T) -> Self {
        Self::Halt(halt.into())
    }
}

/// Keeps a refusal as an outcome, and lets a halt through.
fn settle<T>(judged: Judged<T>) -> Result<Result<T, Refusal>, Halt> {
    match judged {
        Ok(done) => Ok(Ok(done)),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Halt(halt)) => Err(halt),
    }
}

fn refuse<T>(kind: RefusalKind, message: impl Into<String>) -> Judged<T> {
    Err(Stop::Refused(Refusal::new(kind, message)))
}

/// Judges a command against a state.
///
/// # Errors
/// [`Halt`].
pub(crate) fn apply(state: &State, index: LogIndex, command: &Command) -> Result<Outcome, Halt> {
    follows(state, index, command)?;
    let mut view = View::new(state, index, state.time.max(command.stamp));
    let identity = settle(gate::enter(&view, command))?;
    let (result, change_set) = match &identity {
        Ok(identity) => match requests::recall(&view, identity, command)? {
            Known::Answered(result) => {
                sweep(&mut view)?;
                return Ok(Outcome { result, writes: view.writes(None), change_set: None, audit: None, time: view.time });
            }
            Known::Reused => (Err(requests::reused()), None),
            Known::New => decide(&mut view, identity, command)?,
        },
        Err(refusal) => (Err(refusal.clone()), None),
    };
    sweep(&mut view)?;
    let audit = entry::record(&mut view, identity.as_ref().ok(), command, &result)?;
    Ok(Outcome { result, writes: view.writes(change_set.as_deref()), change_set, audit, time: view.time })
}

/// Clears away a bounded part of what is over.
fn sweep(view: &mut View<'_>) -> Result<(), Halt> {
    requests::sweep(view)?;
    deleted::sweep(view)
}

/// Whether this build may apply the command here at all.
fn follows(state: &State, index: LogIndex, command: &Command) -> Result<(), Halt> {
    if index <= state.applied && !mutation::is_on(Mutation::AppliedTwice) {
        return Err(Halt::Order { index, applied: state.applied });
    }
    let needed = level_needed(state, command)?;
    if needed > FEATURE_LEVEL_MAX { Err(Halt::Level { index, level: needed, known: FEATURE_LEVEL_MAX }) } else { Ok(()) }
}

/// The feature level that a node has to know so that it may go on with this command applied.
pub(crate) fn level_needed(state: &State, command: &Command) -> Result<FeatureLevel, Halt> {
    let brought = match &command.body {
        CommandBody::InitCluster(init) => init.settings.feature_level,
        // Only the one that would be in force afterwards: any other is refused, and that takes no knowledge of it.
        CommandBody::RaiseFeatureLevel { to } if Some(*to) == gate::level(state)?.next() => *to,
        _ => FeatureLevel::default(),
    };
    Ok(brought.max(command.level).max(command.body.kind().level()))
}

type Decision = (Result<Reply, Refusal>, Option<Arc<ChangeSet>>);

/// Asks the table and the handler, chains what changed, and remembers the answer.
fn decide(view: &mut View<'_>, identity: &Identity, command: &Command) -> Result<Decision, Halt> {
    if let Err(refusal) = settle(gate::permit_body(view, identity, &command.body))?
        && !mutation::is_on(Mutation::StaleGrantAccepted)
    {
        // Not remembered: the same request may pass once the principal has the grant.
        return Ok((Err(refusal), None));
    }
    let judged = perform(view, identity, &command.body).and_then(|body| Ok((body, view.change_set()?)));
    let (result, change_set) = match settle(judged)? {
        Ok((body, change_set)) => {
            let position = change_set.as_ref().map_or(view.state.position(), |set| set.position());
            (Ok(Reply { position, time: view.time, body }), change_set)
        }
        Err(refusal) => {
            view.discard();
            (Err(refusal), None)
        }
    };
    requests::remember(view, identity, command, &result)?;
    Ok((result, change_set))
}

/// The handler of each kind.
fn perform(view: &mut View<'_>, identity: &Identity, body: &CommandBody) -> Judged<ReplyBody> {
    match body {
        CommandBody::InitCluster(init) => nodes::init(view, init),
        CommandBody::CreateAccount { account, name } => stores::create_account(view, *account, name),
        CommandBody::CreateStore { account, store, name } => stores::create_store(view, *account, *store, name),
        CommandBody::DeleteStore { account, store, force } => cascade::delete_store(view, *account, *store, *force),
        CommandBody::CreateSecrets { account, store, items, new_dek } => secrets::create(view, *account, *store, items, new_dek.as_ref()),
        CommandBody::SetValue { account, store, secret, value, expect, stage, scopes, comment, new_dek } => {
            deks::bring(view, *account, new_dek.as_ref())?;
            let at = secrets::At { account: *account, store: *store, secret: *secret };
            secrets::set_value(view, at, value, *expect, *stage, &secrets::Edit { scopes: *scopes, comment: comment.clone() })
        }
        CommandBody::EditSecret { account, store, secret, scopes, comment } => {
            let at = secrets::At { account: *account, store: *store, secret: *secret };
            secrets::edit(view, at, &secrets::Edit { scopes: *scopes, comment: comment.clone() })
        }
        CommandBody::DeleteSecrets { account, store, secrets, force } => cascade::delete_secrets(view, *account, *store, secrets, *force),
        CommandBody::DuplicateSecret { account, store, source, source_version, item, new_dek } => {
            let at = secrets::At { account: *account, store: *store, secret: *source };
            secrets::duplicate(view, at, *source_version, item, new_dek.as_ref())
        }
        CommandBody::MovePointer { account, store, secret, to, expect } => {
            secrets::move_pointer(view, secrets::At { account: *account, store: *store, secret: *secret }, *to, *expect)
        }
        CommandBody::ResealValue { account, store, secret, version, replaces, value } => {
            let at = secrets::At { account: *account, store: *store, secret: *secret };
            secrets::reseal(view, at, *version, *replaces, value)
        }
        CommandBody::CreateConsumer { consumer } => consumers::create(view, consumer),
        CommandBody::DeleteConsumer { consumer } => consumers::delete(view, consumer),
        CommandBody::CreateConsumerToken { consumer, token, hash, expires } => {
            consumers::create_token(view, consumer, *token, *hash, *expires)
        }
        CommandBody::RollConsumerToken { consumer, replaces, token, hash, expires, old_until } => {
            consumers::retire_token(view, consumer, *replaces, *old_until)?;
            consumers::create_token(view, consumer, *token, *hash, *expires)
        }
        CommandBody::RevokeConsumerToken { consumer, token } => {
            consumers::retire_token(view, consumer, *token, None)?;
            Ok(ReplyBody::ConsumerTokenRevoked)
        }
        CommandBody::Bind { consumer, name, store, target, replace } => {
            consumers::bind(view, identity, consumer, name, (*store, *target), *replace)
        }
        CommandBody::Unbind { consumer, name } => consumers::unbind(view, consumer, name),
        CommandBody::MintDek { account, dek, grace } => deks::mint(view, *account, dek, *grace),
        CommandBody::RewrapDeks { items } => deks::rewrap(view, items),
        CommandBody::KekEpoch { domain, epoch, step } => keks::step(view, domain, *epoch, step),
        CommandBody::RotateAuthority(new) => authorities::rotate(view, identity, new),
        CommandBody::FinishAuthority { number, force } => authorities::finish(view, identity, *number, *force),
        CommandBody::NoteCertificate { node, authority } => authorities::note(view, *node, *authority),
        CommandBody::NoteMembership(note) => nodes::note_membership(note),
        CommandBody::NoteCalls(notes) => nodes::note_calls(notes),
        CommandBody::RegisterNode { node } => nodes::register(view, node),
        CommandBody::RevokeNode { node, epochs, signer_set } => nodes::revoke(view, *node, epochs, signer_set.as_ref()),
        CommandBody::RevokeLostNode { node, epochs, signer_set } => nodes::revoke_lost(view, *node, epochs, signer_set.as_ref()),
        CommandBody::SetSignerSet { set } => nodes::set_signers(view, set),
        CommandBody::CreateOperatorToken { token, hash, name, grants, expires } => {
            operators::create(view, &operators::NewToken { token: *token, hash: *hash, expires: *expires }, name, grants)
        }
        CommandBody::RevokeOperatorToken { token } => operators::revoke(view, *token),
        CommandBody::SetQuota { account, quota } => stores::set_quota(view, *account, *quota),
        CommandBody::RaiseFeatureLevel { to } => nodes::raise_level(view, *to),
        CommandBody::Tick => Ok(ReplyBody::Ticked),
        CommandBody::Step { job } => cascade::step(view, *job),
        CommandBody::EditQuota { account, stores, secrets, value_bytes } => {
            stores::edit_quota(view, *account, stores::QuotaEdit { stores: *stores, secrets: *secrets, value_bytes: *value_bytes })
        }
        CommandBody::CreateJoinToken { token, hash } => enrolment::create_token(view, identity, token, *hash),
        CommandBody::RevokeJoinToken { token } => enrolment::revoke_token(view, *token),
        CommandBody::EnrolNode(enrol) => enrolment::enrol(view, enrol),
        CommandBody::CreateMember { member, grants } => members::create(view, member, grants),
        CommandBody::DeleteMember { member } => members::delete(view, member),
        CommandBody::GrantRole { member, grant } => members::grant(view, member, *grant),
        CommandBody::RevokeRole { member, grant } => members::revoke(view, member, *grant),
        CommandBody::CreateToken { token, hash, holder, permission, reach, expires } => {
            let new = operators::NewToken { token: *token, hash: *hash, expires: *expires };
            operators::create_with(view, &new, holder, *permission, reach)
        }
        CommandBody::RollOperatorToken { replaces, token, hash, expires, old_until } => {
            let new = operators::NewToken { token: *token, hash: *hash, expires: *expires };
            operators::roll(view, *replaces, &new, *old_until)
        }
        CommandBody::EditLimits { account, edit } => limits::edit(view, *account, edit),
        CommandBody::Undelete { account, store, secret } => {
            deleted::undelete(view, secrets::At { account: *account, store: *store, secret: *secret })
        }
        CommandBody::Destroy { account, store, secret, version } => {
            deleted::destroy_what(view, secrets::At { account: *account, store: *store, secret: *secret }, *version)
        }
        CommandBody::CreateWithReminders { account, store, items, new_dek, reminders } => {
            secrets::create_reminded(view, (*account, *store), items, new_dek.as_ref(), reminders)
        }
        CommandBody::EditWithReminder { account, store, secret, scopes, comment, reminder } => {
            let at = secrets::At { account: *account, store: *store, secret: *secret };
            secrets::edit_reminded(view, at, &secrets::Edit { scopes: *scopes, comment: comment.clone() }, reminder)
        }
        CommandBody::UpdateNode { node, address, feature_level } => nodes::update(view, *node, address.as_ref(), *feature_level),
    }
}
