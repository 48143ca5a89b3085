//! `cinnabar bench scale`: what many secrets cost a control node and an edge: time to fill, to start and to bootstrap, memory and disk.
//!
//! Every node is a process of its own. With more than one voter, the control node that is looked at and started again is one that does
//! not lead; a voter that is alone elects itself first, and that counts. An edge with an empty
//! disk has kept its keys and certificate.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use cli::BenchScale;
use runtime::OsEntropy;
use seams::{Clock, Entropy};
use types::{AccountId, Position};

use super::{
    fleet::Fleet,
    ground::Ground,
    node::disk_bytes,
    records::{self, Records, SECRETS_A_CALL},
    report::{Latencies, Report, Row},
};

/// Calls at once while filling.
const FILLERS: u32 = 4;
/// The edge.
const EDGE: &str = "edge-1";
const MIB: f64 = (1 << 20) as f64;
/// Bytes of snapshots that a control node has sent.
const SENT: &str = "feed_snapshot_sent_bytes_total";

/// Measures.
pub(super) async fn run(ground: &Ground, arguments: &BenchScale) -> Result<Report> {
    let &BenchScale { secrets, value_bytes, voters, .. } = arguments;
    let mut report = ground.report([
        ("nodes", format!("{voters} voters and 1 edge, each a process with its own data folder; all on this machine and its one disk")),
        ("secrets", format!("{secrets} in one account and store, one value of {value_bytes} random bytes each, not bound")),
        (
            "start",
            "from the start of the process to its first yes at /readyz, asked every 5 ms; its files are in the system's cache".to_owned(),
        ),
        ("memory", "resident, and the most it has been; what a node reads and frees again is in the latter".to_owned()),
        (
            "disk",
            "what is allocated: logs with what they preallocate, snapshots, the table written behind; of 10,000 secrets and fewer it says little".to_owned(),
        ),
    ])?;
    let mut fleet = Fleet::start(ground, voters).await?;
    fleet.grow_edges(ground, 1).await?;
    let control = follower(&fleet).await?;
    let empty = [&control, EDGE].map(|name| Figures::of(&fleet, name));

    let (row, records, last) = fill(ground, &fleet, arguments).await?;
    let began = ground.clock.monotonic();
    records.live_at(last).await?;
    let behind = ground.clock.monotonic() - began;
    report.rows.push(row.also("s until the edge has it", behind.as_secs_f64()));
    for ((what, name), empty) in [("control node, filled", control.as_str()), ("edge, filled", EDGE)].into_iter().zip(empty) {
        report.rows.push(Figures::of(&fleet, name)?.row(Row::state(what)?, secrets, Some(&empty?)));
    }

    let bar = ground.bar("starting", u64::from(ground.rounds) * 3);
    let mut measured = Vec::new();
    for _ in 0..ground.rounds {
        let mut rows = Vec::new();
        let restarted = follower(&fleet).await?;
        for (what, name) in [("control node: start to ready", restarted.as_str()), ("edge: start to ready", EDGE)] {
            fleet.stop_node(name).await?;
            rows.push(started(&mut fleet, what, name, secrets).await?);
            bar.inc(1);
        }
        fleet.stop_node(EDGE).await?;
        fleet.forget(EDGE)?;
        // What a control node has in memory for edges that lag could be all there is; after a start it has to send a snapshot.
        for name in fleet.leader_first().await?.into_iter().filter(|name| *name != restarted) {
            fleet.stop_node(&name).await?;
            fleet.start_node(&name).await?;
        }
        let sent = sent(&fleet).await?;
        let row = started(&mut fleet, "edge with an empty disk: start to ready", EDGE, secrets).await?;
        rows.push(row.also("MiB received", (self::sent(&fleet).await? - sent) / MIB));
        bar.inc(1);
        measured.push(rows);
    }
    bar.finish_and_clear();
    report.rounds(&measured);
    for (what, name) in [("control node's disk", control.as_str()), ("edge's disk", EDGE)] {
        report.fact(what, folders(&fleet.data(name))?);
    }
    Ok(report)
}

/// The voter that is looked at: one that does not lead, unless it is alone.
async fn follower(fleet: &Fleet) -> Result<String> {
    fleet.leader_first().await?.pop().context("there is no voter")
}

/// Makes the secrets; where the last of them stands.
async fn fill(ground: &Ground, fleet: &Fleet, arguments: &BenchScale) -> Result<(Row, Records, Position)> {
    let names = fleet.leader_first().await?;
    let client = ground.callers().client(|| fleet.client(&names, FILLERS as usize))?;
    let account = AccountId::from_bytes(OsEntropy.id()).to_string();
    let records = Records::begin(client.clone(), account, arguments.secrets, arguments.value_bytes).await?;
    let parts: Arc<Vec<_>> = Arc::new(records::parts(arguments.secrets).collect());
    let bar = ground.bar("filling", u64::from(arguments.secrets));
    let (clock, began) = (ground.clock, ground.clock.monotonic());
    let filled = ground.callers().run(FILLERS, |number| {
        let (records, client, parts, bar) = (records.clone(), client.clone(), parts.clone(), bar.clone());
        async move {
            let (mut latencies, mut last) = (Latencies::new()?, None);
            for numbers in parts.iter().skip(number as usize).step_by(FILLERS as usize) {
                let began = clock.monotonic();
                last = Some(records.create(&client, numbers.clone()).await?);
                latencies.record(clock.monotonic() - began);
                bar.inc(u64::from(numbers.end - numbers.start));
            }
            Ok((latencies, last))
        }
    });
    let filled = filled.await?;
    let took = clock.monotonic() - began;
    bar.finish_and_clear();
    let mut latencies = Latencies::new()?;
    filled.iter().for_each(|(one, _)| latencies.add(one));
    let last = filled.into_iter().filter_map(|(_, last)| last).max_by_key(|position| position.revision);
    let row = Row::of_calls(format!("fill, {SECRETS_A_CALL} secrets a call"), FILLERS, &latencies, 1, took);
    let rate = f64::from(arguments.secrets) / took.as_secs_f64();
    let row = Row { count: u64::from(arguments.secrets), per_second: Some(rate), ..row };
    Ok((row.also("s", took.as_secs_f64()), records, last.context("nothing was filled")?))
}

/// Starts a stopped node, and looks at it when it is ready.
async fn started(fleet: &mut Fleet, what: &str, name: &str, secrets: u32) -> Result<Row> {
    let took: Duration = fleet.start_node(name).await?;
    let mut latencies = Latencies::new()?;
    latencies.record(took);
    Ok(Figures::of(fleet, name)?.row(Row::new(what, 1, &latencies, None), secrets, None))
}

async fn sent(fleet: &Fleet) -> Result<f64> {
    let mut sum = 0.0;
    for name in fleet.leader_first().await? {
        sum += fleet.process(&name)?.metrics().await?.value(SENT);
    }
    Ok(sum)
}

/// What a node takes, in bytes.
struct Figures {
    resident: u64,
    peak: u64,
    disk: u64,
}

impl Figures {
    fn of(fleet: &Fleet, name: &str) -> Result<Self> {
        let memory = fleet.process(name)?.memory();
        Ok(Self { resident: memory.now, peak: memory.peak, disk: disk_bytes(&fleet.data(name)) })
    }

    /// A row with them, and for each secret what is more than in an empty node.
    fn row(&self, row: Row, secrets: u32, empty: Option<&Self>) -> Row {
        let row = row
            .also("MiB resident", self.resident as f64 / MIB)
            .also("MiB at most", self.peak as f64 / MIB)
            .also("MiB on disk", self.disk as f64 / MIB);
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / f64::from(secrets.max(1));
        match empty {
            None => row,
            Some(empty) => {
                row.also("B resident/secret", each(self.resident, empty.resident)).also("B on disk/secret", each(self.disk, empty.disk))
            }
        }
    }
}

/// What each part of a node's data folder takes.
fn folders(data: &Path) -> Result<String> {
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.path().is_dir() {
            sizes.insert(entry.file_name().to_string_lossy().into_owned(), disk_bytes(&entry.path()) as f64 / MIB);
        }
    }
    let sizes = sizes.into_iter().filter(|(_, mib)| *mib >= 0.1).map(|(name, mib)| format!("{name} {mib:.1} MiB"));
    Ok(sizes.collect::<Vec<_>>().join(", "))
}
