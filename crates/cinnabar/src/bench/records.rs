//! What is looked up and written: one account and store, secrets, and one consumer to whom each secret is bound.

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use client::Client;
use indicatif::ProgressBar;
use runtime::OsEntropy;
use seams::Entropy;
use types::Position;
use wire::v1;

use crate::cluster::Cluster;

const STORE: &str = "bench";
const READER: &str = "bench";
/// Connections for making records.
const CONNECTIONS: usize = 4;
/// Calls at once for making records.
const AT_ONCE: usize = 64;
/// Secrets made by one call.
pub(super) const SECRETS_A_CALL: u32 = 200;
/// How long all edges may take to hold what was made.
const LIVE_WITHIN: Duration = Duration::from_secs(300);

/// What there is.
#[derive(Clone)]
pub(super) struct Records {
    operator: Client,
    account: Arc<str>,
    value_bytes: u32,
}

impl Records {
    /// Makes `secrets` secrets with values of `value_bytes` random bytes.
    pub(super) async fn make(cluster: &Cluster, secrets: u32, value_bytes: u32, bar: &ProgressBar) -> Result<Self> {
        let account = cluster.prepared().account.to_string();
        let records = Self::begin(cluster.operator(CONNECTIONS)?, account, secrets, value_bytes).await?;
        for numbers in parts(secrets) {
            bar.inc(u64::from(numbers.end - numbers.start));
            records.create(&records.operator, numbers).await?;
        }
        Ok(records)
    }

    /// Makes an account with room for `secrets`, and a store, through any client of a super administrator.
    pub(super) async fn begin(operator: Client, account: String, secrets: u32, value_bytes: u32) -> Result<Self> {
        let records = Self { operator: operator.timeout(LIVE_WITHIN), account: account.into(), value_bytes };
        let operator = &records.operator;
        let account = &records.account;
        let request = v1::CreateAccountRequest { name: "bench".into(), id: account.to_string(), ..Default::default() };
        operator.create_account(request).await.context("cannot create the account")?;
        let quota = v1::SetQuotaRequest { account: account.to_string(), secrets_max: Some(u64::from(secrets)), ..Default::default() };
        operator.set_quota(quota).await.context("cannot raise the quota")?;
        let store = v1::CreateStoreRequest { account: account.to_string(), name: STORE.into(), ..Default::default() };
        operator.create_store(store).await.context("cannot create the store")?;
        Ok(records)
    }

    /// Makes secrets in one call; where the last of them stands in the chain.
    pub(super) async fn create(&self, client: &Client, numbers: Range<u32>) -> Result<Position> {
        let created = numbers.map(|number| v1::NewSecret {
            name: name(number),
            value: self.value(),
            scopes: vec!["workers".into()],
            comment: "made by cinnabar bench".into(),
        });
        let store = Some(v1::StoreRef { account: self.account.to_string(), store: STORE.into() });
        let request = v1::CreateSecretsRequest { store, secrets: created.collect(), ..Default::default() };
        let reply = client.create_secrets(request).await.context("cannot create the secrets")?;
        reply.receipt.and_then(|receipt| receipt.position).map(Position::from).context("the reply names no position")
    }

    /// Gives the first `secrets` another value each.
    pub(super) async fn rewrite(&self, secrets: u32, bar: &ProgressBar) -> Result<()> {
        self.each(secrets, bar, |records, number| async move { records.set(number).await.map(drop) }).await
    }

    /// Binds the first `secrets` to one consumer, each under its own name, and gives that consumer's token.
    pub(super) async fn bind(&self, secrets: u32, bar: &ProgressBar) -> Result<zeroize::Zeroizing<String>> {
        let request = v1::CreateConsumerRequest { consumer: Some(self.reader()), ..Default::default() };
        self.operator.create_consumer(request).await.context("cannot create the consumer")?;
        self.each(secrets, bar, |records, number| async move {
            let target = Some(v1::bind_request::Target::Secret(records.secret(number)));
            let request = v1::BindRequest { consumer: Some(records.reader()), name: name(number), target, ..Default::default() };
            records.operator.bind(request).await.map(drop).context("cannot bind")
        })
        .await?;
        let request = v1::CreateConsumerTokenRequest { consumer: Some(self.reader()), ..Default::default() };
        let token = self.operator.create_consumer_token(request).await.context("cannot create the consumer's token")?.token;
        Ok(zeroize::Zeroizing::new(token))
    }

    /// Waits until every edge holds what the control node has.
    pub(super) async fn live(&self, cluster: &Cluster) -> Result<()> {
        self.live_at(cluster.control.position()).await
    }

    /// Waits until every edge holds `position`.
    pub(super) async fn live_at(&self, position: Position) -> Result<()> {
        let live = self.operator.wait_live(position, LIVE_WITHIN).await.context("waiting for the edges failed")?;
        ensure!(live.edges_live == live.edges_known, "only {} of {} edges hold the records", live.edges_live, live.edges_known);
        Ok(())
    }

    /// Gives a secret a new value; where that stands in the chain.
    pub(super) async fn set(&self, number: u32) -> Result<Position> {
        self.set_by(&self.operator, number).await
    }

    /// As [`Records::set`], through another client.
    pub(super) async fn set_by(&self, client: &Client, number: u32) -> Result<Position> {
        let request = v1::SetValueRequest { secret: Some(self.secret(number)), value: self.value(), ..Default::default() };
        let reply = client.set_value(request).await.context("a write failed")?;
        reply.receipt.and_then(|receipt| receipt.position).map(Position::from).context("the reply names no position")
    }

    /// What asks for a secret by its binding.
    pub(super) fn wanted(&self, number: u32) -> v1::Wanted {
        v1::Wanted { binding: name(number), ..Default::default() }
    }

    /// The consumer.
    pub(super) fn reader(&self) -> v1::ConsumerRef {
        v1::ConsumerRef { account: self.account.to_string(), kind: v1::ConsumerKind::Worker.into(), name: READER.into() }
    }

    fn secret(&self, number: u32) -> v1::SecretRef {
        v1::SecretRef { account: self.account.to_string(), store: STORE.into(), secret: name(number) }
    }

    fn value(&self) -> Vec<u8> {
        let mut value = vec![0; self.value_bytes as usize];
        OsEntropy.fill(&mut value);
        value
    }

    /// Does something for each of the first `secrets`, some at once.
    async fn each<F>(&self, secrets: u32, bar: &ProgressBar, one: impl Fn(Self, u32) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..secrets {
            running.spawn(one(self.clone(), number));
            if running.len() >= AT_ONCE
                && let Some(done) = running.join_next().await
            {
                done??;
                bar.inc(1);
            }
        }
        while let Some(done) = running.join_next().await {
            done??;
            bar.inc(1);
        }
        Ok(())
    }
}

/// The numbers of so many secrets, as they are made: some by each call.
pub(super) fn parts(secrets: u32) -> impl Iterator<Item = Range<u32>> {
    (0..secrets).step_by(SECRETS_A_CALL as usize).map(move |first| first..secrets.min(first + SECRETS_A_CALL))
}

/// A secret's name, and that of its binding.
fn name(number: u32) -> String {
    format!("SECRET_{number}")
}
