//! Clients of the Secrets Store API that others wrote, and REST by hand.
//!
//! [`Programs`] are wrangler, Node and Python as `scripts/clients` installed them, each run with an environment of its own, so that
//! nothing of the person who runs the tests decides and nothing is sent but to the cluster. [`Rest`] speaks HTTP/1.1 byte by byte, for
//! what no well-behaved client sends. [`Pipeline`] runs the recipes of `deploy/ci`. A [`Gate`] stands before a control node, writes down what clients send, and can lose an answer.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

mod gate;
mod programs;
mod recipes;
mod rest;

pub use gate::{Gate, Seen};
pub use programs::{Programs, Wrangler};
pub use recipes::Pipeline;
pub use rest::{Answer, Rest};
