//! Who may read: a consumer is a kind and a name in an account.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{AccountId, ConsumerName, NameError};

/// What a consumer is; each kind needs one scope. The number is stored: kinds are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum ConsumerKind {
    /// A Worker, scope `workers`.
    Worker = 0,
    /// An AI gateway, scope `ai_gateway`.
    Gateway = 1,
    /// A digital-experience probe, scope `dex`.
    Dex = 2,
    /// An access policy, scope `access`.
    Access = 3,
    /// A container or plain process, scope `containers`.
    Container = 4,
    /// A search connector, scope `websearch`.
    Websearch = 5,
}

/// A text that names no consumer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseConsumerError {
    /// The kind is not known.
    #[error("unknown consumer kind {got:?}; known are {}", ConsumerKind::all().map(|k| k.name()).collect::<Vec<_>>().join(", "))]
    Kind {
        /// What was given.
        got: String,
    },
    /// There is no `/` between kind and name.
    #[error("not a consumer: expected KIND/NAME, such as worker/web")]
    Form,
    /// The name is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl ConsumerKind {
    /// All kinds, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Worker, Self::Gateway, Self::Dex, Self::Access, Self::Container, Self::Websearch].into_iter()
    }

    /// The kind's name in commands, certificates and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Gateway => "gateway",
            Self::Dex => "dex",
            Self::Access => "access",
            Self::Container => "container",
            Self::Websearch => "websearch",
        }
    }
}

impl TryFrom<u8> for ConsumerKind {
    type Error = ParseConsumerError;
    fn try_from(number: u8) -> Result<Self, ParseConsumerError> {
        Self::all().find(|kind| *kind as u8 == number).ok_or_else(|| ParseConsumerError::Kind { got: number.to_string() })
    }
}

impl From<ConsumerKind> for u8 {
    fn from(kind: ConsumerKind) -> Self {
        kind as u8
    }
}

impl FromStr for ConsumerKind {
    type Err = ParseConsumerError;
    fn from_str(text: &str) -> Result<Self, ParseConsumerError> {
        Self::all().find(|kind| kind.name() == text).ok_or_else(|| ParseConsumerError::Kind { got: text.chars().take(80).collect() })
    }
}

impl fmt::Display for ConsumerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

/// A consumer by its full name. Shown and parsed as `KIND/NAME`, the account apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConsumerRef {
    /// The account it belongs to.
    pub account: AccountId,
    /// What it is.
    pub kind: ConsumerKind,
    /// Its name among its kind.
    pub name: ConsumerName,
}

impl ConsumerRef {
    /// Parses `KIND/NAME` in `account`.
    ///
    /// # Errors
    /// [`ParseConsumerError`] naming the part that is wrong.
    pub fn parse(account: AccountId, text: &str) -> Result<Self, ParseConsumerError> {
        let (kind, name) = text.split_once('/').ok_or(ParseConsumerError::Form)?;
        Ok(Self { account, kind: kind.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for ConsumerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}
