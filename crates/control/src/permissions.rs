//! Which operation each call of the public API is: what `docs/permissions.md` and tests of permissions are made of. The judgement itself
//! is made where the call is done, by the same operations, and again by `apply`.

use state::Operation;

/// What a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to do this, within reach of what is touched.
    Of(Operation),
    /// A valid token: it shows what lies within the token's reach.
    Known,
}

const fn of(call: &'static str, operation: Operation) -> (&'static str, Need) {
    (call, Need::Of(operation))
}

const fn known(call: &'static str) -> (&'static str, Need) {
    (call, Need::Known)
}

/// The calls that control nodes serve, as `Service.Method`, and what each takes.
pub const RPCS: &[(&str, Need)] = &[
    of("Accounts.Create", Operation::ManageAccounts),
    known("Accounts.List"),
    known("Accounts.Show"),
    of("Accounts.ShowQuota", Operation::ReadMetadata),
    of("Accounts.SetQuota", Operation::SetQuota),
    of("Audit.List", Operation::ReadAudit),
    of("Audit.Export", Operation::ReadAudit),
    of("Bindings.Bind", Operation::Bind),
    of("Bindings.Unbind", Operation::Bind),
    of("Bindings.List", Operation::ReadMetadata),
    of("Cluster.Members", Operation::ReadCluster),
    of("Cluster.Status", Operation::ReadCluster),
    of("Cluster.Add", Operation::ManageMembership),
    of("Cluster.Promote", Operation::ManageMembership),
    of("Cluster.Remove", Operation::ManageMembership),
    of("Cluster.Transfer", Operation::ManageMembership),
    known("Cluster.ShowAuthority"),
    of("Cluster.RotateAuthority", Operation::ManageAuthority),
    of("Cluster.FinishAuthority", Operation::ManageAuthority),
    of("Consumers.Create", Operation::ManageConsumers),
    of("Consumers.List", Operation::ReadMetadata),
    of("Consumers.Delete", Operation::ManageConsumers),
    of("Consumers.CreateToken", Operation::ManageConsumers),
    of("Consumers.RollToken", Operation::ManageConsumers),
    of("Consumers.RevokeToken", Operation::ManageConsumers),
    of("Consumers.ListTokens", Operation::ReadMetadata),
    of("Fleet.List", Operation::ReadMetadata),
    of("Levels.Show", Operation::ReadMetadata),
    of("Levels.Raise", Operation::RaiseLevel),
    of("Members.Create", Operation::ManageTokens),
    of("Members.List", Operation::ReadTokens),
    of("Members.Show", Operation::ReadTokens),
    of("Members.Grant", Operation::ManageTokens),
    of("Members.Revoke", Operation::ManageTokens),
    of("Members.Delete", Operation::ManageTokens),
    of("Nodes.List", Operation::ReadCluster),
    of("Nodes.CreateJoinToken", Operation::ManageJoinTokens),
    of("Nodes.ListJoinTokens", Operation::ReadCluster),
    of("Nodes.RevokeJoinToken", Operation::ManageJoinTokens),
    of("Nodes.Revoke", Operation::RevokeNode),
    of("Nodes.Exposure", Operation::ReadCluster),
    known("Receipts.WaitLive"),
    of("Secrets.Create", Operation::ManageSecrets),
    of("Secrets.SetValue", Operation::ManageSecrets),
    of("Secrets.Edit", Operation::ManageSecrets),
    of("Secrets.List", Operation::ReadMetadata),
    of("Secrets.Show", Operation::ReadMetadata),
    of("Secrets.Versions", Operation::ReadMetadata),
    of("Secrets.Delete", Operation::ManageSecrets),
    of("Secrets.ListDeleted", Operation::ReadMetadata),
    of("Secrets.Undelete", Operation::ManageSecrets),
    of("Secrets.Destroy", Operation::ManageSecrets),
    of("Secrets.Duplicate", Operation::ManageSecrets),
    of("Secrets.MovePointer", Operation::ManageSecrets),
    of("Snapshots.Save", Operation::SaveSnapshots),
    known("Status.Show"),
    known("Status.WhoAmI"),
    of("Stores.Create", Operation::ManageStores),
    of("Stores.List", Operation::ReadMetadata),
    of("Stores.Show", Operation::ReadMetadata),
    of("Stores.Delete", Operation::ManageStores),
    of("Tokens.Create", Operation::ManageTokens),
    of("Tokens.List", Operation::ReadTokens),
    of("Tokens.Roll", Operation::ManageTokens),
    of("Tokens.Revoke", Operation::ManageTokens),
];
