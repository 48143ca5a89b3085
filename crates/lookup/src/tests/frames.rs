//! Lookups in frames, over a pipe in memory: what comes back for what is sent, byte by byte where it matters.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;
use wire::{ErrorKind, frames, v1};

use super::{
    grpc::get,
    world::{World, at, consumer},
};
use crate::{Authenticator, Connection, FrameLimits, Service, ServiceOptions};

const LIMITS: FrameLimits =
    FrameLimits { hello_timeout: Duration::from_secs(5), write_timeout: Duration::from_secs(30), age_max: Duration::from_secs(3600) };

struct Framed {
    world: World,
    token: String,
    stop: CancellationToken,
    service: Service,
    pipe_bytes: usize,
}

/// One connection, and its server's end.
struct Caller {
    stream: DuplexStream,
    received: Vec<u8>,
    served: tokio::task::JoinHandle<()>,
    /// Cancelled when the server knows who it is.
    known: CancellationToken,
}

impl Framed {
    fn new() -> Self {
        Self::with(ServiceOptions::default())
    }

    fn with(options: ServiceOptions) -> Self {
        let mut world = World::new();
        let token = world.token("worker/web", None).text().expose().to_owned();
        world.publish();
        let (stop, node) = (CancellationToken::new(), "edge-1".parse().unwrap());
        let service = Service::new(world.lookup.clone(), Authenticator::default(), node, options, stop.clone());
        Self { world, token, stop, service, pipe_bytes: 1 << 20 }
    }

    /// A connection whose preface was read, of whom the transport knows nothing.
    fn connect(&self) -> Caller {
        let service = self.service.clone();
        let (stream, server) = tokio::io::duplex(self.pipe_bytes);
        let knows = CancellationToken::new();
        let known = knows.clone();
        let served = tokio::spawn(async move { service.frames(server, Connection::default(), LIMITS, || known.cancel()).await });
        Caller { stream, received: Vec::new(), served, known: knows }
    }

    /// The same, after its first frame.
    async fn greeted(&self) -> Caller {
        let mut caller = self.connect();
        let mut hello = Vec::new();
        frames::append_bytes(format!("Bearer {}", self.token).as_bytes(), &mut hello);
        caller.send(&hello).await;
        caller
    }
}

fn ask(tag: u64, get: v1::GetRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames::append(&v1::StreamRequest { tag, get: Some(get) }, &mut bytes);
    bytes
}

type Outcome = Result<Vec<u8>, ErrorKind>;

impl Caller {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next reply; none when the server has closed.
    async fn reply(&mut self) -> Option<(u64, Outcome)> {
        loop {
            if let Some((frame, rest)) = frames::split(&self.received, frames::REPLY_BYTES_MAX).unwrap() {
                let reply: v1::StreamReply = frames::decode(frame).unwrap();
                self.received = rest.to_vec();
                let outcome = reply.outcome.unwrap().into_result().map(|found| found.value).map_err(|error| error.kind);
                return Some((reply.tag, outcome));
            }
            if self.stream.read_buf(&mut self.received).await.unwrap() == 0 {
                assert!(self.received.is_empty(), "half a frame");
                return None;
            }
        }
    }
}

#[tokio::test]
async fn frames_are_answered_by_tag_also_when_they_come_byte_by_byte() {
    let framed = Framed::new();
    let mut caller = framed.greeted().await;
    let named = v1::GetRequest { consumer: Some(consumer("worker/web").into()), ..get("API_KEY") };
    for byte in [ask(7, named), ask(u64::MAX, get("NOTHING"))].concat() {
        caller.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(caller.reply().await, Some((7, Ok(b"first".to_vec()))));
    assert!(caller.known.is_cancelled(), "it keeps its place among the connections");
    assert_eq!(caller.reply().await, Some((u64::MAX, Err(ErrorKind::NotBound))));
    let other = v1::GetRequest { consumer: Some(consumer("worker/other").into()), ..get("API_KEY") };
    caller.send(&[ask(1, other), ask(2, get("not a name"))].concat()).await;
    assert_eq!(caller.reply().await, Some((1, Err(ErrorKind::Denied))));
    assert_eq!(caller.reply().await, Some((2, Err(ErrorKind::InvalidArgument))));
    // What was sent before the caller stops sending is answered.
    caller.send(&ask(3, get("API_KEY"))).await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(caller.reply().await, Some((3, Ok(b"first".to_vec()))));
    assert_eq!(caller.reply().await, None);
    caller.served.await.unwrap();
}

#[tokio::test]
async fn frames_of_nobody_are_refused_before_any_lookup() {
    let framed = Framed::new();
    for (hello, kind) in [(&b""[..], ErrorKind::Unauthenticated), (b"Bearer cbc_nonsense", ErrorKind::Unauthenticated)] {
        let mut caller = framed.connect();
        let mut bytes = Vec::new();
        frames::append_bytes(hello, &mut bytes);
        caller.send(&bytes).await;
        assert_eq!(caller.reply().await, Some((frames::TAG_OF_CONNECTION, Err(kind))));
        assert_eq!(caller.reply().await, None);
        assert!(!caller.known.is_cancelled(), "a stranger keeps no place");
    }
}

#[tokio::test]
async fn frames_that_are_none_end_the_connection_with_a_reason_after_what_was_good() {
    let framed = Framed::new();
    let refused = Some((frames::TAG_OF_CONNECTION, Err(ErrorKind::InvalidArgument)));
    for bad in [vec![0xff; 4], vec![0, 0, 0, 1, 0xff], ask(frames::TAG_OF_CONNECTION, get("API_KEY")), vec![0, 0, 0x20, 1]] {
        let mut caller = framed.greeted().await;
        caller.send(&[ask(1, get("API_KEY")), bad.clone()].concat()).await;
        assert_eq!(caller.reply().await, Some((1, Ok(b"first".to_vec()))), "{bad:?}");
        assert_eq!(caller.reply().await, refused, "{bad:?}");
        assert_eq!(caller.reply().await, None, "{bad:?}");
    }
    let mut caller = framed.connect();
    caller.send(&[0, 1, 0, 0]).await;
    assert_eq!(caller.reply().await, refused, "a first frame without end");
}

#[tokio::test]
async fn frame_that_waits_for_its_position_holds_up_no_other_and_so_many_wait_at_most() {
    let mut framed = Framed::with(ServiceOptions { stream_waiting_max: 2, ..ServiceOptions::default() });
    let mut caller = framed.greeted().await;
    let late = v1::Freshness { min_position: Some(at(3).into()), max_age_ms: None };
    let late = |tag| ask(tag, v1::GetRequest { freshness: Some(late), ..get("API_KEY") });
    caller.send(&[late(1), ask(2, get("API_KEY")), late(3), ask(4, get("API_KEY"))].concat()).await;
    assert_eq!(caller.reply().await, Some((2, Ok(b"first".to_vec()))));
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(caller.received.is_empty(), "two wait, so the fourth is not read");
    framed.world.set(framed.world.first(), "second");
    framed.world.publish();
    let mut tags = Vec::new();
    for _ in 0..3 {
        let (tag, outcome) = caller.reply().await.unwrap();
        assert_eq!(outcome, Ok(b"second".to_vec()));
        tags.push(tag);
    }
    tags.sort_unstable();
    assert_eq!(tags, [1, 3, 4]);
}

#[tokio::test]
async fn frames_of_a_caller_who_takes_nothing_are_read_no_further_and_its_place_comes_back() {
    let mut framed = Framed::with(ServiceOptions { streams_max: 1, ..ServiceOptions::default() });
    framed.pipe_bytes = 4096;
    let mut caller = framed.greeted().await;
    let one = ask(1, get("API_KEY"));
    let flood = async {
        loop {
            caller.stream.write_all(&one).await.unwrap();
        }
    };
    tokio::select! {
        () = flood => {}
        () = async { for _ in 0..20_000 { tokio::task::yield_now().await } } => {}
    }
    assert!(!caller.served.is_finished());
    let mut other = framed.greeted().await;
    assert_eq!(other.reply().await, Some((frames::TAG_OF_CONNECTION, Err(ErrorKind::Busy))), "it has the only place");
    framed.world.advance(LIMITS.write_timeout);
    caller.served.await.unwrap();
    let mut other = framed.greeted().await;
    other.send(&one).await;
    assert_eq!(other.reply().await, Some((1, Ok(b"first".to_vec()))));
}

#[tokio::test]
async fn connection_in_frames_ends_with_the_edge_with_age_and_when_nobody_greets() {
    let framed = Framed::new();
    let ended = Some((frames::TAG_OF_CONNECTION, Err(ErrorKind::Unavailable)));
    let mut caller = framed.greeted().await;
    caller.send(&ask(1, get("API_KEY"))).await;
    assert!(caller.reply().await.is_some());
    framed.world.advance(LIMITS.age_max);
    assert_eq!((caller.reply().await, caller.reply().await), (ended.clone(), None));

    let mut silent = framed.connect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    framed.world.advance(LIMITS.hello_timeout);
    assert_eq!(silent.reply().await, None);

    let mut caller = framed.greeted().await;
    caller.send(&ask(1, get("API_KEY"))).await;
    assert!(caller.reply().await.is_some());
    framed.stop.cancel();
    assert_eq!((caller.reply().await, caller.reply().await), (ended, None));
}
