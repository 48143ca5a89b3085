//! Certificates on a clock that is moved by hand.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use enrol::{CertificateRequest, EnrolError, Issuer, Layout, Leaf, NodeKey, Renewal, Renewed, Source, Trust, Validity, certificates_pem};
use futures::future::BoxFuture;
use runtime::{
    config::TlsFiles,
    tls::{PeerCertificate, PeerIdentity},
};
use seams::{
    Clock,
    sim::{ManualClock, SimEntropy},
};
use tokio_util::sync::CancellationToken;
use types::{ClusterId, NodeId, UnixMillis};

const START: UnixMillis = UnixMillis::new(1_800_000_000_000);
const LIFETIME: Duration = Duration::from_secs(20);
const IDENTITY: PeerIdentity = PeerIdentity::Node { cluster: ClusterId::from_bytes([1; 16]), node: NodeId::new(101) };

/// A control plane of one CA, which can be out of reach.
struct Authority {
    issuer: Issuer,
    clock: Arc<ManualClock>,
    away: AtomicBool,
    asked: AtomicUsize,
}

impl Source for Authority {
    fn renew(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Renewed, EnrolError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if self.away.load(Ordering::SeqCst) {
                return Err(EnrolError::Nowhere { what: "renewing the certificate", attempts: "x:1: nobody answers there".into() });
            }
            let key = CertificateRequest::read(&request).unwrap().public_key;
            Ok(Renewed { certificates: self.issue(&key), peers: None, trust: None })
        })
    }
}

impl Authority {
    fn issue(&self, public_key: &[u8]) -> Vec<Vec<u8>> {
        let leaf = Leaf { identity: &IDENTITY, role: None, public_key, names: &[], validity: Validity::lease(self.clock.wall(), LIFETIME) };
        vec![self.issuer.issue(&leaf).unwrap(), self.issuer.certificate().to_vec()]
    }
}

struct World {
    _folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    layout: Layout,
    authority: Arc<Authority>,
    /// What the users of the certificate took over.
    taken: Arc<Mutex<Vec<UnixMillis>>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let layout = Layout {
            tls: TlsFiles { cert: at("node.pem"), key: at("node.key"), ca: at("ca.pem") },
            envelope_key: at("envelope.key"),
            signing_key: None,
            signers: at("signers"),
            peers: at("peers"),
        };
        let clock = Arc::new(ManualClock::at(START));
        let (issuer, _) = Issuer::create("CA", Validity::lease(START, LIFETIME)).unwrap();
        let authority = Arc::new(Authority { issuer, clock: clock.clone(), away: AtomicBool::new(false), asked: AtomicUsize::new(0) });
        let key = NodeKey::kept_or_new(&layout.tls.key).unwrap();
        keep(&layout.tls.cert, &authority.issue(&key.public_key()));
        Self { _folder: folder, clock, layout, authority, taken: Arc::default() }
    }

    fn end(&self) -> UnixMillis {
        PeerCertificate::read_pem(&self.layout.tls.cert).unwrap().not_after
    }

    fn start(&self) -> CancellationToken {
        let (cancel, taken) = (CancellationToken::new(), self.taken.clone());
        let take = move |files: &TlsFiles| {
            taken.lock().unwrap().push(PeerCertificate::read_pem(&files.cert).unwrap().not_after);
            Ok(())
        };
        let renewal = Renewal {
            layout: self.layout.clone(),
            name: "edge-1".parse().unwrap(),
            names: Vec::new(),
            clock: self.clock.clone(),
            entropy: Arc::new(SimEntropy::new(1)),
            source: self.authority.clone(),
            users: vec![Box::new(take)],
            trust: None,
            doubted: Arc::default(),
        };
        tokio::spawn(renewal.run(cancel.clone()));
        cancel
    }

    /// Moves the clock in steps of a quarter of a second until `done`, at most for `most`. How long it took.
    async fn until(&self, most: Duration, done: impl Fn() -> bool) -> Duration {
        let begun = self.clock.wall();
        while !done() {
            let passed = self.clock.wall().since(begun);
            assert!(passed < most, "not within {most:?}");
            self.clock.advance(Duration::from_millis(250));
            // The loop wakes, acts, and sleeps again.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        self.clock.wall().since(begun)
    }
}

fn keep(path: &Path, certificates: &[Vec<u8>]) {
    runtime::write_secret_file(path, certificates_pem(certificates.iter().map(Vec::as_slice)).as_bytes()).unwrap();
}

#[tokio::test]
async fn certificate_is_renewed_at_two_thirds_of_its_life_again_and_again() {
    let world = World::new();
    world.start();
    let key = PeerCertificate::read_pem(&world.layout.tls.cert).unwrap().public_key;
    for round in 1..=5 {
        let before = world.end();
        let took = world.until(LIFETIME, || world.end() != before && world.taken.lock().unwrap().len() == round).await;
        assert!(took >= LIFETIME / 2 && took <= LIFETIME * 3 / 4, "round {round}: {took:?}");
    }
    assert_eq!(PeerCertificate::read_pem(&world.layout.tls.cert).unwrap().public_key, key, "the registry holds a node to its key");
    assert_eq!(world.authority.asked.load(Ordering::SeqCst), 5);
    assert_eq!(world.taken.lock().unwrap().last(), Some(&world.end()));
}

#[tokio::test]
async fn certificate_that_expired_while_nobody_answered_is_renewed_when_somebody_does() {
    let world = World::new();
    world.authority.away.store(true, Ordering::SeqCst);
    world.start();
    let first = world.end();
    world.until(LIFETIME * 3, || world.clock.wall() > first.plus(LIFETIME)).await;
    assert_eq!(world.end(), first, "nothing came");
    let asked = world.authority.asked.load(Ordering::SeqCst);
    assert!((5..60).contains(&asked), "{asked} attempts");
    world.authority.away.store(false, Ordering::SeqCst);
    world.until(Duration::from_secs(5), || world.end() > first && world.taken.lock().unwrap().len() == 1).await;
}

#[tokio::test]
async fn certificate_of_a_node_that_slept_is_renewed_at_its_start() {
    let world = World::new();
    let first = world.end();
    world.clock.advance(Duration::from_secs(7 * 86_400));
    world.start();
    world.until(Duration::from_secs(2), || world.end() > world.clock.wall() && !world.taken.lock().unwrap().is_empty()).await;
    assert_ne!(world.end(), first);
}

#[tokio::test]
async fn certificate_that_somebody_else_renewed_is_taken_over() {
    let world = World::new();
    world.authority.away.store(true, Ordering::SeqCst);
    world.start();
    world.until(Duration::from_secs(15), || world.authority.asked.load(Ordering::SeqCst) > 0).await;
    let key = NodeKey::read(&world.layout.tls.key).unwrap();
    let certificates = world.authority.issue(&key.public_key());
    keep(&world.layout.tls.cert, &certificates);
    world.until(Duration::from_secs(40), || *world.taken.lock().unwrap() == [world.end()]).await;
}

#[tokio::test]
async fn certificate_of_another_key_never_replaces_the_own_one() {
    struct Confused(Authority);
    impl Source for Confused {
        fn renew(&self, _request: Vec<u8>) -> BoxFuture<'_, Result<Renewed, EnrolError>> {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            let certificates = self.0.issue(&NodeKey::generate().unwrap().public_key());
            Box::pin(async { Ok(Renewed { certificates, peers: None, trust: None }) })
        }
    }
    let world = World::new();
    let (issuer, _) = Issuer::create("CA", Validity::lease(START, LIFETIME)).unwrap();
    let confused =
        Arc::new(Confused(Authority { issuer, clock: world.clock.clone(), away: AtomicBool::new(false), asked: AtomicUsize::new(0) }));
    let renewal = Renewal {
        layout: world.layout.clone(),
        name: "edge-1".parse().unwrap(),
        names: Vec::new(),
        clock: world.clock.clone(),
        entropy: Arc::new(SimEntropy::new(1)),
        source: confused.clone(),
        users: Vec::new(),
        trust: None,
        doubted: Arc::default(),
    };
    let first = world.end();
    tokio::spawn(renewal.run(CancellationToken::new()));
    world.until(LIFETIME * 2, || confused.0.asked.load(Ordering::SeqCst) >= 3).await;
    assert_eq!(world.end(), first);
}

#[tokio::test]
async fn authorities_that_the_state_does_not_come_to_name_are_believed_for_a_while_only() {
    struct Thief(Arc<Authority>, Mutex<Option<Trust>>);
    impl Source for Thief {
        fn renew(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Renewed, EnrolError>> {
            Box::pin(async move {
                let renewed = self.0.renew(request).await?;
                Ok(Renewed { trust: self.1.lock().unwrap().take(), ..renewed })
            })
        }
    }
    let world = World::new();
    let ca = world.layout.tls.ca.clone();
    let real = Trust { version: 2, certificates: vec![world.authority.issuer.certificate().to_vec()] };
    let (own, _) = Issuer::create("the thief's", Validity::lease(START, LIFETIME)).unwrap();
    let forged = |version| Trust { version, certificates: vec![own.certificate().to_vec()] };
    assert!(real.keep(&ca).unwrap());
    let thief = Arc::new(Thief(world.authority.clone(), Mutex::new(Some(forged(u32::MAX)))));
    let (named, taken) = (real.clone(), Arc::new(AtomicUsize::new(0)));
    let (taking, path) = (taken.clone(), ca.clone());
    let renewal = Renewal {
        layout: world.layout.clone(),
        name: "edge-1".parse().unwrap(),
        names: Vec::new(),
        clock: world.clock.clone(),
        entropy: Arc::new(SimEntropy::new(1)),
        source: thief.clone(),
        users: vec![Box::new(move |_| {
            taking.store(Trust::version_in(&path) as usize, Ordering::SeqCst);
            Ok(())
        })],
        trust: Some(Box::new(move || Some(named.clone()))),
        doubted: Arc::default(),
    };
    tokio::spawn(renewal.run(CancellationToken::new()));
    world.until(LIFETIME, || taken.load(Ordering::SeqCst) == u32::MAX as usize).await;
    let took = world.until(Duration::from_secs(700), || Trust::version_in(&ca) == 2).await;
    assert!(took >= Duration::from_secs(590), "a node that slept has to get so far: {took:?}");
    world.until(Duration::from_secs(2), || taken.load(Ordering::SeqCst) == 2).await;
    assert!(std::fs::read_to_string(&ca).unwrap().ends_with(&real.pem()));

    // Of the version that the state has.
    std::fs::remove_file(&ca).unwrap();
    assert!(forged(2).keep(&ca).unwrap());
    world.until(Duration::from_secs(3), || std::fs::read_to_string(&ca).unwrap().ends_with(&real.pem())).await;
}
