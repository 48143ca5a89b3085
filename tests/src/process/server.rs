//! One running process: its log, its readiness, its end.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{binary, until};

/// Lines of a log that a failing test prints.
const TAIL_LINES: usize = 60;
/// How long a health port on this machine may take for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A process of `cinnabar`. Dropping it kills it.
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    health: Option<SocketAddr>,
}

impl Server {
    /// Starts `cinnabar ARGUMENTS`. What it prints to both outputs is appended to `log`.
    pub fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)], log: &Path, health: Option<SocketAddr>) -> Self {
        let output = OpenOptions::new().create(true).append(true).open(log).expect("the log can be written");
        let child = command(arguments, environment)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the binary starts");
        Self { name: name.to_owned(), child, log: log.to_owned(), health }
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    /// When it ends, or does not become ready.
    pub(crate) async fn becomes_ready(&mut self) {
        let health = self.health.expect("a server has a health port");
        let name = self.name.clone();
        until(&format!("{name} to be ready"), async || {
            let answer = http(health, "/readyz");
            // Asked after the answer: it came from this process only if this process lived.
            if let Some(status) = self.exited() {
                panic!("{name} ended with {status}:\n{}", self.log());
            }
            match answer {
                Ok((200, _)) => Ok(()),
                other => Err(format!("/readyz answers {other:?}")),
            }
        })
        .await;
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it is called here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// All that it has logged, under this name.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the log can be read")).into_owned()
    }

    /// Status and body of a path of its health port; an error when nobody answers there.
    pub fn health(&self, path: &str) -> std::io::Result<(u16, String)> {
        http(self.health.expect("a server has a health port"), path)
    }

    /// The same, when that comes in time.
    ///
    /// # Errors
    /// When it does not.
    pub fn health_within(&self, path: &str, time: Duration) -> std::io::Result<(u16, String)> {
        http_within(self.health.ok_or(std::io::ErrorKind::NotConnected)?, path, time)
    }

    /// SIGCONT, for one that may be frozen or gone.
    pub(crate) fn wakes(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Sends SIGTERM and returns at once.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid is not 0");
        kill_process(pid, Signal::TERM).expect("the process can be signalled");
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        until(&format!("{name} to end"), async || self.exited().ok_or_else(|| "it runs".to_owned())).await
    }

    /// Sends SIGTERM, and returns how it ended.
    pub async fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("TRACE") && !line.contains("DEBUG")).collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("---- the end of what {} printed ----\n{tail}\n----", self.name);
        }
    }
}

/// The binary with an environment of its own, so that nothing of the person who runs the tests decides.
pub(super) fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env_clear().env("CINNABAR_ANY_PORT", "1").envs(environment.iter().copied());
    command
}

/// A request of plain HTTP/1: status and body.
///
/// # Errors
/// When nobody answers.
pub fn http(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    http_within(address, path, ANSWERS_WITHIN)
}

fn http_within(address: SocketAddr, path: &str, time: Duration) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, time)?;
    stream.set_read_timeout(Some(time))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {answer:?}")))?;
    Ok((status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())))
}
