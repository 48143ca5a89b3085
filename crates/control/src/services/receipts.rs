//! `Receipts`: where a change has arrived.

use std::time::Duration;

use tonic::{Request, Response, Status, async_trait};
use types::Position;
use wire::{
    parse::{FieldError, required},
    v1,
};

use super::Services;
use crate::call::serve;

/// The longest that one call waits.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Names of edges that are behind, at the most.
const BEHIND_MAX: usize = 100;

#[async_trait]
impl v1::receipts_server::Receipts for Services {
    async fn wait_live(&self, request: Request<v1::WaitLiveRequest>) -> Result<Response<v1::WaitLiveReply>, Status> {
        serve(&self.0, "receipts.wait_live", request, async |core, call, message| {
            let position = Position::from(required("position", message.position)?);
            // Whoever is identified may wait: how many edges hold a position names no secret.
            let head = core.read(&call, |state, _| Ok(state.position())).await?;
            if position > head {
                return Err(FieldError::new("position", format_args!("is {position}, past the newest, {head}")).into());
            }
            let wait = Duration::from_millis(message.deadline_ms).min(WAIT_MAX);
            let live = tokio::select! {
                biased;
                live = core.wait_live(position) => live,
                () = core.clock.sleep(wait) => core.live(position),
            };
            let behind = core.behind(position, BEHIND_MAX);
            Ok(v1::WaitLiveReply {
                position: Some(position.into()),
                edges_live: u32::try_from(live.live).unwrap_or(u32::MAX),
                edges_known: u32::try_from(live.of).unwrap_or(u32::MAX),
                behind,
            })
        })
        .await
    }
}
