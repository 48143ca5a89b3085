//! Why something was not wrapped, unwrapped, sealed or opened.

use std::{fmt, io, path::PathBuf};

use types::{DekId, KekEpoch, KeyDomain, RootKeyId, ValueId};

/// What an error is about, by the ids that a log may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A sealed value.
    Value(ValueId),
    /// A wrapped data key.
    Dek(DekId),
    /// A KEK epoch wrapped under a root key.
    Kek(KeyDomain, KekEpoch),
    /// A KEK epoch in an envelope to a node or to the recovery key.
    Envelope(KeyDomain, KekEpoch),
    /// The key of the cluster's certificate authority, in its envelope.
    AuthorityKey,
    /// A node's key file.
    NodeKeyFile,
    /// A node's public key.
    NodePublicKey,
    /// A root key file.
    RootFile,
    /// The key of a snapshot archive, in an envelope to a node or to the recovery key.
    ArchiveKey,
    /// A chunk of a snapshot archive, by its number.
    ArchiveChunk(u32),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(id) => write!(f, "value {id}"),
            Self::Dek(id) => write!(f, "wrapped data key {id}"),
            Self::Kek(domain, epoch) => write!(f, "wrapped KEK epoch {epoch} of key domain {domain}"),
            Self::Envelope(domain, epoch) => write!(f, "envelope of KEK epoch {epoch} of key domain {domain}"),
            Self::AuthorityKey => f.write_str("envelope of the certificate authority's key"),
            Self::NodeKeyFile => f.write_str("node key file"),
            Self::NodePublicKey => f.write_str("node public key"),
            Self::RootFile => f.write_str("root key file"),
            Self::ArchiveKey => f.write_str("key of the archive"),
            Self::ArchiveChunk(number) => write!(f, "chunk {number} of the archive"),
        }
    }
}

/// All that can fail in this crate. No message holds a byte of a key, a token or a plaintext.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The ring does not hold the epoch: the process is locked, the envelope has not arrived, or the epoch was destroyed.
    #[error("KEK epoch {epoch} of key domain {domain} is not available on this node; unlock it, or wait for its envelope")]
    KeyUnavailable {
        /// The key domain.
        domain: KeyDomain,
        /// The epoch in it.
        epoch: KekEpoch,
    },
    /// The bytes are not what was sealed, or the place they were found in is not the one they were sealed for.
    #[error("{subject} does not authenticate: it was changed, moved, or made under another key")]
    NotAuthentic {
        /// What was to be opened.
        subject: Subject,
    },
    /// A key is not the one that the chain announced for its epoch.
    #[error("the key offered for KEK epoch {epoch} of key domain {domain} does not match the commitment in the chain; it was refused")]
    CommitmentMismatch {
        /// The key domain.
        domain: KeyDomain,
        /// The epoch in it.
        epoch: KekEpoch,
    },
    /// The ring holds as many epochs as it may.
    #[error("the key ring holds {max} KEK epochs already; destroy retired epochs before adding one")]
    TooManyEpochs {
        /// The bound.
        max: usize,
    },
    /// A plaintext above the limit.
    #[error("a value of {got} bytes; at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        got: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A format that this version does not know.
    #[error("{subject} has format {got}, newest known is {newest}; a newer Cinnabar wrote it")]
    NewerFormat {
        /// What has the format.
        subject: Subject,
        /// The format found.
        got: u8,
        /// The newest that this version knows.
        newest: u8,
    },
    /// Algorithms that this version does not know.
    #[error("{subject} uses the algorithm {got:#06x} where only {known:#06x} is known; a newer Cinnabar made it")]
    UnknownAlgorithm {
        /// What names the algorithm.
        subject: Subject,
        /// The identifier found (IANA's HPKE registries).
        got: u16,
        /// The one that this version knows.
        known: u16,
    },
    /// Bytes that no version wrote.
    #[error("{subject} is damaged: {detail}")]
    Damaged {
        /// What is damaged.
        subject: Subject,
        /// How it shows; never content.
        detail: &'static str,
    },
    /// A wrap made by another root key.
    #[error("{subject} was wrapped by root key {wrapped_by}, this provider holds {held}; unlock with the other one")]
    OtherRoot {
        /// What was to be unwrapped.
        subject: Subject,
        /// The root key it names.
        wrapped_by: RootKeyId,
        /// The root key of the provider that was asked.
        held: RootKeyId,
    },
    /// The root key file could not be read or written.
    #[error("cannot {operation} the root key file {}", path.display())]
    RootFile {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read the root key file.
    #[error("the root key file {} can be read by others than its owner: chmod 600 it, and rotate the root key if others had access", path.display())]
    RootFileNotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// A root provider's device failed.
    #[error("the root provider failed to {operation}")]
    RootDevice {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text that does not start as the wanted kind of token does.
    #[error("not {what}: it should start with {prefix}")]
    TokenPrefix {
        /// The kind of token.
        what: &'static str,
        /// How one starts.
        prefix: &'static str,
    },
    /// A token of the wrong length: cut or doubled in copying.
    #[error("not {what}: it has {got} characters where {wanted} are wanted; it may have been cut when it was copied")]
    TokenLength {
        /// The kind of token.
        what: &'static str,
        /// The length found, in bytes.
        got: usize,
        /// The length of every such token.
        wanted: usize,
    },
    /// A character that no token has.
    #[error("not {what}: the character at place {place} is none of a-z and 2-7")]
    TokenCharacter {
        /// The kind of token.
        what: &'static str,
        /// The place, counted from 1 in bytes.
        place: usize,
    },
    /// A mistyped token.
    #[error("not {what}: its checksum does not match; it was mistyped or changed")]
    TokenChecksum {
        /// The kind of token.
        what: &'static str,
    },
    /// A cipher refused lengths that this crate has already checked: a defect, not an input's fault.
    #[error("the cipher refused to {operation}: this is a defect of Cinnabar, please report it")]
    Defect {
        /// What was being done.
        operation: &'static str,
    },
}
