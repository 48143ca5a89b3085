//! Lookups in frames of our own, on the UNIX socket: the messages of the gRPC call `Stream`, without HTTP/2.
//!
//! A connection in bytes:
//!
//! | from | bytes | what |
//! |---|---|---|
//! | client | 4 | [`PREFACE`]: three letters, and the number of the protocol |
//! | client | a frame | the text that gRPC has as `authorization` metadata, or nothing: then the kernel's word for the uid decides |
//! | client | frames | [`StreamRequest`](crate::v1::StreamRequest), each with a tag of its choice, but not 0 |
//! | server | frames | [`StreamReply`](crate::v1::StreamReply), each with the tag of its request, in any order |
//! | server | a frame | at the most once, and last: a reply with the tag 0, whose error says why the connection ends |
//!
//! A frame is its length in 4 bytes, big end first, and so many bytes. No frame of a client is longer than [`REQUEST_BYTES_MAX`], none of a
//! server longer than [`REPLY_BYTES_MAX`]. HTTP/2 begins with `PRI `, so one socket takes both.

use prost::Message;

/// What a client sends first. The last byte counts the versions of the protocol.
pub const PREFACE: [u8; 4] = *b"CBF\x01";

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
pub const HTTP2_PREFACE: [u8; 4] = *b"PRI ";

/// The tag of what concerns the connection and no request.
pub const TAG_OF_CONNECTION: u64 = 0;

/// The longest frame of a client: a request of the longest names is below 2 KiB.
pub const REQUEST_BYTES_MAX: usize = 8 << 10;

/// The longest frame of a server: a value of the greatest length with what is told of it.
pub const REPLY_BYTES_MAX: usize = types::VALUE_BYTES_MAX + (8 << 10);

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The other side announces more than is allowed.
    #[error("a frame of {bytes} bytes, where {max} are allowed")]
    TooLong {
        /// What was announced.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// What is in a frame is not the message that belongs there.
    #[error("a frame that holds no message of this protocol")]
    Malformed,
}

/// A frame, and what comes after it; none while it is not whole.
pub type Split<'a> = Option<(&'a [u8], &'a [u8])>;

/// The first frame of `bytes` and what comes after it. `max` bounds its length.
///
/// # Errors
/// [`FrameError::TooLong`], as soon as the length is there.
pub fn split(bytes: &[u8], max: usize) -> Result<Split<'_>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    // A usize holds 32 bits on every machine that this is built for.
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::TooLong { bytes: length, max });
    }
    Ok(rest.split_at_checked(length))
}

/// The message in a frame.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<M: Message + Default>(frame: &[u8]) -> Result<M, FrameError> {
    M::decode(frame).map_err(|_| FrameError::Malformed)
}

/// Appends a message as a frame. It must be below 4 GiB, which nothing here comes near.
pub fn append(message: &impl Message, to: &mut Vec<u8>) {
    let length = message.encoded_len();
    to.reserve(LENGTH_BYTES + length);
    to.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A vector has room for whatever comes.
    let _ = message.encode(to);
}

/// Appends a frame of these bytes.
pub fn append_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn request(tag: u64) -> v1::StreamRequest {
        let wanted = Some(v1::Wanted { binding: "DB".into(), ..Default::default() });
        v1::StreamRequest { tag, get: Some(v1::GetRequest { wanted, ..Default::default() }) }
    }

    #[test]
    fn frames_are_split_off_one_by_one_and_only_when_whole() {
        let mut bytes = Vec::new();
        append_bytes(b"", &mut bytes);
        append(&request(7), &mut bytes);
        for end in 0..bytes.len() {
            let first = split(&bytes[..end], 100).unwrap();
            assert_eq!(first.is_some(), end >= 4, "{end}");
            let Some((frame, rest)) = first else { continue };
            assert!(frame.is_empty());
            assert_eq!(split(rest, 100), Ok(None), "{end}");
        }
        let (_, rest) = split(&bytes, 100).unwrap().unwrap();
        let (frame, rest) = split(rest, 100).unwrap().unwrap();
        assert_eq!(decode::<v1::StreamRequest>(frame), Ok(request(7)));
        assert!(rest.is_empty());
    }

    #[test]
    fn frame_that_is_announced_too_long_is_refused_before_it_comes() {
        assert_eq!(split(&[0, 0, 0, 101], 100), Err(FrameError::TooLong { bytes: 101, max: 100 }));
        assert_eq!(split(&[0xff; 4], REPLY_BYTES_MAX), Err(FrameError::TooLong { bytes: u32::MAX as usize, max: REPLY_BYTES_MAX }));
        assert_eq!(decode::<v1::StreamRequest>(&[0xff]), Err(FrameError::Malformed));
    }

    /// The bytes that stay as they are: a client of another language is written from them.
    #[test]
    fn bytes_of_a_connection_are_as_documented() {
        let mut bytes = PREFACE.to_vec();
        append_bytes(b"", &mut bytes);
        append(&request(1), &mut bytes);
        let expected = b"CBF\x01\x00\x00\x00\x00\x00\x00\x00\x0a\x08\x01\x12\x06\x12\x04\x0a\x02DB";
        assert_eq!(bytes, expected);
    }
}
