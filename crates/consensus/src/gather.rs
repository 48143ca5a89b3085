//! Proposals that wait together enter the log together.
//!
//! What one more entry costs, at the leader and at every follower, is little beside what one more group of entries costs: a message to
//! each follower and its answer, an fdatasync, copies of the nodes of the state that are shown, and the tasks that all of it wakes. So
//! while [`GROUPS_MAX`] groups are on their way from proposal to reply, what comes gathers here, and leaves as one group as soon as one
//! of those has arrived. Nobody waits for company: a proposal that finds the way free leaves at once.
//!
//! **Invariants**
//! 1. Whatever waits is carried: there is a carrier as long as something waits, and it ends only when nothing does.
//! 2. What has waited past its time is not proposed any more.

use std::{collections::VecDeque, sync::Arc, sync::Mutex};

use bytes::Bytes;
use futures::{StreamExt, channel::oneshot};
use openraft::{
    Instant as _,
    errors::{ClientWriteError, ForwardToLeader},
};
use types::NodeId;

use crate::{
    Runtime,
    engine::Voter,
    lock,
    raft::{Proposal, Types},
    write::Local,
};

/// Groups on their way at once: while one is on the disks, the other is encoded, sent, or applied.
const GROUPS_MAX: usize = 2;
/// Commands in a group, and about how many bytes of them: what follows should not wait long behind it.
const GROUP_COMMANDS_MAX: usize = 512;
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Where proposals gather.
pub(crate) struct Gather<R: Runtime>(Mutex<Inner<R>>);

struct Inner<R: Runtime> {
    waiting: VecDeque<Waiting<R>>,
    carriers: usize,
}

struct Waiting<R: Runtime> {
    command: Bytes,
    until: R::Instant,
    answer: oneshot::Sender<Local>,
}

impl<R: Runtime> Gather<R> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner { waiting: VecDeque::new(), carriers: 0 }))
    }

    /// Takes one in. True if it needs a carrier.
    fn join(&self, waiting: Waiting<R>) -> bool {
        let mut inner = lock(&self.0);
        inner.waiting.push_back(waiting);
        let free = inner.carriers < GROUPS_MAX;
        inner.carriers += usize::from(free);
        free
    }

    /// The next group; none ends the carrier.
    fn leave(&self) -> Option<Vec<Waiting<R>>> {
        let mut inner = lock(&self.0);
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP_COMMANDS_MAX
            && let Some(next) = inner.waiting.pop_front_if(|next| group.is_empty() || bytes + next.command.len() <= GROUP_BYTES_MAX)
        {
            bytes += next.command.len();
            group.push(next);
        }
        inner.carriers -= usize::from(group.is_empty());
        (!group.is_empty()).then_some(group)
    }
}

impl<R: Runtime> Voter<R> {
    /// Proposes at this node, if it leads; not any more after `until`.
    pub(crate) async fn propose_here(self: &Arc<Self>, command: Bytes, until: R::Instant) -> Local {
        let (answer, answered) = oneshot::channel();
        if self.gather.join(Waiting { command, until, answer }) {
            // Not joined: it ends when nothing waits.
            drop(R::spawn(self.clone().carry()));
        }
        answered.await.unwrap_or_else(|_| Local::Lost("the voter ended".to_owned()))
    }

    async fn carry(self: Arc<Self>) {
        while let Some(group) = self.gather.leave() {
            self.propose_group(group).await;
        }
    }

    async fn propose_group(&self, group: Vec<Waiting<R>>) {
        let now = R::Instant::now();
        let (group, late): (Vec<_>, Vec<_>) = group.into_iter().partition(|waiting| now < waiting.until);
        late.into_iter().for_each(|waiting| drop(waiting.answer.send(Local::Wait)));
        if group.is_empty() {
            return;
        }
        let (commands, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|waiting| (Proposal(waiting.command), waiting.answer)).unzip();
        let mut written = match self.raft.client_write_many(commands).await {
            // It ends at a failure, also for those that still wait: they ask on, and a stream that is not fused would panic.
            Ok(written) => written.fuse(),
            Err(fatal) => {
                self.fatal(&fatal);
                answers.into_iter().for_each(|answer| drop(answer.send(Local::Lost(format!("the voter stopped: {fatal}")))));
                return;
            }
        };
        for answer in answers {
            let local = match written.next().await {
                Some(Ok(Ok(written))) => match written.response.0 {
                    Some(judged) => Local::Judged(written.log_id.index, judged),
                    None => Local::Lost("the entry was applied without a reply".to_owned()),
                },
                Some(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => match self.elsewhere(forward) {
                    Some((leader, address)) => Local::To(leader, address),
                    None => Local::Wait,
                },
                Some(Ok(Err(error))) => Local::Lost(format!("the leader changed: {error}")),
                Some(Err(fatal)) => {
                    self.fatal(&fatal);
                    Local::Lost(format!("the voter stopped: {fatal}"))
                }
                None => Local::Lost("the voter ended".to_owned()),
            };
            // Whoever asked may have gone.
            drop(answer.send(local));
        }
    }

    /// The leader that an answer names, unless it is this node.
    pub(crate) fn elsewhere(&self, forward: ForwardToLeader<Types<R>>) -> Option<(NodeId, String)> {
        let leader = forward.leader_id.filter(|leader| *leader != self.node.get())?;
        Some((NodeId::new(leader), forward.leader_node?.addr))
    }
}
