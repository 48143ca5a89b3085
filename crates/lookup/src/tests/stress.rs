use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use proptest::prelude::*;

use super::world::*;
use crate::LookupError;

/// Two secrets always get the same value in one root; readers swap roots under them.
#[test]
fn get_many_under_swaps_sees_one_root_and_positions_never_go_back() {
    let mut world = World::new();
    let pair = [world.first(), world.secret("SECOND", "workers", "first")];
    world.bind("worker/web", "TWO", world.to_secret(pair[1]));
    world.publish();
    let roots: Vec<_> = (0..200)
        .map(|number| {
            for id in pair {
                // 64 versions are kept by `apply`; here all are, so that any of them opens.
                world.set(id, &format!("value {number}"));
            }
            world.root()
        })
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (caller, many) = (certified("worker/web"), [wanted("API_KEY"), wanted("TWO")]);
                let mut last = at(0);
                while !done.load(Ordering::Acquire) {
                    let found: Vec<_> =
                        world.lookup.get_many(&caller, &many, unbounded()).into_iter().map(|outcome| outcome.unwrap()).collect();
                    assert_eq!(found[0].position, found[1].position);
                    assert!(found[0].value == found[1].value, "both values are of one root");
                    assert_eq!(found[0].version, found[1].version);
                    assert!(found[0].position >= last, "{} after {last}", found[0].position);
                    last = found[0].position;
                }
            });
        }
        for root in roots {
            world.serving.publish(root);
            thread::yield_now();
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(world.serving.position(), Some(at(202)));
}

/// What an operator may do to the one binding.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set,
    Unbind,
    Bind,
    DropScope,
    AddScope,
    DeleteConsumer,
    MakeConsumer,
    Recreate,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::{AddScope, Bind, DeleteConsumer, DropScope, MakeConsumer, Recreate, Set, Unbind};
    prop::sample::select(vec![Set, Set, Unbind, Bind, DropScope, AddScope, DeleteConsumer, MakeConsumer, Recreate])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: a lookup succeeds exactly when consumer, binding, secret and scope are all there, and then
    /// gives the newest value.
    #[test]
    fn lookup_succeeds_exactly_when_every_condition_holds(steps in prop::collection::vec(step(), 1..24)) {
        let mut world = World::new();
        let (mut id, mut bound_to) = (world.first(), Some(world.first()));
        let (mut scope, mut consumer_there, mut value) = (true, true, "first".to_owned());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set => {
                    value = format!("value {number}");
                    world.set(id, &value);
                }
                Step::Unbind => if bound_to.take().is_some() { world.unbind("worker/web", "API_KEY") },
                Step::Bind => {
                    world.bind("worker/web", "API_KEY", world.to_secret(id));
                    bound_to = Some(id);
                }
                Step::DropScope | Step::AddScope => {
                    scope = matches!(step, Step::AddScope);
                    let name = if scope { "workers" } else { "dex" };
                    world.edit(id, |record| record.scopes = [name.parse::<types::Scope>().unwrap()].into_iter().collect());
                }
                Step::DeleteConsumer => if std::mem::take(&mut consumer_there) {
                    world.remove(state::TypedKey::Consumer { consumer: consumer("worker/web") });
                },
                Step::MakeConsumer => {
                    world.consumer("worker/web");
                    consumer_there = true;
                }
                Step::Recreate => {
                    world.remove(state::TypedKey::Secret { store: STORE, secret: id });
                    (value, scope) = (format!("again {number}"), true);
                    id = world.secret("SECRET", "workers", &value);
                }
            }
            world.publish();
            let expected = match (consumer_there, bound_to) {
                (false, _) => Err("revoked"),
                (true, None) => Err("not_bound"),
                (true, Some(bound)) if bound != id => Err("absent"),
                (true, Some(_)) if !scope => Err("scope_not_allowed"),
                (true, Some(_)) => Ok(value.clone()),
            };
            let got = world.get().map(|(value, _)| value).map_err(|error: LookupError| error.kind().name());
            prop_assert_eq!(got, expected, "after step {}: {:?}", number, step);
        }
    }
}
