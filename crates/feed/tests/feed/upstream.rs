//! Whom an edge follows: several control nodes, of which some lag, are cut off, or have another history.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use feed::{Follower, FollowerOptions, FollowerParts, FollowerStatus, Inline, NoKeys, Publisher, SyncState};
use futures::FutureExt;
use seams::{BoxFuture, Clock, Dial, DialError, Link, sim::SimEntropy};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use types::UnixMillis;
use wire::internal::{SubscribeDown, SubscribeUp};

use crate::harness::{CLUSTER, EDGE, Edge, Plane, at, served};

/// A control node, by name; one that is down has no publisher.
type Named = (&'static str, Option<Arc<Publisher>>);

/// Control nodes, dialled in turn.
#[derive(Clone, Default)]
struct Nodes {
    nodes: Arc<Mutex<Vec<Named>>>,
    next: Arc<AtomicUsize>,
    dialled: Arc<AtomicUsize>,
}

impl Nodes {
    fn of(nodes: &[(&'static str, &Arc<Publisher>)]) -> Self {
        let all = Self::default();
        *all.nodes.lock().unwrap() = nodes.iter().map(|(name, publisher)| (*name, Some(Arc::clone(publisher)))).collect();
        all
    }

    fn down(&self, name: &str) {
        self.nodes.lock().unwrap().iter_mut().filter(|node| node.0 == name).for_each(|node| node.1 = None);
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Relaxed)
    }
}

impl Dial<SubscribeUp, SubscribeDown> for Nodes {
    fn dial(&self) -> BoxFuture<'_, Result<Link<SubscribeUp, SubscribeDown>, DialError>> {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        let nodes = self.nodes.lock().unwrap();
        let (name, publisher) = &nodes[self.next.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        let dialled = match publisher {
            Some(publisher) => Ok(Link { peer: (*name).into(), ..served(publisher, EDGE, 64).0 }),
            None => Err(DialError { peer: (*name).into(), source: Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)) }),
        };
        Box::pin(async move { dialled })
    }

    fn peers(&self) -> usize {
        self.nodes.lock().unwrap().len()
    }
}

struct Running {
    status: watch::Receiver<FollowerStatus>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), feed::FeedError>>,
}

fn start(plane: &Plane, edge: &Edge, nodes: &Nodes) -> Running {
    let parts = FollowerParts {
        dial: Arc::new(nodes.clone()),
        clock: plane.clock.clone(),
        entropy: Arc::new(SimEntropy::new(5)),
        offload: Arc::new(Inline),
        keys: Arc::new(NoKeys),
    };
    let follower = Follower::new(edge.open(), FollowerOptions::new(CLUSTER, EDGE), parts);
    let (status, stop) = (follower.status(), CancellationToken::new());
    let task = tokio::spawn(follower.run(stop.clone()));
    Running { status, stop, task }
}

impl Running {
    /// Lets time pass in small steps until it is so, and says how much passed.
    async fn until(&mut self, plane: &Plane, what: &str, done: impl Fn(&FollowerStatus) -> bool) -> Duration {
        let began = plane.clock.monotonic();
        for _ in 0..4000 {
            settle().await;
            if self.status.wait_for(&done).now_or_never().is_some() {
                return plane.clock.monotonic() - began;
            }
            plane.clock.advance(Duration::from_millis(10));
        }
        panic!("never: {what}; {:?}", self.status.borrow())
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

fn follows(peer: &'static str) -> impl Fn(&FollowerStatus) -> bool {
    move |status| status.sync == SyncState::Following && status.peer.as_deref() == Some(peer)
}

/// A tick that all of these have applied.
fn tick(plane: &mut Plane, publishers: &[&Arc<Publisher>]) {
    plane.tick();
    let time = UnixMillis::new(plane.clock.wall().get());
    publishers.iter().for_each(|publisher| publisher.ticked(&plane.state, time));
}

#[tokio::test]
async fn upstream_that_is_behind_is_left_at_once_and_loses_and_repeats_nothing() {
    let mut plane = Plane::new();
    plane.write(9);
    let (ahead, behind) = (plane.publisher.clone(), plane.lagging(4));
    let nodes = Nodes::of(&[("ahead", &ahead), ("behind", &behind), ("gone", &behind)]);
    nodes.down("gone");
    let edge = Edge::new(&plane.clock);
    let mut running = start(&plane, &edge, &nodes);
    running.until(&plane, "the first", follows("ahead")).await;
    assert_eq!(edge.seen.position(), Some(at(10)));
    // It is dropped there, by a second stream under its name; the two others are of no use.
    let (mut thief, _) = served(&ahead, EDGE, 8);
    let hello = wire::internal::Hello {
        cluster: CLUSTER.as_bytes().to_vec().into(),
        node: EDGE.get(),
        feature_level: u32::MAX,
        ..Default::default()
    };
    let message = Some(wire::internal::subscribe_up::Message::Hello(hello));
    thief.sender.send(SubscribeUp { message }).await.unwrap();
    running.until(&plane, "dropped", |status| status.peer.is_none()).await;
    drop(thief);
    plane.write(5);
    running.until(&plane, "back", follows("ahead")).await;
    running.until(&plane, "the rest", |status| status.published == Some(at(15))).await;
    let seen = edge.seen.positions();
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    running.end().await;
}

#[tokio::test]
async fn upstreams_that_are_all_behind_are_waited_for() {
    let mut plane = Plane::new();
    plane.write(9);
    let edge = Edge::new(&plane.clock);
    let nodes = Nodes::of(&[("ahead", &plane.publisher)]);
    let mut running = start(&plane, &edge, &nodes);
    running.until(&plane, "the first", follows("ahead")).await;
    running.end().await;

    let (one, other) = (plane.lagging(4), plane.lagging(6));
    let nodes = Nodes::of(&[("one", &one), ("other", &other)]);
    let mut running = start(&plane, &edge, &nodes);
    for _ in 0..3000 {
        settle().await;
        plane.clock.advance(Duration::from_millis(10));
    }
    assert_eq!(running.status.borrow().refused, Some("REFUSED_KIND_BEHIND"));
    let dialled = nodes.dialled();
    assert!((4..60).contains(&dialled), "{dialled} dials in half a minute");
    plane.catch_up(&other);
    running.until(&plane, "one caught up", follows("other")).await;
    plane.write(1);
    plane.catch_up(&other);
    running.until(&plane, "the tail", |status| status.published == Some(at(11))).await;
    running.end().await;
}

#[tokio::test]
async fn upstream_that_is_cut_off_from_its_majority_keeps_nobody_fresh_and_is_left_for_another() {
    let mut plane = Plane::new();
    plane.write(3);
    let (majority, alone) = (plane.publisher.clone(), plane.lagging(4));
    let edge = Edge::new(&plane.clock);
    let nodes = Nodes::of(&[("alone", &alone), ("majority", &majority)]);
    let mut running = start(&plane, &edge, &nodes);
    tick(&mut plane, &[&alone]);
    running.until(&plane, "a checkpoint", |status| status.checkpoint.is_some()).await;
    running.until(&plane, "the first", follows("alone")).await;
    let vouched = edge.seen.checkpoint().unwrap().time;
    // From here on only the majority ticks. The stream to the other one stands, and brings nothing.
    plane.write(2);
    let left = running.until(&plane, "the other", follows("majority")).await;
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&left), "after {left:?}");
    assert_eq!(edge.seen.checkpoint().map(|seen| seen.time), Some(vouched), "nothing has made it younger meanwhile");
    running.until(&plane, "what was missed", |status| status.published == Some(at(6))).await;
    tick(&mut plane, &[]);
    running.until(&plane, "a new checkpoint", |status| status.checkpoint > Some(vouched)).await;
    let seen = edge.seen.positions();
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    running.end().await;
}

#[tokio::test]
async fn upstream_of_another_history_is_left_alone_for_its_time_and_the_others_are_not() {
    let mut plane = Plane::new();
    plane.write(9);
    let good = plane.publisher.clone();
    let edge = Edge::new(&plane.clock);
    let only = Nodes::of(&[("good", &good)]);
    let mut running = start(&plane, &edge, &only);
    running.until(&plane, "the first", follows("good")).await;
    running.end().await;

    let mut other = Plane::new();
    other.commit(vec![crate::harness::put(1, "another history")]);
    other.write(20);
    let nodes = Nodes::of(&[("forked", &other.publisher), ("good", &good)]);
    let mut running = start(&plane, &edge, &nodes);
    let waited = running.until(&plane, "the good one", follows("good")).await;
    assert!(waited < Duration::from_millis(300), "after {waited:?}");
    assert_eq!((running.status.borrow().faults, running.status.borrow().last_fault), (1, Some("fork")));
    // Whatever happens to the good one, the forked one is not asked again within its minute.
    nodes.down("good");
    for _ in 0..45 {
        settle().await;
        plane.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(running.status.borrow().faults, 1);
    running.until(&plane, "asked again", |status| status.faults == 2).await;
    assert_eq!(edge.seen.position(), Some(at(10)), "what is held stays");
    running.end().await;
}
