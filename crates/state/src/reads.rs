//! What is read of the state, written down: with the feature `reads`, for the tests that compare what two questions cost. Without it, as in
//! a release, nothing of it is there.

#[cfg(feature = "reads")]
mod kept {
    use std::cell::RefCell;

    thread_local! {
        static NOTED: RefCell<Option<Vec<(bool, u8)>>> = const { RefCell::new(None) };
    }

    /// Runs `ask`, and gives with what it gave each read of this thread meanwhile: whether it was a scan, and the number of its keyspace.
    pub fn reads_of<T>(ask: impl FnOnce() -> T) -> (T, Vec<(bool, u8)>) {
        NOTED.with_borrow_mut(|noted| *noted = Some(Vec::new()));
        let given = ask();
        (given, NOTED.with_borrow_mut(Option::take).unwrap_or_default())
    }

    pub(crate) fn note(scan: bool, key: &[u8]) {
        NOTED.with_borrow_mut(|noted| {
            if let Some(noted) = noted {
                noted.push((scan, key.first().copied().unwrap_or_default()));
            }
        });
    }
}

#[cfg(not(feature = "reads"))]
mod kept {
    pub(crate) const fn note(_scan: bool, _key: &[u8]) {}
}

pub(crate) use kept::note;
#[cfg(feature = "reads")]
pub use kept::reads_of;
