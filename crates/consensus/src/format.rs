//! The bytes of log records, slots and calls between voters.
//!
//! They are our own, and not openraft's serde forms, so that another version of openraft cannot change a stored byte. Numbers
//! are little-endian. Every form begins with one format byte, 1 today.
//!
//! | form | bytes after the format byte |
//! |---|---|
//! | log record | kind (0 blank, 1 command, 2 membership), term u64, then the command's own bytes or a membership |
//! | vote slot | term u64, candidate u64, granted u8 |
//! | log id slot (committed hint, purge mark) | term u64, index u64 |
//! | membership | count u16 of configs, each: count u16 of voters, each u64; count u16 of nodes, each: u64, length u16, address |
//! | optional | 0, or 1 and the value |
//!
//! **Failure**: [`FormatError`] names the form and what is wrong. A format byte above the known one means a newer binary wrote it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::{BasicNode, EntryPayload, vote::RaftLeaderId};

use crate::raft::{Entry, LogId, Membership, Proposal, StoredMembership, Vote, log_id};

pub(crate) const FORMAT: u8 = 1;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// Written by a newer binary.
    #[error("{form} has format {found}, this binary knows {FORMAT}: run the newer binary that wrote it")]
    Newer { form: &'static str, found: u8 },
    /// Not of this form.
    #[error("malformed {form}: {detail}")]
    Malformed { form: &'static str, detail: &'static str },
}

/// Reads a form from front to back; byte strings share the input.
pub(crate) struct Reader {
    form: &'static str,
    rest: Bytes,
}

impl Reader {
    /// Checks the format byte.
    pub(crate) fn new(form: &'static str, bytes: Bytes) -> Result<Self, FormatError> {
        let mut reader = Self { form, rest: bytes };
        match reader.u8()? {
            FORMAT => Ok(reader),
            0 => Err(reader.malformed("format byte 0")),
            found => Err(FormatError::Newer { form, found }),
        }
    }

    pub(crate) fn malformed(&self, detail: &'static str) -> FormatError {
        FormatError::Malformed { form: self.form, detail }
    }

    fn need(&self, bytes: usize) -> Result<(), FormatError> {
        if self.rest.remaining() < bytes { Err(self.malformed("it ends too early")) } else { Ok(()) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    fn u16(&mut self) -> Result<u16, FormatError> {
        self.need(2)?;
        Ok(self.rest.get_u16_le())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.need(4)?;
        Ok(self.rest.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.need(8)?;
        Ok(self.rest.get_u64_le())
    }

    pub(crate) fn flag(&mut self) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("a flag that is neither 0 nor 1")),
        }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<Bytes, FormatError> {
        self.need(bytes)?;
        Ok(self.rest.split_to(bytes))
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        self.rest.split_off(0)
    }

    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes follow its end")) }
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, FormatError> {
        Ok(log_id(self.u64()?, self.u64()?))
    }

    pub(crate) fn log_id_option(&mut self) -> Result<Option<LogId>, FormatError> {
        if self.flag()? { self.log_id().map(Some) } else { Ok(None) }
    }

    pub(crate) fn vote(&mut self) -> Result<Vote, FormatError> {
        let leader_id = RaftLeaderId::new(self.u64()?, self.u64()?);
        Ok(Vote { leader_id, committed: self.flag()? })
    }

    pub(crate) fn membership(&mut self) -> Result<Membership, FormatError> {
        let mut configs = Vec::new();
        for _ in 0..self.u16()? {
            let mut voters = BTreeSet::new();
            for _ in 0..self.u16()? {
                voters.insert(self.u64()?);
            }
            configs.push(voters);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.u16()? {
            let (node, length) = (self.u64()?, self.u16()?);
            let address =
                String::from_utf8(self.take(length.into())?.into()).map_err(|_| self.malformed("an address that is not UTF-8"))?;
            nodes.insert(node, BasicNode { addr: address });
        }
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|_| self.malformed("a membership without voters, or with a voter that is no node"))
    }

    pub(crate) fn stored_membership(&mut self) -> Result<StoredMembership, FormatError> {
        Ok(StoredMembership::new(self.log_id_option()?, self.membership()?))
    }
}

/// Begins a form.
pub(crate) fn begin(capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(1 + capacity);
    out.put_u8(FORMAT);
    out
}

pub(crate) fn put_log_id(out: &mut BytesMut, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.index);
}

pub(crate) fn put_log_id_option(out: &mut BytesMut, id: Option<&LogId>) {
    out.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

pub(crate) fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u16_le(configs.len() as u16);
    for config in configs {
        out.put_u16_le(config.len() as u16);
        config.iter().for_each(|voter| out.put_u64_le(*voter));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u16_le(nodes.len() as u16);
    for (node, BasicNode { addr }) in nodes {
        out.put_u64_le(*node);
        out.put_u16_le(addr.len() as u16);
        out.put_slice(addr.as_bytes());
    }
}

pub(crate) fn put_stored_membership(out: &mut BytesMut, stored: &StoredMembership) {
    put_log_id_option(out, stored.log_id().as_ref());
    put_membership(out, stored.membership());
}

/// Bytes of a record before the command: format, kind and term.
pub(crate) const RECORD_HEADER_BYTES: usize = 10;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// An entry as it stands in the log; its index is the record's number.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::with_capacity(record_room(entry));
    put_entry(&mut out, entry);
    out.freeze()
}

/// Room for an entry's record: enough for a command.
pub(crate) fn record_room(entry: &Entry) -> usize {
    RECORD_HEADER_BYTES
        + match &entry.payload {
            EntryPayload::Normal(Proposal(command)) => command.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

/// The same record, behind what is in `out`.
pub(crate) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    let kind = match &entry.payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Normal(_) => COMMAND,
        EntryPayload::Membership(_) => MEMBERSHIP,
    };
    out.put_u8(FORMAT);
    out.put_u8(kind);
    out.put_u64_le(entry.log_id.leader_id.term);
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(Proposal(command)) => out.put_slice(command),
        EntryPayload::Membership(membership) => put_membership(out, membership),
    }
}

/// The entry at `index`; a command shares the record's bytes.
pub(crate) fn decode_entry(index: u64, record: Bytes) -> Result<Entry, FormatError> {
    let mut reader = Reader::new("log record", record)?;
    let (kind, term) = (reader.u8()?, reader.u64()?);
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        COMMAND => EntryPayload::Normal(Proposal(reader.rest())),
        MEMBERSHIP => EntryPayload::Membership(reader.membership()?),
        _ => return Err(reader.malformed("an unknown kind of entry")),
    };
    reader.end()?;
    Ok(Entry { log_id: log_id(term, index), payload })
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = begin(17);
    put_vote(&mut out, vote);
    out.freeze()
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<Vote, FormatError> {
    let mut reader = Reader::new("vote slot", bytes)?;
    let vote = reader.vote()?;
    reader.end().map(|()| vote)
}

pub(crate) fn encode_log_id(id: &LogId) -> Bytes {
    let mut out = begin(16);
    put_log_id(&mut out, id);
    out.freeze()
}

pub(crate) fn decode_log_id(bytes: Bytes) -> Result<LogId, FormatError> {
    let mut reader = Reader::new("log id slot", bytes)?;
    let id = reader.log_id()?;
    reader.end().map(|()| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let nodes: BTreeMap<u64, BasicNode> =
            [(1, "a:1"), (2, "b:2"), (3, "")].map(|(id, addr)| (id, BasicNode { addr: addr.to_owned() })).into();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes).unwrap()
    }

    #[test]
    fn entry_of_every_kind_round_trips() {
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal(Bytes::from_static(b"command"))),
            EntryPayload::Normal(Proposal(Bytes::new())),
            EntryPayload::Membership(membership()),
            EntryPayload::Membership(Membership::default()),
        ] {
            let entry = Entry { log_id: log_id(7, 9), payload };
            assert_eq!(decode_entry(9, encode_entry(&entry)).unwrap(), entry);
        }
    }

    /// Stored bytes of format 1. They decode for ever; a change here is a change of the format.
    #[test]
    fn entry_bytes_are_as_they_were_first_written() {
        let command = Entry { log_id: log_id(258, 9), payload: EntryPayload::Normal(Proposal(Bytes::from_static(b"hi"))) };
        assert_eq!(&encode_entry(&command)[..], b"\x01\x01\x02\x01\0\0\0\0\0\0hi");
        let vote = Vote { leader_id: RaftLeaderId::new(3, 4), committed: true };
        assert_eq!(&encode_vote(&vote)[..], b"\x01\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x01");
        assert_eq!(&encode_log_id(&log_id(1, 2))[..], b"\x01\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    }

    #[test]
    fn entry_cut_anywhere_or_longer_is_refused() {
        let whole = encode_entry(&Entry { log_id: log_id(1, 1), payload: EntryPayload::Membership(membership()) });
        for length in 0..whole.len() {
            assert!(decode_entry(1, whole.slice(..length)).is_err(), "{length}");
        }
        let mut longer = BytesMut::from(&whole[..]);
        longer.put_u8(0);
        assert!(decode_entry(1, longer.freeze()).is_err());
    }

    #[test]
    fn entry_of_newer_format_says_so() {
        let error = decode_entry(1, Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap_err();
        assert_eq!(error.to_string(), "log record has format 2, this binary knows 1: run the newer binary that wrote it");
    }

    #[test]
    fn proposal_prints_its_length_and_nothing_else() {
        let entry = Entry { log_id: log_id(1, 1), payload: EntryPayload::Normal(Proposal(Bytes::from_static(b"canary"))) };
        for text in [format!("{entry}"), format!("{entry:?}")] {
            assert!(text.contains("command (6 bytes)") && !text.contains("canary"), "{text}");
        }
    }
}
