//! Files that hold keys.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::disk::FILE_MODE;

/// The largest file that is read as a key or certificate: far above any chain, far below what would hurt.
const SECRET_FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a key file was not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read or written.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others than its owner can read or write it.
    #[error("{path} has mode {mode:04o}: others can read it; run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Too long to be a key.
    #[error("{path} has {got} bytes; a key file has at most {SECRET_FILE_BYTES_MAX}")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        got: u64,
    },
}

/// Reads a file that only its owner may read. The mode is that of the opened file, so it cannot change in between.
///
/// # Errors
/// [`SecretFileError`] when it cannot be read, is open to others, or is longer than 1 MiB.
pub fn read_secret_file(path: &Path) -> Result<Vec<u8>, SecretFileError> {
    let failed = |operation| move |source| SecretFileError::Io { operation, path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed("open"))?;
    let metadata = file.metadata().map_err(failed("read"))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretFileError::Mode { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    if metadata.len() > SECRET_FILE_BYTES_MAX {
        return Err(SecretFileError::TooLong { path: path.to_owned(), got: metadata.len() });
    }
    // The final size at once: a buffer that grows leaves copies behind.
    let mut bytes = vec![0; metadata.len() as usize];
    file.read_exact(&mut bytes).map_err(failed("read"))?;
    Ok(bytes)
}

/// Writes a file that only its owner may read, in place of an older one: beside it first, synced, then renamed.
///
/// # Errors
/// [`SecretFileError::Io`].
pub fn write_secret_file(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let failed = |operation| move |source| SecretFileError::Io { operation, path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // Left over from a crash; a file that is made anew certainly has the mode asked for.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&beside).map_err(failed("create"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&beside, path).map_err(failed("rename into"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secret_file_open_to_others_is_refused_with_the_remedy() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("key");
        write_secret_file(&path, b"one").unwrap();
        write_secret_file(&path, b"two").unwrap();
        assert_eq!(read_secret_file(&path).unwrap(), b"two");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_secret_file(&path).unwrap_err().to_string();
        assert!(error.contains("has mode 0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn secret_file_absent_says_which() {
        let error = read_secret_file(Path::new("nowhere/key")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open nowhere/key");
    }
}
