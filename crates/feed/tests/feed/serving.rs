//! A publisher's side of whole streams: what subscribers are sent, and what they are refused, on a clock that is set by hand.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use feed::{Handover, ServeEnd};
use futures::FutureExt;
use seams::Link;
use state::{Change, State, TypedKey};
use types::{Hash, NodeId, Position, UnixMillis};
use wire::internal::{
    Ack, ChainMark, Envelope, FeedPosition, Hello, RefusedKind, SnapshotResume, SubscribeDown, SubscribeUp, subscribe_down::Message,
    subscribe_up::Message as Up,
};

use crate::{
    following::{settle, start},
    harness::{CLUSTER, EDGE, Edge, Plane, at, batch, options, put, served},
};

#[tokio::test]
async fn subscriber_that_does_not_read_slows_nobody_and_falls_to_a_snapshot() {
    let mut plane = Plane::new();
    plane.write(5);
    let (quick_edge, slow_edge) = (Edge::new(&plane.clock), Edge::new(&plane.clock));
    let mut quick = start(&plane, quick_edge.open(), NodeId::new(8));
    let (link, _quick) = served(&plane.publisher, NodeId::new(8), 4);
    quick.dialer.add(link);
    let (mut slow, _slow) = served(&plane.publisher, EDGE, 2);
    slow.sender.send(hello(Some((at(5), plane.history[5].chain_hash())))).await.unwrap();
    settle().await;
    // Far beyond the window of 16 while the slow one reads nothing at all.
    for _ in 0..100 {
        plane.write(1);
        settle().await;
    }
    quick.until("the quick one", |status| status.published == Some(at(106))).await;
    // Now it reads: what was sent before, then a snapshot, then the tail.
    let mut core = slow_edge.open();
    core.handle(vec![batch(
        &plane.sets[..5],
        Some(&crate::harness::signing_key().sign(plane.history[5].seal_statement(CLUSTER), crate::harness::CONTROL, 1)),
    )])
    .unwrap();
    let mut snapshots = 0;
    while core.published() < Some(at(106)) {
        let message = tokio::time::timeout(Duration::from_secs(20), slow.receiver.recv()).await.unwrap().unwrap();
        snapshots += usize::from(matches!(message.message, Some(Message::SnapshotBegin(_))));
        core.handle(vec![message]).unwrap();
    }
    assert_eq!(snapshots, 1);
    assert_eq!(slow_edge.seen.root().map(|root| root.state.state_root()), Some(plane.propagated().state_root()));
    quick.end().await;
}

#[tokio::test]
async fn subscribers_at_the_same_point_get_the_same_bytes() {
    let mut plane = Plane::new();
    let mut links = Vec::new();
    for node in 20..23 {
        let (mut link, serving) = served(&plane.publisher, NodeId::new(node), 8);
        link.sender.send(named_hello(node, None)).await.unwrap();
        links.push((link, serving));
    }
    settle().await;
    plane.write(1);
    let mut seen = Vec::new();
    for (link, _) in &mut links {
        let mut batches = Vec::new();
        while batches.len() < 2 {
            if let Some(Message::Batch(batch)) = link.receiver.recv().await.unwrap().message {
                batches.push(batch);
            }
        }
        seen.push(batches);
    }
    let bytes = |batch: &wire::internal::Batch| (batch.seal_encoded.as_ptr(), batch.change_sets_encoded[0].as_ptr());
    for other in &seen[1..] {
        assert_eq!(bytes(&other[1]), bytes(&seen[0][1]), "the very same memory, not a copy");
    }
}

fn hello(held: Option<(Position, Hash)>) -> SubscribeUp {
    named_hello(EDGE.get(), held)
}

fn named_hello(node: u64, held: Option<(Position, Hash)>) -> SubscribeUp {
    let hello = Hello {
        cluster: Bytes::copy_from_slice(CLUSTER.as_bytes()),
        node,
        position: held.map(|(position, _)| out(position)),
        chain_hash: held.map(|(_, hash)| Bytes::copy_from_slice(hash.as_bytes())).unwrap_or_default(),
        feature_level: 1,
        ..Hello::default()
    };
    SubscribeUp { message: Some(Up::Hello(hello)) }
}

fn out(position: Position) -> FeedPosition {
    FeedPosition { generation: position.generation.get(), revision: position.revision.get() }
}

fn ack(position: Position, hash: Hash) -> SubscribeUp {
    let ack =
        Ack { position: Some(out(position)), chain_hash: Bytes::copy_from_slice(hash.as_bytes()), feature_level: 1, ..Ack::default() };
    SubscribeUp { message: Some(Up::Ack(ack)) }
}

/// Reads until the refusal.
async fn refusal(link: &mut Link<SubscribeUp, SubscribeDown>) -> RefusedKind {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), link.receiver.recv()).await.unwrap().unwrap();
        if let Some(Message::Refused(refused)) = message.message {
            return refused.kind();
        }
    }
}

#[tokio::test]
async fn subscription_that_cannot_be_served_is_refused_by_its_own_kind() {
    let mut plane = Plane::new();
    plane.write(9);
    let hash = |revision: usize| plane.history[revision].chain_hash();
    let wrong = Hash::from_bytes([5; 32]);
    let change = |change: fn(&mut Hello)| {
        let mut up = hello(None);
        if let Some(Up::Hello(hello)) = &mut up.message {
            change(hello);
        }
        up
    };
    let other_generation = Position::new(types::Generation::new(4), types::Revision::new(3));
    let marked = |held, position: Position, hash: Hash| {
        let mut up = hello(held);
        if let Some(Up::Hello(hello)) = &mut up.message {
            hello.marks = vec![ChainMark { position: Some(out(position)), chain_hash: Bytes::copy_from_slice(hash.as_bytes()) }];
        }
        up
    };
    let cases = [
        ("no hello first", ack(at(1), wrong), RefusedKind::Protocol),
        ("an empty message", SubscribeUp { message: None }, RefusedKind::Protocol),
        ("another cluster", change(|hello| hello.cluster = Bytes::from_static(&[1; 16])), RefusedKind::WrongCluster),
        ("another node than the connection's", named_hello(99, None), RefusedKind::NotRegistered),
        ("another chain", change(|hello| hello.chain = 3), RefusedKind::UnknownChain),
        ("an old binary", change(|hello| hello.feature_level = 0), RefusedKind::FeatureLevel),
        (
            "a hash cut off",
            change(|hello| (hello.position, hello.chain_hash) = (Some(out(at(1))), Bytes::from_static(b"x"))),
            RefusedKind::Protocol,
        ),
        ("too many marks", change(|hello| hello.marks = vec![ChainMark::default(); 9]), RefusedKind::Protocol),
        ("another history below, and nothing held", marked(None, at(4), wrong), RefusedKind::Fork),
        ("another history below, and ahead", marked(Some((at(50), wrong)), at(4), wrong), RefusedKind::Fork),
        ("a newer generation passed, and nothing held", marked(None, other_generation, wrong), RefusedKind::Generation),
        ("ahead", hello(Some((at(50), wrong))), RefusedKind::Behind),
        ("a fork at the tip", hello(Some((at(10), wrong))), RefusedKind::Fork),
        ("a fork below", hello(Some((at(4), wrong))), RefusedKind::Fork),
        ("a newer generation", hello(Some((other_generation, hash(3)))), RefusedKind::Generation),
    ];
    for (case, up, kind) in cases {
        let (mut link, serving) = served(&plane.publisher, EDGE, 4);
        link.sender.send(up).await.unwrap();
        assert_eq!(refusal(&mut link).await, kind, "{case}");
        assert!(matches!(serving.await.unwrap(), ServeEnd::Refused { .. }), "{case}");
        assert_eq!(plane.publisher.subscribers(), 0, "{case}");
    }
}

#[tokio::test]
async fn subscriber_is_cut_when_revoked_doubled_or_lying() {
    let mut plane = Plane::new();
    plane.write(3);
    let held = Some((at(2), plane.history[2].chain_hash()));

    let (mut old, _) = served(&plane.publisher, EDGE, 8);
    old.sender.send(hello(held)).await.unwrap();
    settle().await;
    let (mut new, serving) = served(&plane.publisher, EDGE, 8);
    new.sender.send(hello(held)).await.unwrap();
    assert_eq!(refusal(&mut old).await, RefusedKind::Duplicate, "the newer stream counts");

    let (mut lying, _) = served(&plane.publisher, NodeId::new(31), 8);
    lying.sender.send(named_hello(31, held)).await.unwrap();
    lying.sender.send(ack(at(400), Hash::ZERO)).await.unwrap();
    assert_eq!(refusal(&mut lying).await, RefusedKind::Protocol, "it acknowledges what was never sent");

    let (mut forked, _) = served(&plane.publisher, NodeId::new(32), 8);
    forked.sender.send(named_hello(32, held)).await.unwrap();
    forked.sender.send(ack(at(3), Hash::from_bytes([1; 32]))).await.unwrap();
    assert_eq!(refusal(&mut forked).await, RefusedKind::Fork);

    let key = TypedKey::Node { node: EDGE }.encode();
    let mut record = plane.propagated().node(EDGE).unwrap().unwrap();
    record.revoked = Some(UnixMillis::new(1));
    plane.commit(vec![Change { key, value: Some(record.encode()) }]);
    assert_eq!(refusal(&mut new).await, RefusedKind::Revoked);
    assert!(matches!(serving.await.unwrap(), ServeEnd::Refused { kind: RefusedKind::Revoked, .. }));
    let (mut again, _) = served(&plane.publisher, EDGE, 8);
    again.sender.send(hello(held)).await.unwrap();
    assert_eq!(refusal(&mut again).await, RefusedKind::Revoked, "and it does not come in again");
}

#[tokio::test]
async fn subscriber_that_says_nothing_or_takes_nothing_is_given_up() {
    let mut plane = Plane::new();
    plane.write(3);
    let (mut silent, _) = served(&plane.publisher, EDGE, 8);
    settle().await;
    plane.clock.advance(Duration::from_secs(11));
    assert_eq!(refusal(&mut silent).await, RefusedKind::TooSlow);

    let (mut full, serving) = served(&plane.publisher, EDGE, 1);
    full.sender.send(hello(None)).await.unwrap();
    settle().await;
    plane.clock.advance(Duration::from_secs(61));
    settle().await;
    plane.clock.advance(Duration::from_secs(61));
    assert!(matches!(serving.await.unwrap(), ServeEnd::Refused { kind: RefusedKind::TooSlow, .. }));
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_and_a_place_is_free_again_afterwards() {
    let mut small = options();
    small.subscribers_max = 1;
    let plane = Plane::with(small);
    let (mut first, serving) = served(&plane.publisher, EDGE, 8);
    first.sender.send(hello(None)).await.unwrap();
    settle().await;
    let (mut second, _) = served(&plane.publisher, NodeId::new(40), 8);
    assert_eq!(refusal(&mut second).await, RefusedKind::Busy);
    drop(first);
    assert!(matches!(serving.await.unwrap(), ServeEnd::Closed(_)));
    let (mut third, _) = served(&plane.publisher, NodeId::new(40), 8);
    third.sender.send(named_hello(40, None)).await.unwrap();
    assert!(matches!(third.receiver.recv().await.unwrap().message, Some(Message::Welcome(_))));
}

#[tokio::test]
async fn snapshot_is_resumed_over_another_stream_at_the_chunk_that_is_missing() {
    let mut plane = Plane::new();
    plane.write(60);
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    let (mut link, serving) = served(&plane.publisher, EDGE, 1);
    link.sender.send(hello(None)).await.unwrap();
    while core.resume().is_none_or(|resume| resume.next_chunk < 2) {
        core.handle(vec![link.receiver.recv().await.unwrap()]).unwrap();
    }
    drop(link);
    serving.await.unwrap();
    core.disconnected();
    plane.write(2);
    let resume = core.resume().unwrap();
    let (mut link, _serving) = served(&plane.publisher, EDGE, 4);
    let mut up = hello(None);
    if let Some(Up::Hello(hello)) = &mut up.message {
        hello.resume = Some(SnapshotResume { ..resume });
    }
    link.sender.send(up).await.unwrap();
    let mut begins = Vec::new();
    while core.published() < Some(plane.position()) {
        let message = tokio::time::timeout(Duration::from_secs(20), link.receiver.recv()).await.unwrap().unwrap();
        if let Some(Message::SnapshotBegin(begin)) = &message.message {
            begins.push(begin.first_chunk);
        }
        core.handle(vec![message]).unwrap();
    }
    assert_eq!(begins, [2]);
}

#[tokio::test]
async fn checkpoint_is_signed_only_for_a_tick_near_this_nodes_clock() {
    let mut plane = Plane::new();
    let (mut link, _serving) = served(&plane.publisher, EDGE, 8);
    link.sender.send(hello(None)).await.unwrap();
    settle().await;
    use seams::Clock;
    let now = plane.clock.wall().get();
    for far in [now - 1001, now + 1001] {
        plane.publisher.ticked(&plane.state, UnixMillis::new(far));
    }
    plane.write(1);
    settle().await;
    plane.publisher.ticked(&plane.state, UnixMillis::new(now - 999));
    let mut checkpoints = Vec::new();
    let mut core = Edge::new(&plane.clock).open();
    while checkpoints.is_empty() {
        let message = link.receiver.recv().await.unwrap();
        if let Some(Message::Checkpoint(_)) = &message.message {
            checkpoints.push(message.clone());
        }
        core.handle(vec![message]).unwrap();
    }
    assert_eq!(core.checkpoint_time(), Some(UnixMillis::new(now - 999)));
}

/// Hands every node an envelope whose epoch is the number of the state's position.
struct ByPosition;

impl Handover for ByPosition {
    fn envelopes(&self, state: &State, node: NodeId) -> Vec<Envelope> {
        let epoch = state.position().revision.get() as u32 / 100;
        vec![Envelope { domain: node.to_string(), epoch, envelope: Bytes::from_static(b"sealed") }]
    }
}

#[tokio::test]
pub(crate) async fn what_was_sent_is_no_receipt_before_it_is_acknowledged() {
    let mut plane = Plane::new();
    plane.write(3);
    let (mut link, _serving) = served(&plane.publisher, EDGE, 64);
    link.sender.send(hello(None)).await.unwrap();
    while !matches!(link.receiver.recv().await.unwrap().message, Some(Message::Batch(batch)) if !batch.seal_encoded.is_empty()) {}
    settle().await;
    let durable = || plane.publisher.acks().rows()[0].durable;
    assert_eq!(durable(), None, "all of it is there, and nothing is known to be durable");
    link.sender.send(ack(at(2), plane.history[2].chain_hash())).await.unwrap();
    settle().await;
    assert_eq!(durable(), Some(at(2)));
}

#[tokio::test]
async fn envelopes_are_handed_over_on_subscribing_and_when_they_change() {
    let mut plane = Plane::new();
    plane.hand_over(Arc::new(ByPosition));
    let (mut link, _serving) = served(&plane.publisher, EDGE, 64);
    link.sender.send(hello(Some((at(1), plane.history[1].chain_hash())))).await.unwrap();
    let mut epochs = Vec::new();
    settle().await;
    plane.tick();
    settle().await;
    for _ in 0..10 {
        plane.commit_run((0..10).map(|number| vec![put(number, "x")]).collect());
        settle().await;
    }
    plane.tick();
    settle().await;
    while let Some(Ok(message)) = link.receiver.recv().now_or_never() {
        if let Some(Message::Envelopes(envelopes)) = message.message {
            epochs.extend(envelopes.envelopes.into_iter().map(|envelope| (envelope.domain, envelope.epoch)));
        }
    }
    assert_eq!(epochs, [("7".to_string(), 0), ("7".to_string(), 1)]);
}

#[tokio::test]
async fn second_snapshot_of_a_slow_subscriber_holds_only_what_has_changed() {
    let mut plane = Plane::new();
    plane.write(60);
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    let (mut link, _serving) = served(&plane.publisher, EDGE, 1);
    link.sender.send(hello(None)).await.unwrap();
    settle().await;
    // While the first is on its way the window moves past it.
    for _ in 0..40 {
        plane.commit(vec![put(1, "again and again")]);
    }
    let mut sizes = Vec::new();
    while core.published() < Some(plane.position()) {
        let message = tokio::time::timeout(Duration::from_secs(20), link.receiver.recv()).await.unwrap().unwrap();
        if let Some(Message::SnapshotBegin(begin)) = &message.message {
            sizes.push(begin.chunks);
        }
        core.handle(vec![message]).unwrap();
    }
    assert!(sizes.len() == 2 && sizes[0] > 1 && sizes[1] == 1, "{sizes:?}");
}

#[tokio::test]
async fn checkpoints_go_out_also_while_writes_never_pause() {
    let mut plane = Plane::new();
    plane.tick();
    for _ in 0..14 {
        plane.commit(vec![put(1, vec![7; 1500])]);
    }
    let (mut link, _serving) = served(&plane.publisher, EDGE, 64);
    link.sender.send(hello(None)).await.unwrap();
    settle().await;
    let mut order = Vec::new();
    while let Some(Ok(message)) = link.receiver.recv().now_or_never() {
        match message.message {
            Some(Message::Batch(_)) => order.push('b'),
            Some(Message::Checkpoint(_)) => order.push('c'),
            _ => {}
        }
    }
    assert!(order.len() > 3 && order[..2] == ['b', 'c'] && order[2..].iter().all(|one| *one == 'b'), "{order:?}");
}

#[tokio::test]
async fn subscriber_revoked_while_it_reads_a_snapshot_slowly_gets_no_more_of_it() {
    let mut plane = Plane::new();
    plane.write(60);
    let (mut slow, serving) = served(&plane.publisher, EDGE, 1);
    slow.sender.send(hello(None)).await.unwrap();
    settle().await;
    revoke(&mut plane, EDGE);
    let mut chunks = 0;
    let kind = loop {
        match slow.receiver.recv().await.unwrap().message {
            Some(Message::SnapshotChunk(_)) => chunks += 1,
            Some(Message::Refused(refused)) => break refused.kind(),
            _ => {}
        }
    };
    assert_eq!((kind, chunks), (RefusedKind::Revoked, 0));
    assert!(matches!(serving.await.unwrap(), ServeEnd::Refused { kind: RefusedKind::Revoked, .. }));
}

#[tokio::test]
async fn subscriber_is_not_fed_by_a_node_that_is_revoked() {
    let mut plane = Plane::new();
    plane.write(3);
    revoke(&mut plane, crate::harness::CONTROL);
    let (mut link, _serving) = served(&plane.publisher, EDGE, 8);
    link.sender.send(hello(None)).await.unwrap();
    assert_eq!(refusal(&mut link).await, RefusedKind::Unavailable, "an edge would refuse its seals");
}

#[tokio::test]
pub(crate) async fn position_presented_counts_only_when_its_history_is_ours_and_readers_see_it() {
    let mut plane = Plane::new();
    plane.write(9);
    let own = plane.history[4].chain_hash();
    let held_back = |hash: Hash| {
        let mut up = hello(Some((at(4), hash)));
        if let Some(Up::Hello(hello)) = &mut up.message {
            hello.held_back = true;
        }
        up
    };
    let forked = hello(Some((at(4), Hash::from_bytes([5; 32]))));
    let ahead = hello(Some((at(50), own)));
    for (case, up, durable) in [
        ("a fork", forked, None),
        ("ahead", ahead, None),
        ("held back", held_back(own), None),
        ("ours", hello(Some((at(4), own))), Some(at(4))),
    ] {
        let (mut link, _serving) = served(&plane.publisher, EDGE, 64);
        link.sender.send(up).await.unwrap();
        settle().await;
        assert_eq!(plane.publisher.acks().rows()[0].durable, durable, "{case}");
    }
}

fn revoke(plane: &mut Plane, node: NodeId) {
    let key = TypedKey::Node { node }.encode();
    let mut record = plane.propagated().node(node).unwrap().unwrap();
    record.revoked = Some(UnixMillis::new(1));
    plane.commit(vec![Change { key, value: Some(record.encode()) }]);
}
