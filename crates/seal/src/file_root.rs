//! A root key in one file: for development, and for operators whose files are guarded by other means.
//!
//! ```text
//! offset  bytes  content
//! 0       8      magic "CBN-ROOT"
//! 8       1      format: 1
//! 9       16     root key id
//! 25      32     root key
//! 57      8      checksum: the first 8 bytes of SHA-256 over bytes 0 to 56
//! ```
//!
//! **Failure**: [`FileRoot::create`] never writes over a file: a root key lost is a cluster lost. A crash within it leaves a torn
//! file, which is refused as damaged; since `create` had not returned, nothing was wrapped under it, and it may be removed.
//! The file is created with mode 0600 and refused when others may read it, as far as the [`Disk`] can tell.

use std::{
    io,
    path::{Path, PathBuf},
};

use seams::{Disk, Entropy, OpenMode};
use subtle::ConstantTimeEq;
use types::RootKeyId;
use zeroize::Zeroizing;

use crate::{KEY_BYTES, Kek, KekName, RootKey, RootProvider, SealError, Subject, WrappedKek, cipher};

const MAGIC: &[u8; 8] = b"CBN-ROOT";
const FORMAT: u8 = 1;
const ID_AT: usize = 9;
const KEY_AT: usize = 25;
const SUM_AT: usize = KEY_AT + KEY_BYTES;
const SUM_BYTES: usize = 8;
const FILE_BYTES: usize = SUM_AT + SUM_BYTES;

/// A root key read from its file. Drop it when the epochs are unwrapped: the key is in memory as long as this is.
pub struct FileRoot {
    id: RootKeyId,
    key: RootKey,
}

impl FileRoot {
    /// Makes a root key and writes it to a new file, durably.
    ///
    /// # Errors
    /// [`SealError::RootFile`]: the file exists, or the disk failed; a file that could not be written whole is removed.
    pub fn create(disk: &dyn Disk, entropy: &dyn Entropy, path: &Path) -> Result<Self, SealError> {
        let root = Self { id: RootKeyId::from_bytes(entropy.id()), key: RootKey::generate(entropy) };
        let file = disk.open(path, OpenMode::CreateNew).map_err(|source| failed("create", path, source))?;
        let written = file.write_all_at(&root.encode()[..], 0).and_then(|()| file.sync_data()).and_then(|()| disk.sync_dir(folder(path)));
        if let Err(source) = written {
            // Best effort: what remains is torn, and refused as such.
            let _ = disk.remove_file(path);
            return Err(failed("write", path, source));
        }
        Ok(root)
    }

    /// Reads a root key from its file.
    ///
    /// # Errors
    /// [`SealError::RootFile`], [`SealError::RootFileNotPrivate`], [`SealError::NewerFormat`], [`SealError::Damaged`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SealError> {
        let file = disk.open(path, OpenMode::Read).map_err(|source| failed("open", path, source))?;
        if !file.is_private().map_err(|source| failed("check the permissions of", path, source))? {
            return Err(SealError::RootFileNotPrivate { path: path.to_owned() });
        }
        let len = file.len().map_err(|source| failed("read", path, source))?;
        // Read as much as any format has in common first, so that a newer one is called by its name.
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        let have = usize::try_from(len).unwrap_or(usize::MAX).min(FILE_BYTES);
        file.read_exact_at(&mut bytes[..have], 0).map_err(|source| failed("read", path, source))?;
        Self::decode(&bytes[..have], len)
    }

    fn encode(&self) -> Zeroizing<[u8; FILE_BYTES]> {
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = FORMAT;
        bytes[ID_AT..KEY_AT].copy_from_slice(self.id.as_bytes());
        bytes[KEY_AT..SUM_AT].copy_from_slice(self.key.expose());
        let sum: [u8; SUM_BYTES] = cipher::checksum(&bytes[..SUM_AT]);
        bytes[SUM_AT..].copy_from_slice(&sum);
        bytes
    }

    fn decode(bytes: &[u8], file_len: u64) -> Result<Self, SealError> {
        let damaged = |detail| SealError::Damaged { subject: Subject::RootFile, detail };
        if file_len <= ID_AT as u64 {
            return Err(damaged("it is cut short; if its creation was interrupted, nothing was wrapped under it: remove it"));
        }
        if bytes.get(..8) != Some(MAGIC) {
            return Err(damaged("it does not begin as a root key file does"));
        }
        match bytes.get(8) {
            Some(&FORMAT) => {}
            Some(&got) if got > FORMAT => return Err(SealError::NewerFormat { subject: Subject::RootFile, got, newest: FORMAT }),
            _ => return Err(damaged("its format is none that was ever written")),
        }
        if file_len != FILE_BYTES as u64 {
            return Err(damaged(
                "it has not the length of its format; if its creation was interrupted, nothing was wrapped under it: remove it",
            ));
        }
        let sum: [u8; SUM_BYTES] = cipher::checksum(&bytes[..SUM_AT]);
        if !bool::from(sum.ct_eq(&bytes[SUM_AT..])) {
            return Err(damaged("its checksum does not match; restore it from a backup"));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[ID_AT..KEY_AT]);
        let mut key = RootKey::zeroed();
        key.expose_mut().copy_from_slice(&bytes[KEY_AT..SUM_AT]);
        Ok(Self { id: RootKeyId::from_bytes(id), key })
    }
}

impl RootProvider for FileRoot {
    fn root_key_id(&self) -> RootKeyId {
        self.id
    }

    fn wrap_kek(&self, entropy: &dyn Entropy, name: &KekName<'_>, kek: &Kek) -> Result<WrappedKek, SealError> {
        self.key.wrap_kek(entropy, self.id, name, kek)
    }

    fn unwrap_kek(&self, name: &KekName<'_>, wrapped: &WrappedKek) -> Result<Kek, SealError> {
        self.key.unwrap_kek(self.id, name, wrapped)
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> SealError {
    SealError::RootFile { operation, path: PathBuf::from(path), source }
}

/// The folder whose entry the file's name is.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
