use std::sync::Mutex;

use seams::{Entropy, sim::SimEntropy};

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
        self.disk.crash(&self.random);
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

#[test]
fn log_crashed_again_and_again_keeps_the_acknowledged_and_invents_nothing() {
    let mut cuts = 0;
    for seed in 0..150 {
        let mut run = Run {
            random: SimEntropy::new(seed),
            disk: SimDisk::new(),
            states: vec![Model::default()],
            acknowledged: Arc::default(),
            unique: 0,
            cuts: 0,
        };
        for _ in 0..12 {
            run.life();
        }
        cuts += run.cuts;
    }
    assert!(cuts > 50, "torn ends must occur, there were {cuts}");
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
