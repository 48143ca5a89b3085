//! A network between processes that can be cut: relays on loopback that know who calls whom.
//!
//! Each server tells the others the address of its relay. The relay asks the system which process a connection comes from, so that a
//! cut parts two named sides and nobody else, in both directions or in one. What is cut behaves as a broken cable does: nothing
//! arrives, nobody is told, and what was on its way arrives when the cable is mended before the ends give up. A cable can also be long
//! ([`Weather`]): then everything takes its time, and what a lossy one loses comes when it has been sent again.
//!
//! **Invariants**
//! 1. Bytes from a side to one that it is parted from are not forwarded, on connections old and new. A connection that is cut in one
//!    direction cannot be made, as its handshake goes both ways.
//! 2. A connection of a process that is not known here (a test's own client) is never cut, and never slow.
//! 3. Bytes of one direction arrive in order, whatever the weather.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime::RealClock;
use seams::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

/// What one read takes at most.
const CHUNK_BYTES: usize = 64 * 1024;

/// Reads that are on their way through a long cable at once; more wait before it, as they do before a full window.
const ON_THE_WAY: usize = 256;

/// Who sends, and who receives.
type Way = (String, String);
/// The ways on which nothing arrives.
type Cuts = BTreeSet<Way>;

/// How long bytes are on their way between any two servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How long everything takes.
    pub delay: Duration,
    /// Of so many packets one is lost; it comes 200 ms later, and all that was sent after it waits. 0: none is.
    pub lost_one_in: u32,
}

/// When TCP sends a packet again that was lost: the shortest time that Linux takes.
const SENT_AGAIN: Duration = Duration::from_millis(200);

/// The cables. Dropping it pulls all of them.
#[derive(Default)]
pub struct Net {
    cuts: watch::Sender<Cuts>,
    weather: watch::Sender<Weather>,
    processes: Arc<Mutex<BTreeMap<u32, String>>>,
    /// Who was parted from all others.
    alone: Mutex<BTreeSet<String>>,
    relays: Vec<AbortHandle>,
}

impl Net {
    /// From now on, who connects to `from` reaches the server `name` at `to`.
    ///
    /// # Panics
    /// When `from` cannot be listened at.
    pub async fn relay(&mut self, name: &str, from: SocketAddr, to: SocketAddr) {
        let listener = TcpListener::bind(from).await.expect("the relay's port is free");
        let (name, processes) = (name.to_owned(), self.processes.clone());
        let (cuts, weather) = (self.cuts.clone(), self.weather.clone());
        let task = tokio::spawn(async move {
            let mut cables = JoinSet::new();
            while let Ok((caller, peer)) = listener.accept().await {
                // A call is looked up while its process surely holds the other end.
                let way = owner(peer, from, &processes).map(|who| (who, name.clone()));
                let cable = Cable { cuts: cuts.subscribe(), weather: weather.subscribe() };
                cables.spawn(async move { cable.carry(caller, to, way).await });
                while cables.try_join_next().is_some() {}
            }
        });
        self.relays.push(task.abort_handle());
    }

    /// Tells whose connections those of process `pid` are.
    pub fn name(&self, pid: u32, name: &str) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.retain(|_, known| known != name);
        processes.insert(pid, name.to_owned());
    }

    /// Parts two servers from each other.
    pub fn part(&self, one: &str, other: &str) {
        self.part_one_way(one, other);
        self.part_one_way(other, one);
    }

    /// Nothing that `from` sends arrives at `to`; what `to` sends arrives.
    pub fn part_one_way(&self, from: &str, to: &str) {
        self.cuts.send_modify(|cuts| _ = cuts.insert((from.to_owned(), to.to_owned())));
    }

    /// From now on, everything between servers goes through this.
    pub fn weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Parts a server from all others that are named.
    pub fn part_from_all(&self, name: &str) {
        let others: Vec<String> = self.processes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        others.iter().filter(|other| *other != name).for_each(|other| self.part(name, other));
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// Whether a server is parted from all others.
    pub fn is_alone(&self, name: &str) -> bool {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Mends every cut.
    pub fn mend(&self) {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.cuts.send_modify(Cuts::clear);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.relays.iter().for_each(AbortHandle::abort);
    }
}

/// What one connection goes through.
#[derive(Clone)]
struct Cable {
    cuts: watch::Receiver<Cuts>,
    weather: watch::Receiver<Weather>,
}

/// The network is gone.
struct Gone;

impl Cable {
    /// Carries one connection until one end closes it. The other end then learns it, unless it is parted from it.
    async fn carry(mut self, caller: TcpStream, to: SocketAddr, way: Option<Way>) {
        let back = way.clone().map(|(from, to)| (to, from));
        if self.whole(way.as_ref()).await.is_err() || self.whole(back.as_ref()).await.is_err() {
            return;
        }
        let Ok(server) = TcpStream::connect(to).await else { return };
        let _ = (caller.set_nodelay(true), server.set_nodelay(true));
        let ((from_caller, to_caller), (from_server, to_server)) = (caller.into_split(), server.into_split());
        tokio::select! {
            () = self.clone().pump(from_caller, to_server, way) => {}
            () = self.clone().pump(from_server, to_caller, back) => {}
        }
    }

    async fn pump(self, from: OwnedReadHalf, to: OwnedWriteHalf, way: Option<Way>) {
        let (sender, receiver) = mpsc::channel(ON_THE_WAY);
        // The end of the reads is the end of the channel, and so of the writes: what is on its way still arrives.
        tokio::join!(self.clone().send(from, way.is_some(), sender), self.arrive(to, way, receiver));
    }

    /// Takes in what one side sends, with the time at which it is due at the other.
    async fn send(self, mut from: OwnedReadHalf, named: bool, on_the_way: mpsc::Sender<(Duration, Vec<u8>)>) {
        let (clock, mut bytes) = (RealClock::new(), vec![0; CHUNK_BYTES]);
        for count in 1_u32.. {
            let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
            let weather = *self.weather.borrow();
            let mut due = clock.monotonic();
            if named {
                due += weather.delay;
                due += if count.checked_rem(weather.lost_one_in) == Some(0) { SENT_AGAIN } else { Duration::ZERO };
            }
            if on_the_way.send((due, bytes[..read].to_vec())).await.is_err() {
                return;
            }
        }
    }

    async fn arrive(mut self, mut to: OwnedWriteHalf, way: Option<Way>, mut on_the_way: mpsc::Receiver<(Duration, Vec<u8>)>) {
        let clock = RealClock::new();
        while let Some((due, bytes)) = on_the_way.recv().await {
            let left = due.saturating_sub(clock.monotonic());
            if !left.is_zero() {
                clock.sleep(left).await;
            }
            if self.whole(way.as_ref()).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The end is told as late as all else is.
        let _ = self.whole(way.as_ref()).await;
    }

    /// Waits until nothing parts the sender from the receiver.
    async fn whole(&mut self, way: Option<&Way>) -> Result<(), Gone> {
        match way {
            Some(way) => self.cuts.wait_for(|cuts| !cuts.contains(way)).await.map(drop).map_err(|_| Gone),
            None => Ok(()),
        }
    }
}

/// The name of the process that holds the other end of a connection.
fn owner(peer: SocketAddr, local: SocketAddr, processes: &Mutex<BTreeMap<u32, String>>) -> Option<String> {
    let inode = inode_of(peer, local).ok().flatten()?;
    let wanted = format!("socket:[{inode}]");
    let processes = processes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let holds = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link.as_os_str() == wanted.as_str())
    };
    processes.into_iter().find(|(pid, _)| holds(pid)).map(|(_, name)| name)
}

/// The inode of the socket of the process that called from `peer`: of the line in /proc/net/tcp whose local end is `peer` and whose
/// remote end is ours.
fn inode_of(peer: SocketAddr, ours: SocketAddr) -> io::Result<Option<u64>> {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => String::new(),
    };
    let (wanted_local, wanted_remote) = (hex(peer), hex(ours));
    let table = fs::read_to_string("/proc/net/tcp")?;
    let line = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut line = line.filter(|fields| fields.len() > 9 && fields[1] == wanted_local && fields[2] == wanted_remote);
    Ok(line.next().and_then(|fields| fields[9].parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ports;

    async fn echo(at: SocketAddr) {
        let listener = TcpListener::bind(at).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
                });
            }
        });
    }

    #[tokio::test]
    async fn cut_between_two_sides_holds_bytes_back_until_it_is_mended_and_knows_who_calls() {
        let mut ports = Ports::default();
        let (relay, server) = (ports.claim(), ports.claim());
        let mut net = Net::default();
        echo(server).await;
        net.relay("server", relay, server).await;
        net.name(std::process::id(), "client");
        let mut stream = TcpStream::connect(relay).await.unwrap();
        let mut byte = [1];
        stream.write_all(&byte).await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();

        net.part("somebody else", "server");
        stream.write_all(&byte).await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();

        net.part("client", "server");
        stream.write_all(&[2]).await.unwrap();
        // Nothing can be shown to never arrive; that the read has nothing while the write has long been taken is what can be seen.
        tokio::task::yield_now().await;
        assert_eq!(stream.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        net.mend();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [2]);
    }
    #[tokio::test]
    async fn cut_of_one_direction_lets_the_other_through() {
        let mut ports = Ports::default();
        let (relay, server) = (ports.claim(), ports.claim());
        let mut net = Net::default();
        echo(server).await;
        net.relay("server", relay, server).await;
        net.name(std::process::id(), "client");
        let mut stream = TcpStream::connect(relay).await.unwrap();
        let mut byte = [1];
        stream.write_all(&byte).await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();

        // The second byte reaches the server, and its echo is held back until the cable is mended; the third waits on its way there.
        net.part_one_way("server", "client");
        stream.write_all(&[2]).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(stream.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        net.part_one_way("client", "server");
        net.mend();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [2]);
    }

    #[tokio::test]
    async fn cable_that_is_long_brings_everything_late_and_in_order() {
        let mut ports = Ports::default();
        let (relay, server) = (ports.claim(), ports.claim());
        let mut net = Net::default();
        echo(server).await;
        net.relay("server", relay, server).await;
        net.name(std::process::id(), "client");
        let delay = Duration::from_millis(20);
        net.weather(Weather { delay, lost_one_in: 3 });
        let mut stream = TcpStream::connect(relay).await.unwrap();
        let (clock, mut byte) = (RealClock::new(), [0]);
        for number in 0..5 {
            let start = clock.monotonic();
            stream.write_all(&[number]).await.unwrap();
            stream.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [number]);
            // There, and back.
            assert!(clock.monotonic() - start >= delay * 2);
        }
    }
}
