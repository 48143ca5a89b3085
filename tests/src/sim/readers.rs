//! The clients of a run that read: consumers at the edges, and operators at the voters.

use std::{sync::Arc, time::Duration};

use lookup::{Lookup, WantedTarget, Which};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use types::{Position, Revision};
use wire::parse::FreshnessTarget;

use super::{
    edge::Edge,
    load::{Client, Known, Token},
    oracle::{Ask, Told},
    runtime::lock,
};

/// The longest pause between two lookups at an edge.
const PAUSE: Duration = Duration::from_millis(30);

impl Client {
    /// Reads the newest state at some voter until it is told to stop.
    pub(super) async fn read(self) {
        while !self.shared.stopped() {
            self.pause(Duration::from_millis(150)).await;
            let floor = self.shared.oracle.acknowledged();
            let Some(voter) = self.shared.fleet.somebody(self.draw(u64::MAX)) else { continue };
            if let Some(state) = voter.read().await {
                self.shared.oracle.read(state.propagated(), floor);
                self.shared.history.count("linearizable reads");
            }
        }
    }

    /// Looks up at an edge until it is told to stop.
    pub(super) async fn look_up(self, edge: Arc<Edge>) {
        while !self.shared.stopped() {
            self.pause(PAUSE).await;
            let Some(lookup) = edge.lookup() else { continue };
            let ask = {
                let known = lock(&self.shared.known);
                let Some(known) = known.get(self.draw(known.len().max(1) as u64) as usize) else { continue };
                self.question(known)
            };
            if let Some((ask, caller)) = ask {
                let told = tell(&edge, &lookup, &ask, &caller);
                self.shared.oracle.looked_up(edge.node, &ask, &told);
            }
        }
    }

    /// All that is known is looked up at an edge, demanding a position. Whether everything but what is not there was answered.
    pub(super) fn look_up_all(&self, edge: &Edge, least: Position) -> bool {
        let Some(lookup) = edge.lookup() else { return false };
        let mut answered = true;
        for known in &*lock(&self.shared.known) {
            for Token { hash: token, caller, .. } in &known.tokens {
                let freshness = FreshnessTarget { min_position: Some(least), max_age: None };
                let (token, consumer, store) = (*token, known.consumer.clone(), known.store.clone());
                let of_store = known.secrets.iter().map(|secret| (store.clone(), Some(secret.clone())));
                let single = known.bindings.iter().map(|binding| (binding.clone(), None));
                for (binding, secret) in of_store.chain(single) {
                    let ask = Ask { token, consumer: consumer.clone(), binding, secret, freshness };
                    let told = tell(edge, &lookup, &ask, caller);
                    answered &= !matches!(&told.outcome, Err(error) if matches!(error.kind(), wire::ErrorKind::NotSynced | wire::ErrorKind::TooStale));
                    self.shared.oracle.looked_up(edge.node, &ask, &told);
                }
            }
        }
        answered
    }

    fn question(&self, known: &Known) -> Option<(Ask, lookup::Caller)> {
        let token = known.tokens.get(self.draw(known.tokens.len().max(1) as u64) as usize)?;
        let caller = if self.draw(3) == 0 { &token.naming } else { &token.caller };
        let single = self.draw(4) == 0;
        let (binding, secret) = if self.draw(20) == 0 {
            ("NOTHING".parse().ok()?, None)
        } else if single {
            (known.bindings.get(self.draw(known.bindings.len().max(1) as u64) as usize)?.clone(), None)
        } else {
            let secret = known.secrets.get(self.draw(known.secrets.len().max(1) as u64) as usize)?;
            (known.store.clone(), Some(secret.clone()))
        };
        let acknowledged = self.shared.oracle.acknowledged();
        let min_position = match self.draw(10) {
            0 | 1 => acknowledged,
            2 => acknowledged.map(|at| Position { revision: Revision::new(at.revision.get() + 1 + self.draw(3)), ..at }),
            _ => None,
        };
        let max_age = (self.draw(5) == 0).then(|| Duration::from_millis(self.draw(3_000)));
        let freshness = FreshnessTarget { min_position, max_age };
        Some((Ask { token: token.hash, consumer: known.consumer.clone(), binding, secret, freshness }, caller.clone()))
    }
}

fn tell(edge: &Edge, lookup: &Lookup, ask: &Ask, caller: &lookup::Caller) -> Told {
    let wanted = WantedTarget { binding: ask.binding.clone(), secret: ask.secret.clone(), which: Which::Current };
    let found = lookup.get(caller, &wanted, ask.freshness);
    let serving = lookup.serving();
    Told {
        outcome: found.map(|found| (found.value.expose().to_vec(), found.version, found.position, found.age)),
        shown: serving.position(),
        age: serving.age(),
        disk_fails: edge.disk_fails(),
    }
}

/// Looks at what voters know to be durable, as those do who wait for receipts, and counts leaders.
pub(super) async fn watch(client: Client) {
    let mut led = None;
    while !client.shared.stopped() {
        SimRuntime::sleep(Duration::from_millis(20)).await;
        client.shared.fleet.note_acknowledgements();
        let Some((term, leader)) = client.shared.fleet.leader() else { continue };
        match led {
            Some((before, _)) if term <= before => {}
            Some((_, node)) if node == leader.node => led = Some((term, node)),
            _ => {
                client.shared.history.event(format_args!("voter {} leads in term {term}", leader.node));
                if led.is_some() {
                    client.shared.history.count("leader changes");
                }
                led = Some((term, leader.node));
            }
        }
    }
}
