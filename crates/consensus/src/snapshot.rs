//! Snapshot files: the state at one entry of the log, from which a voter starts and which a leader sends to one that is far
//! behind.
//!
//! A file is a `store` snapshot whose header carries a [`Standing`] and whose records are the state's. It is written beside,
//! made durable and renamed by `store`; only then is the log purged below it ([`SnapshotMark`]). A file from the leader arrives
//! in `incoming`, is verified, and its records are written into a file of this voter's own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{BufMut, Bytes};
use seams::{Disk, DiskFile, OpenMode};
use state::{Key, State};
use store::{SnapshotError, SnapshotFolder, SnapshotReader};

use crate::{
    error::chain,
    format::{self, FormatError, Reader},
    lock,
    log::SnapshotMark,
    raft::{LogId, SnapshotMeta, StoredMembership},
};

/// Where a state stands in the log. Kept with every copy of a state: in the header of a snapshot file, and as one record of the
/// table.
///
/// Bytes after the format byte: optional log id, stored membership (see [`format`]), count of records u64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The last entry applied, of any kind.
    pub(crate) applied: Option<LogId>,
    /// The last membership applied.
    pub(crate) membership: StoredMembership,
}

/// A standing, and how many records the state at it has. That the propagated ones are the right ones is checked by the state
/// itself, against the root in its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) standing: Standing,
    pub(crate) records: u64,
}

impl Label {
    pub(crate) fn of(standing: &Standing, state: &State) -> Self {
        Self { standing: standing.clone(), records: state.record_count() as u64 }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = format::begin(128);
        format::put_log_id_option(&mut out, self.standing.applied.as_ref());
        format::put_stored_membership(&mut out, &self.standing.membership);
        out.put_u64_le(self.records);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        let mut reader = Reader::new("state label", bytes)?;
        let standing = Standing { applied: reader.log_id_option()?, membership: reader.stored_membership()? };
        let label = Self { standing, records: reader.u64()? };
        reader.end().map(|()| label)
    }

    /// The state of these records, if they are all of it.
    pub(crate) fn check(&self, records: Vec<(Key, Bytes)>) -> Result<State, String> {
        if records.len() as u64 != self.records {
            return Err(format!("{} records where {} belong", records.len(), self.records));
        }
        let state = State::from_records(records).map_err(|error| chain(&error))?;
        let index = self.standing.applied.map_or(0, |id| id.index);
        let applied = state.applied_index().get();
        if applied <= index { Ok(state) } else { Err(format!("its head is of entry {applied}, its label of entry {index}")) }
    }
}

/// A complete, verified file; openraft's handle of a snapshot. The open handle outlives a newer file taking its place.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: Arc<dyn DiskFile>,
}

/// A file on its way from the leader.
pub(crate) struct Incoming {
    path: PathBuf,
    file: Option<Box<dyn DiskFile>>,
    pub(crate) received: u64,
}

/// The voter's snapshot files.
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    folder: SnapshotFolder,
    incoming: PathBuf,
    transfers: AtomicU64,
    mark: SnapshotMark,
    newest: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
}

fn meta_of(standing: &Standing) -> SnapshotMeta {
    SnapshotMeta { last_log_id: standing.applied, last_membership: standing.membership.clone() }
}

fn failed(error: SnapshotError) -> io::Error {
    io::Error::other(error)
}

/// Orders files by the entries they hold; 0 is the empty state.
fn order_of(standing: &Standing) -> u128 {
    standing.applied.map_or(0, |id| u128::from(id.index) + 1)
}

impl Snapshots {
    /// Opens the folder; what an interrupted transfer left is removed.
    pub(crate) fn open(disk: Arc<dyn Disk>, folder: &Path, incoming: PathBuf, mark: SnapshotMark) -> io::Result<Self> {
        let opened = SnapshotFolder::open(disk.clone(), folder).map_err(failed)?;
        disk.create_dir_all(&incoming)?;
        for name in disk.list(&incoming)? {
            disk.remove_file(&incoming.join(name))?;
        }
        Ok(Self { disk, folder: opened, incoming, transfers: AtomicU64::new(0), mark, newest: Mutex::new(None) })
    }

    /// Loads the file that [`Snapshots::verify_newest`] found.
    pub(crate) fn load_newest(&self) -> io::Result<Option<(Standing, State)>> {
        let Some((_, file)) = self.newest() else { return Ok(None) };
        let (label, state) = self.load(&file.path)?;
        Ok(Some((label.standing, state)))
    }

    /// Verifies the newest file that is whole, without loading it.
    pub(crate) fn verify_newest(&self) -> io::Result<Option<Standing>> {
        let (newest, damaged) = self.folder.newest_valid().map_err(failed)?;
        for error in damaged {
            tracing::error!(error = %chain(&error), "a snapshot file is damaged; the one before it is tried");
        }
        let Some(info) = newest else { return Ok(None) };
        let label = Label::decode(info.meta).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.remember(&label.standing, &info.path)?;
        Ok(Some(label.standing))
    }

    /// Writes the state as a file. Durable on return; of older files one is kept.
    pub(crate) fn write(&self, standing: &Standing, state: &State) -> io::Result<(SnapshotMeta, SnapshotFile)> {
        // An equal one is as good; openraft never goes below the newest.
        if let Some(newest) = self.newest().filter(|(meta, _)| meta.last_log_id >= standing.applied) {
            return Ok(newest);
        }
        let order = order_of(standing);
        let mut writer = self.folder.create(order, &Label::of(standing, state).encode()).map_err(failed)?;
        for (key, value) in state.records() {
            writer.put(key.as_bytes(), &value).map_err(failed)?;
        }
        let info = writer.finish().map_err(failed)?;
        let newest = self.remember(standing, &info.path)?;
        self.folder.keep_newest(2).map_err(failed)?;
        metrics::gauge!("cinnabar_consensus_snapshot_bytes").set(info.bytes as f64);
        tracing::info!(index = standing.applied.map(|id| id.index), records = info.records, bytes = info.bytes, "wrote a snapshot file");
        Ok(newest)
    }

    fn remember(&self, standing: &Standing, path: &Path) -> io::Result<(SnapshotMeta, SnapshotFile)> {
        let newest = (meta_of(standing), self.opened(path)?);
        *lock(&self.newest) = Some(newest.clone());
        if let Some(id) = standing.applied {
            self.mark.raise(id.index);
        }
        Ok(newest)
    }

    fn opened(&self, path: &Path) -> io::Result<SnapshotFile> {
        let file = self.disk.open(path, OpenMode::Read)?;
        Ok(SnapshotFile { path: path.to_owned(), bytes: file.len()?, file: file.into() })
    }

    /// The newest durable file.
    pub(crate) fn newest(&self) -> Option<(SnapshotMeta, SnapshotFile)> {
        lock(&self.newest).clone()
    }

    /// Loads a file that openraft hands back to be installed, and makes it this voter's own. Durable on return.
    pub(crate) fn install(&self, file: &SnapshotFile) -> io::Result<(Standing, State)> {
        let (label, state) = self.load(&file.path)?;
        self.write(&label.standing, &state)?;
        if file.path.starts_with(&self.incoming) {
            self.disk.remove_file(&file.path)?;
        }
        Ok((label.standing, state))
    }

    /// A part of a file, to be sent.
    pub(crate) fn read(&self, file: &SnapshotFile, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; bytes];
        file.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }

    /// A file to receive into.
    pub(crate) fn incoming(&self) -> Incoming {
        let number = self.transfers.fetch_add(1, Ordering::Relaxed);
        Incoming { path: self.incoming.join(format!("transfer-{number}")), file: None, received: 0 }
    }

    /// Takes the next bytes.
    pub(crate) fn receive(&self, incoming: &mut Incoming, bytes: &[u8]) -> io::Result<()> {
        let file = match incoming.file.take() {
            Some(file) => file,
            None => self.disk.open(&incoming.path, OpenMode::CreateNew)?,
        };
        file.write_all_at(bytes, incoming.received)?;
        incoming.received += bytes.len() as u64;
        incoming.file = Some(file);
        Ok(())
    }

    /// Verifies a received file: whole, and what the leader said it was. One that is not is removed.
    pub(crate) fn finish(&self, incoming: Incoming, meta: &SnapshotMeta) -> io::Result<SnapshotFile> {
        let verified = self.verify_received(&incoming.path, meta);
        if verified.is_err() {
            self.discard(&incoming);
        }
        verified
    }

    fn verify_received(&self, path: &Path, meta: &SnapshotMeta) -> io::Result<SnapshotFile> {
        let info = SnapshotReader::open(self.disk.as_ref(), path).and_then(SnapshotReader::verify).map_err(failed)?;
        let label = Label::decode(info.meta).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if meta_of(&label.standing) != *meta {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is of another entry or membership than announced"));
        }
        self.opened(path)
    }

    /// Removes a received file, if it is still there.
    pub(crate) fn remove_received(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a file that was given up.
    pub(crate) fn discard(&self, incoming: &Incoming) {
        if incoming.file.is_some()
            && let Err(error) = self.disk.remove_file(&incoming.path)
        {
            tracing::warn!(path = %incoming.path.display(), %error, "a given-up snapshot transfer stays until the next start");
        }
    }

    /// Reads a file to its end, and checks it.
    fn load(&self, path: &Path) -> io::Result<(Label, State)> {
        let invalid = |detail: String| io::Error::new(io::ErrorKind::InvalidData, detail);
        let mut reader = SnapshotReader::open(self.disk.as_ref(), path).map_err(failed)?;
        let label = Label::decode(reader.meta().clone()).map_err(|error| invalid(error.to_string()))?;
        let mut records = Vec::new();
        while let Some(chunk) = reader.next_chunk().map_err(failed)? {
            // Copied, for a record that shared its chunk would keep all of it in memory.
            records.extend(chunk.into_iter().map(|(key, value)| (Key::from_bytes(&key), Bytes::copy_from_slice(&value))));
        }
        let state = label.check(records).map_err(invalid)?;
        Ok((label, state))
    }
}
