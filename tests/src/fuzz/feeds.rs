//! What `feed` reads from its own files. What comes over streams is in `protocol`, and what a stream carries in `replicated`.

use bytes::Bytes;

use super::{
    Seen, Target,
    replicated::{generation, history, seal},
};

pub(super) const TARGETS: &[Target] = &[Target::new(
    "feed_stored",
    &[
        "feed/src/follower/record.rs",
        "feed/src/follower/mark.rs",
        "feed/src/follower/past.rs",
        "feed/src/head.rs",
        "feed/src/follower/table.rs",
    ],
    seeds,
    read,
)
.repaired(repair)];

/// The first byte chooses the form.
fn read(bytes: &[u8]) -> Seen {
    let Some((form, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let form = &feed::FORMS[usize::from(*form) % feed::FORMS.len()];
    match (form.reread)(Bytes::copy_from_slice(bytes)) {
        Ok(written) => {
            assert_eq!((form.reread)(written.clone()).as_ref(), Ok(&written), "{}: what was read and written reads as another", form.name);
            Seen::Read(form.name.to_owned())
        }
        Err(error) => Seen::Refused(format!("{}: {error}", form.name)),
    }
}

fn entry(seal: &[u8]) -> Vec<u8> {
    let set = history().change_sets.first().cloned().unwrap_or_default();
    [&[0, 1][..], &(seal.len() as u16).to_le_bytes(), seal, &set].concat()
}

fn mark(checkpoint: &[u8]) -> Vec<u8> {
    let mut bytes = [&[1][..], b"CMK1", &[1; 76], &(checkpoint.len() as u16).to_le_bytes(), checkpoint, &[0; 4]].concat();
    repair(&mut bytes);
    bytes
}

fn past(generation: &[u8], marks: u8) -> Vec<u8> {
    let length = (generation.len() as u16).to_le_bytes();
    let mut bytes = [&[2][..], b"CINPAST1", &[1], &[8; 32], &length, generation, &[marks]].concat();
    bytes.extend_from_slice(&vec![3; 44 * usize::from(marks)]);
    bytes.extend_from_slice(&[0; 4]);
    repair(&mut bytes);
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    let head = [&[3, 1][..], &[5; 56], b"what belongs to it"].concat();
    vec![entry(&[]), entry(&seal()), mark(&[]), mark(&seal()), past(&[], 0), past(&generation(), 2), head]
}

/// A past ends with a CRC over all before it; in a mark it stands behind the checkpoint.
fn repair(input: &mut [u8]) {
    let forms = feed::FORMS.len() as u8;
    let Some((form, bytes)) = input.split_first_mut() else { return };
    let end = match *form % forms {
        1 => {
            let length = bytes.get(80..).and_then(<[u8]>::first_chunk).map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
            bytes.len().min(82 + length + 4)
        }
        2 => bytes.len(),
        _ => return,
    };
    super::logs::repair_last(&mut bytes[..end]);
}
