//! The grammar: noun, then verb.

mod audit;
mod bench;
mod cluster;
mod level;
mod nodes;
mod roles;
mod secret;
mod secrets_store;
mod snapshot;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use audit::{AuditCommand, AuditExport, AuditFilters, AuditList, AuditVerify};
pub use bench::{BenchCommand, BenchCommon, BenchLookup, BenchPropagate, BenchScale, BenchWrite};
pub use cluster::{CaCommand, ClusterCommand, ClusterInit};
pub use level::{LevelArgs, LevelCommand};
pub use nodes::{JoinTokenCommand, NodeCommand, NodeKind};
pub use roles::{Permission, RoleCommand, TokenCommand};
pub use secret::{FileForm, ImportArgs, SecretCommand};
pub use secrets_store::{AliasSecretCommand, AliasStoreCommand, PageArgs, Place, SecretsStoreCommand, ValueArgs, Which};
pub use snapshot::{SnapshotCommand, SnapshotRestore, SnapshotVerify};

/// Secrets for every server: a replicated control plane, and a full encrypted copy at every edge.
#[derive(Debug, Parser)]
#[command(name = "cinnabar", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Start here: `cinnabar dev` runs a whole cluster on this machine.\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 conflict, 6 unavailable (try again), 7 deadline passed.")]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Which cluster and credential to use; `context list` shows them
    #[arg(short = 'c', long, global = true, env = "CINNABAR_CONTEXT", value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The account, by id or name, if not the context's own
    #[arg(short = 'a', long, global = true, env = "CINNABAR_ACCOUNT", value_name = "ACCOUNT")]
    pub account: Option<String>,
    /// How to print results
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print results only
    #[arg(short = 'q', long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more on stderr
    #[arg(short = 'v', long, global = true)]
    pub verbose: bool,
    /// Give up after this long
    #[arg(long, global = true, default_value = "30s", value_name = "D", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one stable, documented JSON value.
    Json,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster in this process: one control node and two edges, on loopback
    Dev(DevArgs),
    /// Secrets: write, change, copy, roll back, import; who reads them
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Stores, which hold secrets
    #[command(subcommand)]
    Store(StoreCommand),
    /// Let a consumer read a secret, or a whole store
    Bind {
        /// The consumer, such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
        /// The name it reads under, and the secret: VAR=STORE/NAME; VAR alone binds the secret of that name in `default`
        #[arg(value_name = "VAR[=STORE/NAME]", required_unless_present = "store")]
        binding: Option<String>,
        /// Bind every secret of this store instead
        #[arg(long, conflicts_with = "binding")]
        store: Option<String>,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Take a binding away
    Unbind {
        /// The consumer, such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
        /// The binding's name
        #[arg(value_name = "VAR", required_unless_present = "store")]
        binding: Option<String>,
        /// Take the binding of this store away
        #[arg(long, conflicts_with = "binding")]
        store: Option<String>,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// What is bound to whom
    #[command(subcommand)]
    Binding(BindingCommand),
    /// Who reads: workers, containers, gateways
    #[command(subcommand)]
    Consumer(ConsumerCommand),
    /// Look a secret up at an edge, as the consumer does
    Get(LookupArgs),
    /// Print each new version of a binding as it arrives at an edge
    Watch(LookupArgs),
    /// Clusters and credentials that this user has, for these commands and for wrangler
    #[command(subcommand)]
    Context(ContextCommand),
    /// Give the context in force another token, once the cluster has accepted it
    Login {
        /// Read the token from stdin, also when that is a terminal; without it a terminal is asked, unseen
        #[arg(long)]
        token_stdin: bool,
    },
    /// Who the context's token is, and what it may do
    Whoami,
    /// Accounts, which own stores and consumers
    #[command(subcommand)]
    Account(AccountCommand),
    /// How much of its limits an account uses
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Members, people and pipelines, and what they may do
    #[command(subcommand)]
    Role(RoleCommand),
    /// Tokens of people and pipelines
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who did what: the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The same with wrangler's commands and options: locally, or with --remote in the context in force
    #[command(subcommand)]
    SecretsStore(SecretsStoreCommand),
    /// The control node and every edge: position, lag, age
    Status,
    /// All nodes of the cluster: where each is connected, how far it is, when it was last heard of
    Fleet,
    /// The cluster: found it, who votes and who leads, its certificate authority, its feature level
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Nodes of the cluster: who is in, how others get in, and how one is shut out
    #[command(subcommand)]
    Node(NodeCommand),
    /// Save, verify and restore the whole state
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Run a control node
    Control(ServerArgs),
    /// Run an edge node
    Edge(ServerArgs),
    /// Check or show a server's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure this machine: lookups, writes, propagation
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `dev`
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where the cluster keeps its data
    #[arg(long, default_value = ".cinnabar/dev", value_name = "DIR")]
    pub data: PathBuf,
    /// How many edges
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub edges: u16,
    /// Prove that it works, then exit; the default without a terminal
    #[arg(long)]
    pub once: bool,
    /// Serve until a signal comes, with or without a terminal
    #[arg(long, conflicts_with = "once")]
    pub serve: bool,
    /// Only write keys, certificates and configuration files into the data folder, for `control` and `edge`
    #[arg(long, conflicts_with_all = ["once", "serve"])]
    pub prepare: bool,
}

/// `control` and `edge`
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The server's TOML file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a file is a valid configuration, and if not, where and why
    Check {
        /// The file
        file: PathBuf,
        /// Which server it is for
        #[arg(long, value_parser = ["control", "edge"])]
        role: String,
    },
    /// Print what is in force: the file's settings over the defaults
    Show {
        /// The file
        file: PathBuf,
        /// Which server it is for
        #[arg(long, value_parser = ["control", "edge"])]
        role: String,
    },
}

/// `context`
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// All contexts; the one in force is marked
    List,
    /// Make a context the one in force
    Use {
        /// Its name
        name: String,
    },
    /// Add a context, or replace one; the token is read from stdin or a hidden prompt
    Add {
        /// Its name
        name: String,
        /// The control node, as HOST:PORT
        #[arg(long, value_name = "HOST:PORT")]
        control: String,
        /// The cluster's CA certificate
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
    },
    /// Give a context another CA file, after it has missed the replacement of the cluster's certificate authority
    Ca {
        /// Its name
        name: String,
        /// The CA certificates, such as `identity/ca.pem` of a control node
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
    },
    /// Remove a context and its token
    Remove {
        /// Its name
        name: String,
    },
    /// Run a command that finds the context in its environment, as wrangler, the SDKs and Terraform read it
    Exec {
        /// The command, after `--`
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
    /// Print the same environment for a shell: eval "$(cinnabar context env)". A terminal is not shown the token
    Env,
}

/// `account`
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Create an account
    Create {
        /// Its name
        name: String,
    },
    /// All accounts this token may see
    List,
    /// One account
    Show {
        /// By id or name; the context's own when left out
        account: Option<String>,
    },
}

/// `store`
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Create a store
    Create {
        /// Its name, unique in the account
        name: String,
    },
    /// The account's stores
    List,
    /// One store
    Show {
        /// By id or name
        store: String,
    },
    /// Delete a store
    Delete {
        /// By id or name
        store: String,
        /// Also when it holds secrets, and also when they are bound
        #[arg(long)]
        force: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
}

/// `quota`
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// Limits and use
    Show,
    /// Change the account's limits
    Set {
        /// Secrets in the account
        #[arg(long)]
        secrets: Option<u32>,
        /// Stores in the account
        #[arg(long)]
        stores: Option<u32>,
        /// Bytes of a value
        #[arg(long)]
        value_bytes: Option<u32>,
        /// Tokens of the account's own
        #[arg(long)]
        tokens: Option<u32>,
        /// For how long a deleted secret can be brought back; 0s is not at all
        #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
        undelete_window: Option<Duration>,
        /// Deleted secrets that are kept at the most
        #[arg(long)]
        undelete_secrets: Option<u32>,
        /// Bytes of their sealed values at the most
        #[arg(long)]
        undelete_bytes: Option<u64>,
        /// For all accounts that have no such limit of their own
        #[arg(long, conflicts_with_all = ["account", "secrets", "stores", "value_bytes"])]
        all_accounts: bool,
    },
}

/// `binding`
#[derive(Debug, Subcommand)]
pub enum BindingCommand {
    /// The bindings of the account, or of one consumer
    List {
        /// The consumer, such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: Option<String>,
    },
}

/// `consumer`
#[derive(Debug, Subcommand)]
pub enum ConsumerCommand {
    /// Create a consumer
    Create {
        /// Such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
    },
    /// The account's consumers
    List,
    /// Delete a consumer with its bindings and tokens
    Delete {
        /// Such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Tokens, by which a consumer shows who it is
    #[command(subcommand)]
    Token(ConsumerTokenCommand),
}

/// `consumer token`
#[derive(Debug, Subcommand)]
pub enum ConsumerTokenCommand {
    /// Create a token; it is printed once
    Create {
        /// Such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
        /// Until when it is valid, counted from now; for ever when left out
        #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Replace a token by a new one, which is printed once
    Roll {
        /// Such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
        /// The token's id
        token: String,
        /// How long the old one still works; it ends at once when left out
        #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Revoke a token
    Revoke {
        /// Such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
        /// The token's id
        token: String,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// A consumer's tokens, by their ids
    List {
        /// Such as worker/web
        #[arg(value_name = "KIND/NAME")]
        consumer: String,
    },
}

/// `get` and `watch`
#[derive(Debug, Clone, Args)]
pub struct LookupArgs {
    /// The consumer, such as worker/web
    #[arg(value_name = "KIND/NAME")]
    pub consumer: String,
    /// The binding's name
    #[arg(value_name = "VAR")]
    pub binding: String,
    /// The secret's name, when the binding is to a store
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,
    /// The version before the current one, for who still needs it while a value is being replaced
    #[arg(long, conflicts_with = "exact")]
    pub previous: bool,
    /// This version exactly
    #[arg(long, value_name = "VERSION")]
    pub exact: Option<u64>,
    /// Which edge: a name from the context, whose first one it is when left out, or the path of a socket on this machine
    #[arg(long, value_name = "EDGE")]
    pub edge: Option<String>,
    /// Only from a state at least here, such as 1.42
    #[arg(long, value_name = "POSITION")]
    pub min_position: Option<String>,
    /// Only from a state at most this old
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    pub max_age: Option<Duration>,
    /// Read the consumer's token from this file; without it the socket's peer user decides
    #[arg(long, value_name = "FILE", env = "CINNABAR_CONSUMER_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the value alone, without a newline after it
    #[arg(long)]
    pub raw: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn grammar_is_consistent() {
        // Built, so that what is propagated to subcommands is checked too.
        let mut command = Cli::command();
        command.build();
        command.debug_assert();
    }

    #[test]
    fn secret_values_have_no_argument() {
        let refused = Cli::try_parse_from(["cinnabar", "secret", "create", "default/A", "--value", "x"]);
        assert!(refused.is_err());
    }
}
