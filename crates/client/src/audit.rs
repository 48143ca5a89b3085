//! Exporting the audit log: a stream of entries.

use std::time::Duration;

use tonic::Streaming;
use wire::{ErrorKind, PublicError, v1, v1::audit_client::AuditClient};

use crate::{Client, ClientError, client::failure, connect::Route, error::public};

/// How long the server may be silent between two parts: it may look at a gibibyte that a filter leaves out.
const PART_WITHIN: Duration = Duration::from_secs(60);
/// An entry names at most some thousand secrets.
const PART_BYTES_MAX: usize = 4 << 20;

impl Client {
    /// Begins to export the audit log. Not sent again by itself: what has come is of no use to another attempt.
    ///
    /// # Errors
    /// [`ClientError`] with the kind that the server gave.
    pub async fn export_audit(&self, request: v1::ExportAuditRequest) -> Result<AuditParts, ClientError> {
        let opened = self.open("audit.export", request, |channel, request| async move {
            AuditClient::new(channel).max_decoding_message_size(PART_BYTES_MAX).export(request).await
        });
        let (stream, route) = opened.await?;
        Ok(AuditParts { stream, route, ended: false })
    }
}

/// The parts of an export as they come.
pub struct AuditParts {
    stream: Streaming<v1::ExportAuditReply>,
    route: Route,
    ended: bool,
}

impl AuditParts {
    /// The next part; none behind the end. A stream that stops before its end is an error, so whoever reads to the none has all.
    ///
    /// # Errors
    /// [`ClientError`]: the stream broke, ended too early, or was silent for a minute.
    pub async fn next(&mut self) -> Result<Option<v1::export_audit_reply::Part>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let failed = |error| failure("audit.export", &self.route.server, "", error, 1);
        let silent = || PublicError::new(ErrorKind::DeadlineExceeded, format!("no entry within {} s", PART_WITHIN.as_secs()));
        let cut = || PublicError::new(ErrorKind::Unavailable, "the export was cut off before its end: begin again");
        let next = tokio::time::timeout(PART_WITHIN, self.stream.message()).await.map_err(|_| failed(silent()))?;
        let part = next.map_err(|status| failed(public(&status)))?.and_then(|reply| reply.part).ok_or_else(|| failed(cut()))?;
        self.ended = matches!(part, v1::export_audit_reply::Part::End(_));
        Ok(Some(part))
    }
}
