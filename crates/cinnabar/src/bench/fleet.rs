//! A cluster of processes, grown as an operator grows one: founded by `cluster init`, joined by token, each node with a data folder of
//! its own below the bench's. All of them share this machine and one disk.
//!
//! **Invariants**
//! 1. No node outlives the fleet: dropping it, also when the bench is interrupted, kills every process.
//! 2. Nothing of the person who measures is touched: the context file and the recovery key lie in the bench's folder too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use client::{Client, Config, Tls, Token};
use runtime::{OsEntropy, RealClock};
use seams::{Clock, Entropy};
use wire::v1;

use super::{
    ground::Ground,
    node::{self, Process},
};

/// Below the ports that the system gives to outgoing connections (from 32768 on, on Linux).
const PORTS: std::ops::Range<u16> = 10_000..30_000;
/// Ports that are tried before giving up.
const PORT_TRIES: u32 = 1000;
/// The context that `cluster init` writes.
const CONTEXT: &str = "bench";
/// Edges that start at once.
const EDGES_AT_ONCE: usize = 8;
/// From so many edges on, their logs have small segments: else what they preallocate would fill the disk.
const MANY_EDGES: usize = 10;
/// How long a change of members may take, and the pause between attempts.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);
const CHANGE_PAUSE: Duration = Duration::from_millis(200);

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Control,
    Edge,
}

struct Node {
    role: Role,
    grpc: SocketAddr,
    health: SocketAddr,
    process: Option<Process>,
}

/// The nodes, by name.
pub(super) struct Fleet {
    nodes: BTreeMap<String, Node>,
    folder: PathBuf,
    taken: BTreeSet<u16>,
    clock: RealClock,
    operator: Option<(String, Token)>,
}

impl Fleet {
    /// So many voters, ready.
    pub(super) async fn start(ground: &Ground, voters: u8) -> Result<Self> {
        let bar = ground.bar("starting voters", u64::from(voters));
        let folder = ground.folder().join("fleet");
        fs::create_dir(&folder)?;
        let mut fleet = Self { nodes: BTreeMap::new(), folder, taken: BTreeSet::new(), clock: ground.clock, operator: None };
        fleet.found().await?;
        bar.inc(1);
        for number in 2..=voters {
            fleet.add_voter(format!("control-{number}")).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(fleet)
    }

    async fn found(&mut self) -> Result<()> {
        let name = self.place("control-1".to_owned(), Role::Control)?;
        self.configure(&name, None, 0)?;
        let (config, recovery) = (self.path(&name, "toml"), self.folder.join("recovery.key"));
        let (config, recovery) = (config.display().to_string(), recovery.display().to_string());
        let contexts = self.folder.join("contexts.toml");
        let init = ["--context", CONTEXT, "cluster", "init", "--config", &config, "--recovery-key-file", &recovery];
        node::run(&init, &contexts).await?;
        let contexts = cli::Contexts::load(&contexts)?;
        let context = contexts.contexts.get(CONTEXT).context("`cluster init` left no context")?;
        self.operator = Some((context.ca.clone(), Token::new(context.token.clone())?));
        self.start_node(&name).await.map(drop)
    }

    async fn add_voter(&mut self, name: String) -> Result<()> {
        let name = self.place(name, Role::Control)?;
        let token = self.join_token(&name, v1::NodeRole::Control, 1).await?;
        self.configure(&name, Some(&token), 0)?;
        let mut process = self.launch(&name)?;
        process.until("/livez").await?;
        let operator = self.client(&self.leader_first().await?, 1)?;
        let request = v1::ClusterAddRequest { node: name.clone(), ..Default::default() };
        self.changed(async || operator.cluster_add(request.clone()).await).await?;
        let request = v1::ClusterPromoteRequest { node: name.clone() };
        self.changed(async || operator.cluster_promote(request.clone()).await).await?;
        process.until("/readyz").await?;
        self.node(&name)?.process = Some(process);
        Ok(())
    }

    /// Adds edges until there are so many, all of them ready.
    pub(super) async fn grow_edges(&mut self, ground: &Ground, edges: u16) -> Result<()> {
        let (there, wanted) = (self.names(Role::Edge).len(), usize::from(edges));
        if wanted <= there {
            return Ok(());
        }
        let bar = ground.bar("starting edges", (wanted - there) as u64);
        let token = self.join_token("edges", v1::NodeRole::Edge, u32::from(edges)).await?;
        let names = (there + 1..=wanted).map(|number| self.place(format!("edge-{number}"), Role::Edge)).collect::<Result<Vec<_>>>()?;
        for names in names.chunks(EDGES_AT_ONCE) {
            let mut started = Vec::new();
            for name in names {
                self.configure(name, Some(&token), wanted)?;
                started.push((name, self.launch(name)?));
            }
            for (name, mut process) in started {
                process.until("/readyz").await?;
                self.node(name)?.process = Some(process);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// A client of these control nodes, the first of them preferred.
    pub(super) fn client(&self, names: &[String], connections: usize) -> Result<Client> {
        let (ca_pem, token) = self.operator.clone().context("the cluster was not founded")?;
        let addresses = names.iter().filter_map(|name| self.nodes.get(name)).map(|node| node.grpc.to_string());
        let config = Config::tls(addresses, Tls { ca_pem, ..Tls::default() }).token(token).connections(connections);
        Ok(Client::new(config)?)
    }

    /// The voters, the leader first.
    pub(super) async fn leader_first(&self) -> Result<Vec<String>> {
        let mut names = self.names(Role::Control);
        names.retain(|name| self.process(name).is_ok());
        let operator = self.client(&names, 1)?;
        let deadline = self.clock.monotonic() + CHANGE_WITHIN;
        loop {
            let reply = operator.cluster_status(v1::ClusterStatusRequest {}).await.context("cannot ask who leads")?;
            let leader = reply.members.into_iter().filter_map(|status| status.member).find(|member| member.leader);
            if let Some(leader) = leader {
                names.sort_by_key(|name| *name != leader.name);
                return Ok(names);
            }
            if self.clock.monotonic() > deadline {
                bail!("nobody leads");
            }
            self.clock.sleep(CHANGE_PAUSE).await;
        }
    }

    /// A running node.
    pub(super) fn process(&self, name: &str) -> Result<&Process> {
        self.nodes.get(name).and_then(|node| node.process.as_ref()).with_context(|| format!("{name} does not run"))
    }

    /// A node's data folder.
    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts a node; how long it took to be ready.
    pub(super) async fn start_node(&mut self, name: &str) -> Result<Duration> {
        let mut process = self.launch(name)?;
        let took = process.until("/readyz").await?;
        self.node(name)?.process = Some(process);
        Ok(took)
    }

    /// Ends a node as an operator does.
    pub(super) async fn stop_node(&mut self, name: &str) -> Result<()> {
        match self.node(name)?.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// Removes all that a stopped node has stored, but for its keys and certificate.
    pub(super) fn forget(&self, name: &str) -> Result<()> {
        for entry in fs::read_dir(self.data(name))? {
            let path = entry?.path();
            match path.file_name() {
                Some(kept) if kept == "identity" => {}
                _ if path.is_dir() => fs::remove_dir_all(&path)?,
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(())
    }

    fn names(&self, role: Role) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.role == role).map(|(name, _)| name.clone()).collect()
    }

    fn node(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.get_mut(name).with_context(|| format!("there is no {name}"))
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }

    fn launch(&self, name: &str) -> Result<Process> {
        let node = self.nodes.get(name).with_context(|| format!("there is no {name}"))?;
        let role = if node.role == Role::Control { "control" } else { "edge" };
        let config = self.path(name, "toml").display().to_string();
        Process::start(&[role, "--config", &config], &self.path(name, "log"), node.health, self.clock)
    }

    /// Chooses ports for a new node. An edge's gRPC is asked by nobody.
    fn place(&mut self, name: String, role: Role) -> Result<String> {
        let grpc = if role == Role::Control { self.port()? } else { (Ipv4Addr::LOCALHOST, 0).into() };
        let health = self.port()?;
        self.nodes.insert(name.clone(), Node { role, grpc, health, process: None });
        Ok(name)
    }

    fn port(&mut self) -> Result<SocketAddr> {
        for _ in 0..PORT_TRIES {
            let mut bytes = [0; 2];
            OsEntropy.fill(&mut bytes);
            let port = PORTS.start + u16::from_be_bytes(bytes) % (PORTS.end - PORTS.start);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() && self.taken.insert(port) {
                return Ok(address);
            }
        }
        bail!("no free port of loopback from {} to {}", PORTS.start, PORTS.end)
    }

    /// Writes a node's configuration file. `edges`: how many edges there will be.
    fn configure(&self, name: &str, token: Option<&Path>, edges: usize) -> Result<()> {
        let node = self.nodes.get(name).with_context(|| format!("there is no {name}"))?;
        let others = self.nodes.iter().filter(|(other, node)| node.role == Role::Control && *other != name);
        let endpoints = others.map(|(_, node)| format!("{:?}", node.grpc.to_string())).collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "[node]\nname = {name:?}\ndata_dir = {:?}\n\n[log]\nfilter = \"warn\"\n\n[listen]\ngrpc = \"{}\"\nhealth = \"{}\"\n",
            self.data(name),
            node.grpc,
            node.health
        );
        if node.role == Role::Edge {
            text +=
                &format!("unix = {{ path = {:?}, mode = \"0600\" }}\n\n[control]\nendpoints = [{endpoints}]\n", self.path(name, "sock"));
        }
        if node.role == Role::Control {
            // What is measured is what the cluster takes, not what one token may.
            text += "\n[rates]\nwrites_per_second = 0\n";
        }
        if edges >= MANY_EDGES {
            text += "\n[limits]\nlog_segment_bytes = \"4MiB\"\n";
        }
        if let Some(token) = token {
            text += &format!("\n[join]\ntoken_file = {token:?}\nendpoints = [{endpoints}]\n");
        }
        fs::write(self.path(name, "toml"), text).with_context(|| format!("cannot write the configuration of {name}"))
    }

    /// A file with a join token for so many nodes.
    async fn join_token(&self, name: &str, role: v1::NodeRole, uses: u32) -> Result<PathBuf> {
        let operator = self.client(&self.leader_first().await?, 1)?;
        let request = v1::CreateJoinTokenRequest { role: role.into(), uses, ..Default::default() };
        let reply = operator.create_join_token(request).await.context("cannot make a join token")?;
        let (file, token) = (self.path(name, "token"), zeroize::Zeroizing::new(reply.token));
        runtime::write_secret_file(&file, token.as_bytes())?;
        Ok(file)
    }

    /// Makes a change of members, again while it is refused: a node that has just joined may not be heard of yet.
    async fn changed<T, E>(&self, change: impl AsyncFn() -> Result<T, E>) -> Result<T>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let deadline = self.clock.monotonic() + CHANGE_WITHIN;
        loop {
            match change().await {
                Ok(done) => return Ok(done),
                Err(error) if self.clock.monotonic() > deadline => return Err(error).context("cannot change the members"),
                Err(_) => self.clock.sleep(CHANGE_PAUSE).await,
            }
        }
    }
}
