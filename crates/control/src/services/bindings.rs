//! `Bindings`.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    call::{change, read},
    operations::bindings,
};

#[async_trait]
impl v1::bindings_server::Bindings for Services {
    async fn bind(&self, request: Request<v1::BindRequest>) -> Result<Response<v1::BindReply>, Status> {
        change(&self.0, "bindings.bind", request, bindings::bind).await
    }

    async fn unbind(&self, request: Request<v1::UnbindRequest>) -> Result<Response<v1::UnbindReply>, Status> {
        change(&self.0, "bindings.unbind", request, bindings::unbind).await
    }

    async fn list(&self, request: Request<v1::ListBindingsRequest>) -> Result<Response<v1::ListBindingsReply>, Status> {
        read(&self.0, "bindings.list", request, bindings::list).await
    }
}
