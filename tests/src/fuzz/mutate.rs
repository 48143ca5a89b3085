//! Changes to an input.

use super::{Target, random::Random};

/// Numbers at which decoders go wrong.
const ODD: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Changes an input in a few places, and in most cases makes its checksums right again.
pub(super) fn change(random: &mut Random, target: &Target, input: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..=random.below(4) {
        once(random, target, input, others);
    }
    input.truncate(target.length_max);
    if let Some(repair) = target.repair
        && !random.one_in(5)
    {
        repair(input);
    }
}

fn once(random: &mut Random, target: &Target, input: &mut Vec<u8>, others: &[Vec<u8>]) {
    let at = random.below(input.len());
    match random.below(12) {
        0 | 1 => set(input, at, |byte| byte ^ (1 << (at % 8))),
        2 => {
            let byte = random.number() as u8;
            set(input, at, |_| byte);
        }
        3 => {
            let step = [1_u8, 255][random.below(2)];
            set(input, at, |byte| byte.wrapping_add(step));
        }
        4 => input.truncate(at),
        5 | 6 => number(random, input, at),
        7 => {
            let end = at + random.below(input.len() - at + 1).min(64);
            input.drain(at..end);
        }
        8 => {
            let end = at + random.below(input.len() - at + 1).min(64);
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            insert(input, to, &piece);
        }
        9 => {
            let (byte, count) = (random.number() as u8, random.below(32));
            insert(input, at, &vec![byte; count]);
        }
        10 => {
            if let Some(other) = random.pick(others) {
                let from = random.below(other.len());
                let tail = other[from..].to_vec();
                input.truncate(at);
                input.extend_from_slice(&tail);
            }
        }
        _ => match random.pick(target.words) {
            Some(word) => insert(input, at, word.as_bytes()),
            None => varint(random, input, at),
        },
    }
}

fn set(input: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = change(*byte);
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// An odd number, or a length that nearly fits, in one of the widths and orders.
fn number(random: &mut Random, input: &mut [u8], at: usize) {
    let rest = (input.len() - at) as u64;
    let near = [rest, rest.wrapping_sub(1), rest + 1, input.len() as u64, rest.wrapping_sub(4), rest.wrapping_sub(8)];
    let value = if random.one_in(3) { near[random.below(near.len())] } else { ODD[random.below(ODD.len())] };
    let width = [1, 2, 4, 8][random.below(4)];
    let bytes = if random.one_in(2) { value.to_le_bytes() } else { value.rotate_right(8 * width as u32).to_be_bytes() };
    for (to, byte) in input.iter_mut().skip(at).zip(bytes.iter().take(width)) {
        *to = *byte;
    }
}

/// An odd number as postcard and protobuf write it, in place of a byte.
fn varint(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(ODD[random.below(ODD.len())], &mut bytes);
    let end = (at + 1).min(input.len());
    input.splice(at..end, bytes);
}
