//! P11 as its readers meet it: what the audit log of a cluster of processes says, and what a file that was exported from it proves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use runtime::OsEntropy;
use seal::NodeKeyPair;
use serde_json::Value;
use tests::process::{Cli, Fleet, Run, until};
use wire::{ErrorKind, v1};

use crate::ground::{cut_from_majority, once, others, text};

/// A page of the log, the newest entry first.
async fn listed(fleet: &Fleet, filters: &[&str]) -> Vec<Value> {
    let page = fleet.cli.ok(&[&["--format", "json", "audit", "list"], filters].concat()).await.json();
    page["entries"].as_array().unwrap().clone()
}

/// Takes from a node the key by which it opens key epochs: it starts without them.
async fn lock(fleet: &mut Fleet, node: &str) {
    fleet.stop(node).await;
    let key = NodeKeyPair::generate(&OsEntropy).unwrap();
    runtime::write_secret_file(&fleet.data(node).join("identity/envelope.key"), &key.to_file_bytes()).unwrap();
    fleet.launch(node);
    fleet.until_health(node, "/livez", 200).await;
    let client = once(fleet, node, None);
    until(&format!("{node} to know that it is locked"), async || match client.status(v1::ShowStatusRequest {}).await {
        Ok(status) if !status.unlocked => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// An export, as lines, beside a command line that knows no cluster.
struct Exported {
    lines: Vec<String>,
    offline: Cli,
    folder: PathBuf,
}

impl Exported {
    async fn of(fleet: &Fleet) -> (Self, Run) {
        let folder = fleet.folder().join("exported");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("audit.jsonl");
        let run = fleet.cli.ok(&["audit", "export", &text(&file), "--force"]).await;
        let lines = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
        let offline = Cli::new(&folder, Path::new("/nowhere/contexts.toml"));
        (Self { lines, offline, folder }, run)
    }

    /// What `audit verify` says of a file of these lines.
    async fn verify(&self, lines: &[String], options: &[&str]) -> Run {
        let file = self.folder.join("shown.jsonl");
        fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        self.offline.quiet(&[&["audit", "verify", &text(&file)], options].concat()).await
    }

    /// The same, of the lines after a change.
    async fn verify_with(&self, change: impl FnOnce(&mut Vec<String>)) -> Run {
        let mut lines = self.lines.clone();
        change(&mut lines);
        self.verify(&lines, &[]).await
    }

    /// The number of the entry in this line.
    fn entry(&self, line: usize) -> u64 {
        let line: Value = serde_json::from_str(&self.lines[line]).unwrap();
        assert_eq!(line["line"], "entry");
        line["sequence"].as_u64().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_log_names_the_node_between_and_an_export_that_was_tampered_with_is_refused() {
    let mut fleet = Fleet::start(3, 0).await;
    fleet.operator_at(&["control-1"]).try_create("PLAIN", b"at one with the keys").await.unwrap();
    for node in ["control-2", "control-3"] {
        lock(&mut fleet, node).await;
    }
    fleet.operator_at(&["control-2"]).try_create("SECOND", b"through the second").await.unwrap();
    fleet.operator_at(&["control-3"]).try_create("THIRD", b"through the third").await.unwrap();

    let made = listed(&fleet, &["--action", "create-secrets", "--limit", "3"]).await;
    let peers: Vec<&str> = made.iter().map(|entry| entry["peer"].as_str().unwrap()).collect();
    for (peer, ending) in peers.iter().zip([" via node:3", " via node:2", ""]) {
        let address = peer.strip_suffix(ending).unwrap_or_else(|| panic!("{peers:?}"));
        assert!(address.starts_with("127.0.0.1:") && !address.contains(' '), "{peers:?}");
    }
    let table = fleet.cli.ok(&["audit", "list", "--origin", peers[1]]).await.stdout;
    assert!(table.contains(" via node:2") && table.contains("create-secrets"), "{table}");
    assert_eq!(listed(&fleet, &["--origin", peers[1]]).await.len(), 1);

    let (exported, run) = Exported::of(&fleet).await;
    let head = run.stderr.split("--head ").nth(1).unwrap().trim().to_owned();
    let good = exported.verify(&exported.lines, &["--head", &head]).await;
    assert_eq!(good.code, 0, "{good:?}");
    let entries = exported.lines.len() - 2;
    assert!(entries > 10 && good.stdout.contains(&format!("{entries}, from 1 to {entries}")), "{good:?}");

    // In the midst of it, far from both ends.
    let (at, sequence) = (5, exported.entry(5));
    let removed = exported.verify_with(|lines| drop(lines.remove(at))).await;
    let changed = exported.verify_with(|lines| lines[at] = lines[at].replacen("127.0.0.1:", "10.99.99.9:", 1)).await;
    let other = exported.verify_with(|lines| lines[at] = lines[at].replacen("\"hash\":\"", "\"hash\":\"0", 1)).await;
    let moved = exported.verify_with(|lines| lines.swap(at, at + 1)).await;
    let doubled = exported.verify_with(|lines| lines.insert(at, lines[at].clone())).await;
    let expected = [
        (removed, format!("entry {sequence} is missing: removed")),
        (changed, format!("entry {sequence} was changed")),
        (other, format!("entry {sequence} was changed")),
        (moved, format!("entry {sequence} was moved")),
        (doubled, format!("entry {sequence} stands here once more")),
    ];
    for (run, named) in expected {
        assert!(run.code == 1 && run.stderr.contains(&named), "{named}: {run:?}");
    }
    // At the end: without what was noted elsewhere the last line tells, and with it nothing helps.
    let short = exported.verify_with(|lines| drop(lines.remove(entries))).await;
    assert!(short.code == 1 && short.stderr.contains("missing at the end"), "{short:?}");
    let cut = exported.verify(&exported.lines[..entries], &["--head", &head]).await;
    assert!(cut.code == 1 && cut.stderr.contains("the log was cut short"), "{cut:?}");
    // Another cluster's log is whole, and not this one.
    let elsewhere = exported.verify(&exported.lines, &["--head", &format!("{entries}:{}", "0".repeat(64))]).await;
    assert!(elsewhere.code == 1 && elsewhere.stderr.contains("another log"), "{elsewhere:?}");
}

/// Whether any file of a folder holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(|file| fs::read(file.ok()?.path()).ok());
    files.into_iter().any(|content| content.windows(bytes.len()).any(|window| window == bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_that_no_majority_could_take_is_in_the_audit_after_the_node_was_killed() {
    let mut fleet = Fleet::start(3, 0).await;
    let made = fleet.cli.ok(&["--format", "json", "token", "create", "nosy", "--grant", "reporter"]).await.json();
    let (id, token) = (made["token_id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let leader = fleet.leader().await;
    let node = others(&fleet, &leader).pop().unwrap();
    // The token is known there before it is cut off.
    once(&fleet, &node, Some(token)).who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    cut_from_majority(&fleet, &node);
    let refused = once(&fleet, &node, Some(token)).cluster_members(v1::ClusterMembersRequest {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{}", refused.error);

    // It is counted in memory, and on the disk within a second.
    let spool = fleet.data(&node).join("notes");
    until("the spool to hold the refusal", async || if holds(&spool, b"cluster.members") { Ok(()) } else { Err("it does not".to_owned()) })
        .await;
    assert!(listed(&fleet, &["--principal", "nosy"]).await.is_empty(), "nobody else knows of it");
    fleet.kill(&node);
    fleet.net.mend();
    fleet.start_node(&node).await;
    let entries = until("the audit log to have it", async || {
        let entries = listed(&fleet, &["--principal", "nosy"]).await;
        if entries.is_empty() { Err("not yet".to_owned()) } else { Ok(entries) }
    })
    .await;
    assert_eq!((entries.len(), &entries[0]["outcome"]), (1, &"noted".into()), "{entries:?}");
    let calls = entries[0]["calls"].as_array().unwrap();
    let call = calls.iter().find(|call| call["call"] == "cluster.members").unwrap();
    assert_eq!((&call["refusal"], &call["count"]), (&"denied".into(), &1.into()), "{call}");
    assert_eq!((&call["principal"]["name"], &call["principal"]["token_id"]), (&"nosy".into(), &id.into()), "{call}");

    let (exported, _) = Exported::of(&fleet).await;
    let good = exported.verify(&exported.lines, &[]).await;
    assert_eq!(good.code, 0, "{good:?}");
}
