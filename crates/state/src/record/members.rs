//! Members, what tokens have beside their own grants, and the limits of accounts. Control only, since feature level 3.

use serde::{Deserialize, Serialize};
use types::UnixMillis;

use crate::{Grant, GrantScope, MemberRef, Permission, format::stored};

/// A member, under its home and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its roles, by rising order, each once; all within its home.
    pub grants: Vec<Grant>,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// When its roles were last changed, in log time.
    pub modified: UnixMillis,
}
stored!(MemberRecord, "a member record");

/// What an operator's token has beside its own grants, under the token's id. A token without this record has all that its own grants
/// allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTermsRecord {
    /// Whose roles it stands for; none: those of its own.
    pub member: Option<MemberRef>,
    /// What it may be used for.
    pub permission: Permission,
    /// What of the roles it is bounded to; empty: all of them.
    pub reach: Vec<GrantScope>,
}
stored!(TokenTermsRecord, "a token terms record");

/// Limits of an account, or the default for all; what is none is as the default says. Under the account, or the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// Operators' tokens of an account's own.
    pub tokens: Option<u32>,
    /// For how long a deleted secret can be brought back.
    pub undelete_window_ms: Option<u64>,
    /// Deleted secrets that are kept at the most.
    pub undelete_secrets: Option<u32>,
    /// Bytes of their sealed values at the most.
    pub undelete_bytes: Option<u64>,
}
stored!(LimitsRecord, "a limits record");

/// What an account, or (members only) the cluster, holds of what is bounded since feature level 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingsRecord {
    /// Operators' tokens of the account's own, expired ones included that were not cleared away.
    pub tokens: u32,
    /// Members at home there.
    pub members: u32,
    /// Deleted secrets that can be brought back.
    pub deleted_secrets: u32,
    /// Bytes of their sealed values.
    pub deleted_bytes: u64,
}
stored!(HoldingsRecord, "a holdings record");
