//! The key service: which data key seals a value now, unlocking, and handing epochs to edges.

use feed::Handover;
use seal::{DekWrap, Kek, KekName, KeyRing, NodeKeyPair, NodePublicKey, RootProvider, SealError, ValueContext};
use seams::Entropy;
use state::{
    NewDek, Recipient, SealedInput, SealingDek, State,
    record::{DekRecord, EnvelopeRecord, KekEpochRecord, KekState, NodeRole, WrappedDek},
};
use types::{AccountId, DekId, Hash, KekEpoch, KeyDomain, NodeId, SecretId, SecretName, StoreId, UnixMillis, ValueId};
use wire::{ErrorKind, PublicError, internal};

use crate::{
    core::Core,
    error::{damaged, not_sealed},
};

/// Epochs that are read in one go.
const EPOCHS_AT_A_TIME: usize = 256;

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
    /// The account's current data key if it is young and has `uses` left, else a fresh one.
    pub(crate) fn choose(core: &Core, state: &State, account: AccountId, uses: usize) -> Result<Self, PublicError> {
        match state.sealing_dek(account, now(core, state)).map_err(damaged)? {
            SealingDek::Use(dek) if Self::fits(state, &dek, uses)? => Self::existing(core, &dek),
            SealingDek::Use(dek) => Self::minted(core, state, account, Some(dek.id)),
            SealingDek::Mint { replaces } => Self::minted(core, state, account, replaces),
        }
    }

    fn fits(state: &State, dek: &DekRecord, uses: usize) -> Result<bool, PublicError> {
        let max = state.settings().map_err(damaged)?.map_or(0, |settings| settings.dek_uses_max);
        Ok(state.dek_uses(dek.account, dek.id).map_err(damaged)?.saturating_add(uses as u64) <= max)
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
    let active = active.ok_or_else(|| PublicError::new(ErrorKind::Unavailable, "the cluster has no active key epoch yet"))?;
    if !core.ring.holds(&core.domain, active.n) {
        // One that came a moment ago: its envelope for this node came with it.
        refresh(core, state);
    }
    Ok(active.n)
}

/// Puts every epoch that this root key wraps, or that is sealed for this node, into the ring. A node whose ring then lacks the active
/// epoch is locked.
pub(crate) fn unlock(
    ring: &KeyRing,
    root: Option<&dyn RootProvider>,
    own: (NodeId, &NodeKeyPair),
    domain: &KeyDomain,
    state: &State,
) -> Result<(), UnlockError> {
    for epoch in all_epochs(state)? {
        if epoch.state == KekState::Destroyed || ring.holds(&epoch.domain, epoch.n) {
            continue;
        }
        let commitment = Hash::from_bytes(epoch.commitment);
        if let Some(root) = root
            && let Some(envelope) = state.envelope(&epoch.domain, epoch.n, Recipient::Root(root.root_key_id()))?
        {
            ring.unlock_kek(root, &epoch.domain, epoch.n, &commitment, &envelope.bytes)?;
        } else if let Some(envelope) = state.envelope(&epoch.domain, epoch.n, Recipient::Node(own.0))? {
            ring.open_envelope(own.0, own.1, &epoch.domain, epoch.n, &commitment, &envelope.bytes)?;
        }
    }
    match state.active_kek_epoch(domain)? {
        Some(active) if !ring.holds(domain, active.n) => Err(UnlockError::NoKey {
            epoch: active.n,
            root: root.map(RootProvider::root_key_id).map_or_else(|| "no root key".to_owned(), |id| format!("root key {id}")),
        }),
        _ => Ok(()),
    }
}

/// Follows the state: takes the epochs that are sealed for this node and not yet held, and drops those that were destroyed. What cannot
/// be opened is logged and left; the node then is as locked as it was.
pub(crate) fn refresh(core: &Core, state: &State) {
    let Ok(epochs) = all_epochs(state) else { return };
    for epoch in epochs {
        match (epoch.state, core.ring.holds(&epoch.domain, epoch.n)) {
            (KekState::Destroyed, true) => {
                core.ring.remove_kek(&epoch.domain, epoch.n);
                tracing::info!(domain = %epoch.domain, epoch = %epoch.n, "dropped a key epoch that was destroyed");
            }
            (KekState::Destroyed, false) | (_, true) => {}
            (_, false) => {
                let envelope = state.envelope(&epoch.domain, epoch.n, Recipient::Node(core.node)).ok().flatten();
                let Some(envelope) = envelope else { continue };
                let (key, commitment) = (&core.enrolment.envelope_key, Hash::from_bytes(epoch.commitment));
                match core.ring.open_envelope(core.node, key, &epoch.domain, epoch.n, &commitment, &envelope.bytes) {
                    Ok(()) => tracing::info!(domain = %epoch.domain, epoch = %epoch.n, "opened a key epoch"),
                    Err(error) => tracing::error!(%error, "a key epoch that was sealed for this node does not open"),
                }
            }
        }
    }
}

pub(crate) fn all_epochs(state: &State) -> Result<Vec<KekEpochRecord>, state::ReadError> {
    let (mut epochs, mut after) = (Vec::new(), None);
    loop {
        let page = state.all_kek_epochs(after.as_ref(), EPOCHS_AT_A_TIME)?;
        epochs.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(epochs);
        }
    }
}

/// Why a node stays locked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The root key does not open what the state holds.
    #[error("cannot unlock")]
    Seal(#[from] SealError),
    /// Nothing at hand opens the active epoch.
    #[error(
        "neither {root} nor this node's own key opens the active key epoch {epoch}: give this node the root key that the cluster was founded with, or one it was rotated to; or wait until an unlocked control node hands it over"
    )]
    NoKey {
        /// The active epoch.
        epoch: KekEpoch,
        /// The root key at hand.
        root: String,
    },
    /// The state cannot be read.
    #[error("cannot read the key epochs")]
    Read(#[from] state::ReadError),
}

/// Hands each subscribing edge the envelopes made for it.
pub(crate) struct Envelopes;

impl Handover for Envelopes {
    fn envelopes(&self, state: &State, node: NodeId) -> Vec<internal::Envelope> {
        let Ok(epochs) = all_epochs(state) else { return Vec::new() };
        let open = epochs.into_iter().filter(|epoch| epoch.state != KekState::Destroyed);
        let envelope = |epoch: KekEpochRecord| {
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

/// A new epoch: made here, wrapped for a root key, sealed for nodes and for the recovery key.
pub(crate) struct NewKek {
    pub(crate) kek: Kek,
    pub(crate) commitment: [u8; 32],
    pub(crate) envelopes: Vec<(Recipient, EnvelopeRecord)>,
}

impl NewKek {
    /// Makes an epoch by that name.
    pub(crate) fn make(
        entropy: &dyn Entropy,
        root: Option<&dyn RootProvider>,
        name: &KekName<'_>,
        recipients: impl IntoIterator<Item = (seal::Recipient, NodePublicKey)>,
    ) -> Result<Self, SealError> {
        let kek = Kek::generate(entropy);
        let commitment = *seal::commitment(name, &kek)?.as_bytes();
        let mut envelopes = Vec::new();
        if let Some(root) = root {
            let wrapped = root.wrap_kek(entropy, name, &kek)?.as_bytes().to_vec();
            envelopes.push((Recipient::Root(root.root_key_id()), EnvelopeRecord { bytes: wrapped }));
        }
        for (recipient, key) in recipients {
            let bytes = seal::seal_envelope(entropy, name, recipient, &key, &kek)?;
            envelopes.push((in_keys(recipient), EnvelopeRecord { bytes }));
        }
        Ok(Self { kek, commitment, envelopes })
    }
}

/// A recipient as it stands in the state's keys.
pub(crate) const fn in_keys(recipient: seal::Recipient) -> Recipient {
    match recipient {
        seal::Recipient::Node(node) => Recipient::Node(node),
        seal::Recipient::Recovery => Recipient::Recovery,
    }
}

/// Whom every epoch is sealed for: the control nodes and edges in good standing, control nodes first, then the recovery key.
pub(crate) fn recipients(state: &State) -> Result<Vec<(seal::Recipient, NodePublicKey)>, PublicError> {
    // One whose key is none gets no epoch, and must not stand in the way of the others, least of all at a revocation.
    let readable = |bytes: &[u8], of: seal::Recipient| {
        NodePublicKey::decode(bytes)
            .inspect_err(|error| tracing::error!(?of, %error, "an envelope key in the registry cannot be read"))
            .ok()
    };
    let (mut control, mut others, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), state::limits::PAGE_MAX).map_err(damaged)?;
        for (node, record) in page.items.into_iter().filter(|(_, record)| record.revoked.is_none()) {
            let list = match record.role {
                NodeRole::Control => &mut control,
                NodeRole::Edge => &mut others,
                NodeRole::Relay => continue,
            };
            let recipient = seal::Recipient::Node(node);
            list.extend(readable(&record.envelope_key, recipient).map(|key| (recipient, key)));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    control.append(&mut others);
    if let Some(recovery) = state.recovery().map_err(damaged)? {
        let recipient = seal::Recipient::Recovery;
        control.extend(readable(&recovery.envelope_key, recipient).map(|key| (recipient, key)));
    }
    Ok(control)
}

/// What `now` is for a control node's own judgements, before `apply` judges by log time.
pub(crate) fn now(core: &Core, state: &State) -> UnixMillis {
    core.consensus.time().max(state.last_time())
}
