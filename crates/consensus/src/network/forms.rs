//! The forms that nobody but this crate reads, for whoever feeds them hostile bytes: each decoded, and what was read encoded again.

use bytes::Bytes;

use super::{Answered, Applied, Change, Overview, ProposeCall, Timed, calls, decode_forward, encode_forward};
use crate::{
    Runtime,
    format::{self, FormatError},
    snapshot::Label,
};

/// A stored or sent form.
pub struct Form {
    /// Its name in messages.
    pub name: &'static str,
    /// Decodes, and encodes what was read; the error is what the decoder says.
    pub reread: fn(Bytes) -> Result<Bytes, String>,
}

fn reread<T>(
    bytes: Bytes,
    decode: impl FnOnce(Bytes) -> Result<T, FormatError>,
    encode: impl FnOnce(&T) -> Bytes,
) -> Result<Bytes, String> {
    decode(bytes).map(|read| encode(&read)).map_err(|error| error.to_string())
}

fn forward<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: Bytes) -> Result<Bytes, String> {
    reread(bytes, |bytes| decode_forward::<T>("forward", bytes), encode_forward)
}

macro_rules! forms {
    ($($name:literal: $decode:expr, $encode:expr;)*) => {
        vec![$(Form { name: $name, reread: |bytes| reread(bytes, $decode, $encode) }),*]
    };
}

/// All of them.
pub fn forms<R: Runtime>() -> Vec<Form> {
    let mut forms = forms! {
        "log record": |bytes| format::decode_entry(9, bytes), format::encode_entry;
        "vote slot": format::decode_vote, format::encode_vote;
        "log id slot": format::decode_log_id, format::encode_log_id;
        "state label": Label::decode, Label::encode;
        "append call": calls::decode_append::<R>, calls::encode_append::<R>;
        "append answer": calls::decode_append_answer::<R>, calls::encode_append_answer::<R>;
        "answer in a stream of appends": calls::decode_streamed_answer::<R>, calls::encode_streamed_answer::<R>;
        "vote call": calls::decode_vote_request::<R>, calls::encode_vote_request::<R>;
        "vote answer": calls::decode_vote_answer::<R>, calls::encode_vote_answer::<R>;
        "snapshot call": calls::SnapshotChunk::decode, calls::SnapshotChunk::encode;
        "snapshot answer": calls::SnapshotAnswer::decode, calls::SnapshotAnswer::encode;
        "transfer call": calls::decode_transfer::<R>, calls::encode_transfer::<R>;
        "transfer answer": calls::decode_transfer_answer::<R>, calls::encode_transfer_answer::<R>;
        "propose call": ProposeCall::decode, ProposeCall::encode;
    };
    forms.push(Form { name: "change call", reread: forward::<Timed<Change>> });
    forms.push(Form { name: "question", reread: forward::<Timed<()>> });
    forms.push(Form { name: "answer to a proposal", reread: forward::<Answered<Applied>> });
    forms.push(Form { name: "answer to a change or a read", reread: forward::<Answered<u64>> });
    forms.push(Form { name: "answer about the members", reread: forward::<Answered<Overview>> });
    forms
}
