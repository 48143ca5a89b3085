//! An edge serves its last good state without the control plane, also after a restart with a damaged table (P5), says how old it
//! is, and never goes back (P3).

use std::{fs, time::Duration};

use tests::process::{Cluster, Reader, until};
use types::Position;
use wire::{ErrorKind, v1};

#[tokio::test]
async fn edge_without_control_restarts_and_serves_from_its_own_disk() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.create_bound("API_KEY", b"first").await;
    let (version, written) = operator.set("API_KEY", b"second").await;
    operator.live(written).await;
    let edge = cluster.reader(1);
    let before = edge.get_at("API_KEY", written).await.unwrap();
    assert_eq!((before.value.as_slice(), before.version), (&b"second"[..], version));

    cluster.take_control().kill();
    let mut last = position(&before);
    // Killed or stopped, with its table, without it, and with a table whose bytes were flipped: the same state each time.
    let table = cluster.edge_data(1).join("table");
    cluster.take_edge(1).kill();
    last = serves_alone(&mut cluster, &edge, last).await;
    assert_eq!(cluster.take_edge(1).stop().await.code(), Some(0));
    last = serves_alone(&mut cluster, &edge, last).await;
    cluster.take_edge(1).kill();
    fs::remove_dir_all(&table).unwrap();
    last = serves_alone(&mut cluster, &edge, last).await;
    assert!(table.is_dir(), "the table is built anew");
    // Stopped, so that the table is written to its end and there is something to damage.
    assert_eq!(cluster.take_edge(1).stop().await.code(), Some(0));
    for file in ["db", "conf"] {
        flip(&table.join(file));
    }
    last = serves_alone(&mut cluster, &edge, last).await;
    too_stale(&edge).await;

    // The control plane returns: the edge follows on from where it was.
    cluster.start_control().await;
    let (version, written) = operator.set("API_KEY", b"third").await;
    operator.live(written).await;
    let after = edge.get_at("API_KEY", written).await.unwrap();
    assert_eq!((after.value.as_slice(), after.version), (&b"third"[..], version));
    assert!(position(&after) > last, "{after:?}");
    // A checkpoint comes every second, so the age is that of a follower again.
    until("the age to be short again", async || {
        edge.get_within("API_KEY", Duration::from_secs(5)).await.map_err(|error| error.error.to_string())
    })
    .await;
}

/// Starts the edge with the control node dead, and reads at once.
async fn serves_alone(cluster: &mut Cluster, edge: &Reader, last: Position) -> Position {
    cluster.start_edge(1).await;
    let found = edge.get("API_KEY").await.unwrap_or_else(|error| panic!("{error}: {}\n{}", error.error, cluster.edge(1).log()));
    assert_eq!(found.value, b"second");
    assert!(found.age_ms.is_some(), "the age is known from the last checkpoint on the disk: {found:?}");
    assert!(position(&found) >= last, "went back from {last}: {found:?}");
    position(&found)
}

/// The age grows; whoever bounds it is told, in words that say by how much.
async fn too_stale(edge: &Reader) {
    let refused = edge.get_within("API_KEY", Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooStale, "{}", refused.error);
    assert!(refused.error.message.contains("allowed 1 ms (max_age)"), "{}", refused.error);
    let first = edge.get("API_KEY").await.unwrap().age_ms.unwrap();
    until("the age to grow", async || {
        let age = edge.get("API_KEY").await.unwrap().age_ms.unwrap();
        if age > first { Ok(()) } else { Err(format!("{age} ms")) }
    })
    .await;
    assert!(edge.get_within("API_KEY", Duration::from_secs(3600)).await.is_ok());
}

fn position(found: &v1::Found) -> Position {
    found.position.map(Position::from).unwrap()
}

/// Flips a bit in every 16th byte.
fn flip(file: &std::path::Path) {
    let mut bytes = fs::read(file).unwrap();
    assert!(!bytes.is_empty(), "{} is empty", file.display());
    bytes.iter_mut().step_by(16).for_each(|byte| *byte ^= 1);
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn edge_that_is_down_delays_the_wait_and_catches_up() {
    let mut cluster = Cluster::start(2).await;
    let operator = cluster.operator();
    operator.found().await;
    let bound = operator.create_bound("API_KEY", b"first").await;
    operator.live(bound).await;

    cluster.take_edge(2).kill();
    let cli = cluster.cli().await;
    let run = cli.pipe(b"second", &["--timeout", "1s", "secret", "set", "default/API_KEY", "--wait"]).await;
    assert_eq!(run.code, 7, "written, not live everywhere: {run:?}");
    assert!(run.stderr.contains("live on 1 of 2 edges") && run.stderr.contains("edge-2"), "{run:?}");
    assert_eq!(cluster.reader(1).get("API_KEY").await.unwrap().value, b"second");
    let status = cli.ok(&["status", "--format", "json"]).await.json();
    let row = status["edges"].as_array().unwrap().iter().find(|edge| edge["node"] == "edge-2").unwrap().clone();
    assert!(row["connected"] == false && row["lag_revisions"] == 1, "{row}");

    cluster.start_edge(2).await;
    let (_, written) = operator.set("API_KEY", b"third").await;
    operator.live(written).await;
    let found = cluster.reader(2).get_at("API_KEY", written).await.unwrap();
    assert_eq!((found.value.as_slice(), found.version), (&b"third"[..], 3));
}

#[tokio::test]
async fn edge_that_never_synced_says_so_and_claims_no_absence() {
    let mut cluster = Cluster::prepare(1);
    let refused = cluster.launch_edge(1).await;
    let error = refused.get("API_KEY").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSynced, "{}", error.error);
    let (status, body) = cluster.edge(1).health("/readyz").unwrap();
    assert!(status == 503 && body.contains("[-] synced"), "{status} {body}");
    assert_eq!(cluster.edge(1).health("/livez").unwrap().0, 200);
}
