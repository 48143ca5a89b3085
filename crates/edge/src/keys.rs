//! The KEK epochs of an edge: they come sealed to the node's key, are proved against the chain, and are kept sealed.
//!
//! An envelope is believed only when the key in it matches the commitment that the published state carries for its epoch. It may come
//! before that state does, so it waits in memory; once it has matched, its bytes are written to a file as they came, so that the
//! edge opens values after a restart without the control plane. A key leaves the ring when the chain says that its epoch is destroyed,
//! and its file the disk, whatever is known of the file.
//!
//! ```text
//! keks/DOMAIN-EPOCH.envelope   the HPKE envelope as it came; its own format names itself
//! ```
//!
//! **Invariants**
//! 1. No file holds a key in the clear: the envelope opens with the node's key only.
//! 2. A key that does not match the chain is dropped and told; the one that matched stays.
//!
//! **Concurrency**: one short mutex, taken by the publisher and by the stream's task. Opening takes about 0.1 ms and happens once per epoch.
//!
//! **Failure**: a file that cannot be written is told and tried again at the next root; the key works meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use feed::KeyReceiver;
use runtime::{read_secret_file, write_secret_file};
use seal::{KekName, KeyRing, NodeKeyPair, open_envelope};
use seams::{Disk, Entropy, OpenMode};
use state::{
    FormatError, Keyspace, Prefix, Propagated,
    record::{KekEpochRecord, KekState},
};
use types::{Hash, KekEpoch, KeyDomain, NodeId};
use wire::internal as proto;

use crate::EdgeError;

/// Envelopes that may wait for their epoch to be announced: as many as a key ring holds epochs.
const WAITING_MAX: usize = 64;
/// The largest envelope file that is read: far above any format's length.
const ENVELOPE_BYTES_MAX: u64 = 16 << 10;

/// Names an epoch.
type EpochName = (KeyDomain, KekEpoch);

/// The node's key, and the epochs it can open.
pub(crate) struct EdgeKeys {
    node: NodeId,
    pair: NodeKeyPair,
    ring: Arc<KeyRing>,
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Envelopes that have not matched yet.
    waiting: BTreeMap<EpochName, Bytes>,
    /// What the published state says of epochs.
    announced: Vec<KekEpochRecord>,
    /// Epochs whose envelope is in a file.
    filed: BTreeSet<EpochName>,
    /// Envelopes that have matched and are in no file yet.
    unfiled: BTreeMap<EpochName, Bytes>,
    /// Destroyed epochs whose files may still be there.
    unremoved: BTreeSet<EpochName>,
    /// This node is revoked: nothing is taken in any more.
    forgotten: bool,
}

/// Reads the node's key file, or makes key and file at the first start. Its public part stands in the node registry.
///
/// # Errors
/// [`EdgeError::NodeKeyFile`], [`EdgeError::NodeKey`].
pub fn ensure_node_key(path: &Path, entropy: &dyn Entropy) -> Result<NodeKeyPair, EdgeError> {
    let failed = |source| EdgeError::NodeKey { path: path.to_owned(), source };
    if path.exists() {
        let bytes = zeroize::Zeroizing::new(read_secret_file(path)?);
        return NodeKeyPair::from_file_bytes(&bytes).map_err(failed);
    }
    let pair = NodeKeyPair::generate(entropy).map_err(failed)?;
    write_secret_file(path, &pair.to_file_bytes())?;
    Ok(pair)
}

impl EdgeKeys {
    /// Reads the envelopes that were kept. They are opened when the first root says what they must match.
    ///
    /// # Errors
    /// [`EdgeError::Disk`] when the folder cannot be made or listed. An envelope that cannot be read is told and left out.
    pub(crate) fn open(
        node: NodeId,
        pair: NodeKeyPair,
        ring: Arc<KeyRing>,
        disk: Arc<dyn Disk>,
        folder: PathBuf,
    ) -> Result<Self, EdgeError> {
        let failed = |operation| {
            let path = folder.clone();
            move |source| EdgeError::Disk { operation, path, source }
        };
        disk.create_dir_all(&folder).map_err(failed("create the folder"))?;
        let mut inner = Inner::default();
        for name in disk.list(&folder).map_err(failed("list"))? {
            if name.ends_with(".new") {
                // A crash came between writing and renaming; the envelope is asked for again.
                if let Err(error) = remove(&*disk, &folder.join(&name)) {
                    tracing::warn!(file = name, %error, "what a crash left of a key envelope cannot be removed");
                }
                continue;
            }
            let Some(epoch) = parse_name(&name) else { continue };
            match read(&*disk, &folder.join(&name)) {
                Ok(bytes) => {
                    inner.waiting.insert(epoch.clone(), bytes);
                    inner.filed.insert(epoch);
                }
                Err(error) => tracing::warn!(file = name, %error, "a kept key envelope cannot be read; it will be asked for again"),
            }
        }
        Ok(Self { node, pair, ring, disk, folder, inner: Mutex::new(inner) })
    }

    /// Takes in what `state` says of epochs: opens envelopes that it proves, drops keys that it calls destroyed.
    pub(crate) fn follow(&self, state: &Propagated) {
        let announced = match epochs(state) {
            Ok(announced) => announced,
            Err(error) => {
                tracing::error!(%error, "the KEK epochs of the state cannot be read: this copy is damaged");
                return;
            }
        };
        let mut inner = self.lock();
        if inner.forgotten {
            return;
        }
        if inner.announced != announced {
            inner.announced = announced;
            self.drop_destroyed(&mut inner);
            self.open_waiting(&mut inner);
        }
        self.remove_destroyed(&mut inner);
        self.file(&mut inner);
    }

    /// Drops all keys and envelopes, and takes none any more: this node is revoked.
    pub(crate) fn forget(&self) {
        let mut inner = self.lock();
        *inner = Inner { announced: std::mem::take(&mut inner.announced), forgotten: true, ..Inner::default() };
        self.ring.lock();
    }

    /// Removes all envelopes from the disk. Whether none is left.
    pub(crate) fn erase(&self) -> bool {
        let _inner = self.lock();
        let removed = self.disk.list(&self.folder).and_then(|names| {
            let mut ours = names.iter().filter(|name| name.ends_with(".envelope") || name.ends_with(".new"));
            ours.try_for_each(|name| remove(&*self.disk, &self.folder.join(name)))?;
            self.disk.sync_dir(&self.folder)
        });
        if let Err(error) = &removed {
            tracing::error!(%error, "the key envelopes of this revoked node cannot be removed; it is tried again");
        }
        removed.is_ok()
    }

    /// Epochs that the state calls usable and whose key is not here. Empty when the node can open everything.
    pub(crate) fn missing(&self) -> Vec<EpochName> {
        let inner = self.lock();
        let usable = inner.announced.iter().filter(|record| matches!(record.state, KekState::Active | KekState::Retired));
        let missing = usable.filter(|record| !self.ring.holds(&record.domain, record.n));
        missing.map(|record| (record.domain.clone(), record.n)).collect()
    }

    fn drop_destroyed(&self, inner: &mut Inner) {
        for record in inner.announced.iter().filter(|record| record.state == KekState::Destroyed) {
            let epoch = (record.domain.clone(), record.n);
            inner.waiting.remove(&epoch);
            inner.unfiled.remove(&epoch);
            if self.ring.remove_kek(&record.domain, record.n) {
                tracing::info!(domain = %record.domain, epoch = %record.n, "KEK epoch destroyed: its key was dropped");
            }
            inner.filed.remove(&epoch);
            // Whether there is a file is not asked of memory, which may know nothing of one that could not be read.
            inner.unremoved.insert(epoch);
        }
    }

    /// Removes the files of destroyed epochs; what fails is tried again at the next root.
    fn remove_destroyed(&self, inner: &mut Inner) {
        if inner.unremoved.is_empty() {
            return;
        }
        for epoch in std::mem::take(&mut inner.unremoved) {
            let path = self.path(&epoch);
            let removed = remove(&*self.disk, &path).and_then(|()| remove(&*self.disk, &path.with_extension("new")));
            if let Err(error) = removed {
                tracing::warn!(domain = %epoch.0, epoch = %epoch.1, %error, "the envelope of a destroyed KEK epoch cannot be removed; it is tried again");
                inner.unremoved.insert(epoch);
            }
        }
        if let Err(error) = self.disk.sync_dir(&self.folder) {
            tracing::warn!(%error, "the removal of destroyed KEK epochs is not durable; it is done again at the next start");
        }
    }

    fn open_waiting(&self, inner: &mut Inner) {
        for record in &inner.announced {
            let epoch = (record.domain.clone(), record.n);
            if record.state == KekState::Destroyed || self.ring.holds(&record.domain, record.n) {
                continue;
            }
            let Some(envelope) = inner.waiting.remove(&epoch) else { continue };
            let name = KekName { cluster: self.ring.cluster(), domain: &record.domain, epoch: record.n };
            let opened = open_envelope(&name, self.node, &self.pair, &envelope)
                .and_then(|kek| self.ring.install_kek(&record.domain, record.n, &Hash::from_bytes(record.commitment), kek));
            match opened {
                Ok(()) => {
                    tracing::info!(domain = %record.domain, epoch = %record.n, "KEK epoch unlocked");
                    if !inner.filed.contains(&epoch) {
                        inner.unfiled.insert(epoch, envelope);
                    }
                }
                Err(error) => {
                    inner.filed.remove(&epoch);
                    metrics::counter!("cinnabar_edge_envelopes_refused_total", "node" => self.node.to_string()).increment(1);
                    tracing::error!(domain = %record.domain, epoch = %record.n, %error, "a key envelope was refused");
                }
            }
        }
    }

    /// Makes matched envelopes durable; what fails is tried again at the next root.
    fn file(&self, inner: &mut Inner) {
        while let Some((epoch, envelope)) = inner.unfiled.pop_first() {
            if let Err(error) = self.write(&epoch, &envelope) {
                tracing::warn!(domain = %epoch.0, epoch = %epoch.1, %error, "a key envelope cannot be kept: after a restart the edge needs the control plane for it");
                inner.unfiled.insert(epoch, envelope);
                return;
            }
            inner.filed.insert(epoch);
        }
    }

    /// Beside, synced, renamed, folder synced: an old file stays whole until the new one is.
    fn write(&self, epoch: &EpochName, envelope: &[u8]) -> io::Result<()> {
        let path = self.path(epoch);
        let beside = path.with_extension("new");
        remove(&*self.disk, &beside)?;
        let file = self.disk.open(&beside, OpenMode::CreateNew)?;
        file.write_all_at(envelope, 0)?;
        file.sync_data()?;
        drop(file);
        self.disk.rename(&beside, &path)?;
        self.disk.sync_dir(&self.folder)
    }

    fn path(&self, (domain, epoch): &EpochName) -> PathBuf {
        self.folder.join(format!("{domain}-{epoch}.envelope"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyReceiver for EdgeKeys {
    fn received(&self, envelopes: Vec<proto::Envelope>) {
        let mut inner = self.lock();
        if inner.forgotten {
            return;
        }
        for envelope in envelopes {
            let Ok(domain) = KeyDomain::new(envelope.domain) else {
                tracing::warn!("a key envelope for a key domain that cannot exist was ignored");
                continue;
            };
            let epoch = (domain, KekEpoch::new(envelope.epoch));
            if self.ring.holds(&epoch.0, epoch.1) {
                continue;
            }
            if inner.waiting.len() >= WAITING_MAX && !inner.waiting.contains_key(&epoch) {
                tracing::warn!(
                    max = WAITING_MAX,
                    "more key envelopes than epochs can exist; the rest is ignored until the next subscription"
                );
                break;
            }
            // A new envelope takes the place of one that did not open; its file is then written anew.
            inner.filed.remove(&epoch);
            inner.waiting.insert(epoch, envelope.envelope);
        }
        self.open_waiting(&mut inner);
    }

    fn holds(&self) -> Vec<proto::KeyEpoch> {
        let held = self.ring.epochs().into_iter();
        held.map(|(domain, epoch)| proto::KeyEpoch { domain: domain.to_string(), epoch: epoch.get() }).collect()
    }
}

/// The epochs of all domains, in the order of their keys.
fn epochs(state: &Propagated) -> Result<Vec<KekEpochRecord>, FormatError> {
    let prefix = Prefix::keyspace(Keyspace::KekEpoch);
    state.scan(&prefix).filter_map(|(_, content)| content.inline()).map(|bytes| KekEpochRecord::decode(bytes)).collect()
}

/// `DOMAIN-EPOCH.envelope`; a domain may hold hyphens, an epoch does not.
fn parse_name(file: &str) -> Option<EpochName> {
    let (domain, epoch) = file.strip_suffix(".envelope")?.rsplit_once('-')?;
    Some((KeyDomain::new(domain).ok()?, KekEpoch::new(epoch.parse().ok()?)))
}

/// Removes a file; one that is not there is fine.
fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Bytes> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > ENVELOPE_BYTES_MAX {
        return Err(io::Error::other(format!("it has {len} bytes; an envelope has at most {ENVELOPE_BYTES_MAX}")));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
