//! A leader whose wall clock is set wrong, and right again: whole nodes, of which each has a clock of its own to be set.

use runtime::RealClock;
use seams::Clock;
use wire::v1;

use crate::harness::{Ground, create, leader, show, until, with_store};

/// Less than certificates live, and far more than clocks may be apart.
const STEP_MS: i64 = 600_000;

#[tokio::test(flavor = "multi_thread")]
async fn leader_whose_clock_is_wrong_says_so_gives_way_and_dates_nothing_by_it() {
    let ground = Ground::new(3).await;
    let nodes = ground.three().await;
    let all = ground.client(&[1, 2, 3]);
    with_store(&all).await;
    let wrong = leader(&all).await;
    let node = &nodes[wrong as usize - 1];
    let report = || node.control.readiness().report();
    until("its clock is right", || report().contains("[+] clock ready")).await;

    ground.set_clock(wrong, STEP_MS);
    let there = ground.client(&[wrong]);
    there.create_secrets(create("AT_ONCE")).await.unwrap();
    until("it says so", || report().contains("[-] clock not ready: this node's clock is 600 s ahead of those of a majority")).await;
    assert!(!node.control.readiness().is_ready());
    let others: Vec<u64> = (1..=3).filter(|node| *node != wrong).collect();
    let elsewhere = ground.client(&others);
    while leader(&elsewhere).await == wrong {
        RealClock::new().sleep(std::time::Duration::from_millis(50)).await;
    }
    there.create_secrets(create("LATER")).await.unwrap();
    for name in ["AT_ONCE", "LATER"] {
        let created = elsewhere.show_secret(show(name)).await.unwrap().created_ms;
        assert!(created < RealClock::new().wall().get() + 2_000, "{name} is dated {created}");
    }
    // Nor is a token over there before its time.
    let grants = vec![v1::TokenGrant { role: "reporter".into(), ..Default::default() }];
    let token = v1::CreateTokenRequest { name: "short".into(), grants, expires_in_ms: STEP_MS as u64 / 2, ..Default::default() };
    let token = elsewhere.create_token(token).await.unwrap().token;
    ground.client_with(&[wrong], token).who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    let status = elsewhere.cluster_status(v1::ClusterStatusRequest {}).await.unwrap();
    for row in &status.members {
        let expected = if row.member.as_ref().unwrap().node_id == wrong { STEP_MS } else { 0 };
        assert!(row.clock_ahead_ms.unwrap().abs_diff(expected) < 1_000, "{status:?}");
    }

    ground.set_clock(wrong, 0);
    until("it is right again", || node.control.readiness().is_ready()).await;
    for node in nodes {
        node.stop().await;
    }
}
