//! What lanes and keepers want done, done: journals, logs, and what goes over the link between the two.

use farseal_core::frame::KeyRefusal;
use farseal_core::primary::{self, Input, Output};
use farseal_core::rotation::Slot;
use farseal_core::secondary::{self, KeyFacts};
use farseal_core::units::{Epoch, Sequence};

use super::World;
use super::event::{Event, KeeperEvent, LaneEvent, ToKeeper, ToLane};
use super::figures::Figure;
use crate::check::{group_disaster, group_pause, group_turn};
use crate::disk::to_usize;
use crate::world::Outcome;

impl World {
    pub(super) fn lane_event(&mut self, lane: usize, event: LaneEvent) -> Outcome {
        match event {
            LaneEvent::Appended => match self.lanes[lane].append() {
                Some(digests) => self.tell_lane(lane, Input::Committed { digests }),
                None => Ok(()),
            },
            LaneEvent::Synced { end, through } => {
                self.lanes[lane].synced(end);
                self.tell_lane(lane, Input::JournalSynced { through })
            }
            LaneEvent::CopyRead { extent, stamps } => {
                let ticket = self.ticket();
                self.lanes[lane].writes.insert(ticket, stamps);
                self.tell_lane(lane, Input::CopyRead { ticket, what: primary::What::Data, extent })
            }
            LaneEvent::HandOverKept => {
                self.lanes[lane].handing_over = self.lanes[lane].handing.take();
                self.tell_lane(lane, Input::HandOverPersisted)
            }
            LaneEvent::HandedOver { generation } => self.tell_lane(lane, Input::HandedOver { generation }),
            LaneEvent::Turned => self.lane_turned(lane),
            LaneEvent::WordAnswered { id, taken } => {
                self.word_is_answered(lane, id, taken);
                Ok(())
            }
            LaneEvent::LookForFence { id } => {
                self.look_for_fence(lane, id);
                Ok(())
            }
            LaneEvent::Tick => {
                self.lanes[lane].tick_at = None;
                self.tell_lane(lane, Input::Tick)
            }
        }
    }

    pub(super) fn tell_lane(&mut self, lane: usize, input: Input) -> Outcome {
        self.give(lane, input);
        self.carry_out_lane(lane)
    }

    pub(super) fn carry_out_lane(&mut self, lane: usize) -> Outcome {
        while let Some(output) = self.lanes[lane].machine.as_mut().and_then(primary::Primary::poll_output) {
            self.lane_does(lane, output)?;
        }
        self.answer_reads(lane)?;
        let now = self.clock();
        let Some(machine) = &self.lanes[lane].machine else { return Ok(()) };
        if let Some((at, _)) = machine.poll_timeout(now)
            && self.lanes[lane].tick_at.is_none_or(|before| at < before)
        {
            self.lanes[lane].tick_at = Some(at);
            self.lane_later(lane, at.since(now.instant).0.max(1) * 1_000, LaneEvent::Tick);
        }
        Ok(())
    }

    /// An input that follows from an output: what it leads to comes after the outputs that stand before it.
    fn give(&mut self, lane: usize, input: Input) {
        let now = self.clock();
        let at = self.now;
        self.trace.note(at, || format!("  lane {lane} <- {input:?}"));
        if let Some(machine) = &mut self.lanes[lane].machine {
            machine.handle(now, input);
        }
    }

    pub(super) fn lane_later(&mut self, lane: usize, delay: u64, event: LaneEvent) {
        let life = self.lanes[lane].life;
        self.after(delay, Event::Lane { lane, life, event });
    }

    fn lane_does(&mut self, lane: usize, output: Output) -> Outcome {
        let at = self.now;
        self.trace.note(at, || format!("  lane {lane} -> {output:?}"));
        match output {
            Output::Reply { ticket, result } => {
                if result.is_ok() {
                    group_disaster::answered_well(self, lane)?;
                }
                return self.answered(ticket, result.is_ok());
            }
            Output::Commit { records, restart, .. } => {
                self.lanes[lane].appending.push((records, restart));
                let delay = self.dice.between(10, 1_000);
                self.lane_later(lane, delay, LaneEvent::Appended);
            }
            Output::SyncJournal => {
                let (end, through) = self.lanes[lane].end();
                let delay = self.dice.between(100, 10_000);
                self.lane_later(lane, delay, LaneEvent::Synced { end, through });
            }
            Output::Destage { through } => self.give(lane, Input::Destaged { through }),
            Output::SyncHome => {
                let through =
                    self.lanes[lane].machine.as_ref().map_or(Sequence::NONE, |machine| machine.status().destaged);
                self.give(lane, Input::HomeSynced { through });
            }
            Output::ReadForCopy { extent, .. } => {
                let (first, end) = (to_usize(extent.first().0), to_usize(extent.end().0));
                let stamps = self.lanes[lane].content[first..end].to_vec();
                let delay = self.dice.between(10, 3_000);
                self.lane_later(lane, delay, LaneEvent::CopyRead { extent, stamps });
            }
            Output::PersistOwed { stamp, acked, acked_chain } => {
                self.lanes[lane].keep_map(acked, acked_chain);
                self.give(lane, Input::OwedPersisted { stamp });
            }
            Output::DropOwed => self.lanes[lane].drop_map(),
            Output::Send { path, range, slots: _ } => {
                let records = self.lanes[lane].records(range.first, range.last);
                self.send_keeper(lane, path, ToKeeper::Records(records));
            }
            Output::ClosePath { path } => {
                self.break_path(lane, path);
                return self.tell_keeper(lane, secondary::Input::PathLost { path });
            }
            Output::PrepareEpoch { epoch, .. } => self.prepare(lane, epoch),
            Output::PlanSlots => self.give(lane, Input::SlotsPlanned { slots: Vec::new() }),
            Output::AskPolicy { .. } => self.give(lane, Input::PolicyDecided { decisions: Vec::new() }),
            Output::PersistPause { paused } => self.lanes[lane].paused = paused,
            Output::PersistFence { generation } => {
                self.figures.count(Figure::LanesFenced);
                self.lanes[lane].fenced = Some(generation);
            }
            Output::PersistHandOver { hand_over } => return self.hand_over_is_kept(lane, hand_over),
            Output::SendHandOver { path, hand_over } => self.send_keeper(lane, path, ToKeeper::HandOver(hand_over)),
            Output::HandedOver { hand_over } => return self.handed_over(lane, hand_over),
            // Copies and keys are of no weight here, and nothing is chosen.
            Output::RetryCommit
            | Output::TrimJournal { .. }
            | Output::DiscardCopy { .. }
            | Output::DiscardEpoch { .. }
            | Output::EpochInForce { .. }
            | Output::ShamInForce
            | Output::CommandAnswered(_)
            | Output::SeedArrived
            | Output::PersistMode { .. }
            | Output::PersistWay { .. }
            | Output::PersistLimits { .. }
            | Output::CarryKey { .. }
            | Output::Alarm(_) => {}
        }
        Ok(())
    }

    fn prepare(&mut self, lane: usize, epoch: Epoch) {
        self.lanes[lane].prepared(epoch);
        let slot = Slot { at: self.clock().instant, blocks: 1, chance: 0 };
        self.give(lane, Input::EpochPrepared { epoch, slot });
    }

    pub(super) fn keeper_event(&mut self, lane: usize, event: KeeperEvent) -> Outcome {
        match event {
            KeeperEvent::LogSynced { end, stored } => {
                self.keepers[lane].synced(end);
                self.tell_keeper(lane, secondary::Input::LogSynced { stored })
            }
            KeeperEvent::KeyChecked { key } => {
                let facts = self.keepers[lane].key_at(key).and_then(|rec| rec.key);
                let result = facts.map_or(Err(KeyRefusal::NoCapsule), |(epoch, start)| Ok(KeyFacts { epoch, start }));
                self.tell_keeper(lane, secondary::Input::KeyChecked { key, result })
            }
            KeeperEvent::Limit(limit) => self.tell_keeper(lane, secondary::Input::Limit(limit)),
            KeeperEvent::RefuseWord => {
                self.answer_words(lane, false);
                Ok(())
            }
            KeeperEvent::TakeOver(limit) => {
                self.answer_words(lane, true);
                self.tell_keeper(lane, secondary::Input::Limit(limit))?;
                self.tell_keeper(lane, secondary::Input::TakeOver)
            }
        }
    }

    pub(super) fn tell_keeper(&mut self, lane: usize, input: secondary::Input) -> Outcome {
        let now = self.clock();
        let at = self.now;
        self.trace.note(at, || format!("  keeper {lane} <- {input:?}"));
        if let Some(machine) = &mut self.keepers[lane].machine {
            machine.handle(now, input);
        }
        self.carry_out_keeper(lane)
    }

    pub(super) fn carry_out_keeper(&mut self, lane: usize) -> Outcome {
        while let Some(output) = self.keepers[lane].machine.as_mut().and_then(secondary::Secondary::poll_output) {
            self.keeper_does(lane, output)?;
        }
        let Some(machine) = &self.keepers[lane].machine else { return Ok(()) };
        let revision = machine.cuts().revision();
        // As a node does: not before it knows all of them.
        if machine.is_recovered() && self.keepers[lane].told != Some(revision) {
            self.keepers[lane].told = Some(revision);
            self.say_cuts(lane);
        }
        self.look_at_floor(lane)?;
        group_turn::instant(self, self.group_of(lane))
    }

    fn keeper_later(&mut self, lane: usize, delay: u64, event: KeeperEvent) {
        let life = self.keepers[lane].life;
        self.after(delay, Event::Keeper { lane, life, event });
    }

    fn keeper_does(&mut self, lane: usize, output: secondary::Output) -> Outcome {
        let at = self.now;
        self.trace.note(at, || format!("  keeper {lane} -> {output:?}"));
        match output {
            secondary::Output::Welcome { path, welcome } => self.send_lane(lane, path, ToLane::Welcome(welcome)),
            secondary::Output::Ack { path, ack } => self.send_lane(lane, path, ToLane::Ack(ack)),
            secondary::Output::KeyRefused { path, key, why } => {
                self.send_lane(lane, path, ToLane::KeyRefused(key, why));
            }
            secondary::Output::Refuse { path, refusal } => self.send_lane(lane, path, ToLane::Refuse(refusal)),
            secondary::Output::ClosePath { path } => {
                self.break_path(lane, path);
                self.give(lane, Input::PathLost { path });
                return self.carry_out_lane(lane);
            }
            secondary::Output::Store { sequence } => {
                group_pause::stored(self, lane, sequence)?;
                self.keepers[lane].store();
            }
            secondary::Output::SyncLog => {
                let (end, stored) = (self.keepers[lane].end(), self.keepers[lane].stored);
                let delay = self.dice.between(100, 10_000);
                self.keeper_later(lane, delay, KeeperEvent::LogSynced { end, stored });
            }
            secondary::Output::CheckKey { key } => {
                let delay = if self.dice.chance(200) { 200_000 } else { 2_000 };
                let delay = self.dice.between(10, delay);
                self.keeper_later(lane, delay, KeeperEvent::KeyChecked { key });
            }
            secondary::Output::PersistGeneration { generation, taken_over } => {
                self.keepers[lane].keep_generation(generation, taken_over);
                let now = self.clock();
                if let Some(machine) = &mut self.keepers[lane].machine {
                    machine.handle(now, secondary::Input::GenerationPersisted { generation });
                }
            }
            secondary::Output::TakenOver { .. } => return self.taken_over(lane),
            secondary::Output::HandedOver { generation, .. } => self.answer_hand_over(lane, generation),
            // The image is built from the log when it is judged; nobody wrote here before.
            secondary::Output::Offer { .. } | secondary::Output::Differs { .. } | secondary::Output::Alarm(_) => {}
        }
        Ok(())
    }
}
