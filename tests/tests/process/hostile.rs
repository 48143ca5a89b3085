//! Strangers who mean harm: thousands of connections, half handshakes, bytes one at a time, readers that never read, a server without
//! descriptors, certificates at the wrong door. Honest clients are served meanwhile, memory stays bounded, and nothing panics.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use runtime::{RealClock, config::TlsFiles, dev_pki::DevPki};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use seams::Clock;
use tests::process::{Cluster, Server, raw, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};
use types::NodeId;
use wire::v1;

/// What a process may grow by under attack. 4,096 places cost about 50 KiB each where all of them have ended their handshakes.
const GROWTH_MAX: u64 = 512 << 20;

/// The first bytes of a TLS record that goes on: a handshake of 512 bytes, of which one comes.
const HALF_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01];

/// What a process may grow by for thousands of connections that say nothing or next to it, of which it holds 4,096 at most; about
/// 30 MiB were seen.
const IDLE_GROWTH_MAX: u64 = 128 << 20;

/// The memory that a process has on the machine, in bytes.
fn resident(server: &Server) -> u64 {
    memory(server, "VmRSS:")
}

/// The most that it ever had.
fn peak(server: &Server) -> u64 {
    memory(server, "VmHWM:")
}

fn memory(server: &Server, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// How many connections lost their places to others.
fn displaced(server: &Server) -> u64 {
    let (_, text) = server.health("/metrics").expect("metrics");
    let row = text.lines().find_map(|line| line.strip_prefix("cinnabar_connections_refused_total{at=\"crowded\"} "));
    row.map_or(0, |number| number.parse().expect("a count"))
}

fn assert_unharmed(server: &mut Server, before: u64) {
    assert!(server.exited().is_none());
    let grown = resident(server).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "it grew by {} MiB", grown >> 20);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Opens connections in the background until told to stop; each does one thing and stays.
async fn open(address: SocketAddr, count: usize, first: &'static [u8]) -> Vec<TcpStream> {
    let (mut opening, mut held) = (JoinSet::new(), Vec::new());
    for _ in 0..count {
        opening.spawn(async move {
            let mut stream = TcpStream::connect(address).await.ok()?;
            stream.write_all(first).await.ok()?;
            Some(stream)
        });
        // Not more at a time than the kernel's queue takes.
        if opening.len() >= 256 {
            held.extend(opening.join_next().await.and_then(Result::ok).flatten());
        }
    }
    held.extend(opening.join_all().await.into_iter().flatten());
    held
}

/// Ten thousand connections that say nothing, or a byte of a handshake, at the doors of both servers, while fresh honest clients connect,
/// write and read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_by_the_thousand_displace_each_other_and_no_honest_client() {
    // As many descriptors as this process may have at all; the servers inherit them.
    let files = getrlimit(Resource::Nofile).maximum;
    assert!(files.is_none_or(|files| files >= 12_000), "10,000 connections need a hard limit of 12,000 open files or more, not {files:?}");
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    let (control, edge) = (cluster.control_config().listen.grpc, cluster.edge_config(1).listen.grpc);
    let before = (resident(cluster.control()), resident(cluster.edge(1)));
    let places = cluster.edge_config(1).connections.connections_max;
    assert!(places < 5000 && cluster.servers().all(|server| displaced(server) == 0), "{places}");

    let mut held = Vec::new();
    for (address, first) in [(control, &b""[..]), (edge, b""), (control, HALF_HELLO), (edge, HALF_HELLO)] {
        held.extend(open(address, 2500, first).await);
        // Connections of their own, that know nothing of those before.
        let (fresh, value) = (cluster.operator(), format!("s3cret {}", held.len()));
        let (_, position) = fresh.set("API_KEY", value.as_bytes()).await;
        assert_eq!(cluster.reader(1).get_at("API_KEY", position).await.expect("the edge serves").value, value.as_bytes());
    }
    assert!(held.len() >= 9900, "{} connections were opened", held.len());
    for server in cluster.servers() {
        assert_eq!(server.health("/livez").unwrap().0, 200);
        assert_eq!(server.health("/readyz").unwrap().0, 200);
        until("the strangers that came first to make room", async || match displaced(server) {
            0 => Err("nobody was displaced".to_owned()),
            _ => Ok(()),
        })
        .await;
    }
    operator.set("API_KEY", b"after").await;
    for (server, before) in [(cluster.control(), before.0), (cluster.edge(1), before.1)] {
        let grown = peak(server).saturating_sub(before);
        assert!(grown < IDLE_GROWTH_MAX, "it had grown by {} MiB", grown >> 20);
    }
    drop(held);
    assert_unharmed(&mut cluster.take_edge(1), before.1);
    assert_unharmed(&mut cluster.take_control(), before.0);
}

/// Handshakes as fast as one process makes them, and writers that send a byte at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshake_flood_and_slow_writers_hold_up_no_honest_client() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_control().await;
    let operator = cluster.operator();
    operator.found().await;
    operator.try_create("API_KEY", b"first").await.unwrap();
    let (address, before) = (cluster.control_config().listen.grpc, resident(cluster.control()));
    let over = Arc::new(AtomicBool::new(false));
    let mut attackers = JoinSet::new();
    for _ in 0..32 {
        let (over, ca) = (over.clone(), cluster.ca_pem());
        attackers.spawn(async move {
            let mut made = 0;
            while !over.load(Ordering::Relaxed) {
                // A whole handshake, and a call that is refused.
                let mut channel = raw::connect(address, &ca, None);
                let answer = raw::try_call(&mut channel, "/cinnabar.v1.Secrets/List", None, raw::framed(b"")).await;
                made += usize::from(answer.is_ok_and(|answer| answer.code != 0));
            }
            made
        });
    }
    for _ in 0..64 {
        let over = over.clone();
        attackers.spawn(async move {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                for byte in HALF_HELLO.iter().chain(&[0; 500]) {
                    if over.load(Ordering::Relaxed) || stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sent += 1;
                    tokio::task::yield_now().await;
                }
            }
            sent
        });
    }
    for round in 0..20 {
        let fresh = cluster.operator();
        fresh.set("API_KEY", format!("round {round}").as_bytes()).await;
    }
    over.store(true, Ordering::Relaxed);
    let done: usize = attackers.join_all().await.into_iter().sum();
    assert!(done > 100, "the attack did hardly anything: {done}");
    assert_unharmed(&mut cluster.take_control(), before);
}

/// Replies of 16 MiB that nobody reads: what a server holds for one caller is bounded, and others are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_never_reads_is_held_to_its_share() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", &[b'v'; 65_000]).await).await;
    let before = resident(cluster.edge(1));
    let reader = cluster.reader(1);
    let wanted = vec![v1::Wanted { binding: "API_KEY".into(), ..Default::default() }; 256];
    let many = v1::GetManyRequest { consumer: reader.request("").consumer, wanted, freshness: None };
    let message = raw::framed(&prost::Message::encode_to_vec(&many));

    // Four connections, on each of which 200 calls are made whose answers nobody takes.
    let socket = cluster.edge_config(1).listen.unix.path;
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut channel = raw::connect_unix(&socket);
        for _ in 0..200 {
            // The head of the answer comes; its body is left where it is.
            if let Ok(response) = raw::begin(&mut channel, "/cinnabar.v1.Lookup/GetMany", message.clone()).await {
                unread.push(response);
            }
        }
        // And watches that are never read.
        let watch = raw::framed(&prost::Message::encode_to_vec(&reader.request("API_KEY")));
        for _ in 0..50 {
            if let Ok(response) = raw::begin(&mut channel, "/cinnabar.v1.Lookup/Watch", watch.clone()).await {
                unread.push(response);
            }
        }
    }
    assert!(unread.len() >= 100, "{}", unread.len());
    assert_eq!(cluster.reader(1).get("API_KEY").await.expect("one small lookup is answered").value.len(), 65_000);
    for number in 0..20 {
        operator.set("API_KEY", format!("value {number}").as_bytes()).await;
    }
    operator.live(operator.set("API_KEY", b"last").await.1).await;
    assert_eq!(cluster.reader(1).get("API_KEY").await.unwrap().value, b"last");
    assert_unharmed(&mut cluster.take_edge(1), before);
    drop(unread);
}

/// The edge has a handful of descriptors left, and strangers take them: it lives, and serves again when they are gone.
#[tokio::test]
async fn server_without_descriptors_serves_who_is_connected_and_recovers() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    let reader = cluster.reader(1);
    assert_eq!(reader.get("API_KEY").await.unwrap().value, b"s3cret");
    let (edge, before) = (cluster.edge(1), resident(cluster.edge(1)));
    let pid = Pid::from_raw(i32::try_from(edge.pid()).unwrap());
    let open_files = fs::read_dir(format!("/proc/{}/fd", edge.pid())).unwrap().count() as u64;
    let limit = |current| Rlimit { current: Some(current), maximum: Some(20_000) };
    let old = prlimit(pid, Resource::Nofile, limit(open_files + 6)).unwrap();

    let (address, socket) = (cluster.edge_config(1).listen.grpc, cluster.edge_config(1).listen.unix.path);
    let mut held = open(address, 100, b"").await;
    let mut local = Vec::new();
    for _ in 0..100 {
        local.extend(UnixStream::connect(&socket).await);
    }
    until("the server to notice", async || {
        if edge.log().contains("accepting a connection failed") { Ok(()) } else { Err("nothing yet".to_owned()) }
    })
    .await;
    // Who is connected is served, and what is written arrives.
    let (_, position) = operator.set("API_KEY", b"second").await;
    assert_eq!(reader.get_at("API_KEY", position).await.unwrap().value, b"second");
    held.clear();
    local.clear();
    prlimit(pid, Resource::Nofile, Rlimit { current: old.current, maximum: Some(20_000) }).unwrap();
    until("a fresh client to be served", async || match cluster.reader(1).get("API_KEY").await {
        Ok(found) if found.value == b"second" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_unharmed(&mut cluster.take_edge(1), before);
}

/// What is no message at all, or far too much of one. No token is shown: nothing of it may be kept.
#[tokio::test]
async fn garbage_and_oversize_at_the_doors_are_answered_or_closed() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    let before = (resident(cluster.control()), resident(cluster.edge(1)));
    let (control, edge) = (cluster.control_config().listen.grpc, cluster.edge_config(1).listen.grpc);
    for address in [control, edge] {
        for bytes in
            [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 4096], &[0x16, 3, 1, 0xff, 0xff]]
        {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            // An alert, a reset or an end: no answer of HTTP.
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.len() < 64 && !rest.starts_with(b"HTTP"), "{rest:?}");
        }
    }
    let socket = cluster.edge_config(1).listen.unix.path;
    for (address, path) in [
        (control, "/cinnabar.v1.Secrets/SetValue"),
        (control, "/cinnabar.internal.v1.Enrol/Join"),
        (control, "/cinnabar.internal.v1.Raft/Call"),
        (control, "/cinnabar.internal.v1.Peers/Watermarks"),
        (edge, "/cinnabar.v1.Lookup/Get"),
    ] {
        for (what, body) in [
            ("64 MiB", raw::framed(&vec![0x0a; 64 << 20])),
            ("groups a hundred thousand deep", raw::framed(&vec![0x0b; 100_000])),
            ("messages ten thousand deep", raw::framed(&nested(10_000))),
        ] {
            let mut channel = raw::connect(address, &cluster.ca_pem(), None);
            let answer = raw::try_call(&mut channel, path, None, body).await;
            assert!(answer.as_ref().map_or(true, |answer| answer.code != 0), "{what} to {path}: {answer:?}");
        }
        // Headers that no request has.
        let mut channel = raw::connect(address, &cluster.ca_pem(), None);
        let answer = raw::try_call(&mut channel, path, Some(&"t".repeat(200_000)), raw::framed(b"")).await;
        assert!(answer.as_ref().map_or(true, |answer| answer.code != 0), "{path}: {answer:?}");
    }
    let mut local = UnixStream::connect(&socket).await.unwrap();
    local.write_all(&[0xff; 4096]).await.unwrap();
    drop(local);
    assert_eq!(cluster.reader(1).get("API_KEY").await.unwrap().value, b"s3cret");
    operator.set("API_KEY", b"after").await;
    assert_unharmed(&mut cluster.take_edge(1), before.1);
    assert_unharmed(&mut cluster.take_control(), before.0);
}

/// Field 1, in field 1, in field 1...
fn nested(depth: usize) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(message.len() as u64, &mut outer);
        outer.extend_from_slice(&message);
        message = outer;
        if message.len() > 60_000 {
            break;
        }
    }
    message
}

/// What voters and control nodes say among themselves is for them alone, whatever certificate of the same CA is shown.
#[tokio::test]
async fn doors_between_control_nodes_are_shut_to_other_roles_and_other_authorities() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_control().await;
    let id = cluster.control_config().node.cluster.unwrap();
    let now = RealClock::new().wall();
    let pki = DevPki::ensure(&cluster.data().join("tls"), id, now).unwrap();
    let foreign = DevPki::ensure(&cluster.data().join("foreign"), id, now).unwrap();
    let consumer = types::ConsumerRef::parse(cluster.account().parse().unwrap(), "worker/web").unwrap();
    let address = cluster.control_config().listen.grpc;
    let cases: [(&str, Option<TlsFiles>); 5] = [
        ("none", None),
        ("a consumer's", Some(pki.consumer(&consumer).unwrap())),
        ("an edge's", Some(pki.node(NodeId::new(101)).unwrap())),
        ("an unregistered node's", Some(pki.node(NodeId::new(999)).unwrap())),
        ("a control node's of another CA", Some(foreign.node(NodeId::new(1)).unwrap())),
    ];
    // Cluster, to, and kind of call; or cluster, from, to.
    let raft = [raw::field(1, id.as_bytes()), vec![2 << 3, 1, 3 << 3, 3]].concat();
    let rows = [raw::field(1, id.as_bytes()), vec![2 << 3, 1, 3 << 3, 1]].concat();
    for (whose, files) in cases {
        for (path, message) in [("/cinnabar.internal.v1.Raft/Call", &raft), ("/cinnabar.internal.v1.Peers/Watermarks", &rows)] {
            let mut channel = raw::connect(address, &cluster.ca_pem(), files.as_ref());
            match raw::try_call(&mut channel, path, None, raw::framed(message)).await {
                // Another CA's certificate ends the handshake.
                Err(error) => assert!(whose.contains("another CA"), "{whose} to {path}: {error}"),
                Ok(answer) => {
                    assert!([7, 16].contains(&answer.code), "{whose} to {path}: {answer:?}");
                    assert!(!answer.error.message.is_empty(), "{whose} to {path}: {answer:?}");
                }
            }
        }
        // A message that is announced and never comes: who may not call is answered without it, so nothing is held for them.
        for path in ["/cinnabar.internal.v1.Raft/Call", "/cinnabar.internal.v1.Peers/HandOver", "/cinnabar.internal.v1.Peers/Watermarks"] {
            let mut channel = raw::connect(address, &cluster.ca_pem(), files.as_ref());
            let answer = raw::begin_only(&mut channel, path, vec![0, 0, 0x7f, 0, 0]).await;
            let code = answer.as_ref().ok().and_then(|answer| answer.headers().get("grpc-status")?.to_str().ok()?.parse().ok());
            let refused = code.is_some_and(|code: i32| [7, 16].contains(&code));
            assert!(refused || whose.contains("another CA"), "{whose} to {path}: {answer:?}");
        }
    }
    let operator = cluster.operator();
    operator.found().await;
    operator.try_create("API_KEY", b"value").await.unwrap();
    assert!(!cluster.control().log().contains("panicked"));
}
