//! From a put to everybody who waits for it: etcd's watchers, and our edges. One put at a time; the next goes when all have seen it.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::RealClock;
use seams::Clock;
use tokio::sync::Semaphore;

use super::{
    callers::Times,
    edges::{Edges, Moment},
    etcd::Etcd,
    ours::Ours,
    process::processor_time,
    report::{By, Row, Section},
    run::{Plan, key, own_time, people},
};

/// Memory that looks like a disk: edges on it wait for no disk that a hundred real ones would not share.
const MEMORY: &str = "/dev/shm";
/// Puts before the timed ones.
const WARM_UP: u32 = 10;

pub(super) async fn measure(plan: &Plan, said: &impl Fn(&str)) -> Section {
    let mut rounds = Vec::new();
    for round in 1..=plan.rounds {
        let mut rows = Vec::new();
        for &watchers in &plan.watchers {
            said(&format!("propagation, round {round}: etcd, {}", people(watchers, "watcher")));
            rows.push(watched(plan, watchers).await);
        }
        for &edges in &plan.edges {
            said(&format!("propagation, round {round}: cinnabar, {}", people(edges, "edge")));
            rows.extend(followed(plan, edges, &plan.data, "one disk for all").await);
            if Path::new(MEMORY).is_dir() {
                rows.extend(followed(plan, edges, Path::new(MEMORY), "data of edges in memory").await);
            }
        }
        rounds.push(rows);
    }
    let note = "Three nodes, fsync on. From sending a put to each watcher having its event, or to each edge; all watchers and edges are in the process of the \
                callers, each with its own connection. A watcher keeps nothing. An edge checks each change against the chain and its seal (*verified*, in \
                memory), makes it durable in its own log, and only then shows it: *readable* is durable there. A hundred edges share the cores, and one disk \
                that a hundred real ones would not: so once on the disk and once with their data in memory. Server cpu is that of the three nodes for one put; caller cpu that of this process: \
                the writer, and all watchers or edges.";
    Section::of("From a put to those who wait for it", note, By::Median, "etcd", &rounds)
}

fn row(waiting: u32, system: String, promise: &str, times: &Times, cost: Cost) -> Row {
    Row {
        case: format!("{waiting} waiting"),
        system,
        promise: promise.to_owned(),
        count: times.count(),
        p50_us: Some(times.us_at(0.5)),
        p99_us: Some(times.us_at(0.99)),
        server_cpu_us: Some(cost.servers),
        caller_cpu_us: Some(cost.own),
        ..Row::default()
    }
}

/// Processor time of one put, in microseconds: of the nodes, and of this process.
#[derive(Clone, Copy)]
struct Cost {
    servers: f64,
    own: f64,
}

/// What has been spent by now.
struct Spent {
    pids: Vec<u32>,
    servers: Duration,
    own: Duration,
}

impl Spent {
    fn until_now(pids: Vec<u32>) -> Self {
        Self { servers: processor_time(&pids), own: own_time(), pids }
    }

    /// By each of `puts` since then.
    fn by_each(self, puts: u32) -> Cost {
        let each = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() * 1e6 / f64::from(puts.max(1));
        Cost { servers: each(processor_time(&self.pids), self.servers), own: each(own_time(), self.own) }
    }
}

async fn watched(plan: &Plan, watchers: u32) -> Row {
    let folder = plan.folder();
    let etcd = Etcd::start(&plan.programs, folder.path(), false).await;
    let (writer, client) = (etcd.client(1), etcd.client(watchers));
    let (clock, sent) = (RealClock::new(), Arc::new(AtomicU64::new(0)));
    let (times, seen) = (Arc::new(Mutex::new(Times::new())), Arc::new(Semaphore::new(0)));
    let mut watching = tokio::task::JoinSet::new();
    for number in 0..watchers {
        let mut events = client.watch(number, key(0)).await;
        let (sent, times, seen) = (sent.clone(), times.clone(), seen.clone());
        watching.spawn(async move {
            while let Ok(Some(reply)) = events.message().await {
                let took = clock.monotonic().saturating_sub(Duration::from_nanos(sent.load(Ordering::Acquire)));
                reply.events.iter().for_each(|_| times.lock().unwrap_or_else(PoisonError::into_inner).record(took));
                seen.add_permits(reply.events.len());
            }
        });
    }
    let mut spent = Spent::until_now(etcd.pids());
    for number in 0..WARM_UP + plan.puts {
        if number == WARM_UP {
            spent = Spent::until_now(etcd.pids());
            *times.lock().unwrap_or_else(PoisonError::into_inner) = Times::new();
        }
        sent.store(u64::try_from(clock.monotonic().as_nanos()).expect("an uptime"), Ordering::Release);
        writer.put(0, key(0), plan.value()).await;
        let all = tokio::time::timeout(crate::process::PATIENCE, seen.acquire_many(watchers)).await.expect("every watcher sees every put");
        all.expect("an open semaphore").forget();
    }
    let cost = spent.by_each(plan.puts);
    watching.abort_all();
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    row(watchers, "etcd".to_owned(), "event received; nothing kept, no TLS", &times, cost)
}

async fn followed(plan: &Plan, count: u32, data: &Path, where_to: &str) -> [Row; 2] {
    let mut ours = Ours::start(0, 16).await;
    ours.create(0..1, || plan.value()).await;
    let edges = Edges::start(&ours, count, data).await;
    let operator = ours.operator(1).await;
    let (mut verified, mut readable) = (Times::new(), Times::new());
    let pids = ours.voters().await;
    let mut spent = Spent::until_now(pids.clone());
    for number in 0..WARM_UP + plan.puts {
        if number == WARM_UP {
            spent = Spent::until_now(pids.clone());
        }
        let sent = edges.now();
        let (_, position) = operator.set(&key(0), &plan.value()).await;
        edges.all_readable(position).await;
        if number >= WARM_UP {
            edges.moments(Moment::Verified, position).for_each(|at| verified.record(at.saturating_sub(sent)));
            edges.moments(Moment::Readable, position).for_each(|at| readable.record(at.saturating_sub(sent)));
        }
    }
    let cost = spent.by_each(plan.puts);
    edges.stop().await;
    let checked = "TLS, encrypted; checked against chain and seal";
    [
        row(count, format!("cinnabar, verified, {where_to}"), checked, &verified, cost),
        row(count, format!("cinnabar, readable, {where_to}"), &format!("{checked}, durable at the edge"), &readable, cost),
    ]
}
