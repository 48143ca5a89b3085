//! Consensus: one replicated log of commands, and the state that follows from it.
//!
//! [`Consensus`] is a voter. Commands go in by [`Consensus::propose`] and come back as the reply that `state::apply` gave at
//! the command's own index, after a majority has the entry on disk. The Raft protocol is openraft's; this crate gives it a
//! log ([`store`]), a state machine ([`state`]) and a network ([`PeerTransport`]), and hides all of its types.
//!
//! The order at a voter: durable are vote, entries, purge mark, committed hint and snapshot files. The state lives in memory
//! and is written behind to a table, with the applied index in the same batch, off the commit path.
//!
//! **Invariants**
//! 1. A proposal is acknowledged only after its entry is durable on a majority and applied here.
//! 2. The log is purged only below a snapshot file that is durable and was verified.
//! 3. A state is shown only after every entry up to the committed hint was applied again; what is shown never goes back while
//!    the process lives.
//! 4. An entry that cannot be decoded, or asks for a level this binary does not know, stops the voter before it is applied.
//! 5. Nothing of a command is printed but its kind and length.
//! 6. A command without a request key enters the log at most once, whatever happens to calls and leaders.
//!
//! **Concurrency**: [`Consensus`] is a handle, cheap to clone, for any number of tasks. Proposals are tracked tasks: a caller
//! that goes away does not stop what it proposed. Disk work runs on the store's threads, never on the async ones, unless
//! [`Drive`] asks for it, as the simulation does.
//!
//! **Failure**: an error of the log's disk, of a snapshot, of decoding, stops the voter ([`Consensus::stopped`] says why). An
//! error of the table does not: the table is a copy, and is rebuilt at the next start.
//!
//! Any node takes proposals and reads: one that does not lead passes them on (`write.rs`). Members are learners, which get the
//! log, and voters; [`Consensus::add_learner`], [`Consensus::promote`] and [`Consensus::remove`] change that one step at a time
//! (`change.rs`), through a joint membership. A command's stamp, and so log time, is what a majority of clocks agrees on
//! (`clock.rs`). The protocol: Ongaro, *Consensus: Bridging Theory and Practice*, 2014; pre-vote is its 9.6, ReadIndex its 6.4,
//! leadership transfer its 3.10, joint membership its 4.3.

mod audit;
mod change;
mod clock;
mod consensus;
mod engine;
mod error;
mod format;
mod gather;
mod leadership;
mod log;
mod machine;
mod members;
mod network;
mod offload;
mod options;
mod peer;
mod raft;
mod recovery;
mod seed;
mod snapshot;
mod start;
mod stop;
mod write;

#[cfg(test)]
mod tests;

pub use audit::{
    AuditCut, AuditFault, AuditLog, AuditOptions, AuditSink, CutSignature, CutSigner, NoAudit, audit_head_signing_bytes, verify_entries,
};
pub use clock::{ClockStanding, Clocks};
pub use consensus::{Consensus, Status};
pub use error::{ProposeError, ReadError, StartError, StopReason};
pub use members::{ChangeError, Membership, Overview, Progress};
pub use network::{Form, forms};
pub use openraft::AsyncRuntime as Runtime;
pub use options::{Applied, Bootstrap, Limits, MemTables, OpenTable, Options, SledTables, Tables, Timing, Visit};
pub use peer::{PeerError, PeerRpc, PeerTransport, Unconnected};
pub use seed::seed;
pub use store::Drive;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. Poisoning means another task panicked; what is guarded here is replaced whole, so it is never half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
