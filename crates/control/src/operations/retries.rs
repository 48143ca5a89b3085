//! Requests that come again without saying of which one they are the repetition.
//!
//! Clients that retry by themselves send no id with a request, only how often they have sent it. So what is made or deleted by such a
//! request is remembered under an id that follows from its operation, its target and the names in it, and from a number: a first try takes
//! the lowest number that is free, and a repetition takes the one under which something was done within the last [`WINDOW`], if it is
//! still so ([`Still`]): what was made is there, what was deleted is not. Two first tries are two requests, however equal: the second is
//! judged, and refused because the name is taken, or nothing is there.
//!
//! Never of values: an id is no secret, and must not tell by trial what a value is. That a repetition brings the same value is checked by
//! the keyed fingerprint that every remembered request has.
//!
//! **Left out**: changes. To set the same value twice does no harm, and an id that follows from it would take the third of three changes,
//! back to the first value, for a repetition of the first.

use std::{sync::Arc, time::Duration};

use seams::mutation::{self, Mutation};
use sha2::{Digest, Sha256};
use state::{
    ReplyBody, State,
    limits::{ITEMS_MAX, REQUEST_AGE},
    record::RequestRecord,
};
use types::{BindingName, RequestId, StoreId, UnixMillis};
use wire::{
    ErrorKind, PublicError,
    parse::{self, ConsumerTarget, IdOrName, StoreTarget},
    v1,
};

use super::parsed;
use crate::{call::Call, caller::Caller, core::Core, error::damaged, resolve};

/// Equal requests that are told apart, of one caller within the time for which requests are remembered. One more is not remembered.
const NUMBERS: u32 = 64;
/// A client gives up a request after a minute, and tries twice more.
const WINDOW: Duration = Duration::from_secs(4 * 60);

/// A request whose client counts how often it has sent it.
pub(crate) struct Counted {
    /// Operation, target and names.
    pub(crate) what: Vec<String>,
    /// Whether it was sent before.
    pub(crate) again: bool,
    /// What has to be so still for the first answer to be true.
    pub(crate) still: Still,
}

/// What a request has brought about.
pub(crate) enum Still {
    /// A store that it made is there; or secrets, in the store that is named.
    Made(Option<v1::StoreRef>),
    /// None of these is in the store, which is there itself. What was made anew under such a name is not said to be deleted.
    Deleted(v1::StoreRef, Vec<String>),
    /// No store has this name.
    StoreDeleted(v1::StoreRef),
    /// Nothing is bound to the consumer under this name.
    Unbound(v1::ConsumerRef, String),
}

/// The same, as the state says it.
enum Seen {
    /// What was made is looked for in the store, if it is there.
    Made(Option<StoreId>),
    /// Whether all of it is gone.
    Gone(bool),
}

impl Counted {
    /// Its ids, number by number. What it says is hashed once: it may be long.
    fn ids(&self) -> impl Iterator<Item = (u32, RequestId)> + use<> {
        let mut hash = Sha256::new_with_prefix(b"cinnabar counted request v1\0");
        for part in &self.what {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        (0..NUMBERS).map(move |number| {
            let mut id = [0; 16];
            id.copy_from_slice(&hash.clone().chain_update(number.to_be_bytes()).finalize()[..16]);
            (number, RequestId::from_bytes(id))
        })
    }
}

/// The id under which it is remembered; none when it is not.
pub(crate) async fn id(core: Arc<Core>, call: Call, counted: Counted) -> Result<Option<RequestId>, PublicError> {
    core.read(&call, |state, caller| {
        // What names nothing is for the operation to refuse.
        let Ok(seen) = counted.still.seen(state, caller) else { return Ok(None) };
        let (mut free, mut done) = (None, None);
        for (number, id) in counted.ids() {
            match state.request(caller.owner(), id).map_err(damaged)? {
                None => free = free.or(Some(id)),
                Some(record) => {
                    let since = recorded_at(&record);
                    let again = counted.again && !mutation::is_on(Mutation::RepetitionUnseen);
                    if again && state.last_time().since(since) <= WINDOW && is_so(state, &seen, &record)? {
                        done = done.max(Some((since, number, id)));
                    }
                }
            }
        }
        Ok(done.map(|(.., id)| id).or(free))
    })
    .await
}

impl Still {
    fn seen(&self, state: &State, caller: &Caller) -> Result<Seen, PublicError> {
        let store_of = |named: &v1::StoreRef| parsed::<StoreTarget, _>("store", Some(named.clone()));
        Ok(match self {
            Self::Made(None) => Seen::Made(None),
            Self::Made(Some(named)) => Seen::Made(resolve::store(state, caller, &store_of(named)?).ok().map(|store| store.id)),
            Self::Deleted(named, secrets) => {
                // More than one command takes: the operation refuses them.
                if secrets.len() > ITEMS_MAX {
                    return Ok(Seen::Gone(false));
                }
                let Ok(store) = resolve::store(state, caller, &store_of(named)?) else { return Ok(Seen::Gone(false)) };
                for text in secrets {
                    let secret = IdOrName::parse("secret", text.clone())?;
                    if !resolve::id_in_store(state, &store, &secret).is_err_and(|error| error.kind == ErrorKind::NotFound) {
                        return Ok(Seen::Gone(false));
                    }
                }
                Seen::Gone(true)
            }
            Self::StoreDeleted(named) => {
                let target = store_of(named)?;
                let account = resolve::account(state, caller, target.account.as_ref());
                let missing = |error: PublicError| error.kind == ErrorKind::NotFound;
                Seen::Gone(account.is_ok() && resolve::store(state, caller, &target).is_err_and(missing))
            }
            Self::Unbound(consumer, name) => {
                let target: ConsumerTarget = parsed("consumer", Some(consumer.clone()))?;
                let name: BindingName = parse::name("name", name.clone())?;
                let Ok(consumer) = resolve::consumer(state, caller, &target) else { return Ok(Seen::Gone(false)) };
                Seen::Gone(state.binding(&consumer, &name).map_err(damaged)?.is_none())
            }
        })
    }
}

fn recorded_at(record: &RequestRecord) -> UnixMillis {
    UnixMillis::new(record.expires.get().saturating_sub(u64::try_from(REQUEST_AGE.as_millis()).unwrap_or(u64::MAX)))
}

/// Whether what a request has brought about is so still. What was refused is judged anew.
fn is_so(state: &State, seen: &Seen, record: &RequestRecord) -> Result<bool, PublicError> {
    let Ok(reply) = &record.result else { return Ok(false) };
    match (&reply.body, seen) {
        (ReplyBody::StoreCreated { store }, Seen::Made(_)) => Ok(state.store(*store).map_err(damaged)?.is_some()),
        (ReplyBody::SecretsCreated { secrets }, Seen::Made(Some(store))) => {
            let Some((first, _)) = secrets.first() else { return Ok(false) };
            Ok(state.secret(*store, *first).map_err(damaged)?.is_some())
        }
        (ReplyBody::SecretsDeleted { .. } | ReplyBody::StoreDeleted { .. } | ReplyBody::Unbound, Seen::Gone(gone)) => Ok(*gone),
        _ => Ok(false),
    }
}
