//! Time spent in each stage of a lookup, for `cinnabar bench lookup`. A production lookup runs the same code with the probe that does nothing.

use std::time::Duration;

use seams::Clock;

/// A stage of the lookup path, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Load the root and identify the consumer.
    Identify,
    /// Check the root's position and age.
    Fresh,
    /// Find the binding, its store and the secret.
    Binding,
    /// Check the scope.
    Permission,
    /// Read the sealed record and its wrapped data key.
    Record,
    /// Open it.
    Open,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 6] = [Self::Identify, Self::Fresh, Self::Binding, Self::Permission, Self::Record, Self::Open];

    /// The stage's name in the benchmark's report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identify => "load root, identify consumer",
            Self::Fresh => "check position and age",
            Self::Binding => "find binding",
            Self::Permission => "check permission",
            Self::Record => "read sealed record",
            Self::Open => "open",
        }
    }
}

/// Is told when a stage is done.
pub(crate) trait Probe {
    /// `stage` has just ended.
    fn done(&mut self, stage: Stage);
}

/// The probe of production: nothing.
pub(crate) struct NoProbe;

impl Probe for NoProbe {
    #[inline]
    fn done(&mut self, _: Stage) {}
}

/// How long each stage of one lookup took. A stage that was not reached is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages([Duration; Stage::ALL.len()]);

impl Stages {
    /// The time spent in `stage`.
    pub const fn of(&self, stage: Stage) -> Duration {
        self.0[stage as usize]
    }

    /// The sum over all stages.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// Fills [`Stages`] from a clock.
pub(crate) struct Stopwatch<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) last: Duration,
    pub(crate) stages: &'a mut Stages,
}

impl Probe for Stopwatch<'_> {
    fn done(&mut self, stage: Stage) {
        let now = self.clock.monotonic();
        self.stages.0[stage as usize] = now.saturating_sub(self.last);
        self.last = now;
    }
}
