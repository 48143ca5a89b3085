//! The recipes for CI systems in `deploy/ci`, as a project uses them: three control nodes, of which the pipeline is told one.

use tests::{clients::Pipeline, process::Fleet};

use crate::ground::Ground;

#[tokio::test(flavor = "multi_thread")]
async fn recipes_for_ci_systems_write_secrets_to_three_nodes_and_write_them_again() {
    let ground = Ground::new(1).await;
    let fleet = &ground.fleet;
    let (ca, _) = fleet.credentials();
    let (control, socket) = (fleet.address("control-3").to_string(), fleet.socket("edge-1").display().to_string());
    let reading = ["--edge", socket.as_str(), "-a", Fleet::ACCOUNT];
    let pipeline = Pipeline::new(&fleet.cli, (&control, &ca), Fleet::ACCOUNT, &reading).await;
    pipeline.github(&fleet.folder().join("github")).await;
    for secret in ["default/API_KEY", "default/FIRST", "default/SECOND"] {
        fleet.cli.ok(&["secret", "delete", secret, "--yes"]).await;
    }
    pipeline.gitlab(&fleet.folder().join("gitlab")).await;
}
