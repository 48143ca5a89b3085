//! `cinnabar bench lookup`: lookups at one edge, through its UNIX socket and inside it.
//!
//! Through the socket: one call a lookup, a pipelined stream for each caller, and calls for several lookups at once. Inside: the
//! lookup path itself, called on one thread of this process without any transport, whole and by stage.

use std::{collections::VecDeque, sync::Arc};

use anyhow::{Context, Result, anyhow, ensure};
use cli::BenchLookup;
use client::Client;
use lookup::{Authenticator, Caller, Connection, Lookup, PeerPattern, PeerRule, PeerRules, Stage, Stages};
use runtime::RealClock;
use seams::Clock;
use wire::{
    parse::{ConsumerTarget, FreshnessTarget, WantedTarget},
    v1,
};

use super::{
    ground::{Ground, Span, Tally},
    records::Records,
    report::{Latencies, Report, Row},
};
use crate::cluster::{self, Watchers};

/// Lookups inside the edge in one round.
const INSIDE: u32 = 100_000;

/// Measures.
pub(super) async fn run(ground: &Ground, arguments: &BenchLookup) -> Result<Report> {
    let mut report = ground.report([
        ("nodes", "1 voter, 1 edge, all in this process".to_owned()),
        (
            "callers",
            "on threads of their own in this process, through the edge's UNIX socket (no TLS); the peer's uid says who calls".to_owned(),
        ),
        (
            "records",
            format!(
                "{} secrets of {} bytes with {} versions each, bound one by one to one consumer",
                arguments.secrets, arguments.value_bytes, arguments.versions
            ),
        ),
        ("connections", format!("{}, or as many as there are callers", arguments.connections)),
        ("stream depth", format!("{} lookups on their way for each caller", arguments.depth)),
        ("duration", format!("{:?} a measurement and round, after a warm-up", arguments.duration)),
    ])?;
    let cluster = ground.cluster(1, Watchers::default()).await?;
    let bar = ground.bar("making records", u64::from(arguments.secrets) * u64::from(arguments.versions + 1));
    let records = Records::make(&cluster, arguments.secrets, arguments.value_bytes, &bar).await?;
    for _ in 1..arguments.versions {
        records.rewrite(arguments.secrets, &bar).await?;
    }
    let token = records.bind(arguments.secrets, &bar).await?;
    records.live(&cluster).await?;
    bar.finish_and_clear();

    let (_, socket) = cluster.sockets()?.into_iter().next().context("there is no edge")?;
    let mut measured = Vec::new();
    let bar = ground.bar("looking up", u64::from(ground.rounds) * (3 * arguments.callers.len() as u64 + 1));
    for _ in 0..ground.rounds {
        let mut rows = Vec::new();
        for &callers in &arguments.callers {
            let connections = callers.min(arguments.connections) as usize;
            let client = ground.callers().client(|| cluster::consumer(&socket, connections))?;
            first_answer(ground, &client, &records, cluster.control.position()).await?;
            for way in [Way::Unary, Way::Stream, Way::Many] {
                rows.push(outside(ground, arguments, &client, &records, (way, callers)).await?);
                bar.inc(1);
            }
        }
        let edge = cluster.edges.first().and_then(Option::as_ref).context("the edge is down")?;
        let inside = Inside::new(edge.lookup(), &records, arguments.secrets, &token, cluster.prepared().account, ground.clock)?;
        rows.extend(tokio::task::spawn_blocking(move || inside.measure()).await??);
        bar.inc(1);
        measured.push(rows);
    }
    bar.finish_and_clear();
    report.rounds(&measured);
    report.fact(
        "inside",
        format!("{INSIDE} lookups a round on one thread, each secret in turn; a stage's time holds one reading of the clock"),
    );
    ground.end(cluster).await?;
    Ok(report)
}

/// How a caller asks.
#[derive(Clone, Copy)]
enum Way {
    Unary,
    Stream,
    Many,
}

/// Opens the connections; and waits for the first checkpoint, before which the edge knows no age: that is what demanding a position
/// does.
async fn first_answer(ground: &Ground, client: &Client, records: &Records, position: types::Position) -> Result<()> {
    let (client, records) = (client.clone(), records.clone());
    let freshness = v1::Freshness { min_position: Some(position.into()), max_age_ms: None };
    let ask = move |_| {
        let (client, request) = (client.clone(), v1::GetRequest { freshness: Some(freshness), ..request(&records, 0) });
        async move { client.get(request).await.map(drop).context("the first lookup failed") }
    };
    ground.callers().run(64, ask).await.map(drop)
}

fn request(records: &Records, number: u32) -> v1::GetRequest {
    v1::GetRequest { consumer: Some(records.reader()), wanted: Some(records.wanted(number)), freshness: None }
}

/// All callers for one span.
async fn outside(ground: &Ground, arguments: &BenchLookup, client: &Client, records: &Records, (way, callers): (Way, u32)) -> Result<Row> {
    let requests: Arc<[v1::GetRequest]> = (0..arguments.secrets).map(|number| request(records, number)).collect();
    let span = Span::starting(ground.clock.monotonic(), arguments.duration);
    let asking = |number: u32| Asking {
        client: client.clone(),
        requests: requests.clone(),
        // Callers are spread over the secrets, so that no two ask for the same at once.
        next: (u64::from(number) * u64::from(arguments.secrets) / u64::from(callers)) as usize,
        clock: ground.clock,
        span,
    };
    let (depth, batch) = (arguments.depth as usize, arguments.batch as usize);
    let all = match way {
        Way::Unary => ground.callers().tally(callers, |number| asking(number).unary()).await?,
        Way::Stream => ground.callers().tally(callers, |number| asking(number).stream(depth)).await?,
        Way::Many => ground.callers().tally(callers, |number| asking(number).many(batch)).await?,
    };
    let row = match way {
        Way::Unary => Row::new("a call each", callers, &all.latencies, Some(span.length())),
        Way::Stream => Row::new(format!("pipelined stream, depth {depth}"), callers, &all.latencies, Some(span.length())),
        Way::Many => Row::of_calls(format!("a call for {batch}; times of the call"), callers, &all.latencies, batch as u64, span.length()),
    };
    let each = if matches!(way, Way::Many) { batch } else { 1 };
    Ok(row.also("cpu us", all.processor_us / each as f64))
}

/// One caller.
struct Asking {
    client: Client,
    requests: Arc<[v1::GetRequest]>,
    next: usize,
    clock: RealClock,
    span: Span,
}

impl Asking {
    fn turn(&mut self) -> v1::GetRequest {
        self.next = (self.next + 1) % self.requests.len();
        self.requests[self.next].clone()
    }

    async fn unary(mut self) -> Result<Tally> {
        let mut tally = Tally::new(self.span, self.clock)?;
        loop {
            let request = self.turn();
            let began = self.clock.monotonic();
            self.client.get(request).await.context("a lookup failed")?;
            if !tally.ended(began) {
                return Ok(tally);
            }
        }
    }

    async fn many(mut self, batch: usize) -> Result<Tally> {
        let mut tally = Tally::new(self.span, self.clock)?;
        loop {
            let wanted = (0..batch).filter_map(|_| self.turn().wanted).collect();
            let request = v1::GetManyRequest { consumer: self.requests[0].consumer.clone(), wanted, freshness: None };
            let began = self.clock.monotonic();
            let outcomes = self.client.get_many(request).await.context("lookups failed")?;
            ensure!(outcomes.len() == batch && outcomes.iter().all(Result::is_ok), "a lookup of several was refused");
            if !tally.ended(began) {
                return Ok(tally);
            }
        }
    }

    /// Keeps `depth` on their way: a reply lets the next one go.
    async fn stream(mut self, depth: usize) -> Result<Tally> {
        let mut tally = Tally::new(self.span, self.clock)?;
        let (requests, mut replies) = self.client.stream(depth).await.context("no stream was opened")?;
        // Replies to lookups that need not wait come in the order of the requests; the tag checks that.
        let mut sent = VecDeque::with_capacity(depth);
        let mut tag = 0;
        for _ in 0..depth {
            sent.push_back((tag, self.clock.monotonic()));
            requests.send(tag, self.turn()).await?;
            tag += 1;
        }
        loop {
            let (answered, outcome) = replies.next().await?.context("the stream ended early")?;
            outcome.map_err(|error| anyhow!("a lookup was refused: {error}"))?;
            let (expected, began) = sent.pop_front().context("a reply that nobody asked for")?;
            ensure!(answered == expected, "replies came out of order: {answered} instead of {expected}");
            if !tally.ended(began) {
                return Ok(tally);
            }
            sent.push_back((tag, self.clock.monotonic()));
            requests.send(tag, self.turn()).await?;
            tag += 1;
        }
    }
}

/// The lookup path without a transport.
struct Inside {
    lookup: Arc<Lookup>,
    by_uid: Caller,
    by_token: Caller,
    wanted: Vec<WantedTarget>,
    clock: RealClock,
}

impl Inside {
    fn new(
        lookup: &Arc<Lookup>,
        records: &Records,
        secrets: u32,
        token: &str,
        account: types::AccountId,
        clock: RealClock,
    ) -> Result<Self> {
        // As the edge's own doors do it, from its configuration.
        let uid = rustix::process::getuid().as_raw();
        let authenticator = Authenticator::new(PeerRules::new(vec![PeerRule { uid, account, pattern: PeerPattern::Any }]));
        let consumer = ConsumerTarget::try_from(records.reader())?;
        let by_uid = authenticator.caller(&Connection { identity: None, not_after: None, uid: Some(uid) }, None, Some(consumer))?;
        let by_token = authenticator.caller(&Connection::default(), Some(token), None)?;
        let wanted = (0..secrets).map(|number| WantedTarget::try_from(records.wanted(number))).collect::<Result<_, _>>()?;
        Ok(Self { lookup: lookup.clone(), by_uid, by_token, wanted, clock })
    }

    fn measure(&self) -> Result<Vec<Row>> {
        let mut rows = vec![self.clock_row()?, self.whole("inside: a lookup, by uid", &self.by_uid)?];
        rows.push(self.whole("inside: a lookup, by token", &self.by_token)?);
        rows.extend(self.stages()?);
        Ok(rows)
    }

    /// What reading the clock costs, which every other figure of this kind contains.
    fn clock_row(&self) -> Result<Row> {
        let mut latencies = Latencies::new()?;
        for _ in 0..INSIDE {
            let began = self.clock.monotonic();
            latencies.record(self.clock.monotonic() - began);
        }
        Ok(Row::new("inside: reading the clock", 1, &latencies, None))
    }

    /// Lookups one after the other, each timed; the rate is that of another run without a clock.
    fn whole(&self, what: &str, caller: &Caller) -> Result<Row> {
        let freshness = FreshnessTarget::default();
        let mut latencies = Latencies::new()?;
        for wanted in self.wanted.iter().cycle().take(INSIDE as usize) {
            let began = self.clock.monotonic();
            let found = self.lookup.get(caller, wanted, freshness)?;
            latencies.record(self.clock.monotonic() - began);
            drop(found);
        }
        let began = self.clock.monotonic();
        for wanted in self.wanted.iter().cycle().take(INSIDE as usize) {
            self.lookup.get(caller, wanted, freshness)?;
        }
        Ok(Row::new(what, 1, &latencies, Some(self.clock.monotonic() - began)))
    }

    fn stages(&self) -> Result<Vec<Row>> {
        let mut all = Stage::ALL.iter().map(|_| Latencies::new()).collect::<Result<Vec<_>, _>>()?;
        let mut stages = Stages::default();
        for wanted in self.wanted.iter().cycle().take(INSIDE as usize) {
            drop(self.lookup.get_staged(&self.by_uid, wanted, FreshnessTarget::default(), &mut stages)?);
            for (stage, latencies) in Stage::ALL.iter().zip(&mut all) {
                latencies.record(stages.of(*stage));
            }
        }
        let row = |(stage, latencies): (&Stage, &Latencies)| Row::new(format!("stage: {}", stage.name()), 1, latencies, None);
        Ok(Stage::ALL.iter().zip(&all).map(row).collect())
    }
}
