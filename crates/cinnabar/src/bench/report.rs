//! What a measurement says: a histogram per row, printed as a table or as JSON with the set-up beside it.

use std::time::Duration;

use cli::{Failure, Output};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies are kept from 10 ns to one minute, to three digits.
const HIGHEST_NS: u64 = 60_000_000_000;

/// Latencies of one measurement.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Result<Self, Failure> {
        let histogram =
            Histogram::new_with_bounds(1, HIGHEST_NS, 3).map_err(|error| Failure::failed(format!("cannot make a histogram: {error}")))?;
        Ok(Self(histogram))
    }

    /// Adds one.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(HIGHEST_NS).max(1));
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of all did not exceed, in microseconds.
    fn us_at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// One line of a report.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// How many at once.
    pub concurrency: u32,
    /// How many were done.
    pub count: u64,
    /// How many a second; absent where the pace was set by the bench.
    pub per_second: Option<f64>,
    /// Median, in microseconds.
    pub p50_us: f64,
    /// In microseconds.
    pub p99_us: f64,
    /// In microseconds.
    pub p99_9_us: f64,
    /// In microseconds.
    pub max_us: f64,
}

impl Row {
    /// The row of `latencies`, which took `elapsed` in all.
    pub fn new(what: impl Into<String>, concurrency: u32, latencies: &Latencies, elapsed: Option<Duration>) -> Self {
        Self {
            what: what.into(),
            concurrency,
            count: latencies.count(),
            per_second: elapsed.map(|elapsed| latencies.count() as f64 / elapsed.as_secs_f64()),
            p50_us: latencies.us_at(0.50),
            p99_us: latencies.us_at(0.99),
            p99_9_us: latencies.us_at(0.999),
            max_us: latencies.us_at(1.0),
        }
    }
}

/// A whole measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured on what: one fact a line.
    pub setup: Vec<(String, String)>,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Report {
    /// A report that starts with what is true of every bench: the machine and the build.
    pub fn new(setup: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let build = if cfg!(debug_assertions) { "debug: do not quote these figures" } else { "release" };
        let machine = [
            ("machine", format!("{cores} cores, shared by callers and servers")),
            ("build", format!("{} {build}", env!("CARGO_PKG_VERSION"))),
        ];
        let setup = machine.into_iter().chain(setup).map(|(name, fact)| (name.to_owned(), fact)).collect();
        Self { setup, rows: Vec::new() }
    }

    /// Prints it.
    pub fn print(&self, output: Output) -> Result<(), Failure> {
        if output.is_json() {
            return output.json(self);
        }
        for (name, fact) in &self.setup {
            output.line(&format!("{name}: {fact}"))?;
        }
        output.line("")?;
        let headers = ["what", "at once", "count", "per second", "p50", "p99", "p99.9", "max"];
        output.rows(&headers, &self.rows, |row| {
            let rate = row.per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
            let times = [row.p50_us, row.p99_us, row.p99_9_us, row.max_us].map(human_us);
            [row.what.clone(), row.concurrency.to_string(), row.count.to_string(), rate].into_iter().chain(times).collect()
        })
    }
}

/// Microseconds with a unit that keeps three digits readable.
pub fn human_us(us: f64) -> String {
    match us {
        us if us < 1.0 => format!("{:.0} ns", us * 1000.0),
        us if us < 1000.0 => format!("{us:.1} us"),
        us if us < 1_000_000.0 => format!("{:.2} ms", us / 1000.0),
        us => format!("{:.2} s", us / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_times_keep_their_unit() {
        assert_eq!([0.5, 12.34, 1234.5, 2_500_000.0].map(human_us), ["500 ns", "12.3 us", "1.23 ms", "2.50 s"]);
    }

    #[test]
    fn latencies_row_has_the_quantiles_of_what_was_recorded() {
        let mut latencies = Latencies::new().unwrap();
        for us in 1..=1000 {
            latencies.record(Duration::from_micros(us));
        }
        let row = Row::new("x", 1, &latencies, Some(Duration::from_secs(2)));
        assert_eq!(row.per_second, Some(500.0));
        assert!((row.p50_us - 500.0).abs() < 2.0 && (row.p99_us - 990.0).abs() < 2.0, "{row:?}");
    }
}
