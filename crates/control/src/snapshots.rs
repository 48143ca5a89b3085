//! Snapshots for people: the complete state in one sealed file, to be kept elsewhere and restored from.
//!
//! [`Draft`] makes an archive of a state, [`ArchiveReader`] walks through one, [`check`] verifies one without any key, and
//! [`open`] with one. A control node makes archives on request (`Snapshots.Save`) and by its schedule (`[snapshots]`); restoring
//! is offline work of the binary.
//!
//! # The file
//! `*.cbsnap`. Numbers are big-endian, CRC means CRC32C.
//! ```text
//! beginning
//! 0      8    "CBARCHIV"
//! 8      4    format, 1
//! 12     4    length n of the header, at most 1 MiB
//! 16     4    CRC of bytes 0 to 15 (here in every later format too)
//! 20     n    header, below
//! 20+n   4    version of the signer set
//! 24+n   64   Ed25519 signature of the node that saved, over cluster, chain, position, chain hash, state root and the
//!             SHA-256 of bytes 0 to 19+n
//! 88+n   4    CRC of bytes 20 to 87+n
//!
//! header
//! 0      16   archive id, random
//! 16     16   cluster
//! 32     8    saved at, ms since 1970, by the clock of the node that saved
//! 40     4    chain
//! 44     4    generation
//! 48     8    revision
//! 56     32   chain hash
//! 88     32   state root
//! 120    8    last applied entry of the log
//! 128    8    log time, ms
//! 136    4    feature level
//! 140    8    count of records
//! 148    8    bytes of their keys and values
//! 156    32   SHA-256 over all records as they stand in the chunks
//! 188    8    node that saved
//! 196    1    length m of the software's name
//! 197    m    software
//! 197+m  2    count of envelopes of the archive's key, each: kind 1 (0 node, 1 recovery key), node 8, length 2, envelope
//!
//! chunk, at least one
//! 0      1    1, or 2 for the last one
//! 1      4    length of the sealed bytes
//! 5      n    sealed bytes (`seal::ArchiveSealer`), associated data: SHA-256 of bytes 0 to 19+n of the file
//! 5+n    4    CRC of bytes 0 to 4+n
//!             inside: records in rising order of their keys, each: key length 4, value length 4, key, value
//!
//! footer
//! 0      1    3
//! 1      4    count of chunks
//! 5      8    count of records
//! 13     8    length of the file before the footer
//! 21     32   SHA-256 of all bytes of the file before this field
//! ```
//!
//! **Invariants**
//! 1. Values are ciphertext before they come here; names, comments and hashes of tokens are sealed here.
//! 2. A file has its final name only when it is whole and durable.
//! 3. What [`open`] returns has the content that a control node signed; that this node is of the wanted cluster is shown by the first
//!    signer set's hash, or by the recovery key's signature over it or over the generation ([`Origin`]); or the caller says that it
//!    wants no proof.
//!
//! **Failure**: damage is named with its place ([`ArchiveError::Damaged`]); a newer format says so.

mod format;
mod read;
mod save;
mod schedule;
mod verify;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::io;

pub use format::{Header, Recipient};
pub use read::{ArchiveReader, Chunk};
pub(crate) use save::{Parts, Saves, save};
pub(crate) use schedule::{Schedule, run};
use seal::SealError;
pub use verify::{Checked, Contents, KeyEpochs, Opened, Origin, check, key_epochs, open};
pub use write::{Draft, Identity, Sink};

/// Why an archive was not written, or is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file or the other end failed.
    #[error("cannot {operation} the archive")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Not an archive at all.
    #[error("this is no snapshot archive: it does not begin as one")]
    Other,
    /// Written by a newer version than this.
    #[error("the archive has format {got}, newest known here is {known}: use the newer Cinnabar that wrote it")]
    Newer {
        /// The format found.
        got: u32,
        /// The newest one known.
        known: u32,
    },
    /// What is there is not what was written.
    #[error("the archive is damaged: {part}, from byte {offset} on, {detail}; use another copy")]
    Damaged {
        /// Which part.
        part: String,
        /// Where it begins.
        offset: u64,
        /// What was found.
        detail: &'static str,
    },
    /// No envelope is for this key.
    #[error("this key opens none of the archive's {} envelopes ({}): give the recovery key, or a control node's envelope key", recipients.len(), list(recipients))]
    NotForThisKey {
        /// For whom there are envelopes.
        recipients: Vec<Recipient>,
    },
    /// A chunk does not open, or a key could not be sealed.
    #[error("the archive's seal does not hold")]
    Seal(#[from] SealError),
    /// The records are no state.
    #[error("the archive's records are no state")]
    Load(#[from] state::LoadError),
    /// A record cannot be read.
    #[error("a record of the archive cannot be read")]
    Record(#[from] state::ReadError),
    /// The records are not those that the header speaks of.
    #[error("the archive's {what} is not the one that its header says")]
    Differs {
        /// What differs.
        what: &'static str,
    },
    /// The signature, or the chain of signer sets that leads to it.
    #[error("the archive is not signed by the cluster's control nodes")]
    Unsigned(#[source] Box<feed::Fault>),
    /// The recovery key has signed neither its first signer set nor its generation.
    #[error("nothing proves that the archive is of this recovery key's cluster: whoever has the key's public half could have made it up")]
    Origin(#[source] Box<feed::Fault>),
    /// The node may not sign.
    #[error("this node is not in the signer set yet: save at another control node")]
    NoSigner,
    /// A state before the first command.
    #[error("there is no cluster yet, so there is nothing to save")]
    Empty,
}

impl ArchiveError {
    fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}

fn list(recipients: &[Recipient]) -> String {
    recipients.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
