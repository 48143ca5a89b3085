//! Saving a snapshot: a stream of a file's bytes.

use std::{error::Error, time::Duration};

use tonic::{Status, Streaming};
use wire::{ErrorKind, PublicError, v1, v1::snapshots_client::SnapshotsClient};

use crate::{Client, ClientError, client::failure, connect::Route, error::public};

/// How long the server may be silent between two parts: it seals a part in milliseconds, and hashes the whole state before the first.
const PART_WITHIN: Duration = Duration::from_secs(60);

impl Client {
    /// Begins to save the newest state. Not sent again by itself: what has come is of no use to another attempt.
    ///
    /// # Errors
    /// [`ClientError`] with the kind that the server gave.
    pub async fn save_snapshot(&self) -> Result<SavedParts, ClientError> {
        let request = v1::SaveSnapshotRequest {};
        let opened =
            self.open("snapshots.save", request, |channel, request| async move { SnapshotsClient::new(channel).save(request).await });
        let (stream, route) = opened.await?;
        Ok(SavedParts { stream, route, ended: false })
    }
}

/// What ended a stream: the server's word, or the connection, which whoever saves may try again.
fn cut_off(status: &Status) -> PublicError {
    let error = public(status);
    if status.source().is_none() {
        return error;
    }
    PublicError::new(ErrorKind::Unavailable, format!("the snapshot was cut off before its end: {}", error.message))
}

/// The parts of a snapshot as they come.
pub struct SavedParts {
    stream: Streaming<v1::SaveSnapshotReply>,
    route: Route,
    ended: bool,
}

impl SavedParts {
    /// The next part; none behind the end. A stream that stops before its end is an error, so whoever reads to the none has all.
    ///
    /// # Errors
    /// [`ClientError`]: the stream broke, ended too early, or was silent for a minute.
    pub async fn next(&mut self) -> Result<Option<v1::save_snapshot_reply::Part>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let failed = |error| failure("snapshots.save", &self.route.server, "", error, 1);
        let silent =
            || PublicError::new(ErrorKind::DeadlineExceeded, format!("no part of the snapshot within {} s", PART_WITHIN.as_secs()));
        let cut = || PublicError::new(ErrorKind::Unavailable, "the snapshot was cut off before its end");
        let next = tokio::time::timeout(PART_WITHIN, self.stream.message()).await.map_err(|_| failed(silent()))?;
        let part = next.map_err(|status| failed(cut_off(&status)))?.and_then(|reply| reply.part).ok_or_else(|| failed(cut()))?;
        self.ended = matches!(part, v1::save_snapshot_reply::Part::End(_));
        Ok(Some(part))
    }
}
