//! `cinnabar bench propagate`: from a write to every edge.
//!
//! Edges run in this process, each with its own connection, log and table; they share its cores and its disk, which one real edge does
//! not. Times are taken where things happen: at the control node when a change is committed and applied, at each edge when it is verified
//! in memory and when it is readable (which is after it is durable there), at the control node when the edge's acknowledgement has come.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cli::BenchPropagate;
use client::Client;
use seams::Clock;

use super::{
    disk,
    ground::Ground,
    machine,
    milestones::{Mark, Milestones},
    records::Records,
    report::{Latencies, Report, Row},
};
use crate::cluster::Watchers;

/// Writes before the measured ones, so that connections, caches and files are warm.
const WARM_UP: u32 = 20;
/// Most writes on their way at a fixed rate.
const AT_ONCE: usize = 256;
/// Writes in a round whose receipt is waited for, after the others.
const RECEIPTS: u32 = 20;
/// How long a write may take to be everywhere.
const LIVE_WITHIN: Duration = Duration::from_secs(30);

/// Measures.
pub(super) async fn run(ground: &Ground, arguments: &BenchPropagate) -> Result<Report> {
    let pace = arguments.rate.map_or_else(
        || "one at a time: the next is sent when every edge has acknowledged the one before".to_owned(),
        |rate| format!("{rate} a second, whether or not the ones before have arrived"),
    );
    let mut report = ground.report([
        ("nodes", "1 voter and the edges, all in this process; gRPC streams over TLS 1.3".to_owned()),
        ("records", format!("{} secrets of {} bytes", arguments.secrets, arguments.value_bytes)),
        ("writes", format!("{} in a round; {pace}", arguments.writes)),
        ("receipts", format!("{RECEIPTS} in a round, each after the one before; their processor time is not counted")),
        ("readable", "the edge's new root is published; by then the change is durable in the edge's log".to_owned()),
    ])?;
    for &edges in &arguments.edges {
        one(ground, arguments, edges, &mut report).await.with_context(|| format!("with {edges} edges"))?;
    }
    Ok(report)
}

/// When a write was sent, when it was answered, and which change it was.
struct Write {
    sent: Duration,
    answered: Duration,
    number: u64,
}

async fn one(ground: &Ground, arguments: &BenchPropagate, edges: u16, report: &mut Report) -> Result<()> {
    let changes = (ground.rounds * (arguments.writes + RECEIPTS) + WARM_UP) as usize;
    let milestones = Milestones::new(ground.clock, edges, changes);
    let before = machine::resident_bytes();
    let watchers = Watchers { control: Some(milestones.control()), edges: milestones.edges(), ..Watchers::default() };
    let cluster = ground.cluster(edges, watchers).await?;
    let bar = ground.bar("making records", u64::from(arguments.secrets));
    let records = Records::make(&cluster, arguments.secrets, arguments.value_bytes, &bar).await?;
    records.live(&cluster).await?;
    bar.finish_and_clear();
    let resident = machine::resident_bytes().saturating_sub(before);

    let client = ground.callers().client(|| cluster.operator(1))?;
    milestones.begin(cluster.control.position());
    let bar = ground.bar(format!("writing, {edges} edges"), changes as u64);
    let sending = Sending { ground, records: &records, client: &client, milestones: &milestones, secrets: arguments.secrets };
    sending.one_by_one(0..WARM_UP).await?;
    bar.inc(u64::from(WARM_UP));
    let mut measured = Vec::new();
    let mut processor = Duration::ZERO;
    for round in 0..ground.rounds {
        let from = WARM_UP + round * (arguments.writes + RECEIPTS);
        let numbers = from..from + arguments.writes;
        let receipts = numbers.end..numbers.end + RECEIPTS;
        ground.disk.take()?;
        let (started, worked) = (ground.clock.monotonic(), machine::processor_time());
        let writes = match arguments.rate {
            None => sending.one_by_one(numbers).await?,
            Some(rate) => sending.at_rate(numbers, rate).await?,
        };
        processor += machine::processor_time() - worked;
        let elapsed = ground.clock.monotonic() - started;
        let syncs = disk::rows(&ground.disk.take()?, elapsed);
        let mut rows = rows(edges, &writes, &milestones)?;
        rows.push(Row::new("sent to receipt: live on every edge", u32::from(edges), &sending.receipts(receipts).await?, None));
        rows.extend(syncs.into_iter().map(|row| row.part_of(u32::from(edges))));
        measured.push(rows);
        bar.inc(u64::from(arguments.writes + RECEIPTS));
    }
    bar.finish_and_clear();
    report.rounds(&measured);
    let per_write = processor.as_secs_f64() * 1e6 / f64::from(ground.rounds * arguments.writes);
    report.fact(
        format!("{edges} edges"),
        format!(
            "{:.1} MiB of memory for all nodes; {per_write:.0} us of processor time a write, all nodes and the writer together",
            resident as f64 / f64::from(1 << 20)
        ),
    );
    ground.end(cluster).await
}

/// What writes are sent with.
struct Sending<'a> {
    ground: &'a Ground,
    records: &'a Records,
    client: &'a Client,
    milestones: &'a std::sync::Arc<Milestones>,
    secrets: u32,
}

impl Sending<'_> {
    /// Each write after the one before has been acknowledged by every edge.
    async fn one_by_one(&self, numbers: std::ops::Range<u32>) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        for number in numbers {
            let write = self.ground.callers().run(1, |_| self.write(number)).await?.pop().context("the writer said nothing")?;
            self.milestones.everywhere(write.number).await?;
            writes.push(write);
        }
        Ok(writes)
    }

    /// Writes at fixed moments.
    async fn at_rate(&self, numbers: std::ops::Range<u32>, rate: u32) -> Result<Vec<Write>> {
        let (clock, started) = (self.ground.clock, self.ground.clock.monotonic());
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let first = numbers.start;
        let writes = self.ground.callers().run(numbers.end - first, |place| {
            let due = started + Duration::from_secs(1) * place / rate;
            let (write, room) = (self.write(first + place), room.clone());
            async move {
                clock.sleep(due.saturating_sub(clock.monotonic())).await;
                let _place = room.acquire().await?;
                write.await
            }
        });
        let writes = writes.await?;
        for write in &writes {
            self.milestones.everywhere(write.number).await?;
        }
        Ok(writes)
    }

    /// Each write with the wait for its receipt, as `--wait` does it: two calls.
    async fn receipts(&self, numbers: std::ops::Range<u32>) -> Result<Latencies> {
        let mut latencies = Latencies::new()?;
        for number in numbers {
            let (records, client, clock) = (self.records.clone(), self.client.clone(), self.ground.clock);
            let secret = number % self.secrets;
            let waited = self.ground.callers().run(1, |_| {
                let (records, client) = (records.clone(), client.clone());
                async move {
                    let sent = clock.monotonic();
                    let position = records.set_by(&client, secret).await?;
                    let live = client.wait_live(position, LIVE_WITHIN).await.context("waiting for a receipt failed")?;
                    ensure!(live.edges_live == live.edges_known, "a write did not reach every edge in time");
                    Ok(clock.monotonic() - sent)
                }
            });
            waited.await?.into_iter().for_each(|took| latencies.record(took));
        }
        Ok(latencies)
    }

    fn write(&self, number: u32) -> impl Future<Output = Result<Write>> + Send + 'static {
        let (records, client, milestones, clock) = (self.records.clone(), self.client.clone(), self.milestones.clone(), self.ground.clock);
        let secret = number % self.secrets;
        async move {
            let sent = clock.monotonic();
            let position = records.set_by(&client, secret).await?;
            let answered = clock.monotonic();
            let number = milestones.number(position).context("a write before the measurement")?;
            Ok(Write { sent, answered, number })
        }
    }
}

/// One round's figures.
fn rows(edges: u16, writes: &[Write], milestones: &Milestones) -> Result<Vec<Row>> {
    let mut answered = Latencies::new()?;
    let mut committed = Latencies::new()?;
    let mut each = [Latencies::new()?, Latencies::new()?, Latencies::new()?];
    let mut last = [Latencies::new()?, Latencies::new()?, Latencies::new()?];
    let mut from_sent = Latencies::new()?;
    for write in writes {
        let number = write.number as usize;
        let applied = milestones.applied(number)?;
        answered.record(write.answered - write.sent);
        committed.record(applied.saturating_sub(write.sent));
        for mark in Mark::ALL {
            let reached = milestones.reached(mark, number)?;
            reached.iter().for_each(|moment| each[mark as usize].record(moment.saturating_sub(applied)));
            let latest = reached.into_iter().max().context("there is no edge")?;
            last[mark as usize].record(latest.saturating_sub(applied));
            if mark == Mark::Readable {
                from_sent.record(latest.saturating_sub(write.sent));
            }
        }
    }
    ensure!(answered.count() == writes.len() as u64, "writes were lost");
    let row = |what: &str, latencies: &Latencies| Row::new(what, u32::from(edges), latencies, None);
    Ok(vec![
        row("write: sent to answered", &answered),
        row("write: sent to committed", &committed),
        row("committed to verified, each edge", &each[Mark::Verified as usize]),
        row("committed to readable, each edge", &each[Mark::Readable as usize]),
        row("committed to acknowledged, each edge", &each[Mark::Acknowledged as usize]),
        row("committed to readable, last edge", &last[Mark::Readable as usize]),
        row("committed to acknowledged, last edge", &last[Mark::Acknowledged as usize]),
        row("sent to readable, last edge", &from_sent),
    ])
}
