//! Which local users may read as which consumers: the map from a UNIX socket's peer to its rights.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use types::{AccountId, ConsumerKind, ConsumerName, ConsumerRef, ParseConsumerError};

/// One `[[peer]]`: processes of this user may read as these consumers of this account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRule {
    /// The user id, as the kernel reports it for the connection.
    pub uid: u32,
    /// The account of the consumers.
    #[serde(serialize_with = "show_account", deserialize_with = "parse_account")]
    pub account: AccountId,
    /// Which consumers: `KIND/NAME`, `KIND/*` or `*`. Bindings decide further what each may read.
    pub consumers: Vec<ConsumerPattern>,
}

impl PeerRule {
    /// Whether processes of `uid` may read as `consumer` by this rule.
    pub fn allows(&self, uid: u32, consumer: &ConsumerRef) -> bool {
        self.uid == uid && self.account == consumer.account && self.consumers.iter().any(|pattern| pattern.matches(consumer))
    }
}

/// Some of the consumers of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerPattern {
    /// All, written `*`.
    Any,
    /// All of one kind, written `worker/*`.
    Kind(ConsumerKind),
    /// One, written `worker/web`.
    One(ConsumerKind, ConsumerName),
}

impl ConsumerPattern {
    /// Whether `consumer` is among them; its account is not looked at.
    pub fn matches(&self, consumer: &ConsumerRef) -> bool {
        match self {
            Self::Any => true,
            Self::Kind(kind) => *kind == consumer.kind,
            Self::One(kind, name) => *kind == consumer.kind && *name == consumer.name,
        }
    }
}

impl FromStr for ConsumerPattern {
    type Err = ParseConsumerError;
    fn from_str(text: &str) -> Result<Self, ParseConsumerError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (kind, name) = text.split_once('/').ok_or(ParseConsumerError::Form)?;
        let kind = kind.parse()?;
        if name == "*" { Ok(Self::Kind(kind)) } else { Ok(Self::One(kind, name.parse()?)) }
    }
}

impl fmt::Display for ConsumerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Kind(kind) => write!(f, "{kind}/*"),
            Self::One(kind, name) => write!(f, "{kind}/{name}"),
        }
    }
}

impl Serialize for ConsumerPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConsumerPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn show_account<S: Serializer>(account: &AccountId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(account)
}

fn parse_account<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccountId, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([7; 16]);

    #[test]
    fn peer_rule_needs_uid_account_and_a_pattern_that_fits() {
        let consumer = |text: &str| ConsumerRef::parse(ACCOUNT, text).unwrap();
        let rule =
            |patterns: &[&str]| PeerRule { uid: 1000, account: ACCOUNT, consumers: patterns.iter().map(|p| p.parse().unwrap()).collect() };
        let cases = [
            (rule(&["*"]), 1000, consumer("worker/web"), true),
            (rule(&["*"]), 0, consumer("worker/web"), false),
            (rule(&["*"]), 1000, ConsumerRef { account: AccountId::from_bytes([8; 16]), ..consumer("worker/web") }, false),
            (rule(&["worker/*"]), 1000, consumer("worker/web"), true),
            (rule(&["worker/*"]), 1000, consumer("gateway/web"), false),
            (rule(&["gateway/a", "worker/web"]), 1000, consumer("worker/web"), true),
            (rule(&["worker/web"]), 1000, consumer("worker/web2"), false),
            (rule(&[]), 1000, consumer("worker/web"), false),
        ];
        for (rule, uid, consumer, allowed) in cases {
            assert_eq!(rule.allows(uid, &consumer), allowed, "{rule:?} {uid} {consumer}");
        }
    }

    #[test]
    fn consumer_pattern_text_round_trips() {
        for text in ["*", "worker/*", "container/web.1"] {
            assert_eq!(text.parse::<ConsumerPattern>().unwrap().to_string(), text);
        }
        for bad in ["", "worker", "robot/x", "worker/", "*/web", "worker/a b"] {
            assert!(bad.parse::<ConsumerPattern>().is_err(), "{bad}");
        }
    }
}
