//! Golden scripts: commands to a control plane, to edges and to a hand on the wire, and all that came of them. Regenerate on purpose
//! with `UPDATE_GOLDENFILES=1`.
//!
//! Control: `commit NUMBER...`, `write N` (so many change sets, each applied by itself), `run N` (applied as one run), `tick [N]`,
//! `stale-tick 2s`, `pass 10s`, `clock 5s`, `restart [window=N] [marks=0]`, `restore REVISION`, `marks`, `acks`, `signed`, `control NODE`,
//! `signers NODE... [by=NODE]`, `recovery-key`, `recover REVISION [by-other-key] [above=N] [node=N]`, `forget-generation`.
//! Edges: `open a`, `connect a [room=N] [reads=N]`, `disconnect a`, `hold a`, `release a`, `copy a`, `close a`, `crash a SEED`,
//! `damage a PART`, `wipe a PART`, `fail-syncs a`, `mend a`, `age a`.
//! The hand: `connect a hand`, then `send a WHAT`; see `hand.rs`.
//!
//! Time stands still but for `tick` and `pass`, each told as the time since the start. Control's messages are carried by the
//! script, one edge after the other in the order of names, until nothing moves any more. So output is the same at each run.
//! Counters that an alarm would watch are told when they move.

mod counters;
mod hand;
mod node;
mod words;

use std::{collections::BTreeMap, error::Error, fmt::Write as _, time::Duration};

use goldenscript::{ArgumentConsumer, Command as Line, Runner};
use seams::{
    Clock,
    sim::{DiskFaults, SimEntropy},
};
use state::{Change, TypedKey};
use types::{NodeId, UnixMillis};

use self::{counters::Counters, node::Node};
use crate::harness::{EDGE, Plane, START_MS, at, delete, options, other_key, put, recovery_key};

type Failure = Box<dyn Error>;

macro_rules! scripts {
    ($($name:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let path = concat!("tests/scripts/", stringify!($name));
                let counters = Counters::default();
                metrics::with_local_recorder(&counters, || goldenscript::run(&mut Script::new(&counters), path))
                    .expect("the script gives other output");
            }
        )*
    };
}

scripts! {
    tail;
    window_and_snapshot;
    refusals_and_healing;
    recovery;
    damage;
    checkpoints_and_age;
    two_edges_one_seal;
    histories;
    signers;
    generations;
}

struct Script {
    runtime: tokio::runtime::Runtime,
    stage: Stage,
}

impl Script {
    fn new(counters: &Counters) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { runtime, stage: Stage { plane: Plane::new(), nodes: BTreeMap::new(), counters: counters.clone(), out: String::new() } }
    }
}

impl Runner for Script {
    fn run(&mut self, line: &Line) -> Result<String, Failure> {
        let words: Vec<_> = line.args.iter().filter(|argument| argument.key.is_none()).map(|argument| argument.value.as_str()).collect();
        let mut args = Args(line.consume_args(), words.join(" "));
        self.runtime.block_on(self.stage.run(&line.name, &mut args))?;
        args.0.reject_rest()?;
        Ok(std::mem::take(&mut self.stage.out))
    }
}

struct Stage {
    plane: Plane,
    nodes: BTreeMap<String, Node>,
    counters: Counters,
    out: String,
}

/// The arguments of a line, and those without a key in one text.
struct Args<'a>(ArgumentConsumer<'a>, String);

impl Args<'_> {
    fn next(&mut self) -> Result<String, Failure> {
        Ok(self.0.next_pos().ok_or("an argument is missing")?.value.clone())
    }

    fn number(&mut self) -> Result<u64, Failure> {
        Ok(self.next()?.parse()?)
    }

    fn number_or(&mut self, default: u64) -> Result<u64, Failure> {
        Ok(self.0.next_pos().map(|argument| argument.value.parse()).transpose()?.unwrap_or(default))
    }

    fn key(&mut self, key: &str) -> Result<Option<u64>, Failure> {
        Ok(self.0.lookup(key).map(|argument| argument.value.parse()).transpose()?)
    }

    /// Whether the next argument is this word; any other is a mistake.
    fn word(&mut self, word: &str) -> Result<bool, Failure> {
        match self.0.next_pos() {
            None => Ok(false),
            Some(argument) if argument.value == word => Ok(true),
            Some(other) => Err(format!("expected {word} or nothing, not {}", other.value).into()),
        }
    }

    fn millis(&mut self) -> Result<u64, Failure> {
        millis(&self.next()?)
    }
}

/// Reads `5s` or `250ms`.
fn millis(text: &str) -> Result<u64, Failure> {
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => Ok(number.parse()?),
        (None, Some(number)) => Ok(number.parse::<u64>()? * 1000),
        _ => Err(format!("{text} is no duration").into()),
    }
}

impl Stage {
    async fn run(&mut self, command: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        match command {
            "commit" | "write" | "run" => self.write(command, args)?,
            "tick" => return self.tick(args.number_or(1)?).await,
            "stale-tick" => {
                let time = self.plane.clock.wall().get() - args.millis()?;
                self.plane.publisher.ticked(&self.plane.state, UnixMillis::new(time));
            }
            "pass" => self.plane.clock.advance(Duration::from_millis(args.millis()?)),
            "clock" => self.set_clock(&args.next()?)?,
            "restart" | "restore" => self.restart(command, args)?,
            "control" | "signers" | "recovery-key" | "recover" | "forget-generation" => self.membership(command, args)?,
            "signed" => writeln!(self.out, "{}", self.counters.signed())?,
            "marks" => {
                let marks: Vec<_> = self.plane.publisher.marks().iter().map(|(position, _)| position.to_string()).collect();
                writeln!(self.out, "marks at {}", marks.join(" "))?;
            }
            "acks" => self.acks()?,
            "open" => self.open(args).await?,
            _ => self.edge(command, args).await?,
        }
        self.pump().await
    }

    fn write(&mut self, command: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        let bytes = args.key("bytes")?.unwrap_or(0) as usize;
        let content = |revision: u64| {
            let text = format!("value of {revision};");
            [text.as_bytes(), &b"."[..].repeat(bytes)].concat()
        };
        let next = self.plane.position().revision.get() + 1;
        if command == "commit" {
            let gone = args.key("delete")?.map(delete);
            let numbers = args.0.rest_pos();
            let puts = numbers.iter().map(|number| Ok(put(number.value.parse()?, content(next))));
            let changes: Vec<Change> = puts.chain(gone.map(Ok)).collect::<Result<_, Failure>>()?;
            self.plane.commit(changes);
        } else {
            let count = args.number()?;
            let sets = (next..next + count).map(|revision| vec![put(revision % 40, content(revision))]);
            if command == "run" {
                self.plane.commit_run(sets.collect());
            } else {
                sets.for_each(|changes| drop(self.plane.commit(changes)));
            }
        }
        writeln!(self.out, "control is at {}", self.plane.position())?;
        Ok(())
    }

    async fn tick(&mut self, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            self.plane.tick();
            self.pump().await?;
        }
        Ok(())
    }

    /// Sets the wall clock alone, for all machines, to a time after the start.
    fn set_clock(&mut self, text: &str) -> Result<(), Failure> {
        self.plane.clock.set_wall(UnixMillis::new(START_MS + millis(text)?));
        Ok(())
    }

    /// A new process of the control node: all streams end, the window begins empty.
    fn restart(&mut self, command: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        let mut options = options();
        if let Some(sets) = args.key("window")? {
            options.window.sets_max = sets as usize;
        }
        if command == "restore" {
            self.plane.restore(args.number()?, options);
        } else {
            let marks = self.plane.publisher.marks();
            self.plane.restart(options);
            if args.key("marks")? != Some(0) {
                self.plane.publisher.restore_marks(marks);
            }
        }
        self.nodes.values_mut().for_each(Node::control_gone);
        writeln!(self.out, "control begins at {}", self.plane.position())?;
        Ok(())
    }

    /// Who signs: another control node, another signer set, another generation.
    fn membership(&mut self, command: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        match command {
            "control" => {
                self.plane.publish_by(NodeId::new(args.number()?));
                self.nodes.values_mut().for_each(Node::control_gone);
                writeln!(self.out, "control node {} begins at {}", self.plane.node, self.plane.position())?;
                return Ok(());
            }
            "signers" => {
                let by = args.key("by")?.map_or(self.plane.node, NodeId::new);
                let members: Vec<NodeId> =
                    args.0.rest_pos().iter().map(|argument| argument.value.parse().map(NodeId::new)).collect::<Result<_, _>>()?;
                self.plane.adopt(&members, &[by]);
            }
            "recovery-key" => self.plane.name_recovery_key(&recovery_key()),
            "forget-generation" => {
                let generation = self.plane.propagated().generation();
                self.plane.commit(vec![Change { key: TypedKey::Generation { generation }.encode(), value: None }]);
            }
            _ => {
                let (of, above) = (args.number()?, args.key("above")?.unwrap_or(self.plane.position().revision.get()));
                let node = NodeId::new(args.key("node")?.unwrap_or(2));
                let key = if args.word("by-other-key")? { other_key() } else { recovery_key() };
                let signed = self.plane.recover(of, above, node, &key);
                self.nodes.values_mut().for_each(Node::control_gone);
                writeln!(self.out, "a generation begins at {}", signed.statement.begins)?;
            }
        }
        writeln!(self.out, "control is at {}", self.plane.position())?;
        Ok(())
    }

    fn acks(&mut self) -> Result<(), Failure> {
        let acks = self.plane.publisher.acks().clone();
        for row in acks.rows() {
            let name = self.nodes.iter().find(|(_, node)| node.id == row.node).map_or("?", |(name, _)| name);
            let holds = row.durable.map_or("nothing".into(), |position| position.to_string());
            let unseen = row.unseen_for.unwrap_or_default();
            let since = if row.connected { "connected".into() } else { format!("gone for {}", words::duration(unseen)) };
            writeln!(self.out, "{name} holds {holds}, {since}")?;
        }
        let tip = self.plane.position();
        let live = acks.live(tip, |_| true);
        writeln!(self.out, "{tip} is live on {} of {}", live.live, live.of)?;
        Ok(())
    }

    async fn open(&mut self, args: &mut Args<'_>) -> Result<(), Failure> {
        let name = args.next()?;
        // Edge `a` is registered; what others there are, the transport has let in.
        let letter = name.bytes().next().map_or(0, |letter| u64::from(letter.saturating_sub(b'a')));
        let id = NodeId::new(EDGE.get() + letter);
        let node = self.nodes.entry(name.clone()).or_insert_with(|| Node::new(&self.plane.clock, id));
        if let Some(bytes) = args.key("snapshot-every")? {
            node.machine.snapshot_every_bytes = bytes;
        }
        node.open(&name, &mut self.out)
    }

    async fn edge(&mut self, command: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        let name = args.next()?;
        let node = self.nodes.get_mut(&name).ok_or_else(|| format!("{command}: no edge {name}"))?;
        match command {
            "connect" if args.1.ends_with(" hand") => {
                args.next()?;
                node.connect(None);
            }
            "connect" if args.1.ends_with(" replaced") => {
                args.next()?;
                let replaced = self.plane.replaced.as_ref().ok_or("control was never recovered")?;
                node.connect(Some((replaced, 64)));
            }
            "connect" => {
                node.connect(Some((&self.plane.publisher, args.key("room")?.unwrap_or(64) as usize)));
                node.reads(args.key("reads")?.unwrap_or(u64::MAX))?;
            }
            "disconnect" => node.control_gone(),
            "hold" => node.reads(0)?,
            "release" => node.reads(u64::MAX)?,
            "copy" => node.copy(&self.plane.publisher),
            "send" => {
                let held = node.revision();
                let made = hand::make(&self.plane, held, &args.next()?, args)?;
                node.send(&args.1, made, &mut self.out)?;
            }
            "close" => node.close().await?,
            "crash" => node.crash(&SimEntropy::new(args.number()?)).await,
            "damage" => node.damage(&args.next()?, args)?,
            "wipe" => node.wipe(&args.next()?)?,
            "fail-syncs" => node.machine.disk.set_faults(DiskFaults { sync_fails: true, ..DiskFaults::default() }),
            "mend" => node.machine.disk.set_faults(DiskFaults::default()),
            "age" => writeln!(self.out, "{name}: {}", node.age())?,
            _ => return Err(format!("unknown command {command}").into()),
        }
        Ok(())
    }

    /// Carries messages until nothing moves any more.
    async fn pump(&mut self) -> Result<(), Failure> {
        loop {
            settle().await;
            let mut moved = false;
            for (name, node) in &mut self.nodes {
                moved |= node.step(name, &mut self.out).await?;
            }
            if !moved {
                break;
            }
        }
        self.counters.tell(&mut self.out)
    }
}

/// Lets all tasks run until none can without time passing.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn plane_restored_from_a_copy_stands_where_the_copy_was_made() {
    let mut plane = Plane::new();
    plane.write(4);
    plane.restore(3, options());
    assert_eq!((plane.position(), plane.publisher.head()), (at(3), at(3)));
}
