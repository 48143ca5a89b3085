//! Opening a table at start: all of it is read, and what is damaged is moved aside.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use seams::{Table, TableError};

use super::{
    SledOptions, SledTable, failed,
    sled::{beside, live_bytes_of, remove_folder, sync_parent, wait_until_free},
};
use crate::values::{SplitTable, ValueFiles};

/// After so many openings that did not end, because the process died in them, the folder is moved aside.
const UNENDED_OPENINGS_MAX: usize = 2;

/// So many damaged folders are kept for examination.
const DAMAGED_KEPT: usize = 2;

/// Sees each record of a scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), TableError> + 'a;

/// A folder that was moved aside.
#[derive(Debug)]
pub struct SetAside {
    /// Where it is now: `name.damaged-N`.
    pub folder: PathBuf,
    /// What was wrong with it.
    pub cause: TableError,
}

/// What [`open_or_set_aside`] found.
pub struct OpenedTable<T = SledTable> {
    /// The table: as it was, or new and empty.
    pub table: T,
    /// Present when the table was damaged. Then what was visited must be thrown away, and the table rebuilt.
    pub set_aside: Option<SetAside>,
}

/// Opens a table and reads all of it. On any failure, one that `visit` returns included, moves the folder aside and opens an
/// empty one in its place; the newest two such folders are kept.
///
/// sled takes some damage for a torn end, and falls back to an earlier state without a word. So a table that opens is a state that
/// once was, not surely the last one: callers keep their position in each batch, and replay from there, or rebuild when what
/// follows it is no longer in their log.
///
/// # Errors
/// [`TableError`] when not even an empty table can be opened, or when another process holds the folder: then nothing was moved.
pub fn open_or_set_aside(folder: &Path, options: SledOptions, visit: &mut Visit<'_>) -> Result<OpenedTable, TableError> {
    open(folder, options, None, visit)
}

/// As [`open_or_set_aside`], for a table whose large values are those of `values`: they are read after the records, and moved aside with
/// them.
///
/// # Errors
/// As of [`open_or_set_aside`].
pub fn open_split_or_set_aside(
    folder: &Path,
    options: SledOptions,
    values: &ValueFiles,
    visit: &mut Visit<'_>,
) -> Result<OpenedTable<SplitTable>, TableError> {
    let OpenedTable { table, set_aside } = open(folder, options, Some(values), visit)?;
    Ok(OpenedTable { table: SplitTable::new(Box::new(table), values.clone()), set_aside })
}

fn open(folder: &Path, options: SledOptions, values: Option<&ValueFiles>, visit: &mut Visit<'_>) -> Result<OpenedTable, TableError> {
    let marker = beside(folder, "opening");
    let unended = std::fs::read(&marker).map_or(0, |content| content.len());
    let cause = if unended >= UNENDED_OPENINGS_MAX {
        failed("open", format!("the process died {unended} times while it was opened"))
    } else {
        mark(&marker, unended + 1)?;
        match open_and_scan(folder, options.clone(), values, visit) {
            Ok(table) => {
                unmark(&marker)?;
                return Ok(OpenedTable { table, set_aside: None });
            }
            Err(Opening::Held(error)) => {
                // Not this folder's fault.
                unmark(&marker)?;
                return Err(error);
            }
            Err(Opening::Bad(cause)) => cause,
        }
    };
    let aside = set_aside(folder, values)?;
    tracing::error!(folder = %aside.display(), cause = &cause as &dyn std::error::Error, "moved a damaged table aside; it is rebuilt");
    unmark(&marker)?;
    let mut table = SledTable::open(folder, options)?;
    table.set_live_bytes(0);
    Ok(OpenedTable { table, set_aside: Some(SetAside { folder: aside, cause }) })
}

/// Moves the folder aside, whatever is in it, and opens an empty table in its place. The table that was open there has been dropped.
///
/// # Errors
/// [`TableError`] when no empty table can be opened.
pub fn open_anew(folder: &Path, options: SledOptions) -> Result<SledTable, TableError> {
    anew(folder, options, None)
}

/// As [`open_anew`], for a table whose large values are those of `values`.
///
/// # Errors
/// As of [`open_anew`].
pub fn open_split_anew(folder: &Path, options: SledOptions, values: &ValueFiles) -> Result<SplitTable, TableError> {
    Ok(SplitTable::new(Box::new(anew(folder, options, Some(values))?), values.clone()))
}

fn anew(folder: &Path, options: SledOptions, values: Option<&ValueFiles>) -> Result<SledTable, TableError> {
    let aside = set_aside(folder, values)?;
    tracing::error!(folder = %aside.display(), "moved a table aside; it is rebuilt");
    let mut table = SledTable::open(folder, options)?;
    table.set_live_bytes(0);
    Ok(table)
}

enum Opening {
    Held(TableError),
    Bad(TableError),
}

fn open_and_scan(folder: &Path, options: SledOptions, values: Option<&ValueFiles>, visit: &mut Visit<'_>) -> Result<SledTable, Opening> {
    // This process may have dropped the table a moment ago, and its writer is still at it.
    let _ = wait_until_free(folder);
    match super::sled::is_held(folder) {
        Ok(false) => {}
        Ok(true) => return Err(Opening::Held(failed("open", format!("another process holds {}", folder.display())))),
        Err(error) => return Err(Opening::Bad(error)),
    }
    let mut table = SledTable::open(folder, options).map_err(Opening::Bad)?;
    let mut live = 0;
    let counted = table.scan(&mut |key, value| {
        live += live_bytes_of(key, value);
        if values.is_some_and(|values| values.owns(key)) {
            return Err(failed("open", "a large value lies among the records"));
        }
        visit(key, value)
    });
    counted.map_err(Opening::Bad)?;
    values.map_or(Ok(()), |values| values.scan(visit)).map_err(Opening::Bad)?;
    table.set_live_bytes(live);
    Ok(table)
}

/// Writes down that an opening has begun, for the case that it does not end: one byte for each.
fn mark(marker: &Path, count: usize) -> Result<(), TableError> {
    let write = || {
        if let Some(parent) = marker.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut file = File::create(marker)?;
        file.write_all(&vec![b'x'; count])?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| TableError::Failed { operation: "mark the opening", source: Box::new(error) })?;
    sync_parent(marker)
}

fn unmark(marker: &Path) -> Result<(), TableError> {
    match std::fs::remove_file(marker) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TableError::Failed { operation: "end the opening", source: Box::new(error) })
        }
        _ => Ok(()),
    }
}

/// Renames the folder, moves the values into it, and removes the oldest that were moved before.
fn set_aside(folder: &Path, values: Option<&ValueFiles>) -> Result<PathBuf, TableError> {
    let failed_io = |error: std::io::Error| TableError::Failed { operation: "move aside", source: Box::new(error) };
    let prefix = beside(folder, "damaged-").file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = folder.parent().unwrap_or(Path::new("."));
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(failed_io)? {
        let name = entry.map_err(failed_io)?.file_name().to_string_lossy().into_owned();
        numbers.extend(name.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    for old in numbers.iter().rev().skip(DAMAGED_KEPT - 1) {
        remove_folder(&beside(folder, &format!("damaged-{old}")))?;
    }
    let aside = beside(folder, &format!("damaged-{}", numbers.last().copied().unwrap_or(0).saturating_add(1)));
    if folder.exists() {
        std::fs::rename(folder, &aside).map_err(failed_io)?;
        sync_parent(folder)?;
    }
    if let Some(values) = values {
        values.set_aside(&aside)?;
    }
    Ok(aside)
}
