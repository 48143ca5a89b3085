//! The memory of a process, while it lives: what a core dump of it would hold.
//!
//! The servers forbid core dumps and debuggers (`runtime::process::harden`), so their memory is read as the kernel shows it, in
//! `/proc/PID/mem`. The kernel shows it to root, and in a container only to one with `CAP_SYS_PTRACE`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    thread,
    time::Duration,
};

use runtime::RealClock;
use seams::Clock;

use super::{Search, Sighting};

/// What it takes to look into a process that forbids it.
pub const NEEDED: &str = "to read the memory and the environment of a hardened process takes root, and in a container CAP_SYS_PTRACE \
                          (docker run --cap-add SYS_PTRACE)";
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The memory of one process.
#[derive(Debug)]
pub struct Memory {
    pid: u32,
    file: File,
}

/// A part of it that can be read and was written, or belongs to no file.
struct Mapping {
    start: u64,
    end: u64,
    /// As the kernel describes it.
    line: String,
}

impl Memory {
    /// The memory of a process.
    ///
    /// # Errors
    /// When the kernel refuses: with the capability that is missing.
    pub fn of(pid: u32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/mem")).map_err(|error| io::Error::new(error.kind(), format!("{error}: {NEEDED}")))?;
        Ok(Self { pid, file })
    }

    /// What is found there now, and how many bytes there were. The program's own code and constants are left out.
    pub fn search(&mut self, search: &Search, name: &str) -> (u64, BTreeSet<Sighting>) {
        let (mut bytes, mut found) = (0, BTreeSet::new());
        for mapping in self.mappings() {
            if self.file.seek(SeekFrom::Start(mapping.start)).is_err() {
                continue;
            }
            let mut part = Part { file: &mut self.file, left: mapping.end - mapping.start };
            // What was unmapped meanwhile can no longer be read, nor dumped.
            if let Ok((read, sightings)) = search.stream(&format!("the memory of {name} ({})", mapping.line), &mut part) {
                bytes += read;
                found.extend(sightings);
            }
        }
        (bytes, found)
    }

    /// What stays there: it looks until nothing is found, or the process has had that long to free what it does not use.
    pub fn stays(&mut self, search: &Search, name: &str, freed_within: Duration) -> BTreeSet<Sighting> {
        let clock = RealClock::new();
        let end = clock.monotonic() + freed_within;
        loop {
            let (_, found) = self.search(search, name);
            if found.is_empty() || clock.monotonic() > end {
                return found;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn mappings(&self) -> Vec<Mapping> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap_or_default();
        maps.lines().filter_map(mapping).collect()
    }
}

/// A line such as `7f2e54000000-7f2e54134000 rw-p 00000000 00:00 0 [heap]`.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (range, rights, inode) = (words.next()?, words.next()?, words.nth(2)?);
    let kernels = words.next().is_some_and(|name| name.starts_with("[v"));
    if kernels || !rights.starts_with('r') || !rights.contains('w') && inode != "0" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(Mapping { start: address(start)?, end: address(end)?, line: line.split_whitespace().collect::<Vec<_>>().join(" ") })
}

/// So many bytes of a file, from where it stands.
struct Part<'a> {
    file: &'a mut File,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut into[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Mark, *};

    #[test]
    fn mapping_of_code_and_of_the_kernel_is_left_out() {
        let of = |line| mapping(line).map(|mapping| (mapping.start, mapping.end));
        assert_eq!(of("7f2e54000000-7f2e54134000 rw-p 00000000 00:00 0 "), Some((0x7f2e_5400_0000, 0x7f2e_5413_4000)));
        assert_eq!(of("1000-2000 rw-p 00000000 00:00 0 [heap]"), Some((0x1000, 0x2000)));
        assert_eq!(of("1000-2000 r--p 00000000 00:00 0 "), Some((0x1000, 0x2000)));
        assert_eq!(of("1000-2000 rw-p 00000000 08:01 77 /usr/bin/program"), Some((0x1000, 0x2000)));
        assert_eq!(of("1000-2000 r-xp 00000000 08:01 77 /usr/bin/program"), None);
        assert_eq!(of("1000-2000 ---p 00000000 00:00 0 "), None);
        assert_eq!(of("1000-2000 r-xp 00000000 00:00 0 [vdso]"), None);
    }

    #[test]
    fn memory_of_this_process_holds_what_it_holds() {
        let value = super::super::letters(40);
        let search = Search::new(&[&Mark::of("value", value.as_bytes())]);
        let (bytes, found) = Memory::of(std::process::id()).unwrap().search(&search, "this process");
        assert!(bytes > 1 << 20, "{bytes}");
        assert!(found.iter().any(|sighting| sighting.form == "raw" && sighting.place.contains(&value)), "{found:?}");
    }
}
