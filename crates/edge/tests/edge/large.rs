//! Large values on an edge as it runs: in files, not in memory, and back whatever happens to the files and to sled.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use edge::Edge;
use plane::{Plane, options};
use wire::ErrorKind;

use crate::{
    plane,
    serve::{PATIENCE, get, http, read, until},
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

/// The files of large values.
fn values(data: &Path) -> Vec<PathBuf> {
    let list = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    list(data.join("values")).flat_map(list).collect()
}

/// Turns a bit in every few kilobytes of a file, in place.
fn damage(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    for at in (10_000..file.metadata().unwrap().len()).step_by(20_000) {
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

/// Does something to an edge's data folder.
type Spoil = fn(&Path);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_restarted_alone_serves_large_values_with_its_table_without_it_and_with_a_damaged_one() {
    let mut plane = left_alone().await;
    let spoils: [Spoil; 6] = [
        |_| {},
        |data| fs::remove_dir_all(data.join("table")).unwrap(),
        |data| fs::remove_dir_all(data.join("values")).unwrap(),
        |data| fs::remove_file(&values(data)[0]).unwrap(),
        |data| damage(&values(data)[0]),
        |data| damage(&data.join("table/db")),
    ];
    for spoil in spoils {
        spoil(&plane.data());
        let edge = plane.edge().await;
        serves_both(&plane, &edge).await;
        edge.shutdown(PATIENCE).await.unwrap();
        assert!(values(&plane.data()).len() >= 2);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_whose_table_is_damaged_under_it_serves_no_wrong_value() {
    const VALUES: u8 = 40;
    let mut plane = Plane::start().await;
    let config = plane.config(Vec::new());
    let edge = Edge::start(options(config.clone())).await.unwrap();
    let name = |number: u8| format!("V{number}");
    let mut position = None;
    for number in 0..VALUES {
        plane.write(&name(number), &large(number));
        position = Some(plane.bind(&name(number), &name(number)));
    }
    plane.tick();
    for number in 0..VALUES {
        assert_eq!(read(&edge, get(&plane, &name(number), position, None)).await.unwrap().value, large(number).as_bytes());
    }
    // All are in the table, and none is left in memory.
    let written = async {
        while !http(&edge, "/metrics").await.contains("cinnabar_feed_values_waiting_bytes 0\n") {
            plane.tick();
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
    edge.shutdown(PATIENCE).await.unwrap();
    let edge = Edge::start(options(config)).await.unwrap();
    values(&plane.data()).iter().step_by(3).for_each(|value| damage(value));
    let heals = async {
        loop {
            plane.tick();
            let mut right = 0;
            for number in 0..VALUES {
                match read(&edge, get(&plane, &name(number), None, None)).await {
                    Ok(found) => {
                        assert_eq!(found.value, large(number).as_bytes());
                        right += 1;
                    }
                    Err(kind) => assert_eq!(kind, ErrorKind::Unavailable),
                }
            }
            if right == VALUES && edge.status().problems.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heals).await.unwrap();
    edge.shutdown(PATIENCE).await.unwrap();
}
