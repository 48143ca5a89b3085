//! Three members of etcd, and a client of them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use super::{
    etcdserverpb::{
        PutRequest, RangeRequest, StatusRequest, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
        maintenance_client::MaintenanceClient, watch_client::WatchClient, watch_request::RequestUnion,
    },
    process::Peer,
};
use crate::process::{Ports, until};

/// As many members as we have voters.
const MEMBERS: usize = 3;

/// The running members.
pub(super) struct Etcd {
    members: Vec<Peer>,
    programs: PathBuf,
    /// How each member is started: its arguments, and its log.
    starts: Vec<(Vec<String>, PathBuf)>,
    clients: Vec<SocketAddr>,
    trust: Option<TlsConnector>,
    _ports: Ports,
}

impl Etcd {
    /// Three members on loopback with their data below `folder`, one of them elected. With `tls`, clients and members speak TLS.
    pub(super) async fn start(programs: &Path, folder: &Path, tls: bool) -> Self {
        let mut ports = Ports::default();
        let peers: Vec<_> = (0..MEMBERS).map(|_| ports.claim()).collect();
        let clients: Vec<_> = (0..MEMBERS).map(|_| ports.claim()).collect();
        let scheme = if tls { "https" } else { "http" };
        let (trust, files) = if tls { certificates(folder) } else { (None, Vec::new()) };
        let all = peers.iter().enumerate().map(|(number, peer)| format!("m{number}={scheme}://{peer}")).collect::<Vec<_>>().join(",");
        let starts = peers.iter().zip(&clients).enumerate().map(|(number, (peer, client))| {
            let (peer, client) = (format!("{scheme}://{peer}"), format!("{scheme}://{client}"));
            let name = format!("m{number}");
            let arguments = [
                ("name", name.as_str()),
                ("data-dir", &folder.join(&name).display().to_string()),
                ("listen-peer-urls", &peer),
                ("initial-advertise-peer-urls", &peer),
                ("listen-client-urls", &client),
                ("advertise-client-urls", &client),
                ("initial-cluster", &all),
                ("initial-cluster-state", "new"),
                ("log-level", "error"),
            ]
            .map(|(name, value)| format!("--{name}={value}"));
            ([&arguments[..], &files[..]].concat(), folder.join(format!("{name}.log")))
        });
        let starts = starts.collect();
        let mut etcd = Self { members: Vec::new(), programs: programs.to_owned(), starts, clients, trust, _ports: ports };
        etcd.restart().await;
        etcd
    }

    /// Kills all members, starts them again, and waits until one is elected.
    pub(super) async fn restart(&mut self) {
        self.members.clear();
        self.members = self.starts.iter().map(|(arguments, log)| Peer::start(&self.programs, "etcd", arguments, log)).collect();
        self.elected().await;
    }

    /// Waits until one leads, and puts it first.
    async fn elected(&mut self) {
        let leader = until("etcd to elect", async || {
            self.members.iter_mut().for_each(Peer::must_run);
            for (at, client) in self.clients.iter().enumerate() {
                let status = MaintenanceClient::new(self.channel(*client)).status(StatusRequest {}).await;
                let status = status.map_err(|error| error.to_string())?.into_inner();
                if status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Ok(at);
                }
            }
            Err("nobody leads".to_owned())
        })
        .await;
        self.clients.swap(0, leader);
        self.members.swap(0, leader);
        self.starts.swap(0, leader);
    }

    /// The processes, the leader's first.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Peer::pid).collect()
    }

    /// A client of the leader, with connections that are used in turn.
    pub(super) fn client(&self, connections: u32) -> Client {
        Client { channels: (0..connections.max(1)).map(|_| self.channel(self.clients[0])).collect() }
    }

    /// A connection that is opened at its first call.
    fn channel(&self, address: SocketAddr) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address").timeout(Duration::from_secs(30));
        let trust = self.trust.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let trust = trust.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(match trust {
                    None => TokioIo::new(Either::Left(stream)),
                    Some(trust) => TokioIo::new(Either::Right(trust.connect(ServerName::from(address.ip()), stream).await?)),
                })
            }
        }))
    }
}

/// A CA and one certificate for all members, as files; and a client's trust in that CA.
fn certificates(folder: &Path) -> (Option<TlsConnector>, Vec<String>) {
    let authority = rcgen::KeyPair::generate().expect("a key");
    // Without a name of its own it would have that of the members' certificate, which would then seem to have signed itself.
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "bench-peers CA");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = parameters.self_signed(&authority).expect("a CA");
    let issuer = rcgen::Issuer::new(parameters, authority);
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a certificate");
    let files = [("ca.pem", authority_certificate.pem()), ("member.pem", certificate.pem()), ("member.key", key.serialize_pem())];
    for (name, text) in &files {
        std::fs::write(folder.join(name), text).expect("a file");
    }
    let member_key = key.serialize_der();
    let [ca, member, key] = files.map(|(name, _)| folder.join(name).display().to_string());
    let arguments = [
        ("cert-file", &member),
        ("key-file", &key),
        ("trusted-ca-file", &ca),
        ("peer-cert-file", &member),
        ("peer-key-file", &key),
        ("peer-trusted-ca-file", &ca),
    ]
    .map(|(name, value)| format!("--{name}={value}"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority_certificate.pem().as_bytes()).expect("a certificate")).expect("a root");
    // etcd asks clients for a certificate as soon as it knows a CA.
    let chain = vec![certificate.der().clone()];
    let own = PrivateKeyDer::try_from(member_key).expect("a key");
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = builder.with_client_auth_cert(chain, own).expect("a certificate with its key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    (Some(TlsConnector::from(Arc::new(config))), arguments.to_vec())
}

/// What a caller puts and reads with. Clones share the connections.
#[derive(Clone)]
pub(super) struct Client {
    channels: Vec<Channel>,
}

impl Client {
    fn channel(&self, number: u32) -> Channel {
        self.channels[number as usize % self.channels.len()].clone()
    }

    /// Puts, as caller `number`.
    pub(super) async fn put(&self, number: u32, key: String, value: Vec<u8>) {
        KvClient::new(self.channel(number)).put(PutRequest { key: key.into(), value }).await.expect("a put of etcd");
    }

    /// Reads from the member's own state; the value's length.
    pub(super) async fn get(&self, number: u32, key: String) -> usize {
        let request = RangeRequest { key: key.into(), serializable: true };
        let reply = KvClient::new(self.channel(number)).range(request).await.expect("a read of etcd").into_inner();
        reply.kvs.first().map_or(0, |found| found.value.len())
    }

    /// Watches one key, as watcher `number`. Returns when etcd has confirmed.
    pub(super) async fn watch(&self, number: u32, key: String) -> Streaming<WatchResponse> {
        let create = WatchCreateRequest { key: key.into(), ..Default::default() };
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The request stream must stay open for as long as the watch is wanted.
        let requests = futures::StreamExt::chain(futures::stream::iter([first]), futures::stream::pending());
        let mut replies = WatchClient::new(self.channel(number)).watch(requests).await.expect("a watch of etcd").into_inner();
        let confirmed = replies.message().await.expect("an answer").is_some_and(|reply| reply.created);
        assert!(confirmed, "etcd did not open the watch");
        replies
    }
}
