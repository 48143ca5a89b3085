//! What one call brings as proof of who makes it.

use std::time::Duration;

use tonic::{
    Request,
    metadata::{AsciiMetadataValue, MetadataMap},
};
use wire::parse::ConsumerTarget;

use crate::{Authenticator, Caller, Connection, LookupError, ServiceOptions};

/// The longest `authorization` metadata looked at: far above any token.
const AUTHORIZATION_BYTES_MAX: usize = 512;

/// The connection's proof, the bearer token, and the call's deadline.
pub struct Credential {
    connection: Connection,
    bearer: Option<Result<zeroize::Zeroizing<String>, LookupError>>,
    timeout: Option<Duration>,
}

impl Credential {
    /// Reads it from a request's extensions and metadata; proves nothing yet.
    pub fn of<T>(request: &Request<T>) -> Self {
        Self {
            connection: request.extensions().get::<Connection>().cloned().unwrap_or_default(),
            bearer: request.metadata().get("authorization").map(|value| bearer(value.as_bytes())),
            timeout: timeout(request.metadata()),
        }
    }

    /// What a connection without metadata brings: `authorization` is the text that gRPC has under this name, empty for none.
    pub(crate) fn in_frames(connection: Connection, authorization: &[u8]) -> Self {
        let bearer = (!authorization.is_empty()).then(|| bearer(authorization));
        Self { connection, bearer, timeout: None }
    }

    /// Who calls, acting as `consumer` when the request names one.
    ///
    /// # Errors
    /// As of [`Authenticator::caller`].
    pub fn caller(&self, authenticator: &Authenticator, consumer: Option<ConsumerTarget>) -> Result<Caller, LookupError> {
        let bearer = self.bearer.as_ref().map(|bearer| bearer.as_ref().map_err(LookupError::clone)).transpose()?;
        authenticator.caller(&self.connection, bearer.map(|text| text.as_str()), consumer)
    }

    /// How long the call may wait for a position: what is left of its deadline, less what the reply needs.
    pub(crate) fn patience(&self, options: &ServiceOptions) -> Duration {
        self.timeout.map_or(options.patience, |timeout| (timeout - timeout / 10).min(options.patience_max))
    }
}

/// The label that a call came with, by which both sides' logs name it. Shared, not copied: only a failure reads it.
pub(crate) struct Label(Option<AsciiMetadataValue>);

/// The longest label taken over, as on control nodes.
const LABEL_BYTES_MAX: usize = 64;

impl Label {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        Self(request.metadata().get(wire::REQUEST_ID_METADATA).cloned())
    }

    /// None when there is none, or one that could break a line.
    pub(crate) fn text(&self) -> Option<String> {
        let text = self.0.as_ref()?.to_str().ok()?;
        let usable = !text.is_empty() && text.len() <= LABEL_BYTES_MAX && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        usable.then(|| text.to_owned())
    }
}

fn bearer(value: &[u8]) -> Result<zeroize::Zeroizing<String>, LookupError> {
    let refuse = |reason: &str| LookupError::NotAToken { reason: reason.to_owned() };
    if value.len() > AUTHORIZATION_BYTES_MAX {
        return Err(refuse("longer than any token"));
    }
    let text = std::str::from_utf8(value).map_err(|_| refuse("not text"))?;
    let (scheme, token) = text.split_once(' ').ok_or_else(|| refuse("not of the form `Bearer TOKEN`"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refuse("not of the form `Bearer TOKEN`"));
    }
    Ok(zeroize::Zeroizing::new(token.trim().to_owned()))
}

/// The deadline that gRPC sends: at most eight digits and a unit.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits.parse::<u32>().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(u64::from(number) * 3600),
        "M" => Duration::from_secs(u64::from(number) * 60),
        "S" => Duration::from_secs(u64::from(number)),
        "m" => Duration::from_millis(u64::from(number)),
        "u" => Duration::from_micros(u64::from(number)),
        "n" => Duration::from_nanos(u64::from(number)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_of_a_call_is_read_in_all_units_and_nonsense_ignored() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        for bad in ["", "S", "-1S", "123456789S", "1x", "1.5S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn bearer_other_schemes_and_endless_texts_are_refused_without_repeating_them() {
        assert_eq!(bearer(b"bearer cbc_x").unwrap().as_str(), "cbc_x");
        for bad in [&b"Basic c2VjcmV0"[..], b"secret", &[b'x'; 600], b"Bearer \xff"] {
            let error = bearer(bad).unwrap_err().to_string();
            assert!(error.starts_with("the credential sent is ") && !error.contains("c2VjcmV0"), "{error}");
        }
    }
}
