//! Archives by the clock: the leader saves when the newest one in its folder is old enough, reads it back, and removes the oldest.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use runtime::{
    PendingFile,
    config::{ControlConfig, SnapshotsConfig},
};
use seal::NodeKeyPair;
use seams::Disk;
use state::State;
use types::{Position, UnixMillis};

use super::{ArchiveError, save::draft, verify};
use crate::core::Core;

/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure the next attempt waits this long, or as long as the schedule says where that is less.
const AGAIN_AFTER: Duration = Duration::from_secs(300);

/// What the schedule needs beside the node.
pub(crate) struct Schedule {
    /// Folder, rhythm and number.
    pub(crate) config: SnapshotsConfig,
    /// The node's envelope key, with which each archive is read back.
    pub(crate) node_key: PathBuf,
    /// The disk of the folder.
    pub(crate) disk: Arc<dyn Disk>,
}

impl Schedule {
    /// The schedule that a configuration asks for.
    pub(crate) fn of(config: &ControlConfig) -> Self {
        Self { config: config.snapshots.clone(), node_key: config.keys.node.clone(), disk: Arc::new(runtime::RealDisk) }
    }
}

/// Why an archive of the schedule was not made.
#[derive(Debug, thiserror::Error)]
enum ScheduleError {
    #[error("the snapshot is not whole")]
    Archive(#[from] ArchiveError),
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the node's envelope key, with which the snapshot would be verified")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the snapshot, read back, is of {read}, not of {written}")]
    Other { written: Position, read: Position },
    #[error("the thread that saves ended")]
    Ended,
}

/// Runs until the node stops; returns at once where nothing is to be saved. One archive at a time.
pub(crate) async fn run(core: Arc<Core>, schedule: Schedule) {
    let Some(every) = schedule.config.every.duration() else { return };
    let schedule = Arc::new(schedule);
    let cancelled = core.tasks.token().clone();
    let (mut led, mut not_before) = (false, UnixMillis::new(0));
    loop {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(LOOK_EVERY) => {}
        }
        if core.consensus.status().leader != Some(core.node) {
            if std::mem::take(&mut led) {
                // The leader of now knows.
                metrics::gauge!("cinnabar_control_snapshot_age_seconds").set(f64::NAN);
            }
            continue;
        }
        led = true;
        let now = core.clock.wall();
        let newest = newest(&schedule);
        if let Some(saved) = newest {
            metrics::gauge!("cinnabar_control_snapshot_age_seconds").set(now.since(saved).as_secs_f64());
        }
        if now < not_before || newest.is_some_and(|saved| now.since(saved) < every) {
            continue;
        }
        // The node leads, so its own state is the newest but for what is in flight.
        let (saving, plan, state) = (core.clone(), schedule.clone(), core.consensus.local());
        let saved = tokio::task::spawn_blocking(move || save_file(&saving, &plan, state)).await;
        match saved.unwrap_or(Err(ScheduleError::Ended)) {
            Ok((path, position)) => {
                metrics::counter!("cinnabar_control_snapshots_saved_total", "outcome" => "ok").increment(1);
                tracing::info!(path = %path.display(), %position, "saved a snapshot by schedule, and read it back");
            }
            Err(error) => {
                metrics::counter!("cinnabar_control_snapshots_saved_total", "outcome" => "failed").increment(1);
                tracing::error!(error = &error as &dyn std::error::Error, cause = %causes(&error), folder = %schedule.config.folder.display(), "no snapshot was saved by schedule; this is tried again");
                not_before = UnixMillis::new(now.get().saturating_add(AGAIN_AFTER.min(every).as_millis() as u64));
            }
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// When the newest archive in the folder was saved, by its name; none also where the folder cannot be read.
fn newest(schedule: &Schedule) -> Option<UnixMillis> {
    archives(schedule).ok()?.last().map(|(saved, ..)| *saved)
}

/// The archives in the folder, oldest first.
fn archives(schedule: &Schedule) -> io::Result<Vec<(UnixMillis, Position, String)>> {
    let names = schedule.disk.list(&schedule.config.folder)?.into_iter();
    let mut found: Vec<_> = names.filter_map(|name| parse(&name).map(|(saved, position)| (saved, position, name))).collect();
    found.sort_unstable();
    Ok(found)
}

/// Writes one, verifies what was written, removes the oldest.
fn save_file(core: &Core, schedule: &Schedule, state: State) -> Result<(PathBuf, Position), ScheduleError> {
    let Schedule { config, node_key, disk } = schedule;
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ScheduleError::Io { operation, path, source }
    };
    let key = runtime::read_secret_file(node_key).map_err(|error| ScheduleError::Key(Box::new(error)))?;
    let key = NodeKeyPair::from_file_bytes(&zeroize::Zeroizing::new(key)).map_err(|error| ScheduleError::Key(Box::new(error)))?;
    let draft = draft(core, state)?;
    let position = draft.header().position;
    disk.create_dir_all(&config.folder).map_err(failed("create", &config.folder))?;
    for left in disk.list(&config.folder).map_err(failed("list", &config.folder))?.iter().filter(|name| is_left_over(name)) {
        let left = config.folder.join(left);
        disk.remove_file(&left).map_err(failed("remove", &left))?;
    }
    let path = config.folder.join(name(draft.header().created, position));
    let mut file = PendingFile::create_on(disk.clone(), &path).map_err(failed("create", &path))?;
    draft.write(&mut |bytes| file.write(&bytes).map_err(ArchiveError::io("write")))?;
    file.finish().map_err(failed("finish", &path))?;
    let written = disk.open(&path, seams::OpenMode::Read).map_err(failed("read back", &path))?;
    let opened = match verify::open(FromStart { file: &*written, offset: 0 }, &key, verify::Origin::Unproven) {
        Ok(opened) => opened,
        Err(error) => {
            // What does not verify must not look like a backup, nor push one out.
            let _ = disk.remove_file(&path);
            return Err(error.into());
        }
    };
    if opened.checked.header.position != position {
        return Err(ScheduleError::Other { written: position, read: opened.checked.header.position });
    }
    let all = archives(schedule).map_err(failed("list", &config.folder))?;
    for (.., old) in all.iter().take(all.len().saturating_sub(config.keep as usize)) {
        let old = config.folder.join(old);
        disk.remove_file(&old).map_err(failed("remove", &old))?;
    }
    Ok((path, position))
}

/// Reads a file of a disk from its start.
struct FromStart<'a> {
    file: &'a dyn seams::DiskFile,
    offset: u64,
}

impl io::Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len()?.saturating_sub(self.offset);
        let bytes = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.read_exact_at(&mut buffer[..bytes], self.offset)?;
        self.offset += bytes as u64;
        Ok(bytes)
    }
}

const PREFIX: &str = "cinnabar-";
const SUFFIX: &str = ".cbsnap";

/// `cinnabar-20261122T154500Z-1.42.cbsnap`: when, in UTC, and the position.
fn name(saved: UnixMillis, position: Position) -> String {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(saved.get());
    let time = humantime::format_rfc3339_seconds(time).to_string().replace(['-', ':'], "");
    format!("{PREFIX}{time}-{position}{SUFFIX}")
}

/// Whether a file is what an attempt left that a crash cut short. Names differ by the second, so nobody else would replace it.
fn is_left_over(name: &str) -> bool {
    name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")).is_some_and(|name| parse(name).is_some())
}

fn parse(name: &str) -> Option<(UnixMillis, Position)> {
    let (time, position) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
    let part = |from, to| time.get(from..to);
    let spelled = format!("{}-{}-{}:{}:{}{}", part(0, 4)?, part(4, 6)?, part(6, 11)?, part(11, 13)?, part(13, 15)?, part(15, time.len())?);
    let saved = humantime::parse_rfc3339(&spelled).ok()?;
    let saved = saved.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((UnixMillis::new(u64::try_from(saved.as_millis()).ok()?), position.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use types::{Generation, Revision};

    use super::*;

    #[test]
    fn name_says_when_and_what_and_reads_back() {
        let (saved, position) = (UnixMillis::new(1_763_826_300_999), Position::new(Generation::new(2), Revision::new(42)));
        let text = name(saved, position);
        assert_eq!(text, "cinnabar-20251122T154500Z-2.42.cbsnap");
        assert_eq!(parse(&text), Some((UnixMillis::new(1_763_826_300_000), position)));
        assert!(is_left_over(".cinnabar-20251122T154500Z-2.42.cbsnap.part"));
        assert!(!is_left_over(&text) && !is_left_over(".notes.part"));
        for other in
            ["cinnabar-20251122T154500Z-2.42.cbsnap.part", "notes.cbsnap", "cinnabar--2.42.cbsnap", "cinnabar-20251322T154500Z-2.42.cbsnap"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
