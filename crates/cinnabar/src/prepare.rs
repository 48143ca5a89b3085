//! The folder of a development cluster: keys, certificates and configuration files, made once and kept.
//!
//! `dev` runs the cluster from the same files that `cinnabar control --config` and `cinnabar edge --config` read, so what is
//! tried in one process can be taken apart into several.

use std::{
    cell::RefCell,
    fmt::Display,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result};
use enrol::{Founding, RecoveryKeys};
use feed::{Anchor, SigningKey};
use runtime::{
    OsEntropy, RealClock, RealDisk,
    config::{
        self, Checks, ConsumerPattern, ControlConfig, EdgeConfig, FileMode, LogConfig, LogFormat, PeerRule, Rates, Registered,
        RegisteredRole,
    },
    dev_pki::DevPki,
};
use seal::{FileRoot, NodeKeyPair, OperatorToken, RecoveryKey};
use seams::{Clock, Disk, Entropy};
use state::record::{MemberKey, SignerSetRecord};
use types::{AccountId, ClusterId, NodeId, ParseIdError};

/// The voter's number; edges count from [`FIRST_EDGE`].
const CONTROL: NodeId = NodeId::new(1);
/// Ports between the usual ones of an edge and those of the next.
const PORTS_PER_EDGE: u16 = 10;
/// The first edge's number.
pub(crate) const FIRST_EDGE: u64 = 101;

/// A prepared cluster: where its files are.
pub(crate) struct Prepared {
    /// The account that the development context uses.
    pub(crate) account: AccountId,
    /// The control node's configuration file.
    pub(crate) control: PathBuf,
    /// The edges' configuration files.
    pub(crate) edges: Vec<PathBuf>,
    /// The CA certificate.
    pub(crate) ca: PathBuf,
    /// Where the first operator's token lies once the cluster was founded.
    pub(crate) operator_token: PathBuf,
}

/// Which ports a new cluster gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// The usual ones where they are free, else others; kept.
    Usual,
    /// Whichever the system has, at each start anew: for clusters that come and go beside others. Only the control node's own port is
    /// chosen here, because edges have to know it.
    EachStart,
}

/// Makes what is missing in `folder`, and renews certificates that end soon.
pub(crate) fn prepare(folder: &Path, edges: u16, ports: Ports) -> Result<Prepared> {
    let (disk, entropy, clock) = (RealDisk, OsEntropy, RealClock::new());
    let chooser = Chooser { ports, held: RefCell::default() };
    disk.create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Configuration files hold absolute paths: a server may be started from anywhere.
    let folder = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
    let cluster = kept_id(&folder.join("cluster"), || ClusterId::from_bytes(entropy.id()))?;
    let account = kept_id(&folder.join("account"), || AccountId::from_bytes(entropy.id()))?;
    let keys = folder.join("keys");
    disk.create_dir_all(&keys)?;
    let pki = DevPki::ensure(&folder.join("tls"), cluster, clock.wall())?;

    let root = keys.join("root.key");
    if !root.exists() {
        FileRoot::create(&disk, &entropy, &root)?;
    }
    let signing = keys.join("signing.key");
    let signing_key =
        kept_key(&signing, || Ok(SigningKey::generate(&entropy).to_file_bytes()), |bytes| Ok(SigningKey::from_file_bytes(bytes)?))?;
    let signers = keys.join("signers");
    let first_set = SignerSetRecord {
        version: 1,
        threshold: 1,
        keys: vec![MemberKey { node: CONTROL, key: signing_key.public() }],
        signatures: Vec::new(),
    };
    write_if_changed(&signers, &format!("{}\n", Anchor::of(cluster, &first_set).first_signer_set))?;

    let control_file = folder.join("control.toml");
    let operator_token = keys.join("operator.token");
    let known: Option<ControlConfig> = control_file.exists().then(|| config::load(&control_file)).transpose()?;
    // One developer's machine has nobody to be fair to, and the bench measures on it what a node takes.
    let rates = Rates { writes_per_second: 0, ..Rates::default() };
    let mut control = known.unwrap_or_else(|| ControlConfig { log: quiet_log(), rates, ..ControlConfig::default() });
    control.node.id = Some(CONTROL);
    control.node.cluster = Some(cluster);
    control.node.data_dir = folder.join("control-1");
    control.tls = pki.node(CONTROL)?;
    control.keys.root = root;
    control.keys.signing = signing;
    control.keys.node = keys.join("control-1.node.key");
    node_key(&control.keys.node, &entropy)?;
    founding(&pki, (cluster, &first_set), &control.node.data_dir, &operator_token, &keys.join("recovery.key"))?;
    if !control_file.exists() {
        control.listen.grpc = chooser.free(control.listen.grpc)?;
        control.listen.health = chooser.own(control.listen.health)?;
    }

    let mut edge_files = Vec::new();
    control.register.clear();
    for number in 0..edges {
        let (file, row) = prepare_edge(&folder, &pki, &control, &signers, (account, number, &chooser), &entropy)?;
        control.register.push(row);
        edge_files.push(file);
    }
    write_config(&control_file, &control)?;
    Ok(Prepared { account, control: control_file, edges: edge_files, ca: pki.ca(), operator_token })
}

/// What the first start founds the cluster on, as `cluster init` leaves it: made once, before there is a log. The operator's token gets
/// its name last, so that what was cut short is made anew; a token without a founding beside it has founded its cluster already.
fn founding(
    pki: &DevPki,
    (cluster, first_set): (ClusterId, &SignerSetRecord),
    data: &Path,
    operator_token: &Path,
    recovery_key: &Path,
) -> Result<()> {
    let (disk, entropy) = (RealDisk, OsEntropy);
    if operator_token.exists() {
        return Ok(());
    }
    disk.create_dir_all(data)?;
    let recovery = RecoveryKey::generate(&entropy)?;
    runtime::write_secret_file(recovery_key, format!("{}\n", recovery.text().expose()).as_bytes())?;
    let token = OperatorToken::generate(&entropy);
    let (authority_certificate, authority_key) = pki.authority()?;
    let public = recovery.public();
    let founding = Founding {
        cluster,
        operator_token: token.hash(),
        authority_certificate,
        authority_key,
        recovery: RecoveryKeys {
            signing: public.signing,
            envelope: public.opening.encode(),
            first_set: recovery.sign(&first_set.signing_bytes(cluster)).to_vec(),
        },
    };
    founding.write(data)?;
    Ok(runtime::write_secret_file(operator_token, format!("{}\n", token.text().expose()).as_bytes())?)
}

fn prepare_edge(
    folder: &Path,
    pki: &DevPki,
    control: &ControlConfig,
    signers: &Path,
    (account, number, chooser): (AccountId, u16, &Chooser),
    entropy: &dyn Entropy,
) -> Result<(PathBuf, Registered)> {
    let id = NodeId::new(FIRST_EDGE + u64::from(number));
    let name = format!("edge-{}", number + 1);
    let file = folder.join(format!("{name}.toml"));
    let known: Option<EdgeConfig> = file.exists().then(|| config::load(&file)).transpose()?;
    let mut edge = known.unwrap_or_else(|| EdgeConfig { log: quiet_log(), ..EdgeConfig::default() });
    if !file.exists() {
        let nth = |usual: SocketAddr| SocketAddr::new(usual.ip(), usual.port() + number * PORTS_PER_EDGE);
        edge.listen.grpc = chooser.own(nth(edge.listen.grpc))?;
        edge.listen.health = chooser.own(nth(edge.listen.health))?;
    }
    edge.node.id = Some(id);
    edge.node.name = name.parse()?;
    edge.node.cluster = control.node.cluster;
    edge.node.data_dir = folder.join(&name);
    edge.control.endpoints = vec![control.listen.grpc.into()];
    edge.listen.unix.path = folder.join(format!("{name}.sock"));
    edge.listen.unix.mode = FileMode::new(0o600);
    edge.tls = pki.node(id)?;
    edge.keys.node = folder.join("keys").join(format!("{name}.node.key"));
    edge.keys.signers = signers.to_owned();
    // DEVELOPMENT: this machine's user may read as every consumer of the account.
    edge.peer = vec![PeerRule { uid: rustix::process::getuid().as_raw(), account, consumers: vec![ConsumerPattern::Any] }];
    let pair = node_key(&edge.keys.node, entropy)?;
    let public = folder.join("keys").join(format!("{name}.node.pub"));
    if !public.exists() {
        std::fs::write(&public, pair.public().encode()).with_context(|| format!("cannot write {}", public.display()))?;
    }
    write_config(&file, &edge)?;
    let row =
        Registered { id, name: name.parse()?, role: RegisteredRole::Edge, certificate: edge.tls.cert.clone(), envelope_key: Some(public) };
    Ok((file, row))
}

fn quiet_log() -> LogConfig {
    LogConfig { format: LogFormat::Pretty, filter: "warn".to_owned() }
}

/// An id that is chosen once and kept in a file. Made anew only when there is no file: one that cannot be read is no reason to
/// become another cluster.
fn kept_id<T: FromStr<Err = ParseIdError> + Display>(path: &Path, make: impl FnOnce() -> T) -> Result<T> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged: move the folder away to begin anew", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = make();
            runtime::write_secret_file(path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn kept_key<T>(
    path: &Path,
    make: impl FnOnce() -> Result<zeroize::Zeroizing<Vec<u8>>>,
    read: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    if !path.exists() {
        runtime::write_secret_file(path, &make()?)?;
    }
    let bytes = zeroize::Zeroizing::new(runtime::read_secret_file(path)?);
    read(&bytes).with_context(|| format!("{} is damaged: move the folder away to begin anew", path.display()))
}

fn node_key(path: &Path, entropy: &dyn Entropy) -> Result<NodeKeyPair> {
    kept_key(path, || Ok(NodeKeyPair::generate(entropy)?.to_file_bytes()), |bytes| Ok(NodeKeyPair::from_file_bytes(bytes)?))
}

/// Chooses ports, and holds each until all are chosen: the system may give one that was let go to the next who asks.
struct Chooser {
    ports: Ports,
    held: RefCell<Vec<TcpListener>>,
}

impl Chooser {
    /// A port that no other node has to know.
    fn own(&self, usual: SocketAddr) -> Result<SocketAddr> {
        match self.ports {
            Ports::Usual => self.free(usual),
            Ports::EachStart => Ok((Ipv4Addr::LOCALHOST, 0).into()),
        }
    }

    /// The usual port if it is wanted and free, else one that the system chooses. It is kept in the configuration file.
    fn free(&self, usual: SocketAddr) -> Result<SocketAddr> {
        let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        // In a test, several clusters are prepared at once, and the usual ports would be fought over.
        let any = self.ports == Ports::EachStart || std::env::var_os("CINNABAR_ANY_PORT").is_some();
        let port = if any { 0 } else { usual.port() };
        let listener = listen(port).or_else(|_| listen(0)).context("no free port on loopback")?;
        let address = listener.local_addr().context("no free port on loopback")?;
        self.held.borrow_mut().push(listener);
        Ok(address)
    }
}

fn write_config<C: Checks>(path: &Path, config: &C) -> Result<()> {
    config.check().map_err(|(key, message)| anyhow::anyhow!("{key}: {message}"))?;
    write_if_changed(path, &config::render(config)?)
}

fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    Ok(runtime::write_secret_file(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_that_are_chosen_together_are_all_different() {
        let chooser = Chooser { ports: Ports::EachStart, held: RefCell::default() };
        let usual = (Ipv4Addr::LOCALHOST, 0).into();
        let chosen: BTreeSet<SocketAddr> = (0..500).map(|_| chooser.free(usual).unwrap()).collect();
        assert_eq!(chosen.len(), 500);
    }
}
