//! Notes of calls that left no command: what known principals read, and what they were refused before a command was made.
//!
//! Each control node counts them together, keeps them in a chain of its own, and has them taken into the audit log by
//! [`CommandBody::NoteCalls`](crate::CommandBody::NoteCalls), one command for many calls.

use serde::{Deserialize, Serialize};
use types::{AccountId, Hash, NodeId, PrincipalName, StoreId, TokenId, UnixMillis};

use crate::{RefusalKind, digest::Digest, format::stored};

/// Rows of one note.
pub const NOTE_ROWS_MAX: usize = 256;
/// Bytes of each text of a row.
pub const NOTE_TEXT_BYTES_MAX: usize = 128;

/// What one control node saw in a stretch of time. Its notes form a chain of their own, so that one that was held back is missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallNotes {
    /// Its number among the node's notes, from 1. A number that is left out is a note that the node had no room for.
    pub number: u64,
    /// The hash of the node's note before; [`Hash::ZERO`] before the first.
    pub previous: Hash,
    /// The calls, counted together. At most [`NOTE_ROWS_MAX`].
    pub rows: Vec<CallRow>,
    /// Calls for which there was no row left, and those of notes that were dropped.
    pub left_out: u64,
}
stored!(CallNotes, "a note of calls");

/// Calls of one principal that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRow {
    /// Whose.
    pub principal: NotedPrincipal,
    /// The operation, such as `secrets.list`.
    pub call: String,
    /// In which account, where that was found out.
    pub account: Option<AccountId>,
    /// In which of its stores.
    pub store: Option<StoreId>,
    /// Why they were refused; none where they were answered.
    pub refused: Option<RefusalKind>,
    /// How many.
    pub count: u64,
    /// When the first and the last of them were, by the node's clock.
    pub times: (UnixMillis, UnixMillis),
    /// Where the last came from.
    pub peer: String,
    /// The label of the last in logs.
    pub request: String,
}

/// Whose calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NotedPrincipal {
    /// The holder of an operator's token.
    Operator {
        /// The token's public id.
        token: TokenId,
        /// The holder's name.
        name: PrincipalName,
    },
    /// A node.
    Node {
        /// Its id.
        node: NodeId,
    },
}

impl CallNotes {
    /// The hash of a note's stored bytes, which the node's next one names.
    pub fn hash_of(stored: &[u8]) -> Hash {
        Digest::new("cinnabar note of calls v1").part(stored).end()
    }

    /// Whether rows and texts are within bounds.
    pub fn fits(&self) -> bool {
        let fits = |row: &CallRow| [&row.call, &row.peer, &row.request].iter().all(|text| text.len() <= NOTE_TEXT_BYTES_MAX);
        self.rows.len() <= NOTE_ROWS_MAX && self.rows.iter().all(fits)
    }
}
