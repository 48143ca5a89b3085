//! The canary: a marked secret that goes through everything and must be found nowhere (P2).
//!
//! A [`Mark`] knows a secret in all the forms in which a careless line would leave it: as it is, in hex, in base64 at any
//! alignment, as a list of numbers, escaped. Its head and its tail are searched for too, so that a part is found as well. A
//! [`Search`] looks for all marks at once: in texts, in every file of a folder, and in the memory of a process ([`Memory`]), which is
//! more than a core dump would hold. A [`Canary`] is the marked value that every cluster of processes carries: it is written when
//! the cluster begins to take writes, and looked for when it ends, so a test does both without saying so.
#![allow(clippy::expect_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

mod memory;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

pub use memory::{Memory, NEEDED};
pub use value::{Canary, Heard, letters};

/// Bytes of the head and of the tail that are searched for: too many to be met by chance.
const PART_BYTES: usize = 12;
/// Files are mostly zeros that were allocated ahead; blocks of them are skipped.
const BLOCK_BYTES: usize = 4096;
/// What is read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// So much of what stands around a finding is shown.
const AROUND_BYTES: usize = 32;

/// A secret in all its forms.
#[derive(Debug)]
pub struct Mark {
    name: &'static str,
    /// What to look for, by the name of the form.
    forms: BTreeSet<(&'static str, Vec<u8>)>,
}

impl Mark {
    /// The forms of a secret that has no zero bytes.
    ///
    /// # Panics
    /// When it is too short to be searched for, or has a zero byte.
    pub fn of(name: &'static str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 2 * PART_BYTES && !secret.contains(&0), "{name} cannot be searched for");
        let parts = [secret, &secret[..PART_BYTES], &secret[secret.len() - PART_BYTES..]];
        Self { name, forms: parts.into_iter().flat_map(forms).collect() }
    }

    /// All forms with their names, to be planted where a search must find them.
    pub fn forms(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.forms.iter().map(|(form, bytes)| (*form, bytes.as_slice()))
    }
}

fn forms(part: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = part.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let numbers: Vec<_> = part.iter().map(u8::to_string).collect();
    let mut forms = vec![
        ("raw", part.to_vec()),
        ("hex", hex.to_uppercase().into_bytes()),
        ("hex", hex.into_bytes()),
        ("numbers", numbers.join(", ").into_bytes()),
        ("numbers", numbers.join(",").into_bytes()),
        ("escaped", part.escape_ascii().to_string().into_bytes()),
    ];
    if let Ok(text) = std::str::from_utf8(part) {
        let json = serde_json::to_string(text).expect("a text is JSON");
        forms.push(("JSON", json.trim_matches('"').as_bytes().to_vec()));
        forms.push(("Debug", text.escape_debug().to_string().into_bytes()));
    }
    for digits in [
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    ] {
        forms.extend((0..3).map(|before| ("base64", base64(digits, before, part))));
    }
    forms
}

/// The digits that depend on `part` alone, when `before` bytes stand before it.
fn base64(digits: &[u8; 64], before: usize, part: &[u8]) -> Vec<u8> {
    let bytes = [&vec![0; before][..], part].concat();
    let bit = |place: usize| (bytes[place / 8] >> (7 - place % 8)) & 1;
    let whole = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
    whole.map(|digit| digits[usize::from((0..6).fold(0, |value, offset| value << 1 | bit(digit * 6 + offset)))]).collect()
}

/// Where a mark was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Which mark.
    pub mark: &'static str,
    /// In what form.
    pub form: &'static str,
    /// Where.
    pub place: String,
}

/// One form of one mark.
#[derive(Debug)]
struct Wanted {
    mark: &'static str,
    form: &'static str,
    bytes: Vec<u8>,
}

/// A search for all marks at once.
///
/// It looks at two bytes at a time and goes on by strides so short that each form has such a pair in it wherever it stands. A
/// table says which forms have these two, and where in them; only then is anything compared.
#[derive(Debug)]
pub struct Search {
    wanted: Vec<Wanted>,
    /// By two bytes: which form has them, and where.
    pairs: BTreeMap<[u8; 2], Vec<(usize, usize)>>,
    /// Whether any form has these two bytes.
    known: Vec<bool>,
    stride: usize,
    longest: usize,
}

impl Search {
    /// A search for these.
    ///
    /// # Panics
    /// When there is no mark.
    pub fn new(marks: &[&Mark]) -> Self {
        let wanted = |mark: &Mark| {
            let name = mark.name;
            mark.forms().map(move |(form, bytes)| Wanted { mark: name, form, bytes: bytes.to_vec() }).collect::<Vec<_>>()
        };
        let wanted: Vec<_> = marks.iter().flat_map(|mark| wanted(mark)).collect();
        let shortest = wanted.iter().map(|wanted| wanted.bytes.len()).min().expect("something to look for");
        let longest = wanted.iter().map(|wanted| wanted.bytes.len()).max().expect("something to look for");
        let mut search = Self { wanted, pairs: BTreeMap::new(), known: vec![false; 1 << 16], stride: shortest - 1, longest };
        for (number, wanted) in search.wanted.iter().enumerate() {
            for at in 0..search.stride {
                let pair = [wanted.bytes[at], wanted.bytes[at + 1]];
                search.known[usize::from(u16::from_be_bytes(pair))] = true;
                search.pairs.entry(pair).or_default().push((number, at));
            }
        }
        search
    }

    /// Where in `bytes` is which form.
    fn hits(&self, bytes: &[u8]) -> BTreeSet<(usize, usize)> {
        static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let mut hits = BTreeSet::new();
        for start in (0..bytes.len()).step_by(BLOCK_BYTES) {
            let end = (start + BLOCK_BYTES).min(bytes.len());
            // No form has a zero byte, so none reaches into a block of zeros.
            if bytes[start..end] == ZEROS[..end - start] {
                continue;
            }
            for at in (start..end.min(bytes.len() - 1)).step_by(self.stride) {
                let pair = [bytes[at], bytes[at + 1]];
                if self.known[usize::from(u16::from_be_bytes(pair))] {
                    let matching = |(number, offset): &(usize, usize)| {
                        let start = at.checked_sub(*offset)?;
                        bytes[start..].starts_with(&self.wanted[*number].bytes).then_some((start, *number))
                    };
                    hits.extend(self.pairs.get(&pair).into_iter().flatten().filter_map(matching));
                }
            }
        }
        hits
    }

    /// What is found in `bytes`, which are at `place`.
    pub fn bytes(&self, place: &str, bytes: &[u8]) -> BTreeSet<Sighting> {
        self.hits(bytes).into_iter().map(|(_, number)| self.sighting(number, place.to_owned())).collect()
    }

    fn sighting(&self, number: usize, place: String) -> Sighting {
        Sighting { mark: self.wanted[number].mark, form: self.wanted[number].form, place }
    }

    /// What is found in all that `source` gives, which is at `place`; the first finding of each form is shown with what stands around
    /// it. And how many bytes there were.
    ///
    /// # Errors
    /// Those of the source.
    pub fn stream(&self, place: &str, source: &mut impl Read) -> io::Result<(u64, BTreeSet<Sighting>)> {
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let (mut bytes, mut kept, mut before) = (vec![0; self.longest + CHUNK_BYTES], 0, 0_u64);
        loop {
            let read = match source.read(&mut bytes[kept..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Ok((before + kept as u64, found));
            }
            let filled = kept + read;
            for (at, number) in self.hits(&bytes[..filled]) {
                if seen.insert(number) {
                    let end = (at + self.wanted[number].bytes.len() + AROUND_BYTES).min(filled);
                    let around = bytes[at.saturating_sub(AROUND_BYTES)..end].escape_ascii();
                    found.insert(self.sighting(number, format!("{place}, byte {}: {around}", before + at as u64)));
                }
            }
            // The end is kept: a form may go on in what comes next.
            kept = filled.min(self.longest - 1);
            bytes.copy_within(filled - kept..filled, 0);
            before += (filled - kept) as u64;
        }
    }

    /// What is found in the files of a folder and in their names, but for files in `except`; and how many files there were. What
    /// vanishes while it looks is passed over.
    ///
    /// # Panics
    /// When a file cannot be read.
    pub fn folder(&self, folder: &Path, except: &[PathBuf]) -> (usize, BTreeSet<Sighting>) {
        let (mut files, mut found) = (0, BTreeSet::new());
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in there(fs::read_dir(&folder), &folder).into_iter().flatten() {
                let Some(entry) = there(entry, &folder) else { continue };
                let path = entry.path();
                let Some(kind) = there(entry.file_type(), &path) else { continue };
                let place = path.display().to_string();
                found.extend(self.bytes("a file's name", place.as_bytes()));
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() && !except.contains(&path) {
                    let Some(mut file) = there(File::open(&path), &path) else { continue };
                    found.extend(self.stream(&place, &mut file).expect("a file can be read").1);
                    files += 1;
                } else if kind.is_file() {
                    files += 1;
                }
            }
        }
        (files, found)
    }
}

/// What is there; nothing when it has gone.
fn there<T>(result: io::Result<T>, path: &Path) -> Option<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        result => Some(result.unwrap_or_else(|error| panic!("{} cannot be searched: {error}", path.display()))),
    }
}

/// Findings as lines.
pub fn places(found: &BTreeSet<Sighting>) -> String {
    found.iter().map(|sighting| format!("\n  {} as {} in {}", sighting.mark, sighting.form, sighting.place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"Q7xh2Lp9Zt4Vb6Nm\"\\\n\xc3\xbcK3yr8Wd1Jf5Gs0Cq";

    #[test]
    fn search_finds_each_form_in_the_midst_and_across_blocks_and_nothing_else() {
        let mark = Mark::of("value", SECRET);
        let search = Search::new(&[&mark]);
        for (form, bytes) in mark.forms() {
            let text = [&b"before "[..], bytes, b" after"].concat();
            assert!(search.bytes("text", &text).iter().any(|sighting| sighting.form == form), "{form}");
            let mut blocks = vec![0; 3 * BLOCK_BYTES];
            blocks[2 * BLOCK_BYTES - 3..][..bytes.len()].copy_from_slice(bytes);
            assert!(!search.bytes("blocks", &blocks).is_empty(), "{form}");
        }
        assert_eq!(search.bytes("text", &[b'x'; 10_000]), BTreeSet::new());
        assert_eq!(search.bytes("text", b""), BTreeSet::new());
    }

    #[test]
    fn search_finds_each_form_at_every_offset_and_across_the_chunks_of_a_stream() {
        let mark = Mark::of("value", SECRET);
        let search = Search::new(&[&mark]);
        for (form, bytes) in mark.forms() {
            for before in 0..2 * search.stride {
                let text = [&vec![b'-'; before][..], bytes].concat();
                assert!(search.bytes("text", &text).iter().any(|sighting| sighting.form == form), "{form} after {before} bytes");
            }
            for before in [CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + search.longest - 1, CHUNK_BYTES + search.longest - bytes.len() / 2] {
                let text = [&vec![0; before][..], bytes, b"after"].concat();
                let (read, found) = search.stream("stream", &mut &text[..]).unwrap();
                assert!(found.iter().any(|sighting| sighting.form == form), "{form} after {before} bytes");
                assert_eq!(read, text.len() as u64);
            }
        }
    }

    #[test]
    fn search_finds_base64_as_others_write_it_at_every_alignment() {
        // From coreutils: printf '%sQ7xh2Lp9Zt4Vb6NmK3yr8Wd1Jf5Gs0Cq!' '' a ab | base64 -w0
        let search = Search::new(&[&Mark::of("value", b"Q7xh2Lp9Zt4Vb6NmK3yr8Wd1Jf5Gs0Cq")]);
        for text in [
            "UTd4aDJMcDladDRWYjZObUszeXI4V2QxSmY1R3MwQ3Eh",
            "YVE3eGgyTHA5WnQ0VmI2Tm1LM3lyOFdkMUpmNUdzMENxIQ==",
            "YWJRN3hoMkxwOVp0NFZiNk5tSzN5cjhXZDFKZjVHczBDcSE=",
        ] {
            assert!(search.bytes("text", text.as_bytes()).iter().any(|sighting| sighting.form == "base64"), "{text}");
        }
    }
}
