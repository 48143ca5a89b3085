//! From messages to checked values: what a service calls before anything else.
//!
//! Functions take messages by value, so that a text moves into its name without a copy. An error names the field by its path
//! from the start of the message, such as `secrets[2].name`; [`FieldError::under`] adds what stands before.

use std::{fmt, str::FromStr, time::Duration};

use types::{
    AccountId, AccountName, BindingName, ChainId, ClusterId, Comment, ConsumerKind, ConsumerName, Generation, Hash, KekEpoch, KeyDomain,
    Position, RequestId, Revision, Scope, ScopeSet, SecretId, SecretName, StoreId, StoreName, VALUE_BYTES_MAX, Version,
};

use crate::{ErrorKind, GET_MANY_MAX, PAGE_MAX, PAGE_USUAL, PublicError, internal, v1};

/// A field that is missing or not allowed. Becomes [`ErrorKind::InvalidArgument`], or [`ErrorKind::TooLarge`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {reason}")]
pub struct FieldError {
    /// Path of the field in the message.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
    too_large: bool,
}

impl FieldError {
    /// A field with something wrong.
    pub fn new(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { field: field.into(), reason: reason.to_string(), too_large: false }
    }

    /// A field that must be there.
    pub fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "is missing")
    }

    /// A field above its limit.
    pub fn too_large(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { too_large: true, ..Self::new(field, reason) }
    }

    /// The same error, seen from the message that holds this one in field `outer`.
    #[must_use]
    pub fn under(mut self, outer: impl fmt::Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl From<FieldError> for PublicError {
    fn from(error: FieldError) -> Self {
        let kind = if error.too_large { ErrorKind::TooLarge } else { ErrorKind::InvalidArgument };
        let message = error.to_string();
        Self::new(kind, message).about(error.field)
    }
}

impl From<FieldError> for tonic::Status {
    fn from(error: FieldError) -> Self {
        PublicError::from(error).into()
    }
}

/// A field that must be present.
///
/// # Errors
/// [`FieldError`] when it is not.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::missing(field))
}

/// A text in one of the forms of `types`, such as a name of any kind.
///
/// # Errors
/// [`FieldError`] with the reason that the type gives.
pub fn name<T: TryFrom<String, Error: fmt::Display>>(field: &str, text: String) -> Result<T, FieldError> {
    T::try_from(text).map_err(|error| FieldError::new(field, error))
}

/// An id in hex.
///
/// # Errors
/// [`FieldError`] for any other text.
pub fn id<T: FromStr<Err: fmt::Display>>(field: &str, text: &str) -> Result<T, FieldError> {
    text.parse().map_err(|error| FieldError::new(field, error))
}

/// Bytes of a fixed length.
///
/// # Errors
/// [`FieldError`] for any other length.
pub fn fixed<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], FieldError> {
    bytes.try_into().map_err(|_| FieldError::new(field, format_args!("has {} bytes, expected {N}", bytes.len())))
}

/// What names a thing by id or by name. A text may be both: then the id is tried first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdOrName<I, N> {
    /// As an id, if it is one.
    pub id: Option<I>,
    /// As a name, if it is one. At least one of both is there.
    pub name: Option<N>,
}

impl<I: FromStr + Copy, N: TryFrom<String, Error: fmt::Display>> IdOrName<I, N> {
    /// Parses a text that must be an id or a name.
    ///
    /// # Errors
    /// [`FieldError`] when it is neither, with what is wrong with it as a name.
    pub fn parse(field: &str, text: String) -> Result<Self, FieldError> {
        let id = text.parse().ok();
        match N::try_from(text) {
            Ok(name) => Ok(Self { id, name: Some(name) }),
            Err(_) if id.is_some() => Ok(Self { id, name: None }),
            Err(error) => Err(FieldError::new(field, error)),
        }
    }

    /// As [`Self::parse`], where an empty text means that nothing was said.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_optional(field: &str, text: String) -> Result<Option<Self>, FieldError> {
        if text.is_empty() { Ok(None) } else { Self::parse(field, text).map(Some) }
    }

    /// Finds what is meant: by id if that finds anything, else by name.
    pub fn resolve<T>(&self, by_id: impl FnOnce(I) -> Option<T>, by_name: impl FnOnce(&N) -> Option<T>) -> Option<T> {
        self.id.and_then(by_id).or_else(|| self.name.as_ref().and_then(by_name))
    }
}

impl<I: fmt::Display, N: fmt::Display> fmt::Display for IdOrName<I, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.id) {
            (Some(name), _) => name.fmt(f),
            (None, Some(id)) => id.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

/// An account by id or name.
pub type AccountTarget = IdOrName<AccountId, AccountName>;

/// A `StoreRef`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTarget {
    /// The account; none leaves it to the credential.
    pub account: Option<AccountTarget>,
    /// The store.
    pub store: IdOrName<StoreId, StoreName>,
}

impl TryFrom<v1::StoreRef> for StoreTarget {
    type Error = FieldError;
    fn try_from(message: v1::StoreRef) -> Result<Self, FieldError> {
        let account = IdOrName::parse_optional("account", message.account)?;
        Ok(Self { account, store: IdOrName::parse("store", message.store)? })
    }
}

/// A `SecretRef`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretTarget {
    /// The account; none leaves it to the credential.
    pub account: Option<AccountTarget>,
    /// The store; none only when the secret is given by id.
    pub store: Option<IdOrName<StoreId, StoreName>>,
    /// The secret.
    pub secret: IdOrName<SecretId, SecretName>,
}

impl TryFrom<v1::SecretRef> for SecretTarget {
    type Error = FieldError;
    fn try_from(message: v1::SecretRef) -> Result<Self, FieldError> {
        let account = IdOrName::parse_optional("account", message.account)?;
        let store = IdOrName::parse_optional("store", message.store)?;
        let secret: IdOrName<SecretId, SecretName> = IdOrName::parse("secret", message.secret)?;
        if store.is_none() && secret.id.is_none() {
            return Err(FieldError::new("store", "is missing; only a secret that is given by its id needs no store"));
        }
        Ok(Self { account, store, secret })
    }
}

/// A `ConsumerRef`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerTarget {
    /// The account; none leaves it to the credential.
    pub account: Option<AccountTarget>,
    /// What it is.
    pub kind: ConsumerKind,
    /// Its name among its kind.
    pub name: ConsumerName,
}

impl TryFrom<v1::ConsumerRef> for ConsumerTarget {
    type Error = FieldError;
    fn try_from(message: v1::ConsumerRef) -> Result<Self, FieldError> {
        let account = IdOrName::parse_optional("account", message.account)?;
        Ok(Self { account, kind: consumer_kind("kind", message.kind)?, name: name("name", message.name)? })
    }
}

/// A consumer's kind by its number.
///
/// # Errors
/// [`FieldError`] for a number without a kind, 0 included.
pub fn consumer_kind(field: &str, number: i32) -> Result<ConsumerKind, FieldError> {
    match v1::ConsumerKind::try_from(number) {
        Ok(v1::ConsumerKind::Worker) => Ok(ConsumerKind::Worker),
        Ok(v1::ConsumerKind::Gateway) => Ok(ConsumerKind::Gateway),
        Ok(v1::ConsumerKind::Dex) => Ok(ConsumerKind::Dex),
        Ok(v1::ConsumerKind::Access) => Ok(ConsumerKind::Access),
        Ok(v1::ConsumerKind::Container) => Ok(ConsumerKind::Container),
        Ok(v1::ConsumerKind::Websearch) => Ok(ConsumerKind::Websearch),
        Ok(v1::ConsumerKind::Unspecified) => Err(FieldError::missing(field)),
        Err(_) => Err(FieldError::new(field, format_args!("no consumer kind has the number {number}"))),
    }
}

/// Scopes by name; at least one.
///
/// # Errors
/// [`FieldError`] naming the entry that is unknown, or the field when there is none.
pub fn scopes(field: &str, names: &[String]) -> Result<ScopeSet, FieldError> {
    if names.is_empty() {
        return Err(FieldError::new(field, "is empty; a secret has at least one scope"));
    }
    let parse =
        |(place, name): (usize, &String)| name.parse::<Scope>().map_err(|error| FieldError::new(format!("{field}[{place}]"), error));
    names.iter().enumerate().map(parse).collect()
}

/// A caller's request id for telling a retry from a new request; an empty text means none.
///
/// # Errors
/// [`FieldError`] for a text that is not 32 hex digits.
pub fn request_id(text: &str) -> Result<Option<RequestId>, FieldError> {
    if text.is_empty() { Ok(None) } else { id("request_id", text).map(Some) }
}

/// Checks the length of a plaintext against the greatest that any quota allows. What it holds is the owner's affair.
///
/// # Errors
/// [`FieldError`] of the kind [`ErrorKind::TooLarge`].
pub fn value(field: &str, bytes: &[u8]) -> Result<(), FieldError> {
    if bytes.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(FieldError::too_large(field, format_args!("has {} bytes, at most {VALUE_BYTES_MAX} are allowed", bytes.len())))
}

/// What there is to say about a secret to be made, apart from its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSecret {
    /// Its name.
    pub name: SecretName,
    /// Where it may be used.
    pub scopes: ScopeSet,
    /// A note.
    pub comment: Comment,
}

/// A secret to be made, and the plaintext, whose length has been checked.
///
/// # Errors
/// [`FieldError`] of the first field that is wrong.
pub fn new_secret(message: v1::NewSecret) -> Result<(NewSecret, Vec<u8>), FieldError> {
    value("value", &message.value)?;
    let secret = NewSecret {
        name: name("name", message.name)?,
        scopes: scopes("scopes", &message.scopes)?,
        comment: name("comment", message.comment)?,
    };
    Ok((secret, message.value))
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageTarget {
    /// How many entries at most, 1 to [`PAGE_MAX`].
    pub size: usize,
    /// What the server gave out as the place to go on; none is the start.
    pub token: Option<String>,
}

impl From<Option<v1::Page>> for PageTarget {
    fn from(message: Option<v1::Page>) -> Self {
        let v1::Page { size, token } = message.unwrap_or_default();
        let size = if size == 0 { PAGE_USUAL } else { usize::try_from(size).map_or(PAGE_MAX, |size| size.min(PAGE_MAX)) };
        Self { size, token: (!token.is_empty()).then_some(token) }
    }
}

/// Which version a lookup reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What `current` points to.
    Current,
    /// What `previous` points to.
    Previous,
    /// This one.
    Exact(Version),
}

/// A `Wanted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTarget {
    /// The binding's name.
    pub binding: BindingName,
    /// The secret in it, of a binding to a store.
    pub secret: Option<SecretName>,
    /// Which version.
    pub which: Which,
}

impl TryFrom<v1::Wanted> for WantedTarget {
    type Error = FieldError;
    fn try_from(message: v1::Wanted) -> Result<Self, FieldError> {
        let secret = if message.secret.is_empty() { None } else { Some(name("secret", message.secret)?) };
        let which = match message.which {
            None => Which::Current,
            Some(v1::wanted::Which::Version(0)) => return Err(FieldError::new("version", "is 0; versions count from 1")),
            Some(v1::wanted::Which::Version(version)) => Which::Exact(Version::new(version)),
            Some(v1::wanted::Which::Pointer(number)) => match v1::Pointer::try_from(number) {
                Ok(v1::Pointer::Unspecified | v1::Pointer::Current) => Which::Current,
                Ok(v1::Pointer::Previous) => Which::Previous,
                Err(_) => return Err(FieldError::new("pointer", format_args!("no pointer has the number {number}"))),
            },
        };
        Ok(Self { binding: name("binding", message.binding)?, secret, which })
    }
}

/// A `Freshness`: how fresh the state must be that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreshnessTarget {
    /// At least this position.
    pub min_position: Option<Position>,
    /// At most this age.
    pub max_age: Option<Duration>,
}

impl From<Option<v1::Freshness>> for FreshnessTarget {
    fn from(message: Option<v1::Freshness>) -> Self {
        let v1::Freshness { min_position, max_age_ms } = message.unwrap_or_default();
        Self { min_position: min_position.map(Position::from), max_age: max_age_ms.map(Duration::from_millis) }
    }
}

/// A `GetRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetTarget {
    /// The consumer, if the caller named one.
    pub consumer: Option<ConsumerTarget>,
    /// What to read.
    pub wanted: WantedTarget,
    /// How fresh.
    pub freshness: FreshnessTarget,
}

impl TryFrom<v1::GetRequest> for GetTarget {
    type Error = FieldError;
    fn try_from(message: v1::GetRequest) -> Result<Self, FieldError> {
        let wanted = WantedTarget::try_from(required("wanted", message.wanted)?).map_err(|error| error.under("wanted"))?;
        Ok(Self { consumer: optional_consumer(message.consumer)?, wanted, freshness: message.freshness.into() })
    }
}

/// A `GetManyRequest`. A wanted entry that is wrong fails alone, as a lookup would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetManyTarget {
    /// The consumer, if the caller named one.
    pub consumer: Option<ConsumerTarget>,
    /// What to read, in the order of the request.
    pub wanted: Vec<Result<WantedTarget, FieldError>>,
    /// How fresh.
    pub freshness: FreshnessTarget,
}

impl TryFrom<v1::GetManyRequest> for GetManyTarget {
    type Error = FieldError;
    fn try_from(message: v1::GetManyRequest) -> Result<Self, FieldError> {
        let count = message.wanted.len();
        if count > GET_MANY_MAX {
            return Err(FieldError::too_large("wanted", format_args!("has {count} entries, at most {GET_MANY_MAX} are allowed")));
        }
        let parse = |(place, wanted): (usize, v1::Wanted)| {
            WantedTarget::try_from(wanted).map_err(|error| error.under(format_args!("wanted[{place}]")))
        };
        let wanted = message.wanted.into_iter().enumerate().map(parse).collect();
        Ok(Self { consumer: optional_consumer(message.consumer)?, wanted, freshness: message.freshness.into() })
    }
}

fn optional_consumer(message: Option<v1::ConsumerRef>) -> Result<Option<ConsumerTarget>, FieldError> {
    message.map(|consumer| ConsumerTarget::try_from(consumer).map_err(|error| error.under("consumer"))).transpose()
}

/// What a `Hello` says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloTarget {
    /// The cluster.
    pub cluster: ClusterId,
    /// Which chain.
    pub chain: ChainId,
    /// The durable position and the chain hash there; none when the subscriber holds nothing.
    pub holds: Option<(Position, Hash)>,
    /// Epochs whose keys it holds.
    pub epochs: Vec<(KeyDomain, KekEpoch)>,
}

impl TryFrom<&internal::Hello> for HelloTarget {
    type Error = FieldError;
    fn try_from(message: &internal::Hello) -> Result<Self, FieldError> {
        let cluster = ClusterId::from_bytes(fixed("cluster", &message.cluster)?);
        let holds = match message.position {
            None if message.chain_hash.is_empty() => None,
            None => return Err(FieldError::new("chain_hash", "stands without a position")),
            Some(position) => Some((position.into(), Hash::from_bytes(fixed("chain_hash", &message.chain_hash)?))),
        };
        let epoch = |(place, key): (usize, &internal::KeyEpoch)| {
            let domain = KeyDomain::new(key.domain.clone()).map_err(|error| FieldError::new(format!("holds[{place}].domain"), error))?;
            Ok((domain, KekEpoch::new(key.epoch)))
        };
        let epochs = message.holds.iter().enumerate().map(epoch).collect::<Result<_, FieldError>>()?;
        Ok(Self { cluster, chain: ChainId::new(message.chain), holds, epochs })
    }
}

impl From<v1::Position> for Position {
    fn from(message: v1::Position) -> Self {
        Self::new(Generation::new(message.generation), Revision::new(message.revision))
    }
}

impl From<internal::FeedPosition> for Position {
    fn from(message: internal::FeedPosition) -> Self {
        Self::new(Generation::new(message.generation), Revision::new(message.revision))
    }
}

#[cfg(test)]
mod tests;
