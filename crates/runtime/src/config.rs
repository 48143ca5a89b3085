//! Configuration: one TOML file per server, read once into checked values.
//!
//! Each section is a struct whose fields have types that refuse what cannot be meant ([`types::NodeName`], [`ByteSize`],
//! [`HostPort`]...), so a mistake is reported with its line and column; [`Checks::check`] then compares fields with each other.
//! Absent keys take the defaults, which are named constants with units; unknown keys are errors.
//!
//! **Invariants**
//! 1. What [`load`] returns has been checked; nothing downstream checks it again.
//! 2. A configuration holds no secret, only paths of files that do, so it may be printed ([`render`]).
//! 3. Loading reads one file and does nothing else: it binds no port and opens no key.
//!
//! The samples in `deploy` are tested to equal the defaults.

mod audit;
mod control;
mod edge;
mod peers;
mod rates;
mod sections;
mod snapshots;
mod units;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

pub use audit::AuditConfig;
pub use control::{ControlCertificates, ControlConfig, ControlKeys, ControlLimits, ControlListen, NewCluster, Registered, RegisteredRole};
pub use edge::{ControlPlane, EdgeCertificates, EdgeConfig, EdgeKeys, EdgeLimits, EdgeListen};
pub use peers::{ConsumerPattern, PeerRule};
pub use rates::Rates;
pub use sections::{ConnectionLimits, IDENTITY_FOLDER, Join, LogConfig, LogFormat, Node, Shutdown, TlsFiles, UnixListen};
pub use snapshots::SnapshotsConfig;
pub use units::{ByteSize, FileMode, HostPort, Never, UnitError};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}; name another with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A key is unknown, or a value is not of its kind.
    #[error("{path}:{line}:{column}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 when the file as a whole is meant.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// Fields contradict each other or leave the allowed range.
    #[error("{path}: {key}: {message}")]
    Check {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// What one field, or several together, have wrong: the dotted key and the reason.
pub type Fault = (&'static str, String);

/// A server's whole configuration.
pub trait Checks: Serialize + DeserializeOwned + Default {
    /// Compares fields with each other and with what the server can do.
    ///
    /// # Errors
    /// The first [`Fault`].
    fn check(&self) -> Result<(), Fault>;

    /// The same with each path of the node's own files made absolute.
    #[must_use]
    fn resolved(self) -> Self;
}

/// Reads and checks the configuration of a server.
///
/// # Errors
/// [`ConfigError`] with the file, the place and what was expected.
pub fn load<C: Checks>(path: &Path) -> Result<C, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Parses and checks `text`; `path` is for messages.
///
/// # Errors
/// [`ConfigError::Parse`] and [`ConfigError::Check`].
pub fn parse<C: Checks>(path: &Path, text: &str) -> Result<C, ConfigError> {
    let config: C = toml::from_str(text).map_err(|error| {
        let (line, column) = error.span().map_or((0, 0), |span| place(text, span.start));
        let message = match key_at(text, line) {
            Some(key) => format!("{key}: {}", error.message()),
            None => error.message().to_owned(),
        };
        ConfigError::Parse { path: path.to_owned(), line, column, message }
    })?;
    config.check().map_err(|(key, message)| ConfigError::Check { path: path.to_owned(), key, message })?;
    Ok(config.resolved())
}

/// The effective configuration as TOML, defaults filled in. Holds no secret: these stand in files of their own.
///
/// # Errors
/// None in practice: every configuration can be written as TOML. The error is that of the format.
pub fn render<C: Checks>(config: &C) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(config)
}

/// Line and column of a byte offset, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

/// The dotted key that a line sets: its own, below the table that the last header before it names.
fn key_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line).map(str::trim).collect();
    let (key, _) = lines.last()?.split_once('=')?;
    let key = key.trim();
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let table = lines.iter().rfind(|line| line.starts_with('[')).map(|header| header.trim_matches(['[', ']']));
    is_key.then(|| table.map_or_else(|| key.to_owned(), |table| format!("{table}.{key}")))
}

/// Fails with `key` unless the number lies in the range.
fn within<T: PartialOrd + std::fmt::Display>(key: &'static str, got: T, min: T, max: T) -> Result<(), Fault> {
    if got < min || got > max {
        return Err((key, format!("is {got}, must be {min} to {max}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
