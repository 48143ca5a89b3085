use std::collections::BTreeMap;

use proptest::prelude::*;
use seams::{Table, TableError};
use state::{ChainHead, ChangeSet, Content, Key, Propagated, TypedKey, record_hash};
use store::MemTable;
use types::{ChainId, Generation, Position, Revision, SecretId, UnixMillis, ValueId};

use super::*;

fn key(number: u8) -> Key {
    TypedKey::Value { secret: SecretId::from_bytes([number; 16]), value: ValueId::from_bytes([number; 16]) }.encode()
}

/// Values over ten bytes, and the table that they go to.
struct Scene {
    values: Arc<Values>,
    table: MemTable,
    number: u64,
}

impl Scene {
    fn new() -> Self {
        let (values, table) = (Values::new(10), MemTable::new());
        values.attach(Some(table.reader()));
        Self { values, table, number: 0 }
    }

    fn hold(&self, number: u8, value: &'static [u8]) -> Content {
        let place: Arc<dyn LargeValues> = self.values.clone();
        Content::of(&key(number), Bytes::from_static(value), Some(&place))
    }

    /// What is fresh goes to the table, and is written; what nobody names goes away.
    fn write(&mut self) {
        while let Some(batch) = self.values.take_fresh(self.number + 1) {
            self.number += 1;
            self.table.write(&batch).unwrap();
        }
        self.values.written(self.number);
        if let Some(batch) = self.values.take_unnamed() {
            self.number += 1;
            self.table.write(&batch).unwrap();
        }
    }

    fn stored(&self) -> usize {
        let mut count = 0;
        let count_one = &mut |_: &[u8], _: &[u8]| -> Result<(), TableError> {
            count += 1;
            Ok(())
        };
        self.table.scan(count_one).unwrap();
        count
    }
}

const LONG: &[u8] = b"a value of more than ten bytes";

#[test]
fn value_is_read_from_memory_until_it_is_written_and_from_the_table_then() {
    let mut scene = Scene::new();
    let content = scene.hold(1, LONG);
    assert_eq!((content.inline(), content.len()), (None, LONG.len()));
    assert_eq!(scene.values.memory_bytes(), LONG.len() as u64);
    assert_eq!((content.bytes(&key(1)).unwrap(), scene.stored()), (Bytes::from_static(LONG), 0));
    // Handed over is not written.
    let batch = scene.values.take_fresh(1).unwrap();
    assert_eq!((content.bytes(&key(1)).unwrap(), scene.values.fresh_bytes()), (Bytes::from_static(LONG), 0));
    scene.table.write(&batch).unwrap();
    scene.values.written(1);
    assert_eq!((content.bytes(&key(1)).unwrap(), scene.values.memory_bytes()), (Bytes::from_static(LONG), 0));
    assert!(scene.values.trouble().is_none());
}

#[test]
fn value_of_the_bound_stays_in_memory_and_so_does_what_is_no_value() {
    let scene = Scene::new();
    assert!(scene.hold(1, b"ten bytes!").inline().is_some());
    let place: Arc<dyn LargeValues> = scene.values.clone();
    assert!(Content::of(&TypedKey::Settings.encode(), Bytes::from_static(LONG), Some(&place)).inline().is_some());
}

#[test]
fn value_is_removed_when_the_last_that_names_it_is_dropped_and_not_before() {
    let mut scene = Scene::new();
    let (one, other) = (scene.hold(1, LONG), scene.hold(1, LONG));
    scene.write();
    drop(one);
    scene.write();
    assert_eq!((scene.stored(), other.bytes(&key(1)).unwrap()), (1, Bytes::from_static(LONG)));
    drop(other);
    scene.write();
    assert_eq!(scene.stored(), 0);
}

#[test]
fn value_that_was_dropped_before_it_was_handed_over_leaves_nothing() {
    let mut scene = Scene::new();
    drop(scene.hold(1, LONG));
    scene.write();
    assert_eq!((scene.stored(), scene.values.memory_bytes(), scene.number), (0, 0, 0));
}

#[test]
fn value_named_again_before_its_removal_stays() {
    let mut scene = Scene::new();
    let first = scene.hold(1, LONG);
    scene.write();
    drop(first);
    // Known to go, and come again by another way: it is put once more, and the removal is off.
    let again = scene.hold(1, LONG);
    assert_eq!(again.bytes(&key(1)).unwrap(), LONG);
    scene.write();
    assert_eq!((scene.stored(), again.bytes(&key(1)).unwrap()), (1, Bytes::from_static(LONG)));
}

#[test]
fn value_dropped_and_named_again_between_hand_over_and_writing_is_not_let_go_early() {
    let mut scene = Scene::new();
    let first = scene.hold(1, LONG);
    let put = scene.values.take_fresh(1).unwrap();
    drop(first);
    let removed = scene.values.take_unnamed().unwrap();
    let again = scene.hold(1, LONG);
    let put_again = scene.values.take_fresh(3).unwrap();
    scene.table.write(&put).unwrap();
    scene.values.written(1);
    scene.table.write(&removed).unwrap();
    scene.values.written(2);
    assert_eq!(again.bytes(&key(1)).unwrap(), LONG, "in the table it is gone at this moment");
    scene.table.write(&put_again).unwrap();
    scene.values.written(3);
    assert_eq!((again.bytes(&key(1)).unwrap(), scene.values.memory_bytes()), (Bytes::from_static(LONG), 0));
}

#[test]
fn value_that_is_missing_or_changed_in_the_table_is_never_given_and_is_trouble() {
    for change in [None, Some(b"another value of as many bytes".to_vec())] {
        let mut scene = Scene::new();
        let content = scene.hold(1, LONG);
        scene.write();
        let leaf = record_hash(&key(1), LONG);
        scene.table.write(&TableBatch { writes: vec![(table_key(&leaf), change)] }).unwrap();
        assert!(content.bytes(&key(1)).is_err());
        assert!(scene.values.trouble().is_some());
    }
}

#[test]
fn value_moved_to_another_key_is_not_given() {
    let mut scene = Scene::new();
    let content = scene.hold(1, LONG);
    scene.write();
    assert!(content.bytes(&key(2)).is_err());
}

#[test]
fn values_of_a_closed_table_are_unreadable_and_that_is_no_trouble() {
    let mut scene = Scene::new();
    let content = scene.hold(1, LONG);
    scene.write();
    scene.values.attach(None);
    assert!(content.bytes(&key(1)).is_err());
    assert!(scene.values.trouble().is_none());
}

#[test]
fn values_in_memory_go_to_the_table_that_comes_after_and_the_others_are_known_to_be_lost() {
    let mut scene = Scene::new();
    let written = scene.hold(1, LONG);
    scene.write();
    let waiting = scene.hold(2, LONG);
    drop(scene.values.take_fresh(7));
    scene.table = MemTable::new();
    assert!(!scene.values.begin_anew(Some(scene.table.reader())), "one lay in the old table alone");
    drop(written);
    assert!(scene.values.begin_anew(Some(scene.table.reader())));
    scene.number = 7;
    scene.write();
    assert_eq!((scene.stored(), waiting.bytes(&key(2)).unwrap()), (1, Bytes::from_static(LONG)));
}

fn set(state: &Propagated, changes: &BTreeMap<u8, Option<Vec<u8>>>) -> ChangeSet {
    let revision = state.position().revision.next().unwrap();
    let changes = changes.iter().map(|(number, value)| state::Change { key: key(*number), value: value.clone().map(Bytes::from) });
    let position = Position::new(Generation::new(1), revision);
    ChangeSet::new(ChainId::new(0), position, UnixMillis::new(revision.get()), state.chain_hash(), changes.collect())
}

proptest! {
    /// A state whose large values lie elsewhere is the state that holds all: same roots, same records, whatever is written when and
    /// whichever old roots are still read.
    #[test]
    fn states_with_values_inline_and_elsewhere_are_the_same(
        steps in proptest::collection::vec(
            (proptest::collection::btree_map(0_u8..20, proptest::option::of(0_usize..40), 1..4), any::<bool>(), any::<bool>()),
            1..60,
        ),
    ) {
        let mut scene = Scene::new();
        let (mut inline, mut elsewhere) = (Propagated::empty(), Propagated::empty_with(scene.values.clone()));
        let mut kept = Vec::new();
        for (at, (lengths, writes, keeps)) in steps.iter().enumerate() {
            let fill = |len: &usize| vec![at as u8; *len];
            let changes = lengths.iter().map(|(number, len)| (*number, len.as_ref().map(fill))).collect();
            let set = set(&inline, &changes);
            // A set that is refused after all, because its seal does not verify, leaves no trace.
            elsewhere.clone().accept(&set).unwrap();
            inline.accept(&set).unwrap();
            elsewhere.accept(&set).unwrap();
            prop_assert!(elsewhere.accept(&set).is_err(), "a repeat");
            if *writes {
                scene.write();
            }
            if *keeps {
                kept.push((inline.clone(), elsewhere.clone()));
            }
            prop_assert_eq!(inline.state_root(), elsewhere.state_root());
            prop_assert_eq!(inline.bucket_hashes(), elsewhere.bucket_hashes());
        }
        kept.push((inline, elsewhere));
        for (inline, elsewhere) in &kept {
            prop_assert_eq!(inline.len(), elsewhere.len());
            for ((one, bytes), (other, content)) in inline.records().zip(elsewhere.records()) {
                prop_assert_eq!((one, bytes.inline().cloned()), (other, content.bytes(other).ok()));
                prop_assert_eq!(content.inline().is_some(), content.len() <= 10);
            }
            let again = Propagated::from_records(elsewhere.head(), elsewhere.records().map(|(key, content)| (key.clone(), content.clone())));
            prop_assert_eq!(again.state_root(), inline.state_root());
        }
        prop_assert!(scene.values.trouble().is_none());
        // The last root alone names what is left, and nothing else is left.
        let (_, last) = kept.pop().unwrap();
        drop(kept);
        scene.write();
        let large = last.records().filter(|(_, content)| content.len() > 10).count();
        prop_assert_eq!(scene.stored(), large);
        drop(last);
        scene.write();
        prop_assert_eq!(scene.stored(), 0, "what nobody names any more is gone");
        prop_assert_eq!(scene.values.memory_bytes(), 0);
    }

    /// What is loaded from a table that was written is what was written.
    #[test]
    fn states_count_in_memory_what_they_hold_there(lengths in proptest::collection::vec(0_usize..4000, 0..20)) {
        let values = Values::new(2048);
        let mut loading = Propagated::empty_with(values.clone()).load();
        let mut expected = 0;
        for (number, len) in lengths.iter().enumerate() {
            let key = key(number as u8);
            expected += key.as_bytes().len() as u64 + if *len > 2048 { state::LARGE_VALUE_WEIGHT } else { *len as u64 };
            loading.put(key, Bytes::from(vec![7; *len]).into());
        }
        let state = loading.finish(ChainHead { position: Position::new(Generation::new(1), Revision::new(1)), ..ChainHead::default() });
        prop_assert_eq!(state.bytes(), expected);
    }
}
