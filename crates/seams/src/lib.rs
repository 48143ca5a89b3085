//! The seams between what Cinnabar decides and the world: clock, randomness, tasks, disk, table and transport as traits.
//!
//! Consensus glue, log, state, feed and sync are written against these traits, so the same code runs in production on
//! tokio, sockets, files and sled (`runtime`, `store`), and in one thread under a seed ([`sim`], behind the feature `sim`).
//!
//! **Invariants**
//! 1. Nothing here touches the real world: the implementations that do live in `runtime` and `store`.
//! 2. A simulated implementation is a function of its seed and of the calls made to it.

mod clock;
mod contained;
mod disk;
mod entropy;
mod table;
mod transport;

#[cfg(feature = "sim")]
pub mod sim;

pub use clock::{Clock, Spawn};
pub use contained::{contained, is_contained};
pub use disk::{Disk, DiskFile, OpenMode};
pub use entropy::Entropy;
pub use futures::future::BoxFuture;
pub use table::{Table, TableBatch, TableError, TableRead};
pub use transport::{Dial, DialError, Link, LinkClosed, RecvHalf, SendHalf};
pub use types::mutation;
