//! Cables that are cut in one direction only, that are long, or that lose packets.

use std::time::Duration;

use runtime::RealClock;
use seams::Clock;
use tests::process::{Fleet, Weather, until};

use crate::ground::{clients, followed_by, judge, others};

/// Clients that write at the same time.
const WRITERS: usize = 4;
/// Writes that must be acknowledged after a fault.
const WRITES: usize = 20;
/// A leader that is not heard, or hears nobody, is followed by another that takes writes within this time: a second of silence, two for the
/// probe of the connection, the election, and a client that gives up the old leader.
const ONE_WAY_MAX: Duration = Duration::from_secs(10);
/// An edge that is not heard, or does not hear, has found another way and its receipts are there within this time: five seconds of silence,
/// and as many for the probe of the connection.
const EDGE_ONE_WAY_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_is_not_heard_or_does_not_hear_is_followed_by_another_and_nothing_is_lost() {
    let fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    for heard in [false, true] {
        let leader = fleet.leader().await;
        for other in others(&fleet, &leader) {
            let (from, to) = if heard { (&other, &leader) } else { (&leader, &other) };
            fleet.net.part_one_way(from, to);
        }
        writers.longest_silence();
        writers.go_on(WRITES).await;
        let silence = writers.longest_silence();
        assert!(silence <= ONE_WAY_MAX, "no write for {silence:?} after {leader} was {}", if heard { "deaf" } else { "dumb" });
        fleet.net.mend();
        writers.go_on(WRITES).await;
    }
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_of_which_two_cannot_reach_each_other_go_on_through_the_third() {
    let fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    let leader = fleet.leader().await;
    for other in others(&fleet, &leader) {
        fleet.net.part(&leader, &other);
        writers.go_on(WRITES).await;
        fleet.net.mend();
        writers.go_on(WRITES).await;
    }
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_that_does_not_hear_or_is_not_heard_follows_another_control_node() {
    let fleet = Fleet::start(3, 2).await;
    let (writers, readers) = clients(&fleet, WRITERS).await;
    let written = writers.end().await;
    let operator = fleet.operator();
    let mut last = Vec::new();
    for heard in [false, true] {
        let upstream = until("the edge to follow somebody", async || followed_by(&fleet, "edge-1").await.ok_or_else(String::new)).await;
        let (from, to) = if heard { (upstream.as_str(), "edge-1") } else { ("edge-1", upstream.as_str()) };
        fleet.net.part_one_way(from, to);
        last = format!("heard: {heard}").into_bytes();
        let position = operator.set("COUNTER_0", &last).await.1;
        // The receipt comes while the cable is cut: the edge has found another way.
        let clock = RealClock::new();
        let cut = clock.monotonic();
        operator.live(position).await;
        let took = clock.monotonic() - cut;
        assert!(took <= EDGE_ONE_WAY_MAX, "no receipt for {took:?} after edge-1 was {}", if heard { "deaf" } else { "dumb" });
        fleet.net.mend();
    }
    assert!(readers.end().await > 0);
    for (_, reader) in fleet.readers() {
        assert_eq!(reader.get("COUNTER_0").await.unwrap().value, last);
    }
    drop(written);
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_over_long_lossy_cables_loses_nothing_when_its_leader_is_killed() {
    let mut fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    // 200 ms there and back.
    fleet.net.weather(Weather { delay: Duration::from_millis(100), lost_one_in: 50 });
    writers.go_on(WRITES).await;
    let leader = fleet.leader().await;
    fleet.kill(&leader);
    writers.go_on(WRITES).await;
    fleet.start_node(&leader).await;
    writers.go_on(WRITES).await;
    fleet.net.weather(Weather::default());
    judge(&fleet, writers, readers).await;
}
