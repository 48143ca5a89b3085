//! A control node that is cut off from its majority: it keeps nobody fresh, promises nothing, and does nothing twice.

use std::time::Duration;

use client::{Client, Config, Retries};
use runtime::RealClock;
use seams::Clock;
use tests::process::{Fleet, Reader, Readers, Role, until};
use wire::{ErrorKind, v1};

use crate::ground::{cut_from_majority, follow_only, followed_by, once, others, reconfigure};

/// Twice the time between two ticks: what is well is never older.
const FRESH: Duration = Duration::from_secs(2);
/// How long a control node looks for a majority before it says that it has none.
const LOOKS_FOR: Duration = Duration::from_secs(10);
/// A caller that has less time than that.
const HASTY: Duration = Duration::from_secs(2);
/// How much later than the deadline an answer may be seen on cores that others use too.
const GRACE: Duration = Duration::from_secs(2);

/// Waits until a reader is refused because the state is older than [`FRESH`].
async fn until_stale(what: &str, reader: &Reader) {
    until(&format!("{what} to be stale"), async || match reader.get_within("A", FRESH).await {
        Err(error) if error.kind() == ErrorKind::TooStale => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn until_fresh(what: &str, reader: &Reader) {
    until(&format!("{what} to be fresh"), async || reader.get_within("A", FRESH).await.map(drop).map_err(|error| error.error.to_string()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_without_a_majority_keeps_no_edge_fresh_and_who_may_goes_elsewhere_without_loss() {
    let mut fleet = Fleet::start(3, 2).await;
    let operator = fleet.operator();
    operator.create_bound("COUNTER_0", b"asked for all the while").await;
    operator.live(operator.create_bound("A", b"before").await).await;
    let leader = fleet.leader().await;
    let [cut_off, well] = others(&fleet, &leader).try_into().unwrap();
    follow_only(&fleet, "edge-1", &[&cut_off]);
    follow_only(&fleet, "edge-2", &[&cut_off]);
    for edge in ["edge-1", "edge-2"] {
        fleet.stop(edge).await;
        fleet.start_node(edge).await;
    }
    // The second has others to go to, and follows the same one now.
    fleet.stop("edge-2").await;
    follow_only(&fleet, "edge-2", &[&cut_off, &well, &leader]);
    fleet.start_node("edge-2").await;
    if followed_by(&fleet, "edge-2").await.as_ref() != Some(&cut_off) {
        // It chose another. Where it stands is not what is shown; that it stands where it hears nothing is.
        for other in [&well, &leader] {
            fleet.net.part("edge-2", other);
        }
        until("edge-2 to follow the one that will be cut off", async || match followed_by(&fleet, "edge-2").await {
            Some(followed) if followed == cut_off => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        fleet.net.mend();
    }
    let (alone, mover) = (fleet.reader("edge-1"), fleet.reader("edge-2"));
    until_fresh("edge-1", &alone).await;
    until_fresh("edge-2", &mover).await;

    let readers = Readers::start(fleet.readers());
    cut_from_majority(&fleet, &cut_off);
    let (_, after) = fleet.operator_at(&[&well, &leader]).set("A", b"after").await;
    // The one with a choice moves on: by itself, and without being told.
    until("edge-2 to follow another", async || mover.get_at("A", after).await.map(drop).map_err(|error| error.error.to_string())).await;
    assert_eq!(mover.get("A").await.unwrap().value, b"after");
    until_fresh("edge-2", &mover).await;
    // The other's stream is open and silent: what it has grows old, and is served.
    until_stale("edge-1", &alone).await;
    let old = alone.get("A").await.unwrap();
    assert_eq!(old.value, b"before");
    until("the age to grow on", async || match alone.get("A").await {
        Ok(found) if found.age_ms > old.age_ms.map(|age| age + 1000) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    fleet.net.mend();
    until("edge-1 to catch up", async || alone.get_at("A", after).await.map(drop).map_err(|error| error.error.to_string())).await;
    until_fresh("edge-1", &alone).await;
    let (_, last) = operator.set("A", b"at all").await;
    operator.live(last).await;
    assert!(readers.end().await > 0, "nobody was refused, and nobody went back");
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_at_a_control_node_without_a_majority_are_answered_with_their_age_and_refused_beyond_it() {
    let mut fleet = Fleet::start(3, 0).await;
    let operator = fleet.operator();
    let before = operator.create_bound("A", b"before").await;
    let leader = fleet.leader().await;
    let [node, other] = others(&fleet, &leader).try_into().unwrap();
    let socket = fleet.folder().join("lookups.sock");
    let (uid, account) = (rustix::process::getuid().as_raw(), operator.secret("A").account);
    reconfigure(&fleet, &node, |file| {
        format!(
            "{file}\n[lookups]\nunix = {{ path = \"{}\", mode = \"0600\" }}\n\n[[peer]]\nuid = {uid}\naccount = \"{account}\"\nconsumers = [\"worker/*\"]\n",
            socket.display()
        )
    });
    fleet.stop(&node).await;
    fleet.start_node(&node).await;
    let reader = Reader::new(Client::new(Config::unix(&socket).retries(Retries::NONE)).unwrap(), &account);
    assert_eq!(reader.get_at("A", before).await.unwrap().edge, node);
    until_fresh(&node, &reader).await;

    cut_from_majority(&fleet, &node);
    let (_, after) = fleet.operator_at(&[&leader, &other]).set("A", b"after").await;
    until_stale(&node, &reader).await;
    let found = reader.get("A").await.unwrap();
    assert_eq!(found.value, b"before", "who accepts any age is served");
    assert!(found.age_ms.is_some_and(|age| u128::from(age) > FRESH.as_millis()), "{found:?}");
    let newer = v1::Freshness { min_position: Some(after.into()), max_age_ms: None };
    let request = v1::GetRequest { freshness: Some(newer), ..reader.request("A") };
    assert_eq!(reader.client.timeout(HASTY).get(request).await.unwrap_err().kind(), ErrorKind::NotSynced);

    // Started again it has lost what it knew of its age, and is no majority: it says that it knows nothing, not that nothing is there.
    fleet.kill(&node);
    fleet.launch(&node);
    fleet.until_health(&node, "/livez", 200).await;
    cut_from_majority(&fleet, &node);
    until("the socket to be back", async || match reader.get("A").await {
        Err(error) if error.kind() == ErrorKind::NotSynced => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    fleet.net.mend();
    until("it to catch up", async || reader.get_at("A", after).await.map(drop).map_err(|error| error.error.to_string())).await;
    assert_eq!(reader.get("A").await.unwrap().value, b"after");
    until_fresh(&node, &reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_at_a_node_without_a_majority_is_refused_in_time_and_is_applied_once_after_all() {
    let fleet = Fleet::start(3, 0).await;
    let operator = fleet.operator();
    operator.create_bound("A", b"1").await;
    let leader = fleet.leader().await;
    let follower = others(&fleet, &leader).remove(0);
    let clock = RealClock::new();
    // First a follower, which cannot forward, then the leader, which has the command in its log and nobody to agree.
    let patient = LOOKS_FOR + GRACE * 2;
    for (round, (cut_off, given)) in [(follower, patient), (leader, HASTY)].into_iter().enumerate() {
        let majority = others(&fleet, &cut_off);
        let majority = fleet.operator_at(&[&majority[0], &majority[1]]);
        let at = |client: &Client, content: &str| {
            let request = v1::SetValueRequest {
                secret: Some(operator.secret("A")),
                value: content.as_bytes().to_vec(),
                request_id: format!("{:032x}", 0xa0 + round),
                ..Default::default()
            };
            let client = client.clone();
            async move { client.set_value(request).await }
        };
        let content = format!("of round {round}");
        let version = u64::try_from(round).unwrap() + 2;
        let alone = once(&fleet, &cut_off, None);
        cut_from_majority(&fleet, &cut_off);
        let begun = clock.monotonic();
        let missing = v1::ShowSecretRequest { secret: Some(operator.secret("NEVER")) };
        let hurried = alone.timeout(given);
        let (refused, unknown) = tokio::join!(at(&hurried, &content), hurried.show_secret(missing));
        let took = clock.monotonic().saturating_sub(begun);
        let hasty = given == HASTY;
        let said = |error: &client::ClientError| format!("{error}: {}", error.error);
        // Nobody is told that something is not there by a node that cannot know it.
        let unknown = unknown.unwrap_err();
        let kinds = [ErrorKind::Unavailable, if hasty { ErrorKind::DeadlineExceeded } else { ErrorKind::Unavailable }];
        assert!(kinds.contains(&unknown.kind()), "{}", said(&unknown));
        // The command may have left this node before it was clear that nobody answers.
        let refused = refused.unwrap_err();
        let open = refused.kind() == ErrorKind::DeadlineExceeded && (hasty || refused.error.message.contains("outcome not known"));
        assert!(open || refused.kind() == ErrorKind::Unavailable, "{}", said(&refused));
        assert!(took <= given.min(LOOKS_FOR) + GRACE, "refused after {took:?}");

        // The caller sends it again where there is a majority, under the same request id.
        let reply =
            until("the majority to take it", async || at(&majority.client, &content).await.map_err(|error| error.error.to_string())).await;
        assert_eq!(reply.version, version);
        fleet.net.mend();
        let again =
            until("the node that was cut off to answer", async || at(&alone, &content).await.map_err(|error| error.error.to_string()))
                .await;
        assert_eq!(again.version, version, "the first answer, at whichever node");
        for node in fleet.names(Role::Control) {
            let list = v1::ListVersionsRequest { secret: Some(operator.secret("A")) };
            let versions = fleet.operator_at(&[&node]).client.list_versions(list).await.unwrap().versions;
            assert_eq!(versions.len() as u64, version, "{node}: what hung in the cable or in a log was not applied besides: {versions:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn name_that_was_made_anew_while_a_node_slept_is_found_there() {
    let mut fleet = Fleet::start(3, 0).await;
    let operator = fleet.operator();
    operator.create_bound("A", b"1").await;
    let leader = fleet.leader().await;
    let sleeper = others(&fleet, &leader).remove(0);
    let (there, awake) = (fleet.operator_at(&[&sleeper]), fleet.operator_at(&[&leader]));
    // The request waits with the log at the door of the one that wakes up, and is taken before or after it: each several times.
    for round in 0..8_u32 {
        there.client.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
        fleet.freeze(&sleeper);
        awake.delete("A").await;
        awake.try_create("A", b"anew").await.unwrap();
        let request = v1::SetValueRequest {
            secret: Some(there.secret("A")),
            value: b"2".to_vec(),
            request_id: format!("{round:032x}"),
            ..Default::default()
        };
        let client = there.client.clone();
        let set = tokio::spawn(async move { client.set_value(request).await });
        tokio::task::yield_now().await;
        fleet.thaw(&sleeper);
        let set = set.await.unwrap();
        assert_eq!(set.unwrap_or_else(|error| panic!("round {round}: {}", error.error)).version, 2, "round {round}");
    }
}
