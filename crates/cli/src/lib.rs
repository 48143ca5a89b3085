//! The operator's command line: grammar, contexts, output, and the operator commands on top of the typed client.
//!
//! [`Cli`] is the whole grammar. `main` matches on [`Command`]: servers, `dev` and `bench` are run by the binary, all else by
//! [`run`]. Results go to stdout, talk goes to stderr; a failure ends with one of the exit codes of [`Failure`].
//!
//! **Invariants**
//! 1. A secret's value comes from a file, a pipe or a hidden prompt ([`value`]), never from an argument, and is wiped after use.
//! 2. A context file holds tokens, so it is written with mode 0600 and refused when others can read it.
//! 3. The JSON output has no field that the table lacks a source for, and never a value or token except where the command's
//!    purpose is to show one once (`get`, `consumer token create`).

mod commands;
mod context;
mod failure;
mod grammar;
mod import;
mod keyboard;
mod output;
pub mod value;

pub use commands::{audit_file, run};
pub use context::{Context, ContextError, Contexts, EdgeContext};
pub use failure::Failure;
pub use grammar::{
    AccountCommand, AliasSecretCommand, AliasStoreCommand, AuditCommand, AuditExport, AuditFilters, AuditList, AuditVerify, BenchCommand,
    BenchCommon, BenchLookup, BenchPropagate, BenchScale, BenchWrite, BindingCommand, CaCommand, Cli, ClusterCommand, ClusterInit, Command,
    ConfigCommand, ConsumerCommand, ConsumerTokenCommand, ContextCommand, DevArgs, FileForm, Format, Global, ImportArgs, JoinTokenCommand,
    LevelArgs, LevelCommand, LookupArgs, NodeCommand, NodeKind, PageArgs, Permission, Place, QuotaCommand, RoleCommand, SecretCommand,
    SecretsStoreCommand, ServerArgs, SnapshotCommand, SnapshotRestore, SnapshotVerify, StoreCommand, TokenCommand, ValueArgs, Which,
};
pub use import::imported;
pub use keyboard::Keyboard;
pub use output::Output;
