//! Seeded runs of whole clusters: the promises hold through crashes, cuts, lost disks and changes of members, and one seed is one history.
//!
//! `CINNABAR_SIM_SEEDS=N` runs the first N seeds in the place of the usual number; `scripts/simulate` runs any others, on all cores, and replays
//! one with its trace. See `docs/proof.md`.
#![allow(clippy::print_stdout, clippy::panic, reason = "a run's report is what it is run for, and a broken promise is a failed test")]

use std::env;

use seams::mutation::{Mutation, with};
use tests::sim::{Broken, Report, Trick, run};

/// Seeds in the suite, in groups that run side by side.
const SEEDS: u64 = 40;
const GROUPS: u64 = 8;
/// Of a hundred seeds so many may have seen too little to count.
const IDLE_PERCENT_MAX: usize = 10;

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

fn group(group: u64) {
    let seeds = number("CINNABAR_SIM_SEEDS").unwrap_or(SEEDS);
    let reports: Vec<Report> = (1..=seeds).filter(|seed| seed % GROUPS == group).map(kept).collect();
    let idle: Vec<u64> = reports.iter().filter(|report| !report.counts()).map(|report| report.seed).collect();
    println!("of {} seeds {} do not count: {idle:?}", reports.len(), idle.len());
    // A small group may have two by chance.
    assert!(idle.len() <= 2.max(reports.len() * IDLE_PERCENT_MAX / 100), "too little happens under the seeds {idle:?}");
}

#[test]
fn simulation_keeps_its_promises_group_0() {
    group(0);
}

#[test]
fn simulation_keeps_its_promises_group_1() {
    group(1);
}

#[test]
fn simulation_keeps_its_promises_group_2() {
    group(2);
}

#[test]
fn simulation_keeps_its_promises_group_3() {
    group(3);
}

#[test]
fn simulation_keeps_its_promises_group_4() {
    group(4);
}

#[test]
fn simulation_keeps_its_promises_group_5() {
    group(5);
}

#[test]
fn simulation_keeps_its_promises_group_6() {
    group(6);
}

#[test]
fn simulation_keeps_its_promises_group_7() {
    group(7);
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
    for (seed, trick) in [(111, Trick::DropsChangeSets), (112, Trick::RepeatsBatches), (113, Trick::TurnsBits)] {
        let report = run(seed, Broken::InTheMiddle(trick), false);
        println!("{}", report.json());
        assert_eq!(report.violation, None, "{trick:?}");
        assert!(report.count("batches tampered with") >= 5 && report.count("faults refused") >= 5, "{trick:?} was not at work");
    }
}

/// The deliberate bugs that runs of whole clusters catch. The crates' own tables have these, and the others.
const CAUGHT: [Mutation; 15] = [
    Mutation::AppendAcknowledgedEarly,
    Mutation::VoteForgotten,
    Mutation::ReadIndexSkipped,
    Mutation::RevisionReused,
    Mutation::StaleGrantAccepted,
    Mutation::RequestForgotten,
    Mutation::ExpectationIgnored,
    Mutation::GraceEndless,
    Mutation::ReceiptEarly,
    Mutation::SealUnchecked,
    Mutation::HalfShown,
    Mutation::PublishedBeforeDurable,
    Mutation::AcknowledgedBeforeDurable,
    Mutation::SnapshotPutOnTop,
    Mutation::MinPositionIgnored,
];
/// Seeds that a deliberate bug may survive, less one.
const SURVIVES: u64 = 20;

/// Every second of them from `first` on must break a promise under one of the first seeds.
fn mutations_are_caught(first: usize) {
    let mut survivors = Vec::new();
    for mutation in CAUGHT.into_iter().skip(first).step_by(2) {
        let seen = (1..=SURVIVES).find_map(|seed| with(mutation, || run(seed, Broken::Nothing, false)).violation.map(|what| (seed, what)));
        match seen {
            Some((seed, what)) => println!("{mutation:?}, seed {seed}: {}", what.lines().next().unwrap_or_default()),
            None => survivors.push(mutation),
        }
    }
    assert!(survivors.is_empty(), "the simulation is blind to {survivors:?}");
}

#[test]
fn simulation_catches_deliberate_bugs_even() {
    mutations_are_caught(0);
}

#[test]
fn simulation_catches_deliberate_bugs_odd() {
    mutations_are_caught(1);
}
