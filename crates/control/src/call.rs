//! One call: who makes it, from where, and what its answer is labelled with.

use std::{future::Future, sync::Arc};

use runtime::listen::Peer;
use state::Origin;
use tonic::{Request, Response, Status};
use types::NodeId;
use wire::{ErrorKind, PublicError};

use crate::core::Core;

/// The longest request label taken over from a client.
const LABEL_BYTES_MAX: usize = 64;
/// The header that a client may send, and that every answer carries.
const LABEL_HEADER: &str = wire::REQUEST_ID_METADATA;

/// What is known of a call before any state was read.
#[derive(Clone)]
pub(crate) struct Call {
    /// The hash of the bearer token, when one was sent and had its form.
    pub(crate) token: Option<[u8; 32]>,
    /// The node that the client certificate names, when there is one.
    pub(crate) node: Option<NodeId>,
    /// Where the call comes from, for the audit log.
    pub(crate) origin: Origin,
}

impl Call {
    /// Takes from a request what it says of its sender.
    pub(crate) fn of<M>(core: &Core, request: &Request<M>) -> Self {
        let peer = request.extensions().get::<Peer>();
        let sent = request.metadata().get(LABEL_HEADER).and_then(|label| label.to_str().ok());
        let usable = |label: &&str| {
            !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let label = sent.filter(usable).map_or_else(|| types::RequestId::from_bytes(core.entropy.id()).to_string(), str::to_owned);
        Self {
            token: bearer(request).and_then(|text| seal::OperatorToken::parse(text).ok()).map(|token| token.hash()),
            node: peer.and_then(Peer::identity).filter(|identity| identity.cluster() == core.cluster).and_then(|identity| identity.node()),
            origin: Origin { peer: peer.map_or_else(|| "unknown".to_owned(), ToString::to_string), request: label },
        }
    }
}

fn bearer<M>(request: &Request<M>) -> Option<&str> {
    let (scheme, token) = request.metadata().get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Runs one operation for one call. The operation is a task of its own: a client that hangs up cannot cut a write between
/// propose and reply. Its outcome is counted, and every answer carries the request's label.
pub(crate) async fn serve<M, R, F>(
    core: &Arc<Core>,
    operation: &'static str,
    request: Request<M>,
    run: impl FnOnce(Arc<Core>, Call, M) -> F,
) -> Result<Response<R>, Status>
where
    R: Send + 'static,
    F: Future<Output = Result<R, PublicError>> + Send + 'static,
{
    let call = Call::of(core, &request);
    let label = call.origin.request.clone();
    let started = core.clock.monotonic();
    let (send, answer) = tokio::sync::oneshot::channel();
    let work = run(core.clone(), call, request.into_inner());
    seams::Spawn::spawn(
        &*core.tasks,
        operation,
        Box::pin(async move {
            // The caller may have hung up, which is its right.
            let _ = send.send(work.await);
        }),
    );
    let result = answer.await.unwrap_or_else(|_| Err(PublicError::new(ErrorKind::Unavailable, "the node is shutting down: try another")));
    let outcome = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
    metrics::counter!("cinnabar_control_calls_total", "operation" => operation, "outcome" => outcome).increment(1);
    metrics::histogram!("cinnabar_control_call_seconds", "operation" => operation).record((core.clock.monotonic() - started).as_secs_f64());
    match result {
        Ok(reply) => {
            let mut response = Response::new(reply);
            if let Ok(label) = label.parse() {
                response.metadata_mut().insert(LABEL_HEADER, label);
            }
            Ok(response)
        }
        Err(error) => {
            tracing::debug!(operation, request = label, kind = error.kind.name(), "refused");
            Err(error.with_request_id(label).into())
        }
    }
}
