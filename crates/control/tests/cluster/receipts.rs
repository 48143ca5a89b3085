//! A receipt is the same whichever control node is asked, wherever the edges are connected.

use std::time::Duration;

use client::Client;
use futures::stream::BoxStream;
use runtime::RealClock;
use seams::Clock;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use types::{Hash, Position};
use wire::{
    internal::{self, feed_client::FeedClient, peers_server::PeersServer, subscribe_up::Message},
    v1,
};

use crate::harness::{CLUSTER, Ground, PATIENCE, create, show, with_store};

const EDGES: [u64; 2] = [101, 102];

/// An edge as a control node sees it: a stream that acknowledges.
struct Edge {
    up: mpsc::Sender<internal::SubscribeUp>,
    _reads: tokio::task::JoinHandle<()>,
}

impl Edge {
    /// Subscribes at `node`, holding nothing.
    async fn subscribe(ground: &Ground, edge: u64, node: u64) -> Self {
        let (up, messages) = mpsc::channel(8);
        let feature_level = state::FEATURE_LEVEL_MAX.get();
        let hello = internal::Hello { cluster: CLUSTER.as_bytes().to_vec().into(), node: edge, feature_level, ..Default::default() };
        send(&up, Message::Hello(hello)).await;
        let stream = FeedClient::new(ground.channel(edge, node)).max_decoding_message_size(wire::FEED_MESSAGE_BYTES_MAX);
        let mut frames = { stream }.subscribe(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let reads = tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                assert!(!matches!(frame.message, Some(internal::subscribe_down::Message::Refused(_))), "{frame:?}");
            }
        });
        Self { up, _reads: reads }
    }

    /// Says that it holds `position` of this history.
    async fn acknowledge(&self, position: Position, hash: Hash) {
        let position = internal::FeedPosition { generation: position.generation.get(), revision: position.revision.get() };
        let ack = internal::Ack { position: Some(position), chain_hash: hash.as_bytes().to_vec().into(), ..Default::default() };
        send(&self.up, Message::Ack(ack)).await;
    }
}

async fn send(up: &mpsc::Sender<internal::SubscribeUp>, message: Message) {
    up.send(internal::SubscribeUp { message: Some(message) }).await.unwrap();
}

/// Writes a secret. Its position, once every node has applied it, and the hash there.
async fn written(all: &[Client], name: &str) -> (Position, Hash) {
    let receipt = all[0].create_secrets(create(name)).await.unwrap().receipt.unwrap();
    let position = Position::from(receipt.position.unwrap());
    let mut hash = None;
    for client in all {
        let status = eventually("the node has applied it", async || {
            let status = client.status(v1::ShowStatusRequest {}).await.unwrap();
            (status.position.map(Position::from) == Some(position)).then_some(status)
        });
        hash = Some(status.await.chain_hash.parse().unwrap());
    }
    (position, hash.unwrap())
}

async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn status(client: &Client, name: &str) -> v1::SecretStatus {
    client.show_secret(show(name)).await.unwrap().status()
}

/// Live on so many of so many edges, and who is behind, as of now.
async fn live(client: &Client, position: Position) -> (u32, u32, Vec<String>) {
    let reply = client.wait_live(position, Duration::ZERO).await.unwrap();
    (reply.edges_live, reply.edges_known, reply.behind)
}

async fn fleet(client: &Client) -> Vec<v1::FleetNode> {
    client.list_fleet(v1::ListFleetRequest::default()).await.unwrap().nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn receipt_is_the_same_at_every_node_wherever_the_edges_are_connected() {
    let ground = Ground::new(3).await;
    ground.let_all_sign().await;
    ground.register_edges(&EDGES).await;
    let nodes = ground.three().await;
    let all = [1, 2, 3].map(|node| ground.client(&[node]));
    with_store(&all[0]).await;
    for row in fleet(&all[1]).await.iter().filter(|row| row.role() == v1::NodeRole::Edge) {
        assert_eq!((row.seen_ms, row.durable, row.certificate_ends_ms, &row.connected_to[..]), (0, None, 0, ""), "it never came");
    }

    let (first, hash) = written(&all, "FIRST").await;
    let one = Edge::subscribe(&ground, EDGES[0], 1).await;
    let two = Edge::subscribe(&ground, EDGES[1], 3).await;
    one.acknowledge(first, hash).await;
    two.acknowledge(first, hash).await;
    for client in &all {
        let reply = client.wait_live(first, PATIENCE).await.unwrap();
        assert_eq!((reply.edges_live, reply.edges_known, reply.behind.len()), (2, 2, 0));
        assert_eq!(status(client, "FIRST").await, v1::SecretStatus::Active);
    }

    // One edge, at another node than is asked, stays behind.
    let (second, hash) = written(&all, "SECOND").await;
    one.acknowledge(second, hash).await;
    for client in &all {
        let reached =
            eventually("the news of the other edge has come", async || Some(live(client, second).await).filter(|live| live.0 == 1));
        assert_eq!(reached.await, (1, 2, vec!["edge-102".to_owned()]));
        assert_eq!(status(client, "SECOND").await, v1::SecretStatus::Pending);
        let rows = fleet(client).await;
        let row = |id: u64| rows.iter().find(|row| row.node_id == id).unwrap();
        assert_eq!((&row(101).connected_to[..], &row(102).connected_to[..]), ("control-1", "control-3"));
        assert_eq!((row(101).lag_revisions, row(102).lag_revisions), (Some(0), Some(second.revision.get() - first.revision.get())));
        assert!(row(101).certificate_ends_ms > 0 && row(102).certificate_ends_ms > 0 && row(102).seen_ms > 0);
        assert_eq!(rows.iter().filter(|row| row.connected_to == "leader").count(), 1);
        let controls = async || {
            let rows = fleet(client).await;
            let mut rows = rows.iter().filter(|row| row.role() == v1::NodeRole::Control);
            rows.all(|row| row.lag_revisions == Some(0) && row.certificate_ends_ms > 0).then_some(())
        };
        eventually("each node knows how the others stand", controls).await;
    }

    // It goes to another node, and is one edge there as before.
    drop(two);
    let two = Edge::subscribe(&ground, EDGES[1], 2).await;
    two.acknowledge(second, hash).await;
    for client in &all {
        let reply = client.wait_live(second, PATIENCE).await.unwrap();
        assert_eq!((reply.edges_live, reply.edges_known), (2, 2));
        let moved = async || fleet(client).await.iter().any(|row| row.node_id == 102 && row.connected_to == "control-2").then_some(());
        eventually("it is known to be there", moved).await;
        assert_eq!(status(client, "SECOND").await, v1::SecretStatus::Active);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_of_a_control_node_that_died_are_waited_for_until_they_are_found_elsewhere() {
    let ground = Ground::new(3).await;
    ground.let_all_sign().await;
    ground.register_edges(&EDGES[..1]).await;
    let mut nodes = ground.three().await;
    let all = [1, 2, 3].map(|node| ground.client(&[node]));
    with_store(&all[0]).await;
    let (first, hash) = written(&all, "FIRST").await;
    let edge = Edge::subscribe(&ground, EDGES[0], 3).await;
    edge.acknowledge(first, hash).await;
    eventually("it is live", async || (live(&all[0], first).await.0 == 1).then_some(())).await;
    nodes.remove(2).kill();

    let left = &all[..2];
    let lost = async || fleet(&left[0]).await.iter().any(|row| row.node_id == 101 && row.connected_to.is_empty()).then_some(());
    eventually("the node is noticed to be gone", lost).await;
    let (second, hash) = written(left, "SECOND").await;
    assert_eq!(live(&left[0], second).await, (0, 1, vec!["edge-101".to_owned()]), "it was seen a moment ago: it counts");
    let edge = Edge::subscribe(&ground, EDGES[0], 2).await;
    edge.acknowledge(second, hash).await;
    for client in left {
        let reply = client.wait_live(second, PATIENCE).await.unwrap();
        assert_eq!((reply.edges_live, reply.edges_known), (1, 1));
    }
    for node in nodes {
        node.stop().await;
    }
}

/// What node 3 is to the others when the link to node 1 alone is cut: node 2 hears it, and that it has an edge that holds `held`.
struct HeardByTwo {
    held: Position,
}

#[tonic::async_trait]
impl internal::peers_server::Peers for HeardByTwo {
    type WatermarksStream = BoxStream<'static, Result<internal::WatermarksReply, Status>>;

    async fn watermarks(&self, request: Request<internal::WatermarksRequest>) -> Result<Response<Self::WatermarksStream>, Status> {
        if request.get_ref().from != 2 {
            return Err(Status::unavailable("the link is cut"));
        }
        let durable = Some(internal::FeedPosition { generation: self.held.generation.get(), revision: self.held.revision.get() });
        let row = internal::Watermark { node: EDGES[1], durable, connected: true, feature_level: 1, ..Default::default() };
        let told = internal::WatermarksReply { rows: vec![row], standing: Some(internal::ControlStanding::default()) };
        let again = futures::stream::unfold(told.clone(), |told| async {
            RealClock::new().sleep(Duration::from_millis(500)).await;
            Some((Ok(told.clone()), told))
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(told)).chain(again))))
    }

    async fn hand_over(&self, _: Request<internal::HandOverRequest>) -> Result<Response<internal::HandOverReply>, Status> {
        Err(Status::unavailable("not asked for here"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_live_everywhere_while_a_control_node_is_silent_here_and_heard_elsewhere() {
    let ground = Ground::new(3).await;
    ground.let_all_sign().await;
    ground.register_edges(&EDGES).await;
    let mut nodes = ground.three().await;
    let all = [1, 2, 3].map(|node| ground.client(&[node]));
    with_store(&all[0]).await;
    let (first, _) = written(&all, "FIRST").await;
    let (second, hash) = written(&all, "SECOND").await;
    let one = Edge::subscribe(&ground, EDGES[0], 1).await;
    let two = Edge::subscribe(&ground, EDGES[1], 3).await;
    one.acknowledge(second, hash).await;
    two.acknowledge(second, hash).await;
    let complete = async |client: &Client| client.wait_live(second, Duration::ZERO).await.unwrap().is_everywhere().then_some(());
    for client in &all {
        eventually("both have it", async || complete(client).await).await;
    }

    // After the link was cut the edge there lost its disk and begins anew, which is news to node 2 alone.
    nodes.remove(2).kill();
    let fake = ground.stand_in(3, PeersServer::new(HeardByTwo { held: first })).await;
    let at_two = async || Some(all[1].wait_live(second, Duration::ZERO).await.unwrap()).filter(|reply| reply.behind == ["edge-102"]);
    assert_eq!(eventually("node 2 hears it", at_two).await.controls_unheard, 0);
    let at_one = async || Some(all[0].wait_live(second, Duration::ZERO).await.unwrap()).filter(|reply| reply.controls_unheard > 0);
    let reply = eventually("node 1 hears that it lives", at_one).await;
    assert_eq!((reply.edges_live, reply.edges_known, reply.unheard.clone()), (2, 2, vec!["control-3".to_owned()]));
    assert!(!reply.is_everywhere());
    assert_eq!(status(&all[0], "SECOND").await, v1::SecretStatus::Pending);
    let waits = all[0].wait_live(second, Duration::from_secs(2)).await.unwrap();
    assert!(!waits.is_everywhere() && waits.unheard == ["control-3"], "{waits:?}");

    // Heard by nobody it holds nothing up, and who waits meanwhile is answered.
    let waiting = all[0].wait_live(second, PATIENCE);
    let (waited, ()) = tokio::join!(waiting, async { drop(fake) });
    assert!(waited.unwrap().is_everywhere());
    assert_eq!(status(&all[0], "SECOND").await, v1::SecretStatus::Active);
    for node in nodes {
        node.stop().await;
    }
}
