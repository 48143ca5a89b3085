//! `secret`: what is written, and how it changes.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

/// `secret`
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Create a secret; its value comes from stdin, a file or a hidden prompt
    Create {
        /// STORE/NAME
        #[arg(value_name = "STORE/NAME")]
        secret: String,
        /// Where it may be used: workers, ai_gateway, dex, access, containers, websearch; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", default_value = "workers", value_delimiter = ',')]
        scopes: Vec<String>,
        /// Free text
        #[arg(long, default_value = "", hide_default_value = true)]
        comment: String,
        /// When its value ends: 2026-12-31, 2026-12-31T09:30:00Z, or in how long, such as 90d. A reminder; nothing enforces it
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// How often it should get a new value, such as 90d. A reminder; nothing enforces it
        #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
        rotate_every: Option<Duration>,
        /// Read the value from this file; `-` is stdin
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Keep a trailing newline
        #[arg(long)]
        raw: bool,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Give a secret a new value
    Set {
        /// STORE/NAME or an id
        #[arg(value_name = "STORE/NAME")]
        secret: String,
        /// Only if the current version is this one
        #[arg(long, value_name = "VERSION")]
        cas: Option<u64>,
        /// Read the value from this file; `-` is stdin
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Keep a trailing newline
        #[arg(long)]
        raw: bool,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Change scopes, comment or reminders; never touches the value
    #[command(group = ArgGroup::new("change").args(["scopes", "comment", "expires", "rotate_every"]).required(true).multiple(true))]
    Edit {
        /// STORE/NAME or an id
        #[arg(value_name = "STORE/NAME")]
        secret: String,
        /// The new scopes, all of them; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
        scopes: Vec<String>,
        /// The new comment; empty clears it
        #[arg(long)]
        comment: Option<String>,
        /// When its value ends, in the forms of `create`; `never` takes the reminder away
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// How often it should get a new value; `never` takes the reminder away
        #[arg(long, value_name = "D")]
        rotate_every: Option<String>,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// The secrets of a store
    List {
        /// The store, by id or name
        store: String,
        /// Those that were deleted and can be brought back
        #[arg(long)]
        deleted: bool,
    },
    /// One secret's metadata
    Show {
        /// STORE/NAME or an id
        #[arg(value_name = "STORE/NAME")]
        secret: String,
    },
    /// The versions of a secret's value
    Versions {
        /// STORE/NAME or an id
        #[arg(value_name = "STORE/NAME")]
        secret: String,
    },
    /// Who reads it: the consumers and bindings that lead to it
    Usage {
        /// STORE/NAME or an id
        #[arg(value_name = "STORE/NAME")]
        secret: String,
    },
    /// Copy a secret's value under a new name in the same store
    Copy {
        /// STORE/NAME or an id of the source
        #[arg(value_name = "STORE/NAME")]
        source: String,
        /// STORE/NAME of the copy
        #[arg(value_name = "STORE/NEW-NAME")]
        target: String,
        /// The copy's scopes; the source's when left out
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
        scopes: Vec<String>,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Make an earlier version the current one again
    Rollback {
        /// STORE/NAME or an id
        #[arg(value_name = "STORE/NAME")]
        secret: String,
        /// The version that becomes current again
        #[arg(value_name = "VERSION")]
        to: u64,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Delete a secret; for a while it can be brought back
    Delete {
        /// STORE/NAME or an id
        #[arg(value_name = "STORE/NAME")]
        secret: String,
        /// Also when consumers are bound to it
        #[arg(long)]
        force: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Bring a deleted secret back, with its id and its versions: bindings to it work again
    Undelete {
        /// STORE/NAME or STORE/ID
        #[arg(value_name = "STORE/NAME")]
        secret: String,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Destroy what could be brought back of a deleted secret, or one version that is not current
    Destroy {
        /// STORE/NAME or STORE/ID
        #[arg(value_name = "STORE/NAME")]
        secret: String,
        /// This version of a secret that is not deleted
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        exact: Option<u64>,
        /// Don't ask
        #[arg(long)]
        yes: bool,
        /// Wait until it is live at every edge
        #[arg(long)]
        wait: bool,
    },
    /// Create many secrets: from a file of names and values, all or none; or after another store, seen through its API
    Import(ImportArgs),
}

/// `secret import`
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The store, by id or name
    pub store: String,
    /// NAME=VALUE lines as in `.env` and `.dev.vars`, or JSON; `-` is stdin. With --from-api: the values of the names that are found there
    #[arg(value_name = "FILE", required_unless_present = "from_api")]
    pub file: Option<PathBuf>,
    /// How to read the file, when its beginning does not tell
    #[arg(long = "as", value_name = "FORM", value_enum)]
    pub form: Option<FileForm>,
    /// Where the secrets may be used, when the file does not say; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", default_value = "workers", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// Free text for each secret that has none in the file
    #[arg(long, default_value = "", hide_default_value = true)]
    pub comment: String,
    /// Give those that exist a new value, after the others have been created; without it one that exists refuses all
    #[arg(long)]
    pub update: bool,
    /// Change nothing; show by name what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Take names, scopes and comments from a store behind this API, such as https://HOST/client/v4; no API returns values
    #[arg(long, value_name = "URL", requires_all = ["from_account", "from_store"])]
    pub from_api: Option<String>,
    /// The account there, by id
    #[arg(long, value_name = "ACCOUNT", requires = "from_api")]
    pub from_account: Option<String>,
    /// The store there, by id
    #[arg(long, value_name = "STORE", requires = "from_api")]
    pub from_store: Option<String>,
    /// The API token's file, `-` is stdin; without it `CLOUDFLARE_API_TOKEN`, else a terminal is asked, unseen
    #[arg(long, value_name = "FILE", requires = "from_api")]
    pub api_token_file: Option<PathBuf>,
    /// CA certificates to believe there, in place of the system's
    #[arg(long, value_name = "FILE", requires = "from_api")]
    pub ca: Option<PathBuf>,
    /// Wait until all is live at every edge
    #[arg(long)]
    pub wait: bool,
}

/// The form of a file of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileForm {
    /// Lines NAME=VALUE.
    Env,
    /// An object of names and values, or an array of objects with name, value, scopes and comment.
    Json,
}
