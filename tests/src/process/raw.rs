//! gRPC by hand: any bytes to any path, for what no well-behaved client sends.

use std::{net::SocketAddr, sync::Arc};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use runtime::config::TlsFiles;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    body::Body,
    client::GrpcService,
    codegen::http::{Request, Response, Uri},
    transport::{Channel, Endpoint},
};

/// What came back: the gRPC status, and the kind of error that travels with it.
#[derive(Debug)]
pub struct Answer {
    /// The number of the gRPC status.
    pub code: i32,
    /// The kind, when the server names one.
    pub error: wire::PublicError,
}

/// A connection to a control node's or an edge's TLS port that believes this CA, and shows this certificate.
///
/// # Panics
/// When it cannot be set up.
pub fn connect(address: SocketAddr, ca_pem: &str, certificate: Option<&TlsFiles>) -> Channel {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("a certificate")).expect("a CA");
    }
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
    let builder = builder.with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_file(&files.cert).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
            builder.with_client_auth_cert(vec![certificate], key).expect("a key of this certificate")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(ServerName::from(address.ip()), stream).await?))
        }
    });
    Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_with_connector_lazy(connector)
}

/// A connection to a UNIX socket.
pub fn connect_unix(path: &std::path::Path) -> Channel {
    runtime::listen::unix_channel(path)
}

/// Sends `body` as it is: the five bytes before a message are the caller's affair.
///
/// # Panics
/// When the connection breaks: a server answers what it does not understand.
pub async fn call(channel: &mut Channel, path: &str, token: Option<&str>, body: Vec<u8>) -> Answer {
    try_call(channel, path, token, body).await.expect("an answer")
}

/// As [`call`], where the server may also close the connection.
///
/// # Errors
/// What broke.
pub async fn try_call(channel: &mut Channel, path: &str, token: Option<&str>, body: Vec<u8>) -> Result<Answer, String> {
    let (head, body) = send(channel, path, token, body).await?.into_parts();
    let trailers = match body.collect().await {
        Ok(body) => body.trailers().cloned().unwrap_or_default(),
        Err(error) => return Err(format!("the answer broke: {error}")),
    };
    let headers = if head.headers.contains_key("grpc-status") { head.headers } else { trailers };
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok()).unwrap_or(-1);
    let status = tonic::Status::from_header_map(&headers).unwrap_or_else(|| tonic::Status::unknown("no status"));
    Ok(Answer { code, error: wire::PublicError::from_status(&status) })
}

/// Sends a call and takes the head of the answer; the body is whoever keeps the response's to read, or to leave.
///
/// # Errors
/// What broke.
pub async fn begin(channel: &mut Channel, path: &str, body: Vec<u8>) -> Result<Response<Body>, String> {
    send(channel, path, None, body).await
}

/// Sends a call that goes on after its first bytes, though nothing more comes, and takes the head of the answer.
///
/// # Errors
/// What broke.
pub async fn begin_only(channel: &mut Channel, path: &str, first: Vec<u8>) -> Result<Response<Body>, String> {
    let first = stream::iter(Full::new(bytes::Bytes::from(first)).frame().await);
    send_body(channel, path, None, Body::new(StreamBody::new(first.chain(stream::pending())))).await
}

async fn send(channel: &mut Channel, path: &str, token: Option<&str>, body: Vec<u8>) -> Result<Response<Body>, String> {
    send_body(channel, path, token, Body::new(Full::new(bytes::Bytes::from(body)))).await
}

async fn send_body(channel: &mut Channel, path: &str, token: Option<&str>, body: Body) -> Result<Response<Body>, String> {
    let mut request = Request::post(format!("http://server{path}")).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(body).expect("a request");
    futures::future::poll_fn(|context| GrpcService::<Body>::poll_ready(channel, context)).await.map_err(|error| chain(&error))?;
    GrpcService::<Body>::call(channel, request).await.map_err(|error| chain(&error))
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One message in its frame.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// A field of bytes or text, as protobuf writes it; the content is not looked at.
///
/// # Panics
/// When the number or the content is too large for one test.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(number < 16, "one byte of tag");
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}
