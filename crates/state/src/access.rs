//! Who may do what: roles, grants, and the one table of operations.
//!
//! A grant gives a role within a reach: the cluster, one account, or one store. An operation is allowed when one grant's role has
//! the operation in its row and the grant's reach covers what is touched. `apply` judges by this table, and the front door asks the
//! same table first, to save the work.

use serde::{Deserialize, Serialize};
use types::{AccountId, StoreId};

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

    /// Whether this grant allows `operation` on `target`.
    pub fn allows(&self, operation: Operation, target: GrantScope) -> bool {
        operation.roles().contains(self.role) && self.scope.covers(target)
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
    /// Make and revoke operators' tokens.
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
}

/// One row of the table.
struct Row {
    /// Stands at its own place in the table, which a test checks.
    #[cfg_attr(not(test), expect(dead_code, reason = "names the row"))]
    operation: Operation,
    name: &'static str,
    roles: RoleSet,
    /// Whether a control node may do it by itself.
    nodes: bool,
}

const SUPER: RoleSet = RoleSet::of(&[Role::SuperAdministrator]);
const ADMIN: RoleSet = RoleSet::of(&[Role::SuperAdministrator, Role::Admin]);
const DEPLOY: RoleSet = RoleSet::of(&[Role::SuperAdministrator, Role::Deployer]);
const ALL: RoleSet = RoleSet::of(&Role::ALL);
const NONE: RoleSet = RoleSet::of(&[]);

/// The one table: operation, roles that have it, and whether a control node may do it unasked.
const TABLE: [Row; 19] = [
    Row { operation: Operation::ReadMetadata, name: "read metadata", roles: ALL, nodes: true },
    Row { operation: Operation::ManageAccounts, name: "manage accounts", roles: SUPER, nodes: false },
    Row { operation: Operation::ManageStores, name: "manage stores", roles: ADMIN, nodes: false },
    Row { operation: Operation::ManageSecrets, name: "manage secrets", roles: ADMIN, nodes: false },
    Row { operation: Operation::Bind, name: "bind", roles: DEPLOY, nodes: false },
    Row { operation: Operation::ManageConsumers, name: "manage consumers", roles: DEPLOY, nodes: false },
    Row { operation: Operation::ManageTokens, name: "manage tokens", roles: SUPER, nodes: false },
    Row { operation: Operation::SetQuota, name: "set quotas", roles: SUPER, nodes: false },
    Row { operation: Operation::ManageDataKeys, name: "manage data keys", roles: ADMIN, nodes: true },
    Row { operation: Operation::ManageKekEpochs, name: "manage KEK epochs", roles: SUPER, nodes: true },
    Row { operation: Operation::ManageNodes, name: "manage nodes", roles: SUPER, nodes: true },
    Row { operation: Operation::RevokeNode, name: "revoke nodes", roles: SUPER, nodes: false },
    Row { operation: Operation::RaiseLevel, name: "raise the feature level", roles: SUPER, nodes: true },
    Row { operation: Operation::Housekeep, name: "run housekeeping", roles: NONE, nodes: true },
    Row { operation: Operation::ManageJoinTokens, name: "manage join tokens", roles: SUPER, nodes: false },
    Row { operation: Operation::EnrolNodes, name: "enrol nodes", roles: NONE, nodes: true },
    Row { operation: Operation::SaveSnapshots, name: "save snapshots", roles: SUPER, nodes: false },
    Row { operation: Operation::ManageMembership, name: "manage the cluster's members", roles: SUPER, nodes: false },
    Row { operation: Operation::ManageAuthority, name: "replace the certificate authority", roles: SUPER, nodes: true },
];

impl Operation {
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
