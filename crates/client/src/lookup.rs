//! Lookups that stay open: a watch on one value, and many lookups on one stream.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::{ErrorKind, PublicError, v1, v1::lookup_client::LookupClient};

use crate::{Client, ClientError, client::failure, connect::Route, error::public, retry};

impl Client {
    /// Watches one value: the present one comes first, then each other one. Connects at the first [`Watch::next`].
    pub fn watch(&self, request: v1::GetRequest) -> Watch {
        Watch { client: self.clone(), request, open: None, failures: 0 }
    }

    /// Opens a stream for many lookups without waiting in between. `ahead` is how many requests may wait to be sent, 1 to 65,536.
    ///
    /// # Errors
    /// [`ClientError`] when no stream can be opened.
    pub async fn stream(&self, ahead: usize) -> Result<(Requests, Replies), ClientError> {
        let (sender, receiver) = mpsc::channel(ahead.clamp(1, 65_536));
        let requests = ReceiverStream::new(receiver);
        let opened =
            self.open("lookup.stream", requests, |channel, request| async move { LookupClient::new(channel).stream(request).await });
        let (stream, route) = opened.await?;
        Ok((Requests { sender, server: route.server.to_string() }, Replies { stream, route }))
    }
}

/// The sending half of a stream of lookups. Dropping it ends the stream, once all that was sent has been answered.
pub struct Requests {
    sender: mpsc::Sender<v1::StreamRequest>,
    server: String,
}

impl Requests {
    /// Sends a lookup; its reply carries the same `tag`. Waits while too many are on their way.
    ///
    /// # Errors
    /// [`ClientError`] when the stream is over; [`Replies::next`] knows why.
    pub async fn send(&self, tag: u64, get: v1::GetRequest) -> Result<(), ClientError> {
        let sent = self.sender.send(v1::StreamRequest { tag, get: Some(get) }).await;
        sent.map_err(|_| failure("lookup.stream", &self.server, "", PublicError::new(ErrorKind::Unavailable, "the stream is over"), 1))
    }
}

/// The receiving half of a stream of lookups.
pub struct Replies {
    stream: Streaming<v1::StreamReply>,
    route: Route,
}

impl Replies {
    /// The next reply with its tag, in any order; none when all has been answered after [`Requests`] was dropped. Safe to cancel.
    ///
    /// # Errors
    /// [`ClientError`] when the stream broke: what was not answered may be sent again on another.
    pub async fn next(&mut self) -> Result<Option<(u64, Result<v1::Found, PublicError>)>, ClientError> {
        match self.stream.message().await {
            Ok(Some(reply)) => Ok(Some((reply.tag, reply.outcome.unwrap_or_default().into_result()))),
            Ok(None) => Ok(None),
            Err(status) => Err(failure("lookup.stream", &self.route.server, "", public(&status), 1)),
        }
    }
}

/// A watch on one value. Reconnects by itself, and demands of whatever edge it reaches the position it has already seen: what it
/// reports never goes back. After a reconnection it reports the present value again, changed or not.
pub struct Watch {
    client: Client,
    request: v1::GetRequest,
    open: Option<(Streaming<v1::WatchReply>, Route)>,
    /// Failures in a row.
    failures: u32,
}

impl Watch {
    /// The value, or why there is none any more; then each change. Safe to cancel, though a pause before a reconnection starts anew.
    ///
    /// # Errors
    /// [`ClientError`] when the edge cannot be reached, after the repetitions that the client's rule allows, or when it refuses
    /// for good. Another call tries again.
    pub async fn next(&mut self) -> Result<Result<v1::Found, PublicError>, ClientError> {
        loop {
            match self.receive().await {
                Ok(outcome) => {
                    self.failures = 0;
                    if let Ok(v1::Found { position: Some(position), .. }) = &outcome {
                        self.remember(*position);
                    }
                    return Ok(outcome);
                }
                Err(error) => {
                    self.open = None;
                    self.failures += 1;
                    let random = retry::random().map_or(0, u64::from_le_bytes);
                    let pause = self.client.retries().pause_after(&error.error, self.failures, Duration::MAX, random);
                    let Some(pause) = pause else {
                        self.failures = 0;
                        return Err(error);
                    };
                    retry::wait(pause).await;
                }
            }
        }
    }

    /// Demands this position from now on, unless more was demanded.
    fn remember(&mut self, position: v1::Position) {
        let wanted = &mut self.request.freshness.get_or_insert_default().min_position;
        let order = |position: &v1::Position| types::Position::from(*position);
        if wanted.as_ref().is_none_or(|wanted| order(wanted) < order(&position)) {
            *wanted = Some(position);
        }
    }

    async fn receive(&mut self) -> Result<Result<v1::Found, PublicError>, ClientError> {
        let (stream, route) = match &mut self.open {
            Some(open) => open,
            none => {
                let request = self.request.clone();
                let opened = self
                    .client
                    .open("lookup.watch", request, |channel, request| async move { LookupClient::new(channel).watch(request).await });
                none.insert(opened.await?)
            }
        };
        let failed = |error| Err(failure("lookup.watch", &route.server, "", error, 1));
        match stream.message().await {
            Ok(Some(reply)) => Ok(reply.outcome.unwrap_or_default().into_result()),
            Ok(None) => failed(PublicError::new(ErrorKind::Unavailable, "the edge ended the watch")),
            Err(status) => failed(public(&status)),
        }
    }
}
