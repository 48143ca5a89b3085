//! Calls whose panics are caught and answered, known to the process's panic hook.
//!
//! A panic ends the process, since it says that an invariant is broken. The one exception is code that is not trusted and whose caller
//! rebuilds what it touched. A hook runs before anything is caught, on whatever thread that is; so the call says beforehand that it is caught.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `call` and catches its panic. What the call touched must be thrown away after one.
///
/// # Errors
/// The panic's payload, which may quote what the call worked on: not for logs.
pub fn contained<T>(call: impl FnOnce() -> T) -> thread::Result<T> {
    DEPTH.with(|depth| depth.set(depth.get().saturating_add(1)));
    let outcome = catch_unwind(AssertUnwindSafe(call));
    DEPTH.with(|depth| depth.set(depth.get().saturating_sub(1)));
    outcome
}

/// Whether a panic on this thread would be caught by [`contained`] now.
pub fn is_contained() -> bool {
    // While a thread ends its variables are gone; then nothing is caught.
    DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contained_is_known_inside_only_and_after_a_panic_not_any_more() {
        assert!(!is_contained());
        assert!(contained(|| contained(is_contained).is_ok_and(|inside| inside) && is_contained()).unwrap());
        assert!(contained(|| panic!("caught")).is_err());
        assert!(!is_contained());
    }
}
