//! The audit entry of a command.

use super::{Halt, Identity, View};
use crate::{
    AuditDetail, AuditEntry, AuditOutcome, AuditPrincipal, AuditTarget, Command, CommandBody, Origin, Principal, Refusal, Reply,
    TokenHolder, TypedKey,
    record::{AuditHeadRecord, BoundTo, OperatorTokenRecord},
};

/// The most bytes of an origin's text that an entry keeps.
const TEXT_BYTES_MAX: usize = 128;

/// Makes the entry and moves the head of the chain. A tick that passed is no mutation and has none.
pub(super) fn record(
    view: &mut View<'_>,
    identity: Option<&Identity>,
    command: &Command,
    result: &Result<Reply, Refusal>,
) -> Result<Option<AuditEntry>, Halt> {
    if matches!((&command.body, result), (CommandBody::Tick, Ok(_))) {
        return Ok(None);
    }
    let head: AuditHeadRecord = view.read(TypedKey::AuditHead)?.unwrap_or_default();
    let entry = AuditEntry {
        sequence: head.sequence + 1,
        previous: head.hash,
        index: view.index,
        time: view.time,
        principal: principal(view, identity, command)?,
        action: command.body.kind(),
        target: AuditTarget { value_modified: result.is_ok() && modifies_value(&command.body), ..target(&command.body) },
        outcome: match result {
            Ok(reply) if let CommandBody::NoteCalls(notes) = &command.body => {
                AuditOutcome::Noted { position: reply.position, notes: notes.clone() }
            }
            Ok(reply) => AuditOutcome::Done { position: reply.position },
            Err(refusal) => AuditOutcome::Refused { kind: refusal.kind, message: refusal.message.clone() },
        },
        request: command.request.map(|request| request.id),
        origin: Origin { peer: short(&command.origin.peer), request: short(&command.origin.request) },
        detail: detail(&command.body),
    };
    view.put(TypedKey::AuditHead, &AuditHeadRecord { sequence: entry.sequence, hash: AuditEntry::hash_of(&entry.encode()) });
    Ok(Some(entry))
}

/// Who it was, be it one who was not let in: a token that has expired is still someone's.
fn principal(view: &View<'_>, identity: Option<&Identity>, command: &Command) -> Result<AuditPrincipal, Halt> {
    let operator = |token: &OperatorTokenRecord| AuditPrincipal::Operator { token: token.token_id, name: token.name.clone() };
    Ok(match (identity, command.principal) {
        (Some(Identity::Operator(known)), _) => operator(&known.token),
        (Some(Identity::Node(node)), _) => AuditPrincipal::Node { node: *node },
        (None, Principal::Node { node }) => AuditPrincipal::Node { node },
        (Some(Identity::System), _) | (None, Principal::System) => AuditPrincipal::System,
        (None, Principal::Operator { token }) => view.state.operator_by_token(token)?.as_ref().map_or(AuditPrincipal::Unknown, operator),
    })
}

fn modifies_value(body: &CommandBody) -> bool {
    matches!(
        body,
        CommandBody::CreateSecrets { .. }
            | CommandBody::CreateWithReminders { .. }
            | CommandBody::SetValue { .. }
            | CommandBody::DuplicateSecret { .. }
    )
}

/// What only commands since level 3 speak of.
fn detail(body: &CommandBody) -> Option<AuditDetail> {
    let none = AuditDetail::default();
    match body {
        CommandBody::CreateMember { member, grants } => {
            // One role is named; of several, the commands that follow or the member itself say more.
            Some(AuditDetail { member: Some(member.clone()), grant: grants.first().copied().filter(|_| grants.len() == 1), ..none })
        }
        CommandBody::DeleteMember { member } | CommandBody::CreateToken { holder: TokenHolder::Member(member), .. } => {
            Some(AuditDetail { member: Some(member.clone()), ..none })
        }
        CommandBody::GrantRole { member, grant } | CommandBody::RevokeRole { member, grant } => {
            Some(AuditDetail { member: Some(member.clone()), grant: Some(*grant), ..none })
        }
        CommandBody::Destroy { version: Some(version), .. } => Some(AuditDetail { version: Some(*version), ..none }),
        CommandBody::RollOperatorToken { replaces, .. } => Some(AuditDetail { replaced: Some(*replaces), ..none }),
        _ => None,
    }
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

fn target(body: &CommandBody) -> AuditTarget {
    let none = AuditTarget::default();
    match body {
        CommandBody::CreateAccount { account, .. }
        | CommandBody::SetQuota { account, .. }
        | CommandBody::EditQuota { account, .. }
        | CommandBody::MintDek { account, .. } => AuditTarget { account: Some(*account), ..none },
        CommandBody::CreateStore { account, store, .. } | CommandBody::DeleteStore { account, store, .. } => {
            AuditTarget { account: Some(*account), store: Some(*store), ..none }
        }
        CommandBody::CreateSecrets { account, store, items, .. } | CommandBody::CreateWithReminders { account, store, items, .. } => {
            AuditTarget { account: Some(*account), store: Some(*store), secrets: items.iter().map(|item| item.id).collect(), ..none }
        }
        CommandBody::SetValue { account, store, secret, .. } => {
            AuditTarget { account: Some(*account), store: Some(*store), secrets: vec![*secret], value_modified: true, ..none }
        }
        CommandBody::EditSecret { account, store, secret, .. }
        | CommandBody::EditWithReminder { account, store, secret, .. }
        | CommandBody::Undelete { account, store, secret }
        | CommandBody::Destroy { account, store, secret, .. }
        | CommandBody::MovePointer { account, store, secret, .. }
        | CommandBody::ResealValue { account, store, secret, .. } => {
            AuditTarget { account: Some(*account), store: Some(*store), secrets: vec![*secret], ..none }
        }
        CommandBody::DeleteSecrets { account, store, secrets, .. } => {
            AuditTarget { account: Some(*account), store: Some(*store), secrets: secrets.clone(), ..none }
        }
        CommandBody::DuplicateSecret { account, store, source, item, .. } => {
            AuditTarget { account: Some(*account), store: Some(*store), secrets: vec![item.id], duplicated_from: Some(*source), ..none }
        }
        CommandBody::CreateConsumer { consumer } | CommandBody::DeleteConsumer { consumer } => {
            AuditTarget { account: Some(consumer.account), consumer: Some(consumer.clone()), ..none }
        }
        CommandBody::CreateConsumerToken { consumer, token: id, .. }
        | CommandBody::RollConsumerToken { consumer, token: id, .. }
        | CommandBody::RevokeConsumerToken { consumer, token: id } => {
            AuditTarget { account: Some(consumer.account), consumer: Some(consumer.clone()), token: Some(*id), ..none }
        }
        CommandBody::Bind { consumer, name, store, target, .. } => AuditTarget {
            account: Some(consumer.account),
            store: Some(*store),
            secrets: match target {
                BoundTo::Secret(secret) => vec![*secret],
                BoundTo::Store(_) => Vec::new(),
            },
            consumer: Some(consumer.clone()),
            binding: Some(name.clone()),
            ..none
        },
        CommandBody::Unbind { consumer, name } => {
            AuditTarget { account: Some(consumer.account), consumer: Some(consumer.clone()), binding: Some(name.clone()), ..none }
        }
        CommandBody::RegisterNode { node } => AuditTarget { node: Some(node.id), ..none },
        CommandBody::RevokeNode { node, .. }
        | CommandBody::RevokeLostNode { node, .. }
        | CommandBody::UpdateNode { node, .. }
        | CommandBody::NoteCertificate { node, .. } => AuditTarget { node: Some(*node), ..none },
        CommandBody::NoteMembership(note) => {
            AuditTarget { node: note.node, member: Some((note.change.clone(), note.phase.clone())), ..none }
        }
        CommandBody::CreateJoinToken { token, .. } => AuditTarget { token: Some(token.id), ..none },
        CommandBody::EnrolNode(enrol) => AuditTarget { node: Some(enrol.node.id), ..none },
        CommandBody::CreateOperatorToken { token: id, .. }
        | CommandBody::CreateToken { token: id, .. }
        | CommandBody::RollOperatorToken { token: id, .. }
        | CommandBody::RevokeOperatorToken { token: id }
        | CommandBody::RevokeJoinToken { token: id } => AuditTarget { token: Some(*id), ..none },
        CommandBody::CreateMember { member, .. }
        | CommandBody::DeleteMember { member }
        | CommandBody::GrantRole { member, .. }
        | CommandBody::RevokeRole { member, .. } => AuditTarget { account: member.account, ..none },
        CommandBody::EditLimits { account, .. } => AuditTarget { account: *account, ..none },
        CommandBody::InitCluster(init) => AuditTarget { token: Some(init.operator_token_id), ..none },
        CommandBody::NoteCalls(_)
        | CommandBody::RewrapDeks { .. }
        | CommandBody::KekEpoch { .. }
        | CommandBody::SetSignerSet { .. }
        | CommandBody::RotateAuthority(_)
        | CommandBody::FinishAuthority { .. }
        | CommandBody::RaiseFeatureLevel { .. }
        | CommandBody::Tick
        | CommandBody::Step { .. } => none,
    }
}
