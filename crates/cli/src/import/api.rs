//! Names, scopes and comments of the secrets of a store behind a Cloudflare-shaped API. No such API returns a value.
//!
//! One connection for each page, HTTP/1.1 over TLS 1.3. A page past the end is an empty list, as the clients of that API rely on.
//!
//! **Invariants**
//! 1. The token goes to the host that was named, over TLS, and into no error. A redirection is not followed.
//! 2. What the server sends is bounded: the bytes of a page, the number of pages, the length of a message that is shown.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wire::ErrorKind;
use zeroize::Zeroizing;

use crate::Failure;

/// How many secrets a page is asked for: the most that the API is known to give.
const PAGE_SIZE: usize = 100;
/// The most pages that are asked for.
const PAGES_MAX: usize = 1000;
/// The most bytes of a page.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// The most characters shown of a message that the server sends.
const MESSAGE_CHARS_MAX: usize = 300;
/// The port of an address that names none.
const HTTPS: u16 = 443;

/// A secret as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Found {
    /// Its name.
    pub(crate) name: String,
    /// Where it may be used.
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    /// What it is for.
    #[serde(default)]
    pub(crate) comment: Option<String>,
}

/// The shape in which every answer comes.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    errors: Vec<Complaint>,
    #[serde(default)]
    result: Option<Vec<Found>>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// An API, and who asks it.
pub(crate) struct Api {
    host: String,
    port: u16,
    /// The path before `/accounts`, without a slash at its end.
    base: String,
    token: Zeroizing<String>,
    tls: TlsConnector,
}

impl Api {
    /// The API at `url`, such as `https://HOST/client/v4`. `ca` stands in place of the system's authorities.
    ///
    /// # Errors
    /// [`Failure`] with exit code 2 for a URL that is not `https`, and for certificates that cannot be read.
    pub(crate) fn new(url: &str, ca: Option<&Path>, token: Zeroizing<String>) -> Result<Self, Failure> {
        let refuse = || Failure::usage(format!("not an API's address: expected https://HOST[:PORT]/client/v4, got {url:?}"));
        let uri: Uri = url.parse().map_err(|_| refuse())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(refuse)?;
        if uri.scheme_str() != Some("https") || uri.query().is_some() {
            return Err(refuse());
        }
        Ok(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(HTTPS),
            base: uri.path().trim_end_matches('/').to_owned(),
            token,
            tls: TlsConnector::from(Arc::new(tls(ca)?)),
        })
    }

    /// All secrets of a store, page by page.
    ///
    /// # Errors
    /// [`Failure`] that says what the server answered, with the exit code that goes with it.
    pub(crate) async fn secrets(&self, account: &str, store: &str, timeout: Duration) -> Result<Vec<Found>, Failure> {
        for (what, id) in [("account", account), ("store", store)] {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                return Err(Failure::usage(format!("not the id of {what}: {id:?}; an API takes ids, of letters and digits, not names")));
            }
        }
        let all = tokio::time::timeout(timeout, self.pages(account, store)).await;
        all.unwrap_or_else(|_| {
            Err(Failure::with_code(ErrorKind::DeadlineExceeded.exit_code(), format!("{} did not answer within {timeout:?}", self.host)))
        })
    }

    async fn pages(&self, account: &str, store: &str) -> Result<Vec<Found>, Failure> {
        let mut all: Vec<Found> = Vec::new();
        for page in 1..=PAGES_MAX {
            let path = format!("{}/accounts/{account}/secrets_store/stores/{store}/secrets?page={page}&per_page={PAGE_SIZE}", self.base);
            let mut found = self.page(&path).await?;
            // Over an API that passes over `page` this would never end.
            if found.is_empty() || found.iter().all(|one| all.iter().any(|seen| seen.name == one.name)) {
                return Ok(all);
            }
            all.append(&mut found);
        }
        Err(Failure::failed(format!("{} has more than {} secrets in that store", self.host, PAGES_MAX * PAGE_SIZE)))
    }

    async fn page(&self, path: &str) -> Result<Vec<Found>, Failure> {
        let (status, body) = self.ask(path).await?;
        if status.is_redirection() {
            return Err(Failure::failed(format!(
                "{} answers with a redirection ({status}), which is not followed: is the address whole?",
                self.host
            )));
        }
        let envelope: Envelope = serde_json::from_slice(&body).map_err(|_| {
            self.failure(status, "it is not what such an API answers; the address ends with the version, as in https://HOST/client/v4")
        })?;
        match envelope.result {
            Some(result) if envelope.success && status.is_success() => Ok(result),
            _ => {
                let complaints: Vec<_> = envelope.errors.iter().map(|one| format!("{} [code {}]", shown(&one.message), one.code)).collect();
                Err(self.failure(status, &complaints.join("; ")))
            }
        }
    }

    /// Sends a request and reads the answer.
    async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let lost = |step: &str, error: &dyn fmt::Display| {
            Failure::with_code(ErrorKind::Unavailable.exit_code(), format!("{} at {}:{}: {error}", step, self.host, self.port))
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| lost("no such host", &error))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| lost("cannot connect", &error))?;
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .map_err(|error| lost("no TLS 1.3 connection that can be believed; --ca names other authorities", &error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost("no HTTP", &error))?;
        let mut bearer = header::HeaderValue::try_from(format!("Bearer {}", self.token.as_str()))
            .map_err(|_| Failure::usage("the API token holds characters that no token has; was it copied whole, without line breaks?"))?;
        bearer.set_sensitive(true);
        let host = if self.port == HTTPS { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        let request = Request::get(path)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("cinnabar/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::usage(format!("not a path of such an API: {error}")))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| lost("no answer", &error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| lost("an answer that was cut, or is too long", &error))?.to_bytes()))
        };
        // The connection carries the exchange, and ends with it.
        tokio::select! {
            biased;
            answer = exchange => answer,
            Err(error) = connection => Err(lost("no answer", &error)),
        }
    }

    /// What the server's status means to the caller.
    fn failure(&self, status: StatusCode, why: &str) -> Failure {
        let kind = match status.as_u16() {
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            429 | 500.. => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        Failure::with_code(kind.exit_code(), format!("{} answers {status}: {why}", self.host))
    }
}

/// A text of the server's as a terminal may see it.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let refuse = |error: &dyn fmt::Display| Failure::usage(format!("cannot read certificates from {}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refuse(&error))? {
                roots.add(certificate.map_err(|error| refuse(&error))?).map_err(|error| refuse(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Failure::usage("no certificate authority to believe: install the system's, or name a file with --ca"));
    }
    let builder = ClientConfig::builder_with_provider(runtime::tls::provider()).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(|error| Failure::failed(format!("cannot set up TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
