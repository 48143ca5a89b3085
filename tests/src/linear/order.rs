//! What positions, versions, real time and edges say of one another.

use std::collections::{BTreeMap, HashMap};

use types::Position;

use super::{Call, History, Lookup, Op, Outcome, Shown, Violation};

/// A change that has an answer.
#[derive(Clone, Copy)]
struct Change {
    position: Position,
    /// The version it made; none of a deletion.
    version: Option<u64>,
    call: Call,
}

fn change(call: &Call) -> Option<Change> {
    match call.outcome {
        Outcome::Written { version, position } => Some(Change { position, version: Some(version), call: *call }),
        Outcome::Deleted { position } => Some(Change { position, version: None, call: *call }),
        _ => None,
    }
}

fn refuse(what: String) -> Result<(), Violation> {
    Err(Violation(what))
}

pub(super) fn check(history: &History) -> Result<(), Violation> {
    let mut changes: Vec<Change> = history.calls.iter().filter_map(change).collect();
    changes.sort_by_key(|change| change.position);
    if let Some(pair) = changes.windows(2).find(|pair| pair[0].position == pair[1].position) {
        return refuse(format!("two changes at one position: {:?} and {:?}", pair[0].call, pair[1].call));
    }
    real_time(&changes)?;
    let mut keys: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
    for change in changes {
        keys.entry(change.call.key).or_default().push(change);
    }
    keys.iter().try_for_each(|(key, changes)| versions(*key, changes, history))?;
    edges_go_forward(&history.lookups)?;
    let values = values(&history.calls)?;
    let mut known = Known::of(&values);
    history.lookups.iter().try_for_each(|lookup| look(lookup, history, &keys, &values, &mut known))
}

/// What was answered before another began has the lower position. `changes` are by rising position.
fn real_time(changes: &[Change]) -> Result<(), Violation> {
    let mut newest: Option<&Change> = None;
    // From the highest position down: nobody who lies higher may have ended before one who lies lower began.
    for change in changes.iter().rev() {
        if let Some(earlier) = newest.filter(|earlier| earlier.call.ended < change.call.began) {
            return refuse(format!("{:?} was answered before {:?} began, and lies behind it", earlier.call, change.call));
        }
        if newest.is_none_or(|earliest| change.call.ended < earliest.call.ended) {
            newest = Some(change);
        }
    }
    Ok(())
}

/// A key's versions rise with its positions, and there are no more of them than writes were tried.
fn versions(key: u32, changes: &[Change], history: &History) -> Result<(), Violation> {
    let versions: Vec<(u64, &Change)> = changes.iter().filter_map(|change| change.version.map(|version| (version, change))).collect();
    if let Some(pair) = versions.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return refuse(format!("versions of key {key} do not rise with positions: {:?}, then {:?}", pair[0].1.call, pair[1].1.call));
    }
    if let Some(pair) = changes.windows(2).find(|pair| pair[0].version.is_none()) {
        return refuse(format!("key {key} was deleted, and changed again: {:?}, then {:?}", pair[0].call, pair[1].call));
    }
    let tried = history.calls.iter().filter(|call| call.key == key && matches!(call.op, Op::Create { .. } | Op::Set { .. }));
    // What was refused made no version.
    let made = tried.filter(|call| matches!(call.outcome, Outcome::Written { .. } | Outcome::Unknown)).count() as u64;
    match versions.last() {
        Some((newest, change)) if *newest > made => {
            refuse(format!("key {key} has version {newest}, and at most {made} writes: one counts twice, at the latest {:?}", change.call))
        }
        _ => Ok(()),
    }
}

/// An edge's position never goes back, whoever asks.
fn edges_go_forward(lookups: &[Lookup]) -> Result<(), Violation> {
    let mut edges: BTreeMap<u32, Vec<(u64, Position, bool)>> = BTreeMap::new();
    for lookup in lookups {
        if let Shown::Value { position, .. } = lookup.shown {
            edges.entry(lookup.edge).or_default().extend([(lookup.began, position, false), (lookup.ended, position, true)]);
        }
    }
    for (edge, mut events) in edges {
        events.sort_by_key(|(time, ..)| *time);
        // At each beginning, what had been shown by then; looked at when that lookup has ended.
        let mut seen = Position::default();
        for (_, position, ended) in events {
            if ended {
                seen = seen.max(position);
            } else if position < seen {
                return refuse(format!("edge {edge} showed {seen}, and later {position}"));
            }
        }
    }
    Ok(())
}

/// Who wrote each value.
fn values(calls: &[Call]) -> Result<HashMap<u64, Call>, Violation> {
    let mut values = HashMap::new();
    for call in calls {
        if let Op::Create { value } | Op::Set { value, .. } = call.op
            && let Some(other) = values.insert(value, *call)
        {
            refuse(format!("the test wrote value {value} twice: {other:?} and {call:?}"))?;
        }
    }
    Ok(values)
}

/// Which version has which value, as far as anybody was told.
struct Known {
    by_version: HashMap<(u32, u64), u64>,
    by_value: HashMap<u64, u64>,
}

impl Known {
    fn of(values: &HashMap<u64, Call>) -> Self {
        let mut known = Self { by_version: HashMap::new(), by_value: HashMap::new() };
        for (value, call) in values {
            if let Outcome::Written { version, .. } = call.outcome {
                known.agrees(call.key, version, *value);
            }
        }
        known
    }

    /// Whether a version and a value belong to nobody else.
    fn agrees(&mut self, key: u32, version: u64, value: u64) -> bool {
        *self.by_version.entry((key, version)).or_insert(value) == value && *self.by_value.entry(value).or_insert(version) == version
    }
}

/// One lookup: the key's newest value at the position that was told, which is one that was demanded.
fn look(
    lookup: &Lookup,
    history: &History,
    keys: &BTreeMap<u32, Vec<Change>>,
    values: &HashMap<u64, Call>,
    told: &mut Known,
) -> Result<(), Violation> {
    let changes = keys.get(&lookup.key).map_or(&[][..], Vec::as_slice);
    let Shown::Value { value, version, position } = lookup.shown else { return absent(lookup, history, changes) };
    if lookup.demanded.is_some_and(|demanded| position < demanded) {
        return refuse(format!("less was shown than was demanded: {lookup:?}"));
    }
    let Some(write) = values.get(&value).filter(|write| write.key == lookup.key) else {
        return refuse(format!("a value was shown that nobody wrote there: {lookup:?}"));
    };
    if write.began > lookup.ended {
        return refuse(format!("a value was shown before it was written: {lookup:?}, {write:?}"));
    }
    match write.outcome {
        Outcome::Written { version: told, position: at } if told != version || at > position => {
            return refuse(format!("a value was shown as another version, or too early: {lookup:?}, {write:?}"));
        }
        Outcome::Written { .. } | Outcome::Unknown => {}
        _ => return refuse(format!("a value was shown that was refused: {lookup:?}, {write:?}")),
    }
    if !told.agrees(lookup.key, version, value) {
        return refuse(format!("one version with two values, or one value as two versions: {lookup:?}"));
    }
    let (before, behind) = changes.split_at(changes.partition_point(|change| change.position <= position));
    // Versions rise with positions, and a deletion is the last change: of both parts only what lies beside the position counts.
    if let Some(newer) = before.last().filter(|change| change.version.is_none_or(|other| other > version)) {
        return refuse(format!("an older state was shown than that of its position: {lookup:?}, though {:?}", newer.call));
    }
    match behind.first().filter(|change| change.version.is_some_and(|other| other <= version)) {
        Some(later) => refuse(format!("a newer state was shown than that of its position: {lookup:?}, though {:?}", later.call)),
        None => Ok(()),
    }
}

/// Absence is right before the key is bound, and once its deletion has begun.
fn absent(lookup: &Lookup, history: &History, changes: &[Change]) -> Result<(), Violation> {
    let bound = history.bound.get(lookup.key as usize).is_some_and(|bound| lookup.demanded >= Some(*bound));
    let deletion = |call: &&Call| call.key == lookup.key && call.op == Op::Delete && call.began < lookup.ended;
    let deleted = history.calls.iter().filter(deletion).any(|call| matches!(call.outcome, Outcome::Deleted { .. } | Outcome::Unknown));
    match (bound, changes.first()) {
        (true, Some(first)) if !deleted => refuse(format!("absence was claimed of what is there: {lookup:?}, {:?}", first.call)),
        _ => Ok(()),
    }
}
