//! `snapshot`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `snapshot`
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save the whole state as one sealed file
    Save {
        /// The file, such as backup.cbsnap
        file: PathBuf,
        /// Replace the file if there is one
        #[arg(long)]
        force: bool,
    },
    /// Check a saved file; with a key also what is sealed in it
    Verify(SnapshotVerify),
    /// Make a control node's data folder from a saved file, for a new beginning of its cluster
    Restore(SnapshotRestore),
}

/// `snapshot verify`
#[derive(Debug, Args)]
pub struct SnapshotVerify {
    /// The file
    pub file: PathBuf,
    /// Open it with the recovery key in this file; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,
    /// Open it with a control node's envelope key in this file
    #[arg(long, value_name = "FILE", conflicts_with = "recovery_key_file")]
    pub key_file: Option<PathBuf>,
    /// Believe only the cluster whose first signer set has this hash, as `cluster init` and `snapshot save` show it
    #[arg(long, value_name = "HASH")]
    pub signers: Option<String>,
    /// With the recovery key: accept also an archive that the key does not prove to be of its cluster
    #[arg(long, conflicts_with = "signers")]
    pub trust_archive: bool,
}

/// `snapshot restore`
#[derive(Debug, Args)]
pub struct SnapshotRestore {
    /// The file
    pub file: PathBuf,
    /// The configuration of the control node to be; its data folder must be empty or absent
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Read the recovery key from this file; `-` is stdin. Asked for on a terminal when left out
    #[arg(long, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,
    /// Go on as the same cluster in a new generation, which its edges follow; this is the default
    #[arg(long, conflicts_with = "new_cluster")]
    pub new_generation: bool,
    /// Begin with a new certificate authority and without any of the former nodes: edges have to be enrolled anew
    #[arg(long)]
    pub new_cluster: bool,
    /// Believe only the cluster whose first signer set has this hash, and not what the recovery key has signed
    #[arg(long, value_name = "HASH")]
    pub signers: Option<String>,
    /// Restore also an archive that nothing proves to be of the recovery key's cluster
    #[arg(long, conflicts_with = "signers")]
    pub trust_archive: bool,
}
