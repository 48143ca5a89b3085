//! What is measured, in which order: in each round every system in turn, so that what else the machine does falls on all of them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::{OsEntropy, RealClock};
use rustix::time::{ClockId, clock_gettime};
use seams::{Clock, Entropy};

use super::{
    callers::{Span, Tally, all_at_once},
    etcd::Etcd,
    footprint,
    ours::{Framed, Ours, Pipelined},
    process::{processor_time, version},
    propagation,
    redis::Redis,
    report::{By, Report, Row, Section},
};

/// Lookups on their way for one caller, where they are pipelined.
const DEPTH: u32 = 32;
/// Connections that callers share over HTTP/2; fewer callers have one each.
const CONNECTIONS: u32 = 4;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the peers' programs were unpacked.
    pub programs: PathBuf,
    /// Below which the data of the peers lies. Ours lies in the system's temporary folder: the same, or at least the same disk.
    pub data: PathBuf,
    /// How long each measurement takes.
    pub duration: Duration,
    /// How often each is repeated.
    pub rounds: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// How many different keys are read.
    pub keys: u32,
    /// Writers at once.
    pub writers: Vec<u32>,
    /// Readers at once.
    pub readers: Vec<u32>,
    /// Watchers of etcd at once.
    pub watchers: Vec<u32>,
    /// Edges at once.
    pub edges: Vec<u32>,
    /// Writes in a round whose way to all watchers or edges is timed.
    pub puts: u32,
    /// Secrets whose memory and disk is measured.
    pub stored: u32,
    /// How long all of it may take; a section that is not done by then is left out.
    pub at_most: Duration,
    /// Which sections; all when empty.
    pub only: Vec<String>,
}

impl Plan {
    fn wants(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == section)
    }

    pub(super) fn value(&self) -> Vec<u8> {
        let mut value = vec![0; self.value_bytes as usize];
        OsEntropy.fill(&mut value);
        value
    }

    pub(super) fn folder(&self) -> tempfile::TempDir {
        tempfile::Builder::new().prefix(".peers-").tempdir_in(&self.data).expect("a temporary folder")
    }
}

/// A key's name, the same in every system.
pub(super) fn key(number: u32) -> String {
    format!("SECRET_{number}")
}

/// Measures. `said` is told what is being done.
///
/// # Panics
/// When a system cannot be started, or refuses.
pub async fn run(plan: &Plan, said: impl Fn(&str)) -> Report {
    let mut report = Report::default();
    setup(plan, &mut report);
    let end = RealClock::new().monotonic() + plan.at_most;
    let mut late = Vec::new();
    if plan.wants("writes") {
        report.sections.extend(in_time(end, writes(plan, &said), "writes", &mut late).await);
    }
    if plan.wants("reads") {
        report.sections.extend(in_time(end, reads(plan, &said), "reads", &mut late).await.into_iter().flatten());
    }
    if plan.wants("propagation") {
        report.sections.extend(in_time(end, propagation::measure(plan, &said), "propagation", &mut late).await);
    }
    if plan.wants("footprint") {
        report.sections.extend(in_time(end, footprint::measure(plan, &said), "footprint", &mut late).await.into_iter().flatten());
    }
    if !late.is_empty() {
        report.fact("left out", format!("{}: not done within {} minutes", late.join(", "), plan.at_most.as_secs() / 60));
    }
    report
}

/// What a reader must know of the machine and the systems.
fn setup(plan: &Plan, report: &mut Report) {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(2).collect::<Vec<_>>().join(" and ");
    report.fact("machine", format!("{cores} cores, shared by callers and servers; loopback and UNIX sockets"));
    report.fact("load at the start", format!("{load} in the last minute and five"));
    let build = if cfg!(debug_assertions) { "a DEBUG build: these figures say nothing" } else { "release" };
    report.fact("cinnabar", format!("{}, {build}", env!("CARGO_PKG_VERSION")));
    report.fact("etcd", format!("{}, as Debian builds it", version(&plan.programs, "etcd")));
    report.fact("Redis", format!("{}, as Debian builds it", version(&plan.programs, "redis-server")));
    report.fact("nodes", "etcd and cinnabar: three that vote; reads of cinnabar: one edge that follows them. Redis: one");
    report.fact("values", format!("{} random bytes", plan.value_bytes));
    let rounds = format!("{} of {:?} each, every system in turn; figures are medians over the rounds", plan.rounds, plan.duration);
    report.fact("rounds", rounds);
    report.fact("disk", format!("{}, one under every node of all systems", file_system(&plan.data)));
    report.fact("callers", "all in one process of the same build as cinnabar; each asks again when it was answered");
}

/// What `section` gives, when it does so before `end`; else its name among those that are late. What it had started ends with it.
async fn in_time<T>(end: Duration, section: impl Future<Output = T>, name: &'static str, late: &mut Vec<&'static str>) -> Option<T> {
    let left = end.saturating_sub(RealClock::new().monotonic());
    let section = Box::pin(tokio::time::timeout(left, section)).await.ok();
    if section.is_none() {
        late.push(name);
    }
    section
}

/// The file system that holds a folder, and where it is mounted.
fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let place = |line: &str| {
        let mut parts = line.split(' ');
        let (device, at, kind) = (parts.next()?, parts.next()?, parts.next()?);
        folder.starts_with(at).then(|| (at.len(), format!("{kind} on {device}")))
    };
    // The longest mount point is the one that holds it; of equals, the last one mounted lies on top.
    mounts.lines().filter_map(place).max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, text)| text)
}

/// Time that the cores have spent in this process.
pub(super) fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A case of one system.
struct Case<'a> {
    case: String,
    system: &'a str,
    promise: &'a str,
    /// The processes whose time is the servers'.
    pids: &'a [u32],
}

impl Case<'_> {
    /// Measures it for one span.
    async fn measure<F: Future<Output = Tally>>(&self, plan: &Plan, callers: impl FnOnce(Span) -> F) -> Row {
        let (servers, own) = (processor_time(self.pids), own_time());
        let span = Span::starting(RealClock::new(), plan.duration);
        let tally = callers(span).await;
        let each = |spent: Duration| Some(spent.as_secs_f64() * 1e6 / tally.all.max(1) as f64);
        Row {
            case: self.case.clone(),
            system: self.system.to_owned(),
            promise: self.promise.to_owned(),
            count: tally.times.count(),
            per_second: Some(tally.times.count() as f64 / span.length().as_secs_f64()),
            p50_us: Some(tally.times.us_at(0.5)),
            p99_us: Some(tally.times.us_at(0.99)),
            server_cpu_us: each(processor_time(self.pids).saturating_sub(servers)),
            caller_cpu_us: each(own_time().saturating_sub(own)),
            ..Row::default()
        }
    }
}

pub(super) fn people(count: u32, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

async fn writes(plan: &Plan, said: &impl Fn(&str)) -> Section {
    const ETCD: [(&str, bool, &str); 2] = [
        ("etcd", false, "on a majority's disks; no TLS, no access rules, plain text"),
        ("etcd, TLS", true, "on a majority's disks; TLS with certificates on both sides, no access rules, plain text"),
    ];
    let most = plan.writers.iter().copied().max().unwrap_or(1);
    let mut rounds = Vec::new();
    for round in 1..=plan.rounds {
        let mut rows = Vec::new();
        for (system, tls, promise) in ETCD {
            said(&format!("writes, round {round}: {system}"));
            let folder = plan.folder();
            let etcd = Etcd::start(&plan.programs, folder.path(), tls).await;
            let pids = etcd.pids();
            for &writers in &plan.writers {
                let client = etcd.client(writers.min(CONNECTIONS));
                let case = Case { case: people(writers, "writer"), system, promise, pids: &pids };
                let row = case.measure(plan, |span| {
                    all_at_once(span, writers, 1, |number| {
                        let (client, plan) = (client.clone(), plan.clone());
                        move || {
                            let (client, value) = (client.clone(), plan.value());
                            async move { client.put(number, key(number), value).await }
                        }
                    })
                });
                rows.push(row.await);
            }
        }
        said(&format!("writes, round {round}: cinnabar"));
        let mut ours = Ours::start(0, u64::from(most)).await;
        ours.create(0..most, || plan.value()).await;
        let pids = ours.voters().await;
        for &writers in &plan.writers {
            let operator = ours.operator(writers.min(CONNECTIONS)).await;
            let promise = "on a majority's disks; TLS among all, token, access checked, value encrypted, audited";
            let case = Case { case: people(writers, "writer"), system: "cinnabar", promise, pids: &pids };
            let row = case.measure(plan, |span| {
                all_at_once(span, writers, 1, |number| {
                    let (operator, plan) = (operator.clone(), plan.clone());
                    move || {
                        let (operator, value) = (operator.clone(), plan.value());
                        async move { _ = operator.set(&key(number), &value).await }
                    }
                })
            });
            rows.push(row.await);
        }
        rounds.push(rows);
    }
    let note = format!(
        "Three nodes, each with its own folder on one disk, fsync on. Each writer writes its own key at the leader, one write at a time; writers share \
         {CONNECTIONS} connections. Server cpu is that of all three nodes."
    );
    Section::of("Durable writes", &note, By::Rate, "etcd", &rounds)
}

/// The key that a caller asks for in a turn: callers are spread over the keys.
struct Turn {
    next: u32,
    keys: u32,
}

impl Turn {
    fn new(number: u32, callers: u32, keys: u32) -> Self {
        Self { next: number * (keys / callers.max(1)), keys }
    }

    fn key(&mut self) -> String {
        self.next = (self.next + 1) % self.keys;
        key(self.next)
    }

    fn some(&mut self) -> Vec<String> {
        (0..DEPTH).map(|_| self.key()).collect()
    }
}

async fn reads(plan: &Plan, said: &impl Fn(&str)) -> [Section; 2] {
    let (mut unary, mut pipelined) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        said(&format!("reads, round {round}: Redis"));
        let (mut one, mut many) = redis_reads(plan).await;
        said(&format!("reads, round {round}: etcd"));
        let (etcd_one, etcd_many) = etcd_reads(plan).await;
        said(&format!("reads, round {round}: cinnabar"));
        let (our_one, our_many) = our_reads(plan).await;
        one.extend(etcd_one.into_iter().chain(our_one));
        many.extend(etcd_many.into_iter().chain(our_many));
        unary.push(one);
        pipelined.push(many);
    }
    let keys = plan.keys;
    let note = format!("{keys} keys in turn. Redis: a connection for each caller. Over HTTP/2, callers share {CONNECTIONS} connections.");
    let unary = Section::of("Point reads, one at a time", &note, By::Rate, "Redis", &unary);
    let note = format!(
        "{keys} keys in turn, {DEPTH} on their way for each caller; the next {DEPTH} go when all have come. Times are those of {DEPTH} together. Redis: one \
         pipeline of {DEPTH}. etcd, which has no such call: {DEPTH} calls at once."
    );
    [unary, Section::of("Point reads, pipelined", &note, By::Rate, "Redis", &pipelined)]
}

async fn redis_reads(plan: &Plan) -> (Vec<Row>, Vec<Row>) {
    let folder = plan.folder();
    let redis = Redis::start(&plan.programs, folder.path(), false).await;
    let mut connection = redis.connection().await;
    for number in 0..plan.keys {
        connection.set(key(number), plan.value()).await;
    }
    let (pids, bytes) = (redis.pids(), plan.value_bytes as usize);
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for &readers in &plan.readers {
        let mut connections = Vec::new();
        for _ in 0..readers {
            connections.push(redis.connection().await);
        }
        let promise = "UNIX socket, plain text, no access rules";
        let case = Case { case: people(readers, "caller"), system: "Redis", promise, pids: &pids };
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, 1, |number| {
                let (connection, mut turn) = (connections[number as usize].clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (mut connection, key) = (connection.clone(), turn.key());
                    async move { assert_eq!(connection.get(key).await, bytes) }
                }
            })
        });
        one.push(row.await);
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, DEPTH, |number| {
                let (connection, mut turn) = (connections[number as usize].clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (mut connection, keys) = (connection.clone(), turn.some());
                    async move { assert_eq!(connection.get_all(keys).await, bytes * DEPTH as usize) }
                }
            })
        });
        many.push(row.await);
    }
    (one, many)
}

async fn etcd_reads(plan: &Plan) -> (Vec<Row>, Vec<Row>) {
    let folder = plan.folder();
    let etcd = Etcd::start(&plan.programs, folder.path(), false).await;
    let client = etcd.client(CONNECTIONS);
    for first in (0..plan.keys).step_by(DEPTH as usize) {
        let some = (first..plan.keys.min(first + DEPTH)).map(|number| client.put(number, key(number), plan.value()));
        futures::future::join_all(some).await;
    }
    let (pids, bytes) = (etcd.pids(), plan.value_bytes as usize);
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for &readers in &plan.readers {
        let client = etcd.client(readers.min(CONNECTIONS));
        let promise = "serializable, TCP, no TLS, plain text, no access rules";
        let case = Case { case: people(readers, "caller"), system: "etcd", promise, pids: &pids };
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, 1, |number| {
                let (client, mut turn) = (client.clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (client, key) = (client.clone(), turn.key());
                    async move { assert_eq!(client.get(number, key).await, bytes) }
                }
            })
        });
        one.push(row.await);
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, DEPTH, |number| {
                let (client, mut turn) = (client.clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (client, keys) = (client.clone(), turn.some());
                    async move {
                        let all = keys.into_iter().map(|key| client.get(number, key));
                        assert_eq!(futures::future::join_all(all).await.iter().sum::<usize>(), bytes * DEPTH as usize);
                    }
                }
            })
        });
        many.push(row.await);
    }
    (one, many)
}

async fn our_reads(plan: &Plan) -> (Vec<Row>, Vec<Row>) {
    let mut ours = Ours::start(1, u64::from(plan.keys)).await;
    ours.create(0..plan.keys, || plan.value()).await;
    ours.bind(0..plan.keys).await;
    let pids = [ours.fleet.server(super::ours::EDGE).pid()];
    let bytes = plan.value_bytes as usize;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for &readers in &plan.readers {
        let reader = ours.reader(readers.min(CONNECTIONS));
        let promise = "UNIX socket, gRPC; caller, binding and scope checked, value decrypted";
        let case = Case { case: people(readers, "caller"), system: "cinnabar, gRPC", promise, pids: &pids };
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, 1, |number| {
                let (reader, mut turn) = (reader.clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (reader, key) = (reader.clone(), turn.key());
                    async move { assert_eq!(reader.get(&key).await.expect("a lookup").value.len(), bytes) }
                }
            })
        });
        one.push(row.await);
        let mut streams = Vec::new();
        for _ in 0..readers {
            streams.push(std::sync::Arc::new(tokio::sync::Mutex::new(Pipelined::open(&reader, DEPTH).await)));
        }
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, DEPTH, |number| {
                let (stream, mut turn) = (streams[number as usize].clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (stream, keys) = (stream.clone(), turn.some());
                    async move { assert_eq!(stream.lock().await.get_all(keys).await, bytes * DEPTH as usize) }
                }
            })
        });
        many.push(row.await);
        drop(streams);
        let mut frames = Vec::new();
        for _ in 0..readers {
            frames.push(std::sync::Arc::new(tokio::sync::Mutex::new(Framed::open(&ours).await)));
        }
        let promise = "UNIX socket, frames; caller, binding and scope checked, value decrypted";
        let case = Case { case: people(readers, "caller"), system: "cinnabar, frames", promise, pids: &pids };
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, 1, |number| {
                let (frames, mut turn) = (frames[number as usize].clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (frames, key) = (frames.clone(), turn.key());
                    async move { assert_eq!(frames.lock().await.get(key).await, bytes) }
                }
            })
        });
        one.push(row.await);
        let row = case.measure(plan, |span| {
            all_at_once(span, readers, DEPTH, |number| {
                let (frames, mut turn) = (frames[number as usize].clone(), Turn::new(number, readers, plan.keys));
                move || {
                    let (frames, keys) = (frames.clone(), turn.some());
                    async move { assert_eq!(frames.lock().await.get_all(keys).await, bytes * DEPTH as usize) }
                }
            })
        });
        many.push(row.await);
    }
    (one, many)
}
