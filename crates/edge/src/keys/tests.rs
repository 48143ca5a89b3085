use seal::{Kek, commitment, seal_envelope};
use seams::sim::{SimDisk, SimEntropy};
use state::{ChainHead, TypedKey};
use types::{ClusterId, UnixMillis};

use super::*;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const NODE: NodeId = NodeId::new(7);

/// A node, its disk, and epochs that come to it.
struct Node {
    entropy: SimEntropy,
    disk: SimDisk,
    seed: Vec<u8>,
}

fn domain() -> KeyDomain {
    KeyDomain::new("global-eu").unwrap()
}

impl Node {
    fn new() -> Self {
        let entropy = SimEntropy::new(3);
        let seed = NodeKeyPair::generate(&entropy).unwrap().to_file_bytes().to_vec();
        Self { entropy, disk: SimDisk::new(), seed }
    }

    fn pair(&self) -> NodeKeyPair {
        NodeKeyPair::from_file_bytes(&self.seed).unwrap()
    }

    /// The process starts.
    fn start(&self) -> EdgeKeys {
        let ring = Arc::new(KeyRing::new(CLUSTER));
        EdgeKeys::open(NODE, self.pair(), ring, Arc::new(self.disk.clone()), PathBuf::from("keks")).unwrap()
    }

    /// A fresh epoch: its envelope, and what the chain says of it.
    fn epoch(&self, n: u32, state: KekState) -> (proto::Envelope, KekEpochRecord) {
        let kek = Kek::generate(&self.entropy);
        let (domain, n) = (domain(), KekEpoch::new(n));
        let name = KekName { cluster: CLUSTER, domain: &domain, epoch: n };
        let announced = *commitment(&name, &kek).unwrap().as_bytes();
        let envelope = seal_envelope(&self.entropy, &name, NODE, self.pair().public(), &kek).unwrap();
        let sent = proto::Envelope { domain: domain.to_string(), epoch: n.get(), envelope: envelope.into() };
        (sent, KekEpochRecord { domain, n, commitment: announced, state, created: UnixMillis::new(1) })
    }

    fn files(&self) -> Vec<String> {
        self.disk.list(Path::new("keks")).unwrap()
    }
}

fn chain(epochs: &[&KekEpochRecord]) -> Propagated {
    let key = |epoch: &KekEpochRecord| TypedKey::KekEpoch { domain: epoch.domain.clone(), epoch: epoch.n }.encode();
    Propagated::from_records(ChainHead::default(), epochs.iter().map(|epoch| (key(epoch), epoch.encode())))
}

#[test]
fn envelope_is_used_only_when_the_chain_has_announced_its_key() {
    let node = Node::new();
    let (envelope, record) = node.epoch(1, KekState::Active);
    let keys = node.start();
    keys.received(vec![envelope]);
    assert!(keys.ring.is_locked() && node.files().is_empty(), "nothing proves it yet");
    keys.follow(&chain(&[&record]));
    assert!(keys.ring.holds(&record.domain, record.n));
    assert_eq!(node.files(), ["global-eu-1.envelope"]);
    assert_eq!(keys.holds(), [proto::KeyEpoch { domain: "global-eu".into(), epoch: 1 }]);
    assert!(keys.missing().is_empty());
}

#[test]
fn envelope_that_came_after_the_announcement_is_used_at_once_and_kept_at_the_next_root() {
    let node = Node::new();
    let (envelope, record) = node.epoch(1, KekState::Active);
    let keys = node.start();
    keys.follow(&chain(&[&record]));
    assert_eq!(keys.missing(), [(domain(), KekEpoch::new(1))]);
    keys.received(vec![envelope]);
    assert!(keys.ring.holds(&record.domain, record.n));
    keys.follow(&chain(&[&record]));
    assert_eq!(node.files(), ["global-eu-1.envelope"]);
}

#[test]
fn envelope_kept_opens_after_a_restart_without_the_control_plane() {
    let node = Node::new();
    let (envelope, record) = node.epoch(1, KekState::Active);
    let keys = node.start();
    keys.received(vec![envelope]);
    keys.follow(&chain(&[&record]));
    drop(keys);
    node.disk.crash(&node.entropy);
    let keys = node.start();
    assert!(keys.ring.is_locked());
    keys.follow(&chain(&[&record]));
    assert!(keys.ring.holds(&record.domain, record.n));
}

#[test]
fn envelope_of_another_key_is_refused_and_a_good_one_takes_its_place() {
    let node = Node::new();
    let (good, record) = node.epoch(1, KekState::Active);
    let (forged, _) = node.epoch(1, KekState::Active);
    let keys = node.start();
    keys.follow(&chain(&[&record]));
    let garbage = proto::Envelope { envelope: Bytes::from_static(b"garbage"), ..good.clone() };
    let nowhere = proto::Envelope { domain: "NOT A DOMAIN".into(), ..good.clone() };
    for bad in [forged, garbage, nowhere] {
        keys.received(vec![bad]);
        assert!(keys.ring.is_locked());
    }
    keys.received(vec![good]);
    assert!(keys.ring.holds(&record.domain, record.n));
}

#[test]
fn destroyed_epoch_is_dropped_from_the_ring_and_the_disk() {
    let node = Node::new();
    let (first, record) = node.epoch(1, KekState::Retired);
    let (second, active) = node.epoch(2, KekState::Active);
    let keys = node.start();
    keys.received(vec![first, second]);
    keys.follow(&chain(&[&record, &active]));
    assert_eq!(node.files(), ["global-eu-1.envelope", "global-eu-2.envelope"]);
    let destroyed = KekEpochRecord { state: KekState::Destroyed, ..record };
    keys.follow(&chain(&[&destroyed, &active]));
    assert_eq!(keys.ring.epochs(), [(domain(), KekEpoch::new(2))]);
    assert_eq!(node.files(), ["global-eu-2.envelope"]);
}

#[test]
fn destroyed_epoch_leaves_no_file_even_of_one_that_could_not_be_read_or_was_replaced() {
    let node = Node::new();
    let put = |name: &str, bytes: &[u8]| {
        let file = node.disk.open(&Path::new("keks").join(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    };
    let (first, record) = node.epoch(1, KekState::Retired);
    let (second, other) = node.epoch(2, KekState::Retired);
    node.disk.create_dir_all(Path::new("keks")).unwrap();
    put("global-eu-1.envelope", &vec![7; ENVELOPE_BYTES_MAX as usize + 1]);
    put("global-eu-2.envelope", b"damaged");
    put("global-eu-2.new", &second.envelope);
    put("global-eu-9.new", &first.envelope);
    let keys = node.start();
    assert_eq!(node.files(), ["global-eu-1.envelope", "global-eu-2.envelope"], "what a crash left is swept");
    // The second is refused, and so forgotten.
    keys.follow(&chain(&[&record, &other]));
    let destroyed = [record, other].map(|record| KekEpochRecord { state: KekState::Destroyed, ..record });
    keys.follow(&chain(&[&destroyed[0], &destroyed[1]]));
    assert_eq!(node.files(), Vec::<String>::new());
}

#[test]
fn forgotten_keys_leave_no_file_and_take_no_envelope_any_more() {
    let node = Node::new();
    let (first, record) = node.epoch(1, KekState::Retired);
    let (second, active) = node.epoch(2, KekState::Active);
    let keys = node.start();
    keys.received(vec![first]);
    keys.follow(&chain(&[&record]));
    keys.forget();
    assert!(keys.ring.is_locked() && keys.erase());
    keys.received(vec![second]);
    keys.follow(&chain(&[&record, &active]));
    assert!(keys.ring.is_locked());
    assert_eq!(node.files(), Vec::<String>::new());
}

#[test]
fn envelopes_that_wait_are_bounded() {
    let node = Node::new();
    let keys = node.start();
    let (envelope, _) = node.epoch(1, KekState::Active);
    keys.received((0..200).map(|epoch| proto::Envelope { epoch, ..envelope.clone() }).collect());
    assert_eq!(keys.lock().waiting.len(), WAITING_MAX);
}
