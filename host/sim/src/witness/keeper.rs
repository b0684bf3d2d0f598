//! The witness rule at the site that keeps the copy, as its node's loop goes: it listens, asks, keeps what the witness says, and takes
//! over.

use farseal_core::limits::WITNESS_ANSWER_MAX;
use farseal_core::secondary::{self, Secondary};
use farseal_core::units::{Instant, Millis};
use farseal_core::witness::{Input, Output, Rule, Said};

use super::escrow::Statement;
use super::{LOOK_US, Outage, Waits, Wish, WitnessEvent};
use crate::check::witness;
use crate::disk::{to_usize, wide};
use crate::mutation::Mutation;
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, World};

impl World {
    pub(super) fn look_for_main(&mut self, life: u32) -> Outcome {
        if self.faults.healed {
            return Ok(());
        }
        self.after(LOOK_US, Event::Witness(WitnessEvent::Look { life }));
        if self.witness.waits.is_some() || self.witness.keeps {
            return Ok(());
        }
        if !self.listen() {
            self.begin_rule();
            return Ok(());
        }
        match self.witness.rule.as_mut().and_then(Rule::poll_output) {
            Some(Output::Ask { question }) => self.ask_witness(question),
            Some(Output::Declare { .. } | Output::TakeOver { .. }) | None => Ok(()),
        }
    }

    /// Tells the rule how the link and the copy are. `false`: there is no copy that could be taken over.
    fn listen(&mut self) -> bool {
        self.listen_at(self.clock().instant)
    }

    fn listen_at(&mut self, now: Instant) -> bool {
        let Some(status) = self.secondary.machine.as_ref().map(Secondary::status) else { return false };
        if status.taken_over {
            return false;
        }
        self.tell_rule_at(now, Input::Ready { ready: status.has_point() });
        if self.settings.mutation != Some(Mutation::LinkLookedAtAlone) {
            self.tell_rule_at(now, Input::Heard { at: status.heard });
        }
        self.tell_rule_at(now, Input::Link { up: status.linked });
        true
    }

    pub(super) fn tell_rule(&mut self, input: Input) {
        self.tell_rule_at(self.clock().instant, input);
    }

    fn tell_rule_at(&mut self, now: Instant, input: Input) {
        self.trace.note(self.now, || format!("  rule <- {input:?}"));
        if let Some(rule) = &mut self.witness.rule {
            rule.handle(now, input);
        }
    }

    /// The rule's clock, as it goes on while the witness is asked.
    fn rule_now(&self, asked: Instant) -> Instant {
        match self.settings.mutation {
            Some(Mutation::StatementNeverOld) => asked,
            _ => self.clock().instant,
        }
    }

    fn ask_witness(&mut self, question: u64) -> Outcome {
        self.stats.see(Sometimes::WitnessAsked);
        let (life, challenge) = (self.secondary.life, self.witness.dice.draw());
        let waits = Waits { question, challenge, asked: self.clock().instant };
        self.witness.waits = Some(waits);
        if self.settings.mutation == Some(Mutation::WitnessNotAsked) {
            self.witness.waits = None;
            let said = Said::Heard { ago: Millis(u64::MAX >> 1), gap: Millis(0) };
            self.tell_rule(Input::Said { question, said });
            return self.act_on_rule(None, waits.asked);
        }
        if self.settings.mutation != Some(Mutation::StatementNeverOld) {
            self.after(WITNESS_ANSWER_MAX.0 * 1_000, Event::Witness(WitnessEvent::NotAnswered { life, challenge }));
        }
        if !self.witness.escrow.reaches(self.witness.main.other()) {
            self.stats.see(Sometimes::WitnessOutOfReach);
            if self.witness.dice.chance(500) {
                return self.no_answer(waits);
            }
        }
        let mut delay = self.way_to_witness();
        if self.witness.dice.chance(self.witness.profile.back_while_asked()) {
            // And gone again before anybody looks.
            let span = self.witness.dice.between(500_000, 3_000_000);
            self.comes_back_within(span);
            delay = span + 1_500_000;
        }
        self.after(delay, Event::Witness(WitnessEvent::Asked { life, challenge }));
        Ok(())
    }

    fn way_to_witness(&mut self) -> u64 {
        let slow = self.witness.profile.slow_ways();
        let most = if self.witness.dice.chance(slow) { 9_000_000 } else { 300_000 };
        self.witness.dice.between(20, most)
    }

    /// The escrow site states what it knows. Now and then an earlier statement arrives instead, or the answer twice.
    pub(super) fn witness_is_asked(&mut self, challenge: u64) {
        let (main, keeper) = (self.witness.main, self.witness.main.other());
        if !self.witness.escrow.reaches(keeper) {
            return;
        }
        let mut statement = self.witness.escrow.state(challenge, main, keeper, self.now);
        self.trace.note(self.now, || format!("  the witness states {statement:?}"));
        self.witness.statements.push(statement);
        if self.settings.mutation == Some(Mutation::BeatNotAsked)
            && let Said::Heard { gap, .. } = &mut statement.said
        {
            *gap = Millis(0);
        }
        let profile = self.witness.profile;
        let dice = &mut self.witness.dice;
        if dice.chance(profile.replayed()) {
            let of_main = |said: &&Statement| said.of == main && said.asker == keeper;
            let earlier: Vec<Statement> = self.witness.statements.iter().filter(of_main).copied().collect();
            statement = earlier[to_usize(dice.below(wide(earlier.len())))];
        }
        let times = if dice.chance(profile.unanswered()) { 0 } else { 1 + u64::from(dice.chance(140)) };
        let life = self.secondary.life;
        for _ in 0..times {
            let delay = self.way_to_witness();
            self.after(delay, Event::Witness(WitnessEvent::Answered { life, statement }));
        }
    }

    pub(super) fn witness_answers(&mut self, statement: &Statement) -> Outcome {
        let keeper = self.witness.main.other();
        let Some(waits) = self.witness.waits.filter(|_| self.witness.escrow.reaches(keeper)) else {
            self.stats.see(Sometimes::WitnessAnsweredTooLate);
            return Ok(());
        };
        let genuine = statement.challenge == waits.challenge && statement.asker == keeper;
        let taken = self.settings.mutation == Some(Mutation::OldStatementTaken);
        if statement.of != self.witness.main || !genuine && !taken {
            self.stats.see(Sometimes::StatementOfAnotherQuestion);
            return self.no_answer(waits);
        }
        self.witness.waits = None;
        // The main site may have come back meanwhile.
        let now = self.rule_now(waits.asked);
        if !self.listen_at(now) {
            return Ok(());
        }
        self.stats.see(match statement.said {
            Said::NeverHeard => Sometimes::WitnessNeverHeard,
            Said::Heard { ago, .. } if Some(ago) < self.witness.silence => Sometimes::WitnessHeardIt,
            Said::Heard { .. } => Sometimes::WitnessHeardNothing,
        });
        self.tell_rule_at(now, Input::Said { question: waits.question, said: statement.said });
        self.act_on_rule(Some(*statement), waits.asked)
    }

    pub(super) fn no_answer(&mut self, waits: Waits) -> Outcome {
        self.stats.see(Sometimes::WitnessSilent);
        self.witness.waits = None;
        if self.listen() {
            self.tell_rule(Input::NoAnswer { question: waits.question });
        }
        Ok(())
    }

    /// What the rule wants once the witness has spoken.
    fn act_on_rule(&mut self, statement: Option<Statement>, asked: Instant) -> Outcome {
        let life = self.secondary.life;
        let Some(Output::Declare { question }) = self.witness.rule.as_mut().and_then(Rule::poll_output) else {
            return Ok(());
        };
        let Some(statement) = statement.filter(|_| self.settings.mutation != Some(Mutation::StatementNotKept)) else {
            let now = self.rule_now(asked);
            return self.carry_out_rule(now, question);
        };
        let slow = self.witness.profile.slow_ways();
        let most = if self.witness.dice.chance(slow) { 14_000_000 } else { 8_000 };
        let delay = self.witness.dice.between(50, most);
        let event = if self.witness.dice.chance(40) {
            WitnessEvent::NotKept { life, question }
        } else {
            WitnessEvent::Kept { life, question, statement }
        };
        self.witness.keeps = true;
        self.after(delay, Event::Witness(event));
        self.crash_around(delay);
        Ok(())
    }

    pub(super) fn not_kept(&mut self, question: u64) {
        self.witness.keeps = false;
        if self.listen() {
            self.tell_rule(Input::NoAnswer { question });
        }
    }

    pub(super) fn kept(&mut self, question: u64, statement: Statement) -> Outcome {
        self.witness.keeps = false;
        self.witness.evidence = Some(statement);
        if self.settings.mutation == Some(Mutation::StatementNeverOld) {
            // The clock has stood still since it was asked.
            let asked = Instant(statement.at_us / 1_000);
            return self.carry_out_rule(asked, question);
        }
        let before = self.clock().instant;
        if !self.listen() {
            return Ok(());
        }
        self.carry_out_rule(before, question)
    }

    fn carry_out_rule(&mut self, now: Instant, question: u64) -> Outcome {
        self.tell_rule_at(now, Input::Kept { question });
        let Some(Output::TakeOver { unheard_since, until }) = self.witness.rule.as_mut().and_then(Rule::poll_output)
        else {
            self.stats.see(Sometimes::StatementKeptInVain);
            return Ok(());
        };
        self.begin_rule();
        let until = if self.settings.mutation == Some(Mutation::StatementNeverOld) { Instant(u64::MAX) } else { until };
        let (life, profile) = (self.secondary.life, self.witness.profile);
        let most = if self.witness.dice.chance(profile.slow_takeovers()) { 4_000_000 } else { 2_000 };
        let delay = self.witness.dice.between(10, most);
        self.after(delay, Event::Witness(WitnessEvent::TakeOver { life, unheard_since, until }));
        if self.witness.dice.chance(profile.back_before_the_takeover()) {
            self.comes_back_within(delay);
        }
        self.crash_around(delay);
        Ok(())
    }

    /// The keeper's process may end before what is under way is done, or right after it.
    fn crash_around(&mut self, delay: u64) {
        if self.witness.dice.chance(100) {
            let before = self.witness.dice.chance(500);
            self.stats.see(if before { Sometimes::CrashBeforeAWitnessStep } else { Sometimes::CrashAfterAWitnessStep });
            let delay = if before { self.witness.dice.below(delay) } else { delay + 1 };
            let life = self.secondary.life;
            self.after(delay, Event::Witness(WitnessEvent::Outage(Outage::KeeperCrashes { life })));
        }
    }

    /// The machine has the last word.
    pub(super) fn rule_takes_over(&mut self, unheard_since: Instant, until: Instant) -> Outcome {
        let status = self.secondary.machine.as_ref().map(Secondary::status);
        if self.faults.healed || status.is_none_or(|status| status.taken_over) || self.sides.is_changing() {
            return Ok(());
        }
        if self.witness.asked_for == Wish::Nobody {
            self.witness.asked_for = Wish::Rule;
        }
        let input = match self.settings.mutation {
            Some(Mutation::MachineNotAsked | Mutation::LinkLookedAtAlone) => secondary::Input::TakeOver,
            _ => secondary::Input::TakeOverUnheard { unheard_since, until },
        };
        self.tell_secondary(input)?;
        if !self.sides.is_changing() {
            self.stats.see(Sometimes::MachineKnewBetter);
        }
        Ok(())
    }

    /// The takeover begins: its generation is being made durable.
    pub fn judge_rules_takeover(&mut self) -> Outcome {
        let handed = self.secondary.machine.as_ref().is_some_and(Secondary::was_handed_over);
        if handed || self.witness.takeover().is_none() {
            return Ok(());
        }
        witness::takes_over(self)?;
        self.stats.see(Sometimes::TakeOverByTheWitness);
        if self.primary.machine.is_some() {
            self.stats.see(Sometimes::TakeOverOfASiteThatLives);
        }
        Ok(())
    }
}
