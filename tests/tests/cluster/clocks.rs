//! Wall clocks that are set wrong while a cluster runs.

use std::{collections::BTreeMap, time::Duration};

use tests::process::{Fleet, Readers, Role, STORE, WallClock, Writers, until};
use wire::{ErrorKind, v1};

use crate::ground::{judge, metric, once, others};

/// Writes that must be acknowledged after a fault.
const WRITES: usize = 20;
const HOUR_S: i64 = 3600;

/// A cluster in which each node goes by a clock of its own.
async fn with_clocks(controls: usize, edges: usize) -> (Fleet, BTreeMap<String, WallClock>) {
    let mut fleet = Fleet::start(controls, edges).await;
    let names: Vec<_> = fleet.names(Role::Control).into_iter().chain(fleet.names(Role::Edge)).collect();
    let mut clocks = BTreeMap::new();
    for name in names {
        let clock = WallClock::new(fleet.folder(), &name);
        fleet.set_environment(&clock.environment().each_ref().map(|(key, value)| (*key, value.as_str())));
        fleet.stop(&name).await;
        fleet.start_node(&name).await;
        clocks.insert(name, clock);
    }
    (fleet, clocks)
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_whose_clock_is_set_wrong_gives_up_leadership_and_nothing_expires_early() {
    let (mut fleet, clocks) = with_clocks(3, 2).await;
    let mut writers = Writers::start((0..2).map(|_| fleet.operator()).collect()).await;
    fleet.operator().live(writers.bound()).await;
    let readers = Readers::start(fleet.readers());
    let grant = v1::TokenGrant { role: "reporter".into(), ..Default::default() };
    for wrong in [HOUR_S, -HOUR_S] {
        let leader = fleet.leader().await;
        // Gone by the wrong clock, and good by all others.
        let made = v1::CreateTokenRequest {
            name: format!("pipeline-{wrong}"),
            grants: vec![grant.clone()],
            expires_in_ms: 1_800_000,
            ..Default::default()
        };
        let made = fleet.operator().client.create_token(made).await.unwrap();
        clocks[&leader].set_ahead(wrong);
        until("another node to lead", async || match fleet.try_leader().await {
            Some(now) if now != leader => Ok(()),
            now => Err(format!("{now:?} leads")),
        })
        .await;
        writers.go_on(WRITES).await;
        assert_eq!(metric(&fleet, &leader, "cinnabar_consensus_clock_agrees"), Some(0.0), "{leader} tells that its clock is wrong");
        fleet.until_health(&leader, "/readyz", 503).await;
        for other in others(&fleet, &leader) {
            let who = once(&fleet, &other, Some(&made.token)).who_am_i(v1::WhoAmIRequest {}).await;
            assert_eq!(who.unwrap().name, format!("pipeline-{wrong}"), "the token is good at {other}");
        }
        clocks[&leader].set_ahead(0);
        fleet.until_health(&leader, "/readyz", 200).await;
        writers.go_on(WRITES).await;
        let who = once(&fleet, &leader, Some(&made.token)).who_am_i(v1::WhoAmIRequest {}).await;
        assert_eq!(who.unwrap().name, format!("pipeline-{wrong}"), "the token is good at {leader} again");
    }
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_whose_clock_is_set_wrong_tells_its_age_by_it_and_never_seems_younger_than_it_is() {
    let (mut fleet, clocks) = with_clocks(1, 1).await;
    let operator = fleet.operator();
    let bound = operator.create_bound("A", b"1").await;
    operator.live(bound).await;
    let reader = fleet.reader("edge-1");
    let minute = Duration::from_secs(60);
    until("a young answer", async || reader.get_within("A", minute).await.map(drop).map_err(|error| error.to_string())).await;

    // Ahead: it takes itself for an hour older than it is, refuses who wants it younger, and serves who does not ask.
    clocks["edge-1"].set_ahead(HOUR_S);
    let kind = until("the age to show", async || match reader.get_within("A", minute).await {
        Err(error) => Ok(error.kind()),
        Ok(found) => Err(format!("{found:?}")),
    })
    .await;
    assert_eq!(kind, ErrorKind::TooStale);
    let found = reader.get("A").await.unwrap();
    assert_eq!(found.value, b"1");

    // Right again: so is its age, and it follows.
    clocks["edge-1"].set_ahead(0);
    until("a young answer", async || reader.get_within("A", minute).await.map(drop).map_err(|error| error.to_string())).await;

    // Behind, and cut off: while it runs it counts on; after a restart it does not know how old it is, and says so.
    clocks["edge-1"].set_ahead(-HOUR_S);
    fleet.net.part("edge-1", "control-1");
    fleet.kill("edge-1");
    fleet.launch("edge-1");
    let kind = until("an answer of the edge", async || match reader.get_within("A", minute).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error.to_string()),
        Err(error) => Ok(error.kind()),
        Ok(found) => panic!("an edge that does not know its age says that it is young: {found:?}"),
    })
    .await;
    assert_eq!(kind, ErrorKind::TooStale);
    fleet.net.mend();
    clocks["edge-1"].set_ahead(0);
    until("a young answer", async || reader.get_within("A", minute).await.map(drop).map_err(|error| error.to_string())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_that_slept_until_every_certificate_had_expired_comes_back_by_itself() {
    let (mut fleet, clocks) = with_clocks(3, 1).await;
    let operator = fleet.operator();
    let bound = operator.create_bound("A", b"before").await;
    operator.live(bound).await;
    for name in clocks.keys() {
        fleet.kill(name);
    }
    // Certificates are good for a day.
    for (name, clock) in &clocks {
        clock.set_ahead(60 * 24 * HOUR_S);
        fleet.set_environment(&clock.environment().each_ref().map(|(key, value)| (*key, value.as_str())));
        fleet.launch(name);
    }
    for name in clocks.keys() {
        fleet.until_health(name, "/readyz", 200).await;
    }
    // The operator's clock goes with the others: what they have renewed is not good yet in this test's own time.
    let environment = clocks["edge-1"].environment();
    fleet.cli.set_environment(&environment.each_ref().map(|(key, value)| (*key, value.as_str())));
    let run = fleet.cli.pipe(b"after", &["secret", "set", &format!("{STORE}/A"), "--wait"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(fleet.reader("edge-1").get("A").await.unwrap().value, b"after");
}
