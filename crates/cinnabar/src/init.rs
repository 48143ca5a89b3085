//! `cluster init`: keys and identity of a new cluster's first control node, made before anything runs.
//!
//! What the first start founds the cluster on is written last ([`enrol::Founding`]), after the operator has the recovery key and the
//! context: a cluster never comes into being whose keys nobody has. What was cut short is begun anew with an empty data folder.

use std::{
    fs,
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use cli::{ClusterInit, Context, Contexts, Failure, Global, Output};
use enrol::{CertifiedRole, Founding, Issuer, Layout, Leaf, NodeKey, RecoveryKeys, Validity, certificates_pem};
use feed::{Anchor, SigningKey};
use runtime::{
    OsEntropy, RealClock, RealDisk,
    config::{self, ControlConfig},
    tls::PeerIdentity,
};
use seal::{FileRoot, OperatorToken, RecoveryKey};
use seams::{Clock, Disk, Entropy};
use state::record::{MemberKey, SignerSetRecord};
use types::{ClusterId, NodeId};
use zeroize::Zeroizing;

/// The context when none is named.
const CONTEXT: &str = "default";
/// The first control node's number, unless the configuration gives it another.
const FIRST: NodeId = NodeId::new(1);
/// The CA's certificate counts this long. Nobody checks it: nodes hold to the CA's key.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Runs the command.
pub(crate) fn run(global: &Global, arguments: &ClusterInit) -> Result<(), Failure> {
    let config: ControlConfig = config::load(&arguments.config).map_err(|error| Failure::usage(crate::chain(&error)))?;
    let name = global.context.clone().unwrap_or_else(|| CONTEXT.to_owned());
    let plan = Plan { config: &config, arguments, name: &name, account: global.account.clone() };
    plan.check().map_err(|error| Failure::usage(format!("{error:#}")))?;
    plan.carry_out(Output::new(global))
        .map_err(|error| Failure::failed(format!("{error:#}; nothing was founded: empty {} and try again", config.node.data_dir.display())))
}

struct Plan<'a> {
    config: &'a ControlConfig,
    arguments: &'a ClusterInit,
    name: &'a str,
    account: Option<String>,
}

impl Plan<'_> {
    /// Everything that can be known to be wrong before anything is made.
    fn check(&self) -> Result<()> {
        let data = &self.config.node.data_dir;
        match fs::read_dir(data) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    bail!(
                        "{} is not empty: a node lives there, or something else does. Name another node.data_dir, or move its files away",
                        data.display()
                    );
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", data.display())),
        }
        let layout = Layout::control(self.config);
        let own = [&layout.tls.cert, &layout.tls.key, &layout.tls.ca, &layout.envelope_key, &layout.signers];
        if let Some(there) = own.into_iter().chain(&layout.signing_key).find(|file| file.exists()) {
            bail!("{} is there already: move it away, or let [tls] and [keys] name other files", there.display());
        }
        match &self.arguments.recovery_key_file {
            Some(file) if file.exists() => bail!("{} is there already: name a new file for the recovery key", file.display()),
            None if !io::stdout().is_terminal() => {
                bail!("the recovery key is shown once, on a terminal: run this on one, or name a file for it with --recovery-key-file")
            }
            _ => {}
        }
        if self.config.listen.grpc.port() == 0 && self.config.listen.advertise.is_none() {
            bail!("listen.grpc has port 0: choose one, for others have to know it");
        }
        if Contexts::load(&Contexts::path()?)?.contexts.contains_key(self.name) {
            bail!(
                "there is a context {:?} already: choose another name with --context, or remove it with `cinnabar context remove`",
                self.name
            );
        }
        Ok(())
    }

    fn carry_out(&self, out: Output) -> Result<()> {
        let (clock, entropy, disk) = (RealClock::new(), OsEntropy, RealDisk);
        let config = self.config;
        let cluster = config.node.cluster.unwrap_or_else(|| ClusterId::from_bytes(entropy.id()));
        let node = config.node.id.unwrap_or(FIRST);
        let layout = Layout::control(config);
        disk.create_dir_all(&config.node.data_dir)?;
        layout.make_folders(&disk)?;
        let root_made = root_key(&config.keys.root)?;

        let now = clock.wall();
        let (issuer, authority_key) = Issuer::create(&format!("cinnabar CA {cluster}"), Validity::lease(now, AUTHORITY_LIFETIME))?;
        let authority_key = Zeroizing::new(authority_key);
        let signing = layout.signing_key.as_deref().context("a control node has a signing key")?;
        let first_set = identity(config, &layout, signing, (cluster, node), &issuer, &clock)?;

        let recovery = RecoveryKey::generate(&entropy)?;
        self.hand_over(&recovery, out)?;
        let token = OperatorToken::generate(&entropy);
        let ca = certificates_pem([issuer.certificate()]);
        let in_force = self.save_context(&token, ca)?;
        let public = recovery.public();
        let founding = Founding {
            cluster,
            operator_token: token.hash(),
            authority_certificate: issuer.certificate().to_vec(),
            authority_key: authority_key.to_vec(),
            recovery: RecoveryKeys {
                signing: public.signing,
                envelope: public.opening.encode(),
                // By it an archive proves to whoever has the key that it is this cluster's.
                first_set: recovery.sign(&first_set.signing_bytes(cluster)).to_vec(),
            },
        };
        if let Err(error) = founding.write(&config.node.data_dir) {
            // A context whose cluster never was would stand in the way of the next attempt.
            let _ = self.forget_context();
            return Err(error.into());
        }
        // It is founded, whether or not somebody still reads of it.
        let _ = self.tell(out, (cluster, node), Anchor::of(cluster, &first_set), (root_made, in_force));
        Ok(())
    }

    /// Gives the recovery key to the operator, this once.
    fn hand_over(&self, recovery: &RecoveryKey, out: Output) -> Result<()> {
        let text = recovery.text();
        if let Some(file) = &self.arguments.recovery_key_file {
            return Ok(runtime::write_secret_file(file, format!("{}\n", text.expose()).as_bytes())?);
        }
        out.line("Recovery key, shown this once. Write it down and keep it offline: it alone restores a cluster that is lost.\n")?;
        out.line(&format!("    {}\n", text.expose()))?;
        Ok(())
    }

    /// The operator's way in, in a file that only they read. Whether it is the context in force.
    fn save_context(&self, token: &OperatorToken, ca: String) -> Result<bool> {
        let path = Contexts::path()?;
        let mut contexts = Contexts::load(&path)?;
        let context = Context {
            control: self.config.advertise().to_string(),
            ca,
            token: token.text().expose().to_owned(),
            account: self.account.clone(),
            edges: Vec::new(),
            members: Vec::new(),
        };
        contexts.contexts.insert(self.name.to_owned(), context);
        let in_force = contexts.current.get_or_insert_with(|| self.name.to_owned()) == self.name;
        contexts.save(&path)?;
        Ok(in_force)
    }

    fn forget_context(&self) -> Result<()> {
        let path = Contexts::path()?;
        let mut contexts = Contexts::load(&path)?;
        contexts.contexts.remove(self.name);
        contexts.current.take_if(|current| current == self.name);
        Ok(contexts.save(&path)?)
    }

    fn tell(&self, out: Output, (cluster, node): (ClusterId, NodeId), anchor: Anchor, (root_made, in_force): (bool, bool)) -> Result<()> {
        let config = self.config;
        let root = config.keys.root.display();
        out.line(&format!("cluster    {cluster}"))?;
        out.line(&format!("node       {node} ({}), reached at {}", config.node.name, config.advertise()))?;
        out.line(&format!("root key   {root}{}", if root_made { ": keep a copy offline, apart from backups" } else { " (was there)" }))?;
        if let Some(file) = &self.arguments.recovery_key_file {
            out.line(&format!("recovery   {}: move it offline, it alone restores a cluster that is lost", file.display()))?;
        }
        out.line(&format!(
            "signers    {}: keep it with the archives, by it `snapshot verify --signers` knows them",
            anchor.first_signer_set
        ))?;
        out.line(&format!("operator   context {:?}{}", self.name, if in_force { ", in force" } else { "" }))?;
        let context = if in_force { String::new() } else { format!("-c {} ", self.name) };
        out.line(&format!(
            "\nNext:\n  cinnabar control --config {}\n  cinnabar {context}status\n  cinnabar {context}node token create edge --out edge-1.token   # then start the edge with [join]",
            self.arguments.config.display()
        ))?;
        Ok(())
    }
}

/// Makes the root key, unless the operator has brought one. Whether it was made.
fn root_key(path: &Path) -> Result<bool> {
    let (entropy, disk) = (OsEntropy, RealDisk);
    if path.exists() {
        FileRoot::open(&disk, path).with_context(|| format!("{} is there, and cannot be used", path.display()))?;
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        disk.create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    FileRoot::create(&disk, &entropy, path)?;
    Ok(true)
}

/// The first node's own files, as joining would have made them. The signer set that it begins with.
fn identity(
    config: &ControlConfig,
    layout: &Layout,
    signing: &Path,
    (cluster, node): (ClusterId, NodeId),
    issuer: &Issuer,
    clock: &dyn Clock,
) -> Result<SignerSetRecord> {
    let key = NodeKey::kept_or_new(&layout.tls.key)?;
    enrol::envelope_key(&layout.envelope_key, &OsEntropy)?;
    let signing_key = SigningKey::generate(&OsEntropy);
    runtime::write_secret_file(signing, &signing_key.to_file_bytes())?;
    let keys = vec![MemberKey { node, key: signing_key.public() }];
    let first_set = SignerSetRecord { version: 1, threshold: 1, keys, signatures: Vec::new() };
    runtime::write_checked_file(&layout.signers, format!("{}\n", Anchor::of(cluster, &first_set).first_signer_set).as_bytes())?;
    runtime::write_checked_file(&layout.tls.ca, certificates_pem([issuer.certificate()]).as_bytes())?;
    let leaf = issuer.issue(&Leaf {
        identity: &PeerIdentity::Node { cluster, node },
        role: Some(CertifiedRole::Control),
        public_key: &key.public_key(),
        names: &config.certificate_names(),
        validity: Validity::lease(clock.wall(), config.certificates.lifetime),
    })?;
    runtime::write_checked_file(&layout.tls.cert, certificates_pem([leaf.as_slice(), issuer.certificate()]).as_bytes())?;
    Ok(first_set)
}
