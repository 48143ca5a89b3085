use std::{panic::catch_unwind, path::PathBuf, sync::Mutex};

use seams::{
    Entropy, OpenMode,
    mutation::{Mutation, with},
    sim::{Loss, SimEntropy},
};

use super::*;

/// What a log amounts to after an operation; the committed hint is checked apart, since it is only a hint.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    first: u64,
    entries: Vec<Bytes>,
    note: Bytes,
    vote: Option<Bytes>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn of(reader: &LogReader) -> Self {
        let (range, note) = reader.bounds();
        let entries: Vec<_> = all(reader).into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(range.end - range.start, entries.len() as u64);
        Self { first: range.start, entries, note, vote: reader.slot(Slot::Vote) }
    }
}

/// A history: the states after each operation, and how many operations were acknowledged.
struct Run {
    random: SimEntropy,
    disk: SimDisk,
    states: Vec<Model>,
    acknowledged: Arc<Mutex<usize>>,
    unique: u64,
    cuts: usize,
    /// What a crash loses; none for one thing or another.
    loss: Option<Loss>,
}

impl Run {
    fn below(&self, limit: u64) -> u64 {
        self.random.number() % limit
    }

    fn operation(&mut self, log: &LogWriter) {
        let mut model = self.states.last().unwrap().clone();
        let acknowledged = self.acknowledged.clone();
        let number = self.states.len();
        let done: Done = Box::new(move |result| {
            result.unwrap();
            let mut last = acknowledged.lock().unwrap();
            assert_eq!(*last + 1, number, "acknowledged in order");
            *last = number;
        });
        match self.below(20) {
            0..12 => {
                let count = self.below(4) + 1;
                let size = if self.below(30) == 0 { 6000 } else { self.below(400) };
                let new: Vec<Bytes> = (0..count)
                    .map(|_| {
                        self.unique += 1;
                        entry(self.unique, size as usize)
                    })
                    .collect();
                now(log.append(model.next(), new.clone(), done)).unwrap();
                model.entries.extend(new);
            }
            12..14 => {
                let from = model.first + self.below(model.entries.len() as u64 + 1);
                now(log.truncate_from(from, done)).unwrap();
                model.entries.truncate((from - model.first) as usize);
            }
            14..16 => {
                let before = model.first + 1 + self.below(model.entries.len() as u64 + 2);
                model.note = before.to_string().into();
                now(log.purge_before(before, model.note.clone(), done)).unwrap();
                model.entries.drain(..((before - model.first) as usize).min(model.entries.len()));
                model.first = before;
            }
            16..18 => {
                self.unique += 1;
                let bytes = Bytes::from(self.unique.to_string());
                now(log.write_slot(Slot::Vote, bytes.clone(), done)).unwrap();
                model.vote = Some(bytes);
            }
            _ => {
                now(log.write_slot(Slot::Committed, model.next().to_string().into(), done)).unwrap();
            }
        }
        self.states.push(model);
    }

    /// One life of the process: open, check, work, crash.
    fn life(&mut self) {
        let (log, reader) = open(&self.disk, Drive::Manual).unwrap();
        let found = Model::of(&reader);
        let acknowledged = *self.acknowledged.lock().unwrap();
        assert!(self.states[acknowledged..].contains(&found), "lost or invented: {found:?}");
        self.cuts += usize::from(log.cut().is_some());
        self.states = vec![found];
        *self.acknowledged.lock().unwrap() = 0;
        for _ in 0..self.below(40) {
            self.operation(&log);
            assert_eq!(&Model::of(&reader), self.states.last().unwrap(), "readable at once");
            if self.below(3) == 0 {
                log.run_pending();
            }
        }
        if self.below(10) == 0 {
            log.close().unwrap();
            assert_eq!(*self.acknowledged.lock().unwrap() + 1, self.states.len());
        }
        self.tear();
        match self.loss {
            None => self.disk.crash(&self.random),
            Some(loss) => self.disk.crash_losing(&self.random, loss),
        };
    }

    /// Half of the time, the power goes while a group is being written: its sync fails, and what was written is left to chance.
    fn tear(&mut self) {
        if self.below(2) == 0 {
            let (log, reader) = open(&self.disk, Drive::Manual).unwrap();
            assert!(self.states.contains(&Model::of(&reader)));
            let base = Model::of(&reader);
            *self.acknowledged.lock().unwrap() = 0;
            self.states = vec![base.clone()];
            self.disk.set_faults(seams::sim::DiskFaults { sync_fails: true, ..Default::default() });
            let new = entries(900, 903, 700);
            now(log.append(base.next(), new.clone(), ignore())).unwrap();
            assert!(log.run_pending());
            self.disk.set_faults(Default::default());
            let mut after = base;
            after.entries.extend(new);
            self.states.push(after);
        }
    }
}

/// A log that lives twelve times; how often a torn end was cut.
fn history(seed: u64, loss: Option<Loss>) -> usize {
    let mut run = Run {
        random: SimEntropy::new(seed),
        disk: SimDisk::new(),
        states: vec![Model::default()],
        acknowledged: Arc::default(),
        unique: 0,
        cuts: 0,
        loss,
    };
    for _ in 0..12 {
        run.life();
    }
    run.cuts
}

#[test]
fn log_crashed_again_and_again_keeps_the_acknowledged_and_invents_nothing() {
    for loss in [None, Some(Loss::Suffix), Some(Loss::Writes), Some(Loss::Pages(512)), Some(Loss::Pages(4096))] {
        let cuts: usize = (0..100).map(|seed| history(seed, loss)).sum();
        let tears = matches!(loss, None | Some(Loss::Suffix | Loss::Pages(512)));
        assert!(cuts > 10 || !tears, "{loss:?}: torn ends must occur, there were {cuts}");
    }
}

#[test]
fn block_that_is_believed_for_its_end_is_caught_where_a_disk_writes_in_any_order() {
    let caught = |loss| (0..20).find(|seed| catch_unwind(|| with(Mutation::EndBelieved, || history(*seed, loss))).is_err());
    assert!(caught(None).is_some());
    assert_eq!(caught(Some(Loss::Suffix)), None, "on a disk that writes in order the end stands for all of it");
}

/// The bytes of a block that a log writes behind its first entry, and the file it is in.
fn block_of(disk: &SimDisk, new: &Bytes) -> Vec<u8> {
    let disk = copy(disk);
    append(&open(&disk, Drive::Inline).unwrap().0, 1, vec![new.clone()]).unwrap();
    let file = disk.read(&first_segment()).unwrap();
    let end = file.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    file[1024..end.next_multiple_of(512)].to_vec()
}

fn first_segment() -> PathBuf {
    Path::new(FOLDER).join("0000000000000001.seg")
}

/// The disk after a crash that kept those pages of a block of which a bit is set.
fn with_pages(disk: &SimDisk, block: &[u8], kept: usize) -> SimDisk {
    let disk = copy(disk);
    let file = disk.open(&first_segment(), OpenMode::Write).unwrap();
    for (page, bytes) in block.chunks(512).enumerate().filter(|(page, _)| kept >> page & 1 == 1) {
        file.write_all_at(bytes, 1024 + 512 * page as u64).unwrap();
    }
    disk
}

/// A block lost some of its pages; a new one of the same length is written in its place, and loses some of its own: nothing of the old
/// one comes back in the holes.
#[test]
fn log_block_of_the_same_length_over_a_torn_one_revives_nothing_of_it() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 1, 100)).unwrap();
    let (old, new) = (entry(5, 1800), entry(9, 1800));
    let block = block_of(&disk, &old);
    let all_pages = (1 << block.len().div_ceil(512)) - 1;
    assert_eq!(all_pages, 0b1111);
    for kept_of_old in 0..all_pages {
        let torn = with_pages(&disk, &block, kept_of_old);
        let (log, reader) = open(&torn, Drive::Inline).unwrap();
        assert_eq!((reader.next_index(), log.cut().is_some()), (1, kept_of_old > 0), "{kept_of_old:b}");
        let over = block_of(&torn, &new);
        assert_eq!(over.len(), block.len());
        for kept_of_new in 0..=all_pages {
            let again = with_pages(&torn, &over, kept_of_new);
            let (_, reader) = open(&again, Drive::Inline).unwrap();
            let found = all(&reader);
            let expected = if kept_of_new == all_pages { vec![(0, entry(0, 100)), (1, new.clone())] } else { vec![(0, entry(0, 100))] };
            assert_eq!(found, expected, "{kept_of_old:b} of the old, {kept_of_new:b} of the new");
        }
    }
}

/// A process dies before it has synced the name of a new segment, and the next one goes on in it: then the power goes.
#[test]
fn log_goes_on_in_a_segment_only_when_its_name_is_durable() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, vec![entry(0, 3000)]).unwrap();
    append(&log, 1, vec![entry(1, 3000)]).unwrap();
    drop(log);
    let names = segments(&disk);
    let [_, second] = &names[..] else { panic!("two segments: {names:?}") };
    let (path, aside) = (Path::new(FOLDER).join(second), Path::new(FOLDER).join("aside"));
    disk.rename(&path, &aside).unwrap();
    disk.sync_dir(Path::new(FOLDER)).unwrap();
    disk.rename(&aside, &path).unwrap();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    append(&log, 2, entries(2, 3, 10)).unwrap();
    assert_eq!(reader.next_index(), 3);
    disk.crash_losing(&SimEntropy::new(1), Loss::Suffix);
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.next_index(), 3, "it was acknowledged");
}

#[test]
fn log_crashed_while_it_is_created_opens_empty() {
    for seed in 0..200 {
        let disk = SimDisk::new();
        let random = SimEntropy::new(seed);
        for _ in 0..3 {
            let capacity = random.number() % 20_000;
            disk.set_faults(seams::sim::DiskFaults { capacity: Some(capacity), ..Default::default() });
            if let Ok((log, _)) = open(&disk, Drive::Inline) {
                let _ = append(&log, 0, entries(0, 1, 10));
            }
            disk.crash(&random);
        }
        disk.set_faults(Default::default());
        let (log, reader) = open(&disk, Drive::Inline).unwrap();
        append(&log, reader.next_index(), entries(0, 1, 10)).unwrap();
    }
}

#[test]
fn log_end_whose_first_sector_was_lost_is_cut_and_does_not_come_back() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 1, 100)).unwrap();
    let marks = disk.read(&Path::new(FOLDER).join("marks")).unwrap();
    append(&log, 1, vec![entry(1, 1800)]).unwrap();
    // A disk may write a block's later sectors first: the header is missing, and the mark is still the old one.
    let write = |name: &str, offset: u64, bytes: &[u8]| {
        disk.open(&Path::new(FOLDER).join(name), seams::OpenMode::Write).unwrap().write_all_at(bytes, offset).unwrap();
    };
    write("marks", 0, &marks);
    write("0000000000000001.seg", 1024, &[0; 512]);
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.next_index(), 1);
    assert_eq!(log.cut().unwrap().offset, 1024);
    append(&log, 1, entries(1, 2, 10)).unwrap();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!((reader.next_index(), log.cut()), (2, None));
}
