//! `Stores`.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    call::{change, read},
    operations::stores,
};

#[async_trait]
impl v1::stores_server::Stores for Services {
    async fn create(&self, request: Request<v1::CreateStoreRequest>) -> Result<Response<v1::CreateStoreReply>, Status> {
        change(&self.0, "stores.create", request, stores::create).await
    }

    async fn list(&self, request: Request<v1::ListStoresRequest>) -> Result<Response<v1::ListStoresReply>, Status> {
        read(&self.0, "stores.list", request, stores::list).await
    }

    async fn show(&self, request: Request<v1::ShowStoreRequest>) -> Result<Response<v1::Store>, Status> {
        read(&self.0, "stores.show", request, stores::show).await
    }

    async fn delete(&self, request: Request<v1::DeleteStoreRequest>) -> Result<Response<v1::DeleteStoreReply>, Status> {
        change(&self.0, "stores.delete", request, stores::delete).await
    }
}
