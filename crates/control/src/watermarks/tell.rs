//! The telling side: one listener's stream, message by message.

use std::{sync::Arc, time::Duration};

use feed::Changes;
use wire::internal::WatermarksReply;

use super::{EVERY, Exchange, HEARTBEAT, ROWS_MAX};

/// What one listener is told: all rows first, then those that changed.
pub(crate) struct Telling {
    exchange: Arc<Exchange>,
    changes: Changes<u64>,
    /// Whom this node hears is told as soon as its subscribers' news.
    hears: Changes<u64>,
    /// The version up to which the listener was told.
    told: u64,
    /// When the last message was made.
    last: Option<Duration>,
    /// Whether the last message was full, so that more is waiting.
    more: bool,
}

impl Telling {
    /// Begins with all rows.
    pub(crate) fn new(exchange: Arc<Exchange>) -> Self {
        Self { changes: exchange.acks.subscribe_own(), hears: exchange.standings.subscribe(), exchange, told: 0, last: None, more: false }
    }

    /// The next message: at once when it is the first or the one before was full, else when something has changed, not sooner than
    /// [`EVERY`] after the one before and not later than [`HEARTBEAT`] after it. Safe to cancel.
    pub(crate) async fn next(&mut self) -> WatermarksReply {
        let clock = self.exchange.clock.clone();
        if let Some(last) = self.last.filter(|_| !self.more) {
            tokio::select! {
                biased;
                () = self.changes.changed() => {}
                () = self.hears.changed() => {}
                () = clock.sleep(HEARTBEAT) => {}
            }
            let passed = clock.monotonic().saturating_sub(last);
            if let Some(rest) = EVERY.checked_sub(passed).filter(|rest| !rest.is_zero()) {
                clock.sleep(rest).await;
            }
        }
        // Looked at before the rows are read: a change in between comes with the next message.
        self.changes.look();
        self.hears.look();
        let (reply, told) = self.exchange.reply(self.told);
        self.more = reply.rows.len() >= ROWS_MAX;
        self.told = told;
        self.last = Some(clock.monotonic());
        reply
    }
}
