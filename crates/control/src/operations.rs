//! The operations of the public API, one set for every protocol: gRPC and REST parse what they were sent, call one of these, and show what
//! came back. The messages are those of gRPC.

pub(crate) mod accounts;
pub(crate) mod bindings;
pub(crate) mod deleted;
pub(crate) mod identity;
pub(crate) mod lists;
pub(crate) mod members;
pub(crate) mod receipts;
pub(crate) mod retries;
pub(crate) mod secrets;
pub(crate) mod stores;
pub(crate) mod tokens;

use state::Key;
use wire::{ErrorKind, PublicError, parse::PageTarget};

/// Where a page begins: the key after which it starts, from the token that the page before gave out.
pub(crate) fn after(page: &PageTarget) -> Result<Option<Key>, PublicError> {
    let Some(token) = &page.token else { return Ok(None) };
    let bad = || PublicError::new(ErrorKind::InvalidArgument, "field `page.token`: not a token that a page before this one gave out");
    // Digit by digit: `u8::from_str_radix` would take a sign for one.
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = token.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let key = Key::from_bytes(bytes.filter(|_| rest.is_empty()).ok_or_else(bad)?);
    key.decode().map(|_| Some(key)).map_err(|_| bad())
}

/// The token of the page after.
pub(crate) fn next(key: Option<Key>) -> String {
    key.map(|key| key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default()
}

/// What a message must hold.
pub(crate) fn parsed<T, M>(field: &str, message: Option<M>) -> Result<T, PublicError>
where
    T: TryFrom<M, Error = wire::parse::FieldError>,
{
    let message = wire::parse::required(field, message)?;
    T::try_from(message).map_err(|error| error.under(field).into())
}
