//! The service over a real UNIX socket.

use std::{path::Path, sync::Arc, time::Duration};

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Server, server::UdsConnectInfo},
};
use wire::{
    ErrorKind, PublicError,
    v1::{self, lookup_client::LookupClient},
};

use super::world::*;
use crate::{Authenticator, Connection, PeerPattern, PeerRule, PeerRules, Service, ServiceOptions};

pub(super) struct Grpc {
    pub(super) world: World,
    pub(super) client: LookupClient<Channel>,
    stop: CancellationToken,
    token: String,
    _folder: tempfile::TempDir,
}

pub(super) async fn grpc(peers: Vec<PeerRule>, options: ServiceOptions) -> Grpc {
    let mut world = World::new();
    let token = world.token("worker/web", None).text().expose().to_owned();
    world.publish();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let stop = CancellationToken::new();
    let node = "edge-1".parse().unwrap();
    let service = Service::new(world.lookup.clone(), Authenticator::new(PeerRules::new(peers)), node, options, stop.clone());
    let with_peer = |mut request: Request<()>| {
        let uid = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred).map(|peer| peer.uid());
        request.extensions_mut().insert(Connection { identity: None, not_after: None, uid });
        Ok::<_, Status>(request)
    };
    let routes = tonic::service::interceptor::InterceptedService::new(service.into_server(), with_peer);
    tokio::spawn(Server::builder().add_service(routes).serve_with_incoming(UnixListenerStream::new(listener)));
    Grpc { world, client: LookupClient::new(connect(&path).await), stop, token, _folder: folder }
}

async fn connect(path: &Path) -> Channel {
    let path: Arc<Path> = path.into();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(&path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

impl Grpc {
    pub(super) fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        request
    }
}

pub(super) fn want(name: &str) -> v1::Wanted {
    v1::Wanted { binding: name.to_owned(), ..Default::default() }
}

pub(super) fn get(name: &str) -> v1::GetRequest {
    v1::GetRequest { wanted: Some(want(name)), ..Default::default() }
}

pub(super) fn kind(status: Status) -> ErrorKind {
    PublicError::from_status(&status).kind
}

#[tokio::test]
async fn grpc_get_replies_with_value_version_position_age_and_edge() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let request = grpc.with_token(get("API_KEY"));
    let found = grpc.client.get(request).await.unwrap().into_inner();
    assert_eq!((found.value.as_slice(), found.version, found.age_ms, found.edge.as_str()), (&b"first"[..], 1, Some(0), "edge-1"));
    assert_eq!(found.position, Some(at(2).into()));
    let request = grpc.with_token(get("NOTHING"));
    assert_eq!(kind(grpc.client.get(request).await.unwrap_err()), ErrorKind::NotBound);
    let request = grpc.with_token(v1::GetRequest::default());
    assert_eq!(kind(grpc.client.get(request).await.unwrap_err()), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn grpc_without_a_credential_answers_nothing() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    assert_eq!(kind(grpc.client.get(get("API_KEY")).await.unwrap_err()), ErrorKind::Denied, "the uid of this process is mapped to nobody");
    let mut request = Request::new(get("API_KEY"));
    request.metadata_mut().insert("authorization", "Bearer cbc_nonsense".parse().unwrap());
    request.metadata_mut().insert(wire::REQUEST_ID_METADATA, "from-the-caller".parse().unwrap());
    let refused = PublicError::from_status(&grpc.client.get(request).await.unwrap_err());
    assert_eq!((refused.kind, refused.request_id.as_str()), (ErrorKind::Unauthenticated, "from-the-caller"));
    let many = v1::GetManyRequest { wanted: vec![want("API_KEY")], ..Default::default() };
    assert_eq!(kind(grpc.client.get_many(many).await.unwrap_err()), ErrorKind::Denied);
    assert_eq!(kind(grpc.client.watch(get("API_KEY")).await.unwrap_err()), ErrorKind::Denied);
}

#[tokio::test]
async fn grpc_get_many_of_a_token_that_nobody_knows_is_no_good_answer() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    // Never published.
    let made_up = grpc.world.token("worker/web", None).text().expose().to_owned();
    for wanted in [vec![want("API_KEY")], vec![]] {
        let mut request = Request::new(v1::GetManyRequest { wanted, ..Default::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {made_up}").parse().unwrap());
        assert_eq!(kind(grpc.client.get_many(request).await.unwrap_err()), ErrorKind::Revoked);
    }
}

#[tokio::test]
async fn grpc_uid_acts_as_the_consumer_that_the_request_names() {
    let folder = tempfile::tempdir().unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(folder.path()).unwrap());
    let rule = PeerRule { uid, account: ACCOUNT, pattern: PeerPattern::Any };
    let mut grpc = grpc(vec![rule], ServiceOptions::default()).await;
    let named = v1::GetRequest { consumer: Some(consumer("worker/web").into()), ..get("API_KEY") };
    assert_eq!(grpc.client.get(named).await.unwrap().into_inner().value, b"first");
    let other = v1::GetRequest { consumer: Some(consumer("worker/other").into()), ..get("API_KEY") };
    assert_eq!(kind(grpc.client.get(other).await.unwrap_err()), ErrorKind::Revoked);
}

#[tokio::test]
async fn grpc_get_many_keeps_the_order_and_fails_one_alone() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let wanted = vec![want("NOTHING"), want("not a name"), want("API_KEY")];
    let request = grpc.with_token(v1::GetManyRequest { wanted, ..Default::default() });
    let outcomes = grpc.client.get_many(request).await.unwrap().into_inner().outcomes;
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.into_result().map_err(|error| error.kind)).collect();
    assert_eq!(outcomes[0].as_ref().unwrap_err(), &ErrorKind::NotBound);
    assert_eq!(outcomes[1].as_ref().unwrap_err(), &ErrorKind::InvalidArgument);
    assert_eq!(outcomes[2].as_ref().unwrap().value, b"first");
    let request = grpc.with_token(v1::GetManyRequest { wanted: vec![want("A"); 257], ..Default::default() });
    assert_eq!(kind(grpc.client.get_many(request).await.unwrap_err()), ErrorKind::TooLarge);
}

#[tokio::test]
async fn grpc_get_waits_for_its_position() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let freshness = v1::Freshness { min_position: Some(at(3).into()), max_age_ms: None };
    let request = grpc.with_token(v1::GetRequest { freshness: Some(freshness), ..get("API_KEY") });
    let (mut client, world) = (grpc.client.clone(), &mut grpc.world);
    let waiting = tokio::spawn(async move { client.get(request).await });
    world.set(world.first(), "second");
    world.publish();
    let found = waiting.await.unwrap().unwrap().into_inner();
    assert_eq!((found.value.as_slice(), found.position), (&b"second"[..], Some(at(3).into())));

    let freshness = v1::Freshness { min_position: Some(at(99).into()), max_age_ms: None };
    let mut request = grpc.with_token(v1::GetRequest { freshness: Some(freshness), ..get("API_KEY") });
    request.set_timeout(Duration::from_secs(60));
    let mut client = grpc.client.clone();
    let waiting = tokio::spawn(async move { client.get(request).await });
    while !waiting.is_finished() {
        grpc.world.advance(Duration::from_secs(30));
        tokio::task::yield_now().await;
    }
    assert_eq!(kind(waiting.await.unwrap().unwrap_err()), ErrorKind::NotSynced);
}

#[tokio::test]
async fn grpc_watch_follows_and_ends_with_the_credential() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let request = grpc.with_token(get("API_KEY"));
    let mut watch = grpc.client.watch(request).await.unwrap().into_inner();
    let next = |reply: Option<v1::WatchReply>| reply.unwrap().outcome.unwrap().into_result().map_err(|error| error.kind);
    assert_eq!(next(watch.message().await.unwrap()).unwrap().value, b"first");
    grpc.world.set(grpc.world.first(), "second");
    grpc.world.publish();
    assert_eq!(next(watch.message().await.unwrap()).unwrap().version, 2);
    grpc.world.unbind("worker/web", "API_KEY");
    grpc.world.publish();
    assert_eq!(next(watch.message().await.unwrap()), Err(ErrorKind::NotBound));
    let hash = seal::ConsumerToken::parse(&grpc.token).unwrap().hash();
    grpc.world.remove(state::TypedKey::ConsumerToken { hash });
    grpc.world.publish();
    assert_eq!(next(watch.message().await.unwrap()), Err(ErrorKind::Revoked));
    assert_eq!(watch.message().await.unwrap(), None);
}

#[tokio::test]
async fn grpc_watches_are_bounded_and_a_place_is_free_again() {
    let mut grpc = grpc(vec![], ServiceOptions { watches_max: 1, ..ServiceOptions::default() }).await;
    let request = grpc.with_token(get("API_KEY"));
    let first = grpc.client.watch(request).await.unwrap();
    let request = grpc.with_token(get("API_KEY"));
    assert_eq!(kind(grpc.client.watch(request).await.unwrap_err()), ErrorKind::Busy);
    drop(first);
    loop {
        let request = grpc.with_token(get("API_KEY"));
        if grpc.client.watch(request).await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn grpc_watches_of_one_caller_leave_places_for_others() {
    let mut grpc = grpc(vec![], ServiceOptions { watches_max: 8, ..ServiceOptions::default() }).await;
    grpc.world.consumer("worker/other");
    let other = grpc.world.token("worker/other", None).text().expose().to_owned();
    grpc.world.publish();
    let mut open = Vec::new();
    let error = loop {
        let request = grpc.with_token(get("API_KEY"));
        match grpc.client.watch(request).await {
            Ok(watch) => open.push(watch),
            Err(status) => break status,
        }
    };
    assert_eq!((kind(error), open.len()), (ErrorKind::Busy, 2));
    let first = std::mem::replace(&mut grpc.token, other);
    let request = grpc.with_token(get("API_KEY"));
    open.push(grpc.client.watch(request).await.unwrap());
    grpc.token = first;
}

#[tokio::test]
async fn grpc_watches_and_streams_are_opened_for_callers_that_the_root_knows() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let hash = seal::ConsumerToken::parse(&grpc.token).unwrap().hash();
    grpc.world.remove(state::TypedKey::ConsumerToken { hash });
    grpc.world.publish();
    let request = grpc.with_token(get("API_KEY"));
    assert_eq!(kind(grpc.client.watch(request).await.unwrap_err()), ErrorKind::Revoked);
    let request = grpc.with_token(futures::stream::empty());
    assert_eq!(kind(grpc.client.stream(request).await.unwrap_err()), ErrorKind::Revoked);
}

#[tokio::test]
async fn grpc_replies_that_nobody_reads_are_bounded_and_their_bytes_come_back() {
    use tonic::codegen::{Service as _, http};
    use wire::v1::lookup_server::Lookup as _;
    let grpc = grpc(vec![], ServiceOptions { reply_bytes_max: 4 * 1500, ..ServiceOptions::default() }).await;
    let node = "edge-1".parse().unwrap();
    let options = ServiceOptions { reply_bytes_max: 4 * 1500, ..ServiceOptions::default() };
    let service = Service::new(grpc.world.lookup.clone(), Authenticator::default(), node, options, grpc.stop.clone());
    let first = service.get(grpc.with_token(get("API_KEY"))).await.unwrap();
    let second = service.get(grpc.with_token(get("API_KEY"))).await.unwrap_err();
    assert_eq!(kind(second), ErrorKind::Busy, "the first has not left");
    drop(first);
    // Through the server the body holds the place: the reply's head alone gives nothing back.
    let mut server = service.clone().into_server();
    let message = tonic::codegen::Bytes::from_static(b"\0\0\0\0\x0b\x12\x09\x0a\x07API_KEY");
    let request = http::Request::post("/cinnabar.v1.Lookup/Get").header("authorization", format!("Bearer {}", grpc.token));
    let request = request.header("content-type", "application/grpc").body(tonic::body::Body::new(Whole(Some(message)))).unwrap();
    let (_, body) = server.call(request).await.unwrap().into_parts();
    assert_eq!(kind(service.get(grpc.with_token(get("API_KEY"))).await.unwrap_err()), ErrorKind::Busy);
    drop(body);
    service.get(grpc.with_token(get("API_KEY"))).await.unwrap();
}

/// A body of one frame.
struct Whole(Option<tonic::codegen::Bytes>);

impl http_body::Body for Whole {
    type Data = tonic::codegen::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

#[tokio::test]
async fn grpc_request_larger_than_any_is_refused_before_it_is_read() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let status = grpc.client.get(get(&"A".repeat(1 << 20))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange);
}

#[tokio::test]
async fn grpc_stream_answers_every_tag_and_does_not_wait_for_one_that_waits() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let (requests, sent) = tokio::sync::mpsc::channel(16);
    let request = grpc.with_token(ReceiverStream::new(sent));
    let late = v1::Freshness { min_position: Some(at(3).into()), max_age_ms: None };
    let ask = |tag, get| v1::StreamRequest { tag, get: Some(get) };
    requests.send(ask(0, v1::GetRequest { freshness: Some(late), ..get("API_KEY") })).await.unwrap();
    let mut replies = grpc.client.stream(request).await.unwrap().into_inner();
    for tag in 1..=500 {
        requests.send(ask(tag, get(if tag % 2 == 0 { "API_KEY" } else { "NOTHING" }))).await.unwrap();
        let reply = replies.message().await.unwrap().unwrap();
        let outcome = reply.outcome.unwrap().into_result().map(|found| found.value).map_err(|error| error.kind);
        let expected = if tag % 2 == 0 { Ok(b"first".to_vec()) } else { Err(ErrorKind::NotBound) };
        assert_eq!((reply.tag, outcome), (tag, expected));
    }
    requests.send(v1::StreamRequest { tag: 501, get: None }).await.unwrap();
    let reply = replies.message().await.unwrap().unwrap();
    assert_eq!(reply.outcome.unwrap().into_result().unwrap_err().kind, ErrorKind::InvalidArgument);
    drop(requests);
    grpc.world.publish();
    let reply = replies.message().await.unwrap().unwrap();
    assert_eq!((reply.tag, reply.outcome.unwrap().into_result().unwrap().value), (0, b"first".to_vec()));
    assert_eq!(replies.message().await.unwrap(), None);
}

#[tokio::test]
async fn grpc_streams_end_when_the_edge_stops() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let (_requests, sent) = tokio::sync::mpsc::channel::<v1::StreamRequest>(1);
    let request = grpc.with_token(ReceiverStream::new(sent));
    let mut replies = grpc.client.stream(request).await.unwrap().into_inner();
    let request = grpc.with_token(get("API_KEY"));
    let mut watch = grpc.client.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    grpc.stop.cancel();
    assert_eq!(kind(replies.message().await.unwrap_err()), ErrorKind::Unavailable);
    let outcome = watch.next().await.unwrap().unwrap().outcome.unwrap();
    assert_eq!(outcome.into_result().unwrap_err().kind, ErrorKind::Unavailable);
}
