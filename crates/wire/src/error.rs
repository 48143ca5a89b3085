//! The public error: what a caller may know of a failure, and its way through a gRPC status.

use std::time::Duration;

use prost::Message;
use tonic::{
    Status,
    metadata::{BinaryMetadataValue, MetadataMap},
};

use crate::{ErrorKind, v1};

/// Metadata of a failed call: an encoded `ErrorDetail` without its message, which is the status message.
pub const ERROR_METADATA: &str = "cinnabar-error-bin";

/// Metadata of every call: names it in logs. Sent by the caller or else picked by the server.
pub const REQUEST_ID_METADATA: &str = "cinnabar-request-id";

/// Metadata of an answer: the version of the list of certificate authorities that are believed, once one was replaced.
pub const TRUST_METADATA: &str = "cinnabar-trust";

/// Longest message in bytes. It travels in a header, where everything together has 16 KiB.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Longest subject that is taken from an answer: the path of a field.
const SUBJECT_BYTES_MAX: usize = 128;

/// An error as a caller sees it. Holds no secret bytes: the message is written by the server from names, numbers and ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PublicError {
    /// What the caller should do about it.
    pub kind: ErrorKind,
    /// What and why. No advice: that is the kind's.
    pub message: String,
    /// Finds the call in the server's log; empty when not known.
    pub request_id: String,
    /// Wait at least this long before trying again.
    pub retry_after: Option<Duration>,
    /// What it is about, for programs: `account`, `store`, `secret` and so on for what was not found, or the path of a field; may be empty.
    pub subject: String,
}

impl PublicError {
    /// An error of `kind`. A message above 2 KiB is cut.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Self { kind, message, request_id: String::new(), retry_after: None, subject: String::new() }
    }

    /// With the id that finds the call in the log.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = request_id.into();
        self
    }

    /// With a hint when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Saying what it is about.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// As the message that replies of streams carry.
    pub fn detail(self) -> v1::ErrorDetail {
        v1::ErrorDetail {
            kind: self.kind.number().into(),
            request_id: self.request_id,
            retry_after_ms: self.retry_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            message: self.message,
            subject: self.subject,
        }
    }

    /// From the message that replies of streams carry. A kind that a newer server added shows as internal.
    pub fn from_detail(detail: v1::ErrorDetail) -> Self {
        Self::from_parts(detail, ErrorKind::Internal, None)
    }

    /// From a failed call. A status of ours gives back the exact error; any other the kind that is nearest to its code.
    pub fn from_status(status: &Status) -> Self {
        let fallback = ErrorKind::from_code(status.code());
        // A broken connection is reported as unknown, with the transport's error as its cause.
        let broken = std::error::Error::source(status).is_some_and(|cause| cause.is::<tonic::transport::Error>());
        let fallback = if broken && fallback == ErrorKind::Internal { ErrorKind::Unavailable } else { fallback };
        let ours = status.metadata().get_bin(ERROR_METADATA).and_then(|value| value.to_bytes().ok());
        match ours.and_then(|bytes| v1::ErrorDetail::decode(bytes).ok()) {
            Some(detail) => Self::from_parts(detail, fallback, Some(status.message())),
            None => {
                let message = if status.message().is_empty() { status.code().description() } else { status.message() };
                Self::new(fallback, message)
            }
        }
    }

    fn from_parts(detail: v1::ErrorDetail, fallback: ErrorKind, message: Option<&str>) -> Self {
        let kind = ErrorKind::from_number(detail.kind).unwrap_or(fallback);
        let mut error = Self::new(kind, message.map_or(detail.message, str::to_owned));
        error.request_id = detail.request_id.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
        error.subject = detail.subject.chars().filter(|c| c.is_ascii_graphic()).take(SUBJECT_BYTES_MAX).collect();
        error.retry_after = (detail.retry_after_ms > 0).then(|| Duration::from_millis(detail.retry_after_ms));
        error
    }
}

impl From<PublicError> for Status {
    fn from(error: PublicError) -> Self {
        let code = error.kind.code();
        let mut detail = error.detail();
        // The status has a place for it; twice would only fill the header.
        let message = std::mem::take(&mut detail.message);
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(ERROR_METADATA, BinaryMetadataValue::from_bytes(&detail.encode_to_vec()));
        Self::with_metadata(code, message, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_through_a_status_comes_out_the_same() {
        for kind in ErrorKind::all() {
            let error = PublicError::new(kind, format!("what went wrong: {kind:?}, in Zürich"))
                .with_request_id("0123456789abcdef0123456789abcdef")
                .about("secrets[0].name")
                .with_retry_after(Duration::from_millis(250));
            let status = Status::from(error.clone());
            assert_eq!((status.code(), status.message()), (kind.code(), error.message.as_str()));
            assert_eq!(PublicError::from_status(&status), error);
            let plain = PublicError::new(kind, "short");
            assert_eq!(PublicError::from_status(&Status::from(plain.clone())), plain);
            assert_eq!(PublicError::from_detail(plain.clone().detail()), plain);
        }
    }

    #[test]
    fn error_through_http_headers_keeps_its_kind() {
        let error = PublicError::new(ErrorKind::NotSynced, "at 1.4, wanted 1.9").with_request_id("aa");
        let response = Status::from(error.clone()).into_http::<()>();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(PublicError::from_status(&status), error);
    }

    #[test]
    fn status_of_a_stranger_takes_the_kind_of_its_code() {
        let error = PublicError::from_status(&Status::not_found("gone"));
        assert_eq!((error.kind, error.message.as_str(), error.request_id.as_str()), (ErrorKind::NotFound, "gone", ""));
        let error = PublicError::from_status(&Status::unavailable(""));
        assert!(!error.message.is_empty());
    }

    #[test]
    fn status_with_damaged_or_newer_details_falls_back_to_its_code() {
        let with = |bytes: &[u8]| {
            let mut status = Status::permission_denied("no");
            status.metadata_mut().insert_bin(ERROR_METADATA, BinaryMetadataValue::from_bytes(bytes));
            PublicError::from_status(&status)
        };
        for bytes in [&b"\xff\xff\xff"[..], b"\x08", b"", b"\x08\xe8\x07"] {
            let error = with(bytes);
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Denied, "no"), "{bytes:?}");
        }
        let newer = v1::ErrorDetail { kind: 900, request_id: "id\r\nx: y".into(), ..Default::default() };
        assert_eq!(with(&newer.encode_to_vec()).request_id, "idx:y", "nothing that could break a log line");
    }

    #[test]
    fn message_too_long_is_cut_at_a_character() {
        let error = PublicError::new(ErrorKind::Internal, "é".repeat(3000));
        assert_eq!(error.message.len(), MESSAGE_BYTES_MAX);
        assert_eq!(PublicError::new(ErrorKind::Internal, format!("x{}", "é".repeat(3000))).message.len(), MESSAGE_BYTES_MAX - 1);
    }
}
