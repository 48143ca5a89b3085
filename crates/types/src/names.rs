//! Names that people choose, each with its alphabet and length.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the wanted kind. The text itself is left out: a value pasted into the wrong field must not travel on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// Longer than allowed.
    #[error("{what} has {got} bytes, at most {max} are allowed")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A character outside the alphabet.
    #[error("{what} has {found:?} at place {place}; allowed are {allowed}")]
    Character {
        /// The kind of name.
        what: &'static str,
        /// The character.
        found: char,
        /// Its place, counted from 1 in characters.
        place: usize,
        /// The alphabet, in words.
        allowed: &'static str,
    },
}

fn check(what: &'static str, text: &str, max: usize, allowed: &'static str, fits: impl Fn(usize, char) -> bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > max {
        return Err(NameError::TooLong { what, got: text.len(), max });
    }
    match text.chars().enumerate().find(|&(place, c)| !fits(place, c)) {
        Some((place, found)) => Err(NameError::Character { what, found, place: place + 1, allowed }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The most bytes such a name has.
            pub const BYTES_MAX: usize = $max;

            /// Checks the alphabet and the length.
            ///
            /// # Errors
            /// [`NameError`], naming the kind of name and the first thing wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check($what, &text, $max, $allowed, $fits)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

name!(
    /// A store's name, unique in its account.
    StoreName, "a store name", 255, "letters, digits, '-' and '_'", |_, c| word(c));
name!(
    /// A secret's name, unique in its store, immutable.
    SecretName, "a secret name", 255, "letters, digits, '-' and '_'", |_, c| word(c));
name!(
    /// The name of a consumer, unique with its kind in the account.
    ConsumerName, "a consumer name", 255, "letters, digits, '-', '_' and '.' (not first)", |place, c| word(c) || c == '.' && place > 0);
name!(
    /// The name under which a consumer reads what is bound to it: an identifier in a program.
    BindingName, "a binding name", 255, "letters, digits (not first), '_' and '$'",
    |place, c| c == '_' || c == '$' || c.is_ascii_alphabetic() || place > 0 && c.is_ascii_digit());
name!(
    /// An account's display name.
    AccountName, "an account name", 255, "printable characters", |_, c| !c.is_control());
name!(
    /// Who acts: an operator, pipeline or node, for the audit log.
    PrincipalName, "a principal name", 255, "printable characters without spaces", |_, c| !c.is_control() && !c.is_whitespace());
name!(
    /// A node's name, such as `edge-1`; for people, the id decides.
    NodeName, "a node name", 63, "lower letters, digits and '-'", |_, c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
name!(
    /// A key domain: which hierarchy of keys wraps or seals something. `global` today.
    KeyDomain, "a key domain", 63, "lower letters, digits and '-'", |_, c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');

impl KeyDomain {
    /// The one domain of today.
    pub fn global() -> Self {
        Self("global".into())
    }
}

/// Free text on a secret, at most 1,024 bytes, may be empty; line breaks are allowed, other control characters are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Comment(String);

impl Comment {
    /// The most bytes a comment has.
    pub const BYTES_MAX: usize = 1024;

    /// Checks the length and refuses control characters other than tab and line breaks.
    ///
    /// # Errors
    /// [`NameError`] with the first thing wrong.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if !text.is_empty() {
            let fits = |_, c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
            check("a comment", &text, Self::BYTES_MAX, "printable characters, tabs and line breaks", fits)?;
        }
        Ok(Self(text))
    }

    /// The comment as text; empty when none was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Comment {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Comment> for String {
    fn from(comment: Comment) -> Self {
        comment.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_name_bounds_are_checked() {
        assert!(SecretName::new("API_KEY-2").is_ok());
        assert!(SecretName::new("a".repeat(255)).is_ok());
        let cases = [
            ("", "a secret name is empty"),
            ("a b", "a secret name has ' ' at place 2; allowed are letters, digits, '-' and '_'"),
            ("a.b", "a secret name has '.' at place 2; allowed are letters, digits, '-' and '_'"),
            ("кey", "a secret name has 'к' at place 1; allowed are letters, digits, '-' and '_'"),
        ];
        for (text, error) in cases {
            assert_eq!(SecretName::new(text).unwrap_err().to_string(), error);
        }
        assert_eq!(SecretName::new("a".repeat(256)).unwrap_err().to_string(), "a secret name has 256 bytes, at most 255 are allowed");
    }

    #[test]
    fn name_deserialized_is_checked_too() {
        let bytes = postcard::to_allocvec("a b").unwrap();
        assert!(postcard::from_bytes::<SecretName>(&bytes).is_err());
        let bytes = postcard::to_allocvec("a_b").unwrap();
        assert_eq!(postcard::from_bytes::<SecretName>(&bytes).unwrap().as_str(), "a_b");
    }

    #[test]
    fn binding_name_is_an_identifier() {
        assert!(BindingName::new("$_API1").is_ok());
        for bad in ["1A", "a-b", "a b", ""] {
            assert!(BindingName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn comment_may_be_empty_but_not_hold_control_characters() {
        assert!(Comment::new("").is_ok());
        assert!(Comment::new("two\nlines").is_ok());
        assert!(Comment::new("bell\u{7}").is_err());
        assert!(Comment::new("x".repeat(1025)).is_err());
    }
}
