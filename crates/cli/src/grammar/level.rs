//! `cluster level`: what is in force, and the step to the next.

use clap::{Args, Subcommand};

/// `cluster level`
#[derive(Debug, Args)]
pub struct LevelArgs {
    /// What to do with it; without one it is shown
    #[command(subcommand)]
    pub command: Option<LevelCommand>,
}

/// `cluster level raise`
#[derive(Debug, Subcommand)]
pub enum LevelCommand {
    /// Raises the feature level by one; there is no way back
    Raise {
        /// The level to be in force, so that nothing is raised twice; absent stands for the next
        #[arg(long, value_name = "N")]
        to: Option<u32>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}
