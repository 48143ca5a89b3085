//! `cluster`: founding one, and who is in it.

use std::{path::PathBuf, time::Duration};

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
    /// The certificate authority: which are believed, its replacement
    #[command(subcommand)]
    Ca(CaCommand),
    /// Hand leadership over
    Transfer {
        /// The voter that is to lead; else the one that has come furthest
        node: Option<String>,
    },
}

/// `cluster ca`
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// The authorities that are believed, and the nodes without a certificate by the one that issues
    Show,
    /// Replace the authority: all nodes trade their certificates, the one before is believed for a while
    Rotate {
        /// How long the one before is believed at least
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        keep: Option<Duration>,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// End the belief in former authorities now
    Finish {
        /// Also while nodes have no certificate by the new one
        #[arg(long)]
        force: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
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
