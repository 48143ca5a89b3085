//! `docs/permissions.md` is made of the one table of operations. `CINNABAR_REGENERATE=1` writes it.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use control::{Need, RPCS};
use prost::Message;
use state::{Operation, Permission, Role};

/// The methods that control nodes serve, as `Service.Method`.
fn declared() -> Vec<String> {
    let schema = prost_types::FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
    let public = schema.file.iter().filter(|file| file.package() == "cinnabar.v1").flat_map(|file| &file.service);
    let methods = public
        .filter(|service| service.name() != "Lookup")
        .flat_map(|service| service.method.iter().map(move |method| format!("{}.{}", service.name(), method.name())));
    methods.collect()
}

fn page() -> String {
    let mut text = String::from(
        "# Who may do what\n\nMade of the table in `crates/state/src/access.rs` by a test (`CINNABAR_REGENERATE=1` writes it anew): do not edit it by hand.\n\n\
         A call is allowed when a **role** has the operation and reaches what is touched, *and* the token has the **permission** that the\n\
         operation takes. A role reaches the whole cluster, an account, or a store. A principal may hold several; the roles of a member are\n\
         those of all its tokens, at once, within the reach of each token. What lies beyond a caller's reach is answered as unknown.\n\n\
         The launch of Cloudflare's Secrets Store can be read so that a Secrets Store Admin binds secrets to Workers. Here, as in its API\n\
         documents, it does not: whoever binds can read values by a program of their own, so binding is the Deployer's.\n\n\
         Tokens with the permission Read look, tokens with Edit change too.\n\n## Operations\n\n| operation | permission |",
    );
    let mark = |yes: bool| if yes { " yes |" } else { " - |" };
    for role in Role::ALL {
        write!(text, " {} |", role.name()).unwrap();
    }
    text += " control node, unasked |\n|---|---|---|---|---|---|---|\n";
    for operation in Operation::ALL {
        write!(text, "| {} | {} |", operation.name(), operation.permission().name()).unwrap();
        Role::ALL.into_iter().for_each(|role| text += mark(operation.roles().contains(role)));
        text += mark(operation.open_to_nodes());
        text += "\n";
    }
    text += "\n## Calls\n\n| call of `cinnabar.v1` | needs |\n|---|---|\n";
    let calls: BTreeMap<_, _> = RPCS.iter().copied().collect();
    for (call, need) in calls {
        let need = match need {
            Need::Of(operation) => operation.name().to_owned(),
            Need::Known => "any valid token; shows what lies within its reach".to_owned(),
        };
        writeln!(text, "| `{call}` | {need} |").unwrap();
    }
    text
}

#[test]
fn page_of_permissions_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/permissions.md");
    if std::env::var_os("CINNABAR_REGENERATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page(), "run this test with CINNABAR_REGENERATE=1");
}

#[test]
fn every_call_stands_in_the_table_once() {
    let mut listed: Vec<_> = RPCS.iter().map(|(call, _)| (*call).to_owned()).collect();
    let mut declared = declared();
    listed.sort();
    declared.sort();
    assert_eq!(listed, declared);
    for (call, need) in RPCS {
        let reads = ["List", "Show", "Versions"].iter().any(|verb| call.split('.').nth(1).is_some_and(|method| method.starts_with(verb)));
        if let (true, Need::Of(operation)) = (reads, need) {
            let looks = operation.permission() == Permission::Read || !operation.roles().contains(Role::Reporter);
            assert!(looks, "{call} only looks");
        }
    }
}
