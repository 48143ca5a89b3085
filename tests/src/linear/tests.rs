//! That the judges refuse what no correct store could have answered, and nothing else.

use proptest::prelude::*;
use types::{Generation, Position, Revision};

use super::{Call, History, Lookup, NEVER, Op, Outcome, Shown, wgl};

fn at(revision: u64) -> Position {
    Position::new(Generation::new(1), Revision::new(revision))
}

const fn create(value: u64) -> Op {
    Op::Create { value }
}

const fn set(value: u64) -> Op {
    Op::Set { value, expect: None }
}

const fn set_after(value: u64, version: u64) -> Op {
    Op::Set { value, expect: Some(version) }
}

fn written(version: u64, revision: u64) -> Outcome {
    Outcome::Written { version, position: at(revision) }
}

fn deleted(revision: u64) -> Outcome {
    Outcome::Deleted { position: at(revision) }
}

/// A call about key 0 from `began` to `ended`.
fn call(began: u64, ended: u64, op: Op, outcome: Outcome) -> Call {
    Call { client: 0, key: 0, op, outcome, began, ended }
}

fn lost(began: u64, op: Op) -> Call {
    call(began, NEVER, op, Outcome::Unknown)
}

fn lookup(began: u64, ended: u64, demanded: Option<u64>, shown: Shown) -> Lookup {
    Lookup { edge: 1, key: 0, demanded: demanded.map(at), shown, began, ended }
}

fn value(value: u64, version: u64, revision: u64) -> Shown {
    Shown::Value { value, version, position: at(revision) }
}

/// Asserts what the search says of some calls.
fn searched(calls: &[Call], good: bool, what: &str) {
    let history = History { calls: calls.to_vec(), ..History::default() };
    assert_eq!(history.linearizable().is_ok(), good, "{what}: {:?}", history.linearizable());
}

#[test]
fn search_takes_what_some_order_explains() {
    let made = call(0, 1, create(10), written(1, 1));
    for (what, more) in [
        ("one after the other", vec![call(2, 3, set(11), written(2, 2)), call(4, 5, Op::Read, Outcome::Seen(2))]),
        ("a read beside a write sees the old", vec![call(2, 5, set(11), written(2, 2)), call(3, 4, Op::Read, Outcome::Seen(1))]),
        ("a read beside a write sees the new", vec![call(2, 5, set(11), written(2, 2)), call(3, 4, Op::Read, Outcome::Seen(2))]),
        (
            "two writes beside each other, in either order",
            vec![call(2, 5, set(11), written(3, 3)), call(3, 4, set(12), written(2, 2)), call(6, 7, Op::Read, Outcome::Seen(3))],
        ),
        ("a lost write that happened", vec![lost(2, set(11)), call(3, 4, Op::Read, Outcome::Seen(2))]),
        (
            "a lost write that happened late",
            vec![lost(2, set(11)), call(3, 4, Op::Read, Outcome::Seen(1)), call(5, 6, Op::Read, Outcome::Seen(2))],
        ),
        ("a lost write that never happened", vec![lost(2, set(11)), call(3, 4, set(12), written(2, 2))]),
        ("a lost deletion that happened", vec![lost(2, Op::Delete), call(3, 4, Op::Read, Outcome::Missing)]),
        (
            "of two that expect the same, one",
            vec![call(2, 5, set_after(11, 1), written(2, 2)), call(3, 6, set_after(12, 1), Outcome::Mismatch)],
        ),
        ("a second creation", vec![call(2, 3, create(11), Outcome::Exists)]),
        (
            "nothing after a deletion",
            vec![call(2, 3, Op::Delete, deleted(2)), call(4, 5, set(11), Outcome::Missing), call(6, 7, Op::Delete, Outcome::Missing)],
        ),
    ] {
        searched(&[vec![made], more].concat(), true, what);
    }
    searched(&[call(0, 3, create(10), written(1, 1)), call(1, 2, Op::Read, Outcome::Missing)], true, "missing beside its creation");
    searched(&[], true, "nothing");
}

#[test]
fn search_refuses_what_no_order_explains() {
    let made = call(0, 1, create(10), written(1, 1));
    for (what, more) in [
        ("a stale read", vec![call(2, 3, set(11), written(2, 2)), call(4, 5, Op::Read, Outcome::Seen(1))]),
        ("a read of what was not yet written", vec![call(2, 3, Op::Read, Outcome::Seen(2)), call(4, 5, set(11), written(2, 2))]),
        (
            "a read that goes back",
            vec![call(2, 9, set(11), written(2, 2)), call(3, 4, Op::Read, Outcome::Seen(2)), call(5, 6, Op::Read, Outcome::Seen(1))],
        ),
        ("an acknowledged write that is lost", vec![call(2, 3, set(11), written(2, 2)), call(4, 5, set(12), written(2, 3))]),
        ("one write that counts twice", vec![call(2, 3, set(11), written(3, 3))]),
        (
            "two that expect the same, and both get it",
            vec![call(2, 5, set_after(11, 1), written(2, 2)), call(3, 6, set_after(12, 1), written(3, 3))],
        ),
        ("an expectation that is met, and refused", vec![call(2, 3, set_after(11, 1), Outcome::Mismatch)]),
        ("an expectation that is not met, and ignored", vec![call(2, 3, set_after(11, 7), written(2, 2))]),
        ("two creations", vec![call(2, 3, create(11), written(1, 2))]),
        ("missing though it is there", vec![call(2, 3, Op::Read, Outcome::Missing)]),
        ("there though it was deleted", vec![call(2, 3, Op::Delete, deleted(2)), call(4, 5, Op::Read, Outcome::Seen(1))]),
        (
            "a lost write that happened, and then did not",
            vec![lost(2, set(11)), call(3, 4, Op::Read, Outcome::Seen(2)), call(5, 6, Op::Read, Outcome::Seen(1))],
        ),
        ("a lost write that happened before it began", vec![call(2, 3, Op::Read, Outcome::Seen(2)), lost(4, set(11))]),
        ("a lost write that happened twice", vec![lost(2, set(11)), call(3, 4, Op::Read, Outcome::Seen(3))]),
    ] {
        searched(&[vec![made], more].concat(), false, what);
    }
    searched(&[call(0, 1, Op::Read, Outcome::Seen(1)), call(2, 3, create(10), written(1, 1))], false, "there before it was made");
}

/// Asserts what the linear judge says of calls and lookups; key 0 is bound at 1.2.
fn ordered(calls: &[Call], lookups: &[Lookup], good: bool, what: &str) {
    let history = History { calls: calls.to_vec(), lookups: lookups.to_vec(), bound: vec![at(2)] };
    assert_eq!(history.ordered().is_ok(), good, "{what}: {:?}", history.ordered());
}

/// Version 1 with value 10 at 1.1, version 2 with value 11 at 1.5.
fn two_versions() -> Vec<Call> {
    vec![call(0, 1, create(10), written(1, 1)), call(2, 3, set(11), written(2, 5))]
}

#[test]
fn order_takes_what_agrees() {
    let calls = two_versions();
    ordered(&calls, &[], true, "two writes");
    ordered(
        &calls,
        &[lookup(4, 5, None, value(10, 1, 4)), lookup(6, 7, None, value(11, 2, 5)), lookup(8, 9, Some(5), value(11, 2, 9))],
        true,
        "an edge that follows",
    );
    ordered(&calls, &[lookup(4, 5, None, Shown::Absent), lookup(6, 7, Some(1), Shown::Absent)], true, "absent before it is bound");
    let more = [calls.clone(), vec![lost(4, set(12))]].concat();
    ordered(&more, &[lookup(5, 6, None, value(12, 3, 8)), lookup(7, 8, None, value(12, 3, 8))], true, "a lost write that is seen");
    let gone = [calls, vec![call(4, 7, Op::Delete, deleted(8))]].concat();
    ordered(&gone, &[lookup(5, 6, Some(5), Shown::Absent), lookup(8, 9, Some(8), Shown::Absent)], true, "absent once it is deleted");
    ordered(
        &[call(0, 5, create(10), written(1, 1)), call(1, 4, set(11), written(2, 2)), call(2, 3, set(12), written(3, 3))],
        &[],
        true,
        "writes beside each other",
    );
}

#[test]
fn order_refuses_what_does_not() {
    let first = call(0, 1, create(10), written(1, 1));
    for (what, more) in [
        ("a later write at a lower position", call(2, 3, set(11), written(2, 0))),
        ("one position twice", call(2, 3, set(11), written(2, 1))),
        ("one version twice", call(2, 3, set(11), written(1, 2))),
        ("a version too many", call(2, 3, set(11), written(3, 2))),
    ] {
        ordered(&[first, more], &[], false, what);
    }
    let calls = two_versions();
    let gone = [calls.clone(), vec![call(4, 5, Op::Delete, deleted(8))]].concat();
    ordered(&[gone.clone(), vec![call(6, 7, set(12), written(3, 9))]].concat(), &[], false, "a version after the deletion");
    for (what, shown) in [
        ("less than was demanded", value(10, 1, 4)),
        ("a value that nobody wrote", value(99, 2, 6)),
        ("another version's value", value(10, 2, 6)),
        ("an older version than its position has", value(10, 1, 6)),
        ("absent though it is there", Shown::Absent),
    ] {
        ordered(&calls, &[lookup(6, 7, Some(5), shown)], false, what);
    }
    ordered(&calls, &[lookup(6, 7, None, value(11, 2, 4))], false, "a newer version than its position has");
    ordered(&gone, &[lookup(6, 7, None, value(11, 2, 8))], false, "what was deleted");
    ordered(&calls, &[lookup(4, 5, None, value(11, 2, 6)), lookup(6, 7, None, value(11, 2, 5))], false, "an edge that goes back");
    let refused = [calls.clone(), vec![call(4, 5, set_after(12, 9), Outcome::Mismatch)]].concat();
    ordered(&refused, &[lookup(6, 7, None, value(12, 3, 9))], false, "a value that was refused");
    let unanswered = [calls.clone(), vec![lost(4, set(12))]].concat();
    for (what, then) in [("one write as two versions", value(12, 4, 10)), ("one version with two values", value(11, 3, 10))] {
        ordered(&unanswered, &[lookup(5, 6, None, value(12, 3, 9)), lookup(7, 8, None, then)], false, what);
    }
    ordered(&[calls, vec![lost(8, set(12))]].concat(), &[lookup(4, 5, None, value(12, 3, 9))], false, "what is not written yet");
}

/// What a correct store answers to `op`.
fn answer(key: &mut Option<u64>, op: Op, revision: u64) -> Outcome {
    match (op, *key) {
        (Op::Create { .. }, Some(_)) => Outcome::Exists,
        (Op::Create { .. }, None) => {
            *key = Some(1);
            written(1, revision)
        }
        (_, None) => Outcome::Missing,
        (Op::Set { expect: Some(expect), .. }, Some(current)) if expect != current => Outcome::Mismatch,
        (Op::Set { .. }, Some(current)) => {
            *key = Some(current + 1);
            written(current + 1, revision)
        }
        (Op::Delete, Some(_)) => {
            *key = None;
            deleted(revision)
        }
        (Op::Read, Some(current)) => Outcome::Seen(current),
    }
}

/// Whether some order of some of the calls explains all answers, by trying all of them.
fn by_force(calls: &[Call], key: Option<u64>, left: &mut Vec<usize>) -> bool {
    if left.iter().all(|number| calls[*number].outcome == Outcome::Unknown) {
        return true;
    }
    for place in 0..left.len() {
        let call = calls[left[place]];
        // Nothing that is left may have ended before this began.
        if left.iter().any(|other| calls[*other].ended < call.began) {
            continue;
        }
        let (mut after, told) = (key, call.outcome);
        let right = answer(&mut after, call.op, 0);
        let same = match (told, right) {
            (Outcome::Unknown, _) => true,
            (Outcome::Written { version, .. }, Outcome::Written { version: other, .. }) => version == other,
            (Outcome::Deleted { .. }, Outcome::Deleted { .. }) => true,
            (told, right) => told == right,
        };
        let number = left.remove(place);
        let explained = same && by_force(calls, after, left);
        left.insert(place, number);
        if explained {
            return true;
        }
    }
    false
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(create(0)),
        3 => Just(set(0)),
        3 => (1_u64..4).prop_map(|version| set_after(0, version)),
        1 => Just(Op::Delete),
        3 => Just(Op::Read),
    ]
}

/// Calls as a correct store answers them at some time within each, some lost, and up to two answers replaced by others.
fn histories() -> impl Strategy<Value = Vec<Call>> {
    let one = (ops(), 0_u64..30, 0_u64..12, 0_u64..12, prop::bool::weighted(0.15));
    let lie = (
        0_usize..7,
        prop_oneof![
            Just(Outcome::Missing),
            Just(Outcome::Mismatch),
            Just(Outcome::Exists),
            (1_u64..5).prop_map(Outcome::Seen),
            (1_u64..5).prop_map(|version| written(version, 0)),
        ],
    );
    (prop::collection::vec(one, 1..8), prop::collection::vec(lie, 0..3)).prop_map(|(parts, lies)| {
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|number| parts[*number].1 + parts[*number].2);
        let mut calls = vec![lost(0, Op::Read); parts.len()];
        let mut key = None;
        for number in order {
            let (op, began, before, after, unanswered) = parts[number];
            let outcome = answer(&mut key, op, 0);
            // Times are made unique by the call's number.
            let time = |time: u64, end: u64| time * 100 + 2 * number as u64 + end;
            calls[number] =
                if unanswered { lost(time(began, 0), op) } else { call(time(began, 0), time(began + before + after, 1), op, outcome) };
        }
        for (number, outcome) in lies {
            if let Some(call) = calls.get_mut(number).filter(|call| call.outcome != Outcome::Unknown) {
                call.outcome = outcome;
            }
        }
        calls
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn search_agrees_with_trying_everything(calls in histories()) {
        let mut all: Vec<usize> = (0..calls.len()).collect();
        prop_assert_eq!(wgl::check(&calls).is_ok(), by_force(&calls, None, &mut all));
    }
}

/// Eight clients on one key, some hundred operations, some of them lost: the search must not take long.
#[test]
fn search_of_eight_clients_ends() {
    let (mut calls, mut key) = (Vec::new(), None);
    for round in 0..60_u64 {
        for client in 0..8_u64 {
            let op = match (round + client) % 4 {
                _ if round == 0 && client == 0 => create(0),
                0 | 1 => set(0),
                2 => set_after(0, round),
                _ => Op::Read,
            };
            let outcome = answer(&mut key, op, 0);
            let (began, ended) = (round * 100 + client, round * 100 + 50 + (client * 5) % 8);
            calls.push(if (round * 8 + client) % 41 == 7 { lost(began, op) } else { call(began, ended, op, outcome) });
        }
    }
    searched(&calls, true, "a long history");
    let last = calls.iter_mut().rfind(|call| call.op == Op::Read && call.outcome != Outcome::Unknown).unwrap();
    let Outcome::Seen(version) = &mut last.outcome else { panic!("a read sees a version") };
    *version -= 20;
    searched(&calls, false, "a long history with one stale read at its end");
}
