//! Where a secret's value comes from: a file, a pipe or a hidden prompt.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
};

use zeroize::Zeroizing;

use crate::Failure;

/// The most bytes read: one more than any limit allows with a line break of two, so that a longer value is refused and never cut.
const READ_BYTES_MAX: usize = types::VALUE_BYTES_MAX + 3;

/// Reads a value. One trailing line break is stripped unless `raw`.
///
/// # Errors
/// [`Failure`] with exit code 2 when there is nothing to read, or more than any limit allows.
pub fn read(file: Option<&Path>, raw: bool, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    take(file, raw, prompt, "the value is empty: pipe it in, as in `printf %s \"$VALUE\" | cinnabar …`, or name a file with --file")
}

/// Reads a token from stdin or a hidden prompt, without the blanks around it. `from_stdin`: a terminal is not asked, but read.
pub(crate) fn read_token(from_stdin: bool, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let source = from_stdin.then_some(Path::new("-"));
    let bytes = take(source, false, prompt, "no token came: pipe it in, as in `cinnabar … < FILE`")?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage("the token is not text"))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// `empty`: what is said where nothing came.
fn take(file: Option<&Path>, raw: bool, prompt: &str, empty: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut value = match file {
        Some(path) if path != Path::new("-") => {
            let opened =
                fs::File::open(path).map_err(|error| Failure::usage(format!("cannot read the value from {}: {error}", path.display())))?;
            bounded(opened, READ_BYTES_MAX)
                .map_err(|error| Failure::usage(format!("cannot read the value from {}: {error}", path.display())))?
        }
        None if io::stdin().is_terminal() => Zeroizing::new(
            rpassword::prompt_password(format!("{prompt}: "))
                .map_err(|error| Failure::usage(format!("cannot ask for the value: {error}")))?
                .into_bytes(),
        ),
        _ => bounded(io::stdin().lock(), READ_BYTES_MAX)
            .map_err(|error| Failure::usage(format!("cannot read the value from stdin: {error}")))?,
    };
    if !raw {
        strip_line_break(&mut value);
    }
    if value.is_empty() {
        return Err(Failure::usage(empty));
    }
    if value.len() > types::VALUE_BYTES_MAX {
        return Err(Failure::usage(format!("the value is longer than {} bytes, the most that any limit allows", types::VALUE_BYTES_MAX)));
    }
    Ok(value)
}

/// The most bytes of a file of secrets: as many as one command to the cluster holds.
const FILE_BYTES_MAX: usize = 8 << 20;

/// Reads a file of many values whole, or stdin for `-`.
///
/// # Errors
/// [`Failure`] with exit code 2 when it cannot be read, or holds more than a command to the cluster does.
pub(crate) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let (shown, opened): (_, io::Result<Box<dyn Read>>) = if path == Path::new("-") {
        ("stdin".to_owned(), Ok(Box::new(io::stdin().lock())))
    } else {
        (path.display().to_string(), fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>))
    };
    let bytes = opened.and_then(|source| bounded(source, FILE_BYTES_MAX + 1));
    let bytes = bytes.map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{shown} is longer than {} MiB, the most that is created at once", FILE_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

/// Reads at most so many bytes, into a buffer of its final size, so that no half-filled copies stay behind.
fn bounded(mut source: impl Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(vec![0; bytes_max]);
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
        for more in ["x", "\r\nx", "\nxy"] {
            fs::write(&path, format!("{}{more}", "x".repeat(types::VALUE_BYTES_MAX))).unwrap();
            assert!(read(Some(&path), false, "value").unwrap_err().to_string().contains("longer than"), "{more:?}");
        }
    }
}
