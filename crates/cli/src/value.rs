//! Where a secret's value comes from: a file, a pipe or a hidden prompt.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
};

use zeroize::Zeroizing;

use crate::Failure;

/// The most bytes read: one more than any limit allows, so that a longer value is refused and never cut.
const READ_BYTES_MAX: usize = types::VALUE_BYTES_MAX + 1;

/// Reads a value. One trailing line break is stripped unless `raw`.
///
/// # Errors
/// [`Failure`] with exit code 2 when there is nothing to read, or more than any limit allows.
pub fn read(file: Option<&Path>, raw: bool, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut value = match file {
        Some(path) if path != Path::new("-") => {
            let opened =
                fs::File::open(path).map_err(|error| Failure::usage(format!("cannot read the value from {}: {error}", path.display())))?;
            bounded(opened).map_err(|error| Failure::usage(format!("cannot read the value from {}: {error}", path.display())))?
        }
        None if io::stdin().is_terminal() => Zeroizing::new(
            rpassword::prompt_password(format!("{prompt}: "))
                .map_err(|error| Failure::usage(format!("cannot ask for the value: {error}")))?
                .into_bytes(),
        ),
        _ => bounded(io::stdin().lock()).map_err(|error| Failure::usage(format!("cannot read the value from stdin: {error}")))?,
    };
    if !raw {
        strip_line_break(&mut value);
    }
    if value.is_empty() {
        return Err(Failure::usage(
            "the value is empty: pipe it in, as in `printf %s \"$VALUE\" | cinnabar …`, or name a file with --file",
        ));
    }
    if value.len() > types::VALUE_BYTES_MAX {
        return Err(Failure::usage(format!("the value is longer than {} bytes, the most that any limit allows", types::VALUE_BYTES_MAX)));
    }
    Ok(value)
}

/// Reads into a buffer of its final size, so that no half-filled copies stay behind.
fn bounded(mut source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(vec![0; READ_BYTES_MAX + 1]);
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

fn strip_line_break(value: &mut Vec<u8>) {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_from_a_file_loses_one_line_break_unless_raw() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        for (content, raw, wanted) in [
            ("s3cret\n", false, "s3cret"),
            ("s3cret\n\n", false, "s3cret\n"),
            ("s3cret\r\n", false, "s3cret"),
            ("s3cret\n", true, "s3cret\n"),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(read(Some(&path), raw, "value").unwrap().as_slice(), wanted.as_bytes());
        }
    }

    #[test]
    fn value_empty_or_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        fs::write(&path, "\n").unwrap();
        assert!(read(Some(&path), false, "value").unwrap_err().to_string().contains("empty"));
        fs::write(&path, vec![b'x'; types::VALUE_BYTES_MAX]).unwrap();
        assert_eq!(read(Some(&path), false, "value").unwrap().len(), types::VALUE_BYTES_MAX);
        fs::write(&path, vec![b'x'; types::VALUE_BYTES_MAX + 1]).unwrap();
        assert!(read(Some(&path), false, "value").unwrap_err().to_string().contains("longer than"));
    }
}
