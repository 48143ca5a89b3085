//! Where a Cinnabar process touches the world: configuration, telemetry, signals, the real clock and disk, sockets and TLS.
//!
//! Everything else is written against `seams` and gets what is here as arguments. A server's `main` uses this crate in five
//! verbs: parse, load ([`config`]), build ([`tls`], [`listen`]), run ([`process`], [`health`]), drain ([`TokioSpawn::drain`]).
//!
//! **Invariants**
//! 1. Loading a configuration opens no socket and starts no task; what it returns has been checked.
//! 2. A private key or root key is read only from a file that nobody but its owner can read.
//! 3. One TLS provider, TLS 1.3 alone, no session resumption: each connection has proved its key anew.
//! 4. No message of this crate holds a value, a key or a token; a panic's formatted message is withheld ([`process`]).
//!
//! **Left out**: getting certificates; that is crate `enrol`. What is here can be swapped under running listeners
//! ([`tls::ServerTls::reload`]).

mod clock;
pub mod config;
pub mod dev_pki;
mod disk;
mod entropy;
mod files;
pub mod health;
mod level;
pub mod listen;
mod lock;
mod pending;
pub mod process;
mod tasks;
pub mod telemetry;
pub mod tls;

pub use clock::RealClock;
pub use disk::RealDisk;
pub use entropy::OsEntropy;
pub use files::{SecretFileError, read_checked_file, read_secret_file, write_checked_file, write_secret_file};
pub use level::{LEVEL_MAX_VARIABLE, LevelMaxError, feature_level_max};
pub use lock::{DataLock, DataLockError};
pub use pending::PendingFile;
pub use tasks::{TokioSpawn, Undrained};
