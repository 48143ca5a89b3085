//! Streams in memory: bounded both ways, cut on demand.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
};

use feed::{Publisher, ServeEnd, Session, serve_subscriber};
use seams::{BoxFuture, Dial, DialError, Link, LinkClosed, RecvHalf, SendHalf};
use tokio::sync::mpsc;
use types::NodeId;
use wire::internal::{SubscribeDown, SubscribeUp};

struct Sending<M>(mpsc::Sender<M>);
struct Receiving<M>(mpsc::Receiver<M>);

fn gone() -> LinkClosed {
    LinkClosed { reason: "the other side is gone".into() }
}

impl<M: Send + 'static> SendHalf<M> for Sending<M> {
    fn send(&mut self, message: M) -> BoxFuture<'_, Result<(), LinkClosed>> {
        Box::pin(async move { self.0.send(message).await.map_err(|_| gone()) })
    }
}

impl<M: Send + 'static> RecvHalf<M> for Receiving<M> {
    fn recv(&mut self) -> BoxFuture<'_, Result<M, LinkClosed>> {
        Box::pin(async move { self.0.recv().await.ok_or_else(gone) })
    }
}

/// The raw ends of one direction each, on the other side of a link.
pub struct Line<Out, In> {
    pub sender: mpsc::Sender<Out>,
    pub receiver: mpsc::Receiver<In>,
}

/// A link and the raw ends on its other side. `room` messages fit into each direction.
pub fn line<Out: Send + 'static, In: Send + 'static>(room: usize) -> (Link<Out, In>, Line<In, Out>) {
    let (out, out_end) = mpsc::channel(room);
    let (in_end, incoming) = mpsc::channel(room);
    let link = Link { sender: Box::new(Sending(out)), receiver: Box::new(Receiving(incoming)), peer: "memory".into() };
    (link, Line { sender: in_end, receiver: out_end })
}

/// A link pair of which the control side is served by a task.
pub fn served(
    publisher: &Arc<Publisher>,
    node: NodeId,
    room: usize,
) -> (Link<SubscribeUp, SubscribeDown>, tokio::task::JoinHandle<ServeEnd>) {
    let (link, ends) = line(room);
    let server = Link { sender: Box::new(Sending(ends.sender)), receiver: Box::new(Receiving(ends.receiver)), peer: "edge".into() };
    let serving = tokio::spawn(serve_subscriber(server, publisher.clone(), Session::new(node)));
    (link, serving)
}

/// Hands out links that were put in; refuses when there are none.
#[derive(Clone, Default)]
pub struct Dialer(Arc<Mutex<VecDeque<Link<SubscribeUp, SubscribeDown>>>>);

impl Dialer {
    pub fn add(&self, link: Link<SubscribeUp, SubscribeDown>) {
        self.0.lock().unwrap().push_back(link);
    }
}

impl Dial<SubscribeUp, SubscribeDown> for Dialer {
    fn dial(&self) -> BoxFuture<'_, Result<Link<SubscribeUp, SubscribeDown>, DialError>> {
        let next = self.0.lock().unwrap().pop_front();
        let refused = || DialError { peer: "nobody".into(), source: Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)) };
        Box::pin(async move { next.ok_or_else(refused) })
    }
}
