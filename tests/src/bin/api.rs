//! What the API costs: secrets made over REST and over gRPC at three voters, and how long lists take that grow. `scripts/bench-api` runs it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench: it prints what it measured, and fails where it stands"
)]

use std::{sync::Arc, time::Duration};

use clap::Parser;
use hdrhistogram::Histogram;
use runtime::RealClock;
use seams::Clock;
use serde_json::json;
use tests::{
    clients::Rest,
    process::{Extra, Fleet, Operator, Role, STORE},
};
use tokio::task::JoinSet;
use wire::v1;

/// Secrets in one command when a store is filled.
const BATCH: usize = 500;
/// Lists that are measured, each.
const LISTS: usize = 50;
/// The store that lists are of; it holds nothing else.
const LISTED: &str = "listed";
/// Bytes of a value.
const VALUE_BYTES: usize = 64;

/// Measures what REST and gRPC cost.
#[derive(Parser)]
struct Arguments {
    /// Writers, each with a connection of its own and one write at a time.
    #[arg(long, default_value = "1,16,64", value_delimiter = ',')]
    writers: Vec<usize>,
    /// How long each measurement of writes takes.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Lists are measured when the store holds so many secrets.
    #[arg(long, default_value = "100,10000", value_delimiter = ',')]
    secrets: Vec<usize>,
}

/// A writer's way to make one secret.
#[derive(Clone)]
enum Way {
    Rest(Box<Rest>, String),
    Grpc(Operator),
}

impl Way {
    async fn create(&mut self, name: &str) {
        match self {
            Self::Rest(rest, secrets) => {
                let new = json!([{ "name": name, "value": "v".repeat(VALUE_BYTES), "scopes": ["workers"] }]);
                assert_eq!(rest.ask("POST", secrets, &new).await.status, 200);
            }
            Self::Grpc(operator) => {
                operator.try_create(name, &[b'v'; VALUE_BYTES]).await.expect("a secret");
            }
        }
    }
}

struct Bench {
    clock: Arc<RealClock>,
    fleet: Fleet,
    rest: Rest,
}

/// The path of a store's secrets.
fn secrets_of(store: &str) -> String {
    format!("/client/v4/accounts/{}/secrets_store/stores/{store}/secrets", Fleet::ACCOUNT)
}

fn listed() -> Option<v1::StoreRef> {
    Some(v1::StoreRef { account: Fleet::ACCOUNT.into(), store: LISTED.into() })
}

impl Bench {
    /// At the leader, so that nobody's write takes one hop more.
    async fn new() -> Self {
        let control = "\n[rates]\nwrites_per_second = 0\n".to_owned();
        let fleet = Fleet::start_with(3, 0, Extra { control, direct: true, ..Default::default() }).await;
        fleet.cli.ok(&["-a", Fleet::ACCOUNT, "quota", "set", "--secrets", "4000000"]).await;
        let (ca, token) = fleet.credentials();
        let rest = Rest::new(fleet.address(&fleet.leader().await), &ca, &token);
        Self { clock: Arc::new(RealClock::new()), fleet, rest }
    }

    async fn operator(&self, connections: usize) -> Operator {
        self.fleet.operator_over(&[&self.fleet.leader().await], connections)
    }

    async fn writes(&self, what: &str, writers: usize, way: &Way, seconds: u64) {
        let mut tasks = JoinSet::new();
        let end = self.clock.monotonic() + Duration::from_secs(seconds);
        for number in 0..writers {
            let (mut way, clock, what) = (way.clone(), self.clock.clone(), what.to_owned());
            tasks.spawn(async move {
                let mut times = Vec::new();
                for count in 0_u64.. {
                    let begin = clock.monotonic();
                    if begin >= end {
                        break;
                    }
                    way.create(&format!("{what}_{writers}_{number}_{count}")).await;
                    times.push(clock.monotonic() - begin);
                }
                times
            });
        }
        let times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
        let rate = times.len() as u64 / seconds;
        println!("| create over {what} | {writers} | {rate} | {} |", shown(&times));
    }

    async fn fill(&self, operator: &Operator, from: usize, to: usize) {
        for start in (from..to).step_by(BATCH) {
            let one = |number: usize| {
                let (name, value, scopes) = (format!("LISTED_{number:07}"), vec![b'v'; VALUE_BYTES], vec!["workers".to_owned()]);
                v1::NewSecret { name, value, scopes, ..Default::default() }
            };
            let secrets = (start..to.min(start + BATCH)).map(one).collect();
            let request = v1::CreateSecretsRequest { store: listed(), secrets, ..Default::default() };
            operator.client.create_secrets(request).await.expect("secrets");
        }
    }

    async fn lists(&self, operator: &Operator, count: usize) {
        let (mut rest, last) = (self.rest.clone(), count.div_ceil(100));
        let queries = [
            ("first page", "per_page=100".to_owned()),
            ("last page", format!("per_page=100&page={last}")),
            ("by time of change", "per_page=100&order=modified&direction=desc".to_owned()),
            ("search for one name", format!("search=LISTED_{:07}", count / 2)),
        ];
        for (what, query) in queries {
            let mut times = Vec::new();
            for _ in 0..LISTS {
                let begin = self.clock.monotonic();
                let answer = rest.get(&format!("{}?{query}", secrets_of(LISTED))).await;
                times.push(self.clock.monotonic() - begin);
                assert!(answer.result().as_array().is_some_and(|found| !found.is_empty()), "{what}");
            }
            println!("| {what} over REST | {count} | {} |", shown(&times));
        }
        let mut times = Vec::new();
        for _ in 0..LISTS {
            let page = Some(v1::Page { size: 100, ..Default::default() });
            let begin = self.clock.monotonic();
            let listed = operator.client.list_secrets(v1::ListSecretsRequest { store: listed(), page }).await;
            times.push(self.clock.monotonic() - begin);
            assert_eq!(listed.expect("a list").secrets.len(), 100);
        }
        println!("| first page over gRPC | {count} | {} |", shown(&times));
    }
}

/// The middle and the slow end of what was measured.
fn shown(times: &[Duration]) -> String {
    let mut all = Histogram::<u64>::new(3).expect("a histogram");
    for time in times {
        all.record(u64::try_from(time.as_micros()).expect("a short time")).expect("it fits");
    }
    let ms = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1000.0;
    format!("{:.2} ms | {:.2} ms", ms(0.5), ms(0.99))
}

#[tokio::main]
async fn main() {
    let Arguments { writers, seconds, secrets } = Arguments::parse();
    let bench = Bench::new().await;
    println!("| what | writers | per second | p50 | p99 |\n|---|---|---|---|---|");
    for writers in writers {
        let grpc = Way::Grpc(bench.operator(writers.min(16)).await);
        let rest = Way::Rest(Box::new(bench.rest.clone()), secrets_of(STORE));
        bench.writes("gRPC", writers, &grpc, seconds).await;
        bench.writes("REST", writers, &rest, seconds).await;
    }
    println!("\n| what | secrets | p50 | p99 |\n|---|---|---|---|");
    let operator = bench.operator(1).await;
    let store = v1::CreateStoreRequest { account: Fleet::ACCOUNT.into(), name: LISTED.into(), ..Default::default() };
    operator.client.create_store(store).await.expect("a store");
    let mut filled = 0;
    for count in secrets {
        bench.fill(&operator, filled, count).await;
        filled = count;
        bench.lists(&operator, count).await;
    }
    let nodes = bench.fleet.names(Role::Control).len();
    println!("\n{nodes} voters on this machine, each a process of its own; values of {VALUE_BYTES} bytes; clients at the leader");
}
