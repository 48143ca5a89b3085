//! The chain's sparse marks, kept in a file: by them a fork is seen also at an age that the window does not reach, and after a
//! restart.

use std::{path::PathBuf, sync::Arc, time::Duration};

use feed::Publisher;

use crate::core::Core;

/// How often new marks are written. What a crash loses of them is made again by the log that is replayed.
const EVERY: Duration = Duration::from_secs(60);

/// Gives the publisher the marks of before. A damaged file is no reason to stop: the log names it, and new marks replace it.
pub(crate) fn restore(publisher: &Publisher, file: &PathBuf) {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return tracing::error!(file = %file.display(), %error, "the chain's marks cannot be read; old forks may go unseen"),
    };
    match feed::decode_marks(&bytes) {
        Ok(marks) => publisher.restore_marks(marks),
        Err(error) => tracing::error!(file = %file.display(), %error, "the chain's marks are damaged; old forks may go unseen"),
    }
}

/// Writes new marks until the node stops.
pub(crate) async fn keep(core: Arc<Core>, file: PathBuf) {
    let cancelled = core.tasks.token().clone();
    let mut written = None;
    loop {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(EVERY) => {}
        }
        let marks = core.publisher.marks();
        let newest = marks.last().copied();
        if newest == written {
            continue;
        }
        let (bytes, to) = (feed::encode_marks(&marks), file.clone());
        match tokio::task::spawn_blocking(move || runtime::write_secret_file(&to, &bytes)).await {
            Ok(Ok(())) => written = newest,
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the chain's marks were not written; this is tried again")
            }
            Err(_) => return,
        }
    }
}
