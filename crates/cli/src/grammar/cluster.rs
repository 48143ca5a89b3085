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
