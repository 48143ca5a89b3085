//! A network between processes that can be cut: relays on loopback that know who calls whom.
//!
//! Each server tells the others the address of its relay. The relay asks the system which process a connection comes from, so that a
//! cut parts two named sides and nobody else. What is cut behaves as a broken cable does: nothing arrives, nobody is told, and what
//! was on its way arrives when the cable is mended before the ends give up.
//!
//! **Invariants**
//! 1. Bytes of a pair that is parted are not forwarded, in neither direction, on connections old and new.
//! 2. A connection of a process that is not known here (a test's own client) is never cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What one read takes at most.
const CHUNK_BYTES: usize = 64 * 1024;

/// Who is parted from whom; every pair once, in order.
type Cuts = BTreeSet<(String, String)>;

/// The cables. Dropping it pulls all of them.
pub struct Net {
    cuts: watch::Sender<Cuts>,
    processes: Arc<Mutex<BTreeMap<u32, String>>>,
    /// Who was parted from all others.
    alone: Mutex<BTreeSet<String>>,
    relays: Vec<AbortHandle>,
}

impl Default for Net {
    fn default() -> Self {
        Self { cuts: watch::Sender::new(Cuts::new()), processes: Arc::default(), alone: Mutex::default(), relays: Vec::new() }
    }
}

impl Net {
    /// From now on, who connects to `from` reaches the server `name` at `to`.
    ///
    /// # Panics
    /// When `from` cannot be listened at.
    pub async fn relay(&mut self, name: &str, from: SocketAddr, to: SocketAddr) {
        let listener = TcpListener::bind(from).await.expect("the relay's port is free");
        let (name, processes, cuts) = (name.to_owned(), self.processes.clone(), self.cuts.clone());
        let task = tokio::spawn(async move {
            let mut cables = JoinSet::new();
            while let Ok((caller, peer)) = listener.accept().await {
                let (name, processes, cuts) = (name.clone(), processes.clone(), cuts.subscribe());
                // A call is looked up while its process surely holds the other end.
                let who = owner(peer, from, &processes);
                cables.spawn(async move { carry(caller, to, who.map(|who| pair(&who, &name)), cuts).await });
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
        self.cuts.send_modify(|cuts| _ = cuts.insert(pair(one, other)));
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

fn pair(one: &str, other: &str) -> (String, String) {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

/// Carries one connection until one end closes it. The other end then learns it, unless they are parted.
async fn carry(caller: TcpStream, to: SocketAddr, pair: Option<(String, String)>, mut cuts: watch::Receiver<Cuts>) {
    if whole(pair.as_ref(), &mut cuts).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    let _ = (caller.set_nodelay(true), server.set_nodelay(true));
    let ((from_caller, to_caller), (from_server, to_server)) = (caller.into_split(), server.into_split());
    tokio::select! {
        () = pump(from_caller, to_server, pair.clone(), cuts.clone()) => {}
        () = pump(from_server, to_caller, pair, cuts) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, pair: Option<(String, String)>, mut cuts: watch::Receiver<Cuts>) {
    let mut bytes = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut bytes).await;
        if whole(pair.as_ref(), &mut cuts).await.is_err() {
            return;
        }
        let count = match read {
            Ok(count) if count > 0 => count,
            _ => return,
        };
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits until the cable is whole. An error: the network is gone.
async fn whole(pair: Option<&(String, String)>, cuts: &mut watch::Receiver<Cuts>) -> Result<(), watch::error::RecvError> {
    match pair {
        Some(pair) => cuts.wait_for(|cuts| !cuts.contains(pair)).await.map(drop),
        None => Ok(()),
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
}
