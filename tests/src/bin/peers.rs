//! `scripts/bench-peers`: Cinnabar beside etcd and Redis. See `tests::peers`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "this is a program on a terminal")]

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use tests::peers::{Plan, run};

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
    #[arg(long, default_value_t = 3.0)]
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
    /// Only these sections: writes, reads, propagation, footprint.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A round of a fraction of a second with few callers: shows that it works, says nothing of speed.
    #[arg(long)]
    quick: bool,
}

fn main() {
    runtime::tls::install_provider();
    let arguments = Arguments::parse();
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
        only: arguments.only,
    };
    if arguments.quick {
        let (writers, readers, watchers, edges) = (vec![1, 16], vec![1, 16], vec![1, 10], vec![1, 2]);
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
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = threads.block_on(run(&plan, |doing| eprintln!("{doing}")));
    std::fs::create_dir_all(&arguments.out).expect("the folder can be made");
    for (name, text) in [("peers.md", report.markdown()), ("peers.json", report.json())] {
        std::fs::write(arguments.out.join(name), text).expect("the report can be written");
    }
    println!("{}", report.markdown());
}
