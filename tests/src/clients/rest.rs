//! REST over TLS, byte by byte: HTTP/1.1 with one request after the other on a connection that is kept.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long an answer may take, a failover included.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// Names in lower case, in the order of sending.
    pub headers: Vec<(String, String)>,
    /// What followed.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The envelope, which must be one, and agree with the status.
    ///
    /// # Panics
    /// When it is none.
    pub fn envelope(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        let envelope: Value = serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}: {text}", self.status));
        let good = (200..300).contains(&self.status);
        assert_eq!(envelope["success"], good, "{}: {text}", self.status);
        assert!(envelope["messages"].is_array() && envelope.get("result").is_some(), "{text}");
        assert_eq!(envelope["errors"].as_array().map(Vec::is_empty), Some(good), "{text}");
        assert!(self.header("cf-ray").is_some(), "an answer can be named: {:?}", self.headers);
        envelope
    }

    /// What was asked for.
    ///
    /// # Panics
    /// When it was refused.
    pub fn result(&self) -> Value {
        let envelope = self.envelope();
        assert_eq!(envelope["success"], true, "{}: {envelope}", self.status);
        envelope["result"].clone()
    }

    /// The status, code and message of the first error.
    ///
    /// # Panics
    /// When there is none.
    pub fn refusal(&self) -> (u16, i64, String) {
        let envelope = self.envelope();
        let error = &envelope["errors"][0];
        let code = error["code"].as_i64().unwrap_or_else(|| panic!("{}: no code: {envelope}", self.status));
        (self.status, code, error["message"].as_str().expect("a message").to_owned())
    }
}

/// A client of one control node. Cloned, it has a connection of its own.
pub struct Rest {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    credentials: Vec<(String, String)>,
    stream: Option<BufStream<TlsStream<TcpStream>>>,
}

impl Clone for Rest {
    fn clone(&self) -> Self {
        Self { address: self.address, tls: self.tls.clone(), credentials: self.credentials.clone(), stream: None }
    }
}

impl Rest {
    /// A client that believes this authority and shows this token.
    ///
    /// # Panics
    /// When `ca_pem` is no certificate.
    pub fn new(address: SocketAddr, ca_pem: &str, token: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a CA");
        }
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { address, tls: Arc::new(config), credentials: Vec::new(), stream: None }.token(token)
    }

    /// The same client with another token.
    #[must_use]
    pub fn token(&self, token: &str) -> Self {
        self.showing(&[("Authorization", &format!("Bearer {token}"))])
    }

    /// The same client with these headers in the place of the token.
    #[must_use]
    pub fn showing(&self, headers: &[(&str, &str)]) -> Self {
        let credentials = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { credentials, ..self.clone() }
    }

    /// The same client of another node.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// Reads.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Sends JSON.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn ask(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let sent = self.send(method, path, &[("Content-Type", "application/json")], body.to_string().as_bytes()).await;
        sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends these bytes, at most once.
    ///
    /// # Errors
    /// What broke before a whole answer was there.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.send_bytes(method.as_bytes(), path.as_bytes(), headers, body).await
    }

    /// The same, where the path need not be text.
    ///
    /// # Errors
    /// What broke before a whole answer was there.
    pub async fn send_bytes(&mut self, method: &[u8], path: &[u8], headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let mut request = [method, b" ", path, b" HTTP/1.1\r\nHost: "].concat();
        request.extend_from_slice(format!("{}\r\n", self.address).as_bytes());
        let own = self.credentials.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !body.is_empty() || method != b"GET" {
            request.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        // Taken out: what is given up on half way is not used again.
        let kept = self.stream.take();
        let exchange = async {
            let mut stream = match kept {
                Some(stream) => stream,
                None => self.connect().await?,
            };
            stream.write_all(&request).await?;
            stream.flush().await?;
            let answer = read_answer(&mut stream, method == b"HEAD").await?;
            Ok::<_, io::Error>((answer, stream))
        };
        let (answer, stream) = timeout(ANSWERS_WITHIN, exchange).await.map_err(io::Error::other)??;
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.stream = (!closes).then_some(stream);
        Ok(answer)
    }

    async fn connect(&self) -> io::Result<BufStream<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(self.tls.clone()).connect(ServerName::from(self.address.ip()), stream).await?;
        Ok(BufStream::new(stream))
    }
}

/// Reads the head and the body of an answer. `bare`: there is no body, whatever the head says.
async fn read_answer(stream: &mut BufStream<TlsStream<TcpStream>>, bare: bool) -> io::Result<Answer> {
    let broken = |what: &str| io::Error::other(what.to_owned());
    let line = read_line(stream).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| broken(&format!("no answer: {line:?}")))?;
    let mut answer = Answer { status, headers: Vec::new(), body: Vec::new() };
    loop {
        let line = read_line(stream).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if bare || status == 204 {
        return Ok(answer);
    }
    if let Some(length) = answer.header("content-length") {
        let length: u64 = length.parse().map_err(io::Error::other)?;
        read_exactly(stream, length, &mut answer.body).await?;
    } else if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let length = u64::from_str_radix(&read_line(stream).await?, 16).map_err(io::Error::other)?;
            read_exactly(stream, length, &mut answer.body).await?;
            read_line(stream).await?;
            if length == 0 {
                break;
            }
        }
    } else {
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer.body).await?;
        answer.headers.push(("connection".to_owned(), "close".to_owned()));
    }
    Ok(answer)
}

async fn read_exactly(stream: &mut BufStream<TlsStream<TcpStream>>, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other(format!("an answer of {length} bytes")));
    }
    let read = stream.take(length).read_to_end(into).await?;
    if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn read_line(stream: &mut BufStream<TlsStream<TcpStream>>) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(64 << 10).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
}
