//! `farseal preset`: when a pair or a group pauses and resumes by itself.

use clap::{Args, Subcommand};
use farseal_core::preset::Preset;
use farseal_core::units::{Millis, WallTime};

use super::failure::{Exit, Failure};
use super::operate::Target;
use super::{Place, operate, say, show, wait_for};
use crate::config::units::{SPAN_FORM, parse_span};
use crate::control::api::{AddPreset, GroupCommand, PairCommand, RemovePreset};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

#[derive(Debug, Subcommand)]
pub(super) enum PresetCommand {
    /// Have the pair, or all pairs of a group, pause at times of day (--pause, --resume), or every so often for so long (--every, --for).
    Add(Add),
    /// Show the presets of a pair or a group, and what is due.
    List {
        #[command(flatten)]
        what: Target,
    },
    /// Remove a preset; a pause that it holds ends.
    Remove {
        /// The pair, unless --group is given, and the preset.
        #[arg(num_args = 1..=2, value_names = ["PAIR", "NAME"])]
        words: Vec<String>,
        /// All pairs of this group.
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The pair, unless --group is given, and what the preset is called.
    #[arg(num_args = 1..=2, value_names = ["PAIR", "NAME"])]
    words: Vec<String>,
    /// All pairs of this group.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// The time of day at which it pauses.
    #[arg(long, value_name = "HH:MM", requires = "resume", value_parser = time_of_day)]
    pause: Option<u16>,
    /// The time of day at which it resumes; the next day's where it is not later.
    #[arg(long, value_name = "HH:MM", requires = "pause", value_parser = time_of_day)]
    resume: Option<u16>,
    /// The days on which a pause begins: daily, weekdays, or as mon,thu.
    #[arg(long, default_value = "daily", value_parser = days)]
    days: Days,
    /// How far those times are ahead of UTC.
    #[arg(long, value_name = "+HH:MM", default_value = "+00:00", value_parser = offset, allow_hyphen_values = true)]
    utc_offset: i16,
    /// How often it pauses, as 4h; or, at irregular intervals, after how long: 3h..5h.
    #[arg(long, value_name = "SPAN", requires = "span", conflicts_with = "pause", value_parser = spans)]
    every: Option<Spans>,
    /// For how long: 10m, or 5m..15m.
    #[arg(long = "for", value_name = "SPAN", requires = "every", value_parser = spans)]
    span: Option<Spans>,
}

/// A duration, or two to draw between.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spans(Millis, Millis);

/// Monday first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Days([bool; 7]);

pub(super) fn preset(place: &Place, command: PresetCommand) -> Result<(), Failure> {
    let (target, pair, group) = match command {
        PresetCommand::List { what } => return list(place, &what),
        PresetCommand::Add(add) => {
            let preset = add.preset()?;
            let (target, name) = named(add.words, add.group)?;
            let add = AddPreset { name, preset };
            (target, PairCommand::AddPreset(add.clone()), GroupCommand::AddPreset(add))
        }
        PresetCommand::Remove { words, group } => {
            let (target, name) = named(words, group)?;
            let remove = RemovePreset { name };
            (target, PairCommand::RemovePreset(remove.clone()), GroupCommand::RemovePreset(remove))
        }
    };
    operate::carry_out(place, &target.told(pair, group))
}

/// A pair and a name, or a group and a name.
fn named(mut words: Vec<String>, group: Option<String>) -> Result<(Target, String), Failure> {
    let name = words.pop().unwrap_or_default();
    match (words.pop(), group) {
        (Some(pair), None) => Ok((Target::pair(pair), name)),
        (None, Some(group)) => Ok((Target::group(group), name)),
        (None, None) => {
            let next = "give the pair and the preset's name, or --group GROUP and the name";
            Err(Failure::new(Exit::Usage, "it is not said whose preset it is", next))
        }
        (Some(_), Some(_)) => {
            let next = "leave the pair or --group out";
            Err(Failure::new(Exit::Usage, "both a pair and a group are given", next))
        }
    }
}

fn list(place: &Place, what: &Target) -> Result<(), Failure> {
    let client = place.client()?;
    let none = |kind: &str, name: &str, next: &str| {
        Failure::new(Exit::Failed, format!("there is no {kind} {name:?} here"), next)
    };
    let (presets, now) = match (what.pair_name(), what.group_name()) {
        (_, Some(name)) => {
            let view = wait_for(async { Ok(client.site().await?) })?;
            let found = view.site.groups.into_iter().find(|group| group.name == name);
            let next = "`farseal status --site` lists the groups";
            (found.ok_or_else(|| none("group", name, next))?.presets, view.site.at)
        }
        (name, None) => {
            let name = name.unwrap_or_default();
            let status = wait_for(async { Ok(client.status().await?) })?;
            let found = status.pairs.into_iter().find(|each| each.name == name);
            let found = found.ok_or_else(|| none("pair", name, "`farseal status` lists the pairs"))?;
            (found.flow.map(|flow| flow.presets).unwrap_or_default(), status.now)
        }
    };
    let text: String = presets.iter().map(|preset| show::preset(preset, now) + "\n").collect();
    say(if text.is_empty() { "no presets; `farseal preset add` makes one\n" } else { &text })
}

impl Add {
    fn preset(&self) -> Result<Preset, Failure> {
        match (self.pause, self.resume, self.every, self.span) {
            (Some(pause), Some(resume), None, None) => {
                Ok(Preset::TimeOfDay { pause, resume, days: self.days.0, offset: self.utc_offset })
            }
            // Since when is the node's to say.
            (None, None, Some(every), Some(span)) if every.0 == every.1 && span.0 == span.1 => {
                Ok(Preset::Interval { every: every.0, span: span.0, from: WallTime(0) })
            }
            (None, None, Some(every), Some(span)) => {
                Ok(Preset::Irregular { every: (every.0, every.1), span: (span.0, span.1) })
            }
            _ => {
                let next = "give --pause 02:00 --resume 06:00, or --every 4h --for 10m";
                Err(Failure::new(Exit::Usage, "it is not said when the pair pauses", next))
            }
        }
    }
}

fn time_of_day(text: &str) -> Result<u16, String> {
    let wrong = || "a time of day is 00:00 to 23:59".to_owned();
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str, below: u16| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| digits && *number < below)
    };
    Ok(number(hours, 24).ok_or_else(wrong)? * 60 + number(minutes, 60).ok_or_else(wrong)?)
}

fn offset(text: &str) -> Result<i16, String> {
    let wrong = || "an offset from UTC is as +09:00 or -03:30".to_owned();
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        Some(_) | None => return Err(wrong()),
    };
    let minutes = time_of_day(rest).map_err(|_| wrong())?;
    i16::try_from(minutes).map(|minutes| sign * minutes).map_err(|_| wrong())
}

fn days(text: &str) -> Result<Days, String> {
    match text {
        "daily" => Ok(Days([true; 7])),
        "weekdays" => Ok(Days([true, true, true, true, true, false, false])),
        text => {
            let mut days = [false; 7];
            for word in text.split(',') {
                let at = DAYS.iter().position(|day| *day == word);
                let day = at.and_then(|at| days.get_mut(at));
                *day.ok_or_else(|| format!("{word:?}: daily, weekdays, or some of {}", DAYS.join(",")))? = true;
            }
            Ok(Days(days))
        }
    }
}

fn spans(text: &str) -> Result<Spans, String> {
    let span = |text: &str| parse_span(text).map_err(|error| format!("{error}: {SPAN_FORM}"));
    match text.split_once("..") {
        Some((least, most)) => Ok(Spans(span(least)?, span(most)?)),
        None => span(text).map(|span| Spans(span, span)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_days_and_spans_as_people_write_them() {
        assert_eq!((time_of_day("02:30"), time_of_day("23:59")), (Ok(150), Ok(1439)));
        assert!(["24:00", "2:30", "02:60", "0230", "", "+1:00"].iter().all(|text| time_of_day(text).is_err()));
        assert_eq!((offset("+09:00"), offset("-03:30")), (Ok(540), Ok(-210)));
        assert!(["09:00", "+9", "é", ""].iter().all(|text| offset(text).is_err()));
        assert_eq!(days("mon,sun"), Ok(Days([true, false, false, false, false, false, true])));
        assert!(days("mon,someday").is_err());
        assert_eq!(spans("3h..5h"), Ok(Spans(Millis(3 * 3_600_000), Millis(5 * 3_600_000))));
        assert_eq!(spans("10m"), Ok(Spans(Millis(600_000), Millis(600_000))));
        assert!(spans("10..20m").is_err());
    }
}
