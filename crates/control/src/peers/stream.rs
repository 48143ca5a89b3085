//! One stream of appends to one peer: requests go out without waiting, answers come back in order, and none is waited for for ever.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use consensus::PeerError;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use seams::Clock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use types::NodeId;
use wire::internal::RaftRequest;

/// Appends under way at a time: several round trips' worth, and with 2 MiB each a bounded memory.
const UNDER_WAY_MAX: usize = 16;

type Answers = BoxStream<'static, Result<Bytes, PeerError>>;

/// Opens the stream at the peer.
pub(super) type Opening = Box<dyn FnOnce(ReceiverStream<RaftRequest>) -> BoxFuture<'static, Result<Answers, PeerError>> + Send>;

/// What happens next.
enum Event {
    Request(Option<RaftRequest>),
    Answer(Option<Result<Bytes, PeerError>>),
    Late,
}

/// The state of a stream.
pub(super) struct Appends {
    to: NodeId,
    requests: BoxStream<'static, RaftRequest>,
    /// Gone when the last request has been sent.
    send: Option<mpsc::Sender<RaftRequest>>,
    answers: Answers,
    under_way: usize,
    /// Since when an answer is waited for, on the monotonic clock.
    waiting_since: Duration,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    ended: bool,
}

impl Appends {
    pub(super) fn new(
        to: NodeId,
        requests: BoxStream<'static, RaftRequest>,
        open: Opening,
        clock: Arc<dyn Clock>,
        deadline: Duration,
    ) -> Self {
        let (send, sent) = mpsc::channel(UNDER_WAY_MAX);
        // Opened when first asked for an answer; the connection may have to be made, within the same deadline.
        let answers = stream::once(open(ReceiverStream::new(sent)))
            .flat_map(|opened| match opened {
                Ok(answers) => answers,
                Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
            })
            .boxed();
        let waiting_since = clock.monotonic();
        Self { to, requests, send: Some(send), answers, under_way: 0, waiting_since, clock, deadline, ended: false }
    }

    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes, PeerError>> {
        stream::unfold(self, Self::next).boxed()
    }

    async fn next(mut self) -> Option<(Result<Bytes, PeerError>, Self)> {
        while !self.ended {
            let to = self.to;
            let failed = |reason: String| Some(Err(PeerError::Failed { to, reason }));
            let answer = match self.event().await {
                Event::Request(None) => {
                    self.send = None;
                    self.ended = self.under_way == 0;
                    None
                }
                Event::Request(Some(request)) => self.send(request),
                Event::Answer(None) if self.under_way == 0 => {
                    self.ended = true;
                    None
                }
                Event::Answer(None) => failed("the peer has ended the stream".to_owned()),
                Event::Answer(Some(answer)) => Some(answer),
                Event::Late => failed(format!("no answer to an append within {:?}", self.deadline)),
            };
            let Some(answer) = answer else { continue };
            self.under_way = self.under_way.saturating_sub(1);
            self.waiting_since = self.clock.monotonic();
            // After an error nothing that was sent counts any more; openraft begins anew.
            self.ended = answer.is_err() || self.send.is_none() && self.under_way == 0;
            return Some((answer, self));
        }
        None
    }

    /// Waits for what comes first. Nothing that loses the race is lost.
    async fn event(&mut self) -> Event {
        let room = self.send.is_some() && self.under_way < UNDER_WAY_MAX;
        let left = self.deadline.saturating_sub(self.clock.monotonic().saturating_sub(self.waiting_since));
        let late = self.clock.sleep(left);
        tokio::select! {
            biased;
            answer = self.answers.next() => Event::Answer(answer),
            request = self.requests.next(), if room => Event::Request(request),
            () = late, if self.under_way > 0 => Event::Late,
        }
    }

    fn send(&mut self, request: RaftRequest) -> Option<Result<Bytes, PeerError>> {
        // The channel has as many places as requests may be under way.
        let sent = self.send.as_ref().is_some_and(|send| send.try_send(request).is_ok());
        if !sent {
            return Some(Err(PeerError::Failed { to: self.to, reason: "the stream is gone".to_owned() }));
        }
        if self.under_way == 0 {
            self.waiting_since = self.clock.monotonic();
        }
        self.under_way += 1;
        None
    }
}
