//! What a core is opened with: its options, and the world around it.

use std::{path::PathBuf, sync::Arc};

use seams::{Clock, Disk};
use store::Drive;
use types::{ClusterId, FeatureLevel};

use super::{KeyReceiver, Publish, Tables};
use crate::{Anchor, window::MARK_EVERY_REVISIONS};

/// What a core is told.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// The cluster to follow.
    pub cluster: ClusterId,
    /// From which signer set on signatures are believed.
    pub anchor: Anchor,
    /// The folder for log, snapshots and mark.
    pub folder: PathBuf,
    /// Who drives the log and the table.
    pub drive: Drive,
    /// Size of a segment of the log.
    pub segment_bytes: u64,
    /// A snapshot file is due after this many bytes of log.
    pub snapshot_every_bytes: u64,
    /// Most bytes of change sets that are held before their seal comes.
    pub unsealed_bytes_max: usize,
    /// Most bytes of records in memory ([`state::Propagated::bytes`]). A batch or snapshot that would hold more is refused.
    pub index_bytes_max: u64,
    /// The feature level up to which this node goes along, at most the build's. A batch or snapshot of a higher one is refused.
    pub level_max: FeatureLevel,
    /// Sealed values of more bytes than this lie in the table, not in memory.
    pub inline_bytes_max: usize,
    /// A mark is remembered at each multiple of this revision: as the control nodes keep theirs ([`WindowLimits`](crate::WindowLimits)).
    pub mark_every: u64,
}

impl CoreOptions {
    /// The usual sizes: segments of 16 MiB, a snapshot file per 64 MiB of log, 64 MiB of change sets without a seal.
    pub fn new(cluster: ClusterId, anchor: Anchor, folder: impl Into<PathBuf>) -> Self {
        Self {
            cluster,
            anchor,
            folder: folder.into(),
            drive: Drive::Thread,
            segment_bytes: 16 << 20,
            snapshot_every_bytes: 64 << 20,
            unsealed_bytes_max: 64 << 20,
            index_bytes_max: u64::MAX,
            level_max: state::FEATURE_LEVEL_MAX,
            inline_bytes_max: state::LARGE_VALUE_BYTES,
            mark_every: MARK_EVERY_REVISIONS,
        }
    }
}

/// What a core works with.
pub struct CoreParts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The disk of log, snapshots and mark.
    pub disk: Arc<dyn Disk>,
    /// Where the table is.
    pub tables: Box<dyn Tables>,
    /// Where roots go.
    pub publish: Arc<dyn Publish>,
    /// Where key envelopes go.
    pub keys: Arc<dyn KeyReceiver>,
}
