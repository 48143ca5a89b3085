//! `consumer`.

use std::time::Duration;

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, failed, or_dash, time, time_or_none};
use crate::{ConsumerCommand, ConsumerTokenCommand, Failure};

#[derive(Serialize)]
struct Row {
    consumer: String,
    account_id: String,
    created: String,
}

impl From<v1::Consumer> for Row {
    fn from(consumer: v1::Consumer) -> Self {
        let kind = wire::parse::consumer_kind("kind", consumer.kind).map_or("unknown", types::ConsumerKind::name);
        Self { consumer: format!("{kind}/{}", consumer.name), account_id: consumer.account_id, created: time(consumer.created_ms) }
    }
}

#[derive(Serialize)]
struct TokenRow {
    token_id: String,
    token: String,
    expires: Option<String>,
}

/// A token as it is listed: its text was shown once, and is kept nowhere.
#[derive(Serialize)]
struct ListedToken {
    token_id: String,
    created: String,
    expires: Option<String>,
}

pub(super) async fn run(session: &Session, command: ConsumerCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        ConsumerCommand::Create { consumer } => {
            let request = v1::CreateConsumerRequest { consumer: Some(session.consumer(&consumer)?), ..Default::default() };
            let row = Row::from(client.create_consumer(request).await.map_err(failed)?.consumer.unwrap_or_default());
            session.out.record(&row, &[("consumer", row.consumer.clone()), ("created", row.created.clone())])
        }
        ConsumerCommand::List => {
            let account = session.account()?;
            let consumers = all_pages(|page| {
                let request = v1::ListConsumersRequest { account: account.clone(), page: Some(page) };
                async { client.list_consumers(request).await.map(|reply| (reply.consumers, reply.next_page)) }
            });
            let rows: Vec<Row> = consumers.await?.into_iter().map(Row::from).collect();
            session.out.rows(&["consumer", "created"], &rows, |row| vec![row.consumer.clone(), row.created.clone()])
        }
        ConsumerCommand::Delete { consumer, yes, wait } => {
            session.confirm(&format!("deleting consumer {consumer} with its bindings and tokens"), yes)?;
            let request = v1::DeleteConsumerRequest { consumer: Some(session.consumer(&consumer)?), ..Default::default() };
            let reply = client.delete_consumer(request).await.map_err(failed)?;
            session.out.say(&format!("deleted {consumer}"));
            session.wait_if(wait, &client, reply.receipt).await
        }
        ConsumerCommand::Token(command) => token(session, &client, command).await,
    }
}

async fn token(session: &Session, client: &client::Client, command: ConsumerTokenCommand) -> Result<(), Failure> {
    match command {
        ConsumerTokenCommand::Create { consumer, expires_in, wait } => {
            let lifetime_ms = millis(expires_in);
            let request =
                v1::CreateConsumerTokenRequest { consumer: Some(session.consumer(&consumer)?), lifetime_ms, ..Default::default() };
            shown_once(session, client, client.create_consumer_token(request).await.map_err(failed)?, wait).await
        }
        ConsumerTokenCommand::Roll { consumer, token, grace, wait } => {
            let request = v1::RollConsumerTokenRequest {
                consumer: Some(session.consumer(&consumer)?),
                token_id: token,
                grace_ms: millis(grace),
                ..Default::default()
            };
            shown_once(session, client, client.roll_consumer_token(request).await.map_err(failed)?, wait).await
        }
        ConsumerTokenCommand::Revoke { consumer, token, wait } => {
            let request = v1::RevokeConsumerTokenRequest {
                consumer: Some(session.consumer(&consumer)?),
                token_id: token.clone(),
                ..Default::default()
            };
            let reply = client.revoke_consumer_token(request).await.map_err(failed)?;
            session.out.say(&format!("revoked {token}; edges refuse it with the next position"));
            session.wait_if(wait, client, reply.receipt).await
        }
        ConsumerTokenCommand::List { consumer } => {
            let request = v1::ListConsumerTokensRequest { consumer: Some(session.consumer(&consumer)?) };
            let tokens = client.list_consumer_tokens(request).await.map_err(failed)?.tokens;
            let row = |token: v1::ConsumerToken| ListedToken {
                token_id: token.token_id,
                created: time(token.created_ms),
                expires: time_or_none(token.expires_ms),
            };
            let rows: Vec<ListedToken> = tokens.into_iter().map(row).collect();
            session.out.rows(&["token id", "created", "expires"], &rows, |row| {
                vec![row.token_id.clone(), row.created.clone(), or_dash(row.expires.as_deref().unwrap_or_default())]
            })
        }
    }
}

/// A duration as the wire has it; none is 0.
fn millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

async fn shown_once(session: &Session, client: &client::Client, reply: v1::ConsumerTokenReply, wait: bool) -> Result<(), Failure> {
    let row = TokenRow { token_id: reply.token_id, token: reply.token, expires: time_or_none(reply.expires_ms) };
    let expires = or_dash(row.expires.as_deref().unwrap_or_default());
    session.out.record(&row, &[("token id", row.token_id.clone()), ("token", row.token.clone()), ("expires", expires)])?;
    session.out.say("keep it now: it is not shown again");
    session.wait_if(wait, client, reply.receipt).await
}
