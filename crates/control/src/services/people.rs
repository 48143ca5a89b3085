//! `Members`.

use tonic::{Request, Response, Status, async_trait};
use wire::v1;

use super::Services;
use crate::{
    call::{change, read},
    operations::members,
};

#[async_trait]
impl v1::members_server::Members for Services {
    async fn create(&self, request: Request<v1::CreateMemberRequest>) -> Result<Response<v1::MemberReply>, Status> {
        change(&self.0, "members.create", request, members::create).await
    }

    async fn list(&self, request: Request<v1::ListMembersRequest>) -> Result<Response<v1::ListMembersReply>, Status> {
        read(&self.0, "members.list", request, members::list).await
    }

    async fn show(&self, request: Request<v1::ShowMemberRequest>) -> Result<Response<v1::RoleMember>, Status> {
        read(&self.0, "members.show", request, members::show).await
    }

    async fn grant(&self, request: Request<v1::GrantRoleRequest>) -> Result<Response<v1::MemberReply>, Status> {
        change(&self.0, "members.grant", request, members::grant).await
    }

    async fn revoke(&self, request: Request<v1::RevokeRoleRequest>) -> Result<Response<v1::MemberReply>, Status> {
        change(&self.0, "members.revoke", request, members::revoke).await
    }

    async fn delete(&self, request: Request<v1::DeleteMemberRequest>) -> Result<Response<v1::DeleteMemberReply>, Status> {
        change(&self.0, "members.delete", request, members::delete).await
    }
}
