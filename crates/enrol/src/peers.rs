//! The control nodes that a node knew of when it joined.
//!
//! ```text
//! peers   in the identity folder
//! a line with the check of what follows (`runtime::write_checked_file`)
//! offset  bytes  content
//! 0       1      format: 1
//! 1              postcard of a list: node, address, public key
//! ```
//!
//! It is whom the node believes before its own copy of the registry says more: an edge until its first sync, a control node until
//! it was added to the cluster.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use types::NodeId;

use crate::EnrolError;

const FORMAT: u8 = 1;

/// A control node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Where it is reached, as HOST:PORT.
    pub address: String,
    /// Its key in the registry, a DER `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
}

/// The control nodes of a cluster at some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(pub Vec<Peer>);

impl Peers {
    /// The one with this number.
    pub fn of(&self, node: NodeId) -> Option<&Peer> {
        self.0.iter().find(|peer| peer.node == node)
    }

    /// Writes them, durably.
    ///
    /// # Errors
    /// [`EnrolError::File`].
    pub fn write(&self, path: &Path) -> Result<(), EnrolError> {
        let damaged = |error: postcard::Error| EnrolError::Damaged { path: path.to_owned(), detail: error.to_string() };
        let bytes = postcard::to_extend(&self.0, vec![FORMAT]).map_err(damaged)?;
        Ok(runtime::write_checked_file(path, &bytes)?)
    }

    /// Reads them; nobody when there is no file.
    ///
    /// # Errors
    /// [`EnrolError::Io`], [`EnrolError::Damaged`].
    pub fn read(path: &Path) -> Result<Self, EnrolError> {
        match runtime::read_checked_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(EnrolError::Io { operation: "read", path: path.to_owned(), source }),
            Ok(bytes) => Self::decode(path, &bytes),
        }
    }

    /// Reads a file's bytes; `path` is for the error.
    ///
    /// # Errors
    /// [`EnrolError::Damaged`].
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self, EnrolError> {
        let damaged = |detail: String| EnrolError::Damaged { path: path.to_owned(), detail };
        match bytes.split_first() {
            Some((&FORMAT, body)) => postcard::from_bytes(body).map(Self).map_err(|error| damaged(error.to_string())),
            Some((&got, _)) => Err(damaged(format!("its format is {got}; this version knows {FORMAT}"))),
            None => Err(damaged("it is empty".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn peers_round_trip_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers");
        assert_eq!(Peers::read(&path).unwrap(), Peers::default());
        let peers = Peers(vec![Peer { node: NodeId::new(2), address: "control-2.example:7400".into(), public_key: vec![1, 2, 3] }]);
        peers.write(&path).unwrap();
        assert_eq!(Peers::read(&path).unwrap(), peers);
        assert!(peers.of(NodeId::new(2)).is_some() && peers.of(NodeId::new(1)).is_none());
        for bytes in [&b""[..], b"\x02", b"\x01\x05"] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(Peers::read(&path), Err(EnrolError::Damaged { .. })));
        }
    }
}
