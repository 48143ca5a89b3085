//! How a server starts, is configured and ends.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use client::{Client, Retries};
use tests::process::{Cli, Cluster, Server, until};
use tokio::task::JoinSet;
use wire::ErrorKind;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_acknowledged_writes_are_kept_and_the_rest_is_refused() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    // Each writer counts what was acknowledged, until the first refusal.
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut writers = JoinSet::new();
    for number in 0..4 {
        let name = format!("COUNTER_{number}");
        operator.create_bound(&name, b"0").await;
        let config = cluster.control_client(Some(&cluster.operator_token()), None).retries(Retries::NONE);
        let client = Client::new(config).unwrap();
        let (secret, acknowledged) = (operator.secret(&name), acknowledged.clone());
        writers.spawn(async move {
            for count in 1.. {
                let value = format!("{number}-{count}").into_bytes();
                let request = wire::v1::SetValueRequest { secret: Some(secret.clone()), value, ..Default::default() };
                match client.set_value(request).await {
                    Ok(reply) => acknowledged.lock().unwrap().push((number, count, reply.version)),
                    Err(error) => return error,
                }
            }
            unreachable!("a refusal ends it")
        });
    }
    let enough = |count| {
        let acknowledged = acknowledged.clone();
        async move || if acknowledged.lock().unwrap().len() > count { Ok(()) } else { Err("fewer".to_owned()) }
    };
    until("writes to be acknowledged", enough(20)).await;

    let mut control = cluster.take_control();
    control.terminate();
    let status = control.ended().await;
    assert_eq!(status.code(), Some(0), "{}", control.log());
    while let Some(refused) = writers.join_next().await {
        let refused = refused.unwrap();
        assert!(refused.kind().retryable(), "a write on its way is acknowledged, or the caller may try again: {}", refused.error);
    }
    assert!(control.health("/readyz").is_err(), "nobody answers any more");

    cluster.start_control().await;
    let last = operator.set("COUNTER_0", b"last").await.1;
    operator.live(last).await;
    let reader = cluster.reader(1);
    let acknowledged = acknowledged.lock().unwrap().clone();
    for number in 0..4_u64 {
        let (_, count, version) = *acknowledged.iter().filter(|(writer, ..)| *writer == number).max().unwrap();
        let mut request = reader.request(&format!("COUNTER_{number}"));
        request.wanted.as_mut().unwrap().which = Some(wire::v1::wanted::Which::Version(version));
        assert_eq!(reader.client.get(request).await.unwrap().value, format!("{number}-{count}").into_bytes());
    }
}

#[tokio::test]
async fn sigterm_ends_an_edge_with_open_watches_and_streams_at_once() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    let reader = cluster.reader(1);
    let mut watch = reader.client.watch(reader.request("API_KEY"));
    assert_eq!(watch.next().await.unwrap().unwrap().value, b"s3cret");
    let (_requests, _replies) = reader.client.stream(4).await.unwrap();

    let mut edge = cluster.take_edge(1);
    let socket = cluster.edge_config(1).listen.unix.path;
    assert!(socket.exists());
    edge.terminate();
    until("the edge not to be ready", async || match edge.health("/readyz") {
        Ok((200, body)) => Err(body),
        Ok((503, _)) | Err(_) => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
    })
    .await;
    let status = edge.ended().await;
    assert_eq!(status.code(), Some(0), "{}", edge.log());
    assert!(!socket.exists(), "the socket is gone with its server");
    let refused = reader.get("API_KEY").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

/// A line of a configuration and what it is replaced by, the place and the words that the error must have.
const WRONG: &[(&str, &str, &str, &[&str])] = &[
    ("control", "[limits]", "[limits]\nwindow_byte = 1", &["control.toml:", "limits.window_byte: unknown field"]),
    ("control", "[limits]", "[limit]", &["control.toml:", "limit"]),
    ("control", "window_bytes = \"64MiB\"", "window_bytes = \"1MiB\"", &["control.toml: limits.window_bytes:", "16MiB"]),
    ("control", "window_bytes = \"64MiB\"", "window_bytes = \"lots\"", &["control.toml:", "limits.window_bytes:", "lots"]),
    ("control", "lease = \"1m\"", "lease = 60", &["control.toml:", "cluster.lease:"]),
    ("control", "[log]", "[log", &["control.toml:"]),
    ("control", "filter = \"warn\"", "filter = \"==\"", &["control.toml: log.filter:"]),
    ("edge-1", "mode = \"0600\"", "mode = \"rw\"", &["edge-1.toml:", "listen.unix.mode:"]),
    ("edge-1", "reconnect_min = \"100ms\"", "reconnect_min = \"1h\"", &["edge-1.toml: control.reconnect_max:"]),
    ("edge-1", "[[peer]]", "[[peers]]", &["edge-1.toml:", "peers"]),
];

#[tokio::test]
async fn config_check_names_file_line_and_key_and_servers_refuse_the_same() {
    let mut cluster = Cluster::prepare(1);
    let cli = Cli::new(&cluster.cli_folder(), &cluster.cli_folder().join("contexts.toml"));
    for (file, from, to, says) in WRONG {
        let path = cluster.data().join(format!("{file}.toml"));
        let role = if *file == "control" { "control" } else { "edge" };
        let good = fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        let check = ["config", "check", &name, "--role", role];
        let fine = cli.ok(&check).await;
        assert!(fine.stdout.contains("is a valid configuration"), "{fine:?}");
        assert!(good.contains(from), "{from} is no longer in {file}.toml");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let refused = cli.expect(2, &check).await;
        assert!(says.iter().all(|words| refused.stderr.contains(words)), "{to}: {says:?} is missing in {refused:?}");
        if says.len() > 1 && says[0].ends_with(".toml:") {
            let line = 1 + good.lines().position(|line| line == from.lines().next().unwrap()).unwrap() + to.matches('\n').count();
            assert!(refused.stderr.contains(&format!(".toml:{line}:")), "{to}: line {line} is missing in {refused:?}");
        }
        let server = cli.expect(2, &[role, "--config", &name]).await;
        assert_eq!(server.stderr, refused.stderr, "the server says the same, and has opened nothing");
        fs::write(&path, good).unwrap();
    }
    let other = cli.expect(2, &["config", "check", &cluster.edge_file(1).display().to_string(), "--role", "control"]).await;
    assert!(other.stderr.contains("edge-1.toml:"), "{other:?}");
    let missing = cli.expect(2, &["config", "check", "/nonexistent.toml", "--role", "edge"]).await;
    assert!(missing.stderr.contains("/nonexistent.toml"), "{missing:?}");
    // What was shown can be read again, and starts.
    let shown = cli.ok(&["config", "show", &cluster.control_file().display().to_string(), "--role", "control"]).await.stdout;
    fs::write(cluster.control_file(), shown).unwrap();
    cluster.start_control().await;
}

/// Starts a server that must not start, and returns what it said.
async fn refuses_to_start(cluster: &Cluster, role: &str, file: &std::path::Path) -> String {
    let log = cluster.logs().join("refused.log");
    let _ = fs::remove_file(&log);
    let mut server = Server::start(role, &[role, "--config", &file.display().to_string()], &[], &log, None);
    let status = server.ended().await;
    assert!(!status.success(), "{}", server.log());
    server.log()
}

#[tokio::test]
async fn server_refuses_a_newer_format_other_peoples_data_and_open_keys_by_name() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    assert_eq!(cluster.take_control().stop().await.code(), Some(0));
    assert_eq!(cluster.take_edge(1).stop().await.code(), Some(0));

    // The number of the format stands after the magic of 8 bytes, its checksum at the end of the header of 512.
    let log = cluster.control_config().node.data_dir.join("raft/log");
    let edge_log = cluster.edge_data(1).join("feed/log");
    for (folder, role, file) in [(&log, "control", cluster.control_file()), (&edge_log, "edge", cluster.edge_file(1))] {
        let segment =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "seg"));
        let segment = segment.unwrap();
        let good = fs::read(&segment).unwrap();
        let mut newer = good.clone();
        newer[8] = 9;
        let checksum = crc32c::crc32c(&newer[..508]).to_le_bytes();
        newer[508..512].copy_from_slice(&checksum);
        fs::write(&segment, newer).unwrap();
        let said = refuses_to_start(&cluster, role, &file).await;
        assert!(said.contains("has format 9, newest known here is 1") && said.contains("start the newer Cinnabar"), "{said}");
        fs::write(&segment, good).unwrap();
    }

    let root = cluster.control_config().keys.root;
    set_mode(&root, 0o644);
    let said = refuses_to_start(&cluster, "control", &cluster.control_file()).await;
    assert!(said.contains("root.key") && said.contains("chmod 600"), "{said}");
    set_mode(&root, 0o600);

    let other = Cluster::prepare(1);
    let folder = cluster.control_config().node.data_dir;
    other.configure_control(|config| config.node.data_dir = folder);
    let said = refuses_to_start(&other, "control", &other.control_file()).await;
    let id = cluster.control_config().node.cluster.unwrap().to_string();
    assert!(said.contains(&id), "the data's cluster is named: {said}");

    // After all refusals everything is as it was.
    cluster.start_control().await;
    cluster.start_edge(1).await;
    assert_eq!(cluster.reader(1).get("API_KEY").await.unwrap().value, b"s3cret");
    assert_eq!(operator.set("API_KEY", b"second").await.0, 2);
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
