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
