//! One typed method for each unary call of the public API.

use std::time::Duration;

use tokio::time::Instant;
use types::Position;
use wire::{LOOKUP_REPLY_BYTES_MAX, PublicError, v1};

use crate::{Client, ClientError, client::Ticket};

/// Writes the methods. `read` changes nothing; `change` fills in a request id; `once` is for replies that are shown once, `patient` for those
/// that may take long.
macro_rules! calls {
    ($($service:literal $module:ident :: $client:ident {
        $($(#[$doc:meta])* $safety:ident $method:ident = $rpc:ident($request:ident) -> $reply:ident;)*
    })*) => {
        impl Client {
            $($(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError`] with the kind that the server gave.
                pub async fn $method(&self, request: v1::$request) -> Result<v1::$reply, ClientError> {
                    calls!(@ticket $safety request ticket);
                    let call = concat!($service, ".", stringify!($rpc));
                    self.call(call, ticket, request, |channel, request| async move {
                        v1::$module::$client::new(channel).$rpc(request).await
                    })
                    .await
                }
            )*)*
        }
    };
    (@ticket read $request:ident $ticket:ident) => { let $ticket = Ticket::read(); };
    (@ticket patient $request:ident $ticket:ident) => { let $ticket = Ticket::patient(); };
    (@ticket change $request:ident $ticket:ident) => {
        let mut $request = $request;
        let $ticket = Ticket::change(&mut $request.request_id);
    };
    (@ticket once $request:ident $ticket:ident) => { let $ticket = Ticket::once(&$request.request_id); };
}

calls! {
    "accounts" accounts_client::AccountsClient {
        /// Creates an account.
        change create_account = create(CreateAccountRequest) -> CreateAccountReply;
        /// Lists accounts, a page at a time.
        read list_accounts = list(ListAccountsRequest) -> ListAccountsReply;
        /// Shows an account.
        read show_account = show(ShowAccountRequest) -> Account;
        /// Shows what an account may hold, and holds.
        read show_quota = show_quota(ShowQuotaRequest) -> Quota;
        /// Changes what an account may hold.
        change set_quota = set_quota(SetQuotaRequest) -> SetQuotaReply;
    }
    "stores" stores_client::StoresClient {
        /// Creates a store.
        change create_store = create(CreateStoreRequest) -> CreateStoreReply;
        /// Lists the stores of an account, a page at a time.
        read list_stores = list(ListStoresRequest) -> ListStoresReply;
        /// Shows a store.
        read show_store = show(ShowStoreRequest) -> Store;
        /// Deletes a store, with `force` also the secrets in it.
        change delete_store = delete(DeleteStoreRequest) -> DeleteStoreReply;
    }
    "secrets" secrets_client::SecretsClient {
        /// Creates secrets: all of them, or none.
        change create_secrets = create(CreateSecretsRequest) -> CreateSecretsReply;
        /// Gives a secret a new value.
        change set_value = set_value(SetValueRequest) -> SetValueReply;
        /// Changes comment or scopes.
        change edit_secret = edit(EditSecretRequest) -> EditSecretReply;
        /// Lists the secrets of a store, a page at a time.
        read list_secrets = list(ListSecretsRequest) -> ListSecretsReply;
        /// Shows a secret; never its value.
        read show_secret = show(ShowSecretRequest) -> Secret;
        /// Lists the versions of a secret.
        read list_versions = versions(ListVersionsRequest) -> ListVersionsReply;
        /// Deletes secrets of one store: all of them, or none.
        change delete_secrets = delete(DeleteSecretsRequest) -> DeleteSecretsReply;
        /// Lists the deleted secrets of a store that can be brought back, a page at a time.
        read list_deleted_secrets = list_deleted(ListDeletedSecretsRequest) -> ListSecretsReply;
        /// Brings a deleted secret back.
        change undelete_secret = undelete(UndeleteSecretRequest) -> UndeleteSecretReply;
        /// Destroys a deleted secret, or one version of a secret.
        change destroy_secret = destroy(DestroySecretRequest) -> DestroySecretReply;
        /// Makes a secret with a copy of another's value.
        change duplicate_secret = duplicate(DuplicateSecretRequest) -> DuplicateSecretReply;
        /// Rolls back, promotes, reverts, or drops a candidate.
        change move_pointer = move_pointer(MovePointerRequest) -> MovePointerReply;
    }
    "nodes" nodes_client::NodesClient {
        /// Lists the nodes of the registry, revoked ones included, a page at a time.
        read list_nodes = list(ListNodesRequest) -> ListNodesReply;
        /// Makes a join token. Shown once: sent again under its own request id, the reply names it without the token.
        once create_join_token = create_join_token(CreateJoinTokenRequest) -> JoinTokenReply;
        /// Lists join tokens and what became of them, a page at a time.
        read list_join_tokens = list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensReply;
        /// Voids a join token.
        change revoke_join_token = revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenReply;
        /// Shuts a node out for good.
        change revoke_node = revoke(RevokeNodeRequest) -> RevokeNodeReply;
        /// Lists the secrets of which a node could open values, a page at a time.
        read node_exposure = exposure(ExposureRequest) -> ExposureReply;
    }
    "tokens" tokens_client::TokensClient {
        /// Makes an operator's token. Shown once, as a join token.
        once create_token = create(CreateTokenRequest) -> TokenReply;
        /// Lists operators' tokens, a page at a time.
        read list_tokens = list(ListTokensRequest) -> ListTokensReply;
        /// Makes a token in the place of another. Shown once.
        once roll_token = roll(RollTokenRequest) -> TokenReply;
        /// Voids an operator's token.
        change revoke_token = revoke(RevokeTokenRequest) -> RevokeTokenReply;
    }
    "members" members_client::MembersClient {
        /// Makes a member, with the roles that it begins with.
        change create_member = create(CreateMemberRequest) -> MemberReply;
        /// Lists members, a page at a time.
        read list_members = list(ListMembersRequest) -> ListMembersReply;
        /// Shows a member with its roles.
        read show_member = show(ShowMemberRequest) -> RoleMember;
        /// Gives a member a role.
        change grant_role = grant(GrantRoleRequest) -> MemberReply;
        /// Takes a role from a member.
        change revoke_role = revoke(RevokeRoleRequest) -> MemberReply;
        /// Deletes a member, and voids its tokens.
        change delete_member = delete(DeleteMemberRequest) -> DeleteMemberReply;
    }
    "consumers" consumers_client::ConsumersClient {
        /// Creates a consumer.
        change create_consumer = create(CreateConsumerRequest) -> CreateConsumerReply;
        /// Lists the consumers of an account, a page at a time.
        read list_consumers = list(ListConsumersRequest) -> ListConsumersReply;
        /// Deletes a consumer with its tokens and bindings.
        change delete_consumer = delete(DeleteConsumerRequest) -> DeleteConsumerReply;
        /// Makes a token, shown this once. Sent again after a failure only under a request id of the caller's choice.
        once create_consumer_token = create_token(CreateConsumerTokenRequest) -> ConsumerTokenReply;
        /// Makes a token in place of another, shown this once. Sent again after a failure only under a request id of the caller's choice.
        once roll_consumer_token = roll_token(RollConsumerTokenRequest) -> ConsumerTokenReply;
        /// Withdraws a token.
        change revoke_consumer_token = revoke_token(RevokeConsumerTokenRequest) -> RevokeConsumerTokenReply;
        /// Lists a consumer's tokens, by their public ids.
        read list_consumer_tokens = list_tokens(ListConsumerTokensRequest) -> ListConsumerTokensReply;
    }
    "bindings" bindings_client::BindingsClient {
        /// Binds a secret or a store to a name of a consumer.
        change bind = bind(BindRequest) -> BindReply;
        /// Takes a binding away.
        change unbind = unbind(UnbindRequest) -> UnbindReply;
        /// Lists bindings, a page at a time.
        read list_bindings = list(ListBindingsRequest) -> ListBindingsReply;
    }
    "status" status_client::StatusClient {
        /// Shows what the node is and knows.
        read status = show(ShowStatusRequest) -> NodeStatus;
        /// Shows who the server takes the caller for.
        read who_am_i = who_am_i(WhoAmIRequest) -> WhoAmIReply;
    }
    "audit" audit_client::AuditClient {
        /// Lists entries of the audit log, a page at a time.
        read list_audit = list(ListAuditRequest) -> ListAuditReply;
    }
    "levels" levels_client::LevelsClient {
        /// Shows the feature level in force, and which the nodes know.
        read show_level = show(ShowLevelRequest) -> ShowLevelReply;
        /// Raises the feature level by one.
        change raise_level = raise(RaiseLevelRequest) -> RaiseLevelReply;
    }
    "fleet" fleet_client::FleetClient {
        /// Lists all nodes of the cluster, a page at a time.
        read list_fleet = list(ListFleetRequest) -> ListFleetReply;
    }
    "cluster" cluster_client::ClusterClient {
        /// Lists who votes and who learns, as the node that answers has it.
        read cluster_members = members(ClusterMembersRequest) -> ClusterMembersReply;
        /// Shows how far each member is, as the leader sees it.
        read cluster_status = status(ClusterStatusRequest) -> ClusterStatusReply;
        /// Makes a registered control node a learner, or gives a member another address. To do so again changes nothing.
        patient cluster_add = add(ClusterAddRequest) -> ClusterChangeReply;
        /// Makes a learner a voter. To do so again changes nothing.
        patient cluster_promote = promote(ClusterPromoteRequest) -> ClusterChangeReply;
        /// Takes a member out.
        patient cluster_remove = remove(ClusterRemoveRequest) -> ClusterChangeReply;
        /// Hands leadership to another voter.
        patient cluster_transfer = transfer(ClusterTransferRequest) -> ClusterChangeReply;
        /// The certificate authorities that are believed.
        read show_authority = show_authority(ShowAuthorityRequest) -> ShowAuthorityReply;
        /// Replaces the certificate authority.
        change rotate_authority = rotate_authority(RotateAuthorityRequest) -> ShowAuthorityReply;
        /// Ends the belief in former authorities.
        change finish_authority = finish_authority(FinishAuthorityRequest) -> ShowAuthorityReply;
    }
    "receipts" receipts_client::ReceiptsClient {
        /// Waits once, as long as the request says and the server allows; mind the client's own deadline. See [`Client::wait_live`].
        patient wait_live_once = wait_live(WaitLiveRequest) -> WaitLiveReply;
    }
}

/// The longest that one request waits at the server, so that a lost connection is noticed.
const WAIT_STEP: Duration = Duration::from_secs(20);
/// What a request that waits may take beyond its wait.
const WAIT_MARGIN: Duration = Duration::from_secs(5);

impl Client {
    /// Waits until every known edge holds `position` durably, or `wait` is over. Either way the reply says how many do.
    ///
    /// # Errors
    /// [`ClientError`] with the kind that the server gave.
    pub async fn wait_live(&self, position: Position, wait: Duration) -> Result<v1::WaitLiveReply, ClientError> {
        let end = Instant::now() + wait;
        loop {
            let step = end.saturating_duration_since(Instant::now()).min(WAIT_STEP);
            let deadline_ms = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
            let request = v1::WaitLiveRequest { position: Some(position.into()), deadline_ms };
            let reply = self.timeout(step + WAIT_MARGIN).wait_live_once(request).await?;
            if reply.is_everywhere() || end.saturating_duration_since(Instant::now()).is_zero() {
                return Ok(reply);
            }
        }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// [`ClientError`] with the kind that the edge gave.
    pub async fn get(&self, request: v1::GetRequest) -> Result<v1::Found, ClientError> {
        self.call("lookup.get", Ticket::read(), request, |channel, request| async move {
            v1::lookup_client::LookupClient::new(channel).get(request).await
        })
        .await
    }

    /// Reads several values from one and the same state, in the order of the request. One that fails does not fail the others.
    ///
    /// # Errors
    /// [`ClientError`] when there is no reply to the whole.
    pub async fn get_many(&self, request: v1::GetManyRequest) -> Result<Vec<Result<v1::Found, PublicError>>, ClientError> {
        let reply = self.call("lookup.get_many", Ticket::read(), request, |channel, request| async move {
            let client = v1::lookup_client::LookupClient::new(channel);
            client.max_decoding_message_size(LOOKUP_REPLY_BYTES_MAX).get_many(request).await
        });
        Ok(reply.await?.outcomes.into_iter().map(v1::Outcome::into_result).collect())
    }
}
