//! A control node and edges in this process, from prepared files.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use client::{Client, Config, Tls, Token};
use control::{Control, ControlOptions};
use edge::{Edge, EdgeOptions};
use runtime::{
    config::{self, EdgeConfig},
    telemetry::Metrics,
};
use seams::Disk;
use zeroize::Zeroizing;

use crate::prepare::Prepared;

/// How long nodes get to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Who measures a cluster from within; nobody, when nothing is measured.
#[derive(Clone, Default)]
pub(crate) struct Watchers {
    /// In place of the machine's disk.
    pub(crate) disk: Option<Arc<dyn Disk>>,
    /// Of the control node.
    pub(crate) control: Option<Arc<dyn control::Observer>>,
    /// Of the edges, by number.
    pub(crate) edges: Vec<Arc<dyn edge::Observer>>,
}

/// The running nodes.
pub(crate) struct Cluster {
    prepared: Prepared,
    metrics: Metrics,
    watchers: Watchers,
    pub(crate) control: Control,
    /// None while an edge is down.
    pub(crate) edges: Vec<Option<Edge>>,
}

impl Cluster {
    /// Starts the control node, then the edges.
    pub(crate) async fn start(prepared: Prepared, metrics: Metrics) -> Result<Self> {
        Self::start_watched(prepared, metrics, Watchers::default(), |_| ()).await
    }

    /// As [`Cluster::start`], with watchers; `started` hears how many edges run.
    pub(crate) async fn start_watched(prepared: Prepared, metrics: Metrics, watchers: Watchers, started: impl Fn(usize)) -> Result<Self> {
        let mut options = ControlOptions::new(config::load(&prepared.control)?, metrics.clone());
        options.disk = watchers.disk.clone().unwrap_or(options.disk);
        options.observer.clone_from(&watchers.control);
        // Boxed: starting a node is a large future, and many hold it.
        let control = Box::pin(Control::start(options)).await.context("the control node did not start")?;
        let mut cluster = Self { prepared, metrics, watchers, control, edges: Vec::new() };
        for number in 0..cluster.prepared.edges.len() {
            cluster.edges.push(None);
            cluster.start_edge(number).await?;
            started(number + 1);
        }
        Ok(cluster)
    }

    /// What it was started from.
    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Starts an edge that is down.
    pub(crate) async fn start_edge(&mut self, number: usize) -> Result<()> {
        let config = self.edge_config(number)?;
        let mut options = EdgeOptions::new(config, self.metrics.clone());
        options.disk = self.watchers.disk.clone().unwrap_or(options.disk);
        options.observer = self.watchers.edges.get(number).cloned();
        let edge = Edge::start(options).await.with_context(|| format!("edge-{} did not start", number + 1))?;
        self.edges[number] = Some(edge);
        Ok(())
    }

    /// Ends an edge, leaving its disk as it is.
    pub(crate) async fn stop_edge(&mut self, number: usize) -> bool {
        match self.edges[number].take() {
            Some(edge) => {
                let _ = edge.shutdown(DRAIN).await;
                true
            }
            None => false,
        }
    }

    fn edge_config(&self, number: usize) -> Result<EdgeConfig> {
        let path = self.prepared.edges.get(number).context("no such edge")?;
        config::load(path).with_context(|| format!("cannot load {}", path.display()))
    }

    /// The edges' sockets and names.
    pub(crate) fn sockets(&self) -> Result<Vec<(String, std::path::PathBuf)>> {
        (0..self.prepared.edges.len())
            .map(|number| self.edge_config(number).map(|config| (config.node.name.to_string(), config.listen.unix.path)))
            .collect()
    }

    /// The first operator's token.
    pub(crate) fn operator_token(&self) -> Result<Zeroizing<String>> {
        let bytes = Zeroizing::new(runtime::read_secret_file(&self.prepared.operator_token)?);
        Ok(Zeroizing::new(std::str::from_utf8(&bytes).context("the operator's token file is damaged")?.trim().to_owned()))
    }

    /// The CA certificate as text.
    pub(crate) fn ca_pem(&self) -> Result<String> {
        std::fs::read_to_string(&self.prepared.ca).with_context(|| format!("cannot read {}", self.prepared.ca.display()))
    }

    /// An operator's client of the control node.
    pub(crate) fn operator(&self, connections: usize) -> Result<Client> {
        let tls = Tls { ca_pem: self.ca_pem()?, ..Tls::default() };
        let config =
            Config::tls([self.control.address().to_string()], tls).token(Token::new(self.operator_token()?)?).connections(connections);
        Ok(Client::new(config)?)
    }

    /// Ends everything.
    pub(crate) async fn stop(mut self) {
        for number in 0..self.edges.len() {
            self.stop_edge(number).await;
        }
        self.control.shutdown(DRAIN).await;
    }
}

/// A client of an edge's socket; the peer's uid says who it is.
pub(crate) fn consumer(socket: &Path, connections: usize) -> Result<Client> {
    Ok(Client::new(Config::unix(socket).connections(connections))?)
}
