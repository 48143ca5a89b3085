//! The forms that nobody but this crate reads, for whoever feeds them hostile bytes: each decoded, and what was read encoded again.

use bytes::Bytes;

use super::{mark, past::Past, record};
use crate::head;

/// A stored or sent form.
pub struct Form {
    /// Its name in messages.
    pub name: &'static str,
    /// Decodes, and encodes what was read; the error is what the decoder says.
    pub reread: fn(Bytes) -> Result<Bytes, String>,
}

/// All of them.
pub const FORMS: &[Form] = &[
    Form { name: "edge log entry", reread: reread_log_entry },
    Form { name: "mark", reread: reread_mark },
    Form { name: "past", reread: reread_past },
    Form { name: "head", reread: reread_head },
];

fn reread_log_entry(bytes: Bytes) -> Result<Bytes, String> {
    let (set, seal) = record::decode(&bytes).map_err(|fault| fault.to_string())?;
    Ok(record::encode(&set, seal.as_deref()))
}

fn reread_mark(bytes: Bytes) -> Result<Bytes, String> {
    let (sequence, read) = mark::decode(&bytes).ok_or("it does not decode")?;
    Ok(mark::encode(sequence, &read).into())
}

fn reread_past(bytes: Bytes) -> Result<Bytes, String> {
    Ok(Past::decode(&bytes).ok_or("it does not decode")?.encode().into())
}

fn reread_head(bytes: Bytes) -> Result<Bytes, String> {
    let (read, rest) = head::decode("head", bytes).map_err(|fault| fault.to_string())?;
    Ok(head::encode(&read, [&rest[..]]))
}
