//! Seeded runs of one voter and two edges: P1 and P3 hold through crashes, cuts and lost disks, and one seed is one history.
//!
//! `CINNABAR_SIM_SEED=N` replays one seed (and prints its history with `CINNABAR_SIM_TRACE=FILE`), `CINNABAR_SIM_SEEDS=N` runs the
//! first N. Each run prints one line of JSON: what was injected, what was done, and the hash of its history.
#![allow(clippy::print_stdout, clippy::panic, reason = "a run's report is what it is run for, and a broken promise is a failed test")]

use std::env;

use tests::sim::{Mutation, Report, run};

/// Seeds in the suite, in four groups that run side by side.
const SEEDS: u64 = 20;
const GROUPS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

/// Runs a seed twice and holds one run against the other.
fn twice(seed: u64) -> Report {
    let first = run(seed, Mutation::None, false);
    println!("{}", first.json());
    if let Some(violation) = &first.violation {
        panic!(
            "seed {seed}: {violation}\nreplay: CINNABAR_SIM_SEED={seed} cargo nextest run -p tests simulation_replays_a_seed --no-capture"
        );
    }
    let second = run(seed, Mutation::None, false);
    assert_eq!(
        (&first.hash, first.events),
        (&second.hash, second.events),
        "seed {seed} has two histories: something in it is not simulated"
    );
    first
}

fn group(group: u64) {
    let seeds = number("CINNABAR_SIM_SEEDS").unwrap_or(SEEDS);
    let reports: Vec<Report> = (1..=seeds).filter(|seed| seed % GROUPS == group).map(twice).collect();
    for report in &reports {
        assert!(report.counts(), "seed {} does not count, too little has happened: {}", report.seed, report.json());
    }
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

/// A bug that is put in on purpose must show as a broken promise, in a third of the seeds at least.
fn caught(mutation: Mutation) {
    let seeds: Vec<u64> = (101..=109).collect();
    let mut found = 0;
    for seed in &seeds {
        let report = run(*seed, mutation, false);
        let first = report.violation.as_ref().and_then(|violation| violation.lines().next());
        println!("{mutation:?}, seed {seed}: {}", first.unwrap_or("nothing found"));
        found += usize::from(first.is_some());
    }
    assert!(3 * found >= seeds.len(), "{mutation:?} is found by {found} of {} seeds: the simulation is blind to it", seeds.len());
}

#[test]
fn simulation_catches_a_voter_that_acknowledges_before_it_is_durable() {
    caught(Mutation::VoterLogNotSynced);
}

#[test]
fn simulation_catches_edges_that_show_before_it_is_durable() {
    caught(Mutation::EdgeLogsNotSynced);
}

/// Somebody on the way changes what edges get: nothing of it may show, and all must heal when they are gone.
#[test]
fn simulation_keeps_its_promises_with_somebody_in_the_middle() {
    for (seed, mutation) in [(111, Mutation::DropsChangeSets), (112, Mutation::RepeatsBatches), (113, Mutation::TurnsBits)] {
        let report = run(seed, mutation, false);
        println!("{}", report.json());
        assert_eq!(report.violation, None, "{mutation:?}");
        let of = |what: &str| report.counts.get(what).copied().unwrap_or_default();
        assert!(of("batches tampered with") >= 5 && of("faults refused") >= 5, "{mutation:?} was not at work: {}", report.json());
    }
}

/// The seed of `CINNABAR_SIM_SEED`, else one that is not in the groups.
#[test]
fn simulation_replays_a_seed() {
    let seed = number("CINNABAR_SIM_SEED").unwrap_or(1_000_003);
    if let Ok(path) = env::var("CINNABAR_SIM_TRACE") {
        let report = run(seed, Mutation::None, true);
        std::fs::write(path, report.trace.concat()).unwrap();
    }
    assert!(twice(seed).counts());
}
