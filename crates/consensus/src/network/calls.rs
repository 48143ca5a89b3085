//! The bytes of each call and answer.
//!
//! | form | bytes after the format byte |
//! |---|---|
//! | vote | term u64, candidate u64, granted u8 |
//! | append | vote, optional previous log id, optional commit log id, count u32, each: index u64, length u32, log record |
//! | append answer | 0 success; 1 partial success, optional log id; 2 conflict; 3 higher vote, vote |
//! | answer in a stream of appends | 0 durable up to, optional log id; 1 conflict, log id; 2 higher vote, vote |
//! | vote request | vote, optional last log id, leadership transfer u8 |
//! | vote answer | vote, granted u8, optional last log id |
//! | snapshot chunk | vote, optional last log id, membership, file length u64, offset u64, then the bytes |
//! | snapshot answer | vote, bytes received u64 |
//! | transfer | vote of the leader, to u64, optional last log id |
//! | transfer answer | 0 accepted; 1 vote changed, expected and actual vote; 2 log not flushed, expected and actual optional log id |

use bytes::{BufMut, Bytes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::{
    Runtime,
    format::{self, FormatError, Reader},
    raft::{SnapshotMeta, Types, Vote},
};

pub(super) fn encode_append<R: Runtime>(request: &AppendEntriesRequest<Types<R>>) -> Bytes {
    let mut out = format::begin(64 + request.entries.iter().map(|entry| 12 + format::record_room(entry)).sum::<usize>());
    format::put_vote(&mut out, &request.vote);
    format::put_log_id_option(&mut out, request.prev_log_id.as_ref());
    format::put_log_id_option(&mut out, request.leader_commit.as_ref());
    out.put_u32_le(request.entries.len() as u32);
    for entry in &request.entries {
        out.put_u64_le(entry.log_id.index);
        // Copied once, to where it is sent from; its length is known behind it.
        let length = out.len();
        out.put_u32_le(0);
        format::put_entry(&mut out, entry);
        let written = (out.len() - length - 4) as u32;
        out[length..length + 4].copy_from_slice(&written.to_le_bytes());
    }
    out.freeze()
}

pub(super) fn decode_append<R: Runtime>(bytes: Bytes) -> Result<AppendEntriesRequest<Types<R>>, FormatError> {
    let mut reader = Reader::new("append call", bytes)?;
    let vote = reader.vote()?;
    let (prev_log_id, leader_commit) = (reader.log_id_option()?, reader.log_id_option()?);
    let first = prev_log_id.as_ref().map_or(0, |id| id.index.saturating_add(1));
    let mut entries = Vec::new();
    for nth in 0..u64::from(reader.u32()?) {
        let (index, length) = (reader.u64()?, reader.u32()?);
        // openraft trusts its peers on this; a hole would be written into the log.
        if first.checked_add(nth) != Some(index) {
            return Err(reader.malformed("entries that do not follow each other"));
        }
        entries.push(format::decode_entry(index, reader.take(length as usize)?)?);
    }
    reader.end()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(super) fn encode_append_answer<R: Runtime>(answer: &AppendEntriesResponse<Types<R>>) -> Bytes {
    let mut out = format::begin(20);
    match answer {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(id) => {
            out.put_u8(1);
            format::put_log_id_option(&mut out, id.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            format::put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

pub(super) fn decode_append_answer<R: Runtime>(bytes: Bytes) -> Result<AppendEntriesResponse<Types<R>>, FormatError> {
    let mut reader = Reader::new("append answer", bytes)?;
    let answer = match reader.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(reader.log_id_option()?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(reader.vote()?),
        _ => return Err(reader.malformed("an unknown kind of answer")),
    };
    reader.end().map(|()| answer)
}

pub(super) fn encode_streamed_answer<R: Runtime>(answer: &StreamAppendResult<Types<R>>) -> Bytes {
    let mut out = format::begin(20);
    match answer {
        Ok(durable) => {
            out.put_u8(0);
            format::put_log_id_option(&mut out, durable.as_ref());
        }
        Err(StreamAppendError::Conflict(id)) => {
            out.put_u8(1);
            format::put_log_id(&mut out, id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            format::put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

pub(super) fn decode_streamed_answer<R: Runtime>(bytes: Bytes) -> Result<StreamAppendResult<Types<R>>, FormatError> {
    let mut reader = Reader::new("answer in a stream of appends", bytes)?;
    let answer = match reader.u8()? {
        0 => Ok(reader.log_id_option()?),
        1 => Err(StreamAppendError::Conflict(reader.log_id()?)),
        2 => Err(StreamAppendError::HigherVote(reader.vote()?)),
        _ => return Err(reader.malformed("an unknown kind of answer")),
    };
    reader.end().map(|()| answer)
}

pub(super) fn encode_vote_request<R: Runtime>(request: &VoteRequest<Types<R>>) -> Bytes {
    let mut out = format::begin(36);
    format::put_vote(&mut out, &request.vote);
    format::put_log_id_option(&mut out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
    out.freeze()
}

pub(super) fn decode_vote_request<R: Runtime>(bytes: Bytes) -> Result<VoteRequest<Types<R>>, FormatError> {
    let mut reader = Reader::new("vote call", bytes)?;
    let mut request = VoteRequest::new(reader.vote()?, reader.log_id_option()?);
    request.leadership_transfer = reader.flag()?;
    reader.end().map(|()| request)
}

pub(super) fn encode_vote_answer<R: Runtime>(answer: &VoteResponse<Types<R>>) -> Bytes {
    let mut out = format::begin(36);
    format::put_vote(&mut out, &answer.vote);
    out.put_u8(u8::from(answer.vote_granted));
    format::put_log_id_option(&mut out, answer.last_log_id.as_ref());
    out.freeze()
}

pub(super) fn decode_vote_answer<R: Runtime>(bytes: Bytes) -> Result<VoteResponse<Types<R>>, FormatError> {
    let mut reader = Reader::new("vote answer", bytes)?;
    let (vote, granted) = (reader.vote()?, reader.flag()?);
    let answer = VoteResponse::new(vote, reader.log_id_option()?, granted);
    reader.end().map(|()| answer)
}

/// A part of a snapshot file.
pub(super) struct SnapshotChunk {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) length: u64,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

impl SnapshotChunk {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = format::begin(256 + self.bytes.len());
        format::put_vote(&mut out, &self.vote);
        format::put_log_id_option(&mut out, self.meta.last_log_id.as_ref());
        format::put_stored_membership(&mut out, &self.meta.last_membership);
        out.put_u64_le(self.length);
        out.put_u64_le(self.offset);
        out.put_slice(&self.bytes);
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        let mut reader = Reader::new("snapshot call", bytes)?;
        let vote = reader.vote()?;
        let meta = SnapshotMeta { last_log_id: reader.log_id_option()?, last_membership: reader.stored_membership()? };
        Ok(Self { vote, meta, length: reader.u64()?, offset: reader.u64()?, bytes: reader.rest() })
    }
}

/// How far a snapshot file has arrived.
pub(super) struct SnapshotAnswer {
    pub(super) vote: Vote,
    pub(super) received: u64,
}

impl SnapshotAnswer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = format::begin(25);
        format::put_vote(&mut out, &self.vote);
        out.put_u64_le(self.received);
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        let mut reader = Reader::new("snapshot answer", bytes)?;
        let answer = Self { vote: reader.vote()?, received: reader.u64()? };
        reader.end().map(|()| answer)
    }
}

pub(super) fn encode_transfer<R: Runtime>(request: &TransferLeaderRequest<Types<R>>) -> Bytes {
    let mut out = format::begin(42);
    format::put_vote(&mut out, request.from_leader());
    out.put_u64_le(*request.to_node_id());
    format::put_log_id_option(&mut out, request.last_log_id());
    out.freeze()
}

pub(super) fn decode_transfer<R: Runtime>(bytes: Bytes) -> Result<TransferLeaderRequest<Types<R>>, FormatError> {
    let mut reader = Reader::new("transfer call", bytes)?;
    let request = TransferLeaderRequest::new(reader.vote()?, reader.u64()?, reader.log_id_option()?);
    reader.end().map(|()| request)
}

pub(super) fn encode_transfer_answer<R: Runtime>(answer: &TransferLeaderResponse<Types<R>>) -> Bytes {
    let mut out = format::begin(36);
    match answer {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            format::put_vote(&mut out, expected);
            format::put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            format::put_log_id_option(&mut out, expected.as_ref());
            format::put_log_id_option(&mut out, actual.as_ref());
        }
    }
    out.freeze()
}

pub(super) fn decode_transfer_answer<R: Runtime>(bytes: Bytes) -> Result<TransferLeaderResponse<Types<R>>, FormatError> {
    let mut reader = Reader::new("transfer answer", bytes)?;
    let answer = match reader.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged { expected: reader.vote()?, actual: reader.vote()? }),
        2 => Err(TransferLeaderError::LogNotFlushed { expected: reader.log_id_option()?, actual: reader.log_id_option()? }),
        _ => return Err(reader.malformed("an unknown kind of answer")),
    };
    reader.end().map(|()| answer)
}
