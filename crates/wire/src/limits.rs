//! Bounds on messages, for the decoders of servers and clients.

/// The largest request of the public API: a command holds at most 8 MiB, and names and comments stand beside the values.
pub const REQUEST_BYTES_MAX: usize = 9 << 20;

/// The most lookups in one `GetMany`.
pub const GET_MANY_MAX: usize = 256;

/// The largest reply of a lookup: [`GET_MANY_MAX`] values of the greatest length with what is told of each.
pub const LOOKUP_REPLY_BYTES_MAX: usize = GET_MANY_MAX * (types::VALUE_BYTES_MAX + 1024);

/// The largest message of the feed: a batch, which may be one change set of 8 MiB, a seal and the framing.
pub const FEED_MESSAGE_BYTES_MAX: usize = 12 << 20;

/// Entries of a list when the caller does not say.
pub const PAGE_USUAL: usize = 100;

/// The most entries of a list in one reply.
pub const PAGE_MAX: usize = 1000;
