//! `snapshot restore`: an archive and the recovery key become the data folder of the one control node of a new beginning.
//!
//! The restored state moves into the next generation, above any revision that an edge may hold, by a statement that the recovery key
//! signs: by it alone edges leave the chain that they hold. The node that restores is the only voter and the only signer: the control
//! nodes of before are marked as revoked, for whatever becomes of their machines must neither vote nor sign. The key epochs and, for the
//! same cluster, the certificate authority's key are opened with the recovery key and sealed for the new node.
//!
//! `--new-cluster` begins apart from what may still run: another authority, and no node of before. The cluster's id stays, for every
//! wrapped data key and every commitment is bound to it. Edges of before neither reach nor believe the new control plane.
//!
//! **Order**: nothing is written until everything has been opened and verified; then the keys, the state, and last the
//! certificate, without which the node does not start. Only a root key's file that was not there is made before. What was cut short is removed by hand and done again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cli::{Failure, Global, Output, SnapshotRestore};
use consensus::{AuditLog, AuditOptions, AuditSink};
use control::snapshots::{self, Opened, Origin};
use enrol::{CertifiedRole, Issuer, Layout, Leaf, NodeKey, Peers, Validity, certificates_pem};
use feed::SigningKey;
use runtime::{
    config::{self, ControlConfig},
    tls::PeerIdentity,
};
use seal::{FileRoot, KekName, NodeKeyPair, Plaintext, RecoveryKey, RootProvider};
use seams::{Clock, Disk};
use serde::Serialize;
use state::{
    Beginning, Begun, FEATURE_LEVEL_MAX, Key, Keyspace, NewNode, REVISIONS_SPARED, Recipient, State, TypedKey, Write,
    record::{AuthorityRecord, EnvelopeRecord, KekState, MemberKey, NodeRecord, NodeRole, TrustRecord},
};
use types::{ClusterId, NodeId, Revision, UnixMillis};

use super::{origin, recovery_key, refused, source};
use crate::chain;

/// Records that are read in one go.
const AT_A_TIME: usize = 1000;
/// As `cluster init` makes it: nobody checks it, nodes hold to the authority's key.
const AUTHORITY_LIFETIME: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 86_400);

/// What was restored.
#[derive(Serialize)]
struct Restored {
    cluster: String,
    node: u64,
    name: String,
    restored: String,
    begins: String,
    data: String,
    address: String,
    secrets: u64,
    root_key: String,
    signers: String,
    new_cluster: bool,
}

pub(super) fn run(global: &Global, arguments: &SnapshotRestore) -> Result<(), Failure> {
    let out = Output::new(global);
    let config: ControlConfig = config::load(&arguments.config).map_err(|error| Failure::usage(chain(&error)))?;
    let layout = Layout::control(&config);
    untouched(&config, &layout)?;
    let recovery = recovery_key(arguments.recovery_key_file.as_deref())?;
    let origin = origin(arguments.signers.as_deref(), arguments.trust_archive, Some(recovery.public().signing))?;
    out.say("opening and verifying the archive");
    let opened = snapshots::open(source(&arguments.file)?, recovery.opening(), origin).map_err(|error| refused(&arguments.file, &error))?;
    of_this_recovery_key(&opened.state, &recovery)?;
    let tools = Tools { disk: Arc::new(runtime::RealDisk), entropy: runtime::OsEntropy, now: runtime::RealClock::new().wall() };
    let plan = Plan { config: &config, layout: &layout, recovery: &recovery, new_cluster: arguments.new_cluster };
    let made = make(&tools, &plan, &opened)?;
    write(&tools, &plan, &made)?;
    let restored = Restored {
        cluster: opened.checked.header.cluster.to_string(),
        node: made.node.get(),
        name: config.node.name.to_string(),
        restored: opened.checked.header.position.to_string(),
        begins: made.begun.signed.statement.begins.to_string(),
        data: config.node.data_dir.display().to_string(),
        address: config.advertise().to_string(),
        secrets: opened.contents.secrets,
        root_key: config.keys.root.display().to_string(),
        signers: made.begun.signed.statement.signer_set_hash.to_string(),
        new_cluster: arguments.new_cluster,
    };
    out.record(
        &restored,
        &[
            ("cluster", restored.cluster.clone()),
            ("node", format!("{} ({}), the only control node", restored.node, restored.name)),
            ("restored", format!("{} with {} secrets", restored.restored, restored.secrets)),
            ("goes on at", restored.begins.clone()),
            ("data", restored.data.clone()),
            ("root key", restored.root_key.clone()),
            ("signers", restored.signers.clone()),
        ],
    )?;
    if opened.origin == Origin::Unproven {
        // The recovery key's public half is no secret, so whoever holds it can make up an archive that opens with the key.
        out.say(&format!(
            "not proved: that the archive is your cluster's, and not made up. Its first signer set is {}: compare it with what `cluster init` and `snapshot save` showed",
            opened.anchor.first_signer_set
        ));
    }
    out.say(&format!("start it: cinnabar control --config {}", arguments.config.display()));
    out.say(&if arguments.new_cluster {
        "edges of before can't follow: enrol each anew by a join token of this cluster; contexts need the new CA certificate".to_owned()
    } else {
        format!(
            "edges follow when {} is among their `control.endpoints`; contexts go on with their tokens at that address. Add control nodes by `cinnabar node token create control` and `cinnabar cluster add`",
            restored.address
        )
    });
    Ok(())
}

/// What the work is done with.
struct Tools {
    disk: Arc<dyn Disk>,
    entropy: runtime::OsEntropy,
    now: UnixMillis,
}

/// What is wanted.
struct Plan<'a> {
    config: &'a ControlConfig,
    layout: &'a Layout,
    recovery: &'a RecoveryKey,
    new_cluster: bool,
}

/// Everything that is to be written.
struct Made {
    node: NodeId,
    begun: Begun,
    tls_key: NodeKey,
    envelope_key: NodeKeyPair,
    signing_key: SigningKey,
    /// The CA's and the node's certificates, DER.
    authority: Vec<u8>,
    certificate: Vec<u8>,
}

/// A folder of before is never written into: it may hold what is newer than the archive.
fn untouched(config: &ControlConfig, layout: &Layout) -> Result<(), Failure> {
    let data = &config.node.data_dir;
    let shown = data.display();
    let occupied = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::usage(format!("cannot look into {shown}: {error}"))),
    };
    if occupied {
        return Err(Failure::usage(format!(
            "{shown} is not empty: restore into a folder of its own, or move away what lies there. It may be newer than the archive"
        )));
    }
    let signing = layout.signing_key.iter();
    let mut files = [&layout.tls.cert, &layout.tls.key, &layout.tls.ca, &layout.envelope_key].into_iter().chain(signing);
    match files.find(|file| file.exists()) {
        Some(file) => Err(Failure::usage(format!(
            "{} is there already: the restored node gets keys of its own; move those of before away, or name other files in [tls] and [keys]",
            file.display()
        ))),
        None => Ok(()),
    }
}

/// The statement of the new generation counts only under the recovery key that the edges know.
fn of_this_recovery_key(state: &State, recovery: &RecoveryKey) -> Result<(), Failure> {
    let public = recovery.public();
    let record = state.recovery().map_err(|error| Failure::failed(chain(&error)))?;
    match record {
        Some(record) if record.signing_key == public.signing && record.envelope_key == public.opening.encode() => Ok(()),
        Some(_) => Err(Failure::failed("the archive's cluster has another recovery key: its edges would not follow what this one signs")),
        None => Err(Failure::failed("the archive's cluster has no recovery key: nothing could be restored that its edges believe")),
    }
}

fn failed(what: &'static str) -> impl Fn(&dyn std::error::Error) -> Failure {
    move |error| Failure::failed(format!("cannot {what}: {}", chain(error)))
}

/// Makes keys, certificates and the new generation's first state. Of the disk, only the root key's file may be made.
fn make(tools: &Tools, plan: &Plan<'_>, opened: &Opened) -> Result<Made, Failure> {
    let (state, cluster) = (&opened.state, opened.checked.header.cluster);
    let registry = registry(state)?;
    let node = next_id(&registry)?;
    let identity = failed("make the node's keys");
    let tls_key = NodeKey::generate().map_err(|error| identity(&error))?;
    let envelope_key = NodeKeyPair::generate(&tools.entropy).map_err(|error| identity(&error))?;
    let signing_key = SigningKey::generate(&tools.entropy);
    let authority = authority(tools, plan, cluster, state)?;
    let certificate = authority
        .issuer
        .issue(&Leaf {
            identity: &PeerIdentity::Node { cluster, node },
            role: Some(CertifiedRole::Control),
            public_key: &tls_key.public_key(),
            names: &plan.config.certificate_names(),
            validity: Validity::lease(tools.now, plan.config.certificates.lifetime),
        })
        .map_err(|error| identity(&error))?;
    // Opened before the root key's file is made, which is the first thing that stays.
    let epochs = key_epochs(plan, cluster, state)?;
    let root = root_key(tools, plan)?;
    let mut writes = envelopes(tools, cluster, (node, envelope_key.public()), &root, &epochs)?;
    writes.push(authority_record(tools, plan, cluster, (node, envelope_key.public()), &authority)?);
    // They pin signers, or an authority, of before; and one that was used up or voided since must not be good again.
    let of_join_tokens = |key: &Key| matches!(key.keyspace(), Some(Keyspace::JoinToken | Keyspace::JoinTokenId));
    writes.extend(state.records().filter(|(key, _)| of_join_tokens(key)).map(|(key, _)| Write { key, value: None }));
    if plan.new_cluster {
        // Which authorities were believed before says nothing of this one: by it the former ones would be, and this one not.
        let of_authorities = |key: &Key| matches!(key.keyspace(), Some(Keyspace::Trust | Keyspace::Certified));
        writes.extend(state.records().filter(|(key, _)| of_authorities(key)).map(|(key, _)| Write { key, value: None }));
    } else {
        writes.extend(exposed(tools, &registry, &authority, state)?);
    }
    let gone = |record: &NodeRecord| record.revoked.is_none() && (plan.new_cluster || record.role == NodeRole::Control);
    let beginning = Beginning {
        time: tools.now,
        above: Revision::new(state.position().revision.get().saturating_add(REVISIONS_SPARED)),
        nodes: vec![NewNode {
            id: node,
            name: plan.config.node.name.clone(),
            role: NodeRole::Control,
            public_key: tls_key.public_key(),
            envelope_key: envelope_key.public().encode(),
            labels: BTreeMap::new(),
            address: Some(plan.config.advertise().to_string()),
            feature_level: FEATURE_LEVEL_MAX,
        }],
        remove: registry.iter().filter(|(_, record)| gone(record)).map(|(node, _)| *node).collect(),
        signers: vec![MemberKey { node, key: signing_key.public() }],
        threshold: 1,
        writes,
    };
    let begun = state::begin_generation(state, &beginning, |bytes| plan.recovery.sign(bytes))
        .map_err(|error| failed("begin a new generation")(&error))?;
    Ok(Made { node, begun, tls_key, envelope_key, signing_key, authority: authority.issuer.certificate().to_vec(), certificate })
}

/// All nodes, revoked ones included.
fn registry(state: &State) -> Result<Vec<(NodeId, NodeRecord)>, Failure> {
    let (mut nodes, mut after): (Vec<_>, Option<Key>) = (Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), AT_A_TIME).map_err(|error| failed("read the registry")(&error))?;
        nodes.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(nodes);
        }
    }
}

/// A number that no node of the archive has; and a margin above them, for nodes that joined after the archive was saved: a number is
/// never given twice.
fn next_id(registry: &[(NodeId, NodeRecord)]) -> Result<NodeId, Failure> {
    const SPARED: u64 = 1000;
    let highest = registry.iter().map(|(node, _)| node.get()).max().unwrap_or_default();
    highest.checked_add(SPARED).map(NodeId::new).ok_or_else(|| Failure::failed("the numbers of nodes are used up"))
}

/// Who issues certificates from now on.
struct Authority {
    issuer: Issuer,
    key: Plaintext,
}

fn authority(tools: &Tools, plan: &Plan<'_>, cluster: ClusterId, state: &State) -> Result<Authority, Failure> {
    let wrong = failed("take over the certificate authority");
    if plan.new_cluster {
        let validity = Validity::lease(tools.now, AUTHORITY_LIFETIME);
        let (issuer, key) = Issuer::create(&format!("cinnabar CA {cluster}"), validity).map_err(|error| wrong(&error))?;
        return Ok(Authority { issuer, key: Plaintext::from_vec(key) });
    }
    let record = state.authority().map_err(|error| wrong(&error))?;
    let record =
        record.ok_or_else(|| Failure::failed("the archive holds no certificate authority; begin apart from it by --new-cluster"))?;
    let envelope = record.envelope(Recipient::Recovery).ok_or_else(|| {
        Failure::failed("the archive's certificate authority is not sealed for the recovery key; begin apart from it by --new-cluster")
    })?;
    let key = seal::open_authority(cluster, seal::Recipient::Recovery, plan.recovery.opening(), &envelope.bytes)
        .map_err(|error| wrong(&error))?;
    let issuer = Issuer::open(&record.certificate, key.expose()).map_err(|error| wrong(&error))?;
    Ok(Authority { issuer, key })
}

/// The control nodes of before are revoked by the restore, and each could open the authority's key. Their disks are gone, and nobody knows
/// where to; so the authority is marked as one that has to be replaced, as by any other revocation, and the first thing that the restored
/// node does is to replace it. Not that of `cinnabar dev`, which lies in files that the log knows nothing of.
fn exposed(tools: &Tools, registry: &[(NodeId, NodeRecord)], authority: &Authority, state: &State) -> Result<Option<Write>, Failure> {
    let had_it = |(_, record): &(NodeId, NodeRecord)| record.role == NodeRole::Control && record.revoked.is_none();
    if !registry.iter().any(had_it) || authority.issuer.name().starts_with(DEVELOPMENT) {
        return Ok(None);
    }
    let trust = state.trust().map_err(|error| failed("read which authorities are believed")(&error))?;
    let trust = trust.unwrap_or_else(|| TrustRecord::first(authority.issuer.certificate().to_vec()));
    let trust = TrustRecord { version: trust.version.saturating_add(1), exposed: Some(tools.now), ..trust };
    Ok(Some(Write { key: TypedKey::Trust.encode(), value: Some(trust.encode()) }))
}

/// What the authorities of `cinnabar dev` are called.
const DEVELOPMENT: &str = "cinnabar development CA ";

fn authority_record(
    tools: &Tools,
    plan: &Plan<'_>,
    cluster: ClusterId,
    (node, to): (NodeId, &seal::NodePublicKey),
    authority: &Authority,
) -> Result<Write, Failure> {
    let wrong = failed("seal the certificate authority");
    let sealed = |recipient: seal::Recipient, to: &seal::NodePublicKey| {
        let bytes = seal::seal_authority(&tools.entropy, cluster, recipient, to, authority.key.expose());
        bytes.map(|bytes| EnvelopeRecord { bytes }).map_err(|error| wrong(&error))
    };
    let record = AuthorityRecord {
        certificate: authority.issuer.certificate().to_vec(),
        envelopes: vec![
            (Recipient::Node(node), sealed(node.into(), to)?),
            (Recipient::Recovery, sealed(seal::Recipient::Recovery, plan.recovery.opening().public())?),
        ],
    };
    Ok(Write { key: TypedKey::Authority.encode(), value: Some(record.encode()) })
}

/// A key epoch that was opened with the recovery key and matches its commitment.
struct Epoch {
    domain: types::KeyDomain,
    number: types::KekEpoch,
    kek: seal::Kek,
}

fn key_epochs(plan: &Plan<'_>, cluster: ClusterId, state: &State) -> Result<Vec<Epoch>, Failure> {
    let wrong = failed("open the key epochs with the recovery key");
    let (mut epochs, mut after): (Vec<_>, Option<Key>) = (Vec::new(), None);
    loop {
        let page = state.all_kek_epochs(after.as_ref(), AT_A_TIME).map_err(|error| wrong(&error))?;
        for epoch in page.items.into_iter().filter(|epoch| epoch.state != KekState::Destroyed) {
            let name = KekName { cluster, domain: &epoch.domain, epoch: epoch.n };
            let envelope = state.envelope(&epoch.domain, epoch.n, Recipient::Recovery).map_err(|error| wrong(&error))?;
            let envelope = envelope.ok_or_else(|| {
                Failure::failed(format!(
                    "key epoch {} of {} is not sealed for the recovery key: its values can't be restored",
                    epoch.n, epoch.domain
                ))
            })?;
            let kek = seal::open_envelope(&name, seal::Recipient::Recovery, plan.recovery.opening(), &envelope.bytes)
                .map_err(|error| wrong(&error))?;
            let commitment = seal::commitment(&name, &kek).map_err(|error| wrong(&error))?;
            if *commitment.as_bytes() != epoch.commitment {
                return Err(Failure::failed(format!("key epoch {} of {} is not the one that the chain announced", epoch.n, epoch.domain)));
            }
            epochs.push(Epoch { domain: epoch.domain, number: epoch.n, kek });
        }
        after = page.next;
        if after.is_none() {
            return Ok(epochs);
        }
    }
}

fn envelopes(
    tools: &Tools,
    cluster: ClusterId,
    (node, to): (NodeId, &seal::NodePublicKey),
    root: &FileRoot,
    epochs: &[Epoch],
) -> Result<Vec<Write>, Failure> {
    let wrong = failed("seal the key epochs for the new node");
    let mut writes = Vec::new();
    for Epoch { domain, number, kek } in epochs {
        let name = KekName { cluster, domain, epoch: *number };
        let for_node = seal::seal_envelope(&tools.entropy, &name, node, to, kek).map_err(|error| wrong(&error))?;
        let for_root = root.wrap_kek(&tools.entropy, &name, kek).map_err(|error| wrong(&error))?.as_bytes().to_vec();
        for (recipient, bytes) in [(Recipient::Node(node), for_node), (Recipient::Root(root.root_key_id()), for_root)] {
            let key = TypedKey::Envelope { domain: domain.clone(), epoch: *number, recipient };
            writes.push(Write { key: key.encode(), value: Some(EnvelopeRecord { bytes }.encode()) });
        }
    }
    Ok(writes)
}

/// The root key that the configuration names, made where there is none.
fn root_key(tools: &Tools, plan: &Plan<'_>) -> Result<FileRoot, Failure> {
    let path = &plan.config.keys.root;
    let wrong = failed("use the root key");
    if path.exists() {
        return FileRoot::open(&*tools.disk, path).map_err(|error| wrong(&error));
    }
    folder_of(tools, path)?;
    FileRoot::create(&*tools.disk, &tools.entropy, path).map_err(|error| wrong(&error))
}

fn folder_of(tools: &Tools, path: &Path) -> Result<(), Failure> {
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    tools.disk.create_dir_all(&folder).map_err(|error| Failure::failed(format!("cannot create {}: {error}", folder.display())))
}

/// Writes it all, the certificate last: without it the node does not start from half a folder.
fn write(tools: &Tools, plan: &Plan<'_>, made: &Made) -> Result<(), Failure> {
    let (config, layout) = (plan.config, plan.layout);
    let left = |what: &str, error: &dyn std::error::Error| {
        let data = config.node.data_dir.display();
        Failure::failed(format!("cannot write {what}: {}. What is in {data} is incomplete: remove it and restore anew", chain(error)))
    };
    let data = &config.node.data_dir;
    tools.disk.create_dir_all(data).map_err(|error| left("the data folder", &error))?;
    let _lock = runtime::DataLock::acquire(data).map_err(|error| left("the data folder", &error))?;
    layout.make_folders(&*tools.disk).map_err(|error| left("the identity", &error))?;
    let secret = |path: &Path, bytes: &[u8]| runtime::write_secret_file(path, bytes).map_err(|error| left("the identity", &error));
    let checked = |path: &Path, bytes: &[u8]| runtime::write_checked_file(path, bytes).map_err(|error| left("the identity", &error));
    secret(&layout.envelope_key, &made.envelope_key.to_file_bytes())?;
    if let Some(path) = &layout.signing_key {
        secret(path, &made.signing_key.to_file_bytes())?;
    }
    made.tls_key.write(&layout.tls.key).map_err(|error| left("the identity", &error))?;
    checked(&layout.tls.ca, certificates_pem([made.authority.as_slice()]).as_bytes())?;
    checked(&layout.signers, format!("{}\n", made.begun.signed.statement.signer_set_hash).as_bytes())?;
    Peers::default().write(&layout.peers).map_err(|error| left("the identity", &error))?;
    audited(tools, config, made).map_err(|error| left("the audit log", &*error))?;
    consensus::seed(tools.disk.clone(), &data.join("raft"), made.node, &config.advertise().to_string(), &made.begun.state)
        .map_err(|error| left("the state", &error))?;
    checked(&layout.tls.cert, certificates_pem([made.certificate.as_slice(), made.authority.as_slice()]).as_bytes())
}

/// The beginning is a mutation, and the first entry of the restored node's own audit log: durable before the state that counts it. What was
/// before it, other nodes' logs and their copies hold.
fn audited(tools: &Tools, config: &ControlConfig, made: &Made) -> Result<(), Box<dyn std::error::Error>> {
    let kept = AuditOptions {
        folder: config.node.data_dir.join("audit"),
        bytes_max: config.audit.bytes_max.bytes(),
        age_max: config.audit.age_max.duration(),
    };
    let log = AuditLog::open(tools.disk.clone(), kept)?;
    log.emit(vec![made.begun.audit.clone()], made.begun.audit.time)?;
    Ok(log.close()?)
}
