//! The loop: take an input, change it, run it, keep what behaves anew.

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use runtime::RealClock;
use seams::Clock;

use super::{
    BYTES_PER_BYTE, Seen, Target, committed,
    corpus::{file, hex},
    mutate,
    random::Random,
};

/// Inputs that are kept to be changed further.
const KEPT_MAX: usize = 1024;
/// Behaviours that are told apart; beyond, nothing is new any more.
const BEHAVIOURS_MAX: usize = 4096;
/// How often the clock is looked at.
const LOOK_EVERY: u64 = 64;
/// Runs spent on making a failing input smaller.
const SMALLER_TRIES: usize = 4000;

/// How long, and from where.
pub struct Plan {
    /// What decides the inputs.
    pub seed: u64,
    /// When to stop.
    pub time: Duration,
    /// Also stop after so many inputs.
    pub inputs_max: u64,
    /// Bytes that this process has allocated so far.
    pub allocated: fn() -> usize,
}

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// Inputs run.
    pub inputs: u64,
    /// How many of them were read, and not refused.
    pub read: u64,
    /// Behaviours seen, each with the shortest input that shows it and is neither a seed nor in the corpus.
    pub found: BTreeMap<String, Vec<u8>>,
    /// Behaviours of seeds and corpus.
    pub known: usize,
    /// The most that one input allocated.
    pub allocated_max: usize,
}

/// Runs seeds and corpus, then changes them until the plan's time is over.
///
/// # Panics
/// With the input, when it breaks an invariant of the targets, or when a seed is refused.
pub fn fuzz(target: &'static Target, plan: &Plan) -> Report {
    let clock = RealClock::new();
    let end = clock.monotonic() + plan.time;
    let mut random = Random::new(plan.seed, target.name);
    let mut report = Report { inputs: 0, read: 0, found: BTreeMap::new(), known: 0, allocated_max: 0 };
    let mut kept = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for seed in (target.seeds)() {
        let (behaviour, read) = report.run(target, plan, &seed);
        assert!(read, "{}: a seed is refused: {behaviour}: {}", target.name, hex(&seed));
        seen.insert(behaviour);
        kept.push(seed);
    }
    assert!(!kept.is_empty(), "{}: no seeds", target.name);
    for input in committed(target.name) {
        seen.insert(report.run(target, plan, &input).0);
        kept.push(input);
    }
    report.known = seen.len();
    while report.inputs < plan.inputs_max && (!report.inputs.is_multiple_of(LOOK_EVERY) || clock.monotonic() < end) {
        // The newest are changed more often: what led to them may lead further.
        let newest = kept.len().saturating_sub(16);
        let place = if random.one_in(3) { newest + random.below(kept.len() - newest) } else { random.below(kept.len()) };
        let mut input = kept[place].clone();
        mutate::change(&mut random, target, &mut input, &kept);
        let (behaviour, _) = report.run(target, plan, &input);
        if seen.len() < BEHAVIOURS_MAX && seen.insert(behaviour.clone()) {
            report.found.insert(behaviour, input.clone());
            if kept.len() < KEPT_MAX {
                kept.push(input);
            }
        } else if let Some(longer) = report.found.get_mut(&behaviour)
            && input.len() < longer.len()
        {
            *longer = input;
        }
    }
    report
}

impl Report {
    /// Runs one input and holds it to the invariants; what it showed, and whether it was read.
    fn run(&mut self, target: &'static Target, plan: &Plan, input: &[u8]) -> (String, bool) {
        self.inputs += 1;
        match once(target, plan, input) {
            Ok((seen, allocated)) => {
                self.allocated_max = self.allocated_max.max(allocated);
                let (word, text, read) = match seen {
                    Seen::Refused(text) => ("refused", text, false),
                    Seen::Read(text) => ("read", text, true),
                };
                self.read += u64::from(read);
                // Allocation in powers of four: another amount is another path.
                (format!("{word}: {} ({})", masked(&text), allocated.checked_ilog2().unwrap_or_default() / 2), read)
            }
            Err(why) => fail(target, plan, input, &why),
        }
    }
}

/// One input; an error says which invariant it breaks.
fn once(target: &Target, plan: &Plan, input: &[u8]) -> Result<(Seen, usize), String> {
    let before = (plan.allocated)();
    let seen = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| said(&*panic))?;
    let allocated = (plan.allocated)() - before;
    let allowed = BYTES_PER_BYTE * input.len() + target.extra_bytes;
    if allocated > allowed {
        return Err(format!("{} bytes made it allocate {allocated}, {allowed} are allowed", input.len()));
    }
    Ok((seen, allocated))
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panics: {}", text.unwrap_or("without a word"))
}

/// Makes the input smaller while it fails, and ends the test with it.
fn fail(target: &'static Target, plan: &Plan, input: &[u8], why: &str) -> ! {
    // Each try that still fails would print itself.
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut small = input.to_vec();
    let (mut piece, mut tries) = (small.len() / 2, 0);
    while piece > 0 && tries < SMALLER_TRIES {
        let mut at = 0;
        while at < small.len() && tries < SMALLER_TRIES {
            let mut without = small.clone();
            without.drain(at..(at + piece).min(small.len()));
            tries += 1;
            if once(target, plan, &without).is_err() {
                small = without;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    let last = once(target, plan, &small).err().unwrap_or_else(|| why.to_owned());
    panic::set_hook(loud);
    panic!(
        "{}: {last}\nthe input, {} bytes (seed {}):\n{}\nonce it is mended, add this line to {}",
        target.name,
        small.len(),
        plan.seed,
        hex(&small),
        file(target.name).display()
    );
}

/// The text without what differs from input to input: numbers, and what is quoted.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = None;
    for c in text.chars().take(400) {
        match (quoted, c) {
            (Some(end), c) if c == end => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => {
                quoted = Some(c);
                out.push(c);
            }
            (None, c) if c.is_ascii_hexdigit() && (c.is_ascii_digit() || out.ends_with('#')) => {
                if !out.ends_with('#') {
                    out.push('#');
                }
            }
            (None, c) => out.push(c),
        }
    }
    out
}
