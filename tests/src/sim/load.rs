//! The clients of a run that write: secrets, tokens and bindings.
//!
//! A writer waits for the outcome of a write before it sends the next. When it does not learn it, it sends the same request again, to
//! whichever voter, most of the time; now and then it gives up, and the books keep the write as open for ever.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use consensus::ProposeError;
use lookup::{Authenticator, Caller, Connection};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use seal::ConsumerToken;
use seams::{Entropy, sim::SimEntropy};
use sha2::{Digest, Sha256};
use state::{
    Command, CommandBody, NewSecret, Origin, Principal, RefusalKind, Reply, ReplyBody, RequestKey, SealedInput, Stage, record::BoundTo,
};
use types::{
    BindingName, Comment, ConsumerRef, FeatureLevel, RequestId, Scope, SecretId, SecretName, StoreId, TokenId, UnixMillis, ValueId, Version,
};
use wire::parse::{AccountTarget, ConsumerTarget};

use super::{
    fleet::Fleet,
    history::History,
    keys::{ACCOUNT, Keys, Value},
    net::Network,
    oracle::{Fate, Oracle, Wish, WriteId},
    runtime::lock,
    voter::Answer,
};

/// The hash of the one operator's token.
pub(super) const TOKEN: [u8; 32] = [0x70; 32];
/// Secrets that a writer keeps alive at most.
const SLOTS: usize = 6;
/// Tokens that a writer makes for its consumer at most.
const TOKENS: usize = 10;
/// Of so many writes one has no request id, as those of simple clients.
const KEYLESS_ONE_IN: u64 = 6;
/// The longest pause of a writer between two writes.
const PAUSE: Duration = Duration::from_millis(60);

/// What clients share.
pub(super) struct Clients {
    /// Where they send.
    pub(super) fleet: Fleet,
    /// How long it takes.
    pub(super) network: Network,
    /// What they tell.
    pub(super) oracle: Oracle,
    /// Where it is counted.
    pub(super) history: History,
    /// What they seal with.
    pub(super) keys: Arc<Keys>,
    /// What may be looked up.
    pub(super) known: Mutex<Vec<Known>>,
    /// Set when they should finish.
    pub(super) stop: AtomicBool,
}

/// What one consumer may look up, as far as its writer knows.
pub(super) struct Known {
    pub(super) consumer: ConsumerRef,
    /// Good ones, and some that were revoked.
    pub(super) tokens: Vec<Token>,
    /// The name under which the store is bound.
    pub(super) store: BindingName,
    pub(super) secrets: Vec<SecretName>,
    /// Names under which single secrets are, or were, bound.
    pub(super) bindings: Vec<BindingName>,
}

/// A consumer's token, as those present it who look up.
pub(super) struct Token {
    pub(super) hash: [u8; 32],
    pub(super) caller: Caller,
    /// The same, in requests that name the consumer too.
    pub(super) naming: Caller,
}

/// One client.
pub(super) struct Client {
    pub(super) shared: Arc<Clients>,
    pub(super) entropy: SimEntropy,
    number: u8,
    /// The operator's token, by its hash.
    token: [u8; 32],
}

/// A secret that a writer believes to be there.
struct Slot {
    secret: SecretId,
    name: SecretName,
    /// The version that is current, when that is known.
    current: Option<Version>,
    /// A write on it was given up: what it is now is not known.
    unsure: bool,
}

/// A writer's own things.
struct Own {
    store: StoreId,
    consumer: ConsumerRef,
    slots: Vec<Slot>,
    /// The tokens that it believes to be good.
    tokens: Vec<(TokenId, [u8; 32])>,
    made: usize,
    /// The single bindings that it believes to be there.
    bound: Vec<BindingName>,
}

impl Clients {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Client {
    /// A client with randomness of its own.
    pub(super) fn new(shared: Arc<Clients>, seed: u64, number: u8) -> Self {
        Self { shared, entropy: SimEntropy::new(seed), number, token: TOKEN }
    }

    /// The same client with another token.
    pub(super) fn with_token(&self, token: [u8; 32]) -> Self {
        let entropy = SimEntropy::new(self.entropy.number());
        Self { shared: self.shared.clone(), entropy, number: self.number, token }
    }

    /// Writes until it is told to stop.
    pub(super) async fn write(self) {
        let store = StoreId::from_bytes([0x50 | self.number; 16]);
        let name = format!("store-{}", self.number).parse().expect("a name");
        let consumer = ConsumerRef::parse(ACCOUNT, &format!("worker/w{}", self.number)).expect("a name");
        self.insist(CommandBody::CreateStore { account: ACCOUNT, store, name }).await;
        self.insist(CommandBody::CreateConsumer { consumer: consumer.clone() }).await;
        let bound: BindingName = "STORE".parse().expect("a name");
        let target = BoundTo::Store(store);
        self.insist(CommandBody::Bind { consumer: consumer.clone(), name: bound.clone(), store, target, replace: false }).await;
        let known = Known { consumer: consumer.clone(), tokens: Vec::new(), store: bound, secrets: Vec::new(), bindings: Vec::new() };
        lock(&self.shared.known).push(known);
        let mut own = Own { store, consumer, slots: Vec::new(), tokens: Vec::new(), made: 0, bound: Vec::new() };
        while !self.shared.stopped() {
            self.pause(PAUSE).await;
            let place = self.draw(own.slots.len().max(1) as u64) as usize;
            match self.draw(100) {
                _ if own.tokens.is_empty() && own.made < TOKENS => self.new_token(&mut own).await,
                _ if own.slots.is_empty() => self.create(&mut own).await,
                0..12 if own.slots.len() < SLOTS => self.create(&mut own).await,
                0..56 => self.set(&own, place).await.apply(&mut own.slots[place]),
                56..76 => self.edit(&own, place).await.apply(&mut own.slots[place]),
                76..82 => self.scopes(&own, place).await.apply(&mut own.slots[place]),
                82..87 => self.bind(&mut own, place).await,
                87..90 => self.unbind(&mut own).await,
                90..93 if own.made < TOKENS => self.new_token(&mut own).await,
                90..96 => self.revoke_token(&mut own).await,
                _ => self.delete(&mut own, place).await,
            }
        }
    }

    async fn create(&self, own: &mut Own) {
        let (secret, value) = (SecretId::from_bytes(self.entropy.id()), ValueId::from_bytes(self.entropy.id()));
        let comment = self.text();
        let name: SecretName = format!("S-{}", hex(&secret.as_bytes()[..6])).parse().expect("a name");
        let item = NewSecret {
            id: secret,
            name: name.clone(),
            scopes: scopes("workers"),
            comment: Comment::new(comment.clone()).expect("a comment"),
            value: self.sealed(own.store, secret, &name, value),
        };
        let body = CommandBody::CreateSecrets { account: ACCOUNT, store: own.store, items: vec![item], new_dek: None };
        let fate = self.submit(Wish::Create { store: own.store, secret, value, comment }, body, Expect::Done).await;
        self.tell(own, |known| known.secrets.push(name.clone()));
        if fate != Fate::Void {
            let current = if let Fate::Acknowledged(_, version) = fate { version } else { None };
            own.slots.push(Slot { secret, name, current, unsure: fate == Fate::Open });
        }
    }

    /// A new value; now and then only if a certain version is current, which may be the wrong one.
    async fn set(&self, own: &Own, place: usize) -> After {
        let slot = &own.slots[place];
        let value = ValueId::from_bytes(self.entropy.id());
        let (mut expect, mut expected) = (None, if slot.unsure { Expect::Anything } else { Expect::Done });
        if let Some(current) = slot.current.filter(|_| !slot.unsure) {
            match self.draw(10) {
                0 | 1 => expect = Some(current),
                2 if current > Version::new(1) => (expect, expected) = (Some(Version::new(1)), Expect::Refused(RefusalKind::Precondition)),
                _ => {}
            }
        }
        let body = CommandBody::SetValue {
            account: ACCOUNT,
            store: own.store,
            secret: slot.secret,
            value: self.sealed(own.store, slot.secret, &slot.name, value),
            expect,
            stage: Stage::Current,
            scopes: None,
            comment: None,
            new_dek: None,
        };
        After { fate: self.submit(Wish::Set { secret: slot.secret, value }, body, expected).await, sets: true }
    }

    async fn edit(&self, own: &Own, place: usize) -> After {
        let slot = &own.slots[place];
        let comment = self.text();
        let new = Some(Comment::new(comment.clone()).expect("a comment"));
        let body = CommandBody::EditSecret { account: ACCOUNT, store: own.store, secret: slot.secret, scopes: None, comment: new };
        let expect = if slot.unsure { Expect::Anything } else { Expect::Done };
        After { fate: self.submit(Wish::Edit { secret: slot.secret, comment }, body, expect).await, sets: false }
    }

    /// Other scopes, which a worker may need or not.
    async fn scopes(&self, own: &Own, place: usize) -> After {
        let slot = &own.slots[place];
        let new = Some(scopes(if self.draw(3) == 0 { "dex" } else { "workers" }));
        let comment = self.text();
        let body = CommandBody::EditSecret {
            account: ACCOUNT,
            store: own.store,
            secret: slot.secret,
            scopes: new,
            comment: Some(Comment::new(comment.clone()).expect("a comment")),
        };
        let expect = if slot.unsure { Expect::Anything } else { Expect::Done };
        After { fate: self.submit(Wish::Edit { secret: slot.secret, comment }, body, expect).await, sets: false }
    }

    async fn delete(&self, own: &mut Own, place: usize) {
        let slot = own.slots.swap_remove(place);
        let body = CommandBody::DeleteSecrets { account: ACCOUNT, store: own.store, secrets: vec![slot.secret], force: true };
        let expect = if slot.unsure { Expect::Anything } else { Expect::Done };
        self.submit(Wish::Delete { secret: slot.secret }, body, expect).await;
    }

    async fn bind(&self, own: &mut Own, place: usize) {
        let slot = &own.slots[place];
        let name: BindingName = format!("B_{}", hex(&self.entropy.id()[..4]).to_uppercase()).parse().expect("a name");
        let target = BoundTo::Secret(slot.secret);
        let body = CommandBody::Bind { consumer: own.consumer.clone(), name: name.clone(), store: own.store, target, replace: false };
        // The secret may be gone, or lack the scope.
        let fate = self.submit(Wish::Other, body, Expect::Anything).await;
        self.tell(own, |known| known.bindings.push(name.clone()));
        if matches!(fate, Fate::Acknowledged(..)) {
            own.bound.push(name);
        }
    }

    async fn unbind(&self, own: &mut Own) {
        if own.bound.is_empty() {
            return;
        }
        let name = own.bound.swap_remove(self.draw(own.bound.len() as u64) as usize);
        // Its secret may have been deleted, and the binding with it.
        self.submit(Wish::Other, CommandBody::Unbind { consumer: own.consumer.clone(), name }, Expect::Anything).await;
    }

    async fn new_token(&self, own: &mut Own) {
        let token = ConsumerToken::generate(&self.entropy);
        let (id, hash) = (TokenId::from_bytes(self.entropy.id()), token.hash());
        let (authenticator, text) = (Authenticator::default(), token.text());
        let account = Some(AccountTarget { id: Some(own.consumer.account), name: None });
        let named = ConsumerTarget { account, kind: own.consumer.kind, name: own.consumer.name.clone() };
        let caller = |named| authenticator.caller(&Connection::default(), Some(text.expose()), named).expect("a token");
        let known = Token { hash, caller: caller(None), naming: caller(Some(named)) };
        own.made += 1;
        let body = CommandBody::CreateConsumerToken { consumer: own.consumer.clone(), token: id, hash, expires: None };
        let fate = self.submit(Wish::Other, body, Expect::Done).await;
        self.tell(own, |of| of.tokens.push(known));
        if matches!(fate, Fate::Acknowledged(..)) {
            own.tokens.push((id, hash));
        }
    }

    async fn revoke_token(&self, own: &mut Own) {
        if own.tokens.is_empty() {
            return;
        }
        let (token, hash) = own.tokens.swap_remove(self.draw(own.tokens.len() as u64) as usize);
        let fate = self.submit(Wish::Other, CommandBody::RevokeConsumerToken { consumer: own.consumer.clone(), token }, Expect::Done).await;
        if matches!(fate, Fate::Acknowledged(..)) {
            self.shared.history.count("tokens revoked");
            self.shared.oracle.token_revoked(hash);
        }
    }

    fn tell(&self, own: &Own, what: impl FnOnce(&mut Known)) {
        if let Some(known) = lock(&self.shared.known).iter_mut().find(|known| known.consumer == own.consumer) {
            what(known);
        }
    }

    fn sealed(&self, store: StoreId, secret: SecretId, name: &SecretName, value: ValueId) -> SealedInput {
        self.shared.keys.seal(value, self.value(store, secret, name))
    }

    pub(super) fn value(&self, store: StoreId, secret: SecretId, name: &SecretName) -> Value {
        let mut plaintext = vec![0; 1 + self.draw(600) as usize];
        self.entropy.fill(&mut plaintext);
        Value { store, secret, name: name.clone(), plaintext }
    }

    /// Sends a write until its outcome is known, or until patience ends.
    pub(super) async fn submit(&self, wish: Wish, mut body: CommandBody, expect: Expect) -> Fate {
        let id = self.shared.oracle.sent(wish);
        // Without a request id nothing tells a second try from the first, so there is none once the first may have been done.
        let keyless = self.draw(KEYLESS_ONE_IN) == 0;
        let request = RequestId::from_bytes(self.entropy.id());
        let request = (!keyless).then_some(request);
        let mut maybe_done = false;
        loop {
            match self.send(&body, request).await {
                Tried::Done(reply) => {
                    let fate = Fate::Acknowledged(reply.position, version(&reply.body));
                    if let Expect::Refused(kind) = expect {
                        self.shared.history.violated("P1", format_args!("{} was done, and was to be refused: {kind}", body.kind()));
                    }
                    self.shared.oracle.answered(id, fate);
                    return fate;
                }
                Tried::Refused(RefusalKind::Reseal, _) if !matches!(expect, Expect::Refused(RefusalKind::Reseal)) => {
                    // Never remembered: the same request goes on under the data key that is in use now.
                    self.shared.history.count("sealed again");
                    self.reseal(&mut body);
                    self.pause(Duration::from_millis(50)).await;
                    continue;
                }
                Tried::Refused(kind, message) => return self.refused(id, expect, maybe_done, (kind, &message)),
                Tried::NotDone => {}
                Tried::Unknown => maybe_done = true,
            }
            if self.draw(100) < 15 || keyless && maybe_done {
                let fate = if maybe_done { Fate::Open } else { Fate::Void };
                self.shared.history.count(if maybe_done { "outcomes never learned" } else { "writes given up" });
                self.shared.oracle.answered(id, fate);
                return fate;
            }
            self.shared.history.count("retries");
            self.pause(Duration::from_millis(200)).await;
        }
    }

    fn reseal(&self, body: &mut CommandBody) {
        match body {
            CommandBody::CreateSecrets { items, .. } => {
                items.iter_mut().for_each(|item| item.value = self.shared.keys.reseal(&item.value));
            }
            CommandBody::SetValue { value, .. } => *value = self.shared.keys.reseal(value),
            _ => {}
        }
    }

    /// A refusal is remembered like a reply, so all earlier tries of the request were refused as well, and it is not done. Only what a
    /// later state may hold is asked for anew each time: an earlier try that is still under way may be judged otherwise.
    fn refused(&self, id: WriteId, expect: Expect, maybe_done: bool, (kind, message): (RefusalKind, &str)) -> Fate {
        self.shared.history.count("refused");
        let fits = match expect {
            Expect::Done => false,
            Expect::Refused(wanted) => kind == wanted,
            Expect::Anything => matches!(kind, RefusalKind::NotFound | RefusalKind::Denied),
        };
        if !fits {
            self.shared
                .history
                .violated("P1", format_args!("a write was refused ({kind}: {message}), though all it needs was acknowledged"));
        }
        let asked_anew = matches!(kind, RefusalKind::NotFound | RefusalKind::Denied);
        let fate = if maybe_done && asked_anew { Fate::Open } else { Fate::Void };
        self.shared.oracle.answered(id, fate);
        fate
    }

    /// Sends a command until it is done.
    pub(super) async fn insist(&self, body: CommandBody) {
        let id = self.shared.oracle.sent(Wish::Other);
        let request = Some(RequestId::from_bytes(self.entropy.id()));
        loop {
            match self.send(&body, request).await {
                Tried::Done(reply) => return self.shared.oracle.answered(id, Fate::Acknowledged(reply.position, None)),
                // The bootstrap has no request ids: its second try finds the work of the first.
                Tried::Refused(RefusalKind::AlreadyExists, _) if matches!(body, CommandBody::InitCluster(_)) => return,
                Tried::Refused(kind, message) => {
                    self.shared.history.violated("P1", format_args!("{} was refused ({kind}: {message})", body.kind()));
                    return;
                }
                Tried::NotDone | Tried::Unknown => self.pause(Duration::from_millis(200)).await,
            }
        }
    }

    /// One try, at any voter.
    async fn send(&self, body: &CommandBody, request: Option<RequestId>) -> Tried {
        SimRuntime::sleep(self.shared.network.delay()).await;
        let Some(voter) = self.shared.fleet.somebody(self.entropy.number()) else { return Tried::NotDone };
        let Some(stamp) = voter.wall() else { return Tried::NotDone };
        let answer = voter.propose(self.command(body, request, stamp)).await;
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

    fn command(&self, body: &CommandBody, request: Option<RequestId>, stamp: UnixMillis) -> Command {
        let begins = matches!(body, CommandBody::InitCluster(_));
        Command {
            level: FeatureLevel::new(1),
            principal: if begins { Principal::System } else { Principal::Operator { token: self.token } },
            stamp,
            request: request.filter(|_| !begins).map(|id| RequestKey { id, fingerprint: Sha256::digest(id.as_bytes()).into() }),
            origin: Origin { peer: format!("client-{}", self.number), request: String::new() },
            body: body.clone(),
        }
    }

    fn text(&self) -> String {
        format!("note {}", hex(&self.entropy.id()))
    }

    pub(super) fn draw(&self, below: u64) -> u64 {
        self.entropy.number() % below
    }

    pub(super) async fn pause(&self, longest: Duration) {
        SimRuntime::sleep(Duration::from_micros(1 + self.draw(longest.as_micros() as u64))).await;
    }
}

/// What must become of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// All it needs was acknowledged.
    Done,
    /// It is wrong.
    Refused(RefusalKind),
    /// What it needs may not be there.
    Anything,
}

/// What a write on a secret leaves of what its writer knows.
struct After {
    fate: Fate,
    sets: bool,
}

impl After {
    fn apply(self, slot: &mut Slot) {
        match self.fate {
            Fate::Acknowledged(_, version) if self.sets => slot.current = version,
            Fate::Open => slot.unsure = true,
            _ => {}
        }
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

fn scopes(text: &str) -> types::ScopeSet {
    std::iter::once(text.parse::<Scope>().expect("a scope")).collect()
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
