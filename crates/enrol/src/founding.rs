//! What `cluster init` leaves for the first start of the first control node.
//!
//! ```text
//! founding   in the data folder, mode 0600
//! offset  bytes  content
//! 0       8      magic "CBN-FND\0"
//! 8       1      format: 1
//! 9              postcard of `Founding`: cluster, operator token's hash, CA certificate, CA key, recovery keys
//! ```
//!
//! It holds the CA's private key in the clear, from `cluster init` until the log holds it sealed: the first start removes it.

use std::{fs, io, path::Path};

use runtime::{SecretFileError, read_secret_file, write_secret_file};
use serde::{Deserialize, Serialize};
use types::ClusterId;
use zeroize::{Zeroize, Zeroizing};

use crate::EnrolError;

const MAGIC: &[u8; 8] = b"CBN-FND\0";
const FORMAT: u8 = 1;

/// What a cluster is founded on, besides the root key and the node's own identity. Wiped when dropped; it has no Debug.
#[derive(Serialize, Deserialize)]
pub struct Founding {
    /// The cluster.
    pub cluster: ClusterId,
    /// The hash of the first operator's token.
    pub operator_token: [u8; 32],
    /// The CA's certificate, DER.
    pub authority_certificate: Vec<u8>,
    /// The CA's private key, PKCS#8 DER.
    pub authority_key: Vec<u8>,
    /// Whom the recovery key belongs to.
    pub recovery: RecoveryKeys,
}

/// The public halves of the offline recovery key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryKeys {
    /// Verifies what founds a new generation: Ed25519.
    pub signing: [u8; 32],
    /// To which key epochs are sealed, as crate `seal` encodes it.
    pub envelope: Vec<u8>,
    /// The recovery key's signature over the first signer set, whose one member is the founding node; empty: it has signed none.
    pub first_set: Vec<u8>,
}

impl Founding {
    /// The name of its file in the data folder.
    pub const FILE: &str = "founding";

    /// Writes it into the data folder, durably.
    ///
    /// # Errors
    /// [`EnrolError::File`].
    pub fn write(&self, data: &Path) -> Result<(), EnrolError> {
        let path = data.join(Self::FILE);
        let damaged = |error: postcard::Error| EnrolError::Damaged { path: path.clone(), detail: error.to_string() };
        let body = Zeroizing::new(postcard::to_stdvec(self).map_err(damaged)?);
        let mut bytes = Zeroizing::new(Vec::with_capacity(9 + body.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&body);
        Ok(write_secret_file(&path, &bytes)?)
    }

    /// Reads it from the data folder; none when there is none.
    ///
    /// # Errors
    /// [`EnrolError::File`] when it cannot be read or is open to others, [`EnrolError::Damaged`].
    pub fn read(data: &Path) -> Result<Option<Self>, EnrolError> {
        let path = data.join(Self::FILE);
        let bytes = match read_secret_file(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Self::decode(&path, &bytes).map(Some)
    }

    /// Reads a file's bytes, which the caller wipes; `path` is for the error.
    ///
    /// # Errors
    /// [`EnrolError::Damaged`].
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self, EnrolError> {
        let damaged = |detail: String| EnrolError::Damaged { path: path.to_owned(), detail };
        match bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first) {
            Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|error| damaged(error.to_string())),
            Some((&got, _)) if got > FORMAT => Err(damaged(format!("its format is {got}; this version knows {FORMAT}"))),
            _ => Err(damaged("it does not begin as a founding file does".to_owned())),
        }
    }

    /// Removes it from the data folder; that it is not there is no error.
    ///
    /// # Errors
    /// [`EnrolError::Io`].
    pub fn remove(data: &Path) -> Result<(), EnrolError> {
        let path = data.join(Self::FILE);
        let failed = |source| EnrolError::Io { operation: "remove", path: path.clone(), source };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => fs::File::open(data).and_then(|folder| folder.sync_all()).map_err(failed),
        }
    }
}

impl Drop for Founding {
    fn drop(&mut self) {
        self.authority_key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founding_round_trips_and_is_gone_after_remove() {
        let data = tempfile::tempdir().unwrap();
        assert!(Founding::read(data.path()).unwrap().is_none());
        let founding = Founding {
            cluster: ClusterId::from_bytes([1; 16]),
            operator_token: [2; 32],
            authority_certificate: vec![3; 300],
            authority_key: vec![4; 100],
            recovery: RecoveryKeys { signing: [5; 32], envelope: vec![6; 1218], first_set: vec![7; 64] },
        };
        founding.write(data.path()).unwrap();
        let read = Founding::read(data.path()).unwrap().unwrap();
        assert_eq!((read.cluster, read.operator_token, &read.recovery), (founding.cluster, [2; 32], &founding.recovery));
        assert_eq!((&read.authority_certificate, &read.authority_key), (&founding.authority_certificate, &founding.authority_key));
        Founding::remove(data.path()).unwrap();
        Founding::remove(data.path()).unwrap();
        assert!(Founding::read(data.path()).unwrap().is_none());
    }

    #[test]
    fn founding_damaged_or_newer_is_refused_by_the_file_name() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(Founding::FILE);
        for bytes in [&b""[..], b"nonsense", b"CBN-FND\0", b"CBN-FND\0\x01\x10\x01", b"CBN-FND\0\x02whatever"] {
            write_secret_file(&path, bytes).unwrap();
            let error = Founding::read(data.path()).err().unwrap().to_string();
            assert!(error.contains("founding is damaged"), "{error}");
        }
    }
}
