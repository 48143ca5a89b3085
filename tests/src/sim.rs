//! A whole cluster in one thread under a seed: time, loss and crashes are decided by the seed alone.
//!
//! Three or five voters and three edges run the real code of consensus, segment log, state, feed, follower and lookup path on simulated
//! seams: virtual time and tasks (`runtime`, over openraft-rt-sim), clocks that are wrong, disks that forget, fill up and lose power, a
//! network that delays, reorders, loses, cuts and breaks. Clients write (`load`) and read (`readers`), an operator changes members and keys
//! (`operator`), faults strike (`faults`), and the oracle judges by what clients saw (`oracle`). Then the faults end and everything must
//! heal. The history of a run has a hash: one seed, one history.
//!
//! **Invariants**
//! 1. Nothing depends on the real clock, on threads, on addresses or on random hashers: the same seed gives the same hash.
//! 2. The oracle is told by clients and readers; of the voters it hears the change sets that they apply, nothing else.
//!
//! **Left out**: TLS, sockets and sled, which have tests of their own; the key epochs' envelopes, which `edge` tests; disaster recovery
//! into a new generation, which `feed` tests.
#![allow(clippy::expect_used, reason = "this is a test; a name that is none is a mistake of its author")]

mod clock;
mod disk;
mod edge;
mod faults;
mod fleet;
mod history;
mod keys;
mod load;
pub mod mutants;
mod net;
mod operator;
mod oracle;
mod peers;
mod readers;
mod runtime;
mod tamper;
mod voter;

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use feed::Anchor;
use futures::future::Either;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use seams::{Entropy, sim::SimEntropy};
use types::{NodeId, Position};

pub use self::tamper::Trick;
use self::{
    clock::{Skew, until},
    edge::{Edge, EdgeSizes},
    faults::Lane,
    fleet::Fleet,
    history::History,
    keys::Keys,
    load::{Client, Clients},
    net::Network,
    operator::Step,
    oracle::Oracle,
    runtime::{NodeRuntime, lock},
    voter::{Shared, Voter, VoterSizes},
};

/// The edges. Voters count from 1.
const EDGES: [NodeId; 3] = [NodeId::new(51), NodeId::new(52), NodeId::new(53)];
/// Clients that write.
const WRITERS: u8 = 6;
/// Acknowledged writes that a seed must have to count.
pub const ACKNOWLEDGED_MIN: u64 = 200;
/// How long the faults of a run last at least.
const FAULTS: Duration = Duration::from_secs(10);
/// How long healing may take once all faults are over: the longest backoff of a follower, its longest silence, an election, a change of
/// the members that was left halfway, and some work.
const HEAL_MAX: Duration = Duration::from_secs(30);
/// How often it is looked after, after the faults, whether all processes are there.
const KEPT_UP_EVERY: Duration = Duration::from_millis(200);

/// Something that is broken on purpose in the world around the product, and must not go unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// The voters' disks do not sync their logs, so they acknowledge before anything is durable: must be found.
    VoterLogsNotSynced,
    /// The edges' disks do not sync their logs, so they show and acknowledge before anything is durable: must be found.
    EdgeLogsNotSynced,
    /// Somebody between voters and edges, all the time: refused each time.
    InTheMiddle(Trick),
}

/// What a run brought.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it was run with.
    pub seed: u64,
    /// SHA-256 of its history.
    pub hash: String,
    /// Length of its history.
    pub events: u64,
    /// What was injected and what was done, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// All lines of the history, when they were asked for.
    pub trace: Vec<String>,
}

impl Report {
    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Whether enough has happened for the seed to count: a change of leaders, two crashes, a cut, 200 acknowledged writes.
    pub fn counts(&self) -> bool {
        let cuts = self.count("cuts one way") + self.count("partial partitions") + self.count("isolations");
        let crashes = self.count("voter crashes") + self.count("edge crashes");
        self.count("leader changes") >= 1 && crashes >= 2 && cuts >= 1 && self.count("acknowledged") >= ACKNOWLEDGED_MIN
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        let broken = self.violation.as_ref().and_then(|violation| violation.lines().next());
        serde_json::json!({
            "seed": self.seed, "ok": broken.is_none(), "broken": broken, "counts_as_run": self.counts(),
            "hash": self.hash, "events": self.events, "counts": self.counts,
        })
        .to_string()
    }
}

/// Runs one seed to its end.
pub fn run(seed: u64, broken: Broken, trace: bool) -> Report {
    let mut runtime = NodeRuntime::with_seed(seed);
    let history = History::new(trace);
    let inside = history.clone();
    runtime.block_on(async move {
        Box::pin(World::new(seed, inside).run(seed, broken)).await;
    });
    // Whatever is dropped now is no part of the history.
    let (hash, events) = history.digest();
    Report { seed, hash, events, counts: history.counts(), violation: history.violation(), trace: history.trace() }
}

/// All that is in a run.
struct World {
    fleet: Fleet,
    edges: Vec<Arc<Edge>>,
    network: Network,
    oracle: Oracle,
    history: History,
    shared: Shared,
    keys: Arc<Keys>,
    /// What is to be done about the members.
    todo: Mutex<VecDeque<Step>>,
    /// The edge that is to be revoked.
    revoke: Mutex<Option<NodeId>>,
    /// Whether clocks are set in this run; else all are right to 400 ms.
    clocks_jump: bool,
    offline_max: Option<Duration>,
    sizes: VoterSizes,
    draws: SimEntropy,
}

impl World {
    fn new(seed: u64, history: History) -> Self {
        let draws = SimEntropy::new(seed ^ 0x5eed);
        let draw = |from: u64, below: u64| from + draws.number() % (below - from);
        let network = Network::new(draws.number(), draw(300, 6_000), history.clone());
        let offline_max = (draw(0, 2) == 0).then_some(Duration::from_secs(3));
        let clocks_jump = draw(0, 3) == 0;
        let oracle = Oracle::new(history.clone(), offline_max);
        let sizes = VoterSizes {
            window_sets: draw(4, 100) as usize,
            snapshot_entries: draw(20, 150),
            keep_entries: draw(0, 40),
            segment_bytes: draw(16, 64) << 10,
            batch_bytes: draw(600, 20_000) as usize,
            chunk_bytes: draw(300, 8_000) as usize,
            tick: Duration::from_millis(draw(200, 1_000)),
            pipelines: draw(0, 3) > 0,
        };
        let skew = || Skew::new(draw(0, 800) as i64 - 400);
        let shared = Shared { network: network.clone(), oracle: oracle.clone(), history: history.clone() };
        let voters = if draw(0, 5) < 4 { 3 } else { 5 };
        history.event(format_args!("{voters} voters, {sizes:?}, offline_max {offline_max:?}, clocks jump: {clocks_jump}"));
        let nodes: Vec<NodeId> = (1..=voters).map(NodeId::new).collect();
        let fleet = Fleet::default();
        for node in &nodes {
            fleet.add(Arc::new(Voter::new(*node, nodes.clone(), draws.number(), sizes, skew(), shared.clone())));
        }
        let anchor = Anchor::of(voter::CLUSTER, &operator::first_signers(&fleet.alive()));
        oracle.anchored(anchor);
        let keys = Arc::new(Keys::new(draws.number(), oracle.clone()));
        let edge = |node| {
            let sizes = EdgeSizes { segment_bytes: draw(16, 64) << 10, snapshot_every_bytes: draw(8, 100) << 10 };
            Arc::new(Edge::new(node, draws.number(), sizes, anchor, skew(), (keys.ring.clone(), shared.clone())))
        };
        let edges = EDGES.into_iter().map(edge).collect();
        network.configure(nodes);
        let (todo, revoke) = (Mutex::default(), Mutex::default());
        Self { fleet, edges, network, oracle, history, shared, keys, todo, revoke, clocks_jump, offline_max, sizes, draws }
    }

    async fn run(self, seed: u64, broken: Broken) {
        let world = Arc::new(self);
        world.break_down(broken, seed);
        for voter in world.fleet.alive() {
            world.start_voter(&voter).await;
        }
        for edge in &world.edges {
            world.start_edge(edge).await;
        }
        let clients = Arc::new(Clients {
            fleet: world.fleet.clone(),
            network: world.network.clone(),
            oracle: world.oracle.clone(),
            history: world.history.clone(),
            keys: world.keys.clone(),
            known: Mutex::default(),
            stop: false.into(),
        });
        let client = |number: u8| Client::new(clients.clone(), seed ^ u64::from(number) << 40, number);
        operator::found(&world, &client(0), world.offline_max).await;
        let mut working: Vec<_> = (1..=WRITERS).map(|number| NodeRuntime::spawn(client(number).write())).collect();
        working.push(NodeRuntime::spawn(client(20).read()));
        working.push(NodeRuntime::spawn(readers::watch(client(21))));
        for (edge, number) in world.edges.iter().zip(30..) {
            working.push(NodeRuntime::spawn(client(number).look_up(edge.clone())));
        }
        let troubled = async {
            world.faults(seed).await;
            if world.history.violation().is_none() {
                world.kept_up(world.heal()).await;
            }
            clients.stop.store(true, Ordering::Relaxed);
        };
        let operated = operator::work(&world, client(22));
        if world.history.violation_during(Box::pin(futures::future::join(troubled, operated))).await {
            return;
        }
        for task in working {
            if let Err(error) = task.await {
                world.history.violated("no panic", format_args!("a client ended: {error}"));
            }
        }
        world.kept_up(world.end(&client(40))).await;
    }

    async fn faults(&self, seed: u64) {
        let (counted, leaders) = (|what| self.history.counted(what), self.history.counted("leader changes"));
        let enough = || counted("acknowledged") >= ACKNOWLEDGED_MIN + 20 && counted("leader changes") > leaders;
        let lane = |number: u64| Lane::new(self, seed ^ 0xfa_017 ^ number << 50, FAULTS, &enough);
        futures::future::join3(lane(1).voters(), lane(2).network(), lane(3).edges()).await;
    }

    /// Breaks what is to be broken.
    fn break_down(&self, broken: Broken, seed: u64) {
        match broken {
            Broken::Nothing => {}
            Broken::VoterLogsNotSynced => self.fleet.alive().iter().for_each(|voter| voter.disk.lie()),
            Broken::EdgeLogsNotSynced => self.edges.iter().for_each(|edge| edge.lie()),
            Broken::InTheMiddle(trick) => {
                for edge in EDGES {
                    self.network.tamper(edge, Some(tamper::tamper(trick, seed ^ edge.get(), self.history.clone())));
                }
            }
        }
    }

    /// A voter that was never there before.
    fn one_more_voter(&self) -> NodeId {
        let mut number = 6;
        while self.fleet.get(NodeId::new(number)).is_some() {
            number += 1;
        }
        let (node, skew) = (NodeId::new(number), Skew::new(self.draws.number() as i64 % 400));
        self.fleet.add(Arc::new(Voter::new(node, Vec::new(), self.draws.number(), self.sizes, skew, self.shared.clone())));
        self.network.configure(self.fleet.alive().iter().map(|voter| voter.node).collect());
        node
    }

    /// Ends what is broken, if it is not over yet. The operator finishes what was begun, and all nodes come to show the same.
    async fn heal(&self) {
        self.history.event(format_args!("the faults are over"));
        for edge in &self.edges {
            self.network.tamper(edge.node, None);
            if edge.skew.ms().abs() > 400 {
                edge.skew.set(0);
            }
            self.start_edge(edge).await;
        }
        self.network.heal();
        for voter in self.fleet.alive() {
            if voter.skew.ms().abs() > 400 {
                voter.skew.set(0);
            }
            // One that was to be started first is the operator's to start.
            if !lock(&self.todo).contains(&Step::Start(voter.node)) {
                self.start_voter(&voter).await;
            }
        }
        self.still_up().await;
        let settled = || lock(&self.todo).is_empty() && lock(&self.revoke).is_none();
        if !until(settled, HEAL_MAX).await {
            let todo = lock(&self.todo).clone();
            return self
                .history
                .violated("healing", format_args!("the members were not changed {HEAL_MAX:?} after the faults ended: {todo:?}"));
        }
        self.follows(self.oracle.head()).await;
    }

    /// All edges that are not revoked must show `head` in bounded time.
    async fn follows(&self, head: Position) {
        let begin = clock::elapsed();
        let follow = |edge: &Arc<Edge>| edge.may_be_revoked() || self.oracle.shown(edge.node) >= Some(head);
        if until(|| self.edges.iter().all(follow), HEAL_MAX).await {
            let took = clock::elapsed() - begin;
            self.history.event(format_args!("healed after {took:?}"));
            return;
        }
        for edge in &self.edges {
            let (shown, status) = (self.oracle.shown(edge.node), edge.status());
            self.history.event(format_args!("edge {} shows {shown:?}: {status:?}", edge.node));
        }
        self.history.violated("healing", format_args!("not all edges show {head} {HEAL_MAX:?} after the faults ended"));
    }

    /// The load is over: the newest state is read and judged, all nodes must come to show it, and all lookups must be right.
    async fn end(&self, client: &Client) {
        let mut newest = None;
        for attempt in 0..20 {
            if let Some(voter) = self.fleet.somebody(attempt) {
                newest = voter.read().await;
            }
            if newest.is_some() {
                break;
            }
            SimRuntime::sleep(Duration::from_millis(500)).await;
        }
        let Some(state) = newest else {
            return self.history.violated("healing", format_args!("the newest state cannot be read after the faults ended"));
        };
        self.oracle.ended(&state);
        let (at, root) = (state.position(), state.state_root());
        let same = |voter: &Arc<Voter>| voter.local().is_some_and(|local| local.position() == at && local.state_root() == root);
        if !until(|| self.fleet.alive().iter().all(same), HEAL_MAX).await {
            let at = |voter: &Arc<Voter>| (voter.node, voter.local().map(|local| local.position()), voter.status());
            let all: Vec<_> = self.fleet.alive().iter().map(at).collect();
            return self.history.violated("healing", format_args!("not all voters hold {}: {all:?}", state.position()));
        }
        self.holds_one_state().await;
        self.follows(at).await;
        for edge in self.edges.iter().filter(|edge| !edge.may_be_revoked()) {
            if !until(|| client.look_up_all(edge, at), HEAL_MAX).await {
                let status = edge.status();
                self.history.violated("healing", format_args!("edge {} does not answer all lookups: {status:?}", edge.node));
            }
        }
        self.fleet.note_acknowledgements();
        for voter in self.fleet.alive() {
            voter.stop().await;
        }
        for edge in &self.edges {
            edge.stop().await;
        }
    }

    /// Voters that have applied as much hold the same records, those too that no edge hears of.
    async fn holds_one_state(&self) {
        let all = || self.fleet.alive().iter().filter_map(|voter| voter.local()).collect::<Vec<_>>();
        // Ticks go on: at some moment all have applied the same.
        let level = || all().windows(2).all(|pair| pair[0].applied_index() == pair[1].applied_index());
        if !until(level, HEAL_MAX).await {
            return self.history.violated("healing", format_args!("voters do not come to have applied the same"));
        }
        if all().windows(2).any(|pair| !pair[0].records().eq(pair[1].records())) {
            self.history.violated("P1", format_args!("two voters have applied the same and hold other records"));
        }
    }

    async fn start_voter(&self, voter: &Voter) {
        if voter.is_running() || voter.is_gone() {
            return;
        }
        if let Err(error) = voter.start().await {
            self.history.violated("P1", format_args!("voter {} does not start: {error}", voter.node));
        }
    }

    async fn start_edge(&self, edge: &Edge) {
        if edge.is_running() {
            return;
        }
        if let Err(error) = edge.start().await {
            self.history.violated("P5", format_args!("edge {} does not start: {error}", edge.node));
        }
    }

    fn crash_edge(&self, edge: &Edge, entropy: &dyn Entropy) {
        self.history.count("edge crashes");
        self.fleet.note_acknowledgements();
        edge.crash(entropy);
    }

    /// Does `work`, and meanwhile starts again what ends by itself as it may: a voter whose disk was full to the last may notice later.
    async fn kept_up<T>(&self, work: impl Future<Output = T>) -> T {
        let keep = async {
            loop {
                SimRuntime::sleep(KEPT_UP_EVERY).await;
                self.still_up().await;
            }
        };
        match futures::future::select(pin!(work), pin!(keep)).await {
            Either::Left((done, _)) => done,
            Either::Right((never, _)) => never,
        }
    }

    /// Nothing ends by itself while its disk works. A voter whose disk was full may, and is started again.
    async fn still_up(&self) {
        for voter in self.fleet.running() {
            let Some(reason) = voter.stopped() else { continue };
            if voter.may_stop.load(Ordering::Relaxed) {
                self.history.count("voters stopped by a full disk");
                voter.crash(&self.draws);
                self.start_voter(&voter).await;
            } else {
                self.history.violated("P1", format_args!("voter {} stopped by itself: {reason}", voter.node));
            }
        }
    }
}
