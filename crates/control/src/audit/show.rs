//! Entries as the public API shows them.

use bytes::Bytes;
use state::{
    AuditDetail, AuditEntry, AuditOutcome, AuditPrincipal, AuditTarget, CallRow, ChangePhase, Grant, GrantScope, MemberChange, RefusalKind,
};
use types::Hash;
use wire::v1;

use super::filter::principal_of;

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// An entry as an export shows it, from its stored bytes.
///
/// # Errors
/// [`state::FormatError`]: it does not decode.
pub fn exported(stored: &Bytes) -> Result<v1::AuditEntry, state::FormatError> {
    AuditEntry::decode(stored).map(|decoded| entry(&decoded, stored, true))
}

/// An entry; `stored` is what it is stored as, which is shown on demand.
pub(super) fn entry(entry: &AuditEntry, stored: &Bytes, with_stored: bool) -> v1::AuditEntry {
    let mut shown = v1::AuditEntry {
        sequence: entry.sequence,
        hash: AuditEntry::hash_of(stored).to_string(),
        previous: entry.previous.to_string(),
        index: entry.index.get(),
        time_ms: entry.time.get(),
        principal: Some(principal(&entry.principal)),
        action: entry.action.name().to_owned(),
        target: Some(target(&entry.target, entry.detail.as_ref())),
        request_id: text(entry.request),
        peer: entry.origin.peer.clone(),
        label: entry.origin.request.clone(),
        stored: if with_stored { stored.clone() } else { Bytes::new() },
        ..Default::default()
    };
    match &entry.outcome {
        AuditOutcome::Done { position } => {
            shown.outcome = "done".to_owned();
            shown.position = Some((*position).into());
        }
        AuditOutcome::Refused { kind, message } => {
            shown.outcome = "refused".to_owned();
            shown.refusal = kind.name().to_owned();
            shown.message.clone_from(message);
        }
        AuditOutcome::Noted { position, notes } => {
            shown.outcome = "noted".to_owned();
            shown.position = Some((*position).into());
            shown.calls = notes.rows.iter().map(call).collect();
            shown.calls_left_out = notes.left_out;
            shown.note_number = notes.number;
            shown.note_previous = notes.previous.to_string();
        }
    }
    shown
}

fn principal(principal: &AuditPrincipal) -> v1::AuditPrincipal {
    let kind = |kind: &str| v1::AuditPrincipal { kind: kind.to_owned(), ..Default::default() };
    match principal {
        AuditPrincipal::Operator { token, name } => {
            v1::AuditPrincipal { name: name.to_string(), token_id: token.to_string(), ..kind("operator") }
        }
        AuditPrincipal::Node { node } => v1::AuditPrincipal { node_id: node.get(), ..kind("node") },
        AuditPrincipal::System => kind("system"),
        AuditPrincipal::Unknown => kind("unknown"),
        AuditPrincipal::RecoveryKey => kind("recovery-key"),
    }
}

fn target(target: &AuditTarget, detail: Option<&AuditDetail>) -> v1::AuditTarget {
    v1::AuditTarget {
        account_id: text(target.account),
        store_id: text(target.store),
        secret_ids: target.secrets.iter().map(ToString::to_string).collect(),
        duplicated_from_id: text(target.duplicated_from),
        value_modified: target.value_modified,
        consumer: target.consumer.as_ref().map(|consumer| format!("{}/{}", consumer.kind, consumer.name)).unwrap_or_default(),
        binding: text(target.binding.as_ref()),
        node_id: target.node.map_or(0, |node| node.get()),
        token_id: text(target.token),
        membership: target.member.as_ref().map(membership).unwrap_or_default(),
        member: text(detail.and_then(|detail| detail.member.as_ref())),
        grant: detail.and_then(|detail| detail.grant).map(grant).unwrap_or_default(),
        replaced_token_id: text(detail.and_then(|detail| detail.replaced)),
        version: detail.and_then(|detail| detail.version).map_or(0, |version| version.get()),
    }
}

fn membership((change, phase): &(MemberChange, ChangePhase)) -> String {
    let change = match change {
        MemberChange::Add { address } => format!("add at {address}"),
        other => format!("{other:?}").to_lowercase(),
    };
    match phase {
        ChangePhase::Failed { reason } => format!("{change}: failed, {reason}"),
        other => format!("{change}: {}", format!("{other:?}").to_lowercase()),
    }
}

fn grant(grant: Grant) -> String {
    let role = grant.role.name();
    match grant.scope {
        GrantScope::Cluster => format!("{role} of the cluster"),
        GrantScope::Account(account) => format!("{role} of account {account}"),
        GrantScope::Store(_, store) => format!("{role} of store {store}"),
    }
}

fn call(row: &CallRow) -> v1::AuditCall {
    v1::AuditCall {
        principal: Some(principal(&principal_of(row))),
        call: row.call.clone(),
        account_id: text(row.account),
        store_id: text(row.store),
        refusal: row.refused.map(RefusalKind::name).unwrap_or_default().to_owned(),
        count: row.count,
        first_ms: row.times.0.get(),
        last_ms: row.times.1.get(),
        peer: row.peer.clone(),
        label: row.request.clone(),
    }
}

/// Where a row of entries ends.
pub(super) fn head((sequence, hash): (u64, Hash)) -> v1::AuditHead {
    v1::AuditHead { sequence, hash: hash.to_string() }
}
