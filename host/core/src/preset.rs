//! When a pair pauses and resumes by itself (R14): presets, what an operator says beside them, and whose pause it is.
//!
//! Pure: the wall clock and chance are arguments. A wall clock may jump. By the time of day and at even intervals, whether a
//! preset holds follows from the time alone, so that after a jump it is as if the clock had always been so. At irregular
//! intervals a turn that was drawn keeps its length: if the clock goes back behind its beginning it begins anew there,
//! and if the clock goes on past its end it ends, once.
//!
//! An operator's word wins. A pause that an operator asked for is ended by the operator, or after the time that was given
//! with it; presets leave it alone. A resume ends whatever pause there is, and presets that hold at that moment stay
//! overruled until the window that they are in is over.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{PRESET_SPAN_LONGEST, PRESET_SPAN_MIN, PRESETS_MAX};
use crate::units::{Millis, WallTime};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// When a pair is paused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Preset {
    /// From one time of day to another, which is the next day's where it is not later.
    TimeOfDay {
        /// Minutes after midnight, below 1440.
        pause: u16,
        resume: u16,
        /// The days on which a pause begins, Monday first.
        days: [bool; 7],
        /// Minutes that local time is ahead of UTC, -1440 to 1440.
        offset: i16,
    },
    /// Every so often, for so long; the first time when the first interval is over.
    Interval { every: Millis, span: Millis, from: WallTime },
    /// After some time, for some time; both are drawn anew each time, evenly.
    Irregular { every: (Millis, Millis), span: (Millis, Millis) },
}

/// A preset holds, or does not, and until when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Turn {
    pub holds: bool,
    since: WallTime,
    pub until: WallTime,
}

/// Why a preset cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPreset {
    #[error("a time of day is 00:00 to 23:59, and a pause needs an end at another time than its beginning")]
    TimeOfDay,
    #[error("no day of the week is chosen")]
    NoDays,
    #[error("local time is at most 24 h from UTC")]
    Offset,
    #[error("a pause and what lies between two take {} s to {} days each", PRESET_SPAN_MIN.0 / 1_000, PRESET_SPAN_LONGEST.0 / 86_400_000)]
    Span,
    #[error("a pause must be shorter than the interval at which it comes")]
    Overlong,
    #[error("the least is more than the most")]
    Bounds,
    #[error("there are {PRESETS_MAX} presets already; remove one")]
    TooMany,
    #[error("there is a preset {0:?} already; remove it, or choose another name")]
    Taken(String),
}

/// Whose pause it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// An operator, or a program in an operator's place, under the name that it gave.
    Word(Option<String>),
    Preset(String),
}

/// A pause that these rules know of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    pub by: By,
    pub since: WallTime,
    /// None: until somebody resumes.
    pub until: Option<WallTime>,
}

/// What is to be done to the pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Pause,
    Resume,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Entry {
    preset: Preset,
    turn: Option<Turn>,
    /// An operator resumed in this window: it does not count.
    overruled: bool,
}

/// A pair's presets and the pause in force. Kept durably by whoever drives it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presets {
    entries: BTreeMap<String, Entry>,
    hold: Option<Hold>,
}

impl Preset {
    /// Whether it holds now, and until when. `before` is what this said last; `entropy` is used where chance decides.
    pub fn turn(&self, now: WallTime, before: Option<Turn>, entropy: u64) -> Turn {
        match self {
            Self::TimeOfDay { pause, resume, days, offset } => by_day(now, (*pause, *resume), days, *offset),
            Self::Interval { every, span, from } => {
                let every = signed(every.0).max(1);
                let elapsed = signed(now.0) - signed(from.0);
                let phase = elapsed.rem_euclid(every);
                // Before its beginning only if the clock went back: then the rhythm goes on as it would have been.
                let holds = phase < signed(span.0) && !(0..every).contains(&elapsed);
                let rest = if holds { signed(span.0) - phase } else { every - phase };
                Turn { holds, since: now, until: plus(now, rest) }
            }
            Self::Irregular { every, span } => irregular(now, *every, *span, before, entropy),
        }
    }

    fn check(&self) -> Result<(), BadPreset> {
        let spans = |spans: &[Millis]| {
            let good = spans.iter().all(|span| (PRESET_SPAN_MIN..=PRESET_SPAN_LONGEST).contains(span));
            if good { Ok(()) } else { Err(BadPreset::Span) }
        };
        match self {
            Self::TimeOfDay { pause, resume, .. } if *pause >= 1440 || *resume >= 1440 || pause == resume => {
                Err(BadPreset::TimeOfDay)
            }
            Self::TimeOfDay { days, .. } if !days.contains(&true) => Err(BadPreset::NoDays),
            Self::TimeOfDay { offset, .. } if !(-1440..=1440).contains(offset) => Err(BadPreset::Offset),
            Self::TimeOfDay { .. } => Ok(()),
            Self::Interval { every, span, .. } if span >= every => {
                spans(&[*every, *span]).and(Err(BadPreset::Overlong))
            }
            Self::Interval { every, span, .. } => spans(&[*every, *span]),
            Self::Irregular { every, span } if every.0 > every.1 || span.0 > span.1 => Err(BadPreset::Bounds),
            Self::Irregular { every, span } => spans(&[every.0, every.1, span.0, span.1]),
        }
    }
}

impl Presets {
    pub fn add(&mut self, name: &str, preset: Preset) -> Result<(), BadPreset> {
        preset.check()?;
        if self.entries.contains_key(name) {
            return Err(BadPreset::Taken(name.to_owned()));
        }
        if self.entries.len() >= PRESETS_MAX {
            return Err(BadPreset::TooMany);
        }
        self.entries.insert(name.to_owned(), Entry { preset, turn: None, overruled: false });
        Ok(())
    }

    /// Says whether there was one. A pause that it holds ends with the next look.
    pub fn remove(&mut self, name: &str) -> bool {
        self.entries.remove(name).is_some()
    }

    /// Whose pause it is.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Each preset, and its turn as of the last look.
    pub fn list(&self) -> impl Iterator<Item = (&str, &Preset, Option<Turn>)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &entry.preset, entry.turn))
    }

    /// When the next look is due, as of the last; none where nothing comes by itself.
    pub fn due(&self) -> Option<WallTime> {
        let turns = self.entries.values().filter_map(|entry| entry.turn).map(|turn| turn.until);
        turns.chain(self.hold.as_ref().and_then(|hold| hold.until)).min()
    }

    /// Time has passed. `paused`: the pair is, whoever did it; a pause of somebody else is left alone.
    pub fn look(&mut self, now: WallTime, paused: bool, entropy: u64) -> Option<Act> {
        for (chance, entry) in (0..).zip(self.entries.values_mut()) {
            let turn = entry.preset.turn(now, entry.turn, entropy.rotate_left(chance));
            entry.overruled &= turn.holds;
            entry.turn = Some(turn);
        }
        if let Some(hold) = &mut self.hold
            && let Some(until) = hold.until
            && now < hold.since
        {
            // The clock went back: the pause is as long as it was asked for.
            hold.until = Some(WallTime(now.0.saturating_add(until.since(hold.since).0)));
            hold.since = now;
        }
        let holder = || {
            let holds = |entry: &Entry| !entry.overruled && entry.turn.is_some_and(|turn| turn.holds);
            self.entries.iter().find(|(_, entry)| holds(entry)).map(|(name, _)| name.clone())
        };
        let (over, held) = match &self.hold {
            None => (true, false),
            Some(Hold { by: By::Preset(name), .. }) => (holder().as_ref() != Some(name), true),
            Some(Hold { until, .. }) => (until.is_some_and(|until| until <= now), true),
        };
        if !over {
            return None;
        }
        match (holder(), held) {
            // The next takes over.
            (Some(name), true) => {
                self.hold = Some(Hold { by: By::Preset(name), since: now, until: None });
                None
            }
            (Some(name), false) if !paused => {
                self.hold = Some(Hold { by: By::Preset(name), since: now, until: None });
                Some(Act::Pause)
            }
            (Some(_), false) | (None, false) => None,
            (None, true) => {
                self.hold = None;
                Some(Act::Resume)
            }
        }
    }

    /// An operator pauses, for so long or until further notice. The pair is paused afterwards, if it was not before.
    pub fn pause(&mut self, now: WallTime, by: Option<String>, span: Option<Millis>) {
        let until = span.map(|span| WallTime(now.0.saturating_add(span.0)));
        self.hold = Some(Hold { by: By::Word(by), since: now, until });
    }

    /// An operator resumes.
    pub fn resume(&mut self) {
        self.hold = None;
        for entry in self.entries.values_mut() {
            entry.overruled = entry.turn.is_some_and(|turn| turn.holds);
        }
    }
}

/// In the window that began today or yesterday, or before the next one.
fn by_day(now: WallTime, (pause, resume): (u16, u16), days: &[bool; 7], offset: i16) -> Turn {
    let local = signed(now.0).saturating_add(i64::from(offset) * MINUTE);
    let (pause, resume) = (i64::from(pause) * MINUTE, i64::from(resume) * MINUTE);
    let length = (resume - pause).rem_euclid(DAY);
    let today = local.div_euclid(DAY);
    // 1970-01-01 was a Thursday.
    let weekday = |day: i64| usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0);
    let begins = |day: &i64| days.get(weekday(*day)).copied().unwrap_or(false);
    let starts = (today - 1..=today + 7).filter(begins).map(|day| day * DAY + pause);
    for start in starts {
        if local < start {
            return Turn { holds: false, since: now, until: plus(now, start - local) };
        }
        if local < start + length {
            return Turn { holds: true, since: now, until: plus(now, start + length - local) };
        }
    }
    // Only without a chosen day, which no preset has.
    Turn { holds: false, since: now, until: plus(now, DAY) }
}

fn irregular(
    now: WallTime,
    every: (Millis, Millis),
    span: (Millis, Millis),
    before: Option<Turn>,
    entropy: u64,
) -> Turn {
    let drawn = |holds| {
        let (least, most) = if holds { span } else { every };
        let room = most.0.saturating_sub(least.0).saturating_add(1);
        let length = least.0.saturating_add(entropy.checked_rem(room).unwrap_or(0));
        Turn { holds, since: now, until: WallTime(now.0.saturating_add(length)) }
    };
    match before {
        None => drawn(false),
        Some(before) if now < before.since => {
            let length = before.until.since(before.since);
            Turn { since: now, until: WallTime(now.0.saturating_add(length.0)), ..before }
        }
        Some(before) if now < before.until => before,
        Some(before) => drawn(!before.holds),
    }
}

fn signed(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds).unwrap_or(i64::MAX / 2)
}

fn plus(now: WallTime, span: i64) -> WallTime {
    WallTime(now.0.saturating_add(u64::try_from(span).unwrap_or(0)))
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(None) => f.write_str("an operator"),
            Self::Word(Some(name)) => f.write_str(name),
            Self::Preset(name) => write!(f, "preset {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;
    /// 2024-01-01T00:00:00Z, a Monday.
    const MONDAY: u64 = 1_704_067_200_000;
    const ALWAYS: [bool; 7] = [true; 7];
    const WEEKDAYS: [bool; 7] = [true, true, true, true, true, false, false];

    fn days(pause: u16, resume: u16, days: [bool; 7], offset: i16) -> Preset {
        Preset::TimeOfDay { pause: pause * 60, resume: resume * 60, days, offset: offset * 60 }
    }

    #[test]
    fn by_the_time_of_day() {
        let (night, over_midnight) = (days(2, 6, ALWAYS, 0), days(22, 4, WEEKDAYS, 0));
        let tokyo = days(2, 6, WEEKDAYS, 9);
        for (what, preset, hour, holds, rest) in [
            ("before", &night, 1, false, 1),
            ("at its beginning", &night, 2, true, 4),
            ("inside", &night, 5, true, 1),
            ("at its end", &night, 6, false, 20),
            ("an evening", &over_midnight, 23, true, 5),
            ("the morning after", &over_midnight, 27, true, 1),
            ("Friday's evening", &over_midnight, 4 * 24 + 22, true, 6),
            ("Saturday morning belongs to Friday", &over_midnight, 5 * 24 + 3, true, 1),
            ("Saturday evening", &over_midnight, 5 * 24 + 23, false, 47),
            ("the Monday morning that began on Sunday", &over_midnight, 0, false, 22),
            ("02:00 in Tokyo is 17:00 UTC of the day before", &tokyo, 17, true, 4),
            ("before it", &tokyo, 16, false, 1),
            ("Friday 17:00 UTC is Tokyo's Saturday", &tokyo, 4 * 24 + 17, false, 48),
        ] {
            let now = WallTime(MONDAY + hour * HOUR);
            let turn = preset.turn(now, None, 0);
            assert_eq!((turn.holds, turn.until.since(now)), (holds, Millis(rest * HOUR)), "{what}");
        }
    }

    #[test]
    fn at_even_and_at_irregular_intervals() {
        let from = WallTime(MONDAY);
        let interval = Preset::Interval { every: Millis(4 * HOUR), span: Millis(HOUR), from };
        for (hour, holds, rest) in
            [(0, false, 4), (3, false, 1), (4, true, 1), (5, false, 3), (8, true, 1), (400, true, 1)]
        {
            let now = WallTime(MONDAY + hour * HOUR);
            let turn = interval.turn(now, None, 0);
            assert_eq!((turn.holds, turn.until.since(now)), (holds, Millis(rest * HOUR)), "{hour}");
        }
        let bounds = ((Millis(3 * HOUR), Millis(5 * HOUR)), (Millis(HOUR), Millis(2 * HOUR)));
        let irregular = Preset::Irregular { every: bounds.0, span: bounds.1 };
        let at = |hour: u64| WallTime(MONDAY + hour * HOUR);
        let first = irregular.turn(at(0), None, HOUR);
        assert_eq!((first.holds, first.until), (false, at(4)), "the least and an hour");
        assert_eq!(irregular.turn(at(3), Some(first), 7), first, "what was drawn stays");
        let held = irregular.turn(at(4), Some(first), 0);
        assert_eq!((held.holds, held.until), (true, at(5)));
        let jumped = irregular.turn(at(5_000), Some(held), 0);
        assert_eq!((jumped.holds, jumped.until), (false, at(5_003)), "a clock that jumps ends one turn, not many");
        let back = irregular.turn(at(2), Some(held), 0);
        assert_eq!((back.holds, back.until), (true, at(3)), "a clock that goes back does not make a turn longer");
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        let from = WallTime(0);
        for (preset, bad) in [
            (days(2, 2, ALWAYS, 0), BadPreset::TimeOfDay),
            (days(24, 2, ALWAYS, 0), BadPreset::TimeOfDay),
            (days(1, 2, [false; 7], 0), BadPreset::NoDays),
            (days(1, 2, ALWAYS, 25), BadPreset::Offset),
            (Preset::Interval { every: Millis(HOUR), span: Millis(HOUR), from }, BadPreset::Overlong),
            (Preset::Interval { every: Millis(HOUR), span: Millis(1), from }, BadPreset::Span),
            (
                Preset::Irregular { every: (Millis(2), Millis(1)), span: (Millis(HOUR), Millis(HOUR)) },
                BadPreset::Bounds,
            ),
        ] {
            assert_eq!(Presets::default().add("a", preset.clone()), Err(bad), "{preset:?}");
        }
        let mut presets = Presets::default();
        presets.add("night", days(2, 6, ALWAYS, 0)).unwrap();
        assert_eq!(presets.add("night", days(2, 6, ALWAYS, 0)), Err(BadPreset::Taken("night".into())));
    }

    /// A pair that does what it is told, and a clock.
    struct Pair {
        presets: Presets,
        paused: bool,
    }

    impl Pair {
        fn look(&mut self, hour: u64) -> Option<Act> {
            let act = self.presets.look(WallTime(MONDAY + hour * HOUR), self.paused, 0);
            self.paused = act.map_or(self.paused, |act| act == Act::Pause);
            act
        }

        fn with(preset: Preset) -> Self {
            let mut presets = Presets::default();
            presets.add("night", preset).unwrap();
            Self { presets, paused: false }
        }
    }

    #[test]
    fn a_preset_pauses_and_resumes() {
        let mut pair = Pair::with(days(2, 6, ALWAYS, 0));
        assert_eq!(
            [1, 2, 3, 6, 7].map(|hour| pair.look(hour)),
            [None, Some(Act::Pause), None, Some(Act::Resume), None]
        );
        assert_eq!(pair.presets.due(), Some(WallTime(MONDAY + 26 * HOUR)));
        // A clock that jumps out of the window, and back into it.
        assert_eq!(
            [26, 40, 27, 30].map(|hour| pair.look(hour)),
            [Some(Act::Pause), Some(Act::Resume), Some(Act::Pause), Some(Act::Resume)]
        );
    }

    #[test]
    fn an_operators_word_wins_over_a_preset() {
        let at = |hour: u64| WallTime(MONDAY + hour * HOUR);
        let mut pair = Pair::with(days(2, 6, ALWAYS, 0));
        pair.look(2);
        pair.presets.resume();
        pair.paused = false;
        assert_eq!([3, 5, 6].map(|hour| pair.look(hour)), [None; 3], "overruled until the window is over");
        assert_eq!(pair.look(26), Some(Act::Pause), "and not longer");

        pair.presets.pause(at(27), Some("backup".into()), None);
        assert_eq!([30, 40, 51].map(|hour| pair.look(hour)), [None; 3], "its end does not end the operator's pause");
        assert_eq!(pair.presets.hold().map(|hold| hold.by.to_string()), Some("backup".into()));
        pair.presets.resume();
        pair.paused = false;

        pair.presets.pause(at(60), None, Some(Millis(15 * HOUR)));
        pair.paused = true;
        assert_eq!([61, 74].map(|hour| pair.look(hour)), [None; 2]);
        assert_eq!(pair.look(75), None, "the preset takes the pause over");
        assert_eq!(pair.look(78), Some(Act::Resume));

        pair.presets.pause(at(80), None, Some(Millis(HOUR)));
        pair.paused = true;
        assert_eq!(pair.look(10), None, "the clock goes back by days");
        assert_eq!(pair.look(11), Some(Act::Resume), "an hour is an hour");
    }

    #[test]
    fn a_pause_that_somebody_else_made_is_left_alone() {
        let mut pair = Pair::with(days(2, 6, ALWAYS, 0));
        pair.paused = true;
        assert_eq!([2, 6, 7].map(|hour| pair.look(hour)), [None; 3]);
    }

    #[test]
    fn a_preset_that_is_removed_lets_go() {
        let mut pair = Pair::with(days(2, 6, ALWAYS, 0));
        pair.look(2);
        assert!(pair.presets.remove("night"));
        assert_eq!(pair.look(3), Some(Act::Resume));
        assert!(!pair.presets.remove("night"));
    }

    proptest! {
        /// Whatever the clock does: pauses and resumes take turns, and a look is due after the last one, not long before.
        #[test]
        fn acts_take_turns_whatever_the_clock_does(
            steps in proptest::collection::vec((any::<u32>(), any::<u64>()), 1..60),
            which in 0..3u8,
        ) {
            let minutes = |count: u64| Millis(count * 60_000);
            let mut pair = Pair::with(match which {
                0 => days(22, 4, WEEKDAYS, -5),
                1 => Preset::Interval { every: minutes(90), span: minutes(9), from: WallTime(MONDAY) },
                _ => Preset::Irregular { every: (minutes(5), minutes(50)), span: (minutes(1), minutes(9)) },
            });
            let mut last = Act::Resume;
            for (jump, entropy) in steps {
                let now = WallTime(MONDAY + u64::from(jump));
                if let Some(act) = pair.presets.look(now, pair.paused, entropy) {
                    prop_assert_ne!(act, last);
                    (last, pair.paused) = (act, act == Act::Pause);
                }
                prop_assert!(pair.presets.due().is_some_and(|due| due > now));
            }
        }
    }
}
