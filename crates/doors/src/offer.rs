//! What is offered at the doors: lookups and health, and whatever else a node adds.

use std::{sync::Arc, time::Duration};

use lookup::{Authenticator, Lookup, Service, ServiceOptions};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use types::NodeName;
use wire::v1::lookup_server::LookupServer;

/// The configured bounds of lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupLimits {
    /// Open watches.
    pub watches_max: usize,
    /// Lookups of one stream that wait for a position at a time.
    pub pipelined_max: usize,
    /// After this time the door cuts a call.
    pub request_timeout: Duration,
}

/// The services.
pub struct Offer {
    service: Service,
    routes: Routes,
}

impl Offer {
    /// Lookups in `lookup` by the node `name`, and health. Lookup streams and watches end when `stop` is cancelled.
    pub async fn lookups(
        lookup: Arc<Lookup>,
        authenticator: Authenticator,
        name: NodeName,
        limits: LookupLimits,
        stop: CancellationToken,
    ) -> Self {
        let options = ServiceOptions {
            watches_max: limits.watches_max,
            stream_waiting_max: limits.pipelined_max,
            // The lookup answers by itself before the door cuts the call.
            patience_max: limits.request_timeout / 10 * 9,
            ..ServiceOptions::default()
        };
        let service = Service::new(lookup, authenticator, name, options, stop);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<LookupServer<Service>>().await;
        Self { routes: Routes::new(health).add_service(service.clone().into_server()), service }
    }

    /// With more services: `add` puts them in.
    #[must_use]
    pub fn with(self, add: impl FnOnce(Routes) -> Routes) -> Self {
        Self { routes: add(self.routes), ..self }
    }

    /// Lookups without gRPC, and all of it over gRPC.
    pub(crate) fn into_parts(self) -> (Service, Routes) {
        (self.service, self.routes.prepare())
    }
}
