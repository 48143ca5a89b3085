//! What Cloudflare's own guides tell users to type about Secrets Store, typed against us: each line of shell in real wrangler and in our
//! own commands, each request as it is printed. What is not replayed is listed in `docs/compatibility.md`, under "The guides".

use std::path::PathBuf;

use serde_json::{Value, json};
use tests::{
    clients::{Programs, Rest, Wrangler},
    process::{Run, binary},
};

use crate::ground::{Ground, text};

/// What becomes of a block.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// It is done, and these are the secrets of the store afterwards.
    Done(&'static [&'static str]),
    /// It is done, and the store is gone.
    Gone,
    /// The program refuses it by itself or as it is told, in these words.
    Refused(&'static str),
}
use Outcome::{Done, Gone, Refused};

/// A block of shell in a guide. `<store-id>` is a store that has the secrets `with`.
struct Block {
    shell: &'static str,
    with: &'static [&'static str],
    wrangler: Outcome,
    ours: Outcome,
}

const fn block(shell: &'static str, with: &'static [&'static str], wrangler: Outcome, ours: Outcome) -> Block {
    Block { shell, with, wrangler, ours }
}

/// wrangler finds a secret by its id alone, and has no command for the quota; the guide thinks otherwise, and ours does as the guide says.
const NO_SUCH_OPTION: Outcome = Refused("secret-id");

const BLOCKS: [Block; 15] = [
    // Managing stores. Without --remote nothing is sent: wrangler has no such thing, ours asks for `cinnabar dev`.
    block("wrangler secrets-store store list", &[], Refused("--remote"), Refused("cinnabar dev")),
    block("wrangler secrets-store store create my-store --remote", &["ONE"], Done(&["ONE"]), Done(&["ONE"])),
    block("wrangler secrets-store store delete <store-id> --remote", &[], Gone, Gone),
    // Managing secrets. What the guide's user is asked for comes through a pipe.
    block(
        "wrangler secrets-store secret create <store-id> \\\n  --name MY_SECRET \\\n  --scopes workers \\\n  --remote",
        &[],
        Done(&["MY_SECRET"]),
        Done(&["MY_SECRET"]),
    ),
    block(
        "cat secret.txt | wrangler secrets-store secret create <store-id> \\\n  --name MY_SECRET \\\n  --scopes workers \\\n  --remote",
        &[],
        Done(&["MY_SECRET"]),
        Done(&["MY_SECRET"]),
    ),
    block("wrangler secrets-store secret list <store-id> --remote", &["MY_SECRET"], Done(&["MY_SECRET"]), Done(&["MY_SECRET"])),
    block("wrangler secrets-store secret get <store-id> --name MY_SECRET --remote", &["MY_SECRET"], NO_SUCH_OPTION, Done(&["MY_SECRET"])),
    block(
        "wrangler secrets-store secret update <store-id> \\\n  --name MY_SECRET \\\n  --new-value \"new value\" \\\n  --remote",
        &["MY_SECRET"],
        NO_SUCH_OPTION,
        Done(&["MY_SECRET"]),
    ),
    block("wrangler secrets-store secret delete <store-id> --name MY_SECRET --remote", &["MY_SECRET"], NO_SUCH_OPTION, Done(&[])),
    block(
        "wrangler secrets-store secret duplicate <store-id> \\\n  --name ORIGINAL_SECRET \\\n  --new-name COPIED_SECRET \\\n  --remote",
        &["ORIGINAL_SECRET"],
        NO_SUCH_OPTION,
        Done(&["COPIED_SECRET", "ORIGINAL_SECRET"]),
    ),
    // Looking for what went wrong.
    block("wrangler secrets-store quota --remote", &[], Refused("quota"), Done(&[])),
    // Pipelines of GitHub and of GitLab.
    block(
        "echo \"${API_KEY_VALUE}\" | \\\nnpx wrangler secrets-store secret create ${STORE_ID} \\\n  --name API_KEY \\\n  --scopes workers \\\n  --remote",
        &[],
        Done(&["API_KEY"]),
        Done(&["API_KEY"]),
    ),
    block(
        "echo \"$API_KEY_VALUE\" | \\\n  npx wrangler secrets-store secret create $STORE_ID \\\n    --name API_KEY \\\n    --scopes workers \\\n    --remote",
        &["OTHER"],
        Done(&["API_KEY", "OTHER"]),
        Done(&["API_KEY", "OTHER"]),
    ),
    // The announcement, from before there was --remote, and a time when wrangler asked for what is left out.
    block("wrangler secrets-store store create <name>", &[], Refused("--remote"), Refused("cinnabar dev")),
    block("wrangler secrets-store secret create <store-id>", &[], Refused("name"), Refused("name")),
];

/// Runs all blocks with `call` for `wrangler`.
async fn replay(ground: &Ground, who: &str, call: (PathBuf, Vec<String>), outcome: impl Fn(&Block) -> Outcome) {
    let account = ground.account(who).await;
    let token = ground.token(who, &[format!("super-administrator@{account}")]).await;
    let user = ground.user(who, &token, Some(&account));
    std::fs::write(user.home().join("secret.txt"), "from a file\n").unwrap();
    // Our commands find the cluster in a context of their own.
    let contexts = user.home().join("contexts.toml").display().to_string();
    let mut user = user.with(&[("CINNABAR_CONFIG", &contexts), ("CINNABAR_ACCOUNT", &account), ("API_KEY_VALUE", "of the pipeline")]);
    add_context(ground, &user, &token).await;
    let mut rest = ground.rest("control-1");
    let stores = format!("/client/v4/accounts/{account}/secrets_store/stores");
    for block in &BLOCKS {
        let store = text(&rest.ask("POST", &stores, &json!({ "name": "guide" })).await.result(), "id");
        let secrets = format!("{stores}/{store}/secrets");
        for name in block.with {
            let new = json!([{ "name": name, "value": "v", "scopes": ["workers"] }]);
            rest.ask("POST", &secrets, &new).await.result();
        }
        user = user.with(&[("STORE_ID", &store)]);
        let script = block.shell.replace("<store-id>", &store).replace("<name>", "named");
        let run = user.shell(&call, b"typed\n", &script).await;
        let said = format!("{}{}", run.stdout, run.stderr);
        match outcome(block) {
            Done(names) => {
                assert_eq!(run.code, 0, "{who}: {script}: {said}");
                assert_eq!(names_in(&mut rest, &secrets).await, names, "{who}: {script}: {said}");
            }
            Gone => {
                assert_eq!(run.code, 0, "{who}: {script}: {said}");
                assert_eq!(rest.get(&secrets).await.refusal().2, "store_not_found", "{who}: {script}");
            }
            Refused(words) => {
                assert_ne!(run.code, 0, "{who}: {script}: {said}");
                assert!(said.contains(words), "{who}: {script} does not say {words}: {said}");
                assert_eq!(names_in(&mut rest, &secrets).await, block.with, "{who}: {script}: {said}");
            }
        }
        // The next block begins anew.
        for store in rest.get(&stores).await.result().as_array().unwrap() {
            rest.ask("DELETE", &format!("{stores}/{}?force=true", text(store, "id")), &Value::Null).await.result();
        }
    }
}

async fn add_context(ground: &Ground, user: &Programs, token: &str) {
    let address = ground.fleet.address("control-1").to_string();
    let call = (binary(), ["context", "add", "guide", "--control", &address, "--ca", "ca.pem"].map(str::to_owned).to_vec());
    let run: Run = user.shell(&call, token.as_bytes(), "wrangler").await;
    assert_eq!(run.code, 0, "{run:?}");
}

async fn names_in(rest: &mut Rest, secrets: &str) -> Vec<String> {
    let found = rest.get(&format!("{secrets}?order=name")).await.result();
    found.as_array().unwrap().iter().map(|secret| text(secret, "name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guides_shell_does_as_printed_in_wrangler_and_in_our_commands() {
    let ground = Ground::new(0).await;
    replay(&ground, "theirs", Wrangler::New.call(), |block| block.wrangler).await;
    replay(&ground, "ours", (binary(), Vec::new()), |block| block.ours).await;
}

/// The two ways to show credentials, as the guide calls them with curl.
#[tokio::test(flavor = "multi_thread")]
async fn guides_curl_lists_stores_with_a_token_and_with_a_key() {
    let ground = Ground::new(0).await;
    let account = ground.account("mine").await;
    let token = ground.token("mine", &[format!("super-administrator@{account}")]).await;
    let user = ground.user("mine", &token, None);
    let user = user.with(&[("ACCOUNT_ID", &account), ("CLOUDFLARE_EMAIL", "me@example.com"), ("CLOUDFLARE_API_KEY", &token)]);
    let base = ground.base("control-3");
    for script in [
        "curl https://api.cloudflare.com/client/v4/accounts/$ACCOUNT_ID/secrets_store/stores \\\n  -H \"Authorization: Bearer $CLOUDFLARE_API_TOKEN\"",
        "curl https://api.cloudflare.com/client/v4/accounts/$ACCOUNT_ID/secrets_store/stores \\\n  -H \"X-Auth-Email: $CLOUDFLARE_EMAIL\" \\\n  -H \"X-Auth-Key: $CLOUDFLARE_API_KEY\"",
    ] {
        let script = script.replace("https://api.cloudflare.com/client/v4", &base);
        let run = user.shell(&(binary(), Vec::new()), b"", &script).await;
        assert_eq!(run.code, 0, "{run:?}");
        let answer: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        assert_eq!(answer["success"], true, "{answer}");
        assert!(answer["result"].is_array(), "{answer}");
    }
}

/// Each request of the guide, with its own words for scopes and ids.
#[tokio::test(flavor = "multi_thread")]
async fn guides_requests_are_answered_as_printed() {
    let ground = Ground::new(0).await;
    let account = ground.account("mine").await;
    let mut rest = ground.rest("control-2");
    let stores = format!("/client/v4/accounts/{account}/secrets_store/stores");
    let quota = format!("/client/v4/accounts/{account}/secrets_store/quota");

    assert!(rest.get(&stores).await.result().is_array());
    let store = rest.ask("POST", &stores, &json!({ "name": "my-store" })).await.result();
    assert_eq!(store["name"], "my-store");
    let store = format!("{stores}/{}", text(&store, "id"));
    let secrets = format!("{store}/secrets");
    assert_eq!(rest.get(&secrets).await.result(), json!([]));

    // One secret alone is answered alone; a list, with the guide's spelling of a scope, as a list.
    let one = json!({ "name": "my_secret", "value": "secret_value", "scopes": ["workers"], "comment": "Optional description" });
    let made = rest.ask("POST", &secrets, &one).await.result();
    for (field, value) in [("name", json!("my_secret")), ("scopes", json!(["workers"])), ("comment", json!("Optional description"))] {
        assert_eq!(made[field], value, "{made}");
    }
    for field in ["created", "modified"] {
        assert!(text(&made, field).ends_with('Z'), "{made}");
    }
    let id = text(&made, "id");
    let two = json!([
        { "name": "secret_one", "value": "value1", "scopes": ["workers"] },
        { "name": "secret_two", "value": "value2", "scopes": ["workers", "ai-gateway"] },
    ]);
    let both = rest.ask("POST", &secrets, &two).await.result();
    assert_eq!(both[1]["scopes"], json!(["ai_gateway", "workers"]));

    let got = rest.get(&format!("{secrets}/{id}")).await.result();
    assert_eq!((got["id"].clone(), got.get("value")), (json!(id), None));
    let patch = json!({ "value": "new_value", "comment": "Updated value" });
    assert_eq!(rest.ask("PATCH", &format!("{secrets}/{id}"), &patch).await.result()["comment"], "Updated value");
    let copy = rest.ask("POST", &format!("{secrets}/{id}/duplicate"), &json!({ "name": "new_secret_name" })).await.result();
    assert_eq!(copy["scopes"], json!(["workers"]), "the source's, where none are named");
    assert_eq!(rest.get(&quota).await.result()["secrets"]["usage"], 4);

    // The guide's error has another code and other words: docs/compatibility.md.
    let refused = rest.ask("POST", &secrets, &one).await;
    assert_eq!(refused.refusal().0, 409);
    assert!(refused.refusal().2.starts_with("secret_name_already_exists"), "{refused:?}");

    rest.ask("DELETE", &format!("{secrets}/{id}"), &Value::Null).await.result();
    let ids = json!({ "secret_ids": [both[0]["id"], both[1]["id"]] });
    assert_eq!(rest.ask("DELETE", &secrets, &ids).await.status, 202);
    rest.ask("DELETE", &format!("{secrets}/{}", text(&copy, "id")), &Value::Null).await.result();
    rest.ask("DELETE", &store, &Value::Null).await.result();
    assert_eq!(rest.get(&quota).await.result()["secrets"]["usage"], 0);
}
