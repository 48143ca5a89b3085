//! What an operator and a consumer do, in few words.

use std::time::Duration;

use client::{Client, ClientError};
use types::Position;
use wire::v1;

use super::PATIENCE;

/// The store that [`Operator::found`] makes.
pub const STORE: &str = "default";
/// The consumer that it makes: `worker/web`.
pub const CONSUMER: &str = "web";
pub(super) const ACCOUNT_NAME: &str = "shop";
pub(super) const CONTEXT: &str = "test";

/// A client of the control node.
#[derive(Clone)]
pub struct Operator {
    /// For what has no word here.
    pub client: Client,
    account: String,
}

impl Operator {
    pub(super) fn new(client: Client, account: &str) -> Self {
        Self { client, account: account.to_owned() }
    }

    /// The account, its store and its consumer.
    ///
    /// # Panics
    /// When one of them is refused.
    pub async fn found(&self) {
        let account = v1::CreateAccountRequest { name: ACCOUNT_NAME.into(), id: self.account.clone(), ..Default::default() };
        self.client.create_account(account).await.expect("an account");
        let store = v1::CreateStoreRequest { account: self.account.clone(), name: STORE.into(), ..Default::default() };
        self.client.create_store(store).await.expect("a store");
        self.consumer(v1::ConsumerKind::Worker, CONSUMER).await;
    }

    /// A new consumer.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn consumer(&self, kind: v1::ConsumerKind, name: &str) {
        let request = v1::CreateConsumerRequest { consumer: Some(consumer_ref(&self.account, kind, name)), ..Default::default() };
        self.client.create_consumer(request).await.expect("a consumer");
    }

    /// The store's name on the wire.
    pub fn store(&self) -> v1::StoreRef {
        v1::StoreRef { account: self.account.clone(), store: STORE.into() }
    }

    /// A secret's name on the wire.
    pub fn secret(&self, name: &str) -> v1::SecretRef {
        v1::SecretRef { account: self.account.clone(), store: STORE.into(), secret: name.into() }
    }

    /// The usual consumer's name on the wire.
    pub fn web(&self) -> v1::ConsumerRef {
        consumer_ref(&self.account, v1::ConsumerKind::Worker, CONSUMER)
    }

    /// Makes a secret that workers may read.
    ///
    /// # Errors
    /// [`ClientError`] of the server.
    pub async fn try_create(&self, name: &str, value: &[u8]) -> Result<Position, ClientError> {
        let item = v1::NewSecret { name: name.into(), value: value.into(), scopes: vec!["workers".into()], comment: String::new() };
        let request = v1::CreateSecretsRequest { store: Some(self.store()), secrets: vec![item], ..Default::default() };
        Ok(position(self.client.create_secrets(request).await?.receipt))
    }

    /// Makes a secret that workers may read, bound to the usual consumer under its own name.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn create_bound(&self, name: &str, value: &[u8]) -> Position {
        self.try_create(name, value).await.expect("a secret");
        self.bind(name, name).await
    }

    /// Gives a secret a new value.
    ///
    /// # Errors
    /// [`ClientError`] of the server.
    pub async fn try_set(&self, name: &str, value: &[u8]) -> Result<(u64, Position), ClientError> {
        let request = v1::SetValueRequest { secret: Some(self.secret(name)), value: value.into(), ..Default::default() };
        let reply = self.client.set_value(request).await?;
        Ok((reply.version, position(reply.receipt)))
    }

    /// Gives a secret a new value.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn set(&self, name: &str, value: &[u8]) -> (u64, Position) {
        self.try_set(name, value).await.expect("a new value")
    }

    /// Binds a secret to the usual consumer.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn bind(&self, variable: &str, secret: &str) -> Position {
        let target = v1::bind_request::Target::Secret(self.secret(secret));
        let request = v1::BindRequest { consumer: Some(self.web()), name: variable.into(), target: Some(target), ..Default::default() };
        position(self.client.bind(request).await.expect("a binding").receipt)
    }

    /// Takes a binding of the usual consumer away.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn unbind(&self, variable: &str) -> Position {
        let request = v1::UnbindRequest { consumer: Some(self.web()), name: variable.into(), ..Default::default() };
        position(self.client.unbind(request).await.expect("no binding").receipt)
    }

    /// Deletes a secret, bound or not.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn delete(&self, name: &str) -> Position {
        let request = v1::DeleteSecretsRequest { store: Some(self.store()), secrets: vec![name.into()], force: true, ..Default::default() };
        position(self.client.delete_secrets(request).await.expect("no secret").receipt)
    }

    /// A token of the usual consumer: its id and its text.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn consumer_token(&self) -> (String, String) {
        let request = v1::CreateConsumerTokenRequest { consumer: Some(self.web()), ..Default::default() };
        let reply = self.client.create_consumer_token(request).await.expect("a token");
        (reply.token_id, reply.token)
    }

    /// Waits until every edge holds `position`.
    ///
    /// # Panics
    /// When they do not come so far in time.
    pub async fn live(&self, position: Position) {
        let reply = self.client.wait_live(position, PATIENCE).await.expect("an answer");
        assert_eq!(reply.edges_live, reply.edges_known, "behind {position} are: {:?}", reply.behind);
    }
}

/// The usual consumer at one edge.
#[derive(Clone)]
pub struct Reader {
    /// For what has no word here.
    pub client: Client,
    account: String,
}

impl Reader {
    /// The usual consumer, with this client.
    pub fn new(client: Client, account: &str) -> Self {
        Self { client, account: account.to_owned() }
    }

    /// The request for a binding's value.
    pub fn request(&self, binding: &str) -> v1::GetRequest {
        v1::GetRequest {
            consumer: Some(consumer_ref(&self.account, v1::ConsumerKind::Worker, CONSUMER)),
            wanted: Some(v1::Wanted { binding: binding.into(), ..Default::default() }),
            freshness: None,
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// [`ClientError`] of the edge.
    pub async fn get(&self, binding: &str) -> Result<v1::Found, ClientError> {
        self.client.get(self.request(binding)).await
    }

    /// Reads from a state at `position` or later.
    ///
    /// # Errors
    /// [`ClientError`] of the edge.
    pub async fn get_at(&self, binding: &str, position: Position) -> Result<v1::Found, ClientError> {
        let freshness = v1::Freshness { min_position: Some(position.into()), max_age_ms: None };
        self.client.get(v1::GetRequest { freshness: Some(freshness), ..self.request(binding) }).await
    }

    /// Reads from a state that is at most so old.
    ///
    /// # Errors
    /// [`ClientError`] of the edge.
    pub async fn get_within(&self, binding: &str, max_age: Duration) -> Result<v1::Found, ClientError> {
        let max_age_ms = u64::try_from(max_age.as_millis()).expect("a short time");
        let freshness = v1::Freshness { min_position: None, max_age_ms: Some(max_age_ms) };
        self.client.get(v1::GetRequest { freshness: Some(freshness), ..self.request(binding) }).await
    }
}

/// A consumer's name on the wire.
pub fn consumer_ref(account: &str, kind: v1::ConsumerKind, name: &str) -> v1::ConsumerRef {
    v1::ConsumerRef { account: account.into(), kind: kind.into(), name: name.into() }
}

fn position(receipt: Option<v1::Receipt>) -> Position {
    receipt.and_then(|receipt| receipt.position).map(Position::from).expect("a receipt names a position")
}
