//! How a voter starts: open the log, recover the state, run Raft, take up the rhythm.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use openraft::{Config, SnapshotPolicy};
use seams::mutation::{self, Mutation};
use store::{Drive, LogOptions, LogWriter, WriteBehind, WriteBehindOptions};
use tokio::sync::Semaphore;
use types::NodeId;

use crate::{
    Runtime,
    audit::Audited,
    clock::Known,
    engine::{Engine, Voter},
    error::{StartError, StopReason, chain},
    gather::Gather,
    log::{RaftLog, SnapshotMark},
    machine::{Core, Machine},
    network::{Peers, Server},
    offload::Offload,
    options::{ADDRESS_BYTES_MAX, Bootstrap, Limits, MEMBERS_MAX, Options, Timing},
    raft::Raft,
    recovery::{self, LogEnds},
    snapshot::Snapshots,
    stop::Stop,
};

/// Starts a voter on the runtime `R`.
pub(crate) async fn start<R: Runtime>(options: Options) -> Result<Arc<dyn Engine>, StartError> {
    let config = config(&options.timing, &options.limits)?;
    check_bootstrap(options.node, options.bootstrap.as_ref())?;
    let Options { node, disk, folder, drive, tables, clock, transport, applied, audit, bootstrap, timing, limits } = options;
    let offload = Offload::<R>::new(drive);
    let mark = SnapshotMark::new(None);

    let (log_folder, log_disk) = (folder.join("log"), disk.clone());
    let log_text = log_folder.display().to_string();
    let log_failed = |error: std::io::Error| StartError::Log { folder: log_text.clone(), source: error.into() };
    let log_options = LogOptions { name: "raft", segment_bytes: limits.segment_bytes, ..LogOptions::new(log_folder) };
    let opened = offload.run(move || LogWriter::open(log_disk, log_options, drive).map_err(std::io::Error::other));
    let (writer, reader) = opened.await.map_err(log_failed)?;
    if let Some(cut) = writer.cut() {
        tracing::warn!(file = %cut.file.display(), offset = cut.offset, bytes = cut.bytes, "cut a torn write off the end of the log; it was never acknowledged");
    }
    let log = RaftLog::new(writer.clone(), reader, mark.clone(), offload);
    let ends = LogEnds { purged: log.purged().map_err(log_failed)?, last: log.last().await.map_err(log_failed)? };

    let (snapshot_folder, incoming) = (folder.join("snapshots"), folder.join("incoming"));
    let snapshot_text = snapshot_folder.display().to_string();
    let audited = audit.held();
    let recover = offload.run(move || {
        let snapshots = match Snapshots::open(disk, &snapshot_folder, incoming, mark) {
            Ok(snapshots) => Arc::new(snapshots),
            Err(error) => return Ok(Err(StartError::Snapshot { folder: snapshot_text, source: error.into() })),
        };
        Ok(recovery::recover(tables, &snapshots, ends, audited).map(|recovered| (snapshots, recovered)))
    });
    let (snapshots, recovered) = recover.await.map_err(|error| StartError::State { detail: chain(&error) })??;

    let core = Arc::new(Core { shown: recovered.state.clone().into(), applied, audit, level_max: limits.level_max, stop: Stop::new() });
    core.may_hold(&recovered.state).map_err(StartError::Stopped)?;
    core.applied.replaced(&recovered.state);
    let behind = recovered.table.and_then(|table| {
        let table = Box::new(Audited { table, audit: core.audit.clone() });
        let started = WriteBehind::start(table, WriteBehindOptions::default(), drive);
        started.map_err(|error| tracing::error!(error = %chain(&error), "running without a table")).ok()
    });
    let pumping = Arc::new(AtomicBool::new(true));
    if drive == Drive::Manual {
        drop(R::spawn(pump::<R>(writer.clone(), behind.clone(), pumping.clone())));
    }
    let mut machine = Machine::new(core.clone(), recovered.standing, behind.clone(), snapshots.clone(), offload);
    if recovered.refill {
        machine.refill(&recovery::nothing().1).await;
    }

    let peers = Peers { transport: transport.clone(), snapshots: snapshots.clone(), offload };
    let pristine = log.is_pristine();
    let started = Raft::<R>::new(node.get(), Arc::new(config), peers, log, machine).await;
    let raft = started.map_err(|fatal| {
        pumping.store(false, Ordering::Relaxed);
        StartError::Stopped(core.stop.reason().unwrap_or_else(|| StopReason(chain(&fatal))))
    })?;
    let server = Server { raft: raft.clone(), snapshots, offload, incoming: None.into() };
    let voter = Arc::new(Voter {
        node,
        raft,
        core,
        server,
        transport,
        closing: AtomicBool::new(false),
        changing: tokio::sync::Mutex::new(()),
        clocks: Known::new(clock.monotonic()).into(),
        clock,
        timing,
        limits,
        gather: Gather::new(),
        slots: Arc::new(Semaphore::new(limits.proposals_max)),
        bytes: Arc::new(Semaphore::new(limits.proposal_bytes_max)),
        writer,
        behind,
        offload,
        pumping,
    });
    let begun = match bootstrap.filter(|_| pristine) {
        Some(bootstrap) => voter.bootstrap(bootstrap).await,
        None => voter.elect_if_alone().await,
    };
    if let Err(reason) = begun {
        voter.shutdown().await;
        return Err(StartError::Stopped(reason));
    }
    drop(R::spawn(voter.clone().keep_clocks()));
    drop(R::spawn(voter.clone().tick()));
    Ok(Arc::new(voter))
}

/// Writes what waits for the disk, group by group, each after a random while: what a crash finds between visible and durable.
async fn pump<R: Runtime>(writer: LogWriter, behind: Option<WriteBehind>, pumping: Arc<AtomicBool>) {
    // openraft's own draw from the runtime's randomness, which a simulation seeds.
    let draw = Config { election_timeout_min: 100, election_timeout_max: 3_000, ..Config::default() };
    while pumping.load(Ordering::Relaxed) {
        R::sleep(std::time::Duration::from_micros(draw.new_rand_election_timeout::<R>())).await;
        while writer.run_pending() {}
        if let Some(behind) = &behind {
            behind.run_pending();
        }
    }
}

fn config(timing: &Timing, limits: &Limits) -> Result<Config, StartError> {
    let bad = |detail: &str| StartError::Options { detail: detail.to_owned() };
    let permits = 1..=Semaphore::MAX_PERMITS.min(u32::MAX as usize);
    if !permits.contains(&limits.proposals_max) || !permits.contains(&limits.proposal_bytes_max) {
        return Err(bad("proposals_max and proposal_bytes_max must be 1 to 4,294,967,295"));
    }
    if limits.snapshot_entries == 0 {
        return Err(bad("snapshot_entries must be at least 1"));
    }
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "cinnabar".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        // A leader that restarts must win an election anew: its committed hint may be older than what it has acknowledged, and
        // leading on in the same term it would answer reads by the hint.
        enable_leader_restore: Some(mutation::is_on(Mutation::LeaderRestored)),
        // A voter that was cut off must not raise the term when it comes back.
        enable_pre_vote: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_entries),
        max_in_snapshot_log_to_keep: limits.keep_entries,
        // The deadline of one chunk of a snapshot file; the last chunk's answer waits until the file is installed.
        install_snapshot_timeout: 60_000,
        // What is applied waits here while the table catches up. Were it full, everything else would wait too, heartbeats among it, and a
        // cluster whose disks are slow would begin to elect; what waits is bounded by the proposals in flight and the log that is sent.
        state_machine_channel_size: Some(1 << 16),
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Options { detail: error.to_string() })
}

fn check_bootstrap(node: NodeId, bootstrap: Option<&Bootstrap>) -> Result<(), StartError> {
    let Some(Bootstrap { voters }) = bootstrap else { return Ok(()) };
    check_voters(node, voters).map_err(|detail| StartError::Options { detail })
}

fn check_voters(node: NodeId, voters: &BTreeMap<NodeId, String>) -> Result<(), String> {
    if !voters.contains_key(&node) {
        return Err(format!("the first membership does not hold this node, {node}"));
    }
    if voters.len() > MEMBERS_MAX {
        return Err(format!("{} voters; at most {MEMBERS_MAX}", voters.len()));
    }
    match voters.iter().find(|(_, address)| address.len() > ADDRESS_BYTES_MAX) {
        Some((voter, _)) => Err(format!("the address of voter {voter} is over {ADDRESS_BYTES_MAX} bytes")),
        None => Ok(()),
    }
}
