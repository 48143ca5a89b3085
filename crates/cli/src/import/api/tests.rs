//! Against a server that records what it is asked and answers what it is told.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

const TOKEN: &str = "t0p-s3cret-token";
const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// A server on this machine.
struct Recorder {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    ca: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Recorder {
    /// Answers the requests in turn with these status lines and bodies.
    async fn start(answers: Vec<(&'static str, String)>) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        fs::write(&ca, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(runtime::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = asked.clone();
        tokio::spawn(async move {
            for (status, body) in answers {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                        _ => break,
                    }
                }
                record.lock().unwrap().push(String::from_utf8(request).unwrap());
                let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, asked, ca, _folder: folder }
    }

    fn api(&self) -> Api {
        Api::new(&format!("https://localhost:{}/client/v4/", self.port), Some(&self.ca), Zeroizing::new(TOKEN.to_owned())).unwrap()
    }

    async fn secrets(&self) -> Result<Vec<Found>, Failure> {
        self.api().secrets(ACCOUNT, "5t0re", Duration::from_secs(30)).await
    }
}

fn page(names: &[&str]) -> String {
    let secrets: Vec<_> = names
        .iter()
        .map(
            |name| serde_json::json!({"id": "x", "name": name, "store_id": "y", "status": "active", "scopes": ["workers"], "comment": "c"}),
        )
        .collect();
    serde_json::json!({"success": true, "errors": [], "messages": [], "result": secrets, "result_info": {"page": 1}}).to_string()
}

#[tokio::test]
async fn pages_are_asked_for_until_one_is_empty() {
    let server = Recorder::start(vec![("200 OK", page(&["A", "B"])), ("200 OK", page(&["C"])), ("200 OK", page(&[]))]).await;
    let found = server.secrets().await.unwrap();
    let names: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.scopes.join(","), found.comment.as_deref())).collect();
    let (scopes, comment) = ("workers".to_owned(), Some("c"));
    assert_eq!(names, [("A", scopes.clone(), comment), ("B", scopes.clone(), comment), ("C", scopes, comment)]);
    let asked = server.asked.lock().unwrap().clone();
    for (number, request) in asked.iter().enumerate() {
        let line =
            format!("GET /client/v4/accounts/{ACCOUNT}/secrets_store/stores/5t0re/secrets?page={}&per_page=100 HTTP/1.1\r\n", number + 1);
        assert!(request.starts_with(&line), "{request}");
        assert!(request.contains(&format!("authorization: Bearer {TOKEN}\r\n")), "{request}");
        assert!(request.contains(&format!("host: localhost:{}\r\n", server.port)), "{request}");
    }
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn server_that_repeats_its_page_is_asked_no_further() {
    let server = Recorder::start(vec![("200 OK", page(&["A"])), ("200 OK", page(&["A"])), ("200 OK", page(&["A"]))]).await;
    assert_eq!(server.secrets().await.unwrap().len(), 1);
    assert_eq!(server.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn refusal_is_told_with_its_exit_code_and_without_the_token() {
    let refused = r#"{"success":false,"errors":[{"code":10000,"message":"Authentication error\u001b[2J"}],"messages":[],"result":null}"#;
    for (status, body, code, words) in [
        ("401 Unauthorized", refused, 4, "Authentication error[2J [code 10000]"),
        ("403 Forbidden", refused, 4, "code 10000"),
        ("404 Not Found", r#"{"success":false,"errors":[{"code":1001,"message":"store_not_found"}]}"#, 3, "store_not_found"),
        ("429 Too Many Requests", refused, 6, "429"),
        ("503 Service Unavailable", "<html>", 6, "503"),
        ("200 OK", "<html>", 1, "https://HOST/client/v4"),
        ("200 OK", r#"{"success":false,"errors":[]}"#, 1, "200"),
        ("301 Moved Permanently", "", 1, "redirection"),
    ] {
        let server = Recorder::start(vec![(status, body.to_owned())]).await;
        let failure = server.secrets().await.unwrap_err();
        let text = failure.to_string();
        assert!(failure.code() == code && text.contains(words) && !text.contains(TOKEN), "{status}: {} {text}", failure.code());
    }
}

#[tokio::test]
async fn answer_without_end_is_cut() {
    let server = Recorder::start(vec![("200 OK", page(&[&"x".repeat(PAGE_BYTES_MAX)]))]).await;
    let failure = server.secrets().await.unwrap_err();
    assert_eq!(failure.code(), 6, "{failure}");
}

#[tokio::test]
async fn authority_that_is_not_believed_sees_no_token() {
    let server = Recorder::start(vec![("200 OK", page(&[]))]).await;
    let other = Recorder::start(Vec::new()).await;
    let url = format!("https://localhost:{}/client/v4", server.port);
    let api = Api::new(&url, Some(&other.ca), Zeroizing::new(TOKEN.to_owned())).unwrap();
    let failure = api.secrets(ACCOUNT, "5t0re", Duration::from_secs(30)).await.unwrap_err();
    assert!(failure.code() == 6 && failure.to_string().contains("--ca"), "{failure}");
    assert!(server.asked.lock().unwrap().is_empty());
}

#[test]
fn address_or_id_that_is_none_is_refused() {
    let api = |url: &str| Api::new(url, None, Zeroizing::default()).map(|_| ());
    for url in ["http://h/client/v4", "h/client/v4", "https://u@h/client/v4", "https://h/client/v4?a=b", "https:///x", "ftp://h"] {
        assert_eq!(api(url).err().map(|failure| failure.code()), Some(2), "{url}");
    }
}

#[tokio::test]
async fn id_that_would_lead_elsewhere_is_refused() {
    let server = Recorder::start(Vec::new()).await;
    for (account, store) in [("", "s"), ("a", ""), ("a/../b", "s"), ("a", "s?x"), ("a", "two words")] {
        let failure = server.api().secrets(account, store, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(failure.code(), 2, "{account:?} {store:?}");
    }
    assert!(server.asked.lock().unwrap().is_empty());
}
