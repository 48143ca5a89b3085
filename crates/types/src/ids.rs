//! Identifiers: random 128-bit ids shown as 32 lower hex digits, node numbers, and SHA-256 hashes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that is not an id: wrong length, or a character that is not a lower or upper hex digit. The text itself is left out: a
/// token pasted where its id belongs must not travel on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected {form}, got {got} characters")]
pub struct ParseIdError {
    what: &'static str,
    form: &'static str,
    got: usize,
}

fn hex<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], ParseIdError> {
    let refuse = || ParseIdError { what, form: if N == 16 { "32 hex digits" } else { "64 hex digits" }, got: text.chars().count() };
    if text.len() != 2 * N {
        return Err(refuse());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
        *byte = match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => high << 4 | low,
            _ => return Err(refuse()),
        };
    }
    Ok(bytes)
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes the raw bytes; every bit pattern is an id.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes, in the order of the hex digits.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                hex($what, text).map(Self)
            }
        }
    };
}

bytes_id!(
    /// Names one cluster for ever; signed and sealed bytes carry it, so that nothing moves between clusters.
    ClusterId, 16, "a cluster id");
bytes_id!(
    /// An account: the owner of stores, consumers and quotas.
    AccountId, 16, "an account id");
bytes_id!(
    /// A store, unique over all accounts.
    StoreId, 16, "a store id");
bytes_id!(
    /// A secret, unique over all stores; never reused, so a binding to a deleted secret does not revive.
    SecretId, 16, "a secret id");
bytes_id!(
    /// One sealed value. Random: it is chosen by the sealer before the value has a version.
    ValueId, 16, "a value id");
bytes_id!(
    /// A data-encryption key of one account.
    DekId, 16, "a data key id");
bytes_id!(
    /// A root key: which provider's key wrapped a KEK epoch.
    RootKeyId, 16, "a root key id");
bytes_id!(
    /// An API token or consumer token; public, unlike the token itself.
    TokenId, 16, "a token id");
bytes_id!(
    /// A caller's request id, for telling a retry from a new request.
    RequestId, 16, "a request id");
bytes_id!(
    /// A SHA-256 hash. Always over labelled, length-prefixed stored bytes.
    Hash, 32, "a hash");

impl Hash {
    /// The hash before the first change set, and of an empty state.
    pub const ZERO: Self = Self([0; 32]);
}

/// A node of the cluster: its number in the replicated node registry, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(u64);

impl NodeId {
    /// Takes a number from the registry.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number in the registry.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse().map(Self).map_err(|_| ParseIdError { what: "a node id", form: "a decimal number", got: text.chars().count() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_text_round_trips() {
        let id = StoreId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn id_bad_text_refused_with_what_was_expected() {
        for text in ["", "30", "zz313233343536373839616263646566", "+0313233343536373839616263646566", "3031323334353637383961626364656é"]
        {
            let error = text.parse::<StoreId>().unwrap_err().to_string();
            assert!(error.starts_with("not a store id: expected 32 hex digits"), "{text}: {error}");
        }
    }
}
