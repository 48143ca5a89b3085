//! The panic hook, in a process of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

use runtime::process::{TABLE_THREADS, install_panic_hook};

#[test]
fn panic_that_is_caught_by_its_caller_does_not_end_the_process_on_any_thread() {
    install_panic_hook(TABLE_THREADS);
    let thread = std::thread::Builder::new().name("tokio-rt-worker".into());
    let caught = thread.spawn(|| seams::contained(|| panic!("as sled does over a damaged file")).is_err()).unwrap();
    assert!(caught.join().unwrap());
}
