//! That the tests of crashes can fail: each feared bug is put in, and must be caught by some seed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use seams::mutation::{Mutation, with};

use super::{clocks::clocks_go_wrong_one_at_a_time, cluster::power_fails_again_and_again, one_voter::crash_again_and_again};

/// The first seed under which the run panics.
fn caught(mutation: Mutation, seeds: std::ops::Range<u64>, run: impl Fn(u64)) -> Option<u64> {
    seeds.into_iter().find(|seed| catch_unwind(AssertUnwindSafe(|| with(mutation, || run(*seed)))).is_err())
}

#[test]
fn append_that_is_acknowledged_early_is_caught() {
    assert!(caught(Mutation::AppendAcknowledgedEarly, 0..40, crash_again_and_again).is_some());
}

// It takes a hint that lags behind an acknowledged write, at the one voter that led: seed 11 is the first to see it.
#[test]
fn leader_that_leads_on_after_a_restart_is_caught() {
    assert!(caught(Mutation::LeaderRestored, 11..60, power_fails_again_and_again).is_some());
}

#[test]
fn snapshot_ahead_of_the_audit_log_is_caught() {
    assert!(caught(Mutation::AuditLeftBehind, 0..40, crash_again_and_again).is_some());
}

#[test]
fn leader_that_believes_its_own_clock_is_caught() {
    assert!(caught(Mutation::OwnClockBelieved, 0..1, clocks_go_wrong_one_at_a_time).is_some());
}
