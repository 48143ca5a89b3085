//! A server that has no certificate yet joins its cluster before it starts.

use std::path::{Path, PathBuf};

use cli::Failure;
use enrol::{JoinOptions, Layout};
use feed::SigningKey;
use runtime::{
    DataLock, OsEntropy, RealClock, RealDisk,
    config::{ControlConfig, EdgeConfig, HostPort},
};
use seams::Disk;
use state::record::NodeRole;
use zeroize::Zeroizing;

use crate::chain;

/// Names the join token's file in place of `join.token_file`.
const TOKEN_FILE_VARIABLE: &str = "CINNABAR_JOIN_TOKEN_FILE";

/// Makes a control node a member, if it is none.
pub(crate) async fn control(config: &ControlConfig) -> Result<(), Failure> {
    let layout = Layout::control(config);
    reachable(&layout.tls.cert)?;
    if layout.is_enrolled() {
        return Ok(());
    }
    let token = token_file(config.join.token_file.as_deref(), &config.join.endpoints, &layout, "control")?;
    let _lock = lock(&config.node.data_dir)?;
    layout.make_folders(&RealDisk).map_err(failed)?;
    let signing = match &layout.signing_key {
        Some(path) => Some(signing_key(path)?),
        None => None,
    };
    let options = JoinOptions {
        layout: &layout,
        token: &enrol::read_token(&token).map_err(failed)?,
        endpoints: &config.join.endpoints,
        role: NodeRole::Control,
        name: &config.node.name,
        names: &config.certificate_names(),
        address: Some(&config.advertise()),
        signing_key: signing,
        clock: &RealClock::new(),
        entropy: &OsEntropy,
        disk: &RealDisk,
    };
    Box::pin(enrol::join(&options)).await.map(drop).map_err(failed)
}

/// Makes an edge a member, if it is none.
pub(crate) async fn edge(config: &EdgeConfig) -> Result<(), Failure> {
    let layout = Layout::edge(config);
    reachable(&layout.tls.cert)?;
    if layout.is_enrolled() {
        return Ok(());
    }
    let token = token_file(config.join.token_file.as_deref(), config.join_endpoints(), &layout, "edge")?;
    let _lock = lock(&config.node.data_dir)?;
    let options = JoinOptions {
        layout: &layout,
        token: &enrol::read_token(&token).map_err(failed)?,
        endpoints: config.join_endpoints(),
        role: NodeRole::Edge,
        name: &config.node.name,
        names: &config.certificate_names(),
        address: None,
        signing_key: None,
        clock: &RealClock::new(),
        entropy: &OsEntropy,
        disk: &RealDisk,
    };
    Box::pin(enrol::join(&options)).await.map(drop).map_err(failed)
}

/// A certificate that cannot be looked at is not an absent one: this node may well be a member, set up by another user.
fn reachable(certificate: &Path) -> Result<(), Failure> {
    certificate.try_exists().map(drop).map_err(|error| {
        Failure::failed(format!(
            "cannot look at {}: {error}; the data folder has to belong to the user that runs the node (`chown -R`)",
            certificate.display()
        ))
    })
}

/// The file of the join token, or what to do when there is none.
fn token_file(configured: Option<&Path>, endpoints: &[HostPort], layout: &Layout, role: &str) -> Result<PathBuf, Failure> {
    let file = std::env::var_os(TOKEN_FILE_VARIABLE).map(PathBuf::from).or_else(|| configured.map(Path::to_owned));
    let no_certificate = format!("this node has no certificate yet ({} is not there)", layout.tls.cert.display());
    let Some(file) = file else {
        let first = if role == "control" {
            "only for the first node of a new cluster run `cinnabar cluster init --config FILE`; to join one that lives, also in place of a node whose disk is lost, "
        } else {
            ""
        };
        return Err(Failure::failed(format!(
            "{no_certificate}: {first}make a join token with `cinnabar node token create {role}`, put it into a file of mode 0600, and name that in join.token_file or {TOKEN_FILE_VARIABLE}"
        )));
    };
    if endpoints.is_empty() {
        return Err(Failure::failed(format!(
            "{no_certificate}, and join.endpoints is empty: name control nodes of the cluster, as HOST:PORT"
        )));
    }
    Ok(file)
}

/// Two processes that join from one folder would be two nodes with one place.
fn lock(data: &Path) -> Result<DataLock, Failure> {
    RealDisk.create_dir_all(data).map_err(|error| Failure::failed(format!("cannot create {}: {error}", data.display())))?;
    DataLock::acquire(data).map_err(failed)
}

/// The public half of the key in the file, which is made when there is none.
fn signing_key(path: &Path) -> Result<[u8; 32], Failure> {
    if !path.exists() {
        runtime::write_secret_file(path, &SigningKey::generate(&OsEntropy).to_file_bytes()).map_err(failed)?;
    }
    let bytes = Zeroizing::new(runtime::read_secret_file(path).map_err(failed)?);
    let key = SigningKey::from_file_bytes(&bytes).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    Ok(key.public())
}

fn failed(error: impl std::error::Error) -> Failure {
    Failure::failed(chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_that_cannot_be_looked_at_is_not_taken_for_absent() {
        let folder = tempfile::tempdir().unwrap();
        reachable(&folder.path().join("node.pem")).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let failure = reachable(&file.join("node.pem")).unwrap_err();
        assert!(failure.to_string().contains("chown"), "{failure}");
    }
}
