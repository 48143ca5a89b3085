//! What comes over REST: the bodies, queries, headers and addresses, part by part; and whole requests, to a control node that runs in this
//! process and has no connection in between.
//!
//! **Invariants** of each whole request, beside those of all inputs
//! 1. It is answered, never with 500 or 503, in the envelope, whose `success` agrees with the status.
//! 2. A value that stands in the body alone is not in the answer.
//! 3. What was made is shown as it was answered, by its id and by its name.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use control::{Control, ControlOptions, RestForm, RestRead, rest_forms};
use enrol::{Founding, RecoveryKeys};
use feed::SigningKey;
use runtime::{OsEntropy, RealClock, RealDisk, config::ControlConfig, dev_pki::DevPki};
use seal::{FileRoot, NodeKeyPair, OperatorToken, RecoveryKey};
use seams::Clock;
use serde_json::{Value, json};
use tonic::codegen::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use types::{ClusterId, NodeId};

use super::{Seen, Target};

const FILES: &[&str] = &["control/src/rest/bindings.rs", "control/src/rest/forms.rs"];

pub(super) const TARGETS: &[Target] = &[
    Target::new("rest_parts", FILES, parts, part).with_words(WORDS).up_to(16 << 10, 1 << 20),
    // Others of the node's threads allocate meanwhile, and an audit log is read in pieces of megabytes.
    Target::new("rest_request", FILES, requests, whole).with_words(WORDS).up_to(8 << 10, 96 << 20).at_least(100),
];

/// A value that no answer may show.
const MARK: &str = "s3cr3t-that-nobody-shows";
const ACCOUNTS: &str = "/client/v4/accounts";

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "1e999",
    "-1",
    "18446744073709551616",
    "null",
    "true",
    "\"name\"",
    "\"value\"",
    "\"scopes\"",
    "\"comment\"",
    "\"ids\"",
    "\"secret_ids\"",
    "\"consumer\"",
    "workers",
    "ai-gateway",
    "default",
    "KEY",
    "00112233445566778899aabbccddeeff",
    "/",
    "//",
    "/../",
    "%2f",
    "%2e%2e",
    "%00",
    "%ff",
    "%C3%A9",
    "?",
    "&",
    "=",
    "+",
    "#",
    ";",
    "page=",
    "per_page=",
    "order=created",
    "order=status",
    "direction=desc",
    "search=",
    "scopes[]=",
    "force=true",
    "since=2026-11-22T09:30:00%2B02:00",
    "before=9999-12-31",
    "limit=1000",
    "actor_email.not=",
    "consumer=worker/shop",
    "authorization: Bearer cbo_",
    "x-auth-key: ",
    "idempotency-key: ",
    "x-stainless-retry-count: 1",
    "\n",
    "DELETE ",
    "PATCH ",
    "/client/v4",
    "/accounts/acme/",
    "/secrets/KEY",
    "/versions",
    "/rollback",
    "/duplicate",
    "/quota",
    "\u{0}",
    "\u{202e}",
    "\u{e9}",
];

/// One of each part: its place in the table, and the part.
fn parts() -> Vec<Vec<u8>> {
    let of: [&[&str]; 10] = [
        &[r#"{"name":"default"}"#, r#"[{"name":"two"}]"#],
        &[
            r#"[{"name":"KEY","value":"v","scopes":["workers"]}]"#,
            r#"{"name":"KEY","value":"a\nb","scopes":["workers","ai-gateway"],"comment":"of the shop"}"#,
            r#"[{"name":"A","value":"","scopes":["dex"],"comment":null},{"name":"B","value":"2","scopes":["access","containers","websearch"],"x":[1]}]"#,
        ],
        &[r#"{"value":"new","scopes":["access"],"comment":""}"#, r#"{"comment":"c"}"#, "{}"],
        &[r#"{"name":"COPY","scopes":["workers"],"comment":""}"#, r#"{"name":"COPY"}"#],
        &[r#"{"ids":["00112233445566778899aabbccddeeff"]}"#, r#"{"secret_ids":["A"]}"#, r#"["A","B"]"#, r#"[{"id":"A"}]"#],
        &[
            r#"{"consumer":{"kind":"worker","name":"shop"},"name":"API_KEY","store_id":"default","secret_name":"KEY"}"#,
            r#"{"consumer":{"kind":"gateway","name":"a.b"},"name":"$","store_id":"default"}"#,
        ],
        &[r#"{"version":1}"#, "", "null"],
        &[
            "page=2&per_page=10&order=created&direction=desc&search=a+b%20c&scopes=workers&scopes=ai_gateway,dex&scopes[]=access&force=true",
            "since=2026-11-22T09%3A30%3A00%2B02%3A00&before=2026-11-23&limit=5&wait_seconds=1&consumer=worker%2Fshop",
        ],
        &[
            "x-stainless-retry-count: 1\nuser-agent: wrangler/4.86.0",
            "idempotency-key: order 17",
            "idempotency-key: 00112233445566778899aabbccddeeff",
            "authorization: Bearer cbo_x",
            "x-auth-email: a@example\nx-auth-key: k",
        ],
        &["/client/v4//accounts/acme///secrets_store/stores?search=//", "https://localhost:7400/client/v4/user", "*"],
    ];
    assert_eq!(of.len(), rest_forms().len(), "a part without a seed");
    let one =
        |(place, texts): (usize, &&[&str])| texts.iter().map(move |text| [&[place as u8], text.as_bytes()].concat()).collect::<Vec<_>>();
    of.iter().enumerate().flat_map(one).collect()
}

/// The first byte chooses the part. What an answer shows of it must read as the same.
fn part(bytes: &[u8]) -> Seen {
    let Some((which, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let RestForm { name, read } = &rest_forms()[usize::from(*which) % rest_forms().len()];
    match read(bytes) {
        Ok(RestRead { said, again }) => {
            if let Some(again) = again {
                match read(&again) {
                    Ok(RestRead { said: twice, .. }) => assert_eq!(twice, said, "{name}: what was answered reads as another"),
                    Err(error) => panic!("{name}: what was answered is refused: {error}"),
                }
            }
            // By length alone: by what they say, nearly all inputs are another.
            Seen::Read(format!("{name} {}", said.len().ilog2()))
        }
        Err(error) => Seen::Refused(format!("{name}: {error}")),
    }
}

/// As `METHOD ADDRESS`, lines of headers, an empty line, and the body.
fn requests() -> Vec<Vec<u8>> {
    // Before anything is counted.
    Node::of_this_process();
    let acme = format!("{ACCOUNTS}/acme");
    let secrets = format!("{acme}/secrets_store/stores/default/secrets");
    let item = |name: &str| json!({"name": name, "value": MARK, "scopes": ["workers"], "comment": "of the shop"});
    let bind = json!({"consumer": {"kind": "worker", "name": "shop"}, "name": "API_KEY", "store_id": "default", "secret_name": "KEY"});
    let texts = [
        format!("GET {acme}/secrets_store/stores?per_page=10&page=1\n"),
        format!("POST {acme}/secrets_store/stores\n\n{}", json!({"name": "spare"})),
        format!("DELETE {acme}/secrets_store/stores/spare\nx-stainless-retry-count: 0\n\n"),
        format!("POST {secrets}\ncontent-type: text/plain;charset=UTF-8\nuser-agent: wrangler/4.86.0\n\n{}", json!([item("KEY")])),
        format!("POST {secrets}\nx-stainless-retry-count: 0\n\n{}", json!([item("A"), item("B")])),
        format!("POST {secrets}\nidempotency-key: order 17\n\n{}", item("C")),
        format!("GET {secrets}?order=created&direction=desc&search=KEY&scopes=workers&scopes=dex\n"),
        format!("GET {secrets}/KEY\n"),
        format!("PATCH {secrets}/KEY\n\n{}", json!({"value": MARK, "scopes": ["workers", "dex"], "comment": ""})),
        format!("GET {secrets}/KEY/versions\n"),
        format!("POST {secrets}/KEY/rollback\n\n"),
        format!("POST {secrets}/KEY/duplicate\n\n{}", json!({"name": "COPY", "scopes": ["workers"], "comment": ""})),
        format!("DELETE {secrets}/COPY\nx-stainless-retry-count: 1\n"),
        format!("DELETE {secrets}?force=true\n\n{}", json!({"ids": ["A", "B"]})),
        format!("POST {acme}/secrets_store/bindings\n\n{bind}"),
        format!("GET {acme}/secrets_store/bindings?consumer=worker/shop&page=1\n"),
        format!("DELETE {acme}/secrets_store/bindings/worker/shop/API_KEY\n"),
        format!("GET {acme}/secrets_store/quota\nx-auth-email: a@example\n"),
        format!("GET {acme}/logs/audit?since=2026-01-01&before=2100-01-01T00:00:00%2B02:00&limit=3&action_type.not=view\n"),
        format!("GET {acme}/logs/audit/3/history?limit=2\n"),
        format!("GET {acme}/audit_logs?page=1&per_page=2&direction=asc&action.type=create\n"),
        "GET /client/v4//user/tokens/verify\n".to_owned(),
        "GET /client/v4/memberships?page=1\n".to_owned(),
        // Without a wait, which may take as long as a request may.
        "GET /client/v4/receipts/1.1\n".to_owned(),
    ];
    texts.map(String::into_bytes).into()
}

/// Takes a request apart; none where HTTP has none like it.
fn request(bytes: &[u8], token: &str) -> Option<Request<Bytes>> {
    let (head, body) = bytes.windows(2).position(|two| two == b"\n\n").map_or((bytes, &b""[..]), |end| (&bytes[..end], &bytes[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let mut request = Request::new(Bytes::copy_from_slice(body));
    *request.method_mut() = Method::from_bytes(&first[..space]).ok()?;
    *request.uri_mut() = Uri::try_from(&first[space + 1..]).ok()?;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    let shown = ["authorization", "x-auth-key"].iter().any(|name| request.headers().contains_key(*name));
    if !shown {
        request.headers_mut().insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).ok()?);
    }
    Some(request)
}

static NODE: Mutex<Option<Arc<Node>>> = Mutex::new(None);

/// Ends the node, if one was started, and takes its folder away.
pub fn end_node() {
    drop(NODE.lock().unwrap_or_else(PoisonError::into_inner).take());
}

struct Answer {
    status: StatusCode,
    body: Value,
}

type Answering = dyn Fn(Request<Bytes>) -> futures::future::BoxFuture<'static, tonic::codegen::http::Response<Bytes>> + Send + Sync;

/// A control node with the account `acme` and its store `default`. Its tasks end before its folder goes.
struct Node {
    runtime: tokio::runtime::Runtime,
    answering: Arc<Answering>,
    token: String,
    control: Control,
    folder: tempfile::TempDir,
}

impl Node {
    fn of_this_process() -> Arc<Self> {
        let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
        let node = node.get_or_insert_with(|| {
            let node = Self::start();
            node.furnish();
            Arc::new(node)
        });
        node.clone()
    }

    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let (cluster, id) = (ClusterId::from_bytes([0xc1; 16]), NodeId::new(1));
        let pki = DevPki::ensure(&at("pki"), cluster, RealClock::new().wall()).expect("a CA");
        FileRoot::create(&RealDisk, &OsEntropy, &at("root.key")).expect("a root key");
        let write = |name: &str, bytes: &[u8]| runtime::write_secret_file(&at(name), bytes).expect("a file");
        write("signing.key", &SigningKey::generate(&OsEntropy).to_file_bytes());
        write("node.key", &NodeKeyPair::generate(&OsEntropy).expect("a key").to_file_bytes());
        let token = OperatorToken::generate(&OsEntropy);
        let (authority_certificate, authority_key) = pki.authority().expect("an authority");
        let recovery = RecoveryKey::generate(&OsEntropy).expect("a recovery key").public();
        let recovery = RecoveryKeys { signing: recovery.signing, envelope: recovery.opening.encode(), first_set: Vec::new() };
        std::fs::create_dir_all(at("data")).expect("a folder");
        let founding = Founding { cluster, operator_token: token.hash(), authority_certificate, authority_key, recovery };
        founding.write(&at("data")).expect("a file");
        let mut config = ControlConfig::default();
        (config.node.id, config.node.cluster, config.node.data_dir) = (Some(id), Some(cluster), at("data"));
        config.listen.grpc = "127.0.0.1:0".parse().expect("an address");
        config.listen.health = config.listen.grpc;
        config.tls = pki.node(id).expect("a certificate");
        (config.keys.root, config.keys.signing, config.keys.node) = (at("root.key"), at("signing.key"), at("node.key"));
        // Who makes so many requests is not to be told to wait.
        (config.rates.writes_per_second, config.rates.failed_logins_per_minute) = (0, 0);
        config.rates.failed_logins_in_all_per_minute = 0;
        let metrics = runtime::telemetry::init_metrics().expect("one recorder for this process");
        let control = runtime.block_on(Control::start(ControlOptions::new(config, metrics))).expect("a control node");
        let answering: Arc<Answering> = Arc::new(control.rest());
        Self { runtime, answering, token: token.text().expose().to_owned(), control, folder }
    }

    fn answer(&self, request: Request<Bytes>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        let response = self.runtime.block_on((self.answering)(request));
        let (status, headers) = (response.status(), response.headers());
        assert!(!matches!(status.as_u16(), 500 | 503), "{what}: {status}: {:?}", response.body());
        assert!(headers.contains_key("cf-ray"), "{what}: no label");
        let grpc = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if what.starts_with("HEAD ") || grpc {
            return Answer { status, body: Value::Null };
        }
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_else(|error| panic!("{what}: no JSON: {error}"));
        if body.get("openapi").is_none() {
            assert_eq!(body["success"], status.is_success(), "{what}: {status} {body}");
            let errors = body["errors"].as_array().map(Vec::len);
            assert_eq!(errors, Some(usize::from(!status.is_success())), "{what}: {status} {body}");
            assert!(status.is_success() || body["result"].is_null(), "{what}: {body}");
            let shown = body["result"].as_array().map_or(0, Vec::len);
            assert!(shown <= 4000, "{what}: {shown} entries");
        }
        Answer { status, body }
    }

    fn send(&self, text: &str) -> Answer {
        self.answer(request(text.as_bytes(), &self.token).expect("a request"))
    }

    /// Makes anew what may have been deleted.
    fn furnish(&self) {
        if self.send(&format!("GET {ACCOUNTS}/acme\n")).status != 200 {
            self.make_account();
        }
        for store in ["default", "spare"] {
            let made = self.send(&format!("POST {ACCOUNTS}/acme/secrets_store/stores\n\n{}", json!({ "name": store })));
            assert!([200, 400, 409].contains(&made.status.as_u16()), "{}", made.body);
        }
    }

    /// REST makes no accounts and no consumers.
    fn make_account(&self) {
        use wire::v1;
        self.runtime.block_on(async {
            let client = self.client();
            let new = v1::CreateAccountRequest { name: "acme".into(), ..Default::default() };
            client.create_account(new).await.expect("an account");
            let shop = v1::ConsumerRef { account: "acme".into(), kind: v1::ConsumerKind::Worker.into(), name: "shop".into() };
            let new = v1::CreateConsumerRequest { consumer: Some(shop), request_id: String::new() };
            client.create_consumer(new).await.expect("a consumer");
        });
    }

    fn client(&self) -> client::Client {
        let ca_pem = std::fs::read_to_string(self.folder.path().join("pki/ca.pem")).expect("the CA");
        let tls = client::Tls { ca_pem, ..Default::default() };
        let config = client::Config::tls([self.control.address().to_string()], tls);
        let token = client::Token::new(self.token.clone()).expect("a token");
        client::Client::new(config.token(token)).expect("a client")
    }
}

/// Sends it, and holds the answer to the invariants.
fn whole(bytes: &[u8]) -> Seen {
    let node = Node::of_this_process();
    let Some(request) = request(bytes, &node.token) else { return Seen::Refused("no HTTP".into()) };
    let (method, path, marked) = (request.method().clone(), request.uri().path().to_owned(), only_as_a_value(&request));
    let answer = node.answer(request);
    let said = answer.body.to_string();
    assert!(!marked || !said.contains(MARK), "a value is shown: {said}");
    let (code, message) = (&answer.body["errors"][0]["code"], &answer.body["errors"][0]["message"]);
    if answer.status.is_success() && method == Method::POST && path.ends_with("/secrets") {
        same_when_shown(&node, &path, &answer);
    }
    if answer.status.is_success() && method == Method::DELETE && path.rsplit('/').nth(1) == Some("stores") {
        node.furnish();
    }
    let entries = answer.body["result"].as_array().map_or(0, |result| result.len().min(3));
    Seen::Read(format!("{method} {} {code} {} {entries}", answer.status, message.as_str().unwrap_or_default()))
}

/// Whether the mark is the value of the secrets in the body, and nowhere else.
fn only_as_a_value(request: &Request<Bytes>) -> bool {
    let Ok(body) = std::str::from_utf8(request.body()) else { return false };
    let head = format!("{} {:?}", request.uri(), request.headers());
    !head.contains(MARK) && body.matches(MARK).count() == body.matches(&format!("\"value\":\"{MARK}\"")).count()
}

fn same_when_shown(node: &Node, path: &str, made: &Answer) {
    let result = &made.body["result"];
    let all = result.as_array().cloned().unwrap_or_else(|| vec![result.clone()]);
    // One that is gone by now is answered to a retry as it was made.
    for secret in all.into_iter().filter(|secret| secret["status"] != "deleted").take(3) {
        for key in ["id", "name"] {
            let name = secret[key].as_str().unwrap_or_default();
            let shown = node.send(&format!("GET {path}/{name}\n"));
            assert_eq!(shown.body["result"]["id"], secret["id"], "{path}/{name}: {}", shown.body);
            for field in ["name", "store_id", "created"] {
                assert_eq!(shown.body["result"][field], secret[field], "{path}/{name}");
            }
        }
    }
}
