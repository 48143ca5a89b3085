//! `Secrets`.

use state::{PointerMove, ReplyBody, Stage, State, limits::ITEMS_MAX, record::SecretRecord};
use tonic::{Request, Response, Status, async_trait};
use types::{Comment, Position, SecretId, SecretName, StoreId, Version};
use wire::{
    parse::{self, FieldError, IdOrName, PageTarget, SecretTarget, StoreTarget},
    v1,
};
use zeroize::Zeroizing;

use super::{Services, after, next, parsed};
use crate::{
    call::{change, read},
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

#[async_trait]
impl v1::secrets_server::Secrets for Services {
    async fn create(&self, request: Request<v1::CreateSecretsRequest>) -> Result<Response<v1::CreateSecretsReply>, Status> {
        change(&self.0, "secrets.create", request, async |core, call, message| {
            let target: StoreTarget = parsed("store", message.store)?;
            some(message.secrets.len(), "is empty: name at least one secret")?;
            let items = message.secrets.into_iter().enumerate().map(new_item).collect::<Result<Vec<_>, _>>()?;
            let (store, reply) = write::create_secrets(&core, &call, &target, items).await?;
            let ReplyBody::SecretsCreated { secrets } = reply.body else { return Err(unexpected()) };
            let store = store.map_or(StoreId::from_bytes([0; 16]), |store| store.id);
            let secrets = secrets.into_iter().map(|(id, _)| show::written(&core, store, id, reply.position)).collect::<Result<_, _>>()?;
            Ok(v1::CreateSecretsReply { secrets, receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn set_value(&self, request: Request<v1::SetValueRequest>) -> Result<Response<v1::SetValueReply>, Status> {
        change(&self.0, "secrets.set_value", request, async |core, call, message| {
            let value = Zeroizing::new(message.value);
            parse::value("value", &value)?;
            let target: SecretTarget = parsed("secret", message.secret)?;
            let stage = match v1::Stage::try_from(message.stage) {
                Ok(v1::Stage::Unspecified | v1::Stage::Current) => Stage::Current,
                Ok(v1::Stage::Candidate) => Stage::Candidate,
                Err(_) => return Err(FieldError::new("stage", format_args!("no stage has the number {}", message.stage)).into()),
            };
            let expect = message.expect_version.map(Version::new);
            let (secret, reply) = write::set_value(&core, &call, &target, value, expect, stage).await?;
            let ReplyBody::ValueSet { version } = reply.body else { return Err(unexpected()) };
            let secret = secret.map(|secret| show::written(&core, secret.store.id, secret.id, reply.position)).transpose()?;
            Ok(v1::SetValueReply { secret, version: version.get(), receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn edit(&self, request: Request<v1::EditSecretRequest>) -> Result<Response<v1::EditSecretReply>, Status> {
        change(&self.0, "secrets.edit", request, async |core, call, message| {
            let target: SecretTarget = parsed("secret", message.secret)?;
            let scopes = message.scopes.map(|list| parse::scopes("scopes", &list.scopes)).transpose()?;
            let comment: Option<Comment> = message.comment.map(|text| parse::name("comment", text)).transpose()?;
            let (secret, reply) = write::edit_secret(&core, &call, &target, scopes, comment).await?;
            let secret = secret.map(|secret| show::written(&core, secret.store.id, secret.id, reply.position)).transpose()?;
            Ok(v1::EditSecretReply { secret, receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListSecretsRequest>) -> Result<Response<v1::ListSecretsReply>, Status> {
        read(&self.0, "secrets.list", request, async |core, call, message| {
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
        })
        .await
    }

    async fn show(&self, request: Request<v1::ShowSecretRequest>) -> Result<Response<v1::Secret>, Status> {
        read(&self.0, "secrets.show", request, async |core, call, message| {
            let target: SecretTarget = parsed("secret", message.secret)?;
            core.read(&call, |state, caller| {
                let secret = resolve::secret(state, caller, &target)?;
                show::present(&core, state, secret.id, &secret.record)
            })
            .await
        })
        .await
    }

    async fn versions(&self, request: Request<v1::ListVersionsRequest>) -> Result<Response<v1::ListVersionsReply>, Status> {
        read(&self.0, "secrets.versions", request, async |core, call, message| {
            let target: SecretTarget = parsed("secret", message.secret)?;
            core.read(&call, |state: &State, caller| {
                Ok(v1::ListVersionsReply { versions: show::versions(&resolve::secret(state, caller, &target)?.record) })
            })
            .await
        })
        .await
    }

    async fn delete(&self, request: Request<v1::DeleteSecretsRequest>) -> Result<Response<v1::DeleteSecretsReply>, Status> {
        change(&self.0, "secrets.delete", request, async |core, call, message| {
            let target: StoreTarget = parsed("store", message.store)?;
            some(message.secrets.len(), "is empty: an empty list never means all")?;
            let one = |(place, text): (usize, String)| IdOrName::<SecretId, SecretName>::parse(&format!("secrets[{place}]"), text);
            let secrets = message.secrets.into_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
            let reply = write::delete_secrets(&core, &call, &target, &secrets, message.force).await?;
            Ok(v1::DeleteSecretsReply { receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn duplicate(&self, request: Request<v1::DuplicateSecretRequest>) -> Result<Response<v1::DuplicateSecretReply>, Status> {
        change(&self.0, "secrets.duplicate", request, async |core, call, message| {
            let source: SecretTarget = parsed("source", message.source)?;
            let name: SecretName = parse::name("name", message.name)?;
            let scopes = if message.scopes.is_empty() { None } else { Some(parse::scopes("scopes", &message.scopes)?) };
            let comment: Comment = parse::name("comment", message.comment)?;
            let (source, reply) = write::duplicate(&core, &call, &source, name, scopes, comment).await?;
            let ReplyBody::SecretsCreated { secrets } = reply.body else { return Err(unexpected()) };
            let (copy, _) = *secrets.first().ok_or_else(unexpected)?;
            let secret = source.map(|source| show::written(&core, source.store.id, copy, reply.position)).transpose()?;
            Ok(v1::DuplicateSecretReply { secret, receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn move_pointer(&self, request: Request<v1::MovePointerRequest>) -> Result<Response<v1::MovePointerReply>, Status> {
        change(&self.0, "secrets.move_pointer", request, async |core, call, message| {
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
        })
        .await
    }
}
