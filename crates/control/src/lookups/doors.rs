//! The doors: what `[lookups]` names, for lookups and health alone.

use std::sync::Arc;

use ::doors::{BindError, LookupLimits, Offer};
use lookup::{Lookup, Served};
use runtime::{config::ControlConfig, health::Readiness, tls::ServerTls};
use seams::Spawn;

use super::Lookups;
use crate::core::Core;

/// Secrets whose served lookups are counted one by one: as many as at an edge.
const SERVED_ROWS_MAX: usize = 10_000;

/// Binds what is configured.
pub(crate) async fn bind(config: &ControlConfig) -> Result<::doors::Doors, BindError> {
    let unix = config.lookups.unix.as_ref().map(|listen| ("lookups.unix", listen));
    ::doors::Doors::bind(unix, config.lookups.grpc.map(|address| ("lookups.grpc", address))).await
}

/// Opens the doors. They answer "not synced" until the state may be shown.
pub(crate) async fn open(
    core: &Arc<Core>,
    lookups: &Arc<Lookups>,
    doors: ::doors::Doors,
    config: &ControlConfig,
    tls: ServerTls,
    readiness: &Readiness,
) {
    if let Some(address) = doors.address() {
        let _ = lookups.address.set(address);
    }
    let lookup = Lookup::new(lookups.serving().clone(), Arc::new(Served::new(SERVED_ROWS_MAX)), &core.name);
    let limits = LookupLimits {
        watches_max: config.lookups.watches_max,
        pipelined_max: config.lookups.pipelined_max,
        request_timeout: config.connections.request_timeout,
    };
    let (authenticator, stop) = (::doors::authenticator(&config.peer), core.tasks.token().child_token());
    let offer = Offer::lookups(Arc::new(lookup), authenticator, core.name.clone(), limits, stop).await;
    doors.open(offer, &config.connections, tls, &core.tasks, &core.clock);
    let ready = readiness.check("lookups");
    core.tasks.spawn("open lookups", Box::pin(super::open_when_recovered(core.clone(), lookups.clone())));
    core.tasks.spawn("watch lookups", Box::pin(super::watch(core.clone(), lookups.clone(), ready)));
}
