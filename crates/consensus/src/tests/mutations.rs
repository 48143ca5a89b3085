//! That the tests of crashes can fail: each feared bug is put in, and must be caught by some seed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use seams::mutation::{Mutation, with};

use super::{
    clocks::clocks_go_wrong_one_at_a_time,
    cluster::{
        leader_without_majority_neither_acknowledges_nor_reads, power_fails_again_and_again,
        snapshot_that_is_received_takes_the_place_of_all_that_was_there,
    },
    forward::{
        command_with_request_key_is_answered_through_loss_and_elections,
        command_without_request_key_enters_the_log_once_through_loss_and_elections,
    },
    one_voter::{crash_again_and_again, leader_ticks_once_a_second_by_its_clock, proposal_is_applied_and_read_back_by_who_was_answered},
    suite::storage_suite_of_openraft_passes_on_the_simulated_disk,
};

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

#[test]
fn log_that_is_purged_early_is_caught() {
    assert!(caught(Mutation::PurgedEarly, 0..20, crash_again_and_again).is_some());
}

/// For each of the others, a test of what it breaks.
#[test]
fn mutation_of_a_voter_is_caught_by_the_test_of_what_it_breaks() {
    let table: [(Mutation, fn()); 7] = [
        (Mutation::VoteForgotten, storage_suite_of_openraft_passes_on_the_simulated_disk),
        (Mutation::AppliedTwice, proposal_is_applied_and_read_back_by_who_was_answered),
        (Mutation::SnapshotMerged, snapshot_that_is_received_takes_the_place_of_all_that_was_there),
        (Mutation::ReadIndexSkipped, leader_without_majority_neither_acknowledges_nor_reads),
        (Mutation::LostProposalRepeated, command_without_request_key_enters_the_log_once_through_loss_and_elections),
        (Mutation::RequestForgotten, command_with_request_key_is_answered_through_loss_and_elections),
        (Mutation::TickUncommitted, leader_ticks_once_a_second_by_its_clock),
    ];
    let survives = |(mutation, test): &(Mutation, fn())| catch_unwind(|| with(*mutation, *test)).is_ok();
    let survivors: Vec<Mutation> = table.iter().filter(|row| survives(row)).map(|(mutation, _)| *mutation).collect();
    assert_eq!(survivors, [], "not caught");
}
