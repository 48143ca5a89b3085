//! The arguments of a script's line, and what is written in them.

use std::error::Error;

use goldenscript::ArgumentConsumer;
use state::{
    AuthorityShare, CommandBody, EnrolNode, Grant, GrantScope, MemberRef, NewSignerSet, NodeEnvelope, Permission, Recipient, Role,
    RotateAuthority, TokenHolder,
    record::{AuthorityRecord, EnvelopeRecord, MemberKey, NodeRole, SetSignature},
};
use types::{AccountId, ConsumerRef, KekEpoch, KeyDomain, NodeId, StoreId, UnixMillis, Version};

use super::Failure;
use crate::world::{account, hash, new_node, store, token};

/// The arguments of a line, each taken by name and parsed.
pub(super) struct Args<'a>(pub(super) ArgumentConsumer<'a>);

impl Args<'_> {
    pub(super) fn next(&mut self) -> Result<String, Failure> {
        Ok(self.0.next_pos().ok_or("an argument is missing")?.value.clone())
    }

    pub(super) fn key(&mut self, key: &str) -> Option<String> {
        self.0.lookup(key).map(|argument| argument.value.clone())
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<u64>, Failure> {
        Ok(self.key(key).map(|text| text.parse()).transpose()?)
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        self.key(key).is_some_and(|value| value == "yes")
    }

    pub(super) fn rest(&mut self) -> Vec<String> {
        self.0.rest_pos().iter().map(|argument| argument.value.clone()).collect()
    }

    pub(super) fn parse<T: std::str::FromStr<Err: Error + 'static>>(&mut self) -> Result<T, Failure> {
        Ok(self.next()?.parse()?)
    }

    pub(super) fn version(&mut self, key: &str) -> Result<Option<Version>, Failure> {
        Ok(self.number(key)?.map(Version::new))
    }

    pub(super) fn time(&mut self, key: &str, now: u64) -> Result<Option<UnixMillis>, Failure> {
        let after = self.key(key).map(|text| duration(&text)).transpose()?;
        Ok(after.map(|after| UnixMillis::new(now + after)))
    }

    pub(super) fn account(&mut self) -> Result<AccountId, Failure> {
        Ok(account(&self.next()?))
    }

    pub(super) fn at(&mut self) -> Result<(AccountId, StoreId), Failure> {
        Ok((self.account()?, store(&self.next()?)))
    }

    pub(super) fn consumer(&mut self) -> Result<ConsumerRef, Failure> {
        let account = self.account()?;
        Ok(ConsumerRef::parse(account, &self.next()?)?)
    }
}

pub(super) fn duration(text: &str) -> Result<u64, Failure> {
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

pub(super) fn grants(texts: &[String]) -> Result<Vec<Grant>, Failure> {
    texts.iter().map(|text| grant(text)).collect()
}

/// `ROLE[/ACCOUNT[/STORE]]`.
pub(super) fn grant(text: &str) -> Result<Grant, Failure> {
    let (role, rest) = text.split_once('/').unwrap_or((text, ""));
    Ok(Grant { role: Role::from_name(role).ok_or("unknown role")?, scope: scope(rest) })
}

/// `ACCOUNT[/STORE]`; nothing, or `all`, is the cluster.
pub(super) fn scope(text: &str) -> GrantScope {
    match text.split_once('/') {
        None if text.is_empty() || text == "all" => GrantScope::Cluster,
        None => GrantScope::Account(account(text)),
        Some((a, s)) => GrantScope::Store(account(a), store(s)),
    }
}

/// `[ACCOUNT/]NAME`.
pub(super) fn member(text: &str) -> Result<MemberRef, Failure> {
    let (home, name) = text.split_once('/').map_or((None, text), |(home, name)| (Some(account(home)), name));
    Ok(MemberRef { account: home, name: name.parse()? })
}

/// `create-token-with NAME PERMISSION [member=[ACCOUNT/]NAME] [reach=ACCOUNT/STORE,...] [expires=] [GRANT...]`.
pub(super) fn create_token_with(args: &mut Args<'_>, now: u64) -> Result<CommandBody, Failure> {
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

pub(super) fn role(name: &str) -> NodeRole {
    match name {
        "control" => NodeRole::Control,
        "relay" => NodeRole::Relay,
        _ => NodeRole::Edge,
    }
}

/// `VERSION/SIGNER/MEMBER,MEMBER`.
pub(super) fn signer_set(spec: &str) -> Result<NewSignerSet, Failure> {
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
pub(super) fn rotate_authority(args: &mut Args<'_>) -> Result<CommandBody, Failure> {
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
pub(super) fn enrol(args: &mut Args<'_>) -> Result<CommandBody, Failure> {
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
