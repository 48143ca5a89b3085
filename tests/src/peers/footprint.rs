//! What stored secrets cost: memory and disk, and the time from a start to the first answer.

use runtime::RealClock;
use seams::Clock;

use super::{
    etcd::Etcd,
    ours::Ours,
    process::{disk_bytes, resident_bytes},
    redis::Redis,
    report::{By, Row, Section},
    run::{Plan, key},
};
use crate::process::Role;

/// Calls at once while a system is filled.
const AT_ONCE: u32 = 64;

/// What one system takes, by node.
struct Footprint {
    system: &'static str,
    promise: &'static str,
    memory: f64,
    disk: f64,
    restart_us: f64,
    memory_after: f64,
}

/// One round: it takes long, and varies little.
pub(super) async fn measure(plan: &Plan, said: &impl Fn(&str)) -> [Section; 2] {
    said("footprint: etcd");
    let etcd = etcd(plan).await;
    said("footprint: Redis");
    let redis = redis(plan).await;
    said("footprint: cinnabar");
    let all = [etcd, redis, ours(plan).await];
    let bytes = |case: &str, footprint: &Footprint, bytes: f64| Row {
        case: case.to_owned(),
        system: footprint.system.to_owned(),
        promise: footprint.promise.to_owned(),
        count: u64::from(plan.stored),
        bytes: Some(bytes),
        ..Row::default()
    };
    let rows = all.iter().flat_map(|footprint| {
        [
            bytes("memory when filled", footprint, footprint.memory),
            bytes("memory after a start", footprint, footprint.memory_after),
            bytes("disk", footprint, footprint.disk),
        ]
    });
    let title = format!("{} secrets of {} bytes, for each node", plan.stored, plan.value_bytes);
    let note = "Resident memory of the process, and what is allocated on the disk for all of its files, empty space that was preallocated included. One round.";
    let room = Section::of(&title, note, By::Bytes, "etcd", &[rows.collect()]);
    let rows = all.iter().map(|footprint| Row {
        case: "start to ready".to_owned(),
        system: footprint.system.to_owned(),
        promise: footprint.promise.to_owned(),
        count: 1,
        p50_us: Some(footprint.restart_us),
        ..Row::default()
    });
    let note = "From starting the killed processes, all at once, to a leader that answers; files come from the system's cache. One round.";
    (room, Section::of("Restart with these secrets", note, By::Median, "etcd", &[rows.collect()])).into()
}

async fn etcd(plan: &Plan) -> Footprint {
    let folder = plan.folder();
    let mut etcd = Etcd::start(&plan.programs, folder.path(), false).await;
    let client = etcd.client(4);
    let mut filling = tokio::task::JoinSet::new();
    for caller in 0..AT_ONCE {
        let (client, plan) = (client.clone(), plan.clone());
        filling.spawn(async move {
            for number in (caller..plan.stored).step_by(AT_ONCE as usize) {
                client.put(caller, key(number), plan.value()).await;
            }
        });
    }
    filling.join_all().await;
    let nodes = etcd.pids().len() as f64;
    let (memory, disk) = (resident_bytes(&etcd.pids()) as f64 / nodes, disk_bytes(folder.path()) as f64 / nodes);
    let clock = RealClock::new();
    let began = clock.monotonic();
    etcd.restart().await;
    let restart_us = (clock.monotonic() - began).as_secs_f64() * 1e6;
    let memory_after = resident_bytes(&etcd.pids()) as f64 / nodes;
    Footprint { system: "etcd", promise: "three nodes, plain text", memory, disk, restart_us, memory_after }
}

async fn redis(plan: &Plan) -> Footprint {
    let folder = plan.folder();
    let mut redis = Redis::start(&plan.programs, folder.path(), true).await;
    let mut connection = redis.connection().await;
    for number in 0..plan.stored {
        connection.set(key(number), plan.value()).await;
    }
    let (memory, disk) = (resident_bytes(&redis.pids()) as f64, disk_bytes(folder.path()) as f64);
    let clock = RealClock::new();
    let began = clock.monotonic();
    redis.restart().await;
    let restart_us = (clock.monotonic() - began).as_secs_f64() * 1e6;
    let memory_after = resident_bytes(&redis.pids()) as f64;
    Footprint { system: "Redis", promise: "one node, plain text, a log synced once a second", memory, disk, restart_us, memory_after }
}

async fn ours(plan: &Plan) -> Footprint {
    let mut ours = Ours::start(0, u64::from(plan.stored)).await;
    ours.create(0..plan.stored, || plan.value()).await;
    let (pids, names) = (ours.voters().await, ours.fleet.names(Role::Control));
    let nodes = pids.len() as f64;
    let disk = names.iter().map(|name| disk_bytes(&ours.fleet.data(name))).sum::<u64>() as f64 / nodes;
    let memory = resident_bytes(&pids) as f64 / nodes;
    names.iter().for_each(|name| ours.fleet.kill(name));
    let clock = RealClock::new();
    let began = clock.monotonic();
    names.iter().for_each(|name| ours.fleet.launch(name));
    for name in &names {
        ours.fleet.until_health(name, "/readyz", 200).await;
    }
    let restart_us = (clock.monotonic() - began).as_secs_f64() * 1e6;
    let memory_after = resident_bytes(&ours.voters().await) as f64 / nodes;
    Footprint { system: "cinnabar", promise: "three nodes, encrypted, with audit log", memory, disk, restart_us, memory_after }
}
