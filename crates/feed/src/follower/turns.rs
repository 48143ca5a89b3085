//! Whom to dial next, and when: the memory of the streams that have failed.

use std::time::Duration;

use crate::FeedError;

/// The longest that anybody is left alone because it asked for it.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// What the follower remembers from one stream to the next. Bounded by the number of peers.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Streams in a row that brought nothing new.
    fruitless: u32,
    /// Of these, those that were silent and not refused or lost.
    silent: u32,
    peers: u32,
    /// Until when peers asked to be left alone, on the monotonic clock.
    away: Vec<(String, Duration)>,
    /// Until when all of them did: what one said holds everywhere.
    all_away: Duration,
}

impl Turns {
    /// Before the first of so many peers is dialled.
    pub(super) fn new(peers: usize) -> Self {
        Self { peers: u32::try_from(peers).unwrap_or(u32::MAX).max(1), ..Self::default() }
    }

    /// Takes up how a stream to `peer` has ended at `now`; `fresh` says whether it had brought something new.
    pub(super) fn ended(&mut self, error: &FeedError, peer: Option<String>, fresh: bool, now: Duration) {
        self.fruitless = if fresh { 0 } else { self.fruitless.saturating_add(1) };
        let silent = matches!(error, FeedError::Silent { .. });
        self.silent = if silent && !fresh { self.silent.saturating_add(1) } else { 0 };
        self.away.retain(|(_, until)| *until > now);
        let asked = Duration::from_millis(error.retry_after_ms()).min(ASKED_MAX);
        let until = now.saturating_add(asked);
        match (peer, holds_everywhere(error)) {
            _ if asked.is_zero() => {}
            (_, true) | (None, _) => self.all_away = until,
            (Some(peer), false) => {
                self.away.retain(|(other, _)| *other != peer);
                self.away.push((peer, until));
            }
        }
    }

    /// How often all peers have failed in turn. Zero while there is one left to try: it is tried at once.
    pub(super) const fn failures(&self) -> u32 {
        if self.fruitless.is_multiple_of(self.peers) { self.fruitless / self.peers } else { 0 }
    }

    /// How long nobody is to be dialled.
    pub(super) fn asked(&self, now: Duration) -> Duration {
        let soonest = self.away.iter().map(|(_, until)| *until).min().unwrap_or_default();
        let nobody_left = self.away.len() >= self.peers as usize;
        self.all_away.max(if nobody_left { soonest } else { Duration::ZERO }).saturating_sub(now)
    }

    /// Whether a peer asked to be left alone for longer than until `now`.
    pub(super) fn is_away(&self, peer: &str, now: Duration) -> bool {
        self.away.iter().any(|(other, until)| other == peer && *until > now)
    }

    /// How long a stream may bring nothing new: `quiet` where there are others, twice as long each time that all were as silent.
    pub(super) fn patience(&self, quiet: Duration, silence: Duration) -> Duration {
        match self.peers {
            0 | 1 => silence,
            peers => quiet.saturating_mul(1 << (self.silent / peers).min(8)).min(silence),
        }
    }
}

/// Whether a refusal says something of this node that any other peer would say too.
fn holds_everywhere(error: &FeedError) -> bool {
    let everywhere = [wire::internal::RefusedKind::Revoked, wire::internal::RefusedKind::Duplicate];
    matches!(error, FeedError::Refused { kind, .. } if everywhere.iter().any(|one| one.as_str_name() == *kind))
}

#[cfg(test)]
mod tests {
    use types::Position;
    use wire::internal::RefusedKind;

    use super::*;
    use crate::Fault;

    const SECOND: Duration = Duration::from_secs(1);

    fn refused(kind: RefusedKind, retry_after_ms: u64) -> FeedError {
        FeedError::Refused { peer: "a".into(), kind: kind.as_str_name(), message: String::new(), retry_after_ms }
    }

    fn fork() -> FeedError {
        Fault::Fork { at: Position::default(), detail: String::new(), retry_after_ms: 60_000 }.into()
    }

    #[test]
    fn turns_wait_only_when_all_peers_have_failed_in_turn() {
        let mut turns = Turns::new(3);
        let waits: Vec<u32> = (0..7)
            .map(|_| {
                turns.ended(&refused(RefusedKind::Behind, 0), Some("a".into()), false, SECOND);
                turns.failures()
            })
            .collect();
        assert_eq!(waits, [0, 0, 1, 0, 0, 2, 0]);
        turns.ended(&refused(RefusedKind::Behind, 0), Some("a".into()), true, SECOND);
        assert_eq!(turns.failures(), 0);
        let mut alone = Turns::new(1);
        alone.ended(&refused(RefusedKind::Behind, 0), Some("a".into()), false, SECOND);
        assert_eq!(alone.failures(), 1);
    }

    #[test]
    fn turns_leave_alone_who_asks_for_it_and_wait_when_all_do() {
        let mut turns = Turns::new(2);
        turns.ended(&fork(), Some("a".into()), false, SECOND);
        assert!(turns.is_away("a", SECOND) && !turns.is_away("b", SECOND));
        assert_eq!(turns.asked(SECOND), Duration::ZERO, "b is left");
        turns.ended(&fork(), Some("b".into()), false, 11 * SECOND);
        assert_eq!(turns.asked(11 * SECOND), 50 * SECOND);
        assert!(!turns.is_away("a", 61 * SECOND) && turns.is_away("b", 61 * SECOND));
        let mut revoked = Turns::new(2);
        revoked.ended(&refused(RefusedKind::Revoked, 60_000), Some("a".into()), false, SECOND);
        assert_eq!(revoked.asked(SECOND), 60 * SECOND, "what one says of a revocation, all would say");
    }

    #[test]
    fn turns_grow_patient_when_all_are_silent() {
        let mut turns = Turns::new(2);
        let silent = FeedError::Silent { peer: "a".into(), silent_ms: 3000 };
        let patience = |turns: &Turns| turns.patience(3 * SECOND, 10 * SECOND).as_secs();
        let grown: Vec<u64> = (0..6)
            .map(|_| {
                turns.ended(&silent, Some("a".into()), false, SECOND);
                patience(&turns)
            })
            .collect();
        assert_eq!(grown, [3, 6, 6, 10, 10, 10]);
        turns.ended(&silent, Some("a".into()), true, SECOND);
        assert_eq!(patience(&turns), 3);
        let mut alone = Turns::new(1);
        alone.ended(&silent, Some("a".into()), false, SECOND);
        assert_eq!(patience(&alone), 10);
    }
}
