//! Keys of records: a keyspace byte, then ids of fixed width, big-endian numbers and names, so that bytes order as the fields do.
//!
//! ```text
//! part      bytes
//! keyspace  1      below 0x80: propagated to edges; from 0x80: control nodes only
//! id        16     raw
//! hash      32     raw
//! number    4 / 8  big-endian
//! kind      1      the kind's number
//! name      n      UTF-8; a zero byte follows when more parts do (no name holds one, so a prefix sorts first)
//! ```

use std::{borrow::Borrow, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{
    AccountId, BindingName, ConsumerKind, ConsumerName, ConsumerRef, DekId, KekEpoch, KeyDomain, LogIndex, NodeId, RequestId, RootKeyId,
    SecretId, SecretName, StoreId, StoreName, TokenId, ValueId,
};

/// Which kind of record a key leads to: the first byte of a key. Stored; numbers are only ever added. 0x10 to 0x1f are set aside
/// for workers' versions, deployments and rollouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Keyspace {
    /// The cluster's settings, one record.
    Settings = 0x01,
    /// Signer sets by version.
    SignerSet = 0x02,
    /// The node registry.
    Node = 0x03,
    /// KEK epochs, their public part.
    KekEpoch = 0x04,
    /// Accounts.
    Account = 0x05,
    /// Wrapped data keys.
    Dek = 0x06,
    /// Stores.
    Store = 0x07,
    /// Store ids by name.
    StoreName = 0x08,
    /// Secrets.
    Secret = 0x09,
    /// Secret ids by name.
    SecretName = 0x0a,
    /// Sealed values.
    Value = 0x0b,
    /// Consumers.
    Consumer = 0x0c,
    /// Consumers' tokens by hash.
    ConsumerToken = 0x0d,
    /// Bindings.
    Binding = 0x0e,
    /// Applied index, log time and head of the chain, one record.
    Head = 0x80,
    /// Operators' tokens by hash.
    OperatorToken = 0x81,
    /// Hashes of operators' tokens by token id.
    OperatorTokenId = 0x82,
    /// Head of the audit chain, one record.
    AuditHead = 0x83,
    /// Remembered requests.
    Request = 0x84,
    /// Remembered requests by age.
    RequestAge = 0x85,
    /// Envelopes of KEK epochs, one per recipient.
    Envelope = 0x86,
    /// How often a data key was used.
    DekUses = 0x87,
    /// How many data keys an epoch wraps.
    EpochUses = 0x88,
    /// Unfinished background jobs.
    Job = 0x89,
    /// Quotas that differ from the default.
    Quota = 0x8a,
    /// What an account holds.
    Usage = 0x8b,
    /// What the cluster holds, one record.
    Totals = 0x8c,
    /// Bindings by what they are bound to.
    BoundBy = 0x8d,
    /// What a consumer holds.
    ConsumerUsage = 0x8e,
    /// Hashes of consumers' tokens by consumer and token id.
    ConsumerTokenId = 0x8f,
}

impl Keyspace {
    /// All keyspaces, in the order of their numbers.
    pub const ALL: [Self; 30] = [
        Self::Settings,
        Self::SignerSet,
        Self::Node,
        Self::KekEpoch,
        Self::Account,
        Self::Dek,
        Self::Store,
        Self::StoreName,
        Self::Secret,
        Self::SecretName,
        Self::Value,
        Self::Consumer,
        Self::ConsumerToken,
        Self::Binding,
        Self::Head,
        Self::OperatorToken,
        Self::OperatorTokenId,
        Self::AuditHead,
        Self::Request,
        Self::RequestAge,
        Self::Envelope,
        Self::DekUses,
        Self::EpochUses,
        Self::Job,
        Self::Quota,
        Self::Usage,
        Self::Totals,
        Self::BoundBy,
        Self::ConsumerUsage,
        Self::ConsumerTokenId,
    ];

    /// The stored number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The keyspace of a stored number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|keyspace| keyspace.number() == number)
    }

    /// Whether its records go to edges.
    pub const fn is_propagated(self) -> bool {
        self.number() < 0x80
    }
}

/// A background job: the index of the command that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(LogIndex);

impl JobId {
    /// The job that the command at `index` began.
    pub const fn new(index: LogIndex) -> Self {
        Self(index)
    }

    /// The index of the command that began it.
    pub const fn index(self) -> LogIndex {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whom an envelope of a KEK epoch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recipient {
    /// A root key, in its provider.
    Root(RootKeyId),
    /// A node, under its envelope key.
    Node(NodeId),
    /// The offline recovery key.
    Recovery,
}

/// A remembered request's principal, as it stands in keys: an operator's token or a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RequestOwner {
    /// An operator's token, by its public id.
    Token(TokenId),
    /// A node.
    Node(NodeId),
}

/// What a binding is bound to, as it stands in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BoundTo {
    /// A secret.
    Secret(SecretId),
    /// A store.
    Store(StoreId),
}

/// A key in typed form. Orders as its bytes do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields are named for the newtypes that they hold; the variants for their keyspaces")]
pub enum TypedKey {
    Settings,
    SignerSet { version: u32 },
    Node { node: NodeId },
    KekEpoch { domain: KeyDomain, epoch: KekEpoch },
    Account { account: AccountId },
    Dek { account: AccountId, dek: DekId },
    Store { store: StoreId },
    StoreName { account: AccountId, name: StoreName },
    Secret { store: StoreId, secret: SecretId },
    SecretName { store: StoreId, name: SecretName },
    Value { secret: SecretId, value: ValueId },
    Consumer { consumer: ConsumerRef },
    ConsumerToken { hash: [u8; 32] },
    Binding { consumer: ConsumerRef, name: BindingName },
    Head,
    OperatorToken { hash: [u8; 32] },
    OperatorTokenId { token: TokenId },
    AuditHead,
    Request { owner: RequestOwner, request: RequestId },
    RequestAge { index: LogIndex },
    Envelope { domain: KeyDomain, epoch: KekEpoch, recipient: Recipient },
    DekUses { account: AccountId, dek: DekId },
    EpochUses { domain: KeyDomain, epoch: KekEpoch },
    Job { job: JobId },
    Quota { account: AccountId },
    Usage { account: AccountId },
    Totals,
    BoundBy { target: BoundTo, consumer: ConsumerRef, name: BindingName },
    ConsumerUsage { consumer: ConsumerRef },
    ConsumerTokenId { consumer: ConsumerRef, token: TokenId },
}

/// Bytes that are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The first byte names no keyspace that this build knows.
    #[error("a key of unknown keyspace {number:#04x}; a newer Cinnabar wrote it, or it is damaged")]
    Keyspace {
        /// The first byte.
        number: u8,
    },
    /// The parts do not fit the keyspace.
    #[error("a key of {bytes} bytes is damaged: {part} does not fit")]
    Part {
        /// The length of the key.
        bytes: usize,
        /// The part that is wrong or missing.
        part: &'static str,
    },
}

/// An encoded key. Cheap to clone; orders by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// The first bytes of keys that belong together, such as all secrets of a store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(Bytes);

impl Key {
    /// Takes bytes as they were stored; [`Key::decode`] checks them.
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The stored bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The keyspace, if this build knows it.
    pub fn keyspace(&self) -> Option<Keyspace> {
        self.0.first().and_then(|number| Keyspace::from_number(*number))
    }

    /// Whether its record goes to edges; said by the first bit alone, so it also holds for keyspaces yet unknown.
    pub fn is_propagated(&self) -> bool {
        self.0.first().is_some_and(|number| *number < 0x80)
    }

    /// The key in typed form.
    ///
    /// # Errors
    /// [`KeyError`] for an unknown keyspace, and for parts that are missing, too many or not allowed.
    pub fn decode(&self) -> Result<TypedKey, KeyError> {
        decode(&self.0)
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            // Hashes of tokens are no tokens, but are kept out of logs all the same.
            Ok(TypedKey::ConsumerToken { .. } | TypedKey::OperatorToken { .. }) | Err(_) => {
                write!(f, "Key({:#04x}, {} bytes)", self.0.first().copied().unwrap_or_default(), self.0.len())
            }
            Ok(typed) => write!(f, "Key({typed:?})"),
        }
    }
}

impl From<TypedKey> for Key {
    fn from(key: TypedKey) -> Self {
        key.encode()
    }
}

impl Prefix {
    /// Takes the bytes that keys start with.
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes that keys start with.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// All keys of a keyspace.
    pub fn keyspace(keyspace: Keyspace) -> Self {
        Self(Writer::new(keyspace).0.into())
    }

    /// All data keys of an account.
    pub fn deks(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::Dek).raw(account.as_bytes()).0.into())
    }

    /// All stores of an account, by name.
    pub fn store_names(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::StoreName).raw(account.as_bytes()).0.into())
    }

    /// All secrets of a store, by id.
    pub fn secrets(store: StoreId) -> Self {
        Self(Writer::new(Keyspace::Secret).raw(store.as_bytes()).0.into())
    }

    /// All secrets of a store, by name.
    pub fn secret_names(store: StoreId) -> Self {
        Self(Writer::new(Keyspace::SecretName).raw(store.as_bytes()).0.into())
    }

    /// All sealed values of a secret.
    pub fn values(secret: SecretId) -> Self {
        Self(Writer::new(Keyspace::Value).raw(secret.as_bytes()).0.into())
    }

    /// All consumers of an account, by kind and name.
    pub fn consumers(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::Consumer).raw(account.as_bytes()).0.into())
    }

    /// All bindings of an account.
    pub fn bindings_of_account(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::Binding).raw(account.as_bytes()).0.into())
    }

    /// All bindings of a consumer.
    pub fn bindings(consumer: &ConsumerRef) -> Self {
        Self(Writer::new(Keyspace::Binding).consumer(consumer).name(None).0.into())
    }

    /// All KEK epochs of a domain.
    pub fn kek_epochs(domain: &KeyDomain) -> Self {
        Self(Writer::new(Keyspace::KekEpoch).name(domain.as_str()).name(None).0.into())
    }

    /// All envelopes of a KEK epoch.
    pub fn envelopes(domain: &KeyDomain, epoch: KekEpoch) -> Self {
        Self(Writer::new(Keyspace::Envelope).name(domain.as_str()).name(None).u32(epoch.get()).0.into())
    }

    /// All bindings to a secret or store.
    pub fn bound_by(target: BoundTo) -> Self {
        Self(Writer::new(Keyspace::BoundBy).bound_to(target).0.into())
    }

    /// All tokens of a consumer.
    pub fn consumer_tokens(consumer: &ConsumerRef) -> Self {
        Self(Writer::new(Keyspace::ConsumerTokenId).consumer(consumer).name(None).0.into())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({:#04x}, {} bytes)", self.0.first().copied().unwrap_or_default(), self.0.len())
    }
}

/// A key in the making.
struct Writer(Vec<u8>);

impl Writer {
    fn new(keyspace: Keyspace) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(keyspace.number());
        Self(bytes)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(self, number: u8) -> Self {
        self.raw(&[number])
    }

    fn u32(self, number: u32) -> Self {
        self.raw(&number.to_be_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    /// The bytes of a name, or (none) the zero byte that ends one.
    fn name<'a>(self, name: impl Into<Option<&'a str>>) -> Self {
        self.raw(name.into().unwrap_or("\0").as_bytes())
    }

    fn consumer(self, consumer: &ConsumerRef) -> Self {
        self.raw(consumer.account.as_bytes()).u8(consumer.kind.into()).name(consumer.name.as_str())
    }

    fn bound_to(self, target: BoundTo) -> Self {
        match target {
            BoundTo::Secret(secret) => self.u8(0).raw(secret.as_bytes()),
            BoundTo::Store(store) => self.u8(1).raw(store.as_bytes()),
        }
    }

    fn owner(self, owner: RequestOwner) -> Self {
        match owner {
            RequestOwner::Token(token) => self.u8(0).raw(token.as_bytes()),
            RequestOwner::Node(node) => self.u8(1).u64(0).u64(node.get()),
        }
    }

    fn recipient(self, recipient: Recipient) -> Self {
        match recipient {
            Recipient::Root(root) => self.u8(0).raw(root.as_bytes()),
            Recipient::Node(node) => self.u8(1).u64(0).u64(node.get()),
            Recipient::Recovery => self.u8(2).u64(0).u64(0),
        }
    }
}

impl TypedKey {
    /// Which keyspace it is in.
    pub const fn keyspace(&self) -> Keyspace {
        match self {
            Self::Settings => Keyspace::Settings,
            Self::SignerSet { .. } => Keyspace::SignerSet,
            Self::Node { .. } => Keyspace::Node,
            Self::KekEpoch { .. } => Keyspace::KekEpoch,
            Self::Account { .. } => Keyspace::Account,
            Self::Dek { .. } => Keyspace::Dek,
            Self::Store { .. } => Keyspace::Store,
            Self::StoreName { .. } => Keyspace::StoreName,
            Self::Secret { .. } => Keyspace::Secret,
            Self::SecretName { .. } => Keyspace::SecretName,
            Self::Value { .. } => Keyspace::Value,
            Self::Consumer { .. } => Keyspace::Consumer,
            Self::ConsumerToken { .. } => Keyspace::ConsumerToken,
            Self::Binding { .. } => Keyspace::Binding,
            Self::Head => Keyspace::Head,
            Self::OperatorToken { .. } => Keyspace::OperatorToken,
            Self::OperatorTokenId { .. } => Keyspace::OperatorTokenId,
            Self::AuditHead => Keyspace::AuditHead,
            Self::Request { .. } => Keyspace::Request,
            Self::RequestAge { .. } => Keyspace::RequestAge,
            Self::Envelope { .. } => Keyspace::Envelope,
            Self::DekUses { .. } => Keyspace::DekUses,
            Self::EpochUses { .. } => Keyspace::EpochUses,
            Self::Job { .. } => Keyspace::Job,
            Self::Quota { .. } => Keyspace::Quota,
            Self::Usage { .. } => Keyspace::Usage,
            Self::Totals => Keyspace::Totals,
            Self::BoundBy { .. } => Keyspace::BoundBy,
            Self::ConsumerUsage { .. } => Keyspace::ConsumerUsage,
            Self::ConsumerTokenId { .. } => Keyspace::ConsumerTokenId,
        }
    }

    /// The key's bytes.
    pub fn encode(&self) -> Key {
        let key = Writer::new(self.keyspace());
        let key = match self {
            Self::Settings | Self::Head | Self::AuditHead | Self::Totals => key,
            Self::SignerSet { version } => key.u32(*version),
            Self::Node { node } => key.u64(node.get()),
            Self::KekEpoch { domain, epoch } | Self::EpochUses { domain, epoch } => key.name(domain.as_str()).name(None).u32(epoch.get()),
            Self::Account { account } | Self::Quota { account } | Self::Usage { account } => key.raw(account.as_bytes()),
            Self::Dek { account, dek } | Self::DekUses { account, dek } => key.raw(account.as_bytes()).raw(dek.as_bytes()),
            Self::Store { store } => key.raw(store.as_bytes()),
            Self::StoreName { account, name } => key.raw(account.as_bytes()).name(name.as_str()),
            Self::Secret { store, secret } => key.raw(store.as_bytes()).raw(secret.as_bytes()),
            Self::SecretName { store, name } => key.raw(store.as_bytes()).name(name.as_str()),
            Self::Value { secret, value } => key.raw(secret.as_bytes()).raw(value.as_bytes()),
            Self::Consumer { consumer } | Self::ConsumerUsage { consumer } => key.consumer(consumer),
            Self::ConsumerToken { hash } | Self::OperatorToken { hash } => key.raw(hash),
            Self::Binding { consumer, name } => key.consumer(consumer).name(None).name(name.as_str()),
            Self::OperatorTokenId { token } => key.raw(token.as_bytes()),
            Self::Request { owner, request } => key.owner(*owner).raw(request.as_bytes()),
            Self::RequestAge { index } => key.u64(index.get()),
            Self::Envelope { domain, epoch, recipient } => key.name(domain.as_str()).name(None).u32(epoch.get()).recipient(*recipient),
            Self::Job { job } => key.u64(job.index().get()),
            Self::BoundBy { target, consumer, name } => key.bound_to(*target).consumer(consumer).name(None).name(name.as_str()),
            Self::ConsumerTokenId { consumer, token } => key.consumer(consumer).name(None).raw(token.as_bytes()),
        };
        Key(key.0.into())
    }
}

/// The rest of a key being read.
struct Reader<'a> {
    all: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn refuse(&self, part: &'static str) -> KeyError {
        KeyError::Part { bytes: self.all, part }
    }

    fn raw<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], KeyError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.refuse(part))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self, part: &'static str) -> Result<u8, KeyError> {
        self.raw(part).map(|[byte]| byte)
    }

    fn u32(&mut self, part: &'static str) -> Result<u32, KeyError> {
        self.raw(part).map(u32::from_be_bytes)
    }

    fn u64(&mut self, part: &'static str) -> Result<u64, KeyError> {
        self.raw(part).map(u64::from_be_bytes)
    }

    /// A name that ends the key.
    fn last_name<T: std::str::FromStr>(&mut self, part: &'static str) -> Result<T, KeyError> {
        let name = std::mem::take(&mut self.rest);
        std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or_else(|| self.refuse(part))
    }

    /// A name that a zero byte ends.
    fn name<T: std::str::FromStr>(&mut self, part: &'static str) -> Result<T, KeyError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.refuse(part))?;
        let (name, rest) = self.rest.split_at(end);
        self.rest = name;
        let name = self.last_name(part)?;
        self.rest = &rest[1..];
        Ok(name)
    }

    fn consumer(&mut self, name: impl FnOnce(&mut Self, &'static str) -> Result<ConsumerName, KeyError>) -> Result<ConsumerRef, KeyError> {
        let account = AccountId::from_bytes(self.raw("account")?);
        let kind = ConsumerKind::try_from(self.u8("kind")?).map_err(|_| self.refuse("kind"))?;
        Ok(ConsumerRef { account, kind, name: name(self, "consumer name")? })
    }

    /// A number padded to the width of an id.
    fn wide(&mut self, part: &'static str) -> Result<u64, KeyError> {
        match self.u64(part)? {
            0 => self.u64(part),
            _ => Err(self.refuse(part)),
        }
    }

    fn owner(&mut self) -> Result<RequestOwner, KeyError> {
        match self.u8("owner")? {
            0 => Ok(RequestOwner::Token(TokenId::from_bytes(self.raw("token id")?))),
            1 => Ok(RequestOwner::Node(NodeId::new(self.wide("node")?))),
            _ => Err(self.refuse("owner")),
        }
    }

    fn recipient(&mut self) -> Result<Recipient, KeyError> {
        match (self.u8("recipient")?, self.rest) {
            (0, _) => Ok(Recipient::Root(RootKeyId::from_bytes(self.raw("root key id")?))),
            (1, _) => Ok(Recipient::Node(NodeId::new(self.wide("node")?))),
            (2, [0, ..]) if self.wide("recipient")? == 0 => Ok(Recipient::Recovery),
            _ => Err(self.refuse("recipient")),
        }
    }

    fn bound_to(&mut self) -> Result<BoundTo, KeyError> {
        match self.u8("target")? {
            0 => Ok(BoundTo::Secret(SecretId::from_bytes(self.raw("secret")?))),
            1 => Ok(BoundTo::Store(StoreId::from_bytes(self.raw("store")?))),
            _ => Err(self.refuse("target")),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<TypedKey, KeyError> {
    let (&number, rest) = bytes.split_first().ok_or(KeyError::Part { bytes: 0, part: "keyspace" })?;
    let keyspace = Keyspace::from_number(number).ok_or(KeyError::Keyspace { number })?;
    let mut r = Reader { all: bytes.len(), rest };
    let key = match keyspace {
        Keyspace::Settings => TypedKey::Settings,
        Keyspace::SignerSet => TypedKey::SignerSet { version: r.u32("version")? },
        Keyspace::Node => TypedKey::Node { node: NodeId::new(r.u64("node")?) },
        Keyspace::KekEpoch => TypedKey::KekEpoch { domain: r.name("domain")?, epoch: KekEpoch::new(r.u32("epoch")?) },
        Keyspace::Account => TypedKey::Account { account: AccountId::from_bytes(r.raw("account")?) },
        Keyspace::Dek => TypedKey::Dek { account: AccountId::from_bytes(r.raw("account")?), dek: DekId::from_bytes(r.raw("data key")?) },
        Keyspace::Store => TypedKey::Store { store: StoreId::from_bytes(r.raw("store")?) },
        Keyspace::StoreName => TypedKey::StoreName { account: AccountId::from_bytes(r.raw("account")?), name: r.last_name("store name")? },
        Keyspace::Secret => {
            TypedKey::Secret { store: StoreId::from_bytes(r.raw("store")?), secret: SecretId::from_bytes(r.raw("secret")?) }
        }
        Keyspace::SecretName => TypedKey::SecretName { store: StoreId::from_bytes(r.raw("store")?), name: r.last_name("secret name")? },
        Keyspace::Value => TypedKey::Value { secret: SecretId::from_bytes(r.raw("secret")?), value: ValueId::from_bytes(r.raw("value")?) },
        Keyspace::Consumer => TypedKey::Consumer { consumer: r.consumer(Reader::last_name)? },
        Keyspace::ConsumerToken => TypedKey::ConsumerToken { hash: r.raw("hash")? },
        Keyspace::Binding => TypedKey::Binding { consumer: r.consumer(Reader::name)?, name: r.last_name("binding name")? },
        Keyspace::Head => TypedKey::Head,
        Keyspace::OperatorToken => TypedKey::OperatorToken { hash: r.raw("hash")? },
        Keyspace::OperatorTokenId => TypedKey::OperatorTokenId { token: TokenId::from_bytes(r.raw("token id")?) },
        Keyspace::AuditHead => TypedKey::AuditHead,
        Keyspace::Request => TypedKey::Request { owner: r.owner()?, request: RequestId::from_bytes(r.raw("request id")?) },
        Keyspace::RequestAge => TypedKey::RequestAge { index: LogIndex::new(r.u64("index")?) },
        Keyspace::Envelope => {
            TypedKey::Envelope { domain: r.name("domain")?, epoch: KekEpoch::new(r.u32("epoch")?), recipient: r.recipient()? }
        }
        Keyspace::DekUses => {
            TypedKey::DekUses { account: AccountId::from_bytes(r.raw("account")?), dek: DekId::from_bytes(r.raw("data key")?) }
        }
        Keyspace::EpochUses => TypedKey::EpochUses { domain: r.name("domain")?, epoch: KekEpoch::new(r.u32("epoch")?) },
        Keyspace::Job => TypedKey::Job { job: JobId::new(LogIndex::new(r.u64("index")?)) },
        Keyspace::Quota => TypedKey::Quota { account: AccountId::from_bytes(r.raw("account")?) },
        Keyspace::Usage => TypedKey::Usage { account: AccountId::from_bytes(r.raw("account")?) },
        Keyspace::Totals => TypedKey::Totals,
        Keyspace::BoundBy => {
            TypedKey::BoundBy { target: r.bound_to()?, consumer: r.consumer(Reader::name)?, name: r.last_name("binding name")? }
        }
        Keyspace::ConsumerUsage => TypedKey::ConsumerUsage { consumer: r.consumer(Reader::last_name)? },
        Keyspace::ConsumerTokenId => {
            TypedKey::ConsumerTokenId { consumer: r.consumer(Reader::name)?, token: TokenId::from_bytes(r.raw("token id")?) }
        }
    };
    if r.rest.is_empty() { Ok(key) } else { Err(r.refuse("the end")) }
}
