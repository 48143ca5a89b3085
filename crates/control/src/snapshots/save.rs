//! Archives on request: streamed to whoever may have them, while they are being sealed.

use std::{sync::Arc, time::Duration};

use state::State;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::{ErrorKind, PublicError, v1};

use super::{ArchiveError, Draft, Identity};
use crate::{call::Call, caller::Caller, core::Core};

/// Archives that are made at the same time: each holds one state in memory, and one core while it seals.
const SAVES_MAX: usize = 2;
/// Parts that wait for the one who saves: half a MiB.
const PARTS_WAITING: usize = 2;
/// How long the one who saves may leave a part unread.
const TAKE_WITHIN: Duration = Duration::from_secs(60);

/// A stream of an archive's parts.
pub(crate) type Parts = ReceiverStream<Result<v1::SaveSnapshotReply, Status>>;

/// Bounds the archives in the making. Full: one more is answered `busy`.
pub(crate) struct Saves(Arc<Semaphore>);

impl Default for Saves {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SAVES_MAX)))
    }
}

impl Saves {
    fn place(&self) -> Result<OwnedSemaphorePermit, PublicError> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            PublicError::new(ErrorKind::Busy, "as many snapshots are being saved as this node saves at once")
                .with_retry_after(Duration::from_secs(1))
        })
    }
}

/// The archive of a state, made by this node. Blocks.
pub(crate) fn draft(core: &Core, state: State) -> Result<Draft, ArchiveError> {
    let signer = state.clone();
    let identity = Identity { node: core.node, now: core.clock.wall() };
    Draft::of(state, identity, &*core.entropy, &|statement| core.publisher.sign(statement, &signer))
}

/// Begins to save `state`, and returns the stream of its archive. A receiver that goes away ends the work at its next part; so does a
/// caller whose token is revoked or ends meanwhile, however slowly it reads.
pub(crate) fn save(core: &Arc<Core>, state: State, call: Call) -> Result<Parts, PublicError> {
    let place = core.saves.place()?;
    let label = call.origin.request.clone();
    let (send, receive) = mpsc::channel(PARTS_WAITING);
    let (core, tokio) = (core.clone(), tokio::runtime::Handle::current());
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let part = |part| v1::SaveSnapshotReply { part: Some(part) };
        let gone = || ArchiveError::Io { operation: "send", source: std::io::ErrorKind::BrokenPipe.into() };
        let stands = || {
            let known = Caller::identify(&core.consensus.local(), &call, core.now());
            known.map(drop).map_err(|error| Status::from(error.with_request_id(label.clone())))
        };
        let put = |reply: Result<v1::SaveSnapshotReply, Status>| {
            let reply = reply.and_then(|reply| stands().map(|()| reply));
            let refused = reply.is_err();
            let sent = tokio.block_on(async {
                tokio::select! {
                    biased;
                    sent = send.send(reply) => sent.map_err(|_| gone()),
                    () = core.clock.sleep(TAKE_WITHIN) => Err(gone()),
                    () = core.tasks.token().cancelled() => Err(gone()),
                }
            });
            if refused { Err(gone()) } else { sent }
        };
        let made = (|| -> Result<u64, ArchiveError> {
            let first = state.first_signer_set()?.ok_or(ArchiveError::Empty)?.hash(core.cluster);
            let draft = draft(&core, state)?;
            put(Ok(part(v1::save_snapshot_reply::Part::Begin(v1::SnapshotBegin {
                cluster_id: draft.header().cluster.to_string(),
                position: Some(draft.header().position.into()),
                records: draft.header().records,
                bytes_about: draft.bytes_about(),
                first_signer_set: first.to_string(),
            }))))?;
            let bytes = draft.write(&mut |bytes| put(Ok(part(v1::save_snapshot_reply::Part::Data(bytes.into())))))?;
            put(Ok(part(v1::save_snapshot_reply::Part::End(v1::SnapshotEnd { bytes }))))?;
            Ok(bytes)
        })();
        match made {
            Ok(bytes) => tracing::info!(bytes, request = label, "a snapshot was saved"),
            Err(ArchiveError::Io { .. }) => tracing::info!(request = label, "a snapshot was not taken to its end"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, request = label, "a snapshot was not saved");
                let kind = match error {
                    ArchiveError::NoSigner | ArchiveError::Empty => ErrorKind::Unavailable,
                    _ => ErrorKind::Internal,
                };
                let _ = put(Err(PublicError::new(kind, error.to_string()).with_request_id(label.clone()).into()));
            }
        }
    });
    Ok(ReceiverStream::new(receive))
}
