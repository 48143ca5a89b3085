//! The classes of bug that we fear, each kept as a change of behaviour that the crate's own tests must catch.
//!
//! Outside of this crate's tests no mutation is ever on, and the compiler removes what asks for one.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// An append counts as durable when it is visible.
    AppendAcknowledgedEarly,
    /// A leader that restarts leads on in its old term, by a committed hint that may be old.
    LeaderRestored,
    /// A snapshot is made before the audit entries behind it are durable.
    AuditLeftBehind,
}

#[cfg(not(test))]
pub(crate) const fn is_on(_mutation: Mutation) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{is_on, with};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    // A simulation is one thread, so another test's mutation is not felt.
    thread_local!(static ON: Cell<Option<Mutation>> = const { Cell::new(None) });

    pub(crate) fn is_on(mutation: Mutation) -> bool {
        ON.get() == Some(mutation)
    }

    /// Runs with a mutation on.
    pub(crate) fn with<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
        struct Off;
        impl Drop for Off {
            fn drop(&mut self) {
                ON.set(None);
            }
        }
        // Off again even if the run panics, as it should.
        let _off = Off;
        ON.set(Some(mutation));
        run()
    }
}
