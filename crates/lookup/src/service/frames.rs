//! The pipelined stream in frames of our own (`wire::frames`), for callers on the same machine: what HTTP/2 costs for each lookup is
//! left out, who may read what is judged as on any other stream.
//!
//! One loop answers all whole frames that have come, writes all replies at once, and only then waits. While a caller does not take
//! replies, or too many of its lookups wait for a position, nothing more is read from it: what a connection holds is bounded by one read,
//! [`WRITE_AT`] and a reply more, and `stream_waiting_max`.

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wire::{
    frames::{self, FrameError},
    v1,
};
use zeroize::Zeroize;

use super::{Service, pipeline::Asking};
use crate::{Connection, Credential, Found, LookupError};

/// What one read has room for.
const READ_BYTES: usize = 16 << 10;
/// So many bytes of replies are written before more frames are answered.
const WRITE_AT: usize = 128 << 10;

/// Bounds of a connection in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// From its beginning to the end of its first frame.
    pub hello_timeout: Duration,
    /// How long a caller may leave replies untaken.
    pub write_timeout: Duration,
    /// After this time its caller has to connect anew.
    pub age_max: Duration,
}

/// Why a connection ends.
enum End {
    /// The other side has closed it, has broken it, or takes nothing: nobody hears why.
    Silent,
    /// The other side is told why.
    Told(LookupError),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Told(LookupError::BadFrame { reason: error })
    }
}

impl Service {
    /// Serves a connection whose preface has been read, until it ends. `connection` is what the transport proved; `known` is called when
    /// its caller has shown to be one.
    pub async fn frames<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        mut io: S,
        connection: Connection,
        limits: FrameLimits,
        known: impl FnOnce(),
    ) {
        let mut out = Vec::new();
        let end = match self.clone().session(&mut io, (connection, known), limits, &mut out).await {
            Ok(()) | Err(End::Silent) => return,
            Err(End::Told(error)) => error,
        };
        tracing::debug!(node = %self.node, error = %end, "a connection in frames ends");
        let reply = v1::StreamReply { tag: frames::TAG_OF_CONNECTION, outcome: Some(self.outcome(Err(end))) };
        frames::append(&reply, &mut out);
        // Whoever does not listen any more is not told.
        let _ = self.flush(&mut io, &mut out, limits.write_timeout).await;
    }

    /// The whole of a connection.
    async fn session<S>(
        self,
        io: &mut S,
        (connection, known): (Connection, impl FnOnce()),
        limits: FrameLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let clock = self.lookup.serving().clock().clone();
        let (mut old, stop) = (clock.sleep(limits.age_max), self.stop.clone());
        let mut stop = std::pin::pin!(stop.cancelled());
        let mut received = BytesMut::new();
        let credential = tokio::select! {
            biased;
            () = &mut stop => return Err(End::Told(LookupError::Stopping)),
            () = clock.sleep(limits.hello_timeout) => return Err(End::Silent),
            hello = hello(io, &mut received, connection) => hello?,
        };
        let _place = self.stream_place(&credential).map_err(End::Told)?;
        known();
        let mut asking = Asking::new(self.clone(), credential);
        let mut ended = false;
        loop {
            let answered = answer(&mut asking, &mut received, out);
            self.flush(io, out, limits.write_timeout).await?;
            if matches!(answered?, Answered::Some) {
                continue;
            }
            if ended && asking.waiting.is_empty() {
                return Ok(());
            }
            let reading = !ended && asking.has_room();
            received.reserve(if reading { READ_BYTES } else { 0 });
            tokio::select! {
                biased;
                () = &mut stop => return Err(End::Told(LookupError::Stopping)),
                () = &mut old => return Err(End::Told(LookupError::ConnectionOld)),
                Some((tag, outcome)) = asking.waiting.next() => reply(&self, tag, outcome, out),
                read = io.read_buf(&mut received), if reading => ended = read? == 0,
            }
        }
    }

    /// Writes what is to be written. Values do not stay in the buffer.
    async fn flush<S: AsyncWrite + Unpin>(&self, io: &mut S, out: &mut Vec<u8>, timeout: Duration) -> Result<(), End> {
        if out.is_empty() {
            return Ok(());
        }
        let written = tokio::select! {
            biased;
            written = io.write_all(out) => written.map_err(End::from),
            // Made anew for each write, but asked only when one has to wait.
            () = async { self.lookup.serving().clock().sleep(timeout).await } => Err(End::Silent),
        };
        out.as_mut_slice().zeroize();
        out.clear();
        if out.capacity() > 2 * WRITE_AT {
            out.shrink_to(READ_BYTES);
        }
        written
    }
}

/// The first frame: who calls.
async fn hello<S: AsyncRead + Unpin>(io: &mut S, received: &mut BytesMut, connection: Connection) -> Result<Credential, End> {
    loop {
        if let Some((hello, rest)) = frames::split(received, frames::REQUEST_BYTES_MAX)? {
            let (credential, used) = (Credential::in_frames(connection, hello), received.len() - rest.len());
            received[..used].zeroize();
            received.advance(used);
            return Ok(credential);
        }
        received.reserve(READ_BYTES);
        if io.read_buf(received).await? == 0 {
            return Err(End::Silent);
        }
    }
}

/// What of that which had come was answered.
enum Answered {
    /// All that can be.
    All,
    /// As much as is written at once.
    Some,
}

/// Answers whole frames until there is none, too many wait, or the replies should be written.
fn answer(asking: &mut Asking, received: &mut BytesMut, out: &mut Vec<u8>) -> Result<Answered, FrameError> {
    while asking.has_room() {
        if out.len() >= WRITE_AT {
            return Ok(Answered::Some);
        }
        let Some((frame, rest)) = frames::split(received, frames::REQUEST_BYTES_MAX)? else { break };
        let (request, used) = (frames::decode::<v1::StreamRequest>(frame)?, received.len() - rest.len());
        if request.tag == frames::TAG_OF_CONNECTION {
            return Err(FrameError::Malformed);
        }
        received.advance(used);
        if let Some((tag, outcome)) = asking.begin(request) {
            reply(&asking.service, tag, outcome, out);
        }
    }
    Ok(Answered::All)
}

fn reply(service: &Service, tag: u64, outcome: Result<Found, LookupError>, out: &mut Vec<u8>) {
    let mut reply = v1::StreamReply { tag, outcome: Some(service.outcome(outcome)) };
    frames::append(&reply, out);
    // The message has a copy of the value.
    if let Some(v1::outcome::Outcome::Found(found)) = reply.outcome.as_mut().and_then(|outcome| outcome.outcome.as_mut()) {
        found.value.zeroize();
    }
}
