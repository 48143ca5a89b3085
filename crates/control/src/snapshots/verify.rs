//! Verifying an archive: what can be said of it without a key, and with one.

use std::{collections::BTreeMap, io::Read};

use bytes::Bytes;
use feed::Anchor;
use seal::{ArchiveKey, ArchiveOpener, KekName, NodeKeyPair};
use state::{FormatError, Key, Keyspace, State, record, record::KekState};

use super::{
    ArchiveError, ArchiveReader,
    format::{self, Header, Recipient, RecordsHash},
};

/// Epochs that are read in one go.
const EPOCHS_AT_A_TIME: usize = 100;

/// What is known of an archive whose bytes are whole, and that nobody has opened: its header is as it stands there, signature
/// unverified.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it says of itself.
    pub header: Header,
    /// Its length.
    pub length: u64,
    /// How many chunks it has.
    pub chunks: u32,
}

/// Reads an archive to its end without a key: its structure, every checksum and the SHA-256 over all. Says nothing about what is
/// sealed inside, nor about who made it.
///
/// # Errors
/// [`ArchiveError::Damaged`] with the place; as of [`ArchiveReader::open`].
pub fn check(source: impl Read) -> Result<Checked, ArchiveError> {
    let mut reader = ArchiveReader::open(source)?;
    let mut chunks = 0;
    while reader.next_chunk()?.is_some() {
        chunks += 1;
    }
    Ok(Checked { header: reader.header().clone(), length: reader.length().unwrap_or_default(), chunks })
}

/// How much there is in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Accounts.
    pub accounts: u64,
    /// Stores.
    pub stores: u64,
    /// Secrets.
    pub secrets: u64,
    /// Sealed values: one for each version that is kept.
    pub values: u64,
    /// Bindings.
    pub bindings: u64,
    /// Nodes, revoked ones included.
    pub nodes: u64,
    /// Operators' tokens.
    pub operator_tokens: u64,
}

/// By what an archive has to show whose it is. That it agrees with itself shows nothing: who has no more than the public halves of a
/// cluster's keys can make one up whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The first signer set has this hash, as the founder of the cluster was shown it.
    Signers(Anchor),
    /// The holder of this recovery key (its Ed25519 public key) has signed the first signer set, or the generation.
    RecoveryKey([u8; 32]),
    /// By nothing: it may be of anybody.
    Unproven,
}

/// An archive that was opened and verified.
pub struct Opened {
    /// What it says of itself, verified.
    pub checked: Checked,
    /// The state.
    pub state: State,
    /// How much there is in it.
    pub contents: Contents,
    /// By whose envelope it was opened.
    pub opened_as: Recipient,
    /// The hash of the cluster's first signer set, on which the signature rests. An archive made up from nothing has another.
    pub anchor: Anchor,
    /// What shows that it is of the wanted cluster.
    pub origin: Origin,
}

/// Opens an archive with the recovery key's or a control node's opening key, and verifies all of it: seal, order and hash of the
/// records, that each record reads, the state root, and the signature by the signer sets inside, which have to begin as `origin`
/// demands.
///
/// # Errors
/// [`ArchiveError`]: every variant but the last three.
pub fn open(source: impl Read, key: &NodeKeyPair, origin: Origin) -> Result<Opened, ArchiveError> {
    let mut reader = ArchiveReader::open(source)?;
    let header = reader.header().clone();
    let (opened_as, archive_key) = unwrap(&header, key)?;
    let mut opener = ArchiveOpener::new(&archive_key, reader.header_hash());
    let (mut records, mut hash, mut chunks): (Vec<(Key, Bytes)>, _, _) = (Vec::new(), RecordsHash::default(), 0);
    let mut plain = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        opener.open(chunk.last, &chunk.sealed, &mut plain)?;
        chunks += 1;
        for (key, value) in format::records(&plain).ok_or(ArchiveError::Differs { what: "division into records" })? {
            hash.add(key, value);
            let key = Key::from_bytes(key);
            if records.last().is_some_and(|(before, _)| *before >= key) {
                return Err(ArchiveError::Differs { what: "order of records" });
            }
            records.push((key, Bytes::copy_from_slice(value)));
        }
    }
    let same = |same: bool, what| if same { Ok(()) } else { Err(ArchiveError::Differs { what }) };
    same(hash.records == header.records && hash.bytes == header.bytes, "count of records")?;
    same(hash.end() == header.records_hash, "hash of all records")?;
    let contents = read_each(&records)?;
    let state = State::from_records(records)?;
    let settings = state.settings()?.ok_or(ArchiveError::Empty)?;
    same(settings.cluster == header.cluster, "cluster")?;
    same(settings.feature_level == header.level, "feature level")?;
    same(state.position() == header.position && state.head().chain == header.chain, "position")?;
    same(state.chain_hash() == header.chain_hash, "chain hash")?;
    same(state.state_root() == header.state_root, "state root")?;
    same(state.applied_index() == header.applied && state.last_time() == header.time, "place in the log")?;
    let anchor = match origin {
        Origin::Signers(anchor) => Some(anchor),
        Origin::RecoveryKey(recovery) => {
            let anchor = feed::anchor_by_recovery_key(state.propagated(), header.cluster, recovery);
            Some(anchor.map_err(|fault| ArchiveError::Origin(Box::new(fault)))?)
        }
        Origin::Unproven => None,
    };
    let anchor = feed::verify_signed(state.propagated(), header.cluster, anchor, "archive", reader.signed())
        .map_err(|fault| ArchiveError::Unsigned(Box::new(fault)))?;
    let checked = Checked { length: reader.length().unwrap_or_default(), chunks, header };
    Ok(Opened { checked, state, contents, opened_as, anchor, origin })
}

/// The archive's key, by whichever envelope is for this opening key.
fn unwrap(header: &Header, key: &NodeKeyPair) -> Result<(Recipient, ArchiveKey), ArchiveError> {
    for (recipient, envelope) in &header.envelopes {
        match seal::open_archive_key(header.cluster, header.id, *recipient, key, envelope) {
            Ok(opened) => return Ok((*recipient, opened)),
            Err(seal::SealError::NotAuthentic { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ArchiveError::NotForThisKey { recipients: header.recipients() })
}

/// How many key epochs there are, and how many of them a key opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyEpochs {
    /// Epochs that are not destroyed.
    pub there: u64,
    /// Those with an envelope that opens with the key, to a key that matches the epoch's commitment.
    pub opened: u64,
}

/// Whether the key that opened an archive opens the key epochs in it too: without them its values are of no use.
///
/// # Errors
/// [`ArchiveError::Record`].
pub fn key_epochs(opened: &Opened, key: &NodeKeyPair) -> Result<KeyEpochs, ArchiveError> {
    let (cluster, mut found, mut after) = (opened.checked.header.cluster, KeyEpochs::default(), None);
    let recipient = match opened.opened_as {
        Recipient::Node(node) => state::Recipient::Node(node),
        Recipient::Recovery => state::Recipient::Recovery,
    };
    loop {
        let page = opened.state.all_kek_epochs(after.as_ref(), EPOCHS_AT_A_TIME)?;
        for epoch in page.items.iter().filter(|epoch| epoch.state != KekState::Destroyed) {
            found.there += 1;
            let name = KekName { cluster, domain: &epoch.domain, epoch: epoch.n };
            let Some(envelope) = opened.state.envelope(&epoch.domain, epoch.n, recipient)? else { continue };
            let kek = seal::open_envelope(&name, opened.opened_as, key, &envelope.bytes);
            let matches = kek.and_then(|kek| seal::commitment(&name, &kek)).is_ok_and(|own| *own.as_bytes() == epoch.commitment);
            found.opened += u64::from(matches);
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// Reads every record as what its keyspace says it is, and counts.
fn read_each(records: &[(Key, Bytes)]) -> Result<Contents, ArchiveError> {
    let mut counts = BTreeMap::new();
    for (key, value) in records {
        let Some(keyspace) = key.keyspace() else { continue };
        *counts.entry(keyspace.number()).or_insert(0) += 1;
        reads(keyspace, value).map_err(|source| state::ReadError::Format { key: key.clone(), source })?;
    }
    let count = |keyspace: Keyspace| counts.get(&keyspace.number()).copied().unwrap_or_default();
    Ok(Contents {
        accounts: count(Keyspace::Account),
        stores: count(Keyspace::Store),
        secrets: count(Keyspace::Secret),
        values: count(Keyspace::Value),
        bindings: count(Keyspace::Binding),
        nodes: count(Keyspace::Node),
        operator_tokens: count(Keyspace::OperatorToken),
    })
}

/// Whether a record of a keyspace reads. A sealed value's container is checked with its record. Of the indexes, whose records are
/// ids and counts, and of keyspaces that are read as the state is loaded, nothing more is asked.
fn reads(keyspace: Keyspace, value: &[u8]) -> Result<(), FormatError> {
    match keyspace {
        Keyspace::Settings => record::SettingsRecord::decode(value).map(drop),
        Keyspace::SignerSet => record::SignerSetRecord::decode(value).map(drop),
        Keyspace::Node => record::NodeRecord::decode(value).map(drop),
        Keyspace::KekEpoch => record::KekEpochRecord::decode(value).map(drop),
        Keyspace::Account => record::AccountRecord::decode(value).map(drop),
        Keyspace::Dek => record::DekRecord::decode(value).map(drop),
        Keyspace::Store => record::StoreRecord::decode(value).map(drop),
        Keyspace::Secret => record::SecretRecord::decode(value).map(drop),
        Keyspace::Value => record::ValueRecord::decode(value).map(drop),
        Keyspace::Consumer => record::ConsumerRecord::decode(value).map(drop),
        Keyspace::ConsumerToken => record::ConsumerTokenRecord::decode(value).map(drop),
        Keyspace::Binding => record::BindingRecord::decode(value).map(drop),
        Keyspace::OperatorToken => record::OperatorTokenRecord::decode(value).map(drop),
        Keyspace::AuditHead => record::AuditHeadRecord::decode(value).map(drop),
        Keyspace::Request => record::RequestRecord::decode(value).map(drop),
        Keyspace::RequestAge => record::RequestAgeRecord::decode(value).map(drop),
        Keyspace::Envelope => record::EnvelopeRecord::decode(value).map(drop),
        Keyspace::Job => record::JobRecord::decode(value).map(drop),
        Keyspace::Usage => record::UsageRecord::decode(value).map(drop),
        Keyspace::Totals => record::TotalsRecord::decode(value).map(drop),
        Keyspace::ConsumerUsage => record::ConsumerUsageRecord::decode(value).map(drop),
        Keyspace::Member => record::MemberRecord::decode(value).map(drop),
        Keyspace::TokenTerms => record::TokenTermsRecord::decode(value).map(drop),
        Keyspace::Limits => record::LimitsRecord::decode(value).map(drop),
        Keyspace::Holdings => record::HoldingsRecord::decode(value).map(drop),
        Keyspace::Deleted => record::DeletedRecord::decode(value).map(drop),
        Keyspace::DeletedValue => record::ValueRecord::decode(value).map(drop),
        Keyspace::Reminder => record::ReminderRecord::decode(value).map(drop),
        _ => Ok(()),
    }
}
