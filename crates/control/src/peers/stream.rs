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
        // Who asks once more after the end gets the end again, and no panic.
        stream::unfold(self, Self::next).fuse().boxed()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use runtime::RealClock;

    use super::*;

    const TO: NodeId = NodeId::new(2);

    fn request(number: u8) -> RaftRequest {
        RaftRequest { body: vec![number].into(), ..Default::default() }
    }

    /// A stream to a peer that does with the requests what `peer` says.
    fn stream_to(
        requests: BoxStream<'static, RaftRequest>,
        deadline: Duration,
        peer: impl FnOnce(ReceiverStream<RaftRequest>) -> Answers + Send + 'static,
    ) -> BoxStream<'static, Result<Bytes, PeerError>> {
        let open: Opening = Box::new(move |sent| std::future::ready(Ok(peer(sent))).boxed());
        Appends::new(TO, requests, open, Arc::new(RealClock::new()), deadline).into_stream()
    }

    fn echo(sent: ReceiverStream<RaftRequest>) -> Answers {
        sent.map(|request| Ok(request.body)).boxed()
    }

    #[tokio::test]
    async fn answers_come_in_order_and_the_stream_ends_with_the_requests() {
        let requests = stream::iter((0..100).map(request)).boxed();
        let answers: Vec<_> = stream_to(requests, Duration::from_secs(60), echo).map(|answer| answer.unwrap()[0]).collect().await;
        assert_eq!(answers, (0..100).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn lost_answer_ends_the_stream_instead_of_holding_it_up() {
        let requests = stream::iter((0..3).map(request)).chain(stream::pending()).boxed();
        let first_only = |sent: ReceiverStream<RaftRequest>| {
            echo(sent).enumerate().filter_map(async |(nth, answer)| (nth == 0).then_some(answer)).boxed()
        };
        let mut answers = stream_to(requests, Duration::from_millis(20), first_only);
        assert_eq!(answers.next().await.unwrap().unwrap()[0], 0);
        let error = answers.next().await.unwrap().unwrap_err();
        assert!(matches!(&error, PeerError::Failed { reason, .. } if reason.contains("no answer")), "{error}");
        assert!(answers.next().await.is_none(), "openraft begins a new one");
    }

    #[tokio::test]
    async fn idle_stream_is_not_late() {
        let (more, requests) = mpsc::channel(1);
        let mut answers = stream_to(ReceiverStream::new(requests).boxed(), Duration::from_millis(5), echo);
        more.send(request(1)).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap()[0], 1);
        let silence = tokio::time::timeout(Duration::from_millis(50), answers.next()).await;
        assert!(silence.is_err(), "nothing is due: {silence:?}");
        more.send(request(2)).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap()[0], 2);
    }

    #[tokio::test]
    async fn peer_that_ends_the_stream_early_is_an_error() {
        let requests = || stream::iter((0..3).map(request)).chain(stream::pending()).boxed();
        let taken = |sent: ReceiverStream<RaftRequest>| echo(sent).take(1).filter_map(async |_| None).boxed();
        let mut answers = stream_to(requests(), Duration::from_secs(60), taken);
        let error = answers.next().await.unwrap().unwrap_err();
        assert!(matches!(error, PeerError::Failed { .. }), "{error}");
        // With nothing under way it is no error: openraft begins a new one.
        let mut answers = stream_to(requests(), Duration::from_secs(60), |sent| echo(sent).take(1).boxed());
        assert!(answers.next().await.unwrap().is_ok());
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn requests_under_way_are_bounded() {
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = taken.clone();
        let requests = stream::iter(0..100).map(request).inspect(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let requests = requests.boxed();
        let mut answers = stream_to(requests, Duration::from_millis(20), |sent| stream::pending().chain(echo(sent)).boxed());
        assert!(answers.next().await.unwrap().is_err());
        assert_eq!(taken.load(Ordering::Relaxed), UNDER_WAY_MAX);
    }
}
