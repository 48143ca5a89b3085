//! Many edges in this process, each with its own identity, connection, log and table, joined by one token to a cluster of processes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use edge::{Edge, EdgeOptions, Observer};
use enrol::{JoinOptions, Layout};
use runtime::{OsEntropy, RealClock, RealDisk, config::EdgeConfig, telemetry};
use seams::{Clock, Disk};
use state::record::NodeRole;
use tokio::sync::Notify;
use types::Position;
use wire::v1;

use super::ours::Ours;
use crate::process::PATIENCE;

/// Edges that join at once.
const AT_ONCE: usize = 8;

/// What becomes of a change at an edge.
#[derive(Clone, Copy)]
pub(super) enum Moment {
    Verified,
    Readable,
}

/// What an edge has seen, in order: how far it was at which time.
#[derive(Default)]
struct Seen([Mutex<Vec<(Position, Duration)>>; 2]);

impl Seen {
    /// When it first was at `position` or later.
    fn at(&self, moment: Moment, position: Position) -> Option<Duration> {
        let list = self.0[moment as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let first = list.partition_point(|(seen, _)| *seen < position);
        list.get(first).map(|(_, at)| *at)
    }
}

struct Watcher {
    clock: RealClock,
    seen: Arc<Seen>,
    moved: Arc<Notify>,
}

impl Watcher {
    fn note(&self, moment: Moment, position: Position) {
        let now = self.clock.monotonic();
        self.seen.0[moment as usize].lock().unwrap_or_else(PoisonError::into_inner).push((position, now));
        self.moved.notify_one();
    }
}

impl Observer for Watcher {
    fn verified(&self, position: Position) {
        self.note(Moment::Verified, position);
    }

    fn readable(&self, position: Position) {
        self.note(Moment::Readable, position);
    }
}

/// The running edges. Their folder goes with them.
pub(super) struct Edges {
    edges: Vec<Edge>,
    seen: Vec<Arc<Seen>>,
    moved: Arc<Notify>,
    clock: RealClock,
    _folder: tempfile::TempDir,
}

impl Edges {
    /// So many, all of them with what the cluster has. Their data lies below `data`.
    pub(super) async fn start(ours: &Ours, count: u32, data: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix(".edges-").tempdir_in(data).expect("a temporary folder");
        let operator = ours.operator(1).await;
        let request = v1::CreateJoinTokenRequest { role: v1::NodeRole::Edge.into(), uses: count, ..Default::default() };
        let token = operator.client.create_join_token(request).await.expect("a join token").token;
        let mut edges = Self { edges: Vec::new(), seen: Vec::new(), moved: Arc::default(), clock: RealClock::new(), _folder: folder };
        let numbers: Vec<u32> = (1..=count).collect();
        for numbers in numbers.chunks(AT_ONCE) {
            let starting = numbers.iter().map(|number| edges.one(ours, *number, &token));
            let started: Vec<_> = futures::future::join_all(starting).await;
            for (edge, seen) in started {
                edges.edges.push(edge);
                edges.seen.push(seen);
            }
        }
        let (_, position) = operator.set(&super::run::key(0), b"first").await;
        edges.all_readable(position).await;
        edges
    }

    async fn one(&self, ours: &Ours, number: u32, token: &str) -> (Edge, Arc<Seen>) {
        /// One recorder for all.
        static METRICS: OnceLock<telemetry::Metrics> = OnceLock::new();
        let metrics = METRICS.get_or_init(|| telemetry::init_metrics().expect("a recorder of metrics")).clone();
        let config = self.config(ours, number);
        let layout = Layout::edge(&config);
        RealDisk.create_dir_all(&config.node.data_dir).expect("a folder");
        let file = config.node.data_dir.join("token");
        runtime::write_secret_file(&file, token.as_bytes()).expect("a file");
        let options = JoinOptions {
            layout: &layout,
            token: &enrol::read_token(&file).expect("a token"),
            endpoints: &config.control.endpoints,
            role: NodeRole::Edge,
            name: &config.node.name,
            names: &config.certificate_names(),
            address: None,
            signing_key: None,
            clock: &self.clock,
            entropy: &OsEntropy,
            disk: &RealDisk,
        };
        Box::pin(enrol::join(&options)).await.expect("the edge joins");
        let seen = Arc::new(Seen::default());
        let watcher = Watcher { clock: self.clock, seen: seen.clone(), moved: self.moved.clone() };
        let options = EdgeOptions { observer: Some(Arc::new(watcher)), ..EdgeOptions::new(config, metrics) };
        (Edge::start(options).await.expect("the edge starts"), seen)
    }

    fn config(&self, ours: &Ours, number: u32) -> EdgeConfig {
        let folder: PathBuf = self._folder.path().join(number.to_string());
        std::fs::create_dir(&folder).expect("a folder");
        let endpoints = ours.fleet.endpoints().iter().map(|address| format!("{address:?}")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "[node]\nname = \"bench-{number}\"\ndata_dir = {:?}\n\n[listen]\ngrpc = \"127.0.0.1:1\"\nhealth = \"127.0.0.1:2\"\nunix = {{ path = {:?}, mode = \"0600\" }}\n\n\
             [control]\nendpoints = [{endpoints}]\n\n[limits]\nlog_segment_bytes = \"4MiB\"\n",
            folder.join("data"),
            folder.join("sock"),
        );
        let file = folder.join("edge.toml");
        std::fs::write(&file, text).expect("a file");
        let mut config: EdgeConfig = runtime::config::load(&file).expect("a configuration");
        // Ports that the system chooses: nobody asks these edges.
        config.listen.grpc.set_port(0);
        config.listen.health.set_port(0);
        config
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Waits until lookups at every edge see `position`.
    pub(super) async fn all_readable(&self, position: Position) {
        let all = async {
            for seen in &self.seen {
                while seen.at(Moment::Readable, position).is_none() {
                    self.moved.notified().await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("every edge gets there");
    }

    /// When each edge was at `position`.
    pub(super) fn moments(&self, moment: Moment, position: Position) -> impl Iterator<Item = Duration> {
        self.seen.iter().filter_map(move |seen| seen.at(moment, position))
    }

    pub(super) async fn stop(self) {
        let stopping = self.edges.into_iter().map(|edge| edge.shutdown(PATIENCE));
        futures::future::join_all(stopping).await.into_iter().for_each(|ended| ended.expect("the edge drains"));
    }
}
