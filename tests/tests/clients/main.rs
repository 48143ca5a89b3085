//! Clients that others wrote, against three control nodes with TLS: what their users do works as they know it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

mod encodings;
mod ground;
mod load;
mod matrix;
mod recipes;
mod sdks;
mod seeds;
mod wrangler;
