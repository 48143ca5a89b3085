//! That the tests of the judge can fail: each bug that we fear is put in, and must be caught by a test of what it breaks.

use std::panic::catch_unwind;

use state::CommandBody;
use types::mutation::{Mutation, with};

use super::{
    refused::{accept_refuses_each_kind_of_forgery_by_name_and_whole, apply_out_of_order_halts},
    scripts::{data_keys, requests, roles, secrets_and_versions},
    world::{World, account},
};

/// Revisions are dense, and a follower takes each change set.
fn accounts_are_made_at_one_revision_each() {
    let mut world = World::new();
    for number in 0..40 {
        let before = world.state.position();
        let name = format!("a{number}");
        world.root(CommandBody::CreateAccount { account: account(&name), name: name.parse().unwrap() });
        assert_eq!(before.revision.next(), Some(world.state.position().revision));
    }
}

#[test]
fn mutation_of_the_judge_is_caught_by_the_test_of_what_it_breaks() {
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        // The scripts would be written anew with what the mutations do.
        return;
    }
    accounts_are_made_at_one_revision_each();
    let table: [(Mutation, fn()); 7] = [
        (Mutation::AppliedTwice, apply_out_of_order_halts),
        (Mutation::RevisionReused, accounts_are_made_at_one_revision_each),
        (Mutation::StaleGrantAccepted, roles),
        (Mutation::RequestForgotten, requests),
        (Mutation::ExpectationIgnored, secrets_and_versions),
        (Mutation::GraceEndless, data_keys),
        (Mutation::ChainUnchecked, accept_refuses_each_kind_of_forgery_by_name_and_whole),
    ];
    let survives = |(mutation, test): &(Mutation, fn())| catch_unwind(|| with(*mutation, *test)).is_ok();
    let survivors: Vec<Mutation> = table.iter().filter(|row| survives(row)).map(|(mutation, _)| *mutation).collect();
    assert_eq!(survivors, [], "not caught");
}
