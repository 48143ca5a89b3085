//! Where the follower's table lies: a folder of sled's, and one of files for large values, never the only copy.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use feed::OpenTable;
use seams::{Disk, Table, TableError};
use store::{SledOptions, ValueFiles, open_split_anew, open_split_or_set_aside, table::Visit};

/// Opens the table in `data/table` and `data/values`; a damaged one, and one in whose opening the process died twice, is moved to
/// `data/table.damaged-N`, for whoever looks into it, and an empty one takes its place.
pub(crate) struct SledTables {
    folder: PathBuf,
    options: SledOptions,
    values: ValueFiles,
}

impl SledTables {
    pub(crate) fn new(disk: Arc<dyn Disk>, data: &Path, cache_bytes: u64) -> Self {
        Self {
            folder: data.join("table"),
            options: SledOptions { cache_bytes, ..SledOptions::default() },
            values: ValueFiles::new(disk, data.join("values"), feed::LARGE_VALUE_KEY),
        }
    }
}

impl feed::Tables for SledTables {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        // All of it is read here once: that finds the damage, and counts the live bytes by which the folder is kept small.
        let opened = open_split_or_set_aside(&self.folder, self.options.clone(), &self.values, visit)?;
        Ok(OpenTable { table: Box::new(opened.table), damage: opened.set_aside.map(|aside| aside.cause) })
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        Ok(Box::new(open_split_anew(&self.folder, self.options.clone(), &self.values)?))
    }
}

#[cfg(test)]
mod tests {
    use feed::Tables;
    use seams::TableBatch;

    use super::*;

    fn open(tables: &mut SledTables) -> Box<dyn Table> {
        tables.open(&mut |_, _| Ok(())).unwrap().table
    }

    #[test]
    fn table_of_little_in_a_large_file_is_copied_to_save_space() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let mut tables = SledTables::new(Arc::new(runtime::RealDisk), folder.path(), 1 << 20);
        tables.options.compact_bytes_min = 1;
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        let mut table = open(&mut tables);
        let before = inode();
        let mut batch = TableBatch::default();
        batch.put([1], *b"value");
        table.write(&batch).unwrap();
        table.flush().unwrap();
        assert_ne!(inode(), before, "the copy has taken its place");
        assert_eq!(table.get(&[1]).unwrap().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn table_with_a_large_value_among_its_records_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut batch = TableBatch::default();
        batch.put([feed::LARGE_VALUE_KEY, 0xab, 0xcd], *b"large");
        let mut sled = store::SledTable::open(&folder.path().join("table"), SledOptions::default()).unwrap();
        sled.write(&batch).unwrap();
        sled.flush().unwrap();
        drop(sled);
        let opened = SledTables::new(Arc::new(runtime::RealDisk), folder.path(), 1 << 20).open(&mut |_, _| Ok(())).unwrap();
        assert!(opened.damage.is_some_and(|damage| damage.to_string().contains("open")));
    }

    #[test]
    fn table_in_whose_opening_the_process_died_twice_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut tables = SledTables::new(Arc::new(runtime::RealDisk), folder.path(), 1 << 20);
        let value_key = [feed::LARGE_VALUE_KEY, 0xab, 0xcd];
        let mut batch = TableBatch::default();
        batch.put([1], *b"value");
        batch.put(value_key, *b"large");
        let mut table = open(&mut tables);
        table.write(&batch).unwrap();
        table.flush().unwrap();
        drop(table);
        assert!(folder.path().join("values/ab/abcd").exists());
        std::fs::write(folder.path().join("table.opening"), b"xx").unwrap();
        let table = open(&mut tables);
        assert_eq!((table.get(&[1]).unwrap(), table.get(&value_key).unwrap()), (None, None));
        assert!(folder.path().join("table.damaged-1/values/ab/abcd").exists());
        // As for one that failed while it was used.
        drop(table);
        let mut table = tables.reset().unwrap();
        table.write(&batch).unwrap();
        assert_eq!(table.get(&value_key).unwrap().as_deref(), Some(&b"large"[..]));
    }
}
