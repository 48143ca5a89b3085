//! Linearizability of one key's operations, by search.
//!
//! Beginnings and ends stand in one list in the order of time. The search takes an operation whose beginning stands before the first
//! end that is left, applies it to the key's state, and takes both out of the list; where it comes to an end whose operation it has not
//! taken, it goes back and takes another. What was taken, together with the state, is remembered: the same again is not tried again.

use std::collections::HashSet;

use super::{Call, NEVER, Op, Outcome};

/// The key: absent, or at a version.
type Key = Option<u64>;

/// The first version of a key.
const FIRST: u64 = 1;

/// The state after an operation, if its answer is right in `key`. One without an answer that would have changed nothing need not be
/// taken at all.
fn step(key: Key, call: &Call) -> Option<Key> {
    let written = |version: u64| match call.outcome {
        Outcome::Written { version: told, .. } if told == version => Some(Some(version)),
        Outcome::Unknown => Some(Some(version)),
        _ => None,
    };
    match (call.op, key) {
        (Op::Create { .. }, None) => written(FIRST),
        (Op::Create { .. }, Some(_)) => (call.outcome == Outcome::Exists).then_some(key),
        (Op::Set { .. } | Op::Delete | Op::Read, None) => (call.outcome == Outcome::Missing).then_some(key),
        (Op::Set { expect: Some(expect), .. }, Some(current)) if expect != current => (call.outcome == Outcome::Mismatch).then_some(key),
        (Op::Set { .. }, Some(current)) => written(current + 1),
        (Op::Delete, Some(_)) => matches!(call.outcome, Outcome::Deleted { .. } | Outcome::Unknown).then_some(None),
        (Op::Read, Some(current)) => (call.outcome == Outcome::Seen(current)).then_some(key),
    }
}

/// What stands in the list at one time.
#[derive(Clone, Copy)]
enum Event {
    Begin(usize),
    End(usize),
}

/// The list: an event before and behind each other, by place. Place 0 stands before all.
struct List {
    events: Vec<Event>,
    before: Vec<usize>,
    behind: Vec<usize>,
}

impl List {
    fn next(&self, place: usize) -> Option<(usize, Event)> {
        let next = self.behind[place];
        self.events.get(next - 1).map(|event| (next, *event))
    }

    fn take_out(&mut self, place: usize) {
        let (before, behind) = (self.before[place], self.behind[place]);
        self.behind[before] = behind;
        self.before[behind] = before;
    }

    fn put_back(&mut self, place: usize) {
        let (before, behind) = (self.before[place], self.behind[place]);
        self.behind[before] = place;
        self.before[behind] = place;
    }
}

/// The list of the calls' events, and the place of each call's end.
fn list(calls: &[Call]) -> (List, Vec<Option<usize>>) {
    let begins = calls.iter().enumerate().map(|(number, call)| (call.began, Event::Begin(number)));
    let ends = calls.iter().enumerate().filter(|(_, call)| call.outcome != Outcome::Unknown && call.ended != NEVER);
    let mut timed: Vec<(u64, Event)> = begins.chain(ends.map(|(number, call)| (call.ended, Event::End(number)))).collect();
    timed.sort_by_key(|(time, _)| *time);
    let mut ends = vec![None; calls.len()];
    for (place, (_, event)) in timed.iter().enumerate() {
        if let Event::End(number) = event {
            ends[*number] = Some(place + 1);
        }
    }
    let events: Vec<Event> = timed.into_iter().map(|(_, event)| event).collect();
    let count = events.len();
    // One place more at the end, which is none.
    let list = List { events, before: (0..=count + 1).map(|place| place.saturating_sub(1)).collect(), behind: (1..=count + 2).collect() };
    (list, ends)
}

/// Whether some order explains all answers. An error: the call at which the best explanation ends.
pub(super) fn check(calls: &[Call]) -> Result<(), Call> {
    // Reads without an answer say nothing.
    let calls: Vec<Call> = calls.iter().filter(|call| call.outcome != Outcome::Unknown || call.op != Op::Read).copied().collect();
    let (mut list, ends) = list(&calls);
    let mut left = ends.iter().flatten().count();
    let mut taken = vec![0_u64; calls.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, Key)> = HashSet::new();
    // What was taken, at which place its beginning stands, and the state before it.
    let mut path: Vec<(usize, usize, Key)> = Vec::new();
    let (mut key, mut place, mut furthest, mut stuck) = (None, 0, 0, None);
    while left > 0 {
        match list.next(place) {
            Some((at, Event::Begin(number))) => {
                place = at;
                let Some(after) = step(key, &calls[number]) else { continue };
                taken[number / 64] |= 1 << (number % 64);
                if !tried.insert((taken.clone(), after)) {
                    taken[number / 64] &= !(1 << (number % 64));
                    continue;
                }
                path.push((number, at, key));
                list.take_out(at);
                if let Some(end) = ends[number] {
                    list.take_out(end);
                    left -= 1;
                }
                (key, place) = (after, 0);
            }
            Some((_, Event::End(number))) => {
                if stuck.is_none() || path.len() > furthest {
                    (furthest, stuck) = (path.len(), Some(calls[number]));
                }
                let Some((last, at, before)) = path.pop() else { return Err(stuck.unwrap_or(calls[number])) };
                if let Some(end) = ends[last] {
                    list.put_back(end);
                    left += 1;
                }
                list.put_back(at);
                taken[last / 64] &= !(1 << (last % 64));
                (key, place) = (before, at);
            }
            // Behind the last end nothing is left that had to be explained.
            None => return Ok(()),
        }
    }
    Ok(())
}
