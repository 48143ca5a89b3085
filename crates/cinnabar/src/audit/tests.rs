//! What was done to a file is named.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use cli::{
    Failure,
    audit_file::{AUDIT_EXPORT_FORMAT, AuditBegin, AuditCutLine, AuditEnd, AuditEntryLine, AuditLine, AuditSignerLine},
};
use consensus::{AuditCut, audit_head_signing_bytes};
use feed::SigningKey;
use runtime::OsEntropy;
use state::{AuditEntry, AuditOutcome, AuditPrincipal, CommandKind, Origin};
use types::{ClusterId, Hash, LogIndex, NodeId, Position, UnixMillis};

use super::check::{Checked, Checker};

const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);
const NODE: NodeId = NodeId::new(7);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn line(stored: &Bytes) -> AuditEntryLine {
    control::exported_audit_entry(stored).unwrap().into()
}

/// Entries in a chain, the first of this number and going on from `previous`.
fn chain(from: u64, to: u64, mut previous: Hash) -> Vec<AuditEntryLine> {
    let entry = |sequence| {
        let entry = AuditEntry {
            sequence,
            previous,
            index: LogIndex::new(sequence + 100),
            time: UnixMillis::new(1_700_000_000_000 + sequence),
            principal: AuditPrincipal::System,
            action: CommandKind::CreateAccount,
            target: Default::default(),
            outcome: AuditOutcome::Done { position: Position::default() },
            request: None,
            origin: Origin::default(),
            detail: None,
        };
        let stored = entry.encode();
        previous = AuditEntry::hash_of(&stored);
        line(&stored)
    };
    (from..=to).map(entry).collect()
}

/// An entry that says something else, with everything about itself put right.
fn changed(entry: &AuditEntryLine) -> AuditEntryLine {
    let stored = BASE64.decode(entry.stored.as_ref().unwrap()).unwrap();
    let mut entry = AuditEntry::decode(&stored).unwrap();
    entry.action = CommandKind::RevokeNode;
    line(&entry.encode())
}

struct Export {
    key: SigningKey,
    begin: AuditBegin,
    entries: Vec<AuditEntryLine>,
    end: Option<AuditEnd>,
}

impl Export {
    fn new(entries: Vec<AuditEntryLine>, cut: Option<AuditCut>) -> Self {
        let key = SigningKey::generate(&OsEntropy);
        let cut = cut.map(|cut| AuditCutLine {
            sequence: cut.sequence,
            hash: cut.hash.to_string(),
            index: cut.index.get(),
            time_ms: cut.time.get(),
            node: NODE.get(),
            signature: hex(&key.sign_bytes(&cut.signing_bytes(CLUSTER, NODE))),
        });
        let begin = AuditBegin {
            format: AUDIT_EXPORT_FORMAT,
            cluster: CLUSTER.to_string(),
            node: NODE.get(),
            node_name: "control-7".into(),
            held_from: entries[0].sequence,
            whole: true,
            cut,
            signers: vec![AuditSignerLine { node: NODE.get(), key: hex(&key.public()) }],
        };
        let mut export = Self { key, begin, entries, end: None };
        export.sign();
        export
    }

    /// Writes the last line, as the node would.
    fn sign(&mut self) {
        let (first, last) = (&self.entries[0], &self.entries[self.entries.len() - 1]);
        let bytes = audit_head_signing_bytes(
            CLUSTER,
            NODE,
            (first.sequence, first.previous.parse().unwrap()),
            (last.sequence, last.hash.parse().unwrap()),
        );
        self.end = Some(AuditEnd {
            sequence: last.sequence,
            hash: last.hash.clone(),
            signature: hex(&self.key.sign_bytes(&bytes)),
            entries: self.entries.len() as u64,
        });
    }

    fn check(&self, checker: Checker) -> Result<Checked, Failure> {
        let begin = AuditLine::Begin(self.begin.clone());
        let entries = self.entries.iter().cloned().map(AuditLine::Entry);
        let lines = [begin].into_iter().chain(entries).chain(self.end.clone().map(AuditLine::End));
        let text: Vec<String> = lines.map(|line| serde_json::to_string(&line).unwrap()).collect();
        super::read(text.join("\n").as_bytes(), checker, "a test")
    }

    fn faults(&self) -> Vec<String> {
        self.check(Checker::new(None, Vec::new())).unwrap().faults
    }

    /// The one fault, which must have this in it; the signature at the end may be another.
    #[track_caller]
    fn names(&self, what: &str) {
        let mut faults = self.faults();
        faults.retain(|fault| !fault.contains("is not signed by") && !fault.contains("is not the one that the last line names"));
        assert!(faults.len() == 1 && faults[0].contains(what), "{what}: {faults:?}");
    }
}

fn export() -> Export {
    Export::new(chain(1, 20, Hash::ZERO), None)
}

#[test]
fn export_that_nobody_touched_is_whole_and_the_noted_head_is_found_in_it() {
    let export = export();
    let noted = (15, export.entries[14].hash.parse().unwrap());
    let pinned = vec![(NODE, export.key.public())];
    let checked = export.check(Checker::new(Some(noted), pinned)).unwrap();
    assert_eq!((checked.faults, checked.not_checked), (vec![], vec![]));
    assert_eq!((checked.entries, checked.first, checked.last.unwrap().0), (20, 1, 20));
}

#[test]
fn entries_that_were_removed_changed_moved_or_doubled_are_named() {
    let at = |change: fn(&mut Vec<AuditEntryLine>)| {
        let mut export = export();
        change(&mut export.entries);
        export
    };
    at(|entries| drop(entries.remove(7))).names("entry 8 is missing: removed");
    at(|entries| drop(entries.drain(7..10))).names("the entries 8 to 10 are missing");
    at(|entries| drop(entries.remove(0))).names("entry 1 is missing: removed");
    at(|entries| entries.truncate(17)).names("the entries 18 to 20 are missing at the end");
    at(|entries| entries.insert(9, entries[4].clone())).names("entry 5 stands here once more");
    at(|entries| entries.swap(4, 9)).faults().iter().for_each(|fault| assert!(fault.contains("was moved"), "{fault}"));
    assert!(!at(|entries| entries.swap(4, 9)).faults().is_empty());
    let moved = at(|entries| {
        let entry = entries.remove(3);
        entries.insert(12, entry);
    });
    moved.names("entry 4 was moved: it stands behind entry 13");
    // What people read, what is stored, and both, with the entry's own hash put right.
    at(|entries| entries[5].action = "delete-store".into()).names("entry 6 was changed: what can be read");
    at(|entries| entries[5].hash = "0".repeat(64)).names("entry 6 was changed");
    at(|entries| entries[5].stored = Some("AAAA".into())).names("entry 6 was changed: its stored bytes do not read");
    at(|entries| entries[5] = changed(&entries[5])).names("entry 6 was changed: entry 7 does not go on from it");
    at(|entries| entries[18] = changed(&entries[18])).names("entry 20 does not go on from entry 19: one of them was changed");
    let last = at(|entries| entries[19] = changed(&entries[19])).faults();
    assert!(last.iter().any(|fault| fault.contains("the last entry, 20, is not the one that the last line names")), "{last:?}");
}

#[test]
fn log_that_was_cut_short_or_made_anew_is_found_by_what_was_noted_elsewhere() {
    let whole = export();
    let noted = (18, whole.entries[17].hash.parse().unwrap());
    // Somebody who has the node's key cuts the log short, or writes it anew: only the noted head tells.
    let mut short = export();
    short.entries.truncate(10);
    short.sign();
    assert!(short.faults().is_empty());
    let faults = short.check(Checker::new(Some(noted), Vec::new())).unwrap().faults;
    assert!(faults.len() == 1 && faults[0].contains("the entries 11 to 18 are missing at the end"), "{faults:?}");
    let mut anew = export();
    anew.entries = chain(1, 4, Hash::ZERO);
    let fifth = changed(&chain(1, 5, Hash::ZERO)[4]);
    let rest = chain(6, 20, fifth.hash.parse().unwrap());
    anew.entries.extend([fifth].into_iter().chain(rest));
    anew.sign();
    assert!(anew.faults().is_empty());
    let faults = anew.check(Checker::new(Some(noted), Vec::new())).unwrap().faults;
    assert!(faults.len() == 1 && faults[0].contains("entry 18 is not the one of --head"), "{faults:?}");
    // Who has not the key is found out by it, once it is known from elsewhere.
    let pinned = vec![(NODE, whole.key.public())];
    let faults = anew.check(Checker::new(None, pinned)).unwrap().faults;
    assert!(faults.len() == 1 && faults[0].contains("not signed by node 7"), "{faults:?}");
    let cut_off = Export { end: None, ..export() }.faults();
    assert!(cut_off.len() == 1 && cut_off[0].contains("cut off"), "{cut_off:?}");
}

#[test]
fn log_that_was_cut_for_its_age_goes_on_from_the_signed_record() {
    let before = chain(1, 8, Hash::ZERO);
    let hash: Hash = before[7].hash.parse().unwrap();
    let cut = AuditCut { sequence: 8, hash, index: LogIndex::new(108), time: UnixMillis::new(5), signature: None };
    let mut export = Export::new(chain(9, 20, hash), Some(cut));
    let checked = export.check(Checker::new(None, vec![(NODE, export.key.public())])).unwrap();
    assert!(checked.faults.is_empty() && checked.checked.iter().any(|done| done.contains("the cut at entry 8 is signed by node 7")));
    // More was removed than the record says, and the record was changed to say so.
    export.entries.remove(0);
    assert!(export.faults().iter().any(|fault| fault.contains("entry 9 is missing")));
    export.begin.held_from = 10;
    let record = export.begin.cut.as_mut().unwrap();
    (record.sequence, record.hash) = (9, export.entries[0].previous.clone());
    assert!(export.faults().iter().any(|fault| fault.contains("the cut at entry 9 is not signed")));
    assert!(export.faults().iter().any(|fault| fault.contains("where the entries begin and end is not signed")));
}

#[test]
fn file_that_is_no_whole_export_is_refused_as_such() {
    let part = Export { begin: AuditBegin { whole: false, ..export().begin }, ..export() };
    assert_eq!(part.check(Checker::new(None, Vec::new())).err().unwrap().code(), 2);
    let newer = Export { begin: AuditBegin { format: 2, ..export().begin }, ..export() };
    assert_eq!(newer.check(Checker::new(None, Vec::new())).err().unwrap().code(), 2);
    for text in ["", "nonsense", "{}"] {
        assert_eq!(super::read(text.as_bytes(), Checker::new(None, Vec::new()), "a test").err().unwrap().code(), 2);
    }
}
