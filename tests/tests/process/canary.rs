//! P2 on whole processes: marked values that were written through everything are found in no file, log, metric, error, argument or
//! environment, and in no node's memory once their callers have hung up. Tokens likewise, except in the files that are meant to hold them.
//!
//! Every other test of whole processes carries one canary ([`tests::canary::Canary`]); here they are many, and go everywhere.

use std::{collections::BTreeSet, fs, os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration};

use client::{Client, ClientError, Retries};
use runtime::{OsEntropy, RealClock, config::LogFormat, dev_pki::DevPki};
use seams::{Clock, Entropy};
use tests::{
    canary::{Mark, Memory, NEEDED, Search, letters, places},
    process::{Cli, Cluster, Operator, PATIENCE, Reader, Run, Server, raw, until},
};
use types::ConsumerRef;
use wire::{ErrorKind, v1};

/// Entries between two snapshot files of the voter: the least that its configuration allows.
const SNAPSHOT_ENTRIES: u64 = 100;

/// What is written: a text that every escaping changes, a word that can stand in a header, and bytes that are no text.
struct Canaries {
    text: String,
    word: String,
    bytes: Vec<u8>,
}

impl Canaries {
    fn new() -> Self {
        let mut bytes = vec![0; 32];
        OsEntropy.fill(&mut bytes);
        bytes.iter_mut().for_each(|byte| *byte |= 0x80);
        Self { text: format!("{}\"\\\n\tü<&%{}", letters(20), letters(20)), word: letters(40), bytes }
    }
}

/// Everything that was said by servers and by the command line.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    fn error<T>(&mut self, what: &str, result: Result<T, ClientError>, kinds: &[ErrorKind]) {
        let Err(error) = result else { panic!("{what} was not refused") };
        assert!(kinds.contains(&error.kind()), "{what}: {}", error.error);
        self.0.push(format!("{error} {error:?} {} {:?}", error.error, error.error));
    }

    fn raw(&mut self, what: &str, answer: &raw::Answer) {
        assert_ne!(answer.code, 0, "{what} was not refused");
        self.0.push(format!("{answer:?} {}", answer.error));
    }

    fn run(&mut self, run: Run, code: i32) {
        assert_eq!(run.code, code, "{run:?}");
        self.0.push(run.stdout);
        self.0.push(run.stderr);
    }
}

#[tokio::test]
async fn marked_values_and_tokens_are_found_nowhere() {
    let mut cluster = Cluster::prepare(2);
    cluster.configure_control(|config| {
        config.log.filter = "trace".into();
        config.log.format = LogFormat::Json;
        config.limits.snapshot_entries = SNAPSHOT_ENTRIES;
    });
    for number in 1..=2 {
        cluster.configure_edge(number, |config| config.log.filter = "trace".into());
    }
    cluster.start_control().await;
    cluster.start_edge(1).await;
    cluster.start_edge(2).await;
    let (canaries, mut said) = (Canaries::new(), Said::default());
    let operator = cluster.operator();
    operator.found().await;
    let (_, consumer_token) = operator.consumer_token().await;
    let operator_token = cluster.operator_token();
    let cli = cluster.cli().await;
    let token_file = cluster.cli_folder().join("consumer.token");
    write_private(&token_file, &consumer_token);

    written(&cluster, &operator, &canaries).await;
    refused(&cluster, &operator, &canaries, &mut said).await;
    commands(&cli, &canaries, &token_file, &mut said).await;
    read(&cluster, &operator, &canaries, &consumer_token, &mut said).await;
    let mut shown = processes(&cluster);
    restarted(&mut cluster, &operator, &canaries).await;
    read(&cluster, &operator, &canaries, &consumer_token, &mut said).await;
    shown.extend(processes(&cluster));

    let marks = [
        Mark::of("text", canaries.text.as_bytes()),
        Mark::of("word", canaries.word.as_bytes()),
        Mark::of("bytes", &canaries.bytes),
        Mark::of("operator token", operator_token.as_bytes()),
        Mark::of("consumer token", consumer_token.as_bytes()),
    ];
    let search = Search::new(&marks.each_ref());
    let meant: [PathBuf; 3] = [cluster.data().join("keys/operator.token"), cluster.cli_folder().join("contexts.toml"), token_file];
    for file in &meant {
        assert!(!search.bytes("", &fs::read(file).unwrap()).is_empty(), "{} holds a token, and the search finds it", file.display());
    }
    let mut found = BTreeSet::new();
    for (what, text) in said.0.iter().map(|text| ("an error or output", text)).chain(shown.iter().map(|text| ("metrics or /proc", text))) {
        found.extend(search.bytes(what, text.as_bytes()));
    }
    for folder in [cluster.data(), cluster.logs(), cluster.cli_folder()] {
        let (files, sightings) = search.folder(&folder, &meant);
        assert!(files > 0, "{} holds files", folder.display());
        found.extend(sightings);
    }
    assert_eq!(found, BTreeSet::new(), "found: {}", places(&found));
    let snapshots = fs::read_dir(cluster.control_config().node.data_dir.join("raft/snapshots")).unwrap().count();
    assert!(snapshots > 0, "a snapshot file was written and searched");
    let traced = cluster.servers().all(|server| server.log().contains("TRACE"));
    assert!(traced, "the logs were written at the level trace");
    planted(&cluster, &search, &marks, &meant);
    let name = format!("NAME_{}", letters(40));
    operator.live(operator.create_bound(&name, b"no mark").await).await;
    drop(operator);
    remembered(&cluster, &marks[..3], &name).await;
}

/// Memory: no value is there once everybody who sent or read one has hung up; and a name, which is no secret, is.
async fn remembered(cluster: &Cluster, values: &[Mark], name: &str) {
    let (values, known) = (Search::new(&values.iter().collect::<Vec<_>>()), Search::new(&[&Mark::of("a name", name.as_bytes())]));
    for server in cluster.servers() {
        let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{} may leave a core dump", server.name());
        let mut memory = Memory::of(server.pid()).unwrap_or_else(|error| panic!("{error}"));
        let (bytes, found) = memory.search(&known, server.name());
        assert!(bytes > 8 << 20 && !found.is_empty(), "the search of {bytes} bytes finds what {} remembers", server.name());
        until(&format!("{} to have freed all values", server.name()), async || {
            let (_, found) = memory.search(&values, server.name());
            if found.is_empty() { Ok(()) } else { Err(places(&found)) }
        })
        .await;
    }
}

/// A search that finds nothing proves nothing unless it finds what is there: each form, planted in a file of an edge.
fn planted(cluster: &Cluster, search: &Search, marks: &[Mark], meant: &[PathBuf]) {
    let plant = cluster.edge_data(1).join("planted");
    for mark in marks {
        for (form, bytes) in mark.forms() {
            fs::write(&plant, [&[0; 5000][..], bytes, &[0; 5000]].concat()).unwrap();
            let (_, found) = search.folder(&cluster.edge_data(1), meant);
            assert!(
                found.iter().any(|sighting| sighting.form == form && sighting.place.starts_with(&plant.display().to_string())),
                "{form} was not found"
            );
        }
    }
}

fn write_private(path: &PathBuf, text: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn item(name: &str, value: &[u8]) -> v1::NewSecret {
    v1::NewSecret { name: name.into(), value: value.into(), scopes: vec!["workers".into()], comment: "a comment".into() }
}

/// Created, set, staged, promoted, duplicated, moved, deleted.
async fn written(cluster: &Cluster, operator: &Operator, canaries: &Canaries) {
    for (name, value) in [("TEXT", canaries.text.as_bytes()), ("WORD", canaries.word.as_bytes()), ("BYTES", &canaries.bytes)] {
        operator.create_bound(name, value).await;
        operator.set(name, b"something else").await;
        let candidate = v1::SetValueRequest {
            secret: Some(operator.secret(name)),
            value: value.into(),
            stage: v1::Stage::Candidate.into(),
            ..Default::default()
        };
        operator.client.set_value(candidate).await.unwrap();
        for r#move in [v1::PointerMove::Promote, v1::PointerMove::Revert, v1::PointerMove::Revert] {
            let request = v1::MovePointerRequest { secret: Some(operator.secret(name)), r#move: r#move.into(), ..Default::default() };
            operator.client.move_pointer(request).await.unwrap();
        }
        let copy = v1::DuplicateSecretRequest {
            source: Some(operator.secret(name)),
            name: format!("{name}_COPY"),
            scopes: vec!["workers".into()],
            ..Default::default()
        };
        operator.client.duplicate_secret(copy).await.unwrap();
        operator.try_create(&format!("{name}_GONE"), value).await.unwrap();
        operator.delete(&format!("{name}_GONE")).await;
    }
    // Large values, so that values on the disk are searched too, and enough entries for a snapshot file of the voter.
    let large = canaries.word.repeat(65_536 / canaries.word.len());
    operator.create_bound("LARGE", large.as_bytes()).await;
    for _ in 0..SNAPSHOT_ENTRIES {
        operator.set("TEXT", canaries.text.as_bytes()).await;
    }
    operator.live(operator.set("WORD", canaries.word.as_bytes()).await.1).await;
    assert_eq!(cluster.reader(1).get("LARGE").await.unwrap().value, large.as_bytes());
}

/// Requests that carry the marks and are refused for all kinds of reasons.
async fn refused(cluster: &Cluster, operator: &Operator, canaries: &Canaries, said: &mut Said) {
    let value = canaries.text.as_bytes();
    let client = Client::new(cluster.control_client(Some(&cluster.operator_token()), None).retries(Retries::NONE)).unwrap();
    let create = |store: v1::StoreRef, items: Vec<v1::NewSecret>| {
        let request = v1::CreateSecretsRequest { store: Some(store), secrets: items, ..Default::default() };
        client.create_secrets(request)
    };
    let nowhere = v1::StoreRef { store: "nowhere".into(), ..operator.store() };
    said.error("a taken name", create(operator.store(), vec![item("TEXT", value)]).await, &[ErrorKind::AlreadyExists]);
    said.error("a wrong name", create(operator.store(), vec![item("no dots.", value)]).await, &[ErrorKind::InvalidArgument]);
    said.error("no such store", create(nowhere, vec![item("X", value)]).await, &[ErrorKind::NotFound]);
    let oversize = canaries.word.repeat(65_536 / canaries.word.len() + 1);
    said.error("a value too large", create(operator.store(), vec![item("X", oversize.as_bytes())]).await, &[ErrorKind::TooLarge]);
    let giant = vec![item("X", canaries.word.repeat(10 << 20 >> 5).as_bytes())];
    said.error(
        "a message too large",
        create(operator.store(), giant).await,
        &[ErrorKind::TooLarge, ErrorKind::Busy, ErrorKind::Unavailable],
    );
    let many = (0..100).map(|number| item(&format!("N{number}"), value)).collect();
    said.error("over the quota", create(operator.store(), many).await, &[ErrorKind::QuotaExceeded]);
    let set = |request_id: &str, value: &[u8], expect_version| {
        let (secret, request_id) = (Some(operator.secret("TEXT")), request_id.to_owned());
        client.set_value(v1::SetValueRequest { secret, value: value.into(), expect_version, request_id, ..Default::default() })
    };
    said.error("another version", set("", value, Some(1)).await, &[ErrorKind::Precondition]);
    let id = "00112233445566778899aabbccddeeff";
    set(id, value, None).await.unwrap();
    said.error("a request id with other content", set(id, canaries.word.as_bytes(), None).await, &[ErrorKind::RequestReused]);

    // The mark where a token should be, in a label, in a text that is no UTF-8, and in a message that is cut.
    for config in [cluster.control_client(Some(&canaries.word), None), cluster.edge_client(1, Some(&canaries.word), None)] {
        let client = Client::new(config.retries(Retries::NONE)).unwrap();
        said.error("a mark for a token", client.who_am_i(v1::WhoAmIRequest {}).await, &[ErrorKind::Unauthenticated]);
        let lookup = client.get(cluster.reader(1).request("TEXT")).await;
        said.error("a mark for a token", lookup, &[ErrorKind::Unauthenticated, ErrorKind::Unsupported]);
    }
    let mut channel = raw::connect(cluster.control_config().listen.grpc, &cluster.ca_pem(), None);
    let token = cluster.operator_token();
    let not_text = [value, b"\xff\xfe"].concat();
    for message in [
        raw::field(1, &raw::field(1, &not_text)),
        raw::field(1, &raw::field(3, &not_text)),
        [raw::field(2, value), vec![5 << 3 | 2, 32], canaries.word.as_bytes()[..16].to_vec()].concat(),
        [raw::field(2, value), vec![0xff; 12]].concat(),
    ] {
        let answer = raw::call(&mut channel, "/cinnabar.v1.Secrets/SetValue", Some(&token), raw::framed(&message)).await;
        said.raw("a broken message", &answer);
    }
    let cut = raw::framed(&raw::field(2, value));
    let answer = raw::call(&mut channel, "/cinnabar.v1.Secrets/SetValue", Some(&token), cut[..cut.len() - 9].to_vec()).await;
    said.raw("a cut frame", &answer);
}

/// The command line: piped in, from a file, refused.
async fn commands(cli: &Cli, canaries: &Canaries, token_file: &std::path::Path, said: &mut Said) {
    let value = canaries.text.as_bytes();
    said.run(cli.pipe(value, &["-v", "secret", "create", "default/CLI", "--wait"]).await, 0);
    said.run(cli.pipe(value, &["-v", "secret", "set", "default/CLI", "--raw", "--format", "json"]).await, 0);
    said.run(cli.pipe(value, &["secret", "create", "default/CLI"]).await, 5);
    said.run(cli.pipe(value, &["secret", "create", "nowhere/CLI"]).await, 3);
    said.run(cli.pipe(canaries.word.repeat(2000).as_bytes(), &["secret", "create", "default/LONG"]).await, 2);
    for verb in ["show", "versions"] {
        said.run(cli.ok(&["secret", verb, "default/CLI"]).await, 0);
    }
    said.run(cli.ok(&["secret", "list", "default", "--format", "json"]).await, 0);
    said.run(cli.ok(&["context", "list", "--format", "json"]).await, 0);
    said.run(cli.ok(&["whoami"]).await, 0);
    said.run(cli.ok(&["status"]).await, 0);
    let token_file = token_file.display().to_string();
    said.run(cli.pipe(b"", &["get", "worker/web", "NOT_BOUND", "--token-file", &token_file]).await, 2);
    said.run(cli.pipe(canaries.word.as_bytes(), &["context", "add", "bad", "--control", "127.0.0.1:1", "--ca", "/nonexistent"]).await, 2);
}

/// Looked up in every way, at both edges.
async fn read(cluster: &Cluster, operator: &Operator, canaries: &Canaries, token: &str, said: &mut Said) {
    let position = operator.set("TEXT", canaries.text.as_bytes()).await.1;
    operator.live(position).await;
    let consumer = ConsumerRef::parse(cluster.account().parse().unwrap(), "worker/web").unwrap();
    let pki = DevPki::ensure(&cluster.data().join("tls"), cluster.control_config().node.cluster.unwrap(), RealClock::new().wall()).unwrap();
    let certificate = pki.consumer(&consumer).unwrap();
    for number in 1..=2 {
        for config in [
            cluster.socket_client(number, None),
            cluster.socket_client(number, Some(token)),
            cluster.edge_client(number, Some(token), None),
            cluster.edge_client(number, None, Some(&certificate)),
        ] {
            let reader = Reader::new(Client::new(config.retries(Retries::NONE)).unwrap(), cluster.account());
            assert_eq!(reader.get_at("TEXT", position).await.unwrap().value, canaries.text.as_bytes());
            assert_eq!(reader.get("WORD").await.unwrap().value, canaries.word.as_bytes());
            assert_eq!(reader.get("BYTES").await.unwrap().value, canaries.bytes);
            let wanted = ["TEXT", "WORD", "NOPE"].map(|binding| v1::Wanted { binding: binding.into(), ..Default::default() });
            let many = v1::GetManyRequest { consumer: None, wanted: wanted.into(), freshness: None };
            let many = v1::GetManyRequest { consumer: reader.request("").consumer, ..many };
            assert_eq!(reader.client.get_many(many).await.unwrap().iter().filter(|outcome| outcome.is_ok()).count(), 2);
            let mut watch = reader.client.watch(reader.request("WORD"));
            assert_eq!(watch.next().await.unwrap().unwrap().value, canaries.word.as_bytes());
            let (requests, mut replies) = reader.client.stream(4).await.unwrap();
            requests.send(1, reader.request("BYTES")).await.unwrap();
            assert!(replies.next().await.unwrap().unwrap().1.is_ok());
            said.error("not bound", reader.get("NOPE").await, &[ErrorKind::NotBound]);
            said.error("too stale", reader.get_within("TEXT", Duration::ZERO).await, &[ErrorKind::TooStale]);
        }
    }
}

/// Killed, started again from their disks, and one edge from an empty disk.
async fn restarted(cluster: &mut Cluster, operator: &Operator, canaries: &Canaries) {
    cluster.take_control().kill();
    cluster.take_edge(1).kill();
    assert_eq!(cluster.take_edge(2).stop().await.code(), Some(0));
    fs::remove_dir_all(cluster.edge_data(2)).unwrap();
    cluster.start_control().await;
    cluster.start_edge(1).await;
    cluster.start_edge(2).await;
    let (_, position) = operator.set("WORD", canaries.word.as_bytes()).await;
    assert_eq!(operator.client.wait_live(position, PATIENCE).await.unwrap().edges_live, 2);
}

/// Metrics, arguments and environment of all processes.
fn processes(cluster: &Cluster) -> Vec<String> {
    let mut shown = Vec::new();
    for server in cluster.servers() {
        let (status, metrics) = server.health("/metrics").unwrap();
        assert!(status == 200 && metrics.contains("cinnabar_"), "{metrics}");
        shown.extend([metrics, server.health("/readyz").unwrap().1]);
        let arguments = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
        assert!(String::from_utf8_lossy(&arguments).contains("--config"), "{arguments:?}");
        shown.push(String::from_utf8_lossy(&arguments).into_owned());
        let environment = fs::read(format!("/proc/{}/environ", server.pid())).unwrap_or_else(|error| panic!("{error}: {NEEDED}"));
        assert!(String::from_utf8_lossy(&environment).contains("CINNABAR_ANY_PORT"), "the environment was looked at");
        shown.push(String::from_utf8_lossy(&environment).into_owned());
    }
    shown
}

/// The canary of a cluster, planted in every place in turn.
#[tokio::test]
async fn canary_that_was_left_behind_anywhere_fails_its_test() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_control().await;
    let value = cluster.canary().value().to_owned();
    let leaves = cluster.data().join("leaves");
    fs::create_dir(&leaves).unwrap();
    let file = leaves.join(format!("{value}.toml"));
    fs::copy(cluster.edge_file(1), &file).unwrap();
    let (log, health) = (leaves.join("log"), cluster.edge_config(1).listen.health);
    let leaky = Server::start("leaky", &["edge", "--config", &file.display().to_string()], &[("LEAK", &value)], &log, Some(health));
    until("the node to answer", async || leaky.health("/livez").map_err(|error| error.to_string())).await;
    let left = leaves.join("left");
    fs::write(&left, value.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()).unwrap();
    cluster.canary().heard().add(&format!("a table with {value} in it"));

    let found = cluster.canary().finds(vec![leaky], &leaves, Duration::ZERO);
    let left = left.display().to_string();
    for place in ["cmdline of leaky", "environ of leaky", "the memory of leaky", "what a command printed", "a file's name", &left] {
        assert!(found.iter().any(|sighting| sighting.place.starts_with(place)), "not found: {place}; found:{}", places(&found));
    }
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(cluster))).unwrap_err();
    let said = said.downcast_ref::<String>().unwrap();
    assert!(said.starts_with("P2: a secret's value was left behind:") && said.contains(&left), "{said}");
}
