//! Every secrets-store command of wrangler's, in the last version for Node 20 and in the newest.

use tests::{
    clients::{Programs, Wrangler},
    process::{Fleet, Run},
};

use crate::ground::{Ground, rows};

/// An id that nothing has.
const NOBODY: &str = "00000000000000000000000000000bad";

/// A command that must be done.
async fn done(which: Wrangler, user: &Programs, stdin: &str, arguments: &[&str]) -> Run {
    let run = user.wrangler(which, stdin.as_bytes(), &[&["secrets-store"], arguments, &["--remote"]].concat()).await;
    assert_eq!(run.code, 0, "wrangler {}: {}{}", arguments.join(" "), run.stdout, run.stderr);
    run
}

/// A command that must be refused, in these words.
async fn refused(which: Wrangler, user: &Programs, stdin: &str, arguments: &[&str], words: &str) {
    let run = user.wrangler(which, stdin.as_bytes(), &[&["secrets-store"], arguments, &["--remote"]].concat()).await;
    assert_eq!(run.code, 1, "wrangler {}: {}{}", arguments.join(" "), run.stdout, run.stderr);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(said.contains(words), "wrangler {} does not say {words:?}: {said}", arguments.join(" "));
}

/// The id that a command names last: of a copy, it names the source first.
fn id(run: &Run) -> String {
    let after = run.stdout.rsplit("ID: ").next().filter(|after| after.len() < run.stdout.len()).unwrap_or_else(|| panic!("{run:?}"));
    let id: String = after.chars().take_while(char::is_ascii_hexdigit).collect();
    assert_eq!(id.len(), 32, "{run:?}");
    id
}

async fn every_command(which: Wrangler) {
    let ground = Ground::new(1).await;
    let (fleet, operator) = (&ground.fleet, ground.fleet.operator());
    let token = ground.token("team", &[format!("super-administrator@{}", Fleet::ACCOUNT)]).await;
    let user = ground.user("team", &token, Some(Fleet::ACCOUNT));
    let wrangler = async |stdin: &str, arguments: &[&str]| done(which, &user, stdin, arguments).await;
    let reader = fleet.reader("edge-1");
    // What a worker reads that is bound to a secret of the store.
    let read = async |secret: &str| {
        let position = operator.bind(secret, secret).await;
        String::from_utf8(reader.get_at(secret, position).await.unwrap().value).unwrap()
    };

    // The store that the operator made is there; another comes and goes.
    let made = id(&wrangler("", &["store", "create", "team"]).await);
    let listed = rows(&wrangler("", &["store", "list"]).await);
    let named: Vec<_> = listed.iter().map(|row| [row[0].as_str(), &row[2]]).collect();
    assert_eq!(named, [["default", Fleet::ACCOUNT], ["team", Fleet::ACCOUNT]]);
    assert_eq!(listed[1][1], made);
    assert!(!listed.iter().flatten().any(|cell| cell.contains("Invalid")), "{listed:?}");
    wrangler("", &["store", "delete", &made]).await;
    assert_eq!(rows(&wrangler("", &["store", "list"]).await).len(), 1);
    let store = listed[0][1].clone();

    // A value is piped; wrangler takes off what blank stands at its end, what is inside stays. It is the marked one, to be looked for at the end.
    let value = fleet.canary().value().to_owned();
    let create = ["secret", "create", &store, "--name", "API_KEY", "--scopes", "workers,ai_gateway", "--comment", "first of all"];
    let run = wrangler(&format!("{value} \n\n"), &create).await;
    let (secret, row) = (id(&run), rows(&run).remove(0));
    assert_eq!(row[..5], ["API_KEY", &secret, &store, "first of all", "ai_gateway, workers"].map(str::to_owned));
    assert!(["pending", "active"].contains(&row[5].as_str()), "{row:?}");
    assert_eq!(read("API_KEY").await, value);
    let lines = wrangler("one\ntwo \n", &["secret", "create", &store, "--name", "LINES", "--scopes", "workers"]).await;
    assert_eq!(read("LINES").await, "one\ntwo");
    let named = wrangler("", &["secret", "create", &store, "--name", "INLINE", "--scopes", "workers", "--value", "v"]).await;
    assert_eq!(read("INLINE").await, "v");

    // Lists come in pages, which end with an empty one.
    let all = rows(&wrangler("", &["secret", "list", &store]).await);
    assert_eq!(all.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["API_KEY", "INLINE", "LINES"]);
    let second = rows(&wrangler("", &["secret", "list", &store, "--per-page", "1", "--page", "2"]).await);
    assert_eq!(second, all[1..2]);
    refused(which, &user, "", &["secret", "list", &store, "--page", "2"], "returned no secrets").await;

    let of = |verb: &'static str, id: &str| ["secret", verb, &store, "--secret-id", id].map(str::to_owned);
    let run = async |stdin: &str, base: &[String; 5], more: &[&str]| {
        let arguments: Vec<_> = base.iter().map(String::as_str).chain(more.iter().copied()).collect();
        wrangler(stdin, &arguments).await
    };
    let got = rows(&run("", &of("get", &secret), &[]).await).remove(0);
    assert_eq!(got[..5], row[..5]);

    // A new value; then what is not the value, with nothing on stdin.
    run("rotated\n", &of("update", &secret), &[]).await;
    let edited = rows(&run("", &of("update", &secret), &["--comment", "second", "--scopes", "workers"]).await).remove(0);
    assert_eq!(edited[3..5], ["second".to_owned(), "workers".to_owned()]);
    assert_eq!(read("API_KEY").await, "rotated");

    // A copy has the value, and the scopes and comment that it is given.
    let copy = run("", &of("duplicate", &secret), &["--name", "COPY", "--scopes", "workers"]).await;
    assert_eq!(rows(&copy)[0][3..5], [String::new(), "workers".to_owned()]);
    assert_eq!(read("COPY").await, "rotated");

    // What is bound is kept, unless it is unbound.
    for (name, id) in [("COPY", id(&copy)), ("INLINE", id(&named)), ("LINES", id(&lines)), ("API_KEY", secret.clone())] {
        operator.unbind(name).await;
        run("", &of("delete", &id), &[]).await;
    }
    refused(which, &user, "", &["secret", "get", &store, "--secret-id", &secret], "secret_not_found [code: 1001]").await;
    refused(which, &user, "", &["secret", "list", &store], "returned no secrets").await;
    wrangler("", &["store", "delete", &store]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_of_node_20_does_every_command() {
    every_command(Wrangler::Old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_newest_does_every_command() {
    every_command(Wrangler::New).await;
}

async fn every_refusal(which: Wrangler) {
    let ground = Ground::new(0).await;
    let (mine, theirs) = (ground.account("mine").await, ground.account("theirs").await);
    let edit = ground.token("edit", &["admin", "deployer"].map(|role| format!("{role}@{mine}"))).await;
    let look = ground.token("look", &[format!("reporter@{mine}")]).await;
    let other = ground.token("other", &[format!("admin@{theirs}")]).await;
    let (editor, viewer, stranger) =
        (ground.user("edit", &edit, Some(&mine)), ground.user("look", &look, Some(&mine)), ground.user("other", &other, Some(&theirs)));
    let no = async |user: &Programs, stdin: &str, arguments: &[&str], words: &str| refused(which, user, stdin, arguments, words).await;

    let store = id(&done(which, &editor, "", &["store", "create", "team"]).await);
    let new = ["secret", "create", &store, "--name", "API_KEY", "--scopes", "workers"];
    let secret = id(&done(which, &editor, "value", &new).await);

    no(&editor, "other", &new, "secret_name_already_exists").await;
    no(&editor, "", &["store", "delete", &store], "store_not_empty").await;
    no(&editor, "", &["secret", "get", &store, "--secret-id", NOBODY], "secret_not_found [code: 1001]").await;
    no(&editor, "v", &["secret", "update", &store, "--secret-id", NOBODY], "secret_not_found [code: 1001]").await;
    no(&editor, "", &["secret", "list", NOBODY], "store_not_found [code: 1001]").await;
    no(&editor, "v", &["secret", "create", &store, "--name", "a.b", "--scopes", "workers"], "").await;
    no(&editor, "v", &["secret", "create", &store, "--name", "SCOPED", "--scopes", "nowhere"], "secret_scope_invalid [code: 1001]").await;
    // 65,536 bytes are a value, one more is none: the newest says so itself, the older one asks.
    let longest = "x".repeat(65_536);
    let long = ["secret", "create", &store, "--name", "LONG", "--scopes", "workers"];
    let said = if which == Wrangler::Old { "secret_value_too_long" } else { "" };
    no(&editor, &format!("{longest}x"), &long, said).await;
    done(which, &editor, &longest, &long).await;

    // Who may look, looks; who may not change, does not.
    done(which, &viewer, "", &["secret", "get", &store, "--secret-id", &secret]).await;
    no(&viewer, "v", &["secret", "update", &store, "--secret-id", &secret], "Unauthorized to access requested resource").await;
    no(&viewer, "", &["secret", "delete", &store, "--secret-id", &secret], "Unauthorized to access requested resource").await;
    // What is another account's is not there.
    no(&stranger, "", &["secret", "get", &store, "--secret-id", &secret], "store_not_found [code: 1001]").await;
    no(&ground.user("far", &other, Some(&mine)), "", &["secret", "list", &store], "[code: 7003]").await;
    // A token that nobody made.
    let forged = format!("{}0", &edit[..edit.len() - 1]);
    no(&ground.user("forged", &forged, Some(&mine)), "", &["store", "list"], "Authentication error [code: 10000]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_of_node_20_says_why_a_command_is_refused() {
    every_refusal(Wrangler::Old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_newest_says_why_a_command_is_refused() {
    every_refusal(Wrangler::New).await;
}

/// With no account named, wrangler looks for the one that its token sees.
async fn who_am_i(which: Wrangler) {
    let ground = Ground::new(0).await;
    let account = ground.account("mine").await;
    let token = ground.token("mine", &[format!("super-administrator@{account}")]).await;
    let user = ground.user("mine", &token, None);
    let whoami = user.wrangler(which, b"", &["whoami"]).await;
    assert_eq!(whoami.code, 0, "{whoami:?}");
    assert!(whoami.stdout.contains(&account), "{whoami:?}");
    done(which, &user, "", &["store", "create", "team"]).await;
    assert_eq!(rows(&done(which, &user, "", &["store", "list"]).await)[0][2], account);

    // One that sees several is asked which.
    let (_, everywhere) = ground.fleet.credentials();
    refused(which, &ground.user("root", &everywhere, None), "", &["store", "list"], "More than one account available").await;
    // The older form of credentials.
    let legacy = ground.user("legacy", "", Some(&account)).without("CLOUDFLARE_API_TOKEN");
    let legacy = legacy.with(&[("CLOUDFLARE_API_KEY", &token), ("CLOUDFLARE_EMAIL", "mine@example.com")]);
    assert_eq!(rows(&done(which, &legacy, "", &["store", "list"]).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_of_node_20_finds_its_account() {
    who_am_i(Wrangler::Old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_newest_finds_its_account() {
    who_am_i(Wrangler::New).await;
}
