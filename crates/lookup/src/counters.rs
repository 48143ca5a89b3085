//! Counts of lookups by outcome. The handles are made once: asking the recorder costs more than a lookup's own checks.

use metrics::{Counter, counter};
use types::NodeName;
use wire::ErrorKind;

/// One counter per outcome: `cinnabar_lookups_total{node, outcome}`, where an outcome is `found` or the name of an error's kind.
pub(crate) struct Counters {
    pub(crate) found: Counter,
    refused: Vec<(ErrorKind, Counter)>,
}

impl Counters {
    pub(crate) fn new(node: &NodeName) -> Self {
        let of = |outcome: &'static str| counter!("cinnabar_lookups_total", "node" => node.to_string(), "outcome" => outcome);
        Self { found: of("found"), refused: ErrorKind::all().map(|kind| (kind, of(kind.name()))).collect() }
    }

    pub(crate) fn refused(&self, kind: ErrorKind) {
        if let Some((_, counter)) = self.refused.iter().find(|(known, _)| *known == kind) {
            counter.increment(1);
        }
    }
}
