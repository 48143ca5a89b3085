//! From a target to channels. A channel connects at its first call, and again whenever the connection was lost.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::uri::{Authority, Uri};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    ConfigError, Tls,
    config::{Config, Target},
    server,
};

/// Connecting and the handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection with calls on it is probed after this time, so that a cut without a reset is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A probe that is not answered in this time ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control window of one stream: 1 MiB, as on the servers.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of a connection: four streams at full speed.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// No connection came about: what was to be sent on it was not sent.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Unconnected(#[from] io::Error);

/// Whether a call ended before anything of it was sent, so that it cannot have been carried out.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<Unconnected>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A way to one server.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) channel: Channel,
    /// The server, for errors.
    pub(crate) server: Arc<str>,
}

/// All routes of a configuration, in turn over the servers, so that the next one is another server if there is another.
pub(crate) fn routes(config: &Config) -> Result<Vec<Route>, ConfigError> {
    let mut routes = Vec::new();
    match &config.target {
        Target::Unix(socket) => {
            for _ in 0..config.connections {
                routes.push(Route { channel: unix(socket.clone())?, server: socket.display().to_string().into() });
            }
        }
        Target::Tls { addresses, tls } => {
            if addresses.is_empty() {
                return Err(ConfigError::NoAddress);
            }
            let connector = TlsConnector::from(Arc::new(tls_config(tls, config.control_only)?));
            for _ in 0..config.connections {
                for address in addresses {
                    let channel = tcp(address, tls.server_name.as_deref(), connector.clone())?;
                    routes.push(Route { channel, server: address.as_str().into() });
                }
            }
        }
    }
    Ok(routes)
}

fn unix(socket: PathBuf) -> Result<Channel, ConfigError> {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, Unconnected>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Ok(endpoint("localhost")?.connect_with_connector_lazy(connector))
}

fn tcp(address: &str, server_name: Option<&str>, tls: TlsConnector) -> Result<Channel, ConfigError> {
    let refuse = || ConfigError::Address { address: address.to_owned() };
    let authority: Authority = address.parse().map_err(|_| refuse())?;
    let port = authority.port_u16().ok_or_else(refuse)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if address.contains('@') || host.is_empty() {
        return Err(refuse());
    }
    let name = ServerName::try_from(server_name.unwrap_or(&host).to_owned()).map_err(|_| refuse())?;
    let connector = tower::service_fn(move |_: Uri| {
        let (host, name, tls) = (host.clone(), name.clone(), tls.clone());
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, Unconnected>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    Ok(endpoint(address)?.connect_with_connector_lazy(connector))
}

/// The connector decides where to go; the URI is only what the `:authority` header says, with `http` because TLS is ours, not tonic's.
fn endpoint(authority: &str) -> Result<Endpoint, ConfigError> {
    let refuse = || ConfigError::Address { address: authority.to_owned() };
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|_| refuse())?;
    let endpoint = endpoint.user_agent(concat!("cinnabar-client/", env!("CARGO_PKG_VERSION"))).map_err(|_| refuse())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// TLS 1.3 by aws-lc-rs, no session resumed, the cluster's CA alone, and the hybrid key exchange alone: what is recorded today
/// stays closed to a later quantum computer.
fn tls_config(tls: &Tls, control_only: bool) -> Result<ClientConfig, ConfigError> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificate", &tls.ca_pem)? {
        roots.add(certificate).map_err(ConfigError::Tls)?;
    }
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder =
        builder.map_err(ConfigError::Tls)?.dangerous().with_custom_certificate_verifier(server::verifier(roots, provider, control_only)?);
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates("client certificate", &identity.certificate_pem)?;
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes());
            let key = key.map_err(|error| ConfigError::Pem { what: "client key", reason: error.to_string() })?;
            builder.with_client_auth_cert(chain, key).map_err(ConfigError::Tls)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(ConfigError::Pem { what, reason: "it holds no certificate in PEM".into() }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(ConfigError::Pem { what, reason: error.to_string() }),
    }
}
