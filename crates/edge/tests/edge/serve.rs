use std::time::Duration;

use edge::Edge;
use plane::{ACCOUNT, Plane, consumer, tls_channel};
use runtime::config::PeerRule;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Request, transport::Channel};
use types::Position;
use wire::{
    ErrorKind, PublicError, frames,
    v1::{self, lookup_client::LookupClient, status_client::StatusClient},
};

use crate::plane;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn unix(edge: &Edge) -> Channel {
    runtime::listen::unix_channel(&edge.addresses().unix)
}

pub(crate) fn get(plane: &Plane, variable: &str, min_position: Option<Position>, max_age_ms: Option<u64>) -> Request<v1::GetRequest> {
    let mut request = Request::new(v1::GetRequest {
        wanted: Some(v1::Wanted { binding: variable.to_owned(), ..Default::default() }),
        freshness: Some(v1::Freshness { min_position: min_position.map(Into::into), max_age_ms }),
        ..Default::default()
    });
    request.metadata_mut().insert("authorization", format!("Bearer {}", plane.token.text().expose()).parse().unwrap());
    request.set_timeout(PATIENCE);
    request
}

pub(crate) async fn read(edge: &Edge, request: Request<v1::GetRequest>) -> Result<v1::Found, ErrorKind> {
    let found = LookupClient::new(unix(edge)).get(request).await;
    found.map(tonic::Response::into_inner).map_err(|status| PublicError::from_status(&status).kind)
}

pub(crate) async fn http(edge: &Edge, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(edge.addresses().health).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Asks until the answer is as wanted.
pub(crate) async fn until(edge: &Edge, path: &str, wanted: &str) -> String {
    let search = async {
        loop {
            let text = http(edge, path).await;
            if text.contains(wanted) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("{path} never showed {wanted}"))
}

/// Looks until the status is as wanted.
pub(crate) async fn until_status(edge: &Edge, wanted: impl Fn(&edge::EdgeStatus) -> bool) {
    let search = async {
        while !wanted(&edge.status()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("the status stays {:?}", edge.status()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_serves_what_was_written_and_refuses_what_was_unbound() {
    let mut plane = Plane::start().await;
    let edge = plane.edge().await;
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    let found = read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap();
    assert_eq!((found.value.as_slice(), found.version, found.edge.as_str()), (&b"hello"[..], 1, "edge-1"));
    let position = plane.write("GREETING", "goodbye");
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap().value, b"goodbye");
    let position = plane.unbind("API_KEY");
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(position), None)).await, Err(ErrorKind::NotBound));
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_answers_over_tls_to_tokens_and_to_consumers_certificates_only() {
    let mut plane = Plane::start().await;
    let edge = plane.edge().await;
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    let pki = plane.pki();
    let without = tls_channel(edge.addresses().grpc, None, &pki.ca());
    let found = LookupClient::new(without.clone()).get(get(&plane, "API_KEY", Some(position), None)).await.unwrap();
    assert_eq!(found.into_inner().value, b"hello");

    let no_token = || {
        let mut request = get(&plane, "API_KEY", None, None);
        request.metadata_mut().remove("authorization");
        request
    };
    let status = LookupClient::new(without.clone()).get(no_token()).await.unwrap_err();
    assert_eq!(PublicError::from_status(&status).kind, ErrorKind::Unauthenticated);
    let status = StatusClient::new(without).show(v1::ShowStatusRequest {}).await.unwrap_err();
    assert_eq!(PublicError::from_status(&status).kind, ErrorKind::Unauthenticated);

    let files = pki.consumer(&consumer()).unwrap();
    let certified = tls_channel(edge.addresses().grpc, Some(&files), &pki.ca());
    assert_eq!(LookupClient::new(certified.clone()).get(no_token()).await.unwrap().into_inner().value, b"hello");
    let who = StatusClient::new(certified).who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((who.name.as_str(), who.account_ids), ("worker/web", vec![ACCOUNT.to_string()]));

    let files = pki.consumer(&types::ConsumerRef::parse(ACCOUNT, "worker/stranger").unwrap()).unwrap();
    let stranger = tls_channel(edge.addresses().grpc, Some(&files), &pki.ca());
    let status = LookupClient::new(stranger).get(no_token()).await.unwrap_err();
    assert_eq!(PublicError::from_status(&status).kind, ErrorKind::Revoked);

    let files = pki.node(types::NodeId::new(55)).unwrap();
    let node = tls_channel(edge.addresses().grpc, Some(&files), &pki.ca());
    let status = LookupClient::new(node).get(no_token()).await.unwrap_err();
    assert_eq!(PublicError::from_status(&status).kind, ErrorKind::Unauthenticated, "a node reads nothing");
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_maps_the_uid_of_the_socket_as_its_configuration_says() {
    let mut plane = Plane::start().await;
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(plane.folder.path()).unwrap());
    let edge = plane.edge_with(vec![PeerRule { uid, account: ACCOUNT, consumers: vec!["worker/web".parse().unwrap()] }]).await;
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    let mut request = get(&plane, "API_KEY", Some(position), None);
    request.metadata_mut().remove("authorization");
    assert_eq!(read(&edge, request).await.unwrap().value, b"hello");
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_is_ready_when_synced_fresh_and_unlocked_and_shows_it() {
    let mut plane = Plane::start().await;
    plane.stop().await;
    let edge = plane.edge().await;
    assert!(http(&edge, "/livez").await.starts_with("HTTP/1.1 200"));
    until(&edge, "/readyz", "[-] synced not ready: no complete copy yet").await;
    assert_eq!(read(&edge, get(&plane, "API_KEY", None, None)).await, Err(ErrorKind::NotSynced), "not absent, not unknown");
    let status = StatusClient::new(unix(&edge)).show(v1::ShowStatusRequest {}).await.unwrap().into_inner();
    assert!(!status.connected && status.position.is_none());
    assert!(status.problems[0].starts_with("no stream to the control plane"), "{:?}", status.problems);

    plane.serve().await;
    let position = plane.write("GREETING", "hello");
    plane.tick();
    assert!(edge.serving().reached(position, PATIENCE).await);
    let ready = until(&edge, "/readyz", "HTTP/1.1 200").await;
    for check in ["accepting", "fresh", "synced", "unlocked"] {
        assert!(ready.contains(&format!("[+] {check} ready")), "{ready}");
    }
    let status = StatusClient::new(unix(&edge)).show(v1::ShowStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.position, status.unlocked, status.connected), (Some(position.into()), true, true));
    assert_eq!((status.problems.len(), status.node_name.as_str()), (0, "edge-1"));
    // A credential that is refused before the state is asked counts too, and the error has a label that the caller can quote.
    let mut stranger = get(&plane, "API_KEY", None, None);
    stranger.metadata_mut().insert("authorization", "Bearer cbc_nonsense".parse().unwrap());
    let refused = LookupClient::new(unix(&edge)).get(stranger).await.unwrap_err();
    let refused = PublicError::from_status(&refused);
    assert_eq!(refused.kind, ErrorKind::Unauthenticated);
    assert!(refused.request_id.starts_with("edge-1-"), "{refused:?}");
    let metrics = until(&edge, "/metrics", "cinnabar_edge_serving{node=\"edge-1\"} 1").await;
    assert!(metrics.contains("cinnabar_lookups_total{node=\"edge-1\",outcome=\"unauthenticated\"}"), "{metrics}");
    assert!(!metrics.contains("GREETING") && metrics.contains("cinnabar_lookups_total"), "{metrics}");
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_ends_a_watch_when_its_connection_is_old_enough() {
    let mut plane = Plane::start().await;
    let mut config = plane.config(Vec::new());
    config.connections.connection_age_max = Duration::from_millis(300);
    config.connections.request_timeout = Duration::from_millis(300);
    let edge = Edge::start(plane::options(config)).await.unwrap();
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    assert!(edge.serving().reached(position, PATIENCE).await);
    let mut watch = LookupClient::new(unix(&edge)).watch(get(&plane, "API_KEY", None, None)).await.unwrap().into_inner();
    let end = async { while let Ok(Some(_)) = watch.message().await {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the client has to connect anew, and prove itself");
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_answers_in_frames_on_the_same_socket_to_tokens_and_uids() {
    let mut plane = Plane::start().await;
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(plane.folder.path()).unwrap());
    let edge = plane.edge_with(vec![PeerRule { uid, account: ACCOUNT, consumers: vec!["worker/web".parse().unwrap()] }]).await;
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    assert!(edge.serving().reached(position, PATIENCE).await);
    for hello in [format!("Bearer {}", plane.token.text().expose()), String::new()] {
        let mut stream = tokio::net::UnixStream::connect(&edge.addresses().unix).await.unwrap();
        let mut bytes = frames::PREFACE.to_vec();
        frames::append_bytes(hello.as_bytes(), &mut bytes);
        let get = get(&plane, "API_KEY", Some(position), None).into_inner();
        frames::append(&v1::StreamRequest { tag: 5, get: Some(get) }, &mut bytes);
        stream.write_all(&bytes).await.unwrap();
        let mut received = Vec::new();
        let reply: v1::StreamReply = loop {
            if let Some((frame, _)) = frames::split(&received, frames::REPLY_BYTES_MAX).unwrap() {
                break frames::decode(frame).unwrap();
            }
            assert!(stream.read_buf(&mut received).await.unwrap() > 0, "the edge closed");
        };
        assert_eq!((reply.tag, reply.outcome.unwrap().into_result().unwrap().value), (5, b"hello".to_vec()));
    }
    // A drain does not wait for what a caller leaves open.
    let _open = tokio::net::UnixStream::connect(&edge.addresses().unix).await.unwrap();
    edge.shutdown(PATIENCE).await.unwrap();
}
