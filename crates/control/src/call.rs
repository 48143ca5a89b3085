//! One call: who makes it, from where, what its answer is labelled with, and how it is run.

use std::{future::Future, sync::Arc, time::Duration};

use prost::Message;
use runtime::listen::Peer;
use seams::Spawn;
use state::Origin;
use tonic::{Request, Response, Status};
use types::{NodeId, RequestId};
use wire::{ErrorKind, PublicError, parse};
use zeroize::Zeroizing;

use crate::core::Core;

/// The longest request label taken over from a client.
const LABEL_BYTES_MAX: usize = 64;
/// The header that a client may send, and that every answer carries.
const LABEL_HEADER: &str = wire::REQUEST_ID_METADATA;

/// By what a caller wants to be known. Nothing of it has been believed yet.
#[derive(Clone)]
pub(crate) enum Credential {
    /// Nothing was shown.
    None,
    /// A bearer token was sent that has not the form of one. It never counts as nothing: a typing mistake must not turn the
    /// call into that of the node whose certificate the connection has.
    Malformed,
    /// The hash of a bearer token.
    Token([u8; 32]),
    /// A node's certificate that has ended.
    Expired,
    /// The number and key of a node's certificate.
    Node { node: NodeId, public_key: Vec<u8> },
}

/// A change as it was sent, under the id by which a retry of it is known.
#[derive(Clone)]
pub(crate) struct Sent {
    /// The id.
    pub(crate) id: RequestId,
    /// The operation and the message, without the id. It may hold a value, so it is wiped.
    pub(crate) content: Zeroizing<Vec<u8>>,
    /// Whether it does hold a value.
    pub(crate) holds_value: bool,
}

/// What is known of a call before any state was read.
#[derive(Clone)]
pub(crate) struct Call {
    /// By what the caller wants to be known.
    pub(crate) credential: Credential,
    /// Where the call comes from, for the audit log.
    pub(crate) origin: Origin,
    /// The change, when it came with a request id.
    pub(crate) sent: Option<Sent>,
}

impl Call {
    /// What a request says of its sender, as the door has read it; read now where it came by another door.
    pub(crate) fn of<M>(core: &Core, request: &Request<M>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(|| Self::read(core, request))
    }

    fn read<M>(core: &Core, request: &Request<M>) -> Self {
        let peer = request.extensions().get::<Peer>();
        let sent = request.metadata().get(LABEL_HEADER).and_then(|label| label.to_str().ok());
        let usable = |label: &&str| {
            !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let label = sent.filter(usable).map_or_else(|| RequestId::from_bytes(core.entropy.id()).to_string(), str::to_owned);
        let origin = Origin { peer: peer.map_or_else(|| "unknown".to_owned(), ToString::to_string), request: label };
        Self { credential: credential(core, request, peer), origin, sent: None }
    }
}

fn credential<M>(core: &Core, request: &Request<M>, peer: Option<&Peer>) -> Credential {
    if let Some(header) = request.metadata().get("authorization") {
        return header.to_str().ok().and_then(token_hash).map_or(Credential::Malformed, Credential::Token);
    }
    let certificate = peer.and_then(Peer::certificate).filter(|certificate| certificate.identity.cluster() == core.cluster);
    // Asked at each call: a connection may outlive the certificate that opened it.
    if certificate.is_some_and(|certificate| certificate.is_expired(core.clock.wall())) {
        return Credential::Expired;
    }
    match certificate.and_then(|certificate| certificate.identity.node().map(|node| (node, certificate.public_key.clone()))) {
        Some((node, public_key)) => Credential::Node { node, public_key },
        None => Credential::None,
    }
}

/// The hash of the token in an `authorization` header, if one is there.
pub(crate) fn bearer_hash(header: &http::HeaderValue) -> Option<[u8; 32]> {
    header.to_str().ok().and_then(token_hash)
}

fn token_hash(header: &str) -> Option<[u8; 32]> {
    let (_, token) = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))?;
    seal::OperatorToken::parse(token.trim()).ok().map(|token| token.hash())
}

/// A message that asks for a change, and may carry the id by which a retry is known.
pub(crate) trait Change: Message {
    /// Whether such a message brings a value.
    const HOLDS_VALUE: bool;

    /// The field of that id.
    fn request_id(&mut self) -> &mut String;
}

macro_rules! changes {
    ($holds_value:literal: $($message:ident)*) => {
        $(impl Change for wire::v1::$message {
            const HOLDS_VALUE: bool = $holds_value;

            fn request_id(&mut self) -> &mut String {
                &mut self.request_id
            }
        })*
    };
}

changes! { true: CreateSecretsRequest SetValueRequest }
changes! { false:
    CreateAccountRequest SetQuotaRequest CreateStoreRequest DeleteStoreRequest EditSecretRequest RaiseLevelRequest
    DeleteSecretsRequest DuplicateSecretRequest MovePointerRequest CreateConsumerRequest DeleteConsumerRequest CreateConsumerTokenRequest
    RollConsumerTokenRequest RevokeConsumerTokenRequest BindRequest UnbindRequest CreateJoinTokenRequest RevokeJoinTokenRequest
    RevokeNodeRequest CreateTokenRequest RevokeTokenRequest
}

/// Runs a read in the caller's own time: it ends when the caller hangs up, or when the time for a request is over.
pub(crate) async fn read<M, R, F>(
    core: &Arc<Core>,
    operation: &'static str,
    request: Request<M>,
    run: impl FnOnce(Arc<Core>, Call, M) -> F,
) -> Result<Response<R>, Status>
where
    F: Future<Output = Result<R, PublicError>>,
{
    let call = Call::of(core, &request);
    let answer = run(core.clone(), call.clone(), request.into_inner());
    let within = within(core, core.request_timeout, answer);
    answered(core, operation, call.origin.request, within).await
}

/// Runs a change as a task of its own: a client that hangs up cannot cut it between propose and reply.
pub(crate) async fn change<M, R, F>(
    core: &Arc<Core>,
    operation: &'static str,
    request: Request<M>,
    run: impl FnOnce(Arc<Core>, Call, M) -> F,
) -> Result<Response<R>, Status>
where
    M: Change,
    R: Send + 'static,
    F: Future<Output = Result<R, PublicError>> + Send + 'static,
{
    let mut call = Call::of(core, &request);
    let label = call.origin.request.clone();
    let mut message = request.into_inner();
    let id = std::mem::take(message.request_id());
    let answer = async {
        call.sent = parse::request_id(&id)?.map(|id| {
            let mut content = Zeroizing::new(Vec::with_capacity(operation.len() + 1 + message.encoded_len()));
            content.extend_from_slice(operation.as_bytes());
            content.push(0);
            // The buffer has the room, so nothing fails and no copy is left behind.
            let _ = message.encode(&mut *content);
            Sent { id, content, holds_value: M::HOLDS_VALUE }
        });
        let place = core.changes.clone().try_acquire_owned().map_err(|_| {
            PublicError::new(ErrorKind::Busy, "as many changes are under way as this node takes at once")
                .with_retry_after(Duration::from_millis(50))
        })?;
        let (send, answer) = tokio::sync::oneshot::channel();
        let work = run(core.clone(), call, message);
        core.tasks.spawn(
            operation,
            Box::pin(async move {
                // The caller may have hung up, which is its right.
                let _ = send.send(work.await);
                drop(place);
            }),
        );
        answer.await.unwrap_or_else(|_| Err(PublicError::new(ErrorKind::Unavailable, "the node is shutting down: try another")))
    };
    answered(core, operation, label, answer).await
}

async fn within<R>(core: &Core, limit: Duration, answer: impl Future<Output = Result<R, PublicError>>) -> Result<R, PublicError> {
    tokio::select! {
        biased;
        answer = answer => answer,
        () = core.clock.sleep(limit) => Err(PublicError::new(ErrorKind::DeadlineExceeded, format!("no answer within {} s", limit.as_secs()))),
    }
}

/// Counts the outcome, and labels the answer.
async fn answered<R>(
    core: &Core,
    operation: &'static str,
    label: String,
    answer: impl Future<Output = Result<R, PublicError>>,
) -> Result<Response<R>, Status> {
    let started = core.clock.monotonic();
    let result = answer.await;
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
            // What a known principal was refused is worth a line; noise of strangers is only counted.
            if error.kind == ErrorKind::Denied {
                tracing::info!(operation, request = label, "refused: not granted");
            }
            Err(error.with_request_id(label).into())
        }
    }
}
