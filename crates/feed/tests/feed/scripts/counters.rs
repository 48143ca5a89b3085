//! A recorder of metrics that keeps counters, so that scripts tell of signatures and alarms.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::Failure;

/// What is told of when it moves.
const TOLD: [&str; 9] = [
    "refused_total",
    "subscribers_refused_total",
    "damaged_total",
    "went_back_total",
    "duplicate_streams_total",
    "forks_total",
    "generations_refused_total",
    "checkpoints_unsigned_total",
    "table_rebuilds_total",
];

/// Counters by name and labels.
#[derive(Clone, Default)]
pub(super) struct Counters(Arc<Mutex<BTreeMap<String, Counted>>>);

/// A counter, and what was told of it last.
type Counted = (Arc<AtomicU64>, u64);

impl Counters {
    /// How far the counters of that name have moved since they were last asked for, with their labels.
    fn moved(&self, name: &str) -> Vec<(String, u64)> {
        let mut counters = self.0.lock().unwrap();
        let named = counters.iter_mut().filter(|(key, _)| key.split('{').next() == Some(name));
        let moves = named.map(|(key, (counter, told))| {
            let now = counter.load(Ordering::Relaxed);
            (key.clone(), now - std::mem::replace(told, now))
        });
        moves.filter(|(_, by)| *by > 0).collect()
    }

    /// Signatures and snapshots made since the last time.
    pub(super) fn signed(&self) -> String {
        let by = |name| self.moved(name).iter().map(|(_, by)| by).sum::<u64>();
        let (seals, checkpoints) = (by("seals_signed_total"), by("checkpoints_signed_total"));
        format!("signed since: seals {seals}, checkpoints {checkpoints}; snapshots cut {}", by("snapshots_cut_total"))
    }

    pub(super) fn tell(&self, out: &mut String) -> Result<(), Failure> {
        for (key, by) in TOLD.into_iter().flat_map(|name| self.moved(name)) {
            writeln!(out, "counted {key} +{by}")?;
        }
        Ok(())
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut name = key.name().trim_start_matches("cinnabar_feed_").to_owned();
        let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
        if !labels.is_empty() {
            name = format!("{name}{{{}}}", labels.join(","));
        }
        Counter::from_arc(self.0.lock().unwrap().entry(name).or_default().0.clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
