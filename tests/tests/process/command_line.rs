//! The command line against a live `dev` cluster: many secrets at once, who reads them, another token, wrangler's commands, REST.

use std::{fs, path::Path};

use tests::{
    clients::{Programs, Wrangler},
    process::{Cli, binary},
};

use crate::first_minutes::Dev;

/// A value that no output may hold.
const VALUE: &str = "s3cret-of-a-file";

#[tokio::test]
async fn import_writes_all_or_none_and_usage_tells_who_reads() {
    let dev = Dev::new();
    let _server = dev.serve().await;
    let cli = dev.cli();

    let vars = dev.path(".dev.vars");
    fs::write(&vars, format!("# ours\nAPI_KEY={VALUE}\nexport PEM=\"-----BEGIN-----\n{VALUE}\n-----END-----\"\n")).unwrap();
    let plan = cli.ok(&["secret", "import", "default", &vars, "--dry-run", "--scope", "workers,ai-gateway"]).await;
    assert!(plan.stdout.contains("API_KEY") && plan.stdout.contains("create") && !format!("{plan:?}").contains(VALUE), "{plan:?}");
    cli.expect(3, &["secret", "show", "default/API_KEY"]).await;
    let done = cli.ok(&["--format", "json", "secret", "import", "default", &vars, "--scope", "workers,ai-gateway", "--wait"]).await;
    assert!(!format!("{done:?}").contains(VALUE), "{done:?}");
    let rows = done.json();
    assert_eq!(
        (rows[0]["name"].as_str(), rows[0]["action"].as_str(), rows[0]["version"].as_u64()),
        (Some("API_KEY"), Some("create"), Some(1))
    );
    assert_eq!(rows[1]["scopes"].to_string(), r#"["ai_gateway","workers"]"#);
    cli.ok(&["bind", "worker/web", "PEM=default/PEM", "--wait"]).await;
    let found = cli.ok(&["get", "worker/web", "PEM", "--raw"]).await.stdout;
    assert_eq!(found, format!("-----BEGIN-----\n{VALUE}\n-----END-----"), "a value over several lines arrives as it was written");

    none_when_one_is_refused(&dev, &cli).await;
    update(&cli).await;
    usage(&cli).await;
    login(&dev, &cli).await;
}

/// A file with one that exists, or one line in doubt, changes nothing.
async fn none_when_one_is_refused(dev: &Dev, cli: &Cli) {
    let file = dev.path("more.json");
    fs::write(&file, format!(r#"{{"FRESH": "{VALUE}", "API_KEY": "{VALUE}"}}"#)).unwrap();
    let taken = cli.expect(5, &["secret", "import", "default", &file]).await;
    assert!(taken.stderr.contains("nothing was written") && taken.stderr.contains("--update"), "{taken:?}");
    cli.expect(3, &["secret", "show", "default/FRESH"]).await;
    let plan = cli.expect(5, &["secret", "import", "default", &file, "--dry-run"]).await;
    assert!(plan.stdout.contains("exists") && plan.stderr.contains("--update"), "{plan:?}");
    fs::write(&file, format!("FRESH={VALUE}\nOTHER={VALUE}#{VALUE}\n")).unwrap();
    let doubt = cli.expect(2, &["secret", "import", "default", &file]).await;
    assert!(doubt.stderr.contains("more.json:2: OTHER: ") && !format!("{doubt:?}").contains(VALUE), "{doubt:?}");
    cli.expect(3, &["secret", "show", "default/FRESH"]).await;
    cli.expect(2, &["secret", "import", "default"]).await;
    cli.expect(3, &["secret", "import", "nostore", &dev.path(".dev.vars")]).await;
}

/// New ones first, then new values for those that exist; their scopes stay.
async fn update(cli: &Cli) {
    let array = format!(
        r#"[{{"name": "FRESH", "value": "{VALUE}", "scopes": ["containers"], "comment": "of a file"}}, {{"name": "API_KEY", "value": "{VALUE}2"}}]"#
    );
    let run = cli.pipe(array.as_bytes(), &["--format", "json", "secret", "import", "default", "-", "--update", "--wait"]).await;
    assert!(!format!("{run:?}").contains(VALUE), "{run:?}");
    let rows = run.json();
    assert_eq!((rows[0]["action"].as_str(), rows[0]["comment"].as_str()), (Some("create"), Some("of a file")), "{rows}");
    assert_eq!((rows[1]["action"].as_str(), rows[1]["version"].as_u64()), (Some("set"), Some(2)), "{rows}");
    assert_eq!(rows[1]["scopes"].to_string(), r#"["ai_gateway","workers"]"#);
    cli.ok(&["bind", "worker/web", "API_KEY", "--wait"]).await;
    assert_eq!(cli.ok(&["get", "worker/web", "API_KEY", "--raw"]).await.stdout, format!("{VALUE}2"));
}

async fn usage(cli: &Cli) {
    cli.ok(&["bind", "worker/web", "--store", "default"]).await;
    let rows = cli.ok(&["--format", "json", "secret", "usage", "default/FRESH"]).await.json();
    let expected = serde_json::json!([{
        "consumer": "worker/web", "binding": "default", "secret": "FRESH", "via": "store binding", "allowed": false, "missing_scope": "workers"
    }]);
    assert_eq!(rows, expected);
    let table = cli.ok(&["secret", "usage", "default/API_KEY"]).await.stdout;
    assert!(table.contains("store binding") && table.contains("default with --secret API_KEY"), "{table}");
    assert_eq!(cli.ok(&["--format", "json", "secret", "usage", "default/API_KEY"]).await.json().as_array().map(Vec::len), Some(2));
}

/// Another token takes the place of the context's only when the cluster accepts it.
async fn login(dev: &Dev, cli: &Cli) {
    let made = cli.ok(&["--format", "json", "token", "create", "ci", "--grant", "reporter"]).await.json();
    let token = made["token"].as_str().unwrap();
    let before = fs::read_to_string(dev.path("contexts.toml")).unwrap();
    let wrong = cli.pipe(b"not-a-token", &["login", "--token-stdin"]).await;
    assert_eq!(wrong.code, 4, "{wrong:?}");
    assert_eq!(fs::read_to_string(dev.path("contexts.toml")).unwrap(), before);
    let mut with_break = token.as_bytes().to_vec();
    with_break.push(b'\n');
    let run = cli.pipe(&with_break, &["login"]).await;
    assert!(run.code == 0 && run.stdout.contains("reporter") && !format!("{run:?}").contains(token), "{run:?}");
    assert_eq!(cli.ok(&["whoami", "--format", "json"]).await.json()["name"], "ci");
    cli.expect(4, &["store", "create", "mine"]).await;
}

/// wrangler's commands: locally in the cluster of `dev` alone, with --remote in the context in force.
#[tokio::test]
async fn wranglers_commands_keep_local_and_remote_apart() {
    let dev = Dev::new();
    let server = dev.serve().await;
    let cli = dev.cli();

    let create = ["secrets-store", "secret", "create", "default", "--name", "A", "--scopes", "workers, ai-gateway"];
    let made = cli.pipe(format!("{VALUE} \n\n").as_bytes(), &create).await;
    assert!(made.code == 0 && made.stdout.contains("✅ Created secret! (ID: ") && !format!("{made:?}").contains(VALUE), "{made:?}");
    cli.ok(&["bind", "worker/web", "A", "--wait"]).await;
    assert_eq!(cli.ok(&["get", "worker/web", "A", "--raw"]).await.stdout, VALUE, "what ends the value is trimmed, as wrangler does");
    let row = cli.ok(&["--format", "json", "secrets-store", "secret", "get", "default", "--name", "A"]).await.json();
    let id = row["id"].as_str().unwrap();
    let comment = cli.pipe(b"not a value", &["secrets-store", "secret", "update", "default", "--secret-id", id, "--comment", "mine"]).await;
    assert!(comment.code == 0 && comment.stdout.contains("mine"), "{comment:?}");
    assert_eq!(cli.ok(&["get", "worker/web", "A", "--raw"]).await.stdout, VALUE, "a comment leaves the value alone");
    let shown = cli.ok(&["secrets-store", "secret", "update", "default", "--name", "A", "--new-value", "two", "--scopes", "workers"]).await;
    assert!(shown.stderr.contains("warning") && shown.stderr.contains("printf %s"), "{shown:?}");
    let row = cli.ok(&["--format", "json", "secret", "show", "default/A"]).await.json();
    assert_eq!((row["version"].as_u64(), row["scopes"].to_string()), (Some(2), r#"["workers"]"#.to_owned()), "{row}");
    cli.ok(&["secrets-store", "secret", "duplicate", "default", "--name", "A", "--new-name", "B"]).await;
    let copy = cli.ok(&["secrets-store", "secret", "duplicate", "default", "--secret-id", id, "--name", "C", "--scopes", "dex"]).await;
    let header = copy.stdout.lines().find(|line| line.starts_with("NAME")).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(header, ["NAME", "ID", "STOREID", "COMMENT", "SCOPES", "STATUS", "CREATED", "MODIFIED"]);
    let list = cli.ok(&["--format", "json", "secrets-store", "secret", "list", "default", "--per-page", "2", "--page", "2"]).await.json();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["C", "GREETING"]);
    cli.expect(5, &["secrets-store", "secret", "delete", "default", "--name", "A"]).await;
    cli.ok(&["secrets-store", "secret", "delete", "default", "--name", "B"]).await;
    cli.expect(2, &["secrets-store", "secret", "get", "default"]).await;
    let store = cli.ok(&["secrets-store", "store", "create", "mine"]).await;
    assert!(store.stdout.starts_with("✅ Created store! (Name: mine, ID: "), "{store:?}");
    assert!(cli.ok(&["secrets-store", "store", "list"]).await.stdout.contains("ACCOUNTID"));
    cli.expect(5, &["secrets-store", "store", "delete", "default"]).await;
    cli.ok(&["secrets-store", "store", "delete", "mine"]).await;
    assert!(cli.ok(&["secrets-store", "quota"]).await.stdout.contains("of 100"));

    // The same cluster under another name is another place.
    let file = dev.path("contexts.toml");
    let contexts = fs::read_to_string(&file).unwrap();
    fs::write(&file, contexts.replace("[contexts.dev", "[contexts.prod").replace("current = \"dev\"", "current = \"prod\"")).unwrap();
    let refused = cli.expect(6, &["secrets-store", "secret", "list", "default"]).await;
    assert!(refused.stderr.contains("cinnabar dev") && refused.stderr.contains("--remote"), "{refused:?}");
    cli.expect(2, &["-c", "prod", "secrets-store", "quota"]).await;
    let remote = cli.ok(&["secrets-store", "secret", "list", "default", "--remote"]).await;
    assert!(remote.stderr.contains("context prod, "), "{remote:?}");
    fs::write(&file, contexts).unwrap();
    server.stop().await;
    let down = cli.expect(6, &["secrets-store", "secret", "list", "default"]).await;
    assert!(down.stderr.contains("it is not running"), "{down:?}");
}

/// What `dev` invites to is pasted as it stands.
#[tokio::test]
async fn lines_that_dev_prints_for_rest_work_as_they_are_pasted() {
    let dev = Dev::new();
    let server = dev.serve().await;
    let log = server.log();
    let (_, lines) = log.split_once("no token is shown:\n").unwrap_or_else(|| panic!("{log}"));
    let lines: String = lines.lines().take_while(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect();
    // No checkout has its root here, so the binary is called as it is installed.
    let call = "cinnabar context";
    assert!(lines.matches(call).count() == 2 && !lines.contains("scripts/"), "{lines}");
    let script = lines.replace(call, &format!("{} context", binary().display()));
    let (file, home) = (dev.path("contexts.toml"), dev.path("home"));
    let programs = Programs::new(Path::new(&home), "").without("NODE_EXTRA_CA_CERTS").with(&[("CINNABAR_CONFIG", &file)]);
    let run = programs.shell(&Wrangler::Old.call(), b"", &script).await;
    assert_eq!(run.code, 0, "{script}\n{run:?}");
    assert!(run.stdout.contains("GREETING") && run.stdout.contains(r#""name":"default""#), "{run:?}");
    let token = cli::Contexts::load(Path::new(&file)).unwrap().contexts["dev"].token.clone();
    assert!(!format!("{run:?}{log}").contains(&token));
    let shown = dev.cli().ok(&["context", "env"]).await.stdout;
    assert!(shown.contains(&format!("export CLOUDFLARE_API_TOKEN='{token}'\n")) && shown.contains("/client/v4'\n"), "{shown}");
}

/// The same cluster as somebody else.
fn with_token(dev: &Dev, name: &str, token: &str) -> Cli {
    let mut contexts = cli::Contexts::load(Path::new(&dev.path("contexts.toml"))).unwrap();
    contexts.contexts.get_mut("dev").unwrap().token = token.to_owned();
    let file = dev.path(&format!("{name}.toml"));
    contexts.save(Path::new(&file)).unwrap();
    Cli::new(Path::new(&dev.path("")), Path::new(&file))
}

/// A token of `made`, which is shown this once.
fn token(made: &serde_json::Value) -> &str {
    made["token"].as_str().unwrap()
}

/// What a member may do, the member's tokens may, from the moment on in which it changes.
#[tokio::test]
async fn member_gets_and_loses_roles_and_tokens() {
    let dev = Dev::new();
    let _server = dev.serve().await;
    let cli = dev.cli();

    let alice = cli.ok(&["--format", "json", "role", "grant", "alice@example.com", "reporter"]).await;
    assert!(alice.stderr.contains("a new member"), "{alice:?}");
    assert_eq!(alice.json()["roles"].to_string(), r#"["reporter"]"#);
    let made = cli.ok(&["--format", "json", "token", "create", "--member", "alice@example.com", "--expires-in", "1h"]).await.json();
    let hers = with_token(&dev, "alice", token(&made));
    hers.ok(&["secret", "list", "default"]).await;
    assert_eq!(hers.pipe(b"v", &["secret", "create", "default/HERS"]).await.code, 4);
    let more = cli.ok(&["--format", "json", "role", "grant", "alice@example.com", "admin"]).await;
    assert!(!more.stderr.contains("a new member"), "{more:?}");
    assert_eq!(hers.pipe(b"v", &["secret", "create", "default/HERS"]).await.code, 0);
    cli.expect(3, &["role", "grant", "alice@example.com", "admin@nosuchaccount"]).await;
    cli.ok(&["role", "revoke", "alice@example.com", "admin"]).await;
    assert_eq!(hers.pipe(b"v", &["secret", "create", "default/HERS2"]).await.code, 4);

    let read = cli.ok(&["--format", "json", "token", "create", "watcher", "--grant", "admin", "--permission", "read"]).await.json();
    let watcher = with_token(&dev, "watcher", token(&read));
    watcher.ok(&["secret", "list", "default"]).await;
    assert_eq!(watcher.pipe(b"v", &["secret", "create", "default/W"]).await.code, 4);
    assert_eq!(watcher.ok(&["whoami", "--format", "json"]).await.json()["permission"], "read");
    let rolled = cli.ok(&["--format", "json", "token", "roll", "watcher", "--keep-id"]).await.json();
    assert_eq!(rolled["token_id"], read["token_id"]);
    watcher.expect(4, &["secret", "list", "default"]).await;
    with_token(&dev, "watcher", token(&rolled)).ok(&["secret", "list", "default"]).await;

    let listed = cli.ok(&["--format", "json", "token", "list"]).await.json();
    let row = |name: &str| listed.as_array().unwrap().iter().find(|row| row["name"] == name).cloned().unwrap();
    assert_eq!(row("watcher")["permission"], "read");
    assert_eq!(row("alice@example.com")["member"], "alice@example.com");
    cli.expect(2, &["role", "revoke", "alice@example.com", "--all"]).await;
    let gone = cli.ok(&["role", "revoke", "alice@example.com", "--all", "--yes"]).await;
    assert!(gone.stderr.contains("void now: 1"), "{gone:?}");
    hers.expect(4, &["secret", "list", "default"]).await;
    cli.expect(3, &["role", "list", "alice@example.com"]).await;
}

/// What is not there: a list says so beside its result, and an error names what was asked for, but never what could be a token.
#[tokio::test]
async fn lists_that_are_empty_say_so_and_tokens_that_are_unknown_are_named_by_their_id() {
    let dev = Dev::new();
    let _server = dev.serve().await;
    let cli = dev.cli();
    cli.ok(&["store", "create", "empty"]).await;
    cli.ok(&["consumer", "create", "worker/alone"]).await;
    let lists = [
        &["role", "list"][..],
        &["secret", "list", "empty"],
        &["secret", "list", "default", "--deleted"],
        &["consumer", "token", "list", "worker/alone"],
        &["node", "token", "list"],
        &["secrets-store", "secret", "list", "empty"],
        &["audit", "list", "--principal", "nobody"],
        &["binding", "list", "worker/alone"],
    ];
    for list in lists {
        let run = cli.ok(list).await;
        assert_eq!((run.stdout.as_str(), run.stderr.lines().next()), ("", Some("none")), "{list:?}");
        let empty = cli.ok(&[&["--format", "json"], list].concat()).await.json();
        assert!(empty == serde_json::json!([]) || empty["entries"] == serde_json::json!([]), "{list:?}: {empty}");
    }

    let id = "00112233445566778899aabbccddeeff";
    for verb in ["roll", "revoke"] {
        let unknown = cli.expect(3, &["token", verb, id]).await;
        assert!(unknown.stderr.contains(&format!("no token {id}")), "{unknown:?}");
        let pasted = seal::OperatorToken::generate(&runtime::OsEntropy).text().expose().to_owned();
        let run = cli.quiet(&["token", verb, &pasted]).await;
        assert!(run.code != 0 && !format!("{run:?}").contains(&pasted[8..]), "{run:?}");
    }
}

/// A deleted secret comes back as it was, or is destroyed; a reminder is shown and nothing more.
#[tokio::test]
async fn deleted_secret_comes_back_with_its_bindings_until_it_is_destroyed() {
    let dev = Dev::new();
    let _server = dev.serve().await;
    let cli = dev.cli();
    let create = ["secret", "create", "default/A", "--expires", "2020-01-01", "--rotate-every", "90d", "--wait"];
    let made = cli.pipe(VALUE.as_bytes(), &create).await;
    assert!(made.code == 0 && made.stdout.contains("2020-01-01T00:00:00Z (overdue)"), "{made:?}");
    cli.ok(&["bind", "worker/web", "A", "--wait"]).await;
    assert_eq!(cli.ok(&["get", "worker/web", "A", "--raw"]).await.stdout, VALUE, "a value that has ended is served");
    let edited = cli.ok(&["--format", "json", "secret", "edit", "default/A", "--expires", "never", "--rotate-every", "1h"]).await.json();
    assert_eq!(
        (edited["expires"].is_null(), edited["rotate_every_ms"].as_u64(), edited["overdue"].as_bool()),
        (true, Some(3_600_000), Some(false))
    );
    assert_eq!(edited["version"], 1);
    cli.expect(2, &["secret", "edit", "default/A", "--expires", "tomorrow"]).await;

    cli.ok(&["secret", "delete", "default/A", "--force", "--yes", "--wait"]).await;
    cli.expect(3, &["get", "worker/web", "A"]).await;
    let deleted = cli.ok(&["--format", "json", "secret", "list", "default", "--deleted"]).await.json();
    assert_eq!((deleted[0]["name"].as_str(), deleted[0]["id"].as_str()), (Some("A"), edited["id"].as_str()), "{deleted}");
    assert!(deleted[0]["undelete_until"].is_string(), "{deleted}");
    let exposed = cli.ok(&["--format", "json", "node", "exposure", "edge-1"]).await.json();
    let exposed: Vec<_> =
        exposed.as_array().unwrap().iter().map(|row| (row["secret"].as_str().unwrap(), row["deleted"].is_string())).collect();
    assert_eq!(exposed, [("GREETING", false), ("A", true)], "a node can open what can be brought back");
    let back = cli.ok(&["--format", "json", "secret", "undelete", "default/A", "--wait"]).await.json();
    assert_eq!(back["id"], edited["id"]);
    assert_eq!(cli.ok(&["get", "worker/web", "A", "--raw"]).await.stdout, VALUE);

    // The source by its id alone: where it lies is known.
    let id = edited["id"].as_str().unwrap();
    assert_eq!(cli.ok(&["--format", "json", "secret", "copy", id, "default/COPY"]).await.json()["name"], "COPY");
    let elsewhere = cli.expect(2, &["secret", "copy", id, "other/COPY"]).await;
    assert!(elsewhere.stderr.contains("write default/COPY"), "{elsewhere:?}");
    cli.expect(2, &["secret", "copy", id, id]).await;

    cli.pipe(b"two", &["secret", "set", "default/A", "--wait"]).await;
    cli.expect(2, &["secret", "destroy", "default/A", "--exact", "1"]).await;
    cli.ok(&["secret", "destroy", "default/A", "--exact", "1", "--yes", "--wait"]).await;
    cli.expect(3, &["secret", "rollback", "default/A", "1"]).await;
    cli.ok(&["secret", "delete", "default/A", "--force", "--yes"]).await;
    cli.ok(&["secret", "destroy", "default/A", "--yes"]).await;
    cli.expect(3, &["secret", "undelete", "default/A"]).await;
    let quota = cli.ok(&["--format", "json", "quota", "set", "--undelete-window", "1h", "--tokens", "7"]).await.json();
    assert_eq!((quota["undelete_window_ms"].as_u64(), quota["tokens_max"].as_u64()), (Some(3_600_000), Some(7)), "{quota}");
}

/// No API gives values back: the names come from one store, the values from a file, and the token from the environment.
#[tokio::test]
async fn import_over_an_api_takes_names_there_and_values_from_a_file() {
    let dev = Dev::new();
    let _server = dev.serve().await;
    let mut cli = dev.cli();
    let create = ["secret", "create", "default/A", "--scope", "workers,dex", "--comment", "of the first", "--wait"];
    assert_eq!(cli.pipe(b"one", &create).await.code, 0);
    cli.ok(&["store", "create", "second"]).await;
    let known = cli.ok(&["--format", "json", "context", "env"]).await.json();
    let known = |name: &str| known[name].as_str().unwrap().to_owned();
    let (token, file) = (known("CLOUDFLARE_API_TOKEN"), dev.path("values.json"));
    let (url, account, ca) = (known("CLOUDFLARE_API_BASE_URL"), known("CLOUDFLARE_ACCOUNT_ID"), known("NODE_EXTRA_CA_CERTS"));
    let import =
        ["--format", "json", "secret", "import", "second", "--from-api", &url, "--from-account", &account, "--from-store", "default"];
    let import = [&import[..], &["--ca", &ca]].concat();
    let listed = cli.pipe(token.as_bytes(), &import).await;
    assert!(listed.stderr.contains("nothing was written") && !format!("{listed:?}").contains(&token), "{listed:?}");
    let mut values = listed.json();
    assert_eq!(values[0], serde_json::json!({"name": "A", "value": "", "scopes": ["dex", "workers"], "comment": "of the first"}));
    fs::write(&file, values.to_string()).unwrap();
    let empty = cli.expect(2, &["secret", "import", "second", &file]).await;
    assert!(empty.stderr.contains("A has no value"), "{empty:?}");

    cli.set_environment(&[("CLOUDFLARE_API_TOKEN", &token)]);
    let with_file = [&import[..], &[&file]].concat();
    fs::write(&file, format!(r#"{{"A": "{VALUE}", "ELSE": "x"}}"#)).unwrap();
    let missing = cli.expect(2, &with_file).await;
    assert!(missing.stderr.contains("no value for GREETING"), "{missing:?}");
    values[0]["value"] = VALUE.into();
    values[1]["value"] = "hello".into();
    fs::write(&file, values.to_string()).unwrap();
    let done = cli.ok(&with_file).await.json();
    assert_eq!(
        (done[0]["name"].as_str(), done[0]["comment"].as_str(), done[0]["scopes"].to_string()),
        (Some("A"), Some("of the first"), r#"["dex","workers"]"#.to_owned())
    );
    cli.ok(&["bind", "worker/web", "COPY=second/A", "--wait"]).await;
    assert_eq!(cli.ok(&["get", "worker/web", "COPY", "--raw"]).await.stdout, VALUE);

    let elsewhere: Vec<_> = import.iter().map(|word| if *word == "default" { "nosuch" } else { word }).collect();
    let refused = cli.expect(3, &elsewhere).await;
    assert!(refused.stderr.contains("store_not_found"), "{refused:?}");
    cli.set_environment(&[("CLOUDFLARE_API_TOKEN", "not-a-token")]);
    cli.expect(4, &import).await;
}
