//! One call: who makes it, from where, what its answer is labelled with, and how it is run.

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use http::HeaderMap;
use prost::Message;
use runtime::listen::Peer;
use seams::Spawn;
use state::Origin;
use tonic::{Request, Response, Status};
use types::{NodeId, RequestId};
use wire::{ErrorKind, PublicError, parse};
use zeroize::Zeroizing;

use crate::{
    audit::{Notes, Trace},
    core::Core,
    hand_over::hand_over,
};

/// The longest request label taken over from a client.
pub(crate) const LABEL_BYTES_MAX: usize = 64;
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
    /// When the caller's time is over, by the monotonic clock; none where it has not said so.
    pub(crate) deadline: Option<Duration>,
    /// Whether another control node has handed the call over.
    pub(crate) handed_over: bool,
    /// What the call turns out to be about, for the audit log.
    pub(crate) trace: Trace,
    /// Whether it is known to come for the first time: what was answered under its id is another's answer.
    pub(crate) first_try: bool,
}

impl Call {
    fn new(credential: Credential, origin: Origin) -> Self {
        Self { credential, origin, sent: None, deadline: None, handed_over: false, trace: Trace::default(), first_try: false }
    }

    /// What a request says of its sender, as the door has read it; read now where it came by another door.
    pub(crate) fn of<M>(core: &Core, request: &Request<M>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(|| Self::read(core, request))
    }

    fn read<M>(core: &Core, request: &Request<M>) -> Self {
        let headers = request.metadata().as_ref();
        let deadline = told_timeout(request.metadata()).map(|within| core.clock.monotonic().saturating_add(within));
        Self { deadline, ..Self::of_headers(core, headers, request.extensions().get::<Peer>()) }
    }

    /// What headers say of a request's sender, whatever protocol it speaks.
    pub(crate) fn of_headers(core: &Core, headers: &HeaderMap, peer: Option<&Peer>) -> Self {
        let sent = headers.get(LABEL_HEADER).and_then(|label| label.to_str().ok());
        let usable = |label: &&str| {
            !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let label = sent.filter(usable).map_or_else(|| RequestId::from_bytes(core.entropy.id()).to_string(), str::to_owned);
        let origin = Origin { peer: peer.map_or_else(|| "unknown".to_owned(), ToString::to_string), request: label };
        Self::new(credential(core, headers, peer), origin)
    }

    /// A call that another control node hands over: by whose token it was made, from where, and what is left of its time.
    pub(crate) fn handed_over(core: &Core, token: [u8; 32], origin: Origin, within: Duration) -> Self {
        let deadline = Some(core.clock.monotonic().saturating_add(within));
        Self { deadline, handed_over: true, ..Self::new(Credential::Token(token), origin) }
    }

    /// A call as it comes in a test of what lies behind the doors.
    #[cfg(test)]
    pub(crate) fn of_a_test(credential: Credential) -> Self {
        Self::new(credential, Origin { peer: "a test".to_owned(), request: "test".to_owned() })
    }

    /// What is left of the call's time: of the caller's own, and at the most what a request may take.
    pub(crate) fn left(&self, core: &Core) -> Duration {
        let told = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_sub(core.clock.monotonic()));
        told.min(core.request_timeout)
    }
}

/// Left of a caller's time, so that the answer is there before it is over: a tenth, and no more than this.
const ANSWER_MARGIN_MAX: Duration = Duration::from_millis(100);

/// How long the caller waits for the answer, as gRPC says it: up to eight digits and a unit.
fn told_timeout(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = Some(digits).filter(|digits| digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
    let told = match unit {
        "H" => Duration::from_secs(number.checked_mul(3600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(told - (told / 10).min(ANSWER_MARGIN_MAX))
}

fn credential(core: &Core, headers: &HeaderMap, peer: Option<&Peer>) -> Credential {
    if let Some(token) = shown_token(headers) {
        return token.map_or(Credential::Malformed, Credential::Token);
    }
    let certificate = peer.and_then(Peer::certificate).filter(|certificate| certificate.identity.cluster() == core.cluster);
    // Asked at each call: a connection may outlive the certificate that opened it.
    if certificate.is_some_and(|certificate| certificate.is_expired(core.now())) {
        return Credential::Expired;
    }
    match certificate.and_then(|certificate| certificate.identity.node().map(|node| (node, certificate.public_key.clone()))) {
        Some((node, public_key)) => Credential::Node { node, public_key },
        None => Credential::None,
    }
}

/// Whether a token is shown, and its hash where it has the form of one: in an `authorization` header, or in the older pair of an e-mail
/// address, which says nothing here, and a key.
pub(crate) fn shown_token(headers: &HeaderMap) -> Option<Option<[u8; 32]>> {
    let hash = |token: &str| seal::OperatorToken::parse(token.trim()).ok().map(|token| token.hash());
    if let Some(header) = headers.get(http::header::AUTHORIZATION) {
        let bearer = header.to_str().ok().and_then(|text| text.split_once(' '));
        return Some(bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).and_then(|(_, token)| hash(token)));
    }
    headers.get("x-auth-key").map(|key| key.to_str().ok().and_then(hash))
}

/// A message that asks for a change, and may carry the id by which a retry is known.
pub(crate) trait Change: Message {
    /// Whether such a message brings a value.
    const HOLDS_VALUE: bool;

    /// Whether it takes the cluster's keys to do it.
    const TAKES_KEYS: bool;

    /// The field of that id.
    fn request_id(&mut self) -> &mut String;
}

macro_rules! changes {
    ($holds_value:literal $takes_keys:literal: $($message:ident)*) => {
        $(impl Change for wire::v1::$message {
            const HOLDS_VALUE: bool = $holds_value;
            const TAKES_KEYS: bool = $takes_keys;

            fn request_id(&mut self) -> &mut String {
                &mut self.request_id
            }
        })*
    };
}

changes! { true true: CreateSecretsRequest SetValueRequest }
changes! { false true: DuplicateSecretRequest }
changes! { false false:
    CreateAccountRequest SetQuotaRequest CreateStoreRequest DeleteStoreRequest EditSecretRequest RaiseLevelRequest
    DeleteSecretsRequest MovePointerRequest CreateConsumerRequest DeleteConsumerRequest CreateConsumerTokenRequest
    RollConsumerTokenRequest RevokeConsumerTokenRequest BindRequest UnbindRequest CreateJoinTokenRequest RevokeJoinTokenRequest
    RevokeNodeRequest CreateTokenRequest RevokeTokenRequest RotateAuthorityRequest FinishAuthorityRequest
    UndeleteSecretRequest DestroySecretRequest RollTokenRequest CreateMemberRequest GrantRoleRequest RevokeRoleRequest DeleteMemberRequest
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
    let label = call.origin.request.clone();
    respond(core, label, seen(core, operation, call, request.into_inner(), run).await)
}

/// The same, whatever protocol it came by.
pub(crate) async fn seen<M, R, F>(
    core: &Arc<Core>,
    operation: &'static str,
    call: Call,
    asked: M,
    run: impl FnOnce(Arc<Core>, Call, M) -> F,
) -> Result<R, PublicError>
where
    F: Future<Output = Result<R, PublicError>>,
{
    let (left, label) = (call.left(core), call.origin.request.clone());
    let answer = run(core.clone(), call.clone(), asked);
    let result = counted(core, operation, label, within(core, left, answer)).await;
    Notes::read(core, &call, operation, &result);
    result
}

/// Runs a change as a task of its own: a client that hangs up cannot cut it between propose and reply.
pub(crate) async fn change<M, R, F>(
    core: &Arc<Core>,
    operation: &'static str,
    request: Request<M>,
    run: impl FnOnce(Arc<Core>, Call, M) -> F,
) -> Result<Response<R>, Status>
where
    M: Change + 'static,
    R: Message + Default + 'static,
    F: Future<Output = Result<R, PublicError>> + Send + 'static,
{
    let call = Call::of(core, &request);
    let label = call.origin.request.clone();
    respond(core, label, done(core, operation, call, request.into_inner(), run).await)
}

/// The same, whatever protocol it came by.
pub(crate) async fn done<M, R, F>(
    core: &Arc<Core>,
    operation: &'static str,
    mut call: Call,
    mut message: M,
    run: impl FnOnce(Arc<Core>, Call, M) -> F,
) -> Result<R, PublicError>
where
    M: Change + 'static,
    R: Message + Default + 'static,
    F: Future<Output = Result<R, PublicError>> + Send + 'static,
{
    let label = call.origin.request.clone();
    let asked = Call { sent: None, ..call.clone() };
    let id = std::mem::take(message.request_id());
    let answer = async {
        // What was handed over was counted where it came in.
        if let Credential::Token(token) = &call.credential
            && !call.handed_over
        {
            core.limits.write(token)?;
        }
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
        // What a node that lacks the keys is handed it does by itself or not at all, so that nothing goes in circles.
        let work: BoxFuture<'static, Result<R, PublicError>> = if M::TAKES_KEYS && !call.handed_over && core.lacks_keys() {
            let again = call.sent.is_some();
            // Under its id, by which a retry is known there as it would be here.
            *message.request_id() = id;
            Box::pin(hand_over(core.clone(), call, operation, message, again))
        } else {
            Box::pin(run(core.clone(), call, message))
        };
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
    let result = counted(core, operation, label, answer).await;
    if let Err(error) = &result {
        Notes::refused(core, &asked, operation, error);
    }
    result
}

async fn within<R>(core: &Core, limit: Duration, answer: impl Future<Output = Result<R, PublicError>>) -> Result<R, PublicError> {
    tokio::select! {
        biased;
        answer = answer => answer,
        () = core.clock.sleep(limit) => Err(PublicError::new(ErrorKind::DeadlineExceeded, format!("no answer within {limit:.1?}"))),
    }
}

/// Counts the outcome, and labels what failed.
async fn counted<R>(
    core: &Core,
    operation: &'static str,
    label: String,
    answer: impl Future<Output = Result<R, PublicError>>,
) -> Result<R, PublicError> {
    let started = core.clock.monotonic();
    let result = answer.await;
    let outcome = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
    metrics::counter!("cinnabar_control_calls_total", "operation" => operation, "outcome" => outcome).increment(1);
    metrics::histogram!("cinnabar_control_call_seconds", "operation" => operation).record((core.clock.monotonic() - started).as_secs_f64());
    result.map_err(|error| {
        // What a known principal was refused is worth a line; noise of strangers is only counted.
        if error.kind == ErrorKind::Denied {
            tracing::info!(operation, request = label, "refused: not granted");
        }
        error.with_request_id(label)
    })
}

/// The answer of gRPC, labelled.
fn respond<R>(core: &Core, label: String, result: Result<R, PublicError>) -> Result<Response<R>, Status> {
    let mut response = Response::new(result?);
    if let Ok(label) = label.parse() {
        response.metadata_mut().insert(LABEL_HEADER, label);
    }
    // Whoever holds an older list of authorities asks for the new one while the old one still counts.
    if let Ok(Some(trust)) = core.consensus.local().trust() {
        response.metadata_mut().insert(wire::TRUST_METADATA, trust.version.into());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_a_caller_gives_is_read_as_grpc_writes_it_and_a_little_less() {
        let told = |text: &str| {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            told_timeout(&metadata)
        };
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, expected) in
            [("1S", ms(900)), ("500m", ms(450)), ("2M", ms(119_900)), ("1H", ms(3_599_900)), ("99999999n", ms(90)), ("0m", ms(0))]
        {
            assert_eq!(told(text).map(|told| told.as_millis()), expected.map(|expected| expected.as_millis()), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1 S"] {
            assert_eq!(told(text), None, "{text:?}");
        }
        assert_eq!(told_timeout(&tonic::metadata::MetadataMap::new()), None);
    }
}
