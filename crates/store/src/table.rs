//! Tables: the ordered local copy of a state, on disk through sled or in memory, written behind.
//!
//! [`SledTable`] and [`MemTable`] pass one contract test. [`WriteBehind`] takes batches off the hands of whoever applies them,
//! and reports how far they are durable. [`open_or_set_aside`] is how a node starts: it scans everything, and whatever is wrong
//! with the folder, it moves it aside and hands out an empty table to be rebuilt.
//!
//! # The value of a record in sled
//! ```text
//! 0   1   format, 1
//! 1   4   CRC32C of key length (4), key and value; little-endian
//! 5   n   value
//! ```
//! All records lie in sled's default tree, under the caller's keys.
//!
//! **Invariants**
//! 1. A batch is visible, and after a crash there, as a whole or not at all; batches survive in the order of writing.
//! 2. What [`seams::Table::flush`] covered survives power loss: sled's flush is followed by our own fdatasync on its file.
//! 3. A record that is read is one that was written under that key, or the read is an error.
//!
//! **Failure**: sled's errors and panics are caught and returned; after one, the table is done with and rebuilt elsewhere. In a
//! binary built with `panic = "abort"` a panic in sled ends the process instead: therefore a folder whose opening did not end
//! twice in a row is moved aside too.
//!
//! **Left out**: transactions across tables, and reading old batches: a table knows only now.

mod behind;
mod memory;
mod open;
mod sled;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use behind::{Durable, WriteBehind, WriteBehindError, WriteBehindOptions};
pub use memory::MemTable;
pub use open::{OpenedTable, SetAside, Visit, open_anew, open_or_set_aside, open_split_anew, open_split_or_set_aside};
use seams::{TableBatch, TableError};

pub(crate) use self::sled::crc;
pub use self::sled::{SledOptions, SledTable, decode_record, encode_record};

/// The longest key.
pub const KEY_BYTES_MAX: usize = 1024;

/// The longest value. sled keeps what is larger than 128 KiB in files of their own, which it never syncs.
pub const VALUE_BYTES_MAX: usize = 100 << 10;

/// A failure that is described in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(Cow<'static, str>);

pub(crate) fn failed(operation: &'static str, reason: impl Into<Cow<'static, str>>) -> TableError {
    TableError::Failed { operation, source: Box::new(Reason(reason.into())) }
}

/// Refuses a batch with a record that a table cannot hold, before any of it is applied.
pub(crate) fn check_sizes(batch: &TableBatch) -> Result<(), TableError> {
    for (key, value) in &batch.writes {
        if key.len() > KEY_BYTES_MAX {
            return Err(failed("write", format!("a key of {} bytes, at most {KEY_BYTES_MAX}", key.len())));
        }
        if let Some(value) = value.as_ref().filter(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(failed("write", format!("a value of {} bytes, at most {VALUE_BYTES_MAX}", value.len())));
        }
    }
    Ok(())
}
