//! A server that does what a test's script says and remembers what it saw.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::server::{Connected, Server as Transport},
};
use wire::{ErrorKind, PublicError, REQUEST_ID_METADATA, v1};

use crate::Identity;

/// One call as the server saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) authorization: String,
    pub(super) correlation: String,
    pub(super) request_id: String,
    pub(super) has_deadline: bool,
    pub(super) certified: bool,
    pub(super) min_revision: Option<u64>,
}

/// What the server does: fail the next calls in this order, then succeed; or never answer.
#[derive(Clone, Default)]
pub(super) struct Script {
    fails: Arc<Mutex<VecDeque<Status>>>,
    seen: watch::Sender<Vec<Seen>>,
    silent: bool,
    /// The list of authorities that every answer names the version of.
    trust: Arc<Mutex<v1::ShowAuthorityReply>>,
    /// How often it was asked for.
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

impl Script {
    pub(super) fn failing(statuses: impl IntoIterator<Item = Status>) -> Self {
        let script = Self::default();
        script.fails.lock().unwrap().extend(statuses);
        script
    }

    pub(super) fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// Tells this list of authorities from now on.
    pub(super) fn trusts(&self, version: u32, authorities: &[&Authority]) {
        let authority = |one: &&Authority| v1::Authority { certificate: one.issuer.der().to_vec().into(), ..Default::default() };
        *self.trust.lock().unwrap() =
            v1::ShowAuthorityReply { version, authorities: authorities.iter().map(authority).collect(), ..Default::default() };
    }

    /// An answer that names the list's version.
    fn labelled<T>(&self, reply: T) -> Answer<T> {
        let mut response = Response::new(reply);
        let version = self.trust.lock().unwrap().version;
        if version > 0 {
            response.metadata_mut().insert(wire::TRUST_METADATA, version.into());
        }
        Ok(response)
    }

    /// How often the list was asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Completes once a call has arrived.
    pub(super) async fn called(&self) {
        self.seen.subscribe().wait_for(|seen| !seen.is_empty()).await.unwrap();
    }

    /// Notes a call, then does what the script says. Returns how many calls there were.
    async fn note<T>(&self, request: &Request<T>, request_id: &str, freshness: Option<&v1::Freshness>) -> Result<u64, Status> {
        let text = |key: &str| request.metadata().get(key).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let seen = Seen {
            authorization: text("authorization"),
            correlation: text(REQUEST_ID_METADATA),
            request_id: request_id.to_owned(),
            has_deadline: request.metadata().contains_key("grpc-timeout"),
            certified: request.extensions().get::<Certified>().is_some_and(|certified| certified.0),
            min_revision: freshness.and_then(|freshness| freshness.min_position).map(|position| position.revision),
        };
        self.seen.send_modify(|all| all.push(seen));
        if self.silent {
            std::future::pending::<()>().await;
        }
        match self.fails.lock().unwrap().pop_front() {
            Some(status) => Err(status),
            None => Ok(self.seen.borrow().len() as u64),
        }
    }
}

/// A running server. Dropping it lets it run on; the test's runtime ends it.
pub(super) struct Server {
    pub(super) script: Script,
    pub(super) socket: PathBuf,
    pub(super) address: String,
    folder: Option<tempfile::TempDir>,
    task: JoinHandle<()>,
    connections: mpsc::Receiver<UnixStream>,
    acceptor: Option<Arc<Mutex<TlsAcceptor>>>,
}

impl Server {
    pub(super) async fn unix(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::unix_at(folder.path().join("server.sock"), script).await;
        server.folder = Some(folder);
        server
    }

    pub(super) async fn unix_at(socket: PathBuf, script: Script) -> Self {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let (pass, connections) = mpsc::channel(64);
        // Keeps a second handle of each connection, by which a test can cut it.
        let incoming = async_incoming(listener, pass);
        let task = tokio::spawn(serve(script.clone(), incoming));
        Self { script, socket, address: String::new(), folder: None, task, connections, acceptor: None }
    }

    pub(super) async fn tls(authority: &Authority, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = Arc::new(Mutex::new(authority.acceptor()));
        let present = acceptor.clone();
        let (pass, accepted) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.lock().unwrap().clone();
                if let Ok(stream) = acceptor.accept(stream).await
                    && pass.send(Ok::<_, io::Error>(Encrypted(stream))).await.is_err()
                {
                    return;
                }
            }
        });
        let task = tokio::spawn(serve(script.clone(), ReceiverStream::new(accepted)));
        Self { script, socket: PathBuf::new(), address, folder: None, task, connections: mpsc::channel(1).1, acceptor: Some(present) }
    }

    /// Shows another certificate to whoever connects from now on.
    pub(super) fn shows(&self, authority: &Authority) {
        *self.acceptor.as_ref().unwrap().lock().unwrap() = authority.acceptor();
    }

    /// Ends the server with its connections, and gives back where it was: the socket's path, and the folder to keep meanwhile.
    pub(super) async fn stop(mut self) -> (PathBuf, Option<tempfile::TempDir>) {
        self.cut();
        self.task.abort();
        let _ = (&mut self.task).await;
        std::fs::remove_file(&self.socket).unwrap();
        (self.socket, self.folder)
    }

    /// Cuts all connections.
    pub(super) fn cut(&mut self) {
        while let Ok(stream) = self.connections.try_recv() {
            let stream = stream.into_std().unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }
}

fn async_incoming(listener: UnixListener, pass: mpsc::Sender<UnixStream>) -> ReceiverStream<io::Result<UnixStream>> {
    let (accepted, incoming) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = stream.into_std().unwrap();
            let second = UnixStream::from_std(stream.try_clone().unwrap()).unwrap();
            pass.try_send(second).unwrap();
            if accepted.send(UnixStream::from_std(stream)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(incoming)
}

async fn serve<I, C>(script: Script, incoming: I)
where
    I: Stream<Item = io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let router = Transport::builder()
        .add_service(v1::stores_server::StoresServer::new(script.clone()))
        .add_service(v1::consumers_server::ConsumersServer::new(script.clone()))
        .add_service(v1::cluster_server::ClusterServer::new(script.clone()))
        .add_service(v1::receipts_server::ReceiptsServer::new(script.clone()))
        .add_service(v1::lookup_server::LookupServer::new(script).max_encoding_message_size(wire::LOOKUP_REPLY_BYTES_MAX));
    let _ = router.serve_with_incoming(incoming).await;
}

/// Whether the client showed a certificate.
#[derive(Clone)]
struct Certified(bool);

struct Encrypted(tokio_rustls::server::TlsStream<tokio::net::TcpStream>);

impl Connected for Encrypted {
    type ConnectInfo = Certified;
    fn connect_info(&self) -> Certified {
        Certified(self.0.get_ref().1.peer_certificates().is_some())
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A CA of a test's own.
pub(super) struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap() }
    }

    pub(super) fn ca_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client certificate for a SPIFFE id.
    pub(super) fn identity(&self, uri: &str) -> Identity {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem().into() }
    }

    fn acceptor(&self) -> TlsAcceptor {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn not_here<T>() -> Answer<T> {
    Err(PublicError::new(ErrorKind::Unsupported, "not in this test").into())
}

#[tonic::async_trait]
impl v1::stores_server::Stores for Script {
    async fn create(&self, request: Request<v1::CreateStoreRequest>) -> Answer<v1::CreateStoreReply> {
        self.note(&request, &request.get_ref().request_id, None).await?;
        let store = v1::Store { name: request.into_inner().name, ..Default::default() };
        self.labelled(v1::CreateStoreReply { store: Some(store), receipt: None })
    }
    async fn show(&self, request: Request<v1::ShowStoreRequest>) -> Answer<v1::Store> {
        self.note(&request, "", None).await?;
        Ok(Response::new(v1::Store::default()))
    }
    async fn list(&self, _: Request<v1::ListStoresRequest>) -> Answer<v1::ListStoresReply> {
        not_here()
    }
    async fn delete(&self, _: Request<v1::DeleteStoreRequest>) -> Answer<v1::DeleteStoreReply> {
        not_here()
    }
}

#[tonic::async_trait]
impl v1::consumers_server::Consumers for Script {
    async fn create_token(&self, request: Request<v1::CreateConsumerTokenRequest>) -> Answer<v1::ConsumerTokenReply> {
        self.note(&request, &request.get_ref().request_id, None).await?;
        Ok(Response::new(v1::ConsumerTokenReply { token: "cbc_made".into(), ..Default::default() }))
    }
    async fn create(&self, _: Request<v1::CreateConsumerRequest>) -> Answer<v1::CreateConsumerReply> {
        not_here()
    }
    async fn list(&self, _: Request<v1::ListConsumersRequest>) -> Answer<v1::ListConsumersReply> {
        not_here()
    }
    async fn delete(&self, _: Request<v1::DeleteConsumerRequest>) -> Answer<v1::DeleteConsumerReply> {
        not_here()
    }
    async fn roll_token(&self, _: Request<v1::RollConsumerTokenRequest>) -> Answer<v1::ConsumerTokenReply> {
        not_here()
    }
    async fn revoke_token(&self, _: Request<v1::RevokeConsumerTokenRequest>) -> Answer<v1::RevokeConsumerTokenReply> {
        not_here()
    }
    async fn list_tokens(&self, _: Request<v1::ListConsumerTokensRequest>) -> Answer<v1::ListConsumerTokensReply> {
        not_here()
    }
}

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Script {
    async fn show_authority(&self, _: Request<v1::ShowAuthorityRequest>) -> Answer<v1::ShowAuthorityReply> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let told = self.trust.lock().unwrap().clone();
        self.labelled(told)
    }
    async fn rotate_authority(&self, _: Request<v1::RotateAuthorityRequest>) -> Answer<v1::ShowAuthorityReply> {
        not_here()
    }
    async fn finish_authority(&self, _: Request<v1::FinishAuthorityRequest>) -> Answer<v1::ShowAuthorityReply> {
        not_here()
    }
    async fn members(&self, _: Request<v1::ClusterMembersRequest>) -> Answer<v1::ClusterMembersReply> {
        not_here()
    }
    async fn status(&self, _: Request<v1::ClusterStatusRequest>) -> Answer<v1::ClusterStatusReply> {
        not_here()
    }
    async fn add(&self, _: Request<v1::ClusterAddRequest>) -> Answer<v1::ClusterChangeReply> {
        not_here()
    }
    async fn promote(&self, _: Request<v1::ClusterPromoteRequest>) -> Answer<v1::ClusterChangeReply> {
        not_here()
    }
    async fn remove(&self, _: Request<v1::ClusterRemoveRequest>) -> Answer<v1::ClusterChangeReply> {
        not_here()
    }
    async fn transfer(&self, _: Request<v1::ClusterTransferRequest>) -> Answer<v1::ClusterChangeReply> {
        not_here()
    }
}

#[tonic::async_trait]
impl v1::receipts_server::Receipts for Script {
    async fn wait_live(&self, request: Request<v1::WaitLiveRequest>) -> Answer<v1::WaitLiveReply> {
        let calls = self.note(&request, "", None).await?;
        let position = request.into_inner().position;
        Ok(Response::new(v1::WaitLiveReply { position, edges_live: if calls == 1 { 1 } else { 2 }, edges_known: 2, ..Default::default() }))
    }
}

/// The values: `A` is bound, `LARGE` is as long as can be, and nothing else is bound.
fn look_up(wanted: Option<v1::Wanted>) -> Result<v1::Found, PublicError> {
    let value = match wanted.unwrap_or_default().binding.as_str() {
        "A" => b"value".to_vec(),
        "LARGE" => vec![7; types::VALUE_BYTES_MAX],
        other => return Err(PublicError::new(ErrorKind::NotBound, format!("no binding {other}"))),
    };
    Ok(v1::Found { value, version: 1, ..Default::default() })
}

#[tonic::async_trait]
impl v1::lookup_server::Lookup for Script {
    type WatchStream = tokio_stream::Once<Result<v1::WatchReply, Status>>;
    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::StreamReply, Status>> + Send>>;

    async fn get(&self, request: Request<v1::GetRequest>) -> Answer<v1::Found> {
        self.note(&request, "", None).await?;
        Ok(Response::new(look_up(request.into_inner().wanted)?))
    }

    async fn get_many(&self, request: Request<v1::GetManyRequest>) -> Answer<v1::GetManyReply> {
        self.note(&request, "", None).await?;
        let outcomes = request.into_inner().wanted.into_iter().map(|wanted| look_up(Some(wanted)).into()).collect();
        Ok(Response::new(v1::GetManyReply { outcomes }))
    }

    async fn watch(&self, request: Request<v1::GetRequest>) -> Answer<Self::WatchStream> {
        let calls = self.note(&request, "", request.get_ref().freshness.as_ref()).await?;
        let position = Some(v1::Position { generation: 0, revision: calls });
        let found = look_up(request.into_inner().wanted).map(|found| v1::Found { version: calls, position, ..found });
        Ok(Response::new(tokio_stream::once(Ok(v1::WatchReply { outcome: Some(found.into()) }))))
    }

    async fn stream(&self, request: Request<Streaming<v1::StreamRequest>>) -> Answer<Self::StreamStream> {
        self.note(&request, "", None).await?;
        let reply = |request: v1::StreamRequest| {
            let outcome = look_up(request.get.and_then(|get| get.wanted));
            v1::StreamReply { tag: request.tag, outcome: Some(outcome.into()) }
        };
        Ok(Response::new(Box::pin(request.into_inner().map(move |request| request.map(reply)))))
    }
}
