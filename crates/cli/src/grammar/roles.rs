//! `role` and `token`: who may command the cluster, and by what.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};

/// `role`
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Members with their roles: of the cluster, or those at home in an account (-a)
    List {
        /// Only this member
        member: Option<String>,
    },
    /// Give a member a role; one that is new is made a member by it
    Grant {
        /// The member's name, such as an e-mail address; at home in the cluster, or in an account (-a)
        member: String,
        /// Roles: super-administrator, admin, deployer, reporter; within the member's home, or an account, or a store
        #[arg(value_name = "ROLE[@ACCOUNT[/STORE]]")]
        role: String,
    },
    /// Take a role from a member; it counts at once, for all its tokens
    Revoke {
        /// The member's name
        member: String,
        /// As it was granted
        #[arg(value_name = "ROLE[@ACCOUNT[/STORE]]", required_unless_present = "all")]
        role: Option<String>,
        /// All roles: the member is deleted, and its tokens are void
        #[arg(long, conflicts_with = "role")]
        all: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// What a token permits of what its roles allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Permission {
    /// To read metadata.
    Read,
    /// To read and to change.
    Edit,
}

/// `token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for a person or a pipeline; shown once
    Create {
        /// Who holds it, for the audit log
        #[arg(required_unless_present = "member", requires = "grants")]
        name: Option<String>,
        /// A role, of the whole cluster or within ACCOUNT or ACCOUNT/STORE; may be repeated. Roles: super-administrator, admin, deployer, reporter
        #[arg(long = "grant", value_name = "ROLE[@ACCOUNT[/STORE]]")]
        grants: Vec<String>,
        /// A token of this member: with the roles that the member has whenever it is used
        #[arg(long, value_name = "MEMBER", conflicts_with_all = ["name", "grants"])]
        member: Option<String>,
        /// What it permits of what its roles allow
        #[arg(long, value_enum, default_value = "edit")]
        permission: Permission,
        /// Only within this account or store; may be repeated
        #[arg(long = "reach", value_name = "ACCOUNT[/STORE]")]
        reach: Vec<String>,
        /// For how long it is good; else for ever
        #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
    },
    /// Tokens, without the tokens
    List,
    /// Make a token in the place of one, with all that this one allows; shown once
    Roll {
        /// Its id; or its name, where no other token has it
        token: String,
        /// The new token has the id of the old one, which is void at once
        #[arg(long, conflicts_with = "grace")]
        keep_id: bool,
        /// How long the old one still works; it ends at once when left out
        #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        /// For how long the new one is good; until the old one would have ended when left out
        #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
    },
    /// Void a token; every control node refuses it from then on
    Revoke {
        /// Its id; or its name, where no other token has it
        token: String,
    },
}
