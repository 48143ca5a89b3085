use state::{Change, Key, TypedKey};
use types::{AccountId, ChainId, UnixMillis};

use super::*;

const GENERATION: Generation = Generation::new(1);

fn at(revision: u64) -> Position {
    Position::new(GENERATION, Revision::new(revision))
}

fn root(revision: u64) -> Hash {
    Hash::from_bytes([revision as u8; 32])
}

fn key(revision: u64) -> Key {
    TypedKey::Account { account: AccountId::from_bytes([revision as u8; 16]) }.encode()
}

/// A chain of change sets, each of one change of `bytes` bytes.
fn chain(length: u64, bytes: usize) -> Vec<Arc<ChangeSet>> {
    let mut previous = Hash::ZERO;
    let next = |revision| {
        let change = Change { key: key(revision), value: Some(vec![0; bytes].into()) };
        let set = ChangeSet::new(ChainId::new(0), at(revision), UnixMillis::new(revision), previous, vec![change]);
        previous = set.hash;
        Arc::new(set)
    };
    (1..=length).map(next).collect()
}

fn point(set: &ChangeSet) -> SealPoint {
    SealPoint { position: set.header.position, chain_hash: set.hash, state_root: root(set.header.position.revision.get()), signer_set: 1 }
}

const START: SealPoint = SealPoint { position: at_zero(), chain_hash: Hash::ZERO, state_root: Hash::ZERO, signer_set: 1 };

const fn at_zero() -> Position {
    Position::new(Generation::new(0), Revision::new(0))
}

/// A window into which each of `runs` was pushed as one applied run.
fn window(limits: WindowLimits, sets: &[Arc<ChangeSet>], runs: &[usize]) -> Window {
    let mut window = Window::new(limits, START);
    let mut rest = sets;
    for run in runs {
        let (now, later) = rest.split_at(*run);
        window.push(now, point(&now[run - 1]));
        rest = later;
    }
    window
}

/// What `after` says, in short.
fn short(after: &After) -> String {
    match after {
        After::Tail(tail) => {
            let revisions: Vec<String> = tail.sets.iter().map(|set| set.position.revision.to_string()).collect();
            assert_eq!(tail.end.state_root, root(tail.end.position.revision.get()), "the end is where a root is known");
            assert_eq!(tail.sets.last().map(|set| set.hash), Some(tail.end.chain_hash));
            revisions.join(",")
        }
        After::Current => "current".into(),
        After::Behind => "behind".into(),
        After::Ahead => "ahead".into(),
        After::Fork { .. } => "fork".into(),
        After::OtherGeneration => "other generation".into(),
    }
}

#[test]
fn window_after_tells_what_follows_each_position() {
    let sets = chain(9, 10);
    let limits = WindowLimits { sets_max: 5, mark_every: 2, ..WindowLimits::default() };
    let window = window(limits, &sets, &[2, 2, 1, 2, 2]);
    let hash = |revision: u64| if revision == 0 { Hash::ZERO } else { sets[revision as usize - 1].hash };
    let wrong = Hash::from_bytes([0xee; 32]);
    let other = Position::new(Generation::new(2), Revision::new(3));
    let cases = [
        ("the tip", at(9), hash(9), "current"),
        ("one behind, inside a run", at(8), hash(8), "9"),
        ("the window's first", at(5), hash(5), "6,7,8,9"),
        ("the one before the window, known by the first's previous hash", at(4), hash(4), "5,6,7,8,9"),
        ("older", at(3), hash(3), "behind"),
        ("older, at a mark", at(2), hash(2), "behind"),
        ("nothing held", Position::default(), Hash::ZERO, "behind"),
        ("newer", at(10), wrong, "ahead"),
        ("tip, other hash", at(9), wrong, "fork"),
        ("in the window, other hash", at(7), wrong, "fork"),
        ("just before the window, other hash", at(4), wrong, "fork"),
        ("older, other hash at a mark", at(2), wrong, "fork"),
        ("older, other hash between marks is not seen", at(3), wrong, "behind"),
        ("other generation", other, hash(3), "other generation"),
    ];
    for (case, position, hash, expected) in cases {
        assert_eq!(short(&window.after(position, hash, usize::MAX)), expected, "{case}");
    }
    assert_eq!(window.len(), 5);
}

#[test]
fn window_tail_ends_where_a_seal_can_be_made_within_the_bound() {
    let sets = chain(8, 1000);
    let window = window(WindowLimits::default(), &sets, &[1, 3, 1, 1, 2]);
    let from = |revision: u64, bytes| short(&window.after(at(revision), sets[revision as usize - 1].hash, bytes));
    let one = sets[0].encoded().len();
    assert_eq!(from(1, 0), "2,3,4", "at least up to the first such point");
    assert_eq!(from(1, 3 * one), "2,3,4");
    assert_eq!(from(1, 4 * one), "2,3,4,5");
    assert_eq!(from(1, 6 * one), "2,3,4,5,6", "a run that fits in part is left for the next batch");
    assert_eq!(from(2, 7 * one), "3,4,5,6,7,8");
    assert_eq!(short(&window.after(Position::default(), Hash::ZERO, 0)), "1", "who holds nothing gets all when all is here");
}

#[test]
fn window_is_bounded_by_bytes_and_keeps_the_newest_run() {
    let sets = chain(8, 1000);
    let one = sets[0].encoded().len();
    let limits = WindowLimits { bytes_max: 3 * one, ..WindowLimits::default() };
    let window = window(limits, &sets, &[2, 2, 4]);
    assert_eq!((window.len(), window.bytes()), (4, 4 * one), "one run is never cut");
    assert!(window.reaches(at(4), sets[3].hash));
    assert!(!window.reaches(at(3), sets[2].hash));
}

#[test]
fn window_begins_anew_when_the_state_was_replaced_and_passes_over_what_comes_again() {
    let sets = chain(6, 10);
    let mut window = window(WindowLimits::default(), &sets[..4], &[4]);
    window.push(&sets[2..5], point(&sets[4]));
    assert_eq!((window.len(), window.tip()), (5, point(&sets[4])), "what was there already is passed over");
    let far = SealPoint { position: at(50), chain_hash: Hash::from_bytes([5; 32]), state_root: root(50), signer_set: 1 };
    window.push(&[], far);
    assert!(window.is_empty());
    assert_eq!(short(&window.after(at(5), sets[4].hash, 0)), "behind");
    assert_eq!(short(&window.after(at(50), far.chain_hash, 0)), "current");
}

#[test]
fn window_marks_survive_a_restart_and_show_an_old_fork() {
    let sets = chain(8, 10);
    let limits = WindowLimits { mark_every: 4, ..WindowLimits::default() };
    let marks: Vec<_> = window(limits, &sets, &[8]).marks().collect();
    assert_eq!(marks.iter().map(|(position, _)| position.revision.get()).collect::<Vec<_>>(), [4, 8]);
    let mut after = Window::new(limits, point(&sets[7]));
    assert_eq!(short(&after.after(at(4), Hash::ZERO, 0)), "behind");
    after.restore_marks(marks);
    assert_eq!(short(&after.after(at(4), Hash::from_bytes([1; 32]), 0)), "fork");
    assert_eq!(short(&after.after(at(4), sets[3].hash, 0)), "behind");
}
