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

mod codec;

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use codec::Writer;
use serde::{Deserialize, Serialize};
use types::{
    AccountId, BindingName, ConsumerRef, DekId, Generation, KekEpoch, KeyDomain, LogIndex, NodeId, RequestId, RootKeyId, SecretId,
    SecretName, StoreId, StoreName, TokenId, UnixMillis, ValueId,
};

use crate::MemberRef;

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
    /// The public halves of the offline recovery key, one record.
    Recovery = 0x0f,
    /// Generations after the first, each by the statement that began it.
    Generation = 0x20,
    /// The certificate authorities that are believed, one record.
    Trust = 0x21,
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
    /// The cluster's certificate authority, one record.
    Authority = 0x90,
    /// Join tokens by hash.
    JoinToken = 0x91,
    /// Hashes of join tokens by token id.
    JoinTokenId = 0x92,
    /// By which authority nodes' certificates are.
    Certified = 0x93,
    /// Members by home and name.
    Member = 0x94,
    /// Tokens of members.
    MemberToken = 0x95,
    /// What an operator's token has beside its own grants.
    TokenTerms = 0x96,
    /// Limits that differ from the default, of accounts and of the cluster.
    Limits = 0x97,
    /// What an account holds of what these limits bound.
    Holdings = 0x98,
    /// Deleted secrets that can be brought back.
    Deleted = 0x99,
    /// Their sealed values.
    DeletedValue = 0x9a,
    /// Deleted secrets by the time at which they are destroyed.
    DeletedUntil = 0x9b,
    /// Deleted secrets of an account, by age.
    DeletedOf = 0x9c,
    /// When people want to be reminded of a secret.
    Reminder = 0x9d,
    /// Secrets by the time for which they have a reminder.
    Due = 0x9e,
}

impl Keyspace {
    /// All keyspaces, in the order of their numbers.
    pub const ALL: [Self; 48] = [
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
        Self::Recovery,
        Self::Generation,
        Self::Trust,
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
        Self::Authority,
        Self::JoinToken,
        Self::JoinTokenId,
        Self::Certified,
        Self::Member,
        Self::MemberToken,
        Self::TokenTerms,
        Self::Limits,
        Self::Holdings,
        Self::Deleted,
        Self::DeletedValue,
        Self::DeletedUntil,
        Self::DeletedOf,
        Self::Reminder,
        Self::Due,
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

/// What a reminder is about, as it stands in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReminderKind {
    /// The value ends.
    Expiry,
    /// The value should be replaced.
    Rotation,
}

impl ReminderKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Expiry, Self::Rotation];

    /// The kind's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Rotation => "rotation",
        }
    }
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
    Recovery,
    Generation { generation: Generation },
    Trust,
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
    Authority,
    JoinToken { hash: [u8; 32] },
    JoinTokenId { token: TokenId },
    Certified { node: NodeId },
    Member { member: MemberRef },
    MemberToken { member: MemberRef, token: TokenId },
    TokenTerms { token: TokenId },
    Limits { account: Option<AccountId> },
    Holdings { account: Option<AccountId> },
    Deleted { store: StoreId, secret: SecretId },
    DeletedValue { secret: SecretId, value: ValueId },
    DeletedUntil { until: UnixMillis, store: StoreId, secret: SecretId },
    DeletedOf { account: AccountId, index: LogIndex, store: StoreId, secret: SecretId },
    Reminder { store: StoreId, secret: SecretId },
    Due { at: UnixMillis, kind: ReminderKind, store: StoreId, secret: SecretId },
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

/// An encoded key. Orders by its bytes. Most keys are short enough to lie in the value itself: making, copying and comparing them
/// neither allocates nor leaves the map that holds them.
#[derive(Clone)]
pub struct Key(Repr);

/// Bytes of a short key: three ids with their keyspace, or two and names of usual length. With the length and the mark of the variant
/// it makes 40.
const SHORT_MAX: usize = 38;

#[derive(Clone)]
enum Repr {
    /// The bytes, then zeros, then the length: so shorts compare as arrays, whose length is known, and a prefix comes before what it
    /// begins, also where that goes on with zeros.
    Short([u8; SHORT_MAX + 1]),
    Long(Arc<[u8]>),
}

/// The first bytes of keys that belong together, such as all secrets of a store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(Key);

impl Key {
    /// Takes bytes as they were stored; [`Key::decode`] checks them.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Self {
        Writer::empty().raw(bytes.as_ref()).end()
    }

    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Short(short) => short.get(..usize::from(short[SHORT_MAX])).unwrap_or_default(),
            Repr::Long(bytes) => bytes,
        }
    }

    /// The keyspace, if this build knows it.
    pub fn keyspace(&self) -> Option<Keyspace> {
        self.as_bytes().first().and_then(|number| Keyspace::from_number(*number))
    }

    /// Whether its record goes to edges; said by the first bit alone, so it also holds for keyspaces yet unknown.
    pub fn is_propagated(&self) -> bool {
        self.as_bytes().first().is_some_and(|number| *number < 0x80)
    }

    /// The key in typed form.
    ///
    /// # Errors
    /// [`KeyError`] for an unknown keyspace, and for parts that are missing, too many or not allowed.
    pub fn decode(&self) -> Result<TypedKey, KeyError> {
        codec::decode(self.as_bytes())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Repr::Short(own), Repr::Short(other)) => own.cmp(other),
            _ => self.as_bytes().cmp(other.as_bytes()),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            // Hashes of tokens are no tokens, but are kept out of logs all the same.
            Ok(TypedKey::ConsumerToken { .. } | TypedKey::OperatorToken { .. } | TypedKey::JoinToken { .. }) | Err(_) => {
                write!(f, "Key({:#04x}, {} bytes)", self.as_bytes().first().copied().unwrap_or_default(), self.as_bytes().len())
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
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self(Key::from_bytes(bytes))
    }

    /// The bytes that keys start with.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// All keys of a keyspace.
    pub fn keyspace(keyspace: Keyspace) -> Self {
        Self(Writer::new(keyspace).end())
    }

    /// All data keys of an account.
    pub fn deks(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::Dek).raw(account.as_bytes()).end())
    }

    /// All stores of an account, by name.
    pub fn store_names(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::StoreName).raw(account.as_bytes()).end())
    }

    /// All secrets of a store, by id.
    pub fn secrets(store: StoreId) -> Self {
        Self(Writer::new(Keyspace::Secret).raw(store.as_bytes()).end())
    }

    /// All secrets of a store, by name.
    pub fn secret_names(store: StoreId) -> Self {
        Self(Writer::new(Keyspace::SecretName).raw(store.as_bytes()).end())
    }

    /// All sealed values of a secret.
    pub fn values(secret: SecretId) -> Self {
        Self(Writer::new(Keyspace::Value).raw(secret.as_bytes()).end())
    }

    /// All consumers of an account, by kind and name.
    pub fn consumers(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::Consumer).raw(account.as_bytes()).end())
    }

    /// All bindings of an account.
    pub fn bindings_of_account(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::Binding).raw(account.as_bytes()).end())
    }

    /// All bindings of a consumer.
    pub fn bindings(consumer: &ConsumerRef) -> Self {
        Self(Writer::new(Keyspace::Binding).consumer(consumer).name(None).end())
    }

    /// All KEK epochs of a domain.
    pub fn kek_epochs(domain: &KeyDomain) -> Self {
        Self(Writer::new(Keyspace::KekEpoch).name(domain.as_str()).name(None).end())
    }

    /// All envelopes of a KEK epoch.
    pub fn envelopes(domain: &KeyDomain, epoch: KekEpoch) -> Self {
        Self(Writer::new(Keyspace::Envelope).name(domain.as_str()).name(None).u32(epoch.get()).end())
    }

    /// All bindings to a secret or store.
    pub fn bound_by(target: BoundTo) -> Self {
        Self(Writer::new(Keyspace::BoundBy).bound_to(target).end())
    }

    /// All members at home in an account, or (none) in the cluster, by name.
    pub fn members(account: Option<AccountId>) -> Self {
        Self(Writer::new(Keyspace::Member).home(account).end())
    }

    /// All tokens of a member.
    pub fn member_tokens(member: &MemberRef) -> Self {
        Self(Writer::new(Keyspace::MemberToken).member(member).name(None).end())
    }

    /// All deleted secrets of a store that can be brought back, by id.
    pub fn deleted(store: StoreId) -> Self {
        Self(Writer::new(Keyspace::Deleted).raw(store.as_bytes()).end())
    }

    /// All deleted secrets of an account that can be brought back, by age.
    pub fn deleted_of(account: AccountId) -> Self {
        Self(Writer::new(Keyspace::DeletedOf).raw(account.as_bytes()).end())
    }

    /// All tokens of a consumer.
    pub fn consumer_tokens(consumer: &ConsumerRef) -> Self {
        Self(Writer::new(Keyspace::ConsumerTokenId).consumer(consumer).name(None).end())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({:#04x}, {} bytes)", self.as_bytes().first().copied().unwrap_or_default(), self.as_bytes().len())
    }
}
