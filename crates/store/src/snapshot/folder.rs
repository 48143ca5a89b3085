//! A folder of snapshot files.

use std::{path::PathBuf, sync::Arc};

use seams::Disk;

use super::{SnapshotError, SnapshotInfo, SnapshotReader, SnapshotWriter};

pub(super) fn name(order: u128) -> String {
    format!("{order:032x}.snap")
}

/// A folder of snapshot files; clones share it. All calls block. One process, and one writer per order at a time.
#[derive(Clone)]
pub struct SnapshotFolder {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl SnapshotFolder {
    /// Creates the folder if missing and removes what an interrupted writer left.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn open(disk: Arc<dyn Disk>, folder: impl Into<PathBuf>) -> Result<Self, SnapshotError> {
        let folder = folder.into();
        disk.create_dir_all(&folder).map_err(SnapshotError::io("create", &folder))?;
        for name in disk.list(&folder).map_err(SnapshotError::io("list", &folder))? {
            if name.ends_with(".new") {
                let path = folder.join(name);
                disk.remove_file(&path).map_err(SnapshotError::io("remove", &path))?;
            }
        }
        if let Some(parent) = folder.parent() {
            disk.sync_dir(parent).map_err(SnapshotError::io("sync", parent))?;
        }
        // A process may have died before it synced the name of a file, for which a log may be cut from now on.
        disk.sync_dir(&folder).map_err(SnapshotError::io("sync", &folder))?;
        Ok(Self { disk, folder })
    }

    /// Starts a file. `order` names it; `meta` (at most 1 MiB) stands in its header.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`], [`SnapshotError::Full`], [`SnapshotError::Io`].
    pub fn create(&self, order: u128, meta: &[u8]) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create(self.disk.clone(), &self.folder, order, meta)
    }

    /// The orders of the files present, newest first; not verified.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn orders(&self) -> Result<Vec<u128>, SnapshotError> {
        let names = self.disk.list(&self.folder).map_err(SnapshotError::io("list", &self.folder))?;
        let order = |found: &String| found.strip_suffix(".snap").and_then(|digits| u128::from_str_radix(digits, 16).ok());
        let mut orders: Vec<u128> = names.iter().filter_map(order).filter(|order| names.contains(&name(*order))).collect();
        orders.sort_unstable_by(|a, b| b.cmp(a));
        orders.dedup();
        Ok(orders)
    }

    /// The path of a file.
    pub fn path(&self, order: u128) -> PathBuf {
        self.folder.join(name(order))
    }

    /// Opens a file to read its records.
    ///
    /// # Errors
    /// As of [`SnapshotReader::open`].
    pub fn read(&self, order: u128) -> Result<SnapshotReader, SnapshotError> {
        SnapshotReader::open(&*self.disk, &self.path(order))
    }

    /// Reads all of the newest file, and of those before it until one is whole; returns that one, and what was wrong with those
    /// passed over.
    ///
    /// # Errors
    /// [`SnapshotError::Newer`], so that a downgrade does not go back in time unnoticed; [`SnapshotError::Io`] of the folder.
    pub fn newest_valid(&self) -> Result<(Option<SnapshotInfo>, Vec<SnapshotError>), SnapshotError> {
        let mut passed_over = Vec::new();
        for order in self.orders()? {
            let verified = self.read(order).and_then(SnapshotReader::verify);
            match verified {
                Ok(info) if info.order == order => return Ok((Some(info), passed_over)),
                Ok(info) => passed_over.push(SnapshotError::Damaged { file: info.path, offset: 16, detail: "its name is that of another" }),
                Err(error @ SnapshotError::Newer { .. }) => return Err(error),
                Err(error) => passed_over.push(error),
            }
        }
        Ok((None, passed_over))
    }

    /// Removes all but the newest `keep` files, valid or not: call it when the newest was just written, and keep two.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn keep_newest(&self, keep: usize) -> Result<(), SnapshotError> {
        let old: Vec<u128> = self.orders()?.into_iter().skip(keep).collect();
        for order in &old {
            let path = self.path(*order);
            self.disk.remove_file(&path).map_err(SnapshotError::io("remove", &path))?;
        }
        if old.is_empty() {
            return Ok(());
        }
        self.disk.sync_dir(&self.folder).map_err(SnapshotError::io("sync", &self.folder))
    }
}
