//! Our own cluster: three voters and an edge, each a process, with the keys that are compared made and bound.

use client::{Frames, Replies, Requests};
use wire::v1;

use crate::process::{Extra, Fleet, Operator, PATIENCE, Reader, Role};

/// Secrets in one call that makes them.
const SECRETS_A_CALL: u32 = 200;
/// Binds on their way at once.
const BINDS_AT_ONCE: u32 = 32;
/// The edge that is read from.
pub(super) const EDGE: &str = "edge-1";

/// The running nodes.
pub(super) struct Ours {
    pub(super) fleet: Fleet,
}

impl Ours {
    /// Three voters and so many edges, with room for `secrets`.
    pub(super) async fn start(edges: usize, secrets: u64) -> Self {
        let log = "\n[log]\nfilter = \"warn\"\n".to_owned();
        // What is measured is what the cluster takes, not what one token may.
        let control = format!("{log}\n[rates]\nwrites_per_second = 0\n");
        let fleet = Fleet::start_with(3, edges, Extra { control, edge: log, direct: true }).await;
        let operator = fleet.operator();
        let quota = v1::SetQuotaRequest { account: operator.store().account, secrets_max: Some(secrets), ..Default::default() };
        operator.client.set_quota(quota).await.expect("a quota");
        Self { fleet }
    }

    /// An operator at the leader.
    pub(super) async fn operator(&self, connections: u32) -> Operator {
        let leader = self.fleet.leader().await;
        self.fleet.operator_over(&[&leader], connections as usize)
    }

    /// The voters' processes, the leader's first.
    pub(super) async fn voters(&mut self) -> Vec<u32> {
        let (leader, mut names) = (self.fleet.leader().await, self.fleet.names(Role::Control));
        names.sort_by_key(|name| *name != leader);
        names.iter().map(|name| self.fleet.server(name).pid()).collect()
    }

    /// Makes the keys from `first` up to `end`.
    pub(super) async fn create(&self, keys: std::ops::Range<u32>, value: impl Fn() -> Vec<u8>) {
        let operator = self.operator(1).await;
        let secret = |number| v1::NewSecret {
            name: super::run::key(number),
            value: value(),
            scopes: vec!["workers".into()],
            comment: String::new(),
        };
        for first in keys.clone().step_by(SECRETS_A_CALL as usize) {
            let secrets = (first..keys.end.min(first + SECRETS_A_CALL)).map(secret).collect();
            let request = v1::CreateSecretsRequest { store: Some(operator.store()), secrets, ..Default::default() };
            operator.client.create_secrets(request).await.expect("secrets");
        }
    }

    /// Binds keys to the consumer, each under its own name, and waits until every edge has them.
    pub(super) async fn bind(&self, keys: std::ops::Range<u32>) {
        let operator = self.operator(1).await;
        for first in keys.clone().step_by(BINDS_AT_ONCE as usize) {
            let some = (first..keys.end.min(first + BINDS_AT_ONCE)).map(super::run::key).map(|key| {
                let operator = operator.clone();
                async move { operator.bind(&key, &key).await }
            });
            let last = futures::future::join_all(some).await.into_iter().max().expect("a range of keys");
            operator.live(last).await;
        }
    }

    /// A reader at the edge's socket.
    pub(super) fn reader(&self, connections: u32) -> Reader {
        self.fleet.reader_over(EDGE, connections as usize)
    }
}

/// A connection of one caller in frames.
pub(super) struct Framed {
    reader: Reader,
    frames: Frames,
}

impl Framed {
    pub(super) async fn open(ours: &Ours) -> Self {
        let frames = Frames::open(&ours.fleet.socket(EDGE), None, PATIENCE).await.expect("a connection in frames");
        Self { reader: ours.reader(1), frames }
    }

    /// The value's length.
    pub(super) async fn get(&mut self, key: String) -> usize {
        self.frames.get(self.reader.request(&key)).await.expect("a lookup").value.len()
    }

    /// Several lookups, all on their way at once; the values' lengths together.
    pub(super) async fn get_all(&mut self, keys: Vec<String>) -> usize {
        let requests = keys.iter().map(|key| self.reader.request(key)).collect();
        let outcomes = self.frames.get_each(requests).await.expect("an answer");
        outcomes.into_iter().map(|outcome| outcome.expect("a value").value.len()).sum()
    }
}

/// A stream of one caller that keeps `depth` lookups on their way.
pub(super) struct Pipelined {
    reader: Reader,
    requests: Requests,
    replies: Replies,
    tag: u64,
}

impl Pipelined {
    pub(super) async fn open(reader: &Reader, depth: u32) -> Self {
        let (requests, replies) = reader.client.stream(depth as usize).await.expect("a stream");
        Self { reader: reader.clone(), requests, replies, tag: 0 }
    }

    /// Looks up several on the stream, all on their way at once; the values' lengths together.
    pub(super) async fn get_all(&mut self, keys: Vec<String>) -> usize {
        let asked = keys.len();
        for key in keys {
            self.tag += 1;
            self.requests.send(self.tag, self.reader.request(&key)).await.expect("the stream takes requests");
        }
        let mut bytes = 0;
        for _ in 0..asked {
            let (_, outcome) = self.replies.next().await.expect("the stream answers").expect("the stream goes on");
            bytes += outcome.expect("a value").value.len();
        }
        bytes
    }
}
