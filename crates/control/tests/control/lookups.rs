//! A control node that also answers lookups: what it shows, how old it may be, and what it says when it can't.

use std::{
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use control::{Control, ControlOptions};
use runtime::{
    RealClock,
    config::{ControlConfig, PeerRule, UnixListen},
    listen::unix_channel,
    tls::{ClientTls, Expect},
};
use seal::FileRoot;
use seams::{BoxFuture, Clock};
use tonic::{Request, transport::Channel};
use types::{Position, UnixMillis};
use wire::{
    ErrorKind, PublicError,
    v1::{self, lookup_client::LookupClient},
};

use crate::harness::{CLUSTER, CONTROL, Ground, PATIENCE, bind, create, create_consumer, item, metrics, set, until, with_store, worker};

/// A clock that can be moved on, and in which a second may never end: then the voter proposes no tick, as if it had no majority.
struct Warped {
    real: RealClock,
    ahead_ms: AtomicU64,
    frozen: AtomicBool,
}

impl Warped {
    fn new() -> Arc<Self> {
        Arc::new(Self { real: RealClock::new(), ahead_ms: AtomicU64::new(0), frozen: AtomicBool::new(false) })
    }

    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }

    fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

/// The shared clock as the node takes it.
struct Shared(Arc<Warped>);

impl Clock for Shared {
    fn wall(&self) -> UnixMillis {
        self.0.real.wall().plus(self.0.ahead())
    }

    fn monotonic(&self) -> Duration {
        self.0.real.monotonic() + self.0.ahead()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (warped, slept) = (self.0.clone(), self.0.real.sleep(duration));
        Box::pin(async move {
            slept.await;
            while duration == Duration::from_secs(1) && warped.frozen.load(Ordering::SeqCst) {
                warped.real.sleep(Duration::from_millis(5)).await;
            }
        })
    }
}

/// With a socket and a port for lookups.
fn config(ground: &Ground) -> ControlConfig {
    let mut config = ground.config();
    config.lookups.unix = Some(UnixListen { path: ground.at("control.sock"), mode: "0600".parse().unwrap() });
    config.lookups.grpc = Some("127.0.0.1:0".parse().unwrap());
    config
}

fn unix(ground: &Ground) -> Channel {
    unix_channel(&ground.at("control.sock"))
}

/// The smallest request, with a token or without.
fn get(binding: &str, token: Option<&str>) -> Request<v1::GetRequest> {
    let wanted = Some(v1::Wanted { binding: binding.to_owned(), ..Default::default() });
    let mut request = Request::new(v1::GetRequest { wanted, ..Default::default() });
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request.set_timeout(PATIENCE);
    request
}

fn fresh(mut request: Request<v1::GetRequest>, min_position: Option<Position>, max_age_ms: Option<u64>) -> Request<v1::GetRequest> {
    request.get_mut().freshness = Some(v1::Freshness { min_position: min_position.map(Into::into), max_age_ms });
    request
}

async fn read(channel: Channel, request: Request<v1::GetRequest>) -> Result<v1::Found, ErrorKind> {
    let found = LookupClient::new(channel).get(request).await;
    found.map(tonic::Response::into_inner).map_err(|status| PublicError::from_status(&status).kind)
}

/// Reads until it is answered: the age is known with the first tick.
async fn answered(ground: &Ground, token: &str) -> v1::Found {
    until("the lookup is answered", async || read(unix(ground), get("DB", Some(token))).await.ok()).await
}

/// Worker `web` reads `A` as `DB`. Its token, and the account's id.
async fn furnished(client: &client::Client) -> (String, String) {
    with_store(client).await;
    client.create_secrets(create(vec![item("A", "one"), item("B", "two")])).await.unwrap();
    create_consumer(client, "web").await;
    client.bind(bind("web", "DB", "A")).await.unwrap();
    let token = v1::CreateConsumerTokenRequest { consumer: worker("web"), ..Default::default() };
    let account = client.list_accounts(v1::ListAccountsRequest::default()).await.unwrap().accounts.remove(0).id;
    (client.create_consumer_token(token).await.unwrap().token, account)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_node_serves_what_is_bound_refuses_the_rest_and_never_goes_back() {
    let ground = Ground::new();
    let node = ground.start_with(config(&ground)).await;
    let client = node.operator();
    let (token, account) = furnished(&client).await;
    answered(&ground, &token).await;
    let written: Position = client.set_value(set("A", "new")).await.unwrap().receipt.unwrap().position.unwrap().into();

    let found = read(unix(&ground), fresh(get("DB", Some(&token)), Some(written), Some(30_000))).await.unwrap();
    assert_eq!((&found.value[..], found.version, &found.edge[..]), (&b"new"[..], 2, "control-1"));
    let shown: Position = found.position.unwrap().into();
    assert!(shown >= written && found.age_ms.is_some());
    let expect = Expect::Node { cluster: CLUSTER, node: CONTROL };
    let tls = ClientTls::without_certificate(&ground.pki.ca(), expect).unwrap();
    let over_tls = tls.channel(&node.control.lookups().unwrap().into());
    assert_eq!(&read(over_tls.clone(), get("DB", Some(&token))).await.unwrap().value[..], b"new");
    assert_eq!(read(unix(&ground), get("B", Some(&token))).await.unwrap_err(), ErrorKind::NotBound);
    assert_eq!(read(unix(&ground), get("DB", None)).await.unwrap_err(), ErrorKind::Denied, "no rule for this uid");
    assert_eq!(read(over_tls, get("DB", None)).await.unwrap_err(), ErrorKind::Unauthenticated);
    let operators = ground.first_token();
    assert_eq!(read(unix(&ground), get("DB", Some(&operators))).await.unwrap_err(), ErrorKind::Unauthenticated);
    node.stop().await;

    // A rule for the uid, and what was shown is shown again.
    let uid = std::fs::metadata(ground.data()).unwrap().uid();
    let rule = PeerRule { uid, account: account.parse().unwrap(), consumers: vec!["worker/web".parse().unwrap()] };
    let node = ground.start_with(ControlConfig { peer: vec![rule], ..config(&ground) }).await;
    let again = fresh(get("DB", None), Some(shown), None);
    let found = read(unix(&ground), again).await.unwrap();
    assert!(Position::from(found.position.unwrap()) >= shown && &found.value[..] == b"new");
    let report = node.control.readiness().report();
    assert!(report.contains("lookups"), "{report}");
    node.stop().await;
    assert!(!ground.at("control.sock").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_node_without_ticks_grows_old_and_obeys_the_bounds_of_an_edge() {
    let ground = Ground::new();
    let warped = Warped::new();
    let options = ControlOptions { clock: Arc::new(Shared(warped.clone())), ..ControlOptions::new(config(&ground), metrics()) };
    let control = Control::start(options).await.unwrap();
    let node = ground.node(control);
    let (token, _) = furnished(&node.operator()).await;
    answered(&ground, &token).await;
    let ask = |max_age_ms| read(unix(&ground), fresh(get("DB", Some(&token)), None, max_age_ms));

    warped.frozen.store(true, Ordering::SeqCst);
    warped.advance(Duration::from_secs(100));
    // A tick that was on its way may still come.
    until("the age is past the bound", async || {
        (ask(Some(50_000)).await == Err(ErrorKind::TooStale)).then(|| warped.advance(Duration::from_secs(60)))
    })
    .await;
    let found = ask(None).await.unwrap();
    assert!(found.age_ms.unwrap() >= 60_000, "{found:?}");
    warped.advance(Duration::from_secs(7 * 24 * 3600));
    assert_eq!(ask(None).await.unwrap_err(), ErrorKind::TooStale, "past edge_offline_max nothing is served");

    warped.frozen.store(false, Ordering::SeqCst);
    let found = answered(&ground, &token).await;
    assert!(found.age_ms.unwrap() < 60_000, "{found:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_control_node_says_unavailable_to_lookups() {
    let ground = Ground::new();
    let node = ground.start_with(config(&ground)).await;
    let (token, _) = furnished(&node.operator()).await;
    answered(&ground, &token).await;
    node.stop().await;
    FileRoot::create(&runtime::RealDisk, &runtime::OsEntropy, &ground.at("other-root.key")).unwrap();
    let other = seal::NodeKeyPair::generate(&runtime::OsEntropy).unwrap().to_file_bytes();
    runtime::write_secret_file(&ground.at("other-node.key"), &other).unwrap();
    let mut config = config(&ground);
    (config.keys.root, config.keys.node) = (ground.at("other-root.key"), ground.at("other-node.key"));
    let node = ground.start_with(config).await;
    let ended = until("it is neither too young nor too old to say", async || {
        let kind = read(unix(&ground), get("DB", Some(&token))).await.unwrap_err();
        (!matches!(kind, ErrorKind::NotSynced | ErrorKind::TooStale)).then_some(kind)
    });
    assert_eq!(ended.await, ErrorKind::Unavailable);
    assert_eq!(read(unix(&ground), get("NOPE", Some(&token))).await.unwrap_err(), ErrorKind::NotBound, "that needs no key");
    node.stop().await;
}
