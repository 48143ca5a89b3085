//! The lookup path against states built by hand: whatever `apply` would write can stand in them, and what it would not, too.

mod callers;
mod frames;
mod grpc;
mod large;
mod lookups;
mod mutations;
mod stress;
mod watches;
mod world;
