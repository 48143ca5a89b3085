use std::{fs, os::unix::fs::PermissionsExt};

use seams::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Handle,
};
use tokio_stream::StreamExt;
use types::{ClusterId, NodeId};

use super::*;
use crate::{
    RealClock,
    config::{FileMode, HostPort, UnixListen},
    dev_pki::DevPki,
    tls::{ClientCertificates, ClientTls, Expect},
};

fn tasks() -> TokioSpawn {
    TokioSpawn::new(Handle::current(), CancellationToken::new())
}

fn limits(connections_max: usize) -> AcceptLimits {
    AcceptLimits { connections_max, handshakes_max: 2, handshake_timeout: Duration::from_secs(60) }
}

fn unix_listen(folder: &tempfile::TempDir) -> UnixListen {
    UnixListen { path: folder.path().join("edge.sock"), mode: FileMode::new(0o660) }
}

#[tokio::test]
async fn unix_connection_knows_the_uid_and_the_socket_has_its_mode() {
    let temporary = tempfile::tempdir().unwrap();
    let (listen, tasks) = (unix_listen(&temporary), tasks());
    let mut stream = accept_unix(bind_unix(&listen).unwrap(), &limits(8), &tasks);
    assert_eq!(fs::metadata(&listen.path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut client = UnixStream::connect(&listen.path).await.unwrap();
    let mut connection = stream.next().await.unwrap().unwrap();
    assert_eq!(connection.peer().uid(), Some(rustix::process::getuid().as_raw()));
    assert!(connection.peer().identity().is_none());
    connection.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");

    tasks.drain(Duration::from_secs(60)).await.unwrap();
    assert!(stream.next().await.is_none(), "the stream ends");
    assert!(!listen.path.exists(), "the socket is gone");
}

#[tokio::test]
async fn unix_connection_over_the_limit_is_closed_and_a_freed_place_is_used() {
    let temporary = tempfile::tempdir().unwrap();
    let (listen, tasks) = (unix_listen(&temporary), tasks());
    let mut stream = accept_unix(bind_unix(&listen).unwrap(), &limits(1), &tasks);
    let _first = UnixStream::connect(&listen.path).await.unwrap();
    let held = stream.next().await.unwrap().unwrap();
    held.peer().keep_place();
    let mut second = UnixStream::connect(&listen.path).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "closed at once");
    drop(held);
    let _third = UnixStream::connect(&listen.path).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn unix_socket_of_a_dead_server_is_replaced_and_that_of_a_live_one_is_not() {
    let temporary = tempfile::tempdir().unwrap();
    let listen = unix_listen(&temporary);
    drop(std::os::unix::net::UnixListener::bind(&listen.path).unwrap());
    assert!(listen.path.exists(), "left behind");
    let socket = bind_unix(&listen).unwrap();
    let error = bind_unix(&listen).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    drop(socket);
    fs::write(&listen.path, b"a file").unwrap();
    let error = bind_unix(&listen).unwrap_err().to_string();
    assert!(error.ends_with("exists and is no socket; remove it or choose another path"), "{error}");
}

#[tokio::test]
async fn tls_connection_comes_out_only_after_its_handshake() {
    let temporary = tempfile::tempdir().unwrap();
    let cluster = ClusterId::from_bytes([1; 16]);
    let pki = DevPki::ensure(&temporary.path().join("pki"), cluster, RealClock::new().wall()).unwrap();
    let server = ServerTls::load(&pki.node(NodeId::new(1)).unwrap(), ClientCertificates::Optional).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to: HostPort = listener.local_addr().unwrap().into();
    let tasks = tasks();
    let mut stream = accept_tls(listener, server, limits(4), &tasks);

    // One that says nothing and one that speaks no TLS hold up nobody.
    let _silent = TcpStream::connect((to.host(), to.port())).await.unwrap();
    let mut rude = TcpStream::connect((to.host(), to.port())).await.unwrap();
    rude.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = rude.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");

    let nodes = Expect::Node { cluster, node: NodeId::new(1) };
    let client = ClientTls::load(&pki.node(NodeId::new(101)).unwrap(), nodes).unwrap();
    let mut connected = client.connect(&to).await.unwrap();
    let mut connection = stream.next().await.unwrap().unwrap();
    assert_eq!(connection.peer().identity().unwrap().node(), Some(NodeId::new(101)));
    connected.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    connection.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
    // Nor does the silent one hold up the end.
    tasks.drain(Duration::from_secs(30)).await.unwrap();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn tls_handshake_that_takes_too_long_frees_its_place() {
    let temporary = tempfile::tempdir().unwrap();
    let pki = DevPki::ensure(&temporary.path().join("pki"), ClusterId::from_bytes([1; 16]), RealClock::new().wall()).unwrap();
    let server = ServerTls::load(&pki.node(NodeId::new(1)).unwrap(), ClientCertificates::Optional).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = AcceptLimits { connections_max: 1, handshakes_max: 1, handshake_timeout: Duration::from_millis(1) };
    let _stream = accept_tls(listener, server, bounds, &tasks());
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "closed");
}
