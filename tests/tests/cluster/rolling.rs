//! A rolling update under load: every node is stopped in order and started as a newer build, and the feature level is raised at the end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tests::process::{Extra, Fleet, Operator, Readers, Role, Writers, until};
use tokio::task::JoinHandle;
use wire::v1;

use crate::ground::{followed_by, judge, log, once};

/// What a build of level 1 runs in.
const OLDER: [(&str, &str); 1] = [("CINNABAR_LEVEL_MAX", "1")];
/// Writes between two steps.
const WRITES: usize = 20;

/// A client as it is given to people: it repeats what may be repeated, and then sees no failure at all.
struct Patient {
    writes: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Patient {
    async fn start(operator: Operator) -> Self {
        operator.create_bound("PATIENT", b"0").await;
        let (writes, ending): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let (counted, end) = (writes.clone(), ending.clone());
        let task = tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let count = counted.load(Ordering::Relaxed);
                let set = operator.try_set("PATIENT", count.to_string().as_bytes()).await;
                let (version, _) = set.unwrap_or_else(|error| panic!("write {count} failed: {error}: {}", error.error));
                assert_eq!(version, count + 2, "each write is one version");
                let show = v1::ShowSecretRequest { secret: Some(operator.secret("PATIENT")) };
                let shown = operator.client.show_secret(show).await;
                let shown = shown.unwrap_or_else(|error| panic!("read {count} failed: {error}: {}", error.error));
                assert_eq!(shown.current_version, version, "a read sees the write before it, wherever it is asked");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { writes, ending, task }
    }

    async fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        self.task.await.expect("no request of a client with repetitions failed");
        assert!(self.writes.load(Ordering::Relaxed) > 0);
    }
}

/// The level that a node says it knows, as all others are told.
async fn known(fleet: &Fleet, name: &str) -> Option<u64> {
    let level = fleet.cli.ok(&["--format", "json", "cluster", "level"]).await.json();
    level["nodes"].as_array()?.iter().find(|node| node["node"] == name)?["feature_level"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_updated_in_turn_under_load_and_the_level_is_raised_with_no_request_lost() {
    let mut fleet = Fleet::founded(Extra::default(), &OLDER, false).await;
    for voter in ["control-2", "control-3"] {
        fleet.add_voter(voter).await;
    }
    for edge in ["edge-1", "edge-2"] {
        fleet.add_edge(edge).await;
    }
    fleet.operator().found().await;
    let mut writers = Writers::start((0..2).map(|_| fleet.operator()).collect()).await;
    fleet.operator().live(writers.bound()).await;
    let patient = Patient::start(fleet.operator()).await;
    until("every node to be known as one of level 1", async || {
        let nodes = fleet.cli.ok(&["--format", "json", "fleet"]).await.json();
        let all = nodes.as_array().unwrap();
        if all.len() == 5 && all.iter().all(|node| node["feature_level"] == 1) { Ok(()) } else { Err(nodes.to_string()) }
    })
    .await;

    // Voters first, the leader last of them, then the edges.
    fleet.set_environment(&[]);
    let leader = fleet.leader().await;
    let mut order: Vec<String> = crate::ground::others(&fleet, &leader);
    order.push(leader.clone());
    order.extend(fleet.names(Role::Edge));
    for name in &order {
        writers.go_on(WRITES).await;
        let refused = fleet.cli.expect(5, &["cluster", "level", "raise", "--yes"]).await;
        assert!(refused.stderr.contains("knows feature levels up to 1, not 2"), "{refused:?}");
        let others: Vec<_> = fleet.readers().into_iter().filter(|(edge, _)| edge != name).collect();
        let readers = Readers::start(others);
        fleet.stop(name).await;
        if *name == leader {
            assert_ne!(fleet.leader().await, leader, "a leader that is stopped hands over");
        }
        fleet.start_node(name).await;
        until(&format!("{name} to be known as updated"), async || match known(&fleet, name).await {
            Some(3) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert!(readers.end().await > 0);
    }

    let readers = Readers::start(fleet.readers());
    for next in ["2", "3"] {
        fleet.cli.ok(&["cluster", "level", "raise", "--to", next, "--yes"]).await;
    }
    let level = fleet.cli.ok(&["--format", "json", "cluster", "level"]).await.json();
    assert_eq!(level["in_force"], 3, "{level}");
    for control in fleet.names(Role::Control) {
        until(&format!("level 3 at {control}"), async || {
            let status = once(&fleet, &control, None).status(v1::ShowStatusRequest {}).await.map_err(|error| error.error.to_string())?;
            if status.feature_level == 3 { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }
    writers.go_on(WRITES).await;
    // Commands of levels 2 and 3, which the older build does not know.
    fleet.cli.ok(&["quota", "set", "--secrets", "321"]).await;
    let member = v1::MemberRef { name: "ann@example.com".into(), ..Default::default() };
    let member = v1::CreateMemberRequest { member: Some(member), ..Default::default() };
    fleet.operator().client.create_member(member).await.expect("a member is made");
    patient.end().await;
    judge(&fleet, writers, readers).await;

    // Who goes back to the older build stays out, says why, and is welcome when it is updated.
    fleet.set_environment(&OLDER);
    let voter = order[0].clone();
    fleet.stop(&voter).await;
    fleet.launch(&voter);
    assert!(!fleet.server(&voter).ended().await.success());
    let said = log(&fleet, &voter);
    assert!(said.contains("the state is of feature level 3, this node knows up to 1: update this node"), "{said}");
    fleet.stop("edge-1").await;
    fleet.launch("edge-1");
    until("edge-1 to say what it lacks", async || {
        let said = log(&fleet, "edge-1");
        if said.contains("feature level 3, the node knows 1: upgrade it") { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(fleet.reader("edge-1").get("COUNTER_0").await.unwrap().value, b"the last", "it serves what it has");
    assert_eq!(followed_by(&fleet, "edge-1").await, None);
    fleet.set_environment(&[]);
    fleet.kill(&voter);
    fleet.start_node(&voter).await;
    fleet.stop("edge-1").await;
    fleet.start_node("edge-1").await;
    let next = fleet.operator().set("COUNTER_0", b"and on").await.1;
    fleet.operator().live(next).await;
}
