//! The control plane is lost, and comes back from an archive: edges follow what the recovery key signed, and nothing less.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use seal::RecoveryKey;
use tests::process::{Fleet, Role, until};
use types::{Generation, Position};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A position that an edge shows, once it has one.
fn shown(found: &wire::v1::Found) -> Position {
    found.position.map(Position::from).unwrap_or_default()
}

/// How many join tokens the control plane knows.
async fn join_tokens(fleet: &Fleet) -> usize {
    fleet.cli.ok(&["--format", "json", "node", "token", "list"]).await.json().as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_restored_from_yesterdays_snapshot_is_followed_by_its_running_edges() {
    let mut fleet = Fleet::start(1, 2).await;
    let operator = fleet.operator();
    operator.create_bound("KEPT", b"as it was saved").await;
    let saved_at = operator.create_bound("CHANGED", b"before").await;
    operator.live(saved_at).await;

    // Saved, and verified without a cluster: without a key, with the recovery key, and with a node's own.
    let archive = fleet.folder().join("yesterday.cbsnap");
    let (file, recovery) = (text(&archive), text(&fleet.recovery_key()));
    assert_eq!(join_tokens(&fleet).await, 2);
    fleet.cli.ok(&["snapshot", "save", &file]).await;
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let again = fleet.cli.expect(2, &["snapshot", "save", &file]).await;
    assert!(again.stderr.contains("--force"), "{again:?}");
    let saved = fleet.cli.ok(&["--format", "json", "snapshot", "save", &file, "--force"]).await;
    let plain = fleet.cli.ok(&["snapshot", "verify", &file]).await;
    assert!(plain.stdout.contains("NOT checked") && plain.stdout.contains("recovery key"), "{plain:?}");
    let node_key = text(&fleet.data("control-1").join("identity/envelope.key"));
    for key in [["--recovery-key-file", &recovery], ["--key-file", &node_key]] {
        let run = fleet.cli.ok(&[&["--format", "json", "snapshot", "verify", &file][..], &key[..]].concat()).await;
        let report = run.json();
        // Two of this test, and the canary.
        assert_eq!(report["contents"]["secrets"], 3, "{report}");
        assert_eq!(report["contents"]["key_epochs_opened"], report["contents"]["key_epochs"], "{report}");
        let proven = report["origin"] == "proven by the recovery key";
        assert!(proven == (key[0] == "--recovery-key-file") && (proven || report["origin"].as_str().unwrap().starts_with("NOT proven")));
    }
    let signers = saved.json()["signers"].as_str().unwrap().to_owned();
    let told = fleet.cli.ok(&["--format", "json", "snapshot", "verify", &file, "--key-file", &node_key, "--signers", &signers]).await;
    assert_eq!(told.json()["origin"], "proven by --signers");
    let other = "0".repeat(64);
    let refused = fleet.cli.expect(1, &["snapshot", "verify", &file, "--key-file", &node_key, "--signers", &other]).await;
    assert!(refused.stderr.contains("not signed by the cluster's control nodes"), "{refused:?}");
    let damaged = fleet.folder().join("damaged.cbsnap");
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let refused = fleet.cli.expect(1, &["snapshot", "verify", &text(&damaged)]).await;
    assert!(refused.stderr.contains("is damaged: "), "{refused:?}");

    // What comes after is lost with the control plane, but the edges hold it.
    let (_, lost) = operator.set("CHANGED", b"after").await;
    operator.live(lost).await;
    let config = text(&fleet.config("control-1"));
    let restore = ["snapshot", "restore", &file, "--config", &config, "--recovery-key-file", &recovery];
    let taken = fleet.cli.expect(2, &restore).await;
    assert!(taken.stderr.contains("is not empty"), "{taken:?}");
    fleet.kill("control-1");
    fleet.lose_disk("control-1");

    let other = fleet.folder().join("other.key");
    runtime::write_secret_file(&other, RecoveryKey::generate(&runtime::OsEntropy).unwrap().text().expose().as_bytes()).unwrap();
    let wrong = ["snapshot", "restore", &file, "--config", &config, "--recovery-key-file", &text(&other)];
    let refused = fleet.cli.expect(1, &wrong).await;
    assert!(refused.stderr.contains("opens none of the archive's"), "{refused:?}");
    let broken = ["snapshot", "restore", &text(&damaged), "--config", &config, "--recovery-key-file", &recovery];
    fleet.cli.expect(1, &broken).await;
    assert!(!fleet.data("control-1").exists(), "a refused restore leaves nothing");

    fleet.cli.ok(&restore).await;
    fleet.start_node("control-1").await;
    // A join token that was used up after the archive was saved must not be good again.
    assert_eq!(join_tokens(&fleet).await, 0);
    let second = Generation::new(saved_at.generation.get() + 1);
    for (name, reader) in fleet.readers() {
        let found = until(&format!("{name} to follow the new generation"), async || match reader.get("CHANGED").await {
            Ok(found) if shown(&found).generation == second => Ok(found),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(found.value, b"before", "{name} shows what was restored");
        assert_eq!(reader.get("KEPT").await.unwrap().value, b"as it was saved");
    }

    // The control node of before could open the authority's key, wherever its disk is now: another one issues, and every node trades.
    until("another authority to issue, to all nodes", async || {
        let shown = fleet.cli.ok(&["--format", "json", "cluster", "ca", "show"]).await.json();
        let done = shown["exposed"] == false && shown["authorities"][0]["number"] == 2 && shown["behind"] == serde_json::json!([]);
        if done { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;

    // It is a cluster again: writes, receipts, and nodes that join.
    let operator = fleet.operator();
    let position = operator.create_bound("NEW", b"written after").await;
    assert_eq!(position.generation, second);
    operator.live(position).await;
    fleet.add_edge("edge-3").await;
    for (name, reader) in fleet.readers() {
        assert_eq!(reader.get_at("NEW", position).await.unwrap().value, b"written after", "{name}");
    }
    // An archive of the new generation is one like any other.
    let later = text(&fleet.folder().join("later.cbsnap"));
    let saved = fleet.cli.ok(&["--format", "json", "snapshot", "save", &later]).await.json();
    fleet.cli.ok(&["snapshot", "verify", &later, "--recovery-key-file", &recovery]).await;
    // By who signs it, it is known too; the generation before is not it.
    let node_key = text(&fleet.data("control-1").join("identity/envelope.key"));
    let verify = ["snapshot", "verify", &later, "--key-file", &node_key, "--signers"];
    fleet.cli.ok(&[&verify[..], &[saved["signers"].as_str().unwrap()]].concat()).await;
    fleet.cli.expect(1, &[&verify[..], &[&signers]].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_plane_of_before_that_comes_back_is_followed_by_no_edge_any_more() {
    let mut fleet = Fleet::start(1, 1).await;
    let operator = fleet.operator();
    let position = operator.create_bound("KEPT", b"as it was saved").await;
    operator.live(position).await;
    let (file, recovery) = (text(&fleet.folder().join("a.cbsnap")), text(&fleet.recovery_key()));
    fleet.cli.ok(&["snapshot", "save", &file]).await;
    // Thought lost, and restored elsewhere.
    fleet.kill("control-1");
    let (data, before) = (fleet.data("control-1"), fleet.folder().join("before"));
    fs::rename(&data, &before).unwrap();
    let config = text(&fleet.config("control-1"));
    fleet.cli.ok(&["snapshot", "restore", &file, "--config", &config, "--recovery-key-file", &recovery]).await;
    fleet.start_node("control-1").await;
    let new = fleet.operator().create_bound("NEW", b"of the new generation").await;
    fleet.operator().live(new).await;

    // It comes back at the same address, takes writes, and means well.
    fleet.kill("control-1");
    fs::rename(&data, fleet.folder().join("after")).unwrap();
    fs::rename(&before, &data).unwrap();
    fleet.start_node("control-1").await;
    let (_, old) = fleet.operator().set("KEPT", b"of the old generation").await;
    assert!(old < new);
    let edge = fleet.reader("edge-1");
    until("the edge to refuse the control node of before", async || {
        let log = fs::read_to_string(fleet.logs().join("edge-1.log")).unwrap();
        if log.contains("the server is node 1, which was revoked") { Ok(()) } else { Err(log) }
    })
    .await;
    for (name, value) in [("KEPT", &b"as it was saved"[..]), ("NEW", b"of the new generation")] {
        let found = edge.get(name).await.unwrap();
        assert_eq!((&found.value[..], shown(&found).generation), (value, new.generation));
    }

    // Gone again, the edge goes on with the one it believes.
    fleet.kill("control-1");
    fs::rename(&data, &before).unwrap();
    fs::rename(fleet.folder().join("after"), &data).unwrap();
    fleet.start_node("control-1").await;
    let next = fleet.operator().create_bound("NEXT", b"and on").await;
    fleet.operator().live(next).await;
    assert_eq!(edge.get_at("NEXT", next).await.unwrap().value, b"and on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_restored_apart_keeps_its_secrets_and_none_of_its_edges() {
    let mut fleet = Fleet::start(1, 1).await;
    let operator = fleet.operator();
    let position = operator.create_bound("KEPT", b"as it was saved").await;
    operator.live(position).await;
    let (file, recovery) = (text(&fleet.folder().join("a.cbsnap")), text(&fleet.recovery_key()));
    let token = fleet.cli.ok(&["--format", "json", "node", "token", "list"]).await.json()[0]["token_id"].as_str().unwrap().to_owned();
    fleet.cli.ok(&["snapshot", "save", &file]).await;
    fleet.kill("control-1");
    fleet.lose_disk("control-1");
    let config = text(&fleet.config("control-1"));
    let restored =
        fleet.cli.ok(&["snapshot", "restore", &file, "--config", &config, "--recovery-key-file", &recovery, "--new-cluster"]).await;
    assert!(!restored.stderr.contains("not proved"), "the recovery key proves it: {restored:?}");
    fleet.start_node("control-1").await;

    // The operator's token is as it was, the authority is another.
    let refused = fleet.cli.expect(6, &["--timeout", "2s", "status"]).await;
    assert!(refused.stderr.contains("certificate") || refused.stderr.contains("TLS"), "{refused:?}");
    let ca = fleet.data("control-1").join("identity/ca.pem");
    let contexts = fleet.folder().join("cli/contexts.toml");
    let mut trusting = cli::Contexts::load(&contexts).unwrap();
    trusting.contexts.values_mut().for_each(|context| context.ca = fs::read_to_string(&ca).unwrap());
    trusting.save(&contexts).unwrap();
    fleet.cli.ok(&["status"]).await;
    assert_eq!(join_tokens(&fleet).await, 0);
    fleet.cli.expect(3, &["node", "token", "revoke", &token]).await;
    // The edge of before serves on what it has, and comes no nearer; one that is enrolled anew reads what was restored.
    fleet.add_edge("edge-2").await;
    assert_eq!(fleet.reader("edge-2").get("KEPT").await.unwrap().value, b"as it was saved");
    let old = fleet.reader("edge-1").get("KEPT").await.unwrap();
    assert_eq!(shown(&old).generation, position.generation);
    assert_eq!(fleet.names(Role::Edge).len(), 2);
}
