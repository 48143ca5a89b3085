//! What `state` reads: commands, change sets, records, statements, audit entries, keys, whole states.

use std::sync::OnceLock;

use bytes::Bytes;
use state::{
    AckStatement, AuditEntry, ChangeSet, CheckpointStatement, Command, GenerationStatement, Key, SealStatement, Signed, SignedGeneration,
    State, Statement, record, statement::ArchiveStatement,
};
use types::{ChainId, ClusterId, Generation, Hash, LogIndex, NodeId, Position, Revision, SealedValue, UnixMillis};

use super::{Seen, Target, reread};

pub(super) const TARGETS: &[Target] = &[
    Target::new("command", &["state/src/command.rs", "state/src/format.rs"], || history().commands.clone(), command),
    Target::new("change_set", &["state/src/change_set.rs"], || history().change_sets.clone(), change_set),
    Target::new("record", &["state/src/format.rs", "state/src/propagated/readers.rs"], records, record),
    Target::new("key", &["state/src/key.rs", "state/src/key/codec.rs"], keys, key),
    Target::new(
        "audit_entry",
        &["state/src/format.rs", "state/src/audit.rs", "consensus/src/audit/parts.rs"],
        || history().audit.clone(),
        audit_entry,
    ),
    Target::new("statement", &["state/src/statement.rs", "state/src/generation.rs"], statements, statement),
    Target::new("state", &["state/src/state/load.rs"], states, state).up_to(24 << 10, 4 << 20),
    Target::new("sealed_value", &["types/src/sealed.rs"], || vec![sealed()], sealed_value),
];

/// What the golden logs of all levels lead to.
pub(super) struct History {
    pub(super) commands: Vec<Vec<u8>>,
    pub(super) change_sets: Vec<Vec<u8>>,
    audit: Vec<Vec<u8>>,
    /// Key and value of every record that ever was.
    records: Vec<(Key, Bytes)>,
    pub(super) states: Vec<State>,
}

/// Replays the golden logs, once.
pub(super) fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let mut history =
            History { commands: Vec::new(), change_sets: Vec::new(), audit: Vec::new(), records: Vec::new(), states: Vec::new() };
        for log in [
            &include_bytes!("../../../crates/state/tests/fixtures/level-1.log")[..],
            &include_bytes!("../../../crates/state/tests/fixtures/level-2.log")[..],
            &include_bytes!("../../../crates/state/tests/fixtures/level-3.log")[..],
        ] {
            history.replay(log);
        }
        history
    })
}

impl History {
    fn replay(&mut self, mut log: &[u8]) {
        let (mut state, mut index) = (State::empty(), 0);
        while let Some((length, rest)) = log.split_first_chunk() {
            let (bytes, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            let command = Command::decode(bytes).expect("the golden log decodes");
            index += 1;
            let applied = state.apply(LogIndex::new(index), &command).expect("the golden log applies");
            self.commands.push(bytes.to_vec());
            self.change_sets.extend(applied.change_set.map(|set| set.encoded().to_vec()));
            self.audit.extend(applied.audit.map(|entry| entry.encode().to_vec()));
            self.records.extend(state.records().filter(|record| !self.records.contains(record)).collect::<Vec<_>>());
            if index % 12 == 0 {
                self.states.push(state.clone());
            }
            log = rest;
        }
    }
}

fn command(bytes: &[u8]) -> Seen {
    let seen = reread(bytes, Command::decode, |command| command.encode().to_vec(), "command");
    match (seen, Command::decode(bytes)) {
        (Seen::Read(_), Ok(command)) => {
            // What is printed of a command must not depend on it being sane either.
            Seen::Read(format!("{} {command:?} {}", command.body.kind(), apply(&command)))
        }
        (seen, _) => seen,
    }
}

/// A log holds what a proposer wrote: any command that decodes must be judged on any state without a panic.
fn apply(command: &Command) -> String {
    let Some(mut state) = history().states.first().cloned() else { return String::new() };
    match state.apply(LogIndex::new(1000), command) {
        Ok(applied) => match applied.result {
            Ok(_) => "applied".to_owned(),
            Err(refusal) => format!("{}: {}", refusal.kind, refusal.message),
        },
        Err(halt) => halt.to_string(),
    }
}

fn change_set(bytes: &[u8]) -> Seen {
    let decode = |bytes: &[u8]| ChangeSet::decode(Bytes::copy_from_slice(bytes));
    let seen =
        reread(bytes, decode, |set| ChangeSet::from_claims(set.header, set.changes.clone(), set.hash).encoded().to_vec(), "change set");
    let (Ok(set), Seen::Read(_)) = (decode(bytes), &seen) else { return seen };
    let mut propagated = state::Propagated::empty();
    match propagated.accept(&set) {
        Ok(_) => Seen::Read(format!("accepted, {} changes", set.changes.len())),
        Err(error) => Seen::Read(format!("{error}")),
    }
}

/// The types of records; the first byte of an input chooses.
macro_rules! kinds {
    ($($kind:ty,)*) => {
        /// The types of records that are fuzzed, by their names in `state`.
        pub fn record_kinds() -> &'static [&'static str] {
            &[$(stringify!($kind)),*]
        }

        const KINDS: &[fn(&[u8]) -> Seen] = &[
            $(|bytes| reread(bytes, <$kind>::decode, |record| record.encode().to_vec(), stringify!($kind)),)*
        ];
    };
}

kinds! {
    record::SettingsRecord, record::NodeRecord, record::SignerSetRecord, record::GenerationRecord, record::AuthorityRecord,
    record::RecoveryRecord, record::JoinTokenRecord, record::HeadRecord, record::OperatorTokenRecord, record::AuditHeadRecord,
    record::RequestRecord, record::RequestAgeRecord, record::JobRecord, record::UsageRecord, record::TotalsRecord,
    record::ConsumerUsageRecord, record::KekEpochRecord, record::DekRecord, record::EnvelopeRecord, record::AccountRecord,
    record::StoreRecord, record::SecretRecord, record::ValueRecord, record::ConsumerRecord, record::ConsumerTokenRecord,
    record::BindingRecord, record::TrustRecord, record::CertifiedRecord, record::MemberRecord, record::TokenTermsRecord,
    record::LimitsRecord, record::HoldingsRecord, record::DeletedRecord, record::ReminderRecord,
}

/// Every record as the kinds that read it. A value's bytes fit several kinds; each of them is a seed.
fn records() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (number, read) in KINDS.iter().enumerate() {
        let fitting = history().records.iter().filter(|(_, value)| matches!(read(value), Seen::Read(_)));
        seeds.extend(fitting.take(8).map(|(_, value)| [&[number as u8][..], value].concat()));
    }
    seeds
}

fn record(bytes: &[u8]) -> Seen {
    match bytes.split_first() {
        Some((kind, bytes)) => KINDS[usize::from(*kind) % KINDS.len()](bytes),
        None => Seen::Refused("empty".into()),
    }
}

fn keys() -> Vec<Vec<u8>> {
    history().records.iter().map(|(key, _)| key.as_bytes().to_vec()).collect()
}

fn key(bytes: &[u8]) -> Seen {
    let seen = reread(bytes, |bytes| Key::from_bytes(bytes).decode(), |key| key.encode().as_bytes().to_vec(), "key");
    if let Ok(key) = Key::from_bytes(bytes).decode() {
        assert_eq!(key.encode().as_bytes(), bytes, "a key has one form");
        return Seen::Read(format!("{:?}", Key::from_bytes(bytes).keyspace()));
    }
    // Shown all the same, in errors.
    let _ = format!("{:?}", Key::from_bytes(bytes));
    seen
}

fn audit_entry(bytes: &[u8]) -> Seen {
    let _ = AuditEntry::hash_of(bytes);
    reread(bytes, AuditEntry::decode, |entry| entry.encode().to_vec(), "audit entry")
}

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
pub(super) const AT: Position = Position::new(Generation::new(1), Revision::new(9));

fn signed<T: Statement>(statement: T) -> Vec<u8> {
    Signed { statement, signer: NodeId::new(1), signer_set: 1, signature: [5; 64] }.encode().to_vec()
}

pub(super) fn seal() -> Vec<u8> {
    signed(SealStatement { cluster: CLUSTER, chain: ChainId::new(0), position: AT, chain_hash: Hash::ZERO, state_root: Hash::ZERO })
}

pub(super) fn generation() -> Vec<u8> {
    let statement = GenerationStatement {
        cluster: CLUSTER,
        chain: ChainId::new(0),
        begins: AT,
        restored: AT,
        restored_hash: Hash::ZERO,
        chain_hash: Hash::ZERO,
        state_root: Hash::ZERO,
        signer_set: 1,
        signer_set_hash: Hash::ZERO,
    };
    SignedGeneration { statement, signature: [5; 64] }.encode().to_vec()
}

fn statements() -> Vec<Vec<u8>> {
    let (cluster, chain, position, chain_hash) = (CLUSTER, ChainId::new(0), AT, Hash::ZERO);
    let acknowledged = AckStatement { cluster, chain, position, chain_hash, node: NodeId::new(3) };
    let archive = ArchiveStatement { cluster, chain, position, chain_hash, state_root: Hash::ZERO, header: Hash::ZERO };
    vec![seal(), signed(acknowledged), signed(archive), checkpoint(), generation()]
}

fn checkpoint() -> Vec<u8> {
    let (chain_hash, state_root, time) = (Hash::ZERO, Hash::ZERO, UnixMillis::new(77));
    signed(CheckpointStatement { cluster: CLUSTER, chain: ChainId::new(0), position: AT, chain_hash, state_root, time })
}

fn statement(bytes: &[u8]) -> Seen {
    fn of<T: Statement>(bytes: &[u8]) -> Seen {
        reread(bytes, Signed::<T>::decode, |signed| signed.encode().to_vec(), "statement")
    }
    let all = [
        of::<SealStatement>(bytes),
        of::<CheckpointStatement>(bytes),
        of::<AckStatement>(bytes),
        of::<ArchiveStatement>(bytes),
        reread(bytes, SignedGeneration::decode, |signed| signed.encode().to_vec(), "generation"),
    ];
    let read = all.iter().position(|seen| matches!(seen, Seen::Read(_)));
    match read {
        Some(which) => Seen::Read(["seal", "checkpoint", "acknowledgement", "archive", "generation"][which].to_owned()),
        None => Seen::Refused(format!("{:?}", all[0])),
    }
}

/// Whole states as records in a row: length of key 2, key, length of value 4, value.
fn states() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for state in &history().states {
        let mut bytes = Vec::new();
        for (key, value) in state.records() {
            bytes.extend_from_slice(&(key.as_bytes().len() as u16).to_be_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&value);
        }
        seeds.push(bytes);
    }
    seeds.retain(|seed| seed.len() < 24 << 10);
    seeds
}

fn state(mut bytes: &[u8]) -> Seen {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((key, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { break };
        let Some((length, rest)) = rest.split_first_chunk() else { break };
        let Some((value, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        records.push((Key::from_bytes(key), Bytes::copy_from_slice(value)));
        bytes = rest;
    }
    match State::from_records(records) {
        Ok(state) => {
            let again = State::from_records(state.records()).expect("a state's own records are a state");
            assert_eq!(again.state_root(), state.state_root());
            Seen::Read(format!("{} records", state.record_count()))
        }
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn sealed() -> Vec<u8> {
    [&[1][..], &[9; 12], b"ciphertext", &[3; 16]].concat()
}

fn sealed_value(bytes: &[u8]) -> Seen {
    let seen = reread(bytes, |bytes| SealedValue::from_bytes(bytes.to_vec()), |value| value.as_bytes().to_vec(), "sealed value");
    if let Ok(value) = SealedValue::from_bytes(bytes.to_vec()) {
        assert_eq!(value.plaintext_len() + 29, bytes.len());
        assert_eq!(value.nonce().len() + value.ciphertext_and_tag().len() + 1, bytes.len());
    }
    seen
}
