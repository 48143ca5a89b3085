//! The mark of a revoked node on its own disk, so that neither a restart nor a control plane out of reach makes it serve again.
//!
//! ```text
//! revoked   in the data folder; that it is there is what counts, its text is for people
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use seams::{Disk, OpenMode};

use crate::EdgeError;

const FILE: &str = "revoked";
const TEXT: &[u8] = b"A control node has told this edge that it is revoked. It serves nothing while this file is here.\n";

/// The mark of one data folder.
pub(crate) struct Mark {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl Mark {
    pub(crate) fn new(disk: Arc<dyn Disk>, data: &Path) -> Self {
        Self { disk, folder: data.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Whether it was set.
    ///
    /// # Errors
    /// [`EdgeError::Disk`] when that cannot be told.
    pub(crate) fn is_set(&self) -> Result<bool, EdgeError> {
        match self.disk.open(&self.path(), OpenMode::Read) {
            Ok(_) => {
                // The process that set it may have died before it was durable. It counts either way.
                let _ = self.disk.sync_dir(&self.folder);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(EdgeError::Disk { operation: "look for the mark of a revocation", path: self.path(), source }),
        }
    }

    /// Sets it, durably.
    pub(crate) fn set(&self) -> io::Result<()> {
        match self.disk.open(&self.path(), OpenMode::CreateNew) {
            Ok(file) => {
                // The name alone says it; a disk without room for the text does no harm.
                let _ = file.write_all_at(TEXT, 0).and_then(|()| file.sync_data());
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        self.disk.sync_dir(&self.folder)
    }

    /// What an operator can do.
    pub(crate) fn remedy(&self) -> String {
        format!(
            "register a new node and give it an empty data folder; if the control plane does not hold it revoked after all, remove {} and start it again",
            self.path().display()
        )
    }
}

#[cfg(test)]
mod tests {
    use seams::sim::{Loss, SimDisk, SimEntropy};

    use super::*;

    #[test]
    fn mark_survives_a_crash_and_setting_it_twice_is_fine() {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("data")).unwrap();
        let mark = Mark::new(Arc::new(disk.clone()), Path::new("data"));
        assert!(!mark.is_set().unwrap());
        mark.set().unwrap();
        mark.set().unwrap();
        disk.crash(&SimEntropy::new(1));
        assert!(mark.is_set().unwrap() && mark.remedy().contains("data/revoked"));
    }

    #[test]
    fn mark_that_is_found_is_durable() {
        let disk = SimDisk::new();
        let mark = Mark::new(Arc::new(disk.clone()), Path::new("data"));
        // A process that died here has not synced the folder.
        disk.open(Path::new("data/revoked"), OpenMode::CreateNew).unwrap();
        assert!(mark.is_set().unwrap());
        disk.crash_losing(&SimEntropy::new(1), Loss::Suffix);
        assert!(mark.is_set().unwrap());
    }
}
