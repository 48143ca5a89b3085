//! The places of one listener, and who loses theirs when all are taken.
//!
//! Anybody may connect, so a place means little until its holder has shown something. Who has said nothing yet, or is in the handshake, or
//! has made no call that was answered well, is a *stranger*; a [`Peer`](super::Peer) that [made one](Keep::keep) keeps its place. When there is no
//! room for one more, the longest waiting stranger loses its place, once it has had [`GRACE`]: so whoever opens thousands of connections
//! and says nothing, or half a handshake, displaces itself, and an honest client needs only to be quicker than that.
//!
//! **Invariants**
//! 1. Rows never exceed `connections_max`, those in the handshake never `handshakes_max`.
//! 2. Who made a call that was answered well is displaced by nobody.
//!
//! **Concurrency**: one short lock around a table; a place is given back when it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::AcceptLimits;

/// What a stranger gets at least to end its handshake and make a call: several round trips around the earth.
const GRACE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(1) };

/// Descriptors that connections leave to files and to the node's own calls.
const DESCRIPTORS_RESERVED: u64 = 256;
/// A node has at most so many listeners that share the rest.
const LISTENERS: u64 = 3;
/// However few descriptors there are.
const CONNECTIONS_LEAST: usize = 16;

/// The places of a listener. Clones share them.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    connections_max: usize,
    handshakes_max: usize,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Since when, and what ends it. Numbers rise, so the first of a set is the oldest.
    rows: BTreeMap<u64, (Instant, CancellationToken)>,
    handshakes: BTreeSet<u64>,
    strangers: BTreeSet<u64>,
}

/// Whether there is room.
enum Room {
    Here(Place),
    /// Nobody can be displaced.
    None,
    /// Somebody can be, then.
    From(Instant),
}

impl Places {
    pub(super) fn new(limits: &AcceptLimits) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let connections_max = fitting(limits.connections_max, files);
        if connections_max < limits.connections_max {
            tracing::warn!(
                configured = limits.connections_max,
                connections_max,
                descriptors = files,
                "the limit of open files is too low for connections_max; raise it (LimitNOFILE of the unit)"
            );
        }
        Self(Arc::new(Shared {
            connections_max,
            handshakes_max: limits.handshakes_max.max(1),
            table: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// A place for a connection that was just accepted. None when all are held by who may keep them. Waits while those who could be displaced
    /// have just come.
    pub(super) async fn admit(&self) -> Option<Place> {
        loop {
            // Made before the look: a place that is freed in between completes it.
            let freed = self.0.freed.notified();
            match self.look() {
                Room::Here(place) => return Some(place),
                Room::None => return None,
                // Either way there is another look.
                Room::From(then) => drop(tokio::time::timeout_at(then, freed).await),
            }
        }
    }

    fn look(&self) -> Room {
        let mut table = self.0.lock();
        if table.rows.len() >= self.0.connections_max {
            let Some(oldest) = table.strangers.first().copied() else { return Room::None };
            if let Err(then) = table.displace_after_grace(oldest) {
                return Room::From(then);
            }
        }
        table.next += 1;
        let (number, cut) = (table.next, CancellationToken::new());
        table.rows.insert(number, (Instant::now(), cut.clone()));
        table.strangers.insert(number);
        Room::Here(Place(Arc::new(Held { shared: self.0.clone(), number, cut, kept: AtomicBool::new(false) })))
    }

    /// The process has no descriptor left: the oldest stranger gives its own.
    pub(super) fn make_room(&self) {
        let mut table = self.0.lock();
        if let Some(number) = table.strangers.first().copied() {
            table.displace(number);
        }
    }
}

/// How many of `wanted` connections leave enough descriptors.
fn fitting(wanted: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return wanted };
    let room = files.saturating_sub(DESCRIPTORS_RESERVED) / LISTENERS;
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX).max(CONNECTIONS_LEAST))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // What is guarded is changed by calls that cannot panic half way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Displaces, or says from when on that may be.
    fn displace_after_grace(&mut self, number: u64) -> Result<(), Instant> {
        match self.rows.get(&number) {
            Some((since, _)) if since.elapsed() < GRACE => Err(*since + GRACE),
            _ => {
                self.displace(number);
                Ok(())
            }
        }
    }

    fn displace(&mut self, number: u64) {
        if let Some((_, cut)) = self.remove(number) {
            metrics::counter!("cinnabar_connections_refused_total", "at" => "crowded").increment(1);
            cut.cancel();
        }
    }

    fn remove(&mut self, number: u64) -> Option<(Instant, CancellationToken)> {
        self.handshakes.remove(&number);
        self.strangers.remove(&number);
        self.rows.remove(&number)
    }
}

/// A connection's place, given back when dropped.
pub(super) struct Place(Arc<Held>);

struct Held {
    shared: Arc<Shared>,
    number: u64,
    cut: CancellationToken,
    kept: AtomicBool,
}

impl Place {
    /// Cancelled when the connection has lost its place and must end.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.0.cut
    }

    /// The peer has begun to speak: a handshake begins as soon as one more may. Whoever says nothing takes no handshake from anybody.
    pub(super) async fn begin(&self) {
        loop {
            let freed = self.0.shared.freed.notified();
            let then = {
                let mut table = self.0.shared.lock();
                let oldest = table.handshakes.first().copied().filter(|_| table.handshakes.len() >= self.0.shared.handshakes_max);
                match oldest.map_or(Ok(()), |oldest| table.displace_after_grace(oldest)) {
                    Err(then) => then,
                    Ok(()) => {
                        // Not of one that was displaced meanwhile: nobody would take it out again.
                        if table.rows.contains_key(&self.0.number) {
                            table.handshakes.insert(self.0.number);
                        }
                        return;
                    }
                }
            };
            drop(tokio::time::timeout_at(then, freed).await);
        }
    }

    /// The handshake has ended well.
    pub(super) fn greeted(&self) {
        self.0.shared.lock().handshakes.remove(&self.0.number);
        self.0.shared.freed.notify_waiters();
    }

    /// What lets the peer keep the place.
    pub(super) fn keep(&self) -> Keep {
        Keep(self.0.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared.lock().remove(self.0.number);
        self.0.shared.freed.notify_waiters();
    }
}

/// Lets a peer keep its place; does not hold it.
#[derive(Clone)]
pub(super) struct Keep(Arc<Held>);

impl Keep {
    /// From now on nobody displaces it.
    pub(super) fn keep(&self) {
        if !self.0.kept.swap(true, Ordering::Relaxed) {
            self.0.shared.lock().strangers.remove(&self.0.number);
        }
    }
}

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keep({})", self.0.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first had come a little before the clock was looked at.
    const TICK: Duration = Duration::from_millis(50);

    fn places(connections_max: usize, handshakes_max: usize) -> Places {
        Places::new(&AcceptLimits { connections_max, handshakes_max, handshake_timeout: Duration::from_secs(5) })
    }

    #[tokio::test]
    async fn place_of_the_oldest_stranger_is_given_to_the_next_after_its_grace() {
        let places = places(2, 2);
        let (first, second) = (places.admit().await.unwrap(), places.admit().await.unwrap());
        first.greeted();
        let began = Instant::now();
        let third = places.admit().await.unwrap();
        assert!(began.elapsed() + TICK >= GRACE, "the grace of the first");
        assert!(first.cut().is_cancelled() && !second.cut().is_cancelled() && !third.cut().is_cancelled());
        drop(first);
        drop(second);
        let fourth = places.admit().await.unwrap();
        assert!(!third.cut().is_cancelled() && !fourth.cut().is_cancelled(), "there was room");
    }

    #[tokio::test]
    async fn place_of_who_made_a_call_is_kept_and_the_next_is_refused_when_all_are() {
        let places = places(2, 2);
        let held = [places.admit().await.unwrap(), places.admit().await.unwrap()];
        for place in &held {
            place.greeted();
            place.keep().keep();
        }
        assert!(places.admit().await.is_none());
        let [first, second] = held;
        drop(first);
        assert!(places.admit().await.is_some());
        assert!(!second.cut().is_cancelled());
    }

    #[tokio::test]
    async fn handshake_that_goes_on_loses_its_place_to_the_next_but_who_is_silent_or_has_ended_it_does_not() {
        let places = places(100, 1);
        let (greeted, silent) = (places.admit().await.unwrap(), places.admit().await.unwrap());
        greeted.begin().await;
        greeted.greeted();
        let slow = places.admit().await.unwrap();
        slow.begin().await;
        let began = Instant::now();
        let next = places.admit().await.unwrap();
        next.begin().await;
        assert!(began.elapsed() + TICK >= GRACE);
        assert!(slow.cut().is_cancelled());
        assert!([&greeted, &silent, &next].iter().all(|place| !place.cut().is_cancelled()));
    }

    #[tokio::test]
    async fn stranger_gives_its_descriptor_at_once_when_the_process_has_none() {
        let places = places(100, 100);
        let (kept, stranger) = (places.admit().await.unwrap(), places.admit().await.unwrap());
        kept.keep().keep();
        places.make_room();
        assert!(stranger.cut().is_cancelled() && !kept.cut().is_cancelled());
        places.make_room();
        assert!(!kept.cut().is_cancelled());
    }

    #[test]
    fn connections_leave_descriptors_for_files() {
        for (wanted, files, got) in
            [(4096, None, 4096), (4096, Some(1 << 20), 4096), (4096, Some(1024), 256), (4096, Some(64), 16), (8, Some(64), 8)]
        {
            assert_eq!(fitting(wanted, files), got, "{files:?}");
        }
    }
}
