//! What was measured: sections of rows, with the ratio of each row to the same of the system that the section compares with.

use std::fmt::Write as _;

use serde::Serialize;

/// One fact of the set-up.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// Of what.
    pub name: String,
    /// The fact.
    pub fact: String,
}

/// What a section's ratio is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Operations a second: more is better.
    Rate,
    /// The median time: less is better.
    Median,
    /// Bytes: fewer are better.
    Bytes,
}

/// One figure of one system in one case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The case, such as `64 writers`: equal in all systems.
    pub case: String,
    /// The system, such as `etcd`.
    pub system: String,
    /// What it had done when it answered, and what was on.
    pub promise: String,
    /// How many operations were timed.
    pub count: u64,
    /// Operations a second; absent where the pace was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Median, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// In microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// Processor time of the servers for one operation, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us: Option<f64>,
    /// Processor time of the callers for one operation, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_cpu_us: Option<f64>,
    /// Bytes, where it is about bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<f64>,
    /// This row's figure divided by that of the system compared with, in the same case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The same of the times that one in a hundred exceeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ratio: Option<f64>,
}

/// What is compared: one question, put to several systems.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// The question.
    pub title: String,
    /// What a reader must know to judge the figures.
    pub note: String,
    /// What the ratio is made of.
    pub by: By,
    /// The system that the others are divided by.
    pub reference: String,
    /// The rows, in the order of the cases.
    pub rows: Vec<Row>,
}

impl Section {
    /// The medians over the rounds, joined by case and system, each with its ratio. A round may lack a row.
    pub fn of(title: &str, note: &str, by: By, reference: &str, rounds: &[Vec<Row>]) -> Self {
        let mut groups: Vec<Vec<Row>> = Vec::new();
        for row in rounds.iter().flatten() {
            match groups.iter_mut().find(|group| (&group[0].case, &group[0].system) == (&row.case, &row.system)) {
                Some(group) => group.push(row.clone()),
                None => groups.push(vec![row.clone()]),
            }
        }
        let mut rows: Vec<Row> = groups.iter().map(|group| median(group)).collect();
        let figure = |row: &Row| match by {
            By::Rate => row.per_second,
            By::Median => row.p50_us,
            By::Bytes => row.bytes,
        };
        let references: Vec<Row> = rows.iter().filter(|row| row.system == reference).cloned().collect();
        for row in &mut rows {
            let compared = references.iter().find(|other| other.case == row.case);
            let ratio = |own: Option<f64>, compared: Option<f64>| {
                own.zip(compared).filter(|(_, compared)| *compared > 0.0).map(|(own, compared)| own / compared)
            };
            row.ratio = ratio(figure(row), compared.and_then(figure));
            row.p99_ratio = (by == By::Median).then(|| ratio(row.p99_us, compared.and_then(|compared| compared.p99_us))).flatten();
        }
        // By case, in the order in which cases came first; within a case, as the systems came.
        let mut cases: Vec<String> = Vec::new();
        rows.iter().for_each(|row| {
            if !cases.contains(&row.case) {
                cases.push(row.case.clone())
            }
        });
        rows.sort_by_key(|row| cases.iter().position(|case| *case == row.case));
        Self { title: title.to_owned(), note: note.to_owned(), by, reference: reference.to_owned(), rows }
    }
}

/// The median of each figure; counts are summed.
fn median(rows: &[Row]) -> Row {
    let of = |figure: fn(&Row) -> Option<f64>| middle(rows.iter().filter_map(figure).collect());
    Row {
        count: rows.iter().map(|row| row.count).sum(),
        per_second: of(|row| row.per_second),
        p50_us: of(|row| row.p50_us),
        p99_us: of(|row| row.p99_us),
        server_cpu_us: of(|row| row.server_cpu_us),
        caller_cpu_us: of(|row| row.caller_cpu_us),
        bytes: of(|row| row.bytes),
        ..rows[0].clone()
    }
}

/// The median; of an even number, the mean of the two in the middle; none of none.
fn middle(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let at = figures.len() / 2;
    if figures.len().is_multiple_of(2) && at > 0 {
        return Some(f64::midpoint(figures[at - 1], figures[at]));
    }
    figures.get(at).copied()
}

/// All that was measured in one go.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The set-up.
    pub setup: Vec<Fact>,
    /// What was compared.
    pub sections: Vec<Section>,
}

impl Report {
    /// One more fact.
    pub fn fact(&mut self, name: &str, fact: impl Into<String>) {
        self.setup.push(Fact { name: name.to_owned(), fact: fact.into() });
    }

    /// As JSON.
    ///
    /// # Panics
    /// Never: all of it is text and numbers.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("text and numbers")
    }

    /// As Markdown: the set-up as a list, each section as a table. Columns that no row fills are left out.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Cinnabar beside etcd and Redis\n\n");
        for Fact { name, fact } in &self.setup {
            let _ = writeln!(text, "- {name}: {fact}");
        }
        for section in &self.sections {
            let _ = write!(text, "\n## {}\n{}\n\n{}", section.title, section.note, table(section));
        }
        text
    }
}

type Column = (String, fn(&Row) -> Option<String>);

fn table(section: &Section) -> String {
    let columns: [Column; 10] = [
        ("case".into(), |row| Some(row.case.clone())),
        ("system".into(), |row| Some(row.system.clone())),
        ("when it answers".into(), |row| Some(row.promise.clone()).filter(|promise| !promise.is_empty())),
        ("per second".into(), |row| row.per_second.map(|rate| thousands(rate.round() as u64))),
        ("p50".into(), |row| row.p50_us.map(human_us)),
        ("p99".into(), |row| row.p99_us.map(human_us)),
        ("server, caller cpu".into(), |row| {
            row.server_cpu_us.zip(row.caller_cpu_us).map(|(server, caller)| format!("{}, {} us", short(server), short(caller)))
        }),
        ("bytes".into(), |row| row.bytes.map(human_bytes)),
        (format!("ratio to {}", section.reference), |row| row.ratio.map(|ratio| format!("{ratio:.2}"))),
        ("at p99".into(), |row| row.p99_ratio.map(|ratio| format!("{ratio:.2}"))),
    ];
    let used: Vec<_> = columns.iter().filter(|(_, cell)| section.rows.iter().any(|row| cell(row).is_some())).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(used.iter().map(|(name, _)| name.clone()).collect());
    text += &line(used.iter().map(|_| "---".to_owned()).collect());
    for row in &section.rows {
        text += &line(used.iter().map(|(_, cell)| cell(row).unwrap_or_default()).collect());
    }
    text
}

/// With one digit after the point where it matters.
fn short(us: f64) -> String {
    if us < 10.0 { format!("{us:.1}") } else { format!("{us:.0}") }
}

fn human_us(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 10_000.0 => format!("{:.1} ms", us / 1000.0),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1000.0),
        us => format!("{:.1} s", us / 1_000_000.0),
    }
}

fn human_bytes(bytes: f64) -> String {
    const MIB: f64 = (1_u64 << 20) as f64;
    if bytes < MIB { format!("{:.1} KiB", bytes / 1024.0) } else { format!("{:.1} MiB", bytes / MIB) }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, system: &str, rate: f64, p50_us: f64) -> Row {
        Row {
            case: case.into(),
            system: system.into(),
            count: 10,
            per_second: Some(rate),
            p50_us: Some(p50_us),
            p99_us: Some(p50_us * 4.0),
            ..Row::default()
        }
    }

    fn rounds() -> Vec<Vec<Row>> {
        let round = |etcd: f64, ours: f64| {
            vec![
                row("1 writer", "etcd", etcd, 900.0),
                row("64 writers", "etcd", 2.0 * etcd, 33_000.0),
                row("1 writer", "cinnabar", ours, 300.0),
                row("64 writers", "cinnabar", 3.0 * ours, 11_000.0),
            ]
        };
        vec![round(1000.0, 1500.0), round(100.0, 9000.0), round(1200.0, 3000.0)]
    }

    #[test]
    fn section_has_medians_by_case_and_the_ratio_of_each_to_the_reference() {
        let section = Section::of("writes", "", By::Rate, "etcd", &rounds());
        let seen: Vec<_> =
            section.rows.iter().map(|row| (row.case.as_str(), row.system.as_str(), row.count, row.per_second, row.ratio)).collect();
        assert_eq!(
            seen,
            [
                ("1 writer", "etcd", 30, Some(1000.0), Some(1.0)),
                ("1 writer", "cinnabar", 30, Some(3000.0), Some(3.0)),
                ("64 writers", "etcd", 30, Some(2000.0), Some(1.0)),
                ("64 writers", "cinnabar", 30, Some(9000.0), Some(4.5)),
            ]
        );
        let by_time = Section::of("writes", "", By::Median, "etcd", &rounds());
        assert!((by_time.rows[1].ratio.unwrap() - 1.0 / 3.0).abs() < 1e-9);
        assert!((by_time.rows[1].p99_ratio.unwrap() - 1.0 / 3.0).abs() < 1e-9);
        assert!(section.rows.iter().all(|row| row.p99_ratio.is_none()));
    }

    #[test]
    fn section_without_its_reference_has_no_ratio_and_even_rounds_have_the_mean_of_the_middle() {
        let rounds: Vec<_> =
            rounds().into_iter().take(2).map(|round| round.into_iter().filter(|row| row.system != "etcd").collect()).collect();
        let section = Section::of("writes", "", By::Rate, "etcd", &rounds);
        assert_eq!(section.rows.len(), 2);
        assert!(section.rows.iter().all(|row| row.ratio.is_none()));
        assert_eq!(section.rows[0].per_second, Some(5250.0));
        assert_eq!(middle(Vec::new()), None);
    }

    #[test]
    fn markdown_shows_setup_and_only_columns_that_are_filled() {
        let mut report = Report::default();
        report.fact("cores", "2");
        report.sections.push(Section::of("Writes", "Each durable.", By::Rate, "etcd", &rounds()[2..]));
        let expected = "\
# Cinnabar beside etcd and Redis

- cores: 2

## Writes
Each durable.

| case | system | per second | p50 | p99 | ratio to etcd |
| --- | --- | --- | --- | --- | --- |
| 1 writer | etcd | 1,200 | 900 us | 3.6 ms | 1.00 |
| 1 writer | cinnabar | 3,000 | 300 us | 1.2 ms | 2.50 |
| 64 writers | etcd | 2,400 | 33 ms | 132 ms | 1.00 |
| 64 writers | cinnabar | 9,000 | 11 ms | 44 ms | 3.75 |
";
        assert_eq!(report.markdown(), expected);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["sections"][0]["rows"][3]["ratio"], 3.75);
        assert_eq!(json["sections"][0]["by"], "rate");
        assert!(json["sections"][0]["rows"][3].get("bytes").is_none());
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!([12.3, 1234.5, 33_000.0, 2_500_000.0].map(human_us), ["12 us", "1.2 ms", "33 ms", "2.5 s"]);
        assert_eq!([0.84, 12.3].map(short), ["0.8", "12"]);
        assert_eq!([7, 1000, 1_234_567].map(thousands), ["7", "1,000", "1,234,567"]);
        assert_eq!([2048.0, 3.5 * 1024.0 * 1024.0].map(human_bytes), ["2.0 KiB", "3.5 MiB"]);
    }
}
