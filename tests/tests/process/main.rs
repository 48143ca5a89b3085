//! Tests of whole processes, one file per promise or topic. One binary, because each links the whole product.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

mod at_rest;
mod autonomy;
mod bad_input;
mod bootstrap;
mod canary;
mod command_line;
mod consumers;
mod durable;
mod first_minutes;
mod hostile;
mod identity;
mod joining;
mod life;
mod recipes;
mod restore;
