//! `.env` and `.dev.vars`: lines NAME=VALUE.
//!
//! A value stands bare, or in single quotes, double quotes or backticks, and in those over several lines. In double quotes `\n` and `\r`
//! are line breaks. A comment begins with `#`. Where programs that read such files differ, the line is refused and the error says how to
//! write what is meant so that all agree:
//! - `#` inside a bare value that no blank precedes: a comment to some, a part of the value to others;
//! - `$NAME` and `${NAME}` outside single quotes and backticks: replaced by some, kept by others;
//! - `\` in double quotes before anything but `n` and `r`, or before the closing quote in the other quotes.

use zeroize::Zeroizing;

use super::{Doubt, Entry};

pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Doubt> {
    let mut rest = Rest { text, line: 1 };
    let mut entries = Vec::new();
    loop {
        rest.skip_blanks();
        match rest.peek() {
            None => return Ok(entries),
            Some('\n' | '\r') => rest.advance(1),
            Some('#') => rest.skip_line(),
            Some(_) => entries.push(entry(&mut rest)?),
        }
    }
}

/// What is still to be read.
struct Rest<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<char> {
        self.text.chars().next()
    }

    /// Goes on by so many bytes, and counts lines.
    fn advance(&mut self, bytes: usize) {
        let (over, rest) = self.text.split_at(bytes);
        self.line += over.matches('\n').count();
        self.text = rest;
    }

    fn skip_blanks(&mut self) {
        self.text = self.text.trim_start_matches([' ', '\t']);
    }

    fn skip_line(&mut self) {
        self.advance(self.text.find('\n').map_or(self.text.len(), |at| at + 1));
    }

    /// What `part` allows, up to the first that it does not.
    fn take(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let end = self.text.find(|c| !part(c)).unwrap_or(self.text.len());
        let taken = &self.text[..end];
        self.advance(end);
        taken
    }
}

fn entry(rest: &mut Rest<'_>) -> Result<Entry, Doubt> {
    let line = rest.line;
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut name = rest.take(part);
    if name == "export" && rest.text.starts_with([' ', '\t']) {
        rest.skip_blanks();
        name = rest.take(part);
    }
    rest.skip_blanks();
    if name.is_empty() || rest.peek() != Some('=') {
        return Err(Doubt::at(line, "expected NAME=VALUE; a value over several lines stands in quotes"));
    }
    rest.advance(1);
    rest.skip_blanks();
    let value = match rest.peek() {
        Some(quote @ ('\'' | '"' | '`')) => quoted(rest, name, quote)?,
        _ => bare(rest, name)?,
    };
    Ok(Entry { name: name.to_owned(), value: Zeroizing::new(value.into_bytes()), scopes: None, comment: None, line })
}

/// Up to the end of the line, or to a comment.
fn bare(rest: &mut Rest<'_>, name: &str) -> Result<String, Doubt> {
    let line = rest.line;
    let text = rest.take(|c| c != '\n');
    let end = text.find('#').unwrap_or(text.len());
    let value = &text[..end];
    if end < text.len() && !value.ends_with([' ', '\t']) {
        return Err(Doubt::at(
            line,
            format!("{name}: to some readers of such files `#` begins a comment here, to others it does not: {QUOTE}"),
        ));
    }
    no_variable(value, name, line)?;
    Ok(value.trim_end().to_owned())
}

/// Up to the same quote, and then to the end of that line, which holds nothing else.
fn quoted(rest: &mut Rest<'_>, name: &str, quote: char) -> Result<String, Doubt> {
    let line = rest.line;
    rest.advance(1);
    let end =
        rest.text.find(quote).ok_or_else(|| Doubt::at(line, format!("{name}: the quote {quote} that opens here is closed nowhere")))?;
    let inner = &rest.text[..end];
    let value = if quote == '"' {
        no_variable(inner, name, line)?;
        line_breaks(inner, name, line)?
    } else if inner.ends_with('\\') {
        return Err(Doubt::at(
            line,
            format!("{name}: to some readers of such files `\\{quote}` ends the value, to others it does not: take other quotes"),
        ));
    } else {
        inner.to_owned()
    };
    rest.advance(end + 1);
    rest.skip_blanks();
    match rest.peek() {
        None | Some('\n' | '#') => rest.skip_line(),
        Some('\r') if rest.text.starts_with("\r\n") => rest.skip_line(),
        Some(_) => return Err(Doubt::at(rest.line, format!("{name}: something follows the closing quote {quote}"))),
    }
    Ok(value)
}

/// How to write a value so that all readers agree.
const QUOTE: &str = "put the value into single quotes, or into backticks when it holds such a quote";

/// Refuses what some readers would replace by a variable's value.
fn no_variable(text: &str, name: &str, line: usize) -> Result<(), Doubt> {
    let starts = |after: &str| after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '{' | '('));
    if text.match_indices('$').any(|(at, _)| starts(&text[at + 1..])) {
        return Err(Doubt::at(line, format!("{name}: some readers of such files put a variable's value in place of `$`: {QUOTE}")));
    }
    Ok(())
}

/// `\n` and `\r` as what they stand for.
fn line_breaks(text: &str, name: &str, line: usize) -> Result<String, Doubt> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                _ => return Err(Doubt::at(line, format!("{name}: readers of such files differ on `\\` in double quotes: {QUOTE}"))),
            },
            _ => value.push(character),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_lines_are_read_as_all_readers_do() {
        for (text, wanted) in [
            ("A=1", &[("A", "1")][..]),
            ("A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]),
            ("  export A = two words  # why\n", &[("A", "two words")]),
            ("# c\n\nA='with # and $HOME and \\n and \"'\n", &[("A", "with # and $HOME and \\n and \"")]),
            ("A=\"a\\nb\" # c", &[("A", "a\nb")]),
            ("A=`it's \"so\"`", &[("A", "it's \"so\"")]),
            ("PEM=\"-----BEGIN-----\nabc=\n-----END-----\"\nB=2", &[("PEM", "-----BEGIN-----\nabc=\n-----END-----"), ("B", "2")]),
            ("A='x\ny'\nB=2", &[("A", "x\ny"), ("B", "2")]),
            ("URL=postgres://u:p@h/db?a=b&c=d", &[("URL", "postgres://u:p@h/db?a=b&c=d")]),
            ("A=price is 5$ or $5", &[("A", "price is 5$ or $5")]),
            ("A='äöü €'", &[("A", "äöü €")]),
            ("A=", &[("A", "")]),
            ("A=''", &[("A", "")]),
            ("A=it's", &[("A", "it's")]),
            ("export=1", &[("export", "1")]),
        ] {
            let entries = parse(text).unwrap_or_else(|doubt| panic!("{text}: {doubt:?}"));
            let shown: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), std::str::from_utf8(&entry.value).unwrap())).collect();
            assert_eq!(shown, wanted, "{text}");
        }
    }

    #[test]
    fn env_lines_on_which_readers_differ_are_refused_with_their_line() {
        for (text, line) in [
            ("A=1\nB=pa#ss", 2),
            ("A=#", 1),
            ("A=pa$WORD", 1),
            ("A=${WORD}", 1),
            ("A=\"$WORD\"", 1),
            ("A=\"a\\\"b\"", 1),
            ("A=\"a\\tb\"", 1),
            ("A='a\\' # '", 1),
            ("A='open\nB=2", 1),
            ("A=1\n\nB=\"open", 3),
            ("A='a' b", 1),
            ("A='x\ny' z", 2),
            ("justaword", 1),
            ("A: 1", 1),
            ("=1", 1),
            ("export A", 1),
        ] {
            let doubt = parse(text).err().unwrap_or_else(|| panic!("{text:?} is accepted"));
            assert_eq!(doubt.line, line, "{text:?}: {doubt:?}");
            assert!(!["open", "WORD", "pa", "ss"].iter().any(|part| doubt.what.split([' ', ':']).any(|word| word == *part)), "{doubt:?}");
        }
    }
}
