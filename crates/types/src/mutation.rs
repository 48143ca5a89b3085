//! The classes of bug that we fear, each kept as a change of behaviour that a test must catch.
//!
//! A point in the product reads `if mutation::is_on(Mutation::X)`. Without the feature `sim` of this crate the answer is a constant, so
//! that a release holds nothing of it; with it, a test turns one mutation on for its own thread ([`with`]). It lies here, and not beside
//! the simulated clock and disk, because `state` may use nothing else; all others know it as `seams::mutation`.
//!
//! Some bugs hurt nobody while all others are right: that a check is missing (chain, signature, proof, repeated checkpoint) shows only where
//! somebody on the way changes what is sent, and that an age has no bound only where nothing is sent for long.

/// A deliberate bug. Where one is put in, the point names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A voter: an append counts as durable when it is visible.
    AppendAcknowledgedEarly,
    /// A voter: a leader that restarts leads on in its old term, by a committed hint that may be old.
    LeaderRestored,
    /// A voter: a snapshot is made before the audit entries behind it are durable.
    AuditLeftBehind,
    /// A voter: a vote is never written, and a restart has forgotten it.
    VoteForgotten,
    /// A voter: the log is purged before the snapshot file that replaces it is durable.
    PurgedEarly,
    /// A log of a voter or an edge: a block whose last byte is there counts as whole, as if disks wrote in order.
    EndBelieved,
    /// A voter: every command is applied twice.
    AppliedTwice,
    /// A voter: a received snapshot is put on top of what control nodes alone hold, instead of in its place.
    SnapshotMerged,
    /// A voter: a linearizable read is answered from what is here, without the leader.
    ReadIndexSkipped,
    /// A voter: a proposal whose answer was lost is sent again though nothing knows it by an id.
    LostProposalRepeated,
    /// `apply`: two change sets in a row get the same revision.
    RevisionReused,
    /// `apply`: the grants that the front door saw are believed; neither expiry nor revocation nor reach is judged again.
    StaleGrantAccepted,
    /// `apply`: a request id is not remembered.
    RequestForgotten,
    /// `apply`: a check-and-set finds what it expects in any version.
    ExpectationIgnored,
    /// `apply`: a data key that was replaced is accepted for ever.
    GraceEndless,
    /// A permission check: a token for reading may change what its roles may.
    ReadPermissionIgnored,
    /// A permission check: a role holds everywhere, not only in the account or store that it was given for.
    ReachIgnored,
    /// `apply`: more secrets are taken than the account's quota has room for.
    QuotaIgnored,
    /// A voter: a tick is its own clock's second, whether it leads or not, and no majority has committed it.
    TickUncommitted,
    /// A voter: a leader stamps by its own clock, whatever the others' say.
    OwnClockBelieved,
    /// A control node: an edge that presents less than it once acknowledged is served in silence.
    BackupUnnoticed,
    /// A control node: an account is answered to who has nothing to do with it.
    ForeignAccountShown,
    /// A control node: a request that its client counts as sent again is taken for a new one.
    RepetitionUnseen,
    /// A control node: no limit on how often one may ask is kept.
    RateIgnored,
    /// A control node: what it refuses by itself is not noted for the audit log.
    RefusalUnnoted,
    /// A control node: an edge counts as having durably what was sent to it.
    ReceiptEarly,
    /// An edge: neither that a change set continues the chain is checked, nor where it leads.
    ChainUnchecked,
    /// An edge: change sets are applied as they come, before the seal that covers them.
    SealUnchecked,
    /// An edge: the signature of a seal or a checkpoint is not verified.
    SignatureUnchecked,
    /// An edge: half of a change set is shown before the rest.
    HalfShown,
    /// An edge: a batch is shown before it is durable.
    PublishedBeforeDurable,
    /// An edge: a batch is acknowledged, and never synced.
    AcknowledgedBeforeDurable,
    /// An edge: a snapshot is put on top of what is held, instead of in its place.
    SnapshotPutOnTop,
    /// An edge: the records of a snapshot are not held against the state root that was signed.
    SnapshotUnproven,
    /// An edge: what the last process showed is forgotten, and a start that lost some shows less.
    MarkForgotten,
    /// An edge: a checkpoint that is older than the last one counts as new.
    CheckpointRepeated,
    /// A lookup: before the first position, a binding is reported as absent.
    AbsentWhenNotSynced,
    /// A lookup: a node that is revoked goes on; so does a token that has ended, and one that is gone is believed for the consumer that
    /// the request names.
    RevocationIgnored,
    /// A lookup: `min_position` is not looked at.
    MinPositionIgnored,
    /// A lookup: the age of what is served has no bound.
    AgeUnbounded,
}

impl Mutation {
    /// All of them, for tables.
    pub const ALL: &[Self] = &[
        Self::AppendAcknowledgedEarly,
        Self::LeaderRestored,
        Self::AuditLeftBehind,
        Self::VoteForgotten,
        Self::PurgedEarly,
        Self::EndBelieved,
        Self::AppliedTwice,
        Self::SnapshotMerged,
        Self::ReadIndexSkipped,
        Self::LostProposalRepeated,
        Self::RevisionReused,
        Self::StaleGrantAccepted,
        Self::RequestForgotten,
        Self::ExpectationIgnored,
        Self::GraceEndless,
        Self::ReadPermissionIgnored,
        Self::ReachIgnored,
        Self::QuotaIgnored,
        Self::TickUncommitted,
        Self::OwnClockBelieved,
        Self::BackupUnnoticed,
        Self::ForeignAccountShown,
        Self::RepetitionUnseen,
        Self::RateIgnored,
        Self::RefusalUnnoted,
        Self::ReceiptEarly,
        Self::ChainUnchecked,
        Self::SealUnchecked,
        Self::SignatureUnchecked,
        Self::HalfShown,
        Self::PublishedBeforeDurable,
        Self::AcknowledgedBeforeDurable,
        Self::SnapshotPutOnTop,
        Self::SnapshotUnproven,
        Self::MarkForgotten,
        Self::CheckpointRepeated,
        Self::AbsentWhenNotSynced,
        Self::RevocationIgnored,
        Self::MinPositionIgnored,
        Self::AgeUnbounded,
    ];
}

/// Whether a mutation is on in this thread. Without the feature `sim` none ever is.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn is_on(_mutation: Mutation) -> bool {
    false
}

#[cfg(feature = "sim")]
pub use switch::{is_on, with};

#[cfg(feature = "sim")]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    // A simulation is one thread, so another test's mutation is not felt.
    thread_local!(static ON: Cell<Option<Mutation>> = const { Cell::new(None) });

    /// Whether a mutation is on in this thread.
    pub fn is_on(mutation: Mutation) -> bool {
        ON.get() == Some(mutation)
    }

    /// Runs with a mutation on, in this thread. What `run` hands to other threads does without it.
    pub fn with<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
        struct Before(Option<Mutation>);
        impl Drop for Before {
            fn drop(&mut self) {
                ON.set(self.0);
            }
        }
        // Off again even if the run panics, as it should.
        let _before = Before(ON.replace(Some(mutation)));
        run()
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;

    #[test]
    fn mutation_is_on_in_its_thread_and_until_its_run_ends() {
        let seen = with(Mutation::AppliedTwice, || {
            let other = std::thread::spawn(|| is_on(Mutation::AppliedTwice)).join().unwrap_or(true);
            (is_on(Mutation::AppliedTwice), is_on(Mutation::VoteForgotten), other)
        });
        assert_eq!((seen, is_on(Mutation::AppliedTwice)), ((true, false, false), false));
        let panicked = std::panic::catch_unwind(|| with(Mutation::AppliedTwice, || panic!("as it should")));
        assert!(panicked.is_err() && !is_on(Mutation::AppliedTwice));
    }

    #[test]
    fn mutations_are_listed_once() {
        assert!(Mutation::ALL.windows(2).all(|pair| pair[0] < pair[1]), "in the order of their declaration");
        assert_eq!(Mutation::ALL.last(), Some(&Mutation::AgeUnbounded));
    }
}
