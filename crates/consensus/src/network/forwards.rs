//! What a node that does not lead asks the one that does; and what each asks each of its clock.
//!
//! | form | bytes after the format byte |
//! |---|---|
//! | propose call | milliseconds that the asker waits u32, then the command's own bytes |
//! | all others | postcard of the types below |

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use state::{Refusal, Reply};
use std::time::Duration;

use crate::format::{self, FormatError, Reader};

/// A command on its way to the leader.
pub(crate) struct ProposeCall {
    pub(crate) within: Duration,
    pub(crate) command: Bytes,
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl ProposeCall {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = format::begin(4 + self.command.len());
        out.put_u32_le(millis(self.within));
        out.put_slice(&self.command);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        let mut reader = Reader::new("propose call", bytes)?;
        Ok(Self { within: Duration::from_millis(u64::from(reader.u32()?)), command: reader.rest() })
    }
}

/// A question, and how many milliseconds the asker waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timed<T> {
    within_ms: u32,
    pub(crate) ask: T,
}

impl<T> Timed<T> {
    pub(crate) fn new(within: Duration, ask: T) -> Self {
        Self { within_ms: millis(within), ask }
    }

    pub(crate) fn within(&self) -> Duration {
        Duration::from_millis(u64::from(self.within_ms))
    }
}

/// A change that the leader is asked to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Add { node: u64, address: String },
    Promote { node: u64 },
    Remove { node: u64, force: bool },
    Transfer { to: Option<u64> },
}

/// What the leader, or whoever was taken for it, answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answered<T> {
    /// It is done.
    Done(T),
    /// Nothing was done here; that node leads, if any is known.
    NotLeader(Option<(u64, String)>),
    /// Nothing was done; try again.
    NotDone(String),
    /// It may have been done.
    Unknown(String),
    /// Nothing was done, and trying again does not help.
    Refused(String),
    /// Nothing was done: the learner is behind.
    Behind { matched: Option<u64>, last: Option<u64> },
}

/// The answer to a proposal.
pub(crate) type Applied = (u64, Result<Reply, Refusal>);

/// The members as the leader sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overview {
    pub(crate) leader: u64,
    pub(crate) term: u64,
    pub(crate) last_log: Option<u64>,
    /// Id, index up to which its log is the leader's, milliseconds since it was last heard of.
    pub(crate) progress: Vec<(u64, Option<u64>, Option<u64>)>,
}

pub(crate) fn encode_forward<T: Serialize>(value: &T) -> Bytes {
    // Serialization into a growing vector fails only for sequences of unknown length, which none of these types has.
    postcard::to_extend(value, vec![format::FORMAT]).map(Bytes::from).unwrap_or_default()
}

pub(crate) fn decode_forward<T: DeserializeOwned>(form: &'static str, bytes: Bytes) -> Result<T, FormatError> {
    let mut reader = Reader::new(form, bytes)?;
    let rest = reader.rest();
    match postcard::take_from_bytes(&rest) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(reader.malformed("bytes follow its end")),
        Err(_) => Err(reader.malformed("it does not decode")),
    }
}
