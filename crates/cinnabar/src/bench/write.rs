//! `cinnabar bench write`: writes to one control node, each durable before it is answered.
//!
//! The whole path: gRPC over TLS, sealing, one voter with fdatasync, the reply with the secret's new metadata. The bare path: the same
//! kind of command proposed to a voter of its own, without transport, checks at the door and sealing.

use anyhow::Result;
use cli::BenchWrite;
use client::Client;
use runtime::RealClock;
use seams::Clock;

use super::{
    bare::Bare,
    disk::{self, Use},
    ground::{Ground, Span, Tally},
    records::Records,
    report::{Report, Row},
};
use crate::cluster::Watchers;

/// Measures.
pub(super) async fn run(ground: &Ground, arguments: &BenchWrite) -> Result<Report> {
    let most = arguments.writers.iter().copied().max().unwrap_or(1);
    let counts = arguments.edges.iter().map(u16::to_string).collect::<Vec<_>>().join(", then ");
    let mut report = ground.report([
        ("nodes", format!("1 voter, {counts} edges, all in this process; for the bare path a voter of its own")),
        (
            "writers",
            "on threads of their own in this process, over gRPC with TLS 1.3, by token; each writes its own secret, one write at a time"
                .to_owned(),
        ),
        ("values", format!("{} random bytes", arguments.value_bytes)),
        ("connections", format!("{}, or as many as there are writers", arguments.connections)),
        ("duration", format!("{:?} a measurement and round, after a warm-up", arguments.duration)),
    ])?;
    for &edges in &arguments.edges {
        let cluster = ground.cluster(edges, Watchers::default()).await?;
        let bar = ground.bar("making records", u64::from(most));
        let records = Records::make(&cluster, most, arguments.value_bytes, &bar).await?;
        bar.finish_and_clear();

        let what = with_edges("write over TLS", edges);
        let bar = ground.bar("writing", u64::from(ground.rounds) * arguments.writers.len() as u64);
        let mut measured = Vec::new();
        for _ in 0..ground.rounds {
            let mut rows = Vec::new();
            for &writers in &arguments.writers {
                let connections = writers.min(arguments.connections) as usize;
                let client = ground.callers().client(|| cluster.operator(connections))?;
                rows.extend(
                    spanned(ground, &what, arguments, writers, |number, span| {
                        over_tls(client.clone(), records.clone(), number, ground.clock, span)
                    })
                    .await?,
                );
                bar.inc(1);
            }
            measured.push(rows);
        }
        bar.finish_and_clear();
        report.rounds(&measured);
        ground.end(cluster).await?;
    }

    let bar = ground.bar("writing to the log alone", u64::from(ground.rounds) * arguments.writers.len() as u64);
    let bare = Bare::start(ground, most, arguments.value_bytes).await?;
    let mut measured = Vec::new();
    for _ in 0..ground.rounds {
        let mut rows = Vec::new();
        for &writers in &arguments.writers {
            rows.extend(
                spanned(ground, "bare: propose, apply", arguments, writers, |number, span| {
                    proposed(bare.clone(), number, ground.clock, span)
                })
                .await?,
            );
            bar.inc(1);
        }
        measured.push(rows);
    }
    report.rounds(&measured);
    bare.stop().await;
    bar.finish_and_clear();
    Ok(report)
}

/// All writers for one span, and the fdatasyncs meanwhile.
async fn spanned<F>(ground: &Ground, what: &str, arguments: &BenchWrite, writers: u32, writer: impl Fn(u32, Span) -> F) -> Result<Vec<Row>>
where
    F: Future<Output = Result<Tally>> + Send + 'static,
{
    let started = ground.clock.monotonic();
    let span = Span::starting(started, arguments.duration);
    ground.disk.take()?;
    let all = ground.callers().tally(writers, |number| writer(number, span)).await?;
    let syncs = ground.disk.take()?;
    let elapsed = ground.clock.monotonic() - started;
    let groups = syncs.iter().find(|(what, _)| *what == Use::RaftLog).map_or(0, |(_, latencies)| latencies.count());
    let row = Row::new(what, writers, &all.latencies, Some(span.length()));
    let row = row.also("entries/fsync", all.all as f64 / groups.max(1) as f64).also("cpu us", all.processor_us);
    let mut rows = vec![row];
    rows.extend(disk::rows(&syncs, elapsed).into_iter().map(|row| row.part_of(writers)));
    Ok(rows)
}

/// What was measured, and how many edges followed, if any did.
pub(super) fn with_edges(what: &str, edges: u16) -> String {
    if edges == 0 { what.to_owned() } else { format!("{what}, {edges} edges") }
}

pub(super) async fn over_tls(client: Client, records: Records, number: u32, clock: RealClock, span: Span) -> Result<Tally> {
    writing(clock, span, || async { records.set_by(&client, number).await.map(drop) }).await
}

async fn proposed(bare: Bare, number: u32, clock: RealClock, span: Span) -> Result<Tally> {
    writing(clock, span, || bare.set(number)).await
}

/// Writes until the span is over.
async fn writing<F: Future<Output = Result<()>>>(clock: RealClock, span: Span, write: impl Fn() -> F) -> Result<Tally> {
    let mut tally = Tally::new(span, clock)?;
    loop {
        let began = clock.monotonic();
        write().await?;
        if !tally.ended(began) {
            return Ok(tally);
        }
    }
}
