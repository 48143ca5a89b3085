//! `Audit`.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    audit::{self, Parts},
    call::read,
};

#[async_trait]
impl v1::audit_server::Audit for Services {
    type ExportStream = Parts;

    async fn list(&self, request: Request<v1::ListAuditRequest>) -> Result<Response<v1::ListAuditReply>, Status> {
        read(&self.0, "audit.list", request, audit::list).await
    }

    async fn export(&self, request: Request<v1::ExportAuditRequest>) -> Result<Response<Parts>, Status> {
        read(&self.0, "audit.export", request, audit::export).await
    }
}
