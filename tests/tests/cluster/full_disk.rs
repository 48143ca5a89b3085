//! A voter whose disk is full: it stops and says so, the others go on, and it comes back when there is room.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tests::process::{Fleet, Readers, Writers, binary, http, until};

use crate::ground::{configured, others, text};

/// Writes that must be acknowledged after a fault.
const WRITES: usize = 20;
/// A new leader takes writes within this time.
const FAILOVER_MAX: Duration = Duration::from_secs(3);

/// A control node whose file system can be made to take nothing more: the system refuses each of its writes to a file.
struct Confined {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Confined {
    /// Starts a control node of the fleet that is down.
    async fn start(fleet: &Fleet, node: &str) -> Self {
        // The signal that goes with the refusal is ignored, as no file system that is full sends one.
        let script = "trap '' XFSZ; exec \"$0\" control --config \"$1\"";
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, &text(&binary()), &text(&fleet.config(node))])
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
    let written = writers.end().await;
    assert!(readers.end().await > 0);
    let last = fleet.operator().set("COUNTER_0", b"the last").await.1;
    fleet.operator().live(last).await;
    let everywhere: Vec<_> = fleet.readers().into_iter().map(|(_, reader)| reader).collect();
    written.judge(&fleet.operator(), &everywhere, last, &[(0, b"the last")]).await;
}
