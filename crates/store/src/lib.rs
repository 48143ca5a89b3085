//! What lies on disks: the segment log, tables over sled and in memory, and snapshot files, with their stored formats.
//!
//! - [`log`]: the append-only log with group commit, used as the Raft log and as an edge's log of change sets.
//! - [`table`]: the ordered local copy of a state ([`SledTable`], [`MemTable`]), written behind by [`WriteBehind`].
//! - [`values`]: large values of a table in files of their own ([`SplitTable`]).
//! - [`snapshot`]: plain files of records from which a table is rebuilt.
//!
//! **Invariants**
//! 1. What was acknowledged as durable survives a crash; what is read was written, or the read is an error.
//! 2. Nothing here knows keys, plaintexts or networks: records are bytes.
//! 3. A table is never the only copy: the answer to every [`seams::TableError`] is to move it aside and rebuild.
//!
//! **Failure**: damage in a log stops its owner; damage in a table or a snapshot file is reported and worked around.

pub mod log;
pub mod snapshot;
pub mod table;
pub mod values;

pub use log::{Completion, Cut, Done, Drive, LogError, LogOptions, LogReader, LogWriter, SegmentLog, Slot, completion};
pub use snapshot::{SnapshotError, SnapshotFolder, SnapshotInfo, SnapshotReader, SnapshotWriter};
pub use table::{
    Durable, MemTable, OpenedTable, SledOptions, SledTable, WriteBehind, WriteBehindError, WriteBehindOptions, open_anew,
    open_or_set_aside, open_split_anew, open_split_or_set_aside,
};
pub use values::{SplitTable, ValueFiles};
