//! `node`: who may be part of the cluster.

use std::{path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodeKind {
    /// Takes writes and feeds edges.
    Control,
    /// Holds keys and serves lookups.
    Edge,
    /// Feeds others and holds no key.
    Relay,
}

/// `node`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// All nodes, revoked ones included
    List,
    /// Tokens by which new nodes join
    #[command(subcommand)]
    Token(JoinTokenCommand),
    /// Shut a node out for good: its streams are cut, and all keys that it could open are replaced
    Revoke {
        /// Its name or number
        node: String,
        /// Of a control node whose disk nobody has: don't replace the certificate authority
        #[arg(long)]
        keep_authority: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// The secrets of which a node can open values, or could before it was revoked
    Exposure {
        /// Its name or number
        node: String,
    },
}

/// `node token`
#[derive(Debug, Subcommand)]
pub enum JoinTokenCommand {
    /// Make a token by which a new node joins; shown once
    Create {
        /// What the node will be
        #[arg(value_enum)]
        role: NodeKind,
        /// The name that the node gets, whatever it asks for
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// A label that nodes get; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// How many nodes may join by it
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// For how long it is good; at most 30 days
        #[arg(long, default_value = "1h", value_name = "D", value_parser = humantime::parse_duration)]
        expires_in: Duration,
        /// Write the token into this new file, mode 0600, and do not show it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Join tokens, and what became of them
    List,
    /// Void a join token; nodes that joined by it stay
    Revoke {
        /// Its id
        token: String,
    },
}
