//! Cloudflare's libraries: what their users write, and what they do by themselves when an answer is lost.

use serde_json::{Value, json};
use tests::{
    clients::{Gate, Programs, Seen},
    process::Run,
};

use crate::ground::{Ground, text};

/// The present library for Python, and the last of the year before.
const PYTHON: &str = "5.9.0";
const PYTHON_OLD: &str = "4.3.1";

/// Creates one secret, and prints its id. The library repeats what it got no answer to.
const CREATE_PYTHON: &str = r#"
import os
from cloudflare import Cloudflare
secrets = Cloudflare().secrets_store.stores.secrets
body = [{"name": os.environ["NAME"], "value": "v", "scopes": ["workers"]}]
[made] = secrets.create(os.environ["STORE"], account_id=os.environ["ACCOUNT"], body=body)
print(made.id)
"#;
const CREATE_NODE: &str = r#"
import Cloudflare from "cloudflare";
const { ACCOUNT: account_id, STORE, NAME: name } = process.env;
const body = [{ name, value: "v", scopes: ["workers"] }];
for await (const made of new Cloudflare().secretsStore.stores.secrets.create(STORE, { account_id, body })) console.log(made.id);
"#;

fn good(run: &Run) {
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
}

/// A user of a library in an account of their own; the tokens of one who manages it, and of one who looks.
async fn library_user(ground: &Ground, name: &str) -> (Programs, String) {
    let account = ground.account(name).await;
    let token = ground.token(name, &[format!("super-administrator@{account}")]).await;
    let viewer = ground.token(&format!("{name}-viewer"), &[format!("reporter@{account}")]).await;
    let user = ground.user(name, &token, None);
    let base = ground.base("control-2");
    (user.with(&[("CLOUDFLARE_BASE_URL", &base), ("ACCOUNT", &account), ("VIEWER", &viewer)]), account)
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_do_all_that_they_offer() {
    let ground = Ground::new(0).await;
    let (python, _) = library_user(&ground, "python").await;
    good(&python.python(PYTHON, include_str!("sdk.py")).await);
    let (old, _) = library_user(&ground, "old").await;
    good(&old.python(PYTHON_OLD, include_str!("sdk_old.py")).await);
    let (node, _) = library_user(&ground, "node").await;
    good(&node.node(include_str!("sdk.mjs")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn library_that_lost_the_answer_gets_the_first_one_and_a_conflict_is_sent_once() {
    let ground = Ground::new(0).await;
    let (user, account) = library_user(&ground, "lossy").await;
    let mut rest = ground.rest("control-1");
    let stores = format!("/client/v4/accounts/{account}/secrets_store/stores");
    let store = text(&rest.ask("POST", &stores, &json!({ "name": "lossy" })).await.result(), "id");
    let gate = Gate::open(&rest).await;
    let user = user.with(&[("CLOUDFLARE_BASE_URL", &gate.base()), ("STORE", &store)]);
    let create = async |library: &str, user: &Programs| match library {
        "node" => user.node(CREATE_NODE).await,
        version => user.python(version, CREATE_PYTHON).await,
    };
    let mut expected = 0;
    let mut user = user;
    for library in [PYTHON, PYTHON_OLD, "node"] {
        for lost in [1, 2] {
            let name = format!("LOST_{lost}_{}", library.replace('.', "_"));
            user = user.with(&[("NAME", &name)]);
            gate.lose(lost);
            let run = create(library, &user).await;
            good(&run);
            let seen = gate.seen();
            let told: Vec<_> = seen.iter().map(|seen| (seen.status, retry_count(seen))).collect();
            let wanted: Vec<_> = (0..=lost).map(|sent| (200, sent)).collect();
            assert_eq!(told, wanted, "{library}: every time the same answer");
            expected += 1;
            let shown = rest.get(&format!("{stores}/{store}/secrets?search={name}")).await.result();
            assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
            assert_eq!(text(&shown[0], "id"), run.stdout.trim(), "{library}: the first answer");
        }
        // The same once more, by somebody who lost nothing, is a conflict; and the library does not insist.
        let run = create(library, &user).await;
        assert_ne!(run.code, 0, "{library}: {run:?}");
        let seen = gate.seen();
        let told: Vec<_> = seen.iter().map(|seen| (seen.status, retry_count(seen))).collect();
        assert_eq!(told, [(409, 0)], "{library}");
    }
    let quota: Value = rest.get(&format!("/client/v4/accounts/{account}/secrets_store/quota")).await.result();
    assert_eq!(quota["secrets"]["usage"], expected);
}

fn retry_count(seen: &Seen) -> usize {
    seen.header("x-stainless-retry-count").map_or(0, |count| count.parse().unwrap())
}
