//! How a command ends when it does not succeed.

use std::{fmt, io};

/// What a shell shows of a program that was ended by SIGPIPE: 128 and the signal's number.
const READER_GONE: u8 = 141;

/// A failure with its exit code: what went wrong, why, and what to do next.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Exit code 1: it failed, for a reason that no other code names.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// Exit code 2: the command was not understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// A failure with the code that the table of public errors gives.
    pub fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Exit code 7: written, but not yet live everywhere when the time was up.
    pub fn deadline(message: impl Into<String>) -> Self {
        Self { code: 7, message: message.into() }
    }

    /// stdout took nothing more. Who reads a pipe may have enough of it, as `head` has: then nothing is said, and the exit code is that of
    /// any tool in a pipe.
    pub fn unwritten(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: READER_GONE, message: "nobody reads stdout any more".to_owned() },
            _ => Self::failed(format!("cannot write to stdout: {error}")),
        }
    }

    /// Whether there is nothing to say to the person.
    pub fn is_silent(&self) -> bool {
        self.code == READER_GONE
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl From<crate::ContextError> for Failure {
    fn from(error: crate::ContextError) -> Self {
        let source = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::usage(format!("{error}{source}"))
    }
}
