//! A two-way stream of messages between two nodes.

use std::error::Error;

use futures::future::BoxFuture;

/// The other side is gone, or the network between.
#[derive(Debug, thiserror::Error)]
#[error("the stream ended: {reason}")]
pub struct LinkClosed {
    /// Why, as far as known: what the peer said, or what the network did.
    pub reason: String,
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a stream to {peer}")]
pub struct DialError {
    /// Who was called.
    pub peer: String,
    /// The cause.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// The sending half. Bounded: a send waits while the other side is behind.
pub trait SendHalf<M>: Send {
    /// Hands over one message. Not safe to cancel: a message may then be sent or not.
    fn send(&mut self, message: M) -> BoxFuture<'_, Result<(), LinkClosed>>;
}

/// The receiving half.
pub trait RecvHalf<M>: Send {
    /// The next message. Safe to cancel: no message is lost.
    fn recv(&mut self) -> BoxFuture<'_, Result<M, LinkClosed>>;
}

/// An open stream: `Out` goes to the peer, `In` comes from it. Dropping both halves closes it.
pub struct Link<Out, In> {
    /// To the peer.
    pub sender: Box<dyn SendHalf<Out>>,
    /// From the peer.
    pub receiver: Box<dyn RecvHalf<In>>,
    /// Who the peer is, as the transport has authenticated it; for logs.
    pub peer: String,
}

/// Opens streams to one of several peers.
pub trait Dial<Out, In>: Send + Sync + 'static {
    /// Opens a stream to the next peer to try: a caller that dials again after a failure reaches another, when there is one.
    fn dial(&self) -> BoxFuture<'_, Result<Link<Out, In>, DialError>>;

    /// How many peers there are to try in turn.
    fn peers(&self) -> usize {
        1
    }
}
