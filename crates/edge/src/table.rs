//! Where the follower's table lies: a folder of sled's, never the only copy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use seams::{Table, TableError};
use store::{SledOptions, SledTable};

/// Opens the table in `folder`; a damaged one is moved to `folder.damaged`, in place of an older one, for whoever looks into it.
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
    fn open(&mut self) -> Result<Box<dyn Table>, TableError> {
        Ok(Box::new(SledTable::open(&self.folder, self.options.clone())?))
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        set_aside(&self.folder).map_err(|source| TableError::Failed { operation: "set aside", source: Box::new(source) })?;
        self.open()
    }
}

fn set_aside(folder: &Path) -> std::io::Result<()> {
    let aside = folder.with_extension("damaged");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    if folder.exists() {
        fs::rename(folder, &aside)?;
        tracing::warn!(folder = %folder.display(), aside = %aside.display(), "the table was set aside; it is rebuilt from the log and a snapshot file");
    }
    Ok(())
}
