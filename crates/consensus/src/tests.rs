//! The crate's tests: openraft's own suite, one voter through crashes, and a cluster in one thread under a seed.

mod cluster;
mod commands;
mod files;
mod one_voter;
mod rig;
mod suite;
