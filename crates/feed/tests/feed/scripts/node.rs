//! An edge of a script: its machine, its follower while that runs, and the stream that the script carries.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use feed::{Base, CheckpointSeen, FeedError, Follower, FollowerOptions, FollowerParts, FollowerStatus, Inline, NoKeys, Publisher};
use futures::FutureExt;
use seams::{
    BoxFuture, Clock, Dial, DialError, Link,
    sim::{ManualClock, SimEntropy},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use types::{Generation, NodeId, Position, Revision, UnixMillis};
use wire::internal::{Hello, SubscribeDown, SubscribeUp, subscribe_up::Message as Up};

use super::{Args, Failure, words};
use crate::harness::{CLUSTER, Edge, line, served};

type EdgeLink = Link<SubscribeUp, SubscribeDown>;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) machine: Edge,
    running: Option<Running>,
    stream: Option<Stream>,
    /// Streams of another machine that has this one's identity.
    copies: Vec<EdgeLink>,
    told: Told,
}

struct Running {
    links: mpsc::Sender<EdgeLink>,
    status: watch::Receiver<FollowerStatus>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), FeedError>>,
}

/// A stream, which ends here on both sides.
struct Stream {
    /// To the edge; none once the other side is gone.
    down: Option<mpsc::Sender<SubscribeDown>>,
    up: mpsc::Receiver<SubscribeUp>,
    /// None when the other side is a hand.
    control: Option<EdgeLink>,
    peer: &'static str,
    /// How many messages the edge will read.
    reads: u64,
}

/// What was told of what the edge has shown and written.
#[derive(Default)]
struct Told {
    roots: usize,
    checkpoints: usize,
    snapshots: Vec<String>,
    /// The newest checkpoint, and the clocks when it was shown.
    newest: Option<(CheckpointSeen, UnixMillis, Duration)>,
}

/// Dials by waiting for a link.
struct Exchange(Arc<Mutex<mpsc::Receiver<EdgeLink>>>);

impl Dial<SubscribeUp, SubscribeDown> for Exchange {
    fn dial(&self) -> BoxFuture<'_, Result<EdgeLink, DialError>> {
        Box::pin(async move {
            match self.0.lock().await.recv().await {
                Some(link) => Ok(link),
                None => std::future::pending().await,
            }
        })
    }
}

impl Node {
    pub(super) fn new(clock: &Arc<ManualClock>, id: NodeId) -> Self {
        Self { id, machine: Edge::new(clock), running: None, stream: None, copies: Vec::new(), told: Told::default() }
    }

    /// Starts the process: recovers, and then follows whoever it is connected to.
    pub(super) fn open(&mut self, name: &str, out: &mut String) -> Result<(), Failure> {
        if self.running.is_some() {
            return Err("it is open already".into());
        }
        self.told.newest = None;
        let core = self.machine.open();
        let base = match core.base() {
            Base::Nothing => "nothing".into(),
            Base::Table(position) => format!("its table at {position}"),
            Base::Snapshot(position) => format!("a snapshot file of {position}"),
        };
        let base_at = match core.base() {
            Base::Nothing => None,
            Base::Table(position) | Base::Snapshot(position) => Some(position),
        };
        write!(out, "{name} begins with {base}")?;
        match core.synced().map(|synced| synced.position) {
            Some(held) if Some(held) != base_at => write!(out, ", and its log to {held}")?,
            _ => {}
        }
        match core.published() {
            Some(_) => writeln!(out)?,
            None => writeln!(out, "; shows nothing")?,
        }
        let (links, exchange) = mpsc::channel(4);
        let parts = FollowerParts {
            dial: Arc::new(Exchange(Arc::new(Mutex::new(exchange)))),
            clock: self.machine.clock.clone(),
            entropy: Arc::new(SimEntropy::new(self.id.get())),
            offload: Arc::new(Inline),
            keys: Arc::new(NoKeys),
        };
        let mut options = FollowerOptions::new(CLUSTER, self.id);
        // Whom it dials, and when, is for the script to say.
        (options.backoff_min, options.backoff_max) = (Duration::ZERO, Duration::ZERO);
        let follower = Follower::new(core, options, parts);
        let (status, stop) = (follower.status(), CancellationToken::new());
        let task = tokio::spawn(follower.run(stop.clone()));
        self.running = Some(Running { links, status, stop, task });
        Ok(())
    }

    /// A stream to control, of which so many messages fit on the way, or to a hand.
    pub(super) fn connect(&mut self, control: Option<(&Arc<Publisher>, usize)>) {
        let Some(running) = &self.running else { return };
        let (link, ends) = line(1024);
        let peer = if control.is_some() { "control" } else { "hand" };
        let control = control.map(|(publisher, room)| served(publisher, self.id, room).0);
        // There is always room: a link is taken before the next is made.
        let _ = running.links.try_send(link);
        self.stream = Some(Stream { down: Some(ends.sender), up: ends.receiver, control, peer, reads: u64::MAX });
    }

    /// The other side ends the stream.
    pub(super) fn control_gone(&mut self) {
        if let Some(stream) = &mut self.stream {
            (stream.down, stream.control) = (None, None);
        }
    }

    /// It reads so many messages more.
    pub(super) fn reads(&mut self, reads: u64) -> Result<(), Failure> {
        self.stream.as_mut().ok_or("it has no stream")?.reads = reads;
        Ok(())
    }

    /// Another machine subscribes under this one's identity, and holds nothing.
    pub(super) fn copy(&mut self, publisher: &Arc<Publisher>) {
        let (mut link, _) = served(publisher, self.id, 64);
        let cluster = CLUSTER.as_bytes().to_vec().into();
        let hello = Hello { cluster, node: self.id.get(), feature_level: 1, ..Hello::default() };
        let _ = link.sender.send(SubscribeUp { message: Some(Up::Hello(hello)) }).now_or_never();
        self.copies.push(link);
    }

    pub(super) fn send(&mut self, words: &str, messages: Vec<SubscribeDown>, out: &mut String) -> Result<(), Failure> {
        let down = self.stream.as_ref().and_then(|stream| stream.down.as_ref()).ok_or("it has no stream")?;
        let (name, what) = words.split_once(' ').unwrap_or_default();
        for message in messages {
            writeln!(out, "hand -> {name} ({what}): {}", words::down(&message))?;
            down.try_send(message).map_err(|_| "the stream is full")?;
        }
        Ok(())
    }

    /// The revision that it holds.
    pub(super) fn revision(&self) -> u64 {
        let held = self.running.as_ref().and_then(|running| running.status.borrow().durable);
        held.map_or(0, |position| position.revision.get())
    }

    pub(super) async fn close(&mut self) -> Result<(), Failure> {
        let running = self.running.take().ok_or("it is not open")?;
        running.stop.cancel();
        self.stream = None;
        Ok(running.task.await??)
    }

    /// Power off: what was not synced is lost in part.
    pub(super) async fn crash(&mut self, entropy: &SimEntropy) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            let _ = running.task.await;
        }
        self.stream = None;
        self.machine.disk.crash(entropy);
        self.machine.table.crash(entropy);
    }

    pub(super) fn damage(&mut self, part: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        let Edge { disk, table, .. } = &self.machine;
        match part {
            "log" => self.machine.damage_content("edge/log/", format!("value of {};", args.number()?).as_bytes()),
            "mark" => [30, 4096 + 30].into_iter().try_for_each(|place| disk.damage("edge/mark".as_ref(), place, 1))?,
            "snapshot" => disk.damage(self.machine.files("edge/snapshots").last().ok_or("no snapshot file")?, 200, 1)?,
            "table" => match args.next()?.as_str() {
                "lacks-a-record" => table.tamper(|records| drop(records.pop_last())),
                "changed" => table.tamper(|records| records.values_mut().last().unwrap()[0] ^= 1),
                "moved" => table.tamper(|records| {
                    let (_, value) = records.pop_last().unwrap();
                    *records.values_mut().last().unwrap() = value;
                }),
                "headless" => table.tamper(|records| drop(records.remove(&[0][..]))),
                other => return Err(format!("no such damage: {other}").into()),
            },
            other => return Err(format!("no such part: {other}").into()),
        }
        Ok(())
    }

    pub(super) fn wipe(&mut self, part: &str) -> Result<(), Failure> {
        match part {
            "log" => self.machine.remove_files("edge/log/"),
            "table" => self.machine.table.clear(),
            "snapshots" => self.machine.remove_files("edge/snapshots"),
            "disk" => {
                self.machine.remove_files("edge");
                self.machine.table.clear();
            }
            "past" => self.machine.remove_files("edge/past"),
            other => return Err(format!("no such part: {other}").into()),
        }
        Ok(())
    }

    /// What readers see and how old it is, as they would reckon it.
    pub(super) fn age(&self) -> String {
        let Some(running) = &self.running else { return "is down".into() };
        let Some(head) = running.status.borrow().published else { return "shows nothing".into() };
        let Some((seen, wall, monotonic)) = self.told.newest else { return format!("{head}, of unknown age: no checkpoint") };
        if let Some(before) = seen.restored_wall.filter(|before| wall < *before) {
            return format!("{head}, of unknown age: the clock went back from {}", words::time(before));
        }
        let since = self.machine.clock.monotonic().saturating_sub(monotonic);
        format!("{head}, {} old", words::duration(wall.since(seen.time) + since))
    }

    /// Tells what happened, and carries what waits. True when anything did.
    pub(super) async fn step(&mut self, name: &str, out: &mut String) -> Result<bool, Failure> {
        let mut moved = self.tell(name, out)?;
        for copy in &mut self.copies {
            while let Some(Ok(message)) = copy.receiver.recv().now_or_never() {
                moved = true;
                writeln!(out, "control -> copy of {name}: {}", words::down(&message))?;
            }
        }
        let Some(stream) = &mut self.stream else { return Ok(moved) };
        let mut lost = false;
        loop {
            match stream.up.try_recv() {
                Ok(message) => {
                    moved = true;
                    writeln!(out, "{name} -> {}: {}", stream.peer, words::up(&message))?;
                    if let Some(control) = &mut stream.control {
                        // If it is gone, its end of the other direction says so.
                        let _ = control.sender.send(message).now_or_never();
                    }
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    lost = true;
                    break;
                }
            }
        }
        while let (Some(control), Some(down), false) = (&mut stream.control, &stream.down, lost || stream.reads == 0) {
            match control.receiver.recv().now_or_never() {
                Some(Ok(message)) => {
                    moved = true;
                    stream.reads -= 1;
                    writeln!(out, "{} -> {name}: {}", stream.peer, words::down(&message))?;
                    down.try_send(message).map_err(|_| "the stream is full")?;
                }
                Some(Err(_)) => {
                    moved = true;
                    (stream.down, stream.control) = (None, None);
                }
                None => break,
            }
        }
        if lost {
            self.lost(name, out).await?;
        }
        Ok(moved || lost)
    }

    /// The edge let go of the stream.
    async fn lost(&mut self, name: &str, out: &mut String) -> Result<(), Failure> {
        self.stream = None;
        let Some(running) = &mut self.running else { return Ok(()) };
        let error = running.status.borrow().last_error.clone().unwrap_or_default();
        writeln!(out, "{name} drops the stream: {error}")?;
        if running.task.is_finished() {
            writeln!(out, "{name} has stopped")?;
            self.running = None;
        }
        Ok(())
    }

    /// What was shown and written since the last time.
    fn tell(&mut self, name: &str, out: &mut String) -> Result<bool, Failure> {
        let before = out.len();
        let positions = self.machine.seen.positions();
        for position in &positions[self.told.roots..] {
            writeln!(out, "{name} shows {position}")?;
        }
        self.told.roots = positions.len();
        let checkpoints = self.machine.seen.checkpoints();
        for seen in &checkpoints[self.told.checkpoints..] {
            let restored =
                seen.restored_wall.map(|wall| format!(", as known before the restart, when the clock was at {}", words::time(wall)));
            writeln!(out, "{name} knows {} to be current at {}{}", seen.position, words::time(seen.time), restored.unwrap_or_default())?;
            let clock = &self.machine.clock;
            self.told.newest = Some((*seen, clock.wall(), clock.monotonic()));
        }
        self.told.checkpoints = checkpoints.len();
        let files = self.machine.files("edge/snapshots");
        let snapshots: Vec<String> = files.iter().filter_map(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into()).collect();
        for (verb, these, not) in [("writes", &snapshots, &self.told.snapshots), ("removes", &self.told.snapshots, &snapshots)] {
            for order in these.iter().filter(|order| !not.contains(order)) {
                let order = u128::from_str_radix(order, 16)?;
                let position = Position::new(Generation::new((order >> 64) as u32), Revision::new(order as u64));
                writeln!(out, "{name} {verb} its snapshot file of {position}")?;
            }
        }
        self.told.snapshots = snapshots;
        Ok(out.len() > before)
    }
}
