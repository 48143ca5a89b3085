//! Records: what lies under the keys, each as one format byte and a postcard body.

mod access;
mod control;
mod deleted;
mod enrolment;
mod keys;
mod members;
mod nodes;
mod secrets;

pub use crate::key::{BoundTo, RequestOwner};
pub use access::{BindingRecord, BindingTarget, ConsumerRecord, ConsumerTokenRecord};
pub use control::{
    AuditHeadRecord, ConsumerUsageRecord, HeadRecord, JobKind, JobRecord, OperatorTokenRecord, RequestAgeRecord, RequestRecord,
    TotalsRecord, UsageRecord,
};
pub use deleted::{DeletedRecord, ReminderRecord};
pub use enrolment::{AuthorityRecord, CertifiedRecord, FormerAuthority, JoinTokenRecord, RecoveryRecord, TrustRecord};
pub use keys::{DekRecord, DekState, EnvelopeRecord, KekEpochRecord, KekState, WrappedDek};
pub use members::{HoldingsRecord, LimitsRecord, MemberRecord, TokenTermsRecord};
pub use nodes::{GenerationRecord, MemberKey, NodeRecord, NodeRole, SetSignature, SettingsRecord, SignerSetRecord};
pub use secrets::{AccountRecord, PreviousDek, SecretRecord, StoreRecord, ValueRecord, VersionEntry};
