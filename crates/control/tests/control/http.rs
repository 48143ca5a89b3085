//! A client of REST, as far from ours as can be: hyper, with the CA and nothing else.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    client::conn::{http1, http2},
    header::{AUTHORIZATION, HeaderMap},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{Ground, Node, PATIENCE};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The result of what was done.
    #[track_caller]
    pub(crate) fn result(&self) -> &Value {
        assert!(self.status.is_success() && self.body["success"] == true, "{self:?}");
        &self.body["result"]
    }

    /// Status, code and message of what was not.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, u64, &str) {
        assert!(!self.status.is_success() && self.body["success"] == false && self.body["result"].is_null(), "{self:?}");
        let [error] = &self.body["errors"].as_array().unwrap()[..] else { panic!("one error: {self:?}") };
        (self.status.as_u16(), error["code"].as_u64().unwrap(), error["message"].as_str().unwrap())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Where and as whom.
pub(crate) struct Rest {
    address: SocketAddr,
    tls: TlsConnector,
    host: &'static str,
    token: Option<String>,
}

impl Rest {
    /// The first operator, over HTTP/1.1.
    pub(crate) fn operator(ground: &Ground, node: &Node<'_>) -> Self {
        Self::new(ground, node, &[b"http/1.1"]).by(&ground.first_token())
    }

    pub(crate) fn new(ground: &Ground, node: &Node<'_>, protocols: &[&[u8]]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ground.pki.ca()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { address: node.control.address(), tls: Arc::new(config).into(), host: "localhost", token: None }
    }

    /// With another token.
    pub(crate) fn by(&self, token: &str) -> Self {
        Self { address: self.address, tls: self.tls.clone(), host: self.host, token: Some(token.to_owned()) }
    }

    /// Without one.
    pub(crate) fn by_nobody(&self) -> Self {
        Self { address: self.address, tls: self.tls.clone(), host: self.host, token: None }
    }

    /// By another name of the server.
    pub(crate) fn at(&self, host: &'static str) -> Self {
        Self { address: self.address, tls: self.tls.clone(), host, token: self.token.clone() }
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.tls.connect(ServerName::try_from(self.host).unwrap(), stream).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], &body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, &[], &body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    /// A request below `/client/v4`, on a connection of its own.
    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_to(method, &format!("/client/v4{path}"), headers, body).await
    }

    /// A request to any path.
    pub(crate) async fn send_to(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        tokio::time::timeout(PATIENCE, self.ask(method, path, headers, body)).await.unwrap()
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let stream = self.connect().await;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let uri = if h2 { format!("https://{}{path}", self.host) } else { path.to_owned() };
        let mut request = Request::builder().method(method).uri(uri);
        if !h2 {
            request = request.header("host", self.host);
        }
        // As wrangler sends it.
        request = request.header("content-type", "text/plain;charset=UTF-8");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let answer = if h2 {
            let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let answer = send.send_request(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            connection.abort();
            (head, body)
        } else {
            let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let answer = send.send_request(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            connection.abort();
            (head, body)
        };
        let (head, body) = answer;
        let text = String::from_utf8_lossy(&body);
        let body = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{} {path}: no JSON ({error}): {text:?}", head.status));
        Answer { status: head.status, headers: head.headers, body }
    }
}
