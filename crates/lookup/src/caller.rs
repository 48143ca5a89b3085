//! Who is calling: what a connection and a bearer token prove, and whom that stands for in a given root.
//!
//! A [`Caller`] is made by [`Authenticator::caller`] alone. It holds the proof, not its outcome: each lookup asks the root that it reads
//! whom the proof stands for now, so a token that was revoked, has expired, or whose consumer is gone stops working with the next root.
//!
//! **Invariants**
//! 1. A certificate identity and a uid come from the transport ([`Connection`]), never from anything the peer sends.
//! 2. A token is kept as its hash; its text is dropped when parsed.

use std::fmt;

use seal::ConsumerToken;
use seams::mutation::{self, Mutation};
use state::Propagated;
use types::{AccountId, ConsumerKind, ConsumerName, ConsumerRef, UnixMillis};
use wire::parse::ConsumerTarget;

use crate::LookupError;

/// What the transport proved about a connection. The server puts it into the request's extensions; absent means that nothing was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// The consumer that the peer's verified certificate names (`spiffe://CLUSTER/account/A/KIND/NAME`).
    pub identity: Option<ConsumerRef>,
    /// When that certificate ends. A connection may outlive it; what it proves does not.
    pub not_after: Option<UnixMillis>,
    /// The uid of the process at the other end of a UNIX socket, as the kernel tells it.
    pub uid: Option<u32>,
}

/// Which consumers of an account a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPattern {
    /// All.
    Any,
    /// All of one kind.
    Kind(ConsumerKind),
    /// One.
    One(ConsumerKind, ConsumerName),
}

impl PeerPattern {
    fn fits(&self, wanted: &ConsumerTarget) -> bool {
        match self {
            Self::Any => true,
            Self::Kind(kind) => *kind == wanted.kind,
            Self::One(kind, name) => *kind == wanted.kind && *name == wanted.name,
        }
    }
}

/// One line of the edge's configuration: processes of `uid` may act as the consumers of `account` that fit `pattern`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// The uid.
    pub uid: u32,
    /// The account.
    pub account: AccountId,
    /// Which consumers.
    pub pattern: PeerPattern,
}

/// All rules for peers of the UNIX socket, in the order of the configuration. Empty: a uid alone proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRules(Vec<PeerRule>);

impl PeerRules {
    /// Takes the rules.
    pub fn new(rules: Vec<PeerRule>) -> Self {
        Self(rules)
    }

    /// The consumer that `uid` acts as.
    fn consumer(&self, uid: u32, wanted: Option<&ConsumerTarget>) -> Result<ConsumerRef, LookupError> {
        let mine = || self.0.iter().filter(|rule| rule.uid == uid);
        let not_mapped = || LookupError::PeerNotMapped { uid, wanted: wanted.map_or_else(|| "any consumer".to_owned(), shown) };
        if let Some(wanted) = wanted {
            // An account by name is compared once there is a state that knows its name.
            let account = wanted.account.as_ref().and_then(|account| account.id);
            let allows = |rule: &&PeerRule| account.is_none_or(|account| account == rule.account) && rule.pattern.fits(wanted);
            let mut accounts: Vec<_> = mine().filter(allows).map(|rule| rule.account).collect();
            accounts.sort();
            accounts.dedup();
            return match accounts[..] {
                [] => Err(not_mapped()),
                [account] => Ok(ConsumerRef { account, kind: wanted.kind, name: wanted.name.clone() }),
                _ => Err(LookupError::PeerAmbiguous { uid }),
            };
        }
        let mut rules = mine();
        match (rules.next(), rules.next()) {
            (None, _) => Err(not_mapped()),
            (Some(PeerRule { account, pattern: PeerPattern::One(kind, name), .. }), None) => {
                Ok(ConsumerRef { account: *account, kind: *kind, name: name.clone() })
            }
            _ => Err(LookupError::PeerAmbiguous { uid }),
        }
    }
}

/// Makes callers.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {
    peers: PeerRules,
}

/// Who calls, as authentication has proved it. Made by [`Authenticator::caller`] alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    proof: Proof,
    wanted: Option<ConsumerTarget>,
}

#[derive(Clone, PartialEq, Eq)]
enum Proof {
    /// Who sends the token whose SHA-256 this is.
    Token([u8; 32]),
    /// A consumer that the transport proved: by certificate, which may end, or by uid and configuration.
    Consumer { consumer: ConsumerRef, not_after: Option<UnixMillis> },
}

/// The proof is left out: a hash of a token is of no use in a log.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proof {
            Proof::Token(_) => f.write_str("Caller(token)"),
            Proof::Consumer { consumer, .. } => write!(f, "Caller({consumer})"),
        }
    }
}

impl Authenticator {
    /// Authenticates with these rules for uids.
    pub fn new(peers: PeerRules) -> Self {
        Self { peers }
    }

    /// Takes what the connection proves and the bearer token (the text after `Bearer `), the strongest first: a token, a certificate, a uid.
    /// A token that is sent decides alone, also when it is bad: falling back to another identity would hide a mistake.
    ///
    /// # Errors
    /// [`LookupError::Unauthenticated`] when nothing is proved, [`LookupError::NotAToken`], [`LookupError::PeerNotMapped`],
    /// [`LookupError::PeerAmbiguous`]. Whether the proof stands for `wanted` is said by each lookup.
    pub fn caller(&self, connection: &Connection, bearer: Option<&str>, wanted: Option<ConsumerTarget>) -> Result<Caller, LookupError> {
        let proof = match (bearer, &connection.identity, connection.uid) {
            (Some(text), _, _) => Proof::Token(token_hash(text)?),
            (None, Some(identity), _) => Proof::Consumer { consumer: identity.clone(), not_after: connection.not_after },
            (None, None, Some(uid)) => Proof::Consumer { consumer: self.peers.consumer(uid, wanted.as_ref())?, not_after: None },
            (None, None, None) => return Err(LookupError::Unauthenticated),
        };
        Ok(Caller { proof, wanted })
    }
}

impl Caller {
    /// The consumer that the proof stands for in `state` at the time `now`.
    ///
    /// # Errors
    /// [`LookupError::Revoked`] when it stands for nobody, [`LookupError::OtherConsumer`] when the request named another.
    pub(crate) fn consumer(&self, state: &Propagated, now: UnixMillis) -> Result<ConsumerRef, LookupError> {
        let revoked = |what: String| LookupError::Revoked { what, position: state.position() };
        let consumer = match &self.proof {
            Proof::Consumer { consumer, not_after } => {
                if not_after.is_some_and(|end| end <= now) {
                    return Err(revoked("the certificate of this connection has expired".to_owned()));
                }
                consumer.clone()
            }
            Proof::Token(hash) => {
                let ignored = mutation::is_on(Mutation::RevocationIgnored);
                let Some(token) = state.consumer_by_token(*hash)? else {
                    return self.named().filter(|_| ignored).ok_or_else(|| revoked("this token is unknown".to_owned()));
                };
                if token.expires.is_some_and(|expires| expires <= now) && !ignored {
                    return Err(revoked("this token has expired".to_owned()));
                }
                token.consumer
            }
        };
        if let Some(wanted) = &self.wanted
            && !names(wanted, &consumer, state)?
        {
            return Err(LookupError::OtherConsumer { proven: consumer, wanted: shown(wanted) });
        }
        state.consumer(&consumer)?.ok_or_else(|| revoked(format!("{consumer} does not exist")))?;
        Ok(consumer)
    }

    /// The consumer that the connection proves, or that the request itself names by the id of its account. For mutations.
    pub(crate) fn named(&self) -> Option<ConsumerRef> {
        if let Proof::Consumer { consumer, .. } = &self.proof {
            return Some(consumer.clone());
        }
        let wanted = self.wanted.as_ref()?;
        Some(ConsumerRef { account: wanted.account.as_ref()?.id?, kind: wanted.kind, name: wanted.name.clone() })
    }

    /// When the credential ends, if it does.
    pub(crate) fn expires(&self, state: &Propagated) -> Result<Option<UnixMillis>, LookupError> {
        match &self.proof {
            Proof::Consumer { not_after, .. } => Ok(*not_after),
            Proof::Token(hash) => Ok(state.consumer_by_token(*hash)?.and_then(|token| token.expires)),
        }
    }
}

/// Whether the request means this consumer.
fn names(wanted: &ConsumerTarget, consumer: &ConsumerRef, state: &Propagated) -> Result<bool, LookupError> {
    if wanted.kind != consumer.kind || wanted.name != consumer.name {
        return Ok(false);
    }
    let Some(account) = &wanted.account else { return Ok(true) };
    if account.id.is_some() || account.name.is_none() {
        return Ok(account.id == Some(consumer.account));
    }
    Ok(state.account(consumer.account)?.is_some_and(|record| Some(&record.name) == account.name.as_ref()))
}

fn shown(wanted: &ConsumerTarget) -> String {
    let account = wanted.account.as_ref().map(|account| format!(" of account {account}")).unwrap_or_default();
    format!("{}/{}{account}", wanted.kind, wanted.name)
}

fn token_hash(text: &str) -> Result<[u8; 32], LookupError> {
    let token = ConsumerToken::parse(text).map_err(|error| LookupError::NotAToken { reason: error.to_string() })?;
    Ok(token.hash())
}
