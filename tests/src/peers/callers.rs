//! Callers: so many at once, each asking again when it has been answered, for one span of time.

use std::time::Duration;

use hdrhistogram::Histogram;
use runtime::RealClock;
use seams::Clock;

/// Latencies are kept up to one minute, to three digits.
const HIGHEST_NS: u64 = 60_000_000_000;

/// When a measurement begins, after its warm-up, and when it ends.
#[derive(Clone, Copy)]
pub(super) struct Span {
    clock: RealClock,
    from: Duration,
    to: Duration,
}

impl Span {
    /// Of `length`, after a fifth of it to warm up.
    pub(super) fn starting(clock: RealClock, length: Duration) -> Self {
        let from = clock.monotonic() + length / 5;
        Self { clock, from, to: from + length }
    }

    pub(super) fn length(&self) -> Duration {
        self.to - self.from
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// Times that were taken.
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("bounds of a histogram"))
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(HIGHEST_NS).max(1));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("histograms of the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time, in microseconds, that this share of all did not exceed.
    pub(super) fn us_at(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1000.0
    }
}

/// What one caller, or all of them, did.
pub(super) struct Tally {
    pub(super) times: Times,
    /// Everything, the warm-up included: what processor time is divided by.
    pub(super) all: u64,
}

/// Asks `count` times at once, each again when it was answered, until the span is over. `asked` gives each caller what it asks with; a call
/// may stand for `each` single ones, which share its time.
pub(super) async fn all_at_once<A, F>(span: Span, count: u32, each: u32, asked: impl Fn(u32) -> A) -> Tally
where
    A: FnMut() -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let callers: Vec<_> = (0..count)
        .map(|number| {
            let mut ask = asked(number);
            tokio::spawn(async move {
                let mut tally = Tally { times: Times::new(), all: 0 };
                loop {
                    let began = span.now();
                    ask().await;
                    let ended = span.now();
                    tally.all += u64::from(each);
                    if began >= span.from && ended <= span.to {
                        (0..each).for_each(|_| tally.times.record(ended - began));
                    }
                    if ended > span.to {
                        return tally;
                    }
                }
            })
        })
        .collect();
    let mut sum = Tally { times: Times::new(), all: 0 };
    for caller in callers {
        let tally = caller.await.expect("a caller ended early");
        sum.times.add(&tally.times);
        sum.all += tally.all;
    }
    sum
}
