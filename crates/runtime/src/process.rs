//! The process: its signals, its limits, what it leaves behind when it dies, and what it tells systemd.

use std::{io, panic::PanicHookInfo};

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Makes the process keep its memory to itself: no core dumps, no debugger of the same user, no files readable by others.
/// Also raises the soft limit of open files to the hard one, since connections are files.
///
/// # Errors
/// As of the operating system. A server that fails here should not start.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    Ok(())
}

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once, with 128 + its number as exit code.
///
/// # Errors
/// As of the operating system, when a handler cannot be installed. Call it on a tokio runtime.
pub fn cancelled_by_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                biased;
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            };
            if cancel.is_cancelled() {
                tracing::warn!(signal = number, "second signal: ending at once");
                std::process::exit(128 + number);
            }
            tracing::info!(signal = number, "signal: draining");
            cancel.cancel();
        }
    });
    Ok(token)
}

/// Tells systemd that the server is up. Outside systemd it does nothing.
pub fn notify_ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that the server is ending.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}

/// Beginnings of the names of threads on which sled runs: of the table's own writer, and of sled's. A damaged file can make it
/// panic; the table's owner catches that, moves the folder aside and rebuilds. Calls into sled on other threads say by
/// [`seams::contained`] that they are caught.
pub const TABLE_THREADS: &[&str] = &["table", "sled-"];

/// Makes a panic end the process: a broken invariant stops the node rather than serve on half of it.
///
/// The log gets the place and, when it is a literal, the message; a formatted message could carry a value and is withheld.
/// Panics within [`seams::contained`], and on threads whose name starts with one of `contained`, are logged only: their owners
/// catch them, and rebuild what was touched. [`TABLE_THREADS`] is the one case.
pub fn install_panic_hook(contained: &'static [&'static str]) {
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let message = printable(info);
        if seams::is_contained() || contained.iter().any(|prefix| thread.starts_with(prefix)) {
            tracing::warn!(thread, place, message, "panic, contained");
            return;
        }
        tracing::error!(thread, place, message, "panic: an invariant is broken; stopping the process");
        std::process::abort();
    }));
}

/// A `&'static str` payload stands in the source and cannot carry what the process handled.
fn printable(info: &PanicHookInfo<'_>) -> &'static str {
    info.payload().downcast_ref::<&'static str>().copied().unwrap_or("withheld: the message was formatted and could carry a value")
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[tokio::test]
    async fn signal_term_cancels_the_token() {
        let token = cancelled_by_signals().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        token.cancelled().await;
    }

    #[test]
    fn panic_message_that_was_formatted_is_withheld() {
        static SEEN: Mutex<Vec<&str>> = Mutex::new(Vec::new());
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(|info| SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(printable(info))));
        let value = String::from("s3cret");
        let _ = std::panic::catch_unwind(|| panic!("a literal"));
        let _ = std::panic::catch_unwind(|| panic!("value {value}"));
        std::panic::set_hook(before);
        let seen = SEEN.lock().unwrap().clone();
        assert!(seen.contains(&"a literal"), "{seen:?}");
        assert!(seen.iter().any(|message| message.starts_with("withheld")) && !seen.iter().any(|message| message.contains("s3cret")));
    }
}
