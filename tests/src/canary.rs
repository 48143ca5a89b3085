//! Marks, and the search for them: a secret that was written through everything must be found nowhere.
//!
//! A [`Mark`] knows a secret in all the forms in which a careless line would leave it: as it is, in hex, in base64 at any
//! alignment, as a list of numbers, escaped. Its head and its tail are searched for too, so that a part is found as well. A
//! [`Search`] looks for all marks at once, in texts and in every file of a folder.
#![allow(clippy::expect_used, reason = "this is a test: it fails where it stands, and says so")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Bytes of the head and of the tail that are searched for: too many to be met by chance.
const PART_BYTES: usize = 12;
/// Files are mostly zeros that were allocated ahead; blocks of them are skipped.
const BLOCK_BYTES: usize = 4096;

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
#[derive(Debug)]
pub struct Search {
    /// By the first two bytes.
    wanted: BTreeMap<[u8; 2], Vec<Wanted>>,
    /// Whether anything begins with these two bytes.
    begins: Vec<bool>,
}

impl Search {
    /// A search for these.
    pub fn new(marks: &[&Mark]) -> Self {
        let mut search = Self { wanted: BTreeMap::new(), begins: vec![false; 1 << 16] };
        for mark in marks {
            for (form, bytes) in mark.forms() {
                let first = [bytes[0], bytes[1]];
                search.begins[usize::from(u16::from_be_bytes(first))] = true;
                search.wanted.entry(first).or_default().push(Wanted { mark: mark.name, form, bytes: bytes.to_vec() });
            }
        }
        search
    }

    /// What is found in `bytes`, which are at `place`.
    pub fn bytes(&self, place: &str, bytes: &[u8]) -> BTreeSet<Sighting> {
        let mut found = BTreeSet::new();
        for start in (0..bytes.len()).step_by(BLOCK_BYTES) {
            let end = (start + BLOCK_BYTES).min(bytes.len());
            if bytes[start..end] == [0; BLOCK_BYTES][..end - start] {
                continue;
            }
            for at in start..end.min(bytes.len().saturating_sub(1)) {
                let first = [bytes[at], bytes[at + 1]];
                if !self.begins[usize::from(u16::from_be_bytes(first))] {
                    continue;
                }
                for wanted in self.wanted.get(&first).into_iter().flatten().filter(|wanted| bytes[at..].starts_with(&wanted.bytes)) {
                    found.insert(Sighting { mark: wanted.mark, form: wanted.form, place: place.to_owned() });
                }
            }
        }
        found
    }

    /// What is found in the files of a folder and in their names, but for files in `except`; and how many files there were.
    ///
    /// # Panics
    /// When a file cannot be read.
    pub fn folder(&self, folder: &Path, except: &[PathBuf]) -> (usize, BTreeSet<Sighting>) {
        let (mut files, mut found) = (0, BTreeSet::new());
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder can be read") {
                let entry = entry.expect("a folder can be read");
                let (path, kind) = (entry.path(), entry.file_type().expect("a file has a type"));
                let place = path.display().to_string();
                found.extend(self.bytes("a file's name", place.as_bytes()));
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    files += 1;
                    if !except.contains(&path) {
                        found.extend(self.bytes(&place, &fs::read(&path).expect("a file can be read")));
                    }
                }
            }
        }
        (files, found)
    }
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
