use std::{fs, path::Path};

use plane::{Plane, options};
use wire::ErrorKind;

use crate::{
    plane,
    serve::{PATIENCE, get, read, until},
};

/// An edge that has "hello" as `API_KEY`, ended in order, and a control plane that is gone.
async fn left_alone() -> (Plane, types::Position) {
    let mut plane = Plane::start().await;
    let edge = plane.edge().await;
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap();
    until(&edge, "/readyz", "HTTP/1.1 200").await;
    edge.shutdown(PATIENCE).await.unwrap();
    plane.stop().await;
    (plane, position)
}

/// Serves the same as before, at once, and follows again when the control plane is back.
async fn serves_on(mut plane: Plane, position: types::Position) {
    let edge = plane.edge().await;
    let found = read(&edge, get(&plane, "API_KEY", None, None)).await.unwrap();
    assert_eq!((found.value.as_slice(), found.position), (&b"hello"[..], Some(position.into())));
    assert!(found.age_ms.is_some(), "the last checkpoint was kept");
    assert_eq!(read(&edge, get(&plane, "API_KEY", None, Some(0))).await, Err(ErrorKind::TooStale));
    assert!(edge.status().problems.iter().any(|problem| problem.contains("no stream")), "{:?}", edge.status());
    plane.serve().await;
    let position = plane.write("GREETING", "back");
    plane.tick();
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap().value, b"back");
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_restarted_without_the_control_plane_serves_at_once_with_age() {
    let (plane, position) = left_alone().await;
    serves_on(plane, position).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_whose_table_was_deleted_serves_from_its_log() {
    let (plane, position) = left_alone().await;
    fs::remove_dir_all(plane.data().join("table")).unwrap();
    serves_on(plane, position).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_whose_table_was_damaged_sets_it_aside_and_serves_from_its_log() {
    let (plane, position) = left_alone().await;
    damage(&plane.data().join("table"));
    serves_on(plane, position).await;
}

fn damage(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().skip(16).for_each(|byte| *byte ^= 0x5a);
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_with_an_empty_disk_syncs_anew_and_goes_on() {
    let (mut plane, _) = left_alone().await;
    fs::remove_dir_all(plane.data()).unwrap();
    let edge = plane.edge().await;
    assert_eq!(read(&edge, get(&plane, "API_KEY", None, None)).await, Err(ErrorKind::NotSynced));
    plane.serve().await;
    plane.tick();
    let position = plane.write("GREETING", "again");
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap().value, b"again");
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_keeps_its_key_epochs_sealed_and_without_its_key_says_unavailable() {
    let (plane, _) = left_alone().await;
    let kept: Vec<_> = fs::read_dir(plane.data().join("keks")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, ["global-1.envelope"]);
    fs::remove_file(plane.data().join("keks/global-1.envelope")).unwrap();
    let edge = plane.edge().await;
    assert_eq!(read(&edge, get(&plane, "API_KEY", None, None)).await, Err(ErrorKind::Unavailable), "not absent: the key is missing");
    until(&edge, "/readyz", "[-] unlocked not ready").await;
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_start_refusals_name_the_key_of_the_configuration() {
    let plane = Plane::start().await;
    let start = |config| async { edge::Edge::start(options(config)).await.map(|_| ()).unwrap_err().to_string() };
    let mut config = plane.config(Vec::new());
    config.node.id = Some(types::NodeId::new(102));
    assert!(start(config).await.contains("node.id"));
    let mut config = plane.config(Vec::new());
    config.node.cluster = Some(types::ClusterId::from_bytes([9; 16]));
    assert!(start(config).await.contains("node.cluster"));
    let mut config = plane.config(Vec::new());
    config.keys.signers = plane.folder.path().join("absent");
    assert!(start(config).await.contains("keys.signers"));
    let mut config = plane.config(Vec::new());
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.listen.grpc = taken.local_addr().unwrap();
    assert!(start(config).await.contains("listen.grpc"));
}
