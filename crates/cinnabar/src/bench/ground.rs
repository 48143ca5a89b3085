//! What every bench stands on: a temporary folder on a real disk, whole nodes with real sockets and TLS, and callers on threads of
//! their own, so that a call is handed from thread to thread as it would be from process to process.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use cli::{BenchCommon, Global};
use client::Client;
use indicatif::{ProgressBar, ProgressStyle};
use runtime::{RealClock, telemetry::Metrics};
use seams::Clock;
use tempfile::TempDir;

use super::{
    disk::{self, CountingDisk},
    machine,
    report::{Latencies, Report},
};
use crate::{
    cluster::{Cluster, Watchers},
    prepare::{self, Ports},
};

/// How often the folder of an interrupted bench is tried to be removed, and the pause between.
const ABANDON_TRIES: u32 = 20;
const ABANDON_PAUSE: Duration = Duration::from_millis(50);

/// Where a bench runs, and what it runs with.
pub(super) struct Ground {
    pub(super) clock: RealClock,
    pub(super) disk: CountingDisk,
    pub(super) rounds: u32,
    folder: TempDir,
    metrics: Metrics,
    quiet: bool,
    callers: Callers,
}

impl Ground {
    /// Makes the temporary folder. The process must be set up.
    pub(super) fn new(global: &Global, common: &BenchCommon, metrics: Metrics) -> Result<Self> {
        let within = common.data.canonicalize().with_context(|| format!("cannot find {}: make the folder first", common.data.display()))?;
        let folder = tempfile::Builder::new().prefix(".cinnabar-bench-").tempdir_in(&within);
        let folder = folder.with_context(|| format!("cannot make a temporary folder in {}: name another by --data", within.display()))?;
        let clock = RealClock::new();
        Ok(Self {
            disk: CountingDisk::new(clock)?,
            clock,
            rounds: common.rounds,
            folder,
            metrics,
            quiet: global.quiet,
            callers: Callers::new()?,
        })
    }

    /// Where everything lies.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A report with what is true of every bench, the bare disk's own speed among it.
    pub(super) fn report(&self, setup: impl IntoIterator<Item = (&'static str, String)>) -> Result<Report> {
        let mut report = Report::new([
            ("disk", format!("{}, one disk under every node of this bench", machine::file_system(self.folder.path()))),
            ("durability", "on: fdatasync before every acknowledgement; at an edge before a value is shown".to_owned()),
        ]);
        setup.into_iter().for_each(|(name, fact)| report.fact(name, fact));
        report.fact("rounds", format!("{}; each figure is the median over the rounds, counts are their sum", self.rounds));
        report.rows.push(disk::probe(self.folder.path(), &self.clock)?);
        Ok(report)
    }

    /// Starts a control node and edges in a folder of their own.
    pub(super) async fn cluster(&self, edges: u16, watchers: Watchers) -> Result<Cluster> {
        let bar = self.bar("starting edges", u64::from(edges));
        let prepared = prepare::prepare(&self.folder.path().join(format!("e{edges}")), edges, Ports::EachStart)?;
        let watchers = Watchers { disk: Some(Arc::new(self.disk.clone())), ..watchers };
        let cluster = Cluster::start_watched(prepared, self.metrics.clone(), watchers, |running| bar.set_position(running as u64)).await;
        bar.finish_and_clear();
        cluster
    }

    /// Ends a cluster and removes its files.
    pub(super) async fn end(&self, cluster: Cluster) -> Result<()> {
        let folder = cluster.prepared().control.parent().map(Path::to_owned);
        cluster.stop().await;
        match folder {
            Some(folder) => std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display())),
            None => Ok(()),
        }
    }

    /// Removes the folder from under nodes that still run: what they write meanwhile makes it take more than one try.
    pub(super) async fn abandon(self) {
        for _ in 0..ABANDON_TRIES {
            if !self.folder.path().exists() || std::fs::remove_dir_all(self.folder.path()).is_ok() {
                return;
            }
            self.clock.sleep(ABANDON_PAUSE).await;
        }
    }

    /// A bar on stderr, if that is a terminal and nobody asked for quiet.
    pub(super) fn bar(&self, what: impl Into<String>, length: u64) -> ProgressBar {
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(length) };
        // The template is a constant that parses.
        if let Ok(style) = ProgressStyle::with_template("{msg:40} {bar:32} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        bar.with_message(what.into())
    }

    /// The threads of callers.
    pub(super) fn callers(&self) -> &Callers {
        &self.callers
    }
}

/// Threads on which those run who call; the nodes have the process's own.
pub(super) struct Callers(Option<tokio::runtime::Runtime>);

impl Callers {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("callers").enable_all().build();
        Ok(Self(Some(runtime.context("cannot start the threads of callers")?)))
    }

    /// A client whose connections live on these threads.
    pub(super) fn client(&self, make: impl FnOnce() -> Result<Client>) -> Result<Client> {
        let _inside = self.handle()?.enter();
        make()
    }

    /// Runs `count` callers at once, and gives what each of them says.
    pub(super) async fn run<T, F>(&self, count: u32, caller: impl Fn(u32) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let handle = self.handle()?;
        let running: Vec<_> = (0..count).map(|number| handle.spawn(caller(number))).collect();
        let mut said = Vec::with_capacity(running.len());
        for caller in running {
            said.push(caller.await.context("a caller ended early")??);
        }
        Ok(said)
    }

    /// As [`Callers::run`], of callers that each tally what they do.
    pub(super) async fn tally<F>(&self, count: u32, caller: impl Fn(u32) -> F) -> Result<Tallies>
    where
        F: Future<Output = Result<Tally>> + Send + 'static,
    {
        let worked = machine::processor_time();
        let said = self.run(count, caller).await?;
        let worked = machine::processor_time() - worked;
        let mut latencies = Latencies::new()?;
        said.iter().for_each(|one| latencies.add(&one.latencies));
        let all: u64 = said.iter().map(|one| one.all).sum();
        Ok(Tallies { latencies, all, processor_us: worked.as_secs_f64() * 1e6 / all.max(1) as f64 })
    }

    fn handle(&self) -> Result<&tokio::runtime::Handle> {
        self.0.as_ref().map(tokio::runtime::Runtime::handle).context("the callers have ended")
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        // A runtime must not be waited for from within another.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What one caller has done: the latencies of what fell into the span, and how much there was in all.
pub(super) struct Tally {
    span: Span,
    clock: RealClock,
    latencies: Latencies,
    all: u64,
}

impl Tally {
    pub(super) fn new(span: Span, clock: RealClock) -> Result<Self> {
        Ok(Self { span, clock, latencies: Latencies::new()?, all: 0 })
    }

    /// Takes what began at a moment and has ended now. False when the span is over.
    pub(super) fn ended(&mut self, began: Duration) -> bool {
        let now = self.clock.monotonic();
        self.all += 1;
        if began >= self.span.from && now <= self.span.to {
            self.latencies.record(now - began);
        }
        now <= self.span.to
    }
}

/// All callers of one span.
pub(super) struct Tallies {
    pub(super) latencies: Latencies,
    /// All that was done, the warm-up included.
    pub(super) all: u64,
    /// The time that the cores spent in this process, for one.
    pub(super) processor_us: f64,
}

/// When a measurement begins, after its warm-up, and when it ends.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Span {
    /// Of `length` after a tenth of it, at most a second, to warm up.
    pub(super) fn starting(now: Duration, length: Duration) -> Self {
        let from = now + (length / 10).min(Duration::from_secs(1));
        Self { from, to: from + length }
    }

    pub(super) fn length(&self) -> Duration {
        self.to - self.from
    }
}
