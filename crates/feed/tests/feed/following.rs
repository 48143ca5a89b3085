//! A follower's loop on streams in memory, fed by a publisher or by hand, on a clock that is set by hand.

use std::{sync::Arc, time::Duration};

use feed::{Core, FeedError, Follower, FollowerOptions, FollowerParts, FollowerStatus, Inline, Liveness, NoKeys, SyncState};
use futures::FutureExt;
use seams::sim::SimEntropy;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use types::{NodeId, Position};
use wire::internal::{SubscribeDown, SubscribeUp, subscribe_up::Message as Up};

use crate::harness::{CLUSTER, Dialer, EDGE, Edge, Line, Plane, at, batch, checkpoint, line, options, other_key, served};

/// A follower that runs, and what it takes to steer it.
pub(crate) struct Running {
    pub(crate) dialer: Dialer,
    status: watch::Receiver<FollowerStatus>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), FeedError>>,
}

pub(crate) fn start(plane: &Plane, core: Core, node: NodeId) -> Running {
    let dialer = Dialer::default();
    let parts = FollowerParts {
        dial: Arc::new(dialer.clone()),
        clock: plane.clock.clone(),
        entropy: Arc::new(SimEntropy::new(node.get())),
        offload: Arc::new(Inline),
        keys: Arc::new(NoKeys),
    };
    let follower = Follower::new(core, FollowerOptions::new(CLUSTER, node), parts);
    let (status, stop) = (follower.status(), CancellationToken::new());
    let task = tokio::spawn(follower.run(stop.clone()));
    Running { dialer, status, stop, task }
}

impl Running {
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&FollowerStatus) -> bool) -> FollowerStatus {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.status.wait_for(done)).await;
        waited.unwrap_or_else(|_| panic!("never: {what}; {:?}", self.task)).unwrap().clone()
    }

    async fn reaches(&mut self, position: Position) {
        self.until("the position", |status| status.published >= Some(position)).await;
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Lets all tasks run until none can without time passing.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets time pass in small steps while tasks run, until the follower has dialled and reached the position.
async fn pass_until(plane: &Plane, running: &mut Running, what: &str, done: impl Fn(&FollowerStatus) -> bool) -> FollowerStatus {
    for _ in 0..600 {
        settle().await;
        if let Some(Ok(status)) = running.status.wait_for(&done).now_or_never() {
            return status.clone();
        }
        plane.clock.advance(Duration::from_millis(50));
    }
    panic!("never: {what}; {:?}", running.status.borrow())
}

#[tokio::test]
async fn follower_gets_the_tail_as_it_is_written_and_receipts_count_it() {
    let mut plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut running = start(&plane, edge.open(), EDGE);
    let (link, _serving) = served(&plane.publisher, EDGE, 4);
    running.dialer.add(link);
    pass_until(&plane, &mut running, "the beginning", |status| status.published == Some(at(1))).await;
    for _ in 0..10 {
        plane.write(3);
        running.reaches(plane.position()).await;
    }
    let live = plane.publisher.acks().wait_live(plane.position(), |_| true);
    let live = tokio::time::timeout(Duration::from_secs(20), live).await.unwrap();
    assert_eq!(live, Liveness { live: 1, of: 1 });
    assert_eq!(running.status.borrow().sync, SyncState::Following);
    assert_eq!(edge.seen.checkpoint(), None, "no tick, no checkpoint");
    plane.tick();
    let time = plane.checkpoint(0).statement.position;
    running.until("a checkpoint", |status| status.checkpoint.is_some()).await;
    assert_eq!(edge.seen.checkpoint().map(|seen| seen.position), Some(time));
    running.end().await;
}

#[tokio::test]
async fn follower_with_an_empty_disk_bootstraps_while_writes_go_on() {
    let mut plane = Plane::new();
    plane.write(60);
    let edge = Edge::new(&plane.clock);
    let mut running = start(&plane, edge.open(), EDGE);
    // One message at a time, and a write between any two: the snapshot takes many revisions.
    let (link, _serving) = served(&plane.publisher, EDGE, 1);
    running.dialer.add(link);
    for _ in 0..300 {
        plane.write(1);
        tokio::task::yield_now().await;
    }
    running.reaches(plane.position()).await;
    assert_eq!(edge.seen.root().map(|root| root.state.state_root()), Some(plane.propagated().state_root()));
    running.end().await;
}

#[tokio::test]
async fn follower_is_served_by_another_node_after_the_first_is_gone() {
    let mut plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut running = start(&plane, edge.open(), EDGE);
    let (link, first) = served(&plane.publisher, EDGE, 4);
    running.dialer.add(link);
    pass_until(&plane, &mut running, "the first", |status| status.published == Some(at(1))).await;
    first.abort();
    running.until("alone", |status| status.sync == SyncState::Alone).await;
    plane.write(5);
    assert_eq!(edge.seen.position(), Some(at(1)), "the last good state is served meanwhile");
    // A node that has restarted: its window is empty, and the edge is behind it.
    plane.restart(options());
    let (link, _second) = served(&plane.publisher, EDGE, 4);
    running.dialer.add(link);
    pass_until(&plane, &mut running, "the second", |status| status.published == Some(at(6))).await;
    plane.write(1);
    running.reaches(at(7)).await;
    running.end().await;
}

#[tokio::test]
async fn follower_drops_a_stream_that_brings_nothing_new() {
    let plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut running = start(&plane, edge.open(), EDGE);
    let (link, mut ends): (_, Line<SubscribeDown, SubscribeUp>) = line(4);
    running.dialer.add(link);
    settle().await;
    assert!(matches!(ends.receiver.recv().await.and_then(|up| up.message), Some(Up::Hello(_))));
    plane.clock.advance(Duration::from_secs(5));
    settle().await;
    // A checkpoint is refused before anything is held, so a batch shows the life.
    ends.sender.send(batch(&plane.sets, Some(&plane.seal()))).await.unwrap();
    running.reaches(at(1)).await;
    plane.clock.advance(Duration::from_secs(6));
    settle().await;
    assert_eq!(running.status.borrow().peer.as_deref(), Some("memory"), "ten seconds count from the last news");
    // The same checkpoint again and again is no news.
    let old = plane.checkpoint(1);
    for _ in 0..8 {
        ends.sender.send(checkpoint(&old)).await.unwrap();
        plane.clock.advance(Duration::from_secs(3));
        settle().await;
        if running.status.borrow().peer.is_none() {
            break;
        }
    }
    let status = running.until("dropped", |status| status.peer.is_none() && status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("nothing came from memory"));
    running.end().await;
}

#[tokio::test]
async fn follower_names_a_forged_batch_drops_the_stream_and_is_healed_by_the_next() {
    let mut plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut running = start(&plane, edge.open(), EDGE);
    let (link, mut ends): (_, Line<SubscribeDown, SubscribeUp>) = line(4);
    running.dialer.add(link);
    settle().await;
    let forged = other_key().sign(plane.seal().statement, crate::harness::CONTROL, 1);
    ends.sender.send(batch(&plane.sets, Some(&forged))).await.unwrap();
    let status = running.until("the fault", |status| status.faults == 1).await;
    assert_eq!((status.last_fault, status.published, status.sync), (Some("bad_signature"), None, SyncState::NotSynced));
    assert!(matches!(ends.receiver.recv().await.and_then(|up| up.message), Some(Up::Hello(_))));
    assert!(ends.receiver.recv().await.is_none(), "the stream is dropped");
    plane.write(2);
    let (link, _serving) = served(&plane.publisher, EDGE, 4);
    running.dialer.add(link);
    pass_until(&plane, &mut running, "healed", |status| status.published == Some(at(3))).await;
    running.end().await;
}

#[tokio::test]
async fn follower_keeps_its_mark_while_nobody_can_be_reached() {
    use seams::Clock;
    let plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    core.handle(vec![batch(&plane.sets, Some(&plane.seal()))]).unwrap();
    let wall = plane.clock.wall();
    core.handle(vec![checkpoint(&plane.checkpoint(wall.get()))]).unwrap();
    let running = start(&plane, core, EDGE);
    for _ in 0..10 {
        settle().await;
        plane.clock.advance(Duration::from_secs(50));
    }
    settle().await;
    // Power is lost: nothing is closed.
    running.task.abort();
    assert!(running.task.await.is_err());
    edge.disk.crash(&SimEntropy::new(5));
    edge.table.crash(&SimEntropy::new(5));
    edge.open();
    let seen = edge.seen.checkpoint().unwrap();
    assert!(seen.restored_wall >= Some(wall.plus(Duration::from_secs(400))), "{seen:?}");
}
