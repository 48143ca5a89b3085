use std::{future::Future, pin::pin, task::Poll, time::Duration};

use futures::{FutureExt, task::noop_waker_ref};
use state::TypedKey;
use types::Scope;

use super::world::*;
use crate::{Found, LookupError, Watch};

fn watch(world: &World) -> Watch {
    Watch::new(world.lookup.clone(), certified("worker/web"), wanted("API_KEY"), unbounded())
}

/// What the watch tells now; none when it waits.
fn told(watch: &mut Watch) -> Option<Result<(String, u64), LookupError>> {
    let next: &mut (dyn Future<Output = Result<Found, LookupError>> + Unpin) = &mut pin!(watch.next());
    match next.poll_unpin(&mut std::task::Context::from_waker(noop_waker_ref())) {
        Poll::Ready(answer) => Some(opened(answer)),
        Poll::Pending => None,
    }
}

#[test]
fn watch_tells_the_value_now_then_each_change_once() {
    let mut world = World::new();
    let mut watch = watch(&world);
    assert_eq!(told(&mut watch), Some(Ok(("first".to_owned(), 1))));
    assert_eq!(told(&mut watch), None);
    world.consumer("worker/unrelated");
    world.publish();
    assert_eq!(told(&mut watch), None, "a root that changes something else tells nothing");
    world.set(world.first(), "second");
    world.publish();
    assert_eq!(told(&mut watch), Some(Ok(("second".to_owned(), 2))));
    assert_eq!(told(&mut watch), None);
}

#[test]
fn watch_that_is_slow_is_told_only_the_newest() {
    let mut world = World::new();
    let mut watch = watch(&world);
    told(&mut watch);
    for value in ["second", "third", "fourth"] {
        world.set(world.first(), value);
        world.publish();
    }
    assert_eq!(told(&mut watch), Some(Ok(("fourth".to_owned(), 4))));
    assert_eq!(told(&mut watch), None);
}

#[test]
fn watch_tells_of_a_binding_removed_and_made_again() {
    let mut world = World::new();
    let id = world.first();
    let mut watch = watch(&world);
    told(&mut watch);
    world.unbind("worker/web", "API_KEY");
    world.publish();
    assert!(matches!(told(&mut watch), Some(Err(error @ LookupError::NotBound { .. })) if !error.is_final()));
    world.publish();
    assert_eq!(told(&mut watch), None, "the same refusal at a later position is no change");
    world.bind("worker/web", "API_KEY", world.to_secret(id));
    world.publish();
    assert_eq!(told(&mut watch), Some(Ok(("first".to_owned(), 1))));
    world.edit(id, |record| record.scopes = ["dex".parse::<Scope>().unwrap()].into_iter().collect());
    world.publish();
    assert!(matches!(told(&mut watch), Some(Err(LookupError::ScopeNotAllowed { .. }))));
}

#[test]
fn watch_of_a_consumer_that_is_gone_ends() {
    let mut world = World::new();
    let mut watch = watch(&world);
    told(&mut watch);
    world.remove(TypedKey::Consumer { consumer: consumer("worker/web") });
    world.publish();
    assert!(matches!(told(&mut watch), Some(Err(error)) if error.is_final()));
}

#[tokio::test]
async fn watch_notices_staleness_without_a_new_root() {
    let world = World::new();
    let mut watch = watch(&world);
    watch.next().await.unwrap();
    let waiting = tokio::spawn(async move { watch.next().await.map(|_| ()) });
    // The watch sleeps on the manual clock; wherever it stands, it looks again once its sleep has ended.
    while !waiting.is_finished() {
        world.advance(Duration::from_secs(86_400));
        tokio::task::yield_now().await;
    }
    assert!(matches!(waiting.await.unwrap(), Err(LookupError::TooStale { bound: "edge_offline_max", .. })));
}

#[tokio::test]
async fn reached_waits_for_the_position_and_gives_up_in_time() {
    let mut world = World::new();
    let serving = world.serving.clone();
    let waiting = tokio::spawn(async move { serving.reached(at(2), Duration::from_secs(5)).await });
    tokio::task::yield_now().await;
    world.publish();
    assert!(waiting.await.unwrap());
    let serving = world.serving.clone();
    let waiting = tokio::spawn(async move { serving.reached(at(9), Duration::from_secs(5)).await });
    while !waiting.is_finished() {
        world.advance(Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
    assert!(!waiting.await.unwrap());
}

#[tokio::test]
async fn lookup_that_waits_for_a_position_also_waits_for_the_first_checkpoint() {
    let mut world = World::new();
    let root = world.root();
    let serving = std::sync::Arc::new(crate::Serving::new(world.clock.clone(), world.serving.keys().clone()));
    let lookup = std::sync::Arc::new(crate::Lookup::new(serving.clone(), crate::Served::new(1).into(), &"edge-1".parse().unwrap()));
    let freshness = crate::FreshnessTarget { min_position: Some(at(2)), max_age: None };
    let waiting = tokio::spawn({
        let lookup = lookup.clone();
        async move { lookup.ready(freshness, Duration::from_secs(5)).await }
    });
    tokio::task::yield_now().await;
    serving.publish(root);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "the age is not known yet");
    serving.checkpoint(crate::Checkpoint::received(START, &*world.clock));
    waiting.await.unwrap();
    assert!(lookup.get(&certified("worker/web"), &wanted("API_KEY"), freshness).is_ok());
}
