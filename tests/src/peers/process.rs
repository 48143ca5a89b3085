//! A server of another system: started from where the script has put it, ended with its handle.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running server. Dropping it kills it.
pub(super) struct Peer {
    child: Child,
    log: PathBuf,
}

impl Peer {
    /// Starts `program` of the peers' folder; what it prints goes to `log`.
    pub(super) fn start(programs: &Path, program: &str, arguments: &[String], log: &Path) -> Self {
        let output = File::create(log).expect("a log");
        let mut command = command(programs, program);
        command.args(arguments).stdout(output.try_clone().expect("a second handle")).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        Self { child, log: log.to_owned() }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with what it printed, when it has ended.
    pub(super) fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be asked") {
            panic!("a server ended with {status}:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the peers' folder, with nothing of this environment.
fn command(programs: &Path, program: &str) -> Command {
    let found = ["usr/bin", "usr/sbin"].map(|folder| programs.join(folder).join(program));
    let found = found.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("there is no {program} in {}", programs.display()));
    // Its libraries may have come with it.
    let libraries: Vec<_> = fs::read_dir(programs.join("usr/lib")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let libraries = std::env::join_paths(libraries).expect("folders without a colon");
    let mut command = Command::new(found);
    command.env_clear().env("LD_LIBRARY_PATH", libraries).stdin(Stdio::null());
    command
}

/// The first line of what a program says about its version.
pub(super) fn version(programs: &Path, program: &str) -> String {
    let output = command(programs, program).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

/// Time that the cores have spent in these processes.
pub(super) fn processor_time(pids: &[u32]) -> Duration {
    let ticks: u64 = pids.iter().map(|pid| ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}

/// User and system time: the 14th and 15th field. The name, which is the 2nd and stands in parentheses, may hold anything.
fn ticks(stat: &str) -> u64 {
    stat.rsplit_once(") ").map_or(0, |(_, rest)| rest.split(' ').skip(11).take(2).flat_map(str::parse::<u64>).sum())
}

/// Memory of these processes that is in RAM, in bytes.
pub(super) fn resident_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or_default() << 10
    };
    pids.iter().map(of).sum()
}

/// Bytes that a folder takes on its disk, by what is allocated.
pub(super) fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    /// What `st_blocks` counts in, on every file system.
    const BLOCK: u64 = 512;
    let sizes = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * BLOCK })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_a_name_with_blanks_and_parentheses() {
        assert_eq!(ticks("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0"), 123);
        assert_eq!(ticks(""), 0);
    }
}
