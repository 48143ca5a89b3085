//! The clients of a run: writers that create, set, edit and delete secrets, and a reader.
//!
//! A writer waits for the outcome of a write before it sends the next. When it does not learn it, it sends the same request again,
//! most of the time; now and then it gives up, and the books keep the write as open for ever.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use consensus::ProposeError;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use seams::{Entropy, sim::SimEntropy};
use sha2::{Digest, Sha256};
use state::{
    Command, CommandBody, InitCluster, NewDek, NewNode, NewSecret, Origin, Principal, RefusalKind, Reply, ReplyBody, RequestKey,
    SealedInput, Stage,
    limits::Quota,
    record::{AuthorityRecord, MemberKey, NodeRole, SettingsRecord, SignerSetRecord, WrappedDek},
};
use types::{
    AccountId, Comment, DekId, FeatureLevel, KekEpoch, KeyDomain, NodeId, RequestId, Scope, SecretId, StoreId, TokenId, UnixMillis,
    ValueId, Version,
};

use super::{
    history::History,
    net::Network,
    oracle::{Fate, Oracle, Wish, WriteId, sealed_bytes},
    voter::{Answer, CLUSTER, VOTER, Voter},
};

/// The one account.
const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
/// Its one data key.
const DEK: DekId = DekId::from_bytes([0xd1; 16]);
/// The hash of the one operator's token.
const TOKEN: [u8; 32] = [0x70; 32];
/// Secrets that a writer keeps alive at most.
const SLOTS: usize = 8;

fn domain() -> KeyDomain {
    KeyDomain::new("global").expect("a name")
}

/// The signer set that a run begins with.
pub fn first_signers(voter: &Voter) -> SignerSetRecord {
    let keys = vec![MemberKey { node: VOTER, key: voter.signing_key().public() }];
    SignerSetRecord { version: 1, threshold: 1, keys, signatures: Vec::new() }
}

/// What clients share.
pub struct Clients {
    /// Where they send.
    pub voter: Arc<Voter>,
    /// How long it takes.
    pub network: Network,
    /// What they tell.
    pub oracle: Oracle,
    /// Where it is counted.
    pub history: History,
    /// Set when they should finish.
    pub stop: AtomicBool,
}

/// One client.
pub struct Client {
    shared: Arc<Clients>,
    entropy: SimEntropy,
    number: u8,
}

/// A secret that a writer believes to be there.
struct Slot {
    store: StoreId,
    secret: SecretId,
    /// A write on it was given up: what it is now is not known.
    unsure: bool,
}

impl Client {
    /// A client with randomness of its own.
    pub fn new(shared: Arc<Clients>, seed: u64, number: u8) -> Self {
        Self { shared, entropy: SimEntropy::new(seed), number }
    }

    /// Sets up cluster, account, stores and data key: what every writer needs. Goes on until it is done.
    pub async fn found(&self, edges: &[NodeId]) {
        let signers = first_signers(&self.shared.voter).keys;
        let node = |id: NodeId, role| NewNode {
            id,
            name: format!("node-{id}").parse().expect("a name"),
            role,
            public_key: vec![id.get() as u8; 32],
            envelope_key: vec![id.get() as u8; 32],
            labels: BTreeMap::new(),
            address: None,
            feature_level: state::FEATURE_LEVEL_MAX,
        };
        let settings = SettingsRecord { quota: Quota { secrets: 100_000, ..Quota::default() }, ..SettingsRecord::defaults(CLUSTER) };
        let init = InitCluster {
            cluster: CLUSTER,
            settings,
            signers,
            threshold: 1,
            operator_token: TOKEN,
            operator_token_id: TokenId::from_bytes([0x71; 16]),
            operator: "tester".parse().expect("a name"),
            domain: domain(),
            commitment: [0xcc; 32],
            envelopes: Vec::new(),
            nodes: std::iter::once(node(VOTER, NodeRole::Control)).chain(edges.iter().map(|id| node(*id, NodeRole::Edge))).collect(),
            authority: AuthorityRecord { certificate: vec![0xca; 8], envelopes: Vec::new() },
            recovery: None,
        };
        self.insist(CommandBody::InitCluster(Box::new(init))).await;
        self.insist(CommandBody::CreateAccount { account: ACCOUNT, name: "acme".parse().expect("a name") }).await;
        let wraps = vec![WrappedDek { domain: domain(), epoch: KekEpoch::new(1), bytes: vec![0xdd; 60] }];
        self.insist(CommandBody::MintDek { account: ACCOUNT, dek: NewDek { id: DEK, wraps, replaces: None }, grace: true }).await;
    }

    /// Writes until it is told to stop.
    pub async fn write(self) {
        let store = StoreId::from_bytes([0x50 | self.number; 16]);
        let name = format!("store-{}", self.number).parse().expect("a name");
        self.insist(CommandBody::CreateStore { account: ACCOUNT, store, name }).await;
        let mut slots: Vec<Slot> = Vec::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.pause(Duration::from_millis(900)).await;
            let place = self.draw(slots.len().max(1) as u64) as usize;
            let choice = self.draw(100);
            if slots.is_empty() || slots.len() < SLOTS && choice < 20 {
                slots.extend(self.create(store).await);
            } else if choice < 70 {
                self.set(&mut slots[place]).await;
            } else if choice < 90 {
                self.edit(&mut slots[place]).await;
            } else {
                let slot = slots.swap_remove(place);
                self.delete(slot).await;
            }
        }
    }

    /// Reads the newest state until it is told to stop.
    pub async fn read(self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.pause(Duration::from_millis(900)).await;
            let floor = self.shared.oracle.acknowledged();
            if let Some(state) = self.shared.voter.read().await {
                self.shared.oracle.read(state.propagated(), floor);
                self.shared.history.count("linearizable reads");
            }
        }
    }

    async fn create(&self, store: StoreId) -> Option<Slot> {
        let (secret, value) = (SecretId::from_bytes(self.entropy.id()), ValueId::from_bytes(self.entropy.id()));
        let comment = self.text();
        let name = format!("S-{}", hex(&secret.as_bytes()[..6])).parse().expect("a name");
        let scopes = std::iter::once("workers".parse::<Scope>().expect("a scope")).collect();
        let item = NewSecret { id: secret, name, scopes, comment: Comment::new(comment.clone()).expect("a comment"), value: sealed(value) };
        let body = CommandBody::CreateSecrets { account: ACCOUNT, store, items: vec![item], new_dek: None };
        let fate = self.submit(Wish::Create { store, secret, value, comment }, body, false).await;
        (fate != Fate::Void).then_some(Slot { store, secret, unsure: fate == Fate::Open })
    }

    async fn set(&self, slot: &mut Slot) {
        let value = ValueId::from_bytes(self.entropy.id());
        let body = CommandBody::SetValue {
            account: ACCOUNT,
            store: slot.store,
            secret: slot.secret,
            value: sealed(value),
            expect: None,
            stage: Stage::Current,
            scopes: None,
            comment: None,
            new_dek: None,
        };
        let fate = self.submit(Wish::Set { secret: slot.secret, value }, body, slot.unsure).await;
        slot.unsure |= fate == Fate::Open;
    }

    async fn edit(&self, slot: &mut Slot) {
        let comment = self.text();
        let new = Some(Comment::new(comment.clone()).expect("a comment"));
        let body = CommandBody::EditSecret { account: ACCOUNT, store: slot.store, secret: slot.secret, scopes: None, comment: new };
        let fate = self.submit(Wish::Edit { secret: slot.secret, comment }, body, slot.unsure).await;
        slot.unsure |= fate == Fate::Open;
    }

    async fn delete(&self, slot: Slot) {
        let body = CommandBody::DeleteSecrets { account: ACCOUNT, store: slot.store, secrets: vec![slot.secret], force: false };
        self.submit(Wish::Delete { secret: slot.secret }, body, slot.unsure).await;
    }

    /// Sends a write until its outcome is known, or until patience ends. `may_be_refused`: something it needs may not be there.
    async fn submit(&self, wish: Wish, body: CommandBody, may_be_refused: bool) -> Fate {
        let id = self.shared.oracle.sent(wish);
        let request = RequestId::from_bytes(self.entropy.id());
        let mut maybe_done = false;
        loop {
            match self.send(&body, request).await {
                Tried::Done(reply) => {
                    let fate = Fate::Acknowledged(reply.position, version(&reply.body));
                    self.shared.oracle.answered(id, fate);
                    return fate;
                }
                Tried::Refused(kind, message) => return self.refused(id, may_be_refused, kind, &message),
                Tried::NotDone => {}
                Tried::Unknown => maybe_done = true,
            }
            if self.draw(100) < 15 {
                let fate = if maybe_done { Fate::Open } else { Fate::Void };
                self.shared.history.count(if maybe_done { "outcomes never learned" } else { "writes given up" });
                self.shared.oracle.answered(id, fate);
                return fate;
            }
            self.shared.history.count("retries");
            self.pause(Duration::from_millis(800)).await;
        }
    }

    /// `expected`: what it needs may be gone. A refusal is remembered like a reply, so all earlier tries of the request were refused
    /// as well, and it is not done.
    fn refused(&self, id: WriteId, expected: bool, kind: RefusalKind, message: &str) -> Fate {
        self.shared.history.count("refused");
        if !expected || kind != RefusalKind::NotFound {
            self.shared
                .history
                .violated("P1", format_args!("a write was refused ({kind}: {message}), though all it needs was acknowledged"));
        }
        self.shared.oracle.answered(id, Fate::Void);
        Fate::Void
    }

    /// Sends a command of the beginning until it is done.
    async fn insist(&self, body: CommandBody) {
        let id = self.shared.oracle.sent(Wish::Other);
        let request = RequestId::from_bytes(self.entropy.id());
        loop {
            match self.send(&body, request).await {
                Tried::Done(reply) => return self.shared.oracle.answered(id, Fate::Acknowledged(reply.position, None)),
                // The bootstrap has no request ids: its second try finds the work of the first.
                Tried::Refused(RefusalKind::AlreadyExists, _) if matches!(body, CommandBody::InitCluster(_)) => return,
                Tried::Refused(kind, message) => {
                    self.shared.history.violated("P1", format_args!("a command of the beginning was refused ({kind}: {message})"));
                    return;
                }
                Tried::NotDone | Tried::Unknown => self.pause(Duration::from_millis(500)).await,
            }
        }
    }

    /// One try.
    async fn send(&self, body: &CommandBody, request: RequestId) -> Tried {
        SimRuntime::sleep(self.shared.network.delay()).await;
        let Some(stamp) = self.shared.voter.wall() else { return Tried::NotDone };
        let answer = self.shared.voter.propose(self.command(body, request, stamp)).await;
        SimRuntime::sleep(self.shared.network.delay()).await;
        if self.draw(100) < 2 {
            // The answer is lost on the way, whatever it was.
            self.shared.history.count("answers lost");
            return if matches!(answer, Answer::NotSent) { Tried::NotDone } else { Tried::Unknown };
        }
        match answer {
            Answer::NotSent => Tried::NotDone,
            Answer::Lost | Answer::Replied(Err(ProposeError::Unknown { .. })) => {
                self.shared.history.count("outcomes unknown");
                Tried::Unknown
            }
            Answer::Replied(Ok(reply)) => Tried::Done(reply),
            Answer::Replied(Err(ProposeError::Refused(refusal))) => Tried::Refused(refusal.kind, refusal.message),
            Answer::Replied(Err(_)) => {
                self.shared.history.count("not proposed");
                Tried::NotDone
            }
        }
    }

    fn command(&self, body: &CommandBody, request: RequestId, stamp: UnixMillis) -> Command {
        let begins = matches!(body, CommandBody::InitCluster(_));
        let fingerprint = Sha256::digest(request.as_bytes()).into();
        Command {
            level: FeatureLevel::new(1),
            principal: if begins { Principal::System } else { Principal::Operator { token: TOKEN } },
            stamp,
            request: (!begins).then_some(RequestKey { id: request, fingerprint }),
            origin: Origin { peer: format!("client-{}", self.number), request: String::new() },
            body: body.clone(),
        }
    }

    fn text(&self) -> String {
        format!("note {}", hex(&self.entropy.id()))
    }

    fn draw(&self, below: u64) -> u64 {
        self.entropy.number() % below
    }

    async fn pause(&self, longest: Duration) {
        SimRuntime::sleep(Duration::from_micros(1 + self.draw(longest.as_micros() as u64))).await;
    }
}

/// What one try brought.
enum Tried {
    Done(Reply),
    Refused(RefusalKind, String),
    /// Nothing was proposed.
    NotDone,
    /// It may have been done.
    Unknown,
}

fn sealed(value: ValueId) -> SealedInput {
    SealedInput { value_id: value, dek: DEK, domain: domain(), sealed: sealed_bytes(value).expect("a sealed value's length") }
}

fn version(body: &ReplyBody) -> Option<Version> {
    match body {
        ReplyBody::ValueSet { version } => Some(*version),
        ReplyBody::SecretsCreated { secrets } => secrets.first().map(|(_, version)| *version),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
