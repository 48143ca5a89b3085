//! Fuzz targets: every decoder of what is stored, sent or configured, fed with bytes that were once right.
//!
//! A [`Target`] names the files whose decoders it feeds, has valid inputs to start from, and runs one input. [`fuzz`] changes inputs
//! (`mutate`): bits, lengths, numbers, cuts, splices; where a checksum would hide what lies behind it, the target
//! mends it afterwards ([`Target::repair`]), so that changed content reaches the decoder. An input that shows a new behaviour, another
//! error or another outcome, is kept and changed further: a guide that needs no instrumented build.
//!
//! **Invariants** of each input
//! 1. No panic, whatever the bytes.
//! 2. What is allocated in all, freed or not, stays within [`BYTES_PER_BYTE`] times the input and [`Target::extra_bytes`]: a length in the
//!    input asks for nothing that the input does not pay for. That also bounds the work.
//! 3. What is read, written and read again is the same (`reread`).
//!
//! A run is decided by its seed: the same seed makes the same inputs in the same order; the clock only says when to stop. An input that
//! fails is made small, printed as hex, and belongs in `tests/corpus/TARGET.txt`, one line each, which every run begins with.
#![allow(clippy::expect_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

mod archives;
mod corpus;
mod engine;
mod feeds;
mod identity;
mod logs;
mod mutate;
mod peers;
mod protocol;
mod random;
mod replicated;
mod rest;
mod sealed;
mod settings;

use std::fmt::Display;

pub use corpus::{committed, file as corpus_file, hex};
pub use engine::{Plan, Report, fuzz};
pub use protocol::{descriptors, messages};
pub use replicated::record_kinds;
pub use rest::end_node;

/// What an input may have allocated for each of its bytes, when it was run, read again and compared.
pub const BYTES_PER_BYTE: usize = 64;
/// And whatever its length: one sequence whose claimed length serde believes up to a MiB, and small change.
const EXTRA_BYTES: usize = 1 << 20;
/// The longest input that is made, unless a target says otherwise.
const LENGTH_MAX: usize = 8 << 10;

/// How one input ended.
#[derive(Debug)]
pub enum Seen {
    /// Refused, and what was said.
    Refused(String),
    /// Read, and what in a few words.
    Read(String),
}

/// A decoder, or several of one kind.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// The files, below `crates`, whose decoders it feeds.
    pub reads: &'static [&'static str],
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Feeds one input.
    pub run: fn(&[u8]) -> Seen,
    /// Makes the checksums right.
    pub repair: Option<fn(&mut [u8])>,
    /// Pieces to paste, for texts.
    pub words: &'static [&'static str],
    /// The longest input.
    pub length_max: usize,
    /// What may be allocated whatever the length of the input.
    pub extra_bytes: usize,
    /// Inputs that ten seconds of the suite are enough for, on a machine that does much else.
    pub inputs_min: u64,
}

impl Target {
    const fn new(name: &'static str, reads: &'static [&'static str], seeds: fn() -> Vec<Vec<u8>>, run: fn(&[u8]) -> Seen) -> Self {
        Self { name, reads, seeds, run, repair: None, words: &[], length_max: LENGTH_MAX, extra_bytes: EXTRA_BYTES, inputs_min: 1000 }
    }

    /// A target that is in no table, for a test of the engine.
    pub const fn for_tests(name: &'static str, run: fn(&[u8]) -> Seen) -> Self {
        Self::new(name, &[], || vec![vec![0; 16]], run)
    }

    const fn repaired(self, repair: fn(&mut [u8])) -> Self {
        Self { repair: Some(repair), ..self }
    }

    const fn with_words(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }

    const fn at_least(self, inputs_min: u64) -> Self {
        Self { inputs_min, ..self }
    }

    const fn up_to(self, length_max: usize, extra_bytes: usize) -> Self {
        Self { length_max, extra_bytes, ..self }
    }
}

/// All targets.
pub fn targets() -> Vec<&'static Target> {
    let all = [
        replicated::TARGETS,
        sealed::TARGETS,
        logs::TARGETS,
        peers::TARGETS,
        feeds::TARGETS,
        archives::TARGETS,
        protocol::TARGETS,
        rest::TARGETS,
        identity::TARGETS,
        settings::TARGETS,
    ];
    all.into_iter().flatten().collect()
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    targets().into_iter().find(|target| target.name == name)
}

/// Decodes; what was read must encode to something that decodes and encodes to the same.
fn reread<T, E: Display>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>, encode: impl Fn(&T) -> Vec<u8>, kind: &str) -> Seen {
    let read = match decode(bytes) {
        Ok(read) => read,
        Err(error) => return Seen::Refused(error.to_string()),
    };
    let written = encode(&read);
    match decode(&written) {
        Ok(again) => assert!(encode(&again) == written, "{kind}: what was read, written and read again is another"),
        Err(error) => panic!("{kind}: what was read and written again is refused: {error}"),
    }
    Seen::Read(format!("{kind} of {}", written.len()))
}
