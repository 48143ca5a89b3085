//! A table over sled 0.34, which is not trusted: each record carries its own checksum, and errors and panics are caught.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::Bound,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use seams::{Table, TableBatch, TableError, TableRead};

use super::{check_sizes, failed};

const FORMAT: u8 = 1;
const PREFIX_BYTES: usize = 5;

/// When the folder takes more than this many times its live data, it is copied into a fresh one: sled's steady state is 3 to 4.
const COMPACT_FACTOR: u64 = 4;

/// How many records of a batch are written for each time that the collector is asked to free what they replaced.
const RECORDS_A_COLLECTION: usize = 64;

/// Frees what sled has replaced while it wrote `records` records, the nodes of its tree above all: each write makes a new one of the whole
/// node. They go to a collector (epochs), which frees some 500 things at a time, and that once in 128 accesses: a batch is one access.
/// Left alone, large batches leave garbage that nobody frees until others come, and a table of 300,000 records that were
/// written 6,000 at a time held a gigabyte.
fn free_replaced(records: usize) {
    // The first ones move the epoch on, so that what was replaced last can go too.
    for _ in 0..records / RECORDS_A_COLLECTION + 3 {
        crossbeam_epoch::pin().flush();
    }
}

/// How a sled table is opened.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// sled's page cache. Its memory comes on top of the state's own: reads on the hot path do not come here.
    pub cache_bytes: u64,
    /// Below this size on disk the folder is never copied to save space.
    pub compact_bytes_min: u64,
    /// How many bytes of records a flush copies at least while that goes on.
    pub copy_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, compact_bytes_min: 64 << 20, copy_bytes: 4 << 20 }
    }
}

/// Runs what calls into sled; its errors and panics become a [`TableError`]. A panic's message is not kept: it may quote records.
fn guarded<T>(operation: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, TableError> {
    match seams::contained(call) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Corruption { at, .. })) => {
            Err(TableError::Damaged { operation, detail: format!("sled reports corruption at {at:?}") })
        }
        Ok(Err(error)) => Err(TableError::Failed { operation, source: Box::new(error) }),
        Err(_) => Err(failed(operation, "sled panicked")),
    }
}

fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> TableError {
    move |error| TableError::Failed { operation, source: Box::new(error) }
}

pub(crate) fn crc(key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&(key.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// A value as it is stored under `key`.
pub fn encode_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(PREFIX_BYTES + value.len());
    stored.push(FORMAT);
    stored.extend_from_slice(&crc(key, value).to_le_bytes());
    stored.extend_from_slice(value);
    stored
}

/// The value of what is stored under `key`; `operation` is told in errors.
///
/// # Errors
/// [`TableError::Damaged`]: it is too short, of another format, or fails its checksum.
pub fn decode_record<'a>(operation: &'static str, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], TableError> {
    let damaged = |detail: String| TableError::Damaged { operation, detail };
    let Some((prefix, value)) = stored.split_at_checked(PREFIX_BYTES) else {
        return Err(damaged(format!("a record of {} bytes is shorter than its checksum", stored.len())));
    };
    if prefix[0] != FORMAT {
        return Err(damaged(format!("a record has format {}, known is {FORMAT}", prefix[0])));
    }
    if prefix[1..] != crc(key, value).to_le_bytes() {
        return Err(damaged("a record fails its checksum".into()));
    }
    Ok(value)
}

/// The open database; none while it is swapped for a compact copy, or after that failed.
type Shared = Arc<RwLock<Option<sled::Db>>>;

fn with<T>(shared: &Shared, operation: &'static str, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, TableError> {
    let db = shared.read().unwrap_or_else(PoisonError::into_inner);
    match &*db {
        Some(db) => guarded(operation, || call(db)),
        None => Err(failed(operation, "the table is closed")),
    }
}

fn read(shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
    let stored = with(shared, "get", |db| db.get(key))?;
    stored.map(|stored| decode_record("get", key, &stored).map(<[u8]>::to_vec)).transpose()
}

/// A table over sled. One process, one writer.
pub struct SledTable {
    folder: PathBuf,
    options: SledOptions,
    db: Shared,
    /// sled's data file: its own flush leaves the disk's cache and the file's length alone.
    file: File,
    /// Bytes of live records when a scan last counted them; none before the first.
    live_bytes: Option<u64>,
    /// No copy is made below this size: the last one could not get further down.
    compact_above: u64,
    copying: Option<Copying>,
}

/// A copy of the table into a fresh folder, to save space. Each flush copies a slice of it, because who applies waits for the table when it
/// is too far behind: made at once, the copy of half a gigabyte held all voters up for longer than a write may take.
///
/// **Invariant**: up to `after`, the copy holds what the table does: each batch is written to both. What lies behind is copied later, as it
/// is then.
struct Copying {
    copy: Box<SledTable>,
    /// The last key that was copied.
    after: Option<sled::IVec>,
    /// How many bytes a slice has.
    slice: u64,
    /// The size on disk when it began.
    before: u64,
}

/// A copy is done after at most so many flushes, and what came meanwhile.
const COPY_SLICES: u64 = 128;

impl Copying {
    /// Copies the next slice; whether that was the last.
    fn slice(&mut self, table: &Shared) -> Result<bool, TableError> {
        /// As much as one batch of the copy holds.
        const BATCH_BYTES: u64 = 1 << 20;
        let from = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut records = with(table, "copy", |db| Ok(db.range::<&[u8], _>((from, Bound::Unbounded))))?;
        let mut copied = 0;
        loop {
            let (mut batch, mut bytes, mut count) = (sled::Batch::default(), 0, 0);
            let mut last = None;
            while bytes < BATCH_BYTES.min(self.slice)
                && let Some((key, stored)) = guarded("copy", || records.next().transpose())?
            {
                bytes += live_bytes_of(&key, decode_record("copy", &key, &stored)?);
                count += 1;
                batch.insert(key.clone(), stored);
                last = Some(key);
            }
            let Some(last) = last else {
                // What was written to both since the last slice is durable in the table already.
                self.copy.sync()?;
                return Ok(true);
            };
            self.copy.apply(batch, count)?;
            self.copy.sync()?;
            self.after = Some(last);
            copied += bytes;
            if copied >= self.slice {
                return Ok(false);
            }
        }
    }
}

/// Reads beside the writer; clones share the table. Blocks, also while the table is being swapped for a compact copy.
#[derive(Clone)]
struct SledReader(Shared);

impl TableRead for SledReader {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        read(&self.0, key)
    }
}

impl SledTable {
    /// Opens or creates the table. A compaction that was interrupted is undone.
    ///
    /// # Errors
    /// [`TableError`], also when another process holds the folder.
    pub fn open(folder: &Path, options: SledOptions) -> Result<Self, TableError> {
        recover_swap(folder)?;
        if is_held(folder)? {
            return Err(failed("open", format!("another process holds {}", folder.display())));
        }
        let (db, file) = open_db(folder, &options)?;
        let compact_above = options.compact_bytes_min;
        let db = Arc::new(RwLock::new(Some(db)));
        Ok(Self { folder: folder.to_owned(), options, db, file, live_bytes: None, compact_above, copying: None })
    }

    /// Tells how many bytes of records the table holds; from then on the table keeps its size on disk in bounds.
    pub(super) const fn set_live_bytes(&mut self, bytes: u64) {
        self.live_bytes = Some(bytes);
    }

    /// Begins to copy the records into a fresh folder when the disk holds more than four times the live data. What is live is
    /// counted only when the last count would say so: keeping the count would cost a read for each write, and data that grows makes
    /// the counts ever rarer.
    fn copy_if_due(&mut self) -> Result<(), TableError> {
        let Some(counted) = self.live_bytes else { return Ok(()) };
        let disk = self.disk_bytes();
        let due = |live: u64| disk > self.compact_above.max(live.saturating_mul(COMPACT_FACTOR));
        if !due(counted) {
            return Ok(());
        }
        let mut live = 0;
        self.scan(&mut |key, value| {
            live += live_bytes_of(key, value);
            Ok(())
        })?;
        let due = due(live);
        self.live_bytes = Some(live);
        if due { self.begin_copy() } else { Ok(()) }
    }

    fn begin_copy(&mut self) -> Result<(), TableError> {
        let (before, fresh) = (self.disk_bytes(), beside(&self.folder, "compact"));
        let slice = self.options.copy_bytes.max(self.live_bytes.unwrap_or(0) / COPY_SLICES);
        let options = SledOptions { compact_bytes_min: u64::MAX, ..self.options.clone() };
        match remove_folder(&fresh).and_then(|()| Self::open(&fresh, options)) {
            Ok(copy) => self.go_on(Copying { copy: Box::new(copy), after: None, slice, before }),
            Err(error) => self.give_copy_up(before, &error),
        }
    }

    /// Copies a slice, and swaps the two when that was the last.
    fn go_on(&mut self, mut copying: Copying) -> Result<(), TableError> {
        match copying.slice(&self.db) {
            Ok(true) => self.swap(copying),
            Ok(false) => {
                self.copying = Some(copying);
                Ok(())
            }
            Err(error) => {
                let before = copying.before;
                drop(copying);
                self.give_copy_up(before, &error)
            }
        }
    }

    /// A copy that fails (a full disk) leaves everything as it was.
    fn give_copy_up(&mut self, before: u64, error: &TableError) -> Result<(), TableError> {
        tracing::warn!(error = error as &dyn std::error::Error, "cannot copy the table to save space");
        self.compact_above = before.saturating_mul(2);
        let fresh = beside(&self.folder, "compact");
        wait_until_free(&fresh)?;
        remove_folder(&fresh)
    }

    /// Copies the records into a fresh folder and swaps the two, all at once.
    ///
    /// # Errors
    /// [`TableError`] when the swap itself fails: then the table is done with.
    pub fn compact(&mut self) -> Result<(), TableError> {
        if self.copying.is_none() {
            self.begin_copy()?;
        }
        while let Some(copying) = self.copying.take() {
            self.go_on(copying)?;
        }
        Ok(())
    }

    /// Puts a finished copy in the place of the table.
    ///
    /// # Errors
    /// [`TableError`]; then the table is done with.
    fn swap(&mut self, copying: Copying) -> Result<(), TableError> {
        let fresh = copying.copy.folder.clone();
        let before = copying.before;
        drop(copying);
        File::open(&fresh).and_then(|folder| folder.sync_all()).map_err(io("sync"))?;
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = slot.take() {
            guarded("close", move || {
                drop(db);
                Ok(())
            })?;
        }
        wait_until_free(&self.folder)?;
        wait_until_free(&fresh)?;
        let old = beside(&self.folder, "old");
        std::fs::rename(&self.folder, &old).map_err(io("swap"))?;
        std::fs::rename(&fresh, &self.folder).map_err(io("swap"))?;
        sync_parent(&self.folder)?;
        let (db, file) = open_db(&self.folder, &self.options)?;
        *slot = Some(db);
        drop(slot);
        self.file = file;
        remove_folder(&old)?;
        let after = self.disk_bytes();
        self.compact_above = self.options.compact_bytes_min.max(after.saturating_mul(2));
        tracing::info!(before, after, "copied the table to save space");
        Ok(())
    }

    fn apply(&self, batch: sled::Batch, records: usize) -> Result<(), TableError> {
        with(&self.db, "write", |db| {
            db.apply_batch(batch)?;
            free_replaced(records);
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), TableError> {
        with(&self.db, "flush", |db| db.flush())?;
        self.file.sync_data().map_err(io("sync"))
    }
}

/// What a record adds to the live bytes.
pub(super) const fn live_bytes_of(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + PREFIX_BYTES + value.len()) as u64
}

impl Table for SledTable {
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        let mut records = with(&self.db, "scan", |db| Ok(db.iter()))?;
        while let Some((key, stored)) = guarded("scan", || records.next().transpose())? {
            visit(&key, decode_record("scan", &key, &stored)?)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        read(&self.db, key)
    }

    fn reader(&self) -> Arc<dyn TableRead> {
        Arc::new(SledReader(self.db.clone()))
    }

    fn write(&mut self, batch: &TableBatch) -> Result<(), TableError> {
        check_sizes(batch)?;
        // The last write of a key wins.
        let writes: BTreeMap<&[u8], Option<&[u8]>> = batch.writes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        let mut sled_batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => sled_batch.insert(key, encode_record(key, value)),
                None => sled_batch.remove(key),
            }
        }
        let count = batch.writes.len();
        match self.copying.take() {
            None => self.apply(sled_batch, count),
            Some(copying) => {
                self.apply(sled_batch.clone(), count)?;
                match copying.copy.apply(sled_batch, count) {
                    Ok(()) => self.copying = Some(copying),
                    Err(error) => {
                        let before = copying.before;
                        drop(copying);
                        self.give_copy_up(before, &error)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), TableError> {
        self.sync()?;
        match self.copying.take() {
            None => self.copy_if_due(),
            Some(copying) => self.go_on(copying),
        }
    }

    fn disk_bytes(&self) -> u64 {
        with(&self.db, "measure", |db| db.size_on_disk()).unwrap_or(0)
    }
}

impl Drop for SledTable {
    fn drop(&mut self) {
        // The last handle to a database flushes it, which may fail or panic as everything else.
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        let _ = guarded("close", move || {
            drop(db);
            Ok(())
        });
    }
}

fn open_db(folder: &Path, options: &SledOptions) -> Result<(sled::Db, File), TableError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io("create"))?;
    let config = sled::Config::new().path(folder).cache_capacity(options.cache_bytes).use_compression(false).flush_every_ms(None);
    let db = guarded("open", || config.open())?;
    let file = File::open(folder.join("db")).map_err(io("open"))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync"))?;
    sync_parent(folder)?;
    Ok((db, file))
}

/// `name.suffix` in the same folder.
pub(super) fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    folder.with_file_name(name)
}

/// Makes the name of a folder durable.
pub(super) fn sync_parent(folder: &Path) -> Result<(), TableError> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(io("sync"))
}

pub(super) fn remove_folder(folder: &Path) -> Result<(), TableError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove")(error)),
        _ => Ok(()),
    }
}

/// A crash between the two renames of a swap leaves the old folder beside; any other crash leaves copies that nobody needs.
fn recover_swap(folder: &Path) -> Result<(), TableError> {
    let old = beside(folder, "old");
    if !folder.exists() && old.exists() {
        std::fs::rename(&old, folder).map_err(io("undo a swap"))?;
        sync_parent(folder)?;
    }
    remove_folder(&old)?;
    remove_folder(&beside(folder, "compact"))
}

/// Whether a process, this one included, has the database open: sled holds a lock on its file.
pub(super) fn is_held(folder: &Path) -> Result<bool, TableError> {
    match File::open(folder.join("db")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("open")(error)),
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(std::fs::TryLockError::WouldBlock) => Ok(true),
            Err(std::fs::TryLockError::Error(error)) => Err(io("lock")(error)),
        },
    }
}

/// sled lets go of its file a moment after the last handle is dropped.
pub(super) fn wait_until_free(folder: &Path) -> Result<(), TableError> {
    for _ in 0..500 {
        if !is_held(folder)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(failed("close", format!("sled still holds {}", folder.display())))
}
