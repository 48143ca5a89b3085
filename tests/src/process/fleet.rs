//! A cluster that grew as an operator grows it: founded by `cluster init`, joined by token, each node a process of its own.
//!
//! Every server is told to the others by the address of its relay ([`Net`]), so that any two can be parted.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use client::{Client, Config, Retries, Tls, Token};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Cli, Net, Operator, Ports, Reader, Server, clients::CONTEXT, until};
use crate::canary::Canary;

/// The account of the operator and of the consumer that this process's uid may read as.
const ACCOUNT: &str = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e";

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A voter.
    Control,
    /// An edge.
    Edge,
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Edge => "edge",
        }
    }
}

/// One node: where it listens, its process when it runs.
struct Node {
    role: Role,
    grpc: SocketAddr,
    health: SocketAddr,
    /// What others are told.
    relay: SocketAddr,
    server: Option<Server>,
    frozen: bool,
}

/// The nodes, by name. Dropping it looks for the [`Canary`], kills them and removes the folder.
pub struct Fleet {
    canary: Canary,
    nodes: BTreeMap<String, Node>,
    /// The cables between them.
    pub net: Net,
    /// The command line, as the first operator.
    pub cli: Cli,
    ports: Ports,
    extra: Extra,
    /// What each server's environment holds besides.
    environment: Vec<(String, String)>,
    // Last, so that the processes are gone before their folder.
    folder: TempDir,
}

/// Lines that a test adds to every configuration file, by role.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// To control.toml.
    pub control: String,
    /// To edge.toml.
    pub edge: String,
    /// No relays: nodes reach each other directly, and cannot be parted.
    pub direct: bool,
}

impl Fleet {
    /// `controls` voters and `edges` edges, founded, joined, promoted and ready; the usual account, store and consumer are there.
    pub async fn start(controls: usize, edges: usize) -> Self {
        Self::start_with(controls, edges, Extra::default()).await
    }

    /// The same, with more in the configuration files.
    pub async fn start_with(controls: usize, edges: usize, extra: Extra) -> Self {
        let mut fleet = Self::founded(extra, &[], false).await;
        for number in 2..=controls {
            fleet.add_voter(&format!("control-{number}")).await;
        }
        for number in 1..=edges {
            let name = format!("edge-{number}");
            fleet.add_edge(&name).await;
            fleet.canary.read(&fleet.socket(&name)).await;
        }
        fleet.operator().found().await;
        fleet
    }

    /// One voter, founded and ready; nothing else. Servers run in `environment`; `shown`: commands and their results are printed.
    pub async fn founded(extra: Extra, environment: &[(&str, &str)], shown: bool) -> Self {
        let folder = TempDir::with_prefix("cinnabar-").expect("a temporary folder");
        for name in ["logs", "cli"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let contexts = folder.path().join("cli/contexts.toml");
        let canary = Canary::new(&folder.path().join("canary"), &contexts);
        let cli = Cli::new(&folder.path().join("cli"), &contexts).shown(shown).heard_by(canary.heard());
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut fleet =
            Self { canary, nodes: BTreeMap::new(), net: Net::default(), cli, ports: Ports::default(), extra, environment, folder };
        let first = "control-1";
        fleet.place(first, Role::Control).await;
        fleet.configure(first, None);
        let (config, recovery) = (fleet.config_text(first), fleet.recovery_key().display().to_string());
        let account = ["--account", ACCOUNT];
        let init = ["cluster", "init", "--config", &config, "--context", CONTEXT, "--recovery-key-file", &recovery];
        fleet.cli.ok(&[&account[..], &init[..]].concat()).await;
        fleet.start_node(first).await;
        fleet.canary.write().await;
        fleet
    }

    /// What is looked for when the fleet ends. It is written when the fleet is founded.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file with the recovery key.
    pub fn recovery_key(&self) -> PathBuf {
        self.folder.path().join("cli/recovery.key")
    }

    /// The folder with all that the servers printed.
    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// A node's data folder.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node's configuration file.
    pub fn config(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.toml"))
    }

    fn config_text(&self, name: &str) -> String {
        self.config(name).display().to_string()
    }

    /// Chooses ports for a new node, and lays its cable.
    async fn place(&mut self, name: &str, role: Role) {
        let (grpc, health) = (self.ports.claim(), self.ports.claim());
        let relay = if self.extra.direct { grpc } else { self.ports.claim() };
        if !self.extra.direct {
            self.net.relay(name, relay, grpc).await;
        }
        self.nodes.insert(name.to_owned(), Node { role, grpc, health, relay, server: None, frozen: false });
    }

    /// Writes a node's configuration file. `token`: the join token's file.
    fn configure(&self, name: &str, token: Option<&Path>) {
        let (node, data) = (&self.nodes[name], self.data(name).display().to_string());
        let controls = self.nodes.iter().filter(|(other, node)| node.role == Role::Control && *other != name);
        let endpoints = controls.map(|(_, node)| format!("{:?}", node.relay.to_string())).collect::<Vec<_>>().join(", ");
        let mut text =
            format!("[node]\nname = {name:?}\ndata_dir = {data:?}\n\n[listen]\ngrpc = \"{}\"\nhealth = \"{}\"\n", node.grpc, node.health);
        match node.role {
            Role::Control => text += &format!("advertise = \"{}\"\n", node.relay),
            Role::Edge => {
                let uid = rustix::process::getuid().as_raw();
                text += &format!("unix = {{ path = \"{}\", mode = \"0600\" }}\n", self.socket(name).display());
                text += &format!("\n[control]\nendpoints = [{endpoints}]\nreconnect_max = \"500ms\"\n");
                text += &format!("\n[[peer]]\nuid = {uid}\naccount = \"{ACCOUNT}\"\nconsumers = [\"worker/*\"]\n");
            }
        }
        if let Some(token) = token {
            text += &format!("\n[join]\ntoken_file = \"{}\"\nendpoints = [{endpoints}]\n", token.display());
        }
        text += match node.role {
            Role::Control => &self.extra.control,
            Role::Edge => &self.extra.edge,
        };
        fs::write(self.config(name), text).expect("the configuration can be written");
    }

    /// An edge's socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.sock"))
    }

    /// A file with a fresh join token.
    pub async fn token(&self, name: &str, role: Role) -> PathBuf {
        let file = self.folder.path().join(format!("{name}.token"));
        let path = file.display().to_string();
        self.cli.ok(&["node", "token", "create", role.word(), "--name", name, "--out", &path]).await;
        file
    }

    /// A new control node: joined, added, promoted, ready.
    pub async fn add_voter(&mut self, name: &str) {
        self.place(name, Role::Control).await;
        self.join_voter(name).await;
    }

    async fn join_voter(&mut self, name: &str) {
        let token = self.token(name, Role::Control).await;
        self.configure(name, Some(&token));
        self.launch(name);
        self.until_health(name, "/livez", 200).await;
        until(&format!("{name} to be added"), async || {
            let run = self.cli.pipe(b"", &["cluster", "add", name]).await;
            if run.code == 0 { Ok(()) } else { Err(run.stderr) }
        })
        .await;
        self.cli.ok(&["cluster", "promote", name]).await;
        self.until_health(name, "/readyz", 200).await;
    }

    /// A new edge: joined and ready.
    pub async fn add_edge(&mut self, name: &str) {
        self.place(name, Role::Edge).await;
        let token = self.token(name, Role::Edge).await;
        self.configure(name, Some(&token));
        self.start_node(name).await;
    }

    /// Starts a node and waits until it is ready.
    pub async fn start_node(&mut self, name: &str) {
        self.launch(name);
        self.until_health(name, "/readyz", 200).await;
    }

    /// Starts a node and does not wait.
    pub fn launch(&mut self, name: &str) {
        let log = self.logs().join(format!("{name}.log"));
        let (file, node) = (self.config_text(name), &self.nodes[name]);
        let environment: Vec<_> = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let server = Server::start(name, &[node.role.word(), "--config", &file], &environment, &log, Some(node.health));
        self.net.name(server.pid(), name);
        let node = self.node(name);
        (node.server, node.frozen) = (Some(server), false);
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).expect("the node is known")
    }

    /// Changes what the next starts find in their environment.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// A node's process.
    pub fn server(&mut self, name: &str) -> &mut Server {
        self.node(name).server.as_mut().expect("the node runs")
    }

    /// Waits until a path of a node's health port answers so.
    pub async fn until_health(&mut self, name: &str, path: &str, status: u16) {
        let server = self.server(name);
        until(&format!("{name} to answer {status} to {path}"), async || {
            let answer = server.health(path);
            if let Some(ended) = server.exited() {
                panic!("{name} ended with {ended}:\n{}", server.log());
            }
            match answer {
                Ok((got, _)) if got == status => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill(&mut self, name: &str) {
        if let Some(server) = self.node(name).server.take() {
            server.kill();
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self, name: &str) {
        let server = self.node(name).server.take().expect("the node runs");
        assert!(server.stop().await.success(), "{name} drains");
    }

    /// SIGSTOP: the process is there, and does nothing.
    pub fn freeze(&mut self, name: &str) {
        self.signal(name, Signal::STOP);
        self.node(name).frozen = true;
    }

    /// SIGCONT.
    pub fn thaw(&mut self, name: &str) {
        self.signal(name, Signal::CONT);
        self.node(name).frozen = false;
    }

    fn signal(&mut self, name: &str, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.server(name).pid()).expect("a pid")).expect("a pid is not 0");
        kill_process(pid, signal).expect("the process can be signalled");
    }

    /// Removes a node's data, keys and certificates included. It must be down.
    pub fn lose_disk(&mut self, name: &str) {
        assert!(self.node(name).server.is_none(), "{name} must be down");
        fs::remove_dir_all(self.data(name)).expect("the folder can be removed");
    }

    /// Replaces a control node that will not come back: the lost one is taken out for good, and a new one with a name, keys and an empty
    /// disk of its own stands on the same machine, at the same address.
    ///
    /// It is not revoked yet: that replaces the authority, and clients that a test holds believe the one that they began with.
    pub async fn replace_voter(&mut self, lost: &str, new: &str) {
        let node = self.nodes.remove(lost).expect("the node is known");
        drop(node.server);
        self.cli.ok(&["cluster", "remove", lost, "--yes"]).await;
        self.nodes.insert(new.to_owned(), Node { server: None, frozen: false, ..node });
        self.join_voter(new).await;
    }

    /// Replaces an edge that will not come back by a new one on the same machine.
    pub async fn replace_edge(&mut self, lost: &str, new: &str) {
        let node = self.nodes.remove(lost).expect("the node is known");
        drop(node.server);
        self.cli.ok(&["node", "revoke", lost, "--yes"]).await;
        self.nodes.insert(new.to_owned(), Node { server: None, frozen: false, ..node });
        let token = self.token(new, Role::Edge).await;
        self.configure(new, Some(&token));
        self.start_node(new).await;
    }

    /// The names of all nodes of a role.
    pub fn names(&self, role: Role) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.role == role).map(|(name, _)| name.clone()).collect()
    }

    /// The name of the node that leads.
    pub async fn leader(&self) -> String {
        until("a leader to be known", async || self.ask_leader().await).await
    }

    /// The name of the node that leads, if it can be known now.
    pub async fn try_leader(&self) -> Option<String> {
        self.ask_leader().await.ok()
    }

    async fn ask_leader(&self) -> Result<String, String> {
        let run = self.cli.quiet(&["--format", "json", "--timeout", "2s", "cluster", "status"]).await;
        let status: serde_json::Value = serde_json::from_str(&run.stdout).map_err(|_| run.stderr.clone())?;
        let members = status["members"].as_array().ok_or_else(|| run.stdout.clone())?;
        let leader = members.iter().find(|member| member["leader"] == true).ok_or_else(|| run.stdout.clone())?;
        leader["node"].as_str().map(str::to_owned).ok_or(run.stdout)
    }

    /// What a node is.
    pub fn role(&self, name: &str) -> Role {
        self.nodes[name].role
    }

    /// Whether a node runs, is not frozen, and is not cut off.
    pub fn is_well(&self, name: &str) -> bool {
        self.nodes[name].server.is_some() && !self.nodes[name].frozen && !self.net.is_alone(name)
    }

    /// Every node that is not well, and why.
    pub fn away(&self) -> Vec<String> {
        let why = |name: &str, node: &Node| match node {
            Node { server: None, .. } => Some("down"),
            Node { frozen: true, .. } => Some("frozen"),
            _ if self.net.is_alone(name) => Some("cut off"),
            _ => None,
        };
        self.nodes.iter().filter_map(|(name, node)| why(name, node).map(|why| format!("{name} ({why})"))).collect()
    }

    /// Where the control nodes are reached.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.values().filter(|node| node.role == Role::Control).map(|node| node.relay.to_string()).collect()
    }

    /// Whatever is the matter with a node: afterwards it runs, is reached, and is ready.
    pub async fn repair(&mut self, name: &str) {
        self.net.mend();
        if self.nodes[name].frozen {
            self.thaw(name);
        }
        match self.node(name).server {
            None => self.start_node(name).await,
            Some(_) => self.until_health(name, "/readyz", 200).await,
        }
    }

    /// The operator's account, which exists once [`start`](Self::start) is done.
    pub const ACCOUNT: &'static str = ACCOUNT;

    /// Where a node itself listens, past its relay.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.nodes[name].grpc
    }

    /// The authority that a client must believe, and the first operator's token.
    pub fn credentials(&self) -> (String, String) {
        let contexts = cli::Contexts::load(&self.folder.path().join("cli/contexts.toml")).expect("the context");
        let context = &contexts.contexts[CONTEXT];
        (context.ca.clone(), context.token.clone())
    }

    /// The first operator, at every control node in turn.
    pub fn operator(&self) -> Operator {
        let controls = self.names(Role::Control);
        self.operator_at(&controls.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The first operator, at these control nodes in turn, past the relays.
    pub fn operator_at(&self, names: &[&str]) -> Operator {
        self.operator_over(names, 1)
    }

    /// The same, with so many connections to each.
    pub fn operator_over(&self, names: &[&str], connections: usize) -> Operator {
        let addresses = names.iter().map(|name| self.nodes[*name].grpc.to_string());
        let (ca_pem, token) = self.credentials();
        let tls = Tls { ca_pem, identity: None, server_name: None };
        let token = Token::new(token).expect("a token");
        Operator::new(Client::new(Config::tls(addresses, tls).token(token).connections(connections)).expect("a client"), ACCOUNT)
    }

    /// The usual consumer at an edge's socket, known by this process's uid. It asks once.
    pub fn reader(&self, name: &str) -> Reader {
        self.reader_over(name, 1)
    }

    /// The same, with so many connections.
    pub fn reader_over(&self, name: &str, connections: usize) -> Reader {
        let config = Config::unix(self.socket(name)).retries(Retries::NONE).connections(connections);
        Reader::new(Client::new(config).expect("a client"), ACCOUNT)
    }

    /// Readers at all edges.
    pub fn readers(&self) -> Vec<(String, Reader)> {
        self.names(Role::Edge).into_iter().map(|name| (name.clone(), self.reader(&name))).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A test that fails has its own reason, and shows what its servers printed.
        if !std::thread::panicking() {
            let nodes: Vec<_> = self.nodes.values_mut().filter_map(|node| node.server.take()).collect();
            self.canary.ends(nodes, self.folder.path());
        }
    }
}
