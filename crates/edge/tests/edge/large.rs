//! Large values on an edge as it runs: in sled, not in memory, and back whatever happens to sled.

use std::{fs, path::Path};

use edge::Edge;
use plane::Plane;

use crate::{
    plane,
    serve::{PATIENCE, get, read, until},
};

/// As much as a value may have, like no other's.
fn large(turn: u8) -> String {
    (0..65_536_u32).map(|at| char::from(b'a' + (at.wrapping_mul(7 + u32::from(turn)) % 23) as u8)).collect()
}

/// An edge that has large values as `LARGE` and `OTHER`, ended in order, and a control plane that is gone.
async fn left_alone() -> Plane {
    let mut plane = Plane::start().await;
    let edge = plane.edge().await;
    plane.write("CERTIFICATE", &large(1));
    plane.write("CERTIFICATE", &large(2));
    plane.write("OTHER", &large(3));
    plane.bind("LARGE", "CERTIFICATE");
    let position = plane.bind("OTHER", "OTHER");
    plane.tick();
    let found = read(&edge, get(&plane, "LARGE", Some(position), None)).await.unwrap();
    assert_eq!(found.value, large(2).as_bytes(), "served from the moment it is shown");
    let held = edge.serving().root().unwrap().state.bytes();
    assert!(held < 32 << 10, "{held} bytes in memory for three values of 64 KiB");
    until(&edge, "/readyz", "HTTP/1.1 200").await;
    edge.shutdown(PATIENCE).await.unwrap();
    plane.stop().await;
    plane
}

async fn serves_both(plane: &Plane, edge: &Edge) {
    assert_eq!(read(edge, get(plane, "LARGE", None, None)).await.unwrap().value, large(2).as_bytes());
    assert_eq!(read(edge, get(plane, "OTHER", None, None)).await.unwrap().value, large(3).as_bytes());
}

/// Turns a bit in the middle of each long run of bytes that are not zero, in sled's own file.
fn damage(table: &Path) {
    let path = table.join("db");
    let mut bytes = fs::read(&path).unwrap();
    let mut run = 0;
    for byte in &mut bytes {
        run = if *byte == 0 { 0 } else { run + 1 };
        if run == 2000 {
            *byte ^= 0x10;
        }
    }
    fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_restarted_alone_serves_large_values_with_its_table_without_it_and_with_a_damaged_one() {
    let mut plane = left_alone().await;
    let table = plane.data().join("table");
    for spoil in [|_: &Path| {}, |table: &Path| fs::remove_dir_all(table).unwrap(), damage] {
        spoil(&table);
        let edge = plane.edge().await;
        serves_both(&plane, &edge).await;
        edge.shutdown(PATIENCE).await.unwrap();
    }
    // What was filled anew goes on.
    let edge = plane.edge().await;
    plane.serve().await;
    plane.tick();
    let position = plane.write("CERTIFICATE", &large(4));
    plane.tick();
    assert_eq!(read(&edge, get(&plane, "LARGE", Some(position), None)).await.unwrap().value, large(4).as_bytes());
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_with_an_empty_disk_gets_large_values_anew() {
    let mut plane = left_alone().await;
    fs::remove_dir_all(plane.data()).unwrap();
    plane.serve().await;
    let edge = plane.edge().await;
    plane.tick();
    let position = plane.write("THIRD", "small");
    plane.tick();
    read(&edge, get(&plane, "LARGE", Some(position), None)).await.unwrap();
    serves_both(&plane, &edge).await;
    edge.shutdown(PATIENCE).await.unwrap();
}
