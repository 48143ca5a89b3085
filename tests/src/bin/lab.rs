//! `scripts/cluster`: three control nodes and two edges on this machine, each a process of its own, to watch and to break.
//!
//! The nodes are founded, joined and added with the commands that an operator types, and each command is shown. Then the view follows
//! the cluster, and single keys kill, freeze, cut off and restart nodes. A writer and a reader at each edge work all the while, so
//! that it can be seen what a fault costs. With `--once`, or without a terminal, it breaks things by itself and ends.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic, reason = "this is a demonstration on a terminal")]

use std::{
    io::IsTerminal,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cli::Keyboard;
use runtime::RealClock;
use seams::Clock;
use tests::process::{Extra, Fleet, Operator, Reader, Role};
use types::Position;

/// How often the view looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Writes that must succeed after a fault, in the tour, before the next.
const WRITES_AFTER: u64 = 20;
/// The secret that the writer writes and the readers read.
const SECRET: &str = "COUNTER";

fn main() {
    let once = std::env::args().any(|argument| argument == "--once");
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    threads.block_on(run(once || !std::io::stdout().is_terminal()));
}

async fn run(once: bool) {
    runtime::tls::install_provider();
    println!("Three control nodes and two edges, each a process of its own on loopback. What an operator types is shown.\n");
    let mut fleet = Fleet::founded(Extra::default(), &[], true).await;
    for name in ["control-2", "control-3"] {
        fleet.add_voter(name).await;
    }
    for name in ["edge-1", "edge-2"] {
        fleet.add_edge(name).await;
    }
    let operator = fleet.operator();
    operator.found().await;
    operator.create_bound(SECRET, b"0").await;
    fleet.cli.ok(&["fleet"]).await;
    let view = View::start(&fleet);
    println!("\ndata and logs are in {}\n", fleet.folder().display());
    let keyboard = if once { None } else { Keyboard::open() };
    match keyboard {
        Some(keyboard) => live(&mut fleet, &view, keyboard).await,
        None => tour(&mut fleet, &view).await,
    }
}

/// What the clients saw.
struct View {
    clock: Arc<RealClock>,
    writes: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    /// When the last write was acknowledged.
    last_write: Arc<Mutex<Duration>>,
}

impl View {
    /// Starts a writer at all control nodes, and a reader at each edge.
    fn start(fleet: &Fleet) -> Self {
        let clock = Arc::new(RealClock::new());
        let last_write = Arc::new(Mutex::new(clock.monotonic()));
        let view = Self { clock, writes: Arc::default(), reads: Arc::default(), failed: Arc::default(), last_write };
        tokio::spawn(write_on(fleet.operator(), view.clock.clone(), view.writes.clone(), view.last_write.clone()));
        for (_, reader) in fleet.readers() {
            tokio::spawn(read_on(reader, view.reads.clone(), view.failed.clone()));
        }
        view
    }

    fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    fn since_last_write(&self) -> Duration {
        self.clock.monotonic().saturating_sub(*self.last_write.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One line: who leads, who is away, how far each edge is, what the clients saw.
    async fn line(&self, fleet: &Fleet) -> String {
        let leader = fleet.try_leader().await.unwrap_or_else(|| "nobody".to_owned());
        let away: Vec<String> = fleet.away();
        let mut held = Vec::new();
        for (name, reader) in fleet.readers() {
            held.push(match reader.get(SECRET).await {
                Ok(found) => format!("{name} at {}", Position::from(found.position.unwrap_or_default())),
                Err(_) => format!("{name} silent"),
            });
        }
        let away = if away.is_empty() { String::new() } else { format!("   away: {}", away.join(", ")) };
        format!(
            "{leader} leads   {}   {} writes, {} reads, {} failed{away}",
            held.join("   "),
            self.writes(),
            self.reads.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }
}

async fn write_on(operator: Operator, clock: Arc<RealClock>, writes: Arc<AtomicU64>, last: Arc<Mutex<Duration>>) {
    for count in 1_u64.. {
        while operator.try_set(SECRET, count.to_string().as_bytes()).await.is_err() {}
        writes.fetch_add(1, Ordering::Relaxed);
        *last.lock().unwrap_or_else(PoisonError::into_inner) = clock.monotonic();
    }
}

async fn read_on(reader: Reader, reads: Arc<AtomicU64>, failed: Arc<AtomicU64>) {
    let clock = RealClock::new();
    loop {
        let counter = if reader.get(SECRET).await.is_ok() { &reads } else { &failed };
        counter.fetch_add(1, Ordering::Relaxed);
        // A demonstration leaves room for what it shows.
        clock.sleep(Duration::from_millis(5)).await;
    }
}

/// Breaks things in turn, and shows what each fault cost.
async fn tour(fleet: &mut Fleet, view: &View) {
    println!("{}", view.line(fleet).await);
    for fault in [Fault::Kill, Fault::Freeze, Fault::Cut] {
        let leader = fleet.leader().await;
        suffer(fleet, view, fault, &leader).await;
    }
    suffer(fleet, view, Fault::Kill, "edge-1").await;
    println!("{}", view.line(fleet).await);
}

/// Breaks a node, waits until writes go on, repairs it.
async fn suffer(fleet: &mut Fleet, view: &View, fault: Fault, name: &str) {
    let (before, failed) = (view.writes(), view.failed.load(Ordering::Relaxed));
    fault.strike(fleet, name);
    let (struck, mut silence) = (view.clock.monotonic(), Duration::ZERO);
    while view.writes() < before + WRITES_AFTER {
        silence = silence.max(view.since_last_write());
        view.clock.sleep(Duration::from_millis(5)).await;
    }
    let took = (view.clock.monotonic() - struck).as_secs_f64();
    println!(
        "  {} {name}: the longest wait for a write {:.2} s, {WRITES_AFTER} writes after {took:.2} s",
        fault.word(),
        silence.as_secs_f64()
    );
    if matches!(fleet.role(name), Role::Control) {
        let failed = view.failed.load(Ordering::Relaxed) - failed;
        println!("  the edges answered all the while: {failed} lookups failed");
    }
    println!("  {}", view.line(fleet).await);
    fleet.repair(name).await;
    println!("  {name} is well again");
}

#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    Cut,
}

impl Fault {
    const fn word(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Freeze => "froze",
            Self::Cut => "cut off",
        }
    }

    fn strike(self, fleet: &mut Fleet, name: &str) {
        match self {
            Self::Kill => fleet.kill(name),
            Self::Freeze => fleet.freeze(name),
            Self::Cut => fleet.net.part_from_all(name),
        }
    }
}

/// Follows the cluster and obeys keys, until `q`.
async fn live(fleet: &mut Fleet, view: &View, mut keyboard: Keyboard) {
    let names: Vec<String> = fleet.names(Role::Control).into_iter().chain(fleet.names(Role::Edge)).collect();
    println!("  a number chooses a node, then: k kills   f freezes   x cuts off   r restarts, thaws, mends   q quits");
    let (mut chosen, mut shown) = (0, String::new());
    loop {
        let pressed = tokio::select! {
            biased;
            key = keyboard.key() => Some(key),
            () = view.clock.sleep(LOOK_EVERY) => None,
        };
        let name = names[chosen].clone();
        match pressed {
            Some('q') => return,
            Some(key @ '1'..='9') => {
                let number = key as usize - '1' as usize;
                chosen = if number < names.len() { number } else { chosen };
                println!("  {} is chosen", names[chosen]);
            }
            Some(key @ ('k' | 'f' | 'x')) if !fleet.is_well(&name) => println!("  {key}: {name} is away already; r repairs it"),
            Some(key @ ('k' | 'f' | 'x')) => {
                let fault = match key {
                    'k' => Fault::Kill,
                    'f' => Fault::Freeze,
                    _ => Fault::Cut,
                };
                fault.strike(fleet, &name);
                println!("  {} {name}", fault.word());
            }
            Some('r') => {
                fleet.repair(&name).await;
                println!("  {name} is well again");
            }
            _ => {}
        }
        // Counters move all the time; a line is worth showing when somebody leads, leaves or comes back, and every few seconds.
        let line = view.line(fleet).await;
        let kept = |line: &str| line.split("   ").filter(|part| !part.contains(" at ") && !part.contains("writes")).collect::<String>();
        if kept(&line) != kept(&shown) || view.clock.monotonic().subsec_millis() < 100 {
            println!("{line}");
            shown = line;
        }
    }
}
