//! Files that hold keys, and files that begin with a check of what follows.
//!
//! ```text
//! cinnabar-check: 64 hex digits     SHA-256 of all that follows the line
//! ...                               certificates in PEM, or bytes of another format
//! ```
//!
//! A certificate in which a bit has turned is a certificate still, of an authority that nobody knows: its reader would look for the fault
//! everywhere but in its own file. PEM readers pass over the line (RFC 7468, section 2). A file without it was made by others, and is
//! believed as it is.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use types::Hash;

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

/// What the line of a checked file begins with.
const CHECK: &str = "cinnabar-check: ";

/// Writes a file as [`write_secret_file`] does, with a check before what it holds.
///
/// # Errors
/// [`SecretFileError::Io`].
pub fn write_checked_file(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let mut bytes = format!("{CHECK}{}\n", sha256(content)).into_bytes();
    bytes.extend_from_slice(content);
    write_secret_file(path, &bytes)
}

/// Reads a file, without the line of its check if it has one.
///
/// # Errors
/// Of the disk; `InvalidData` for a file that is not what was written.
pub fn read_checked_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = fs::read(path)?;
    let Some(rest) = bytes.strip_prefix(CHECK.as_bytes()) else { return Ok(bytes) };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (line, content) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    if std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()) != Some(sha256(content)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, Damaged));
    }
    let start = bytes.len() - content.len();
    Ok(bytes.split_off(start))
}

#[derive(Debug, thiserror::Error)]
#[error(
    "it is damaged: what it holds does not fit the check in its first line; put it back as it was, or let the node join anew under a new name. \
     If you changed it yourself, remove that line"
)]
struct Damaged;

fn sha256(bytes: &[u8]) -> Hash {
    Hash::from_bytes(Sha256::digest(bytes).into())
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
    fn checked_file_with_any_bit_turned_or_cut_anywhere_is_refused_or_is_what_was_written() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("ca.pem");
        write_checked_file(&path, b"what it holds\nand more").unwrap();
        assert_eq!(read_checked_file(&path).unwrap(), b"what it holds\nand more");
        let right = fs::read(&path).unwrap();
        // A turned bit in the word of the line makes it a line like any other: what follows is whole, and who reads the line knows it not.
        for bit in CHECK.len() * 8..right.len() * 8 {
            let mut bytes = right.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            match read_checked_file(&path) {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "bit {bit}"),
                // Hex digits of either case are the same hash.
                Ok(content) => assert_eq!(content, b"what it holds\nand more", "bit {bit}"),
            }
        }
        for length in CHECK.len()..right.len() {
            fs::write(&path, &right[..length]).unwrap();
            assert!(read_checked_file(&path).unwrap_err().to_string().contains("put it back as it was"), "{length} bytes");
        }
        fs::write(&path, b"without a check").unwrap();
        assert_eq!(read_checked_file(&path).unwrap(), b"without a check");
    }

    #[test]
    fn secret_file_absent_says_which() {
        let error = read_secret_file(Path::new("nowhere/key")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open nowhere/key");
    }
}
