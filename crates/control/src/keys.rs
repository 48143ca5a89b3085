//! The key service: which data key seals a value now, unlocking, and handing epochs to edges.

use std::sync::Arc;

use feed::Handover;
use seal::{DekWrap, KekName, KeyRing, NodePublicKey, RootProvider, SealError, ValueContext};
use seams::Entropy;
use state::{
    NewDek, SealedInput, SealingDek, State,
    record::{DekRecord, KekState, WrappedDek},
};
use types::{AccountId, ClusterId, DekId, Hash, KekEpoch, KeyDomain, NodeId, SecretId, SecretName, StoreId, UnixMillis, ValueId};
use wire::{ErrorKind, PublicError, internal};

use crate::{
    core::Core,
    error::{damaged, not_sealed},
};

/// Epochs of one domain that are read in one go.
const EPOCHS_MAX: usize = 256;

/// The data key under which an account's values are sealed now: the current one, or a new one that the command brings along.
pub(crate) struct SealingKey {
    account: AccountId,
    id: DekId,
    domain: KeyDomain,
    epoch: KekEpoch,
    wrapped: Vec<u8>,
    new: Option<NewDek>,
}

impl SealingKey {
    /// The account's current data key if it is young and little used, else a fresh one.
    pub(crate) fn choose(core: &Core, state: &State, account: AccountId) -> Result<Self, PublicError> {
        match state.sealing_dek(account, core.clock.wall()).map_err(damaged)? {
            SealingDek::Use(dek) => Self::existing(core, &dek),
            SealingDek::Mint { replaces } => Self::minted(core, state, account, replaces),
        }
    }

    fn existing(core: &Core, dek: &DekRecord) -> Result<Self, PublicError> {
        let wrap = dek.wrap(&core.domain).ok_or_else(|| {
            PublicError::new(ErrorKind::Locked, format!("data key {} is not wrapped for key domain {}", dek.id, core.domain))
        })?;
        Ok(Self {
            account: dek.account,
            id: dek.id,
            domain: core.domain.clone(),
            epoch: wrap.epoch,
            wrapped: wrap.bytes.clone(),
            new: None,
        })
    }

    fn minted(core: &Core, state: &State, account: AccountId, replaces: Option<DekId>) -> Result<Self, PublicError> {
        let epoch = active_epoch(core, state)?;
        let minted = core.ring.mint_dek(&*core.entropy, &core.domain, epoch, account).map_err(|error| not_sealed(&error))?;
        let wrapped = minted.wrapped.as_bytes().to_vec();
        let wrap = WrappedDek { domain: core.domain.clone(), epoch, bytes: wrapped.clone() };
        let new = NewDek { id: minted.id, wraps: vec![wrap], replaces };
        Ok(Self { account, id: minted.id, domain: core.domain.clone(), epoch, wrapped, new: Some(new) })
    }

    /// Seals one value for one secret. From here on there is only ciphertext.
    pub(crate) fn seal(
        &self,
        core: &Core,
        store: StoreId,
        secret: SecretId,
        name: &SecretName,
        plaintext: &[u8],
    ) -> Result<SealedInput, PublicError> {
        let value_id = ValueId::from_bytes(core.entropy.id());
        let context = ValueContext { account: self.account, store, secret, name, value_id, dek: self.id, domain: &self.domain };
        let wrap = DekWrap { epoch: self.epoch, bytes: &self.wrapped };
        let sealed = core.ring.seal_value(&*core.entropy, &context, wrap, plaintext).map_err(|error| not_sealed(&error))?;
        Ok(SealedInput { value_id, dek: self.id, domain: self.domain.clone(), sealed })
    }

    /// The key that the command has to bring, when it is a new one.
    pub(crate) fn new_dek(self) -> Option<NewDek> {
        self.new
    }
}

/// The KEK epoch that wraps new data keys.
pub(crate) fn active_epoch(core: &Core, state: &State) -> Result<KekEpoch, PublicError> {
    let active = state.active_kek_epoch(&core.domain).map_err(damaged)?;
    active.map(|epoch| epoch.n).ok_or_else(|| PublicError::new(ErrorKind::Unavailable, "the cluster has no active key epoch yet"))
}

/// Puts every epoch that this root key wraps into the ring.
pub(crate) fn unlock(ring: &KeyRing, root: &dyn RootProvider, domain: &KeyDomain, state: &State) -> Result<usize, UnlockError> {
    let mut unlocked = 0;
    for epoch in state.kek_epochs(domain, None, EPOCHS_MAX)?.items {
        if epoch.state == KekState::Destroyed || ring.holds(domain, epoch.n) {
            continue;
        }
        let recipient = state::Recipient::Root(root.root_key_id());
        let Some(envelope) = state.envelope(domain, epoch.n, recipient)? else { continue };
        let name = KekName { cluster: ring.cluster(), domain, epoch: epoch.n };
        let wrapped = seal::WrappedKek::decode(&name, &envelope.bytes)?;
        let kek = root.unwrap_kek(&name, &wrapped)?;
        ring.install_kek(domain, epoch.n, &Hash::from_bytes(epoch.commitment), kek)?;
        unlocked += 1;
    }
    Ok(unlocked)
}

/// Why a node stays locked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The root key does not open what the state holds.
    #[error("cannot unlock")]
    Seal(#[from] SealError),
    /// The state cannot be read.
    #[error("cannot read the key epochs")]
    Read(#[from] state::ReadError),
}

/// Hands each subscribing edge the envelopes made for it.
pub(crate) struct Envelopes;

impl Handover for Envelopes {
    fn envelopes(&self, state: &State, node: NodeId) -> Vec<internal::Envelope> {
        let Ok(page) = state.all_kek_epochs(None, EPOCHS_MAX) else { return Vec::new() };
        let open = page.items.into_iter().filter(|epoch| epoch.state != KekState::Destroyed);
        let envelope = |epoch: state::record::KekEpochRecord| {
            let found = state.envelope(&epoch.domain, epoch.n, state::Recipient::Node(node)).ok()??;
            Some(internal::Envelope { domain: epoch.domain.to_string(), epoch: epoch.n.get(), envelope: found.bytes.into() })
        };
        open.filter_map(envelope).collect()
    }
}

/// Opens a sealed value, for duplicating it. The plaintext never leaves the node, and is not replied.
pub(crate) fn open(
    core: &Core,
    state: &State,
    secret: SecretId,
    record: &state::record::SecretRecord,
    value_id: ValueId,
) -> Result<seal::Plaintext, PublicError> {
    let gone = || PublicError::new(ErrorKind::Precondition, "the source's value was replaced meanwhile: try again");
    let value = state.value(secret, value_id).map_err(damaged)?.ok_or_else(gone)?;
    let dek = state.dek(record.account, value.dek).map_err(damaged)?.ok_or_else(gone)?;
    let wrap = dek.wrap(&value.domain).ok_or_else(gone)?;
    let context = ValueContext {
        account: record.account,
        store: record.store,
        secret,
        name: &record.name,
        value_id,
        dek: value.dek,
        domain: &value.domain,
    };
    core.ring.open_value(&context, DekWrap { epoch: wrap.epoch, bytes: &wrap.bytes }, &value.sealed).map_err(|error| not_sealed(&error))
}

/// The first epoch of a new cluster: made here, wrapped for the root, enveloped for the nodes.
pub(crate) struct FirstEpoch {
    pub(crate) commitment: [u8; 32],
    pub(crate) envelopes: Vec<(state::Recipient, state::record::EnvelopeRecord)>,
}

impl FirstEpoch {
    /// Makes epoch 1 of `domain`.
    pub(crate) fn make(
        entropy: &dyn Entropy,
        root: &dyn RootProvider,
        cluster: ClusterId,
        domain: &KeyDomain,
        nodes: impl IntoIterator<Item = (NodeId, NodePublicKey)>,
    ) -> Result<Self, SealError> {
        let name = KekName { cluster, domain, epoch: KekEpoch::new(1) };
        let kek = seal::Kek::generate(entropy);
        let commitment = *seal::commitment(&name, &kek)?.as_bytes();
        let wrapped = root.wrap_kek(entropy, &name, &kek)?.as_bytes().to_vec();
        let mut envelopes = vec![(state::Recipient::Root(root.root_key_id()), state::record::EnvelopeRecord { bytes: wrapped })];
        for (node, key) in nodes {
            let bytes = seal::seal_envelope(entropy, &name, node, &key, &kek)?;
            envelopes.push((state::Recipient::Node(node), state::record::EnvelopeRecord { bytes }));
        }
        Ok(Self { commitment, envelopes })
    }
}

/// Envelopes of every epoch in the ring, for a node that joins later.
pub(crate) fn envelopes_for(
    ring: &Arc<KeyRing>,
    entropy: &dyn Entropy,
    node: NodeId,
    key: &NodePublicKey,
) -> Result<Vec<(KeyDomain, KekEpoch, state::record::EnvelopeRecord)>, SealError> {
    let seal = |(domain, epoch): (KeyDomain, KekEpoch)| {
        let bytes = ring.seal_envelope(entropy, &domain, epoch, node, key)?;
        Ok((domain, epoch, state::record::EnvelopeRecord { bytes }))
    };
    ring.epochs().into_iter().map(seal).collect()
}

/// What `now` is for a control node's own judgements, before `apply` judges by log time.
pub(crate) fn now(core: &Core, state: &State) -> UnixMillis {
    core.clock.wall().max(state.last_time())
}
