//! Inputs that are kept with the sources: one file per target, one input per line in hex, `#` for remarks.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Where the inputs of a target stand.
pub fn file(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{target}.txt"))
}

/// The committed inputs of a target; none without a file.
///
/// # Panics
/// When a line is no hex.
pub fn committed(target: &str) -> Vec<Vec<u8>> {
    let path = file(target);
    let Ok(text) = fs::read_to_string(&path) else { return Vec::new() };
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| unhex(line).unwrap_or_else(|| panic!("{}: no hex: {line}", path.display()))).collect()
}

/// Bytes as hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
