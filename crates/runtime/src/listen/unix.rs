//! UNIX sockets: bound without a moment in which others could connect, and gone when the server is.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
};

use seams::Spawn;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    AcceptLimits, Connection, Peer, READY_MAX, UnixConnection,
    places::{Holder, Places},
    refused, retried,
};
use crate::{TokioSpawn, config::UnixListen};

/// A bound socket. Dropping it removes the file.
#[derive(Debug)]
pub struct UnixSocket {
    // Dropped first: while the listener still answers, no successor can have taken the name.
    _file: SocketFile,
    listener: UnixListener,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Failing leaves a stale file, which the next start replaces.
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds a socket with its mode. A file that a dead server left is replaced; one that answers is not.
///
/// The socket is bound under a name beside the final one, gets its mode, and is then renamed: at no moment can anybody
/// connect whom the mode does not let.
///
/// # Errors
/// `AddrInUse` when another server answers there, else as of the operating system.
pub fn bind_unix(listen: &UnixListen) -> io::Result<UnixSocket> {
    let path = &listen.path;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot bind the socket {}: {error}", path.display()));
    match StdUnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another server answers on {}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // A file that is no socket must not be replaced; connecting to one is refused as to a dead socket is.
        Err(_) => refuse_other_files(path)?,
    }
    let mut beside = path.clone().into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(named)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(listen.mode.bits())).map_err(named)?;
    fs::rename(&beside, path).map_err(named)?;
    Ok(UnixSocket { _file: SocketFile(path.clone()), listener })
}

fn refuse_other_files(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} exists and is no socket; remove it or choose another path", path.display()),
        )),
        _ => Ok(()),
    }
}

/// Accepts connections on a UNIX socket until the token of `tasks` is cancelled.
pub fn accept_unix(socket: UnixSocket, limits: &AcceptLimits, tasks: &TokioSpawn) -> ReceiverStream<io::Result<UnixConnection>> {
    let (ready, taken) = mpsc::channel(READY_MAX);
    let places = Places::new(limits);
    let cancel = tasks.token().child_token();
    tasks.spawn(
        "accept_unix",
        Box::pin(async move {
            // The whole socket, not its listener alone: the file goes when the loop ends.
            let socket = socket;
            while let Some((stream, _)) = retried(&cancel, &places, || socket.listener.accept()).await {
                // Without the peer's user there is nobody to be: the peer is gone already.
                let Ok(credentials) = stream.peer_cred() else { continue };
                let Some(admitted) = cancel.run_until_cancelled(places.admit(Holder::User(credentials.uid()))).await else { break };
                let Some(place) = admitted else {
                    refused("full", &format_args!("unix uid={}", credentials.uid()), &io::Error::other("all places are taken"));
                    continue;
                };
                place.greeted();
                let peer = Peer::unix(credentials.uid(), credentials.pid(), place.keep());
                let sending = ready.send(Ok(Connection::new(stream, peer, place)));
                if !matches!(cancel.run_until_cancelled(sending).await, Some(Ok(()))) {
                    break;
                }
            }
        }),
    );
    ReceiverStream::new(taken)
}

/// A gRPC channel over a UNIX socket. It connects at the first call, and again whenever the connection was lost.
pub fn unix_channel(path: &Path) -> Channel {
    crate::tls::unix_channel(path.to_owned())
}
