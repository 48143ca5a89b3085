//! The door: who shows no valid token or node's certificate is turned away before the body of a call is read. Health alone is
//! open. Reflection stands behind the same door: the schema is no secret, but nothing answers strangers.

use std::sync::Arc;

use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::{call::Call, caller::Caller, core::Core};

/// Reflection, behind the door.
pub(crate) fn reflection(
    door: Door,
) -> Result<InterceptedService<ServerReflectionServer<impl ServerReflection>, Door>, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(wire::DESCRIPTORS).build_v1()?;
    Ok(InterceptedService::new(reflection, door))
}

/// Lets pass who can be identified by this node's state. Each operation identifies its caller again, on the state it works with.
#[derive(Clone)]
pub(crate) struct Door(pub(crate) Arc<Core>);

impl Interceptor for Door {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let core = &self.0;
        let call = Call::of(core, &request);
        Caller::identify(&core.consensus.local(), &call, core.clock.wall()).map_err(|error| error.with_request_id(call.origin.request))?;
        Ok(request)
    }
}
