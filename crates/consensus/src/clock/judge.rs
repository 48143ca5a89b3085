//! What the voters' clocks say together, and what stamp follows from it. Pure: readings in, verdict and stamp out.
//!
//! A clock is held as its *offset*: how far its wall clock is ahead of this node's monotonic time. So a reading of another node stays
//! right while time goes on, and a step of the own clock shows at once, without asking anybody again.

use std::time::Duration;

use types::UnixMillis;

/// Two clocks agree when they are no further apart than this, and half of the way that a reading took. It is also how far a tick may be
/// from the clock of a voter that signs it.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(1);
/// Log time that is ahead of the majority goes on at this part of real time until they meet: it never stands still, so a grace period
/// always ends, and it is met nearly as soon as if it did.
const SLOW: u32 = 10;

/// A wall clock's lead over this node's monotonic time, in milliseconds.
pub(crate) type Offset = i64;

/// The offset of a wall clock that was read at this monotonic time.
pub(crate) fn offset(wall: UnixMillis, monotonic: Duration) -> Offset {
    signed(wall.get()).saturating_sub(signed(millis(monotonic)))
}

/// What a clock of this offset shows at this monotonic time.
pub(crate) fn shown(offset: Offset, monotonic: Duration) -> UnixMillis {
    UnixMillis::new(signed(millis(monotonic)).saturating_add(offset).max(0).unsigned_abs())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Another voter's clock, as it was read from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) offset: Offset,
    /// How much the way of the answer leaves open, either way: half of the time from question to answer.
    pub(crate) unsure: Duration,
}

impl Reading {
    /// A wall clock that was read at some moment between two of this node's monotonic time.
    pub(crate) fn between(wall: UnixMillis, asked: Duration, answered: Duration) -> Self {
        let unsure = answered.saturating_sub(asked) / 2;
        Self { offset: offset(wall, asked + unsure), unsure }
    }

    pub(crate) fn agrees_with(&self, other: Offset, unsure: Duration) -> bool {
        self.offset.abs_diff(other) <= millis(TOLERANCE + self.unsure + unsure)
    }
}

/// How the own clock stands among those of the voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It agrees with a majority, itself counted if this node votes.
    Agrees,
    /// A majority agrees without it, on this offset.
    Differs { majority: Offset },
    /// Enough clocks are known for a majority, and no majority agrees.
    Split,
    /// The clocks of too few voters are known.
    Unknown,
}

/// Judges the own clock. `votes`: whether this node is a voter; `others`: the other voters, none where one could not be read lately.
pub(crate) fn judge(own: Offset, votes: bool, others: &[Option<Reading>]) -> Verdict {
    let voters = others.len() + usize::from(votes);
    let quorum = voters / 2 + 1;
    let known = others.iter().flatten();
    let agreeing = known.clone().filter(|reading| reading.agrees_with(own, Duration::ZERO)).count() + usize::from(votes);
    if voters > 0 && agreeing >= quorum {
        return Verdict::Agrees;
    }
    if voters == 0 || known.clone().count() + usize::from(votes) < quorum {
        return Verdict::Unknown;
    }
    let mut known: Vec<Reading> = known.copied().collect();
    known.sort_unstable_by_key(|reading| reading.offset);
    // All that agree with the earliest of them; of these groups the largest.
    let group = |(nth, first): (usize, &Reading)| {
        let later = known[nth..].iter().filter(|reading| reading.agrees_with(first.offset, first.unsure));
        later.map(|reading| reading.offset).collect::<Vec<_>>()
    };
    let largest = known.iter().enumerate().map(group).max_by_key(Vec::len).filter(|group| group.len() >= quorum);
    match largest {
        Some(group) => Verdict::Differs { majority: group[(group.len() - 1) / 2] },
        None => Verdict::Split,
    }
}

/// The middle of all clocks that are known, the own one among them.
pub(crate) fn middle(own: Offset, others: &[Option<Reading>]) -> Offset {
    let mut known: Vec<Offset> = others.iter().flatten().map(|reading| reading.offset).chain([own]).collect();
    known.sort_unstable();
    known[(known.len() - 1) / 2]
}

/// The stamps that this node gives: they never go back, and never ahead of the clocks that are believed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamps {
    /// The last one given here or seen in the log.
    last: UnixMillis,
    /// The monotonic time of it.
    at: Duration,
}

impl Stamps {
    /// Takes note of log time. So that time since counts from there, it should be called about once a second.
    pub(crate) fn saw(&mut self, log_time: UnixMillis, now: Duration) {
        if log_time > self.last {
            *self = Self { last: log_time, at: now };
        }
    }

    /// Whether there is any time to go on from.
    pub(crate) fn is_empty(&self) -> bool {
        self.last == UnixMillis::new(0)
    }

    /// The stamp of this moment. `agreed`: the time that a majority agrees on, if one does.
    pub(crate) fn next(&mut self, agreed: Option<UnixMillis>, now: Duration) -> UnixMillis {
        let elapsed = now.saturating_sub(self.at);
        match agreed {
            Some(time) if time >= self.last => *self = Self { last: time, at: now },
            Some(_) => self.advance(elapsed / SLOW, SLOW),
            None => self.advance(elapsed, 1),
        }
        self.last
    }

    /// By whole milliseconds; what is left of one counts the next time.
    fn advance(&mut self, by: Duration, slower: u32) {
        let whole = Duration::from_millis(millis(by));
        self.last = self.last.plus(whole);
        self.at += whole * slower;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Offset = 3_600_000;
    const YEAR: Offset = 365 * 24 * HOUR;

    fn read(offset: Offset) -> Option<Reading> {
        Some(Reading { offset, unsure: Duration::from_millis(5) })
    }

    #[test]
    fn own_clock_is_judged_by_a_majority_of_the_voters() {
        let differs = |majority| Verdict::Differs { majority };
        for (situation, own, votes, others, verdict) in [
            ("alone", YEAR, true, vec![], Verdict::Agrees),
            ("no member of anything yet", 0, false, vec![], Verdict::Unknown),
            ("three, all right", 0, true, vec![read(300), read(-400)], Verdict::Agrees),
            ("three, own ahead", HOUR, true, vec![read(0), read(100)], differs(0)),
            ("three, own behind", -HOUR, true, vec![read(0), read(100)], differs(0)),
            ("three, another a year ahead", 0, true, vec![read(YEAR), read(100)], Verdict::Agrees),
            ("three, another down", 0, true, vec![None, read(-100)], Verdict::Agrees),
            ("three, one down and one wrong", 0, true, vec![None, read(HOUR)], Verdict::Split),
            ("three, all different", 0, true, vec![read(-HOUR), read(HOUR)], Verdict::Split),
            ("three, nobody read", 0, true, vec![None, None], Verdict::Unknown),
            ("two, agreed", 0, true, vec![read(5)], Verdict::Agrees),
            ("two, apart", 0, true, vec![read(HOUR)], Verdict::Split),
            ("two, not read", 0, true, vec![None], Verdict::Unknown),
            ("at the bound", 1_005, true, vec![read(0), read(0)], Verdict::Agrees),
            ("over the bound", 1_006, true, vec![read(0), read(0)], differs(0)),
            ("five, own and another ahead alike", HOUR, true, vec![read(HOUR), read(0), read(10), read(20)], differs(10)),
            ("five, two wrong", 0, true, vec![read(YEAR), read(-HOUR), read(10), read(20)], Verdict::Agrees),
            ("five, two down and own wrong", HOUR, true, vec![None, None, read(10), read(20)], Verdict::Split),
            ("five, three of four others agree", HOUR, true, vec![read(-YEAR), read(0), read(900), read(1_000)], differs(900)),
            ("five, two known", 0, true, vec![None, None, None, read(20)], Verdict::Unknown),
            ("learner that agrees", 0, false, vec![read(0), read(10), read(HOUR)], Verdict::Agrees),
            ("learner with one voter of three", 0, false, vec![read(0), None, None], Verdict::Unknown),
            ("learner that is wrong", HOUR, false, vec![read(0)], differs(0)),
        ] {
            assert_eq!(judge(own, votes, &others), verdict, "{situation}");
        }
    }

    #[test]
    fn slow_answer_leaves_more_room() {
        let slow = Reading::between(UnixMillis::new(10_000), Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!(slow, Reading { offset: 8_000, unsure: Duration::from_secs(1) });
        assert_eq!(judge(10_000, true, &[Some(slow), None]), Verdict::Agrees);
        assert_eq!(judge(10_001, true, &[Some(slow), None]), Verdict::Split);
    }

    #[test]
    fn offsets_survive_absurd_clocks() {
        let far = offset(UnixMillis::new(u64::MAX), Duration::ZERO);
        assert_eq!(shown(far, Duration::from_secs(1)), UnixMillis::new(i64::MAX as u64));
        assert_eq!(shown(-5, Duration::ZERO), UnixMillis::new(0));
        assert_eq!(judge(far, true, &[read(-1), read(0)]), Verdict::Differs { majority: -1 });
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn time(seconds: u64) -> UnixMillis {
        UnixMillis::new(seconds * 1_000)
    }

    #[test]
    fn stamp_is_the_agreed_time() {
        let mut stamps = Stamps::default();
        assert!(stamps.is_empty());
        assert_eq!(stamps.next(Some(time(1_000)), at(1)), time(1_000));
        // A week of sleep, in which monotonic time stood still.
        assert_eq!(stamps.next(Some(time(605_800)), at(1)), time(605_800));
    }

    #[test]
    fn stamp_without_an_agreed_time_goes_on_from_the_log() {
        let mut stamps = Stamps::default();
        stamps.saw(time(1_000), at(10));
        stamps.saw(time(900), at(11));
        assert_eq!(stamps.next(None, at(15)), time(1_005));
        stamps.saw(time(1_100), at(20));
        assert_eq!(stamps.next(None, at(21)), time(1_101));
    }

    #[test]
    fn stamp_ahead_of_the_agreed_time_slows_down_until_they_meet() {
        let mut stamps = Stamps::default();
        stamps.saw(time(1_090), at(0));
        assert_eq!(stamps.next(Some(time(1_010)), at(10)), time(1_091));
        assert_eq!(stamps.next(Some(time(1_090)), at(90)), time(1_099));
        assert_eq!(stamps.next(Some(time(1_101)), at(101)), time(1_101));
    }

    #[test]
    fn stamps_in_quick_succession_lose_no_time() {
        for agreed in [None, Some(time(0))] {
            let mut stamps = Stamps::default();
            stamps.saw(time(1_000), at(0));
            let last = (1..=100_000).map(|step| stamps.next(agreed, Duration::from_micros(100) * step)).last();
            let gone = if agreed.is_some() { 1 } else { 10 };
            assert_eq!(last, Some(time(1_000 + gone)));
        }
    }
}
