//! The log as a stream: oldest first, up to the newest entry of the moment when it was asked for, with what proves that none is missing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use consensus::{AuditCut, audit_head_signing_bytes};
use state::AuditEntry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use types::Hash;
use wire::{ErrorKind, PublicError, v1};

use super::{Asked, asked, filter::reach, place, show, unread};
use crate::{call::Call, caller::Caller, core::Core, error::damaged};

/// Entries that wait for the one who exports.
const PARTS_WAITING: usize = 256;
/// Stored bytes that are read at a time.
const STEP_BYTES: usize = 256 << 10;
/// How long the one who exports may leave a part unread.
const TAKE_WITHIN: Duration = Duration::from_secs(60);

/// A stream of an export's parts.
pub(crate) type Parts = ReceiverStream<Result<v1::ExportAuditReply, Status>>;

/// Why an export ended early.
enum End {
    /// Nobody takes it, or the node stops.
    Gone,
    Refused(PublicError),
}

impl From<PublicError> for End {
    fn from(error: PublicError) -> Self {
        Self::Refused(error)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cut(cut: AuditCut) -> v1::AuditCut {
    v1::AuditCut {
        sequence: cut.sequence,
        hash: cut.hash.to_string(),
        index: cut.index.get(),
        time_ms: cut.time.get(),
        node_id: cut.signature.map_or(0, |signed| signed.node.get()),
        signature: cut.signature.map(|signed| hex(&signed.signature)).unwrap_or_default(),
    }
}

/// Begins an export, and returns its stream. A receiver that goes away ends the work at its next part; so does a caller whose token is
/// revoked or ends meanwhile.
pub(crate) async fn export(core: Arc<Core>, call: Call, message: v1::ExportAuditRequest) -> Result<Parts, PublicError> {
    let asked = asked(&core, &call, message.filter).await?;
    let places = (place(&core.audit.exports)?, place(&core.audit.readers)?);
    tracing::info!(request = call.origin.request, peer = call.origin.peer, "exports the audit log");
    let (send, receive) = mpsc::channel(PARTS_WAITING);
    let tokio = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _places = places;
        let label = call.origin.request.clone();
        let put = |part: Result<v1::export_audit_reply::Part, Status>| {
            let part = part.map(|part| v1::ExportAuditReply { part: Some(part) });
            let Err(mpsc::error::TrySendError::Full(part)) = send.try_send(part) else {
                return if send.is_closed() { Err(End::Gone) } else { Ok(()) };
            };
            tokio.block_on(async {
                tokio::select! {
                    biased;
                    sent = send.send(part) => sent.map_err(|_| End::Gone),
                    () = core.clock.sleep(TAKE_WITHIN) => Err(End::Gone),
                    () = core.tasks.token().cancelled() => Err(End::Gone),
                }
            })
        };
        match send_all(&core, &call, &asked, |part| put(Ok(part))) {
            Ok(()) | Err(End::Gone) => {}
            Err(End::Refused(error)) => {
                let _ = put(Err(error.with_request_id(label).into()));
            }
        }
    });
    Ok(ReceiverStream::new(receive))
}

fn send_all(core: &Core, call: &Call, asked: &Asked, put: impl Fn(v1::export_audit_reply::Part) -> Result<(), End>) -> Result<(), End> {
    use v1::export_audit_reply::Part;
    let Asked { sight, filter, state } = asked;
    let (audit, log) = (&core.audit, &core.audit.log);
    log.settle().map_err(|error| {
        tracing::error!(%error, "the audit log of this node cannot be written");
        PublicError::new(ErrorKind::Unavailable, "this node's copy of the audit log has stopped: ask another control node")
    })?;
    let unread = |error: Arc<store::LogError>| End::Refused(unread(&error));
    let end = state.audit_head().map_err(damaged)?.sequence + 1;
    let whole = sight.is_whole() && filter.is_whole();
    let cut_at_first = log.cut();
    let (held_from, next) = log.bounds();
    let set = state.signer_set().map_err(damaged)?;
    let signers = set.map(|set| set.keys).unwrap_or_default();
    put(Part::Begin(v1::AuditBegin {
        cluster_id: core.cluster.to_string(),
        node_id: core.node.get(),
        node_name: core.name.to_string(),
        held_from: if held_from < next { held_from } else { 0 },
        whole,
        cut: cut_at_first.map(cut),
        signers: signers.iter().map(|key| v1::AuditSigner { node_id: key.node.get(), public_key: hex(&key.key) }).collect(),
    }))?;
    let mut at = filter.since.map_or(Ok(held_from), |since| log.seek(since)).map_err(unread)?.max(held_from);
    let (mut first, mut last, mut sent): (_, Option<(u64, Bytes)>, u64) = (None, None, 0);
    'all: while at < end {
        let entries = log.read(at..end, STEP_BYTES).map_err(unread)?;
        if log.cut().map(|cut| cut.sequence) > cut_at_first.map(|cut| cut.sequence) && log.bounds().0 > at {
            let message = "entries were cut for their age or the log's size while they were exported: begin again";
            return Err(PublicError::new(ErrorKind::Unavailable, message).into());
        }
        Caller::identify(&core.consensus.local(), call, core.now())?;
        if entries.is_empty() {
            break;
        }
        for (sequence, stored) in entries {
            at = sequence + 1;
            let entry = AuditEntry::decode(&stored).map_err(|error| {
                tracing::error!(sequence, %error, "an entry of the audit log cannot be read");
                PublicError::new(ErrorKind::Unavailable, format!("entry {sequence} cannot be read here: ask another control node"))
            })?;
            if filter.before.is_some_and(|before| entry.time >= before) {
                break 'all;
            }
            first.get_or_insert((sequence, entry.previous));
            let all_of_it =
                sight.is_whole() || (sight.covers(reach(&entry)) && !matches!(entry.outcome, state::AuditOutcome::Noted { .. }));
            if let Some(entry) = filter.pick(sight, entry) {
                put(Part::Entry(show::entry(&entry, &stored, all_of_it)))?;
                sent += 1;
            }
            last = Some((sequence, stored));
        }
    }
    let first = first.unwrap_or((0, Hash::ZERO));
    let last = last.map_or((0, Hash::ZERO), |(sequence, stored)| (sequence, AuditEntry::hash_of(&stored)));
    let signature = audit.signer.sign(&audit_head_signing_bytes(core.cluster, core.node, first, last));
    put(Part::End(v1::AuditEnd { head: Some(show::head(last)), signature: hex(&signature), entries: sent }))
}
