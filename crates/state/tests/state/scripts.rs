//! Golden scripts: commands, and what came of them. Regenerate on purpose with `UPDATE_GOLDENFILES=1`.
//!
//! A prefix names the principal (`alice:`, `node1:`, `system:`); without one it is `root`. `wait 5m` moves the clock. A key
//! `request=ID/CONTENT` makes a command a request. Output is the reply or refusal; the tag `[changes]` adds the change set,
//! `[audit]` the audit entry. Ids are shown as the names that they were made from. Each command also goes to a follower, which
//! must hold the same afterwards.

use std::{collections::BTreeMap, error::Error, fmt::Write as _};

use goldenscript::{ArgumentConsumer, Command as Line, Runner};
use state::{
    Applied, AuditEntry, AuditOutcome, AuditTarget, AuthorityShare, ChangePhase, CommandBody, EnrolNode, FormatError, Grant, GrantScope,
    JobId, KekStep, LimitsEdit, MemberChange, MemberNote, MemberRef, NewEpoch, NewJoinToken, NewSignerSet, NodeEnvelope, Permission,
    PointerMove, Principal, Recipient, Reminder, ReminderEdit, RequestKey, Rewrap, Role, RotateAuthority, SealingDek, Stage, TokenHolder,
    limits::Quota,
    record::{AuthorityRecord, BoundTo, EnvelopeRecord, MemberKey, NodeRole, SetSignature, WrappedDek},
};
use types::{AccountId, Comment, ConsumerRef, KekEpoch, KeyDomain, LogIndex, NodeId, StoreId, UnixMillis, ValueId, Version};

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

/// The arguments of a line, each taken by name and parsed.
struct Args<'a>(ArgumentConsumer<'a>);

impl Args<'_> {
    fn next(&mut self) -> Result<String, Failure> {
        Ok(self.0.next_pos().ok_or("an argument is missing")?.value.clone())
    }

    fn key(&mut self, key: &str) -> Option<String> {
        self.0.lookup(key).map(|argument| argument.value.clone())
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, Failure> {
        Ok(self.key(key).map(|text| text.parse()).transpose()?)
    }

    fn flag(&mut self, key: &str) -> bool {
        self.key(key).is_some_and(|value| value == "yes")
    }

    fn rest(&mut self) -> Vec<String> {
        self.0.rest_pos().iter().map(|argument| argument.value.clone()).collect()
    }

    fn parse<T: std::str::FromStr<Err: Error + 'static>>(&mut self) -> Result<T, Failure> {
        Ok(self.next()?.parse()?)
    }

    fn version(&mut self, key: &str) -> Result<Option<Version>, Failure> {
        Ok(self.number(key)?.map(Version::new))
    }

    fn time(&mut self, key: &str, now: u64) -> Result<Option<UnixMillis>, Failure> {
        let after = self.key(key).map(|text| duration(&text)).transpose()?;
        Ok(after.map(|after| UnixMillis::new(now + after)))
    }

    fn account(&mut self) -> Result<AccountId, Failure> {
        Ok(account(&self.next()?))
    }

    fn at(&mut self) -> Result<(AccountId, StoreId), Failure> {
        Ok((self.account()?, store(&self.next()?)))
    }

    fn consumer(&mut self) -> Result<ConsumerRef, Failure> {
        let account = self.account()?;
        Ok(ConsumerRef::parse(account, &self.next()?)?)
    }
}

fn duration(text: &str) -> Result<u64, Failure> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).ok_or("a duration has a unit")?);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("unknown unit of time".into()),
    };
    Ok(number.parse::<u64>()? * unit)
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

fn grants(texts: &[String]) -> Result<Vec<Grant>, Failure> {
    texts.iter().map(|text| grant(text)).collect()
}

/// `ROLE[/ACCOUNT[/STORE]]`.
fn grant(text: &str) -> Result<Grant, Failure> {
    let (role, rest) = text.split_once('/').unwrap_or((text, ""));
    Ok(Grant { role: Role::from_name(role).ok_or("unknown role")?, scope: scope(rest) })
}

/// `ACCOUNT[/STORE]`; nothing, or `all`, is the cluster.
fn scope(text: &str) -> GrantScope {
    match text.split_once('/') {
        None if text.is_empty() || text == "all" => GrantScope::Cluster,
        None => GrantScope::Account(account(text)),
        Some((a, s)) => GrantScope::Store(account(a), store(s)),
    }
}

/// `[ACCOUNT/]NAME`.
fn member(text: &str) -> Result<MemberRef, Failure> {
    let (home, name) = text.split_once('/').map_or((None, text), |(home, name)| (Some(account(home)), name));
    Ok(MemberRef { account: home, name: name.parse()? })
}

/// `create-token-with NAME PERMISSION [member=[ACCOUNT/]NAME] [reach=ACCOUNT/STORE,...] [expires=] [GRANT...]`.
fn create_token_with(args: &mut Args<'_>, now: u64) -> Result<CommandBody, Failure> {
    let (name, permission) = (args.next()?, Permission::from_name(&args.next()?).ok_or("unknown permission")?);
    let reach = args.key("reach").unwrap_or_default();
    let expires = args.time("expires", now)?;
    let holder = match args.key("member") {
        Some(text) => TokenHolder::Member(member(&text)?),
        None => TokenHolder::Own { name: name.parse()?, grants: grants(&args.rest())? },
    };
    let reach = reach.split(',').filter(|part| !part.is_empty()).map(scope).collect();
    Ok(CommandBody::CreateToken { token: token(&name), hash: hash(&name), holder, permission, reach, expires })
}

fn role(name: &str) -> NodeRole {
    match name {
        "control" => NodeRole::Control,
        "relay" => NodeRole::Relay,
        _ => NodeRole::Edge,
    }
}

/// `VERSION/SIGNER/MEMBER,MEMBER`.
fn signer_set(spec: &str) -> Result<NewSignerSet, Failure> {
    let [version, signer, members] = spec.split('/').collect::<Vec<_>>()[..] else { return Err("a signer set has three parts".into()) };
    let key = |node: &str| {
        let node = node.parse::<u64>()?;
        Ok(MemberKey { node: NodeId::new(node), key: [node as u8; 32] })
    };
    Ok(NewSignerSet {
        version: version.parse()?,
        threshold: 1,
        keys: members.split(',').map(key).collect::<Result<_, Failure>>()?,
        signatures: vec![SetSignature { signer: NodeId::new(signer.parse()?), signature: vec![1; 64] }],
    })
}

/// `rotate-authority NUMBER [for=1,3,recovery] [keep=1h] [within=10m]`.
fn rotate_authority(args: &mut Args<'_>) -> Result<CommandBody, Failure> {
    let number: u32 = args.parse()?;
    let recipient = |name: &str| -> Result<_, Failure> {
        let recipient = match name {
            "recovery" => Recipient::Recovery,
            node => Recipient::Node(NodeId::new(node.parse()?)),
        };
        Ok((recipient, EnvelopeRecord { bytes: vec![3; 40] }))
    };
    let envelopes =
        args.key("for").unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(recipient).collect::<Result<_, _>>()?;
    let keep_ms = args.time("keep", 0)?.map_or(0, UnixMillis::get);
    let drop_after_ms = args.time("within", 0)?.map(UnixMillis::get);
    let authority = AuthorityRecord { certificate: vec![number as u8; 60], envelopes };
    let crossed = if args.flag("bare") { Vec::new() } else { vec![number as u8; 50] };
    Ok(CommandBody::RotateAuthority(Box::new(RotateAuthority { number, authority, crossed, keep_ms, drop_after_ms })))
}

/// `enrol TOKEN ID NAME ROLE [key=] [zone=] [epochs=1,2] [authority=yes] [ca=1] [signers=2/1/1,3]`.
fn enrol(args: &mut Args<'_>) -> Result<CommandBody, Failure> {
    let (token, number, name, role) = (hash(&args.next()?), args.parse::<u64>()?, args.next()?, role(&args.next()?));
    let mut node = new_node(number, &name, role);
    node.labels = args.key("zone").map(|zone| ("zone".to_owned(), zone)).into_iter().collect();
    if let Some(key) = args.number("key")? {
        node.public_key = vec![key as u8; 44];
    }
    let epochs = args.key("epochs").unwrap_or_default();
    let envelope = |epoch: &str| {
        Ok(NodeEnvelope {
            domain: KeyDomain::global(),
            epoch: KekEpoch::new(epoch.parse()?),
            envelope: EnvelopeRecord { bytes: vec![1; 40] },
        })
    };
    Ok(CommandBody::EnrolNode(Box::new(EnrolNode {
        token,
        node,
        envelopes: epochs.split(',').filter(|epoch| !epoch.is_empty()).map(envelope).collect::<Result<_, Failure>>()?,
        authority: args.flag("authority").then(|| AuthorityShare {
            number: args.key("ca").map_or(1, |ca| ca.parse().unwrap_or(0)),
            envelope: EnvelopeRecord { bytes: vec![2; 40] },
        }),
        signer_set: args.key("signers").map(|spec| signer_set(&spec)).transpose()?,
    })))
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

    /// What lines that only look have to show.
    fn look(&self, line: &Line, args: &mut Args<'_>) -> Result<Option<String>, Failure> {
        let state = &self.world.state;
        Ok(Some(match line.name.as_str() {
            "secret" => match state.secret(store(&args.next()?), secret(&args.next()?))? {
                None => "none".into(),
                Some(record) => {
                    let versions: Vec<_> = record.versions.iter().map(|entry| entry.version.get()).collect();
                    let kept = match versions.as_slice() {
                        [first, .., last] if versions.len() > 5 => format!("{first} to {last}, {} kept", versions.len()),
                        _ => format!("{versions:?}"),
                    };
                    let scopes: Vec<_> = record.scopes.iter().map(|scope| scope.name()).collect();
                    let optional = |version: Option<Version>| version.map_or("-".into(), |version| version.to_string());
                    format!(
                        "{} scopes={} comment={:?} versions={kept} current={} previous={} candidate={} created={} modified={}",
                        record.name,
                        scopes.join(","),
                        record.comment.as_str(),
                        record.current,
                        optional(record.previous),
                        optional(record.candidate),
                        record.created.get(),
                        record.modified.get(),
                    )
                }
            },
            "store" => match state.store_by_name(args.account()?, &args.parse()?)? {
                Some((id, record)) => format!("{} {id} created={}", record.name, record.created.get()),
                None => "none".into(),
            },
            "stores" => {
                state.stores(args.account()?, None, 100, |_| true)?.items.iter().map(|(_, store)| format!("{}\n", store.name)).collect()
            }
            "secrets" => {
                let store = store(&args.next()?);
                let (mut names, mut after) = (Vec::new(), None);
                loop {
                    let page = state.secrets(store, after.as_ref(), args.number("page")?.unwrap_or(100) as usize)?;
                    names.push(page.items.iter().map(|(_, record)| record.name.as_str()).collect::<Vec<_>>().join(" "));
                    after = page.next;
                    if after.is_none() {
                        break names.join("\n");
                    }
                }
            }
            "account" => {
                let record = state.account(args.account()?)?.ok_or("no such account")?;
                let previous = record.previous_dek.map(|previous| format!("{} until {}", previous.dek, previous.until.get()));
                let current = record.current_dek.map(|dek| dek.to_string());
                format!("current={} previous={}", current.unwrap_or("-".into()), previous.unwrap_or("-".into()))
            }
            "usage" => {
                let (account, mut text) = (args.account()?, String::new());
                let (usage, quota) = (state.usage(account)?, state.quota(account)?);
                write!(text, "stores={}/{} secrets={}/{}", usage.stores, quota.stores, usage.secrets, quota.secrets)?;
                write!(text, " consumers={}", usage.consumers)?;
                text
            }
            "deleted" => {
                let page = state.deleted_secrets(store(&args.next()?), None, 100)?;
                let line = |(id, record): &(types::SecretId, state::record::DeletedRecord)| {
                    let versions: Vec<_> = record.secret.versions.iter().map(|entry| entry.version.get()).collect();
                    let (name, until) = (&record.secret.name, record.until.get());
                    format!("{name} {id} deleted={} until={until} versions={versions:?} bytes={}\n", record.deleted.get(), record.bytes)
                };
                page.items.iter().map(line).collect()
            }
            "reminder" => match state.reminder(store(&args.next()?), secret(&args.next()?))? {
                Some(record) => format!("{:?} due={:?}", record.reminder, record.due().map(UnixMillis::get)),
                None => "none".into(),
            },
            "overdue" => format!("{:?}", state.overdue(state.last_time(), 100)),
            "limits" => format!("{:?}", state.limits(args.account()?)?),
            "holdings" => format!("{:?}", state.holdings(args.account()?)?),
            "members" => {
                let home = args.key("home").map(|name| account(&name));
                let page = state.members(home, None, 100, |_| true)?;
                let role = |grant: &Grant| format!("{}/{:?}", grant.role.name(), grant.scope);
                let line = |(member, record): &(MemberRef, state::record::MemberRecord)| {
                    let roles: Vec<_> = record.grants.iter().map(role).collect();
                    format!("{member}: {} tokens={:?}\n", roles.join(" "), state.member_tokens(member))
                };
                page.items.iter().map(line).collect()
            }
            "tokens" => {
                let page = state.operators(None, 100, |_| true)?;
                let line = |operator: &state::Operator| {
                    let permission = operator.rights.permission().name();
                    let expires = operator.token.expires.map_or("never".into(), |expires| expires.get().to_string());
                    let (id, holder) = (operator.token.token_id, operator.member().map_or("itself".into(), ToString::to_string));
                    let rights: Vec<_> = operator.rights.grants().iter().map(|g| format!("{}/{:?}", g.role.name(), g.scope)).collect();
                    format!("{id} of {holder}, {permission}, expires {expires}: {}\n", rights.join(" "))
                };
                page.items.iter().map(line).collect()
            }
            "totals" => format!("{:?}", state.totals()?),
            "dek" => {
                let (account, dek) = (args.account()?, dek(&args.next()?));
                let record = state.dek(account, dek)?.ok_or("no such data key")?;
                let epochs: Vec<_> = record.wraps.iter().map(|wrap| wrap.epoch.get()).collect();
                format!("{:?} era={} epochs={epochs:?} uses={}", record.state, record.era, state.dek_uses(account, dek)?)
            }
            "sealing-dek" => match state.sealing_dek(args.account()?, UnixMillis::new(self.world.clock))? {
                SealingDek::Use(dek) => format!("use {}", dek.id),
                SealingDek::Mint { replaces: Some(dek) } => format!("mint, replacing {dek}"),
                SealingDek::Mint { replaces: None } => "mint the first".into(),
            },
            "epochs" => {
                let page = state.all_kek_epochs(None, 100)?;
                let line = |epoch: &state::record::KekEpochRecord| format!("{} {} {:?}\n", epoch.domain, epoch.n, epoch.state);
                page.items.iter().map(line).collect()
            }
            "binding" => match state.binding(&args.consumer()?, &args.parse()?)? {
                Some(binding) => format!("{:?}", binding.target),
                None => "none".into(),
            },
            "bindings" => {
                let page = state.bindings(&args.consumer()?, None, 100, |_| true)?;
                page.items.iter().map(|(name, binding)| format!("{name} {:?}\n", binding.target)).collect()
            }
            "consumer-token" => match state.consumer_by_token(hash(&args.next()?))? {
                Some(record) => {
                    let expires = record.expires.map_or("never".into(), |expires| expires.get().to_string());
                    format!("{} of {} expires {expires}", record.token_id, record.consumer)
                }
                None => "none".into(),
            },
            "jobs" => state.next_job().map_or("none".into(), |job| format!("next {job}")),
            "join-tokens" => {
                let page = state.join_tokens(None, 100)?;
                let line = |token: &state::record::JoinTokenRecord| {
                    let usable = if token.is_usable(state.last_time()) { "usable" } else { "not usable" };
                    let nodes: Vec<_> = token.enrolled.iter().map(|node| node.get()).collect();
                    let uses = token.uses_left;
                    format!("{} {:?} by {} uses left={uses} nodes={nodes:?} {usable}\n", token.token_id, token.role, token.created_by)
                };
                page.items.iter().map(line).collect()
            }
            "trust" => match state.trust()? {
                None => "none".to_owned(),
                Some(trust) => {
                    let former = trust.former.iter().map(|one| {
                        let (keep, by) = (one.keep_until.get(), one.drop_by.map(UnixMillis::get));
                        format!(" former={} keep={keep} by={by:?}", one.number)
                    });
                    let (version, issuing, since) = (trust.version, trust.issuing, trust.since.get());
                    let exposed = trust.exposed.map(UnixMillis::get);
                    format!("version={version} issuing={issuing} since={since} exposed={exposed:?}{}", former.collect::<String>())
                }
            },
            "authority" => {
                let authority = state.authority()?.ok_or("no authority")?;
                format!("{:?}", authority.envelopes.iter().map(|(recipient, _)| recipient).collect::<Vec<_>>())
            }
            "envelopes" => {
                let (node, mut held) = (Recipient::Node(NodeId::new(args.parse()?)), Vec::new());
                for epoch in state.all_kek_epochs(None, 100)?.items {
                    if state.envelope(&epoch.domain, epoch.n, node)?.is_some() {
                        held.push(epoch.n.get());
                    }
                }
                format!("{held:?}")
            }
            "settings" => {
                let settings = state.settings()?.ok_or("no settings")?;
                format!("level={} era={} signers={}", settings.feature_level, settings.dek_era, settings.signer_set)
            }
            "node" => match state.node(NodeId::new(args.parse()?))? {
                Some(node) => {
                    let address = node.address.map_or(String::new(), |address| format!(" at {address}"));
                    format!("{} {:?}{address} revoked={:?}", node.name, node.role, node.revoked.map(UnixMillis::get))
                }
                None => "none".into(),
            },
            "position" => format!("{} at {}", state.position(), state.last_time().get()),
            _ => return Ok(None),
        }))
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
