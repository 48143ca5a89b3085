//! What a measurement says: a histogram per row, printed as a table or as JSON with the set-up beside it.

use std::{collections::BTreeMap, time::Duration};

use cli::{Failure, Output};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::machine;

/// Latencies are kept from 10 ns to one minute, to three digits.
const HIGHEST_NS: u64 = 60_000_000_000;

/// Latencies of one measurement.
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Result<Self, Failure> {
        let histogram =
            Histogram::new_with_bounds(1, HIGHEST_NS, 3).map_err(|error| Failure::failed(format!("cannot make a histogram: {error}")))?;
        Ok(Self(histogram))
    }

    /// Adds one.
    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(HIGHEST_NS).max(1));
    }

    /// Adds those of another.
    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of all did not exceed, in microseconds.
    fn us_at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// One line of a report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// What was measured.
    pub(super) what: String,
    /// How many at once.
    pub(super) concurrency: u32,
    /// How many were done.
    pub(super) count: u64,
    /// How many a second; absent where the pace was set by the bench.
    pub(super) per_second: Option<f64>,
    /// Median, in microseconds.
    pub(super) p50_us: f64,
    /// In microseconds.
    pub(super) p99_us: f64,
    /// In microseconds.
    pub(super) p99_9_us: f64,
    /// In microseconds.
    pub(super) max_us: f64,
    /// Whether it is a part of the row above that is none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) part: bool,
    /// What else there is to know of it, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) also: BTreeMap<&'static str, f64>,
}

impl Row {
    /// The row of `latencies`, which took `elapsed` in all.
    pub(super) fn new(what: impl Into<String>, concurrency: u32, latencies: &Latencies, elapsed: Option<Duration>) -> Self {
        Self {
            what: what.into(),
            concurrency,
            count: latencies.count(),
            per_second: elapsed.map(|elapsed| latencies.count() as f64 / elapsed.as_secs_f64()),
            p50_us: latencies.us_at(0.50),
            p99_us: latencies.us_at(0.99),
            p99_9_us: latencies.us_at(0.999),
            max_us: latencies.us_at(1.0),
            part: false,
            also: BTreeMap::new(),
        }
    }

    /// As [`Row::new`], of calls that each did `each` of what is counted: the times are those of a call.
    pub(super) fn of_calls(what: impl Into<String>, concurrency: u32, latencies: &Latencies, each: u64, elapsed: Duration) -> Self {
        let row = Self::new(what, concurrency, latencies, Some(elapsed));
        Self { count: row.count * each, per_second: row.per_second.map(|rate| rate * each as f64), ..row }
    }

    /// The row of what is not a latency: all that there is to know of it is in [`Row::also`].
    pub(super) fn state(what: impl Into<String>) -> Result<Self, Failure> {
        Ok(Self::new(what, 1, &Latencies::new()?, None))
    }

    /// As a part of the row above, of which there were so many at once.
    #[must_use]
    pub(super) fn part_of(self, concurrency: u32) -> Self {
        Self { part: true, concurrency, ..self }
    }

    /// With one more thing to know.
    #[must_use]
    pub(super) fn also(mut self, name: &'static str, value: f64) -> Self {
        self.also.insert(name, value);
        self
    }

    /// The median of each figure over the rounds of one measurement; counts are summed. None without rounds.
    pub(super) fn median(rounds: &[Self]) -> Option<Self> {
        let first = rounds.first()?;
        let of = |figure: &dyn Fn(&Self) -> f64| middle(rounds.iter().map(figure).collect());
        let also = |name: &'static str| (name, of(&|row| row.also.get(name).copied().unwrap_or_default()));
        Some(Self {
            what: first.what.clone(),
            concurrency: first.concurrency,
            count: rounds.iter().map(|row| row.count).sum(),
            per_second: first.per_second.map(|_| of(&|row| row.per_second.unwrap_or_default())),
            p50_us: of(&|row| row.p50_us),
            p99_us: of(&|row| row.p99_us),
            p99_9_us: of(&|row| row.p99_9_us),
            max_us: of(&|row| row.max_us),
            part: first.part,
            also: first.also.keys().map(|name| also(name)).collect(),
        })
    }
}

/// The median; of an even number, the mean of the two in the middle.
fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let at = figures.len() / 2;
    match (figures.get(at.wrapping_sub(1)), figures.get(at)) {
        (Some(below), Some(above)) if figures.len().is_multiple_of(2) => f64::midpoint(*below, *above),
        (_, Some(above)) => *above,
        _ => 0.0,
    }
}

/// One fact of a set-up.
#[derive(Debug, Serialize)]
pub(super) struct Fact {
    /// Of what.
    pub(super) name: String,
    /// What is so.
    pub(super) fact: String,
}

/// A whole measurement.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What was measured on what: one fact a line.
    pub(super) setup: Vec<Fact>,
    /// The figures.
    pub(super) rows: Vec<Row>,
}

impl Report {
    /// A report that starts with what is true of every bench: the machine and the build.
    pub(super) fn new(setup: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let build = if cfg!(debug_assertions) { "debug: do not quote these figures" } else { "release" };
        let machine = [
            ("machine", format!("{cores} cores ({}), shared by callers and servers", machine::processor())),
            ("build", format!("cinnabar {}, {build}", env!("CARGO_PKG_VERSION"))),
        ];
        let mut report = Self { setup: Vec::new(), rows: Vec::new() };
        machine.into_iter().chain(setup).for_each(|(name, fact)| report.fact(name, fact));
        report
    }

    /// One more fact of the set-up.
    pub(super) fn fact(&mut self, name: impl Into<String>, fact: impl Into<String>) {
        self.setup.push(Fact { name: name.into(), fact: fact.into() });
    }

    /// The rows of one more measurement: the medians of those that have the same name and as much at once, in the order of the rounds. A
    /// round may lack one: what did not happen in it has no row.
    pub(super) fn rounds(&mut self, rounds: &[Vec<Row>]) {
        let mut measured: Vec<Vec<Row>> = Vec::new();
        for round in rounds {
            let mut at = 0;
            for row in round {
                let same = |others: &Vec<Row>| others.iter().any(|other| (&other.what, other.concurrency) == (&row.what, row.concurrency));
                match measured.iter().position(same) {
                    Some(place) => {
                        measured[place].push(row.clone());
                        at = place + 1;
                    }
                    None => {
                        measured.insert(at, vec![row.clone()]);
                        at += 1;
                    }
                }
            }
        }
        self.rows.extend(measured.iter().filter_map(|rows| Row::median(rows)));
    }

    /// Prints it.
    pub(super) fn print(&self, output: Output) -> Result<(), Failure> {
        if output.is_json() {
            return output.json(self);
        }
        let width = self.setup.iter().map(|Fact { name, .. }| name.len()).max().unwrap_or(0);
        for Fact { name, fact } in &self.setup {
            output.line(&format!("{name:width$}  {fact}"))?;
        }
        output.line("")?;
        let headers = ["what", "at once", "count", "per second", "p50", "p99", "p99.9", "max", ""];
        output.rows(&headers, &self.rows, |row| {
            let rate = row.per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
            let times = [row.p50_us, row.p99_us, row.p99_9_us, row.max_us];
            let times = times.map(|us| if row.count == 0 { "-".to_owned() } else { human_us(us) });
            let also = row
                .also
                .iter()
                .map(|(name, value)| format!("{name} {value:.*}", if *value < 1.0 { 3 } else { 1 }))
                .collect::<Vec<_>>()
                .join("  ");
            let what = if row.part { format!("  {}", row.what) } else { row.what.clone() };
            let facts = [what, row.concurrency.to_string(), row.count.to_string(), rate];
            facts.into_iter().chain(times).chain([also]).collect()
        })
    }
}

/// Microseconds with a unit that keeps three digits readable.
pub(crate) fn human_us(us: f64) -> String {
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

    #[test]
    fn row_of_several_rounds_has_the_median_of_each_figure() {
        let round = |us: u64, also: f64| {
            let mut latencies = Latencies::new().unwrap();
            latencies.record(Duration::from_micros(us));
            Row::new("x", 1, &latencies, Some(Duration::from_micros(us))).also("entries/fsync", also)
        };
        let row = Row::median(&[round(100, 3.0), round(900, 1.0), round(200, 2.0)]).unwrap();
        assert_eq!((row.count, row.also["entries/fsync"]), (3, 2.0));
        assert!((row.p50_us - 200.0).abs() < 1.0 && (row.max_us - 200.0).abs() < 1.0, "{row:?}");
        assert_eq!(row.per_second, Some(5000.0));
        assert_eq!([vec![], vec![4.0], vec![1.0, 2.0]].map(middle), [0.0, 4.0, 1.5]);
        assert!(Row::median(&[]).is_none());
    }

    #[test]
    fn report_joins_rows_of_rounds_by_what_they_are_also_when_one_is_missing() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::from_micros(10));
        let row = |what: &str, concurrency| Row::new(what, concurrency, &latencies, None);
        let mut report = Report { setup: Vec::new(), rows: Vec::new() };
        report.rounds(&[vec![row("a", 1), row("a", 2)], vec![row("a", 1), row("b", 1), row("a", 2)]]);
        let rows: Vec<_> = report.rows.iter().map(|row| (row.what.as_str(), row.concurrency, row.count)).collect();
        assert_eq!(rows, [("a", 1, 2), ("b", 1, 1), ("a", 2, 2)]);
    }

    #[test]
    fn row_of_calls_counts_what_each_call_did() {
        let mut latencies = Latencies::new().unwrap();
        (0..10).for_each(|_| latencies.record(Duration::from_millis(1)));
        let row = Row::of_calls("x", 1, &latencies, 64, Duration::from_secs(1));
        assert_eq!((row.count, row.per_second), (640, Some(640.0)));
    }
}
