//! Printing: results to stdout, talk to stderr.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{Failure, Format, Global};

/// Where a command's results and talk go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    /// Output as the options ask for.
    pub fn new(global: &Global) -> Self {
        Self { format: global.format, quiet: global.quiet }
    }

    /// Whether results are printed as JSON.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints rows under headers, or the same values as JSON.
    ///
    /// # Errors
    /// [`Failure`] when stdout is gone.
    pub fn rows<T: Serialize>(self, headers: &[&str], rows: &[T], cells: impl Fn(&T) -> Vec<String>) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(&rows);
        }
        if rows.is_empty() {
            self.say("none");
            return Ok(());
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(headers.iter().map(|h| h.to_uppercase()));
        for row in rows {
            table.add_row(cells(row));
        }
        if let Some(first) = table.column_mut(0) {
            first.set_padding((0, 1));
        }
        self.line(&table.trim_fmt())
    }

    /// Prints one result as lines of name and value, or as a JSON object.
    ///
    /// # Errors
    /// [`Failure`] when stdout is gone.
    pub fn record<T: Serialize>(self, value: &T, fields: &[(&str, String)]) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(value);
        }
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, text) in fields {
            self.line(&format!("{name:width$}  {text}"))?;
        }
        Ok(())
    }

    /// Prints a value as JSON whatever the format.
    ///
    /// # Errors
    /// [`Failure`] when stdout is gone.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(value).map_err(|error| Failure::failed(format!("cannot print the result as JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints a line of the result.
    ///
    /// # Errors
    /// [`Failure`] when stdout is gone.
    pub fn line(self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes(), true)
    }

    /// Prints bytes as they are, with a line break after them when asked.
    ///
    /// # Errors
    /// [`Failure`] when stdout is gone.
    pub fn bytes(self, bytes: &[u8], line_break: bool) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written =
            stdout.write_all(bytes).and_then(|()| if line_break { stdout.write_all(b"\n") } else { Ok(()) }).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::unwritten(&error))
    }

    /// Says something to the person, unless they asked for quiet.
    pub fn say(self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }
}
