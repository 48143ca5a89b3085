//! The first five minutes: `dev` proves itself, and the command line does what its help says.

use std::{fs, path::Path};

use runtime::config::{self, ControlConfig};
use tests::process::{Cli, Run, Server, until};

/// A `dev` cluster's folder and context file.
pub(crate) struct Dev {
    folder: tempfile::TempDir,
}

impl Dev {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn cli(&self) -> Cli {
        Cli::new(self.folder.path(), Path::new(&self.path("contexts.toml")))
    }

    async fn once(&self) -> Run {
        self.anew(async || {
            let run = self.cli().pipe(b"", &["dev", "--once", "--data", &self.path("data")]).await;
            let taken = run.stderr.contains("in use");
            assert!(run.code == 0 || taken, "{run:?}");
            (!taken).then_some(run)
        })
        .await
    }

    /// Begins anew when another process took a port between its choice and its use.
    async fn anew<T>(&self, mut start: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..5 {
            match start().await {
                Some(started) => return started,
                None => fs::remove_dir_all(self.path("data")).unwrap(),
            }
        }
        panic!("no free ports on this machine")
    }

    fn cluster(&self) -> String {
        let config: ControlConfig = config::load(Path::new(&self.path("data/control.toml"))).unwrap();
        config.node.cluster.unwrap().to_string()
    }

    /// Serves until it is dropped; returns when its proof is through.
    pub(crate) async fn serve(&self) -> Server {
        let (data, context, log) = (self.path("data"), self.path("contexts.toml"), self.path("dev.log"));
        let environment = [("CINNABAR_CONFIG", context.as_str())];
        self.anew(async || {
            let mut server = Server::start("dev", &["dev", "--serve", "--data", &data], &environment, Path::new(&log), None);
            let up = until("`dev --serve` to invite", async || match (server.exited(), server.log()) {
                (_, log) if log.contains("Your turn") => Ok(true),
                (Some(_), log) if log.contains("in use") => Ok(false),
                (Some(status), log) => panic!("{status}: {log}"),
                (None, log) => Err(log),
            });
            up.await.then_some(server)
        })
        .await
    }
}

#[tokio::test]
async fn dev_once_proves_itself_and_a_second_start_finds_its_data() {
    let dev = Dev::new();
    let first = dev.once().await;
    for words in [
        &["✓ wrote GREETING v1 ", "durable at revision"][..],
        &["✓ live on 2/2 edges"],
        &["✓ web read it at edge-1, edge-2", "age"],
        &["✓ other-app refused", "not bound"],
    ] {
        let said = first.stdout.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(said, "{words:?} is missing: {first:?}");
    }
    assert!(first.stdout.starts_with("cinnabar dev   1 voter, 2 edges, mTLS on"), "{first:?}");
    assert!(!format!("{first:?}").contains("cbo_"), "no token is printed");

    let cluster = dev.cluster();
    let second = dev.once().await;
    assert!(second.stdout.contains("✓ wrote GREETING v2 "), "{second:?}");
    assert!(second.stdout.contains("✓ live on 2/2 edges"), "{second:?}");
    assert_eq!(dev.cluster(), cluster);
    assert!(revision(&second) > revision(&first), "{first:?} {second:?}");
}

fn revision(run: &Run) -> u64 {
    let (_, after) = run.stdout.split_once("durable at revision ").unwrap();
    after.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn cli_writes_binds_and_reads_at_both_edges() {
    let dev = Dev::new();
    let server = dev.serve().await;
    let cli = dev.cli();

    let created = cli.pipe(b"s3cret\n", &["secret", "create", "default/API_KEY", "--scope", "workers", "--wait"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    assert!(created.stderr.contains("live on 2/2 edges"), "{created:?}");
    assert!(!format!("{created:?}").contains("s3cret"), "{created:?}");
    let bound = cli.ok(&["bind", "worker/web", "API_KEY=default/API_KEY"]).await;
    assert!(bound.stdout.contains("worker/web reads default/API_KEY as API_KEY"), "{bound:?}");
    let position = cli.ok(&["status", "--format", "json"]).await.json()["position"].as_str().unwrap().to_owned();
    for edge in ["edge-1", "edge-2"] {
        let found = cli.ok(&["get", "worker/web", "API_KEY", "--edge", edge, "--min-position", &position]).await;
        assert_eq!(found.stdout, "s3cret\n", "the line break that was piped in is stripped, the one of the output is the terminal's");
        assert!(found.stderr.contains("version 1") && found.stderr.contains(edge), "{found:?}");
        assert_eq!(cli.ok(&["get", "worker/web", "API_KEY", "--raw", "--edge", edge]).await.stdout, "s3cret");
        let found = cli.ok(&["--format", "json", "get", "worker/web", "API_KEY", "--edge", edge]).await.json();
        assert_eq!((found["value"].as_str(), found["version"].as_u64(), found["edge"].as_str()), (Some("s3cret"), Some(1), Some(edge)));
        assert!(found["age_ms"].as_u64().is_some_and(|age| age < 60_000), "{found}");
    }

    versions(&dev, &cli).await;
    shown(&cli).await;
    refusals(&dev, &cli).await;

    let status = server.stop().await;
    assert_eq!(status.code(), Some(0));
    let down = cli.expect(6, &["--timeout", "2s", "status"]).await;
    assert!(down.stderr.contains("unavailable"), "{down:?}");
    assert_eq!(cli.expect(6, &["--timeout", "2s", "get", "worker/web", "API_KEY"]).await.stdout, "");
}

async fn newest(cli: &Cli, edge: &str) -> String {
    let position = cli.ok(&["status", "--format", "json"]).await.json()["position"].as_str().unwrap().to_owned();
    cli.ok(&["get", "worker/web", "API_KEY", "--raw", "--edge", edge, "--min-position", &position]).await.stdout
}

/// A new value, going back, a copy, an edit, the end.
async fn versions(dev: &Dev, cli: &Cli) {
    let file = dev.path("value");
    fs::write(&file, "from a file\n").unwrap();
    cli.ok(&["secret", "set", "default/API_KEY", "--file", &file, "--cas", "1", "--wait"]).await;
    assert_eq!(newest(cli, "edge-1").await, "from a file");
    cli.expect(5, &["secret", "set", "default/API_KEY", "--file", &file, "--cas", "1"]).await;
    let rows = cli.ok(&["secret", "versions", "default/API_KEY", "--format", "json"]).await.json();
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| (row["version"].as_u64().unwrap(), row["pointers"].to_string())).collect();
    assert_eq!(rows, [(2, r#"["current"]"#.to_owned()), (1, r#"["previous"]"#.to_owned())]);

    let back = cli.ok(&["secret", "rollback", "default/API_KEY", "1", "--format", "json"]).await.json();
    assert_eq!(back["version"], 1);
    assert_eq!(newest(cli, "edge-2").await, "s3cret");
    cli.expect(3, &["secret", "rollback", "default/API_KEY", "7"]).await;

    let copy = cli.ok(&["secret", "copy", "default/API_KEY", "default/COPY", "--format", "json"]).await.json();
    assert_eq!((copy["version"].as_u64(), copy["scopes"].to_string()), (Some(1), r#"["workers"]"#.to_owned()), "{copy}");
    cli.expect(5, &["secret", "copy", "default/API_KEY", "default/COPY"]).await;
    let edited = cli.ok(&["secret", "edit", "default/COPY", "--comment", "two words", "--format", "json"]).await.json();
    assert_eq!((edited["comment"].as_str(), edited["version"].as_u64()), (Some("two words"), Some(1)));
    let id = edited["id"].as_str().unwrap();
    assert_eq!(cli.ok(&["secret", "show", id, "--format", "json"]).await.json()["name"], "COPY", "an id stands where a name does");

    cli.expect(2, &["secret", "delete", "default/COPY"]).await;
    cli.ok(&["secret", "delete", "default/COPY", "--yes"]).await;
    cli.expect(3, &["secret", "show", "default/COPY"]).await;
    let bound = cli.expect(5, &["secret", "delete", "default/API_KEY", "--yes"]).await;
    assert!(bound.stderr.contains("bound"), "{bound:?}");
    assert_eq!(newest(cli, "edge-1").await, "s3cret");
}

/// What an operator looks at.
async fn shown(cli: &Cli) {
    let status = cli.ok(&["status", "--format", "json"]).await.json();
    let edges = status["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 2, "{status}");
    assert!(edges.iter().all(|edge| edge["connected"] == true), "{status}");
    assert!(status["unlocked"] == true && status["node"] == "control-1", "{status}");
    let table = cli.ok(&["status"]).await.stdout;
    assert!(table.contains("edge-1") && table.contains("edge-2"), "{table}");
    let me = cli.ok(&["whoami", "--format", "json"]).await.json();
    assert_eq!(me["roles"].to_string(), r#"["super-administrator"]"#);
    let quota = cli.ok(&["quota", "show", "--format", "json"]).await.json();
    assert_eq!((quota["secrets"].as_u64(), quota["secrets_max"].as_u64(), quota["stores_max"].as_u64()), (Some(2), Some(100), Some(10)));
    let list = cli.ok(&["secret", "list", "default", "--format", "json"]).await.json();
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    let bindings = cli.ok(&["binding", "list", "worker/web", "--format", "json"]).await.json();
    assert_eq!(bindings.as_array().unwrap().len(), 2, "{bindings}");
}

/// Exit codes, each for its reason, and errors that say what to do next.
async fn refusals(dev: &Dev, cli: &Cli) {
    // 2: usage. A value has no place among the arguments.
    for arguments in [
        &["secret", "create", "default/X", "s3cret"][..],
        &["secret", "create", "default/X", "--value", "s3cret"],
        &["secret", "set", "default/API_KEY", "s3cret"],
        &["secret", "create", "nostore"],
        &["secret", "create", "default/EMPTY"],
        &["get", "worker/web", "API_KEY", "--edge", "edge-9"],
        &["--context", "nosuch", "status"],
        &["bind", "nokind/web", "API_KEY"],
        &["consumer", "delete", "worker/web"],
        &["store", "delete", "default"],
    ] {
        let run = cli.expect(2, arguments).await;
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{run:?}");
    }
    let named = cli.pipe(b"v", &["secret", "create", "default/no.dots"]).await;
    assert!(named.code == 2 && named.stderr.contains("secrets[0].name"), "{named:?}");
    // 3: not found, 5: conflict, 4: refused; each with the kind, and the label that finds it in the log.
    let missing = cli.expect(3, &["secret", "show", "default/NOPE"]).await;
    assert!(missing.stderr.contains("[not_found, ") && missing.stderr.contains("request "), "{missing:?}");
    assert_eq!(cli.pipe(b"v", &["secret", "create", "nostore/X"]).await.code, 3);
    let taken = cli.pipe(b"v", &["secret", "create", "default/API_KEY"]).await;
    assert!(taken.code == 5 && taken.stderr.contains("[already_exists, "), "{taken:?}");
    let unbound = cli.expect(4, &["get", "worker/other-app", "API_KEY"]).await;
    assert!(unbound.stderr.contains("[not_bound, ") && unbound.stderr.contains("cinnabar bind"), "{unbound:?}");
    // 6: try again; 7: the time was up.
    let ahead = cli.expect(6, &["get", "worker/web", "API_KEY", "--min-position", "1.999999", "--timeout", "1s"]).await;
    assert!(ahead.stderr.contains("[not_synced, "), "{ahead:?}");
    let (context, data) = (dev.path("contexts.toml"), dev.path("data"));
    assert!(fs::read_to_string(context).unwrap().contains(&format!("{data}/edge-1.sock")), "the context names the sockets");
}
