//! One subscriber's stream, seen from the control node.
//!
//! Two loops share the stream and end together: *down* sends what comes after where the subscriber stands and sleeps until
//! there is more; *up* takes its acknowledgements. The transport's back-pressure is the flow control: while a send waits,
//! this subscriber's position stays, the window moves on, and when it has moved past, the next step is a snapshot.
//!
//! **Concurrency**: one task a stream, nothing spawned. Dropping the future closes the stream.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use seams::{
    Link, LinkClosed, RecvHalf, SendHalf,
    mutation::{self, Mutation},
};
use state::Propagated;
use types::{ClusterId, FeatureLevel, Generation, Hash, NodeId, Position, Revision, UnixMillis};
use wire::internal::{self as proto, RefusedKind, SubscribeDown, SubscribeUp, subscribe_down::Message, subscribe_up::Message as Up};

use crate::{
    Cut, Publisher,
    acks::StreamClaim,
    changes::Changes,
    follower::{past::ChainMark, run_blocking},
    publisher::{CHAIN, Next, Wake, down},
    sign::generation_of,
};

/// What the transport knows of the subscriber, and how patient to be with it.
#[derive(Clone, Debug)]
pub struct Session {
    /// The node that the transport has authenticated: its key stands in the registry under this number.
    pub node: NodeId,
    /// How long the first message may take.
    pub hello_within: Duration,
    /// How long one send may wait for a subscriber that does not read.
    pub send_within: Duration,
}

impl Session {
    /// A session of `node` with the usual patience: 10 s for the first message, 60 s for a send.
    pub const fn new(node: NodeId) -> Self {
        Self { node, hello_within: Duration::from_secs(10), send_within: Duration::from_secs(60) }
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeEnd {
    /// The subscriber or the network closed it.
    #[error("the subscriber is gone")]
    Closed(#[source] LinkClosed),
    /// The subscription was refused or cut; the subscriber was told.
    #[error("refused ({}): {message}", .kind.as_str_name())]
    Refused {
        /// The kind it was told.
        kind: RefusedKind,
        /// What it was told.
        message: String,
    },
}

/// Serves one subscriber until it leaves, is refused or cut. To stop it, drop the future: the subscriber sees the stream end and
/// dials again.
pub async fn serve_subscriber(link: Link<SubscribeDown, SubscribeUp>, publisher: Arc<Publisher>, session: Session) -> ServeEnd {
    let Link { sender, mut receiver, peer } = link;
    let mut sender = Sender { half: sender, publisher: publisher.clone(), within: session.send_within };
    let end = match serve(&mut sender, &mut *receiver, &publisher, &session).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    if let ServeEnd::Refused { kind, message } = &end {
        let refused = proto::Refused { kind: (*kind).into(), message: message.clone(), retry_after_ms: retry_after(*kind) };
        // The subscriber may be gone already; then the refusal is only in our log.
        let _ = sender.send(down(Message::Refused(refused))).await;
        metrics::counter!("cinnabar_feed_subscribers_refused_total", "kind" => kind.as_str_name()).increment(1);
    }
    tracing::info!(node = %session.node, %peer, end = %end, "a feed stream ended");
    end
}

enum Never {}

/// Where a subscriber says it stands.
struct Greeting {
    held: Option<(Position, Hash)>,
    /// What it knows of the chain before.
    marks: Vec<ChainMark>,
    /// Whether its readers see that.
    shown: bool,
    resume: Option<(Position, Hash, u32)>,
    level: FeatureLevel,
}

async fn serve(
    sender: &mut Sender,
    receiver: &mut dyn RecvHalf<SubscribeUp>,
    publisher: &Arc<Publisher>,
    session: &Session,
) -> Result<Never, ServeEnd> {
    let _place = publisher.enter().ok_or_else(|| refuse(RefusedKind::Busy, "no room for another stream here"))?;
    let greeting = greet(receiver, publisher, session).await?;
    // From before the look on, so that no revocation falls in between.
    let registry = publisher.registry();
    admit(publisher, session.node)?;
    follows(publisher, greeting.level)?;
    same_history(publisher, &greeting)?;
    publisher.may_serve().map_err(|error| refuse(RefusedKind::Unavailable, error.to_string()))?;
    let (claim, duplicate) = publisher.acks().claim(session.node, greeting.level);
    if duplicate {
        metrics::counter!("cinnabar_feed_duplicate_streams_total").increment(1);
        tracing::error!(node = %session.node, "one node id opened a second stream: the older one is cut");
    }
    let state = publisher.state();
    let welcome = proto::Welcome {
        cluster: publisher.options.cluster.as_bytes().to_vec().into(),
        node: publisher.options.node.get(),
        head: Some(position_out(publisher.head())),
        feature_level: level_in_force(state.propagated()).get(),
    };
    sender.send(down(Message::Welcome(welcome))).await?;
    tokio::select! {
        biased;
        () = claim.superseded() => Err(refuse(RefusedKind::Duplicate, "the node opened another stream; this one is cut")),
        end = revoked(registry, publisher, session.node, greeting.level) => end,
        end = up(receiver, publisher, &claim) => end,
        end = stream_down(sender, publisher, &claim, greeting) => end,
    }
}

/// Takes the first message and checks what it says of cluster, node, chain and level.
async fn greet(receiver: &mut dyn RecvHalf<SubscribeUp>, publisher: &Arc<Publisher>, session: &Session) -> Result<Greeting, ServeEnd> {
    let first = tokio::select! {
        biased;
        first = receiver.recv() => first.map_err(ServeEnd::Closed)?,
        () = publisher.parts.clock.sleep(session.hello_within) => return Err(refuse(RefusedKind::TooSlow, "no hello came")),
    };
    let Some(Up::Hello(hello)) = first.message else {
        return Err(refuse(RefusedKind::Protocol, "the first message must be a hello"));
    };
    if hello.cluster[..] != publisher.options.cluster.as_bytes()[..] {
        return Err(refuse(RefusedKind::WrongCluster, format!("this is cluster {}", publisher.options.cluster)));
    }
    if hello.node != session.node.get() {
        let message = format!("the hello names node {}, the connection is node {}'s", hello.node, session.node);
        return Err(refuse(RefusedKind::NotRegistered, message));
    }
    if hello.chain != CHAIN.get() {
        return Err(refuse(RefusedKind::UnknownChain, format!("chain {} is not served here", hello.chain)));
    }
    let level = FeatureLevel::new(hello.feature_level);
    follows(publisher, level)?;
    let bad = |_| refuse(RefusedKind::Protocol, "the hello's hash has not 32 bytes");
    let held = match hello.position {
        Some(position) => Some((position_in(position), hash_in(&hello.chain_hash).map_err(bad)?)),
        None => None,
    };
    let resume = match hello.resume {
        Some(proto::SnapshotResume { position: Some(position), state_root, next_chunk }) => {
            Some((position_in(position), hash_in(&state_root).map_err(bad)?, next_chunk))
        }
        _ => None,
    };
    if hello.marks.len() > MARKS_MAX {
        return Err(refuse(
            RefusedKind::Protocol,
            format!("the hello has {} marks of the chain, at most {MARKS_MAX} may be sent", hello.marks.len()),
        ));
    }
    let marks = marks_in(&hello.marks, Position::new(Generation::new(u32::MAX), Revision::new(u64::MAX)));
    Ok(Greeting { held, marks, shown: !hello.held_back, resume, level })
}

/// Refuses who passed another history than this node's, however long ago and whichever of both is ahead; and who follows a newer
/// generation, by which this node was replaced.
fn same_history(publisher: &Publisher, greeting: &Greeting) -> Result<(), ServeEnd> {
    let head = publisher.head();
    // Also what has lost all that it held knows whom it followed.
    let held = greeting.held.iter().chain(&greeting.marks).map(|(position, _)| *position).max();
    if let Some(held) = held.filter(|held| held.generation > head.generation) {
        metrics::counter!("cinnabar_feed_generations_refused_total").increment(1);
        tracing::error!(%held, %head, "an edge follows a newer generation: this control plane was replaced by a recovery and must be stopped");
        let message = format!("this control plane is of generation {}, which a recovery has replaced", head.generation);
        return Err(refuse(RefusedKind::Generation, message));
    }
    match greeting.marks.iter().find(|(position, hash)| publisher.contradicts(*position, *hash)) {
        Some((position, _)) => Err(fork(*position)),
        None => Ok(()),
    }
}

/// The cluster's feature level; zero before it was begun.
pub(crate) fn level_in_force(state: &Propagated) -> FeatureLevel {
    state.settings().ok().flatten().map(|settings| settings.feature_level).unwrap_or_default()
}

/// A revoked node is cut: at the start, and whenever the registry changes ([`revoked`]). A node without a record was let in by the transport.
fn admit(publisher: &Publisher, node: NodeId) -> Result<(), ServeEnd> {
    match publisher.state().propagated().node(node) {
        Ok(Some(record)) if record.revoked.is_some() => Err(refuse(RefusedKind::Revoked, "the node has been revoked")),
        Ok(_) => Ok(()),
        Err(_) => Err(refuse(RefusedKind::Unavailable, "the node's record cannot be read here")),
    }
}

/// A node that knows less than the level in force could not go on: at the start, and whenever the level rises ([`revoked`]).
fn follows(publisher: &Publisher, level: FeatureLevel) -> Result<(), ServeEnd> {
    let in_force = level_in_force(publisher.state().propagated());
    if level >= in_force {
        return Ok(());
    }
    let message = format!("the cluster is at feature level {in_force}, the node knows {level}: upgrade it");
    Err(refuse(RefusedKind::FeatureLevel, message))
}

/// Ends the stream when its node is revoked, or knows too little from now on, also while a send waits for it.
async fn revoked(mut registry: Changes<u64>, publisher: &Publisher, node: NodeId, level: FeatureLevel) -> Result<Never, ServeEnd> {
    loop {
        registry.changed().await;
        admit(publisher, node)?;
        follows(publisher, level)?;
    }
}

/// Acknowledgements, until the stream ends or this stream is no longer the node's newest.
async fn up(receiver: &mut dyn RecvHalf<SubscribeUp>, publisher: &Arc<Publisher>, claim: &StreamClaim) -> Result<Never, ServeEnd> {
    loop {
        let message = receiver.recv().await.map_err(ServeEnd::Closed)?;
        let Some(Up::Ack(ack)) = message.message else {
            return Err(refuse(RefusedKind::Protocol, "only acknowledgements follow the hello"));
        };
        let Some(position) = ack.position.map(position_in) else {
            return Err(refuse(RefusedKind::Protocol, "an acknowledgement without a position"));
        };
        let hash = hash_in(&ack.chain_hash).map_err(|_| refuse(RefusedKind::Protocol, "an acknowledgement's hash has not 32 bytes"))?;
        if position > publisher.head() {
            return Err(refuse(RefusedKind::Protocol, format!("{position} is acknowledged, but was never sent")));
        }
        if publisher.contradicts(position, hash) {
            return Err(fork(position));
        }
        metrics::counter!("cinnabar_feed_acks_total").increment(1);
        if !claim.acknowledge(position, FeatureLevel::new(ack.feature_level)) {
            return Err(refuse(RefusedKind::Duplicate, "the node opened another stream; this one is cut"));
        }
    }
}

/// Sends what comes after where the subscriber stands, for as long as it listens.
async fn stream_down(sender: &mut Sender, publisher: &Arc<Publisher>, claim: &StreamClaim, greeting: Greeting) -> Result<Never, ServeEnd> {
    let mut woken = publisher.woken();
    let mut handed = Wake { keys: u64::MAX, ..Wake::default() };
    // A subscriber that holds nothing stands before the first change set, with the hash of nothing.
    let (mut position, mut hash) = greeting.held.unwrap_or((Position::default(), Hash::ZERO));
    let mut held = greeting.held;
    let mut resume = greeting.resume;
    let mut last_checkpoint = UnixMillis::new(0);
    let mut last_envelopes = Vec::new();
    let mut presented = false;
    loop {
        let wake = woken.look();
        if (wake.keys, wake.ticks) != (handed.keys, handed.ticks) {
            let envelopes = publisher.parts.handover.envelopes(&publisher.state(), claim.node());
            if envelopes != last_envelopes {
                last_envelopes.clone_from(&envelopes);
                sender.send(down(Message::Envelopes(proto::Envelopes { envelopes }))).await?;
            }
        }
        handed = wake;
        let next = publisher.next(position, hash).map_err(|error| refuse(RefusedKind::Unavailable, error.to_string()))?;
        match next {
            Next::Fork => return Err(fork(position)),
            Next::OtherGeneration if held.is_some() => announce(sender, publisher, position).await?,
            Next::Ahead => return Err(refuse(RefusedKind::Behind, format!("this node stands at {}, before {position}", publisher.head()))),
            _ if !presented => {
                // Its history is ours as far as known here: what it presents counts from now on.
                presented = true;
                present(claim, &greeting);
            }
            _ => {}
        }
        match next {
            Next::Frames(frames, end) => {
                for frame in &*frames {
                    sender.send(frame.clone()).await?;
                }
                if mutation::is_on(Mutation::ReceiptEarly) {
                    claim.acknowledge(end.position, greeting.level);
                }
                (position, hash) = (end.position, end.chain_hash);
                held = Some((position, hash));
                // Also where writes never pause: it is the checkpoints from which age counts.
                send_checkpoint(sender, publisher, position, &mut last_checkpoint).await?;
                continue;
            }
            Next::Current => {
                send_checkpoint(sender, publisher, position, &mut last_checkpoint).await?;
                woken.changed().await;
                continue;
            }
            Next::Behind | Next::OtherGeneration | Next::Fork | Next::Ahead => {}
        }
        let cut = plan(publisher, resume, held).await?;
        let first_chunk = resume.filter(|(at, root, _)| (*at, *root) == (cut.position(), cut.state_root())).map_or(0, |(_, _, next)| next);
        send_snapshot(sender, publisher, &cut, first_chunk).await?;
        (position, hash) = (cut.position(), cut.chain_hash());
        held = Some((position, hash));
        resume = None;
    }
}

/// Takes up what a subscriber presents, and says so when it is less than it acknowledged.
fn present(claim: &StreamClaim, greeting: &Greeting) {
    let held = greeting.held.map(|(position, _)| position);
    if mutation::is_on(Mutation::BackupUnnoticed) {
        return;
    }
    if let Some(from) = claim.present(held, greeting.shown) {
        metrics::counter!("cinnabar_feed_went_back_total").increment(1);
        tracing::error!(node = %claim.node(), acknowledged = %from, presents = ?held.map(|position| position.to_string()),
            "an edge presents less than it acknowledged: its disk was lost or restored from a copy");
    }
}

/// The newest checkpoint that vouches for no more than was sent, when there is one later than the last.
async fn send_checkpoint(sender: &mut Sender, publisher: &Publisher, position: Position, last: &mut UnixMillis) -> Result<(), ServeEnd> {
    if let Some((time, message)) = publisher.checkpoint(position, *last) {
        *last = time;
        sender.send((*message).clone()).await?;
    }
    Ok(())
}

async fn plan(
    publisher: &Arc<Publisher>,
    resume: Option<(Position, Hash, u32)>,
    base: Option<(Position, Hash)>,
) -> Result<Arc<Cut>, ServeEnd> {
    let planner = publisher.clone();
    let resume = resume.map(|(position, root, _)| (position, root));
    let cut = run_blocking(&*publisher.parts.offload, move || planner.cut(resume, base)).await;
    match cut {
        Ok(Ok(cut)) => Ok(cut),
        Ok(Err(error)) => Err(refuse(RefusedKind::Unavailable, error.to_string())),
        Err(_) => Err(refuse(RefusedKind::Unavailable, "the snapshot could not be cut")),
    }
}

/// Tells who stands in an older generation what the recovery key says of those since: by that alone it takes the snapshot that follows.
async fn announce(sender: &mut Sender, publisher: &Publisher, held: Position) -> Result<(), ServeEnd> {
    let state = publisher.state();
    let newest = state.propagated().generation();
    for generation in held.generation.get().saturating_add(1)..=newest.get() {
        let generation = Generation::new(generation);
        match generation_of(state.propagated(), generation) {
            Ok(Some(signed)) => {
                let begun = proto::GenerationBegun { signed_encoded: signed.encode() };
                sender.send(down(Message::Generation(begun))).await?;
            }
            // The newest alone says all that must be known.
            Ok(None) if generation < newest => {}
            Ok(None) | Err(_) => {
                metrics::counter!("cinnabar_feed_generations_refused_total").increment(1);
                tracing::error!(%held, %newest, "an edge follows an older generation, and there is no statement of the recovery key for this one");
                let message = format!("generation {newest} is followed here, and no statement of the recovery key for it is there");
                return Err(refuse(RefusedKind::Generation, message));
            }
        }
    }
    Ok(())
}

async fn send_snapshot(sender: &mut Sender, publisher: &Publisher, cut: &Arc<Cut>, first_chunk: u32) -> Result<(), ServeEnd> {
    let marks = marks_out(&publisher.marks_until(cut.position()));
    sender.send(down(Message::SnapshotBegin(proto::SnapshotBegin { marks, ..cut.begin(first_chunk) }))).await?;
    for index in first_chunk..cut.chunks() {
        let chunk = cut.chunk(index).ok_or_else(|| refuse(RefusedKind::Unavailable, "a snapshot's chunk cannot be made"))?;
        metrics::counter!("cinnabar_feed_snapshot_sent_bytes_total").increment(chunk.records.len() as u64);
        sender.send(down(Message::SnapshotChunk(chunk))).await?;
    }
    sender.send(down(Message::SnapshotEnd(proto::SnapshotEnd {}))).await
}

/// The sending half with its deadline.
struct Sender {
    half: Box<dyn SendHalf<SubscribeDown>>,
    publisher: Arc<Publisher>,
    within: Duration,
}

impl Sender {
    /// Sends, or gives the subscriber up. A send that was given up may have happened or not, so the stream must end.
    async fn send(&mut self, message: SubscribeDown) -> Result<(), ServeEnd> {
        tokio::select! {
            biased;
            sent = self.half.send(message) => sent.map_err(ServeEnd::Closed),
            () = self.publisher.parts.clock.sleep(self.within) => Err(refuse(RefusedKind::TooSlow, "the subscriber does not read")),
        }
    }
}

fn refuse(kind: RefusedKind, message: impl Into<String>) -> ServeEnd {
    ServeEnd::Refused { kind, message: message.into() }
}

fn fork(position: Position) -> ServeEnd {
    metrics::counter!("cinnabar_feed_forks_total").increment(1);
    tracing::error!(%position, "an edge holds another history than this node: a fork");
    refuse(RefusedKind::Fork, format!("another history at {position}"))
}

/// How long a refused subscriber should stay away from this node.
const fn retry_after(kind: RefusedKind) -> u64 {
    match kind {
        RefusedKind::Revoked | RefusedKind::Fork | RefusedKind::Generation | RefusedKind::WrongCluster | RefusedKind::UnknownChain => {
            60_000
        }
        RefusedKind::NotRegistered | RefusedKind::FeatureLevel | RefusedKind::Duplicate => 10_000,
        _ => 0,
    }
}

pub(crate) fn position_out(position: Position) -> proto::FeedPosition {
    proto::FeedPosition { generation: position.generation.get(), revision: position.revision.get() }
}

pub(crate) fn position_in(position: proto::FeedPosition) -> Position {
    Position::new(Generation::new(position.generation), Revision::new(position.revision))
}

/// Most marks of a chain in one message.
const MARKS_MAX: usize = 8;

pub(crate) fn marks_out(marks: &[ChainMark]) -> Vec<proto::ChainMark> {
    let out = |(position, hash): &ChainMark| proto::ChainMark {
        position: Some(position_out(*position)),
        chain_hash: Bytes::copy_from_slice(hash.as_bytes()),
    };
    marks.iter().map(out).collect()
}

/// The marks of a message, as far as they are any and lie at or before a position of its generation.
pub(crate) fn marks_in(marks: &[proto::ChainMark], until: Position) -> Vec<ChainMark> {
    let known = marks.iter().take(MARKS_MAX).filter_map(|mark| Some((position_in(mark.position?), hash_in(&mark.chain_hash).ok()?)));
    known.filter(|(position, _)| *position <= until).collect()
}

pub(crate) fn hash_in(bytes: &[u8]) -> Result<Hash, std::array::TryFromSliceError> {
    bytes.try_into().map(Hash::from_bytes)
}

/// Whether a cluster id on the wire is ours.
pub(crate) fn is_cluster(bytes: &[u8], cluster: ClusterId) -> bool {
    bytes == cluster.as_bytes()
}
