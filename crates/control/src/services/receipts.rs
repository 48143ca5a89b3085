//! `Receipts`: where a change has arrived.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{call::read, operations::receipts};

#[async_trait]
impl v1::receipts_server::Receipts for Services {
    async fn wait_live(&self, request: Request<v1::WaitLiveRequest>) -> Result<Response<v1::WaitLiveReply>, Status> {
        read(&self.0, "receipts.wait_live", request, receipts::wait_live).await
    }
}
