//! Values that lie on a disk: read off the async threads, and never anything else than what was kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};

use bytes::Bytes;
use state::{LargeValue, LargeValues, Unreadable};
use tokio_stream::wrappers::ReceiverStream;
use types::Hash;
use wire::{ErrorKind, v1};

use super::{
    grpc::{get, grpc, kind, want},
    world::*,
};
use crate::{LookupError, ServiceOptions};

/// A disk for values over 200 bytes.
#[derive(Default)]
struct Disk(Mutex<DiskInner>);

#[derive(Default)]
struct DiskInner {
    values: BTreeMap<Hash, Bytes>,
    readers: Vec<ThreadId>,
    damaged: usize,
}

impl LargeValues for Disk {
    fn bound(&self) -> usize {
        200
    }

    fn keep(self: Arc<Self>, leaf: Hash, bytes: Bytes) -> Arc<LargeValue> {
        let len = bytes.len() as u32;
        self.0.lock().unwrap().values.insert(leaf, bytes);
        LargeValue::new(self, leaf, len)
    }

    fn read(&self, leaf: &Hash) -> Result<Bytes, Unreadable> {
        let mut inner = self.0.lock().unwrap();
        inner.readers.push(thread::current().id());
        inner.values.get(leaf).cloned().ok_or_else(|| Unreadable { detail: "gone".to_owned() })
    }

    fn damaged(&self, _leaf: &Hash) {
        self.0.lock().unwrap().damaged += 1;
    }

    fn released(&self, _leaf: &Hash) {}
}

impl Disk {
    fn readers(&self) -> Vec<ThreadId> {
        std::mem::take(&mut self.0.lock().unwrap().readers)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Hash, Bytes>)) {
        change(&mut self.0.lock().unwrap().values);
    }
}

/// `worker/web` has a large secret as `LARGE`, beside a small one as `API_KEY`.
fn on_disk(world: &mut World) -> (Arc<Disk>, String) {
    let disk = Arc::new(Disk::default());
    world.place = Some(disk.clone());
    let value = "large ".repeat(10_000);
    let secret = world.secret("CERTIFICATE", "workers", &value);
    world.bind("worker/web", "LARGE", world.to_secret(secret));
    world.publish();
    (disk, value)
}

#[tokio::test]
async fn large_value_is_read_and_opened_off_the_async_threads_and_a_small_one_in_place() {
    let mut world = World::new();
    let (disk, value) = on_disk(&mut world);
    let (caller, here) = (certified("worker/web"), thread::current().id());
    let small = world.lookup.fetch(&caller, &wanted("API_KEY"), unbounded()).await;
    assert_eq!((opened(small), disk.readers()), (Ok(("first".to_owned(), 1)), vec![]));
    assert!(world.lookup.get_at_once(&caller, &wanted("LARGE"), unbounded()).is_none());
    assert_eq!(disk.readers(), []);
    let large = world.lookup.fetch(&caller, &wanted("LARGE"), unbounded()).await;
    assert_eq!(opened(large), Ok((value.clone(), 1)));
    assert!(matches!(disk.readers()[..], [thread] if thread != here));
    // Without a runtime it is read where the caller is.
    assert_eq!(opened(world.lookup.get(&caller, &wanted("LARGE"), unbounded())), Ok((value, 1)));
    assert_eq!(disk.readers(), [here]);
}

#[tokio::test]
async fn large_values_among_many_keep_their_places_and_see_one_root() {
    let mut world = World::new();
    let (_disk, value) = on_disk(&mut world);
    let many = [wanted("LARGE"), wanted("NOTHING"), wanted("API_KEY"), wanted("LARGE")];
    let outcomes = world.lookup.fetch_many(&certified("worker/web"), &many, unbounded()).await;
    let positions: Vec<_> = outcomes.iter().flatten().map(|found| found.position).collect();
    assert_eq!(positions, [at(2); 3]);
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| opened(outcome).map_err(|error| error.kind())).collect();
    assert_eq!(outcomes, [Ok((value.clone(), 1)), Err(ErrorKind::NotBound), Ok(("first".to_owned(), 1)), Ok((value, 1))]);
}

#[tokio::test]
async fn large_value_that_is_missing_or_changed_is_unavailable_and_never_another() {
    let mut world = World::new();
    let (disk, value) = on_disk(&mut world);
    let caller = certified("worker/web");
    let kept = disk.0.lock().unwrap().values.clone();
    // What the disk does to a value, whether it keeps it, and how often it is told that it is damaged.
    type Change = fn(&mut Bytes) -> bool;
    let cases: [(Change, usize); 3] = [
        (|_| false, 0),
        (
            |bytes| {
                let mut changed = bytes.to_vec();
                changed[100] ^= 1;
                *bytes = changed.into();
                true
            },
            1,
        ),
        (
            |bytes| {
                bytes.truncate(50);
                true
            },
            1,
        ),
    ];
    for (change, damaged) in cases {
        disk.change(|values| values.retain(|_, bytes| change(bytes)));
        let outcome = opened(world.lookup.fetch(&caller, &wanted("LARGE"), unbounded()).await);
        assert_eq!(outcome, Err(LookupError::Unreadable));
        assert_eq!(std::mem::take(&mut disk.0.lock().unwrap().damaged), damaged);
        assert!(world.lookup.fetch(&caller, &wanted("API_KEY"), unbounded()).await.is_ok(), "what is small is served on");
        disk.change(|values| *values = kept.clone());
        assert_eq!(opened(world.lookup.fetch(&caller, &wanted("LARGE"), unbounded()).await), Ok((value.clone(), 1)));
    }
    assert_eq!(LookupError::Unreadable.kind(), ErrorKind::Unavailable);
    assert!(!LookupError::Unreadable.is_final());
}

#[tokio::test]
async fn large_value_is_served_by_every_call() {
    let mut grpc = grpc(vec![], ServiceOptions::default()).await;
    let (disk, value) = on_disk(&mut grpc.world);
    let here = thread::current().id();
    let request = grpc.with_token(get("LARGE"));
    assert_eq!(grpc.client.get(request).await.unwrap().into_inner().value, value.as_bytes());

    let request = grpc.with_token(v1::GetManyRequest { wanted: vec![want("API_KEY"), want("LARGE")], ..Default::default() });
    let outcomes = grpc.client.get_many(request).await.unwrap().into_inner().outcomes;
    let lens: Vec<_> = outcomes.into_iter().map(|outcome| outcome.into_result().unwrap().value.len()).collect();
    assert_eq!(lens, [5, value.len()]);

    let request = grpc.with_token(get("LARGE"));
    let mut watch = grpc.client.watch(request).await.unwrap().into_inner();
    let reply = watch.message().await.unwrap().unwrap();
    assert_eq!(reply.outcome.unwrap().into_result().unwrap().value, value.as_bytes());

    let (send, receive) = tokio::sync::mpsc::channel(8);
    let request = grpc.with_token(ReceiverStream::new(receive));
    let mut replies = grpc.client.stream(request).await.unwrap().into_inner();
    for (tag, name) in [(1, "LARGE"), (2, "API_KEY"), (3, "LARGE")] {
        send.send(v1::StreamRequest { tag, get: Some(get(name)) }).await.unwrap();
    }
    let mut lens = BTreeMap::new();
    for _ in 0..3 {
        let reply = replies.message().await.unwrap().unwrap();
        lens.insert(reply.tag, reply.outcome.unwrap().into_result().unwrap().value.len());
    }
    assert_eq!(lens.into_values().collect::<Vec<_>>(), [value.len(), 5, value.len()]);
    assert!(disk.readers().iter().all(|thread| *thread != here));

    disk.change(BTreeMap::clear);
    let request = grpc.with_token(get("LARGE"));
    assert_eq!(kind(grpc.client.get(request).await.unwrap_err()), ErrorKind::Unavailable);
}
