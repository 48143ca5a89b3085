//! A cluster as an operator makes one: founded by `cluster init`, joined by token, its certificates renewed while it runs.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use client::{Client, Config};
use runtime::{dev_pki::DevPki, tls::PeerCertificate};
use tempfile::TempDir;
use tests::{
    canary::Canary,
    process::{Cli, Ports, Reader, Run, Server, until},
};
use types::{NodeId, UnixMillis};

/// The account of the tests.
const ACCOUNT: &str = "acme";

/// One control node and what an operator has. Dropping it looks for the [`Canary`] in all files and in what commands printed.
struct Ground {
    canary: Canary,
    ports: Ports,
    cli: Cli,
    control: SocketAddr,
    health: SocketAddr,
    extra: &'static str,
    // Last, so that it is there while the canary is looked for.
    folder: TempDir,
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.canary.ends([], self.folder.path());
        }
    }
}

impl Ground {
    /// Nothing runs yet. `extra`: further lines of the control node's configuration.
    fn new(extra: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("cli")).unwrap();
        let contexts = folder.path().join("cli/contexts.toml");
        let canary = Canary::new(&folder.path().join("canary"), &contexts);
        let cli = Cli::new(&folder.path().join("cli"), &contexts).heard_by(canary.heard());
        let mut ports = Ports::default();
        let (control, health) = (ports.claim(), ports.claim());
        let ground = Self { canary, ports, cli, control, health, extra, folder };
        let data = ground.at("control-1");
        fs::write(
            ground.at("control.toml"),
            format!(
                "[node]\nname = \"control-1\"\ndata_dir = {data:?}\n[listen]\ngrpc = \"{control}\"\nhealth = \"{health}\"\n[log]\nformat = \"pretty\"\n{extra}\n",
                extra = ground.extra
            ),
        )
        .unwrap();
        ground
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    async fn init(&self) -> Run {
        self.cli
            .quiet(&["cluster", "init", "--config", &self.text("control.toml"), "--recovery-key-file", &self.text("recovery.key")])
            .await
    }

    /// With the canary, from the first start on.
    async fn start_control(&mut self) -> Server {
        let server = self.start("control", "control", self.health).await;
        if !self.canary.is_written() {
            self.canary.write().await;
        }
        server
    }

    /// The end of a test: looks for the canary at the nodes too, which end here.
    fn ends(&self, nodes: impl IntoIterator<Item = Server>) {
        assert!(self.canary.is_written());
        self.canary.ends(nodes, self.folder.path());
    }

    async fn start(&self, name: &str, role: &str, health: SocketAddr) -> Server {
        let mut server = self.launch(name, role, health);
        until(&format!("{name} to be ready"), async || match (server.health("/readyz"), server.exited()) {
            (_, Some(ended)) => panic!("{name} ended with {ended}:\n{}", server.log()),
            (Ok((200, _)), None) => Ok(()),
            (other, None) => Err(format!("{other:?}")),
        })
        .await;
        server
    }

    fn launch(&self, name: &str, role: &str, health: SocketAddr) -> Server {
        let config = self.text(&format!("{name}.toml"));
        Server::start(name, &[role, "--config", &config], &[], &self.at(&format!("{name}.log")), Some(health))
    }

    /// A join token's file.
    async fn token(&self, role: &str, name: &str) -> PathBuf {
        let file = self.at(&format!("{name}.token"));
        self.cli.ok(&["node", "token", "create", role, "--out", &file.display().to_string()]).await;
        file
    }

    /// How many nodes are registered.
    async fn nodes(&self) -> usize {
        self.cli.ok(&["--format", "json", "node", "list"]).await.json().as_array().unwrap().len()
    }

    /// Writes the configuration of a control node that joins; its health port.
    fn second_control(&mut self, name: &str, token: &Path) -> SocketAddr {
        let (grpc, health) = (self.ports.claim(), self.ports.claim());
        let (data, first, extra) = (self.at(name), self.control, self.extra);
        let text = format!(
            "[node]\nname = \"{name}\"\ndata_dir = {data:?}\n[listen]\ngrpc = \"{grpc}\"\nhealth = \"{health}\"\n[log]\nformat = \"pretty\"\n[join]\ntoken_file = {token:?}\nendpoints = [\"{first}\"]\n{extra}\n"
        );
        fs::write(self.at(&format!("{name}.toml")), text).unwrap();
        health
    }

    /// Writes an edge's configuration; its health port.
    fn edge(&mut self, name: &str, account: &str, join: &str) -> SocketAddr {
        let (grpc, health, uid) = (self.ports.claim(), self.ports.claim(), rustix::process::getuid().as_raw());
        let (data, socket, control) = (self.at(name), self.socket(name), self.control);
        let text = format!(
            "[node]\nname = \"{name}\"\ndata_dir = {data:?}\n[control]\nendpoints = [\"{control}\"]\nreconnect_max = \"500ms\"\n[listen]\ngrpc = \"{grpc}\"\nhealth = \"{health}\"\nunix = {{ path = {socket:?}, mode = \"0600\" }}\n[log]\nformat = \"pretty\"\n[[peer]]\nuid = {uid}\naccount = \"{account}\"\nconsumers = [\"*\"]\n{join}\n"
        );
        fs::write(self.at(&format!("{name}.toml")), text).unwrap();
        health
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.at(&format!("{name}.sock"))
    }

    fn certificate(&self, name: &str) -> PeerCertificate {
        PeerCertificate::read_pem(&self.at(name).join("identity/node.pem")).unwrap()
    }

    /// One secret, bound to `worker/web`; the account's id.
    async fn account(&self) -> String {
        self.cli.ok(&["account", "create", ACCOUNT]).await;
        let shown = self.cli.ok(&["--format", "json", "account", "show", ACCOUNT]).await.json();
        self.cli.ok(&["-a", ACCOUNT, "store", "create", "default"]).await;
        self.cli.ok(&["-a", ACCOUNT, "consumer", "create", "worker/web"]).await;
        shown["id"].as_str().unwrap().to_owned()
    }

    /// Writes a value, waits until it is live everywhere, and reads it at an edge.
    async fn written_is_read(&self, account: &str, edge: &str, name: &str, value: &str) {
        let secret = format!("default/{name}");
        let written = self.cli.pipe(value.as_bytes(), &["-a", ACCOUNT, "secret", "create", &secret, "--scope", "workers"]).await;
        assert_eq!(written.code, 0, "{written:?}");
        self.cli.ok(&["-a", ACCOUNT, "bind", "worker/web", &format!("{name}={secret}"), "--wait"]).await;
        let reader = Reader::new(Client::new(Config::unix(self.socket(edge))).unwrap(), account);
        assert_eq!(reader.get(name).await.unwrap().value, value.as_bytes());
        self.canary.read(&self.socket(edge)).await;
    }
}

fn join_section(token: &Path) -> String {
    format!("[join]\ntoken_file = {token:?}")
}

#[tokio::test]
async fn cluster_founded_by_init_takes_an_edge_in_by_token_which_stays_without_it() {
    let mut ground = Ground::new("");
    let init = ground.init().await;
    assert_eq!(init.code, 0, "{init:?}");
    assert!(init.stdout.contains("cinnabar control --config"), "{init:?}");
    assert!(!init.stdout.contains("cbr_") && !init.stderr.contains("cbr_"), "the recovery key is in its file alone");
    let recovery = runtime::read_secret_file(&ground.at("recovery.key")).unwrap();
    assert!(seal::RecoveryKey::parse(std::str::from_utf8(&recovery).unwrap().trim()).is_ok());
    let again = ground.init().await;
    assert!(again.code == 2 && again.stderr.contains("is not empty"), "{again:?}");

    let control = ground.start_control().await;
    assert!(!ground.at("control-1/founding").exists(), "the CA's key lies sealed in the log now");
    let account = ground.account().await;
    let token = ground.token("edge", "edge-1").await;
    let health = ground.edge("edge-1", &account, &join_section(&token));
    let edge = ground.start("edge-1", "edge", health).await;
    ground.written_is_read(&account, "edge-1", "FIRST", "one").await;

    // Used up: another node is refused, and says what to do.
    let other = ground.edge("edge-2", &account, &join_section(&token));
    let mut refused = ground.launch("edge-2", "edge", other);
    assert_eq!(refused.ended().await.code(), Some(1));
    assert!(refused.log().contains("the join token is not valid") && refused.log().contains("node token"), "{}", refused.log());

    // A crash before the certificate was written: the same key and token are answered again, and use nothing up.
    let first = ground.certificate("edge-1");
    assert!(edge.stop().await.success());
    fs::remove_file(ground.at("edge-1/identity/node.pem")).unwrap();
    let edge = ground.start("edge-1", "edge", health).await;
    let again = ground.certificate("edge-1");
    assert_eq!((again.identity, again.public_key), (first.identity, first.public_key));

    // The token was needed once.
    fs::remove_file(&token).unwrap();
    assert!(edge.stop().await.success());
    assert!(control.stop().await.success());
    let control = ground.start_control().await;
    let edge = ground.start("edge-1", "edge", health).await;
    ground.written_is_read(&account, "edge-1", "SECOND", "two").await;
    ground.ends([control, edge]);
}

#[tokio::test]
async fn edge_that_cannot_join_says_why() {
    let mut ground = Ground::new("");
    assert_eq!(ground.init().await.code, 0);
    let first = ground.start_control().await;
    let account = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e";

    let health = ground.edge("without", account, "");
    let mut edge = ground.launch("without", "edge", health);
    assert_eq!(edge.ended().await.code(), Some(1));
    assert!(edge.log().contains("no certificate yet") && edge.log().contains("cinnabar node token create edge"), "{}", edge.log());

    // A token of another cluster: the CA that is shown is not the one that it carries.
    let mut elsewhere = Ground::new("");
    assert_eq!(elsewhere.init().await.code, 0);
    let _other = elsewhere.start_control().await;
    let token = elsewhere.token("edge", "edge").await;
    let health = ground.edge("foreign", account, &join_section(&token));
    let mut edge = ground.launch("foreign", "edge", health);
    assert_eq!(edge.ended().await.code(), Some(1));
    assert!(edge.log().contains("no CA with the join token's fingerprint"), "{}", edge.log());
    assert!(!ground.at("foreign/identity/node.pem").exists());

    // Tokens that were good once, or are for another role; nothing is signed for them.
    let revoked = ground.token("edge", "revoked").await;
    let tokens = ground.cli.ok(&["--format", "json", "node", "token", "list"]).await.json();
    ground.cli.ok(&["node", "token", "revoke", tokens[0]["token_id"].as_str().unwrap()]).await;
    let expired = ground.at("expired.token");
    ground.cli.ok(&["node", "token", "create", "edge", "--expires-in", "300ms", "--out", &expired.display().to_string()]).await;
    until("the token to expire", async || {
        let tokens = ground.cli.ok(&["--format", "json", "node", "token", "list"]).await.json();
        let states: Vec<_> = tokens.as_array().unwrap().iter().map(|token| token["state"].as_str().unwrap().to_owned()).collect();
        if states.iter().any(|state| state == "expired") { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    for (name, token) in [("revoked", &revoked), ("expired", &expired)] {
        let health = ground.edge(name, account, &join_section(token));
        let mut edge = ground.launch(name, "edge", health);
        assert_eq!(edge.ended().await.code(), Some(1), "{name}");
        let log = edge.log();
        assert!(log.contains("the join token is not valid") && log.contains("`cinnabar node token create` makes another"), "{name}: {log}");
        assert!(!log.contains("cbj_") && !ground.at(name).join("identity/node.pem").exists(), "{name}: {log}");
    }

    // A token for something else: it is told so, nothing is registered, and the token is as good as before.
    let before = ground.nodes().await;
    let for_edge = ground.token("edge", "for-edge").await;
    let health = ground.second_control("no-edge", &for_edge);
    let mut control = ground.launch("no-edge", "control", health);
    assert_eq!(control.ended().await.code(), Some(1));
    let log = control.log();
    assert!(log.contains("of the role `edge`") && log.contains("`cinnabar node token create control`"), "{log}");
    let for_control = ground.token("control", "for-control").await;
    let health = ground.edge("no-control", account, &join_section(&for_control));
    let mut edge = ground.launch("no-control", "edge", health);
    assert_eq!(edge.ended().await.code(), Some(1));
    assert!(edge.log().contains("of the role `control`") && edge.log().contains("`cinnabar node token create edge`"), "{}", edge.log());
    assert_eq!(ground.nodes().await, before);
    let tokens = ground.cli.ok(&["--format", "json", "node", "token", "list"]).await.json();
    assert_eq!(tokens.as_array().unwrap().iter().filter(|token| token["state"] == "usable").count(), 2, "{tokens}");
    let health = ground.edge("edge", account, &join_section(&for_edge));
    let joined = ground.start("edge", "edge", health).await;

    // A typing mistake.
    let mistyped = ground.at("mistyped.token");
    runtime::write_secret_file(&mistyped, b"cbj_nonsense").unwrap();
    let health = ground.edge("mistyped", account, &join_section(&mistyped));
    let mut edge = ground.launch("mistyped", "edge", health);
    assert_eq!(edge.ended().await.code(), Some(1));
    assert!(edge.log().contains("mistyped.token is damaged") && !edge.log().contains("nonsense"), "{}", edge.log());
    ground.ends([first, joined]);
}

#[tokio::test]
async fn certificates_are_renewed_under_open_doors_and_after_all_have_expired() {
    let mut ground = Ground::new("[certificates]\nlifetime = \"3s\"");
    assert_eq!(ground.init().await.code, 0);
    let control = ground.start_control().await;
    let account = ground.account().await;
    let token = ground.token("control", "control-2").await;
    let second_health = ground.second_control("control-2", &token);
    let second = ground.launch("control-2", "control", second_health);
    until("control-2 to be added", async || {
        let run = ground.cli.quiet(&["cluster", "add", "control-2"]).await;
        if run.code == 0 { Ok(()) } else { Err(run.stderr) }
    })
    .await;
    ground.cli.ok(&["cluster", "promote", "control-2"]).await;
    let token = ground.token("edge", "edge-1").await;
    let health = ground.edge("edge-1", &account, &join_section(&token));
    let edge = ground.start("edge-1", "edge", health).await;
    ground.written_is_read(&account, "edge-1", "FIRST", "one").await;
    for node in ["control-1", "control-2", "edge-1"] {
        let first = ground.certificate(node).not_after;
        until(&format!("{node} to renew twice"), async || {
            let now = ground.certificate(node).not_after;
            if now.since(first) >= std::time::Duration::from_secs(3) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
    ground.written_is_read(&account, "edge-1", "SECOND", "two").await;

    // Everything sleeps until nothing is good any more.
    assert!(edge.stop().await.success());
    second.kill();
    control.kill();
    let ends = ["control-1", "control-2", "edge-1"].map(|node| ground.certificate(node).not_after);
    until("every certificate to have expired", async || {
        let now = seams::Clock::wall(&runtime::RealClock::new());
        if ends.iter().all(|end| *end < now) { Ok(()) } else { Err(format!("{:?}", ends.map(UnixMillis::get))) }
    })
    .await;
    // Neither can do without the other's vote.
    let second = ground.launch("control-2", "control", second_health);
    let control = ground.start_control().await;
    let edge = ground.start("edge-1", "edge", health).await;
    ground.written_is_read(&account, "edge-1", "THIRD", "three").await;
    ground.ends([second, control, edge]);
}

#[tokio::test]
async fn dev_whose_certificates_have_all_expired_starts_again_with_the_same_keys() {
    let ground = Ground::new("");
    let data = ground.text("dev");
    ground.cli.ok(&["dev", "--once", "--data", &data]).await;
    let certificate = |node: u64| PeerCertificate::read_pem(&ground.at("dev/tls").join(format!("node-{node}.pem"))).unwrap();
    let cluster = fs::read_to_string(ground.at("dev/cluster")).unwrap().trim().parse().unwrap();
    let long_ago = DevPki::ensure(&ground.at("dev/tls"), cluster, UnixMillis::new(1_600_000_000_000)).unwrap();
    let now = seams::Clock::wall(&runtime::RealClock::new());
    let nodes = [1, 101, 102];
    let keys = nodes.map(|node| certificate(node).public_key);
    for node in nodes {
        fs::remove_file(ground.at("dev/tls").join(format!("node-{node}.pem"))).unwrap();
        long_ago.node(NodeId::new(node)).unwrap();
        assert!(certificate(node).is_expired(now));
    }
    let again = ground.cli.ok(&["dev", "--once", "--data", &data]).await;
    assert!(again.stdout.contains("live on 2/2 edges"), "{again:?}");
    assert!(nodes.iter().all(|node| !certificate(*node).is_expired(now)));
    assert_eq!(nodes.map(|node| certificate(node).public_key), keys);
}
