//! `snapshot save`: from the stream into a file that has its name only when it is whole.

use std::{io::IsTerminal, path::Path};

use runtime::PendingFile;
use serde::Serialize;
use wire::v1::save_snapshot_reply::Part;

use super::{Session, failed};
use crate::Failure;

#[derive(Serialize)]
struct Saved {
    file: String,
    cluster: String,
    position: String,
    records: u64,
    bytes: u64,
    signers: String,
}

pub(super) async fn save(session: &Session, path: &Path, force: bool) -> Result<(), Failure> {
    let shown = path.display();
    if !force && path.exists() {
        return Err(Failure::usage(format!("{shown} is there already: name another file, or replace it with --force")));
    }
    let local = |what: &str, error: std::io::Error| Failure::failed(format!("cannot {what} {shown}: {error}; nothing is left of it"));
    let mut parts = session.control()?.save_snapshot().await.map_err(failed)?;
    let mut file = PendingFile::create(path).map_err(|error| local("create", error))?;
    let bar = (!session.global.quiet && std::io::stderr().is_terminal()).then(|| {
        let style = indicatif::ProgressStyle::with_template("{msg} {bar:30} {bytes} of about {total_bytes}, {bytes_per_sec}");
        let bar = indicatif::ProgressBar::no_length().with_message("saving");
        style.map_or(bar.clone(), |style| bar.with_style(style))
    });
    let mut begin = None;
    let mut end = None;
    while let Some(part) = parts.next().await.map_err(failed)? {
        match part {
            Part::Begin(one) => {
                bar.iter().for_each(|bar| bar.set_length(one.bytes_about));
                begin = Some(one);
            }
            Part::Data(bytes) => {
                // Short writes into the page cache: no thread of its own for them.
                file.write(&bytes).map_err(|error| local("write", error))?;
                bar.iter().for_each(|bar| bar.set_position(file.written()));
            }
            Part::End(one) => end = Some(one),
        }
    }
    bar.iter().for_each(indicatif::ProgressBar::finish_and_clear);
    let (Some(begin), Some(end)) = (begin, end) else {
        return Err(Failure::failed("the server's stream lacks its beginning or its end; nothing was saved"));
    };
    let bytes = file.written();
    if bytes != end.bytes {
        return Err(Failure::failed(format!("{bytes} bytes came where the server sent {}; nothing was saved", end.bytes)));
    }
    tokio::task::spawn_blocking(move || file.finish())
        .await
        .map_err(|_| Failure::failed("the thread that writes ended"))?
        .map_err(|error| local("finish", error))?;
    let position = begin.position.map_or_else(|| "-".into(), |position| types::Position::from(position).to_string());
    let saved = Saved {
        file: shown.to_string(),
        cluster: begin.cluster_id,
        position,
        records: begin.records,
        bytes,
        signers: begin.first_signer_set,
    };
    session.out.record(
        &saved,
        &[
            ("file", saved.file.clone()),
            ("cluster", saved.cluster.clone()),
            ("position", saved.position.clone()),
            ("records", saved.records.to_string()),
            ("bytes", saved.bytes.to_string()),
            ("signers", saved.signers.clone()),
        ],
    )?;
    session.out.say(&format!("check it where it will be kept: cinnabar snapshot verify {shown}"));
    Ok(())
}
