//! Tests of the state from outside: golden scripts, properties, and formats kept as fixtures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(missing_docs, reason = "helpers of tests, named for what they do")]

mod fixtures;
mod formats;
mod generations;
mod mutations;
mod properties;
mod refused;
mod scripts;
mod world;
