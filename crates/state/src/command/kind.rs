//! Kinds of commands, by number and name.

use std::fmt;

use serde::{Deserialize, Serialize};
use types::FeatureLevel;

macro_rules! kinds {
    ($($kind:ident = $number:literal, $name:literal;)*) => {
        /// What kind of command it is. Numbers are stored, in commands and in audit entries; they are only ever added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u16", into = "u16")]
        #[allow(missing_docs, reason = "named for the bodies")]
        pub enum CommandKind {
            $($kind = $number,)*
        }

        impl CommandKind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The kind's name in logs and audit entries.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    InitCluster = 1, "init-cluster";
    CreateAccount = 2, "create-account";
    CreateStore = 3, "create-store";
    DeleteStore = 4, "delete-store";
    CreateSecrets = 5, "create-secrets";
    SetValue = 6, "set-value";
    EditSecret = 7, "edit-secret";
    DeleteSecrets = 8, "delete-secrets";
    DuplicateSecret = 9, "duplicate-secret";
    MovePointer = 10, "move-pointer";
    ResealValue = 11, "reseal-value";
    CreateConsumer = 12, "create-consumer";
    DeleteConsumer = 13, "delete-consumer";
    CreateConsumerToken = 14, "create-consumer-token";
    RollConsumerToken = 15, "roll-consumer-token";
    RevokeConsumerToken = 16, "revoke-consumer-token";
    Bind = 17, "bind";
    Unbind = 18, "unbind";
    MintDek = 19, "mint-dek";
    RewrapDeks = 20, "rewrap-deks";
    KekEpoch = 21, "kek-epoch";
    RegisterNode = 22, "register-node";
    RevokeNode = 23, "revoke-node";
    SetSignerSet = 24, "set-signer-set";
    CreateOperatorToken = 25, "create-operator-token";
    RevokeOperatorToken = 26, "revoke-operator-token";
    SetQuota = 27, "set-quota";
    RaiseFeatureLevel = 28, "raise-feature-level";
    Tick = 29, "tick";
    Step = 30, "step";
    CreateJoinToken = 31, "create-join-token";
    RevokeJoinToken = 32, "revoke-join-token";
    EnrolNode = 33, "enrol-node";
    UpdateNode = 34, "update-node";
    EditQuota = 35, "edit-quota";
    RotateAuthority = 36, "rotate-authority";
    FinishAuthority = 37, "finish-authority";
    NoteCertificate = 38, "note-certificate";
    NoteMembership = 39, "change-membership";
    BeginGeneration = 40, "begin-generation";
    CreateMember = 41, "create-member";
    DeleteMember = 42, "delete-member";
    GrantRole = 43, "grant-role";
    RevokeRole = 44, "revoke-role";
    CreateToken = 45, "create-token";
    RollOperatorToken = 46, "roll-operator-token";
    EditLimits = 47, "edit-limits";
    Undelete = 48, "undelete-secret";
    Destroy = 49, "destroy-secret";
    CreateWithReminders = 50, "create-secrets-with-reminders";
    EditWithReminder = 51, "edit-secret-with-reminder";
    NoteCalls = 60, "note-calls";
    RevokeLostNode = 61, "revoke-lost-node";
}

impl CommandKind {
    /// The feature level that has to be in force for it.
    pub const fn level(self) -> FeatureLevel {
        match self {
            Self::EditQuota => FeatureLevel::new(2),
            Self::CreateMember
            | Self::DeleteMember
            | Self::GrantRole
            | Self::RevokeRole
            | Self::CreateToken
            | Self::RollOperatorToken
            | Self::EditLimits
            | Self::Undelete
            | Self::Destroy
            | Self::CreateWithReminders
            | Self::EditWithReminder
            | Self::NoteCalls
            | Self::RevokeLostNode => FeatureLevel::new(3),
            _ => FeatureLevel::new(1),
        }
    }

    /// The stored number.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The kind of a stored number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.number() == number)
    }
}

impl TryFrom<u16> for CommandKind {
    type Error = String;
    fn try_from(number: u16) -> Result<Self, String> {
        Self::from_number(number).ok_or_else(|| format!("unknown kind of command {number}"))
    }
}

impl From<CommandKind> for u16 {
    fn from(kind: CommandKind) -> Self {
        kind.number()
    }
}

impl fmt::Display for CommandKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}
