//! The stored bytes of a record: in memory, or, when they are many, in a place that only knows how to find them.
//!
//! A node that is asked for little and holds much (an edge) gives its state a place for [`LargeValues`]. The map of records then holds,
//! for each sealed value above the place's bound, a [`LargeValue`]: its length and the hash of its record, by which the place finds it
//! and by which it is known again. Nothing else changes: the state root is over the same hashes, wherever the bytes lie.
//!
//! **Invariants**
//! 1. What [`LargeValue::read`] gives has the hash that the state root covers, or the read is an error: never another value.
//! 2. A [`LargeValue`] can be read for as long as it lives: its place lets go of the bytes only when the last root that names it has
//!    been dropped.
//!
//! **Left out**: disks. A place is implemented where they are known.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use types::Hash;

use crate::{Key, Keyspace, propagated::leaf};

/// Sealed values of more bytes than this are usually kept elsewhere: reading one from a disk is then little beside opening it.
pub const LARGE_VALUE_BYTES: usize = 2048;

/// What a value that lies elsewhere counts as in memory: itself, its place's entry for it, and the reference to it.
pub const LARGE_VALUE_WEIGHT: u64 = 256;

/// Where the bytes of large values lie. Calls may block for a disk, but for [`LargeValues::keep`].
pub trait LargeValues: Send + Sync {
    /// Sealed values of more bytes than this are to be kept here.
    fn bound(&self) -> usize;

    /// Takes the bytes of the record with this hash; they can be read from now on, until the last clone of the handle is gone. The same
    /// hash gives the same handle while that lives.
    fn keep(self: Arc<Self>, leaf: Hash, bytes: Bytes) -> Arc<LargeValue>;

    /// The bytes that were kept under a hash; whether they are still what was kept is for the caller to check.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn read(&self, leaf: &Hash) -> Result<Bytes, Unreadable>;

    /// What was read is not what was kept: the place is damaged.
    fn damaged(&self, leaf: &Hash);

    /// A handle has been dropped. Called once for each that [`LargeValue::new`] made.
    fn released(&self, leaf: &Hash);
}

/// Why the bytes of a large value cannot be had now. They are not lost with it: whoever holds the state rebuilds its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unreadable {
    /// What happened, without anything of the bytes.
    pub detail: String,
}

/// A value whose bytes lie elsewhere.
pub struct LargeValue {
    leaf: Hash,
    len: u32,
    place: Arc<dyn LargeValues>,
}

impl LargeValue {
    /// A handle for `len` bytes that `place` keeps: for its own use.
    pub fn new(place: Arc<dyn LargeValues>, leaf: Hash, len: u32) -> Arc<Self> {
        Arc::new(Self { leaf, len, place })
    }

    /// The hash of key and bytes: what the state root covers.
    pub const fn leaf(&self) -> Hash {
        self.leaf
    }

    /// How many bytes there are.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the bytes of the record under `key`. May block for a disk.
    ///
    /// # Errors
    /// [`Unreadable`], also when what lies there is not what was kept.
    pub fn read(&self, key: &Key) -> Result<Bytes, Unreadable> {
        let bytes = self.place.read(&self.leaf)?;
        if bytes.len() == self.len as usize && leaf(key, &bytes) == self.leaf {
            return Ok(bytes);
        }
        self.place.damaged(&self.leaf);
        Err(Unreadable { detail: "its bytes are not those that were kept: the place is damaged".to_owned() })
    }
}

impl Drop for LargeValue {
    fn drop(&mut self) {
        self.place.released(&self.leaf);
    }
}

impl fmt::Debug for LargeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LargeValue({} bytes)", self.len)
    }
}

/// Whether a record is a sealed value above `bound`.
fn is_large(key: &Key, len: usize, bound: usize) -> bool {
    len > bound && key.keyspace() == Some(Keyspace::Value)
}

/// What a record of `len` bytes under `key` counts as in memory where values above `bound` are kept elsewhere.
pub fn record_weight(key: &Key, len: usize, bound: usize) -> u64 {
    key.as_bytes().len() as u64 + if is_large(key, len, bound) { LARGE_VALUE_WEIGHT } else { len as u64 }
}

/// The stored bytes of a record, or where they are.
#[derive(Clone)]
pub enum Content {
    /// In memory.
    Inline(Bytes),
    /// Elsewhere.
    Large(Arc<LargeValue>),
}

impl Content {
    /// What the record under `key` is held as: elsewhere, if it is a sealed value above the bound of `place`.
    pub fn of(key: &Key, bytes: Bytes, place: Option<&Arc<dyn LargeValues>>) -> Self {
        match place.filter(|place| is_large(key, bytes.len(), place.bound())) {
            Some(place) => Self::Large(Arc::clone(place).keep(leaf(key, &bytes), bytes)),
            None => Self::Inline(bytes),
        }
    }

    /// The bytes. For what lies elsewhere this may block for a disk.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn bytes(&self, key: &Key) -> Result<Bytes, Unreadable> {
        match self {
            Self::Inline(bytes) => Ok(bytes.clone()),
            Self::Large(large) => large.read(key),
        }
    }

    /// The bytes if they are in memory.
    pub const fn inline(&self) -> Option<&Bytes> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::Large(_) => None,
        }
    }

    /// How many bytes the record has, wherever they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Large(large) => large.len as usize,
        }
    }

    /// Whether the record has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of memory that it counts as.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Large(_) => LARGE_VALUE_WEIGHT,
        }
    }

    /// The hash of key and bytes.
    pub(crate) fn leaf(&self, key: &Key) -> Hash {
        match self {
            Self::Inline(bytes) => leaf(key, bytes),
            Self::Large(large) => large.leaf,
        }
    }
}

/// Equal bytes, wherever they lie; what cannot be read equals nothing. May block for a disk.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inline(one), Self::Inline(other)) => one == other,
            (Self::Large(one), Self::Large(other)) => one.leaf == other.leaf,
            (Self::Inline(bytes), Self::Large(large)) | (Self::Large(large), Self::Inline(bytes)) => {
                large.place.read(&large.leaf).is_ok_and(|read| read == bytes)
            }
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Inline(bytes)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Large(large) => large.fmt(f),
        }
    }
}
