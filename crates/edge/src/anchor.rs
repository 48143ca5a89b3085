//! What an edge believes before it has heard anything: the first signer set of the generation that it joined in, pinned by its hash.
//!
//! The file `keys.signers` holds one of these, all made on a control node. What a node wrote of itself when it joined has the check of
//! `runtime::write_checked_file` before it.
//!
//! ```text
//! 64 hex digits                         the set's hash, as a join token carries it
//! 64 hex digits, space, 64 hex digits   the same, and the recovery key's Ed25519 public half
//! 1, then postcard                      the set's record, as state encodes it
//! ```
//!
//! Without the recovery key, the edge learns it from the first state that it has verified.

use std::path::Path;

use feed::Anchor;
use state::record::SignerSetRecord;
use types::{ClusterId, Hash};

use crate::EdgeError;

/// Reads the anchor of `cluster` from its file.
///
/// # Errors
/// [`EdgeError::Disk`], [`EdgeError::Signers`].
pub fn load_anchor(path: &Path, cluster: ClusterId) -> Result<Anchor, EdgeError> {
    let bytes = runtime::read_checked_file(path).map_err(|source| EdgeError::Disk {
        operation: "read the first signer set (keys.signers)",
        path: path.to_owned(),
        source,
    })?;
    let refused = |detail: String| EdgeError::Signers { path: path.to_owned(), detail };
    if let Some(anchor) = std::str::from_utf8(&bytes).ok().and_then(in_hex) {
        return Ok(anchor);
    }
    let set = SignerSetRecord::decode(&bytes).map_err(|error| refused(error.to_string()))?;
    Ok(Anchor::of(cluster, &set))
}

fn in_hex(text: &str) -> Option<Anchor> {
    let mut words = text.split_whitespace().map(str::parse::<Hash>);
    let first_signer_set = words.next()?.ok()?;
    let recovery = words.next().transpose().ok()?.map(|key| *key.as_bytes());
    words.next().is_none().then_some(Anchor { first_signer_set, recovery })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use state::record::MemberKey;
    use types::NodeId;

    use super::*;

    #[test]
    fn anchor_is_the_same_from_the_record_and_from_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signers");
        let cluster = ClusterId::from_bytes([1; 16]);
        let keys = vec![MemberKey { node: NodeId::new(1), key: [2; 32] }];
        let set = SignerSetRecord { version: 1, threshold: 1, keys, signatures: Vec::new() };
        fs::write(&path, set.encode()).unwrap();
        let anchor = load_anchor(&path, cluster).unwrap();
        assert_eq!(anchor, Anchor::of(cluster, &set));
        fs::write(&path, format!("{}\n", anchor.first_signer_set)).unwrap();
        assert_eq!(load_anchor(&path, cluster).unwrap(), anchor);
        let recovery = Hash::from_bytes([7; 32]);
        fs::write(&path, format!("{} {recovery}\n", anchor.first_signer_set)).unwrap();
        assert_eq!(load_anchor(&path, cluster).unwrap(), Anchor { recovery: Some([7; 32]), ..anchor });
    }

    #[test]
    fn anchor_of_no_set_is_refused_by_the_file_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signers");
        let cluster = ClusterId::from_bytes([1; 16]);
        let half = format!("{} {}", Hash::from_bytes([7; 32]), "77".repeat(31));
        for bytes in [&b""[..], b"nonsense", half.as_bytes()] {
            fs::write(&path, bytes).unwrap();
            let error = load_anchor(&path, cluster).unwrap_err().to_string();
            assert!(error.contains("keys.signers") && error.contains(path.to_str().unwrap()), "{error}");
        }
        assert!(load_anchor(&folder.path().join("absent"), cluster).is_err());
    }
}
