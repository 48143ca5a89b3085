//! Histories of concurrent clients against whole processes: linearizable at control nodes, and a prefix at edges, while the leader is
//! killed and cut off.
//!
//! Eight clients write, check and set, delete and read metadata of the same few secrets through all control nodes; readers look them up
//! at both edges, with and without a demanded position. Each phase of the load is let go when the fault before it is in place, so
//! every fault meets operations under way. What was seen is judged by [`tests::linear`]; and then, with a lie put in, must be refused.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use client::ClientError;
use seams::{Entropy, sim::SimEntropy};
use tests::{
    linear::{History, NEVER, Op, Outcome, Recorder, Shown, Violation},
    process::{Fleet, Operator, Reader, Role, until},
};
use tokio::{sync::Semaphore, task::JoinSet};
use types::Position;
use wire::{ErrorKind, v1};

/// Clients of the control nodes: all on the same keys.
const CLIENTS: u32 = 8;
/// Secrets. The last of them is deleted on the way.
const KEYS: u32 = 4;
/// Readers at each edge.
const READERS: u32 = 2;
/// Operations of all clients between two faults.
const PHASE: usize = 80;
/// Lookups of one reader that are recorded.
const LOOKUPS_MAX: usize = 3000;
/// How long a client waits for an answer: longer than an election, shorter than a cut.
const PATIENT: Duration = Duration::from_secs(3);

fn name(key: u32) -> String {
    format!("KEY_{key}")
}

fn text(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn position(receipt: Option<v1::Receipt>) -> Position {
    receipt.and_then(|receipt| receipt.position).map(Position::from).expect("a receipt names a position")
}

/// What all share.
#[derive(Clone)]
struct Stage {
    recorder: Recorder,
    /// One permit for each operation that may begin.
    allowed: Arc<Semaphore>,
    /// The highest position that was acknowledged to anybody.
    newest: Arc<Mutex<Position>>,
    over: Arc<AtomicBool>,
}

impl Stage {
    fn new() -> Self {
        let recorder = Recorder::default();
        Self { recorder, allowed: Arc::new(Semaphore::new(0)), newest: Arc::default(), over: Arc::default() }
    }

    fn acknowledged(&self, position: Position) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = position.max(*newest);
    }

    fn newest(&self) -> Position {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets some more operations begin, and waits until all but those that hang are over.
    async fn go_on(&self, operations: usize) {
        let wanted = self.recorder.calls() + operations - CLIENTS as usize;
        self.allowed.add_permits(operations);
        until("operations to end", async || match self.recorder.calls() {
            done if done >= wanted => Ok(()),
            done => Err(format!("{done} of {wanted}")),
        })
        .await;
    }
}

/// A client of the control nodes.
struct Caller {
    number: u32,
    operator: Operator,
    stage: Stage,
    entropy: SimEntropy,
    /// The last version that it saw of each key.
    seen: BTreeMap<u32, u64>,
    values: u64,
}

impl Caller {
    fn value(&mut self) -> u64 {
        self.values += 1;
        u64::from(self.number) << 32 | self.values
    }

    /// Everybody makes every key, and one of them does.
    async fn create_all(mut self) -> Self {
        for key in 0..KEYS {
            let value = self.value();
            self.ask(key, Op::Create { value }).await;
        }
        self
    }

    /// Works until no more operations are allowed.
    async fn work(mut self) {
        while let Ok(permit) = self.stage.allowed.clone().acquire_owned().await {
            permit.forget();
            let key = (self.entropy.number() % u64::from(KEYS)) as u32;
            let deletes = key == KEYS - 1 && self.stage.recorder.calls() > 3 * PHASE;
            let op = match self.entropy.number() % 10 {
                0 if deletes => Op::Delete,
                0..=3 => Op::Set { value: self.value(), expect: None },
                4..=6 => Op::Set { value: self.value(), expect: self.seen.get(&key).copied().or(Some(1)) },
                _ => Op::Read,
            };
            self.ask(key, op).await;
        }
    }

    /// One operation, recorded.
    async fn ask(&mut self, key: u32, op: Op) {
        let began = self.stage.recorder.begin();
        let outcome = self.send(key, op).await.unwrap_or_else(|error| refused(&error));
        self.stage.recorder.answered(self.number, key, op, began, outcome);
        match outcome {
            Outcome::Written { version, position } => {
                self.seen.insert(key, version);
                self.stage.acknowledged(position);
            }
            Outcome::Deleted { position } => self.stage.acknowledged(position),
            Outcome::Seen(version) => _ = self.seen.insert(key, version),
            _ => {}
        }
    }

    async fn send(&self, key: u32, op: Op) -> Result<Outcome, ClientError> {
        let (operator, client) = (&self.operator, &self.operator.client);
        Ok(match op {
            Op::Create { value } => Outcome::Written { version: 1, position: operator.try_create(&name(key), &text(value)).await? },
            Op::Set { value, expect } => {
                let secret = Some(operator.secret(&name(key)));
                let request = v1::SetValueRequest { secret, value: text(value), expect_version: expect, ..Default::default() };
                let reply = client.set_value(request).await?;
                Outcome::Written { version: reply.version, position: position(reply.receipt) }
            }
            Op::Delete => {
                let secrets = vec![name(key)];
                let request = v1::DeleteSecretsRequest { store: Some(operator.store()), secrets, force: true, ..Default::default() };
                Outcome::Deleted { position: position(client.delete_secrets(request).await?.receipt) }
            }
            Op::Read => {
                let request = v1::ShowSecretRequest { secret: Some(operator.secret(&name(key))) };
                Outcome::Seen(client.show_secret(request).await?.current_version)
            }
        })
    }
}

/// What an error says of the key. That a client gave up leaves open what became of its request.
fn refused(error: &ClientError) -> Outcome {
    match error.kind() {
        ErrorKind::NotFound => Outcome::Missing,
        ErrorKind::AlreadyExists => Outcome::Exists,
        ErrorKind::Precondition => Outcome::Mismatch,
        kind if kind.retryable() || kind == ErrorKind::DeadlineExceeded => Outcome::Unknown,
        _ => panic!("refused: {error}: {}", error.error),
    }
}

/// Looks up at one edge until the load is over.
async fn look(stage: Stage, edge: u32, reader: Reader, seed: u64) {
    let entropy = SimEntropy::new(seed);
    let mut seen = Position::default();
    for _ in 0..LOOKUPS_MAX {
        if stage.over.load(Ordering::Relaxed) {
            break;
        }
        let demanded = match entropy.number() % 3 {
            0 => None,
            1 => Some(seen),
            _ => Some(stage.newest()),
        };
        let key = (entropy.number() % u64::from(KEYS)) as u32;
        seen = seen.max(look_once(&stage, edge, &reader, key, demanded).await.unwrap_or_default());
    }
}

/// One lookup, recorded unless it says nothing of the key; the position that it showed.
async fn look_once(stage: &Stage, edge: u32, reader: &Reader, key: u32, demanded: Option<Position>) -> Option<Position> {
    let began = stage.recorder.begin();
    let found = match demanded {
        Some(position) => reader.get_at(&name(key), position).await,
        None => reader.get(&name(key)).await,
    };
    let shown = match found {
        Ok(found) => Shown::Value {
            value: String::from_utf8(found.value).ok().and_then(|text| text.parse().ok()).expect("a value as it was written"),
            version: found.version,
            position: Position::from(found.position.expect("a position")),
        },
        Err(error) if matches!(error.kind(), ErrorKind::NotBound | ErrorKind::Absent) => Shown::Absent,
        Err(error) if error.kind().retryable() || matches!(error.kind(), ErrorKind::NotSynced | ErrorKind::DeadlineExceeded) => {
            return None;
        }
        Err(error) => panic!("edge {edge} refused: {error}: {}", error.error),
    };
    stage.recorder.shown(edge, key, demanded, began, shown);
    match shown {
        Shown::Value { position, .. } => Some(position),
        Shown::Absent => Some(Position::default()),
    }
}

/// Runs the load through a killed and a cut off leader, and returns what was seen.
async fn seen_under_faults(fleet: &mut Fleet) -> History {
    let stage = Stage::new();
    let controls = fleet.names(Role::Control);
    let callers = (0..CLIENTS).map(|number| {
        let mut order: Vec<&str> = controls.iter().map(String::as_str).collect();
        order.rotate_left(number as usize % controls.len());
        let mut operator = fleet.operator_at(&order);
        operator.client = operator.client.timeout(PATIENT);
        let (stage, entropy) = (stage.clone(), SimEntropy::new(u64::from(number)));
        Caller { number, operator, stage, entropy, seen: BTreeMap::new(), values: 0 }
    });
    let mut making: JoinSet<Caller> = callers.map(Caller::create_all).collect();
    let mut made = Vec::new();
    while let Some(caller) = making.join_next().await {
        made.push(caller.expect("a client makes its keys"));
    }
    for key in 0..KEYS {
        stage.recorder.bound(fleet.operator().bind(&name(key), &name(key)).await);
    }
    let mut working: JoinSet<()> = made.into_iter().map(Caller::work).collect();
    let mut looking = JoinSet::new();
    for (edge, name) in (1_u32..).zip(fleet.names(Role::Edge)) {
        for reader in 0..READERS {
            looking.spawn(look(stage.clone(), edge, fleet.reader(&name), u64::from(edge << 8 | reader)));
        }
    }

    stage.go_on(PHASE).await;
    let leader = fleet.leader().await;
    fleet.kill(&leader);
    stage.go_on(PHASE).await;
    fleet.launch(&leader);
    stage.go_on(PHASE).await;
    fleet.until_health(&leader, "/readyz", 200).await;
    let leader = fleet.leader().await;
    fleet.net.part_from_all(&leader);
    stage.go_on(PHASE).await;
    fleet.net.mend();
    stage.go_on(PHASE).await;
    fleet.until_health(&leader, "/readyz", 200).await;
    stage.go_on(PHASE).await;

    stage.allowed.close();
    while let Some(ended) = working.join_next().await {
        ended.expect("a client works to the end");
    }
    stage.over.store(true, Ordering::Relaxed);
    while let Some(ended) = looking.join_next().await {
        ended.expect("a reader looks to the end");
    }
    // And what came of it is at both edges.
    let last = stage.newest();
    for (edge, name) in (1_u32..).zip(fleet.names(Role::Edge)) {
        let reader = fleet.reader(&name);
        for key in 0..KEYS {
            until(&format!("{name} to answer at {last}"), async || {
                look_once(&stage, edge, &reader, key, Some(last)).await.map(drop).ok_or_else(|| "not synced".to_owned())
            })
            .await;
        }
    }
    stage.recorder.history()
}

/// How many answers were such.
fn count(history: &History, which: impl Fn(&Outcome) -> bool) -> usize {
    history.calls.iter().filter(|call| which(&call.outcome)).count()
}

/// The history with the first read changed that saw an overwritten version after the write was answered: to the version before.
fn with_a_stale_read(history: &History) -> History {
    let mut lying = history.clone();
    let settled = |key: u32, seen: u64, began: u64| {
        let newer = |outcome: Outcome| matches!(outcome, Outcome::Written { version, .. } if version == seen);
        history.calls.iter().any(|call| call.key == key && newer(call.outcome) && call.ended < began)
    };
    let read = lying.calls.iter_mut().find(|call| match call.outcome {
        Outcome::Seen(version) => version > 1 && settled(call.key, version, call.began),
        _ => false,
    });
    let read = read.expect("some read saw a write that was answered before");
    let Outcome::Seen(version) = &mut read.outcome else { unreachable!("found by its outcome") };
    *version -= 1;
    lying
}

/// The history with one lookup that shows the value before the one that was there at its position.
fn with_an_old_value(history: &History) -> History {
    let mut lying = history.clone();
    let written = |key: u32, wanted: u64| {
        history.calls.iter().find_map(|call| match (call.op, call.outcome) {
            (Op::Create { value } | Op::Set { value, .. }, Outcome::Written { version, .. }) if call.key == key && version == wanted => {
                Some(value)
            }
            _ => None,
        })
    };
    let changed = lying.lookups.iter_mut().find_map(|lookup| match lookup.shown {
        Shown::Value { version, position, .. } if version > 1 && written(lookup.key, version).is_some() => {
            let value = written(lookup.key, version - 1)?;
            lookup.shown = Shown::Value { value, version: version - 1, position };
            Some(())
        }
        _ => None,
    });
    changed.expect("some lookup showed an answered write behind another");
    lying
}

/// The history with the positions of two writes exchanged, one of which was answered before the other began.
fn with_writes_out_of_order(history: &History) -> History {
    let mut lying = history.clone();
    let written: Vec<usize> =
        (0..lying.calls.len()).filter(|place| matches!(lying.calls[*place].outcome, Outcome::Written { .. })).collect();
    let first = *written.iter().min_by_key(|place| lying.calls[**place].ended).expect("something was written");
    let last = *written.iter().max_by_key(|place| lying.calls[**place].began).expect("something was written");
    let (one, other) = (lying.calls[first].outcome, lying.calls[last].outcome);
    let (Outcome::Written { position: low, version: old }, Outcome::Written { position: high, version: new }) = (one, other) else {
        unreachable!("found by their outcomes")
    };
    lying.calls[first].outcome = Outcome::Written { position: high, version: old };
    lying.calls[last].outcome = Outcome::Written { position: low, version: new };
    lying
}

#[tokio::test(flavor = "multi_thread")]
async fn history_of_clients_while_the_leader_is_killed_and_cut_off_is_linearizable_and_edges_show_its_prefixes() {
    let mut fleet = Fleet::start(3, 2).await;
    let history = seen_under_faults(&mut fleet).await;
    let written = count(&history, |outcome| matches!(outcome, Outcome::Written { .. }));
    let seen = count(&history, |outcome| matches!(outcome, Outcome::Seen(_)));
    let mismatches = count(&history, |outcome| *outcome == Outcome::Mismatch);
    let unknown = history.calls.iter().filter(|call| call.ended == NEVER).count();
    println!("{} calls: {written} written, {seen} read, {mismatches} expectations not met, {unknown} unknown", history.calls.len());
    println!("{} lookups", history.lookups.len());
    let judged = history.judge();
    assert_eq!(judged, Ok(()), "{}", judged.as_ref().map_or_else(Violation::to_string, |()| String::new()));

    // So much happened that the judgement means something.
    assert!(written >= PHASE && seen >= PHASE / 2 && mismatches > 0, "too little happened");
    assert!(history.lookups.len() >= 100, "too few lookups");

    // And with a lie it does not pass.
    let stale = with_a_stale_read(&history);
    assert!(stale.ordered().is_ok() && stale.linearizable().is_err(), "a read that is older than a write answered before it");
    assert!(with_an_old_value(&history).ordered().is_err(), "an edge that shows an older value at its position");
    assert!(with_writes_out_of_order(&history).ordered().is_err(), "writes whose positions contradict real time");
}
