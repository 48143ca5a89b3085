//! Whether this node's wall clock agrees with those of a majority of the voters: for `/readyz`.
//!
//! The log does not depend on it ([`consensus::Clocks`]), nor do the tokens it is shown and the certificates it issues
//! ([`Core::now`]), but what this node judges by its own clock does: handshakes, the age of what it serves. So it is better asked elsewhere until its clock is right. Where no majority agrees nobody knows who is wrong, and
//! nobody stands back: metric and log say so.

use std::{sync::Arc, time::Duration};

use consensus::ClockStanding;
use runtime::health::Check;

use crate::core::Core;

/// How often it is looked, and how often in a row the clock has to be wrong: one that was just set is not yet known to be right.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOKS: u32 = 3;

/// Tells in `/readyz` whether this node's clock is wrong.
pub(crate) async fn watch(core: Arc<Core>, check: Check) {
    let cancelled = core.tasks.token().clone();
    let mut wrong = 0;
    check.ready();
    loop {
        match core.consensus.clocks().standing {
            ClockStanding::Differs { ahead_ms } => {
                wrong += 1;
                if wrong >= LOOKS {
                    check.not_ready(obstacle(ahead_ms));
                }
            }
            ClockStanding::Agrees | ClockStanding::Split => {
                wrong = 0;
                check.ready();
            }
            // No news.
            ClockStanding::Unknown => {}
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(LOOK_EVERY) => {}
        }
    }
}

fn obstacle(ahead_ms: i64) -> String {
    let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let seconds = ahead_ms.unsigned_abs() / 1000;
    format!("this node's clock is {seconds} s {way} those of a majority of the voters: set it right")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacle_says_which_way_and_how_far() {
        assert_eq!(obstacle(3_600_400), "this node's clock is 3600 s ahead of those of a majority of the voters: set it right");
        assert_eq!(obstacle(-1_500), "this node's clock is 1 s behind those of a majority of the voters: set it right");
    }
}
