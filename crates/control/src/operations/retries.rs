//! Requests that come again without saying of which one they are the repetition.
//!
//! Clients that retry by themselves send no id with a request, only how often they have sent it. So what is made by such a request is
//! remembered under an id that follows from its operation, its target and the names in it, and from a number: a first try takes the lowest
//! number that is free, and a repetition takes the one under which something was made within the last [`WINDOW`], if that is still there.
//! Two first tries are two requests, however equal: the second is judged, and refused because the name is taken.
//!
//! Never of values: an id is no secret, and must not tell by trial what a value is. That a repetition brings the same value is checked by
//! the keyed fingerprint that every remembered request has.
//!
//! **Left out**: changes and deletions. To set the same value twice does no harm, and an id that follows from it would take the third of
//! three changes, back to the first value, for a repetition of the first.

use std::{sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use state::{ReplyBody, State, limits::REQUEST_AGE, record::RequestRecord};
use types::{RequestId, StoreId, UnixMillis};
use wire::{PublicError, parse::StoreTarget, v1};

use super::parsed;
use crate::{call::Call, core::Core, error::damaged, resolve};

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
    /// The store that it makes secrets in, if it does.
    pub(crate) store: Option<v1::StoreRef>,
}

impl Counted {
    fn id(&self, number: u32) -> RequestId {
        let mut hash = Sha256::new_with_prefix(b"cinnabar counted request v1\0");
        for part in &self.what {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(number.to_be_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        RequestId::from_bytes(id)
    }
}

/// The id under which it is remembered; none when it is not.
pub(crate) async fn id(core: Arc<Core>, call: Call, counted: Counted) -> Result<Option<RequestId>, PublicError> {
    let target = counted.store.clone().map(|store| parsed::<StoreTarget, _>("store", Some(store))).transpose()?;
    core.read(&call, |state, caller| {
        let store = target.as_ref().and_then(|target| resolve::store(state, caller, target).ok()).map(|store| store.id);
        let (mut free, mut made) = (None, None);
        for number in 0..NUMBERS {
            let id = counted.id(number);
            match state.request(caller.owner(), id).map_err(damaged)? {
                None => free = free.or(Some(id)),
                Some(record) => {
                    let since = recorded_at(&record);
                    if counted.again && state.last_time().since(since) <= WINDOW && is_there(state, store, &record)? {
                        made = made.max(Some((since, number, id)));
                    }
                }
            }
        }
        Ok(made.map(|(.., id)| id).or(free))
    })
    .await
}

fn recorded_at(record: &RequestRecord) -> UnixMillis {
    UnixMillis::new(record.expires.get().saturating_sub(u64::try_from(REQUEST_AGE.as_millis()).unwrap_or(u64::MAX)))
}

/// Whether what a request has made is there still. What was refused is judged anew.
fn is_there(state: &State, store: Option<StoreId>, record: &RequestRecord) -> Result<bool, PublicError> {
    match (record.result.as_ref().map(|reply| &reply.body), store) {
        (Ok(ReplyBody::StoreCreated { store }), _) => Ok(state.store(*store).map_err(damaged)?.is_some()),
        (Ok(ReplyBody::SecretsCreated { secrets }), Some(store)) => {
            let Some((first, _)) = secrets.first() else { return Ok(false) };
            Ok(state.secret(store, *first).map_err(damaged)?.is_some())
        }
        _ => Ok(false),
    }
}
