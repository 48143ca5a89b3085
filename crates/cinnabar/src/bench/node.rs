//! One node as a process of its own, started from this binary: its readiness, its end, and what the system and its metrics say of it.

use std::{
    fs::{self, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use runtime::RealClock;
use rustix::process::{Pid, Signal, kill_process};
use seams::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What all metrics begin with.
const PREFIX: &str = "cinnabar";
/// How often is looked whether something has come: what start-up times are exact to.
const POLL: Duration = Duration::from_millis(5);
/// How long a health port on this machine may take for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a node may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(300);
/// The most bytes that a health port is read for.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Lines of its log that are shown when a node ends unasked.
const TAIL_LINES: usize = 8;

/// A running node. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
    health: SocketAddr,
    clock: RealClock,
    started: Duration,
}

impl Process {
    /// Starts `cinnabar ARGUMENTS`; what it prints is appended to `log`.
    pub(super) fn start(arguments: &[&str], log: &Path, health: SocketAddr, clock: RealClock) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let started = clock.monotonic();
        let child = command(arguments)?.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        Ok(Self { child: child.context("cannot start a node")?, log: log.to_owned(), health, clock, started })
    }

    /// Waits until a path of its health port answers 200; how long that was after its start.
    pub(super) async fn until(&mut self, path: &str) -> Result<Duration> {
        let deadline = self.clock.monotonic() + PATIENCE;
        loop {
            let answer = self.health(path).await;
            let now = self.clock.monotonic();
            if let Some(status) = self.child.try_wait()? {
                bail!("a node ended with {status}:\n{}", self.tail());
            }
            match answer {
                Ok((200, _)) => return Ok(now - self.started),
                Ok((_, body)) if now > deadline => bail!("a node does not become ready:\n{body}\n{}", self.tail()),
                Err(error) if now > deadline => bail!("a node does not answer: {error}\n{}", self.tail()),
                _ => self.clock.sleep(POLL).await,
            }
        }
    }

    /// SIGTERM, and waits for the end.
    pub(super) async fn stop(mut self) -> Result<()> {
        kill_process(self.pid()?, Signal::TERM).context("cannot signal a node")?;
        let deadline = self.clock.monotonic() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(self.clock.monotonic() < deadline, "a node does not end:\n{}", self.tail());
            self.clock.sleep(POLL).await;
        }
        Ok(())
    }

    /// Its metrics as they are now.
    pub(super) async fn metrics(&self) -> Result<Metrics> {
        let (status, text) = self.health("/metrics").await.context("cannot ask a node for its metrics")?;
        ensure!(status == 200, "a node answers {status} when asked for its metrics");
        Ok(Metrics(text))
    }

    /// Memory that is in RAM: now, and at most so far.
    pub(super) fn memory(&self) -> Memory {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim_end_matches("kB").trim().parse::<u64>().ok());
        Memory { now: kib("VmRSS:").unwrap_or_default() << 10, peak: kib("VmHWM:").unwrap_or_default() << 10 }
    }

    /// Time that the cores have spent in it.
    pub(super) fn processor_time(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The name in parentheses may hold anything; user and system time are the 14th and 15th field, the name is the 2nd.
        let ticks = text.rsplit_once(") ").map_or(0, |(_, rest)| rest.split(' ').skip(11).take(2).flat_map(str::parse::<u64>).sum());
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
    }

    async fn health(&self, path: &str) -> io::Result<(u16, String)> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        tokio::time::timeout(ANSWERS_WITHIN, http(self.health, path)).await.map_err(late)?
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process has no id")
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

/// The text of a `/metrics` page.
pub(super) struct Metrics(String);

impl Metrics {
    /// A metric's value, by what follows `cinnabar_` on the page: with its labels, if it has some. 0 when it is not there yet.
    pub(super) fn value(&self, name: &str) -> f64 {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(PREFIX)?.strip_prefix('_')?.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
            .unwrap_or_default()
    }
}

/// Runs `cinnabar ARGUMENTS` with `contexts` as its context file, to its end.
pub(super) async fn run(arguments: &[&str], contexts: &Path) -> Result<()> {
    let mut command = command(arguments)?;
    command.env("CINNABAR_CONFIG", contexts).stdin(Stdio::null());
    let what = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    let ended = tokio::task::spawn_blocking(move || command.output()).await?;
    let Output { status, stderr, .. } = ended.with_context(|| format!("cannot run `cinnabar {what}`"))?;
    ensure!(status.success(), "`cinnabar {what}` ended with {status}: {}", String::from_utf8_lossy(&stderr).trim());
    Ok(())
}

/// This binary, with an environment of its own, so that nothing of the person who measures decides.
fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("the system does not say where this binary is")?);
    command.args(arguments).env_clear();
    Ok(command)
}

async fn http(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no HTTP answer"))?;
    Ok((status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())))
}

/// Bytes that a folder takes on its disk, by what is allocated. Files that vanish meanwhile count nothing.
pub(super) fn disk_bytes(folder: &Path) -> u64 {
    /// What `st_blocks` counts in, on every file system.
    const BLOCK: u64 = 512;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * BLOCK })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_is_found_by_its_whole_name_and_labels() {
        let page = ["# TYPE a_total counter", "a_total_more 9", "a_total{log=\"raft\"} 7", "b_seconds_sum 0.25"]
            .map(|line| format!("{PREFIX}_{line}"))
            .join("\n");
        let metrics = Metrics(page);
        assert_eq!(["a_total{log=\"raft\"}", "b_seconds_sum", "a_total", "c"].map(|name| metrics.value(name)), [7.0, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn disk_bytes_counts_what_is_allocated_in_all_folders_below() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        let before = disk_bytes(folder.path());
        fs::write(folder.path().join("below/file"), vec![7; 10_000]).unwrap();
        fs::File::open(folder.path().join("below/file")).unwrap().sync_all().unwrap();
        assert!(disk_bytes(folder.path()) >= before + 10_000);
        assert_eq!(disk_bytes(&folder.path().join("absent")), 0);
    }
}
