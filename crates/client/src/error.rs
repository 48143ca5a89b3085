//! What can go wrong between the caller and the server.

use std::error::Error;

use tonic::Status;
use wire::{ERROR_METADATA, ErrorKind, PublicError};

/// A configuration that cannot be used. Shows file contents, keys and tokens never.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not an address.
    #[error("{address:?} is not an address: expected HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400")]
    Address {
        /// What was given.
        address: String,
    },
    /// There is no address.
    #[error("no server to connect to: give at least one address")]
    NoAddress,
    /// A PEM text that does not hold what it should.
    #[error("cannot use the {what}: {reason}")]
    Pem {
        /// Which of the texts.
        what: &'static str,
        /// What is wrong, without the text.
        reason: String,
    },
    /// The token cannot stand in a header.
    #[error("the token holds characters that no token has; was it copied whole, without line breaks?")]
    Token,
    /// The file that keeps the list of certificate authorities.
    #[error("cannot read the list of certificate authorities in {}", path.display())]
    TrustFile {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Key and certificate do not go together, or TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} at {server} failed")]
pub struct ClientError {
    /// Which call, such as `secrets.create`.
    pub call: &'static str,
    /// Whom it was sent to, the last time.
    pub server: String,
    /// What went wrong, as the server said, or as it shows from here.
    #[source]
    pub error: PublicError,
    /// How often it was sent; 0 when the deadline passed before that.
    pub attempts: u32,
}

impl ClientError {
    /// The kind, which decides what to do.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind
    }

    /// What finds the call in the server's log.
    pub fn request_id(&self) -> &str {
        &self.error.request_id
    }
}

/// The public error of a status: the server's own words, or else what the transport reports, with all its causes.
pub(crate) fn public(status: &Status) -> PublicError {
    let mut error = PublicError::from_status(status);
    if status.metadata().get_bin(ERROR_METADATA).is_none() {
        let mut message = error.message;
        let mut cause = status.source();
        if cause.is_some() {
            message = format!("the connection failed: {message}");
        }
        while let Some(next) = cause {
            let text = next.to_string();
            // Says no more than ours.
            if text != "transport error" && !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = next.source();
        }
        error = PublicError::new(error.kind, message);
    }
    error
}
