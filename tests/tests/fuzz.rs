//! Every decoder under changed input, at least ten seconds each: see `tests::fuzz`. Two tests run at a time on two cores.
//!
//! `CINNABAR_FUZZ_SECONDS` says how long each target runs, `CINNABAR_FUZZ_SEED` where it starts, and `CINNABAR_FUZZ_KEEP=1` adds the short
//! inputs that showed new behaviour to the corpus; `scripts/fuzz` sets them.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is a test: it fails where it stands, and says so"
)]

use std::{
    alloc::System,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::fuzz::{self, Plan, Report, Target};

/// Counts what each input allocates.
#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What every target gets in the suite.
const SECONDS: u64 = 10;
/// The seed of the suite.
const SEED: u64 = 1;
/// What one run adds to a corpus, so that it stays small.
const KEEP_INPUTS: usize = 24;
const KEEP_BYTES: usize = 256;

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn allocated() -> usize {
    COUNTING.stats().bytes_allocated
}

fn run(name: &str, plan: &Plan) -> Report {
    // Under `cargo test` they share a process: one at a time, so that only the running one allocates.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let target: &'static Target = fuzz::target(name).unwrap_or_else(|| panic!("no target {name}"));
    let report = fuzz::fuzz(target, plan);
    fuzz::end_node();
    println!(
        "{name}: {} inputs, {} of them read; {} behaviours known, {} found; one input allocated at most {} bytes",
        report.inputs,
        report.read,
        report.known,
        report.found.len(),
        report.allocated_max
    );
    report
}

fn fuzz_for_the_suite(name: &str) {
    let time = Duration::from_secs(variable("CINNABAR_FUZZ_SECONDS", SECONDS));
    let plan = Plan { seed: variable("CINNABAR_FUZZ_SEED", SEED), time, inputs_max: u64::MAX, allocated };
    let report = run(name, &plan);
    let least = fuzz::target(name).map_or(0, |target| target.inputs_min);
    assert!(report.inputs >= least, "{name}: only {} inputs in {time:?}", report.inputs);
    if std::env::var_os("CINNABAR_FUZZ_KEEP").is_some() {
        keep(name, &report);
    }
}

fn keep(name: &str, report: &Report) {
    let path = fuzz::corpus_file(name);
    let mut short: Vec<&Vec<u8>> = report.found.values().filter(|input| input.len() <= KEEP_BYTES).collect();
    short.sort_by_key(|input| (input.len(), *input));
    let mut lines: Vec<String> = fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect();
    lines.extend(short.into_iter().take(KEEP_INPUTS).map(|input| fuzz::hex(input)).filter(|line| !line.is_empty()));
    fs::write(&path, lines.join("\n") + "\n").expect("the corpus can be written");
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// Each target is a test, so that they run beside each other.
        mod target {
            $(#[test]
            fn $name() {
                super::fuzz_for_the_suite(stringify!($name));
            })*
        }

        const RUN: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    command change_set record key audit_entry statement state sealed_value
    key_wrap envelope opened_value node_public_key key_file token_text
    segment_log snapshot_file value_file table_record chain_marks
    raft_stored raft_sent feed_stored archive archive_content
    requests replies frames feed_sent snapshot_chunk
    rest_parts rest_request
    spiffe_name certificate certificate_request joining_files
    control_toml edge_toml contexts_toml import_file
}

#[test]
fn target_of_the_table_has_a_test() {
    let table: BTreeSet<&str> = fuzz::targets().iter().map(|target| target.name).collect();
    assert_eq!(table, RUN.iter().copied().collect::<BTreeSet<&str>>());
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates")
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "tests") {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Functions that read bytes or text of unknown origin are called one of these; new ones need a target that names their file.
const READERS: &[&str] = &[
    "fn decode",
    "fn parse(",
    "fn from_bytes(bytes: Vec",
    "fn from_file_bytes",
    "fn from_records(records: impl IntoIterator<Item = (Key, Bytes)>",
];

/// Files whose readers take nothing that a stranger or a disk wrote.
const HARMLESS: &[(&str, &str)] = &[
    ("runtime/src/telemetry.rs", "a filter that the operator gives, read by the library of traces"),
    ("wire/src/kind.rs", "a number"),
    ("control/src/audit/filter.rs", "one word out of a list"),
    ("control/src/snapshots/schedule.rs", "names in the operator's own folder, cut with checked bounds"),
];

#[test]
fn decoder_of_every_crate_has_a_target() {
    let fed: BTreeSet<&str> = fuzz::targets().iter().flat_map(|target| target.reads).copied().collect();
    let mut missing = Vec::new();
    let mut files = Vec::new();
    sources(&crates(), &mut files);
    assert!(files.len() > 200, "{} sources", files.len());
    for file in files {
        let name = file.strip_prefix(crates()).expect("below the crates").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("a source");
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let reads = own.lines().any(|line| READERS.iter().any(|reader| line.contains(reader)));
        let harmless = HARMLESS.iter().any(|(path, _)| *path == name);
        if name.contains("/src/") && reads && !harmless && !fed.contains(name.as_str()) {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "decoders without a fuzz target in tests/src/fuzz:\n{}", missing.join("\n"));
    let gone: Vec<_> = fed.into_iter().filter(|path| !crates().join(path).is_file()).collect();
    assert!(gone.is_empty(), "targets name files that are not there: {gone:?}");
}

#[test]
fn record_of_every_kind_has_a_target() {
    let known = fuzz::record_kinds();
    let mut files = Vec::new();
    sources(&crates().join("state/src/record"), &mut files);
    let text: String = files.iter().map(|file| fs::read_to_string(file).expect("a source")).collect();
    let stored: Vec<&str> = text.split("\nstored!(").skip(1).filter_map(|rest| rest.split(',').next()).collect();
    assert!(stored.len() > 20, "{stored:?}");
    let missing: Vec<_> = stored.iter().filter(|kind| !known.iter().any(|known| known.ends_with(&format!("::{kind}")))).collect();
    assert!(missing.is_empty(), "records that nothing fuzzes: {missing:?}");
}

#[test]
fn message_of_every_call_has_a_target() {
    let known: BTreeSet<&str> = fuzz::messages().into_iter().collect();
    let mut missing = BTreeSet::new();
    for file in &fuzz::descriptors().file {
        for method in file.service.iter().flat_map(|service| &service.method) {
            for name in [method.input_type(), method.output_type()] {
                let short = name.trim_start_matches(".cinnabar.").trim_start_matches("internal.v1.").trim_start_matches("v1.");
                let package = if name.starts_with(".cinnabar.v1.") { "v1" } else { "internal" };
                let own = name.starts_with(".cinnabar.").then(|| format!("{package}.{short}"));
                missing.extend(own.filter(|name| !known.contains(name.as_str())));
            }
        }
    }
    assert!(missing.is_empty(), "messages that nothing fuzzes: {missing:?}");
}

/// The same seed makes the same inputs: a failure elsewhere is a failure here.
#[test]
fn run_of_a_seed_repeats_itself() {
    let plan = |seed| Plan { seed, time: Duration::from_secs(600), inputs_max: 3000, allocated: || 0 };
    let twice = [1, 1, 2].map(|seed| format!("{:?}", run("change_set", &plan(seed)).found));
    assert_eq!(twice[0], twice[1]);
    assert_ne!(twice[0], twice[2]);
}

/// The engine itself: it finds what these decoders have been made to get wrong, and says it in a form that can be kept.
#[test]
fn engine_finds_a_panic_and_a_claimed_length_and_prints_the_input() {
    static PANICS: Target = Target::for_tests("panics", |bytes| {
        if bytes.len() > 8 && bytes[4] == 0xff {
            panic!("byte 4");
        }
        fuzz::Seen::Read("read".into())
    });
    static BELIEVES: Target = Target::for_tests("believes", |bytes| {
        let claimed = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        fuzz::Seen::Read(format!("{}", Vec::<u8>::with_capacity(claimed.min(1 << 30)).capacity() > 0))
    });
    for (target, says) in [(&PANICS, "it panics: byte 4"), (&BELIEVES, "bytes made it allocate")] {
        let plan = Plan { seed: 1, time: Duration::from_secs(60), inputs_max: u64::MAX, allocated };
        let panic = std::panic::catch_unwind(|| fuzz::fuzz(target, &plan)).expect_err("it is found");
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(text.contains(says) && text.contains("add this line to"), "{text}");
    }
}
