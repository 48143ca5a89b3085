//! Versions of a secret's value, and where a change has arrived. Beyond Cloudflare's API.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::Position;
use utoipa::ToSchema;
use wire::{PublicError, parse::FieldError, v1};

use super::{
    answer::{Answer, Envelope, Failure},
    ask::Ask,
    body,
    objects::{Secret, time},
};
use crate::operations;

/// A version of a secret's value.
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    /// Counted from 1, never used twice.
    version: u64,
    /// RFC 3339, UTC.
    created: String,
    /// Whether it is the one that is read.
    current: bool,
    /// Whether it is the one before that.
    previous: bool,
    /// Whether it waits to become current.
    candidate: bool,
}

/// Which version becomes current again.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct Rollback {
    /// The one before the current, if left out.
    pub(super) version: Option<u64>,
}

/// On how many edges a change is in force.
#[derive(Serialize, ToSchema)]
pub(super) struct Arrival {
    /// Where the change stands.
    position: String,
    /// Whether every edge holds it.
    live: bool,
    /// Edges that hold it.
    edges_live: u32,
    /// Edges that count.
    edges_known: u32,
}

/// Lists the versions of a secret, the newest first.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}/versions", tag = "beyond Cloudflare",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("secret_id" = String, Path, description = "The secret: its id, or its name"),
    ),
    responses((status = 200, body = Envelope<Vec<Version>>)),
)]
pub(super) async fn list(ask: Ask) -> Result<Answer<Vec<Version>>, Failure> {
    let wanted = v1::ListVersionsRequest { secret: Some(ask.secret()) };
    let reply = ask.read("secrets.versions", wanted, operations::secrets::versions).await?;
    let shown = |one: v1::SecretVersion| {
        let v1::SecretVersion { version, created_ms, current, previous, candidate, .. } = one;
        Version { version, created: time(created_ms), current, previous, candidate }
    };
    Ok(Answer::of(reply.versions.into_iter().map(shown).collect()))
}

/// Makes an older version current again. Nothing is sealed anew.
#[utoipa::path(
    post, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}/rollback", tag = "beyond Cloudflare",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("secret_id" = String, Path, description = "The secret: its id, or its name"),
    ),
    request_body = Option<Rollback>,
    responses((status = 200, body = Envelope<Secret>)),
)]
pub(super) async fn rollback(mut ask: Ask) -> Result<Answer<Secret>, Failure> {
    let Rollback { version } = wanted(&ask.body)?;
    let (way, version) = version.map_or((v1::PointerMove::Revert, 0), |version| (v1::PointerMove::Rollback, version));
    let message = v1::MovePointerRequest { secret: Some(ask.secret()), r#move: way.into(), version, ..Default::default() };
    let reply = ask.change("secrets.move_pointer", message, operations::secrets::move_pointer).await?;
    Ok(Answer::of(reply.secret.unwrap_or_default().into()).at(reply.receipt))
}

/// What a body asks to be current; one that says nothing is as good as none.
pub(super) fn wanted(body: &[u8]) -> Result<Rollback, PublicError> {
    if body::is_empty(body) {
        return Ok(Rollback::default());
    }
    Ok(body::json::<Option<Rollback>>(body)?.unwrap_or_default())
}

/// Says where a change has arrived, and waits for it to be everywhere.
#[utoipa::path(
    get, path = "/receipts/{position}", tag = "beyond Cloudflare",
    params(
        ("position" = String, Path, pattern = "^[0-9]{1,9}[.][0-9]{1,9}$", description = "What an answer's `cinnabar-receipt` said, such as 1.42"),
        ("wait_seconds" = Option<u64>, Query, description = "How long to wait; not at all if left out"),
    ),
    responses((status = 200, body = Envelope<Arrival>)),
)]
pub(super) async fn receipt(ask: Ask) -> Result<Answer<Arrival>, Failure> {
    let position: Position = ask.param("position").parse().map_err(|error| FieldError::new("position", error))?;
    let wait = Duration::from_secs(ask.query.number("wait_seconds")?.unwrap_or_default());
    let deadline_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let wanted = v1::WaitLiveRequest { position: Some(position.into()), deadline_ms };
    let v1::WaitLiveReply { edges_live, edges_known, controls_unheard, .. } =
        ask.read("receipts.wait_live", wanted, operations::receipts::wait_live).await?;
    let live = edges_live == edges_known && controls_unheard == 0;
    Ok(Answer::of(Arrival { position: position.to_string(), live, edges_live, edges_known }))
}
