//! One call to one control node, and what its failure means for the next.

use std::{error::Error, fmt::Display, future::Future, time::Duration};

use futures::future::{Either, select};
use runtime::tls::ConnectError;
use seams::{Clock, Entropy};
use tonic::{Response, Status};
use wire::PublicError;

/// How long one endpoint may take: a write of the control plane, an election included.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(20);

/// Why an endpoint did not do what was asked.
pub(crate) enum Failed {
    /// It may do so later, or another one may.
    Later(String),
    /// It is not believed, or does not believe us.
    NotBelieved(String),
    /// It said no; nobody else will say otherwise.
    Refused(String),
}

impl Failed {
    /// What it was, with whom.
    pub(crate) fn at(&self, endpoint: &dyn Display) -> String {
        match self {
            Self::Later(what) | Self::NotBelieved(what) | Self::Refused(what) => format!("{endpoint}: {what}"),
        }
    }
}

/// Awaits an endpoint's answer, and sorts its failure.
pub(crate) async fn answer<T>(clock: &dyn Clock, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failed> {
    match select(std::pin::pin!(call), clock.sleep(ATTEMPT_WITHIN)).await {
        Either::Left((Ok(response), _)) => Ok(response.into_inner()),
        Either::Left((Err(status), _)) => Err(sorted(&status)),
        Either::Right(_) => Err(Failed::Later(format!("no answer within {ATTEMPT_WITHIN:?}"))),
    }
}

fn sorted(status: &Status) -> Failed {
    let public = PublicError::from_status(status);
    let causes = std::iter::successors(Error::source(status), |cause: &&(dyn Error + 'static)| (**cause).source());
    if let Some(error) = causes.clone().find_map(|cause| cause.downcast_ref::<ConnectError>()) {
        let source = Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return match error {
            ConnectError::Handshake { .. } => Failed::NotBelieved(format!("the TLS handshake failed{source}{}", clocks(&source))),
            ConnectError::Tcp { .. } | ConnectError::Timeout { .. } => Failed::Later(format!("nobody answers there{source}")),
        };
    }
    if public.kind.retryable() {
        return Failed::Later(causes.fold(public.message, |line, cause| format!("{line}: {cause}")));
    }
    let advice = public.kind.advice();
    let request = if public.request_id.is_empty() { String::new() } else { format!(" (request {})", public.request_id) };
    Failed::Refused(format!("{}; {advice}{request}", public.message))
}

/// Certificates that are too old or too young are most often clocks that are wrong.
fn clocks(cause: &str) -> &'static str {
    let cause = cause.to_lowercase();
    if cause.contains("expired") || cause.contains("not valid yet") || cause.contains("notvalidyet") {
        "; compare the clocks of both machines"
    } else {
        ""
    }
}

/// A wait of `about` this long, between half and one and a half of it.
pub(crate) fn jittered(entropy: &dyn Entropy, about: Duration) -> Duration {
    let thousandths = 500 + u32::try_from(entropy.number() % 1001).unwrap_or_default();
    about * thousandths / 1000
}
