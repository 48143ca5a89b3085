//! A log of each feature level, kept as bytes, with the hashes that it must give for ever.
//!
//! `UPDATE_GOLDENFILES=1` writes the log anew from the calls below; do so only before a first release, or to add a level.

use std::{fmt::Write as _, path::Path};

use state::{
    Command, CommandBody, Grant, GrantScope, KekStep, LimitsEdit, MemberRef, Permission, PointerMove, Principal, Reminder, ReminderEdit,
    Role, Stage, State, TokenHolder, record::BoundTo,
};
use types::{AccountId, ConsumerRef, FeatureLevel, Hash, KekEpoch, KeyDomain, LogIndex, NodeId, UnixMillis, Version};

use super::world::{
    World, account, dek, envelope, hash, new_dek, new_node, new_secret, operator, request, scopes, sealed, secret, store, token,
};

/// One of nearly every kind of command.
fn make() -> Vec<Command> {
    let mut world = World::new();
    let (acme, main) = (account("acme"), store("main"));
    let web = ConsumerRef::parse(acme, "worker/web").unwrap();
    let value = |world: &mut World, length| sealed(world.value_id(), world.current_dek(acme).unwrap_or(dek("k1")), length);
    world.root(CommandBody::CreateAccount { account: acme, name: "Acme Ltd".parse().unwrap() });
    world.root(CommandBody::CreateStore { account: acme, store: main, name: "main".parse().unwrap() });
    let first = value(&mut world, 6);
    let items = vec![new_secret("API_KEY", "workers,access", first)];
    let new = new_dek(dek("k1"), KekEpoch::new(1), None);
    world.root(CommandBody::CreateSecrets { account: acme, store: main, items, new_dek: Some(new) });
    for (seconds, stage) in [(1, Stage::Current), (2, Stage::Candidate), (400, Stage::Current)] {
        world.clock += seconds * 1000;
        let (value, expect) = (value(&mut world, 1000), None);
        let set = CommandBody::SetValue {
            account: acme,
            store: main,
            secret: secret("API_KEY"),
            value,
            expect,
            stage,
            scopes: Some(scopes("workers")),
            comment: Some("staged".parse::<String>().unwrap().try_into().unwrap()),
            new_dek: None,
        };
        world.apply(operator("root"), Some(request(&format!("r{seconds}"), "content")), set.clone());
        world.apply(operator("root"), Some(request(&format!("r{seconds}"), "content")), set);
    }
    for to in [PointerMove::Promote, PointerMove::Revert, PointerMove::Rollback { to: Version::new(1) }, PointerMove::Promote] {
        world.root(CommandBody::MovePointer { account: acme, store: main, secret: secret("API_KEY"), to, expect: None });
    }
    let grants = vec![Grant { role: Role::Deployer, scope: GrantScope::Store(acme, main) }];
    world.root(CommandBody::CreateOperatorToken {
        token: token("ci"),
        hash: hash("ci"),
        name: "ci".parse().unwrap(),
        grants,
        expires: None,
    });
    world.root(CommandBody::CreateConsumer { consumer: web.clone() });
    world.root(CommandBody::CreateConsumerToken { consumer: web.clone(), token: token("t1"), hash: hash("t1"), expires: None });
    let bind =
        |name: &str, target| CommandBody::Bind { consumer: web.clone(), name: name.parse().unwrap(), store: main, target, replace: false };
    world.apply(operator("ci"), None, bind("KEY", BoundTo::Secret(secret("API_KEY"))));
    world.apply(operator("ci"), None, bind("ALL", BoundTo::Store(main)));
    world.apply(operator("ci"), None, CommandBody::DeleteStore { account: acme, store: main, force: true });
    let duplicate = value(&mut world, 6);
    world.root(CommandBody::DuplicateSecret {
        account: acme,
        store: main,
        source: secret("API_KEY"),
        source_version: Version::new(1),
        item: new_secret("COPY", "containers", duplicate),
        new_dek: None,
    });
    let domain = KeyDomain::global();
    let announce = KekStep::Announce { commitment: [2; 32], envelopes: vec![envelope(1), envelope(2)] };
    for step in [announce, KekStep::Activate] {
        world.root(CommandBody::KekEpoch { domain: domain.clone(), epoch: KekEpoch::new(2), step });
    }
    let replaces = world.current_dek(acme);
    world.root(CommandBody::MintDek { account: acme, dek: new_dek(dek("k2"), KekEpoch::new(2), replaces), grace: true });
    world.root(CommandBody::RegisterNode { node: new_node(3, "relay-1", state::record::NodeRole::Relay) });
    world.root(CommandBody::RevokeNode { node: NodeId::new(3), epochs: Vec::new(), signer_set: None });
    let stale = value(&mut world, 6);
    world.root(CommandBody::CreateSecrets { account: acme, store: main, items: vec![new_secret("LATE", "workers", stale)], new_dek: None });
    world.root(CommandBody::DeleteSecrets { account: acme, store: main, secrets: vec![secret("API_KEY")], force: true });
    world.root(CommandBody::Unbind { consumer: web.clone(), name: "KEY".parse().unwrap() });
    world.root(CommandBody::DeleteStore { account: acme, store: main, force: true });
    world.root(CommandBody::RevokeOperatorToken { token: token("ci") });
    world.clock += 90_000_000;
    world.apply(Principal::Node { node: NodeId::new(1) }, None, CommandBody::Tick);
    world.log
}

/// How the level rises to 2, and what it brings.
fn make_level_2() -> Vec<Command> {
    let mut world = World::new();
    let (acme, node) = (account("acme"), NodeId::new(1));
    let (level, itself) = (FeatureLevel::new(2), Principal::Node { node });
    let edit = |stores, secrets, value_bytes| CommandBody::EditQuota { account: acme, stores, secrets, value_bytes };
    world.root(CommandBody::CreateAccount { account: acme, name: "Acme Ltd".parse().unwrap() });
    world.root(edit(Some(1), None, None));
    world.root(CommandBody::RaiseFeatureLevel { to: level });
    world.apply(itself, None, CommandBody::UpdateNode { node, address: None, feature_level: level });
    world.root(CommandBody::RaiseFeatureLevel { to: level });
    for body in [edit(Some(1), None, None), edit(None, Some(7), None), edit(None, None, Some(64)), edit(None, None, None)] {
        world.root(body);
    }
    world.apply(operator("root"), Some(request("r1", "content")), edit(Some(2), Some(2), Some(2)));
    world.apply(operator("root"), Some(request("r1", "content")), edit(Some(2), Some(2), Some(2)));
    world.root(CommandBody::SetQuota { account: acme, quota: None });
    world.apply(itself, None, CommandBody::Tick);
    world.log
}

/// A cluster that rises to 3 with tokens that are to be counted, and what the level brought.
fn make_level_3() -> Vec<Command> {
    let mut world = World::new();
    let (acme, node) = (account("acme"), NodeId::new(1));
    let itself = Principal::Node { node };
    world.root(CommandBody::CreateAccount { account: acme, name: "Acme Ltd".parse().unwrap() });
    world.root(CommandBody::CreateStore { account: acme, store: store("main"), name: "main".parse().unwrap() });
    let grant = |role, scope| Grant { role, scope };
    let boss = vec![grant(Role::SuperAdministrator, GrantScope::Account(acme))];
    world.root(CommandBody::CreateOperatorToken {
        token: token("boss"),
        hash: hash("boss"),
        name: "boss".parse().unwrap(),
        grants: boss.clone(),
        expires: None,
    });
    for level in [2, 3].map(FeatureLevel::new) {
        world.apply(itself, None, CommandBody::UpdateNode { node, address: None, feature_level: level });
        world.root(CommandBody::RaiseFeatureLevel { to: level });
    }
    members(&mut world, acme, &boss);
    deletions(&mut world, acme);
    world.apply(itself, None, CommandBody::Tick);
    world.log
}

/// Members, their tokens, and limits.
fn members(world: &mut World, acme: AccountId, boss: &[Grant]) {
    let member = MemberRef { account: Some(acme), name: "dev@example.com".parse().unwrap() };
    let admin = Grant { role: Role::Admin, scope: GrantScope::Account(acme) };
    let mut by_boss = |body| world.apply(operator("boss"), None, body);
    by_boss(CommandBody::CreateMember { member: member.clone(), grants: vec![admin] });
    by_boss(CommandBody::GrantRole { member: member.clone(), grant: Grant { role: Role::Deployer, ..admin } });
    let holder = TokenHolder::Member(member.clone());
    let reach = vec![GrantScope::Store(acme, store("main"))];
    let create = |name: &str, holder: &TokenHolder, permission, reach: &[GrantScope]| CommandBody::CreateToken {
        token: token(name),
        hash: hash(name),
        holder: holder.clone(),
        permission,
        reach: reach.to_vec(),
        expires: Some(UnixMillis::new(100_000_000)),
    };
    by_boss(create("dev", &holder, Permission::Edit, &[]));
    by_boss(create("narrow", &holder, Permission::Read, &reach));
    by_boss(create("own", &TokenHolder::Own { name: "own".parse().unwrap(), grants: boss.to_vec() }, Permission::Read, &reach));
    by_boss(CommandBody::RollOperatorToken {
        replaces: token("dev"),
        token: token("dev2"),
        hash: hash("dev2"),
        expires: None,
        old_until: Some(UnixMillis::new(5000)),
    });
    by_boss(CommandBody::RevokeRole { member: member.clone(), grant: admin });
    by_boss(CommandBody::CreateMember { member: MemberRef { name: "gone".parse().unwrap(), ..member.clone() }, grants: vec![admin] });
    by_boss(CommandBody::DeleteMember { member: MemberRef { name: "gone".parse().unwrap(), ..member } });
    let edit = LimitsEdit { secrets: Some(9), tokens: Some(7), undelete_window_ms: Some(60_000), ..LimitsEdit::default() };
    world.root(CommandBody::EditLimits { account: Some(acme), edit });
    world.root(CommandBody::EditLimits { account: None, edit: LimitsEdit { secrets: None, undelete_secrets: Some(5), ..edit } });
    let stale = CommandBody::CreateStore { account: acme, store: store("more"), name: "more".parse().unwrap() };
    world.apply(operator("dev"), None, stale.clone());
    world.apply(operator("narrow"), None, stale);
}

/// Secrets with reminders, deleted and brought back, destroyed and swept away.
fn deletions(world: &mut World, acme: AccountId) {
    let main = store("main");
    let value = sealed(world.value_id(), dek("k1"), 100);
    let other = sealed(world.value_id(), dek("k1"), 100);
    world.root(CommandBody::CreateWithReminders {
        account: acme,
        store: main,
        items: vec![new_secret("A", "workers", value), new_secret("B", "workers", other)],
        new_dek: Some(new_dek(dek("k1"), KekEpoch::new(1), None)),
        reminders: vec![Reminder { expires: Some(UnixMillis::new(9000)), rotate_every_ms: Some(60_000) }, Reminder::default()],
    });
    world.root(CommandBody::EditWithReminder {
        account: acme,
        store: main,
        secret: secret("B"),
        scopes: None,
        comment: Some("soon".parse::<String>().unwrap().try_into().unwrap()),
        reminder: ReminderEdit { expires: Some(Some(UnixMillis::new(7000))), rotate_every_ms: Some(None) },
    });
    let delete = |names: &[&str]| CommandBody::DeleteSecrets {
        account: acme,
        store: main,
        secrets: names.iter().map(|name| secret(name)).collect(),
        force: false,
    };
    world.root(delete(&["A", "B"]));
    world.root(CommandBody::Undelete { account: acme, store: main, secret: secret("A") });
    let value = sealed(world.value_id(), dek("k1"), 10);
    let (expect, stage, scopes, comment, new_dek) = (None, Stage::Current, None, None, None);
    world.root(CommandBody::SetValue { account: acme, store: main, secret: secret("A"), value, expect, stage, scopes, comment, new_dek });
    for (name, version) in [("A", Some(Version::new(1))), ("A", Some(Version::new(2))), ("B", None), ("B", None)] {
        world.root(CommandBody::Destroy { account: acme, store: main, secret: secret(name), version });
    }
    world.root(delete(&["A"]));
    world.clock += 60_000;
}

fn encode(log: &[Command]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in log {
        let command = command.encode();
        bytes.extend_from_slice(&(command.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&command);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Vec<Command> {
    let mut log = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (command, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        log.push(Command::decode(command).unwrap());
        bytes = rest;
    }
    log
}

/// What the log gives: every answer, and the hashes at the end.
fn outcome(log: &[Command]) -> String {
    let (mut state, mut text) = (State::empty(), String::new());
    for (command, index) in log.iter().zip(1..) {
        let applied = state.apply(LogIndex::new(index), command).unwrap();
        let result = match applied.result {
            Ok(reply) => format!("{} at {}", reply.position, reply.time.get()),
            Err(refusal) => format!("{}: {}", refusal.kind, refusal.message),
        };
        writeln!(text, "{index} {} {result}", command.body.kind()).unwrap();
    }
    let records = state.records().fold(Hash::ZERO, |hash, (key, value)| {
        let change = state::Change { key, value: Some(value) };
        let both: Vec<u8> = hash.as_bytes().iter().chain(change.leaf().as_bytes()).copied().collect();
        state::AuditEntry::hash_of(&both)
    });
    writeln!(text, "position {}", state.position()).unwrap();
    writeln!(text, "chain {}", state.chain_hash()).unwrap();
    writeln!(text, "root {}", state.state_root()).unwrap();
    writeln!(text, "audit {}", state.audit_head().unwrap().hash).unwrap();
    writeln!(text, "records {records}").unwrap();
    text
}

#[test]
fn log_of_level_1_keeps_its_hashes() {
    keeps_its_hashes(1, make);
}

#[test]
fn log_of_level_2_keeps_its_hashes() {
    keeps_its_hashes(2, make_level_2);
}

#[test]
fn log_of_level_3_keeps_its_hashes() {
    keeps_its_hashes(3, make_level_3);
}

fn keeps_its_hashes(level: u32, make: fn() -> Vec<Command>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (log, expected) = (folder.join(format!("level-{level}.log")), folder.join(format!("level-{level}.txt")));
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        let made = make();
        std::fs::write(&log, encode(&made)).unwrap();
        std::fs::write(&expected, outcome(&made)).unwrap();
    }
    let stored = std::fs::read(&log).unwrap();
    let commands = decode(&stored);
    assert_eq!(outcome(&commands), std::fs::read_to_string(&expected).unwrap());
    // What is written today is what was written then.
    assert_eq!(encode(&commands), stored);
    assert_eq!(encode(&make()), stored);
}
