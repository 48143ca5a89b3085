//! `audit`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Who did what, newest first
    List(AuditList),
    /// Write the log to a file, or to stdout: JSON, one entry a line, with what proves that none is missing
    Export(AuditExport),
    /// Check an exported file, without a cluster: names each entry that was removed, changed, moved or doubled
    Verify(AuditVerify),
}

/// Which entries
#[derive(Debug, Clone, Default, Args)]
pub struct AuditFilters {
    /// Of this time or later: 2026-11-22, 2026-11-22T09:30:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this time, in the same forms
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// What was done, such as set-value; may be given several times
    #[arg(long = "action", value_name = "ACTION")]
    pub actions: Vec<String>,
    /// Who: the name under which the token was made; or node:ID, system, unknown
    #[arg(long, value_name = "NAME")]
    pub principal: Option<String>,
    /// The token with which it was done, or which it was done to, by its id
    #[arg(long, value_name = "ID")]
    pub token: Option<String>,
    /// To this store, by id or name
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// To this secret: STORE/NAME, or an id, also of one that is gone
    #[arg(long, value_name = "SECRET", conflicts_with = "store")]
    pub secret: Option<String>,
    /// How it ended: done, refused, noted, or a kind of refusal such as denied
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Option<String>,
    /// Under this request id
    #[arg(long, value_name = "ID")]
    pub request: Option<String>,
    /// From an address that begins so, or under this label of the logs
    #[arg(long, value_name = "TEXT")]
    pub origin: Option<String>,
}

/// `audit list`
#[derive(Debug, Args)]
pub struct AuditList {
    /// Which entries
    #[command(flatten)]
    pub filters: AuditFilters,
    /// So many
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: u32,
    /// The oldest first
    #[arg(long)]
    pub oldest_first: bool,
    /// Go on where a list ended: the cursor that it printed
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// `audit export`
#[derive(Debug, Args)]
pub struct AuditExport {
    /// The file; stdout when left out, or `-`
    pub file: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(long)]
    pub force: bool,
    /// Which entries. With any filter but a time the file cannot be verified
    #[command(flatten)]
    pub filters: AuditFilters,
}

/// `audit verify`
#[derive(Debug, Args)]
pub struct AuditVerify {
    /// The file; `-` is stdin
    pub file: PathBuf,
    /// The newest entry as it was noted elsewhere, from `audit list` or an earlier check: it has to be in the file
    #[arg(long, value_name = "SEQUENCE:HASH")]
    pub head: Option<String>,
    /// Believe only this node's key, 64 hex digits, as an earlier check showed it; may be given several times
    #[arg(long = "signer", value_name = "NODE:KEY")]
    pub signers: Vec<String>,
}
