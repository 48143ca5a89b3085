//! `scripts/bench-peers`: Cinnabar beside etcd and Redis. See `tests::peers`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "this is a program on a terminal")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, builder::PossibleValuesParser};
use runtime::RealClock;
use seams::Clock;
use tests::peers::{Plan, run};
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Runs Cinnabar, etcd and Redis in turn with the same callers, and writes what came out.
#[derive(Parser)]
struct Arguments {
    /// Where the peers' programs were unpacked.
    #[arg(long)]
    programs: PathBuf,
    /// Writes peers.md and peers.json into this folder. Data lies in the system's temporary folder: `TMPDIR`.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Repetitions, of which the medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    value_bytes: u32,
    /// Writers at once.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    writers: Vec<u32>,
    /// Readers at once.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    readers: Vec<u32>,
    /// Watchers of etcd at once.
    #[arg(long, value_delimiter = ',', default_value = "1,100,500")]
    watchers: Vec<u32>,
    /// Edges at once, all in this process; first with their data on the disk, then in memory (/dev/shm).
    #[arg(long, value_delimiter = ',', default_value = "1,100")]
    edges: Vec<u32>,
    /// Writes in a round whose way to all watchers or edges is timed.
    #[arg(long, default_value_t = 100)]
    puts: u32,
    /// Secrets whose memory and disk is measured.
    #[arg(long, default_value_t = 100_000)]
    stored: u32,
    /// Only these sections.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(["writes", "reads", "propagation", "footprint"]))]
    only: Vec<String>,
    /// A round of a fraction of a second with few callers: shows that it works, says nothing of speed.
    #[arg(long)]
    quick: bool,
    /// A section that is not done after so many minutes from the start is left out.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: u32,
}

fn main() -> ExitCode {
    runtime::tls::install_provider();
    let arguments = Arguments::parse();
    if cfg!(debug_assertions) && !arguments.quick {
        eprintln!("This is a debug build: its figures say nothing. Run scripts/bench-peers, which makes a release build, or add --quick.");
        return ExitCode::from(2);
    }
    let mut plan = Plan {
        programs: arguments.programs,
        data: std::env::temp_dir(),
        duration: Duration::from_secs_f64(arguments.seconds.clamp(0.05, 600.0)),
        rounds: arguments.rounds,
        value_bytes: arguments.value_bytes,
        keys: 1000,
        writers: arguments.writers,
        readers: arguments.readers,
        watchers: arguments.watchers,
        edges: arguments.edges,
        puts: arguments.puts,
        stored: arguments.stored,
        at_most: Duration::from_secs(60 * u64::from(arguments.minutes)),
        only: arguments.only,
    };
    if arguments.quick {
        let (writers, readers, watchers, edges) = (vec![1, 16], vec![1, 16], vec![1, 10], vec![1, 10]);
        plan = Plan {
            duration: Duration::from_millis(100),
            rounds: 1,
            keys: 64,
            puts: 10,
            stored: 1000,
            writers,
            readers,
            watchers,
            edges,
            ..plan
        };
    }
    let (clock, threads) = (RealClock::new(), tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));
    let began = clock.monotonic();
    let say = |doing: &str| eprintln!("{:4} s: {doing}", (clock.monotonic() - began).as_secs());
    let report = threads.block_on(async {
        // Whichever ends first; what the other had started ends when it is dropped.
        tokio::select! {
            report = run(&plan, say) => Some(report),
            () = interrupted() => None,
        }
    });
    let Some(report) = report else {
        eprintln!("Interrupted: the servers are ended, nothing was written.");
        return ExitCode::from(INTERRUPTED);
    };
    std::fs::create_dir_all(&arguments.out).expect("the folder can be made");
    for (name, text) in [("peers.md", report.markdown()), ("peers.json", report.json())] {
        std::fs::write(arguments.out.join(name), text).expect("the report can be written");
    }
    println!("{}", report.markdown());
    say("done");
    ExitCode::SUCCESS
}

/// Until somebody wants this to end.
async fn interrupted() {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(|kind| signal(kind).expect("a signal"));
    let [interrupt, terminate, hangup] = &mut signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    // Callers lose their servers now, and each would say so.
    std::panic::set_hook(Box::new(|_| {}));
}
