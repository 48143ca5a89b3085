//! What a file of secrets holds: lines as in `.env` and `.dev.vars`, or JSON.
//!
//! A file is understood whole or refused whole, with the line that is in doubt. Readers of `.env` files differ on some writings (see
//! [`env`]); those are refused rather than guessed, since a value that is cut short looks like one that is right.
//!
//! **Invariants**
//! 1. No error holds a value, or a part of one: it says the line and, where it is known, the name.
//! 2. Nothing of the environment goes into a value.

pub(crate) mod api;
mod env;
mod json;

use std::{collections::BTreeMap, path::Path};

use zeroize::Zeroizing;

use crate::{Failure, FileForm, value};

/// A secret as a file describes it.
pub(crate) struct Entry {
    /// Its name, one that a secret may have.
    pub(crate) name: String,
    /// Its value: 1 to 65,536 bytes.
    pub(crate) value: Zeroizing<Vec<u8>>,
    /// Where it may be used, if the file says.
    pub(crate) scopes: Option<Vec<String>>,
    /// What it is for, if the file says.
    pub(crate) comment: Option<String>,
    /// The line that it begins at, counted from 1; 0 in JSON.
    line: usize,
}

/// A text that is not understood: what is wrong, and where.
#[derive(Debug)]
struct Doubt {
    line: usize,
    what: String,
}

impl Doubt {
    fn at(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// Reads a file, or stdin for `-`.
///
/// # Errors
/// [`Failure`] with exit code 2 that names the line in doubt, never what stands there.
pub(crate) fn read(path: &Path, form: Option<FileForm>) -> Result<Vec<Entry>, Failure> {
    let bytes = value::read_file(path)?;
    let shown = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let refuse = |doubt: Doubt| match doubt.line {
        0 => Failure::usage(format!("{shown}: {}; nothing was done", doubt.what)),
        line => Failure::usage(format!("{shown}:{line}: {}; nothing was done", doubt.what)),
    };
    parse(&bytes, form).map_err(refuse)
}

/// What a file of secrets holds: each name, and how many bytes its value has.
///
/// # Errors
/// What is in doubt and in which line, 0 in JSON; never what stands there.
pub fn imported(bytes: &[u8], form: Option<FileForm>) -> Result<Vec<(String, usize)>, String> {
    match parse(bytes, form) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| (entry.name, entry.value.len())).collect()),
        Err(doubt) => Err(format!("line {}: {}", doubt.line, doubt.what)),
    }
}

fn parse(bytes: &[u8], form: Option<FileForm>) -> Result<Vec<Entry>, Doubt> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Doubt::at(line, "this is not text in UTF-8; a value of other bytes is set alone, with `cinnabar secret create --file`")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = match form {
        Some(form) => form == FileForm::Json,
        None => text.trim_start().starts_with(['{', '[']),
    };
    let entries = if is_json { json::parse(text)? } else { env::parse(text)? };
    check(&entries)?;
    Ok(entries)
}

fn check(entries: &[Entry]) -> Result<(), Doubt> {
    if entries.is_empty() {
        return Err(Doubt::at(0, "there is no secret in it"));
    }
    let mut seen = BTreeMap::new();
    for Entry { name, value, line, .. } in entries {
        if let Err(error) = types::SecretName::new(name.as_str()) {
            return Err(Doubt::at(*line, error.to_string()));
        }
        if value.is_empty() {
            return Err(Doubt::at(*line, format!("{name} has no value")));
        }
        if value.len() > types::VALUE_BYTES_MAX {
            return Err(Doubt::at(*line, format!("the value of {name} is longer than {} bytes", types::VALUE_BYTES_MAX)));
        }
        match seen.insert(name, *line) {
            None => {}
            Some(0) => return Err(Doubt::at(0, format!("{name} stands there twice"))),
            Some(before) => return Err(Doubt::at(*line, format!("{name} stands in line {before} already"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_form_is_told_by_its_beginning_unless_said() {
        for (text, form, wanted) in [
            ("A=1", None, "A=1"),
            ("\u{feff}A=1", None, "A=1"),
            ("\n {\"A\": \"1\"}", None, "A=1"),
            ("[{\"name\": \"A\", \"value\": \"1\"}]", None, "A=1"),
            ("{\"A\": \"1\"}", Some(FileForm::Json), "A=1"),
        ] {
            let entries = parse(text.as_bytes(), form).unwrap_or_else(|doubt| panic!("{text}: {doubt:?}"));
            let shown: Vec<_> = entries.iter().map(|entry| format!("{}={}", entry.name, String::from_utf8_lossy(&entry.value))).collect();
            assert_eq!(shown, [wanted]);
        }
        assert!(parse(b"{\"A\": \"1\"}", Some(FileForm::Env)).is_err());
    }

    #[test]
    fn file_in_doubt_is_refused_whole_naming_the_line_and_never_the_value() {
        for (text, line, words) in [
            ("A=s3cret\nA=s3cret2", 2, "line 1 already"),
            ("A=s3cret\n\nB=", 3, "B has no value"),
            ("a.b=s3cret", 1, "allowed are"),
            ("", 0, "no secret"),
            ("# nothing\n", 0, "no secret"),
            ("{\"A\": \"s3cret\", \"A\": \"s3cret\"}", 1, "once"),
            ("[{\"name\":\"A\",\"value\":\"s3cret\"},{\"name\":\"A\",\"value\":\"x\"}]", 0, "twice"),
        ] {
            let doubt = parse(text.as_bytes(), None).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert_eq!(doubt.line, line, "{text}: {doubt:?}");
            assert!(doubt.what.contains(words) && !doubt.what.contains("s3cret"), "{text}: {doubt:?}");
        }
        let doubt = parse(b"A=1\nB=\xff", None).err().map(|doubt| doubt.line);
        assert_eq!(doubt, Some(2));
        let long = format!("A={}", "x".repeat(types::VALUE_BYTES_MAX + 1));
        assert!(parse(long.as_bytes(), None).is_err());
    }

    proptest! {
        #[test]
        fn file_of_any_text_is_understood_or_refused(text in "[A-Z=\"'`\\\\#$ \t\r\n{}\\[\\]:,a-zé]{0,80}", form in 0_u8..3) {
            let form = [None, Some(FileForm::Env), Some(FileForm::Json)][usize::from(form)];
            if let Ok(entries) = parse(text.as_bytes(), form) {
                prop_assert!(entries.iter().all(|entry| !entry.value.is_empty()));
            }
        }

        #[test]
        fn value_in_quotes_arrives_as_it_is(value in "[^'\\\\\u{0}]{1,60}") {
            let entries = parse(format!("BEFORE=1\nA='{value}' # why\nAFTER=2").as_bytes(), None).map_err(|doubt| doubt.what);
            let entries = entries.map_err(TestCaseError::fail)?;
            prop_assert_eq!(entries.len(), 3);
            prop_assert_eq!(&entries[1].value[..], value.as_bytes());
        }
    }
}
