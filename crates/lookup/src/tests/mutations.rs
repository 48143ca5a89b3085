//! That the tests of lookups can fail: each bug that we fear is put in, and must be caught by a test of what it breaks.

use std::panic::catch_unwind;

use seams::mutation::{Mutation, with};

use super::{
    callers::token_ends_by_the_later_of_wall_clock_and_checkpoint,
    lookups::{
        lookup_before_the_first_root_says_not_synced_and_never_absent,
        lookup_freshness_is_refused_by_position_by_max_age_and_by_the_cluster, revoked_node_serves_nothing_more,
    },
};

#[test]
fn mutation_of_a_lookup_is_caught_by_the_test_of_what_it_breaks() {
    let table: [(Mutation, fn()); 5] = [
        (Mutation::AbsentWhenNotSynced, lookup_before_the_first_root_says_not_synced_and_never_absent),
        (Mutation::RevocationIgnored, revoked_node_serves_nothing_more),
        (Mutation::RevocationIgnored, token_ends_by_the_later_of_wall_clock_and_checkpoint),
        (Mutation::MinPositionIgnored, lookup_freshness_is_refused_by_position_by_max_age_and_by_the_cluster),
        (Mutation::AgeUnbounded, lookup_freshness_is_refused_by_position_by_max_age_and_by_the_cluster),
    ];
    let survives = |(mutation, test): &(Mutation, fn())| catch_unwind(|| with(*mutation, *test)).is_ok();
    let survivors: Vec<Mutation> = table.iter().filter(|row| survives(row)).map(|(mutation, _)| *mutation).collect();
    assert_eq!(survivors, [], "not caught");
}
