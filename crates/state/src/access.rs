//! Who may do what: roles, grants, and the one table of operations.
//!
//! A grant gives a role within a reach: the cluster, one account, or one store. An operation is allowed when one grant's role has
//! the operation in its row, the grant's reach covers what is touched, and the credential has the permission that the row asks for:
//! right is role *and* permission. `apply` judges by this table, the front door asks the same table first, to save the work, and
//! `docs/permissions.md` is made of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use types::{
    AccountId, PrincipalName, StoreId,
    mutation::{self, Mutation},
};

/// A role. Stored; only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Everything.
    SuperAdministrator,
    /// Manages stores and secrets, may not bind.
    Admin,
    /// Sees metadata, binds, and manages consumers.
    Deployer,
    /// Sees metadata.
    Reporter,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::SuperAdministrator, Self::Admin, Self::Deployer, Self::Reporter];

    /// The role's name in commands and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SuperAdministrator => "super-administrator",
            Self::Admin => "admin",
            Self::Deployer => "deployer",
            Self::Reporter => "reporter",
        }
    }

    /// The role of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// How far a grant reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GrantScope {
    /// Everything.
    Cluster,
    /// One account and all in it.
    Account(AccountId),
    /// One store of an account.
    Store(AccountId, StoreId),
}

impl GrantScope {
    /// Whether all that `other` reaches is within reach of this.
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Cluster, _) => true,
            (Self::Account(mine), Self::Account(theirs) | Self::Store(theirs, _)) => mine == theirs,
            (Self::Store(..), Self::Store(..)) => self == other,
            _ => false,
        }
    }

    /// What lies within reach of both; none when they have nothing in common.
    pub fn meet(self, other: Self) -> Option<Self> {
        match (self.covers(other), other.covers(self)) {
            (true, _) => Some(other),
            (_, true) => Some(self),
            _ => None,
        }
    }

    /// The reach of a whole account, or of the cluster.
    pub fn whole(account: Option<AccountId>) -> Self {
        account.map_or(Self::Cluster, Self::Account)
    }

    /// The account, unless it is the cluster.
    pub const fn account(self) -> Option<AccountId> {
        match self {
            Self::Cluster => None,
            Self::Account(account) | Self::Store(account, _) => Some(account),
        }
    }
}

/// A role within a reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// What may be done.
    pub role: Role,
    /// Where.
    pub scope: GrantScope,
}

impl Grant {
    /// The grants of an API token with the permission Edit: all that Admin and Deployer may.
    pub fn edit(account: AccountId) -> Vec<Self> {
        let scope = GrantScope::Account(account);
        vec![Self { role: Role::Admin, scope }, Self { role: Role::Deployer, scope }]
    }

    /// The grants of an API token with the permission Read.
    pub fn read(account: AccountId) -> Vec<Self> {
        vec![Self { role: Role::Reporter, scope: GrantScope::Account(account) }]
    }

    /// Whether this grant's role has `operation`, and its reach covers `target`.
    pub fn allows(&self, operation: Operation, target: GrantScope) -> bool {
        operation.roles().contains(self.role) && (self.scope.covers(target) || mutation::is_on(Mutation::ReachIgnored))
    }
}

/// What a token may be used for, whatever the roles behind it allow. Stored; only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// Looks only.
    Read,
    /// Looks and changes.
    Edit,
}

impl Permission {
    /// All permissions, the lesser first.
    pub const ALL: [Self; 2] = [Self::Read, Self::Edit];

    /// The permission's name in commands and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Edit => "edit",
        }
    }

    /// The permission of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.name() == name)
    }
}

/// A person or pipeline that holds roles: a name, such as an e-mail address, at home in an account or in the whole cluster. All its
/// roles lie within its home, and who administers the home manages it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberRef {
    /// The home; none is the cluster.
    pub account: Option<AccountId>,
    /// Unique in the home.
    pub name: PrincipalName,
}

impl MemberRef {
    /// The reach of its home.
    pub fn home(&self) -> GrantScope {
        GrantScope::whole(self.account)
    }
}

impl fmt::Display for MemberRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.account {
            Some(account) => write!(f, "{} of account {account}", self.name),
            None => self.name.fmt(f),
        }
    }
}

/// What a credential allows: its permission, and roles within reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    permission: Permission,
    grants: Vec<Grant>,
}

impl Rights {
    /// Of `grants`, what lies within `reach`; all of it when the reach is empty.
    pub fn new(permission: Permission, grants: Vec<Grant>, reach: &[GrantScope]) -> Self {
        if reach.is_empty() {
            return Self { permission, grants };
        }
        let within = |grant: &Grant| {
            let Grant { role, scope } = *grant;
            reach.iter().filter_map(move |reach| scope.meet(*reach)).map(move |scope| Grant { role, scope }).collect::<Vec<_>>()
        };
        let mut grants: Vec<Grant> = grants.iter().flat_map(within).collect();
        grants.sort_unstable();
        grants.dedup();
        Self { permission, grants }
    }

    /// Whether role, reach and permission allow `operation` on `target`.
    pub fn allows(&self, operation: Operation, target: GrantScope) -> bool {
        self.permits(operation) && self.has_role(operation, target)
    }

    /// Whether the permission, whatever the roles, allows `operation`.
    pub fn permits(&self, operation: Operation) -> bool {
        self.permission >= operation.permission() || mutation::is_on(Mutation::ReadPermissionIgnored)
    }

    /// Whether a role, whatever the permission, allows `operation` on `target`.
    pub fn has_role(&self, operation: Operation, target: GrantScope) -> bool {
        self.grants.iter().any(|grant| grant.allows(operation, target))
    }

    /// What the credential may be used for.
    pub const fn permission(&self) -> Permission {
        self.permission
    }

    /// Roles within reaches.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

/// A set of roles, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleSet(u8);

impl RoleSet {
    const fn of(roles: &[Role]) -> Self {
        let (mut bits, mut place) = (0, 0);
        while place < roles.len() {
            bits |= 1 << roles[place] as u8;
            place += 1;
        }
        Self(bits)
    }

    /// Whether the set holds nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the set holds `role`.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }

    /// The roles in it.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }
}

/// What grants are about. Each command and each read of metadata is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// See stores, secrets' metadata, consumers and bindings.
    ReadMetadata,
    /// Make an account.
    ManageAccounts,
    /// Make and delete stores.
    ManageStores,
    /// Make, change, duplicate and delete secrets.
    ManageSecrets,
    /// Bind and unbind.
    Bind,
    /// Make and delete consumers and their tokens. With a token one reads what is bound, so Admin has it as little as `Bind`.
    ManageConsumers,
    /// Make, roll and revoke operators' tokens; make members, grant and revoke their roles.
    ManageTokens,
    /// Change an account's quota.
    SetQuota,
    /// Mint and rewrap data keys.
    ManageDataKeys,
    /// Move KEK epochs along.
    ManageKekEpochs,
    /// Register nodes and set signers.
    ManageNodes,
    /// Revoke a node.
    RevokeNode,
    /// Raise the feature level.
    RaiseLevel,
    /// Move log time and run steps of background jobs.
    Housekeep,
    /// Make and revoke join tokens.
    ManageJoinTokens,
    /// Enrol a node that showed a join token.
    EnrolNodes,
    /// Save the whole state as an archive.
    SaveSnapshots,
    /// Say which control nodes vote, and which one leads.
    ManageMembership,
    /// Replace the certificate authority, and end the belief in former ones.
    ManageAuthority,
    /// List operators' tokens and members.
    ReadTokens,
    /// Read the audit log. Entries show who works with what from where, so not even Reporter has it: a reviewer gets a token for it.
    ReadAudit,
    /// See nodes, join tokens and members of the cluster.
    ReadCluster,
}

/// One row of the table.
struct Row {
    /// Stands at its own place in the table, which a test checks.
    operation: Operation,
    name: &'static str,
    roles: RoleSet,
    permission: Permission,
    /// Whether a control node may do it by itself.
    nodes: bool,
}

const SUPER: RoleSet = RoleSet::of(&[Role::SuperAdministrator]);
const ADMIN: RoleSet = RoleSet::of(&[Role::SuperAdministrator, Role::Admin]);
const DEPLOY: RoleSet = RoleSet::of(&[Role::SuperAdministrator, Role::Deployer]);
const ALL: RoleSet = RoleSet::of(&Role::ALL);
const NONE: RoleSet = RoleSet::of(&[]);
const READ: Permission = Permission::Read;
const EDIT: Permission = Permission::Edit;

/// Shortens the table: operation, name, roles, permission, nodes.
const fn row(operation: Operation, name: &'static str, roles: RoleSet, permission: Permission, nodes: bool) -> Row {
    Row { operation, name, roles, permission, nodes }
}

/// The one table: operation, what it is called, roles that have it, the permission that it takes, and whether a control node may do it
/// unasked.
const TABLE: [Row; 22] = [
    row(Operation::ReadMetadata, "read metadata", ALL, READ, true),
    row(Operation::ManageAccounts, "manage accounts", SUPER, EDIT, false),
    row(Operation::ManageStores, "manage stores", ADMIN, EDIT, false),
    row(Operation::ManageSecrets, "manage secrets", ADMIN, EDIT, false),
    row(Operation::Bind, "bind", DEPLOY, EDIT, false),
    row(Operation::ManageConsumers, "manage consumers", DEPLOY, EDIT, false),
    row(Operation::ManageTokens, "manage tokens", SUPER, EDIT, false),
    row(Operation::SetQuota, "set quotas", SUPER, EDIT, false),
    row(Operation::ManageDataKeys, "manage data keys", ADMIN, EDIT, true),
    row(Operation::ManageKekEpochs, "manage KEK epochs", SUPER, EDIT, true),
    row(Operation::ManageNodes, "manage nodes", SUPER, EDIT, true),
    row(Operation::RevokeNode, "revoke nodes", SUPER, EDIT, false),
    row(Operation::RaiseLevel, "raise the feature level", SUPER, EDIT, true),
    row(Operation::Housekeep, "run housekeeping", NONE, EDIT, true),
    row(Operation::ManageJoinTokens, "manage join tokens", SUPER, EDIT, false),
    row(Operation::EnrolNodes, "enrol nodes", NONE, EDIT, true),
    row(Operation::SaveSnapshots, "save snapshots", SUPER, EDIT, false),
    row(Operation::ManageMembership, "manage the cluster's members", SUPER, EDIT, false),
    row(Operation::ManageAuthority, "replace the certificate authority", SUPER, EDIT, true),
    row(Operation::ReadTokens, "list tokens and members", SUPER, READ, false),
    row(Operation::ReadAudit, "read the audit log", SUPER, READ, false),
    row(Operation::ReadCluster, "see nodes and members of the cluster", SUPER, READ, false),
];

impl Operation {
    /// All operations, in the order of the table.
    pub const ALL: [Self; TABLE.len()] = {
        let (mut all, mut place) = ([Self::ReadMetadata; TABLE.len()], 0);
        while place < TABLE.len() {
            all[place] = TABLE[place].operation;
            place += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The roles that have it.
    pub fn roles(self) -> RoleSet {
        self.row().roles
    }

    /// The permission that a token needs for it.
    pub fn permission(self) -> Permission {
        self.row().permission
    }

    /// Whether a registered, unrevoked control node may do it by itself.
    pub fn open_to_nodes(self) -> bool {
        self.row().nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountId = AccountId::from_bytes([1; 16]);
    const B: AccountId = AccountId::from_bytes([2; 16]);
    const S: StoreId = StoreId::from_bytes([3; 16]);
    const T: StoreId = StoreId::from_bytes([4; 16]);

    #[test]
    fn table_rows_stand_at_their_operations() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.operation as usize, place, "{}", row.name);
        }
    }

    #[test]
    fn roles_have_what_the_seeds_say() {
        let target = GrantScope::Store(A, S);
        let cases = [
            (Role::SuperAdministrator, [true, true, true, true, true]),
            (Role::Admin, [true, true, true, false, false]),
            (Role::Deployer, [true, false, false, true, true]),
            (Role::Reporter, [true, false, false, false, false]),
        ];
        let operations =
            [Operation::ReadMetadata, Operation::ManageStores, Operation::ManageSecrets, Operation::Bind, Operation::ManageConsumers];
        for (role, allowed) in cases {
            let grant = Grant { role, scope: GrantScope::Account(A) };
            assert_eq!(operations.map(|operation| grant.allows(operation, target)), allowed, "{}", role.name());
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        for role in Role::ALL {
            assert!(!Operation::Housekeep.roles().contains(role));
        }
    }

    #[test]
    fn permission_read_allows_what_only_looks() {
        let everything = vec![Grant { role: Role::SuperAdministrator, scope: GrantScope::Cluster }];
        let (read, edit) = (Rights::new(Permission::Read, everything.clone(), &[]), Rights::new(Permission::Edit, everything, &[]));
        for operation in Operation::ALL {
            let looks = [Operation::ReadMetadata, Operation::ReadTokens, Operation::ReadAudit, Operation::ReadCluster].contains(&operation);
            assert_eq!(read.allows(operation, GrantScope::Store(A, S)), looks, "{}", operation.name());
            assert_eq!(edit.allows(operation, GrantScope::Store(A, S)), !operation.roles().is_empty(), "{}", operation.name());
        }
    }

    #[test]
    fn rights_within_a_reach_are_what_grants_and_reach_have_in_common() {
        let grant = |role, scope| Grant { role, scope };
        let grants = vec![grant(Role::Admin, GrantScope::Account(A)), grant(Role::Deployer, GrantScope::Cluster)];
        let within = |reach: &[GrantScope]| Rights::new(Permission::Edit, grants.clone(), reach).grants().to_vec();
        assert_eq!(within(&[]), grants);
        assert_eq!(within(&[GrantScope::Cluster]), grants);
        let store = GrantScope::Store(A, S);
        assert_eq!(within(&[store]), vec![grant(Role::Admin, store), grant(Role::Deployer, store)]);
        assert_eq!(within(&[GrantScope::Account(B)]), vec![grant(Role::Deployer, GrantScope::Account(B))]);
        assert_eq!(within(&[store, store]).len(), 2);
    }

    #[test]
    fn reach_covers_what_lies_within_it_only() {
        let reaches =
            [GrantScope::Cluster, GrantScope::Account(A), GrantScope::Account(B), GrantScope::Store(A, S), GrantScope::Store(A, T)];
        let expected = [
            [true, true, true, true, true],
            [false, true, false, true, true],
            [false, false, true, false, false],
            [false, false, false, true, false],
            [false, false, false, false, true],
        ];
        for (one, row) in reaches.into_iter().zip(expected) {
            assert_eq!(reaches.map(|other| one.covers(other)), row, "{one:?}");
        }
    }
}
