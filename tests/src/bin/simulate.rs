//! `scripts/simulate`: many seeds of the simulation on all cores, or one again with its trace. See `docs/proof.md`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "what it finds is what it is run for")]

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::Parser;
use seams::mutation::{self, Mutation};
use tests::sim::{Broken, Report, mutants, run};

/// Runs seeds of the simulation.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 200, conflicts_with = "replay")]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Threads; one for each core when left out.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs this seed alone and prints what happens, line by line.
    #[arg(long)]
    replay: Option<u64>,
    /// With this deliberate bug, by its name in `types::mutation`: stops at the first seed that catches it.
    #[arg(long)]
    mutation: Option<String>,
}

/// A seed's stack is deep: futures of a whole cluster are polled on one thread.
const STACK_BYTES: usize = 32 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = arguments.mutation.as_ref();
    let mutation = wanted.and_then(|name| Mutation::ALL.iter().copied().find(|mutation| format!("{mutation:?}") == *name));
    if wanted.is_some() && mutation.is_none() {
        eprintln!("there is no such mutation; there are {:?}", Mutation::ALL);
        return ExitCode::from(2);
    }
    let good = match arguments.replay {
        Some(seed) => replay(seed, mutation),
        None => many(&arguments, mutation),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One seed; a panic of the run itself is a broken promise too.
fn one(seed: u64, mutation: Option<Mutation>, trace: bool) -> Report {
    let seeded = || run(seed, mutation.map_or(Broken::Nothing, mutants::beside), trace);
    let ran = catch_unwind(AssertUnwindSafe(|| mutation.map_or_else(seeded, |mutation| mutation::with(mutation, seeded))));
    ran.unwrap_or_else(|_| Report {
        seed,
        hash: String::new(),
        events: 0,
        counts: BTreeMap::new(),
        violation: Some("the run panicked".to_owned()),
        trace: Vec::new(),
    })
}

fn replay(seed: u64, mutation: Option<Mutation>) -> bool {
    let running = move || one(seed, mutation, true);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(running).expect("a thread");
    let report = thread.join().expect("a panic is caught");
    for line in &report.trace {
        // "  1234567890 what": nanoseconds, told in milliseconds.
        let (time, what) = line.trim().split_once(' ').unwrap_or(("0", line));
        println!("{:>13.3} ms  {}", time.parse::<u64>().unwrap_or_default() as f64 / 1e6, what.trim());
    }
    println!("{}", report.json());
    match &report.violation {
        Some(violation) => eprintln!("seed {seed}: {}", violation.lines().next().unwrap_or_default()),
        None => eprintln!("seed {seed}: all promises kept"),
    }
    report.violation.is_none()
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    idle: Vec<u64>,
    broken: Vec<(u64, String)>,
    counts: BTreeMap<&'static str, u64>,
}

fn many(arguments: &Arguments, mutation: Option<Mutation>) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, end) = (AtomicU64::new(arguments.from), arguments.from + arguments.seeds);
    let sum = Mutex::new(Sum::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let report = one(seed, mutation, false);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.seeds += 1;
            if let Some(violation) = &report.violation {
                eprintln!("seed {seed}: {violation}\nreplay: ./scripts/simulate --replay {seed}\n");
                sum.broken.push((seed, violation.lines().next().unwrap_or_default().to_owned()));
                if mutation.is_some() {
                    next.store(end, Ordering::Relaxed);
                }
            } else if !report.counts() {
                sum.idle.push(seed);
            }
            report.counts.iter().for_each(|(what, count)| *sum.counts.entry(what).or_default() += count);
            if sum.seeds.is_multiple_of(100) {
                eprintln!("{} seeds, {} broken", sum.seeds, sum.broken.len());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.unwrap_or(cores).max(1) {
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).expect("a thread");
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.idle.sort_unstable();
    sum.broken.sort();
    let summary = serde_json::json!({
        "from": arguments.from, "seeds": sum.seeds, "broken": sum.broken, "seeds_that_do_not_count": sum.idle, "counts": sum.counts,
    });
    println!("{summary:#}");
    sum.broken.is_empty()
}
