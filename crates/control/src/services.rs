//! The gRPC services: parse the message, call the one operation, show what came back. No rule lives here.

mod accounts;
mod audit;
mod bindings;
mod cluster;
mod consumers;
mod feed;
mod fleet;
mod levels;
mod members;
mod nodes;
mod people;
mod receipts;
mod secrets;
mod snapshots;
mod status;
mod stores;
mod tokens;

use std::sync::Arc;

use crate::core::Core;
pub(crate) use crate::operations::{after, next, parsed};

/// One implementation of every service.
#[derive(Clone)]
pub(crate) struct Services(pub(crate) Arc<Core>);

pub(crate) use feed::FeedService;
