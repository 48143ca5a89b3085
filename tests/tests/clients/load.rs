//! P1 over REST: fifty writers and fifty readers of two accounts at three nodes, whose leaders are killed. What is judged is what clients
//! saw: no acknowledged write is lost, none is done twice, none is seen in another account.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtime::RealClock;
use seams::Clock;
use serde_json::{Value, json};
use tests::{
    clients::{Answer, Rest},
    process::{Fleet, Role, until},
};
use tokio::task::JoinSet;

use crate::ground::{Ground, text};

/// Clients that write, and as many that read.
const CLIENTS: usize = 50;
/// Leaders that are killed.
const KILLS: usize = 3;
/// Writes that must be acknowledged after each.
const WRITES: usize = 200;
/// Every so many writes of a client, one makes a new secret; the others give its own secret a new value.
const CREATE_EVERY: usize = 10;
/// Between two requests of a reader.
const READS_EVERY: Duration = Duration::from_millis(50);
/// Between two requests of which the first was not answered.
const RETRIES_EVERY: Duration = Duration::from_millis(50);

/// An account, and what all of its clients know.
struct Account {
    id: String,
    store: String,
    token: String,
}

impl Account {
    fn secrets(&self) -> String {
        format!("/client/v4/accounts/{}/secrets_store/stores/{}/secrets", self.id, self.store)
    }
}

/// A client that goes to another node when one does not answer.
struct Roaming {
    nodes: Vec<SocketAddr>,
    at: usize,
    rest: Rest,
}

impl Roaming {
    /// Sends until a node that can answer has answered.
    async fn ask(&mut self, method: &str, path: &str, key: Option<&str>, body: &Value) -> Answer {
        let headers: Vec<_> = key.into_iter().map(|key| ("Idempotency-Key", key)).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        loop {
            match self.rest.send(method, path, &headers, body.as_bytes()).await {
                Ok(answer) if ![429, 503].contains(&answer.status) => return answer,
                Ok(answer) => assert!(answer.header("retry-after").is_some(), "{answer:?}"),
                Err(_) => {}
            }
            self.at += 1;
            self.rest = self.rest.at(self.nodes[self.at % self.nodes.len()]);
            RealClock::new().sleep(RETRIES_EVERY).await;
        }
    }
}

/// What a writer was told.
#[derive(Default)]
struct Told {
    /// The ids of the secrets that it made, by name.
    made: BTreeMap<String, String>,
    /// The versions of its own secret, in the order of writing.
    versions: Vec<u64>,
    last: String,
}

/// The name of a writer's own secret.
fn own(number: usize) -> String {
    format!("W{number}")
}

struct Load {
    accounts: [Arc<Account>; 2],
    nodes: Vec<SocketAddr>,
    first: Rest,
    told: Vec<Arc<Mutex<Told>>>,
    acknowledged: Arc<AtomicUsize>,
    read: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    fn roaming(&self, number: usize) -> Roaming {
        let account = &self.accounts[number % 2];
        let rest = self.first.token(&account.token).at(self.nodes[number % self.nodes.len()]);
        Roaming { nodes: self.nodes.clone(), at: number, rest }
    }

    fn write(&mut self, number: usize) {
        let (account, mut client) = (self.accounts[number % 2].clone(), self.roaming(number));
        let told: Arc<Mutex<Told>> = Arc::default();
        self.told.push(told.clone());
        let (acknowledged, ending) = (self.acknowledged.clone(), self.ending.clone());
        self.tasks.spawn(async move {
            let (secrets, mut id) = (account.secrets(), String::new());
            for count in 0_usize.. {
                let key = format!("writer-{number}-{count}");
                if count.is_multiple_of(CREATE_EVERY) {
                    let name = if count == 0 { own(number) } else { format!("W{number}_{count}") };
                    let new = json!([{ "name": name, "value": "0", "scopes": ["workers"] }]);
                    let made = client.ask("POST", &secrets, Some(&key), &new).await.result();
                    assert_eq!(made[0]["name"], name);
                    if count == 0 {
                        id = text(&made[0], "id");
                    }
                    locked(&told).made.insert(name, text(&made[0], "id"));
                } else {
                    let value = format!("{number}-{count}");
                    let path = format!("{secrets}/{id}");
                    let answer = client.ask("PATCH", &path, Some(&key), &json!({ "value": value })).await.result();
                    let mut told = locked(&told);
                    told.versions.push(answer["version"].as_u64().unwrap());
                    told.last = value;
                }
                acknowledged.fetch_add(1, Ordering::Relaxed);
                if ending.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
    }

    fn read(&mut self, number: usize) {
        let (mine, theirs) = (self.accounts[number % 2].clone(), self.accounts[1 - number % 2].clone());
        let (mut client, clock) = (self.roaming(number), RealClock::new());
        // A secret of a writer of the same account, and one of the other's.
        let (followed, foreign) = (self.told[number].clone(), self.told[(number + 1) % CLIENTS].clone());
        let (read, ending) = (self.read.clone(), self.ending.clone());
        self.tasks.spawn(async move {
            let mut seen = 0;
            while !ending.load(Ordering::Relaxed) {
                let listed =
                    client.ask("GET", &format!("{}?search={}&per_page=100", mine.secrets(), own(number)), None, &Value::Null).await;
                for secret in listed.result().as_array().unwrap() {
                    let (name, store) = (text(secret, "name"), text(secret, "store_id"));
                    let writer: usize = name.trim_start_matches('W').split('_').next().unwrap().parse().unwrap();
                    assert_eq!((writer % 2, store), (number % 2, mine.store.clone()), "{name} is another account's");
                }
                let known = locked(&followed).made.get(&own(number)).cloned();
                if let Some(id) = known {
                    // What was acknowledged before the question is in the answer, whichever node gives it.
                    let before = locked(&followed).versions.last().copied().unwrap_or(1);
                    let found = client.ask("GET", &format!("{}/{id}", mine.secrets()), None, &Value::Null).await.result();
                    let version = found["version"].as_u64().unwrap();
                    assert!(version >= seen.max(before), "{number} saw version {version} after {seen}, and {before} was acknowledged");
                    seen = version;
                }
                let other = locked(&foreign).made.get(&own((number + 1) % CLIENTS)).cloned();
                if let Some(id) = other {
                    for path in [format!("{}/{id}", theirs.secrets()), format!("{}/{id}", mine.secrets())] {
                        let answer = client.ask("GET", &path, None, &Value::Null).await;
                        assert_eq!(answer.refusal().0, 404, "{path}");
                    }
                }
                read.fetch_add(1, Ordering::Relaxed);
                clock.sleep(READS_EVERY).await;
            }
        });
    }

    /// Waits until `more` writes are acknowledged, and every reader could have read.
    async fn go_on(&mut self, more: usize) {
        let wanted = [self.acknowledged.load(Ordering::Relaxed) + more, self.read.load(Ordering::Relaxed) + CLIENTS];
        until("writes to be acknowledged, and reads", async || {
            while let Some(ended) = self.tasks.try_join_next() {
                ended.expect("a client goes on");
            }
            let now = [self.acknowledged.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed)];
            if now[0] >= wanted[0] && now[1] >= wanted[1] { Ok(()) } else { Err(format!("{now:?} of {wanted:?}")) }
        })
        .await;
    }

    async fn end(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        until("the clients to end", async || {
            while let Some(ended) = self.tasks.try_join_next() {
                ended.expect("a client ends in order");
            }
            if self.tasks.is_empty() { Ok(()) } else { Err(format!("{} go on", self.tasks.len())) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_readers_over_rest_lose_double_and_leak_nothing_when_leaders_are_killed() {
    let mut ground = Ground::new(1).await;
    let accounts = [("left", Fleet::ACCOUNT.to_owned()), ("right", ground.account("right").await)];
    let mut made = Vec::new();
    let mut first = ground.rest("control-1");
    for (name, id) in accounts {
        ground.fleet.cli.ok(&["-a", &id, "quota", "set", "--secrets", "100000"]).await;
        let token = ground.token(name, &[format!("admin@{id}")]).await;
        let stores = format!("/client/v4/accounts/{id}/secrets_store/stores");
        let store = text(&first.ask("POST", &stores, &json!({ "name": "load" })).await.result(), "id");
        made.push(Arc::new(Account { id, store, token }));
    }
    let accounts: [_; 2] = made.try_into().ok().unwrap();
    let nodes = ground.fleet.names(Role::Control).iter().map(|name| ground.fleet.address(name)).collect();
    let (told, tasks) = (Vec::new(), JoinSet::new());
    let (acknowledged, read, ending) = Default::default();
    let mut load = Load { accounts, nodes, first: first.clone(), told, acknowledged, read, ending, tasks };
    (0..CLIENTS).for_each(|number| load.write(number));
    (0..CLIENTS).for_each(|number| load.read(number));
    load.go_on(WRITES).await;
    for _ in 0..KILLS {
        let leader = ground.fleet.leader().await;
        ground.fleet.kill(&leader);
        load.go_on(WRITES).await;
        ground.fleet.start_node(&leader).await;
    }
    load.go_on(WRITES).await;
    load.end().await;
    for node in ground.fleet.names(Role::Control) {
        judge(&load, &mut first.at(ground.fleet.address(&node))).await;
    }
    values(&ground, &load).await;
}

/// What each account holds is what its own writers were told, once each, wherever one asks.
async fn judge(load: &Load, rest: &mut Rest) {
    for (side, account) in load.accounts.iter().enumerate() {
        let mut found = BTreeMap::new();
        for page in 1.. {
            let listed = rest.get(&format!("{}?per_page=100&page={page}", account.secrets())).await.result();
            let listed = listed.as_array().unwrap();
            if listed.is_empty() {
                break;
            }
            for secret in listed {
                let row = (text(secret, "id"), secret["version"].as_u64().unwrap());
                assert_eq!(found.insert(text(secret, "name"), row), None, "once in the list");
            }
        }
        let mut wanted = BTreeMap::new();
        for (number, told) in load.told.iter().enumerate().filter(|(number, _)| number % 2 == side) {
            let told = locked(told);
            // Version 1 is the value that it was made with: every write got one version, although it was sent more than once.
            let versions: Vec<u64> = (2..).take(told.versions.len()).collect();
            assert_eq!(told.versions, versions, "writer {number}");
            let newest = versions.last().copied().unwrap_or(1);
            wanted.extend(told.made.iter().map(|(name, id)| (name.clone(), (id.clone(), if *name == own(number) { newest } else { 1 }))));
        }
        assert_eq!(found, wanted, "account {side}");
    }
}

/// What a consumer reads is what was written last.
async fn values(ground: &Ground, load: &Load) {
    let (operator, reader) = (ground.fleet.operator(), ground.fleet.reader("edge-1"));
    for (number, told) in load.told.iter().enumerate().step_by(2) {
        let last = Some(locked(told).last.clone()).filter(|last| !last.is_empty()).unwrap_or_else(|| "0".to_owned());
        let mut secret = operator.secret(&own(number));
        secret.store = "load".into();
        let target = Some(wire::v1::bind_request::Target::Secret(secret));
        let bind = wire::v1::BindRequest { consumer: Some(operator.web()), name: own(number), target, ..Default::default() };
        let position = operator.client.bind(bind).await.unwrap().receipt.unwrap().position.unwrap();
        let found = reader.get_at(&own(number), position.into()).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&found.value), last, "writer {number}");
    }
}

fn locked(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
