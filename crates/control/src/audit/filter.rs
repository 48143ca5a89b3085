//! Which entries are asked for, and which of them a caller may see.

use state::{AuditEntry, AuditOutcome, AuditPrincipal, CallRow, CommandKind, GrantScope, NotedPrincipal, Operation, RefusalKind, State};
use types::{AccountId, RequestId, SecretId, SecretName, StoreId, StoreName, TokenId, UnixMillis};
use wire::{
    PublicError,
    parse::{AccountTarget, FieldError, IdOrName, SecretTarget, StoreTarget},
    v1,
};

use crate::{caller::Caller, resolve};

/// What a caller may read of the log: what is about something within one of these reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight(Vec<GrantScope>);

impl Sight {
    /// Of the caller's grants, the reaches of those that allow it.
    pub(crate) fn of(caller: &Caller) -> Self {
        let scopes = caller.grants().iter().map(|grant| grant.scope);
        Self(scopes.filter(|scope| caller.may(Operation::ReadAudit, *scope)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is all there is.
    pub(crate) fn is_whole(&self) -> bool {
        self.covers(GrantScope::Cluster)
    }

    /// Whether what is about `reach` may be seen.
    pub(crate) fn covers(&self, reach: GrantScope) -> bool {
        self.0.iter().any(|scope| scope.covers(reach))
    }
}

/// What an entry or row is about.
fn within(account: Option<AccountId>, store: Option<StoreId>) -> GrantScope {
    match (account, store) {
        (Some(account), Some(store)) => GrantScope::Store(account, store),
        (Some(account), None) => GrantScope::Account(account),
        (None, _) => GrantScope::Cluster,
    }
}

/// What an entry is about: its store, its account, else the cluster.
pub(crate) fn reach(entry: &AuditEntry) -> GrantScope {
    let member = entry.detail.as_ref().and_then(|detail| detail.member.as_ref()).and_then(|member| member.account);
    within(entry.target.account.or(member), entry.target.store)
}

/// How an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Noted,
    Kind(RefusalKind),
}

impl Outcome {
    fn parse(text: &str) -> Result<Self, FieldError> {
        match text {
            "done" => Ok(Self::Done),
            "refused" => Ok(Self::Refused),
            "noted" => Ok(Self::Noted),
            _ => RefusalKind::ALL.into_iter().find(|kind| kind.name() == text).map(Self::Kind).ok_or_else(|| {
                let kinds = RefusalKind::ALL.map(RefusalKind::name).join(", ");
                FieldError::new("filter.outcome", format_args!("must be done, refused, noted or a kind of refusal ({kinds})"))
            }),
        }
    }

    fn fits(self, refused: Option<RefusalKind>) -> bool {
        match self {
            Self::Done => refused.is_none(),
            Self::Refused => refused.is_some(),
            Self::Noted => false,
            Self::Kind(kind) => refused == Some(kind),
        }
    }
}

/// A filter as it was sent, checked.
pub(crate) struct Wanted {
    filter: Filter,
    account: Option<AccountTarget>,
    store: Option<IdOrName<StoreId, StoreName>>,
    secret: Option<IdOrName<SecretId, SecretName>>,
}

/// Which entries; what is none or empty does not matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) since: Option<UnixMillis>,
    pub(crate) before: Option<UnixMillis>,
    actions: Vec<CommandKind>,
    principal: Option<String>,
    token: Option<TokenId>,
    pub(crate) account: Option<AccountId>,
    store: Option<StoreId>,
    secret: Option<SecretId>,
    outcome: Option<Outcome>,
    request: Option<RequestId>,
    origin: Option<String>,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl Wanted {
    pub(crate) fn read(sent: v1::AuditFilter) -> Result<Self, FieldError> {
        let time = |ms: u64| (ms > 0).then(|| UnixMillis::new(ms));
        let action = |name: &String| {
            CommandKind::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
                let kinds: Vec<_> = CommandKind::ALL.iter().map(|kind| kind.name()).collect();
                FieldError::new("filter.actions", format_args!("no action is called {name:?}; there are {}", kinds.join(", ")))
            })
        };
        let filter = Filter {
            since: time(sent.since_ms),
            before: time(sent.before_ms),
            actions: sent.actions.iter().map(action).collect::<Result<_, _>>()?,
            principal: some(sent.principal),
            token: some(sent.token_id).map(|id| wire::parse::id("filter.token_id", &id)).transpose()?,
            outcome: some(sent.outcome).map(|text| Outcome::parse(&text)).transpose()?,
            request: some(sent.request_id).map(|id| wire::parse::id("filter.request_id", &id)).transpose()?,
            origin: some(sent.origin),
            ..Filter::default()
        };
        Ok(Self {
            filter,
            account: AccountTarget::parse_optional("filter.account", sent.account)?,
            store: IdOrName::parse_optional("filter.store", sent.store)?,
            secret: IdOrName::parse_optional("filter.secret", sent.secret)?,
        })
    }

    /// Finds what is named. An id is taken as it is: what had it may be gone, and of what lies beyond the caller's sight there is nothing
    /// to be seen anyway.
    pub(crate) fn resolve(&self, state: &State, caller: &Caller) -> Result<Filter, PublicError> {
        let account = self.account.as_ref().map(|account| resolve::account(state, caller, Some(account))).transpose()?;
        let store = match &self.store {
            Some(IdOrName { id: Some(id), .. }) => Some(*id),
            Some(named) => Some(resolve::store(state, caller, &StoreTarget { account: self.account.clone(), store: named.clone() })?.id),
            None => None,
        };
        let secret = match &self.secret {
            Some(IdOrName { id: Some(id), .. }) => Some(*id),
            Some(named) => {
                let target = SecretTarget { account: self.account.clone(), store: self.store.clone(), secret: named.clone() };
                if target.store.is_none() {
                    return Err(FieldError::new("filter.store", "is missing: a secret is named within its store").into());
                }
                Some(resolve::secret(state, caller, &target)?.id)
            }
            None => None,
        };
        Ok(Filter { account, store, secret, ..self.filter.clone() })
    }
}

/// How a principal is named in a filter.
fn is_called(principal: &AuditPrincipal, name: &str) -> bool {
    match principal {
        AuditPrincipal::Operator { name: own, .. } => own.as_str() == name,
        AuditPrincipal::Node { node } => name.strip_prefix("node:").is_some_and(|id| id == node.to_string()),
        AuditPrincipal::System => name == "system",
        AuditPrincipal::Unknown => name == "unknown",
        AuditPrincipal::RecoveryKey => name == "recovery-key",
    }
}

/// The principal of a row as that of an entry.
pub(crate) fn principal_of(row: &CallRow) -> AuditPrincipal {
    match &row.principal {
        NotedPrincipal::Operator { token, name } => AuditPrincipal::Operator { token: *token, name: name.clone() },
        NotedPrincipal::Node { node } => AuditPrincipal::Node { node: *node },
    }
}

fn holds_token(principal: &AuditPrincipal, wanted: TokenId) -> bool {
    matches!(principal, AuditPrincipal::Operator { token, .. } if *token == wanted)
}

/// Whether something that is asked for is there; nothing is asked for by none.
fn is<T: PartialEq>(wanted: Option<T>, there: Option<T>) -> bool {
    wanted.is_none() || wanted == there
}

impl Filter {
    /// Whether no entry of its time is left out.
    pub(crate) fn is_whole(&self) -> bool {
        self.actions.is_empty()
            && self.principal.is_none()
            && self.token.is_none()
            && self.account.is_none()
            && self.store.is_none()
            && self.secret.is_none()
            && self.outcome.is_none()
            && self.request.is_none()
            && self.origin.is_none()
    }

    /// The entry, if it is asked for and may be seen; of notes of calls, only those rows.
    pub(crate) fn pick(&self, sight: &Sight, mut entry: AuditEntry) -> Option<AuditEntry> {
        if !self.actions.is_empty() && !self.actions.contains(&entry.action) {
            return None;
        }
        if let AuditOutcome::Noted { notes, .. } = &mut entry.outcome {
            let whole = self.is_whole_but_actions() && sight.is_whole();
            notes.rows.retain(|row| sight.covers(within(row.account, row.store)) && self.fits_row(row));
            return (whole || !notes.rows.is_empty()).then_some(entry);
        }
        (sight.covers(reach(&entry)) && self.fits(&entry)).then_some(entry)
    }

    fn is_whole_but_actions(&self) -> bool {
        let only_noted = self.outcome == Some(Outcome::Noted);
        Self { actions: Vec::new(), outcome: self.outcome.filter(|_| !only_noted), ..self.clone() }.is_whole()
    }

    fn fits(&self, entry: &AuditEntry) -> bool {
        let (target, detail) = (&entry.target, entry.detail.as_ref());
        let refused = match &entry.outcome {
            AuditOutcome::Refused { kind, .. } => Some(*kind),
            AuditOutcome::Done { .. } | AuditOutcome::Noted { .. } => None,
        };
        let token = |wanted: TokenId| {
            holds_token(&entry.principal, wanted) || target.token == Some(wanted) || detail.is_some_and(|it| it.replaced == Some(wanted))
        };
        let secret = |wanted: &SecretId| target.secrets.contains(wanted) || target.duplicated_from == Some(*wanted);
        self.principal.as_ref().is_none_or(|name| is_called(&entry.principal, name))
            && self.token.is_none_or(token)
            && is(self.account, target.account)
            && is(self.store, target.store)
            && self.secret.as_ref().is_none_or(secret)
            && self.outcome.is_none_or(|outcome| outcome.fits(refused))
            && is(self.request, entry.request)
            && self.fits_origin(&entry.origin.peer, &entry.origin.request)
    }

    fn fits_row(&self, row: &CallRow) -> bool {
        let principal = principal_of(row);
        self.principal.as_ref().is_none_or(|name| is_called(&principal, name))
            && self.token.is_none_or(|token| holds_token(&principal, token))
            && is(self.account, row.account)
            && is(self.store, row.store)
            && self.secret.is_none()
            && self.outcome.is_none_or(|outcome| outcome == Outcome::Noted || outcome.fits(row.refused))
            && self.request.is_none()
            && self.fits_origin(&row.peer, &row.request)
    }

    fn fits_origin(&self, peer: &str, label: &str) -> bool {
        self.origin.as_ref().is_none_or(|origin| peer.starts_with(origin.as_str()) || label == origin)
    }
}
