//! `secrets-store`: the commands that wrangler has, with its options.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `secrets-store`
#[derive(Debug, Subcommand)]
pub enum SecretsStoreCommand {
    /// Stores
    #[command(subcommand)]
    Store(AliasStoreCommand),
    /// Secrets
    #[command(subcommand)]
    Secret(AliasSecretCommand),
    /// How many secrets the account has, and may have
    Quota {
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
}

/// Which cluster a command is for.
#[derive(Debug, Clone, Copy, Args)]
pub struct Place {
    /// In the cluster of the context in force; without it in that of `cinnabar dev` on this machine
    #[arg(long)]
    pub remote: bool,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, Args)]
pub struct PageArgs {
    /// Which page, counted from 1
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub page: u32,
    /// How many to a page; all when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_page: Option<u32>,
}

/// `secrets-store store`
#[derive(Debug, Subcommand)]
pub enum AliasStoreCommand {
    /// Create a store
    Create {
        /// Its name, unique in the account
        name: String,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
    /// The account's stores
    List {
        /// Which part
        #[command(flatten)]
        page: PageArgs,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
    /// Delete a store that holds no secrets
    Delete {
        /// By id or name
        store: String,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
}

/// A secret of a store.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The secret's id
    #[arg(long, value_name = "ID")]
    pub secret_id: Option<String>,
    /// The secret's name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Args)]
pub struct ValueArgs {
    /// The value; it stays in the shell's history and in the list of processes: pipe it in instead
    #[arg(long, visible_alias = "new-value", value_name = "VALUE", conflicts_with = "file")]
    pub value: Option<String>,
    /// Read the value from this file; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `secrets-store secret`
#[derive(Debug, Subcommand)]
pub enum AliasSecretCommand {
    /// Create a secret; its value comes from stdin, or is asked for
    Create {
        /// The store, by id or name
        store: String,
        /// The secret's name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Where it may be used, with commas between
        #[arg(long, default_value = "workers", value_delimiter = ',')]
        scopes: Vec<String>,
        /// Free text
        #[arg(long, default_value = "", hide_default_value = true)]
        comment: String,
        /// Its value
        #[command(flatten)]
        value: ValueArgs,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
    /// The secrets of a store
    List {
        /// The store, by id or name
        store: String,
        /// Which part
        #[command(flatten)]
        page: PageArgs,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
    /// One secret's metadata
    Get {
        /// The store, by id or name
        store: String,
        /// Which secret
        #[command(flatten)]
        which: Which,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
    /// Change a secret: its value from stdin or a prompt, unless only scopes or comment are given
    Update {
        /// The store, by id or name
        store: String,
        /// Which secret
        #[command(flatten)]
        which: Which,
        /// The new scopes, all of them, with commas between
        #[arg(long, value_delimiter = ',')]
        scopes: Vec<String>,
        /// The new comment; empty clears it
        #[arg(long)]
        comment: Option<String>,
        /// Its new value
        #[command(flatten)]
        value: ValueArgs,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
    /// Delete a secret that nothing is bound to
    Delete {
        /// The store, by id or name
        store: String,
        /// Which secret
        #[command(flatten)]
        which: Which,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
    /// Copy a secret under another name
    Duplicate {
        /// The store, by id or name
        store: String,
        /// The source's id
        #[arg(long, value_name = "ID")]
        secret_id: Option<String>,
        /// With --secret-id the copy's name; with --new-name the source's
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// The copy's name
        #[arg(long, value_name = "NAME")]
        new_name: Option<String>,
        /// The copy's scopes, with commas between; the source's when left out
        #[arg(long, value_delimiter = ',')]
        scopes: Vec<String>,
        /// The copy's comment
        #[arg(long, default_value = "", hide_default_value = true)]
        comment: String,
        /// Which cluster
        #[command(flatten)]
        place: Place,
    },
}
