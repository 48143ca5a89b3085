//! P1, P3, P5 and the bound on a failover: nodes are killed, frozen, cut off and lose their disks under writers at full speed.

use std::time::Duration;

use tests::process::{Fleet, Readers, Role};

use crate::ground::{clients, judge};

/// Clients that write at the same time.
const WRITERS: usize = 4;
/// Writes that must be acknowledged after a fault.
const WRITES: usize = 20;
/// Kills in a row, unless `CINNABAR_DRILL_KILLS` says how many.
const KILLS: usize = 3;
/// A new leader takes writes within this time.
const FAILOVER_MAX: Duration = Duration::from_secs(3);

fn kills() -> usize {
    std::env::var("CINNABAR_DRILL_KILLS").ok().map_or(KILLS, |text| text.parse().expect("CINNABAR_DRILL_KILLS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_under_writers_is_followed_by_another_and_nothing_is_lost() {
    let mut fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    for _ in 0..kills() {
        let leader = fleet.leader().await;
        writers.longest_silence();
        fleet.kill(&leader);
        writers.go_on(WRITES).await;
        let silence = writers.longest_silence();
        assert!(silence <= FAILOVER_MAX, "no write for {silence:?} after {leader} was killed");
        fleet.start_node(&leader).await;
    }
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_frozen_or_cut_off_under_writers_is_followed_by_another_and_does_not_disturb_when_it_returns() {
    let mut fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    for cut in [false, true] {
        let leader = fleet.leader().await;
        if cut {
            fleet.net.part_from_all(&leader);
        } else {
            fleet.freeze(&leader);
        }
        writers.go_on(WRITES).await;
        fleet.repair(&leader).await;
        writers.longest_silence();
        writers.go_on(WRITES).await;
        let silence = writers.longest_silence();
        assert!(silence <= FAILOVER_MAX, "no write for {silence:?} when {leader} came back");
    }
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_killed_one_after_the_other_under_writers_lose_nothing() {
    let mut fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    readers.end().await;
    // Every lookup at an edge that dies with the edge is refused, so only the other one is held to answer.
    let readers = Readers::start(vec![("edge-2".to_owned(), fleet.reader("edge-2"))]);
    let nodes = ["control-2", "edge-1", "control-1", "edge-1", "control-3"];
    for name in nodes.iter().cycle().take(kills()) {
        fleet.kill(name);
        writers.go_on(WRITES).await;
        fleet.start_node(name).await;
    }
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_whose_disk_is_lost_joins_anew_and_has_everything() {
    let mut fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    readers.end().await;
    let readers = Readers::start(vec![("edge-2".to_owned(), fleet.reader("edge-2"))]);
    fleet.kill("edge-1");
    fleet.lose_disk("edge-1");
    writers.go_on(WRITES).await;
    fleet.replace_edge("edge-1", "edge-3").await;
    writers.go_on(WRITES).await;
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_under_writers_come_back_with_everything() {
    let mut fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    // The edges' own death would refuse reads, and is no fault of the control plane's.
    readers.end().await;
    let all: Vec<String> = fleet.names(Role::Control).into_iter().chain(fleet.names(Role::Edge)).collect();
    for name in &all {
        fleet.kill(name);
    }
    for name in &all {
        fleet.launch(name);
    }
    for name in &all {
        fleet.until_health(name, "/readyz", 200).await;
    }
    writers.go_on(WRITES).await;
    let readers = Readers::start(fleet.readers());
    writers.go_on(WRITES).await;
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_node_whose_disk_is_lost_is_replaced_under_a_new_name_and_edges_never_stop_answering() {
    let mut fleet = Fleet::start(3, 2).await;
    let (mut writers, readers) = clients(&fleet, WRITERS).await;
    for (lost, new) in [("control-1", "control-4"), ("control-2", "control-5"), ("control-3", "control-6")] {
        fleet.kill(lost);
        fleet.lose_disk(lost);
        writers.go_on(WRITES).await;
        fleet.replace_voter(lost, new).await;
        writers.go_on(WRITES).await;
    }
    judge(&fleet, writers, readers).await;
    // What is gone is shut out for good, one after the other, and the cluster goes on under another authority each time.
    for lost in ["control-1", "control-2", "control-3"] {
        fleet.cli.ok(&["node", "revoke", lost, "--yes"]).await;
    }
    let set = fleet.cli.pipe(b"after all", &["secret", "set", "default/COUNTER_0", "--wait"]).await;
    assert_eq!(set.code, 0, "{set:?}");
    assert_eq!(fleet.reader("edge-1").get("COUNTER_0").await.unwrap().value, b"after all");
}
