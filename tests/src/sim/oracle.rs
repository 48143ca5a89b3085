//! What must hold, judged from outside: from what clients sent and were told, and from what edges showed.
//!
//! - P1: every acknowledged write is in the newest state, none twice, at positions that grow; one whose outcome nobody knows is there
//!   once or not at all; one that was refused or never sent is not there.
//! - P3: what an edge shows is the voter's state at exactly one position, and positions never go back. The state at a position is
//!   recomputed here from the change sets as they were first committed; and beside that, what clients know of their own writes must
//!   show in each root: all that was acknowledged up to its position, and nothing of what was acknowledged behind it.
//! - P4: each root that an edge shows has a seal over exactly what it is, by a signer of the set in force, whom the first set vouches for.
//! - P5 to P7: what lookups answer; see `lookups`.
//! - P8: what an edge has acknowledged as durable it shows after any crash, at once.
//! - Log time: a tick is not later than it, and it is not ahead of all clocks but one.
//! - Checkpoints: one vouches for no less than what was committed when its tick was applied, and the edge shows that position.

mod lookups;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use feed::{Anchor, CheckpointSeen};
use state::{ChangeSet, Propagated, Root, State, record::SecretRecord};
use types::{NodeId, Position, SealedValue, SecretId, StoreId, UnixMillis, ValueId, Version};

pub(super) use self::lookups::{Ask, Told};
use super::{
    clock::{elapsed, true_wall},
    history::History,
    runtime::lock,
    voter::CLUSTER,
};

/// How far log time can be ahead of the truth: as the most wrong of the clocks that are right, the tolerance of the judge of clocks, and
/// half of the longest way of an answer about one.
const AHEAD_MAX: Duration = Duration::from_millis(400 + 1_000 + 500);

/// What a client wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named for the newtypes that they hold")]
pub(super) enum Wish {
    /// Something that is not followed further: an account, a store.
    Other,
    /// Something that no edge hears of, and that makes no change set.
    Control,
    /// A new secret with its first value and comment.
    Create { store: StoreId, secret: SecretId, value: ValueId, comment: String },
    /// A new value.
    Set { secret: SecretId, value: ValueId },
    /// Another comment.
    Edit { secret: SecretId, comment: String },
    /// Its end.
    Delete { secret: SecretId },
}

/// How a write stands, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Under way, or given up without an answer: it may have been done, or be done yet.
    Open,
    /// Answered with this position, and the version it made.
    Acknowledged(Position, Option<Version>),
    /// Refused, or never taken: it is not done.
    Void,
}

/// A write's place in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteId(usize);

struct Write {
    wish: Wish,
    fate: Fate,
    /// The highest position that was acknowledged to anybody before this was sent.
    floor: Option<Position>,
}

#[derive(Default)]
struct Shown {
    /// What clients of this edge have seen.
    published: Option<Position>,
    /// What the voter was told is durable there.
    durable: Option<Position>,
    checkpoint: Option<UnixMillis>,
    /// Whether the running process has shown anything.
    fresh: bool,
    /// It has lost its log, and may show nothing until what it has shown is certainly back.
    lost: bool,
}

#[derive(Default)]
struct Books {
    /// The state after each change set, by revision; 0 is the empty one.
    chain: Vec<Propagated>,
    ticks: BTreeMap<UnixMillis, Position>,
    writes: Vec<Write>,
    by_secret: BTreeMap<SecretId, (StoreId, Vec<usize>)>,
    by_position: BTreeMap<Position, WriteId>,
    /// The highest acknowledged position.
    acknowledged: Option<Position>,
    edges: BTreeMap<NodeId, Shown>,
    /// Each value ever sealed, and what is in it.
    values: BTreeMap<ValueId, (Vec<SealedValue>, Vec<u8>)>,
    /// When something was acknowledged, and the highest position acknowledged by then.
    acknowledgements: Vec<(Duration, Position)>,
    /// How far clocks have ever been off, the one most behind and the one most ahead, in milliseconds.
    skews: (i64, i64),
    /// Consumers' tokens, and when their revocation was acknowledged.
    revoked_tokens: BTreeMap<[u8; 32], Duration>,
    /// Edges, and when their revocation was acknowledged.
    revoked_edges: BTreeMap<NodeId, Duration>,
    /// Seals that were found good.
    seals: BTreeSet<[u8; 64]>,
    /// What edges trust to begin with.
    anchor: Option<Anchor>,
    /// How long an edge serves without the voters.
    offline_max: Option<Duration>,
}

/// The books of one run. Clones share them.
#[derive(Clone)]
pub(super) struct Oracle {
    books: Arc<Mutex<Books>>,
    history: History,
}

impl Oracle {
    /// Books in which nothing has happened. `offline_max`: how long an edge serves without the voters.
    pub(super) fn new(history: History, offline_max: Option<Duration>) -> Self {
        let books = Books { chain: vec![Propagated::empty()], offline_max, ..Books::default() };
        Self { books: Arc::new(Mutex::new(books)), history }
    }

    /// What edges trust to begin with.
    pub(super) fn anchored(&self, anchor: Anchor) {
        lock(&self.books).anchor = Some(anchor);
    }

    /// Some clock is off by so many milliseconds.
    pub(super) fn skewed(&self, ms: i64) {
        let skews = &mut lock(&self.books).skews;
        *skews = (skews.0.min(ms), skews.1.max(ms));
    }

    // What the voters commit.

    /// A voter has begun with this state, which must be one that there was before.
    pub(super) fn began(&self, voter: NodeId, state: &State) {
        let books = lock(&self.books);
        self.history.event(format_args!("voter {voter} begins at {}", state.position()));
        self.is_known(&books, "P1", &format!("voter {voter}, begun anew,"), state.propagated());
    }

    /// A voter has applied these change sets.
    pub(super) fn committed(&self, voter: NodeId, sets: &[Arc<ChangeSet>], state: &State) {
        let mut books = lock(&self.books);
        for set in sets {
            let revision = set.header.position.revision.get() as usize;
            match books.chain.get(revision) {
                Some(known) if known.chain_hash() == set.hash => {}
                Some(_) => self.history.violated("P1", format_args!("{} was committed with other content before", set.header.position)),
                None => {
                    let mut next = books.chain.last().cloned().unwrap_or_default();
                    match next.accept(set) {
                        Ok(()) if next.position().revision.get() as usize == books.chain.len() => books.chain.push(next),
                        Ok(()) => self.history.violated("P3", format_args!("a revision is left out before {}", set.header.position)),
                        Err(error) => self.history.violated("P3", format_args!("the chain of voter {voter} breaks: {error}")),
                    }
                }
            }
            self.history.event(format_args!("voter {voter} applies {} {}", set.header.position, set.hash));
        }
        self.is_known(&books, "P3", &format!("voter {voter}"), state.propagated());
    }

    /// The voter has applied a tick.
    pub(super) fn ticked(&self, state: &State, time: UnixMillis) {
        if time > state.last_time() {
            self.history
                .violated("P3", format_args!("a tick of {time:?}, and log time is {:?}: nobody has committed it", state.last_time()));
        }
        let ahead = Duration::from_millis(state.last_time().get()).saturating_sub(true_wall());
        if ahead > AHEAD_MAX {
            self.history.violated("P7", format_args!("log time is {ahead:?} ahead, and only one clock was ever wrong at a time"));
        }
        // Applied in one batch with what followed it, it vouches for more than it must.
        lock(&self.books).ticks.entry(time).and_modify(|least| *least = (*least).min(state.position())).or_insert(state.position());
        self.history.event(format_args!("tick {}", time.get()));
    }

    /// The newest position that was ever committed.
    pub(super) fn head(&self) -> Position {
        lock(&self.books).chain.last().map(|known| known.position()).unwrap_or_default()
    }

    fn is_known(&self, books: &Books, promise: &str, who: &str, state: &Propagated) {
        let at = state.position();
        let known = books.chain.get(at.revision.get() as usize);
        let Some(known) = known.filter(|known| known.position() == at) else {
            return self.history.violated(promise, format_args!("{who} stands at {at}, which was never committed"));
        };
        if known.chain_hash() != state.chain_hash() || known.state_root() != state.state_root() {
            self.history.violated(promise, format_args!("{who} has another history or root at {at}"));
        } else if !known.records().eq(state.records()) {
            self.history.violated(promise, format_args!("{who} has other records than the voter had at {at}"));
        }
    }

    // What clients do.

    /// A client sends a write for the first time.
    pub(super) fn sent(&self, wish: Wish) -> WriteId {
        let mut books = lock(&self.books);
        let id = books.writes.len();
        match &wish {
            Wish::Other | Wish::Control => {}
            Wish::Create { store, secret, .. } => drop(books.by_secret.insert(*secret, (*store, vec![id]))),
            Wish::Set { secret, .. } | Wish::Edit { secret, .. } | Wish::Delete { secret } => {
                if let Some((_, writes)) = books.by_secret.get_mut(secret) {
                    writes.push(id);
                }
            }
        }
        let floor = books.acknowledged;
        books.writes.push(Write { wish, fate: Fate::Open, floor });
        WriteId(id)
    }

    /// A client was answered.
    pub(super) fn answered(&self, id: WriteId, fate: Fate) {
        let mut books = lock(&self.books);
        self.history.event(format_args!("write {} {fate:?}", id.0));
        books.writes[id.0].fate = fate;
        let Fate::Acknowledged(position, _) = fate else { return };
        if books.writes[id.0].wish == Wish::Control {
            return;
        }
        self.history.count("acknowledged");
        let floor = books.writes[id.0].floor;
        if floor >= Some(position) {
            self.history.violated("P3", format_args!("write {} was sent after {floor:?} was acknowledged and is at {position}", id.0));
        }
        if let Some(other) = books.by_position.insert(position, id).filter(|other| *other != id) {
            self.history.violated("P1", format_args!("writes {} and {} are both at {position}", other.0, id.0));
        }
        books.acknowledged = books.acknowledged.max(Some(position));
        if let Some(highest) = books.acknowledged {
            books.acknowledgements.push((elapsed(), highest));
        }
    }

    /// A value was sealed.
    pub(super) fn sealed(&self, value: ValueId, sealed: SealedValue, plaintext: &[u8]) {
        let mut books = lock(&self.books);
        books.values.entry(value).or_insert_with(|| (Vec::new(), plaintext.to_vec())).0.push(sealed);
    }

    /// The revocation of a consumer's token was acknowledged.
    pub(super) fn token_revoked(&self, hash: [u8; 32]) {
        lock(&self.books).revoked_tokens.entry(hash).or_insert_with(elapsed);
    }

    /// The revocation of an edge was acknowledged.
    pub(super) fn edge_revoked(&self, edge: NodeId) {
        lock(&self.books).revoked_edges.entry(edge).or_insert_with(elapsed);
    }

    /// The highest position acknowledged to anybody so far: a read that begins now must not be behind it.
    pub(super) fn acknowledged(&self) -> Option<Position> {
        lock(&self.books).acknowledged
    }

    /// A client has read the newest state from the voter; `floor` is from before it asked.
    pub(super) fn read(&self, state: &Propagated, floor: Option<Position>) {
        let books = lock(&self.books);
        self.history.event(format_args!("read at {}", state.position()));
        if Some(state.position()) < floor {
            self.history.violated("P1", format_args!("a linearizable read shows {}, after {floor:?} was acknowledged", state.position()));
        }
        self.is_known(&books, "P1", "a linearizable read", state);
        self.shows_writes(&books, "P1", "a linearizable read", state);
    }

    // What edges show.

    /// An edge's process begins.
    pub(super) fn edge_starts(&self, edge: NodeId) {
        let mut books = lock(&self.books);
        let shown = books.edges.entry(edge).or_default();
        // The last checkpoints of before may not have been on the disk: they come again.
        (shown.fresh, shown.checkpoint) = (true, None);
    }

    /// An edge's process opens its disk again: the last checkpoints of before may come again.
    pub(super) fn edge_opens_again(&self, edge: NodeId) {
        lock(&self.books).edges.entry(edge).or_default().checkpoint = None;
    }

    /// An edge's process has recovered: what it once acknowledged as durable must be shown by now.
    pub(super) fn edge_recovered(&self, edge: NodeId) {
        let books = lock(&self.books);
        let Some(shown) = books.edges.get(&edge) else { return };
        if shown.fresh && shown.durable.is_some() {
            self.history.violated("P5", format_args!("edge {edge} holds {:?} durably and shows nothing after its start", shown.durable));
        }
    }

    /// The disk of an edge was lost with all that was on it: it is a new edge.
    pub(super) fn edge_lost_everything(&self, edge: NodeId) {
        lock(&self.books).edges.insert(edge, Shown::default());
    }

    /// The log of an edge was lost, and its table. What it has shown it may not go back behind, nor show before it is certainly back.
    pub(super) fn edge_lost_its_log(&self, edge: NodeId) {
        let mut books = lock(&self.books);
        let shown = books.edges.entry(edge).or_default();
        (shown.durable, shown.lost) = (None, true);
    }

    /// The voter holds that an edge has this durably.
    pub(super) fn durable(&self, edge: NodeId, position: Position) {
        let mut books = lock(&self.books);
        let shown = books.edges.entry(edge).or_default();
        if shown.durable < Some(position) {
            shown.durable = Some(position);
            self.history.event(format_args!("edge {edge} holds {position}"));
            if shown.published < Some(position) {
                self.history.violated("P8", format_args!("edge {edge} acknowledged {position} and shows {:?}", shown.published));
            }
        }
    }

    /// An edge shows a root.
    pub(super) fn published(&self, edge: NodeId, root: &Root) {
        let mut books = lock(&self.books);
        let at = root.state.position();
        self.history.event(format_args!("edge {edge} shows {at} {}", root.state.state_root()));
        self.history.count("roots shown");
        let shown = books.edges.entry(edge).or_default();
        if shown.published > Some(at) {
            self.history.violated("P3", format_args!("edge {edge} goes back from {:?} to {at}", shown.published));
        }
        if shown.fresh && shown.durable > Some(at) {
            self.history.violated("P8", format_args!("edge {edge} had acknowledged {:?} as durable and begins with {at}", shown.durable));
        }
        shown.published = Some(at);
        (shown.fresh, shown.lost) = (false, false);
        let who = format!("edge {edge}");
        self.is_known(&books, "P3", &who, &root.state);
        self.shows_writes(&books, "P3", &who, &root.state);
        self.is_sealed(&mut books, edge, root);
    }

    fn is_sealed(&self, books: &mut Books, edge: NodeId, root: &Root) {
        if root.seal.statement != root.state.seal_statement(CLUSTER) {
            let at = root.state.position();
            return self.history.violated("P4", format_args!("edge {edge} shows {at}, and its seal is over {:?}", root.seal.statement));
        }
        if !books.seals.insert(root.seal.signature) {
            return;
        }
        let anchor = books.anchor;
        let verify = || feed::verify_signed(&root.state, CLUSTER, anchor, "seal", &root.seal).map_err(|fault| fault.to_string());
        // In a thread of its own no deliberate bug of this one is felt.
        let verified = std::thread::scope(|scope| scope.spawn(verify).join());
        if let Err(fault) = verified.unwrap_or_else(|_| Err("the verification panicked".to_owned())) {
            self.history.violated("P4", format_args!("edge {edge} shows {} under a bad seal: {fault}", root.state.position()));
        }
    }

    /// An edge counts its age from a checkpoint.
    pub(super) fn checkpoint(&self, edge: NodeId, seen: CheckpointSeen) {
        let mut books = lock(&self.books);
        self.history.event(format_args!("edge {edge} hears of {} at {}", seen.position, seen.time.get()));
        let ticked = books.ticks.get(&seen.time).copied();
        let shown = books.edges.entry(edge).or_default();
        if seen.restored_wall.is_some() {
            return;
        }
        if ticked.is_none_or(|ticked| seen.position < ticked) || shown.published < Some(seen.position) {
            let published = shown.published;
            self.history.violated(
                "P3",
                format_args!("edge {edge} shows {published:?} and takes a checkpoint of {seen:?}; the tick was at {ticked:?}"),
            );
        }
        if shown.checkpoint >= Some(seen.time) {
            self.history
                .violated("P3", format_args!("edge {edge} takes a checkpoint of {:?} after one of {:?}", seen.time, shown.checkpoint));
        }
        shown.checkpoint = Some(seen.time);
    }

    /// What the clients of an edge have seen.
    pub(super) fn shown(&self, edge: NodeId) -> Option<Position> {
        lock(&self.books).edges.get(&edge).and_then(|shown| shown.published)
    }

    // The end.

    /// All faults are over and this is the newest state.
    pub(super) fn ended(&self, state: &State) {
        let books = lock(&self.books);
        let acknowledged = books.by_position.len() as u64;
        let open = books.writes.iter().filter(|write| write.fate == Fate::Open && write.wish != Wish::Control).count() as u64;
        let revisions = state.position().revision.get();
        self.history.event(format_args!("the end at {}: {acknowledged} acknowledged, {open} open", state.position()));
        if Some(state.position()) < books.acknowledged {
            self.history
                .violated("P1", format_args!("the newest state is {}, {:?} was acknowledged", state.position(), books.acknowledged));
        }
        // Each write makes one change set, and nothing else makes any.
        if revisions < acknowledged || revisions > acknowledged + open {
            self.history.violated(
                "P1",
                format_args!("{revisions} change sets for {acknowledged} acknowledged writes and {open} of unknown outcome"),
            );
        }
        self.is_known(&books, "P1", "the newest state", state.propagated());
        self.shows_writes(&books, "P1", "the newest state", state.propagated());
        let again = Propagated::from_records(state.head(), state.propagated().records().map(|(key, value)| (key.clone(), value.clone())));
        if again.state_root() != state.state_root() {
            self.history.violated("P3", format_args!("the state root at {} is not the root of its records", state.position()));
        }
    }

    /// Holds a state against what clients know of their writes.
    fn shows_writes(&self, books: &Books, promise: &str, who: &str, state: &Propagated) {
        for (secret, (store, writes)) in &books.by_secret {
            let writes: Vec<&Write> = writes.iter().map(|id| &books.writes[*id]).collect();
            if let Err(wrong) = Expected::at(state.position(), &writes).check(books, *store, *secret, state) {
                self.history.violated(promise, format_args!("{who} at {}: secret {secret} {wrong}", state.position()));
            }
        }
    }
}

/// Whether something has happened at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sure {
    Yes,
    No,
    Unknown,
}

impl Write {
    fn done_at(&self, at: Position) -> Sure {
        match self.fate {
            Fate::Acknowledged(position, _) if position <= at => Sure::Yes,
            Fate::Acknowledged(..) | Fate::Void => Sure::No,
            Fate::Open => Sure::Unknown,
        }
    }
}

/// What clients know that a secret must be at a position.
struct Expected {
    created: Sure,
    deleted: Sure,
    /// Each value ever sent for it, whether it is there, and the version it was answered with.
    values: Vec<(ValueId, Sure, Option<Version>)>,
    comments: Vec<String>,
}

impl Expected {
    fn at(at: Position, writes: &[&Write]) -> Self {
        let mut expected = Self { created: Sure::No, deleted: Sure::No, values: Vec::new(), comments: Vec::new() };
        for write in writes {
            let done = write.done_at(at);
            let version = if let Fate::Acknowledged(_, version) = write.fate { version } else { None };
            match &write.wish {
                Wish::Other | Wish::Control => {}
                Wish::Create { value, comment, .. } => {
                    expected.created = done;
                    expected.values.push((*value, done, version));
                    expected.comments.push(comment.clone());
                }
                Wish::Set { value, .. } => expected.values.push((*value, done, version)),
                Wish::Edit { comment, .. } => match done {
                    // One comment at a time: what is sure to be done takes the place of what was sure before it.
                    Sure::Yes => {
                        let open = writes.iter().filter(|other| other.done_at(at) == Sure::Unknown);
                        let open = open
                            .filter_map(|other| if let Wish::Edit { comment, .. } = &other.wish { Some(comment.clone()) } else { None });
                        expected.comments = open.chain([comment.clone()]).collect();
                    }
                    Sure::Unknown => expected.comments.push(comment.clone()),
                    Sure::No => {}
                },
                Wish::Delete { .. } => {
                    expected.deleted = match (expected.deleted, done) {
                        (Sure::Yes, _) | (_, Sure::Yes) => Sure::Yes,
                        (Sure::Unknown, _) | (_, Sure::Unknown) => Sure::Unknown,
                        (Sure::No, Sure::No) => Sure::No,
                    }
                }
            }
        }
        expected
    }

    fn check(&self, books: &Books, store: StoreId, secret: SecretId, state: &Propagated) -> Result<(), String> {
        let found = state.secret(store, secret).map_err(|error| format!("cannot be read: {error}"))?;
        match (found, self.created, self.deleted) {
            (Some(_), Sure::No, _) => Err("is there before it was made".to_owned()),
            (Some(_), _, Sure::Yes) => Err("is there after it was deleted".to_owned()),
            (None, Sure::Yes, Sure::No) => Err("is missing".to_owned()),
            (None, ..) => Ok(()),
            (Some(record), ..) => self.check_record(books, secret, &record, state),
        }
    }

    fn check_record(&self, books: &Books, secret: SecretId, record: &SecretRecord, state: &Propagated) -> Result<(), String> {
        let mut may_be_current = Vec::new();
        let mut last_sure = None;
        for (value, sure, version) in &self.values {
            let found: Vec<Version> = record.versions.iter().filter(|entry| entry.value_id == *value).map(|entry| entry.version).collect();
            match (sure, found.as_slice()) {
                (_, [_, _, ..]) => return Err(format!("has the value {value} twice")),
                (Sure::Yes, [there]) if Some(*there) == *version => last_sure = Some(*there),
                (Sure::Yes, there) => return Err(format!("has {there:?} for the value {value}, acknowledged as {version:?}")),
                (Sure::No, [_]) => return Err(format!("has the value {value}, which was not set by then")),
                (Sure::Unknown, [there]) => may_be_current.push(*there),
                (_, []) => {}
            }
        }
        may_be_current.extend(last_sure);
        if !may_be_current.contains(&record.current) {
            return Err(format!("has version {} as current, not one of {may_be_current:?}", record.current));
        }
        if let Some(stranger) = record.versions.iter().find(|entry| self.values.iter().all(|(value, ..)| *value != entry.value_id)) {
            return Err(format!("has the value {}, which nobody sent", stranger.value_id));
        }
        if !self.comments.iter().any(|comment| comment == record.comment.as_str()) {
            return Err(format!("has the comment {:?}, not one of {:?}", record.comment.as_str(), self.comments));
        }
        let current = record.current_entry().map(|entry| entry.value_id).ok_or("has no current version")?;
        let stored = state.value(secret, current).map_err(|error| error.to_string())?.ok_or("has no stored value")?;
        if !books.values.get(&current).is_some_and(|(sealed, _)| sealed.contains(&stored.sealed)) {
            return Err(format!("has other bytes for the value {current} than were sent"));
        }
        Ok(())
    }
}
