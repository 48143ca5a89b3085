//! `Secrets`.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    call::{change, read},
    operations::{deleted, secrets},
};

#[async_trait]
impl v1::secrets_server::Secrets for Services {
    async fn create(&self, request: Request<v1::CreateSecretsRequest>) -> Result<Response<v1::CreateSecretsReply>, Status> {
        change(&self.0, "secrets.create", request, secrets::create).await
    }

    async fn set_value(&self, request: Request<v1::SetValueRequest>) -> Result<Response<v1::SetValueReply>, Status> {
        change(&self.0, "secrets.set_value", request, secrets::set_value).await
    }

    async fn edit(&self, request: Request<v1::EditSecretRequest>) -> Result<Response<v1::EditSecretReply>, Status> {
        change(&self.0, "secrets.edit", request, secrets::edit).await
    }

    async fn list(&self, request: Request<v1::ListSecretsRequest>) -> Result<Response<v1::ListSecretsReply>, Status> {
        read(&self.0, "secrets.list", request, secrets::list).await
    }

    async fn show(&self, request: Request<v1::ShowSecretRequest>) -> Result<Response<v1::Secret>, Status> {
        read(&self.0, "secrets.show", request, secrets::show).await
    }

    async fn versions(&self, request: Request<v1::ListVersionsRequest>) -> Result<Response<v1::ListVersionsReply>, Status> {
        read(&self.0, "secrets.versions", request, secrets::versions).await
    }

    async fn delete(&self, request: Request<v1::DeleteSecretsRequest>) -> Result<Response<v1::DeleteSecretsReply>, Status> {
        change(&self.0, "secrets.delete", request, secrets::delete).await
    }

    async fn list_deleted(&self, request: Request<v1::ListDeletedSecretsRequest>) -> Result<Response<v1::ListSecretsReply>, Status> {
        read(&self.0, "secrets.list_deleted", request, deleted::list).await
    }

    async fn undelete(&self, request: Request<v1::UndeleteSecretRequest>) -> Result<Response<v1::UndeleteSecretReply>, Status> {
        change(&self.0, "secrets.undelete", request, deleted::undelete).await
    }

    async fn destroy(&self, request: Request<v1::DestroySecretRequest>) -> Result<Response<v1::DestroySecretReply>, Status> {
        change(&self.0, "secrets.destroy", request, deleted::destroy).await
    }

    async fn duplicate(&self, request: Request<v1::DuplicateSecretRequest>) -> Result<Response<v1::DuplicateSecretReply>, Status> {
        change(&self.0, "secrets.duplicate", request, secrets::duplicate).await
    }

    async fn move_pointer(&self, request: Request<v1::MovePointerRequest>) -> Result<Response<v1::MovePointerReply>, Status> {
        change(&self.0, "secrets.move_pointer", request, secrets::move_pointer).await
    }
}
