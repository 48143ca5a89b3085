//! gRPC reflection, for whoever shows a valid token or a node's certificate: the schema is no secret, but without a credential
//! nothing answers except health.

use std::sync::Arc;

use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::{call::Call, caller::Caller, core::Core};

/// The service, behind the check of the credential.
pub(crate) fn service(
    core: Arc<Core>,
) -> Result<InterceptedService<ServerReflectionServer<impl ServerReflection>, Credentialed>, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(wire::DESCRIPTORS).build_v1()?;
    Ok(InterceptedService::new(reflection, Credentialed(core)))
}

/// Lets pass who can be identified.
#[derive(Clone)]
pub(crate) struct Credentialed(Arc<Core>);

impl Interceptor for Credentialed {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let core = &self.0;
        Caller::identify(&core.consensus.local(), &Call::of(core, &request), core.clock.wall())?;
        Ok(request)
    }
}
