//! A node without the keys hands a write that needs them to one that has them.
//!
//! The caller's whole request goes there over mutual TLS, with the plaintext in it, and the answer comes back. Who calls is judged twice: by
//! the door and the state of the node that hands over, and again by the node that seals, which gets the hash of the caller's token and
//! takes it for no more than that: it looks it up in its own state, and so does `apply`. That a request was handed over is believed of
//! registered control nodes alone, by the certificate of the connection.
//!
//! **Invariants**
//! 1. What was handed over is never handed on: a node that lacks the keys too says so, and the next one is asked.
//! 2. What may have been done is asked of another node only under a request id, by which `apply` knows it.
//! 3. The copy of the request is wiped when the answer is there; transport buffers, when they are freed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use consensus::PeerError;
use prost::Message;
use tonic::Request;
use types::NodeId;
use wire::{
    ErrorKind, PublicError, REQUEST_BYTES_MAX,
    internal::{HandOverReply, HandOverRequest, hand_over_reply::Outcome, peers_client::PeersClient},
    v1::{self, secrets_server::Secrets},
};
use zeroize::Zeroizing;

use crate::{
    call::{Call, Credential, LABEL_BYTES_MAX},
    core::Core,
    keys,
    peers::failure,
    services::Services,
};

/// What a request is longer by when it is handed over.
const ENVELOPE_BYTES_MAX: usize = 4096;
/// The longest message.
pub(crate) const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + ENVELOPE_BYTES_MAX;
/// The longest text of where a caller was: an address and a port, or a user and a process.
const PEER_BYTES_MAX: usize = 64;
/// How long the answer waits for this node to have what was written, so that who wrote here reads it here.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);

impl Core {
    /// Whether this node lacks the key under which values are sealed now.
    pub(crate) fn lacks_keys(&self) -> bool {
        let state = self.consensus.local();
        // A cluster without an epoch, or one whose records do not read: the operation itself says so.
        keys::active_epoch(self, &state).is_ok_and(|epoch| !self.ring.holds(&self.domain, epoch))
    }
}

/// What became of a request at one node.
enum Asked {
    Answered(Bytes),
    Refused(PublicError),
    NotTaken,
    Lost(String),
}

/// Has the whole request done by a control node that has the keys.
pub(crate) async fn hand_over<M: Message, R: Message + Default>(
    core: Arc<Core>,
    call: Call,
    operation: &'static str,
    message: M,
    again: bool,
) -> Result<R, PublicError> {
    let Credential::Token(token) = call.credential else {
        return Err(PublicError::new(ErrorKind::Locked, "this node is locked, and hands over only what an operator's token asks for"));
    };
    // The first of the two judgements of the caller; the second is where it is sealed.
    core.find(&call, |_, _| Ok(())).await?;
    // What becomes of it there is noted there.
    call.trace.commanded();
    let content = Bytes::from_owner(Zeroizing::new(message.encode_to_vec()));
    drop(message);
    let mut lost = None;
    for (node, address) in unlocked(&core) {
        let left = call.left(&core);
        if left.is_zero() {
            break;
        }
        let request = HandOverRequest {
            cluster: core.cluster.as_bytes().to_vec(),
            from: core.node.get(),
            to: node.get(),
            operation: operation.to_owned(),
            message: content.to_vec(),
            token: token.to_vec(),
            peer: call.origin.peer.clone(),
            request: call.origin.request.clone(),
            within_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        match ask(&core, node, &address, request, left).await {
            Asked::Answered(reply) => {
                metrics::counter!("cinnabar_control_handed_over_total").increment(1);
                // Who wrote here reads it here, as far as that takes no time; a read asks the leader anyway.
                tokio::select! {
                    biased;
                    _ = core.newest() => {}
                    () = core.clock.sleep(APPLIED_WITHIN.min(call.left(&core))) => {}
                }
                return R::decode(reply).map_err(|_| {
                    PublicError::new(
                        ErrorKind::Internal,
                        "the node that has the keys answered with something else: update both nodes alike",
                    )
                });
            }
            Asked::Refused(error) if error.kind == ErrorKind::Locked => {}
            Asked::Refused(error) => return Err(error),
            Asked::NotTaken => {}
            Asked::Lost(reason) if !again => {
                let message =
                    format!("node {node}, which has the keys, was asked, and its answer is lost ({reason}): it may have been done");
                return Err(PublicError::new(ErrorKind::DeadlineExceeded, message));
            }
            Asked::Lost(reason) => lost = Some((node, reason)),
        }
    }
    Err(match lost {
        Some((node, reason)) => {
            let message =
                format!("node {node}, which has the keys, was asked, and its answer is lost ({reason}): ask again under the same id");
            PublicError::new(ErrorKind::DeadlineExceeded, message)
        }
        None => PublicError::new(
            ErrorKind::Locked,
            "this node is locked, and no control node that has the keys can be reached from here: `cinnabar status` at each shows which is unlocked; give one the root key and restart it, then try again",
        ),
    })
}

/// The control nodes that have said that they have keys, those that are heard now first; then those that are not heard, which may have.
fn unlocked(core: &Core) -> Vec<(NodeId, String)> {
    let members = core.consensus.membership();
    let all = members.voters.into_iter().chain(members.learners).filter(|(node, _)| *node != core.node);
    let rank = |node: NodeId| match core.standings.control(node) {
        Some(known) if known.standing.unlocked && known.now => 0,
        Some(known) if known.standing.unlocked => 1,
        _ => 2,
    };
    let mut ranked: Vec<_> = all.map(|(node, address)| (rank(node), node, address)).collect();
    ranked.sort();
    ranked.into_iter().map(|(_, node, address)| (node, address)).collect()
}

async fn ask(core: &Core, node: NodeId, address: &str, request: HandOverRequest, within: Duration) -> Asked {
    let Ok(channel) = core.transport.channel(node, address) else { return Asked::NotTaken };
    let mut client = PeersClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let answer = tokio::select! {
        biased;
        answer = client.hand_over(request) => answer,
        () = core.clock.sleep(within) => return Asked::Lost(format!("no answer within {} ms", within.as_millis())),
    };
    match answer.map(|reply| reply.into_inner().outcome) {
        Ok(Some(Outcome::Reply(reply))) => Asked::Answered(reply),
        Ok(Some(Outcome::Error(detail))) => Asked::Refused(v1::ErrorDetail::decode(detail).map_or_else(
            |_| PublicError::new(ErrorKind::Internal, "the node that has the keys gave an error that does not read"),
            PublicError::from_detail,
        )),
        Ok(None) => Asked::Lost("an empty answer".to_owned()),
        Err(status) => match failure(node, &status) {
            PeerError::Unreachable { reason, .. } => {
                tracing::debug!(%node, reason, "a request was not handed over");
                Asked::NotTaken
            }
            error => Asked::Lost(error.to_string()),
        },
    }
}

/// Does what another control node hands over; that it is one has been checked.
pub(crate) async fn take_over(core: &Arc<Core>, request: HandOverRequest) -> Result<HandOverReply, PublicError> {
    let malformed = || PublicError::new(ErrorKind::InvalidArgument, "this is no request that a control node hands over: update both alike");
    let token: [u8; 32] = request.token[..].try_into().map_err(|_| malformed())?;
    let named =
        |text: &str, most| !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !named(&request.peer, PEER_BYTES_MAX) || !named(&request.request, LABEL_BYTES_MAX) {
        return Err(malformed());
    }
    // The audit log names the node that stood between, too.
    let origin = state::Origin { peer: format!("{} via node:{}", request.peer, request.from), request: request.request };
    let call = Call::handed_over(core, token, origin, Duration::from_millis(u64::from(request.within_ms)));
    let services = Services(core.clone());
    // Wiped when it has been decoded; the value that comes out of it is wiped by whoever seals it.
    let (operation, message) = (request.operation.as_str(), Bytes::from_owner(Zeroizing::new(request.message)));
    let answer = match operation {
        "secrets.create" => {
            services.create(with(call, message).ok_or_else(malformed)?).await.map(|reply| reply.into_inner().encode_to_vec())
        }
        "secrets.set_value" => {
            services.set_value(with(call, message).ok_or_else(malformed)?).await.map(|reply| reply.into_inner().encode_to_vec())
        }
        "secrets.duplicate" => {
            services.duplicate(with(call, message).ok_or_else(malformed)?).await.map(|reply| reply.into_inner().encode_to_vec())
        }
        _ => return Err(malformed()),
    };
    let outcome = match answer {
        Ok(reply) => Outcome::Reply(reply.into()),
        Err(status) => Outcome::Error(PublicError::from_status(&status).detail().encode_to_vec().into()),
    };
    Ok(HandOverReply { outcome: Some(outcome) })
}

/// The request as if it had come by this node's own door.
fn with<M: Message + Default>(call: Call, message: Bytes) -> Option<Request<M>> {
    let mut request = Request::new(M::decode(message).ok()?);
    request.extensions_mut().insert(call);
    Some(request)
}
