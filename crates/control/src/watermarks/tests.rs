use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, OnceLock},
};

use feed::{AcksOptions, Liveness, StreamClaim, Via};
use seams::{
    LinkClosed,
    sim::{ManualClock, SimEntropy},
};
use tokio_util::sync::CancellationToken;

use super::*;

const A: NodeId = NodeId::new(1);
const B: NodeId = NodeId::new(2);
const C: NodeId = NodeId::new(3);
const EDGE: NodeId = NodeId::new(101);

fn at(revision: u64) -> Position {
    Position::new(Generation::new(1), Revision::new(revision))
}

/// Three control nodes in one process, and what is cut between them.
struct Plane {
    clock: Arc<ManualClock>,
    exchanges: BTreeMap<NodeId, Arc<Exchange>>,
    silent: Mutex<BTreeSet<NodeId>>,
    gone: Mutex<BTreeSet<NodeId>>,
    /// Who hears nothing from whom.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    opened: Mutex<usize>,
    streams: Mutex<BTreeMap<(NodeId, NodeId), StreamClaim>>,
}

/// How one of them reaches the others.
struct Calls {
    own: NodeId,
    plane: Arc<OnceLock<Arc<Plane>>>,
}

impl PeerCalls for Calls {
    fn others(&self) -> Vec<NodeId> {
        let plane = self.plane.get().unwrap();
        let gone = plane.gone.lock().unwrap();
        plane.exchanges.keys().copied().filter(|node| *node != self.own && !gone.contains(node)).collect()
    }

    fn watermarks(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn RecvHalf<internal::WatermarksReply>>, DialError>> {
        let plane = self.plane.get().unwrap().clone();
        *plane.opened.lock().unwrap() += 1;
        let (telling, listener) = (Telling::new(plane.exchanges[&node].clone()), self.own);
        Box::pin(async move { Ok(Box::new(Stream { plane, node, listener, telling }) as Box<dyn RecvHalf<_>>) })
    }
}

struct Stream {
    plane: Arc<Plane>,
    node: NodeId,
    listener: NodeId,
    telling: Telling,
}

impl RecvHalf<internal::WatermarksReply> for Stream {
    fn recv(&mut self) -> BoxFuture<'_, Result<internal::WatermarksReply, LinkClosed>> {
        Box::pin(async move {
            let reply = self.telling.next().await;
            let cut = self.plane.cut.lock().unwrap().contains(&(self.listener, self.node));
            if cut || self.plane.silent.lock().unwrap().contains(&self.node) {
                std::future::pending::<()>().await;
            }
            Ok(reply)
        })
    }
}

impl Plane {
    /// Starts all three listening. Nothing runs but while a test waits.
    fn start() -> (Arc<Self>, CancellationToken) {
        let clock = Arc::new(ManualClock::at(UnixMillis::new(1_000_000)));
        let exchange = |node: NodeId| {
            let shared: Arc<dyn Clock> = clock.clone();
            let standing = Standing { applied: at(node.get()), unlocked: true, ..Standing::default() };
            let exchange = Exchange {
                node,
                acks: Acks::new(AcksOptions::default(), shared.clone()),
                standings: Arc::new(Standings::default()),
                clock: shared,
                own: Box::new(move || standing),
            };
            (node, Arc::new(exchange))
        };
        let exchanges = [A, B, C].map(exchange).into();
        let (silent, gone, cut, opened, streams) = Default::default();
        let plane = Arc::new(Self { clock, exchanges, silent, gone, cut, opened, streams });
        let (stop, known) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        known.get_or_init(|| plane.clone());
        for (node, exchange) in &plane.exchanges {
            let calls = Arc::new(Calls { own: *node, plane: known.clone() });
            tokio::spawn(listen(exchange.clone(), calls, Arc::new(SimEntropy::new(node.get())), stop.clone()));
        }
        (plane, stop)
    }

    fn acks(&self, node: NodeId) -> &Arc<Acks> {
        &self.exchanges[&node].acks
    }

    /// `edge` acknowledges a revision on its stream at `node`, which it opens first if there is none.
    fn acknowledge(&self, node: NodeId, edge: NodeId, revision: u64) {
        let mut streams = self.streams.lock().unwrap();
        let stream = streams.entry((node, edge)).or_insert_with(|| self.acks(node).claim(edge, FeatureLevel::new(1)).0);
        assert!(stream.acknowledge(at(revision), FeatureLevel::new(1)));
    }

    /// Lets time pass until `done`, in small steps, at most `within`.
    async fn until(&self, what: &str, within: Duration, done: impl Fn() -> bool) -> Duration {
        const STEP: Duration = Duration::from_millis(10);
        let mut passed = Duration::ZERO;
        loop {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            if done() {
                return passed;
            }
            assert!(passed < within, "not within {within:?}: {what}");
            self.clock.advance(STEP);
            passed += STEP;
        }
    }
}

#[tokio::test]
async fn watermarks_of_one_node_are_known_to_all_within_a_tenth_of_a_second() {
    let (plane, stop) = Plane::start();
    plane
        .until("all have heard each other", Duration::from_secs(5), || {
            plane.exchanges.values().all(|e| [A, B, C].iter().filter(|n| e.standings.is_heard(**n)).count() == 2)
        })
        .await;
    plane.acknowledge(A, EDGE, 5);
    let all = || [A, B, C].iter().all(|node| plane.acks(*node).live(at(5), |_| true) == Liveness { live: 1, of: 1 });
    let took = plane.until("the edge counts everywhere", Duration::from_secs(2), all).await;
    assert!(took <= EVERY, "{took:?}");
    assert_eq!(plane.acks(B).row(EDGE).map(|row| row.via), Some(Via::Node(A)));
    assert_eq!(plane.exchanges[&C].standings.control(B).map(|known| known.standing.applied), Some(at(2)));
    stop.cancel();
}

#[tokio::test]
async fn wait_at_one_node_ends_when_the_last_edge_acknowledged_at_another() {
    let (plane, stop) = Plane::start();
    plane.acknowledge(A, EDGE, 5);
    plane.acknowledge(B, NodeId::new(102), 4);
    plane.until("both count", Duration::from_secs(5), || plane.acks(C).live(at(4), |_| true).live == 2).await;
    let acks = plane.acks(C).clone();
    let wait = tokio::spawn(async move { acks.wait_live(at(5), |_| true).await });
    plane.clock.advance(Duration::from_secs(3));
    assert!(!wait.is_finished());
    plane.acknowledge(B, NodeId::new(102), 5);
    plane.until("the wait is over", Duration::from_secs(2), || wait.is_finished()).await;
    assert_eq!(wait.await.unwrap(), Liveness { live: 2, of: 2 });
    stop.cancel();
}

#[tokio::test]
async fn node_that_falls_silent_leaves_its_edges_as_reported_and_is_heard_again() {
    let (plane, stop) = Plane::start();
    plane.acknowledge(A, EDGE, 5);
    plane.until("it counts", Duration::from_secs(5), || plane.acks(B).live(at(5), |_| true).live == 1).await;
    plane.silent.lock().unwrap().insert(A);
    let gone = || plane.acks(B).row(EDGE).is_some_and(|row| !row.connected) && !plane.exchanges[&B].standings.is_heard(A);
    plane.until("the silence is noticed", SILENCE_MAX + HEARTBEAT + HEARTBEAT, gone).await;
    assert_eq!(plane.acks(B).live(at(5), |_| true), Liveness { live: 1, of: 1 }, "it was seen a moment ago");
    plane.silent.lock().unwrap().clear();
    let back = || plane.acks(B).row(EDGE).is_some_and(|row| row.via == Via::Node(A));
    plane.until("it is heard again", Duration::from_secs(10), back).await;
    stop.cancel();
}

#[tokio::test]
async fn node_that_only_one_link_is_cut_to_is_known_to_live_until_nobody_hears_it() {
    const PAST_AGE: Duration = Duration::from_secs(660);
    let (plane, stop) = Plane::start();
    let elsewhere = |node: NodeId| plane.exchanges[&node].standings.heard_elsewhere(node).into_iter().collect::<Vec<_>>();
    let hear = |node: NodeId| plane.exchanges[&node].standings.hears();
    plane.acknowledge(A, NodeId::new(102), 6);
    plane.acknowledge(B, EDGE, 5);
    let all = || hear(A) == [B, C] && hear(B) == [A, C] && hear(C) == [A, B] && plane.acks(A).rows().len() == 2;
    plane.until("all hear each other", Duration::from_secs(5), all).await;
    plane.until("and say so", Duration::from_secs(2), || [A, B, C].into_iter().all(|node| elsewhere(node).is_empty())).await;

    plane.cut.lock().unwrap().extend([(A, B), (B, A)]);
    let noticed = || elsewhere(A) == [B] && elsewhere(B) == [A];
    plane.until("each knows that the other lives", SILENCE_MAX + HEARTBEAT + HEARTBEAT, noticed).await;
    assert!(elsewhere(C).is_empty());
    plane.clock.advance(PAST_AGE);
    plane.until("C is heard again after the leap", Duration::from_secs(5), noticed).await;
    // By its rows alone, A would say that what its own edge holds is everywhere.
    assert_eq!(plane.acks(A).live(at(6), |_| true), Liveness { live: 1, of: 1 }, "the other edge is past its age here");
    plane.until("C knows both", Duration::from_secs(5), || plane.acks(C).live(at(6), |_| true) == Liveness { live: 1, of: 2 }).await;

    plane.silent.lock().unwrap().insert(B);
    let dead = || elsewhere(A).is_empty() && hear(A) == [C];
    plane.until("nobody hears it, so nobody waits for it", SILENCE_MAX + HEARTBEAT * 3, dead).await;
    plane.silent.lock().unwrap().clear();
    plane.until("it is heard by one again", Duration::from_secs(10), || elsewhere(A) == [B]).await;
    plane.cut.lock().unwrap().clear();
    plane.until("the link is mended", Duration::from_secs(10), || elsewhere(A).is_empty() && hear(A) == [B, C]).await;
    assert_eq!(plane.acks(A).live(at(6), |_| true), Liveness { live: 1, of: 2 });
    stop.cancel();
}

#[tokio::test]
async fn node_that_leaves_the_registry_is_not_listened_to_any_more() {
    let (plane, stop) = Plane::start();
    plane.acknowledge(A, EDGE, 5);
    plane.until("it counts", Duration::from_secs(5), || plane.acks(B).live(at(5), |_| true).live == 1).await;
    plane.gone.lock().unwrap().insert(A);
    plane
        .until("it is left", Duration::from_secs(5), || {
            !plane.exchanges[&B].standings.is_heard(A) && !plane.exchanges[&C].standings.is_heard(A)
        })
        .await;
    let opened = *plane.opened.lock().unwrap();
    plane.acknowledge(A, EDGE, 9);
    plane.clock.advance(Duration::from_secs(30));
    plane.until("time passes", Duration::from_secs(30), || plane.exchanges[&B].standings.is_heard(C)).await;
    assert_eq!(plane.acks(B).live(at(9), |_| true), Liveness { live: 0, of: 1 });
    assert!(*plane.opened.lock().unwrap() <= opened + 4, "at most the ones among those that stay were opened again");
    stop.cancel();
}

#[tokio::test]
async fn telling_comes_in_portions_at_once_then_with_changes_and_heartbeats() {
    let (plane, stop) = Plane::start();
    stop.cancel();
    (0..2500).for_each(|number| plane.acknowledge(A, NodeId::new(1000 + number), 1));
    let mut telling = Telling::new(plane.exchanges[&A].clone());
    let mut portions = Vec::new();
    for _ in 0..3 {
        portions.push(telling.next().await.rows.len());
    }
    assert_eq!(portions, [1000, 1000, 500], "no time has passed");
    let clock = plane.clock.clone();
    let next = tokio::spawn(async move {
        let mut rows = Vec::new();
        for _ in 0..2 {
            let reply = telling.next().await;
            rows.push((clock.monotonic(), reply.rows.len()));
        }
        rows
    });
    (0..3).for_each(|number| plane.acknowledge(A, NodeId::new(1000 + number), 2));
    plane.until("a change and a heartbeat", Duration::from_secs(5), || next.is_finished()).await;
    let told = next.await.unwrap();
    assert_eq!(told, [(EVERY, 3), (EVERY + HEARTBEAT, 0)]);
}
