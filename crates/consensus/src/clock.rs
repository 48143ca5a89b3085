//! Log time that no single clock can spoil: whose time a stamp is, and what becomes of a leader whose clock is wrong.
//!
//! `apply` takes the later of a command's stamp and log time, and knows nothing but the log: a stamp that is an hour ahead is there for
//! good. So it must not be given. Every node asks the voters once a second what their wall clocks show ([`PeerRpc::Clock`]) and judges
//! its own by a majority of them ([`judge::judge`]). What enters the log was stamped by a leader, or by a node that became one
//! meanwhile, in one of three ways ([`Voter::stamp`]):
//!
//! | the own clock | the stamp |
//! |---|---|
//! | agrees with a majority of the voters | what it shows |
//! | does not, and a majority agrees without it | what the middle one of those clocks shows |
//! | no majority agrees, or too few are known | the last log time, and the monotonic time since |
//!
//! A leader whose clock a majority contradicts hands leadership to a voter of that majority. It may be elected again, for it may be the
//! only one with the whole log, and does no harm meanwhile.
//!
//! **Invariants**
//! 1. A stamp is no further ahead of a clock of some majority than [`TOLERANCE`] and half of the way of the answer that told of it.
//! 2. The stamps of a node never stand still: log time that is ahead of the majority slows down until they meet.
//! 3. A step of the own clock is seen at the next stamp; one of another's, within a second or so. Where the own one steps it is believed
//!    only by readings from after the step: else it could agree with what another's showed a moment ago.
//!
//! **Failure**: a voter that does not answer counts as not known. A cluster of one has nobody to ask: it follows its clock at once,
//! whichever way it steps, since a machine that slept looks the same as one whose clock went wrong.
//!
//! **Left out**: a majority of clocks that are wrong alike is believed. Followers do not judge stamps: what a leader has appended they
//! have to take, and `apply` may not ask a clock.

pub(crate) mod judge;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use judge::{Reading, Stamps, TOLERANCE, Verdict, judge, middle, offset, shown};
use openraft::async_runtime::Select2;
use seams::mutation::{self, Mutation};
use types::{NodeId, UnixMillis};

use crate::{
    Runtime,
    engine::Voter,
    lock,
    members::Membership,
    network::{decode_forward, encode_forward},
    peer::PeerRpc,
    write::Backoff,
};

/// How often the others' clocks are read, and the first pause while too few are known.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_FIRST: Duration = Duration::from_millis(100);
/// How long an answer may take: what takes longer says too little about the moment.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// For how long a clock has to be contradicted before that is told, and leadership handed over: two readings of each.
const TOLD_AFTER: Duration = Duration::from_secs(2);
/// Between two attempts to hand leadership over.
const HAND_OVER_EVERY: Duration = Duration::from_secs(5);
/// For how long after its start a leader waits for the first readings with what it is to stamp. They take some milliseconds.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// How this node's wall clock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockStanding {
    /// It agrees with the clocks of a majority of the voters.
    Agrees,
    /// The clocks of a majority agree with each other, and not with this one.
    Differs {
        /// How many milliseconds it is ahead of them; negative when it is behind.
        ahead_ms: i64,
    },
    /// No majority of clocks agrees.
    Split,
    /// The clocks of too few voters are known: they do not answer. Or this one was set anew within the last second.
    Unknown,
}

/// The clocks of the voters as this node knows them. A copy of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// How this node's own stands.
    pub standing: ClockStanding,
    /// The members whose clocks are known, this node among them, and how many milliseconds each is ahead of the time that the majority
    /// agrees on, or, where none does, of this node's.
    pub ahead_ms: Vec<(NodeId, i64)>,
}

impl Clocks {
    /// How many milliseconds the clock of `node` is ahead, if it is known.
    pub fn ahead_ms(&self, node: NodeId) -> Option<i64> {
        self.ahead_ms.iter().find(|row| row.0 == node).map(|row| row.1)
    }
}

/// What a node knows of the clocks of the others.
pub(crate) struct Known {
    begun: Duration,
    votes: bool,
    /// The other voters.
    nodes: Vec<NodeId>,
    /// Their clocks, in the same order, all read at one time: an older reading could agree with a clock that went wrong since.
    others: Vec<Option<Reading>>,
    /// The own clock just before they were read last.
    own_then: Option<i64>,
    stamps: Stamps,
    /// Since when the own clock is contradicted.
    wrong_since: Option<Duration>,
    told: bool,
    handed_over_at: Option<Duration>,
}

impl Known {
    /// Of a node that starts now.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            begun: now,
            votes: false,
            nodes: Vec::new(),
            others: Vec::new(),
            own_then: None,
            stamps: Stamps::default(),
            wrong_since: None,
            told: false,
            handed_over_at: None,
        }
    }

    /// Takes in who votes now, and what was read.
    fn take(&mut self, me: NodeId, members: &Membership, read: &[(NodeId, Option<Reading>)]) {
        let of = |node| read.iter().find(|row| row.0 == node).and_then(|row| row.1);
        self.votes = members.votes(me);
        self.nodes = members.voters.iter().map(|(node, _)| *node).filter(|node| *node != me).collect();
        self.others = self.nodes.iter().map(|node| of(*node)).collect();
    }

    fn judge(&self, own: i64) -> Verdict {
        let stepped = self.own_then.is_some_and(|then| then.abs_diff(own) > judge::millis(TOLERANCE));
        match judge(own, self.votes, &self.others) {
            Verdict::Agrees if stepped && !self.others.is_empty() => Verdict::Unknown,
            verdict => verdict,
        }
    }

    /// The voters whose clocks agree with this one.
    fn agreeing(&self, with: i64) -> Vec<NodeId> {
        let rows = self.nodes.iter().zip(&self.others);
        rows.filter(|(_, read)| read.is_some_and(|read| read.agrees_with(with, Duration::ZERO))).map(|(node, _)| *node).collect()
    }
}

impl<R: Runtime> Voter<R> {
    /// The stamp of what this node is about to propose.
    pub(crate) async fn stamp(&self) -> UnixMillis {
        let mut backoff = Backoff::new();
        while self.verdict() == Verdict::Unknown && self.leads() && self.is_new() {
            backoff.wait::<R>().await;
        }
        if mutation::is_on(Mutation::OwnClockBelieved) {
            return self.clock.wall();
        }
        let log_time = lock(&self.core.shown).last_time();
        let mut known = lock(&self.clocks);
        let (time, stamps) = self.next_stamp(&known, log_time);
        known.stamps = stamps;
        time
    }

    /// What a stamp of this moment would be.
    pub(crate) fn time_now(&self) -> UnixMillis {
        let log_time = lock(&self.core.shown).last_time();
        self.next_stamp(&lock(&self.clocks), log_time).0
    }

    fn next_stamp(&self, known: &Known, log_time: UnixMillis) -> (UnixMillis, Stamps) {
        let (wall, now, mut stamps) = (self.clock.wall(), self.clock.monotonic(), known.stamps);
        stamps.saw(log_time, now);
        let agreed = match known.judge(offset(wall, now)) {
            Verdict::Agrees => Some(wall),
            Verdict::Differs { majority } => Some(shown(majority, now)),
            // Nothing is in the log yet, so there is nothing to go on from.
            Verdict::Split | Verdict::Unknown => Some(wall).filter(|_| stamps.is_empty()),
        };
        (stamps.next(agreed, now), stamps)
    }

    fn is_new(&self) -> bool {
        let begun = lock(&self.clocks).begun;
        self.clock.monotonic().saturating_sub(begun) < KNOWN_WITHIN && self.running().is_ok() && !self.gives_up()
    }

    fn verdict(&self) -> Verdict {
        let (own, _) = self.own_offset();
        let (verdict, alone) = {
            let known = lock(&self.clocks);
            (known.judge(own), known.nodes.is_empty())
        };
        if !alone {
            return verdict;
        }
        // Perhaps there is a membership only now, or others vote since a moment ago: who is not alone any more is not its own majority.
        let members = self.members();
        let mut known = lock(&self.clocks);
        if known.nodes.is_empty() {
            known.take(self.node, &members, &[]);
        }
        known.judge(own)
    }

    fn own_offset(&self) -> (i64, Duration) {
        let now = self.clock.monotonic();
        (offset(self.clock.wall(), now), now)
    }

    /// The clocks as this node knows them.
    pub(crate) fn clocks_now(&self) -> Clocks {
        let verdict = self.verdict();
        let (own, _) = self.own_offset();
        let known = lock(&self.clocks);
        let (standing, base) = match verdict {
            Verdict::Agrees => (ClockStanding::Agrees, middle(own, &known.others)),
            Verdict::Differs { majority } => (ClockStanding::Differs { ahead_ms: own.saturating_sub(majority) }, majority),
            Verdict::Split => (ClockStanding::Split, own),
            Verdict::Unknown => (ClockStanding::Unknown, own),
        };
        let others = known.nodes.iter().zip(&known.others).filter_map(|(node, read)| Some((*node, (*read)?.offset)));
        let ahead_ms = others.chain([(self.node, own)]).map(|(node, offset)| (node, offset.saturating_sub(base))).collect();
        Clocks { standing, ahead_ms }
    }

    /// Reads the clocks of the other voters, tells of a wrong one, and gives up leadership because of it. Ends with the voter.
    pub(crate) async fn keep_clocks(self: Arc<Self>) {
        let mut pause = EVERY_FIRST;
        loop {
            self.read_clocks().await;
            let verdict = self.verdict();
            self.tell(verdict);
            if let Verdict::Differs { majority } = verdict {
                self.give_way(majority).await;
            }
            pause = if verdict == Verdict::Unknown { (pause * 2).min(EVERY) } else { EVERY };
            if let Select2::First(_) = R::select2(self.core.stop.wait(), self.clock.sleep(pause)).await {
                return;
            }
        }
    }

    async fn read_clocks(&self) {
        let (members, (own, _)) = (self.members(), self.own_offset());
        let others = members.voters.iter().filter(|(node, _)| *node != self.node);
        let read = join_all(others.map(async |(node, address)| (*node, self.clock_of(*node, address).await))).await;
        let (now, log_time) = (self.clock.monotonic(), lock(&self.core.shown).last_time());
        let mut known = lock(&self.clocks);
        known.take(self.node, &members, &read);
        known.own_then = Some(own);
        known.stamps.saw(log_time, now);
    }

    async fn clock_of(&self, node: NodeId, address: &str) -> Option<Reading> {
        let asked = self.clock.monotonic();
        let call = self.transport.call(node, address, PeerRpc::Clock, encode_forward(&()), ASK_WITHIN);
        let answer = R::timeout(ASK_WITHIN, call).await.ok()?.ok()?;
        let wall = decode_forward("answer about a clock", answer).ok()?;
        Some(Reading::between(UnixMillis::new(wall), asked, self.clock.monotonic()))
    }

    /// In metrics, and once in the log.
    fn tell(&self, verdict: Verdict) {
        let (own, now) = self.own_offset();
        let mut known = lock(&self.clocks);
        let wrong = matches!(verdict, Verdict::Differs { .. } | Verdict::Split);
        let base = if let Verdict::Differs { majority } = verdict { majority } else { middle(own, &known.others) };
        metrics::gauge!("cinnabar_consensus_clock_agrees").set(if wrong { 0.0 } else { 1.0 });
        metrics::gauge!("cinnabar_consensus_clock_ahead_seconds").set(own.saturating_sub(base) as f64 / 1e3);
        if wrong {
            known.wrong_since.get_or_insert(now);
        } else if verdict == Verdict::Agrees {
            known.wrong_since = None;
        }
        let lasting = known.wrong_since.is_some_and(|since| now.saturating_sub(since) >= TOLD_AFTER);
        if lasting == known.told || (!lasting && verdict == Verdict::Unknown) {
            return;
        }
        known.told = lasting;
        drop(known);
        match verdict {
            Verdict::Differs { majority } => {
                let ahead_ms = own.saturating_sub(majority);
                tracing::error!(ahead_ms, "this node's clock is wrong: set it right. It stamps nothing by it, and gives up leadership");
            }
            Verdict::Split => {
                tracing::error!("no majority of the voters' clocks agrees: set them right, or bring back a voter whose clock is right");
            }
            Verdict::Agrees | Verdict::Unknown => tracing::info!("this node's clock agrees with a majority of the voters again"),
        }
    }

    /// Hands leadership to a voter whose clock agrees with the majority, when the own one has not for a while.
    async fn give_way(&self, majority: i64) {
        let now = self.clock.monotonic();
        let able = {
            let mut known = lock(&self.clocks);
            let lasting = known.wrong_since.is_some_and(|since| now.saturating_sub(since) >= TOLD_AFTER);
            let lately = known.handed_over_at.is_some_and(|at| now.saturating_sub(at) < HAND_OVER_EVERY);
            if !lasting || lately || !self.leads() || self.gives_up() {
                return;
            }
            known.handed_over_at = Some(now);
            known.agreeing(majority)
        };
        // A change of the membership is not torn in two; there is a next time.
        let Ok(_alone) = self.changing.try_lock() else { return };
        let rows = self.progress().into_iter().filter(|row| able.contains(&row.node));
        let Some(to) = rows.max_by_key(|row| (row.matched, std::cmp::Reverse((row.contact, row.node)))) else { return };
        match self.hand_over(Some(to.node)).await {
            Ok(_) => tracing::warn!(to = %to.node, "gave up leadership, because this node's clock is wrong"),
            Err(error) => {
                tracing::warn!(to = %to.node, reason = error.problem(), "this node's clock is wrong, and leadership was not handed over; it is tried again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId::new(1);

    fn members(voters: &[u64]) -> Membership {
        Membership { voters: voters.iter().map(|node| (NodeId::new(*node), String::new())).collect(), ..Membership::default() }
    }

    fn read(node: u64, offset: i64) -> (NodeId, Option<Reading>) {
        (NodeId::new(node), Some(Reading { offset, unsure: Duration::ZERO }))
    }

    #[test]
    fn only_what_was_read_last_counts_and_only_of_voters() {
        let mut known = Known::new(Duration::ZERO);
        assert_eq!(known.judge(0), Verdict::Unknown, "no membership yet");
        known.take(ME, &members(&[1]), &[]);
        assert_eq!(known.judge(0), Verdict::Agrees, "alone");
        known.take(ME, &members(&[1, 2, 3]), &[read(2, 0), read(3, 10)]);
        assert_eq!(known.judge(9_000), Verdict::Differs { majority: 0 });
        assert_eq!(known.agreeing(0), [NodeId::new(2), NodeId::new(3)]);
        known.take(ME, &members(&[1, 2, 3]), &[(NodeId::new(2), None), read(3, 10)]);
        assert_eq!(known.judge(0), Verdict::Agrees);
        assert_eq!(known.judge(9_000), Verdict::Split);
        known.take(ME, &members(&[1, 2]), &[read(3, 10)]);
        assert_eq!(known.judge(0), Verdict::Unknown);
        known.take(ME, &members(&[2]), &[read(2, 0)]);
        assert_eq!(known.judge(9_000), Verdict::Differs { majority: 0 }, "a learner");
    }

    #[test]
    fn step_of_the_own_clock_is_believed_by_later_readings_only() {
        let mut known = Known::new(Duration::ZERO);
        known.take(ME, &members(&[1, 2, 3]), &[read(2, 9_000), read(3, 0)]);
        known.own_then = Some(0);
        assert_eq!(known.judge(400), Verdict::Agrees);
        assert_eq!(known.judge(9_000), Verdict::Unknown, "2 may have been set right at the same moment");
        known.own_then = Some(9_000);
        assert_eq!(known.judge(9_000), Verdict::Agrees);
        known.take(ME, &members(&[1]), &[]);
        assert_eq!(known.judge(0), Verdict::Agrees, "alone");
    }
}
