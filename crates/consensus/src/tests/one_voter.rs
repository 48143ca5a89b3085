//! One voter: what it acknowledged survives, whatever the crash; damage is healed or refused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use openraft_rt_sim::SimRuntime;
use seams::{Entropy, TableError, sim::SimEntropy};
use state::{RefusalKind, State};
use types::LogIndex;

use super::{
    commands::{account_id, create_account, create_account_once, create_store, init, raise_level, update_level},
    rig::{Heard, Rig, simulate},
};
use crate::{Drive, Limits, MemTables, OpenTable, ProposeError, Runtime, StartError, Tables, Visit, lock};

async fn ready(rig: &Rig, heard: &Arc<Heard>) -> crate::Consensus {
    let voter = rig.start(heard.clone()).await.unwrap();
    voter.recovered().await.unwrap();
    if voter.local().settings().unwrap().is_none() {
        voter.propose(init(&[1])).await.unwrap();
    }
    voter
}

/// The same state, made of its own records: shows that nothing of it lives outside of them.
fn rebuilt(state: &State) -> State {
    State::from_records(state.records()).unwrap()
}

#[test]
pub(super) fn proposal_is_applied_and_read_back_by_who_was_answered() {
    let rig = Rig::new(1, &[1]);
    simulate(1, async {
        let heard = Arc::new(Heard::default());
        let voter = ready(&rig, &heard).await;
        let reply = voter.propose(create_account(1)).await.unwrap();
        assert!(voter.local().position() >= reply.position);
        assert!(voter.linearizable().await.unwrap().account(account_id(1)).unwrap().is_some());
        let refused = voter.propose(create_account(1)).await.unwrap_err();
        assert!(matches!(&refused, ProposeError::Refused(refusal) if refusal.kind == RefusalKind::AlreadyExists), "{refused}");
        let status = voter.status();
        assert_eq!((status.leader, status.in_flight, status.voters.len()), (Some(rig.node), 0, 1));
        assert_eq!(heard.sets().keys().last(), Some(&reply.position));
        voter.shutdown().await;
        assert!(matches!(voter.propose(create_account(2)).await, Err(ProposeError::Stopped(_))));
    });
}

/// Writers, a crash at a random moment, a restart, four times over. Panics when something acknowledged is gone, when a read
/// goes back, or when the chain or the audit log is not what it was.
pub(super) fn crash_again_and_again(seed: u64) {
    let entropy = SimEntropy::new(seed);
    let rig = Rig::new(1, &[1]);
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut told = std::collections::BTreeMap::new();
    for round in 0..4_u64 {
        let heard = Arc::new(Heard::default());
        simulate(seed * 100 + round, async {
            let voter = rig.start(heard.clone()).await.unwrap();
            // Asked at once, while the log may still be ahead of what is known to be committed.
            let state = voter.linearizable().await.unwrap();
            for (number, position) in lock(&acknowledged).iter() {
                assert!(state.position() >= *position, "seed {seed}: a read went back");
                assert!(
                    state.account(account_id(*number)).unwrap().is_some(),
                    "seed {seed}: account {number} was acknowledged and is gone"
                );
            }
            assert_eq!(rebuilt(&state).state_root(), state.state_root());
            check_audit(&rig, &state);
            if state.settings().unwrap().is_none() {
                voter.propose(init(&[1])).await.unwrap();
            }
            for writer in 0..8_u64 {
                let (voter, acknowledged) = (voter.clone(), acknowledged.clone());
                drop(SimRuntime::spawn(async move {
                    for step in 0..20_u64 {
                        let number = round * 1000 + writer * 100 + step + 1;
                        // Spread over the time in which the power may fail, also where nothing waits for the disk.
                        SimRuntime::sleep(Duration::from_micros(number * 701 % 3_000)).await;
                        if let Ok(reply) = voter.propose(create_account_once(number)).await {
                            lock(&acknowledged).push((number, reply.position));
                        }
                    }
                }));
            }
            SimRuntime::sleep(Duration::from_micros(entropy.number() % 60_000)).await;
        });
        // What was told to the listener was committed: it must be told again, if at all, with the same hashes.
        for (position, hash) in heard.sets() {
            assert!(told.insert(position, hash).is_none_or(|before| before == hash), "seed {seed}: another change set at {position}");
        }
        rig.crash(entropy.number());
    }
    assert!(!lock(&acknowledged).is_empty(), "seed {seed}: nothing was acknowledged, so nothing was tested");
}

/// The stored audit entries are one chain, and reach at least as far as those of the state before it was replayed.
fn check_audit(rig: &Rig, state: &State) {
    let head = state.audit_head().unwrap();
    let (cut, entries) = rig.audit_entries();
    let (mut sequence, mut hash) = cut.map_or((0, types::Hash::ZERO), |cut| (cut.sequence, cut.hash));
    for entry in entries {
        assert_eq!((entry.sequence, entry.previous), (sequence + 1, hash), "the audit log has a gap, or lost its beginning");
        (sequence, hash) = (entry.sequence, state::AuditEntry::hash_of(&entry.encode()));
    }
    assert!(sequence <= head.sequence, "the audit log holds what never was");
    assert!(sequence < head.sequence || hash == head.hash, "the audit log ends in another chain");
}

#[test]
fn audit_log_is_cut_by_size_and_its_chain_goes_on_from_the_cut() {
    let rig = Rig { audit_bytes_max: 1, ..Rig::new(1, &[1]) };
    let mut cuts = 0;
    for round in 0..8 {
        simulate(round, async {
            let voter = ready(&rig, &Arc::default()).await;
            voter.recovered().await.unwrap();
            for number in 1..=60 {
                voter.propose(create_account(round * 100 + number)).await.unwrap();
            }
            check_audit(&rig, &voter.local());
        });
        let before = rig.audit_entries().0;
        rig.crash(round);
        let after = rig.audit_entries().0;
        assert!(after.map(|cut| cut.sequence) <= before.map(|cut| cut.sequence));
        cuts += u64::from(after.is_some());
    }
    assert!(cuts > 2, "nothing was cut, so nothing was tested");
    simulate(99, async {
        let voter = ready(&rig, &Arc::default()).await;
        voter.shutdown().await;
        let (cut, entries) = rig.audit_entries();
        let state = voter.local();
        check_audit(&rig, &state);
        assert_eq!(entries.last().map(|last| last.sequence), Some(state.audit_head().unwrap().sequence));
        assert!(cut.is_some_and(|cut| cut.sequence + 1 == entries[0].sequence), "{cut:?}");
        assert!(rig.audit().bytes() < 200 << 10, "{}", rig.audit().bytes());
    });
}

#[test]
fn acknowledged_proposals_survive_every_crash() {
    (0..20).for_each(crash_again_and_again);
}

#[test]
fn sole_voter_serves_without_waiting_for_an_election_timeout() {
    let rig = Rig::new(1, &[1]);
    for round in 0..3 {
        simulate(round, async {
            let begin = openraft_rt_sim::SimInstant::try_now().unwrap().elapsed_since_start();
            let voter = ready(&rig, &Arc::default()).await;
            voter.propose(create_account(round + 1)).await.unwrap();
            let took = openraft_rt_sim::SimInstant::try_now().unwrap().elapsed_since_start() - begin;
            assert!(took < Duration::from_millis(200), "round {round}: {took:?}");
        });
        rig.crash(round);
    }
}

#[test]
fn clean_restart_loads_the_table_and_replays_nothing() {
    let rig = Rig::new(1, &[1]);
    let root = simulate(1, async {
        let voter = ready(&rig, &Arc::default()).await;
        for number in 1..=30 {
            voter.propose(create_account(number)).await.unwrap();
        }
        voter.shutdown().await;
        voter.local().state_root()
    });
    let heard = Arc::new(Heard::default());
    simulate(2, async {
        let voter = rig.start(heard.clone()).await.unwrap();
        assert_eq!(voter.local().state_root(), root);
        assert!(heard.sets().is_empty(), "the table held everything");
    });
}

/// A table of which one record is lost.
struct Lossy(MemTables);

impl Tables for Lossy {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        let mut seen = 0;
        self.0.open(&mut |key, value| {
            seen += 1;
            if seen == 3 { Ok(()) } else { visit(key, value) }
        })
    }

    fn reset(&mut self) -> Result<Box<dyn seams::Table>, TableError> {
        self.0.reset()
    }
}

#[test]
fn table_that_lost_a_record_is_rebuilt_from_snapshot_and_log() {
    for snapshot in [false, true] {
        let rig = Rig::new(1, &[1]);
        let root = simulate(1, async {
            let voter = ready(&rig, &Arc::default()).await;
            for number in 1..=100 {
                voter.propose(create_account(number)).await.unwrap();
            }
            if snapshot {
                voter.snapshot().await.unwrap();
            }
            voter.propose(create_store(1, 1)).await.unwrap();
            let root = voter.local().state_root();
            voter.shutdown().await;
            root
        });
        let fresh = MemTables::default();
        simulate(2, async {
            let lossy = Lossy(rig.tables.clone());
            let mut options = rig.options(Arc::new(()), Arc::new(crate::Unconnected), Arc::new(super::rig::SimClock));
            options.tables = Some(Box::new(lossy));
            let voter = crate::Consensus::start_on::<SimRuntime>(options).await.unwrap();
            voter.recovered().await.unwrap();
            assert_eq!(voter.local().state_root(), root);
            voter.shutdown().await;
        });
        drop(fresh);
    }
}

#[test]
fn voter_without_table_starts_from_snapshot_file_and_log() {
    let rig = Rig::new(1, &[1]);
    let (root, purged) = simulate(1, async {
        let voter = ready(&rig, &Arc::default()).await;
        for number in 1..=120 {
            voter.propose(create_account(number)).await.unwrap();
        }
        voter.snapshot().await.unwrap();
        for number in 121..=130 {
            voter.propose(create_account(number)).await.unwrap();
        }
        let result = (voter.local().state_root(), voter.status().purged);
        voter.shutdown().await;
        result
    });
    assert!(purged > Some(LogIndex::new(50)), "the log was purged below the snapshot: {purged:?}");
    simulate(2, async {
        let mut options = rig.options(Arc::new(()), Arc::new(crate::Unconnected), Arc::new(super::rig::SimClock));
        options.tables = None;
        let voter = crate::Consensus::start_on::<SimRuntime>(options).await.unwrap();
        voter.recovered().await.unwrap();
        assert_eq!(voter.local().state_root(), root);
    });
}

#[test]
fn voter_whose_copies_are_all_gone_refuses_to_start() {
    let rig = Rig::new(1, &[1]);
    simulate(1, async {
        let voter = ready(&rig, &Arc::default()).await;
        for number in 1..=120 {
            voter.propose(create_account(number)).await.unwrap();
        }
        voter.snapshot().await.unwrap();
        voter.shutdown().await;
    });
    for file in rig.disk.files().iter().filter(|file| file.components().any(|part| part.as_os_str() == "snapshots")) {
        rig.disk.damage(file, 700, 1).unwrap();
    }
    simulate(2, async {
        let mut options = rig.options(Arc::new(()), Arc::new(crate::Unconnected), Arc::new(super::rig::SimClock));
        options.tables = None;
        let error = crate::Consensus::start_on::<SimRuntime>(options).await.err().unwrap();
        assert!(matches!(error, StartError::State { .. }), "{error}");
        assert!(error.to_string().contains("no copy of the state reaches entry"), "{error}");
    });
}

#[test]
fn audit_log_keeps_each_entry_once_through_crashes() {
    let rig = Rig::new(1, &[1]);
    for round in 0..6 {
        simulate(round, async {
            let voter = ready(&rig, &Arc::default()).await;
            for number in 1..=20 {
                voter.propose(create_account(round * 100 + number)).await.unwrap();
            }
        });
        rig.crash(round);
    }
    simulate(99, async {
        let voter = ready(&rig, &Arc::default()).await;
        let head = voter.local().audit_head().unwrap();
        voter.shutdown().await;
        let audit = rig.audit();
        let entries = audit.read(1..u64::MAX, usize::MAX).unwrap();
        assert_eq!(entries.len() as u64, head.sequence);
        let mut previous = types::Hash::ZERO;
        for (sequence, stored) in entries {
            let entry = state::AuditEntry::decode(&stored).unwrap();
            assert_eq!((entry.sequence, entry.previous), (sequence, previous));
            previous = state::AuditEntry::hash_of(&stored);
        }
        assert_eq!(previous, head.hash);
    });
}

#[test]
fn entry_that_does_not_decode_stops_the_voter_before_it_is_applied() {
    let rig = Rig::new(1, &[1]);
    simulate(1, async {
        let voter = ready(&rig, &Arc::default()).await;
        voter.propose(create_account(1)).await.unwrap();
        voter.shutdown().await;
    });
    // A newer voter's entry, put into the log behind our back.
    let mut newer = create_account(2).encode().to_vec();
    newer[1..5].copy_from_slice(&99_u32.to_be_bytes());
    simulate(2, async {
        let disk = Arc::new(rig.disk.clone());
        let (writer, reader) = store::LogWriter::open(disk, rig.log_options("log"), Drive::Inline).unwrap();
        let next = reader.next_index();
        let (_, last) = reader.read(next - 1..next, 1).unwrap().remove(0);
        let last = crate::format::decode_entry(next - 1, last).unwrap();
        let payload = openraft::EntryPayload::Normal(crate::raft::Proposal(Bytes::from(newer)));
        let entry = crate::raft::Entry { log_id: crate::raft::log_id(last.log_id.leader_id.term, next), payload };
        writer.append(next, vec![crate::format::encode_entry(&entry)], Box::new(|_| ())).await.unwrap();
        writer.close().unwrap();
    });
    simulate(3, async {
        let voter = rig.start(Arc::new(())).await.unwrap();
        let reason = voter.stopped().await;
        assert!(reason.to_string().contains("feature level 99"), "{reason}");
        assert!(voter.local().account(account_id(1)).unwrap().is_some());
        assert!(matches!(voter.propose(create_account(3)).await, Err(ProposeError::Stopped(_))));
    });
}

#[test]
fn voter_held_at_level_1_stops_before_the_level_rises_and_does_not_start_above_it() {
    let held = |rig: &Rig| Rig { limits: Limits { level_max: types::FeatureLevel::new(1), ..rig.limits }, ..rig.survivor() };
    let rig = Rig::new(1, &[1]);
    let text = "it needs feature level 2, this node knows up to 1: update this node";
    simulate(1, async {
        let voter = ready(&held(&rig), &Arc::default()).await;
        voter.propose(create_account(1)).await.unwrap();
        voter.propose(update_level(1, 2)).await.unwrap();
        let lost = voter.propose(raise_level(2)).await.unwrap_err();
        assert!(matches!(lost, ProposeError::Unknown { .. }), "{lost}");
        let reason = voter.stopped().await.to_string();
        assert!(reason.contains(text), "{reason}");
        assert_eq!(voter.local().feature_level().unwrap().get(), 1);
        assert!(voter.local().account(account_id(1)).unwrap().is_some());
    });
    // Updated, it takes the command that stopped it. Its older build could not go on from there.
    simulate(2, async {
        let voter = ready(&rig, &Arc::default()).await;
        assert_eq!(voter.local().feature_level().unwrap().get(), 2);
        voter.shutdown().await;
    });
    simulate(3, async {
        let error = held(&rig).start(Arc::new(())).await.err().unwrap();
        assert!(error.to_string().contains("the state is of feature level 2, this node knows up to 1"), "{error}");
    });
}

#[test]
fn proposals_over_the_limit_are_told_to_try_again() {
    let mut rig = Rig::new(1, &[1]);
    rig.limits = Limits { proposals_max: 2, ..rig.limits };
    simulate(1, async {
        let voter = ready(&rig, &Arc::default()).await;
        let all: Vec<_> = (1..=3).map(|number| voter.propose(create_account(number))).collect();
        let results = futures::future::join_all(all).await;
        assert!(results[0].is_ok() && results[1].is_ok());
        assert!(
            matches!(&results[2], Err(ProposeError::Unavailable { reason }) if reason == "2 proposals are in flight"),
            "{:?}",
            results[2]
        );
        voter.propose(create_account(3)).await.unwrap();
    });
}

#[test]
fn caller_that_hangs_up_does_not_stop_its_proposal() {
    let rig = Rig::new(1, &[1]);
    simulate(1, async {
        let heard = Arc::new(Heard::default());
        let voter = ready(&rig, &heard).await;
        let before = voter.local().position();
        {
            let mut proposal = Box::pin(voter.propose(create_account(1)));
            assert!(futures::poll!(&mut proposal).is_pending());
        }
        while voter.local().position() == before {
            SimRuntime::sleep(Duration::from_millis(1)).await;
        }
        assert!(voter.local().account(account_id(1)).unwrap().is_some());
    });
}

#[test]
pub(super) fn leader_ticks_once_a_second_by_its_clock() {
    let rig = Rig::new(1, &[1]);
    simulate(1, async {
        let heard = Arc::new(Heard::default());
        let _voter = ready(&rig, &heard).await;
        SimRuntime::sleep(Duration::from_millis(5_500)).await;
        let ticks = heard.ticks();
        assert!((5..=6).contains(&ticks.len()), "{ticks:?}");
        assert!(ticks.windows(2).all(|pair| (900..1_200).contains(&(pair[1].get() - pair[0].get()))), "{ticks:?}");
    });
}

#[test]
fn bad_options_are_refused_before_anything_is_touched() {
    let rig = Rig::new(1, &[2, 3]);
    simulate(1, async {
        let error = rig.start(Arc::new(())).await.err().unwrap();
        assert_eq!(error.to_string(), "bad consensus options: the first membership does not hold this node, 1");
    });
}
