//! That the tests of propagation can fail: each bug that we fear is put in, and must be caught by a test of what it breaks.

use std::panic::catch_unwind;

use seams::mutation::{Mutation, with};

use super::{
    crashes::crashes_lose_nothing_that_was_acknowledged_and_readers_never_go_back,
    forged::{
        checkpoint_forged_is_refused_older_is_passed_over_and_only_a_newer_one_counts,
        stream_that_is_wrong_is_refused_by_name_never_shown_and_healed,
    },
    recovery::restart_with_table_and_log_lost_shows_nothing_until_all_that_was_shown_is_certainly_back,
    serving::{
        position_presented_counts_only_when_its_history_is_ours_and_readers_see_it, what_was_sent_is_no_receipt_before_it_is_acknowledged,
    },
    snapshots::{snapshot_chunk_that_is_not_proven_is_refused_by_name_and_healed, snapshot_complete_takes_away_what_was_deleted_since},
};

#[test]
fn mutation_of_propagation_is_caught_by_the_test_of_what_it_breaks() {
    let table: [(Mutation, fn()); 12] = [
        (Mutation::ChainUnchecked, stream_that_is_wrong_is_refused_by_name_never_shown_and_healed),
        (Mutation::SealUnchecked, stream_that_is_wrong_is_refused_by_name_never_shown_and_healed),
        (Mutation::SignatureUnchecked, stream_that_is_wrong_is_refused_by_name_never_shown_and_healed),
        (Mutation::CheckpointRepeated, checkpoint_forged_is_refused_older_is_passed_over_and_only_a_newer_one_counts),
        (Mutation::SnapshotUnproven, snapshot_chunk_that_is_not_proven_is_refused_by_name_and_healed),
        (Mutation::SnapshotPutOnTop, snapshot_complete_takes_away_what_was_deleted_since),
        (Mutation::HalfShown, crashes_lose_nothing_that_was_acknowledged_and_readers_never_go_back),
        (Mutation::PublishedBeforeDurable, crashes_lose_nothing_that_was_acknowledged_and_readers_never_go_back),
        (Mutation::AcknowledgedBeforeDurable, crashes_lose_nothing_that_was_acknowledged_and_readers_never_go_back),
        (Mutation::MarkForgotten, restart_with_table_and_log_lost_shows_nothing_until_all_that_was_shown_is_certainly_back),
        (Mutation::BackupUnnoticed, position_presented_counts_only_when_its_history_is_ours_and_readers_see_it),
        (Mutation::ReceiptEarly, what_was_sent_is_no_receipt_before_it_is_acknowledged),
    ];
    let survives = |(mutation, test): &(Mutation, fn())| catch_unwind(|| with(*mutation, *test)).is_ok();
    let survivors: Vec<Mutation> = table.iter().filter(|row| survives(row)).map(|(mutation, _)| *mutation).collect();
    assert_eq!(survivors, [], "not caught");
}
