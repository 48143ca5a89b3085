//! Going through the log, from either end, in bounded steps.

use std::sync::Arc;

use bytes::Bytes;
use consensus::AuditLog;
use state::AuditEntry;
use store::LogError;
use types::UnixMillis;

/// Entries that are read from the disk at a time.
const STEP: u64 = 64;
/// Stored bytes that one call looks at, and stored bytes of what it returns: a message shows an entry in about twice as many.
const SEEN_BYTES_MAX: usize = 4 << 20;
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Where to look, and how far.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Entries of this time or later.
    pub(crate) since: Option<UnixMillis>,
    /// Entries before this time.
    pub(crate) before: Option<UnixMillis>,
    /// Entries behind this sequence, in the direction of the look.
    pub(crate) cursor: Option<u64>,
    pub(crate) newest_first: bool,
    /// At most so many.
    pub(crate) limit: usize,
}

/// What was found.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where to go on; none at the end.
    pub(crate) next: Option<u64>,
    /// The first entry that this node has; 0 for none.
    pub(crate) held_from: u64,
    /// Entries, from and to, that this node lacks among those that were looked at.
    pub(crate) missing: Vec<(u64, u64)>,
}

/// Looks at entries until there are enough of those for which `keep` has something, or enough were looked at. Blocks.
pub(crate) fn scan<T>(
    log: &AuditLog,
    span: &Span,
    mut keep: impl FnMut(AuditEntry, &Bytes) -> Option<T>,
) -> Result<Page<T>, Arc<LogError>> {
    log.settle().map_err(|error| LogError::Damaged { file: "audit".into(), offset: 0, detail: error.to_string() })?;
    let (first, end) = log.bounds();
    let held_from = if first < end { first } else { 0 };
    let mut page = Page { items: Vec::new(), next: None, held_from, missing: Vec::new() };
    let mut low = span.since.map_or(Ok(first), |since| log.seek(since))?.max(first);
    let mut high = span.before.map_or(Ok(end), |before| log.seek(before))?.min(end);
    match span.cursor {
        Some(cursor) if span.newest_first => high = high.min(cursor),
        Some(cursor) => low = low.max(cursor.saturating_add(1)),
        None => {}
    }
    let (mut seen_bytes, mut kept_bytes) = (0, 0);
    while low < high {
        let mut entries = match span.newest_first {
            true => log.read_last(low..high, STEP)?,
            false => log.read(low..high.min(low.saturating_add(STEP)), usize::MAX)?,
        };
        if entries.is_empty() && !span.newest_first {
            // A gap that is longer than a step.
            entries = log.read(low..high, 1)?;
        }
        if entries.is_empty() {
            page.missing.push((low, high - 1));
            break;
        }
        if span.newest_first {
            entries.reverse();
        }
        for (sequence, stored) in entries {
            let gap = if span.newest_first { (sequence + 1, high) } else { (low, sequence) };
            if gap.0 < gap.1 {
                page.missing.push((gap.0, gap.1 - 1));
            }
            match span.newest_first {
                true => high = sequence,
                false => low = sequence + 1,
            }
            seen_bytes += stored.len();
            let entry = AuditEntry::decode(&stored).map_err(|error| LogError::Damaged {
                file: "audit".into(),
                offset: 0,
                detail: format!("entry {sequence}: {error}"),
            })?;
            if let Some(item) = keep(entry, &stored) {
                kept_bytes += stored.len();
                page.items.push(item);
            }
            if page.items.len() >= span.limit || seen_bytes >= SEEN_BYTES_MAX || kept_bytes >= KEPT_BYTES_MAX {
                page.next = (low < high).then_some(sequence);
                return Ok(page);
            }
        }
    }
    Ok(page)
}
