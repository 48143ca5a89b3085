//! A cluster of one voter and two edges in one thread under a seed: time, loss and crashes are decided by the seed alone.
//!
//! The real code of consensus, segment log, state, feed and follower runs on simulated seams: virtual time and tasks
//! ([`NodeRuntime`] over openraft-rt-sim), clocks that are wrong, disks that forget and lose power, a network that delays, cuts and
//! breaks. Clients write (`load`), faults strike (`faults`), the oracle judges by what clients saw (`oracle`);
//! then the faults end and everything must heal. The [`History`] of a run has a hash: one seed, one history.
//!
//! **Invariants**
//! 1. Nothing depends on the real clock, on threads, on addresses or on random hashers: the same seed gives the same hash.
//! 2. The oracle is told by clients and readers; of the voter it hears the change sets it commits, nothing else.
//!
//! **Left out**: TLS, sockets and sled, which have tests of their own; more than one voter (openraft's suite runs on the same log).
#![allow(clippy::expect_used, reason = "this is a test; a name that is none is a mistake of its author")]

pub mod clock;
pub mod disk;
pub mod edge;
mod faults;
pub mod history;
pub mod load;
pub mod net;
pub mod oracle;
pub mod runtime;
pub mod voter;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use feed::Anchor;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use seams::{Entropy, sim::SimEntropy};
use types::NodeId;
use wire::internal::SubscribeDown;

use self::{
    clock::{Skew, until},
    edge::{Edge, EdgeSizes},
    faults::Faults,
    history::History,
    load::{Client, Clients},
    net::Network,
    oracle::Oracle,
    runtime::NodeRuntime,
    voter::{CLUSTER, Voter, VoterSizes},
};

/// The edges.
const EDGES: [NodeId; 2] = [NodeId::new(2), NodeId::new(3)];
/// Writers beside one reader.
const WRITERS: u8 = 3;
/// Acknowledged writes that a seed must have to count.
pub const ACKNOWLEDGED_MIN: u64 = 100;
/// How long the faults of a run last at least.
const FAULTS: Duration = Duration::from_secs(20);
/// How long healing may take once all faults are over: the longest backoff of a follower, its longest silence, and some work.
const HEAL_MAX: Duration = Duration::from_secs(30);

/// Something that is broken on purpose, and must not go unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing.
    None,
    /// The voter's log is not synced, so it acknowledges before anything is durable: must be found.
    VoterLogNotSynced,
    /// The edges' logs are not synced, so they show and acknowledge before anything is durable: must be found.
    EdgeLogsNotSynced,
    /// Somebody between voter and edges takes a change set out of a batch now and then: refused each time.
    DropsChangeSets,
    /// Somebody sends a batch again now and then: refused each time.
    RepeatsBatches,
    /// Somebody turns a bit in a batch now and then: refused each time.
    TurnsBits,
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
    /// Whether enough has happened for the seed to count: two crashes, a cut, a hundred acknowledged writes.
    pub fn counts(&self) -> bool {
        let of = |what: &str| self.counts.get(what).copied().unwrap_or_default();
        of("voter crashes") + of("edge crashes") >= 2 && of("cuts one way") >= 1 && of("acknowledged") >= ACKNOWLEDGED_MIN
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        let ok = self.violation.is_none();
        serde_json::json!({ "seed": self.seed, "ok": ok, "hash": self.hash, "events": self.events, "counts": self.counts }).to_string()
    }
}

/// Runs one seed to its end.
pub fn run(seed: u64, mutation: Mutation, trace: bool) -> Report {
    let mut runtime = NodeRuntime::with_seed(seed);
    let history = History::new(trace);
    let inside = history.clone();
    runtime.block_on(async move {
        World::new(seed, inside).run(seed, mutation).await;
    });
    // Whatever is dropped now is no part of the history.
    let (hash, events) = history.digest();
    Report { seed, hash, events, counts: history.counts(), violation: history.violation(), trace: history.trace() }
}

/// All that is in a run.
struct World {
    voter: Arc<Voter>,
    edges: Vec<Edge>,
    network: Network,
    oracle: Oracle,
    history: History,
}

impl World {
    fn new(seed: u64, history: History) -> Self {
        let draws = SimEntropy::new(seed ^ 0x5eed);
        let draw = |from: u64, below: u64| from + draws.number() % (below - from);
        let network = Network::new(draws.number(), draw(500, 30_000), history.clone());
        let oracle = Oracle::new(history.clone());
        let sizes = VoterSizes {
            window_sets: draw(4, 60) as usize,
            snapshot_entries: draw(20, 120),
            keep_entries: draw(0, 30),
            segment_bytes: draw(8, 64) << 10,
            batch_bytes: draw(600, 20_000) as usize,
            chunk_bytes: draw(300, 8_000) as usize,
        };
        let skew = |most: i64| Skew::new(draw(0, 2 * most as u64) as i64 - most);
        let voter = Arc::new(Voter::new(draws.number(), sizes, skew(5_000), network.clone(), oracle.clone(), history.clone()));
        let anchor = Anchor::of(CLUSTER, &load::first_signers(&voter));
        let edge = |node| {
            let sizes = EdgeSizes { segment_bytes: draw(8, 64) << 10, snapshot_every_bytes: draw(4, 60) << 10 };
            Edge::new(node, draws.number(), sizes, anchor, skew(5_000), network.clone(), oracle.clone(), history.clone())
        };
        let edges = EDGES.into_iter().map(edge).collect();
        Self { voter, edges, network, oracle, history }
    }

    async fn run(self, seed: u64, mutation: Mutation) {
        self.mutate(mutation, seed);
        self.start_voter().await;
        for edge in 0..self.edges.len() {
            self.start_edge(edge).await;
        }
        let clients = Arc::new(Clients {
            voter: self.voter.clone(),
            network: self.network.clone(),
            oracle: self.oracle.clone(),
            history: self.history.clone(),
            stop: false.into(),
        });
        let client = |number: u8| Client::new(clients.clone(), seed ^ u64::from(number) << 40, number);
        client(0).found(&EDGES).await;
        let mut working: Vec<_> = (1..=WRITERS).map(|number| NodeRuntime::spawn(client(number).write())).collect();
        working.push(NodeRuntime::spawn(client(WRITERS + 1).read()));
        drop(NodeRuntime::spawn(watch_acknowledgements(self.voter.clone())));
        let enough = || self.history.counted("acknowledged") >= ACKNOWLEDGED_MIN + 20;
        Faults::new(&self, seed ^ 0xfa_017).inject(FAULTS, enough).await;
        if self.history.violation().is_some() {
            return;
        }
        self.heal(mutation).await;
        clients.stop.store(true, Ordering::Relaxed);
        for task in working {
            if let Err(error) = task.await {
                self.history.violated("no panic", format_args!("a client ended: {error}"));
            }
        }
        self.end().await;
    }

    /// Breaks what a mutation breaks.
    fn mutate(&self, mutation: Mutation, seed: u64) {
        match mutation {
            Mutation::None => {}
            Mutation::VoterLogNotSynced => self.voter.disk.lie(),
            Mutation::EdgeLogsNotSynced => self.edges.iter().for_each(Edge::lie),
            Mutation::DropsChangeSets | Mutation::RepeatsBatches | Mutation::TurnsBits => {
                for edge in EDGES {
                    self.network.tamper(edge, Some(tamper(mutation, seed ^ edge.get(), self.history.clone())));
                }
            }
        }
    }

    /// Ends what is broken, if it is not over yet.
    async fn heal(&self, mutation: Mutation) {
        self.history.event(format_args!("the faults are over"));
        for edge in &self.edges {
            self.network.tamper(edge.node, None);
            [net::Way::Up, net::Way::Down].into_iter().for_each(|way| self.network.cut(edge.node, way, false));
        }
        self.still_up().await;
        if mutation == Mutation::None || self.history.violation().is_none() {
            let head = self.oracle.head();
            self.follows(head).await;
        }
    }

    /// Both edges must show `head` in bounded time.
    async fn follows(&self, head: types::Position) {
        let begin = clock::elapsed();
        let all = || self.edges.iter().all(|edge| self.oracle.shown(edge.node) >= Some(head));
        if until(all, HEAL_MAX).await {
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

    /// The load is over: the newest state is read and judged, and both edges must come to show it.
    async fn end(&self) {
        let mut newest = None;
        for _ in 0..20 {
            newest = self.voter.read().await;
            if newest.is_some() {
                break;
            }
            SimRuntime::sleep(Duration::from_millis(500)).await;
        }
        let Some(state) = newest else {
            self.history.violated("healing", format_args!("the newest state cannot be read after the faults ended"));
            return;
        };
        self.oracle.ended(&state);
        self.follows(state.position()).await;
        self.voter.note_acknowledgements();
        self.voter.stop().await;
        for edge in &self.edges {
            edge.stop().await;
        }
    }

    async fn start_voter(&self) {
        if self.voter.is_running() {
            return;
        }
        if let Err(error) = self.voter.start().await {
            self.history.violated("P1", format_args!("the voter does not start: {error}"));
        }
    }

    async fn start_edge(&self, edge: usize) {
        if self.edges[edge].is_running() {
            return;
        }
        if let Err(error) = self.edges[edge].start().await {
            self.history.violated("P5", format_args!("edge {} does not start: {error}", self.edges[edge].node));
        }
    }

    fn crash_edge(&self, edge: usize, entropy: &dyn Entropy) {
        self.voter.note_acknowledgements();
        self.edges[edge].crash(entropy);
    }

    /// Nothing ends by itself while its disk works.
    async fn still_up(&self) {
        for edge in &self.edges {
            if let Some(end) = edge.ended() {
                self.history.violated("P5", format_args!("edge {} ended by itself: {end}", edge.node));
            }
        }
        if let Some(reason) = self.voter.stopped() {
            self.history.violated("P1", format_args!("the voter stopped by itself: {reason}"));
        }
    }
}

/// Looks at what the voter knows to be durable, as somebody who waits for a receipt does.
async fn watch_acknowledgements(voter: Arc<Voter>) {
    loop {
        SimRuntime::sleep(Duration::from_millis(50)).await;
        voter.note_acknowledgements();
    }
}

/// Somebody on the way who changes about every tenth batch.
fn tamper(mutation: Mutation, seed: u64, history: History) -> net::Tamper {
    use wire::internal::subscribe_down::Message;
    let entropy = SimEntropy::new(seed);
    let mut before: Option<SubscribeDown> = None;
    Box::new(move |message| {
        let Some(Message::Batch(batch)) = &message.message else { return vec![message] };
        let again = before.replace(message.clone());
        if !entropy.number().is_multiple_of(10) || batch.change_sets_encoded.is_empty() {
            return vec![message];
        }
        let mut changed = batch.clone();
        let place = entropy.number() as usize % changed.change_sets_encoded.len();
        let messages = match (mutation, again) {
            (Mutation::DropsChangeSets, _) => {
                changed.change_sets_encoded.remove(place);
                vec![SubscribeDown { message: Some(Message::Batch(changed)) }]
            }
            (Mutation::RepeatsBatches, Some(again)) => vec![again, message],
            (Mutation::TurnsBits, _) => {
                let mut bytes = changed.change_sets_encoded[place].to_vec();
                let at = entropy.number() as usize % bytes.len();
                bytes[at] ^= 1 << (entropy.number() % 8);
                changed.change_sets_encoded[place] = bytes.into();
                vec![SubscribeDown { message: Some(Message::Batch(changed)) }]
            }
            _ => return vec![message],
        };
        history.count("batches tampered with");
        messages
    })
}
