//! The deliberate bugs of the product, and what catches each: a run of a whole cluster, or a test of the crate that it is in.

use seams::mutation::{Mutation, with};

use super::{Broken, Trick, run};

/// The first seeds, of which one must catch a deliberate bug.
pub const SEEDS: u64 = 20;

/// Those that runs of whole clusters catch, and what must be wrong beside them to be seen.
pub const SEEN: &[(Mutation, Broken)] = &[
    (Mutation::VoteForgotten, Broken::Nothing),
    (Mutation::AppliedTwice, Broken::Nothing),
    (Mutation::ReadIndexSkipped, Broken::Nothing),
    (Mutation::LostProposalRepeated, Broken::Nothing),
    (Mutation::RevisionReused, Broken::Nothing),
    (Mutation::StaleGrantAccepted, Broken::Nothing),
    (Mutation::RequestForgotten, Broken::Nothing),
    (Mutation::ExpectationIgnored, Broken::Nothing),
    (Mutation::GraceEndless, Broken::Nothing),
    (Mutation::TickUncommitted, Broken::Nothing),
    (Mutation::ReceiptEarly, Broken::Nothing),
    (Mutation::ChainUnchecked, Broken::InTheMiddle(Trick::DropsChangeSets)),
    (Mutation::SealUnchecked, Broken::Nothing),
    (Mutation::SignatureUnchecked, Broken::InTheMiddle(Trick::TurnsSignatures)),
    (Mutation::HalfShown, Broken::Nothing),
    (Mutation::PublishedBeforeDurable, Broken::Nothing),
    (Mutation::AcknowledgedBeforeDurable, Broken::Nothing),
    (Mutation::SnapshotPutOnTop, Broken::Nothing),
    (Mutation::SnapshotUnproven, Broken::InTheMiddle(Trick::ChangesSnapshots)),
    (Mutation::MarkForgotten, Broken::Nothing),
    (Mutation::CheckpointRepeated, Broken::InTheMiddle(Trick::RepeatsCheckpoints)),
    (Mutation::AbsentWhenNotSynced, Broken::Nothing),
    (Mutation::RevocationIgnored, Broken::Nothing),
    (Mutation::MinPositionIgnored, Broken::Nothing),
    (Mutation::AgeUnbounded, Broken::Nothing),
];

/// The others, each with its crate and the test there.
pub const SEEN_ELSEWHERE: &[(Mutation, &str, &str)] = &[
    (Mutation::AppendAcknowledgedEarly, "consensus", "append_that_is_acknowledged_early_is_caught"),
    (Mutation::LeaderRestored, "consensus", "leader_that_leads_on_after_a_restart_is_caught"),
    (Mutation::AuditLeftBehind, "consensus", "snapshot_ahead_of_the_audit_log_is_caught"),
    (Mutation::PurgedEarly, "consensus", "log_that_is_purged_early_is_caught"),
    (Mutation::EndBelieved, "store", "block_that_is_believed_for_its_end_is_caught_where_a_disk_writes_in_any_order"),
    (Mutation::OwnClockBelieved, "consensus", "leader_that_believes_its_own_clock_is_caught"),
    (Mutation::SnapshotMerged, "consensus", "snapshot_that_is_received_takes_the_place_of_all_that_was_there"),
    (Mutation::BackupUnnoticed, "feed", "position_presented_counts_only_when_its_history_is_ours_and_readers_see_it"),
    (Mutation::ReadPermissionIgnored, "control", RULES),
    (Mutation::ReachIgnored, "control", RULES),
    (Mutation::QuotaIgnored, "control", RULES),
    (Mutation::ForeignAccountShown, "control", RULES),
    (Mutation::RepetitionUnseen, "control", RULES),
    (Mutation::RateIgnored, "control", RULES),
    (Mutation::RefusalUnnoted, "control", RULES),
];

/// One table for all rules of the API.
const RULES: &str = "rule_of_the_api_that_is_left_out_is_caught_by_the_test_of_what_it_protects";

/// Those that few seeds catch, and one that does: it is tried first.
const CAUGHT_BY: &[(Mutation, u64)] = &[(Mutation::LostProposalRepeated, 9)];

/// What must be wrong beside a deliberate bug so that a run sees it.
pub fn beside(mutation: Mutation) -> Broken {
    SEEN.iter().find(|(seen, _)| *seen == mutation).map_or(Broken::Nothing, |(_, broken)| *broken)
}

/// A seed that catches a deliberate bug, and the promise that it breaks.
pub fn caught(mutation: Mutation) -> Option<(u64, String)> {
    let broken = |seed| with(mutation, || run(seed, beside(mutation), false)).violation;
    let first = CAUGHT_BY.iter().filter(|(seen, _)| *seen == mutation).map(|(_, seed)| *seed);
    first.chain(1..=SEEDS).find_map(|seed| Some((seed, broken(seed)?.lines().next().unwrap_or_default().to_owned())))
}
