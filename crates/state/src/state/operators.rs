//! Operators: tokens together with what they allow now.

use types::{AccountId, TokenId};

use super::{Page, State, lists::page};
use crate::{
    Content, Grant, GrantScope, Key, Keyspace, MemberRef, Permission, Prefix, ReadError, Rights, TypedKey,
    limits::Limits,
    propagated::decode_content as decode,
    record::{HoldingsRecord, LimitsRecord, MemberRecord, OperatorTokenRecord, TokenTermsRecord},
};

/// An operator's token, expired or not, and what it allows by the roles as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The token's record. Of a member's token, its own grants are none.
    pub token: OperatorTokenRecord,
    /// What it has beside these.
    pub terms: Option<TokenTermsRecord>,
    /// What it allows.
    pub rights: Rights,
}

impl Operator {
    /// Puts together a token, its terms and the grants of its member, if it has one.
    pub(crate) fn new(token: OperatorTokenRecord, terms: Option<TokenTermsRecord>, member: Option<MemberRecord>) -> Self {
        let rights = match &terms {
            None => Rights::new(Permission::Edit, token.grants.clone(), &[]),
            Some(terms) => {
                let grants = match &terms.member {
                    // One that is gone has no roles.
                    Some(_) => member.map(|member| member.grants).unwrap_or_default(),
                    None => token.grants.clone(),
                };
                Rights::new(terms.permission, grants, &terms.reach)
            }
        };
        Self { token, terms, rights }
    }

    /// The member whose roles it stands for.
    pub fn member(&self) -> Option<&MemberRef> {
        member_of(self.terms.as_ref())
    }

    /// All that one has to administer for managing this token: the home of its member, or the reach of each grant of its own.
    pub fn managed_within(&self) -> Vec<GrantScope> {
        managed_within(&self.token.grants, self.member())
    }
}

pub(crate) fn member_of(terms: Option<&TokenTermsRecord>) -> Option<&MemberRef> {
    terms.and_then(|terms| terms.member.as_ref())
}

pub(crate) fn managed_within(grants: &[Grant], member: Option<&MemberRef>) -> Vec<GrantScope> {
    match member {
        Some(member) => vec![member.home()],
        None => grants.iter().map(|grant| grant.scope).collect(),
    }
}

/// The account whose own a token is: it reaches nothing else.
pub(crate) fn own_account(grants: &[Grant], member: Option<&MemberRef>) -> Option<AccountId> {
    match member {
        Some(member) => member.account,
        None => {
            let mut accounts = grants.iter().map(|grant| grant.scope.account());
            let first = accounts.next().flatten()?;
            accounts.all(|account| account == Some(first)).then_some(first)
        }
    }
}

impl State {
    /// An operator by the SHA-256 of the token; expired or not.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode, as for all here.
    pub fn operator(&self, hash: [u8; 32]) -> Result<Option<Operator>, ReadError> {
        let Some(token) = self.operator_by_token(hash)? else { return Ok(None) };
        let terms = self.token_terms(token.token_id)?;
        let member = match member_of(terms.as_ref()) {
            Some(member) => self.member(member)?,
            None => None,
        };
        Ok(Some(Operator::new(token, terms, member)))
    }

    /// Operators' tokens by public id, those that `keep` lets through.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn operators(&self, after: Option<&Key>, limit: usize, keep: impl Fn(&Operator) -> bool) -> Result<Page<Operator>, ReadError> {
        let all = Prefix::keyspace(Keyspace::OperatorTokenId);
        let records = self.control.scan(all.as_bytes(), after.map(Key::as_bytes));
        page(records, limit, |key, content| Ok(self.operator(decode(key, content)?)?.filter(&keep)))
    }

    /// What a token has beside its own grants.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn token_terms(&self, token: TokenId) -> Result<Option<TokenTermsRecord>, ReadError> {
        self.read_control(TypedKey::TokenTerms { token })
    }

    /// A member.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn member(&self, member: &MemberRef) -> Result<Option<MemberRecord>, ReadError> {
        self.read_control(TypedKey::Member { member: member.clone() })
    }

    /// Members that `keep` lets through: at home in an account, by name; or (none) all members, of the cluster, then of accounts.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn members(
        &self,
        home: Option<AccountId>,
        after: Option<&Key>,
        limit: usize,
        keep: impl Fn(&MemberRef) -> bool,
    ) -> Result<Page<(MemberRef, MemberRecord)>, ReadError> {
        let some = match home {
            Some(account) => Prefix::members(Some(account)),
            None => Prefix::keyspace(Keyspace::Member),
        };
        let records = self.control.scan(some.as_bytes(), after.map(Key::as_bytes));
        page(records, limit, |key: &Key, content: &Content| match key.decode() {
            Ok(TypedKey::Member { member }) if keep(&member) => Ok(Some((member, decode(key, content)?))),
            _ => Ok(None),
        })
    }

    /// The tokens of a member, by id.
    pub fn member_tokens(&self, member: &MemberRef) -> Vec<TokenId> {
        let all = Prefix::member_tokens(member);
        let keys = self.scan_control(&all).map(|(key, _)| key.decode());
        keys.filter_map(|key| match key {
            Ok(TypedKey::MemberToken { token, .. }) => Some(token),
            _ => None,
        })
        .collect()
    }

    /// What bounds an account beside its quota: its own limits, those of the cluster, or the built-in ones.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn limits(&self, account: AccountId) -> Result<Limits, ReadError> {
        let own: LimitsRecord = self.limits_set(Some(account))?;
        let (all, built_in) = (self.limits_set(None)?, Limits::default());
        Ok(Limits {
            tokens: own.tokens.or(all.tokens).unwrap_or(built_in.tokens),
            undelete_window_ms: own.undelete_window_ms.or(all.undelete_window_ms).unwrap_or(built_in.undelete_window_ms),
            undelete_secrets: own.undelete_secrets.or(all.undelete_secrets).unwrap_or(built_in.undelete_secrets),
            undelete_bytes: own.undelete_bytes.or(all.undelete_bytes).unwrap_or(built_in.undelete_bytes),
        })
    }

    /// The limits that were set for an account, or (none) for all that have none of their own.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn limits_set(&self, account: Option<AccountId>) -> Result<LimitsRecord, ReadError> {
        Ok(self.read_control(TypedKey::Limits { account })?.unwrap_or_default())
    }

    /// What an account holds of what these limits bound.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn holdings(&self, account: AccountId) -> Result<HoldingsRecord, ReadError> {
        Ok(self.read_control(TypedKey::Holdings { account: Some(account) })?.unwrap_or_default())
    }
}
