//! The main job, done once and measured: write a secret, see it live everywhere, read it where it is bound, be refused elsewhere.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use client::Client;
use seams::Clock;
use types::Position;
use wire::{ErrorKind, v1};

use crate::{
    bench::human_us,
    cluster::{self, Cluster},
};

/// The store that everybody starts with.
pub(crate) const STORE: &str = "default";
/// The secret that the proof writes.
const SECRET: &str = "GREETING";
/// The consumer that may read it, and one that may not.
const READER: &str = "web";
const STRANGER: &str = "other-app";
/// How long the whole cluster may take to hold a write.
const LIVE_WITHIN: Duration = Duration::from_secs(30);

/// What the proof found, a line a step.
pub(crate) async fn prove(cluster: &Cluster, clock: &dyn Clock, mut say: impl FnMut(String)) -> Result<()> {
    let operator = cluster.operator(1)?;
    let account = cluster.prepared().account.to_string();
    first_records(&operator, &account).await?;

    let started = clock.monotonic();
    let (version, position) = write(&operator, &account).await.context("the write failed")?;
    say(step(&format!("wrote {SECRET} v{version}"), &format!("durable at revision {}", position.revision), &took(clock, started)));

    let live = operator.wait_live(position, LIVE_WITHIN).await.context("waiting for the edges failed")?;
    ensure!(
        live.edges_known > 0 && live.edges_live == live.edges_known,
        "live on {} of {} edges only; behind: {}",
        live.edges_live,
        live.edges_known,
        live.behind.join(", ")
    );
    say(step(&format!("live on {}/{} edges", live.edges_live, live.edges_known), "since the write was sent", &took(clock, started)));

    bind(&operator, &account).await?;
    let head = cluster.control.position();
    operator.wait_live(head, LIVE_WITHIN).await.context("waiting for the edges failed")?;
    let mut read_at = Vec::new();
    let mut oldest = 0;
    let mut slowest = Duration::ZERO;
    for (name, socket) in cluster.sockets()? {
        let edge = cluster::consumer(&socket, 1)?;
        let request = |consumer: &str| v1::GetRequest {
            consumer: Some(reference(&account, consumer)),
            wanted: Some(v1::Wanted { binding: SECRET.into(), ..Default::default() }),
            freshness: Some(v1::Freshness { min_position: Some(head.into()), max_age_ms: None }),
        };
        // The first call also opens the connection; the second is what a service sees.
        edge.get(request(READER)).await.with_context(|| format!("{READER} could not read at {name}"))?;
        let asked = clock.monotonic();
        let found = edge.get(request(READER)).await.with_context(|| format!("{READER} could not read at {name}"))?;
        slowest = slowest.max(clock.monotonic() - asked);
        ensure!(found.version == version, "{name} returned version {} instead of {version}", found.version);
        oldest = oldest.max(found.age_ms.unwrap_or_default());
        match edge.get(request(STRANGER)).await {
            Err(error) if error.kind() == ErrorKind::NotBound => {}
            Err(error) => return Err(error).with_context(|| format!("{STRANGER} was refused at {name}, but not because it is not bound")),
            Ok(_) => bail!("{STRANGER} read at {name} what is not bound to it"),
        }
        read_at.push(name);
    }
    say(step(&format!("{READER} read it at {}", some_of(&read_at)), &format!("age {oldest} ms"), &human_us(slowest.as_secs_f64() * 1e6)));
    say(step(&format!("{STRANGER} refused"), "not bound", ""));
    Ok(())
}

/// One step of the proof, in columns.
fn step(what: &str, detail: &str, measured: &str) -> String {
    format!("✓ {what:<32} {detail:<28} {measured:>9}").trim_end().to_owned()
}

fn some_of(names: &[String]) -> String {
    if names.len() <= 3 { names.join(", ") } else { format!("{} and {} more", names[..2].join(", "), names.len() - 2) }
}

fn took(clock: &dyn Clock, since: Duration) -> String {
    human_us((clock.monotonic() - since).as_secs_f64() * 1e6)
}

fn reference(account: &str, name: &str) -> v1::ConsumerRef {
    v1::ConsumerRef { account: account.into(), kind: v1::ConsumerKind::Worker.into(), name: name.into() }
}

/// Account, store and consumers, where a run before has not made them.
async fn first_records(operator: &Client, account: &str) -> Result<()> {
    let existing_is_fine = |result: Result<(), client::ClientError>| match result {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let created = operator.create_account(v1::CreateAccountRequest { name: "dev".into(), id: account.into(), ..Default::default() }).await;
    existing_is_fine(created.map(|_| ())).context("cannot create the account")?;
    let created = operator.create_store(v1::CreateStoreRequest { account: account.into(), name: STORE.into(), ..Default::default() }).await;
    existing_is_fine(created.map(|_| ())).context("cannot create the store")?;
    for consumer in [READER, STRANGER] {
        let created = operator
            .create_consumer(v1::CreateConsumerRequest { consumer: Some(reference(account, consumer)), ..Default::default() })
            .await;
        existing_is_fine(created.map(|_| ())).context("cannot create a consumer")?;
    }
    Ok(())
}

/// Creates the secret, or gives it a new value when a run before has made it.
async fn write(operator: &Client, account: &str) -> Result<(u64, Position)> {
    let value = b"hello from every edge".to_vec();
    let item = v1::NewSecret {
        name: SECRET.into(),
        value: value.clone(),
        scopes: vec!["workers".into()],
        comment: "written by cinnabar dev".into(),
    };
    let store = v1::StoreRef { account: account.into(), store: STORE.into() };
    let position = |receipt: Option<v1::Receipt>| {
        receipt.and_then(|receipt| receipt.position).map(Position::from).context("the reply names no position")
    };
    match operator.create_secrets(v1::CreateSecretsRequest { store: Some(store), secrets: vec![item], ..Default::default() }).await {
        Ok(reply) => {
            let version = reply.secrets.first().context("the reply names no secret")?.current_version;
            Ok((version, position(reply.receipt)?))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let reply = operator.set_value(v1::SetValueRequest { secret: Some(secret(account)), value, ..Default::default() }).await?;
            Ok((reply.version, position(reply.receipt)?))
        }
        Err(error) => Err(error.into()),
    }
}

fn secret(account: &str) -> v1::SecretRef {
    v1::SecretRef { account: account.into(), store: STORE.into(), secret: SECRET.into() }
}

async fn bind(operator: &Client, account: &str) -> Result<()> {
    let target = v1::bind_request::Target::Secret(secret(account));
    let request =
        v1::BindRequest { consumer: Some(reference(account, READER)), name: SECRET.into(), target: Some(target), ..Default::default() };
    match operator.bind(request).await {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).context("cannot bind"),
        _ => Ok(()),
    }
}
