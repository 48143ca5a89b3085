//! Scopes: where a secret may be used. A table, so that a new one is a row.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ConsumerKind;

/// One row of the table of scopes.
struct Row {
    name: &'static str,
    also: &'static [&'static str],
    kind: ConsumerKind,
}

/// The table. A scope's number is its place here and is stored: rows are only ever added at the end.
const TABLE: [Row; 6] = [
    Row { name: "workers", also: &[], kind: ConsumerKind::Worker },
    Row { name: "ai_gateway", also: &["ai-gateway"], kind: ConsumerKind::Gateway },
    Row { name: "dex", also: &[], kind: ConsumerKind::Dex },
    Row { name: "access", also: &[], kind: ConsumerKind::Access },
    Row { name: "containers", also: &[], kind: ConsumerKind::Container },
    Row { name: "websearch", also: &[], kind: ConsumerKind::Websearch },
];

/// A product in which a secret may be used. Consumers of the matching kind may read secrets that have the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Scope(u8);

/// A text or number that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope {got:?}; known are {}", Scope::all().map(|s| s.name()).collect::<Vec<_>>().join(", "))]
pub struct ParseScopeError {
    got: String,
}

impl Scope {
    /// All scopes in the table's order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TABLE.len() as u8).map(Self)
    }

    /// The scope's name in the API.
    pub fn name(self) -> &'static str {
        TABLE[usize::from(self.0)].name
    }

    /// The kind of consumer that may use secrets of this scope.
    pub fn kind(self) -> ConsumerKind {
        TABLE[usize::from(self.0)].kind
    }

    /// The scope that consumers of `kind` need.
    pub fn of_kind(kind: ConsumerKind) -> Self {
        Self::all().find(|scope| scope.kind() == kind).unwrap_or(Self(0))
    }
}

impl TryFrom<u8> for Scope {
    type Error = ParseScopeError;
    fn try_from(number: u8) -> Result<Self, ParseScopeError> {
        if usize::from(number) < TABLE.len() { Ok(Self(number)) } else { Err(ParseScopeError { got: number.to_string() }) }
    }
}

impl From<Scope> for u8 {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl FromStr for Scope {
    type Err = ParseScopeError;
    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        let row = TABLE.iter().position(|row| row.name == text || row.also.contains(&text));
        row.map(|place| Self(place as u8)).ok_or_else(|| ParseScopeError { got: text.chars().take(80).collect() })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

/// A set of scopes; stored as one bit per row of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// Whether the set holds `scope`.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & 1 << scope.0 != 0
    }

    /// Whether the set holds nothing.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in alphabetical order of their names, as the API returns them.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        let mut scopes: Vec<_> = Scope::all().filter(|scope| self.contains(*scope)).collect();
        scopes.sort_by_key(|scope| scope.name());
        scopes.into_iter()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope.0))
    }
}

impl TryFrom<u32> for ScopeSet {
    type Error = ParseScopeError;
    fn try_from(bits: u32) -> Result<Self, ParseScopeError> {
        if bits >> TABLE.len() == 0 { Ok(Self(bits)) } else { Err(ParseScopeError { got: format!("bits {bits:#b}") }) }
    }
}

impl From<ScopeSet> for u32 {
    fn from(set: ScopeSet) -> Self {
        set.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_sort_by_name_and_accept_the_hyphen() {
        let set: ScopeSet = ["workers", "ai-gateway", "access"].iter().map(|s| s.parse::<Scope>().unwrap()).collect();
        assert_eq!(set.iter().map(Scope::name).collect::<Vec<_>>(), ["access", "ai_gateway", "workers"]);
        assert!("Workers".parse::<Scope>().is_err());
    }

    #[test]
    fn every_kind_has_exactly_one_scope() {
        for scope in Scope::all() {
            assert_eq!(Scope::of_kind(scope.kind()), scope);
        }
        assert_eq!(Scope::all().count(), ConsumerKind::all().count());
    }
}
