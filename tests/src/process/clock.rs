//! A machine's wall clock that a test sets, for one process.
//!
//! A small library is built with the system's C compiler and loaded before the C library, from which the standard library takes the
//! wall clock. Nothing in the product knows of it. Monotonic clocks are not touched, as they are not when a real clock is set.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

/// What is built.
const SOURCE: &str = include_str!("clock.c");

/// The wall clock of the processes that are started with its [`environment`](Self::environment).
pub struct WallClock {
    library: PathBuf,
    path: PathBuf,
    ahead: File,
}

impl WallClock {
    /// A clock that is right, kept in `folder` under `name`.
    ///
    /// # Panics
    /// When the C compiler refuses.
    pub fn new(folder: &Path, name: &str) -> Self {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        if !library.exists() {
            fs::write(&source, SOURCE).expect("the source can be written");
            let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output().expect("cc runs");
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        }
        let path = folder.join(format!("{name}.clock"));
        fs::write(&path, 0_i64.to_ne_bytes()).expect("the clock can be written");
        let ahead = OpenOptions::new().write(true).open(&path).expect("the clock can be set");
        Self { library, path, ahead }
    }

    /// What a process's environment must hold to go by this clock.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("TEST_CLOCK", self.path.display().to_string())]
    }

    /// Sets it so many seconds ahead of the machine's; negative: behind. Running processes see it at once.
    pub fn set_ahead(&self, seconds: i64) {
        self.ahead.write_all_at(&(seconds * 1000).to_ne_bytes(), 0).expect("the clock can be set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time that a process sees, in seconds since 1970.
    fn seen(clock: &WallClock) -> i64 {
        let run = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap();
        String::from_utf8(run.stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn clock_that_is_set_is_what_a_process_sees() {
        let folder = tempfile::TempDir::new().unwrap();
        let clock = WallClock::new(folder.path(), "date");
        let now = seen(&clock);
        clock.set_ahead(3600);
        assert!((now + 3600..now + 3660).contains(&seen(&clock)));
        clock.set_ahead(-3600);
        assert!((now - 3600..now - 3540).contains(&seen(&clock)));
    }
}
