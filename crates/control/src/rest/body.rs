//! Bodies: JSON, whatever their content type says.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::ToSchema;
use wire::{ErrorKind, PublicError, REQUEST_BYTES_MAX};
use zeroize::Zeroizing;

use crate::core::Core;

/// How long a body may take to come. A client that is slower can send less at once.
const WITHIN: Duration = Duration::from_secs(30);

/// What cannot be parsed.
pub(super) fn malformed(reason: impl std::fmt::Display) -> PublicError {
    PublicError::new(ErrorKind::InvalidArgument, format!("the body is not as this request needs it: {reason}")).about("body")
}

/// Reads a body to its end, in time and within its limit. The copy is wiped.
pub(super) async fn read(core: &Arc<Core>, body: Body) -> Result<Zeroizing<Vec<u8>>, PublicError> {
    let late = || PublicError::new(ErrorKind::DeadlineExceeded, format!("the body has not come within {WITHIN:?}: nothing was done"));
    tokio::select! {
        biased;
        body = collected(body) => body,
        () = core.clock.sleep(WITHIN) => Err(late()),
    }
}

async fn collected(mut body: Body) -> Result<Zeroizing<Vec<u8>>, PublicError> {
    let too_large =
        || PublicError::new(ErrorKind::TooLarge, format!("the body is larger than {REQUEST_BYTES_MAX} bytes: send less at once"));
    let told = HttpBody::size_hint(&body).lower();
    if told > REQUEST_BYTES_MAX as u64 {
        return Err(too_large());
    }
    // Of its size from the start, where that is known: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(told).unwrap_or_default()));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| PublicError::new(ErrorKind::InvalidArgument, "the body broke off").about("body"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > REQUEST_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The JSON of a body.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PublicError> {
    if is_empty(bytes) {
        return Err(malformed("it is empty"));
    }
    // The parser's own message may show a part of the body.
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "a field is missing, twice there, or of another type",
            _ => "it is no JSON",
        };
        malformed(format_args!("{what} (line {}, column {})", error.line(), error.column()))
    })
}

/// Whether a body says nothing.
pub(super) fn is_empty(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

/// Whether a body is a list.
pub(super) fn is_list(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// What is to be deleted. `secret_ids` is taken in the place of `ids`.
#[derive(Deserialize, ToSchema)]
pub(super) struct Ids {
    /// At least one.
    #[serde(alias = "secret_ids")]
    #[schema(min_items = 1)]
    pub(super) ids: Vec<String>,
}

/// One of a list of them.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Id {
    /// An id.
    Text(String),
    /// An object with an id.
    Object {
        /// The id.
        id: String,
    },
}

/// What is to be deleted, in any of the forms that are taken.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is described and never made")]
pub(super) enum IdsInAnyForm {
    /// An object.
    Named(Ids),
    /// A list.
    Listed(Vec<Id>),
}

/// Reads them. A body that names none never means all.
pub(super) fn ids(bytes: &[u8]) -> Result<Ids, PublicError> {
    if !is_list(bytes) {
        return json(bytes);
    }
    let list: Vec<Id> = json(bytes)?;
    let one = |one| match one {
        Id::Text(id) | Id::Object { id } => id,
    };
    Ok(Ids { ids: list.into_iter().map(one).collect() })
}
