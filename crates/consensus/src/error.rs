//! What can go wrong, and what the caller should do about it.

use state::Refusal;

/// Why the voter stopped, as the first cause was seen. Shown to operators; holds no secret bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StopReason(pub(crate) String);

/// The answer to a proposal that brought no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// `apply` judged the command and refused it. Final: part of the replicated outcome.
    #[error("refused: {}", .0.message)]
    Refused(Refusal),
    /// Nothing was proposed: no leader within the deadline, or too many proposals in flight. Try again here, a little later.
    #[error("not proposed: {reason}; try again")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The command was proposed and may or may not be applied. Ask again with the same request id: it returns the first reply.
    #[error("outcome not known: {reason}; send the same request id again")]
    Unknown {
        /// Why it is not known.
        reason: String,
    },
    /// The command is larger than an entry may be. Nothing was proposed.
    #[error("a command of {bytes} bytes is over the limit of {max}; split it")]
    TooLarge {
        /// Its encoded length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The voter has stopped or is stopping. Try another one.
    #[error("this voter has stopped: {0}")]
    Stopped(StopReason),
}

/// The answer to a read that cannot be shown to be the newest.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// No majority confirmed a leader within the deadline, or this node is too far behind it.
    #[error("cannot read the newest state: {reason}; try again")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The voter has stopped or is stopping. Try another one.
    #[error("this voter has stopped: {0}")]
    Stopped(StopReason),
}

/// Why a voter did not start. None of these is healed by trying again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Raft log cannot be opened. A damaged log is never cut silently: the voter is to be replaced from its peers.
    #[error("cannot open the Raft log in {folder}; if it is damaged, replace this voter from its peers under a new identity")]
    Log {
        /// Where it is.
        folder: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Neither the table nor a snapshot file gives a state that the log continues.
    #[error("cannot recover the state: {detail}; replace this voter from its peers, or restore a backup")]
    State {
        /// What was found.
        detail: String,
    },
    /// The snapshot folder cannot be used.
    #[error("cannot use the snapshot folder {folder}")]
    Snapshot {
        /// Where it is.
        folder: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something of the options is out of range.
    #[error("bad consensus options: {detail}")]
    Options {
        /// Which and why.
        detail: String,
    },
    /// The log holds what this voter cannot replay, or the Raft core did not start.
    #[error("the voter did not start: {0}")]
    Stopped(StopReason),
}

/// An error and its causes, in one line. A cause that its error has told already, as openraft's errors do, is not told again.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    fn told(texts: &[&'static str]) -> Told {
        Told { text: texts[0], source: (texts.len() > 1).then(|| Box::new(told(&texts[1..]))) }
    }

    #[test]
    fn chain_tells_each_cause_once() {
        assert_eq!(chain(&told(&["it stopped", "the disk is full"])), "it stopped: the disk is full");
        let repeated =
            told(&["when Write: log: stopped; source: the disk is full", "log: stopped; source: the disk is full", "the disk is full"]);
        assert_eq!(chain(&repeated), "when Write: log: stopped; source: the disk is full");
    }
}
