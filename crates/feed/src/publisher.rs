//! What a control node publishes: the window, one seal per tip, one checkpoint per tick, and a wake-up for whoever streams.
//!
//! Consensus calls [`Publisher::applied`] and [`Publisher::ticked`]; both move pointers and return. Signing is left to the first
//! subscriber that needs the signature and kept for the others, so a node without edges signs nothing and a node with a
//! thousand signs once. Frames are kept the same way: subscribers at the same point send the same bytes.
//!
//! **Invariants**
//! 1. What is sealed was applied here, and the seal's chain hash and state root are of one state.
//! 2. A checkpoint is signed only for a tick that was applied here, when this node's clock agrees with it to a second.
//! 3. `applied` and `ticked` wait for no edge: they take one short lock and never the signing lock.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use seams::Clock;
use state::{ChangeSet, CheckpointStatement, Keyspace, Propagated, SealStatement, State};
use types::{ChainId, ClusterId, Hash, NodeId, Position, UnixMillis};
use wire::internal::{self as proto, SubscribeDown, subscribe_down::Message};

use crate::{
    Acks, Cut, Offload, SigningKey,
    changes::{Changes, Changing},
    window::{After, SealPoint, Tail, Window, WindowLimits},
};

/// What a publisher is made with.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// This control node, under which its key stands in the signer set.
    pub node: NodeId,
    /// How much the window holds.
    pub window: WindowLimits,
    /// About how many bytes one batch holds; more only when one applied run is larger.
    pub batch_bytes_max: usize,
    /// About how many bytes of records one chunk of a snapshot holds.
    pub chunk_bytes: usize,
    /// Most snapshots that are held for streams that are receiving or resuming them.
    pub cuts_max: usize,
    /// How far this node's clock may be from a tick it signs.
    pub skew_max: Duration,
    /// Most streams at once.
    pub subscribers_max: usize,
}

impl PublisherOptions {
    /// The defaults for a node of a cluster: batches of 1 MiB, chunks of 256 KiB, 4 cuts, a second of skew, 10,000 streams.
    pub fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self {
            cluster,
            node,
            window: WindowLimits::default(),
            batch_bytes_max: 1 << 20,
            chunk_bytes: 256 << 10,
            cuts_max: 4,
            skew_max: Duration::from_secs(1),
            subscribers_max: 10_000,
        }
    }
}

/// Hands key envelopes to a node that subscribes, and again whenever a key epoch changes. They pass through unread.
pub trait Handover: Send + Sync + 'static {
    /// The envelopes for `node` out of `state`. Must not block.
    fn envelopes(&self, state: &State, node: NodeId) -> Vec<proto::Envelope>;
}

/// Hands over nothing: for relays, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHandover;

impl Handover for NoHandover {
    fn envelopes(&self, _state: &State, _node: NodeId) -> Vec<proto::Envelope> {
        Vec::new()
    }
}

/// What a publisher works with.
pub struct PublisherParts {
    /// For the skew check, and for deadlines of streams.
    pub clock: Arc<dyn Clock>,
    /// Where snapshots are planned, off the async threads.
    pub offload: Arc<dyn Offload>,
    /// Hands over key envelopes.
    pub handover: Arc<dyn Handover>,
    /// Where acknowledgements go.
    pub acks: Arc<Acks>,
}

/// What the subscribers of a process share.
pub struct Publisher {
    pub(crate) options: PublisherOptions,
    pub(crate) parts: PublisherParts,
    key: SigningKey,
    inner: Mutex<Inner>,
    /// Held while signing: whoever needs the same signature waits 21 us instead of making it again.
    signed: Mutex<Signed>,
    /// Held while a snapshot is planned, so that those who wait share it; taken before `inner`, never under it.
    cuts: Mutex<VecDeque<(Duration, Arc<Cut>)>>,
    streams: AtomicUsize,
    wake: Changing<Wake>,
    /// Counts changes of the node registry and the settings: streams look whether their node is revoked, whatever they are doing.
    registry: Changing<u64>,
}

/// What moves when streams have something to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wake {
    /// Counts calls.
    pub(crate) version: u64,
    /// Counts changes of key epochs: envelopes are handed over again.
    pub(crate) keys: u64,
    /// Counts ticks: envelopes can be added without a change that edges would see.
    pub(crate) ticks: u64,
}

struct Inner {
    window: Window,
    state: State,
    /// Whether this node's key stands in the signer set in force, and the node is not revoked.
    may_sign: bool,
    /// The newest ticks, newest last; bounded by [`KEPT`]. A subscriber that is always a little behind gets an older one.
    ticks: VecDeque<(SealPoint, UnixMillis)>,
}

/// Signatures and frames made, newest last; bounded by [`KEPT`].
#[derive(Default)]
struct Signed {
    seals: VecDeque<(SealPoint, Bytes)>,
    frames: VecDeque<(Run, Arc<[SubscribeDown]>)>,
    checkpoints: VecDeque<(UnixMillis, Arc<SubscribeDown>)>,
}

/// The first position before a run of change sets, and its end.
type Run = (Position, Position);

/// Signatures and frames kept: subscribers that are up to date ask for the newest, those that catch up walk at their own pace.
const KEPT: usize = 32;

/// How long a snapshot is held for streams that resume it, or for a second one that holds only what has changed since: it keeps
/// records in memory that have been replaced.
const CUT_KEPT: Duration = Duration::from_secs(600);

/// What to send to a subscriber that stands at some position.
pub(crate) enum Next {
    /// These messages, in order; then it stands at this point.
    Frames(Arc<[SubscribeDown]>, SealPoint),
    /// Nothing.
    Current,
    /// A snapshot.
    Behind,
    /// Nothing: it knows more than this node.
    Ahead,
    /// Nothing ever: it has another history.
    Fork,
    /// Nothing: another generation.
    OtherGeneration,
}

/// This node's key is not in the signer set in force, or the node is revoked: it cannot seal.
#[derive(Debug, thiserror::Error)]
#[error(
    "this control node's key is not in the signer set in force yet, or it was revoked: it cannot seal what it would serve; ask another"
)]
pub(crate) struct NoSigner;

impl Publisher {
    /// A publisher that begins at `state`.
    pub fn new(options: PublisherOptions, key: SigningKey, parts: PublisherParts, state: &State) -> Arc<Self> {
        let tip = seal_point(state.propagated());
        let may_sign = is_signer(&options, &key, state.propagated());
        let mut window = Window::new(options.window, tip);
        window.restore_marks(beginning_of(state.propagated()));
        let inner = Inner { window, state: state.clone(), may_sign, ticks: VecDeque::new() };
        Arc::new(Self {
            options,
            parts,
            key,
            inner: Mutex::new(inner),
            signed: Mutex::default(),
            cuts: Mutex::default(),
            streams: AtomicUsize::new(0),
            wake: Changing::new(Wake::default()),
            registry: Changing::new(0),
        })
    }

    /// Everything before is void: the state was replaced by a snapshot of the leader's.
    pub fn replaced(&self, state: &State) {
        let mut inner = self.lock();
        // The marks stay: a fork against them must be seen also after a replacement.
        inner.window.push(&[], seal_point(state.propagated()));
        inner.window.restore_marks(beginning_of(state.propagated()));
        inner.may_sign = is_signer(&self.options, &self.key, state.propagated());
        inner.state = state.clone();
        inner.ticks.clear();
        drop(inner);
        self.registry.change(|version| *version += 1);
        self.woke(1, 0);
    }

    /// Change sets were applied, and `state` follows the last of them. Never waits for a stream.
    pub fn applied(&self, sets: &[Arc<ChangeSet>], state: &State) {
        if sets.is_empty() {
            // Control-only records changed, key envelopes perhaps; no edge has to hear of it at once.
            self.lock().state = state.clone();
            return;
        }
        let touches = |keyspaces: &[Keyspace]| {
            let mut changes = sets.iter().flat_map(|set| &set.changes);
            changes.any(|change| change.key.as_bytes().first().is_some_and(|first| keyspaces.iter().any(|k| k.number() == *first)))
        };
        let keys = u64::from(touches(&[Keyspace::KekEpoch]));
        let nodes = touches(&[Keyspace::Node, Keyspace::Settings]);
        let signers = touches(&[Keyspace::Settings, Keyspace::SignerSet, Keyspace::Node]);
        let mut inner = self.lock();
        inner.state = state.clone();
        if signers {
            inner.may_sign = is_signer(&self.options, &self.key, state.propagated());
        }
        let may_sign = inner.may_sign;
        inner.window.push_run(sets, seal_point(state.propagated()), may_sign);
        metrics::gauge!("cinnabar_feed_window_bytes").set(inner.window.bytes() as f64);
        drop(inner);
        if nodes {
            self.registry.change(|version| *version += 1);
        }
        self.woke(keys, 0);
    }

    /// A tick of `time` was applied, and `state` follows it. When this node's clock is further off than a second, the tick is
    /// not vouched for: either this node replays an old log, or a clock is wrong.
    pub fn ticked(&self, state: &State, time: UnixMillis) {
        let wall = self.parts.clock.wall();
        let skew = wall.since(time).max(time.since(wall));
        if skew > self.options.skew_max {
            metrics::counter!("cinnabar_feed_checkpoints_unsigned_total").increment(1);
            tracing::warn!(skew_ms = skew.as_millis() as u64, "a tick is too far from this node's clock: no checkpoint is signed for it");
            return;
        }
        let point = seal_point(state.propagated());
        let mut inner = self.lock();
        inner.state = state.clone();
        if inner.ticks.back().is_none_or(|(_, before)| *before < time) {
            keep(&mut inner.ticks, (point, time));
        }
        drop(inner);
        // Whoever plans a snapshot now forgets what is old itself.
        if let Ok(mut cuts) = self.cuts.try_lock() {
            self.forget_old(&mut cuts);
        }
        self.woke(0, 1);
    }

    /// How far this node's chain goes.
    pub fn head(&self) -> Position {
        self.lock().window.tip().position
    }

    /// Signs a statement of another kind than the feed's as this node; none where `state` does not have it as a signer.
    pub fn sign<T: state::Statement>(&self, statement: T, state: &State) -> Option<state::Signed<T>> {
        let set = crate::sign::set_in_force(state.propagated());
        is_signer(&self.options, &self.key, state.propagated()).then(|| self.key.sign(statement, self.options.node, set))
    }

    /// This node's signature over the signer set that is to follow the one in force.
    pub fn sign_signer_set(&self, next: &state::record::SignerSetRecord) -> state::record::SetSignature {
        crate::sign_signer_set(&self.key, self.options.node, self.options.cluster, next)
    }

    /// The acknowledgements of this node's subscribers.
    pub fn acks(&self) -> &Arc<Acks> {
        &self.parts.acks
    }

    /// The sparse marks of the chain, for the owner to keep across restarts.
    pub fn marks(&self) -> Vec<(Position, Hash)> {
        self.lock().window.marks().collect()
    }

    /// Gives back marks kept before a restart.
    pub fn restore_marks(&self, marks: impl IntoIterator<Item = (Position, Hash)>) {
        self.lock().window.restore_marks(marks);
    }

    /// Streams now open.
    pub fn subscribers(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    pub(crate) fn woken(&self) -> Changes<Wake> {
        self.wake.changes()
    }

    /// For waiting for changes of the node registry.
    pub(crate) fn registry(&self) -> Changes<u64> {
        self.registry.changes()
    }

    fn woke(&self, keys: u64, ticks: u64) {
        self.wake.change(|wake| {
            *wake = Wake { version: wake.version + 1, keys: wake.keys + keys, ticks: wake.ticks + ticks };
        });
    }

    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// A place for one more stream, or none when there are too many.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<StreamPlace> {
        let room = |open: usize| (open < self.options.subscribers_max).then_some(open + 1);
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        metrics::gauge!("cinnabar_feed_subscribers").set(self.subscribers() as f64);
        Some(StreamPlace(self.clone()))
    }

    /// What the chain has after a position; the hash is the subscriber's there.
    pub(crate) fn next(&self, position: Position, hash: Hash) -> Result<Next, NoSigner> {
        let inner = self.lock();
        let after = inner.window.after(position, hash, self.options.batch_bytes_max);
        let may_sign = inner.may_sign;
        drop(inner);
        Ok(match after {
            After::Tail(_) | After::Current | After::Behind if !may_sign => return Err(NoSigner),
            After::Tail(tail) => {
                let end = tail.end;
                Next::Frames(self.frames(position, &tail), end)
            }
            After::Current => Next::Current,
            After::Behind => Next::Behind,
            After::Ahead => Next::Ahead,
            After::Fork { .. } => Next::Fork,
            After::OtherGeneration => Next::OtherGeneration,
        })
    }

    /// The hash this node has for a position, when it contradicts `hash`.
    pub(crate) fn contradicts(&self, position: Position, hash: Hash) -> bool {
        matches!(self.lock().window.after(position, hash, 0), After::Fork { .. })
    }

    /// Whether this node can seal what it serves.
    pub(crate) fn may_serve(&self) -> Result<(), NoSigner> {
        if self.lock().may_sign { Ok(()) } else { Err(NoSigner) }
    }

    /// Marks of the chain up to a position, for who is brought there by a snapshot.
    pub(crate) fn marks_until(&self, position: Position) -> Vec<(Position, Hash)> {
        self.lock().window.marks_until(position)
    }

    /// The newest checkpoint, when it is later than `after` and vouches for no more than `position`.
    pub(crate) fn checkpoint(&self, position: Position, after: UnixMillis) -> Option<(UnixMillis, Arc<SubscribeDown>)> {
        let inner = self.lock();
        // Under a newer signer set than the tick's, the next tick is waited for: a signature under an old set would be refused.
        let in_force = inner.window.tip().signer_set;
        let fits = |point: &SealPoint| point.position <= position && point.signer_set == in_force;
        let newer = inner.ticks.iter().rev().take_while(|(_, time)| inner.may_sign && *time > after);
        let (point, time) = newer.copied().find(|(point, _)| fits(point))?;
        drop(inner);
        let mut signed = self.signed();
        if let Some((_, message)) = signed.checkpoints.iter().rev().find(|(made, _)| *made == time) {
            return Some((time, message.clone()));
        }
        let SealStatement { cluster, chain, position, chain_hash, state_root } = self.statement(point);
        let statement = CheckpointStatement { cluster, chain, position, chain_hash, state_root, time };
        let checkpoint_encoded = self.key.sign(statement, self.options.node, point.signer_set).encode();
        let message = Arc::new(down(Message::Checkpoint(proto::Checkpoint { checkpoint_encoded })));
        metrics::counter!("cinnabar_feed_checkpoints_signed_total").increment(1);
        keep(&mut signed.checkpoints, (time, message.clone()));
        Some((time, message))
    }

    /// A snapshot to send: the one to be resumed if it is still held, else one that the window still reaches, else a new one.
    /// `base` is what the subscriber holds, when a cut of it is held: then only what differs is sent. Blocks for a scan of the state.
    pub(crate) fn cut(&self, resume: Option<(Position, Hash)>, base: Option<(Position, Hash)>) -> Result<Arc<Cut>, NoSigner> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_old(&mut cuts);
        let inner = self.lock();
        if !inner.may_sign {
            return Err(NoSigner);
        }
        let state = inner.state.propagated().clone();
        // What the window does not reach any more would be followed by another snapshot at once.
        let reached = |cut: &Arc<Cut>| inner.window.reaches(cut.position(), cut.chain_hash());
        let reached: Vec<Position> = cuts.iter().map(|(_, cut)| cut).filter(|cut| reached(cut)).map(|cut| cut.position()).collect();
        drop(inner);
        let mut kept = cuts.iter().rev().map(|(_, cut)| cut);
        if let Some(cut) = kept.clone().find(|cut| resume == Some((cut.position(), cut.state_root()))) {
            return Ok(cut.clone());
        }
        let base = base.and_then(|held| kept.clone().find(|cut| held == (cut.position(), cut.chain_hash())).cloned());
        let at = base.as_ref().map(|base| base.position());
        if let Some(cut) = kept.find(|cut| cut.base() == at && reached.contains(&cut.position())) {
            return Ok(cut.clone());
        }
        let seal = self.seal(seal_point(&state));
        let cut = Arc::new(Cut::new(state, seal, base.as_ref().map(|base| (base.position(), base.state())), self.options.chunk_bytes));
        metrics::counter!("cinnabar_feed_snapshots_cut_total").increment(1);
        if cuts.len() >= self.options.cuts_max.max(1) {
            cuts.pop_front();
        }
        cuts.push_back((self.parts.clock.monotonic(), cut.clone()));
        Ok(cut)
    }

    fn forget_old(&self, cuts: &mut VecDeque<(Duration, Arc<Cut>)>) {
        let now = self.parts.clock.monotonic();
        cuts.retain(|(made, _)| now.saturating_sub(*made) <= CUT_KEPT);
    }

    /// The messages of a run: one per [`PublisherOptions::batch_bytes_max`] bytes, the seal in the last. Made once for all.
    fn frames(&self, from: Position, tail: &Tail) -> Arc<[SubscribeDown]> {
        let run = (from, tail.end.position);
        let mut signed = self.signed();
        if let Some((_, frames)) = signed.frames.iter().rev().find(|(kept, _)| *kept == run) {
            return frames.clone();
        }
        let seal_encoded = self.seal_with(&mut signed, tail.end);
        let mut batches = vec![proto::Batch::default()];
        let mut bytes = 0;
        for set in &tail.sets {
            let encoded = set.encoded.clone();
            if bytes > 0 && bytes + encoded.len() > self.options.batch_bytes_max {
                batches.push(proto::Batch::default());
                bytes = 0;
            }
            bytes += encoded.len();
            if let Some(batch) = batches.last_mut() {
                batch.change_sets_encoded.push(encoded);
            }
        }
        if let Some(last) = batches.last_mut() {
            last.seal_encoded = seal_encoded;
        }
        let frames: Arc<[SubscribeDown]> = batches.into_iter().map(|batch| down(Message::Batch(batch))).collect();
        keep(&mut signed.frames, (run, frames.clone()));
        frames
    }

    fn seal(&self, point: SealPoint) -> Bytes {
        self.seal_with(&mut self.signed(), point)
    }

    fn seal_with(&self, signed: &mut Signed, point: SealPoint) -> Bytes {
        if let Some((_, seal)) = signed.seals.iter().rev().find(|(kept, _)| *kept == point) {
            return seal.clone();
        }
        let seal = self.key.sign(self.statement(point), self.options.node, point.signer_set).encode();
        metrics::counter!("cinnabar_feed_seals_signed_total").increment(1);
        keep(&mut signed.seals, (point, seal.clone()));
        seal
    }

    fn statement(&self, point: SealPoint) -> SealStatement {
        SealStatement {
            cluster: self.options.cluster,
            chain: CHAIN,
            position: point.position,
            chain_hash: point.chain_hash,
            state_root: point.state_root,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signed(&self) -> MutexGuard<'_, Signed> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open stream's place among the most that are allowed.
pub(crate) struct StreamPlace(Arc<Publisher>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("cinnabar_feed_subscribers").set(self.0.subscribers() as f64);
    }
}

/// The one chain of today.
pub(crate) const CHAIN: ChainId = ChainId::new(0);

pub(crate) fn down(message: Message) -> SubscribeDown {
    SubscribeDown { message: Some(message) }
}

pub(crate) fn seal_point(state: &Propagated) -> SealPoint {
    SealPoint {
        position: state.position(),
        chain_hash: state.chain_hash(),
        state_root: state.state_root(),
        signer_set: crate::sign::set_in_force(state),
    }
}

/// Where the generation of a state began, as a mark: two that were begun from one are told apart by it.
fn beginning_of(state: &Propagated) -> Option<(Position, Hash)> {
    let signed = crate::sign::generation_of(state, state.generation()).ok().flatten()?;
    Some((signed.statement.begins, signed.statement.chain_hash))
}

fn is_signer(options: &PublisherOptions, key: &SigningKey, state: &Propagated) -> bool {
    crate::sign::may_sign(state, options.node, &key.public())
}

fn keep<T>(kept: &mut VecDeque<T>, new: T) {
    if kept.len() >= KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}
