//! What can be commanded.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use types::{
    AccountId, AccountName, BindingName, ClusterId, Comment, ConsumerRef, DekId, FeatureLevel, KekEpoch, KeyDomain, NodeId, NodeName,
    PrincipalName, ScopeSet, SealedValue, SecretId, SecretName, StoreId, StoreName, TokenId, UnixMillis, ValueId, Version,
};

use super::CommandKind;
use crate::{
    CallNotes, Grant, GrantScope, JobId, MemberRef, Permission, Recipient,
    limits::Quota,
    record::{
        AuthorityRecord, BoundTo, EnvelopeRecord, KekState, MemberKey, NodeRole, RecoveryRecord, SetSignature, SettingsRecord, WrappedDek,
    },
};

/// A value as its sealer hands it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedInput {
    /// Chosen by the sealer, random; part of the associated data.
    pub value_id: ValueId,
    /// The data key that it is sealed under.
    pub dek: DekId,
    /// The key domain.
    pub domain: KeyDomain,
    /// The sealed bytes.
    #[serde(with = "crate::packed::sealed")]
    pub sealed: SealedValue,
}

/// A data key to become current, as its maker hands it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDek {
    /// Its id, random.
    pub id: DekId,
    /// One wrap per key domain, each under that domain's active epoch.
    pub wraps: Vec<WrappedDek>,
    /// The data key that it takes the place of, so that two makers do not replace each other's.
    pub replaces: Option<DekId>,
}

/// A secret to be made, with its first value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecret {
    /// Its id, random.
    pub id: SecretId,
    /// Its name.
    pub name: SecretName,
    /// Where it may be used; not empty.
    pub scopes: ScopeSet,
    /// Free text.
    pub comment: Comment,
    /// Its first value.
    pub value: SealedInput,
}

/// Whether a new value is served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It becomes current.
    Current,
    /// It waits as the candidate, in place of one that may wait there.
    Candidate,
}

/// How pointers move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointerMove {
    /// An older version becomes current.
    Rollback {
        /// Which.
        to: Version,
    },
    /// The candidate becomes current.
    Promote,
    /// Current and previous change places.
    Revert,
    /// The candidate is given up; its version stays.
    DropCandidate,
}

/// A node to be registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// What it is for.
    pub role: NodeRole,
    /// Its identity key, as SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Its envelope key; empty for a relay.
    pub envelope_key: Vec<u8>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where others reach it, `host:port`; control nodes only.
    pub address: Option<String>,
    /// The highest feature level that it supports.
    pub feature_level: FeatureLevel,
}

/// A join token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJoinToken {
    /// Its public id, random.
    pub id: TokenId,
    /// What nodes that join by it become.
    pub role: NodeRole,
    /// The name that the node gets, whatever it asks for; with one use only. None: the one that it asks for.
    pub name: Option<NodeName>,
    /// The labels that nodes get.
    pub labels: BTreeMap<String, String>,
    /// How many nodes may join by it.
    pub uses: u32,
    /// The first moment of log time at which it is refused.
    pub expires: UnixMillis,
}

/// An envelope of a KEK epoch for a node that is being enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEnvelope {
    /// The epoch's key domain.
    pub domain: KeyDomain,
    /// Its number.
    pub epoch: KekEpoch,
    /// The envelope.
    pub envelope: EnvelopeRecord,
}

/// The signer set that follows the one in force. The proposer verified the signatures; they are stored for those who follow the chain
/// of sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSignerSet {
    /// One more than the version in force.
    pub version: u32,
    /// How many of the members must sign.
    pub threshold: u32,
    /// The members, by rising node id.
    pub keys: Vec<MemberKey>,
    /// Signatures by the threshold of the set in force.
    pub signatures: Vec<SetSignature>,
}

/// The key of the certificate authority that issues, sealed for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityShare {
    /// The authority's number; another may issue by the time the command is judged.
    pub number: u32,
    /// The envelope.
    pub envelope: EnvelopeRecord,
}

/// A certificate authority to take over from the one that issues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateAuthority {
    /// One more than the number of the one that issues.
    pub number: u32,
    /// Its certificate, and its key for every control node in good standing and the recovery key.
    pub authority: AuthorityRecord,
    /// A certificate of the new one's key, by the one that issues now, DER.
    #[serde(with = "crate::packed::vec")]
    pub crossed: Vec<u8>,
    /// How long the one before is believed at least, in log time, unless a person says otherwise.
    pub keep_ms: u64,
    /// After how long it is believed no more, whoever still needs it.
    pub drop_after_ms: Option<u64>,
}

/// All that a node becomes a member by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolNode {
    /// The hash of the join token that it showed.
    pub token: [u8; 32],
    /// The node. Its role, and its name and labels where the token gives them, are the token's.
    pub node: NewNode,
    /// The KEK epochs that are not destroyed, as far as the proposer holds them; none for a relay.
    pub envelopes: Vec<NodeEnvelope>,
    /// The key of the cluster's certificate authority, sealed for the node; control nodes only.
    pub authority: Option<AuthorityShare>,
    /// The signer set that the node is a member of; control nodes only.
    pub signer_set: Option<NewSignerSet>,
}

/// A data key wrapped anew under another epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrap {
    /// Whose key.
    pub account: AccountId,
    /// Which.
    pub dek: DekId,
    /// The epoch that wraps it now; if another one does, the item is passed over.
    pub from: KekEpoch,
    /// The new wrap, under the active epoch of its domain.
    pub wrap: WrappedDek,
}

/// A KEK epoch that takes over at once, as a node's revocation brings it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEpoch {
    /// Its key domain.
    pub domain: KeyDomain,
    /// Its number, one more than the newest of the domain.
    pub epoch: KekEpoch,
    /// What an opened key must match.
    pub commitment: [u8; 32],
    /// One envelope per recipient.
    pub envelopes: Vec<(Recipient, EnvelopeRecord)>,
}

/// A move of a KEK epoch. Epochs announce, become active, retire and are destroyed, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KekStep {
    /// Makes a new epoch known.
    Announce {
        /// What an opened key must match.
        commitment: [u8; 32],
        /// One envelope per recipient.
        envelopes: Vec<(Recipient, EnvelopeRecord)>,
    },
    /// Adds envelopes for recipients that have none, such as a new node.
    AddEnvelopes {
        /// One envelope per recipient.
        envelopes: Vec<(Recipient, EnvelopeRecord)>,
    },
    /// Makes it the one that wraps; the one before retires.
    Activate,
    /// Takes it out of use.
    Retire,
    /// Has every node drop it. Refused while it wraps a data key.
    Destroy,
}

/// All that a new cluster starts from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitCluster {
    /// Names the cluster for ever; as in `settings`.
    pub cluster: ClusterId,
    /// The settings.
    pub settings: SettingsRecord,
    /// The members of signer set 1, by rising node id.
    pub signers: Vec<MemberKey>,
    /// How many of them must sign.
    pub threshold: u32,
    /// SHA-256 of the first operator's token, which has a cluster-wide Super Administrator's grant.
    pub operator_token: [u8; 32],
    /// The token's public id.
    pub operator_token_id: TokenId,
    /// The operator's name.
    pub operator: PrincipalName,
    /// The key domain of the first KEK epoch, which is active at once.
    pub domain: KeyDomain,
    /// The commitment of that epoch.
    pub commitment: [u8; 32],
    /// Its envelopes.
    pub envelopes: Vec<(Recipient, EnvelopeRecord)>,
    /// The first nodes.
    pub nodes: Vec<NewNode>,
    /// The certificate authority, its key sealed for the first control nodes and for the recovery key.
    pub authority: AuthorityRecord,
    /// The public halves of the offline recovery key; none: disaster recovery will not be possible.
    pub recovery: Option<RecoveryRecord>,
}

/// A change of the membership, or of the leader. Raft makes it by entries of its own; the state holds nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// A node becomes a learner, or is reached elsewhere.
    Add {
        /// Where, `host:port`; at most 255 bytes.
        address: String,
    },
    /// A learner becomes a voter.
    Promote,
    /// A member is one no more.
    Remove {
        /// Whether even if that leaves no reachable majority.
        force: bool,
    },
    /// The leader hands over, to the node that is named or to whom it chooses.
    Transfer,
}

/// How far a change of the membership is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangePhase {
    /// It was asked for, and is made only after this is in the log.
    Asked,
    /// It was made.
    Done,
    /// It was not made, or whether it was is not known.
    Failed {
        /// Why; at most 255 bytes.
        reason: String,
    },
}

/// What the audit log keeps of a change of the membership: once before it, once after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNote {
    /// Whom it is about; none: whoever takes over the lead.
    pub node: Option<NodeId>,
    /// The change.
    pub change: MemberChange,
    /// How far it is.
    pub phase: ChangePhase,
}

/// Whose roles an operator's token stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenHolder {
    /// The roles of a member, as they are at each use.
    Member(MemberRef),
    /// Roles of its own, which never change.
    Own {
        /// Who holds it, for audit.
        name: PrincipalName,
        /// At least one.
        grants: Vec<Grant>,
    },
}

/// Which limits change; what is none stays as it is at the command's index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsEdit {
    /// Stores. Of an account only, as the next two.
    pub stores: Option<u32>,
    /// Secrets over all stores.
    pub secrets: Option<u32>,
    /// Bytes of one value.
    pub value_bytes: Option<u32>,
    /// Operators' tokens of an account's own.
    pub tokens: Option<u32>,
    /// For how long a deleted secret can be brought back; 0 is not at all.
    pub undelete_window_ms: Option<u64>,
    /// Deleted secrets that are kept at the most.
    pub undelete_secrets: Option<u32>,
    /// Bytes of their sealed values at the most.
    pub undelete_bytes: Option<u64>,
}

/// When people want to be reminded of a secret. Never enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reminder {
    /// When its value ends, wherever it comes from.
    pub expires: Option<UnixMillis>,
    /// How often it should be given a new value.
    pub rotate_every_ms: Option<u64>,
}

/// A change of that; what is none stays, and `Some(None)` takes it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReminderEdit {
    /// When its value ends.
    pub expires: Option<Option<UnixMillis>>,
    /// How often it should be given a new value.
    pub rotate_every_ms: Option<Option<u64>>,
}

/// What is commanded. Ids are made by the proposer; `account` is whose the rest must be, else it is answered as unknown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are named for the newtypes that they hold, and documented where a name is not enough")]
pub enum CommandBody {
    /// Sets up an empty cluster.
    InitCluster(Box<InitCluster>),
    /// Makes an account.
    CreateAccount { account: AccountId, name: AccountName },
    /// Makes a store.
    CreateStore { account: AccountId, store: StoreId, name: StoreName },
    /// Deletes a store; one with secrets in it, or bound, only by `force`.
    DeleteStore { account: AccountId, store: StoreId, force: bool },
    /// Makes secrets, all or none.
    CreateSecrets { account: AccountId, store: StoreId, items: Vec<NewSecret>, new_dek: Option<NewDek> },
    /// Adds a value, and may change scopes and comment with it. `expect` is the version that must be current.
    SetValue {
        account: AccountId,
        store: StoreId,
        secret: SecretId,
        value: SealedInput,
        expect: Option<Version>,
        stage: Stage,
        scopes: Option<ScopeSet>,
        comment: Option<Comment>,
        new_dek: Option<NewDek>,
    },
    /// Changes scopes or comment; what is none stays.
    EditSecret { account: AccountId, store: StoreId, secret: SecretId, scopes: Option<ScopeSet>, comment: Option<Comment> },
    /// Deletes secrets, all or none; bound ones only by `force`.
    DeleteSecrets { account: AccountId, store: StoreId, secrets: Vec<SecretId>, force: bool },
    /// Makes a secret of a value that the sealer opened from `source` at `source_version` and sealed anew.
    DuplicateSecret {
        account: AccountId,
        store: StoreId,
        source: SecretId,
        source_version: Version,
        item: NewSecret,
        new_dek: Option<NewDek>,
    },
    /// Moves pointers; seals nothing. `expect` is the version that must be current.
    MovePointer { account: AccountId, store: StoreId, secret: SecretId, to: PointerMove, expect: Option<Version> },
    /// Replaces the sealed value of a version by the same plaintext under the current data key.
    ResealValue { account: AccountId, store: StoreId, secret: SecretId, version: Version, replaces: ValueId, value: SealedInput },
    /// Makes a consumer.
    CreateConsumer { consumer: ConsumerRef },
    /// Deletes a consumer, with its tokens and bindings.
    DeleteConsumer { consumer: ConsumerRef },
    /// Makes a token of a consumer. `hash` is the SHA-256 of the token.
    CreateConsumerToken { consumer: ConsumerRef, token: TokenId, hash: [u8; 32], expires: Option<UnixMillis> },
    /// Makes a token of a consumer; the one that it replaces goes, at `old_until` or at once.
    RollConsumerToken {
        consumer: ConsumerRef,
        replaces: TokenId,
        token: TokenId,
        hash: [u8; 32],
        expires: Option<UnixMillis>,
        old_until: Option<UnixMillis>,
    },
    /// Voids a token of a consumer.
    RevokeConsumerToken { consumer: ConsumerRef, token: TokenId },
    /// Binds a name of a consumer to a secret or store; a name that is bound already only by `replace`.
    Bind { consumer: ConsumerRef, name: BindingName, store: StoreId, target: BoundTo, replace: bool },
    /// Removes a binding.
    Unbind { consumer: ConsumerRef, name: BindingName },
    /// Makes a data key current. `grace`: whether the one before is still accepted for a while.
    MintDek { account: AccountId, dek: NewDek, grace: bool },
    /// Wraps data keys anew, under active epochs.
    RewrapDeks { items: Vec<Rewrap> },
    /// Moves a KEK epoch along.
    KekEpoch { domain: KeyDomain, epoch: KekEpoch, step: KekStep },
    /// Registers a node.
    RegisterNode { node: NewNode },
    /// Revokes a node: its envelopes go, no data key of before seals anything more, and `epochs`, one for each domain whose active
    /// epoch it could open, take over at once. A signer's revocation brings the signer set without it.
    RevokeNode { node: NodeId, epochs: Vec<NewEpoch>, signer_set: Option<NewSignerSet> },
    /// Adopts the next signer set.
    SetSignerSet { set: NewSignerSet },
    /// Makes an operator's token. `hash` is the SHA-256 of the token.
    CreateOperatorToken { token: TokenId, hash: [u8; 32], name: PrincipalName, grants: Vec<Grant>, expires: Option<UnixMillis> },
    /// Voids an operator's token.
    RevokeOperatorToken { token: TokenId },
    /// Sets an account's quota; none returns to the cluster's default.
    SetQuota { account: AccountId, quota: Option<Quota> },
    /// Raises the feature level by one. Every control node in good standing must have reported that it knows it; that the edges
    /// which are up know it too, the proposer has seen, for who is up is not in the state. One that does not is cut off.
    RaiseFeatureLevel { to: FeatureLevel },
    /// Moves log time.
    Tick,
    /// Does the next step of a background job.
    Step { job: JobId },
    /// Makes a join token. `hash` is that of the secret, which the log never holds.
    CreateJoinToken { token: NewJoinToken, hash: [u8; 32] },
    /// Voids a join token; nodes that joined by it stay.
    RevokeJoinToken { token: TokenId },
    /// Uses a join token, and with it registers a node and hands it all that is its.
    EnrolNode(Box<EnrolNode>),
    /// Tells what a node says of itself at its start: where it is reached, and which feature level it supports.
    UpdateNode { node: NodeId, address: Option<String>, feature_level: FeatureLevel },
    /// Changes an account's quota; what is none stays as it is at the command's index. Level 2.
    EditQuota { account: AccountId, stores: Option<u32>, secrets: Option<u32>, value_bytes: Option<u32> },
    /// Replaces the certificate authority. The one before is believed for a while; join tokens, which pin it, are void. A node does it by
    /// itself only after one was revoked that had the key.
    RotateAuthority(Box<RotateAuthority>),
    /// Ends the belief in former authorities, while this one issues: by a person all of them, `force` also while nodes have no
    /// certificate by the new one; by a node those whose time is over.
    FinishAuthority { number: u32, force: bool },
    /// Notes by which authority a node's certificate is.
    NoteCertificate { node: NodeId, authority: u32 },
    /// Has the audit log keep a change of the membership, which is made by other entries. Changes nothing itself.
    NoteMembership(Box<MemberNote>),
    /// Makes a member, with the roles that it begins with. Level 3, as all that follow.
    CreateMember { member: MemberRef, grants: Vec<Grant> },
    /// Deletes a member, and voids its tokens.
    DeleteMember { member: MemberRef },
    /// Gives a member one more role, for all its tokens at once.
    GrantRole { member: MemberRef, grant: Grant },
    /// Takes one role from a member, and from all its tokens at once.
    RevokeRole { member: MemberRef, grant: Grant },
    /// Makes an operator's token with a permission. `hash` is the SHA-256 of the token; `reach` narrows it, and is empty for no bound.
    CreateToken {
        token: TokenId,
        hash: [u8; 32],
        holder: TokenHolder,
        permission: Permission,
        reach: Vec<GrantScope>,
        expires: Option<UnixMillis>,
    },
    /// Makes a token that takes the place of another, with all that this one allows; under the same id, or a new one. The one that it
    /// replaces goes, at `old_until` (with a new id only) or at once. Without `expires` it ends when that one would have.
    RollOperatorToken { replaces: TokenId, token: TokenId, hash: [u8; 32], expires: Option<UnixMillis>, old_until: Option<UnixMillis> },
    /// Changes limits: of an account, or (none) of all accounts that have none of their own.
    EditLimits { account: Option<AccountId>, edit: LimitsEdit },
    /// Brings a deleted secret back, under its id, with its versions and pointers. Its name must be free.
    Undelete { account: AccountId, store: StoreId, secret: SecretId },
    /// Destroys what could be brought back of a deleted secret; or one version that is not current, whose number stays used.
    Destroy { account: AccountId, store: StoreId, secret: SecretId, version: Option<Version> },
    /// Makes secrets, all or none, each with its reminder.
    CreateWithReminders { account: AccountId, store: StoreId, items: Vec<NewSecret>, new_dek: Option<NewDek>, reminders: Vec<Reminder> },
    /// Changes scopes, comment and reminder; what is none stays.
    EditWithReminder {
        account: AccountId,
        store: StoreId,
        secret: SecretId,
        scopes: Option<ScopeSet>,
        comment: Option<Comment>,
        reminder: ReminderEdit,
    },
    /// Has the audit log keep what a control node saw of calls that left no command. Changes nothing itself.
    NoteCalls(Box<CallNotes>),
    /// As [`CommandBody::RevokeNode`], of a control node whose disk is lost and in nobody's hands, as whoever commands it has decided: the
    /// certificate authority, whose key it could open, stays.
    RevokeLostNode { node: NodeId, epochs: Vec<NewEpoch>, signer_set: Option<NewSignerSet> },
}

impl CommandBody {
    /// What kind of command it is.
    pub const fn kind(&self) -> CommandKind {
        match self {
            Self::InitCluster(_) => CommandKind::InitCluster,
            Self::CreateAccount { .. } => CommandKind::CreateAccount,
            Self::CreateStore { .. } => CommandKind::CreateStore,
            Self::DeleteStore { .. } => CommandKind::DeleteStore,
            Self::CreateSecrets { .. } => CommandKind::CreateSecrets,
            Self::SetValue { .. } => CommandKind::SetValue,
            Self::EditSecret { .. } => CommandKind::EditSecret,
            Self::DeleteSecrets { .. } => CommandKind::DeleteSecrets,
            Self::DuplicateSecret { .. } => CommandKind::DuplicateSecret,
            Self::MovePointer { .. } => CommandKind::MovePointer,
            Self::ResealValue { .. } => CommandKind::ResealValue,
            Self::CreateConsumer { .. } => CommandKind::CreateConsumer,
            Self::DeleteConsumer { .. } => CommandKind::DeleteConsumer,
            Self::CreateConsumerToken { .. } => CommandKind::CreateConsumerToken,
            Self::RollConsumerToken { .. } => CommandKind::RollConsumerToken,
            Self::RevokeConsumerToken { .. } => CommandKind::RevokeConsumerToken,
            Self::Bind { .. } => CommandKind::Bind,
            Self::Unbind { .. } => CommandKind::Unbind,
            Self::MintDek { .. } => CommandKind::MintDek,
            Self::RewrapDeks { .. } => CommandKind::RewrapDeks,
            Self::KekEpoch { .. } => CommandKind::KekEpoch,
            Self::RegisterNode { .. } => CommandKind::RegisterNode,
            Self::RevokeNode { .. } => CommandKind::RevokeNode,
            Self::SetSignerSet { .. } => CommandKind::SetSignerSet,
            Self::CreateOperatorToken { .. } => CommandKind::CreateOperatorToken,
            Self::RevokeOperatorToken { .. } => CommandKind::RevokeOperatorToken,
            Self::SetQuota { .. } => CommandKind::SetQuota,
            Self::RaiseFeatureLevel { .. } => CommandKind::RaiseFeatureLevel,
            Self::Tick => CommandKind::Tick,
            Self::Step { .. } => CommandKind::Step,
            Self::EditQuota { .. } => CommandKind::EditQuota,
            Self::CreateJoinToken { .. } => CommandKind::CreateJoinToken,
            Self::RevokeJoinToken { .. } => CommandKind::RevokeJoinToken,
            Self::EnrolNode(_) => CommandKind::EnrolNode,
            Self::UpdateNode { .. } => CommandKind::UpdateNode,
            Self::RotateAuthority(_) => CommandKind::RotateAuthority,
            Self::FinishAuthority { .. } => CommandKind::FinishAuthority,
            Self::NoteCertificate { .. } => CommandKind::NoteCertificate,
            Self::NoteMembership(_) => CommandKind::NoteMembership,
            Self::CreateMember { .. } => CommandKind::CreateMember,
            Self::DeleteMember { .. } => CommandKind::DeleteMember,
            Self::GrantRole { .. } => CommandKind::GrantRole,
            Self::RevokeRole { .. } => CommandKind::RevokeRole,
            Self::CreateToken { .. } => CommandKind::CreateToken,
            Self::RollOperatorToken { .. } => CommandKind::RollOperatorToken,
            Self::EditLimits { .. } => CommandKind::EditLimits,
            Self::Undelete { .. } => CommandKind::Undelete,
            Self::Destroy { .. } => CommandKind::Destroy,
            Self::CreateWithReminders { .. } => CommandKind::CreateWithReminders,
            Self::EditWithReminder { .. } => CommandKind::EditWithReminder,
            Self::NoteCalls(_) => CommandKind::NoteCalls,
            Self::RevokeLostNode { .. } => CommandKind::RevokeLostNode,
        }
    }
}

impl fmt::Debug for CommandBody {
    /// The kind only: a body has sealed values and hashes of tokens in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandBody({})", self.kind())
    }
}

impl KekStep {
    /// The state that the epoch has afterwards; none when the state stays.
    pub const fn state(&self) -> Option<KekState> {
        match self {
            Self::Announce { .. } => Some(KekState::Announced),
            Self::AddEnvelopes { .. } => None,
            Self::Activate => Some(KekState::Active),
            Self::Retire => Some(KekState::Retired),
            Self::Destroy => Some(KekState::Destroyed),
        }
    }
}
