//! The types that openraft is used with. None of them leaves the crate.

use std::{fmt, marker::PhantomData};

use bytes::Bytes;
use openraft::{OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use state::{CommandKind, Refusal, Reply};

use crate::Runtime;

/// Which types openraft is used with, on the runtime `R`. Never a value.
pub(crate) struct Types<R>(PhantomData<fn() -> R>);

impl<R: Runtime> RaftTypeConfig for Types<R> {
    type D = Proposal;
    type R = Answer;
    type NodeId = u64;
    type Node = openraft::BasicNode;
    type Term = u64;
    // One leader a term, as in the paper: openraft's default mode allows several.
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
type Committed = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
/// What an entry carries.
pub(crate) type Payload = openraft::EntryPayload<Proposal, u64, openraft::BasicNode>;
/// An entry of the log.
pub(crate) type Entry = openraft::Entry<Committed, Payload>;
/// Term and index.
pub(crate) type LogId = openraft::LogId<Committed>;
/// Term, whose candidate, and whether a quorum granted it.
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
/// Who votes, and where they are.
pub(crate) type Membership = openraft::Membership<u64, openraft::BasicNode>;
/// A membership and the entry that set it.
pub(crate) type StoredMembership = openraft::StoredMembership<Committed, u64, openraft::BasicNode>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Committed, u64, openraft::BasicNode>;
/// A snapshot: what it covers, and its file.
pub(crate) type Snapshot = openraft::Snapshot<Committed, u64, openraft::BasicNode, crate::snapshot::SnapshotFile>;
/// A callback of the log.
pub(crate) type IoFlushed<R> = openraft::storage::IOFlushed<Types<R>>;
/// Sends a reply to whoever proposed.
pub(crate) type EntryResponder<R> = openraft::storage::EntryResponder<Types<R>>;
/// An error of the Raft core that ends it.
pub(crate) type Fatal<R> = openraft::errors::Fatal<Types<R>>;
/// A voter as openraft knows it.
pub(crate) type Raft<R> = openraft::Raft<Types<R>, crate::machine::Machine<R>>;

/// The term and index of an entry.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Committed::new(term), index)
}

/// A command as it was encoded once by whoever proposed it: leader, log and wire share these bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

// openraft logs entries. Commands hold ciphertext and names: only kind and length may show. The kind stands in bytes 5 and 6.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.get(5..7).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        match number.and_then(CommandKind::from_number) {
            Some(kind) => write!(f, "{kind} ({} bytes)", self.0.len()),
            None => write!(f, "command ({} bytes)", self.0.len()),
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What `apply` said; none for entries that are no commands.
#[derive(Clone)]
pub(crate) struct Answer(pub(crate) Option<Result<Reply, Refusal>>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "no answer",
            Some(Ok(_)) => "a reply",
            Some(Err(_)) => "a refusal",
        })
    }
}

// openraft asks for serde of every type; our formats are our own (`format`), so that a new openraft cannot change a stored
// byte. These implementations are never called, and say so if they are.
macro_rules! never_serialized {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom(concat!(stringify!($name), " has a format of its own")))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom(concat!(stringify!($name), " has a format of its own")))
            }
        }
    )*};
}
never_serialized!(Proposal, Answer);

// By hand, since deriving would ask the same of `R`, which is never a value either.
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Types<R> {}
impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<R> PartialEq for Types<R> {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}
impl<R> Eq for Types<R> {}
impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for Types<R> {
    fn cmp(&self, _other: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
