//! The pipelined stream: lookups in, outcomes out, in whatever order they are ready.

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tonic::{Status, Streaming};
use wire::{
    parse::{ConsumerTarget, GetTarget},
    v1,
};

use super::{Service, places::Place};
use crate::{Caller, Credential, Found, LookupError};

/// One lookup stream.
pub(super) struct Pipeline {
    pub(super) asking: Asking,
    pub(super) requests: Streaming<v1::StreamRequest>,
    /// Whether the caller has sent its last request.
    pub(super) ended: bool,
    pub(super) _place: Place,
}

/// The lookups of one stream, in whatever form they come.
pub(super) struct Asking {
    pub(super) service: Service,
    callers: Callers,
    /// Lookups that wait for a position, or for the disk.
    pub(super) waiting: FuturesUnordered<BoxFuture<'static, (u64, Result<Found, LookupError>)>>,
}

/// What may happen next on a stream.
enum Event {
    Request(v1::StreamRequest),
    Ready((u64, Result<Found, LookupError>)),
    Ended,
    Broken(Status),
    Stop,
}

impl Pipeline {
    /// The next reply, and the stream after it.
    pub(super) async fn step(mut self) -> Option<(Result<v1::StreamReply, Status>, Self)> {
        loop {
            let (tag, outcome) = match self.event().await {
                Event::Request(request) => match self.asking.begin(request) {
                    Some(ready) => ready,
                    None => continue,
                },
                Event::Ready(ready) => ready,
                Event::Ended if self.asking.waiting.is_empty() => return None,
                Event::Ended => {
                    self.ended = true;
                    continue;
                }
                Event::Broken(status) => return self.last(status),
                Event::Stop => {
                    let status = Status::from(LookupError::Stopping.public());
                    return self.last(status);
                }
            };
            let reply = v1::StreamReply { tag, outcome: Some(self.asking.service.outcome(outcome)) };
            return Some((Ok(reply), self));
        }
    }

    /// Chooses only: no work is lost with the arm that loses.
    async fn event(&mut self) -> Event {
        let room = self.asking.has_room();
        let Asking { service, waiting, .. } = &mut self.asking;
        tokio::select! {
            biased;
            () = service.stop.cancelled() => Event::Stop,
            Some(ready) = waiting.next() => Event::Ready(ready),
            request = self.requests.message(), if room && !self.ended => match request {
                Ok(Some(request)) => Event::Request(request),
                Ok(None) => Event::Ended,
                Err(status) => Event::Broken(status),
            },
            else => Event::Ended,
        }
    }

    /// Sends `status` and nothing more.
    fn last(mut self, status: Status) -> Option<(Result<v1::StreamReply, Status>, Self)> {
        self.ended = true;
        self.asking.waiting.clear();
        Some((Err(status), self))
    }
}

impl Asking {
    /// Whoever has this credential asks.
    pub(super) fn new(service: Service, credential: Credential) -> Self {
        Self { service, callers: Callers { credential, last: None }, waiting: FuturesUnordered::new() }
    }

    /// Whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.service.options.stream_waiting_max
    }

    /// Answers at once, or lets the lookup wait for its position, or for the disk.
    pub(super) fn begin(&mut self, request: v1::StreamRequest) -> Option<(u64, Result<Found, LookupError>)> {
        let tag = request.tag;
        let parsed = GetTarget::try_from(request.get.unwrap_or_default()).map_err(LookupError::from);
        let Self { service, callers, waiting } = self;
        let parsed = parsed.and_then(|get| Ok((callers.caller(service, get.consumer)?, get.wanted, get.freshness)));
        let (caller, wanted, freshness) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return Some((tag, Err(service.lookup.refused(error)))),
        };
        let lookup = &service.lookup;
        if freshness.min_position.is_none_or(|position| lookup.serving().answers_at(position))
            && let Some(outcome) = lookup.get_at_once(caller, &wanted, freshness)
        {
            return Some((tag, outcome));
        }
        let (lookup, caller, patience) = (lookup.clone(), caller.clone(), service.options.patience);
        let wait = async move {
            lookup.ready(freshness, patience).await;
            (tag, lookup.fetch(&caller, &wanted, freshness).await)
        };
        waiting.push(wait.boxed());
        None
    }
}

/// The callers of one stream: nearly always one, so the last is kept.
struct Callers {
    credential: Credential,
    last: Option<(Option<ConsumerTarget>, Caller)>,
}

impl Callers {
    fn caller(&mut self, service: &Service, consumer: Option<ConsumerTarget>) -> Result<&Caller, LookupError> {
        let last = match self.last.take().filter(|(named, _)| *named == consumer) {
            Some(last) => last,
            None => {
                let caller = self.credential.caller(&service.authenticator, consumer.clone())?;
                (consumer, caller)
            }
        };
        Ok(&self.last.insert(last).1)
    }
}
