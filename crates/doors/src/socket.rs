//! Two protocols on the UNIX socket: gRPC, and lookups in frames (`wire::frames`). The first four bytes tell which.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use lookup::{FrameLimits, Service};
use runtime::{TokioSpawn, config::ConnectionLimits, listen::Peer, listen::UnixConnection};
use seams::{Clock, Spawn};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use wire::frames;

use crate::grpc::{CONNECTIONS_END_WITHIN, Cut, connection};

/// Connections of gRPC that its server has not taken yet. It takes them at once; the bound only has to exist.
const READY_MAX: usize = 64;

/// Serves frames to those who speak them, and hands on the others, until `incoming` ends. How many there are is bounded by where they come from.
pub(crate) fn divide(
    incoming: impl Stream<Item = io::Result<UnixConnection>> + Send + 'static,
    service: Service,
    limits: &ConnectionLimits,
    tasks: &TokioSpawn,
    clock: &Arc<dyn Clock>,
) -> ReceiverStream<io::Result<Rewound<UnixConnection>>> {
    let (ready, taken) = mpsc::channel(READY_MAX);
    let within = limits.handshake_timeout;
    let limits = FrameLimits { hello_timeout: within, write_timeout: limits.request_timeout, age_max: limits.connection_age_max };
    let (spawn, clock, cancel) = (tasks.clone(), Arc::clone(clock), tasks.token().child_token());
    tasks.spawn(
        "divide_unix",
        Box::pin(async move {
            let mut incoming = std::pin::pin!(incoming);
            while let Some(Some(accepted)) = cancel.run_until_cancelled(incoming.next()).await {
                let Ok(accepted) = accepted else { continue };
                let (ready, service, clock) = (ready.clone(), service.clone(), Arc::clone(&clock));
                let cancel = cancel.clone();
                spawn.spawn(
                    "unix_connection",
                    Box::pin(async move {
                        let (mut accepted, begun) = (accepted, Begun { within, clock: &*clock });
                        let Some(Some(preface)) = cancel.run_until_cancelled(begun.preface(&mut accepted)).await else { return };
                        if preface == frames::PREFACE {
                            let peer = accepted.peer().clone();
                            let proved = connection(&peer);
                            // It ends by itself when the node stops, unless its caller takes nothing.
                            tokio::select! {
                                () = service.frames(accepted, proved, limits, || peer.keep_place()) => {}
                                () = async {
                                    cancel.cancelled().await;
                                    clock.sleep(CONNECTIONS_END_WITHIN).await;
                                } => {}
                            }
                        } else {
                            // Whatever it is, HTTP/2 says what is wrong with it. A receiver that is gone drops the connection.
                            let _ = ready.send(Ok(Rewound { first: preface, left: preface.len(), stream: accepted })).await;
                        }
                    }),
                );
            }
        }),
    );
    ReceiverStream::new(taken)
}

/// How the first bytes of a connection are waited for.
struct Begun<'a> {
    within: Duration,
    clock: &'a dyn Clock,
}

impl Begun<'_> {
    /// The first four bytes; none when they do not come, or not in time.
    async fn preface(&self, stream: &mut UnixConnection) -> Option<[u8; 4]> {
        let mut preface = [0; 4];
        tokio::select! {
            biased;
            read = stream.read_exact(&mut preface) => read.ok().map(|_| preface),
            () = self.clock.sleep(self.within) => None,
        }
    }
}

/// A connection whose first bytes were looked at, and are read again.
pub(crate) struct Rewound<S> {
    first: [u8; 4],
    /// How many of them are to come.
    left: usize,
    stream: S,
}

impl<S: Connected<ConnectInfo = Peer>> Connected for Rewound<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.stream.connect_info()
    }
}

impl<S: Cut> Cut for Rewound<S> {
    fn cut_by(self, token: CancellationToken) -> Self {
        Self { stream: self.stream.cut_by(token), ..self }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.left.min(buffer.remaining());
        let from = self.first.len() - self.left;
        buffer.put_slice(&self.first[from..from + count]);
        self.left -= count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rewound_connection_begins_with_what_was_looked_at_in_whatever_pieces_it_is_read() {
        for piece in 1..=6 {
            let mut rewound = Rewound { first: *b"PRI ", left: 4, stream: &b"* HTTP"[..] };
            let mut all = Vec::new();
            let mut buffer = vec![0; piece];
            loop {
                let count = rewound.read(&mut buffer).await.unwrap();
                all.extend_from_slice(&buffer[..count]);
                if count == 0 {
                    break;
                }
            }
            assert_eq!(all, b"PRI * HTTP", "{piece}");
        }
    }
}
