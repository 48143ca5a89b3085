//! The crate's tests: openraft's own suite, one voter through crashes, and a cluster in one thread under a seed.

mod audit;
mod clocks;
mod cluster;
mod commands;
mod files;
mod forward;
mod history;
mod members;
mod mutations;
mod one_voter;
mod real;
mod rig;
mod suite;
