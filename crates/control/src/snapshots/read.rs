//! Walking through an archive from front to back: every byte is checked against damage, nothing is opened.

use std::io::{self, Read};

use sha2::{Digest, Sha256};
use state::{Signed, statement::ArchiveStatement};

use super::{
    ArchiveError,
    format::{
        CHUNK, CHUNK_HEADER_BYTES, CRC_BYTES, FOOTER, FOOTER_BYTES, FORMAT, HEADER_BYTES_MAX, Header, LAST_CHUNK, MAGIC, PREFIX_BYTES,
        SEALED_BYTES_MAX, SIGNED_BYTES, TOTALS_BYTES, Totals,
    },
};

/// A chunk as it stands in the file, whole but sealed.
#[derive(Debug)]
pub struct Chunk {
    /// Its number, from 0.
    pub number: u32,
    /// Whether it says that it is the last.
    pub last: bool,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

/// Reads an archive. Only after [`ArchiveReader::next_chunk`] returned none is it known that nothing is missing or changed by
/// accident; that nothing was changed on purpose, its seal and signature say.
pub struct ArchiveReader<R> {
    source: R,
    header: Header,
    header_hash: [u8; 32],
    signed: Signed<ArchiveStatement>,
    file: Sha256,
    offset: u64,
    chunks: u32,
    ended: bool,
    totals: Option<Totals>,
}

fn damaged(part: impl Into<String>, offset: u64, detail: &'static str) -> ArchiveError {
    ArchiveError::Damaged { part: part.into(), offset, detail }
}

/// Fills `bytes`; a file that ends before is damaged in `part`.
fn fill(source: &mut impl Read, bytes: &mut [u8], part: &str, offset: u64) -> Result<(), ArchiveError> {
    source.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(part, offset, "it ends too early"),
        _ => ArchiveError::io("read")(error),
    })
}

fn crc_at(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<CRC_BYTES>().is_some_and(|(content, crc)| crc32c::crc32c(content).to_be_bytes() == *crc)
}

impl<R: Read> ArchiveReader<R> {
    /// Reads and checks what stands before the chunks.
    ///
    /// # Errors
    /// [`ArchiveError::Other`], [`ArchiveError::Newer`], [`ArchiveError::Damaged`], [`ArchiveError::Io`].
    pub fn open(mut source: R) -> Result<Self, ArchiveError> {
        const BEGINNING: &str = "its beginning";
        let mut prefix = [0; PREFIX_BYTES];
        fill(&mut source, &mut prefix, BEGINNING, 0)?;
        let whole = crc_at(&prefix);
        if !prefix.starts_with(MAGIC) {
            // One changed byte of ours, or a file of another kind.
            let near = prefix.iter().zip(MAGIC).filter(|(got, wanted)| got != wanted).count() <= 1;
            return Err(if near { damaged(BEGINNING, 0, "its first bytes are changed") } else { ArchiveError::Other });
        }
        if !whole {
            return Err(damaged(BEGINNING, 8, "its checksum does not match"));
        }
        let [.., f0, f1, f2, f3, l0, l1, l2, l3, _, _, _, _] = prefix;
        let (format, length) = (u32::from_be_bytes([f0, f1, f2, f3]), u32::from_be_bytes([l0, l1, l2, l3]) as usize);
        if format > FORMAT {
            return Err(ArchiveError::Newer { got: format, known: FORMAT });
        }
        if format == 0 || length > HEADER_BYTES_MAX {
            return Err(damaged(BEGINNING, 8, "it states an impossible format or length"));
        }
        const HEADER: &str = "its header";
        let mut rest = vec![0; length + SIGNED_BYTES];
        fill(&mut source, &mut rest, HEADER, PREFIX_BYTES as u64)?;
        if !crc_at(&rest) {
            return Err(damaged(HEADER, PREFIX_BYTES as u64, "its checksum does not match"));
        }
        let (encoded, signed) = rest.split_at(length);
        let header = Header::decode(encoded).ok_or_else(|| damaged(HEADER, PREFIX_BYTES as u64, "its fields do not fit"))?;
        let file = Sha256::new().chain_update(prefix).chain_update(encoded);
        let header_hash: [u8; 32] = file.clone().finalize().into();
        let mut signature = [0; 64];
        signature.copy_from_slice(&signed[4..68]);
        let signed_set = [signed[0], signed[1], signed[2], signed[3]];
        Ok(Self {
            signed: Signed {
                statement: header.statement(header_hash),
                signer: header.saved_by,
                signer_set: u32::from_be_bytes(signed_set),
                signature,
            },
            file: file.chain_update(signed),
            offset: (PREFIX_BYTES + rest.len()) as u64,
            source,
            header,
            header_hash,
            chunks: 0,
            ended: false,
            totals: None,
        })
    }

    /// What the archive says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What its chunks are bound to.
    pub fn header_hash(&self) -> [u8; 32] {
        self.header_hash
    }

    /// The signature; it is verified with the signer sets inside.
    pub fn signed(&self) -> &Signed<ArchiveStatement> {
        &self.signed
    }

    /// The length of the file, once it was read to its end.
    pub fn length(&self) -> Option<u64> {
        self.totals.map(|totals| totals.length + FOOTER_BYTES as u64)
    }

    /// The next chunk; none after the last, when the footer has been checked and nothing follows it.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`], naming the chunk; [`ArchiveError::Io`].
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, ArchiveError> {
        if self.totals.is_some() {
            return Ok(None);
        }
        let (at, part) = (self.offset, if self.ended { "its footer".to_owned() } else { format!("chunk {}", self.chunks) });
        let mut kind = [0];
        fill(&mut self.source, &mut kind, &part, at)?;
        match kind {
            [CHUNK | LAST_CHUNK] if !self.ended => self.chunk(kind[0] == LAST_CHUNK, &part).map(Some),
            [FOOTER] if self.ended => self.footer().map(|()| None),
            _ => Err(damaged(part, at, "something else stands in its place")),
        }
    }

    fn chunk(&mut self, last: bool, part: &str) -> Result<Chunk, ArchiveError> {
        let at = self.offset;
        let mut bytes = vec![if last { LAST_CHUNK } else { CHUNK }; CHUNK_HEADER_BYTES];
        fill(&mut self.source, &mut bytes[1..], part, at)?;
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        if length > SEALED_BYTES_MAX {
            return Err(damaged(part, at, "it states an impossible length"));
        }
        bytes.resize(CHUNK_HEADER_BYTES + length + CRC_BYTES, 0);
        fill(&mut self.source, &mut bytes[CHUNK_HEADER_BYTES..], part, at)?;
        if !crc_at(&bytes) {
            return Err(damaged(part, at, "its checksum does not match"));
        }
        self.file.update(&bytes);
        self.offset += bytes.len() as u64;
        let number = self.chunks;
        self.chunks = number.checked_add(1).ok_or_else(|| damaged(part, at, "there are too many"))?;
        self.ended = last;
        bytes.truncate(CHUNK_HEADER_BYTES + length);
        bytes.drain(..CHUNK_HEADER_BYTES);
        Ok(Chunk { number, last, sealed: bytes })
    }

    fn footer(&mut self) -> Result<(), ArchiveError> {
        const PART: &str = "its footer";
        let at = self.offset;
        let mut bytes = [FOOTER; FOOTER_BYTES];
        fill(&mut self.source, &mut bytes[1..], PART, at)?;
        let (encoded, hash) = bytes.split_at(TOTALS_BYTES);
        self.file.update(encoded);
        if self.file.clone().finalize().as_slice() != hash {
            return Err(damaged(PART, at, "the SHA-256 over the file does not match"));
        }
        let totals = Totals::decode(encoded).ok_or_else(|| damaged(PART, at, "its fields do not fit"))?;
        if totals != (Totals { chunks: self.chunks, records: self.header.records, length: at }) {
            return Err(damaged(PART, at, "its totals are not those of the file"));
        }
        match self.source.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(damaged("behind its footer", at + FOOTER_BYTES as u64, "something follows")),
            Err(error) => return Err(ArchiveError::io("read")(error)),
        }
        self.totals = Some(totals);
        Ok(())
    }
}
