//! Golden scripts: commands, and what came of them. Regenerate on purpose with `UPDATE_GOLDENFILES=1`.
//!
//! A prefix names the principal (`alice:`, `node1:`, `system:`); without one it is `root`. `wait 5m` moves the clock. A key
//! `request=ID/CONTENT` makes a command a request. Output is the reply or refusal; the tag `[changes]` adds the change set,
//! `[audit]` the audit entry. Ids are shown as the names that they were made from. Each command also goes to a follower, which
//! must hold the same afterwards.

mod arguments;
mod looks;

use std::{collections::BTreeMap, error::Error, fmt::Write as _};

use goldenscript::{Command as Line, Runner};
use state::{
    Applied, AuditEntry, AuditOutcome, AuditTarget, ChangePhase, CommandBody, FormatError, JobId, KekStep, LimitsEdit, MemberChange,
    MemberNote, NewEpoch, NewJoinToken, NewSignerSet, PointerMove, Principal, Reminder, ReminderEdit, RequestKey, Rewrap, Stage,
    limits::Quota,
    record::{BoundTo, MemberKey, SetSignature, WrappedDek},
};
use types::{AccountId, Comment, KekEpoch, KeyDomain, LogIndex, NodeId, UnixMillis, ValueId, Version};

use self::arguments::{Args, create_token_with, duration, enrol, grant, grants, member, role, rotate_authority, signer_set};
use super::world::{
    World, account, dek, envelope, hash, id, init, new_dek, new_node, new_secret, operator, request, scopes, sealed, secret, store, token,
};

type Failure = Box<dyn Error>;

macro_rules! scripts {
    ($($name:ident;)*) => {
        $(
            #[test]
            pub(crate) fn $name() {
                let path = concat!("tests/scripts/", stringify!($name));
                goldenscript::run(&mut Script::new(), path).expect("the script gives other output");
            }
        )*
    };
}

scripts! {
    accounts_and_stores;
    secrets_and_versions;
    pointers;
    bindings;
    consumers_and_tokens;
    roles;
    operators;
    quotas;
    requests;
    data_keys;
    kek_epochs;
    nodes_and_signers;
    levels;
    members;
    token_terms;
    limits;
    undelete;
    reminders;
    enrolment;
    authorities;
    lost_nodes;
    cascades;
    audit;
}

struct Script {
    world: World,
    /// Ids in hex, and the names that they were made from.
    names: BTreeMap<String, String>,
}

/// What an audit entry says, without what is empty.
fn entry(entry: &AuditEntry) -> String {
    let detail = entry.detail.clone().unwrap_or_default();
    let AuditTarget { account, store, secrets, duplicated_from, value_modified, consumer, binding, node, token, member } = &entry.target;
    let mut text = format!("#{} after {} {} by {:?}", entry.sequence, &entry.previous.to_string()[..8], entry.action, entry.principal);
    let parts = [
        ("account", account.map(|id| id.to_string())),
        ("store", store.map(|id| id.to_string())),
        ("secrets", (!secrets.is_empty()).then(|| format!("{secrets:?}"))),
        ("from", duplicated_from.map(|id| id.to_string())),
        ("value", value_modified.then(|| "modified".to_owned())),
        ("consumer", consumer.as_ref().map(ToString::to_string)),
        ("binding", binding.as_ref().map(ToString::to_string)),
        ("node", node.map(|id| id.to_string())),
        ("token", token.map(|id| id.to_string())),
        ("member", member.as_ref().map(|(change, phase)| format!("{change:?} {phase:?}"))),
        ("request", entry.request.map(|id| id.to_string())),
        ("of", detail.member.map(|member| member.to_string())),
        ("role", detail.grant.map(|grant| format!("{}/{:?}", grant.role.name(), grant.scope))),
        ("replaces", detail.replaced.map(|id| id.to_string())),
        ("version", detail.version.map(|version| version.to_string())),
    ];
    for (name, part) in parts {
        part.into_iter().for_each(|part| text += &format!(" {name}={part}"));
    }
    let outcome = match &entry.outcome {
        AuditOutcome::Done { position } => format!("done at {position}"),
        AuditOutcome::Noted { position, .. } => format!("noted at {position}"),
        AuditOutcome::Refused { kind, .. } => format!("refused, {kind}"),
    };
    format!("{text}: {outcome}, from {}", entry.origin.peer)
}

impl Script {
    fn new() -> Self {
        Self { world: World::empty(), names: BTreeMap::new() }
    }

    /// What a line of a script commands.
    fn body(&mut self, line: &Line, args: &mut Args<'_>) -> Result<CommandBody, Failure> {
        let now = self.world.clock;
        Ok(match line.name.as_str() {
            "init" => {
                let mut init = init();
                if let Some(level) = args.number("level")? {
                    init.settings.feature_level = types::FeatureLevel::new(level as u32);
                }
                CommandBody::InitCluster(Box::new(init))
            }
            "create-account" => {
                let name = args.next()?;
                CommandBody::CreateAccount { account: account(&name), name: name.parse()? }
            }
            "create-store" => {
                let (account, name) = (args.account()?, args.next()?);
                let store = store(&args.key("id").unwrap_or_else(|| name.clone()));
                CommandBody::CreateStore { account, store, name: name.parse()? }
            }
            "delete-store" => {
                let (account, store) = args.at()?;
                CommandBody::DeleteStore { account, store, force: args.flag("force") }
            }
            "set-quota" => {
                let (account, secrets) = (args.account()?, args.number("secrets")?);
                let quota = match (secrets, args.number("stores")?, args.number("bytes")?) {
                    (None, None, None) => None,
                    (secrets, stores, bytes) => {
                        let own = Quota::default();
                        Some(Quota {
                            secrets: secrets.map_or(own.secrets, |n| n as u32),
                            stores: stores.map_or(own.stores, |n| n as u32),
                            value_bytes: bytes.map_or(own.value_bytes, |n| n as u32),
                        })
                    }
                };
                CommandBody::SetQuota { account, quota }
            }
            "edit-quota" => {
                let account = args.account()?;
                let mut number = |name: &str| args.number(name).map(|number| number.map(|n| n as u32));
                let (stores, secrets, value_bytes) = (number("stores")?, number("secrets")?, number("bytes")?);
                CommandBody::EditQuota { account, stores, secrets, value_bytes }
            }
            "create-secrets" => self.create_secrets(args)?,
            "fill" => self.fill(args)?,
            "set-value" => self.set_value(args)?,
            "edit-secret" => {
                let ((account, store), secret) = (args.at()?, secret(&args.next()?));
                let scopes = args.key("scopes").map(|names| scopes(&names));
                let comment = args.key("comment").map(Comment::new).transpose()?;
                CommandBody::EditSecret { account, store, secret, scopes, comment }
            }
            "delete-secrets" => {
                let ((account, store), force) = (args.at()?, args.flag("force"));
                let many = args.number("filled")?.unwrap_or(0);
                let mut secrets: Vec<_> = args.rest().iter().map(|name| secret(name)).collect();
                secrets.extend((0..many).map(|number| secret(&format!("S{number}"))));
                CommandBody::DeleteSecrets { account, store, secrets, force }
            }
            "duplicate-secret" => {
                let ((account, store), source) = (args.at()?, secret(&args.next()?));
                let source_version = args.version("version")?.unwrap_or(Version::new(1));
                let value = self.value(account, args)?;
                let item = new_secret(&args.next()?, &args.key("scopes").unwrap_or("workers".into()), value);
                CommandBody::DuplicateSecret { account, store, source, source_version, item, new_dek: None }
            }
            "move-pointer" => {
                let ((account, store), secret, verb) = (args.at()?, secret(&args.next()?), args.next()?);
                let to = match verb.as_str() {
                    "rollback" => PointerMove::Rollback { to: args.version("to")?.ok_or("rollback needs to=")? },
                    "promote" => PointerMove::Promote,
                    "revert" => PointerMove::Revert,
                    "drop-candidate" => PointerMove::DropCandidate,
                    _ => return Err("unknown verb".into()),
                };
                CommandBody::MovePointer { account, store, secret, to, expect: args.version("expect")? }
            }
            "reseal" => {
                let ((account, store), secret) = (args.at()?, secret(&args.next()?));
                let version = args.version("version")?.unwrap_or(Version::new(1));
                let record = self.world.state.secret_even_deleting(store, secret)?.ok_or("no such secret")?;
                let own = record.version(version).map(|entry| entry.value_id);
                let replaces = match args.number("replaces")? {
                    Some(number) => ValueId::from_bytes(u128::from(number).to_be_bytes()),
                    None => own.ok_or("no such version")?,
                };
                let value = self.value(account, args)?;
                CommandBody::ResealValue { account, store, secret, version, replaces, value }
            }
            "create-consumer" => CommandBody::CreateConsumer { consumer: args.consumer()? },
            "delete-consumer" => CommandBody::DeleteConsumer { consumer: args.consumer()? },
            "create-consumer-token" => {
                let (consumer, name) = (args.consumer()?, args.next()?);
                CommandBody::CreateConsumerToken {
                    consumer,
                    token: token(&name),
                    hash: hash(&args.key("hash").unwrap_or(name)),
                    expires: args.time("expires", now)?,
                }
            }
            "roll-consumer-token" => {
                let (consumer, replaces, name) = (args.consumer()?, token(&args.next()?), args.next()?);
                CommandBody::RollConsumerToken {
                    consumer,
                    replaces,
                    token: token(&name),
                    hash: hash(&name),
                    expires: args.time("expires", now)?,
                    old_until: args.time("old-until", now)?,
                }
            }
            "revoke-consumer-token" => CommandBody::RevokeConsumerToken { consumer: args.consumer()?, token: token(&args.next()?) },
            "bind" => {
                let (consumer, name, store) = (args.consumer()?, args.parse()?, store(&args.next()?));
                let target = match args.0.next_pos() {
                    Some(name) => BoundTo::Secret(secret(&name.value)),
                    None => BoundTo::Store(store),
                };
                CommandBody::Bind { consumer, name, store, target, replace: args.flag("replace") }
            }
            "unbind" => CommandBody::Unbind { consumer: args.consumer()?, name: args.parse()? },
            "mint-dek" => {
                let (account, name) = (args.account()?, args.next()?);
                let replaces = match args.key("replaces") {
                    Some(name) => Some(dek(&name)),
                    None => self.world.current_dek(account),
                };
                let epoch = KekEpoch::new(args.number("epoch")?.unwrap_or(1) as u32);
                let grace = args.key("grace").is_none_or(|grace| grace != "no");
                CommandBody::MintDek { account, dek: new_dek(dek(&name), epoch, replaces), grace }
            }
            "rewrap-deks" => {
                let (account, from) = (args.account()?, args.number("from")?.ok_or("from= is missing")?);
                let to = args.number("to")?.ok_or("to= is missing")?;
                let item = |name: &String| Rewrap {
                    account,
                    dek: dek(name),
                    from: KekEpoch::new(from as u32),
                    wrap: WrappedDek { domain: KeyDomain::global(), epoch: KekEpoch::new(to as u32), bytes: vec![to as u8; 64] },
                };
                CommandBody::RewrapDeks { items: args.rest().iter().map(item).collect() }
            }
            "kek" => {
                let (verb, number) = (args.next()?, args.parse::<u32>()?);
                let envelopes = args.rest().iter().map(|node| Ok(envelope(node.parse()?))).collect::<Result<_, Failure>>()?;
                let step = match verb.as_str() {
                    "announce" => KekStep::Announce { commitment: [number as u8; 32], envelopes },
                    "add-envelopes" => KekStep::AddEnvelopes { envelopes },
                    "activate" => KekStep::Activate,
                    "retire" => KekStep::Retire,
                    "destroy" => KekStep::Destroy,
                    _ => return Err("unknown verb".into()),
                };
                CommandBody::KekEpoch { domain: KeyDomain::global(), epoch: KekEpoch::new(number), step }
            }
            "register-node" => {
                let (number, name) = (args.parse()?, args.next()?);
                let role = role(&args.next()?);
                let mut node = new_node(number, &name, role);
                if let Some(key) = args.number("key")? {
                    node.public_key = vec![key as u8; 44];
                }
                CommandBody::RegisterNode { node }
            }
            "revoke-node" | "revoke-lost-node" => {
                let node = NodeId::new(args.parse()?);
                let epoch = |number: u64| NewEpoch {
                    domain: KeyDomain::global(),
                    epoch: KekEpoch::new(number as u32),
                    commitment: [number as u8; 32],
                    envelopes: vec![envelope(1)],
                };
                let signer_set = args.key("signers").map(|spec| signer_set(&spec)).transpose()?;
                let epochs = args.number("epoch")?.map(epoch).into_iter().collect();
                match line.name.as_str() {
                    "revoke-node" => CommandBody::RevokeNode { node, epochs, signer_set },
                    _ => CommandBody::RevokeLostNode { node, epochs, signer_set },
                }
            }
            "set-signers" => {
                let (version, threshold) = (args.parse()?, args.number("threshold")?.unwrap_or(1) as u32);
                let by = args.key("by").unwrap_or("1".into());
                let signature = |node: &str| Ok(SetSignature { signer: NodeId::new(node.parse::<u64>()?), signature: vec![1; 64] });
                let signatures = by.split(',').filter(|by| !by.is_empty()).map(signature).collect::<Result<_, Failure>>()?;
                let key = |node: &String| {
                    let node = node.parse::<u64>()?;
                    Ok(MemberKey { node: NodeId::new(node), key: [node as u8; 32] })
                };
                let keys = args.rest().iter().map(key).collect::<Result<_, Failure>>()?;
                CommandBody::SetSignerSet { set: NewSignerSet { version, threshold, keys, signatures } }
            }
            "create-join-token" => {
                let (name, role, uses) = (args.next()?, role(&args.next()?), args.number("uses")?.unwrap_or(1) as u32);
                let expires = args.time("expires", now)?.unwrap_or(UnixMillis::new(now + 3_600_000));
                let node = args.key("name").map(|name| name.parse()).transpose()?;
                let labels = args.key("zone").map(|zone| ("zone".to_owned(), zone)).into_iter().collect();
                let new = NewJoinToken { id: token(&name), role, name: node, labels, uses, expires };
                CommandBody::CreateJoinToken { token: new, hash: hash(&name) }
            }
            "revoke-join-token" => CommandBody::RevokeJoinToken { token: token(&args.next()?) },
            "enrol" => enrol(args)?,
            "rotate-authority" => rotate_authority(args)?,
            "finish-authority" => CommandBody::FinishAuthority { number: args.parse()?, force: args.flag("force") },
            "change-membership" => CommandBody::NoteMembership(Box::new(MemberNote {
                node: Some(NodeId::new(args.parse()?)),
                change: MemberChange::Add { address: args.next()? },
                phase: match args.next()?.as_str() {
                    "asked" => ChangePhase::Asked,
                    "done" => ChangePhase::Done,
                    reason => ChangePhase::Failed { reason: reason.repeat(100) },
                },
            })),
            "note-certificate" => CommandBody::NoteCertificate { node: NodeId::new(args.parse()?), authority: args.parse()? },
            "update-node" => {
                let (node, address) = (NodeId::new(args.parse()?), args.key("address"));
                CommandBody::UpdateNode {
                    node,
                    address,
                    feature_level: types::FeatureLevel::new(args.number("level")?.unwrap_or(1) as u32),
                }
            }
            "create-token" => {
                let (name, expires) = (args.next()?, args.time("expires", now)?);
                let grants = grants(&args.rest())?;
                CommandBody::CreateOperatorToken { token: token(&name), hash: hash(&name), name: name.parse()?, grants, expires }
            }
            "create-token-with" => create_token_with(args, now)?,
            "roll-token" => {
                let (replaces, name) = (token(&args.next()?), args.next()?);
                CommandBody::RollOperatorToken {
                    replaces,
                    token: args.key("keep").map_or(token(&name), |id| token(&id)),
                    hash: hash(&name),
                    expires: args.time("expires", now)?,
                    old_until: args.time("old-until", now)?,
                }
            }
            "create-member" => {
                let member = member(&args.next()?)?;
                CommandBody::CreateMember { member, grants: grants(&args.rest())? }
            }
            "delete-member" => CommandBody::DeleteMember { member: member(&args.next()?)? },
            "grant-role" => CommandBody::GrantRole { member: member(&args.next()?)?, grant: grant(&args.next()?)? },
            "revoke-role" => CommandBody::RevokeRole { member: member(&args.next()?)?, grant: grant(&args.next()?)? },
            "edit-limits" => {
                let account = args.key("account").map(|name| account(&name));
                let mut number = |name: &str| args.number(name);
                let edit = LimitsEdit {
                    stores: number("stores")?.map(|n| n as u32),
                    secrets: number("secrets")?.map(|n| n as u32),
                    value_bytes: number("bytes")?.map(|n| n as u32),
                    tokens: number("tokens")?.map(|n| n as u32),
                    undelete_window_ms: args.time("window", 0)?.map(UnixMillis::get),
                    undelete_secrets: args.number("undelete-secrets")?.map(|n| n as u32),
                    undelete_bytes: args.number("undelete-bytes")?,
                };
                CommandBody::EditLimits { account, edit }
            }
            "undelete" => {
                let ((account, store), secret) = (args.at()?, secret(&args.next()?));
                CommandBody::Undelete { account, store, secret }
            }
            "destroy" => {
                let ((account, store), secret) = (args.at()?, secret(&args.next()?));
                CommandBody::Destroy { account, store, secret, version: args.version("version")? }
            }
            "create-reminded" => {
                let reminder =
                    Reminder { expires: args.time("expires", now)?, rotate_every_ms: args.time("rotate", 0)?.map(UnixMillis::get) };
                match self.create_secrets(args)? {
                    CommandBody::CreateSecrets { account, store, items, new_dek } => {
                        let reminders = vec![reminder; items.len()];
                        CommandBody::CreateWithReminders { account, store, items, new_dek, reminders }
                    }
                    _ => return Err("not secrets".into()),
                }
            }
            "edit-reminded" => {
                let ((account, store), secret) = (args.at()?, secret(&args.next()?));
                let never = |args: &mut Args<'_>, key: &str, now| -> Result<Option<Option<UnixMillis>>, Failure> {
                    match args.key(key).as_deref() {
                        None => Ok(None),
                        Some("never") => Ok(Some(None)),
                        Some(text) => Ok(Some(Some(UnixMillis::new(now + duration(text)?)))),
                    }
                };
                let expires = never(args, "expires", now)?;
                let rotate_every_ms = never(args, "rotate", 0)?.map(|every| every.map(UnixMillis::get));
                let comment = args.key("comment").map(Comment::new).transpose()?;
                let reminder = ReminderEdit { expires, rotate_every_ms };
                CommandBody::EditWithReminder { account, store, secret, scopes: None, comment, reminder }
            }
            "revoke-token" => CommandBody::RevokeOperatorToken { token: token(&args.next()?) },
            "raise-level" => CommandBody::RaiseFeatureLevel { to: types::FeatureLevel::new(args.parse()?) },
            "tick" => CommandBody::Tick,
            "step" => CommandBody::Step { job: JobId::new(LogIndex::new(args.parse()?)) },
            name => return Err(format!("unknown command {name}").into()),
        })
    }

    /// A value under the data key named by `dek=`, or else the current one.
    fn value(&mut self, account: AccountId, args: &mut Args<'_>) -> Result<state::SealedInput, Failure> {
        let key = args.key("dek").map(|name| dek(&name)).or_else(|| self.world.current_dek(account));
        let length = args.number("bytes")?.unwrap_or(8) as usize;
        Ok(sealed(self.world.value_id(), key.unwrap_or(dek("none")), length))
    }

    /// `create-secrets ACCOUNT STORE NAME... [scopes=] [dek=] [new-dek=] [bytes=]`.
    fn create_secrets(&mut self, args: &mut Args<'_>) -> Result<CommandBody, Failure> {
        let (account, store) = args.at()?;
        let scopes = args.key("scopes").unwrap_or("workers".into());
        let replaces = args.key("replaces").map_or(self.world.current_dek(account), |name| (name != "none").then(|| dek(&name)));
        let brought = args.key("new-dek").map(|name| new_dek(dek(&name), KekEpoch::new(1), replaces));
        let first = self.value(account, args)?;
        let mut items = Vec::new();
        for name in args.rest() {
            let mut value = first.clone();
            value.value_id = self.world.value_id();
            if let Some(brought) = &brought {
                value.dek = brought.id;
            }
            items.push(new_secret(&name, &scopes, value));
        }
        Ok(CommandBody::CreateSecrets { account, store, items, new_dek: brought })
    }

    /// `fill ACCOUNT STORE COUNT`: so many secrets in one command.
    fn fill(&mut self, args: &mut Args<'_>) -> Result<CommandBody, Failure> {
        let ((account, store), count) = (args.at()?, args.parse::<usize>()?);
        let mut items = Vec::new();
        for number in 0..count {
            let value = sealed(self.world.value_id(), self.world.current_dek(account).ok_or("no data key")?, 8);
            items.push(new_secret(&format!("S{number}"), "workers", value));
        }
        Ok(CommandBody::CreateSecrets { account, store, items, new_dek: None })
    }

    fn set_value(&mut self, args: &mut Args<'_>) -> Result<CommandBody, Failure> {
        let ((account, store), secret) = (args.at()?, secret(&args.next()?));
        let stage = if args.flag("candidate") { Stage::Candidate } else { Stage::Current };
        Ok(CommandBody::SetValue {
            account,
            store,
            secret,
            value: self.value(account, args)?,
            expect: args.version("expect")?,
            stage,
            scopes: args.key("scopes").map(|names| scopes(&names)),
            comment: args.key("comment").map(Comment::new).transpose()?,
            new_dek: None,
        })
    }

    fn principal(line: &Line) -> Result<Principal, Failure> {
        Ok(match line.prefix.as_deref() {
            None => operator("root"),
            Some("system") => Principal::System,
            Some(name) => match name.strip_prefix("node") {
                Some(node) => Principal::Node { node: NodeId::new(node.parse()?) },
                None => operator(name),
            },
        })
    }

    fn show(&self, line: &Line, applied: &Applied) -> Result<String, Failure> {
        let mut text = String::new();
        match &applied.result {
            Ok(reply) => writeln!(text, "{} {:?}", reply.position, reply.body)?,
            Err(refusal) => writeln!(text, "{}: {}", refusal.kind, refusal.message)?,
        }
        if line.tags.contains("changes") {
            for change in applied.change_set.iter().flat_map(|set| &set.changes) {
                writeln!(text, "  {change:?}")?;
            }
        }
        if line.tags.contains("audit") {
            writeln!(text, "  {}", applied.audit.as_ref().map_or("no entry".into(), entry))?;
        }
        Ok(text)
    }

    /// Puts names in the place of ids.
    fn named(&self, mut text: String) -> String {
        for (hex, name) in &self.names {
            text = text.replace(hex, name);
        }
        text
    }

    fn learn(&mut self, line: &Line) {
        let words = line.args.iter().flat_map(|argument| argument.value.split(['/', ',']));
        let prefix = line.prefix.iter().map(String::as_str);
        for word in words.chain(prefix).chain(["root", "cluster"]).filter(|word| (1..=16).contains(&word.len())) {
            let hex = AccountId::from_bytes(id(word)).to_string();
            self.names.insert(hex, word.to_owned());
        }
    }
}

impl Runner for Script {
    fn run(&mut self, line: &Line) -> Result<String, Failure> {
        self.learn(line);
        let mut args = Args(line.consume_args());
        if line.name == "wait" {
            self.world.clock += duration(&args.next()?)?;
            return Ok(String::new());
        }
        if let Some(shown) = self.look(line, &mut args)? {
            args.0.reject_rest()?;
            return Ok(self.named(shown));
        }
        let key = |text: String| -> RequestKey {
            let (id, content) = text.split_once('/').unwrap_or((&text, ""));
            request(id, content)
        };
        let request = args.key("request").map(key);
        if let Some(times) = args.number("times")? {
            // The line, so often, with the output of the last time.
            for _ in 1..times {
                let mut again = Args(line.consume_args());
                again.key("times");
                let body = self.body(line, &mut again)?;
                self.world.apply(Self::principal(line)?, request, body);
            }
        }
        let body = self.body(line, &mut args)?;
        args.0.reject_rest()?;
        let applied = self.world.apply(Self::principal(line)?, request, body);
        let shown = self.show(line, &applied)?;
        Ok(self.named(shown))
    }
}

#[test]
fn format_error_says_what_a_newer_build_wrote() {
    let error = state::record::StoreRecord::decode(&[9]).unwrap_err();
    assert_eq!(error, FormatError::Newer { what: "a store record", got: 9, known: 1 });
    assert_eq!(error.to_string(), "a store record of format 9, newest known is 1; a newer Cinnabar wrote it");
}
