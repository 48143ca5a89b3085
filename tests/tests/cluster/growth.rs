//! Founding, joining, adding: the way from nothing to three voters and two edges.

use tests::process::{Fleet, Role};

#[tokio::test(flavor = "multi_thread")]
async fn cluster_that_an_operator_grows_takes_writes_at_each_voter_and_serves_them_at_each_edge() {
    let fleet = Fleet::start(3, 2).await;
    for control in fleet.names(Role::Control) {
        let operator = fleet.operator_at(&[&control]);
        let secret = control.to_uppercase().replace('-', "_");
        let position = operator.create_bound(&secret, control.as_bytes()).await;
        operator.live(position).await;
        for (edge, reader) in fleet.readers() {
            let found = reader.get_at(&secret, position).await.unwrap_or_else(|error| panic!("{edge}: {error}: {}", error.error));
            assert_eq!(found.value, control.as_bytes());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_that_slept_while_all_its_peers_were_replaced_hears_those_that_it_never_knew() {
    let mut fleet = Fleet::start(3, 0).await;
    fleet.stop("control-3").await;
    for new in ["control-4", "control-5"] {
        fleet.add_voter(new).await;
    }
    fleet.cli.ok(&["cluster", "transfer", "control-4"]).await;
    for old in ["control-1", "control-2"] {
        fleet.cli.ok(&["cluster", "remove", old, "--yes"]).await;
        fleet.kill(old);
        fleet.cli.ok(&["node", "revoke", old, "--yes"]).await;
    }
    let operator = fleet.operator_at(&["control-4", "control-5"]);
    operator.create_bound("A", b"while it slept").await;

    fleet.start_node("control-3").await;
    let woken = fleet.operator_at(&["control-3"]);
    woken.create_bound("B", b"at the sleeper").await;
    // With one of the new ones gone, its vote makes the majority.
    fleet.kill("control-5");
    woken.create_bound("C", b"with its vote").await;
}
