//! `bench`: what is measured, how much of it, and where.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

/// `bench`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Lookups at one edge: through its UNIX socket, and inside it by stage
    Lookup(BenchLookup),
    /// Durable writes over TLS: to one control node, and the bare path through its log; or to voters that are processes of their own
    Write(BenchWrite),
    /// From commit to readable and to acknowledged at every edge
    Propagate(BenchPropagate),
    /// What many secrets cost: time to fill, to start and to bootstrap, memory and disk
    Scale(BenchScale),
}

/// Options of every bench.
#[derive(Debug, Clone, Args)]
pub struct BenchCommon {
    /// The folder, and so the disk, to measure on: data goes into a temporary folder in it, which is removed afterwards
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub data: PathBuf,
    /// How often each measurement is repeated; medians over the rounds are shown
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
}

/// `bench lookup`
#[derive(Debug, Args)]
pub struct BenchLookup {
    /// Where, and how often
    #[command(flatten)]
    pub common: BenchCommon,
    /// How many callers at once
    #[arg(long, default_value = "1,64", value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub callers: Vec<u32>,
    /// Secrets in the store, each bound to the one that reads
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub secrets: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 64, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub value_bytes: u32,
    /// Values that each secret has had: its record lists up to 64
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub versions: u32,
    /// Time for each measurement of a round
    #[arg(long, default_value = "3s", value_name = "D", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Connections that the callers share, never more than there are callers
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub connections: u32,
    /// Lookups that each caller keeps on their way on its pipelined stream
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub depth: u32,
    /// Lookups in one call of several
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
}

/// `bench write`
#[derive(Debug, Args)]
pub struct BenchWrite {
    /// Where, and how often
    #[command(flatten)]
    pub common: BenchCommon,
    /// How many writers at once, each with a secret of its own
    #[arg(long, default_value = "1,16,64,256", value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub writers: Vec<u32>,
    /// Bytes of each value
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub value_bytes: u32,
    /// Time for each measurement of a round
    #[arg(long, default_value = "3s", value_name = "D", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Connections that the writers share, never more than there are writers
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub connections: u32,
    /// Edges that follow meanwhile; of several numbers, everything is measured with each
    #[arg(long, default_value = "0", value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u16).range(0..=100))]
    pub edges: Vec<u16>,
    /// Control nodes that vote, 1, 3 or 5 of them, each a process of its own, as edges are then too; left out: one, in this process
    #[arg(long, value_name = "N", value_parser = voters)]
    pub voters: Option<u8>,
    /// Share the writers out over all voters; else all write to the leader. Only with --voters
    #[arg(long, requires = "voters")]
    pub spread: bool,
}

/// `bench propagate`
#[derive(Debug, Args)]
pub struct BenchPropagate {
    /// Where, and how often
    #[command(flatten)]
    pub common: BenchCommon,
    /// How many edges
    #[arg(long, default_value = "2,100", value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=500))]
    pub edges: Vec<u16>,
    /// Secrets in the store
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub secrets: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub value_bytes: u32,
    /// Writes measured in a round
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub writes: u32,
    /// Writes a second, whether or not the ones before have arrived; left out: one at a time, each after the one before is everywhere
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: Option<u32>,
}

/// `bench scale`
#[derive(Debug, Args)]
pub struct BenchScale {
    /// Where, and how often
    #[command(flatten)]
    pub common: BenchCommon,
    /// Secrets to fill the cluster with
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub secrets: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub value_bytes: u32,
    /// Control nodes that vote: 1, 3 or 5
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = voters)]
    pub voters: u8,
}

/// A number of voters that is worth having: one more than an even number survives no more failures.
fn voters(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(number @ (1 | 3 | 5)) => Ok(number),
        _ => Err("1, 3 or 5".to_owned()),
    }
}
