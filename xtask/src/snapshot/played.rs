//! What the test that plays the scenarios says, line by line: which story it plays, what became of it, and what does not hold.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow};

/// How the test ends its complaint about a transcript, which is shown as a difference.
const DIFFERS: &str = "the transcript differs";

/// What became of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    AsAccepted,
    New,
    Differs,
    /// It is not what its scenario expects, whatever its transcript is.
    Fails,
}

impl Verdict {
    fn read(word: &str) -> Option<Self> {
        match word {
            "as-accepted" => Some(Self::AsAccepted),
            "new" => Some(Self::New),
            "differs" => Some(Self::Differs),
            "fails" => Some(Self::Fails),
            _ => None,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::AsAccepted => "as accepted",
            Self::New => "new",
            Self::Differs => "differs",
            Self::Fails => "fails",
        }
    }
}

/// One plugin in one scenario.
#[derive(Debug)]
struct Story {
    /// `<plugin>@<scenario>`
    name: String,
    verdict: Verdict,
}

/// All that the test said, and whether it passed.
#[derive(Debug, Default)]
pub(super) struct Played {
    passed: bool,
    /// What is no matter of stories, as it came.
    said: String,
    stories: Vec<Story>,
    /// What does not hold, a line each, but for transcripts that differ.
    broken: Vec<String>,
    refused: Vec<String>,
    speed: String,
    /// Each story is told on standard error as it is played.
    aloud: bool,
    /// The story whose line is begun there.
    begun: Option<String>,
}

impl Played {
    /// Runs the test to its end.
    pub(super) fn of(test: &mut Command, aloud: bool) -> Result<Self> {
        let mut child =
            test.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start cargo test")?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, mut err) = out.zip(err).context("cargo test has no output")?;
        // Both at once: a pipe that nobody reads stops the one who writes.
        let complaints = thread::spawn(move || {
            let mut bytes = Vec::new();
            err.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
        });
        let mut played = Self { aloud, ..Self::default() };
        for line in BufReader::new(out).split(b'\n') {
            played.take(&String::from_utf8_lossy(&line?));
        }
        if played.begun.take().is_some() {
            eprintln!();
        }
        let complaints = complaints.join().map_err(|_| anyhow!("what cargo test said cannot be read"))??;
        played.said.insert_str(0, &complaints);
        played.passed = child.wait()?.success();
        Ok(played)
    }

    fn take(&mut self, line: &str) {
        // A dot for each test that has passed, wherever the line is.
        let plain = line.trim_start_matches('.');
        if let Some(name) = plain.strip_prefix("playing: ") {
            self.begin(name);
        } else if let Some(rest) = plain.strip_prefix("played: ") {
            self.end(rest);
        } else if let Some(broken) = plain.strip_prefix("broken: ") {
            self.broken.extend((!broken.ends_with(DIFFERS)).then(|| broken.to_owned()));
        } else if let Some(refused) = plain.strip_prefix("refused: ") {
            self.refused.push(refused.to_owned());
        } else if let Some(cost) = plain.strip_prefix("loaded ") {
            self.speed = speed(cost).unwrap_or_default();
        } else {
            self.said.push_str(line);
            self.said.push('\n');
        }
    }

    fn begin(&mut self, name: &str) {
        if self.aloud && self.begun.is_none() {
            eprint!("  {}: ", shown(name));
            self.begun = Some(name.to_owned());
        }
    }

    fn end(&mut self, rest: &str) {
        let mut words = rest.splitn(3, ' ');
        let (verdict, steps, name) = (words.next(), words.next(), words.next());
        let Some(((verdict, steps), name)) = verdict.and_then(Verdict::read).zip(steps).zip(name) else { return };
        if self.aloud {
            // Stories of several plugins may be played at once.
            let is_begun = self.begun.as_deref() == Some(name);
            let before = if is_begun { String::new() } else { format!("  {}: ", shown(name)) };
            eprintln!("{before}{steps} steps, {}", verdict.word());
            self.begun.take_if(|_| is_begun);
        }
        self.stories.push(Story { name: name.to_owned(), verdict });
    }

    /// Why a component is refused, as a node says it.
    pub(super) fn refusal(&self) -> Option<String> {
        (!self.refused.is_empty()).then(|| self.refused.join("\n"))
    }

    pub(super) fn verdict(&self, story: &str) -> Option<Verdict> {
        self.stories.iter().find(|one| one.name == story).map(|one| one.verdict)
    }

    /// What does not hold in this story.
    pub(super) fn broken_in(&self, story: &str) -> impl Iterator<Item = &str> {
        self.broken.iter().filter_map(move |line| line.strip_prefix(story)?.strip_prefix(": "))
    }

    /// What does not hold, and is in none of these stories.
    pub(super) fn broken_beside(&self, stories: &BTreeSet<String>) -> impl Iterator<Item = &str> {
        let is_told = |line: &str| line.split_once(": ").is_some_and(|(story, _)| stories.contains(story));
        self.broken.iter().map(String::as_str).filter(move |line| !is_told(line))
    }

    pub(super) const fn something_is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// What the test said, if it failed for a reason that is no matter of stories.
    pub(super) fn unexplained(&self) -> Option<&str> {
        let told = self.something_is_broken() || self.stories.iter().any(|story| story.verdict != Verdict::AsAccepted);
        (!self.passed && !told).then_some(&self.said)
    }

    /// "9 scenarios: 6 as accepted, 2 differ, 1 fails"; some have been accepted since.
    pub(super) fn sum(&self, accepted: &BTreeSet<String>) -> String {
        let all = self.stories.len();
        let now = self.stories.iter().filter(|story| accepted.contains(&story.name)).count();
        let count = |verdict| {
            self.stories.iter().filter(|story| story.verdict == verdict && !accepted.contains(&story.name)).count()
        };
        let (differ, fail) = (count(Verdict::Differs), count(Verdict::Fails));
        let parts = [
            (count(Verdict::AsAccepted), "as accepted"),
            (now, "accepted now"),
            (count(Verdict::New), "new"),
            (differ, if differ == 1 { "differs" } else { "differ" }),
            (fail, if fail == 1 { "fails" } else { "fail" }),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
        let parts: Vec<String> = parts.collect();
        format!("{all} scenario{}: {}", if all == 1 { "" } else { "s" }, parts.join(", "))
    }

    /// How fast it went; empty where nothing was stepped.
    pub(super) fn speed(&self) -> &str {
        &self.speed
    }
}

/// `interval, idle-year` of `interval@idle-year`.
fn shown(story: &str) -> String {
    story.replacen('@', ", ", 1)
}

/// Reading and compiling the components, then stepping, in a fresh instance each time.
fn speed(line: &str) -> Option<String> {
    let mut numbers = line.split(|byte: char| !byte.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
    let (plugins, loading, steps) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let (stepping, fuel) = (numbers.next()?, numbers.next()?);
    let (whole, tenths) = (loading / 1_000_000, loading % 1_000_000 / 100_000);
    let speed = steps.saturating_mul(1_000_000).checked_div(stepping)?;
    let fuel = fuel.checked_div(steps)?;
    Some(format!(
        "; {plugins} loaded in {whole}.{tenths} s, then {steps} steps, {speed} a second, {fuel} units of fuel each"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(said: &str) -> Played {
        let mut played = Played::default();
        said.lines().for_each(|line| played.take(line));
        played
    }

    #[test]
    fn the_speed_is_said_where_steps_were_counted() {
        let said = "running 1 test\n..loaded 19 plugins in 1250000 us, played 1200 steps in 300000 us for 2400000 units of \
                    fuel\n.\n";
        assert_eq!(
            played(said).speed(),
            "; 19 loaded in 1.2 s, then 1200 steps, 4000 a second, 2000 units of fuel each"
        );
        assert_eq!(played("loaded 1 plugins in 7 us, played 0 steps in 0 us for 0 units of fuel").speed(), "");
        assert_eq!(played("").speed(), "");
    }

    #[test]
    fn what_does_not_hold_is_told_by_story_without_what_a_test_program_prints() {
        let said = "running 3 tests\n.playing: late@request\nplayed: fails 7 late@request\nbroken: late@request: rotations: \
                    0 is not 2\nbroken: late@idle: the transcript differs\nbroken: scenario x, line 2: no\n\nthread 'main' \
                    panicked at x.rs:1:2:\n";
        let played = played(said);
        assert_eq!(played.broken_in("late@request").collect::<Vec<_>>(), ["rotations: 0 is not 2"]);
        assert_eq!(played.broken_in("late@idle").count(), 0);
        let told = BTreeSet::from([String::from("late@request")]);
        assert_eq!(played.broken_beside(&told).collect::<Vec<_>>(), ["scenario x, line 2: no"]);
        assert_eq!(played.unexplained(), None);
    }

    #[test]
    fn a_sum_names_every_verdict() {
        let said = "played: as-accepted 3 a@one\nplayed: as-accepted 3 a@two\nplayed: differs 3 a@three\nplayed: new 1 \
                    a@four\nplayed: differs 2 a@five\n.played: fails 2 a@six";
        let played = played(said);
        assert_eq!(played.sum(&BTreeSet::new()), "6 scenarios: 2 as accepted, 1 new, 2 differ, 1 fails");
        let accepted = ["a@three", "a@four", "a@five"].map(String::from).into();
        assert_eq!(played.sum(&accepted), "6 scenarios: 2 as accepted, 3 accepted now, 1 fails");
        assert_eq!(played.verdict("a@six"), Some(Verdict::Fails));
    }

    #[test]
    fn a_component_that_is_refused_is_told_by_the_refusal_alone() {
        let played = played("refused: component x: not a component\nrefused: it is a text\nthread panicked at y.rs\n");
        assert_eq!(played.refusal().as_deref(), Some("component x: not a component\nit is a text"));
    }

    #[test]
    fn what_nothing_explains_is_shown_as_it_came() {
        assert_eq!(played("error: no such test\n").unexplained(), Some("error: no such test\n"));
    }
}
