//! `Tokens`.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    call::{change, read},
    operations::tokens,
};

#[async_trait]
impl v1::tokens_server::Tokens for Services {
    async fn create(&self, request: Request<v1::CreateTokenRequest>) -> Result<Response<v1::TokenReply>, Status> {
        change(&self.0, "tokens.create", request, tokens::create).await
    }

    async fn list(&self, request: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensReply>, Status> {
        read(&self.0, "tokens.list", request, tokens::list).await
    }

    async fn roll(&self, request: Request<v1::RollTokenRequest>) -> Result<Response<v1::TokenReply>, Status> {
        change(&self.0, "tokens.roll", request, tokens::roll).await
    }

    async fn revoke(&self, request: Request<v1::RevokeTokenRequest>) -> Result<Response<v1::RevokeTokenReply>, Status> {
        change(&self.0, "tokens.revoke", request, tokens::revoke).await
    }
}
