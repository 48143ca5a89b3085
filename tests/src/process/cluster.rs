//! A prepared cluster in a temporary folder: one control node and edges, each a process of its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use client::{Client, Config, Identity, Retries, Tls, Token};
use runtime::config::{self, Checks, ControlConfig, EdgeConfig, TlsFiles};
use tempfile::TempDir;

use super::{
    Cli, Operator, Ports, Reader, Server,
    clients::{ACCOUNT_NAME, CONTEXT},
    server::command,
    until,
};
use crate::canary::Canary;

/// A cluster's folder and its processes. Dropping it looks for the [`Canary`], kills them and removes the folder.
pub struct Cluster {
    canary: Canary,
    control: Option<Server>,
    edges: Vec<Option<Server>>,
    account: String,
    ports: Ports,
    // Last, so that the processes are gone before their folder.
    folder: TempDir,
}

impl Cluster {
    /// Writes keys, certificates and configurations of a control node and `edges` edges; starts nothing.
    ///
    /// # Panics
    /// When the binary refuses.
    pub fn prepare(edges: usize) -> Self {
        let folder = TempDir::with_prefix("cinnabar-").expect("a temporary folder");
        for name in ["logs", "cli"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let data = folder.path().join("data");
        let (data_text, count) = (data.display().to_string(), edges.max(1).to_string());
        let prepared = command(&["dev", "--prepare", "--data", &data_text, "--edges", &count], &[]).output().expect("the binary starts");
        assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
        let account = fs::read_to_string(data.join("account")).expect("the account's id").trim().to_owned();
        let canary = Canary::new(&folder.path().join("canary"), &folder.path().join("canary/contexts.toml"));
        let mut cluster =
            Self { canary, control: None, edges: (0..edges).map(|_| None).collect(), account, ports: Ports::default(), folder };
        cluster.move_ports();
        cluster
    }

    /// Ports that are the cluster's own: a server that is started again finds them free.
    fn move_ports(&mut self) {
        let (grpc, health) = (self.ports.claim(), self.ports.claim());
        self.configure_control(|config| (config.listen.grpc, config.listen.health) = (grpc, health));
        let control = self.control_config().listen.grpc;
        for number in 1..=self.edges.len() {
            let (grpc, health) = (self.ports.claim(), self.ports.claim());
            self.configure_edge(number, |config| {
                config.control.endpoints = vec![control.into()];
                (config.listen.grpc, config.listen.health) = (grpc, health);
            });
        }
    }

    /// A cluster of `edges` edges that all are ready.
    pub async fn start(edges: usize) -> Self {
        let mut cluster = Self::prepare(edges);
        cluster.start_control().await;
        for number in 1..=edges {
            cluster.start_edge(number).await;
            cluster.canary.read(&cluster.edge_config(number).listen.unix.path).await;
        }
        cluster
    }

    /// What is looked for when the cluster ends. It is written when the control node starts for the first time.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// The folder with everything that the servers keep: data, keys, certificates, configurations, sockets.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder with all that the servers printed.
    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// The folder of the command line's context file.
    pub fn cli_folder(&self) -> PathBuf {
        self.folder.path().join("cli")
    }

    /// The data folder of an edge. Edges count from 1.
    pub fn edge_data(&self, number: usize) -> PathBuf {
        self.edge_config(number).node.data_dir
    }

    /// The account that the uid of this process may read in, at every edge's socket.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The control node's configuration.
    pub fn control_config(&self) -> ControlConfig {
        config::load(&self.control_file()).expect("a valid configuration")
    }

    /// An edge's configuration.
    pub fn edge_config(&self, number: usize) -> EdgeConfig {
        config::load(&self.edge_file(number)).expect("a valid configuration")
    }

    /// Changes the control node's configuration, for its next start.
    pub fn configure_control(&self, change: impl FnOnce(&mut ControlConfig)) {
        configure(&self.control_file(), change);
    }

    /// Changes an edge's configuration, for its next start.
    pub fn configure_edge(&self, number: usize, change: impl FnOnce(&mut EdgeConfig)) {
        configure(&self.edge_file(number), change);
    }

    /// The control node's configuration file.
    pub fn control_file(&self) -> PathBuf {
        self.data().join("control.toml")
    }

    /// An edge's configuration file.
    pub fn edge_file(&self, number: usize) -> PathBuf {
        self.data().join(format!("edge-{number}.toml"))
    }

    /// Starts the control node and waits until it is ready.
    pub async fn start_control(&mut self) {
        let health = self.control_config().listen.health;
        self.control = Some(self.server("control", &self.control_file(), health).await);
        if !self.canary.is_written() {
            self.add_context(&self.canary.cli()).await;
            self.canary.write().await;
        }
    }

    /// Starts an edge and waits until it is ready.
    pub async fn start_edge(&mut self, number: usize) {
        let health = self.edge_config(number).listen.health;
        self.edges[number - 1] = Some(self.server(&format!("edge-{number}"), &self.edge_file(number), health).await);
    }

    /// Starts an edge that cannot become ready, and waits until its socket answers.
    pub async fn launch_edge(&mut self, number: usize) -> Reader {
        let (name, health) = (format!("edge-{number}"), self.edge_config(number).listen.health);
        let (file, log) = (self.edge_file(number).display().to_string(), self.logs().join(format!("{name}.log")));
        let server = Server::start(&name, &["edge", "--config", &file], &[], &log, Some(health));
        until("the edge to answer", async || server.health("/livez").map_err(|error| format!("{error}: {}", server.log()))).await;
        self.edges[number - 1] = Some(server);
        self.reader(number)
    }

    async fn server(&self, name: &str, file: &Path, health: SocketAddr) -> Server {
        let log = self.logs().join(format!("{name}.log"));
        let role = if name == "control" { "control" } else { "edge" };
        let mut server = Server::start(name, &[role, "--config", &file.display().to_string()], &[], &log, Some(health));
        server.becomes_ready().await;
        server
    }

    /// The control node's process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn control(&self) -> &Server {
        self.control.as_ref().expect("the control node runs")
    }

    /// An edge's process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn edge(&self, number: usize) -> &Server {
        self.edges[number - 1].as_ref().expect("the edge runs")
    }

    /// The control node's process, out of the cluster's hands.
    ///
    /// # Panics
    /// When it does not run.
    pub fn take_control(&mut self) -> Server {
        self.control.take().expect("the control node runs")
    }

    /// An edge's process, out of the cluster's hands.
    ///
    /// # Panics
    /// When it does not run.
    pub fn take_edge(&mut self, number: usize) -> Server {
        self.edges[number - 1].take().expect("the edge runs")
    }

    /// All processes that run.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.control.iter().chain(self.edges.iter().flatten())
    }

    /// The CA certificate.
    pub fn ca_pem(&self) -> String {
        read(&self.data().join("tls/ca.pem"))
    }

    /// The first operator's token.
    pub fn operator_token(&self) -> String {
        read(&self.data().join("keys/operator.token")).trim().to_owned()
    }

    /// The first operator.
    pub fn operator(&self) -> Operator {
        let config = self.control_client(Some(&self.operator_token()), None);
        Operator::new(Client::new(config).expect("a client"), &self.account)
    }

    /// A client of the control node, to be completed: with this token, this certificate.
    pub fn control_client(&self, token: Option<&str>, certificate: Option<&TlsFiles>) -> Config {
        self.over_tls(self.control_config().listen.grpc, token, certificate)
    }

    /// A client of an edge's TLS port, to be completed: with this token, this certificate.
    pub fn edge_client(&self, number: usize, token: Option<&str>, certificate: Option<&TlsFiles>) -> Config {
        self.over_tls(self.edge_config(number).listen.grpc, token, certificate)
    }

    fn over_tls(&self, address: SocketAddr, token: Option<&str>, certificate: Option<&TlsFiles>) -> Config {
        let identity = certificate.map(|files| Identity { certificate_pem: read(&files.cert), key_pem: read(&files.key).into() });
        with_token(Config::tls([address.to_string()], Tls { ca_pem: self.ca_pem(), identity, server_name: None }), token)
    }

    /// A client of an edge's socket, to be completed.
    pub fn socket_client(&self, number: usize, token: Option<&str>) -> Config {
        with_token(Config::unix(self.edge_config(number).listen.unix.path), token)
    }

    /// The usual consumer at an edge's socket, known by this process's uid. It asks once: what it is told is what the edge said.
    pub fn reader(&self, number: usize) -> Reader {
        let config = self.socket_client(number, None).retries(Retries::NONE);
        Reader::new(Client::new(config).expect("a client"), &self.account)
    }

    /// The command line, with the context of the first operator. The control node must have been started once.
    pub async fn cli(&self) -> Cli {
        let cli = Cli::new(&self.cli_folder(), &self.cli_folder().join("contexts.toml")).heard_by(self.canary.heard());
        self.add_context(&cli).await;
        cli
    }

    async fn add_context(&self, cli: &Cli) {
        let (address, ca) = (self.control_config().listen.grpc.to_string(), self.data().join("tls/ca.pem").display().to_string());
        let add = ["context", "add", CONTEXT, "--control", &address, "--ca", &ca, "--account", &self.account];
        let run = cli.pipe(self.operator_token().as_bytes(), &add).await;
        assert_eq!(run.code, 0, "{run:?}");
    }

    /// The name of the account that [`Operator::found`] makes.
    pub const ACCOUNT_NAME: &'static str = ACCOUNT_NAME;
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test that fails has its own reason, and shows what its servers printed.
        if !std::thread::panicking() {
            let nodes: Vec<_> = self.control.take().into_iter().chain(self.edges.drain(..).flatten()).collect();
            self.canary.ends(nodes, self.folder.path());
        }
    }
}

fn with_token(config: Config, token: Option<&str>) -> Config {
    match token {
        Some(token) => config.token(Token::new(token.to_owned()).expect("a token")),
        None => config,
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn configure<C: Checks>(file: &Path, change: impl FnOnce(&mut C)) {
    let mut configuration: C = config::load(file).expect("a valid configuration");
    change(&mut configuration);
    fs::write(file, config::render(&configuration).expect("a configuration can be written")).expect("the file can be written");
}
