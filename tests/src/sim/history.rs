//! What happened in a run: its hash, its counts, and its last lines for whoever has to understand a failure.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use seams::sim::Survived;
use sha2::{Digest, Sha256};
use types::NodeId;

use super::{clock::elapsed, runtime::lock};

/// Lines kept for a failure.
const KEPT: usize = 60;

/// The history of one run. Clones share it.
#[derive(Clone, Default)]
pub(super) struct History(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    hash: Sha256,
    events: u64,
    last: VecDeque<String>,
    counts: BTreeMap<&'static str, u64>,
    violation: Option<String>,
    trace: Option<Vec<String>>,
}

impl History {
    /// An empty history; `trace` keeps every line.
    pub(super) fn new(trace: bool) -> Self {
        let inner = Inner { trace: trace.then(Vec::new), ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Something happened now.
    pub(super) fn event(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>15} {what}\n", elapsed().as_nanos());
        let mut inner = lock(&self.0);
        inner.hash.update(line.as_bytes());
        inner.events += 1;
        if let Some(trace) = &mut inner.trace {
            trace.push(line.clone());
        }
        if inner.last.len() == KEPT {
            inner.last.pop_front();
        }
        inner.last.push_back(line);
    }

    /// Something happened that is counted.
    pub(super) fn count(&self, what: &'static str) {
        *lock(&self.0).counts.entry(what).or_default() += 1;
    }

    /// The power went at a node's disk, and this came out of it.
    pub(super) fn survived(&self, node: NodeId, Survived { holes, names }: Survived) {
        if holes + names == 0 {
            return;
        }
        self.event(format_args!(
            "the disk of {node} keeps later writes without earlier ones in {holes} files, and {names} changes of names"
        ));
        let mut inner = lock(&self.0);
        *inner.counts.entry("holes among unsynced writes").or_default() += holes;
        *inner.counts.entry("unsynced names kept").or_default() += names;
    }

    /// How often it was counted.
    pub(super) fn counted(&self, what: &str) -> u64 {
        lock(&self.0).counts.get(what).copied().unwrap_or_default()
    }

    /// All counts by name.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.0).counts.clone()
    }

    /// A promise was broken. The first one is kept, with what led to it.
    pub(super) fn violated(&self, promise: &str, what: fmt::Arguments<'_>) {
        self.event(format_args!("BROKEN {promise}: {what}"));
        let mut inner = lock(&self.0);
        if inner.violation.is_none() {
            let before: String = inner.last.iter().map(String::as_str).collect();
            inner.violation = Some(format!("{promise} is broken: {what}\nthe last events, in nanoseconds of virtual time:\n{before}"));
        }
    }

    /// Waits for work to end, or for the next look at it after a promise was broken. Whether one was.
    pub(super) async fn violation_during(&self, work: impl Future<Output = ((), ())>) -> bool {
        let broken = async {
            while self.violation().is_none() {
                SimRuntime::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            biased;
            _ = work => self.violation().is_some(),
            () = broken => true,
        }
    }

    /// The first broken promise.
    pub(super) fn violation(&self) -> Option<String> {
        lock(&self.0).violation.clone()
    }

    /// SHA-256 over all events so far, and how many there were.
    pub(super) fn digest(&self) -> (String, u64) {
        let inner = lock(&self.0);
        let hash = inner.hash.clone().finalize();
        (hash.iter().map(|byte| format!("{byte:02x}")).collect(), inner.events)
    }

    /// All lines, when they were kept.
    pub(super) fn trace(&self) -> Vec<String> {
        lock(&self.0).trace.clone().unwrap_or_default()
    }
}
