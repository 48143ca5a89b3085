//! Seeded runs of whole clusters: the promises hold through crashes, cuts, lost disks and changes of members, and one seed is one history.
//!
//! `CINNABAR_SIM_SEEDS=N` runs the first N seeds in the place of the usual number; `scripts/simulate` runs any others, on all cores, and replays
//! one with its trace. See `docs/proof.md`.
#![allow(
    clippy::print_stdout,
    clippy::panic,
    clippy::expect_used,
    reason = "a run's report is what it is run for, and a broken promise is a failed test"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use seams::mutation::Mutation;
use tests::sim::{Broken, Report, Trick, mutants, run};

/// Seeds in the suite, in groups that run side by side.
const SEEDS: u64 = 200;
const GROUPS: u64 = 20;
/// For each ten seeds there is one more, because so many may see too little to count.
const ONE_MORE_FOR: u64 = 10;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

fn kept(seed: u64) -> Report {
    let report = run(seed, Broken::Nothing, false);
    println!("{}", report.json());
    if let Some(violation) = &report.violation {
        panic!("seed {seed}: {violation}\nreplay: ./scripts/simulate --replay {seed}");
    }
    report
}

/// The group's part of the first seeds and of the ones on top of them.
fn group(group: u64) {
    let wanted = number("CINNABAR_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = 1..=wanted + wanted.div_ceil(ONE_MORE_FOR);
    let reports: Vec<Report> = seeds.filter(|seed| seed % GROUPS == group).map(kept).collect();
    let idle: Vec<u64> = reports.iter().filter(|report| !report.counts()).map(|report| report.seed).collect();
    println!("of {} seeds {} do not count: {idle:?}", reports.len(), idle.len());
    // A small group may have two by chance.
    assert!(idle.len() <= 2.max(reports.len() / ONE_MORE_FOR as usize), "too little happens under the seeds {idle:?}");
}

macro_rules! groups {
    ($($name:ident: $number:literal),* $(,)?) => {$(
        #[test]
        fn $name() {
            group($number);
        }
    )*};
}

groups! {
    simulation_keeps_its_promises_group_00: 0,
    simulation_keeps_its_promises_group_01: 1,
    simulation_keeps_its_promises_group_02: 2,
    simulation_keeps_its_promises_group_03: 3,
    simulation_keeps_its_promises_group_04: 4,
    simulation_keeps_its_promises_group_05: 5,
    simulation_keeps_its_promises_group_06: 6,
    simulation_keeps_its_promises_group_07: 7,
    simulation_keeps_its_promises_group_08: 8,
    simulation_keeps_its_promises_group_09: 9,
    simulation_keeps_its_promises_group_10: 10,
    simulation_keeps_its_promises_group_11: 11,
    simulation_keeps_its_promises_group_12: 12,
    simulation_keeps_its_promises_group_13: 13,
    simulation_keeps_its_promises_group_14: 14,
    simulation_keeps_its_promises_group_15: 15,
    simulation_keeps_its_promises_group_16: 16,
    simulation_keeps_its_promises_group_17: 17,
    simulation_keeps_its_promises_group_18: 18,
    simulation_keeps_its_promises_group_19: 19,
}

#[test]
fn simulation_of_the_same_seed_has_the_same_history() {
    let mut hashes = Vec::new();
    for seed in [1_001, 1_002] {
        let (first, second) = (kept(seed), kept(seed));
        assert_eq!(
            (&first.hash, first.events),
            (&second.hash, second.events),
            "seed {seed} has two histories: something in it is not simulated"
        );
        hashes.push(first.hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 2, "seeds differ");
}

/// What is broken on purpose around the product must show as a broken promise, in a third of the seeds at least.
fn caught(broken: Broken) {
    let seeds: Vec<u64> = (101..=109).collect();
    let mut found = 0;
    for seed in &seeds {
        let report = run(*seed, broken, false);
        let first = report.violation.as_ref().and_then(|violation| violation.lines().next());
        println!("{broken:?}, seed {seed}: {}", first.unwrap_or("nothing found"));
        found += usize::from(first.is_some());
    }
    assert!(3 * found >= seeds.len(), "{broken:?} is found by {found} of {} seeds: the simulation is blind to it", seeds.len());
}

#[test]
fn simulation_catches_disks_of_voters_that_lie() {
    caught(Broken::VoterLogsNotSynced);
}

#[test]
fn simulation_catches_disks_of_edges_that_lie() {
    caught(Broken::EdgeLogsNotSynced);
}

/// Somebody on the way changes what edges get, all the time: nothing of it may show, and all must heal when they are gone.
#[test]
fn simulation_keeps_its_promises_with_somebody_in_the_middle() {
    for (seed, trick) in (111..).zip(Trick::ALL) {
        let report = run(seed, Broken::InTheMiddle(trick), false);
        println!("{}", report.json());
        assert_eq!(report.violation, None, "{trick:?}");
        // An old checkpoint is no fault, only not news.
        let refused = report.count("faults refused") >= 2 || trick == Trick::RepeatsCheckpoints;
        assert!(report.count("messages tampered with") >= 2 && refused, "{trick:?} was not at work");
    }
}

/// Every fourth of the deliberate bugs from `first` on must break a promise under one of the first seeds.
fn mutations_are_caught(first: usize) {
    let mut survivors = Vec::new();
    for (mutation, beside) in mutants::SEEN.iter().skip(first).step_by(4) {
        match mutants::caught(*mutation) {
            Some((seed, what)) => println!("{mutation:?} ({beside:?}), seed {seed}: {what}"),
            None => survivors.push(mutation),
        }
    }
    assert!(survivors.is_empty(), "the simulation is blind to {survivors:?}");
}

#[test]
fn simulation_catches_deliberate_bugs_group_0() {
    mutations_are_caught(0);
}

#[test]
fn simulation_catches_deliberate_bugs_group_1() {
    mutations_are_caught(1);
}

#[test]
fn simulation_catches_deliberate_bugs_group_2() {
    mutations_are_caught(2);
}

#[test]
fn simulation_catches_deliberate_bugs_group_3() {
    mutations_are_caught(3);
}

/// No deliberate bug without somebody who catches it, and the page says who.
#[test]
fn deliberate_bugs_are_each_caught_by_a_run_or_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/proof.md")).expect("the page is there");
    for mutation in Mutation::ALL {
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with(&format!("| `{mutation:?}` |"))).collect();
        let seen = mutants::SEEN.iter().filter(|(seen, _)| seen == mutation).count();
        let elsewhere: Vec<_> = mutants::SEEN_ELSEWHERE.iter().filter(|(seen, ..)| seen == mutation).collect();
        assert_eq!(
            (rows.len(), seen + elsewhere.len()),
            (1, 1),
            "{mutation:?}: rows in docs/proof.md, and places in the lists of sim::mutants"
        );
        for (_, folder, test) in elsewhere {
            let found = sources(&root.join("crates").join(folder)).iter().any(|source| {
                let text = fs::read_to_string(source).expect("a source can be read");
                text.contains(&format!("fn {test}("))
            });
            assert!(found, "crate {folder} has no test {test}, which is to catch {mutation:?}");
            assert!(rows[0].contains(test), "docs/proof.md names another test than {test} for {mutation:?}");
        }
    }
}

/// All sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}
