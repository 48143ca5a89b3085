//! Tests of the table: who counts, for how much, and from whose report.

use futures::FutureExt;
use seams::sim::ManualClock;
use types::{Generation, Revision, UnixMillis};

use super::*;

fn at(revision: u64) -> Position {
    Position::new(Generation::new(1), Revision::new(revision))
}

const LEVEL: FeatureLevel = FeatureLevel::new(1);

fn table() -> (Arc<ManualClock>, Arc<Acks>) {
    let clock = Arc::new(ManualClock::at(UnixMillis::new(0)));
    (clock.clone(), Acks::new(AcksOptions { nodes_max: 3, ..AcksOptions::default() }, clock))
}

#[test]
fn acks_count_connected_and_recent_nodes() {
    let (clock, acks) = table();
    let (one, _) = acks.claim(NodeId::new(1), LEVEL);
    let (two, _) = acks.claim(NodeId::new(2), LEVEL);
    two.present(Some(at(5)), true);
    assert_eq!(acks.live(at(5), |_| true), Liveness { live: 1, of: 2 });
    assert!(one.acknowledge(at(5), LEVEL));
    assert_eq!(acks.live(at(5), |_| true), Liveness { live: 2, of: 2 });
    assert_eq!(acks.live(at(6), |node| node == NodeId::new(1)), Liveness { live: 0, of: 1 });
    drop(two);
    clock.advance(Duration::from_secs(601));
    assert_eq!(
        acks.live(at(5), |_| true),
        Liveness { live: 1, of: 1 },
        "a connected node counts however quiet, a gone one for ten minutes"
    );
}

#[test]
fn acks_wait_ends_with_the_last_acknowledgement() {
    let (_, acks) = table();
    let (one, _) = acks.claim(NodeId::new(1), LEVEL);
    let (two, _) = acks.claim(NodeId::new(2), LEVEL);
    let mut wait = Box::pin(acks.wait_live(at(3), |_| true));
    assert!(wait.as_mut().now_or_never().is_none());
    one.acknowledge(at(3), LEVEL);
    assert!(wait.as_mut().now_or_never().is_none());
    two.acknowledge(at(4), LEVEL);
    assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 2, of: 2 }));
}

#[test]
fn acks_wait_ends_whichever_comes_last_and_when_the_last_one_behind_counts_no_more() {
    let (clock, acks) = table();
    let (one, _) = acks.claim(NodeId::new(1), LEVEL);
    let (two, _) = acks.claim(NodeId::new(2), LEVEL);
    let mut wait = Box::pin(acks.wait_live(at(3), |_| true));
    assert!(wait.as_mut().now_or_never().is_none());
    two.acknowledge(at(3), LEVEL);
    assert!(wait.as_mut().now_or_never().is_none());
    one.acknowledge(at(3), LEVEL);
    assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 2, of: 2 }));

    let mut wait = Box::pin(acks.wait_live(at(4), |_| true));
    assert!(wait.as_mut().now_or_never().is_none());
    drop(one);
    two.acknowledge(at(4), LEVEL);
    assert!(wait.as_mut().now_or_never().is_none(), "gone for a moment only");
    clock.advance(Duration::from_secs(601));
    two.acknowledge(at(5), LEVEL);
    assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 1, of: 1 }));
}

#[test]
fn acks_presenting_less_or_twice_is_told_and_the_newest_stream_counts() {
    let (_, acks) = table();
    let (old, duplicate) = acks.claim(NodeId::new(1), LEVEL);
    assert_eq!((duplicate, old.present(Some(at(9)), true)), (false, None));
    let (new, duplicate) = acks.claim(NodeId::new(1), LEVEL);
    assert_eq!((duplicate, new.present(None, true)), (true, Some(at(9))));
    assert_eq!(old.present(Some(at(9)), true), None);
    assert!(!old.acknowledge(at(10), LEVEL));
    assert!(old.superseded().now_or_never().is_some());
    assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 }, "the lost disk counts as lost");
    drop(old);
    assert!(new.stands(), "the old stream's end does not end the new one's claim");
    assert_eq!(acks.highest(), Some(at(9)));
}

#[test]
fn acks_count_only_what_is_presented_and_shown() {
    let (_, acks) = table();
    let (one, _) = acks.claim(NodeId::new(1), LEVEL);
    assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 }, "its history was not compared yet");
    assert_eq!(one.present(Some(at(5)), false), None);
    assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 }, "its readers do not see it");
    assert_eq!(one.present(Some(at(5)), true), None);
    assert_eq!(acks.live(at(5), |_| true), Liveness { live: 1, of: 1 });
}

#[test]
fn acks_of_one_node_wake_no_other_nodes_stream() {
    struct Woken(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let (_, acks) = table();
    let (one, _) = acks.claim(NodeId::new(1), LEVEL);
    let (two, _) = acks.claim(NodeId::new(2), LEVEL);
    let woken = Arc::new(Woken(false.into()));
    let waker = woken.clone().into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut waiting = Box::pin(one.superseded());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    two.acknowledge(at(1), LEVEL);
    one.acknowledge(at(1), LEVEL);
    assert!(!woken.0.load(std::sync::atomic::Ordering::Relaxed));
    acks.forget(NodeId::new(1));
    assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
    assert!(waiting.as_mut().poll(&mut context).is_ready(), "who is forgotten is superseded too");
}

#[test]
fn acks_full_table_drops_the_row_longest_unseen() {
    let (clock, acks) = table();
    for node in 1..=3 {
        drop(acks.claim(NodeId::new(node), LEVEL));
        clock.advance(Duration::from_secs(1));
    }
    let _four = acks.claim(NodeId::new(4), LEVEL);
    assert_eq!(acks.rows().iter().map(|row| row.node.get()).collect::<Vec<_>>(), [2, 3, 4]);
}

/// What `from` would tell another now, all of it.
fn told(from: &Acks) -> Vec<Report> {
    from.own_reports(0, usize::MAX).0
}

const A: NodeId = NodeId::new(11);
const B: NodeId = NodeId::new(12);

/// Two control nodes whose clocks began at different times.
fn two_tables() -> (Arc<ManualClock>, Arc<Acks>, Arc<Acks>) {
    let (clock, a) = table();
    let b = Acks::new(AcksOptions::default(), clock.clone());
    (clock, a, b)
}

#[test]
fn acks_of_other_control_nodes_count_and_name_where_the_edge_is() {
    let (_, a, b) = two_tables();
    let (one, _) = a.claim(NodeId::new(1), LEVEL);
    let (two, _) = b.claim(NodeId::new(2), LEVEL);
    one.acknowledge(at(5), LEVEL);
    b.merge(A, &told(&a));
    let mut wait = Box::pin(b.wait_live(at(5), |_| true));
    assert!(wait.as_mut().now_or_never().is_none(), "the one here is behind");
    two.acknowledge(at(5), LEVEL);
    assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 2, of: 2 }));
    assert_eq!(b.rows().iter().map(|row| row.via).collect::<Vec<_>>(), [Via::Node(A), Via::Here]);
    assert_eq!(a.live(at(5), |_| true), Liveness { live: 1, of: 1 }, "it has heard nothing of the other");
    a.merge(B, &told(&b));
    assert_eq!(a.live(at(5), |_| true), b.live(at(5), |_| true));
    assert_eq!(told(&a).len(), 1, "what others said is not told on");
}

#[test]
fn acks_of_an_edge_that_changed_its_upstream_count_once_by_the_newest_stream() {
    let (clock, a, b) = two_tables();
    let (at_a, _) = a.claim(NodeId::new(1), LEVEL);
    at_a.acknowledge(at(9), LEVEL);
    b.merge(A, &told(&a));
    assert_eq!(b.live(at(9), |_| true), Liveness { live: 1, of: 1 });
    clock.advance(Duration::from_secs(1));
    let (at_b, duplicate) = b.claim(NodeId::new(1), LEVEL);
    assert!(!duplicate, "the stream there may have ended a moment ago");
    assert_eq!(at_b.present(Some(at(7)), true), Some(at(9)), "less than it acknowledged to another control node");
    assert_eq!(b.live(at(9), |_| true), Liveness { live: 0, of: 1 }, "what it says now counts: its disk was lost");
    a.merge(B, &told(&b));
    assert_eq!((a.live(at(9), |_| true), a.rows()[0].via), (Liveness { live: 0, of: 1 }, Via::Node(B)));
    drop(at_a);
    at_b.acknowledge(at(9), LEVEL);
    a.merge(B, &told(&b));
    b.merge(A, &told(&a));
    assert_eq!((a.live(at(9), |_| true), b.live(at(9), |_| true)), (Liveness { live: 1, of: 1 }, Liveness { live: 1, of: 1 }));
    assert_eq!((a.highest(), b.highest()), (Some(at(9)), Some(at(9))));
}

#[test]
fn acks_of_a_control_node_that_is_gone_stand_and_age_out() {
    let (clock, a, b) = two_tables();
    let (one, _) = a.claim(NodeId::new(1), LEVEL);
    one.acknowledge(at(5), LEVEL);
    b.merge(A, &told(&a));
    clock.advance(Duration::from_secs(3600));
    assert_eq!(b.live(at(5), |_| true), Liveness { live: 1, of: 1 }, "connected there, however quiet");
    b.lost(A);
    clock.advance(Duration::from_secs(600));
    assert_eq!(b.live(at(6), |_| true), Liveness { live: 0, of: 1 }, "it may still be there, and has not said that it has it");
    assert_eq!(b.rows()[0].unseen_for, Some(Duration::from_secs(600)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(b.live(at(6), |_| true), Liveness { live: 0, of: 0 });
    b.merge(A, &told(&a));
    assert_eq!(b.live(at(5), |_| true), Liveness { live: 1, of: 1 }, "the other came back, and tells all");
}

#[test]
fn acks_reports_tell_what_changed_since_in_portions() {
    let (_, acks) = table();
    let claims: Vec<_> = (1..=3).map(|node| acks.claim(NodeId::new(node), LEVEL).0).collect();
    let nodes = |reports: &[Report]| reports.iter().map(|report| report.node.get()).collect::<Vec<_>>();
    let (first, version) = acks.own_reports(0, 2);
    let (second, version) = acks.own_reports(version, 2);
    assert_eq!((nodes(&first), nodes(&second)), (vec![1, 2], vec![3]));
    claims[1].acknowledge(at(4), LEVEL);
    let (changed, version) = acks.own_reports(version, 2);
    assert_eq!((nodes(&changed), changed[0].durable), (vec![2], Some(at(4))));
    acks.merge(B, &changed);
    assert_eq!(acks.own_reports(version, 2), (vec![], version), "what came from others is not told on");
    let mut moves = acks.subscribe_own();
    acks.merge(B, &changed);
    assert!(moves.changed().now_or_never().is_none());
    drop(claims);
    assert!(moves.changed().now_or_never().is_some());
    assert!(acks.own_reports(version, 9).0.iter().all(|report| !report.connected));
}

#[test]
fn acks_of_one_id_on_two_living_streams_alarm_once_and_a_quick_change_does_not() {
    let (clock, a, b) = two_tables();
    let doubled = |acks: &Acks, from: NodeId, reports: &[Report]| {
        let now = acks.now();
        reports.iter().filter(|report| acks.lock().row(report.node, 3).merge(from, report, now)).count()
    };
    let (at_a, _) = a.claim(NodeId::new(1), LEVEL);
    clock.advance(Duration::from_secs(5));
    let (at_b, _) = b.claim(NodeId::new(1), LEVEL);
    assert_eq!(doubled(&b, A, &told(&a)), 0, "the stream at the other may be dead, and not yet known to be");
    clock.advance(Duration::from_secs(2));
    at_b.acknowledge(at(1), LEVEL);
    assert_eq!(doubled(&a, B, &told(&b)), 0, "only the newer was heard");
    at_a.acknowledge(at(1), LEVEL);
    assert_eq!((doubled(&b, A, &told(&a)), doubled(&a, B, &told(&b))), (1, 1));
    assert_eq!((doubled(&b, A, &told(&a)), doubled(&a, B, &told(&b))), (0, 0), "told once");
    assert_eq!(b.live(at(1), |_| true), Liveness { live: 1, of: 1 }, "and counted once");
}

#[test]
fn acks_expected_nodes_count_for_a_while_and_were_never_seen() {
    let (clock, acks) = table();
    acks.expect([NodeId::new(1)]);
    assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 });
    assert_eq!((acks.rows()[0].unseen_for, acks.rows()[0].active), (None, true));
    clock.advance(Duration::from_secs(601));
    assert_eq!((acks.rows()[0].unseen_for, acks.rows()[0].active), (None, false));
}
