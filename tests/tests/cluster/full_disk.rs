//! Nodes whose disk is full, or takes no writes at all: they say so, the others go on, and they come back when there is room.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tests::process::{Fleet, Readers, Role, Writers, binary, http, until};

use crate::ground::{configured, judge, metric, others, text};

/// Writes that must be acknowledged after a fault.
const WRITES: usize = 20;
/// A new leader takes writes within this time.
const FAILOVER_MAX: Duration = Duration::from_secs(3);

/// A node whose file system can be made to take nothing more: the system refuses each of its writes to a file.
struct Confined {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Confined {
    /// Starts a node of the fleet that is down.
    async fn start(fleet: &Fleet, node: &str) -> Self {
        // The signal that goes with the refusal is ignored, as no file system that is full sends one.
        let script = "trap '' XFSZ; exec \"$0\" \"$1\" --config \"$2\"";
        let role = match fleet.role(node) {
            Role::Control => "control",
            Role::Edge => "edge",
        };
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, &text(&binary()), role, &text(&fleet.config(node))])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Not into a file: that would be refused too.
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        fleet.net.name(child.id(), node);
        let mut stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let health = configured(fleet, node, "health").parse().unwrap();
        until(&format!("{node} to be ready"), async || match http(health, "/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        Self { child, said: Some(said) }
    }

    /// From now on there is no room.
    fn fill(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        prlimit(Some(pid), Resource::Fsize, Rlimit { current: Some(0), maximum: None }).unwrap();
    }

    /// From now on there is room again.
    fn clear(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        prlimit(Some(pid), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    }

    /// How it ended, and all that it said.
    async fn ended(mut self) -> (ExitStatus, String) {
        let ended = until("a voter without room to end", async || self.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())).await;
        (ended, self.said.take().unwrap().join().unwrap())
    }
}

impl Drop for Confined {
    #[expect(clippy::print_stderr, reason = "a test that fails shows what its processes said")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Some(said) = self.said.take()
        {
            eprintln!("---- what the voter without room said ----\n{}\n----", said.join().unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_with_a_full_disk_stops_and_says_so_and_returns_when_there_is_room() {
    let mut fleet = Fleet::start(3, 1).await;
    let mut writers = Writers::start((0..2).map(|_| fleet.operator()).collect()).await;
    fleet.operator().live(writers.bound()).await;
    let readers = Readers::start(fleet.readers());
    for leads in [false, true] {
        let leader = fleet.leader().await;
        let node = others(&fleet, &leader).remove(0);
        fleet.stop(&node).await;
        let confined = Confined::start(&fleet, &node).await;
        if leads {
            fleet.cli.ok(&["cluster", "transfer", &node]).await;
        }
        writers.go_on(WRITES).await;
        writers.longest_silence();
        confined.fill();
        writers.go_on(WRITES).await;
        let (ended, said) = confined.ended().await;
        assert!(!ended.success(), "{node}: {ended}");
        // Its last words name the file, what the disk said, and what to do. The audit log may run out of room before the Raft log does.
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("raft/log/") || last.contains("/audit/"), "no file is named: {last}");
        for part in ["File too large", "restart the node when its cause is gone"] {
            assert!(last.contains(part), "{part} is not said: {last}");
        }
        writers.go_on(WRITES).await;
        let silence = writers.longest_silence();
        assert!(silence <= FAILOVER_MAX, "no write for {silence:?} after {node} had no room");
        fleet.start_node(&node).await;
    }
    writers.go_on(WRITES).await;
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_with_a_full_disk_serves_what_it_has_and_follows_again_when_there_is_room() {
    let mut fleet = Fleet::start(1, 1).await;
    let operator = fleet.operator();
    let bound = operator.create_bound("COUNTER_0", b"before").await;
    operator.live(bound).await;
    fleet.stop("edge-1").await;
    let mut confined = Confined::start(&fleet, "edge-1").await;
    let readers = Readers::start(fleet.readers());
    confined.fill();
    let position = operator.set("COUNTER_0", b"after").await.1;
    // What it cannot keep it does not show, and no receipt counts it.
    let health = configured(&fleet, "edge-1", "health").parse().unwrap();
    let says = async |line: &str| {
        until(&format!("the edge to say: {line}"), async || match http(health, "/readyz") {
            Ok((200, said)) if said.contains(line) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    };
    says("[!] following ready, but its disk takes nothing").await;
    until("the edge to show it", async || match metric(&fleet, "edge-1", "cinnabar_edge_keeping") {
        Some(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let reader = fleet.reader("edge-1");
    assert_eq!(reader.get("COUNTER_0").await.unwrap().value, b"before");
    assert!(reader.get_at("COUNTER_0", position).await.is_err());
    assert!(confined.child.try_wait().unwrap().is_none(), "an edge serves on without room");

    confined.clear();
    operator.live(position).await;
    assert_eq!(reader.get("COUNTER_0").await.unwrap().value, b"after");
    says("[+] following ready").await;
    assert!(readers.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_on_a_disk_that_takes_no_writes_refuses_to_start_and_names_it() {
    let mut fleet = Fleet::start(1, 1).await;
    for node in ["edge-1", "control-1"] {
        fleet.stop(node).await;
        let data = text(&fleet.data(node));
        let role = if fleet.role(node) == Role::Control { "control" } else { "edge" };
        // In a namespace of its own the folder is mounted once more, for reading only.
        let script = "mount --bind \"$3\" \"$3\" && mount -o remount,bind,ro \"$3\" && exec \"$0\" \"$1\" --config \"$2\"";
        let run = Command::new("unshare")
            .args(["--map-root-user", "--mount", "/bin/sh", "-c", script])
            .args([&text(&binary()), role, &text(&fleet.config(node)), &data])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains(&data) && last.contains("Read-only file system"), "{last}");
        assert!(!said.contains("panicked"), "{said}");
        fleet.start_node(node).await;
    }
}
