//! From which copy of the state a voter starts, before openraft replays the log on it.
//!
//! The table, if it is whole and matches its own label; else the newest snapshot file; else nothing, if the log begins at its
//! beginning. A copy is of use only if the log goes on where it ends, and if the audit entries of what it holds are stored,
//! since only replay makes audit entries.
//!
//! **Failure**: a copy that is of no use is reported and passed over; only when none is left does the voter refuse to start.

use bytes::Bytes;
use seams::Table;
use state::{Key, State};

use crate::{
    error::{StartError, chain},
    machine::LABEL_KEY,
    options::{OpenTable, Tables},
    raft::LogId,
    snapshot::{Label, Snapshots, Standing},
};

/// What a voter starts from.
pub(crate) struct Recovered {
    pub(crate) standing: Standing,
    pub(crate) state: State,
    /// The table, if there is a working one.
    pub(crate) table: Option<Box<dyn Table>>,
    /// Whether the table is empty and must be given the whole state.
    pub(crate) refill: bool,
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogEnds {
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

/// The state before the first entry.
pub(crate) fn nothing() -> (Standing, State) {
    (Standing::default(), State::empty())
}

/// Finds the copy to start from. Blocks.
pub(crate) fn recover(
    tables: Option<Box<dyn Tables>>,
    snapshots: &Snapshots,
    ends: LogEnds,
    audited: u64,
) -> Result<Recovered, StartError> {
    let failed = |error: std::io::Error| StartError::State { detail: chain(&error) };
    let mut tables = tables;
    let (mut table, from_table) = match &mut tables {
        Some(tables) => open_table(tables.as_mut()),
        None => (None, Contents::Nothing),
    };
    let snapshot = snapshots.verify_newest().map_err(failed)?;
    let snapshot_reaches = snapshot.as_ref().and_then(|standing| standing.applied);
    let usable = |standing: &Standing, state: &State| {
        if standing.applied < ends.purged {
            Err(format!("it ends at entry {}, the log begins after {}", text(standing.applied), text(ends.purged)))
        } else if emitted(state)? > audited {
            Err(format!("it accounts for {} audit entries, only {audited} are stored", emitted(state)?))
        } else if standing.applied < snapshot_reaches {
            Err(format!("it ends at entry {}, a snapshot file reaches {}", text(standing.applied), text(snapshot_reaches)))
        } else {
            Ok(())
        }
    };
    let mut clean = matches!(from_table, Contents::Nothing);
    let chosen = match from_table {
        Contents::State(label, state) => match usable(&label.standing, &state) {
            Ok(()) => {
                clean = true;
                Some((label.standing, *state))
            }
            Err(detail) => {
                tracing::warn!(detail, "the table is not used");
                None
            }
        },
        Contents::Nothing => None,
        Contents::Damaged(detail) => {
            tracing::warn!(detail, "the table is not whole and is rebuilt");
            None
        }
    };
    let from_table = chosen.is_some();
    let (standing, state) = match chosen {
        Some(chosen) => chosen,
        None => from_snapshot_or_nothing(snapshots, ends)?,
    };
    if !clean && let Some(tables) = &mut tables {
        drop(table.take());
        table = tables.reset().map_err(|error| tracing::error!(error = %chain(&error), "running without a table")).ok();
    }
    // Where the log does not reach the state (its tail was not durable here, but on a majority), openraft purges the hole: that,
    // and what was purged before, must lie below a snapshot file.
    if standing.applied > ends.last || ends.purged > snapshot_reaches {
        snapshots.write(&standing, &state).map_err(failed)?;
    }
    tracing::info!(applied = standing.applied.map(|id| id.index), from_table, "loaded the state");
    Ok(Recovered { refill: table.is_some() && !from_table && standing.applied.is_some(), standing, state, table })
}

fn from_snapshot_or_nothing(snapshots: &Snapshots, ends: LogEnds) -> Result<(Standing, State), StartError> {
    let loaded = snapshots.load_newest().map_err(|error| StartError::State { detail: chain(&error) })?;
    let (standing, state) = loaded.unwrap_or_else(nothing);
    if standing.applied < ends.purged {
        let detail = format!(
            "no copy of the state reaches entry {}, where the log begins; the newest ends at {}",
            text(ends.purged),
            text(standing.applied)
        );
        return Err(StartError::State { detail });
    }
    Ok((standing, state))
}

/// How many audit entries led to a state.
fn emitted(state: &State) -> Result<u64, String> {
    state.audit_head().map(|head| head.sequence).map_err(|error| chain(&error))
}

fn text(id: Option<LogId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.index.to_string())
}

/// What a table held.
enum Contents {
    Nothing,
    State(Label, Box<State>),
    Damaged(String),
}

fn open_table(tables: &mut dyn Tables) -> (Option<Box<dyn Table>>, Contents) {
    let mut label = None;
    let mut records = Vec::new();
    let opened = tables.open(&mut |key, value| {
        if key == LABEL_KEY {
            label = Some(Bytes::copy_from_slice(value));
        } else {
            records.push((Key::from_bytes(key), Bytes::copy_from_slice(value)));
        }
        Ok(())
    });
    let table = match opened {
        Ok(OpenTable { table, whole: true }) => table,
        // Reported where it was found; it is empty now.
        Ok(OpenTable { table, whole: false }) => return (Some(table), Contents::Nothing),
        Err(error) => {
            tracing::error!(error = %chain(&error), "running without a table");
            return (None, Contents::Nothing);
        }
    };
    let contents = match label {
        None if records.is_empty() => Contents::Nothing,
        None => Contents::Damaged("it was being rebuilt when the voter ended".to_owned()),
        Some(label) => {
            match Label::decode(label).map_err(|error| error.to_string()).and_then(|label| label.check(records).map(|state| (label, state)))
            {
                Ok((label, state)) => Contents::State(label, Box::new(state)),
                Err(detail) => Contents::Damaged(detail),
            }
        }
    };
    (Some(table), contents)
}
