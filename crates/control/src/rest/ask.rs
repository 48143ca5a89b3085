//! A request as handlers get it: its sender is known to this node's state, its body is read.

use std::{future::Future, sync::Arc};

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use prost::Message;
use runtime::listen::Peer;
use wire::{PublicError, v1};
use zeroize::Zeroizing;

use super::{answer::Failure, body, headers::Told, query::Query};
use crate::{
    call::{self, Call, Change},
    core::Core,
    door,
    operations::{
        lists::Window,
        retries::{self, Counted, Still},
    },
};

/// What a handler works with.
pub(super) struct Ask {
    pub(super) core: Arc<Core>,
    pub(super) call: Call,
    pub(super) query: Query,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// By which a retry of it is known, if it says so.
    pub(super) retry: Told,
    params: RawPathParams,
}

impl Ask {
    /// Has a change done.
    pub(super) async fn change<M, R, F>(
        &mut self,
        operation: &'static str,
        mut message: M,
        run: impl FnOnce(Arc<Core>, Call, M) -> F,
    ) -> Result<R, Failure>
    where
        M: Change + 'static,
        R: Message + Default + 'static,
        F: Future<Output = Result<R, PublicError>> + Send + 'static,
    {
        if let Some(id) = self.retry.id {
            *message.request_id() = id.to_string();
        }
        let call = self.call.clone();
        call::done(&self.core, operation, call, message, run).await.map_err(|error| Failure::of(operation, error))
    }

    /// Goes by the count of a client that repeats what makes or deletes something: see `operations::retries`.
    pub(super) async fn count(&mut self, operation: &'static str, target: &[&str], names: &[String], still: Still) -> Result<(), Failure> {
        let Some(count) = self.retry.count.filter(|_| self.retry.id.is_none()) else { return Ok(()) };
        let what = [operation].into_iter().chain(target.iter().copied()).map(str::to_owned).chain(names.iter().cloned()).collect();
        let again = count > 0;
        self.retry.id = self.read("requests.find", Counted { what, again, still }, retries::id).await?;
        self.call.first_try = !again && self.retry.id.is_some();
        Ok(())
    }

    /// Has something read.
    pub(super) async fn read<M, R, F>(
        &self,
        operation: &'static str,
        asked: M,
        run: impl FnOnce(Arc<Core>, Call, M) -> F,
    ) -> Result<R, Failure>
    where
        F: Future<Output = Result<R, PublicError>>,
    {
        call::seen(&self.core, operation, self.call.clone(), asked, run).await.map_err(|error| Failure::of(operation, error))
    }

    /// Which part of a list is asked for.
    pub(super) fn window(&self) -> Result<Window, PublicError> {
        let Query { page, per_page, .. } = self.query;
        let falling = self.query.falls()?;
        let order = self.query.get("order").unwrap_or_default().to_owned();
        Ok(Window { skip: (page - 1).saturating_mul(per_page), take: per_page, order, falling })
    }

    /// The store of the path.
    pub(super) fn store(&self) -> v1::StoreRef {
        v1::StoreRef { account: self.param("account_id"), store: self.param("store_id") }
    }

    /// The secret of the path.
    pub(super) fn secret(&self) -> v1::SecretRef {
        let v1::StoreRef { account, store } = self.store();
        v1::SecretRef { account, store, secret: self.param("secret_id") }
    }

    /// A part of the path.
    pub(super) fn param(&self, name: &str) -> String {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }
}

impl Call {
    /// What a request over REST says of its sender.
    pub(super) fn of_rest(core: &Core, request: &Request) -> Self {
        Self::of_headers(core, request.headers(), request.extensions().get::<Peer>())
    }
}

impl FromRequest<Arc<Core>> for Ask {
    type Rejection = Failure;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, Failure> {
        let (mut parts, sent) = request.into_parts();
        let call = parts.extensions.get::<Call>().cloned().ok_or_else(|| Failure::no_route(parts.uri.path()))?;
        let label = call.origin.request.clone();
        let operation = if parts.uri.path().ends_with("/user/tokens/verify") { "tokens.verify" } else { "" };
        let labelled = |error: PublicError| Failure::of(operation, error.with_request_id(label.clone()));
        // Before anything of it is read.
        door::admit(core, &call, &parts.extensions).map_err(labelled)?;
        if let Some(peer) = parts.extensions.get::<Peer>() {
            let token = parts.headers.get("authorization").or_else(|| parts.headers.get("x-auth-key"));
            peer.keep_place_of(token.map(|token| token.as_bytes()));
        }
        let no_route = Failure::no_route(parts.uri.path());
        let params = RawPathParams::from_request_parts(&mut parts, core).await.map_err(|_| no_route)?;
        let query = Query::of(parts.uri.query().unwrap_or_default()).map_err(labelled)?;
        let retry = Told::of(&parts.headers).map_err(labelled)?;
        let body = body::read(core, sent).await.map_err(labelled)?;
        Ok(Self { core: core.clone(), call, query, body, retry, params })
    }
}
