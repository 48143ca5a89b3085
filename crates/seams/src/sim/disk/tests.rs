use super::*;
use crate::{Entropy, sim::SimEntropy};

#[test]
fn disk_crash_keeps_what_was_synced_and_only_that_for_certain() {
    let (mut kept, mut lost) = (false, false);
    for seed in 0..50 {
        let disk = SimDisk::new();
        let path = Path::new("a/file");
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.write_all_at(b"durable", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("a")).unwrap();
        file.write_all_at(b"tail", 7).unwrap();
        disk.crash_losing(&SimEntropy::new(seed), Loss::Suffix);
        let after = disk.read(path).unwrap();
        assert!(after.starts_with(b"durable"));
        assert!(b"durabletail".starts_with(&after[..]));
        kept |= after.len() == 11;
        lost |= after.len() == 7;
    }
    assert!(kept && lost, "both outcomes must occur");
}

#[test]
fn disk_crash_forgets_a_name_that_was_not_synced() {
    let disk = SimDisk::new();
    disk.open(Path::new("a/file"), OpenMode::CreateNew).unwrap().sync_data().unwrap();
    disk.crash_losing(&SimEntropy::new(1), Loss::Suffix);
    assert!(disk.files().is_empty());
}

#[test]
fn disk_full_fails_the_write_that_does_not_fit() {
    let disk = SimDisk::new();
    disk.set_faults(DiskFaults { capacity: Some(10), ..DiskFaults::default() });
    let file = disk.open(Path::new("f"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[1; 10], 0).unwrap();
    assert_eq!(file.write_all_at(&[1; 1], 10).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_all_at(&[2; 10], 0).unwrap();
}

const PAGE: usize = 512;

/// A file of four durable pages of ones and, over them and behind them, unsynced pages: of twos at 1 and 2, of threes at 2 and 3, of
/// fours at 5; then the power goes.
fn pages_after(loss: Loss, seed: u64) -> (Vec<u8>, Survived) {
    let (disk, path) = (SimDisk::new(), Path::new("a/file"));
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[1; 4 * PAGE], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("a")).unwrap();
    for (page, count, byte) in [(1, 2, 2), (2, 2, 3), (5, 1, 4)] {
        file.write_all_at(&vec![byte; count * PAGE], (page * PAGE) as u64).unwrap();
    }
    let survived = disk.crash_losing(&SimEntropy::new(seed), loss);
    let after = disk.read(path).unwrap();
    let whole = |page: &[u8]| page.iter().all(|byte| *byte == page[0]);
    assert!(after.len().is_multiple_of(PAGE) && after.chunks(PAGE).all(whole), "seed {seed}: pages are whole");
    (after.chunks(PAGE).map(|page| page[0]).collect(), survived)
}

#[test]
fn disk_that_loses_writes_or_pages_keeps_later_ones_and_never_touches_what_was_synced() {
    for loss in [Loss::Writes, Loss::Pages(PAGE)] {
        let runs: Vec<_> = (0..400).map(|seed| pages_after(loss, seed)).collect();
        for (after, survived) in &runs {
            assert_eq!(after[0], 1, "no unsynced write was there");
            let allowed: [&[u8]; 6] = [&[1], &[0, 1, 2], &[0, 1, 2, 3], &[0, 1, 3], &[0], &[0, 4]];
            assert!(after.iter().zip(allowed).all(|(page, allowed)| allowed.contains(page)), "{after:?}");
            let last_without_first = after.get(5) == Some(&4) && after[1] != 2;
            assert!(!last_without_first || survived.holes == 1, "{after:?} has a hole");
        }
        let seen = |is: &dyn Fn(&[u8]) -> bool| runs.iter().any(|(after, _)| is(after));
        assert!(seen(&|after| after == [1, 2, 3, 3, 0, 4]), "all of it is there");
        assert!(seen(&|after| after == [1, 1, 1, 1]), "nothing of it is there");
        assert!(seen(&|after| after == [1, 1, 1, 1, 0, 4]), "the last write alone, old bytes where the others are missing");
        assert!(seen(&|after| after.len() == 6 && after[1] == 0), "zeros where one is missing");
        let torn = seen(&|after| after[1] == 2 && after[2] == 1);
        assert_eq!(torn, loss == Loss::Pages(PAGE), "half of a write is there when pages are lost, and only then");
        assert!(runs.iter().any(|(_, survived)| survived.holes == 0), "not every loss is a hole");
    }
}

#[test]
fn disk_crash_loses_in_order_by_some_seeds_and_with_holes_by_others_and_draws_no_more_for_it() {
    let (mut orderly, mut holes) = (0, 0);
    for seed in 0..60 {
        let (one, other) = (SimEntropy::new(seed), SimEntropy::new(seed));
        let after = |losing: Option<Loss>, entropy: &SimEntropy| {
            let (disk, path) = (SimDisk::new(), Path::new("a/file"));
            let file = disk.open(path, OpenMode::CreateNew).unwrap();
            disk.sync_dir(Path::new("a")).unwrap();
            for byte in 1..9 {
                file.write_all_at(&[byte; 700], 700 * u64::from(byte - 1)).unwrap();
            }
            let survived = losing.map_or_else(|| disk.crash(entropy), |loss| disk.crash_losing(entropy, loss));
            (disk.read(path).unwrap(), survived.holes)
        };
        let (found, hole) = after(None, &one);
        let (in_order, none) = after(Some(Loss::Suffix), &other);
        assert_eq!((none, one.number()), (0, other.number()), "the stream of the caller goes on alike");
        orderly += u64::from(found == in_order);
        holes += hole;
    }
    assert!(orderly > 10 && holes > 20, "{orderly} in order, {holes} with holes");
}

#[test]
fn disk_crash_keeps_or_loses_changes_of_names_and_what_depends_on_a_lost_one_is_lost() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new();
        // Drawn from what is durable, so that there must be something.
        for name in ["d/old", "d/gone"] {
            disk.open(Path::new(name), OpenMode::CreateNew).unwrap().sync_data().unwrap();
        }
        disk.sync_dir(Path::new("d")).unwrap();
        let file = disk.open(Path::new("d/made.new"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"made", 0).unwrap();
        file.sync_data().unwrap();
        disk.rename(Path::new("d/made.new"), Path::new("d/made")).unwrap();
        disk.rename(Path::new("d/made"), Path::new("d/old")).unwrap();
        disk.remove_file(Path::new("d/gone")).unwrap();
        disk.crash(&SimEntropy::new(seed));
        let names: Vec<String> = disk.list(Path::new("d")).unwrap();
        assert!(names.contains(&"old".to_owned()), "one or the other has the name");
        let moved = disk.read(Path::new("d/old")).unwrap() == b"made";
        assert!(!moved || !names.iter().any(|name| name.starts_with("made")), "a file has one name");
        seen.insert((names.join(" "), moved));
    }
    let expected = [("gone made old", false), ("gone made.new old", false), ("gone old", false), ("gone old", true), ("old", true)];
    for (names, moved) in expected {
        assert!(seen.contains(&(names.to_owned(), moved)), "{names} {moved}, of {seen:?}");
    }
    // Only an order of its own does this: the last change is there, the first is not.
    assert!(seen.contains(&("old".to_owned(), false)), "{seen:?}");
}

#[test]
fn disk_crash_loses_what_was_written_to_a_file_whose_name_came_through_alone() {
    let (mut empty, mut there) = (false, false);
    for seed in 0..100 {
        let disk = SimDisk::new();
        disk.open(Path::new("d/other"), OpenMode::CreateNew).unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        disk.open(Path::new("d/file"), OpenMode::CreateNew).unwrap().write_all_at(b"bytes", 0).unwrap();
        let survived = disk.crash(&SimEntropy::new(seed));
        let after = disk.read(Path::new("d/file"));
        assert_eq!(after.is_some(), survived.names == 1);
        empty |= after.as_ref().is_some_and(Vec::is_empty);
        there |= after.is_some_and(|bytes| bytes == b"bytes");
    }
    assert!(empty && there, "a name without bytes, and with them");
}
