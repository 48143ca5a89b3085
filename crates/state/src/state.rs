//! The complete state of a control node: the propagated part, and what stays there.
//!
//! **Concurrency**: a value like any other; a clone shares all records. Only [`State::apply`] changes one.

mod counted;
mod deleted;
mod lists;
mod load;
mod operators;

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;
use types::{AccountId, ConsumerRef, DekId, FeatureLevel, KekEpoch, KeyDomain, LogIndex, NodeId, StoreId, TokenId, UnixMillis};

pub use lists::Page;
pub use load::LoadError;
pub use operators::Operator;
pub(crate) use operators::{managed_within, member_of, own_account};

use crate::{
    AuditEntry, ChangeSet, Command, Content, Halt, JobId, Key, Prefix, Principal, Propagated, ReadError, Recipient, Refusal, Reply,
    TypedKey, apply,
    format::Stored,
    limits::Quota,
    map::Records,
    propagated::decode_content,
    record::{
        AuditHeadRecord, AuthorityRecord, CertifiedRecord, DekRecord, DekState, EnvelopeRecord, HeadRecord, JobRecord, JoinTokenRecord,
        OperatorTokenRecord, TotalsRecord, UsageRecord,
    },
};

/// A record to be written to, or deleted from, a copy of the state on a disk.
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// The record's key.
    pub key: Key,
    /// The stored bytes, or none if the record is gone.
    pub value: Option<Bytes>,
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Write({:?}, {:?} bytes)", self.key, self.value.as_ref().map(Bytes::len))
    }
}

/// What a command did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The answer to the caller.
    pub result: Result<Reply, Refusal>,
    /// All records that changed, by rising key, the head among them. They belong in one batch.
    pub writes: Vec<Write>,
    /// What edges must hear of; none if no propagated record changed.
    pub change_set: Option<Arc<ChangeSet>>,
    /// What auditors must hear of; none for ticks and for replies given again.
    pub audit: Option<AuditEntry>,
}

/// Which data key a sealer should use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealingDek {
    /// This one; it is accepted now.
    Use(Box<DekRecord>),
    /// Mint one that replaces the named one, if any.
    Mint {
        /// For [`NewDek::replaces`](crate::NewDek::replaces).
        replaces: Option<DekId>,
    },
}

/// The state at one index of the log.
#[derive(Clone, Default)]
pub struct State {
    pub(crate) propagated: Propagated,
    pub(crate) control: Records,
    pub(crate) applied: LogIndex,
    pub(crate) time: UnixMillis,
}

/// A state reads as its propagated part does: control nodes and edges share those readers.
impl Deref for State {
    type Target = Propagated;
    fn deref(&self) -> &Propagated {
        &self.propagated
    }
}

impl State {
    /// The state before any command.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Judges a command and takes its effects.
    ///
    /// # Errors
    /// [`Halt`] if this build cannot follow the log, or the state is damaged; then nothing has changed and the node must stop.
    pub fn apply(&mut self, index: LogIndex, command: &Command) -> Result<Applied, Halt> {
        let mut applied = self.apply_one(index, command)?;
        let head = self.head_write();
        let place = applied.writes.partition_point(|write| write.key < head.key);
        applied.writes.insert(place, head);
        Ok(applied)
    }

    /// As [`State::apply`], but the head is not among the writes: for one of several commands whose writes go into one batch, with
    /// [`State::head_write`] at its end. The state root is then hashed once for all of them.
    ///
    /// # Errors
    /// As of [`State::apply`].
    pub fn apply_one(&mut self, index: LogIndex, command: &Command) -> Result<Applied, Halt> {
        let outcome = apply::apply(self, index, command)?;
        for write in &outcome.writes {
            if !write.key.is_propagated() && write.key.keyspace() != Some(crate::Keyspace::Head) {
                self.control.set(write.key.clone(), write.value.clone());
            }
        }
        if let Some(set) = &outcome.change_set {
            self.propagated.advance(set);
        }
        self.applied = index;
        self.time = outcome.time;
        Ok(Applied { result: outcome.result, writes: outcome.writes, change_set: outcome.change_set, audit: outcome.audit })
    }

    /// The write of the head, which says what the state is at now.
    pub fn head_write(&mut self) -> Write {
        self.propagated.settle();
        Write { key: TypedKey::Head.encode(), value: Some(self.head_record().encode()) }
    }

    /// The part that edges hold too.
    pub const fn propagated(&self) -> &Propagated {
        &self.propagated
    }

    /// The index of the last command.
    pub const fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// Log time: the highest stamp so far.
    pub const fn last_time(&self) -> UnixMillis {
        self.time
    }

    fn head_record(&self) -> HeadRecord {
        let head = self.propagated.head();
        HeadRecord {
            applied: self.applied,
            time: self.time,
            chain: head.chain,
            position: head.position,
            chain_hash: head.hash,
            changed: head.time,
            state_root: self.propagated.state_root(),
        }
    }

    /// The stored bytes of any record but the head, which is made when it is written.
    pub(crate) fn stored(&self, key: &Key) -> Option<&Bytes> {
        // A control node holds all in memory.
        let content = if key.is_propagated() { self.propagated.get(key) } else { self.control.get(key) };
        content.and_then(Content::inline)
    }

    pub(crate) fn read_control<T: Stored>(&self, key: TypedKey) -> Result<Option<T>, ReadError> {
        let key = key.encode();
        self.control.get(&key).map(|content| decode_content(&key, content)).transpose()
    }

    pub(crate) fn scan_control<'a>(&'a self, prefix: &'a Prefix) -> impl Iterator<Item = (&'a Key, &'a Content)> {
        self.control.scan(prefix.as_bytes(), None)
    }

    pub(crate) fn control_after<'a>(&'a self, prefix: &'a Prefix, after: Option<&'a Key>) -> impl Iterator<Item = (&'a Key, &'a Content)> {
        self.control.scan(prefix.as_bytes(), after.map(Key::as_bytes))
    }

    /// An operator's token by its SHA-256; expired or not.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn operator_by_token(&self, hash: [u8; 32]) -> Result<Option<OperatorTokenRecord>, ReadError> {
        self.read_control(TypedKey::OperatorToken { hash })
    }

    /// An operator's token by its public id.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn operator_by_id(&self, token: TokenId) -> Result<Option<OperatorTokenRecord>, ReadError> {
        match self.read_control(TypedKey::OperatorTokenId { token })? {
            Some(hash) => self.operator_by_token(hash),
            None => Ok(None),
        }
    }

    /// A join token by the hash of its secret; usable or not.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn join_token(&self, hash: [u8; 32]) -> Result<Option<JoinTokenRecord>, ReadError> {
        self.read_control(TypedKey::JoinToken { hash })
    }

    /// The cluster's certificate authority; none in an empty state.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn authority(&self) -> Result<Option<AuthorityRecord>, ReadError> {
        self.read_control(TypedKey::Authority)
    }

    /// By which certificate authority a node's certificate is.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn certified_by(&self, node: NodeId) -> Result<u32, ReadError> {
        let record: Option<CertifiedRecord> = self.read_control(TypedKey::Certified { node })?;
        Ok(record.map_or(1, |record| record.authority))
    }

    /// The hash of a consumer's token by its public id.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn consumer_token_hash(&self, consumer: &ConsumerRef, token: TokenId) -> Result<Option<[u8; 32]>, ReadError> {
        self.read_control(TypedKey::ConsumerTokenId { consumer: consumer.clone(), token })
    }

    /// The head of the audit chain.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn audit_head(&self) -> Result<AuditHeadRecord, ReadError> {
        Ok(self.read_control(TypedKey::AuditHead)?.unwrap_or_default())
    }

    /// An envelope of a KEK epoch.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn envelope(&self, domain: &KeyDomain, epoch: KekEpoch, recipient: Recipient) -> Result<Option<EnvelopeRecord>, ReadError> {
        self.read_control(TypedKey::Envelope { domain: domain.clone(), epoch, recipient })
    }

    /// The quota in force for an account: its own, or the cluster's default.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn quota(&self, account: AccountId) -> Result<Quota, ReadError> {
        match self.read_control(TypedKey::Quota { account })? {
            Some(quota) => Ok(quota),
            None => Ok(self.settings()?.map(|settings| settings.quota).unwrap_or_default()),
        }
    }

    /// The feature level in force; 1 before there are settings.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn feature_level(&self) -> Result<FeatureLevel, ReadError> {
        Ok(self.settings()?.map_or(FeatureLevel::new(1), |settings| settings.feature_level))
    }

    /// Whether a node that knows feature levels up to `known` may apply `command`, or go on afterwards. To be asked before
    /// [`State::apply`] by a node that is held below [`FEATURE_LEVEL_MAX`](crate::FEATURE_LEVEL_MAX).
    ///
    /// # Errors
    /// [`Halt::Level`]: it must stop before applying. [`Halt::Damaged`].
    pub fn may_follow(&self, index: LogIndex, command: &Command, known: FeatureLevel) -> Result<(), Halt> {
        let level = apply::level_needed(self, command)?;
        if level > known { Err(Halt::Level { index, level, known }) } else { Ok(()) }
    }

    /// What an account holds.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn usage(&self, account: AccountId) -> Result<UsageRecord, ReadError> {
        Ok(self.read_control(TypedKey::Usage { account })?.unwrap_or_default())
    }

    /// What the cluster holds.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn totals(&self) -> Result<TotalsRecord, ReadError> {
        Ok(self.read_control(TypedKey::Totals)?.unwrap_or_default())
    }

    /// An unfinished background job.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn job(&self, job: JobId) -> Result<Option<JobRecord>, ReadError> {
        self.read_control(TypedKey::Job { job })
    }

    /// The oldest unfinished background job: the leader proposes [`Step`](crate::CommandBody::Step)s until there is none.
    pub fn next_job(&self) -> Option<JobId> {
        let all = Prefix::keyspace(crate::Keyspace::Job);
        self.scan_control(&all).find_map(|(key, _)| match key.decode() {
            Ok(TypedKey::Job { job }) => Some(job),
            _ => None,
        })
    }

    /// How many values a data key has sealed.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn dek_uses(&self, account: AccountId, dek: DekId) -> Result<u64, ReadError> {
        Ok(self.read_control(TypedKey::DekUses { account, dek })?.unwrap_or_default())
    }

    /// Which data key a sealer should use for an account now. Whether `now` makes a key too old is for the sealer alone: `apply`
    /// refuses by use, era and grace, and never by age.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn sealing_dek(&self, account: AccountId, now: UnixMillis) -> Result<SealingDek, ReadError> {
        let current = self.account(account)?.and_then(|account| account.current_dek);
        let (Some(id), Some(settings)) = (current, self.settings()?) else { return Ok(SealingDek::Mint { replaces: current }) };
        let dek = self.dek(account, id)?.filter(|dek| {
            dek.state == DekState::Active
                && dek.era == settings.dek_era
                && now.since(dek.created).as_millis() < u128::from(settings.dek_age_max_ms)
        });
        match dek {
            Some(dek) if self.dek_uses(account, id)? < settings.dek_uses_max => Ok(SealingDek::Use(Box::new(dek))),
            _ => Ok(SealingDek::Mint { replaces: current }),
        }
    }

    /// What a request was answered with when it came first; none when it is not remembered.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn request(
        &self,
        owner: crate::record::RequestOwner,
        request: types::RequestId,
    ) -> Result<Option<crate::record::RequestRecord>, ReadError> {
        self.read_control(TypedKey::Request { owner, request })
    }

    /// Whether a store has secrets that are not being deleted.
    pub(crate) fn has_secrets(&self, store: StoreId) -> bool {
        self.propagated.scan(&Prefix::secret_names(store)).next().is_some()
    }

    /// Judges whether `principal` may do `operation` on `target` now, as `apply` would: for the front door, which thereby saves work,
    /// and for reads of metadata. `now` is log time or a clock; the later of it and log time counts.
    ///
    /// # Errors
    /// The [`Refusal`] that `apply` would give, or a [`Halt`] if the state is damaged.
    pub fn authorize(
        &self,
        principal: Principal,
        operation: crate::Operation,
        target: crate::GrantScope,
        now: UnixMillis,
    ) -> Result<Result<(), Refusal>, Halt> {
        apply::authorize(self, principal, operation, target, now.max(self.time))
    }

    /// As [`State::authorize`], for all that a command needs.
    ///
    /// # Errors
    /// As [`State::authorize`].
    pub fn authorize_body(&self, principal: Principal, body: &crate::CommandBody, now: UnixMillis) -> Result<Result<(), Refusal>, Halt> {
        apply::authorize_body(self, principal, body, now.max(self.time))
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State(index {}, {:?}, {} control records)", self.applied, self.propagated, self.control.len())
    }
}
