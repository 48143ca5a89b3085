//! A voter alone, set up as a control node sets its own up, without doors, keys or feed: what the log, its fdatasync and `apply` cost.
//!
//! Its records hold random bytes where a control node's hold sealed ones: nothing here opens them.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result};
use consensus::{AuditLog, AuditOptions, Bootstrap, Consensus, Drive, Limits, Options, SledTables, Timing, Unconnected};
use runtime::{OsEntropy, RealClock};
use seams::{Clock, Disk, Entropy};
use state::{
    Command, CommandBody, FEATURE_LEVEL_MAX, InitCluster, NewDek, NewNode, NewSecret, Origin, Principal, Recipient, RequestKey,
    SealedInput, Stage,
    limits::Quota,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, SettingsRecord, WrappedDek},
};
use store::SledOptions;
use types::{
    AccountId, AccountName, ClusterId, Comment, ConsumerKind, DekId, FeatureLevel, KekEpoch, KeyDomain, NodeId, NodeName, PrincipalName,
    RequestId, RootKeyId, Scope, SealedValue, SecretId, SecretName, StoreId, StoreName, TokenId, ValueId,
};

use super::ground::Ground;

const NODE: NodeId = NodeId::new(1);
/// The level that a cluster begins with.
const FOUNDING_LEVEL: FeatureLevel = FeatureLevel::new(1);
/// The operator's token, by its hash.
const OPERATOR: [u8; 32] = [7; 32];
/// The lengths of keys, wraps and envelopes are those of real ones.
const KEY_BYTES: usize = 32;
const WRAP_BYTES: usize = 61;
const ENVELOPE_BYTES: usize = 1200;
/// Secrets made by one command.
const SECRETS_A_COMMAND: usize = 200;

/// The voter and what it holds. Clones share it.
#[derive(Clone)]
pub(super) struct Bare(Arc<Inner>);

struct Inner {
    consensus: Consensus,
    clock: RealClock,
    account: AccountId,
    store: StoreId,
    secrets: Vec<SecretId>,
    dek: DekId,
    value_bytes: usize,
}

impl Bare {
    /// Starts the voter and makes `secrets` secrets.
    pub(super) async fn start(ground: &Ground, secrets: u32, value_bytes: u32) -> Result<Self> {
        let (disk, folder) = (Arc::new(ground.disk.clone()), ground.folder().join("bare"));
        disk.create_dir_all(&folder)?;
        let audit = AuditLog::open(disk.clone(), AuditOptions::new(folder.join("audit"))).context("cannot open the audit log")?;
        let consensus = Consensus::start(Options {
            node: NODE,
            disk,
            folder: folder.join("raft"),
            drive: Drive::Thread,
            tables: Some(Box::new(SledTables { folder: folder.join("table"), options: SledOptions::default() })),
            clock: Arc::new(ground.clock),
            transport: Arc::new(Unconnected),
            applied: Arc::new(()),
            audit: Arc::new(audit),
            bootstrap: Some(Bootstrap::alone(NODE, "nowhere")),
            timing: Timing::default(),
            limits: Limits::default(),
        })
        .await
        .context("the voter did not start")?;
        let inner = Inner {
            consensus,
            clock: ground.clock,
            account: AccountId::from_bytes(OsEntropy.id()),
            store: StoreId::from_bytes(OsEntropy.id()),
            secrets: (0..secrets).map(|_| SecretId::from_bytes(OsEntropy.id())).collect(),
            dek: DekId::from_bytes(OsEntropy.id()),
            value_bytes: value_bytes as usize,
        };
        inner.found().await?;
        inner.fill().await?;
        Ok(Self(Arc::new(inner)))
    }

    /// Gives a secret a new value, under a request id, as a client does.
    pub(super) async fn set(&self, number: u32) -> Result<()> {
        let inner = &self.0;
        let secret = *inner.secrets.get(number as usize).context("no such secret")?;
        let mut fingerprint = [0; 32];
        OsEntropy.fill(&mut fingerprint);
        let request = Some(RequestKey { id: RequestId::from_bytes(OsEntropy.id()), fingerprint });
        let body = CommandBody::SetValue {
            account: inner.account,
            store: inner.store,
            secret,
            value: inner.value()?,
            expect: None,
            stage: Stage::Current,
            scopes: None,
            comment: None,
            new_dek: None,
        };
        inner.propose(Principal::Operator { token: OPERATOR }, request, body).await
    }

    /// Ends it.
    pub(super) async fn stop(&self) {
        self.0.consensus.shutdown().await;
    }
}

impl Inner {
    async fn propose(&self, principal: Principal, request: Option<RequestKey>, body: CommandBody) -> Result<()> {
        let command = Command { level: FOUNDING_LEVEL, principal, stamp: self.clock.wall(), request, origin: Origin::default(), body };
        self.consensus.propose(command).await.map(drop).context("a proposal was not applied")
    }

    async fn found(&self) -> Result<()> {
        let cluster = ClusterId::from_bytes(OsEntropy.id());
        let node = NewNode {
            id: NODE,
            name: NodeName::new("bench")?,
            role: NodeRole::Control,
            public_key: random(KEY_BYTES),
            envelope_key: random(KEY_BYTES),
            labels: BTreeMap::new(),
            address: None,
            feature_level: FEATURE_LEVEL_MAX,
        };
        let init = InitCluster {
            cluster,
            settings: SettingsRecord::defaults(cluster),
            signers: vec![MemberKey { node: NODE, key: [1; 32] }],
            threshold: 1,
            operator_token: OPERATOR,
            operator_token_id: TokenId::from_bytes(OsEntropy.id()),
            operator: PrincipalName::new("bench")?,
            domain: KeyDomain::global(),
            commitment: [2; 32],
            envelopes: vec![(Recipient::Root(RootKeyId::from_bytes(OsEntropy.id())), EnvelopeRecord { bytes: random(ENVELOPE_BYTES) })],
            nodes: vec![node],
            authority: AuthorityRecord { certificate: random(KEY_BYTES), envelopes: Vec::new() },
            recovery: None,
        };
        self.propose(Principal::System, None, CommandBody::InitCluster(Box::new(init))).await
    }

    async fn fill(&self) -> Result<()> {
        let operator = Principal::Operator { token: OPERATOR };
        let account = self.account;
        self.propose(operator, None, CommandBody::CreateAccount { account, name: AccountName::new("bench")? }).await?;
        let quota = Quota { secrets: self.secrets.len() as u32, ..Quota::default() };
        self.propose(operator, None, CommandBody::SetQuota { account, quota: Some(quota) }).await?;
        self.propose(operator, None, CommandBody::CreateStore { account, store: self.store, name: StoreName::new("bench")? }).await?;
        let wrap = WrappedDek { domain: KeyDomain::global(), epoch: KekEpoch::new(1), bytes: random(WRAP_BYTES) };
        let mut new_dek = Some(NewDek { id: self.dek, wraps: vec![wrap], replaces: None });
        for (run, ids) in self.secrets.chunks(SECRETS_A_COMMAND).enumerate() {
            let item = |(place, id): (usize, &SecretId)| {
                Ok(NewSecret {
                    id: *id,
                    name: SecretName::new(format!("SECRET_{}", run * SECRETS_A_COMMAND + place))?,
                    scopes: std::iter::once(Scope::of_kind(ConsumerKind::Worker)).collect(),
                    comment: Comment::default(),
                    value: self.value()?,
                })
            };
            let items = ids.iter().enumerate().map(item).collect::<Result<_>>()?;
            let body = CommandBody::CreateSecrets { account, store: self.store, items, new_dek: new_dek.take() };
            self.propose(operator, None, body).await?;
        }
        Ok(())
    }

    fn value(&self) -> Result<SealedInput> {
        let mut bytes = random(SealedValue::HEADER_BYTES + self.value_bytes + SealedValue::TAG_BYTES);
        bytes[0] = SealedValue::FORMAT;
        Ok(SealedInput {
            value_id: ValueId::from_bytes(OsEntropy.id()),
            dek: self.dek,
            domain: KeyDomain::global(),
            sealed: SealedValue::from_bytes(bytes)?,
        })
    }
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    OsEntropy.fill(&mut bytes);
    bytes
}
