//! Lists in pages that are counted, in an order that the caller chooses.
//!
//! The order of names is kept by the state: a page of it costs what is on it, and what lies before is passed over leaf by leaf
//! (`state::counted`). Any other order, a search and a filter have to look at every secret of the store: off the async threads, two at a
//! time in a process ([`SCANS_MAX`]), and only the first [`DEPTH_MAX`] of such a list are told apart.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use state::{
    CommandBody, GrantScope, Operation, State,
    limits::PAGE_MAX,
    record::{BindingRecord, SecretRecord, StoreRecord},
};
use tokio::sync::Semaphore;
use types::{AccountId, ConsumerRef, Position, Scope, SecretId, SecretName, StoreId, StoreName};
use wire::{
    ErrorKind, PublicError,
    parse::{AccountTarget, ConsumerTarget, FieldError, StoreTarget},
    v1,
};

use super::parsed;
use crate::{call::Call, caller::Caller, core::Core, error::damaged, resolve, show, write};

/// Lists under way in this process for which every secret of a store is looked at. One more is told to come again.
const SCANS_MAX: usize = 2;
/// Entries of such a list that are put in order: what is behind them is not shown, so that a list takes no more memory than these.
const DEPTH_MAX: u64 = 100_000;
/// The store that comes by itself.
const FIRST_STORE: &str = "default_secrets_store";

/// Which part of a list, in which order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// Entries before it.
    pub(crate) skip: u64,
    /// Entries in it at the most.
    pub(crate) take: u64,
    /// By what it is ordered; empty for the name.
    pub(crate) order: String,
    /// Whether from the last to the first.
    pub(crate) falling: bool,
}

/// A part of a list.
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    /// Entries of the whole list.
    pub(crate) total: u64,
}

/// Stores of an account.
pub(crate) struct Stores {
    pub(crate) account: String,
    pub(crate) window: Window,
}

/// Lists the stores that the caller may see. The first one of an account comes by itself when somebody lists them who may make stores.
pub(crate) async fn stores(core: Arc<Core>, call: Call, wanted: Stores) -> Result<Listed<v1::Store>, PublicError> {
    let target = AccountTarget::parse_optional("account", wanted.account)?;
    let order: fn(&StoreRecord) -> types::UnixMillis = match wanted.window.order.as_str() {
        "" | "name" => |_| types::UnixMillis::default(),
        "created" => |record| record.created,
        "modified" => |record| record.modified,
        _ => return Err(FieldError::new("order", "must be name, created or modified").into()),
    };
    let seen = |state: &State, caller: &Caller| {
        let account = resolve::account(state, caller, target.as_ref())?;
        let none = state.usage(account).map_err(damaged)?.stores == 0;
        let first = none && caller.may(Operation::ManageStores, GrantScope::Account(account));
        Ok((all_stores(state, caller, account)?, first.then_some(account)))
    };
    let (mut all, first) = core.read(&call, seen).await?;
    if let Some(account) = first {
        make_first(&core, &call, account).await?;
        all = core.read(&call, seen).await?.0;
    }
    // By name already, and the sort keeps that among equals.
    all.sort_by_key(|(_, record)| order(record));
    if wanted.window.falling {
        all.reverse();
    }
    let total = all.len() as u64;
    let (skip, take) = (size(wanted.window.skip), size(wanted.window.take));
    Ok(Listed { items: all.iter().skip(skip).take(take).map(|(id, record)| show::store(*id, record)).collect(), total })
}

fn all_stores(state: &State, caller: &Caller, account: AccountId) -> Result<Vec<(StoreId, StoreRecord)>, PublicError> {
    let may = |id| caller.may(Operation::ReadMetadata, GrantScope::Store(account, id));
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = state.stores(account, after.as_ref(), PAGE_MAX, may).map_err(damaged)?;
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

async fn make_first(core: &Core, call: &Call, account: AccountId) -> Result<(), PublicError> {
    let name: StoreName = FIRST_STORE.parse().map_err(|error| FieldError::new("name", error))?;
    let store = StoreId::from_bytes(core.entropy.id());
    let plan = |_: &State, caller: &Caller| {
        caller.require(Operation::ManageStores, GrantScope::Account(account))?;
        Ok(CommandBody::CreateStore { account, store, name: name.clone() })
    };
    match write::plain(core, call, plan).await {
        // Somebody else listed at the same moment, or the account may have no store at all.
        Err(error) if matches!(error.kind, ErrorKind::AlreadyExists | ErrorKind::QuotaExceeded) => Ok(()),
        made => made.map(drop),
    }
}

/// Secrets of a store.
pub(crate) struct Secrets {
    pub(crate) store: v1::StoreRef,
    pub(crate) window: Window,
    /// What name or comment hold, in whatever case; empty for anything.
    pub(crate) search: String,
    /// Scopes, of which they have one at least; empty for any.
    pub(crate) scopes: Vec<String>,
}

/// By what secrets are ordered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Name,
    Comment,
    Created,
    Modified,
    Status,
}

/// Lists secrets of a store.
pub(crate) async fn secrets(core: Arc<Core>, call: Call, wanted: Secrets) -> Result<Listed<v1::Secret>, PublicError> {
    let target: StoreTarget = parsed("store", Some(wanted.store))?;
    let order = match wanted.window.order.as_str() {
        "" | "name" => Order::Name,
        "comment" => Order::Comment,
        "created" => Order::Created,
        "modified" => Order::Modified,
        "status" => Order::Status,
        _ => return Err(FieldError::new("order", "must be name, comment, created, modified or status").into()),
    };
    let scope = |(place, name): (usize, &String)| name.parse::<Scope>().map_err(|error| FieldError::new(format!("scopes[{place}]"), error));
    let scopes = wanted.scopes.iter().enumerate().map(scope).collect::<Result<Vec<_>, _>>()?;
    // An exact name comes first where nobody asked for another order.
    let exact = wanted.window.order.is_empty().then(|| wanted.search.clone()).filter(|search| !search.is_empty());
    let filter = Filter { search: wanted.search.to_lowercase(), scopes };
    let window = wanted.window;
    let (state, store) = core.read(&call, |state, caller| Ok((state.clone(), resolve::store(state, caller, &target)?.id))).await?;
    if order == Order::Name && filter.is_open() {
        return by_name(&core, &state, store, &window);
    }
    aside(move || scanned(&core, &state, store, &window, order, exact.as_deref(), &filter)).await
}

/// Runs a list that looks at much off the async threads.
async fn aside<T: Send + 'static>(list: impl FnOnce() -> Result<T, PublicError> + Send + 'static) -> Result<T, PublicError> {
    static SCANS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(SCANS_MAX)));
    let busy = || {
        PublicError::new(ErrorKind::Busy, "as many lists are being searched or sorted as this node does at once: list by name, or wait")
            .with_retry_after(Duration::from_secs(1))
    };
    let place = SCANS.clone().try_acquire_owned().map_err(|_| busy())?;
    let ended = || PublicError::new(ErrorKind::Unavailable, "the node is shutting down: ask another");
    let list = move || {
        let _place = place;
        list()
    };
    tokio::task::spawn_blocking(list).await.map_err(|_| ended())?
}

/// Bindings of an account, or of one of its consumers.
pub(crate) struct Bindings {
    pub(crate) account: String,
    pub(crate) consumer: Option<v1::ConsumerRef>,
    /// Of which the order is always that of consumers and names.
    pub(crate) window: Window,
}

/// Lists bindings whose stores the caller may see. Those of an account are counted one by one.
pub(crate) async fn bindings(core: Arc<Core>, call: Call, wanted: Bindings) -> Result<Listed<v1::Binding>, PublicError> {
    let account = AccountTarget::parse_optional("account", wanted.account)?;
    let consumer = wanted.consumer.map(|consumer| parsed::<ConsumerTarget, _>("consumer", Some(consumer))).transpose()?;
    let window = wanted.window;
    let read = core.read(&call, |state, caller| {
        let of = match &consumer {
            Some(target) => Of::Consumer(resolve::consumer(state, caller, target)?),
            None => Of::Account(resolve::account(state, caller, account.as_ref())?),
        };
        Ok((state.clone(), of))
    });
    let ((state, of), now) = (read.await?, core.now());
    let list = move || bindings_of(&state, &Caller::identify(&state, &call, now)?, &of, &window);
    // Those of a consumer are never many.
    if consumer.is_some() { list() } else { aside(list).await }
}

/// Whose bindings.
enum Of {
    Account(AccountId),
    Consumer(ConsumerRef),
}

fn bindings_of(state: &State, caller: &Caller, of: &Of, window: &Window) -> Result<Listed<v1::Binding>, PublicError> {
    let may =
        |account| move |record: &BindingRecord| caller.may(Operation::ReadMetadata, GrantScope::Store(account, record.target.store()));
    let shown = window.skip..window.skip.saturating_add(window.take);
    let (mut items, mut total, mut after) = (Vec::new(), 0_u64, None);
    loop {
        let (rows, next) = match of {
            Of::Consumer(consumer) => {
                let page = state.bindings(consumer, after.as_ref(), PAGE_MAX, may(consumer.account)).map_err(damaged)?;
                let rows: Vec<_> = page.items.into_iter().map(|(name, record)| (consumer.clone(), name, record)).collect();
                (rows, page.next)
            }
            Of::Account(account) => {
                let page = state.bindings_of_account(*account, after.as_ref(), PAGE_MAX, may(*account)).map_err(damaged)?;
                (page.items, page.next)
            }
        };
        for (consumer, name, record) in rows {
            if shown.contains(&total) {
                items.push(show::binding(state, &consumer, &name, &record)?);
            }
            total += 1;
        }
        after = next;
        if after.is_none() {
            return Ok(Listed { items, total });
        }
    }
}

fn by_name(core: &Core, state: &State, store: StoreId, window: &Window) -> Result<Listed<v1::Secret>, PublicError> {
    let total = state.secrets_number(store).map_err(damaged)?;
    let (skip, take) = (size(window.skip).min(total), size(window.take));
    let (skip, take) = match window.falling {
        false => (skip, take),
        true => ((total - skip).saturating_sub(take), take.min(total - skip)),
    };
    let mut found = if take == 0 { Vec::new() } else { state.secrets_from(store, skip, take).map_err(damaged)? };
    if window.falling {
        found.reverse();
    }
    Ok(Listed { items: shown(core, state, &found)?, total: total as u64 })
}

fn shown(core: &Core, state: &State, found: &[(SecretId, SecretRecord)]) -> Result<Vec<v1::Secret>, PublicError> {
    let live = core.live_everywhere(state);
    found.iter().map(|(id, record)| show::secret(core, state, *id, record, live, Position::default())).collect()
}

/// Which secrets are meant.
struct Filter {
    /// In small letters.
    search: String,
    scopes: Vec<Scope>,
}

impl Filter {
    fn is_open(&self) -> bool {
        self.search.is_empty() && self.scopes.is_empty()
    }

    fn lets(&self, record: &SecretRecord) -> bool {
        let found = |text: &str| self.search.is_empty() || text.to_lowercase().contains(&self.search);
        (found(record.name.as_str()) || found(record.comment.as_str()))
            && (self.scopes.is_empty() || self.scopes.iter().any(|scope| record.scopes.contains(*scope)))
    }
}

/// Where a secret stands in the list: by what was asked for, then by name.
#[derive(PartialEq, Eq)]
struct Place {
    key: Key,
    name: SecretName,
    id: SecretId,
    falling: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u64),
    Text(String),
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.cmp(&other.key).then_with(|| self.name.cmp(&other.name)).then_with(|| self.id.cmp(&other.id));
        if self.falling { order.reverse() } else { order }
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn scanned(
    core: &Core,
    state: &State,
    store: StoreId,
    window: &Window,
    order: Order,
    exact: Option<&str>,
    filter: &Filter,
) -> Result<Listed<v1::Secret>, PublicError> {
    let live = core.live_everywhere(state);
    let last = window.skip.saturating_add(window.take);
    // Too deep to be shown, if there is anything: then it is only counted.
    let deep = last > DEPTH_MAX;
    let last = if deep { 0 } else { size(last) };
    // The greatest on top: it goes when a smaller one comes.
    let mut first: BinaryHeap<Place> = BinaryHeap::new();
    let (mut total, mut after) = (0_u64, None);
    loop {
        let page = state.secrets(store, after.as_ref(), PAGE_MAX).map_err(damaged)?;
        for (id, record) in page.items {
            if !filter.lets(&record) {
                continue;
            }
            total += 1;
            if deep {
                continue;
            }
            let key = match order {
                // Before all others, whichever way they are listed.
                Order::Name => Key::Number(u64::from((exact == Some(record.name.as_str())) == window.falling)),
                Order::Comment => Key::Text(record.comment.as_str().to_owned()),
                Order::Created => Key::Number(record.created.get()),
                Order::Modified => Key::Number(record.modified.get()),
                Order::Status => Key::Number(u64::from(!show::is_live(core, id, live, Position::default()))),
            };
            first.push(Place { key, name: record.name, id, falling: window.falling });
            if first.len() > last {
                first.pop();
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if deep && total > window.skip {
        let message =
            format!("reaches past the first {DEPTH_MAX} entries, which only a list by name does: ask for `order=name` without a search");
        return Err(FieldError::new("page", message).into());
    }
    let places = first.into_sorted_vec();
    let mut found = Vec::new();
    for place in places.into_iter().skip(size(window.skip)) {
        if let Some(record) = state.secret(store, place.id).map_err(damaged)? {
            found.push((place.id, record));
        }
    }
    Ok(Listed { items: shown(core, state, &found)?, total })
}

/// A number of entries, as memory counts.
pub(crate) fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
