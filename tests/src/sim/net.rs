//! The network between the voter and its edges: ordered streams with delay, cut one way, or broken.
//!
//! What a stream carries arrives in order, each message after a random delay, like bytes over TCP. A cut of one direction holds back
//! what is sent that way, the end of the stream included, until it is healed. A break loses what is under way, and both sides see it.
//! The buffer of a stream is bounded: a sender waits while the other side does not read.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use openraft::AsyncRuntime;
use openraft_rt_sim::{SimRuntime, SimSleep};
use seams::{BoxFuture, Dial, DialError, Entropy, Link, LinkClosed, RecvHalf, SendHalf, sim::SimEntropy};
use types::NodeId;
use wire::internal::{SubscribeDown, SubscribeUp, subscribe_down::Message as Down, subscribe_up::Message as Up};

use super::{clock::elapsed, history::History, runtime::lock};

/// Messages that one direction of a stream holds.
const BUFFER: usize = 8;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From an edge to the voter.
    Up,
    /// From the voter to an edge.
    Down,
}

/// What the voter does with a stream that an edge has opened.
pub type Accept = Arc<dyn Fn(NodeId, Link<SubscribeDown, SubscribeUp>) + Send + Sync>;

/// Changes what goes down a stream, for mutations: none, one or several messages in the place of one.
pub type Tamper = Box<dyn FnMut(SubscribeDown) -> Vec<SubscribeDown> + Send>;

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
pub struct Network(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    entropy: SimEntropy,
    history: History,
    /// The longest usual delay of a message, in microseconds.
    delay_us: u64,
}

#[derive(Default)]
struct State {
    accept: Option<Accept>,
    cut: BTreeMap<(NodeId, Way), bool>,
    tamper: BTreeMap<NodeId, Tamper>,
    /// Of each edge, the pipes that may still be in use.
    pipes: BTreeMap<NodeId, Vec<Arc<dyn Pipe>>>,
    /// Who waits for a cut to be healed before a stream opens.
    dialling: Vec<Waker>,
}

/// What the network does to a pipe whatever it carries.
trait Pipe: Send + Sync {
    fn wake(&self);
    fn sever(&self);
    fn ended(&self) -> bool;
}

struct Direction<M> {
    edge: NodeId,
    way: Way,
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
}

fn closed(reason: &str) -> LinkClosed {
    LinkClosed { reason: reason.to_owned() }
}

impl<M: Told> Direction<M> {
    fn new(network: &Network, edge: NodeId, way: Way) -> Arc<Self> {
        let flow = Flow {
            queue: VecDeque::new(),
            newest: Duration::ZERO,
            finished: false,
            unread: false,
            severed: false,
            reader: None,
            writer: None,
        };
        Arc::new(Self { edge, way, network: network.clone(), flow: Mutex::new(flow) })
    }

    fn poll_send(&self, message: &mut Option<M>, context: &mut Context<'_>) -> Poll<Result<(), LinkClosed>> {
        let back = if self.way == Way::Up { Way::Down } else { Way::Up };
        let hears = !self.network.is_cut(self.edge, back);
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
        let cut = self.network.is_cut(self.edge, self.way);
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
                self.network.0.history.event(format_args!("{:?} {}: {}", self.way, self.edge, message.told()));
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
        let tampered = match lock(&self.0.network.0.state).tamper.get_mut(&self.0.edge) {
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
    pub fn new(seed: u64, delay_us: u64, history: History) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), entropy: SimEntropy::new(seed), history, delay_us: delay_us.max(1) }))
    }

    /// The voter answers from now on, or does not.
    pub fn listen(&self, accept: Option<Accept>) {
        lock(&self.0.state).accept = accept;
    }

    /// Holds back all that goes this way, streams that are to be opened included.
    pub fn cut(&self, edge: NodeId, way: Way, cut: bool) {
        let woken = {
            let mut state = lock(&self.0.state);
            state.cut.insert((edge, way), cut);
            std::mem::take(&mut state.dialling)
        };
        self.pipes(edge).iter().for_each(|pipe| pipe.wake());
        woken.into_iter().for_each(Waker::wake);
    }

    /// Breaks all streams of an edge.
    pub fn sever(&self, edge: NodeId) {
        self.pipes(edge).iter().for_each(|pipe| pipe.sever());
    }

    /// Puts somebody between the voter and an edge; none takes them away.
    pub fn tamper(&self, edge: NodeId, tamper: Option<Tamper>) {
        let mut state = lock(&self.0.state);
        match tamper {
            Some(tamper) => drop(state.tamper.insert(edge, tamper)),
            None => drop(state.tamper.remove(&edge)),
        }
    }

    /// Opens streams for an edge.
    pub fn dialer(&self, edge: NodeId) -> Arc<dyn Dial<SubscribeUp, SubscribeDown>> {
        Arc::new(Dialer { network: self.clone(), edge })
    }

    /// Time on the way: mostly short, sometimes ten times the usual.
    pub fn delay(&self) -> Duration {
        let draw = self.0.entropy.number();
        let usual = 50 + draw % self.0.delay_us;
        Duration::from_micros(if (draw >> 32).is_multiple_of(20) { usual * 10 } else { usual })
    }

    fn is_cut(&self, edge: NodeId, way: Way) -> bool {
        lock(&self.0.state).cut.get(&(edge, way)).copied().unwrap_or(false)
    }

    fn pipes(&self, edge: NodeId) -> Vec<Arc<dyn Pipe>> {
        let mut state = lock(&self.0.state);
        let pipes = state.pipes.entry(edge).or_default();
        pipes.retain(|pipe| !pipe.ended());
        pipes.clone()
    }

    fn open(&self, edge: NodeId) -> Option<Link<SubscribeUp, SubscribeDown>> {
        let accept = lock(&self.0.state).accept.clone()?;
        let (up, down) = (Direction::new(self, edge, Way::Up), Direction::new(self, edge, Way::Down));
        self.pipes(edge);
        lock(&self.0.state).pipes.entry(edge).or_default().extend([up.clone() as Arc<dyn Pipe>, down.clone()]);
        accept(
            edge,
            Link { sender: Box::new(Sender(down.clone())), receiver: Box::new(Receiver(up.clone())), peer: format!("edge-{edge}") },
        );
        Some(Link { sender: Box::new(Sender(up)), receiver: Box::new(Receiver(down)), peer: "voter".to_owned() })
    }
}

struct Dialer {
    network: Network,
    edge: NodeId,
}

impl Dial<SubscribeUp, SubscribeDown> for Dialer {
    fn dial(&self) -> BoxFuture<'_, Result<Link<SubscribeUp, SubscribeDown>, DialError>> {
        Box::pin(async move {
            SimRuntime::sleep(self.network.delay()).await;
            poll_fn(|context| {
                let mut state = lock(&self.network.0.state);
                if [Way::Up, Way::Down].iter().any(|way| state.cut.get(&(self.edge, *way)) == Some(&true)) {
                    state.dialling.push(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            let link = self.network.open(self.edge);
            self.network.0.history.event(format_args!("{} dials: {}", self.edge, if link.is_some() { "open" } else { "refused" }));
            link.ok_or_else(|| DialError { peer: "voter".to_owned(), source: "nobody listens".into() })
        })
    }
}
