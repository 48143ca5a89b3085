//! The lines of an export, one after the other, against what they say of each other.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use cli::{
    Failure,
    audit_file::{AUDIT_EXPORT_FORMAT, AuditBegin, AuditEnd, AuditEntryLine, AuditLine},
};
use consensus::{AuditCut, CutSignature, audit_head_signing_bytes};
use state::AuditEntry;
use types::{ClusterId, Hash, LogIndex, NodeId, UnixMillis};

/// Gaps that are remembered until their entries turn up elsewhere.
const GAPS_MAX: usize = 10_000;

/// What came of a check.
pub(super) struct Checked {
    pub(super) begin: AuditBegin,
    pub(super) entries: u64,
    pub(super) first: u64,
    pub(super) last: Option<(u64, Hash)>,
    pub(super) signed_by: Option<String>,
    pub(super) checked: Vec<String>,
    pub(super) not_checked: Vec<String>,
    pub(super) faults: Vec<String>,
}

/// An entry that has been read.
#[derive(Clone, Copy)]
struct Link {
    sequence: u64,
    previous: Hash,
    hash: Hash,
}

/// Takes lines in the order of the file.
pub(super) struct Checker {
    /// What the operator noted: this entry has this hash.
    noted: Option<(u64, Hash)>,
    /// Whose keys the operator believes; none: those that the file names.
    pinned: Vec<(NodeId, [u8; 32])>,
    begin: Option<AuditBegin>,
    end: Option<AuditEnd>,
    lines: u64,
    entries: u64,
    /// The first of the row.
    first: Option<Link>,
    /// The one with the highest sequence so far.
    last: Option<Link>,
    /// One that does not go on from the one before it, while it is not known which of both was changed.
    broken: Option<Link>,
    /// Whether the last one did not read, so that nothing can be said of how the next goes on.
    unread: bool,
    /// Sequences that were passed over, from and to.
    gaps: BTreeMap<u64, u64>,
    /// Entries that were named already, each of which would break the chain once more.
    named: BTreeSet<u64>,
    noted_seen: Option<Hash>,
    faults: Vec<String>,
}

/// Bytes of a fixed length in hex.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes?.try_into().ok()
}

impl Checker {
    pub(super) fn new(noted: Option<(u64, Hash)>, pinned: Vec<(NodeId, [u8; 32])>) -> Self {
        Self {
            noted,
            pinned,
            begin: None,
            end: None,
            lines: 0,
            entries: 0,
            first: None,
            last: None,
            broken: None,
            unread: false,
            gaps: BTreeMap::new(),
            named: BTreeSet::new(),
            noted_seen: None,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, text: impl Into<String>) {
        let line = self.lines;
        self.faults.push(format!("line {line}: {}", text.into()));
    }

    fn name(&mut self, sequence: u64, text: impl Into<String>) {
        if self.named.insert(sequence) {
            self.fault(text);
        }
    }

    /// Takes the next line.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.lines += 1;
        let parsed: Result<AuditLine, _> = serde_json::from_slice(line);
        match parsed {
            Ok(AuditLine::Begin(begin)) if self.lines == 1 => {
                if begin.format != AUDIT_EXPORT_FORMAT {
                    return Err(Failure::usage(format!(
                        "the file is of format {}; this build reads {AUDIT_EXPORT_FORMAT}: take the one that wrote it",
                        begin.format
                    )));
                }
                if !begin.whole {
                    return Err(Failure::usage(
                        "entries were left out of this file, by a filter or for what its reader may not see: only a whole export can be verified",
                    ));
                }
                self.begin = Some(begin);
            }
            _ if self.begin.is_none() => {
                return Err(Failure::usage("this is no file that `cinnabar audit export` wrote: its first line does not read"));
            }
            Ok(AuditLine::Entry(entry)) => self.entry(entry),
            Ok(AuditLine::End(end)) if self.end.is_none() => self.end = Some(end),
            Ok(AuditLine::Begin(_) | AuditLine::End(_)) => self.fault("a second beginning or end"),
            Err(_) => self.fault("it is no line of an export: changed, or cut off"),
        }
        Ok(())
    }

    fn entry(&mut self, line: AuditEntryLine) {
        self.entries += 1;
        let at = line.sequence;
        if self.end.is_some() {
            self.fault(format!("entry {at} stands behind the end"));
        }
        let stored = line.stored.as_ref().and_then(|text| BASE64.decode(text).ok()).map(Bytes::from);
        let read = stored.and_then(|stored| Some((AuditEntry::decode(&stored).ok()?, stored)));
        let Some((entry, stored)) = read else {
            self.name(at, format!("entry {at} was changed: its stored bytes do not read"));
            if let Some(last) = self.last.filter(|last| last.sequence + 1 == at) {
                self.settle(None);
                (self.last, self.unread) = (Some(Link { sequence: at, ..last }), true);
            }
            return;
        };
        let shown = control::exported_audit_entry(&stored).ok().map(AuditEntryLine::from);
        let link = Link { sequence: entry.sequence, previous: entry.previous, hash: AuditEntry::hash_of(&stored) };
        if entry.sequence != at {
            self.name(at, format!("entry {at} was changed: its stored bytes are of entry {}", entry.sequence));
        } else if shown.as_ref() != Some(&line) {
            self.name(at, format!("entry {at} was changed: what can be read of it is not what its stored bytes say"));
        }
        self.follow(link);
    }

    /// Takes the entry's place in the row.
    fn follow(&mut self, link: Link) {
        let Link { sequence, previous, hash } = link;
        if self.noted.is_some_and(|(noted, _)| noted == sequence) {
            self.noted_seen = Some(hash);
        }
        let Some(last) = self.last else {
            self.first = Some(link);
            self.last = Some(link);
            return self.begins(link);
        };
        if sequence <= last.sequence {
            match self.take_gap(sequence) {
                true => self.fault(format!("entry {sequence} was moved: it stands behind entry {}", last.sequence)),
                false => self.fault(format!("entry {sequence} stands here once more: doubled, or put in")),
            }
            return;
        }
        let unread = std::mem::take(&mut self.unread);
        if sequence > last.sequence + 1 {
            if self.gaps.len() < GAPS_MAX {
                self.gaps.insert(last.sequence + 1, sequence - 1);
            } else {
                self.fault(format!("the entries {} to {} are missing", last.sequence + 1, sequence - 1));
            }
            self.settle(None);
        } else if unread || previous == last.hash {
            self.settle(Some(true));
        } else {
            // The one before this, if it was broken itself, is the one that was changed; else the next tells.
            let settled = self.settle(Some(false));
            if !settled {
                self.broken = Some(link);
            }
        }
        self.last = Some(link);
    }

    /// Decides about an entry that did not go on from the one before it, now that it is known whether the one behind it goes on from it.
    /// Says whether there was one.
    fn settle(&mut self, goes_on: Option<bool>) -> bool {
        let Some(Link { sequence, .. }) = self.broken.take() else { return false };
        match goes_on {
            // It is itself what the next one knows, so the other was changed.
            Some(true) => self.name(sequence - 1, format!("entry {} was changed: entry {sequence} does not go on from it", sequence - 1)),
            Some(false) => self.name(sequence, format!("entry {sequence} was changed: it goes on from no entry, and none from it")),
            None => self.name(sequence, format!("entry {sequence} does not go on from entry {}: one of them was changed", sequence - 1)),
        }
        true
    }

    /// Whether a sequence was passed over; it is there now.
    fn take_gap(&mut self, sequence: u64) -> bool {
        let Some((&from, &to)) = self.gaps.range(..=sequence).next_back().filter(|(_, to)| **to >= sequence) else { return false };
        self.gaps.remove(&from);
        if from < sequence {
            self.gaps.insert(from, sequence - 1);
        }
        if sequence < to {
            self.gaps.insert(sequence + 1, to);
        }
        true
    }

    /// The first entry, against what is said of its beginning.
    fn begins(&mut self, link: Link) {
        let Some(begin) = &self.begin else { return };
        let Link { sequence, previous, .. } = link;
        let held = begin.held_from;
        match &begin.cut {
            Some(cut) if cut.sequence + 1 == sequence && cut.hash != previous.to_string() => {
                self.name(sequence, format!("entry {sequence} or the record of the cut before it was changed: it does not go on from it"));
            }
            _ if sequence == 1 && previous != Hash::ZERO => {
                self.name(1, "entry 1 was changed: it names one before it");
            }
            _ => {}
        }
        if sequence > held && held > 0 {
            self.gaps.insert(held, sequence - 1);
        }
    }

    /// All lines were taken.
    pub(super) fn end(mut self) -> Result<Checked, Failure> {
        let Some(begin) = self.begin.take() else {
            return Err(Failure::usage("the file is empty: `cinnabar audit export` writes at least two lines"));
        };
        self.settle(None);
        for (from, to) in std::mem::take(&mut self.gaps) {
            self.faults.push(match from == to {
                true => format!("entry {from} is missing: removed"),
                false => format!("the entries {from} to {to} are missing: removed"),
            });
        }
        let (mut checked, mut not_checked) =
            (vec!["each entry against its stored bytes".to_owned(), "the chain of hashes".to_owned()], Vec::new());
        let last = self.last.map(|last| (last.sequence, last.hash));
        let reached = last.map_or(0, |(sequence, _)| sequence);
        self.check_noted(reached, &mut checked, &mut not_checked);
        let signed_by = match self.end.take() {
            None => {
                self.faults.push(format!("the file ends behind entry {reached}, without its last line: cut off"));
                None
            }
            Some(end) => self.check_end(&begin, &end, last, &mut checked, &mut not_checked),
        };
        self.check_cut(&begin, &mut checked, &mut not_checked);
        let first = self.first.map_or(0, |first| first.sequence);
        Ok(Checked { begin, entries: self.entries, first, last, signed_by, checked, not_checked, faults: self.faults })
    }

    fn check_noted(&mut self, reached: u64, checked: &mut Vec<String>, not_checked: &mut Vec<String>) {
        match (self.noted, self.noted_seen) {
            (None, _) => not_checked.push("the end against what was noted elsewhere (--head)".to_owned()),
            (Some((sequence, hash)), Some(seen)) if seen == hash => checked.push(format!("entry {sequence} is the one of --head")),
            (Some((sequence, _)), Some(_)) => self.faults.push(format!("entry {sequence} is not the one of --head: this is another log")),
            (Some((sequence, _)), None) if sequence > reached => {
                self.faults.push(format!("the entries {} to {sequence} are missing at the end: the log was cut short", reached + 1));
            }
            (Some((sequence, _)), None) => {
                self.faults.push(format!("entry {sequence}, which --head names, is not in the file"));
            }
        }
    }

    /// Whose signature it is, if it is good.
    fn verifies(&self, begin: &AuditBegin, node: NodeId, bytes: &[u8], signature: &[u8; 64]) -> Option<String> {
        let from_file = begin.signers.iter().filter_map(|one| Some((NodeId::new(one.node), hex(&one.key)?)));
        let keys: Vec<(NodeId, [u8; 32])> = if self.pinned.is_empty() { from_file.collect() } else { self.pinned.clone() };
        let (_, key) = keys.into_iter().find(|(of, key)| *of == node && feed::verifies(key, bytes, signature))?;
        Some(format!("{node}:{}", key.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
    }

    fn check_end(
        &mut self,
        begin: &AuditBegin,
        end: &AuditEnd,
        last: Option<(u64, Hash)>,
        checked: &mut Vec<String>,
        not_checked: &mut Vec<String>,
    ) -> Option<String> {
        let last = last.unwrap_or((0, Hash::ZERO));
        if end.sequence > last.0 {
            self.faults.push(format!("the entries {} to {} are missing at the end: removed", last.0 + 1, end.sequence));
        } else if (end.sequence, end.hash.as_str()) != (last.0, last.1.to_string().as_str()) {
            self.faults.push(format!("the last entry, {}, is not the one that the last line names: changed or put in", last.0));
        }
        let (Ok(cluster), Some(signature)) = (begin.cluster.parse::<ClusterId>(), hex::<64>(&end.signature)) else {
            self.faults.push("the last line has no signature that reads".to_owned());
            return None;
        };
        let first = self.first.map_or((0, Hash::ZERO), |first| (first.sequence, first.previous));
        let node = NodeId::new(begin.node);
        let said = (end.sequence, end.hash.parse().unwrap_or(Hash::ZERO));
        let by = self.verifies(begin, node, &audit_head_signing_bytes(cluster, node, first, said), &signature);
        match &by {
            None => self.faults.push(format!("where the entries begin and end is not signed by node {node}, or not with its key")),
            Some(_) => checked.push(format!("beginning and end are signed by node {node}")),
        }
        if self.pinned.is_empty() {
            not_checked.push("whether the signer's key is the cluster's: it is the file that names it (--signer)".to_owned());
        }
        by
    }

    fn check_cut(&mut self, begin: &AuditBegin, checked: &mut Vec<String>, not_checked: &mut Vec<String>) {
        let first = self.first.map_or(0, |first| first.sequence);
        let Some(cut) = &begin.cut else {
            if first > 1 {
                not_checked.push(format!("what came before entry {first}: the node became a member later, or began with it in time"));
            }
            return;
        };
        let signature = hex(&cut.signature).map(|signature| CutSignature { node: NodeId::new(cut.node), signature });
        let (Ok(hash), Ok(cluster)) = (cut.hash.parse(), begin.cluster.parse::<ClusterId>()) else {
            return self.faults.push("the record of the cut does not read: changed".to_owned());
        };
        let record =
            AuditCut { sequence: cut.sequence, hash, index: LogIndex::new(cut.index), time: UnixMillis::new(cut.time_ms), signature };
        match record.verify(cluster, |node, bytes, signature| self.verifies(begin, node, bytes, signature).is_some()) {
            Ok(()) => checked.push(format!("the record of the cut at entry {} is signed by node {}", cut.sequence, cut.node)),
            Err(fault) => self.faults.push(fault.to_string()),
        }
    }
}
