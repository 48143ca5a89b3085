//! `cluster`: founding one, and who is in it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::LevelArgs;

/// `cluster`
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make the identity and keys of a new cluster's first control node; nothing has to run
    Init(ClusterInit),
    /// The feature level in force, who knows which, and the step to the next
    Level(LevelArgs),
    /// The control nodes as the leader sees them: who votes, how far each is
    Status,
    /// The control nodes that vote and learn, as the node that is asked knows them
    Members,
    /// Give a registered control node the log, without a vote; or give a member another address
    Add {
        /// Its name or number
        node: String,
        /// Where others reach it, if not where it said itself
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
    },
    /// Let a control node that has caught up vote
    Promote {
        /// Its name or number
        node: String,
    },
    /// Take a control node out of the members
    Remove {
        /// Its name or number
        node: String,
        /// Also when the voters that remain cannot make a majority now
        #[arg(long)]
        force: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Hand leadership over
    Transfer {
        /// The voter that is to lead; else the one that has come furthest
        node: Option<String>,
    },
}

/// `cluster init`
#[derive(Debug, Args)]
pub struct ClusterInit {
    /// The first control node's TOML file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Write the recovery key into this new file, mode 0600, and do not show it
    #[arg(long, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,
}
