//! A connection that knows who is at its other end.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::places::{Keep, Place};
use crate::tls::{PeerCertificate, PeerIdentity};

/// A connection over TLS.
pub type TlsConnection = Connection<tokio_rustls::server::TlsStream<TcpStream>>;

/// A connection over a UNIX socket.
pub type UnixConnection = Connection<UnixStream>;

/// Who is at the other end, as the transport has established it. In a tonic service:
/// `request.extensions().get::<Peer>()`. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Peer(Arc<(Inner, Keep)>);

#[derive(Debug)]
enum Inner {
    Tls { address: SocketAddr, certificate: Option<PeerCertificate> },
    Unix { uid: u32, pid: Option<i32> },
}

impl Peer {
    pub(super) fn tls(address: SocketAddr, certificate: Option<PeerCertificate>, keep: Keep) -> Self {
        Self(Arc::new((Inner::Tls { address, certificate }, keep)))
    }

    pub(super) fn unix(uid: u32, pid: Option<i32>, keep: Keep) -> Self {
        Self(Arc::new((Inner::Unix { uid, pid }, keep)))
    }

    /// Whether it made such a call.
    pub(super) fn keeps_place(&self) -> bool {
        self.0.1.is_kept()
    }

    /// It made a call that was answered well: from now on its connection is displaced by nobody, unless its address or its caller holds more
    /// than a share of all places.
    pub fn keep_place(&self) {
        self.keep_place_of(None);
    }

    /// The same for a call that was made with a token: the caller is whoever has that, and else whose certificate it is.
    pub fn keep_place_of(&self, token: Option<&[u8]>) {
        self.0.1.keep(|| {
            let shown = token.or_else(|| self.certificate().map(|certificate| certificate.public_key.as_slice()))?;
            Some(Sha256::digest(shown).into())
        });
    }

    /// What its certificate says; none over a UNIX socket and for clients without one, which bring tokens.
    pub fn certificate(&self) -> Option<&PeerCertificate> {
        match &self.0.0 {
            Inner::Tls { certificate, .. } => certificate.as_ref(),
            Inner::Unix { .. } => None,
        }
    }

    /// Where it connects from; none over a UNIX socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0.0 {
            Inner::Tls { address, .. } => Some(*address),
            Inner::Unix { .. } => None,
        }
    }

    /// Whom its certificate names.
    pub fn identity(&self) -> Option<&PeerIdentity> {
        self.certificate().map(|certificate| &certificate.identity)
    }

    /// The user at the other end of a UNIX socket, as the kernel says.
    pub fn uid(&self) -> Option<u32> {
        match &self.0.0 {
            Inner::Tls { .. } => None,
            Inner::Unix { uid, .. } => Some(*uid),
        }
    }
}

/// For logs and audit: `10.0.0.7:41234`, or `unix uid=1000 pid=4711`.
impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.0 {
            Inner::Tls { address, .. } => write!(f, "{address}"),
            Inner::Unix { uid, pid: Some(pid) } => write!(f, "unix uid={uid} pid={pid}"),
            Inner::Unix { uid, pid: None } => write!(f, "unix uid={uid}"),
        }
    }
}

/// A byte stream with its peer and its place among the connections; the place is free again when it is dropped.
pub struct Connection<S> {
    stream: S,
    peer: Peer,
    _place: Place,
    /// Ends when the place was given to another.
    displaced: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Ends when nobody vouches for the peer's certificate any more.
    dropped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<S> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.peer)
    }
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, peer: Peer, place: Place) -> Self {
        let displaced = Some(Box::pin(place.cut().clone().cancelled_owned()));
        Self { stream, peer, _place: place, displaced, cut: None, dropped: None }
    }

    /// The same connection, which breaks when `token` is cancelled: a stream that its client leaves open ends with it.
    #[must_use]
    pub fn cut_by(self, token: CancellationToken) -> Self {
        Self { cut: Some(Box::pin(token.cancelled_owned())), ..self }
    }

    pub(super) fn dropped_by(self, token: Option<CancellationToken>) -> Self {
        Self { dropped: token.map(|token| Box::pin(token.cancelled_owned())), ..self }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ended = |waiting: &mut Option<Pin<Box<WaitForCancellationFutureOwned>>>, cx: &mut Context<'_>| {
            waiting.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready())
        };
        if ended(&mut self.cut, cx) || ended(&mut self.dropped, cx) || ended(&mut self.displaced, cx) {
            // Not asked again: a finished future must not be.
            (self.cut, self.dropped, self.displaced) = (None, None, None);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
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
