//! The root key file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside the functions that the lint exempts")]

use std::{io, path::Path};

use seal::{FileRoot, Kek, KekName, RootProvider, SealError};
use seams::{
    Disk, DiskFile, OpenMode,
    sim::{DiskFaults, SimDisk, SimEntropy},
};
use types::{ClusterId, KekEpoch, KeyDomain};

fn path() -> &'static Path {
    Path::new("keys/root")
}

fn write(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.open(path(), OpenMode::CreateNew).unwrap().write_all_at(bytes, 0).unwrap();
    disk
}

#[test]
fn root_file_survives_a_crash_right_after_it_was_created() {
    for seed in 0..20 {
        let (disk, entropy) = (SimDisk::new(), SimEntropy::new(seed));
        let root = FileRoot::create(&disk, &entropy, path()).unwrap();
        disk.crash(&entropy);
        assert_eq!(FileRoot::open(&disk, path()).unwrap().root_key_id(), root.root_key_id());
    }
}

#[test]
fn root_file_is_never_written_over() {
    let (disk, entropy) = (SimDisk::new(), SimEntropy::new(1));
    FileRoot::create(&disk, &entropy, path()).unwrap();
    let before = disk.read(path());
    let error = FileRoot::create(&disk, &entropy, path()).err().unwrap();
    assert!(matches!(&error, SealError::RootFile { operation: "create", source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
    assert_eq!(error.to_string(), "cannot create the root key file keys/root");
    assert_eq!(disk.read(path()), before);
}

#[test]
fn root_file_that_cannot_be_written_is_removed_again() {
    let full = DiskFaults { capacity: Some(10), ..DiskFaults::default() };
    let broken = DiskFaults { sync_fails: true, ..DiskFaults::default() };
    for faults in [full, broken] {
        let disk = SimDisk::new();
        disk.set_faults(faults);
        let error = FileRoot::create(&disk, &SimEntropy::new(1), path()).err().unwrap();
        assert!(matches!(error, SealError::RootFile { operation: "write", .. }));
        assert!(disk.files().is_empty());
    }
}

#[test]
fn root_file_damaged_anywhere_is_refused() {
    let disk = SimDisk::new();
    FileRoot::create(&disk, &SimEntropy::new(1), path()).unwrap();
    let good = disk.read(path()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let error = FileRoot::open(&write(&bad), path()).err().unwrap_or_else(|| panic!("byte {at} was changed"));
        assert!(matches!(error, SealError::Damaged { .. } | SealError::NewerFormat { .. }), "byte {at}: {error}");
    }
    for len in 0..good.len() {
        assert!(matches!(FileRoot::open(&write(&good[..len]), path()).err(), Some(SealError::Damaged { .. })), "cut to {len}");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(FileRoot::open(&write(&longer), path()).err(), Some(SealError::Damaged { .. })));
}

#[test]
fn root_file_missing_is_named() {
    let error = FileRoot::open(&SimDisk::new(), path()).err().unwrap();
    assert_eq!(error.to_string(), "cannot open the root key file keys/root");
}

/// A disk on which others may read every file.
struct Shared(SimDisk);

struct SharedFile(Box<dyn DiskFile>);

impl Disk for Shared {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SharedFile(self.0.open(path, mode)?)))
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }
    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.0.create_dir_all(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.0.sync_dir(folder)
    }
}

impl DiskFile for SharedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn is_private(&self) -> io::Result<bool> {
        Ok(false)
    }
    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        panic!("nothing is read from a file that others can read")
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[test]
fn root_file_that_others_can_read_is_refused() {
    let disk = SimDisk::new();
    FileRoot::create(&disk, &SimEntropy::new(1), path()).unwrap();
    let error = FileRoot::open(&Shared(disk), path()).err().unwrap();
    assert!(error.to_string().contains("keys/root can be read by others than its owner: chmod 600 it"), "{error}");
}

#[test]
fn root_of_another_file_is_named_in_the_refusal() {
    let (disk, entropy, domain) = (SimDisk::new(), SimEntropy::new(1), KeyDomain::global());
    let one = FileRoot::create(&disk, &entropy, path()).unwrap();
    let two: Box<dyn RootProvider> = Box::new(FileRoot::create(&disk, &entropy, Path::new("keys/other")).unwrap());
    let name = KekName { cluster: ClusterId::from_bytes([1; 16]), domain: &domain, epoch: KekEpoch::new(1) };
    let wrapped = one.wrap_kek(&entropy, &name, &Kek::generate(&entropy)).unwrap();
    let error = two.unwrap_kek(&name, &wrapped).err().unwrap().to_string();
    assert!(error.contains(&one.root_key_id().to_string()) && error.contains(&two.root_key_id().to_string()), "{error}");
}
