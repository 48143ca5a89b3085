//! A voter's beginning from a state that comes from elsewhere: a cluster of one, restored from an archive.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use openraft::BasicNode;
use seams::Disk;
use state::State;
use types::NodeId;

use crate::{
    log::SnapshotMark,
    raft::{Membership, StoredMembership, log_id},
    snapshot::{Snapshots, Standing},
};

/// The term of what was restored: the first election is of a later one.
const TERM: u64 = 1;

/// Writes the snapshot file from which a voter starts that has never run in `folder`: `state`, of which `voter` at `address` is the
/// only voter. Durable on return. Blocks.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when the folder holds a log or a snapshot file; what the disk says; an address or number that is none.
pub fn seed(disk: Arc<dyn Disk>, folder: &Path, voter: NodeId, address: &str, state: &State) -> io::Result<()> {
    disk.create_dir_all(folder)?;
    if !disk.list(folder)?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is not empty", folder.display())));
    }
    let nodes = BTreeMap::from([(voter.get(), BasicNode { addr: address.to_owned() })]);
    let membership = Membership::new(vec![BTreeSet::from([voter.get()])], nodes).map_err(|error| io::Error::other(error.to_string()))?;
    let id = log_id(TERM, state.applied_index().get());
    let standing = Standing { applied: Some(id), membership: StoredMembership::new(Some(id), membership) };
    let snapshots = Snapshots::open(disk.clone(), &folder.join("snapshots"), folder.join("incoming"), SnapshotMark::new(None))?;
    snapshots.write(&standing, state)?;
    disk.sync_dir(folder)
}
