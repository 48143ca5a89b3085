//! Operator commands, run as a shell runs them.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{server::command, until};
use crate::canary::Heard;

/// The command line with a context file of its own.
pub struct Cli {
    folder: PathBuf,
    config: PathBuf,
    shown: bool,
    heard: Heard,
    environment: Vec<(String, String)>,
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Run {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Talk and errors.
    pub stderr: String,
}

impl Run {
    /// The result as JSON.
    ///
    /// # Panics
    /// When the command failed or printed something else.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

impl Cli {
    /// Commands that use `config` as the context file and keep their output below `folder`.
    pub fn new(folder: &Path, config: &Path) -> Self {
        Self { folder: folder.to_owned(), config: config.to_owned(), shown: false, heard: Heard::default(), environment: Vec::new() }
    }

    /// What commands find in their environment besides, from now on.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Prints each command that must end in a certain way, and what it said, as a terminal would show it.
    #[must_use]
    pub fn shown(mut self, shown: bool) -> Self {
        self.shown = shown;
        self
    }

    /// Gathers what commands print, to be searched at the end.
    #[must_use]
    pub fn heard_by(mut self, heard: Heard) -> Self {
        self.heard = heard;
        self
    }

    /// Runs a command that must succeed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ok(&self, arguments: &[&str]) -> Run {
        self.expect(0, arguments).await
    }

    /// Runs a command that must end with `code`.
    ///
    /// # Panics
    /// When it ends otherwise.
    pub async fn expect(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.pipe(b"", arguments).await;
        if self.shown {
            println!("$ cinnabar {}\n{}{}", arguments.join(" "), run.stderr, run.stdout);
        }
        assert_eq!(run.code, code, "cinnabar {}: {run:?}", arguments.join(" "));
        run
    }

    /// Runs a command that may fail, and shows nothing of it.
    pub async fn quiet(&self, arguments: &[&str]) -> Run {
        self.pipe(b"", arguments).await
    }

    /// Runs a command with `stdin` piped into it.
    pub async fn pipe(&self, stdin: &[u8], arguments: &[&str]) -> Run {
        let config = self.config.display().to_string();
        let environment = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<_> = environment.chain([("CINNABAR_CONFIG", config.as_str())]).collect();
        let what = format!("cinnabar {}", arguments.join(" "));
        let run = run(&mut command(arguments, &environment), &what, stdin, &self.folder).await;
        self.heard.add(&run.stdout);
        self.heard.add(&run.stderr);
        run
    }
}

/// Runs a program with `stdin` piped into it, and waits for its end; its output is gathered below `folder`. `what`: what it is called.
///
/// # Panics
/// When it cannot be started, or does not end in time.
pub async fn run(program: &mut Command, what: &str, stdin: &[u8], folder: &Path) -> Run {
    let outputs = tempfile::tempdir_in(folder).expect("a folder for the output");
    let path = |name: &str| outputs.path().join(name);
    let output = |name: &str| File::create(path(name)).expect("a file for the output");
    program.stdin(Stdio::piped()).stdout(output("stdout")).stderr(output("stderr"));
    let mut child = program.spawn().unwrap_or_else(|error| panic!("`{what}` does not start: {error}"));
    let mut pipe = child.stdin.take().expect("stdin is piped");
    let bytes = stdin.to_vec();
    // A program that does not read its input closes the pipe, and that is its right.
    let writer = std::thread::spawn(move || pipe.write_all(&bytes).is_ok());
    let end = format!("`{what}` to end");
    let status = until(&end, async || child.try_wait().expect("a child can be asked").ok_or_else(|| "it runs".to_owned())).await;
    let _ = writer.join();
    let read = |name: &str| String::from_utf8_lossy(&fs::read(path(name)).expect("the output can be read")).into_owned();
    Run { code: status.code().unwrap_or(-1), stdout: read("stdout"), stderr: read("stderr") }
}
