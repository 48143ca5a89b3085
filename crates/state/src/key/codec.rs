//! Keys as bytes: the writer, the reader, and the one place that says which parts each keyspace has.

use types::{
    AccountId, BindingName, ConsumerKind, ConsumerName, ConsumerRef, DekId, Generation, KekEpoch, LogIndex, NodeId, PrincipalName,
    RequestId, RootKeyId, SecretId, StoreId, TokenId, UnixMillis, ValueId,
};

use crate::MemberRef;

use super::{BoundTo, JobId, Key, KeyError, Keyspace, Recipient, ReminderKind, Repr, RequestOwner, SHORT_MAX, TypedKey};

/// A key in the making: in place while it is short.
pub(super) struct Writer {
    short: [u8; SHORT_MAX + 1],
    len: usize,
    /// All of it, once it is longer.
    long: Vec<u8>,
}

impl Writer {
    #[inline]
    pub(super) const fn empty() -> Self {
        Self { short: [0; SHORT_MAX + 1], len: 0, long: Vec::new() }
    }

    #[inline]
    pub(super) fn new(keyspace: Keyspace) -> Self {
        Self::empty().u8(keyspace.number())
    }

    #[inline]
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        let end = self.len + bytes.len();
        match self.short.get_mut(self.len..end).filter(|_| end <= SHORT_MAX) {
            Some(place) => place.copy_from_slice(bytes),
            None => {
                if self.len <= SHORT_MAX {
                    self.long.extend_from_slice(self.short.get(..self.len).unwrap_or_default());
                }
                self.long.extend_from_slice(bytes);
            }
        }
        self.len = end;
        self
    }

    #[inline]
    pub(super) fn end(mut self) -> Key {
        match u8::try_from(self.len) {
            Ok(len) if self.len <= SHORT_MAX => {
                self.short[SHORT_MAX] = len;
                Key(Repr::Short(self.short))
            }
            _ => Key(Repr::Long(self.long.into())),
        }
    }

    #[inline]
    pub(super) fn u8(self, number: u8) -> Self {
        self.raw(&[number])
    }

    #[inline]
    pub(super) fn u32(self, number: u32) -> Self {
        self.raw(&number.to_be_bytes())
    }

    #[inline]
    pub(super) fn u64(self, number: u64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    /// The bytes of a name, or (none) the zero byte that ends one.
    #[inline]
    pub(super) fn name<'a>(self, name: impl Into<Option<&'a str>>) -> Self {
        self.raw(name.into().unwrap_or("\0").as_bytes())
    }

    #[inline]
    pub(super) fn consumer(self, consumer: &ConsumerRef) -> Self {
        self.raw(consumer.account.as_bytes()).u8(consumer.kind.into()).name(consumer.name.as_str())
    }

    #[inline]
    pub(super) fn bound_to(self, target: BoundTo) -> Self {
        match target {
            BoundTo::Secret(secret) => self.u8(0).raw(secret.as_bytes()),
            BoundTo::Store(store) => self.u8(1).raw(store.as_bytes()),
        }
    }

    #[inline]
    pub(super) fn owner(self, owner: RequestOwner) -> Self {
        match owner {
            RequestOwner::Token(token) => self.u8(0).raw(token.as_bytes()),
            RequestOwner::Node(node) => self.u8(1).u64(0).u64(node.get()),
        }
    }

    /// An account, or (none) the cluster, in the same width.
    pub(super) fn home(self, account: Option<AccountId>) -> Self {
        match account {
            None => self.u8(0).u64(0).u64(0),
            Some(account) => self.u8(1).raw(account.as_bytes()),
        }
    }

    pub(super) fn member(self, member: &MemberRef) -> Self {
        self.home(member.account).name(member.name.as_str())
    }

    pub(super) fn recipient(self, recipient: Recipient) -> Self {
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
            Self::Recovery => Keyspace::Recovery,
            Self::Generation { .. } => Keyspace::Generation,
            Self::Trust => Keyspace::Trust,
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
            Self::Authority => Keyspace::Authority,
            Self::JoinToken { .. } => Keyspace::JoinToken,
            Self::JoinTokenId { .. } => Keyspace::JoinTokenId,
            Self::Certified { .. } => Keyspace::Certified,
            Self::Member { .. } => Keyspace::Member,
            Self::MemberToken { .. } => Keyspace::MemberToken,
            Self::TokenTerms { .. } => Keyspace::TokenTerms,
            Self::Limits { .. } => Keyspace::Limits,
            Self::Holdings { .. } => Keyspace::Holdings,
            Self::Deleted { .. } => Keyspace::Deleted,
            Self::DeletedValue { .. } => Keyspace::DeletedValue,
            Self::DeletedUntil { .. } => Keyspace::DeletedUntil,
            Self::DeletedOf { .. } => Keyspace::DeletedOf,
            Self::Reminder { .. } => Keyspace::Reminder,
            Self::Due { .. } => Keyspace::Due,
        }
    }

    /// The bytes of [`TypedKey::Consumer`], without one.
    pub(crate) fn consumer(consumer: &ConsumerRef) -> Key {
        Writer::new(Keyspace::Consumer).consumer(consumer).end()
    }

    /// The bytes of [`TypedKey::Binding`], without one.
    pub(crate) fn binding(consumer: &ConsumerRef, name: &BindingName) -> Key {
        Writer::new(Keyspace::Binding).consumer(consumer).name(None).name(name.as_str()).end()
    }

    /// The key's bytes.
    pub fn encode(&self) -> Key {
        let key = Writer::new(self.keyspace());
        let key = match self {
            Self::Settings | Self::Recovery | Self::Trust | Self::Head | Self::AuditHead | Self::Totals | Self::Authority => key,
            Self::SignerSet { version } => key.u32(*version),
            Self::Generation { generation } => key.u32(generation.get()),
            Self::Node { node } | Self::Certified { node } => key.u64(node.get()),
            Self::KekEpoch { domain, epoch } | Self::EpochUses { domain, epoch } => key.name(domain.as_str()).name(None).u32(epoch.get()),
            Self::Account { account } | Self::Quota { account } | Self::Usage { account } => key.raw(account.as_bytes()),
            Self::Dek { account, dek } | Self::DekUses { account, dek } => key.raw(account.as_bytes()).raw(dek.as_bytes()),
            Self::Store { store } => key.raw(store.as_bytes()),
            Self::StoreName { account, name } => key.raw(account.as_bytes()).name(name.as_str()),
            Self::Secret { store, secret } | Self::Deleted { store, secret } | Self::Reminder { store, secret } => {
                key.raw(store.as_bytes()).raw(secret.as_bytes())
            }
            Self::SecretName { store, name } => key.raw(store.as_bytes()).name(name.as_str()),
            Self::Value { secret, value } | Self::DeletedValue { secret, value } => key.raw(secret.as_bytes()).raw(value.as_bytes()),
            Self::Consumer { consumer } | Self::ConsumerUsage { consumer } => key.consumer(consumer),
            Self::ConsumerToken { hash } | Self::OperatorToken { hash } | Self::JoinToken { hash } => key.raw(hash),
            Self::Binding { consumer, name } => key.consumer(consumer).name(None).name(name.as_str()),
            Self::OperatorTokenId { token } | Self::JoinTokenId { token } | Self::TokenTerms { token } => key.raw(token.as_bytes()),
            Self::Request { owner, request } => key.owner(*owner).raw(request.as_bytes()),
            Self::RequestAge { index } => key.u64(index.get()),
            Self::Envelope { domain, epoch, recipient } => key.name(domain.as_str()).name(None).u32(epoch.get()).recipient(*recipient),
            Self::Job { job } => key.u64(job.index().get()),
            Self::BoundBy { target, consumer, name } => key.bound_to(*target).consumer(consumer).name(None).name(name.as_str()),
            Self::ConsumerTokenId { consumer, token } => key.consumer(consumer).name(None).raw(token.as_bytes()),
            Self::Member { member } => key.member(member),
            Self::MemberToken { member, token } => key.member(member).name(None).raw(token.as_bytes()),
            Self::Limits { account } | Self::Holdings { account } => key.home(*account),
            Self::DeletedUntil { until, store, secret } => key.u64(until.get()).raw(store.as_bytes()).raw(secret.as_bytes()),
            Self::DeletedOf { account, index, store, secret } => {
                key.raw(account.as_bytes()).u64(index.get()).raw(store.as_bytes()).raw(secret.as_bytes())
            }
            Self::Due { at, kind, store, secret } => key.u64(at.get()).u8(*kind as u8).raw(store.as_bytes()).raw(secret.as_bytes()),
        };
        key.end()
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

    fn secret(&mut self) -> Result<(StoreId, SecretId), KeyError> {
        Ok((StoreId::from_bytes(self.raw("store")?), SecretId::from_bytes(self.raw("secret")?)))
    }

    fn reminder_kind(&mut self) -> Result<ReminderKind, KeyError> {
        match self.u8("kind of reminder")? {
            0 => Ok(ReminderKind::Expiry),
            1 => Ok(ReminderKind::Rotation),
            _ => Err(self.refuse("kind of reminder")),
        }
    }

    fn home(&mut self) -> Result<Option<AccountId>, KeyError> {
        match self.u8("home")? {
            0 if self.wide("home")? == 0 => Ok(None),
            1 => Ok(Some(AccountId::from_bytes(self.raw("account")?))),
            _ => Err(self.refuse("home")),
        }
    }

    fn member(&mut self, name: impl FnOnce(&mut Self, &'static str) -> Result<PrincipalName, KeyError>) -> Result<MemberRef, KeyError> {
        Ok(MemberRef { account: self.home()?, name: name(self, "member name")? })
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

pub(super) fn decode(bytes: &[u8]) -> Result<TypedKey, KeyError> {
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
        Keyspace::Recovery => TypedKey::Recovery,
        Keyspace::Generation => TypedKey::Generation { generation: Generation::new(r.u32("generation")?) },
        Keyspace::Trust => TypedKey::Trust,
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
        Keyspace::Authority => TypedKey::Authority,
        Keyspace::JoinToken => TypedKey::JoinToken { hash: r.raw("hash")? },
        Keyspace::JoinTokenId => TypedKey::JoinTokenId { token: TokenId::from_bytes(r.raw("token id")?) },
        Keyspace::Certified => TypedKey::Certified { node: NodeId::new(r.u64("node")?) },
        Keyspace::Member => TypedKey::Member { member: r.member(Reader::last_name)? },
        Keyspace::MemberToken => TypedKey::MemberToken { member: r.member(Reader::name)?, token: TokenId::from_bytes(r.raw("token id")?) },
        Keyspace::TokenTerms => TypedKey::TokenTerms { token: TokenId::from_bytes(r.raw("token id")?) },
        Keyspace::Limits => TypedKey::Limits { account: r.home()? },
        Keyspace::Holdings => TypedKey::Holdings { account: r.home()? },
        Keyspace::Deleted => {
            let (store, secret) = r.secret()?;
            TypedKey::Deleted { store, secret }
        }
        Keyspace::DeletedValue => {
            TypedKey::DeletedValue { secret: SecretId::from_bytes(r.raw("secret")?), value: ValueId::from_bytes(r.raw("value")?) }
        }
        Keyspace::DeletedUntil => {
            let (until, (store, secret)) = (UnixMillis::new(r.u64("time")?), r.secret()?);
            TypedKey::DeletedUntil { until, store, secret }
        }
        Keyspace::DeletedOf => {
            let (account, index) = (AccountId::from_bytes(r.raw("account")?), LogIndex::new(r.u64("index")?));
            let (store, secret) = r.secret()?;
            TypedKey::DeletedOf { account, index, store, secret }
        }
        Keyspace::Reminder => {
            let (store, secret) = r.secret()?;
            TypedKey::Reminder { store, secret }
        }
        Keyspace::Due => {
            let (at, kind, (store, secret)) = (UnixMillis::new(r.u64("time")?), r.reminder_kind()?, r.secret()?);
            TypedKey::Due { at, kind, store, secret }
        }
    };
    if r.rest.is_empty() { Ok(key) } else { Err(r.refuse("the end")) }
}
