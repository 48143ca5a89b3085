//! Snapshots for people at a whole cluster: saved at every node and by the clock under load, and restored under running edges.

use std::{fs, path::Path};

use tests::process::{Extra, Fleet, Role, Writers, until};
use types::{Generation, Position};

use crate::ground::{configured, context, contexts, others, text};

/// Writes that go on between two steps.
const WRITES: usize = 20;
/// How many archives the schedule keeps.
const KEPT: usize = 2;

/// The archives that the schedule has left in a folder, oldest first.
fn archives(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".cbsnap") && !name.starts_with('.')).collect();
    names.sort();
    names
}

/// The report of `snapshot verify` with the recovery key. None: it went while it was looked at, as the oldest does.
async fn verified(fleet: &Fleet, file: &Path) -> Option<serde_json::Value> {
    let (file, recovery) = (text(file), text(&fleet.recovery_key()));
    let run = fleet.cli.quiet(&["--format", "json", "snapshot", "verify", &file, "--recovery-key-file", &recovery]).await;
    if run.stderr.contains("cannot open") { None } else { Some(run.json()) }
}

fn position(report: &serde_json::Value) -> Position {
    report["position"].as_str().unwrap().parse().unwrap()
}

/// Waits until the schedule has saved at a node after `before`; the archive's name.
async fn saved_by(fleet: &Fleet, folder: &Path, node: u64, before: &str) -> String {
    until(&format!("node {node} to save by schedule"), async || {
        for name in archives(folder).into_iter().rev().take_while(|name| name.as_str() > before) {
            let Some(report) = verified(fleet, &folder.join(&name)).await else { continue };
            assert_eq!(report["contents"]["key_epochs_opened"], report["contents"]["key_epochs"], "{report}");
            if report["saved_by"] == node {
                return Ok(name);
            }
        }
        Err(format!("{:?}", archives(folder)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_of_three_is_saved_at_each_node_and_by_schedule_and_restored_under_its_edges() {
    let saved = tempfile::tempdir().unwrap();
    let folder = saved.path().join("archives");
    let control = format!("\n[snapshots]\nfolder = \"{}\"\nevery = \"1s\"\nkeep = {KEPT}\n", folder.display());
    let mut fleet = Fleet::start_with(3, 2, Extra { control, ..Extra::default() }).await;
    let mut writers = Writers::start((0..2).map(|_| fleet.operator()).collect()).await;
    let operator = fleet.operator();
    operator.create_bound("KEPT", b"as it was saved").await;

    // By hand, at each node, leader or not, while others write. What was acknowledged before is in it.
    let mut known = cli::Contexts::load(&contexts(&fleet)).unwrap();
    for node in fleet.names(Role::Control) {
        let at = cli::Context { control: configured(&fleet, &node, "grpc"), members: Vec::new(), ..context(&fleet) };
        known.contexts.insert(node, at);
    }
    known.save(&contexts(&fleet)).unwrap();
    for node in fleet.names(Role::Control) {
        writers.go_on(WRITES).await;
        let (_, before) = operator.set("KEPT", b"as it was saved").await;
        let file = fleet.folder().join(format!("{node}.cbsnap"));
        fleet.cli.ok(&["-c", &node, "snapshot", "save", &text(&file)]).await;
        let report = verified(&fleet, &file).await.unwrap();
        assert!(position(&report) >= before, "{node}: {before} was acknowledged: {report}");
        // Three of this test, and the canary.
        assert_eq!(report["contents"]["secrets"], 4, "{report}");
    }

    // By the clock, at the leader, whoever it is; the oldest go.
    let number = async |name: &str| {
        let nodes = fleet.cli.ok(&["--format", "json", "fleet"]).await.json();
        nodes.as_array().unwrap().iter().find(|node| node["node"] == name).unwrap()["node_id"].as_u64().unwrap()
    };
    let leader = fleet.leader().await;
    let first = saved_by(&fleet, &folder, number(&leader).await, "").await;
    let next = others(&fleet, &leader).remove(0);
    fleet.cli.ok(&["cluster", "transfer", &next]).await;
    let second = saved_by(&fleet, &folder, number(&next).await, &first).await;
    saved_by(&fleet, &folder, number(&next).await, &second).await;
    until("the oldest archives to go", async || {
        let left = archives(&folder);
        if left.len() <= KEPT && !left.contains(&first) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;

    // The control plane is lost with all its disks, after the newest archive that is at hand and some writes more.
    writers.end().await;
    let archive = fleet.folder().join("restored.cbsnap");
    let (_, last) = operator.set("KEPT", b"restored").await;
    fleet.cli.ok(&["snapshot", "save", &text(&archive)]).await;
    let lost = operator.set("KEPT", b"lost").await.1;
    operator.live(lost).await;
    for control in fleet.names(Role::Control) {
        fleet.kill(&control);
        fleet.lose_disk(&control);
    }
    let (config, recovery) = (text(&fleet.config("control-1")), text(&fleet.recovery_key()));
    fleet.cli.ok(&["snapshot", "restore", &text(&archive), "--config", &config, "--recovery-key-file", &recovery]).await;
    fleet.start_node("control-1").await;
    let second = Generation::new(last.generation.get() + 1);
    for (edge, reader) in fleet.readers() {
        let what = format!("{edge} to follow the new generation");
        let found = until(&what, async || match reader.get("KEPT").await {
            Ok(found) if found.position.is_some_and(|at| Position::from(at).generation == second) => Ok(found),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(found.await.value, b"restored", "{edge}");
    }

    // Two voters more, and it is a cluster of three again: writes are received, wherever the lead is.
    for voter in ["control-4", "control-5"] {
        fleet.add_voter(voter).await;
    }
    fleet.cli.ok(&["cluster", "transfer", "control-4"]).await;
    for (number, node) in ["control-1", "control-4", "control-5"].into_iter().enumerate() {
        let operator = fleet.operator_at(&[node]);
        let secret = format!("NEW_{number}");
        let position = operator.create_bound(&secret, node.as_bytes()).await;
        assert_eq!(position.generation, second);
        operator.live(position).await;
        for (edge, reader) in fleet.readers() {
            assert_eq!(reader.get_at(&secret, position).await.unwrap().value, node.as_bytes(), "{edge}");
        }
    }
    let members = fleet.cli.ok(&["--format", "json", "cluster", "members"]).await.json();
    let voters: Vec<_> = members["members"].as_array().unwrap().iter().map(|member| member["node"].as_str().unwrap()).collect();
    assert_eq!(voters, ["control-1", "control-4", "control-5"], "{members}");
}
