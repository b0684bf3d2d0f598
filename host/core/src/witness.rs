//! The witness rule: the keeper takes over by itself when it and a witness have both not heard the main site for so long (R27).
//!
//! ```text
//!              the link was down for the whole silence     the witness has not heard it either     its statement is durable
//!   Listening ───────────────────────────────────▶ Asking ───────────────────────────▶ Keeping ──────────────────────▶ Declared
//!       ▲                                             ▲ │                                  │
//!       │                                             └─┼── asked again: no answer, too ───┤
//!       └─────────── the main site is heard ────────────┴── late, or heard not long ago    │
//!                                                       └──────────────────────────────────┘
//! ```
//!
//! Off unless the operator says how long. A witness that is silent, that has heard the main site, or that never knew it, declares
//! nothing; nor does an answer to an earlier question, or one that was kept too late. What is declared is declared once. The copy's
//! machine has the last word: what it heard of the main site in the meantime counts more than the rule.

use crate::limits::{WITNESS_AGAIN, WITNESS_ANSWER_MAX, WITNESS_GAPS};
use crate::units::{Instant, Millis};

mod heard;
mod together;

pub use heard::Heard;
pub use together::{Hindrance, Listened, is_silent_for_witness};

/// One thing that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Is there a path to the main site? Said at least as often as it changes.
    Link {
        up: bool,
    },
    /// The main site was heard then, however the link is now: what comes and goes between two looks at it counts, and so does an
    /// attach that was refused.
    Heard {
        at: Instant,
    },
    /// The witness's answer to the question with this number, genuine.
    Said {
        question: u64,
        said: Said,
    },
    /// There is none, or it could not be kept.
    NoAnswer {
        question: u64,
    },
    /// The statement that answered this question is durable.
    Kept {
        question: u64,
    },
    /// The copy can be taken over: it has a point. Not so one that is empty, or that is written here.
    Ready {
        ready: bool,
    },
    Tick,
}

/// What a witness knows of the main site, by its own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// It never heard of it, and cannot tell its silence from its own deafness.
    NeverHeard,
    Heard {
        /// How long ago, or for how long the witness has listened, where it heard it last before its own start.
        ago: Millis,
        /// The longest time between two of its words lately.
        gap: Millis,
    },
}

/// What must be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Ask the witness, with a challenge that was never used, then say [`Input::Said`] or [`Input::NoAnswer`].
    Ask { question: u64 },
    /// Keep the witness's statement, durably, then say [`Input::Kept`] or [`Input::NoAnswer`].
    Declare { question: u64 },
    /// Take over, unless the main site was heard after `unheard_since`, or it is `until` by then: the statement is too old.
    TakeOver { unheard_since: Instant, until: Instant },
}

/// The rule for one pair, at the site that keeps its copy.
#[derive(Debug)]
pub struct Rule {
    silence: Millis,
    state: State,
    ready: bool,
    questions: u64,
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The link is up: nothing counts.
    Up,
    /// It is down, since then.
    Down {
        since: Instant,
    },
    Asking {
        since: Instant,
        question: u64,
        until: Instant,
    },
    /// The witness is asked again then.
    Waiting {
        since: Instant,
        until: Instant,
    },
    /// What the witness said is being made durable, and is good until then.
    Keeping {
        since: Instant,
        question: u64,
        until: Instant,
    },
    Declared,
}

impl Rule {
    /// Silence counts from the process's start at the earliest: before it nobody listened.
    #[must_use]
    pub fn new(now: Instant, silence: Millis) -> Self {
        Self { silence, state: State::Down { since: now }, ready: false, questions: 0, output: None }
    }

    /// Takes in one event. What follows from it is in [`Self::poll_output`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        match (input, self.state) {
            (_, State::Declared) => return,
            (Input::Link { up: true }, _) => self.state = State::Up,
            (Input::Link { up: false }, State::Up) => self.state = State::Down { since: now },
            (Input::Heard { at }, _) if self.since().is_some_and(|since| since < at) => {
                self.state = State::Down { since: at };
            }
            (Input::Ready { ready }, _) => self.ready = ready,
            (Input::Said { question, said }, State::Asking { since, question: asked, until }) if question == asked => {
                if now < until {
                    self.heard(now, (since, until), question, said);
                }
            }
            (
                Input::NoAnswer { question },
                State::Asking { since, question: asked, .. } | State::Keeping { since, question: asked, .. },
            ) if question == asked => {
                self.state = State::Waiting { since, until: now.plus(WITNESS_AGAIN) };
            }
            (Input::Kept { question }, State::Keeping { since, question: asked, until })
                if question == asked && now < until =>
            {
                self.state = State::Declared;
                self.output = Some(Output::TakeOver { unheard_since: since, until });
            }
            (
                Input::Link { up: false }
                | Input::Heard { .. }
                | Input::Said { .. }
                | Input::NoAnswer { .. }
                | Input::Kept { .. }
                | Input::Tick,
                _,
            ) => {}
        }
        self.run(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// When to say [`Input::Tick`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Up | State::Declared => None,
            State::Down { since } => Some(since.plus(self.silence)),
            State::Asking { until, .. } | State::Waiting { until, .. } | State::Keeping { until, .. } => Some(until),
        }
    }

    /// It took over by itself, or is about to.
    #[must_use]
    pub fn has_declared(&self) -> bool {
        self.state == State::Declared
    }

    /// Since when nothing was heard here.
    fn since(&self) -> Option<Instant> {
        match self.state {
            State::Up | State::Declared => None,
            State::Down { since }
            | State::Asking { since, .. }
            | State::Waiting { since, .. }
            | State::Keeping { since, .. } => Some(since),
        }
    }

    fn heard(&mut self, now: Instant, (since, until): (Instant, Instant), question: u64, said: Said) {
        let wait = match unheard_for(said, self.silence) {
            Ok(()) => {
                self.state = State::Keeping { since, question, until };
                self.output = Some(Output::Declare { question });
                return;
            }
            Err(wait) => wait.max(WITNESS_AGAIN),
        };
        self.state = State::Waiting { since, until: now.plus(wait) };
    }

    fn run(&mut self, now: Instant) {
        match self.state {
            State::Down { since } if now >= since.plus(self.silence) => self.ask(now, since),
            State::Waiting { since, until } if now >= until => self.ask(now, since),
            State::Asking { since, until, .. } | State::Keeping { since, until, .. } if now >= until => {
                self.state = State::Waiting { since, until: now.plus(WITNESS_AGAIN) };
            }
            State::Up
            | State::Down { .. }
            | State::Waiting { .. }
            | State::Asking { .. }
            | State::Keeping { .. }
            | State::Declared => {}
        }
    }

    fn ask(&mut self, now: Instant, since: Instant) {
        if !self.ready {
            self.state = State::Waiting { since, until: now.plus(WITNESS_AGAIN) };
            return;
        }
        self.questions += 1;
        let question = self.questions;
        self.state = State::Asking { since, question, until: now.plus(WITNESS_ANSWER_MAX) };
        self.output = Some(Output::Ask { question });
    }
}

/// Does what a witness says count as silence? If not, it may after so long at the earliest.
fn unheard_for(said: Said, silence: Millis) -> Result<(), Millis> {
    match said {
        Said::Heard { ago, gap } => {
            let least = silence.max(Millis(gap.0.saturating_mul(WITNESS_GAPS)));
            if ago >= least { Ok(()) } else { Err(Millis(least.0 - ago.0)) }
        }
        Said::NeverHeard => Err(silence),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SILENCE: Millis = Millis(60_000);
    const GAP: Millis = Millis(1_000);
    const UP: Input = Input::Link { up: true };
    const DOWN: Input = Input::Link { up: false };

    fn heard(question: u64, ago: u64) -> Input {
        Input::Said { question, said: Said::Heard { ago: Millis(ago), gap: GAP } }
    }

    /// At these times these things happen; what the rule does, and when.
    fn told(story: &[(u64, Input)]) -> Vec<(u64, Output)> {
        let mut rule = Rule::new(Instant(0), SILENCE);
        rule.handle(Instant(0), Input::Ready { ready: true });
        let mut done = Vec::new();
        for (at, input) in story {
            while let Some(due) = rule.poll_timeout().filter(|due| due.0 < *at) {
                rule.handle(due, Input::Tick);
                done.extend(rule.poll_output().map(|output| (due.0, output)));
            }
            rule.handle(Instant(*at), *input);
            done.extend(rule.poll_output().map(|output| (*at, output)));
        }
        done
    }

    #[test]
    fn a_takeover_needs_both_silences_for_the_whole_time_and_is_declared_once() {
        let ask = |at, question| (at, Output::Ask { question });
        let declare = |at, question| (at, Output::Declare { question });
        let take_over =
            |at, since, until| (at, Output::TakeOver { unheard_since: Instant(since), until: Instant(until) });
        let kept = |question| Input::Kept { question };
        let was_heard = |at| Input::Heard { at: Instant(at) };
        let nothing: Vec<(u64, Output)> = Vec::new();
        for (what, story, expected) in [
            (
                "both silent",
                vec![(60_000, DOWN), (60_010, heard(1, 60_000)), (60_020, kept(1))],
                vec![ask(60_000, 1), declare(60_010, 1), take_over(60_020, 0, 70_000)],
            ),
            ("it came and went between two looks", vec![(59_000, was_heard(58_600)), (118_599, DOWN)], nothing.clone()),
            (
                "it came and went while the witness was asked",
                vec![(60_000, DOWN), (60_009, was_heard(60_004)), (60_010, heard(1, 60_000))],
                vec![ask(60_000, 1)],
            ),
            (
                "it was heard before",
                vec![(100, was_heard(100)), (60_099, DOWN), (60_100, was_heard(100)), (60_110, heard(1, 60_000))],
                vec![ask(60_100, 1), declare(60_110, 1)],
            ),
            (
                "it comes back while the statement is being kept",
                vec![(60_000, DOWN), (60_010, heard(1, 60_000)), (60_015, UP), (60_020, kept(1))],
                vec![ask(60_000, 1), declare(60_010, 1)],
            ),
            (
                "the statement is kept too late",
                vec![(60_000, DOWN), (60_010, heard(1, 60_000)), (70_000, kept(1)), (70_001, kept(1))],
                vec![ask(60_000, 1), declare(60_010, 1)],
            ),
            (
                "the statement cannot be kept",
                vec![
                    (60_000, DOWN),
                    (60_010, heard(1, 60_000)),
                    (60_020, Input::NoAnswer { question: 1 }),
                    (60_030, kept(1)),
                    (65_021, DOWN),
                ],
                vec![ask(60_000, 1), declare(60_010, 1), ask(65_020, 2)],
            ),
            ("another statement is kept", vec![(60_000, DOWN), (60_010, kept(1))], vec![ask(60_000, 1)]),
            ("the link is up all the time", vec![(1, UP), (900_000, UP)], nothing.clone()),
            ("it was down, and came back", vec![(59_999, UP), (59_999, DOWN), (119_998, DOWN)], nothing),
            ("the witness heard it lately", vec![(60_000, DOWN), (60_010, heard(1, 59_999))], vec![ask(60_000, 1)]),
            (
                "the witness hears it seldom",
                vec![
                    (60_000, DOWN),
                    (
                        60_010,
                        Input::Said { question: 1, said: Said::Heard { ago: Millis(60_000), gap: Millis(20_001) } },
                    ),
                ],
                vec![ask(60_000, 1)],
            ),
            (
                "the witness never heard of it",
                vec![(60_000, DOWN), (60_010, Input::Said { question: 1, said: Said::NeverHeard })],
                vec![ask(60_000, 1)],
            ),
            (
                "the witness does not answer, again and again",
                vec![(60_000, DOWN), (60_010, Input::NoAnswer { question: 1 }), (80_100, DOWN)],
                vec![ask(60_000, 1), ask(65_010, 2), ask(80_010, 3)],
            ),
            (
                "an answer to an earlier question",
                vec![
                    (60_000, DOWN),
                    (60_010, Input::NoAnswer { question: 1 }),
                    (65_011, DOWN),
                    (65_012, heard(1, 99_000)),
                ],
                vec![ask(60_000, 1), ask(65_010, 2)],
            ),
            ("an answer after its time", vec![(60_000, DOWN), (70_000, heard(1, 99_000))], vec![ask(60_000, 1)]),
            (
                "the main site comes back while the witness is asked",
                vec![
                    (60_000, DOWN),
                    (60_005, UP),
                    (60_010, heard(1, 99_000)),
                    (60_020, DOWN),
                    (60_030, heard(1, 99_000)),
                ],
                vec![ask(60_000, 1)],
            ),
            (
                "it is told twice",
                vec![
                    (60_000, DOWN),
                    (60_010, heard(1, 60_000)),
                    (60_011, heard(1, 60_000)),
                    (60_012, kept(1)),
                    (60_013, kept(1)),
                    (60_014, UP),
                    (500_000, DOWN),
                ],
                vec![ask(60_000, 1), declare(60_010, 1), take_over(60_012, 0, 70_000)],
            ),
        ] {
            assert_eq!(told(&story), expected, "{what}");
        }
    }

    #[test]
    fn a_copy_that_has_no_point_is_not_taken_over() {
        let mut rule = Rule::new(Instant(0), SILENCE);
        for at in [60_000, 65_000, 70_000] {
            rule.handle(Instant(at), Input::Tick);
            assert_eq!(rule.poll_output(), None);
        }
        rule.handle(Instant(75_000), Input::Ready { ready: true });
        assert_eq!(rule.poll_output(), Some(Output::Ask { question: 1 }));
        assert!(!rule.has_declared());
    }

    /// A main site, a link to it, a witness and its line, each of which comes and goes.
    #[derive(Clone, Copy, Debug)]
    struct World {
        link: bool,
        line: bool,
        /// The witness hears the main site.
        hears: bool,
    }

    proptest! {
        /// Whatever comes and goes, looked at once in half a second: no takeover unless this site heard nothing for the silence by now,
        /// and the witness by the question, less than ten seconds before; and none twice.
        #[test]
        fn no_world_has_it_declared_while_the_main_site_was_heard(
            moments in proptest::collection::vec((1..40_000_u64, any::<[bool; 3]>(), 0..12_000_u64), 1..80),
        ) {
            let mut rule = Rule::new(Instant(0), SILENCE);
            let (mut now, mut link_heard, mut witness_heard) = (0, 0, 0);
            let mut world = World { link: true, line: true, hears: true };
            // The question, when it was asked, for how long the witness had not heard it then, and when the answer comes.
            let mut asked: Option<(u64, u64, u64, u64)> = None;
            // What is being kept, and when it is durable.
            let mut keeping: Option<(u64, u64)> = None;
            let (mut said, mut declared) = ((0, 0), 0);
            rule.handle(Instant(0), Input::Ready { ready: true });
            for (span, [link, line, hears], delay) in moments {
                let next = World { link, line, hears };
                for step in 0..=span / 500 {
                    let at = now + (step * 500).min(span);
                    if world.link { link_heard = at; }
                    if world.hears { witness_heard = at; }
                    rule.handle(Instant(at), Input::Link { up: world.link });
                    // The witness speaks the truth, as of when it was asked, and it may take long.
                    if let Some((question, when, ago, _)) = asked.filter(|(.., due)| at >= *due) {
                        (asked, said) = (None, (when, ago));
                        rule.handle(Instant(at), heard(question, ago));
                    }
                    if let Some((question, _)) = keeping.filter(|(_, due)| at >= *due) {
                        keeping = None;
                        rule.handle(Instant(at), Input::Kept { question });
                    }
                    match rule.poll_output() {
                        Some(Output::Ask { question }) if world.line => {
                            asked = Some((question, at, at - witness_heard, at + delay));
                        }
                        Some(Output::Ask { question }) => rule.handle(Instant(at), Input::NoAnswer { question }),
                        Some(Output::Declare { question }) => keeping = Some((question, at + delay / 2)),
                        Some(Output::TakeOver { unheard_since, until }) => {
                            declared += 1;
                            prop_assert!(at - link_heard >= SILENCE.0 && unheard_since.0 >= link_heard && at < until.0);
                            let (when, ago) = said;
                            prop_assert!(ago >= SILENCE.0 && at - when < WITNESS_ANSWER_MAX.0);
                            prop_assert!(!world.link);
                        }
                        None => {}
                    }
                }
                now += span;
                world = next;
            }
            prop_assert!(declared <= 1);
        }
    }
}
