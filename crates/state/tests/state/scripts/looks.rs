//! What lines of a script show that only look.

use std::fmt::Write as _;

use goldenscript::Command as Line;
use state::{Grant, MemberRef, Recipient, SealingDek};
use types::{NodeId, UnixMillis, Version};

use super::{Args, Failure, Script};
use crate::world::{account, dek, hash, secret, store};

impl Script {
    /// What lines that only look have to show.
    pub(super) fn look(&self, line: &Line, args: &mut Args<'_>) -> Result<Option<String>, Failure> {
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
}
