//! Lookups on the UNIX socket in frames (`wire::frames`), without gRPC: several times cheaper, for services that look up at each request.

use std::{io, path::Path, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use wire::{
    ErrorKind, PublicError,
    frames::{self, FrameError},
    v1,
};

use crate::{ClientError, Token, client::failure};

const CALL: &str = "lookup.frames";
/// What one read has room for.
const READ_BYTES: usize = 32 << 10;
/// So many bytes of requests are sent before their replies are taken. A socket holds them, so that never both sides wait to write.
const WRITE_AT: usize = 8 << 10;

/// One connection for lookups, used by one caller at a time. After an error of [`Frames::get_each`] it is of no more use: open another. A
/// service keeps as many as it has lookups at once.
pub struct Frames {
    stream: UnixStream,
    server: String,
    timeout: Duration,
    out: Vec<u8>,
    received: BytesMut,
    tag: u64,
}

impl Frames {
    /// Connects to the socket of an edge. Without a token the edge goes by this process's uid. `timeout` bounds each call, this one included.
    ///
    /// # Errors
    /// [`ClientError`] when nobody answers there. Who may not ask learns it at the first lookup.
    pub async fn open(socket: &Path, token: Option<&Token>, timeout_each: Duration) -> Result<Self, ClientError> {
        let server = socket.display().to_string();
        let mut out = frames::PREFACE.to_vec();
        match token {
            Some(token) => frames::append_bytes(token.bearer().as_bytes(), &mut out),
            None => frames::append_bytes(b"", &mut out),
        }
        let connected = timeout(timeout_each, async {
            let mut stream = UnixStream::connect(socket).await?;
            stream.write_all(&out).await?;
            Ok(stream)
        });
        let stream = match connected.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(broken(&server, &error)),
            Err(_) => return Err(overdue(&server, timeout_each)),
        };
        // The token is not kept: vectors are wiped where the allocator wipes, and this one is replaced.
        Ok(Self { stream, server, timeout: timeout_each, out: Vec::new(), received: BytesMut::new(), tag: frames::TAG_OF_CONNECTION })
    }

    /// One lookup.
    ///
    /// # Errors
    /// [`ClientError`] when the lookup was refused, or the connection broke.
    pub async fn get(&mut self, request: v1::GetRequest) -> Result<v1::Found, ClientError> {
        let mut outcomes = self.get_each(vec![request]).await?;
        let outcome = outcomes.pop().unwrap_or_else(|| Err(PublicError::new(ErrorKind::Internal, "the edge sent no reply")));
        outcome.map_err(|error| failure(CALL, &self.server, "", error, 1))
    }

    /// Several lookups, all on their way at once (in parts of some 8 KiB of requests); each has its own outcome, in the order of the requests.
    ///
    /// # Errors
    /// [`ClientError`] when the connection broke. Nothing was changed by any of them: all may be sent again on another.
    pub async fn get_each(&mut self, requests: Vec<v1::GetRequest>) -> Result<Vec<Result<v1::Found, PublicError>>, ClientError> {
        let limit = self.timeout;
        match timeout(limit, self.exchange(requests)).await {
            Ok(done) => done,
            Err(_) => Err(overdue(&self.server, limit)),
        }
    }

    async fn exchange(&mut self, requests: Vec<v1::GetRequest>) -> Result<Vec<Result<v1::Found, PublicError>>, ClientError> {
        let mut outcomes = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        loop {
            let first = self.tag + 1;
            while self.out.len() < WRITE_AT
                && let Some(get) = requests.next()
            {
                self.tag += 1;
                frames::append(&v1::StreamRequest { tag: self.tag, get: Some(get) }, &mut self.out);
            }
            if self.out.is_empty() {
                return Ok(outcomes);
            }
            self.stream.write_all(&self.out).await.map_err(|error| broken(&self.server, &error))?;
            self.out.clear();
            self.replies(first, &mut outcomes).await?;
        }
    }

    /// The replies to all requests from the tag `first` on.
    async fn replies(&mut self, first: u64, outcomes: &mut Vec<Result<v1::Found, PublicError>>) -> Result<(), ClientError> {
        let count = usize::try_from(self.tag - first + 1).unwrap_or(usize::MAX);
        let mut places: Vec<Option<Result<v1::Found, PublicError>>> = Vec::new();
        places.resize_with(count, || None);
        let mut missing = count;
        while missing > 0 {
            let Some(reply) = self.reply()? else {
                self.received.reserve(READ_BYTES);
                let read = self.stream.read_buf(&mut self.received).await.map_err(|error| broken(&self.server, &error))?;
                if read == 0 {
                    return Err(broken(&self.server, &io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            let outcome = reply.outcome.unwrap_or_default().into_result();
            let place = reply.tag.checked_sub(first).and_then(|at| places.get_mut(usize::try_from(at).ok()?));
            match place {
                Some(place @ None) => *place = Some(outcome),
                // The connection's own words, or a reply to nothing that was asked.
                _ => {
                    let unasked = || PublicError::new(ErrorKind::Internal, "the edge answered what was not asked");
                    let error = if reply.tag == frames::TAG_OF_CONNECTION { outcome.err() } else { None };
                    return Err(failure(CALL, &self.server, "", error.unwrap_or_else(unasked), 1));
                }
            }
            missing -= 1;
        }
        outcomes.extend(places.into_iter().flatten());
        Ok(())
    }

    /// The next reply that has come whole.
    fn reply(&mut self) -> Result<Option<v1::StreamReply>, ClientError> {
        let broken = |error: FrameError| failure(CALL, &self.server, "", PublicError::new(ErrorKind::Internal, error.to_string()), 1);
        let Some((frame, rest)) = frames::split(&self.received, frames::REPLY_BYTES_MAX).map_err(broken)? else { return Ok(None) };
        let (reply, used) = (frames::decode(frame).map_err(broken)?, self.received.len() - rest.len());
        self.received.advance(used);
        Ok(Some(reply))
    }
}

fn broken(server: &str, error: &io::Error) -> ClientError {
    let error = PublicError::new(ErrorKind::Unavailable, format!("the connection in frames is over: {error}"));
    failure(CALL, server, "", error, 1)
}

fn overdue(server: &str, limit: Duration) -> ClientError {
    failure(CALL, server, "", PublicError::new(ErrorKind::DeadlineExceeded, format!("no answer within {limit:?}")), 1)
}
