//! Where the follower's table lies: a folder of sled's, never the only copy.

use std::path::PathBuf;

use feed::OpenTable;
use seams::{Table, TableError};
use store::{SledOptions, open_anew, open_or_set_aside, table::Visit};

/// Opens the table in `folder`; a damaged one, and one in whose opening the process died twice, is moved to `folder.damaged-N`, for
/// whoever looks into it, and an empty one takes its place.
pub(crate) struct SledTables {
    folder: PathBuf,
    options: SledOptions,
}

impl SledTables {
    pub(crate) fn new(folder: PathBuf, cache_bytes: u64) -> Self {
        Self { folder, options: SledOptions { cache_bytes, ..SledOptions::default() } }
    }
}

impl feed::Tables for SledTables {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        // All of it is read here once: that finds the damage, and counts the live bytes by which the folder is kept small.
        let opened = open_or_set_aside(&self.folder, self.options.clone(), visit)?;
        Ok(OpenTable { table: Box::new(opened.table), damage: opened.set_aside.map(|aside| aside.cause) })
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        Ok(Box::new(open_anew(&self.folder, self.options.clone())?))
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
        let mut tables = SledTables { folder: path.clone(), options: SledOptions { cache_bytes: 1 << 20, compact_bytes_min: 1 } };
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        let mut table = open(&mut tables);
        let before = inode();
        let mut batch = TableBatch::default();
        batch.put(*b"key", *b"value");
        table.write(&batch).unwrap();
        table.flush().unwrap();
        assert_ne!(inode(), before, "the copy has taken its place");
        assert_eq!(table.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn table_in_whose_opening_the_process_died_twice_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut tables = SledTables::new(folder.path().join("table"), 1 << 20);
        let mut batch = TableBatch::default();
        batch.put(*b"key", *b"value");
        let mut table = open(&mut tables);
        table.write(&batch).unwrap();
        table.flush().unwrap();
        drop(table);
        std::fs::write(folder.path().join("table.opening"), b"xx").unwrap();
        let table = open(&mut tables);
        assert_eq!(table.get(b"key").unwrap(), None);
        assert!(folder.path().join("table.damaged-1").exists());
    }
}
