use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use edge::{Edge, EdgeOptions};
use plane::{Plane, options};
use runtime::RealDisk;
use seams::{Disk, DiskFile, OpenMode};
use state::CommandBody;
use types::FeatureLevel;
use wire::ErrorKind;

use crate::{
    plane,
    serve::{PATIENCE, get, read, until, until_status},
};

/// The real disk, which can be full.
#[derive(Clone, Default)]
struct FullDisk(Arc<AtomicBool>);

struct FullFile(Box<dyn DiskFile>, Arc<AtomicBool>);

fn room(full: &AtomicBool) -> io::Result<()> {
    if full.load(Ordering::Acquire) { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
}

impl Disk for FullDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            room(&self.0)?;
        }
        Ok(Box::new(FullFile(RealDisk.open(path, mode)?, self.0.clone())))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_dir(folder)
    }
}

impl DiskFile for FullFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        room(&self.1)?;
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        room(&self.1)?;
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_with_a_full_disk_serves_on_says_so_and_follows_when_there_is_room() {
    let mut plane = Plane::start().await;
    let disk = FullDisk::default();
    let mut with_disk = options(plane.config(Vec::new()));
    with_disk.disk = Arc::new(disk.clone());
    let edge = edge::Edge::start(with_disk).await.unwrap();
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap();

    disk.0.store(true, Ordering::Release);
    let later = plane.write("GREETING", "later");
    until_status(&edge, |status| status.problems.iter().any(|problem| problem.starts_with("not following: "))).await;
    let found = read(&edge, get(&plane, "API_KEY", None, None)).await.unwrap();
    assert_eq!((found.value.as_slice(), found.position), (&b"hello"[..], Some(position.into())), "what is not durable is not shown");
    // It is still ready: what it has is far within the bound on age.
    until(&edge, "/readyz", "HTTP/1.1 200").await;

    disk.0.store(false, Ordering::Release);
    plane.tick();
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(later), None)).await.unwrap().value, b"later");
    // What the disk has room for again may be shown from the edge's own log, before the next stream begins.
    until_status(&edge, |status| status.problems.is_empty()).await;
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_that_is_revoked_serves_nothing_more_and_again_after_a_restart() {
    let mut plane = Plane::start().await;
    let edge = plane.edge().await;
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap();
    plane.revoke();
    until_status(&edge, |status| !status.serving).await;
    assert_eq!(read(&edge, get(&plane, "API_KEY", None, None)).await, Err(ErrorKind::Unavailable));
    assert!(edge.serving().keys().is_locked());
    edge.shutdown(PATIENCE).await.unwrap();
    let edge = plane.edge().await;
    until_status(&edge, |status| !status.serving).await;
    assert_eq!(read(&edge, get(&plane, "API_KEY", None, None)).await, Err(ErrorKind::Unavailable));
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_that_knows_less_than_the_level_in_force_serves_what_it_has_and_goes_on_once_it_is_updated() {
    let mut plane = Plane::start().await;
    let held = EdgeOptions { level_max: Some(FeatureLevel::new(1)), ..options(plane.config(Vec::new())) };
    let edge = Edge::start(held).await.unwrap();
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap();

    let level = FeatureLevel::new(2);
    plane.commit(CommandBody::UpdateNode { node: plane::CONTROL, address: None, feature_level: level });
    plane.commit(CommandBody::RaiseFeatureLevel { to: level });
    let later = plane.write("GREETING", "later");
    let told =
        |status: &edge::EdgeStatus| status.problems.iter().any(|problem| problem.contains("feature level 2, the node knows 1: upgrade it"));
    until_status(&edge, told).await;
    let found = read(&edge, get(&plane, "API_KEY", None, None)).await.unwrap();
    assert_eq!(found.value, b"hello", "the last good state");
    assert!(found.position.map(types::Position::from) < Some(later));
    edge.shutdown(PATIENCE).await.unwrap();

    let edge = plane.edge().await;
    plane.tick();
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(later), None)).await.unwrap().value, b"later");
    edge.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_whose_new_stream_is_refused_as_revoked_stays_so_until_its_mark_is_removed() {
    let mut plane = Plane::start().await;
    let edge = plane.edge().await;
    plane.write("GREETING", "hello");
    let position = plane.bind("API_KEY", "GREETING");
    plane.tick();
    read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap();
    plane.stop().await;
    plane.refusing.store(true, Ordering::Release);
    plane.serve().await;
    until_status(&edge, |status| !status.serving).await;
    assert_eq!(read(&edge, get(&plane, "API_KEY", None, None)).await, Err(ErrorKind::Unavailable));
    assert!(edge.serving().keys().is_locked());
    let mark = plane.data().join("revoked");
    until_status(&edge, |_| mark.exists()).await;
    assert_eq!(std::fs::read_dir(plane.data().join("keks")).unwrap().count(), 0, "no envelope is left");
    edge.shutdown(PATIENCE).await.unwrap();

    plane.stop().await;
    let edge = plane.edge().await;
    let status = edge.status();
    assert!(!status.serving && status.position.is_some(), "it refuses without anybody telling it again");
    assert!(status.problems.iter().any(|problem| problem.contains("revoked") && problem.contains(mark.to_str().unwrap())), "{status:?}");
    until(&edge, "/readyz", "[-] fresh not ready").await;
    edge.shutdown(PATIENCE).await.unwrap();

    std::fs::remove_file(&mark).unwrap();
    plane.refusing.store(false, Ordering::Release);
    plane.serve().await;
    let edge = plane.edge().await;
    let position = plane.write("GREETING", "again");
    plane.tick();
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap().value, b"again");
    edge.shutdown(PATIENCE).await.unwrap();
}
