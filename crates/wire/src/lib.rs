//! What goes over the wire: code generated from `proto`, checked conversions to `types`, and the public error with its one table.
//!
//! [`v1`] is the public API, [`internal`] what nodes say among themselves. Messages are data of strangers: a service parses
//! them with the functions of [`parse`] before anything else, and each refusal names the field. Errors leave as
//! [`PublicError`], whose [`ErrorKind`] alone decides gRPC code, HTTP status, exit code and advice.
//!
//! **Invariants**
//! 1. A message that carries a plaintext or a token shows lengths in its `Debug`, never content.
//! 2. Every error kind stands in the table once; a kind sent through a gRPC status comes out as the same kind.
//! 3. No text made here repeats what a caller sent into a field for values or tokens.
//!
//! **Left out**: formats of records, change sets and statements (`state`), which travel here as opaque bytes.

#[cfg(test)]
mod carriers;
mod error;
pub mod frames;
mod generated;
mod kind;
mod limits;
pub mod parse;
mod redact;
mod reply;

pub use error::{ERROR_METADATA, PublicError, REQUEST_ID_METADATA, TRUST_METADATA};
pub use generated::{DESCRIPTORS, internal, v1};
pub use kind::ErrorKind;
pub use limits::{FEED_MESSAGE_BYTES_MAX, GET_MANY_MAX, LOOKUP_REPLY_BYTES_MAX, PAGE_MAX, PAGE_USUAL, REQUEST_BYTES_MAX};
