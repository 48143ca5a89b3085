//! `cinnabar bench write --voters N`: writes to a cluster of processes, each durable on a majority before it is answered.
//!
//! The writers are in this process. What the nodes do is read from their own metrics, and their time on the cores from the system.

use std::time::Duration;

use anyhow::{Context, Result};
use cli::BenchWrite;
use runtime::OsEntropy;
use seams::{Clock, Entropy};
use types::AccountId;

use super::{
    fleet::Fleet,
    ground::{Ground, Span},
    node::Metrics,
    records::{self, Records},
    report::{Report, Row},
    write::{over_tls, with_edges},
};

/// Connections for making records.
const CONNECTIONS: usize = 4;

/// Measures.
pub(super) async fn run(ground: &Ground, arguments: &BenchWrite, voters: u8) -> Result<Report> {
    let most = arguments.writers.iter().copied().max().unwrap_or(1);
    let counts = arguments.edges.iter().map(u16::to_string).collect::<Vec<_>>().join(", then ");
    let whom = if arguments.spread { "all voters in equal parts" } else { "the leader" };
    let mut report = ground.report([
        (
            "nodes",
            format!("{voters} voters and {counts} edges, each a process with its own data folder; all on this machine and its one disk"),
        ),
        ("links", "gRPC with TLS 1.3 and certificates on both sides, over loopback; every edge follows the first voter".to_owned()),
        ("writers", format!("in this process, over gRPC with TLS 1.3, by token, to {whom}; each writes its own secret, one at a time")),
        ("values", format!("{} random bytes", arguments.value_bytes)),
        ("connections", format!("{} to each node that is written to, or as many as there are writers", arguments.connections)),
        ("duration", format!("{:?} a measurement and round, after a warm-up", arguments.duration)),
    ])?;
    let mut fleet = Fleet::start(ground, voters).await?;
    let operator = fleet.client(&fleet.leader_first().await?, CONNECTIONS)?;
    let account = AccountId::from_bytes(OsEntropy.id()).to_string();
    let records = Records::begin(operator.clone(), account, most, arguments.value_bytes).await?;
    for numbers in records::parts(most) {
        records.create(&operator, numbers).await?;
    }

    let mut edges = arguments.edges.clone();
    edges.sort_unstable();
    edges.dedup();
    for edges in edges {
        fleet.grow_edges(ground, edges).await?;
        let what = with_edges("write", edges);
        let bar = ground.bar(format!("writing, {edges} edges"), u64::from(ground.rounds) * arguments.writers.len() as u64);
        let mut measured = Vec::new();
        for _ in 0..ground.rounds {
            let mut rows = Vec::new();
            for &writers in &arguments.writers {
                rows.push(spanned(ground, &fleet, &records, arguments, (&what, writers)).await?);
                bar.inc(1);
            }
            measured.push(rows);
        }
        bar.finish_and_clear();
        report.rounds(&measured);
    }
    Ok(report)
}

/// All writers for one span, and what the voters did meanwhile.
async fn spanned(ground: &Ground, fleet: &Fleet, records: &Records, arguments: &BenchWrite, (what, writers): (&str, u32)) -> Result<Row> {
    let voters = fleet.leader_first().await?;
    let asked = if arguments.spread { voters.as_slice() } else { &voters[..1] };
    let connections = writers.min(arguments.connections) as usize;
    let clients = asked.iter().map(|name| ground.callers().client(|| fleet.client(std::slice::from_ref(name), connections)));
    let clients = clients.collect::<Result<Vec<_>>>()?;
    let before = Counts::of(fleet, &voters).await?;
    let span = Span::starting(ground.clock.monotonic(), arguments.duration);
    let tally = ground.callers().tally(writers, |number| {
        let client = clients[number as usize % clients.len()].clone();
        over_tls(client, records.clone(), number, ground.clock, span)
    });
    let all = tally.await?;
    let did: Vec<Counts> = Counts::of(fleet, &voters).await?.into_iter().zip(before).map(|(after, before)| after.since(&before)).collect();

    let (leader, followers) = did.split_first().context("there is no voter")?;
    let writes = all.all.max(1) as f64;
    let mean = |figure: fn(&Counts) -> f64| followers.iter().map(figure).sum::<f64>() / followers.len().max(1) as f64;
    let row = Row::new(what, writers, &all.latencies, Some(span.length()))
        .also("leader commit us", leader.commit_seconds / leader.commits.max(1.0) * 1e6)
        .also("entries/fsync", writes / leader.raft_syncs.max(1.0))
        .also("leader fsyncs/write", leader.raft_syncs / writes)
        .also("all fsyncs/write", did.iter().map(|counts| counts.syncs).sum::<f64>() / writes)
        .also("leader cpu us", leader.processor.as_secs_f64() * 1e6 / writes);
    Ok(match followers {
        [] => row,
        _ => row
            .also("follower fsyncs/write", mean(|counts| counts.raft_syncs) / writes)
            .also("follower cpu us", mean(|counts| counts.processor.as_secs_f64()) * 1e6 / writes),
    })
}

/// What a voter has done so far.
struct Counts {
    /// Fdatasyncs of its Raft log.
    raft_syncs: f64,
    /// Every fdatasync, those of the audit log and of marks included.
    syncs: f64,
    /// Commands that it proposed, and the time from propose to applied.
    commits: f64,
    commit_seconds: f64,
    processor: Duration,
}

impl Counts {
    async fn of(fleet: &Fleet, voters: &[String]) -> Result<Vec<Self>> {
        let mut counts = Vec::with_capacity(voters.len());
        for name in voters {
            let process = fleet.process(name)?;
            counts.push(Self::read(&process.metrics().await?, process.processor_time()));
        }
        Ok(counts)
    }

    fn read(metrics: &Metrics, processor: Duration) -> Self {
        Self {
            raft_syncs: metrics.value("log_groups_total{log=\"raft\"}"),
            syncs: metrics.value("disk_syncs_total"),
            commits: metrics.value("consensus_commit_seconds_count"),
            commit_seconds: metrics.value("consensus_commit_seconds_sum"),
            processor,
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            raft_syncs: self.raft_syncs - before.raft_syncs,
            syncs: self.syncs - before.syncs,
            commits: self.commits - before.commits,
            commit_seconds: self.commit_seconds - before.commit_seconds,
            processor: self.processor.saturating_sub(before.processor),
        }
    }
}
