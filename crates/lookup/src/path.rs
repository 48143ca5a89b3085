//! The lookup path, from top to bottom: [`find`] is one lookup, and each of its steps says what has then been established.
//!
//! **Invariants**
//! 1. Every step reads the same root; nothing is remembered from an earlier lookup.
//! 2. A step that fails ends the lookup; no step opens or names anything that a later step could still refuse.
//!
//! **Concurrency**: all of it is in memory but the bytes of large values, which an edge keeps in its table. Such a read takes microseconds
//! when the table has the page at hand, and otherwise as long as the disk does, or the table's copying of itself: so [`Lookup::fetch`] and
//! [`Lookup::fetch_many`], which async callers use, read them on a thread that may block, and open them there too. [`Lookup::get`] and
//! [`Lookup::get_many`] read them where they are called.

use std::{sync::Arc, time::Duration};

use seal::{DekWrap, Plaintext, SealError, ValueContext};
use seams::{
    Clock,
    mutation::{self, Mutation},
};
use state::{
    Propagated,
    record::{BindingTarget, DekRecord, SecretRecord, ValueRecord},
};
use tokio::sync::Semaphore;
use types::{BindingName, ConsumerRef, NodeName, Position, Scope, SecretId, SecretName, StoreId, UnixMillis, ValueId, Version};
use wire::parse::{FieldError, FreshnessTarget, WantedTarget, Which};

use crate::{
    Age, Caller, LookupError, Served, Serving, Stages,
    counters::Counters,
    serving::View,
    stages::{NoProbe, Probe, Stage, Stopwatch},
};

/// What was found. It cannot be printed: it holds a plaintext.
pub struct Found {
    /// The value.
    pub value: Plaintext,
    /// Its version.
    pub version: Version,
    /// The position of the root it was read from.
    pub position: Position,
    /// The age of that root.
    pub age: Age,
    /// Whose value it is; not for callers, who know only their binding's name.
    pub(crate) secret: SecretId,
}

/// Large values read at a time; the next one waits. Each is held twice, sealed and open; a batch takes a place for each of its values, or
/// all, and the others wait for it.
const DISK_READS_MAX: usize = 64;

/// Whether a lookup may wait for a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    May,
    MayNot,
}

/// Answers callers from what [`Serving`] holds.
pub struct Lookup {
    serving: Arc<Serving>,
    served: Arc<Served>,
    counters: Counters,
    disk_reads: Arc<Semaphore>,
}

impl Lookup {
    /// Looks up in `serving` and counts in `served`; `node` is the label of its metrics. The recorder must be installed before.
    pub fn new(serving: Arc<Serving>, served: Arc<Served>, node: &NodeName) -> Self {
        Self { serving, served, counters: Counters::new(node), disk_reads: Arc::new(Semaphore::new(DISK_READS_MAX)) }
    }

    /// What is looked up in.
    pub fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// How often each secret was served.
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// One lookup in the root of this moment. Does not wait, but perhaps for the disk that a large value lies on: a root before
    /// `min_position` is refused.
    ///
    /// # Errors
    /// [`LookupError`], whose variants name their causes.
    pub fn get(&self, caller: &Caller, wanted: &WantedTarget, freshness: FreshnessTarget) -> Result<Found, LookupError> {
        let view = self.serving.view();
        self.count(self.look(view.as_deref(), caller, wanted, freshness))
    }

    /// As [`Lookup::get`], off the async threads where it may be slow.
    ///
    /// # Errors
    /// As of [`Lookup::get`].
    pub async fn fetch(self: &Arc<Self>, caller: &Caller, wanted: &WantedTarget, freshness: FreshnessTarget) -> Result<Found, LookupError> {
        if let Some(outcome) = self.get_at_once(caller, wanted, freshness) {
            return outcome;
        }
        let (caller, wanted) = (caller.clone(), wanted.clone());
        self.from_disk(1, move |lookup| lookup.get(&caller, &wanted, freshness)).await?
    }

    /// One lookup in the root of this moment; none if its value lies on the disk, and nothing was counted.
    pub(crate) fn get_at_once(
        &self,
        caller: &Caller,
        wanted: &WantedTarget,
        freshness: FreshnessTarget,
    ) -> Option<Result<Found, LookupError>> {
        let view = self.serving.view();
        self.at_once(view.as_deref(), caller, wanted, freshness)
    }

    /// Several lookups in one root: all see the same position. Each has its own outcome, in the order of `wanted`.
    pub fn get_many(&self, caller: &Caller, wanted: &[WantedTarget], freshness: FreshnessTarget) -> Vec<Result<Found, LookupError>> {
        let view = self.serving.view();
        wanted.iter().map(|wanted| self.count(self.look(view.as_deref(), caller, wanted, freshness))).collect()
    }

    /// As [`Lookup::get_many`], off the async threads where it may be slow.
    pub async fn fetch_many(
        self: &Arc<Self>,
        caller: &Caller,
        wanted: &[WantedTarget],
        freshness: FreshnessTarget,
    ) -> Vec<Result<Found, LookupError>> {
        let mut on_disk = Vec::new();
        let (outcomes, view) = {
            let view = self.serving.view();
            let one = |wanted: &WantedTarget| {
                let outcome = self.at_once(view.as_deref(), caller, wanted, freshness);
                if outcome.is_none() {
                    on_disk.push(wanted.clone());
                }
                outcome
            };
            let outcomes: Vec<_> = wanted.iter().map(one).collect();
            // Kept for what is read from the disk: all see one root.
            let view = view.as_ref().filter(|_| !on_disk.is_empty()).cloned();
            (outcomes, view)
        };
        let count = on_disk.len();
        let read = if count == 0 {
            Ok(Vec::new())
        } else {
            let caller = caller.clone();
            let one = move |lookup: &Self, wanted: &WantedTarget| lookup.count(lookup.look(view.as_deref(), &caller, wanted, freshness));
            self.from_disk(count, move |lookup| on_disk.iter().map(|wanted| one(lookup, wanted)).collect::<Vec<_>>()).await
        };
        let mut read = read.unwrap_or_else(|error| vec![(); count].into_iter().map(|()| Err(error.clone())).collect()).into_iter();
        outcomes.into_iter().filter_map(|outcome| outcome.or_else(|| read.next())).collect()
    }

    /// Counts a lookup that was refused before any root was asked: by its form, or by its credential.
    pub(crate) fn refused(&self, error: impl Into<LookupError>) -> LookupError {
        let error = error.into();
        self.counters.refused(error.kind());
        error
    }

    /// The consumer that `caller` stands for at this moment, and when its credential ends.
    ///
    /// # Errors
    /// [`LookupError`] when it stands for nobody, or this node cannot tell.
    pub fn whoami(&self, caller: &Caller) -> Result<(ConsumerRef, Option<UnixMillis>), LookupError> {
        let view = self.serving.view();
        let state = &view.as_deref().ok_or(LookupError::NotSynced)?.state;
        Ok((caller.consumer(state, self.serving.now())?, caller.expires(state)?))
    }

    /// Waits for at most `patience` until readers see the position that `freshness` demands, when it demands one. Says nothing: the
    /// lookup that follows does.
    pub async fn ready(&self, freshness: FreshnessTarget, patience: Duration) {
        if let Some(position) = freshness.min_position {
            self.serving.answers(position, patience).await;
        }
    }

    /// One lookup that also measures its stages, for `cinnabar bench lookup`.
    ///
    /// # Errors
    /// As of [`Lookup::get`].
    pub fn get_staged(
        &self,
        caller: &Caller,
        wanted: &WantedTarget,
        freshness: FreshnessTarget,
        stages: &mut Stages,
    ) -> Result<Found, LookupError> {
        *stages = Stages::default();
        let clock: &dyn Clock = &**self.serving.clock();
        let mut stopwatch = Stopwatch { clock, last: clock.monotonic(), stages };
        let view = self.serving.view();
        let found = look(&self.serving, view.as_deref(), caller, wanted, freshness, Disk::May, &mut stopwatch);
        self.count(found.and_then(|found| found.ok_or(LookupError::Unreadable)))
    }

    /// Which version of which secret [`Lookup::get`] would open at this moment.
    ///
    /// # Errors
    /// As of [`Lookup::get`], but for what only opening shows.
    pub(crate) fn peek(
        &self,
        caller: &Caller,
        wanted: &WantedTarget,
        freshness: FreshnessTarget,
    ) -> Result<(SecretId, Version), LookupError> {
        let view = self.serving.view();
        let permitted = permit(&self.serving, view.as_deref(), caller, wanted, freshness, &mut NoProbe)?;
        Ok((permitted.id, choose(&permitted, wanted)?.0))
    }

    /// One lookup, from the disk if need be.
    fn look(&self, view: Option<&View>, caller: &Caller, wanted: &WantedTarget, freshness: FreshnessTarget) -> Result<Found, LookupError> {
        // Where it may be read from a disk, it is.
        look(&self.serving, view, caller, wanted, freshness, Disk::May, &mut NoProbe)?.ok_or(LookupError::Unreadable)
    }

    /// One lookup in memory; none, and nothing counted, if the value lies on the disk.
    fn at_once(
        &self,
        view: Option<&View>,
        caller: &Caller,
        wanted: &WantedTarget,
        freshness: FreshnessTarget,
    ) -> Option<Result<Found, LookupError>> {
        let outcome = look(&self.serving, view, caller, wanted, freshness, Disk::MayNot, &mut NoProbe).transpose()?;
        Some(self.count(outcome))
    }

    /// Reads so many values on a thread that may block. A caller who is gone by then costs the work, nothing else.
    async fn from_disk<T: Send + 'static>(
        self: &Arc<Self>,
        values: usize,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, LookupError> {
        let places = u32::try_from(values.min(DISK_READS_MAX)).unwrap_or(1);
        let place = Arc::clone(&self.disk_reads).acquire_many_owned(places).await.map_err(|_| LookupError::Stopping)?;
        let lookup = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let outcome = work(&lookup);
            drop(place);
            outcome
        });
        // It is lost only with the runtime.
        reading.await.map_err(|_| LookupError::Stopping)
    }

    fn count(&self, outcome: Result<Found, LookupError>) -> Result<Found, LookupError> {
        match &outcome {
            Ok(found) => {
                self.counters.found.increment(1);
                self.served.count(found.secret);
            }
            Err(error) => self.counters.refused(error.kind()),
        }
        outcome
    }
}

/// One lookup in one root, from top to bottom; none if the value lies on a disk that it may not wait for.
fn look(
    serving: &Serving,
    view: Option<&View>,
    caller: &Caller,
    wanted: &WantedTarget,
    freshness: FreshnessTarget,
    disk: Disk,
    probe: &mut impl Probe,
) -> Result<Option<Found>, LookupError> {
    let permitted = permit(serving, view, caller, wanted, freshness, probe)?;
    let (version, value_id) = choose(&permitted, wanted)?;
    let Some((record, dek)) = sealed(&permitted, value_id, disk)? else { return Ok(None) };
    probe.done(Stage::Record);
    let value = open(serving, &permitted, value_id, &record, &dek)?;
    probe.done(Stage::Open);
    Ok(Some(Found { value, version, position: permitted.view.position(), age: permitted.age, secret: permitted.id }))
}

/// A secret that the caller may read, in the root that says so.
struct Permitted<'a> {
    view: &'a View,
    age: Age,
    store: StoreId,
    id: SecretId,
    secret: SecretRecord,
}

/// The part of a lookup that decides. When it returns, the caller may read the secret.
fn permit<'a>(
    serving: &Serving,
    view: Option<&'a View>,
    caller: &Caller,
    wanted: &WantedTarget,
    freshness: FreshnessTarget,
    probe: &mut impl Probe,
) -> Result<Permitted<'a>, LookupError> {
    if serving.is_revoked() && !mutation::is_on(Mutation::RevocationIgnored) {
        return Err(LookupError::NodeRevoked);
    }
    let view = view.ok_or_else(|| not_synced(caller, wanted))?;
    let state = &view.state;
    let consumer = identify(serving, view, caller, freshness)?;
    probe.done(Stage::Identify);
    let age = fresh(serving, view, freshness)?;
    probe.done(Stage::Fresh);
    let target = bound(state, &consumer, &wanted.binding)?;
    let (store, id, secret) = resolve(state, &consumer, wanted, target)?;
    probe.done(Stage::Binding);
    allowed(&consumer, wanted, &secret)?;
    probe.done(Stage::Permission);
    Ok(Permitted { view, age, store, id, secret })
}

/// What is said before the first root: that nothing is known, and never that something is absent.
fn not_synced(caller: &Caller, wanted: &WantedTarget) -> LookupError {
    match caller.named() {
        Some(consumer) if mutation::is_on(Mutation::AbsentWhenNotSynced) => {
            LookupError::NotBound { consumer, binding: wanted.binding.clone(), position: Position::default() }
        }
        _ => LookupError::NotSynced,
    }
}

/// The consumer that the caller stands for in this root. Who is not known in a root that has not reached the position asked for may be
/// known in a later one, and is told nothing but that.
fn identify(serving: &Serving, view: &View, caller: &Caller, freshness: FreshnessTarget) -> Result<ConsumerRef, LookupError> {
    let behind = freshness.min_position.is_some_and(|wanted| wanted > view.position());
    caller.consumer(&view.state, serving.now()).map_err(|error| match error {
        LookupError::Revoked { .. } if behind => LookupError::NotSynced,
        error => error,
    })
}

/// The state is fresh enough for the cluster and for the caller.
fn fresh(serving: &Serving, view: &View, freshness: FreshnessTarget) -> Result<Age, LookupError> {
    let (age, position) = (serving.age(), view.position());
    if let Some(wanted) = freshness.min_position.filter(|wanted| *wanted > position && !mutation::is_on(Mutation::MinPositionIgnored)) {
        return Err(LookupError::BehindPosition { position, wanted });
    }
    let bounds = [("edge_offline_max", view.bounds.edge_offline_max), ("max_age", freshness.max_age)];
    for (name, bound) in bounds {
        if let Some(bound) = bound.filter(|bound| !age.within(*bound) && !mutation::is_on(Mutation::AgeUnbounded)) {
            return Err(LookupError::TooStale { age, allowed: u64::try_from(bound.as_millis()).unwrap_or(u64::MAX), bound: name });
        }
    }
    Ok(age)
}

/// What the consumer has bound under the name.
fn bound(state: &Propagated, consumer: &ConsumerRef, binding: &BindingName) -> Result<BindingTarget, LookupError> {
    let record = state.binding(consumer, binding)?;
    let not_bound = || LookupError::NotBound { consumer: consumer.clone(), binding: binding.clone(), position: state.position() };
    Ok(record.ok_or_else(not_bound)?.target)
}

/// The secret that the target and the request name together. Only ids that the binding stored are followed, but for a name in a bound store.
fn resolve(
    state: &Propagated,
    consumer: &ConsumerRef,
    wanted: &WantedTarget,
    target: BindingTarget,
) -> Result<(StoreId, SecretId, SecretRecord), LookupError> {
    let deleted = || LookupError::Deleted { consumer: consumer.clone(), binding: wanted.binding.clone() };
    let store = target.store();
    match (target, &wanted.secret) {
        (BindingTarget::Secret { secret: id, .. }, None) => {
            let secret = state.secret(store, id)?.filter(|secret| secret.account == consumer.account).ok_or_else(deleted)?;
            Ok((store, id, secret))
        }
        (BindingTarget::Store { .. }, Some(name)) => {
            let named = state.secret_by_name(store, name)?.filter(|(_, secret)| secret.account == consumer.account);
            let Some((id, secret)) = named else {
                let there = state.store(store)?.is_some_and(|store| store.account == consumer.account);
                return Err(if there { no_such_secret(consumer, wanted, name) } else { deleted() });
            };
            Ok((store, id, secret))
        }
        (BindingTarget::Secret { .. }, Some(_)) => {
            let reason = format!("{} is bound to one secret: leave this empty", wanted.binding);
            Err(FieldError::new("wanted.secret", reason).into())
        }
        (BindingTarget::Store { .. }, None) => {
            let reason = format!("is missing: {} is bound to a store, so say which of its secrets", wanted.binding);
            Err(FieldError::new("wanted.secret", reason).into())
        }
    }
}

/// The consumer's kind is among the secret's scopes: the second of the two checks, on this node's own copy (P6).
fn allowed(consumer: &ConsumerRef, wanted: &WantedTarget, secret: &SecretRecord) -> Result<(), LookupError> {
    let scope = Scope::of_kind(consumer.kind);
    if secret.scopes.contains(scope) {
        return Ok(());
    }
    Err(match &wanted.secret {
        // The caller chose the name; that it exists is not for it to know.
        Some(name) => no_such_secret(consumer, wanted, name),
        None => LookupError::ScopeNotAllowed { consumer: consumer.clone(), binding: wanted.binding.clone(), scope },
    })
}

fn no_such_secret(consumer: &ConsumerRef, wanted: &WantedTarget, name: &SecretName) -> LookupError {
    LookupError::NoSuchSecret { binding: wanted.binding.clone(), secret: name.clone(), scope: Scope::of_kind(consumer.kind) }
}

/// The version that was asked for, and where its value lies.
fn choose(permitted: &Permitted<'_>, wanted: &WantedTarget) -> Result<(Version, ValueId), LookupError> {
    let secret = &permitted.secret;
    let version = match wanted.which {
        Which::Current => Some(secret.current),
        Which::Previous => secret.previous,
        // A candidate is staged, not live: a rollout decides who sees it.
        Which::Exact(version) => Some(version).filter(|version| secret.candidate != Some(*version)),
    };
    let entry = version.and_then(|version| secret.version(version));
    let entry = entry.ok_or_else(|| LookupError::NoSuchVersion { binding: wanted.binding.clone(), wanted: wanted.which })?;
    Ok((entry.version, entry.value_id))
}

/// The sealed value and the wrapped data key that opens it; none if the value lies on a disk that may not be waited for. Both stand in
/// every root that names them; one that is missing is damage.
fn sealed(permitted: &Permitted<'_>, value: ValueId, disk: Disk) -> Result<Option<(ValueRecord, DekRecord)>, LookupError> {
    let state = &permitted.view.state;
    let record = match disk {
        Disk::May => state.value(permitted.id, value)?,
        Disk::MayNot => state.value_inline(permitted.id, value)?,
    };
    let record = match record {
        Some(record) => record,
        None if disk == Disk::MayNot && state.value_is_large(permitted.id, value) => return Ok(None),
        None => return Err(LookupError::Damaged),
    };
    let dek = state.dek(permitted.secret.account, record.dek)?.ok_or(LookupError::Damaged)?;
    Ok(Some((record, dek)))
}

/// The plaintext. The context is built from where the record was found, so one that was moved does not open.
fn open(
    serving: &Serving,
    permitted: &Permitted<'_>,
    value_id: ValueId,
    record: &ValueRecord,
    dek: &DekRecord,
) -> Result<Plaintext, LookupError> {
    let secret = &permitted.secret;
    let context = ValueContext {
        account: secret.account,
        store: permitted.store,
        secret: permitted.id,
        name: &secret.name,
        value_id,
        dek: record.dek,
        domain: &record.domain,
    };
    let wrap = dek.wrap(&record.domain).ok_or(LookupError::Damaged)?;
    let wrap = DekWrap { epoch: wrap.epoch, bytes: &wrap.bytes };
    serving.keys().open_value(&context, wrap, &record.sealed).map_err(|error| match error {
        SealError::KeyUnavailable { domain, epoch } => LookupError::KeyMissing { domain, epoch },
        error => {
            tracing::error!(secret = %permitted.id, value = %value_id, error = %error, "a value does not open: the copy or the keys are damaged");
            LookupError::Damaged
        }
    })
}
