//! `Snapshots`: the whole state as one sealed file.

use state::{GrantScope, Operation};
use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    call::read,
    caller::Who,
    snapshots::{Parts, save},
};

#[async_trait]
impl v1::snapshots_server::Snapshots for Services {
    type SaveStream = Parts;

    async fn save(&self, request: Request<v1::SaveSnapshotRequest>) -> Result<Response<Parts>, Status> {
        read(&self.0, "snapshots.save", request, async |core, call, _| {
            // The newest state there is, or none: a backup must not be older than what was acknowledged before it was asked for.
            let (state, who) = core
                .read(&call, |state, caller| {
                    caller.require(Operation::SaveSnapshots, GrantScope::Cluster)?;
                    let who = match caller.who() {
                        Who::Operator { name, .. } => name.to_string(),
                        Who::Node(node) => format!("node {node}"),
                    };
                    Ok((state.clone(), who))
                })
                .await?;
            // Whoever takes the whole state along is worth a line, also when it is not taken to its end.
            tracing::info!(principal = who, peer = call.origin.peer, request = call.origin.request, position = %state.position(), "saves a snapshot");
            save(&core, state, call)
        })
        .await
    }
}
