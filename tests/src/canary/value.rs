//! The canary of one cluster: a value that is written when the cluster begins to take writes, and looked for when it ends.
//!
//! It has an account of its own, so that it is in no test's way, and it goes in and out by the command line: through a pipe, over TLS,
//! over an edge's socket. At the end it must be in nothing that was printed or logged, on no page of a health port, in no argument and
//! environment of a node, in no file, and in no node's memory: by then whoever wrote or read it has hung up.
//!
//! **Left out**: without root the kernel shows neither memory nor environment of a hardened process, and the end of a test goes
//! without them. The tests that are about them (`tests/tests/process/canary.rs`) fail there, and name the capability.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime::OsEntropy;
use seams::Entropy;

use super::{Mark, Memory, Search, Sighting, places};
use crate::process::{Cli, Server, until};

/// Its account. No test makes one of this name.
const ACCOUNT: &str = "canary";
/// Who reads it.
const READER: &str = "worker/canary";
/// The name under which it is written and bound.
const NAME: &str = "CANARY";
/// How long a process may take to free the buffers of connections that were closed, on a busy machine.
const FREED_WITHIN: Duration = Duration::from_secs(10);
/// A node that is asked at the end answers at once, or is in no state to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Random letters and digits.
pub fn letters(count: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = vec![0; count];
    OsEntropy.fill(&mut bytes);
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// All that was printed by commands.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    /// Adds what was printed.
    pub fn add(&self, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }
}

/// The marked value of one cluster.
pub struct Canary {
    value: String,
    search: Search,
    heard: Heard,
    folder: PathBuf,
    contexts: PathBuf,
    /// The reader's token, once the value is written.
    token: Option<PathBuf>,
}

impl Canary {
    /// A value to be written by who the context in `contexts` names. What it needs is kept in `folder`, which is made.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn new(folder: &Path, contexts: &Path) -> Self {
        fs::create_dir(folder).expect("a folder");
        let value = letters(40);
        let search = Search::new(&[&Mark::of("the canary", value.as_bytes())]);
        Self { value, search, heard: Heard::default(), folder: folder.to_owned(), contexts: contexts.to_owned(), token: None }
    }

    /// Where what commands print is gathered.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// The command line that it uses.
    pub fn cli(&self) -> Cli {
        Cli::new(&self.folder, &self.contexts).heard_by(self.heard())
    }

    /// Whether it was written.
    pub fn is_written(&self) -> bool {
        self.token.is_some()
    }

    /// The value, to be planted where it must be found.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Writes and binds it.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn write(&mut self) {
        let cli = self.cli();
        let run = async |stdin: &str, arguments: &[&str]| {
            let run = cli.pipe(stdin.as_bytes(), &[&["--account", ACCOUNT], arguments].concat()).await;
            assert_eq!(run.code, 0, "cinnabar {}: {run:?}", arguments.join(" "));
            run
        };
        run("", &["account", "create", ACCOUNT]).await;
        run("", &["store", "create", "default"]).await;
        run(&self.value, &["secret", "create", &format!("default/{NAME}"), "--scope", "workers"]).await;
        run("", &["consumer", "create", READER]).await;
        run("", &["bind", READER, &format!("{NAME}=default/{NAME}")]).await;
        let token = run("", &["consumer", "token", "create", READER, "--format", "json"]).await.json();
        let file = self.folder.join("token");
        let mut options = fs::OpenOptions::new();
        let mut opened = options.write(true).create_new(true).mode(0o600).open(&file).expect("a file for the token");
        std::io::Write::write_all(&mut opened, token["token"].as_str().expect("a token").as_bytes()).expect("a token is written");
        self.token = Some(file);
    }

    /// Reads it at an edge's socket.
    ///
    /// # Panics
    /// When the edge does not come to know it, or says something else.
    pub async fn read(&self, socket: &Path) {
        let Some(token) = &self.token else { return };
        // What this prints is the value, and is not gathered.
        let cli = Cli::new(&self.folder, &self.contexts);
        let (token, socket) = (token.display().to_string(), socket.display().to_string());
        let get = ["--account", ACCOUNT, "get", READER, NAME, "--edge", &socket, "--token-file", &token, "--raw"];
        until("an edge to know the canary", async || {
            let run = cli.quiet(&get).await;
            if run.code == 0 && run.stdout == self.value { Ok(()) } else { Err(format!("{}: {}", run.code, run.stderr)) }
        })
        .await;
    }

    /// Looks for it at the nodes that still run, which end here, and in all files below `folder`.
    ///
    /// # Panics
    /// When it is found.
    pub fn ends(&self, nodes: impl IntoIterator<Item = Server>, folder: &Path) {
        let found = self.finds(nodes.into_iter().collect(), folder, FREED_WITHIN);
        assert!(found.is_empty(), "P2: a secret's value was left behind:{}", places(&found));
    }

    /// What is found there; nodes get so long to free what their callers left.
    ///
    /// # Panics
    /// When a file cannot be read.
    pub fn finds(&self, nodes: Vec<Server>, folder: &Path, freed_within: Duration) -> BTreeSet<Sighting> {
        let mut found = BTreeSet::new();
        if !self.is_written() {
            return found;
        }
        for node in &nodes {
            // One that a test has frozen goes on, to answer and to close what its callers have closed.
            node.wakes();
            found.extend(node_shows(node, &self.search));
            if let Ok(mut memory) = Memory::of(node.pid()) {
                found.extend(memory.stays(&self.search, node.name(), freed_within));
            }
        }
        // Files are searched when nobody changes them any more.
        nodes.into_iter().for_each(Server::kill);
        for text in self.heard.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            found.extend(self.search.bytes("what a command printed", text.as_bytes()));
        }
        let (files, sightings) = self.search.folder(folder, &[]);
        assert!(files > 0, "no file was searched");
        found.extend(sightings);
        found
    }
}

/// Pages, arguments and environment.
fn node_shows(node: &Server, search: &Search) -> BTreeSet<Sighting> {
    let mut found = BTreeSet::new();
    for path in ["/metrics", "/readyz", "/livez"] {
        // One that is ending, or out of descriptors, says nothing.
        let Ok((_, page)) = node.health_within(path, ANSWERS_WITHIN) else { break };
        found.extend(search.bytes(&format!("{path} of {}", node.name()), page.as_bytes()));
    }
    for file in ["cmdline", "environ"] {
        if let Ok(bytes) = fs::read(format!("/proc/{}/{file}", node.pid())) {
            found.extend(search.bytes(&format!("{file} of {}", node.name()), &bytes));
        }
    }
    found
}
