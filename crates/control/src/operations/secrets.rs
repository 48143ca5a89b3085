//! Secrets.

use std::{collections::BTreeSet, sync::Arc};

use state::{PointerMove, ReplyBody, Stage, State, limits::ITEMS_MAX, record::SecretRecord};
use types::{Comment, Position, SecretId, SecretName, StoreId, Version};
use wire::{
    ErrorKind, PublicError,
    parse::{self, FieldError, IdOrName, PageTarget, SecretTarget, StoreTarget},
    v1,
};
use zeroize::Zeroizing;

use super::{after, deleted, next, parsed};
use crate::{
    call::Call,
    core::Core,
    error::{damaged, unexpected},
    resolve, show,
    write::{self, NewItem},
};

/// Refuses a list that is empty or longer than a command takes, before any work is done for it.
fn some(items: usize, when_empty: &str) -> Result<(), FieldError> {
    match items {
        0 => Err(FieldError::new("secrets", when_empty)),
        1..=ITEMS_MAX => Ok(()),
        items => Err(FieldError::too_large("secrets", format_args!("has {items} entries; one call takes {ITEMS_MAX}"))),
    }
}

fn new_item((place, message): (usize, v1::NewSecret)) -> Result<NewItem, FieldError> {
    let (parsed, value) = parse::new_secret(message).map_err(|error| error.under(format_args!("secrets[{place}]")))?;
    Ok(NewItem { name: parsed.name, scopes: parsed.scopes, comment: parsed.comment, value: Zeroizing::new(value) })
}

/// Says of secrets that were not made which name is taken, or how many the account may have: for programs, beside the message.
async fn with_subject(core: &Core, call: &Call, target: &StoreTarget, names: &[SecretName], error: PublicError) -> PublicError {
    if !error.subject.is_empty() || !matches!(error.kind, ErrorKind::AlreadyExists | ErrorKind::QuotaExceeded) {
        return error;
    }
    let kind = error.kind;
    let found = core.find(call, |state, caller| {
        let store = resolve::store(state, caller, target)?;
        if kind == ErrorKind::QuotaExceeded {
            return Ok(Some(state.quota(store.account).map_err(damaged)?.secrets.to_string()));
        }
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name) || state.secret_by_name(store.id, name).map_err(damaged)?.is_some() {
                return Ok(Some(name.to_string()));
            }
        }
        Ok(None)
    });
    match found.await {
        Ok(Some(subject)) => error.about(subject),
        _ => error,
    }
}

/// Makes secrets: all of them, or none.
pub(crate) async fn create(core: Arc<Core>, call: Call, message: v1::CreateSecretsRequest) -> Result<v1::CreateSecretsReply, PublicError> {
    let target: StoreTarget = parsed("store", message.store)?;
    some(message.secrets.len(), "is empty: name at least one secret")?;
    let items = message.secrets.into_iter().enumerate().map(new_item).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<SecretName> = items.iter().map(|item| item.name.clone()).collect();
    let (store, reply) = match write::create_secrets(&core, &call, &target, items, deleted::reminder(message.reminder)).await {
        Err(error) => return Err(with_subject(&core, &call, &target, &names, error).await),
        made => made?,
    };
    let ReplyBody::SecretsCreated { secrets } = reply.body else { return Err(unexpected()) };
    let store = store.map_or(StoreId::from_bytes([0; 16]), |store| store.id);
    let secrets = secrets.into_iter().map(|(id, _)| show::written(&core, store, id, reply.position)).collect::<Result<_, _>>()?;
    Ok(v1::CreateSecretsReply { secrets, receipt: Some(reply.position.into()) })
}

/// Gives a secret a new value.
pub(crate) async fn set_value(core: Arc<Core>, call: Call, message: v1::SetValueRequest) -> Result<v1::SetValueReply, PublicError> {
    let value = Zeroizing::new(message.value);
    parse::value("value", &value)?;
    let target: SecretTarget = parsed("secret", message.secret)?;
    let stage = match v1::Stage::try_from(message.stage) {
        Ok(v1::Stage::Unspecified | v1::Stage::Current) => Stage::Current,
        Ok(v1::Stage::Candidate) => Stage::Candidate,
        Err(_) => return Err(FieldError::new("stage", format_args!("no stage has the number {}", message.stage)).into()),
    };
    let expect = message.expect_version.map(Version::new);
    let scopes = message.scopes.map(|list| parse::scopes("scopes", &list.scopes)).transpose()?;
    let comment: Option<Comment> = message.comment.map(|text| parse::name("comment", text)).transpose()?;
    let (secret, reply) = write::set_value(&core, &call, &target, value, (expect, stage), (scopes, comment)).await?;
    let ReplyBody::ValueSet { version } = reply.body else { return Err(unexpected()) };
    let secret = secret.map(|secret| show::written(&core, secret.store.id, secret.id, reply.position)).transpose()?;
    Ok(v1::SetValueReply { secret, version: version.get(), receipt: Some(reply.position.into()) })
}

/// Changes scopes or comment.
pub(crate) async fn edit(core: Arc<Core>, call: Call, message: v1::EditSecretRequest) -> Result<v1::EditSecretReply, PublicError> {
    let target: SecretTarget = parsed("secret", message.secret)?;
    let scopes = message.scopes.map(|list| parse::scopes("scopes", &list.scopes)).transpose()?;
    let comment: Option<Comment> = message.comment.map(|text| parse::name("comment", text)).transpose()?;
    let reminder = deleted::reminder_edit(message.expires_ms, message.rotate_every_ms);
    let (secret, reply) = write::edit_secret(&core, &call, &target, scopes, comment, reminder).await?;
    let secret = secret.map(|secret| show::written(&core, secret.store.id, secret.id, reply.position)).transpose()?;
    Ok(v1::EditSecretReply { secret, receipt: Some(reply.position.into()) })
}

/// Lists the secrets of a store, by name.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListSecretsRequest) -> Result<v1::ListSecretsReply, PublicError> {
    let target: StoreTarget = parsed("store", message.store)?;
    let page = PageTarget::from(message.page);
    let after = after(&page)?;
    core.read(&call, |state, caller| {
        let store = resolve::store(state, caller, &target)?;
        let found = state.secrets(store.id, after.as_ref(), page.size).map_err(damaged)?;
        let live = core.live_everywhere(state);
        let shown = |(id, record): &(SecretId, SecretRecord)| show::secret(&core, state, *id, record, live, Position::default());
        let secrets = found.items.iter().map(shown).collect::<Result<_, _>>()?;
        Ok(v1::ListSecretsReply { secrets, next_page: next(found.next) })
    })
    .await
}

/// Shows one, without its value.
pub(crate) async fn show(core: Arc<Core>, call: Call, message: v1::ShowSecretRequest) -> Result<v1::Secret, PublicError> {
    let target: SecretTarget = parsed("secret", message.secret)?;
    core.read(&call, |state, caller| {
        let secret = resolve::secret(state, caller, &target)?;
        show::present(&core, state, secret.id, &secret.record)
    })
    .await
}

/// Lists its versions.
pub(crate) async fn versions(core: Arc<Core>, call: Call, message: v1::ListVersionsRequest) -> Result<v1::ListVersionsReply, PublicError> {
    let target: SecretTarget = parsed("secret", message.secret)?;
    core.read(&call, |state: &State, caller| {
        Ok(v1::ListVersionsReply { versions: show::versions(&resolve::secret(state, caller, &target)?.record) })
    })
    .await
}

/// Deletes secrets: all of them, or none.
pub(crate) async fn delete(core: Arc<Core>, call: Call, message: v1::DeleteSecretsRequest) -> Result<v1::DeleteSecretsReply, PublicError> {
    let target: StoreTarget = parsed("store", message.store)?;
    some(message.secrets.len(), "is empty: an empty list never means all")?;
    let one = |(place, text): (usize, String)| IdOrName::<SecretId, SecretName>::parse(&format!("secrets[{place}]"), text);
    let secrets = message.secrets.into_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    let reply = write::delete_secrets(&core, &call, &target, &secrets, message.force).await?;
    Ok(v1::DeleteSecretsReply { receipt: Some(reply.position.into()) })
}

/// Copies a secret under a new name.
pub(crate) async fn duplicate(
    core: Arc<Core>,
    call: Call,
    message: v1::DuplicateSecretRequest,
) -> Result<v1::DuplicateSecretReply, PublicError> {
    let source: SecretTarget = parsed("source", message.source)?;
    let name: SecretName = parse::name("name", message.name)?;
    let scopes = if message.scopes.is_empty() { None } else { Some(parse::scopes("scopes", &message.scopes)?) };
    let comment: Comment = parse::name("comment", message.comment)?;
    let store = source.store.clone().map(|store| StoreTarget { account: source.account.clone(), store });
    let (source, reply) = match write::duplicate(&core, &call, &source, name.clone(), scopes, comment).await {
        Err(error) => {
            return Err(match &store {
                Some(store) => with_subject(&core, &call, store, &[name], error).await,
                None => error,
            });
        }
        made => made?,
    };
    let ReplyBody::SecretsCreated { secrets } = reply.body else { return Err(unexpected()) };
    let (copy, _) = *secrets.first().ok_or_else(unexpected)?;
    let secret = source.map(|source| show::written(&core, source.store.id, copy, reply.position)).transpose()?;
    Ok(v1::DuplicateSecretReply { secret, receipt: Some(reply.position.into()) })
}

/// Rolls back, promotes, reverts.
pub(crate) async fn move_pointer(
    core: Arc<Core>,
    call: Call,
    message: v1::MovePointerRequest,
) -> Result<v1::MovePointerReply, PublicError> {
    let target: SecretTarget = parsed("secret", message.secret)?;
    let to = match v1::PointerMove::try_from(message.r#move) {
        Ok(v1::PointerMove::Rollback) => PointerMove::Rollback { to: Version::new(message.version) },
        Ok(v1::PointerMove::Promote) => PointerMove::Promote,
        Ok(v1::PointerMove::Revert) => PointerMove::Revert,
        Ok(v1::PointerMove::DropCandidate) => PointerMove::DropCandidate,
        Ok(v1::PointerMove::Unspecified) => return Err(FieldError::missing("move").into()),
        Err(_) => return Err(FieldError::new("move", format_args!("no move has the number {}", message.r#move)).into()),
    };
    let (secret, reply) = write::move_pointer(&core, &call, &target, to).await?;
    let secret = secret.map(|secret| show::written(&core, secret.store.id, secret.id, reply.position)).transpose()?;
    Ok(v1::MovePointerReply { secret, receipt: Some(reply.position.into()) })
}
