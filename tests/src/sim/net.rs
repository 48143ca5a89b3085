//! The network: ordered streams between edges and voters, with delay, cut one way, or broken; and who is cut off from whom.
//!
//! What a stream carries arrives in order, each message after a random delay, like bytes over TCP. A cut of one direction holds back
//! what is sent that way, the end of the stream included, until it is healed. A break loses what is under way, and both sides see it.
//! The buffer of a stream is bounded: a sender waits while the other side does not read. Calls between voters are in `peers`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use consensus::Consensus;
use openraft::AsyncRuntime;
use openraft_rt_sim::{SimRuntime, SimSleep};
use seams::{BoxFuture, Dial, DialError, Entropy, Link, LinkClosed, RecvHalf, SendHalf, sim::SimEntropy};
use tokio::sync::Notify;
use types::NodeId;
use wire::internal::{SubscribeDown, SubscribeUp, subscribe_down::Message as Down, subscribe_up::Message as Up};

use super::{
    clock::elapsed,
    history::History,
    runtime::{Process, lock},
};

/// Messages that one direction of a stream holds.
const BUFFER: usize = 8;
/// How long a stream to somebody who is cut off is tried.
const CONNECT_MAX: Duration = Duration::from_millis(1_500);

/// What a voter does with a stream that an edge has opened.
pub(super) type Accept = Arc<dyn Fn(NodeId, Link<SubscribeDown, SubscribeUp>) + Send + Sync>;

/// Changes what goes down a stream: none, one or several messages in the place of one.
pub(super) type Tamper = Box<dyn FnMut(SubscribeDown) -> Vec<SubscribeDown> + Send>;

/// What a message is, in the history.
trait Told: Send {
    fn told(&self) -> String;
}

impl Told for SubscribeUp {
    fn told(&self) -> String {
        match &self.message {
            Some(Up::Hello(hello)) => format!("hello at {:?}, resumes {:?}", hello.position, hello.resume),
            Some(Up::Ack(ack)) => format!("ack of {:?}", ack.position.map(|at| at.revision)),
            None => "nothing".to_owned(),
        }
    }
}

impl Told for SubscribeDown {
    fn told(&self) -> String {
        match &self.message {
            Some(Down::Welcome(welcome)) => format!("welcome at {:?}", welcome.head.map(|at| at.revision)),
            Some(Down::Batch(batch)) => format!("batch of {}, seal {}", batch.change_sets_encoded.len(), !batch.seal_encoded.is_empty()),
            Some(Down::Checkpoint(_)) => "checkpoint".to_owned(),
            Some(Down::SnapshotBegin(begin)) => {
                format!("snapshot of {:?} from chunk {} of {}", begin.position.map(|at| at.revision), begin.first_chunk, begin.chunks)
            }
            Some(Down::SnapshotChunk(chunk)) => format!("chunk {} with {} buckets", chunk.index, chunk.proof.len() / 2),
            Some(Down::SnapshotEnd(_)) => "snapshot ends".to_owned(),
            Some(Down::Refused(refused)) => format!("refused: {}", refused.message),
            Some(Down::Envelopes(_) | Down::AckWanted(_) | Down::Generation(_)) => "more".to_owned(),
            None => "nothing".to_owned(),
        }
    }
}

/// The network. Clones share it.
#[derive(Clone)]
pub(super) struct Network(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    entropy: SimEntropy,
    history: History,
    /// The longest usual delay of a message, in microseconds.
    delay_us: u64,
    /// A chunk of a snapshot file has arrived somewhere.
    snapshot: Notify,
}

#[derive(Default)]
struct State {
    /// Who takes streams of edges, and how.
    accept: BTreeMap<NodeId, Accept>,
    /// Voters that run.
    voters: BTreeMap<NodeId, Endpoint>,
    /// What edges are configured to dial.
    directory: Vec<NodeId>,
    /// From whom to whom nothing gets through.
    cut: BTreeSet<(NodeId, NodeId)>,
    tamper: BTreeMap<NodeId, Tamper>,
    /// The pipes that may still be in use.
    pipes: Vec<Arc<dyn Pipe>>,
    /// Who waits for a cut to be healed before a stream opens.
    dialling: Vec<Waker>,
    weather: Weather,
    /// The faults are over.
    healed: bool,
    /// Who got the last chunk of a snapshot file.
    snapshot_to: Option<NodeId>,
}

/// How bad the network is, beside its cuts.
#[derive(Clone, Copy, Default)]
pub(super) struct Weather {
    /// Of a hundred calls between voters so many get lost.
    pub(super) loss_percent: u64,
    /// All delays are so many times longer, and once more.
    pub(super) slow: u64,
}

/// A voter that runs, for its peers.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) process: Process,
    pub(super) consensus: Consensus,
}

/// What the network does to a pipe whatever it carries.
trait Pipe: Send + Sync {
    fn wake(&self);
    fn sever(&self);
    fn ended(&self) -> bool;
    fn touches(&self, node: NodeId) -> bool;
}

struct Direction<M> {
    from: NodeId,
    to: NodeId,
    network: Network,
    flow: Mutex<Flow<M>>,
}

struct Flow<M> {
    queue: VecDeque<(Duration, M)>,
    /// When the newest message arrives: none overtakes it.
    newest: Duration,
    /// The sending half was dropped: the end comes after what is queued.
    finished: bool,
    /// The receiving half was dropped.
    unread: bool,
    severed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl<M: Told> Pipe for Direction<M> {
    fn wake(&self) {
        let (reader, writer) = {
            let mut flow = lock(&self.flow);
            (flow.reader.take(), flow.writer.take())
        };
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }

    fn sever(&self) {
        let lost = {
            let mut flow = lock(&self.flow);
            flow.severed = true;
            std::mem::take(&mut flow.queue)
        };
        drop(lost);
        self.wake();
    }

    fn ended(&self) -> bool {
        let flow = lock(&self.flow);
        flow.severed || flow.finished && flow.unread
    }

    fn touches(&self, node: NodeId) -> bool {
        self.from == node || self.to == node
    }
}

fn closed(reason: &str) -> LinkClosed {
    LinkClosed { reason: reason.to_owned() }
}

impl<M: Told> Direction<M> {
    fn new(network: &Network, from: NodeId, to: NodeId) -> Arc<Self> {
        let flow = Flow {
            queue: VecDeque::new(),
            newest: Duration::ZERO,
            finished: false,
            unread: false,
            severed: false,
            reader: None,
            writer: None,
        };
        Arc::new(Self { from, to, network: network.clone(), flow: Mutex::new(flow) })
    }

    fn poll_send(&self, message: &mut Option<M>, context: &mut Context<'_>) -> Poll<Result<(), LinkClosed>> {
        let hears = !self.network.is_cut(self.to, self.from);
        let delay = self.network.delay();
        let mut flow = lock(&self.flow);
        if flow.severed {
            return Poll::Ready(Err(closed("the connection broke")));
        }
        if flow.unread && hears {
            return Poll::Ready(Err(closed("the other side has closed")));
        }
        if flow.queue.len() >= BUFFER {
            flow.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let arrives = (elapsed() + delay).max(flow.newest);
        flow.newest = arrives;
        flow.queue.extend(message.take().map(|message| (arrives, message)));
        let reader = flow.reader.take();
        drop(flow);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&self, timer: &mut Option<Pin<Box<SimSleep>>>, context: &mut Context<'_>) -> Poll<Result<M, LinkClosed>> {
        let cut = self.network.is_cut(self.from, self.to);
        let mut flow = lock(&self.flow);
        if flow.severed {
            return Poll::Ready(Err(closed("the connection broke")));
        }
        flow.reader = Some(context.waker().clone());
        if cut {
            return Poll::Pending;
        }
        let now = elapsed();
        match flow.queue.front().map(|(arrives, _)| *arrives) {
            Some(arrives) if arrives <= now => {
                let message = flow.queue.pop_front().map(|(_, message)| message).ok_or_else(|| closed("nothing was there"))?;
                let writer = flow.writer.take();
                drop(flow);
                writer.into_iter().for_each(Waker::wake);
                self.network.0.history.event(format_args!("{} to {}: {}", self.from, self.to, message.told()));
                Poll::Ready(Ok(message))
            }
            Some(arrives) => {
                let timer = timer.insert(Box::pin(SimRuntime::sleep(arrives - now)));
                // Registers the timer; it cannot be ready before the clock moves.
                let _ = timer.as_mut().poll(context);
                Poll::Pending
            }
            None if flow.finished => Poll::Ready(Err(closed("the other side has closed"))),
            None => Poll::Pending,
        }
    }
}

struct Sender<M: Told>(Arc<Direction<M>>);
struct Receiver<M: Told>(Arc<Direction<M>>);

impl SendHalf<SubscribeUp> for Sender<SubscribeUp> {
    fn send(&mut self, message: SubscribeUp) -> BoxFuture<'_, Result<(), LinkClosed>> {
        let mut message = Some(message);
        Box::pin(poll_fn(move |context| self.0.poll_send(&mut message, context)))
    }
}

impl SendHalf<SubscribeDown> for Sender<SubscribeDown> {
    fn send(&mut self, message: SubscribeDown) -> BoxFuture<'_, Result<(), LinkClosed>> {
        let tampered = match lock(&self.0.network.0.state).tamper.get_mut(&self.0.to) {
            Some(tamper) => tamper(message),
            None => vec![message],
        };
        Box::pin(async move {
            for message in tampered {
                let mut message = Some(message);
                poll_fn(|context| self.0.poll_send(&mut message, context)).await?;
            }
            Ok(())
        })
    }
}

impl<M: Told> RecvHalf<M> for Receiver<M> {
    fn recv(&mut self) -> BoxFuture<'_, Result<M, LinkClosed>> {
        let mut timer = None;
        Box::pin(poll_fn(move |context| self.0.poll_recv(&mut timer, context)))
    }
}

impl<M: Told> Drop for Sender<M> {
    fn drop(&mut self) {
        lock(&self.0.flow).finished = true;
        self.0.wake();
    }
}

impl<M: Told> Drop for Receiver<M> {
    fn drop(&mut self) {
        lock(&self.0.flow).unread = true;
        self.0.wake();
    }
}

impl Network {
    /// A network on which nothing is cut.
    pub(super) fn new(seed: u64, delay_us: u64, history: History) -> Self {
        let entropy = SimEntropy::new(seed);
        Self(Arc::new(Shared { state: Mutex::default(), entropy, history, delay_us: delay_us.max(1), snapshot: Notify::new() }))
    }

    /// A voter is there from now on, and answers.
    pub(super) fn up(&self, voter: NodeId, endpoint: Endpoint, accept: Accept) {
        let mut state = lock(&self.0.state);
        state.voters.insert(voter, endpoint);
        state.accept.insert(voter, accept);
    }

    /// A voter is gone.
    pub(super) fn down(&self, voter: NodeId) {
        let gone = {
            let mut state = lock(&self.0.state);
            (state.voters.remove(&voter), state.accept.remove(&voter))
        };
        drop(gone);
    }

    /// A running voter, for its peers.
    pub(super) fn endpoint(&self, voter: NodeId) -> Option<Endpoint> {
        lock(&self.0.state).voters.get(&voter).cloned()
    }

    /// What edges are configured to dial.
    pub(super) fn configure(&self, voters: Vec<NodeId>) {
        lock(&self.0.state).directory = voters;
    }

    /// Holds back all that goes this way, streams that are to be opened included; or no more.
    pub(super) fn cut(&self, from: NodeId, to: NodeId, cut: bool) {
        {
            let mut state = lock(&self.0.state);
            let _ = if cut { state.cut.insert((from, to)) } else { state.cut.remove(&(from, to)) };
        }
        self.wake();
    }

    /// Nothing is cut any more, the weather is fine, and no chunk of a snapshot file gets lost.
    pub(super) fn heal(&self) {
        {
            let mut state = lock(&self.0.state);
            state.cut.clear();
            (state.weather, state.healed) = (Weather::default(), true);
        }
        self.wake();
    }

    pub(super) fn weather(&self, weather: Weather) {
        lock(&self.0.state).weather = weather;
    }

    fn wake(&self) {
        let woken = std::mem::take(&mut lock(&self.0.state).dialling);
        self.pipes(|_| true).iter().for_each(|pipe| pipe.wake());
        woken.into_iter().for_each(Waker::wake);
    }

    /// Breaks all streams of a node. What was under way is lost.
    pub(super) fn sever(&self, node: NodeId) {
        self.pipes(|pipe| pipe.touches(node)).iter().for_each(|pipe| pipe.sever());
    }

    /// Puts somebody between the voters and an edge; none takes them away.
    pub(super) fn tamper(&self, edge: NodeId, tamper: Option<Tamper>) {
        let mut state = lock(&self.0.state);
        match tamper {
            Some(tamper) => drop(state.tamper.insert(edge, tamper)),
            None => drop(state.tamper.remove(&edge)),
        }
    }

    /// Opens streams for an edge.
    pub(super) fn dialer(&self, edge: NodeId) -> Arc<dyn Dial<SubscribeUp, SubscribeDown>> {
        Arc::new(Dialer { network: self.clone(), edge, next: AtomicUsize::new(edge.get() as usize) })
    }

    /// Time on the way: mostly short, sometimes ten times the usual.
    pub(super) fn delay(&self) -> Duration {
        let draw = self.0.entropy.number();
        let usual = 50 + draw % self.0.delay_us;
        let rare = if (draw >> 32).is_multiple_of(20) { usual * 10 } else { usual };
        Duration::from_micros(rare * (1 + lock(&self.0.state).weather.slow))
    }

    /// Whether a call between two nodes gets lost now, by chance alone.
    pub(super) fn loses(&self) -> bool {
        let percent = lock(&self.0.state).weather.loss_percent;
        percent > 0 && self.draw(100) < percent
    }

    /// Whether a chunk of a snapshot file, or its answer, gets lost now.
    pub(super) fn loses_chunk(&self, percent: u64) -> bool {
        !lock(&self.0.state).healed && self.draw(100) < percent
    }

    pub(super) fn draw(&self, below: u64) -> u64 {
        self.0.entropy.number() % below
    }

    pub(super) fn history(&self) -> &History {
        &self.0.history
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        lock(&self.0.state).cut.contains(&(from, to))
    }

    /// A chunk of a snapshot file has come to `voter`.
    pub(super) fn snapshot_arrived(&self, voter: NodeId) {
        lock(&self.0.state).snapshot_to = Some(voter);
        self.0.snapshot.notify_waiters();
    }

    /// Who is getting a snapshot file from a peer, when the next chunk comes.
    pub(super) async fn snapshot_under_way(&self) -> Option<NodeId> {
        self.0.snapshot.notified().await;
        lock(&self.0.state).snapshot_to
    }

    fn pipes(&self, which: impl Fn(&dyn Pipe) -> bool) -> Vec<Arc<dyn Pipe>> {
        let mut state = lock(&self.0.state);
        state.pipes.retain(|pipe| !pipe.ended());
        state.pipes.iter().filter(|pipe| which(&***pipe)).cloned().collect()
    }

    fn open(&self, edge: NodeId, voter: NodeId) -> Option<Link<SubscribeUp, SubscribeDown>> {
        let accept = lock(&self.0.state).accept.get(&voter).cloned()?;
        let (up, down) = (Direction::new(self, edge, voter), Direction::new(self, voter, edge));
        self.pipes(|_| false);
        lock(&self.0.state).pipes.extend([up.clone() as Arc<dyn Pipe>, down.clone()]);
        accept(
            edge,
            Link { sender: Box::new(Sender(down.clone())), receiver: Box::new(Receiver(up.clone())), peer: format!("edge-{edge}") },
        );
        Some(Link { sender: Box::new(Sender(up)), receiver: Box::new(Receiver(down)), peer: format!("voter-{voter}") })
    }
}

struct Dialer {
    network: Network,
    edge: NodeId,
    next: AtomicUsize,
}

impl Dial<SubscribeUp, SubscribeDown> for Dialer {
    fn dial(&self) -> BoxFuture<'_, Result<Link<SubscribeUp, SubscribeDown>, DialError>> {
        Box::pin(async move {
            let failed = |peer: String, reason: &str| DialError { peer, source: reason.into() };
            let directory = lock(&self.network.0.state).directory.clone();
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(voter) = directory.get(turn % directory.len().max(1)).copied() else {
                return Err(failed("nobody".to_owned(), "nobody is configured"));
            };
            let name = format!("voter-{voter}");
            SimRuntime::sleep(self.network.delay()).await;
            let through = poll_fn(|context| {
                let mut state = lock(&self.network.0.state);
                if state.cut.contains(&(self.edge, voter)) || state.cut.contains(&(voter, self.edge)) {
                    state.dialling.push(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            });
            if SimRuntime::timeout(CONNECT_MAX, through).await.is_err() {
                return Err(failed(name, "no answer"));
            }
            let link = self.network.open(self.edge, voter);
            self.network.0.history.event(format_args!(
                "edge {} dials {voter}: {}",
                self.edge,
                if link.is_some() { "open" } else { "refused" }
            ));
            link.ok_or_else(|| failed(name, "nobody listens"))
        })
    }

    fn peers(&self) -> usize {
        lock(&self.network.0.state).directory.len().max(1)
    }
}
