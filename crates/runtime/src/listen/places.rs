//! The places of one listener, and who loses theirs when all are taken.
//!
//! Anybody may connect, so a place means little until its holder has shown something. Who has said nothing yet, or is in the handshake, or
//! has made no call that was answered well, is a *stranger*; a [`Peer`](super::Peer) that [made one](Keep::keep) keeps its place. When there is no
//! room for one more, the longest waiting stranger loses its place, once it has had [`GRACE`]: so whoever opens thousands of connections
//! and says nothing, or half a handshake, displaces itself, and an honest client needs only to be quicker than that.
//!
//! Where there is no stranger, whoever holds the most gives one: an address (or user, on a UNIX socket), or a caller, known by its token or
//! certificate, that keeps more than a [share](SHARES) of all places loses its oldest to somebody else. So nobody fills a listener, with
//! one good token or from one address; and while there is room, nobody is bounded.
//!
//! **Invariants**
//! 1. Rows never exceed `connections_max`, those in the handshake never `handshakes_max`.
//! 2. Who made a call that was answered well is displaced by nobody, while neither its address nor its caller holds more than a share.
//! 3. A connection from an address that holds more than a share displaces nobody who made a good call.
//!
//! **Concurrency**: one short lock around a table; a place is given back when it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
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

/// An address or caller that keeps more than one of so many parts of all places has to give when they are all taken.
const SHARES: usize = 4;

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

/// Whose a place is, for its share. Ids of callers are hashes: nothing that could be shown as a credential stays here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// Where it connects from; of IPv6 the network of 64 bits that whoever has one address in it has all of.
    Network(IpAddr),
    /// The user at the other end of a UNIX socket.
    User(u32),
    /// Who has made a good call on it.
    Caller([u8; 32]),
}

impl Holder {
    pub(super) fn at(address: SocketAddr) -> Self {
        Self::Network(network(address.ip()))
    }
}

/// What counts as one address: of IPv6 the network of 64 bits that whoever has one address in it has all of.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// One connection.
struct Row {
    since: Instant,
    /// What ends it.
    cut: CancellationToken,
    /// Where it comes from.
    from: Holder,
    /// By whom it was kept, once it was.
    caller: Option<Holder>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Numbers rise, so the first of a set is the oldest.
    rows: BTreeMap<u64, Row>,
    handshakes: BTreeSet<u64>,
    strangers: BTreeSet<u64>,
    /// The places that were kept, by whose they are.
    kept: BTreeMap<Holder, BTreeSet<u64>>,
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
    pub(super) async fn admit(&self, from: Holder) -> Option<Place> {
        loop {
            // Made before the look: a place that is freed in between completes it.
            let freed = self.0.freed.notified();
            match self.look(from) {
                Room::Here(place) => return Some(place),
                Room::None => return None,
                // Either way there is another look.
                Room::From(then) => drop(tokio::time::timeout_at(then, freed).await),
            }
        }
    }

    fn look(&self, from: Holder) -> Room {
        let mut table = self.0.lock();
        if table.rows.len() >= self.0.connections_max {
            match table.strangers.first().copied() {
                Some(oldest) => {
                    if let Err(then) = table.displace_after_grace(oldest) {
                        return Room::From(then);
                    }
                }
                None => match table.most_held((self.0.connections_max / SHARES).max(1), from) {
                    Some(oldest) => table.displace(oldest, "share"),
                    None => return Room::None,
                },
            }
        }
        table.next += 1;
        let (number, cut) = (table.next, CancellationToken::new());
        table.rows.insert(number, Row { since: Instant::now(), cut: cut.clone(), from, caller: None });
        table.strangers.insert(number);
        Room::Here(Place(Arc::new(Held { shared: self.0.clone(), number, cut, kept: AtomicBool::new(false) })))
    }

    /// The process has no descriptor left: the oldest stranger gives its own.
    pub(super) fn make_room(&self) {
        let mut table = self.0.lock();
        if let Some(number) = table.strangers.first().copied() {
            table.displace(number, "crowded");
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
            Some(row) if row.since.elapsed() < GRACE => Err(row.since + GRACE),
            _ => {
                self.displace(number, "crowded");
                Ok(())
            }
        }
    }

    /// The oldest kept place of whoever holds the most, and more than `share`; none where nobody does, or where that is the newcomer.
    fn most_held(&self, share: usize, newcomer: Holder) -> Option<u64> {
        if self.kept.get(&newcomer).is_some_and(|places| places.len() > share) {
            return None;
        }
        let most = self.kept.values().max_by_key(|places| places.len()).filter(|places| places.len() > share)?;
        most.first().copied()
    }

    fn keep(&mut self, number: u64, caller: Option<Holder>) {
        let Some(row) = self.rows.get_mut(&number) else { return };
        row.caller = caller;
        for holder in [Some(row.from), caller].into_iter().flatten() {
            self.kept.entry(holder).or_default().insert(number);
        }
        self.strangers.remove(&number);
    }

    fn displace(&mut self, number: u64, why: &'static str) {
        if let Some(row) = self.remove(number) {
            metrics::counter!("cinnabar_connections_refused_total", "at" => why).increment(1);
            row.cut.cancel();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Row> {
        self.handshakes.remove(&number);
        self.strangers.remove(&number);
        let row = self.rows.remove(&number)?;
        for holder in [Some(row.from), row.caller].into_iter().flatten() {
            if let Some(places) = self.kept.get_mut(&holder) {
                places.remove(&number);
                if places.is_empty() {
                    self.kept.remove(&holder);
                }
            }
        }
        Some(row)
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
    /// Whether it was kept.
    pub(super) fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// From now on nobody displaces it but for its share. The first good call says whose it is; `caller` is asked for that one alone.
    pub(super) fn keep(&self, caller: impl FnOnce() -> Option<[u8; 32]>) {
        if !self.0.kept.swap(true, Ordering::Relaxed) {
            self.0.shared.lock().keep(self.0.number, caller().map(Holder::Caller));
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

    /// Each from an address of its own.
    async fn admit(places: &Places) -> Option<Place> {
        let number = u32::try_from(places.0.lock().next).unwrap();
        admit_from(places, number).await
    }

    async fn admit_from(places: &Places, number: u32) -> Option<Place> {
        places.admit(Holder::Network(IpAddr::V4(number.into()))).await
    }

    /// One that has made a good call.
    async fn caller(places: &Places, from: u32, caller: u8) -> Option<Place> {
        let place = admit_from(places, from).await?;
        place.greeted();
        place.keep().keep(|| Some([caller; 32]));
        Some(place)
    }

    #[tokio::test]
    async fn place_of_the_oldest_stranger_is_given_to_the_next_after_its_grace() {
        let places = places(2, 2);
        let (first, second) = (admit(&places).await.unwrap(), admit(&places).await.unwrap());
        first.greeted();
        let began = Instant::now();
        let third = admit(&places).await.unwrap();
        assert!(began.elapsed() + TICK >= GRACE, "the grace of the first");
        assert!(first.cut().is_cancelled() && !second.cut().is_cancelled() && !third.cut().is_cancelled());
        drop(first);
        drop(second);
        let fourth = admit(&places).await.unwrap();
        assert!(!third.cut().is_cancelled() && !fourth.cut().is_cancelled(), "there was room");
    }

    #[tokio::test]
    async fn place_of_who_made_a_call_is_kept_and_the_next_is_refused_when_all_are() {
        let places = places(2, 2);
        let held = [admit(&places).await.unwrap(), admit(&places).await.unwrap()];
        for place in &held {
            place.greeted();
            place.keep().keep(|| None);
        }
        assert!(admit(&places).await.is_none());
        let [first, second] = held;
        drop(first);
        assert!(admit(&places).await.is_some());
        assert!(!second.cut().is_cancelled());
    }

    #[tokio::test]
    async fn place_of_an_address_with_more_than_its_share_is_given_to_another_address_and_not_to_itself() {
        let places = places(8, 8);
        let mut held = Vec::new();
        for number in 0..8 {
            held.push(caller(&places, 1, number).await.unwrap());
        }
        assert!(caller(&places, 1, 100).await.is_none(), "an address takes nothing from itself");
        // Down to its share, a quarter; and never anything of who has less.
        for number in 2..8 {
            held.push(caller(&places, number, 100 + number as u8).await.unwrap());
        }
        let cut = |place: &Place| place.cut().is_cancelled();
        assert!(held[..6].iter().all(cut) && !held[6..].iter().any(cut));
        assert!(caller(&places, 9, 200).await.is_none(), "nobody has more than a share");
        drop(held);
        assert!(places.0.lock().kept.is_empty());
    }

    #[tokio::test]
    async fn place_of_a_caller_with_more_than_its_share_is_given_to_others_wherever_it_comes_from() {
        let places = places(8, 8);
        let mut thief = Vec::new();
        for number in 0..8 {
            thief.push(caller(&places, number, 1).await.unwrap());
        }
        let mut others = Vec::new();
        for number in 0..6 {
            others.push(caller(&places, 100 + number, 2 + number as u8).await.unwrap());
        }
        assert!(!others.iter().any(|place| place.cut().is_cancelled()));
        assert_eq!(thief.iter().filter(|place| !place.cut().is_cancelled()).count(), 2);
        assert!(caller(&places, 200, 1).await.is_none());
    }

    #[tokio::test]
    async fn handshake_that_goes_on_loses_its_place_to_the_next_but_who_is_silent_or_has_ended_it_does_not() {
        let places = places(100, 1);
        let (greeted, silent) = (admit(&places).await.unwrap(), admit(&places).await.unwrap());
        greeted.begin().await;
        greeted.greeted();
        let slow = admit(&places).await.unwrap();
        slow.begin().await;
        let began = Instant::now();
        let next = admit(&places).await.unwrap();
        next.begin().await;
        assert!(began.elapsed() + TICK >= GRACE);
        assert!(slow.cut().is_cancelled());
        assert!([&greeted, &silent, &next].iter().all(|place| !place.cut().is_cancelled()));
    }

    #[tokio::test]
    async fn stranger_gives_its_descriptor_at_once_when_the_process_has_none() {
        let places = places(100, 100);
        let (kept, stranger) = (admit(&places).await.unwrap(), admit(&places).await.unwrap());
        kept.keep().keep(|| None);
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
