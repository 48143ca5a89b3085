//! `Accounts`.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    call::{change, read},
    operations::accounts,
};

#[async_trait]
impl v1::accounts_server::Accounts for Services {
    async fn create(&self, request: Request<v1::CreateAccountRequest>) -> Result<Response<v1::CreateAccountReply>, Status> {
        change(&self.0, "accounts.create", request, accounts::create).await
    }

    async fn list(&self, request: Request<v1::ListAccountsRequest>) -> Result<Response<v1::ListAccountsReply>, Status> {
        read(&self.0, "accounts.list", request, accounts::list).await
    }

    async fn show(&self, request: Request<v1::ShowAccountRequest>) -> Result<Response<v1::Account>, Status> {
        read(&self.0, "accounts.show", request, accounts::show).await
    }

    async fn show_quota(&self, request: Request<v1::ShowQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        read(&self.0, "accounts.show_quota", request, accounts::show_quota).await
    }

    async fn set_quota(&self, request: Request<v1::SetQuotaRequest>) -> Result<Response<v1::SetQuotaReply>, Status> {
        change(&self.0, "accounts.set_quota", request, accounts::set_quota).await
    }
}
