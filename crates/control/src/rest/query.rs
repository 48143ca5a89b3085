//! What stands behind the question mark.

use wire::{PublicError, parse::FieldError};

/// Entries of a page where nothing is said, and at the most.
const PER_PAGE: u64 = 20;
const PER_PAGE_MAX: u64 = 100;

/// A query, key by key. Keys that a route does not know are passed over.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    /// The page that is asked for, counted from 1.
    pub(super) page: u64,
    /// Entries on it.
    pub(super) per_page: u64,
}

impl Query {
    /// Reads it.
    pub(super) fn of(text: &str) -> Result<Self, PublicError> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        let mut query = Self { pairs, page: 1, per_page: PER_PAGE };
        query.page = query.number("page")?.unwrap_or(1).max(1);
        query.per_page = query.number("per_page")?.unwrap_or(PER_PAGE).clamp(1, PER_PAGE_MAX);
        Ok(query)
    }

    /// A key's value; an empty one counts as none, of several the last.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a key that may be repeated, or hold several between commas.
    pub(super) fn all(&self, key: &str) -> Vec<String> {
        let values = self.pairs.iter().filter(|(name, _)| name.strip_suffix("[]").unwrap_or(name) == key);
        values.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// A switch.
    pub(super) fn flag(&self, key: &str) -> Result<bool, PublicError> {
        match self.get(key) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(FieldError::new(key, "must be true or false").into()),
        }
    }

    /// A number. What is above the greatest counts as the greatest: as a page it lies past the end, as a size it is above all limits.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, PublicError> {
        let parse = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().unwrap_or(u64::MAX)).ok_or_else(|| FieldError::new(key, "must be a number").into())
        };
        self.get(key).map(parse).transpose()
    }

    /// Whether falling is asked for.
    pub(super) fn falls(&self) -> Result<bool, PublicError> {
        match self.get("direction") {
            None | Some("asc") => Ok(false),
            Some("desc") => Ok(true),
            Some(_) => Err(FieldError::new("direction", "must be asc or desc").into()),
        }
    }
}
