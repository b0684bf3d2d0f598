//! What lanes and keepers want done, done: journals, logs, and the link between the two.

use std::collections::VecDeque;

use farseal_core::frame::{Attach, KeyRefusal};
use farseal_core::primary::{self, Input, Output};
use farseal_core::rotation::Slot;
use farseal_core::secondary::{self, KeyFacts};
use farseal_core::units::{BlockCount, Epoch, Generation, Sequence};

use super::{BLOCKS, Event, PATH, ToKeeper, ToLane, World, pair};
use crate::disk::to_usize;
use crate::world::{Outcome, VOLUME, block_bytes};

impl World {
    pub(super) fn connect(&mut self, lane: usize) -> Outcome {
        let both = self.lanes[lane].machine.is_some() && self.keepers[lane].machine.is_some();
        if self.linked[lane] || !both {
            if !self.linked[lane] {
                self.after(20_000, Event::Connect(lane));
            }
            return Ok(());
        }
        self.linked[lane] = true;
        self.links[lane] += 1;
        self.tell_lane(lane, Input::Attaching { path: PATH })?;
        let attach = Attach {
            pair: pair(lane),
            volume: VOLUME,
            generation: Generation(1),
            encrypted: false,
            block_bytes: block_bytes(),
            blocks: BlockCount(BLOCKS),
            path: 0,
            paths: 1,
        };
        self.send_keeper(lane, ToKeeper::Attach(attach));
        Ok(())
    }

    pub(super) fn break_link(&mut self, lane: usize) {
        if std::mem::replace(&mut self.linked[lane], false) {
            self.links[lane] += 1;
            let delay = self.dice.between(1_000, 300_000);
            self.after(delay, Event::Connect(lane));
        }
    }

    pub(super) fn unlink(&mut self, lane: usize) -> Outcome {
        self.break_link(lane);
        self.tell_lane(lane, Input::PathLost { path: PATH })?;
        self.tell_keeper(lane, secondary::Input::PathLost { path: PATH })
    }

    pub(super) fn send_keeper(&mut self, lane: usize, message: ToKeeper) {
        let (session, delay) = (self.links[lane], self.dice.between(50, 8_000));
        self.after(delay, Event::ToKeeper { lane, session, message: Box::new(message) });
    }

    pub(super) fn send_lane(&mut self, lane: usize, message: ToLane) {
        let (session, delay) = (self.links[lane], self.dice.between(50, 8_000));
        self.after(delay, Event::ToLane { lane, session, message });
    }

    pub(super) fn tell_lane(&mut self, lane: usize, input: Input) -> Outcome {
        let now = self.clock();
        if let Some(machine) = &mut self.lanes[lane].machine {
            machine.handle(now, input);
        }
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
            let life = self.lanes[lane].life;
            self.after(at.since(now.instant).0.max(1) * 1_000, Event::LaneTick { lane, life });
        }
        Ok(())
    }

    pub(super) fn give(&mut self, lane: usize, input: Input) {
        let now = self.clock();
        if let Some(machine) = &mut self.lanes[lane].machine {
            machine.handle(now, input);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what a lane has no part in here needs no answer")]
    pub(super) fn lane_does(&mut self, lane: usize, output: Output) -> Outcome {
        let life = self.lanes[lane].life;
        match output {
            Output::Reply { ticket, result } => {
                if let Some((index, _, stamp)) = self.tickets.remove(&ticket) {
                    self.initiators[index].ticket = None;
                    self.shown(index, if result.is_ok() { stamp } else { 0 })?;
                }
            }
            Output::Commit { records, restart, .. } => {
                self.lanes[lane].appending.push((records, restart));
                let delay = self.dice.between(10, 1_000);
                self.after(delay, Event::Appended { lane, life });
            }
            Output::SyncJournal => {
                let (end, through) = self.lanes[lane].end();
                let delay = self.dice.between(100, 10_000);
                self.after(delay, Event::Synced { lane, life, end, through });
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
                self.after(delay, Event::CopyRead { lane, life, extent, stamps });
            }
            Output::PersistOwed { stamp, acked, acked_chain } => {
                let site = &mut self.lanes[lane];
                site.keep_map(acked, acked_chain);
                self.give(lane, Input::OwedPersisted { stamp });
            }
            Output::DropOwed => self.lanes[lane].drop_map(),
            Output::Send { range, .. } => {
                let records = self.lanes[lane].records(range.first, range.last);
                self.send_keeper(lane, ToKeeper::Records(records));
            }
            Output::ClosePath { .. } => {
                self.break_link(lane);
                self.tell_keeper(lane, secondary::Input::PathLost { path: PATH })?;
            }
            Output::PrepareEpoch { epoch, .. } => self.prepare(lane, epoch),
            Output::AskPolicy { .. } => self.give(lane, Input::PolicyDecided { decisions: Vec::new() }),
            Output::PersistPause { paused } => self.lanes[lane].paused = paused,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn prepare(&mut self, lane: usize, epoch: Epoch) {
        self.lanes[lane].prepared(epoch);
        let slot = Slot { at: self.clock().instant, blocks: 1 };
        self.give(lane, Input::EpochPrepared { epoch, slot });
    }

    pub(super) fn keeper_receives(&mut self, lane: usize, message: ToKeeper) -> Outcome {
        match message {
            ToKeeper::Attach(attach) => self.tell_keeper(lane, secondary::Input::Attach { path: PATH, attach }),
            ToKeeper::Records(records) => {
                for rec in records {
                    let (header, digest) = (rec.header, rec.digest);
                    self.keepers[lane].incoming = Some(rec);
                    self.tell_keeper(lane, secondary::Input::Record { path: PATH, header, digest })?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn tell_keeper(&mut self, lane: usize, input: secondary::Input) -> Outcome {
        let now = self.clock();
        if let Some(machine) = &mut self.keepers[lane].machine {
            machine.handle(now, input);
        }
        self.carry_out_keeper(lane)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what a keeper has no part in here needs no answer")]
    pub(super) fn carry_out_keeper(&mut self, lane: usize) -> Outcome {
        let mut later = VecDeque::new();
        while let Some(output) = self.keepers[lane].machine.as_mut().and_then(secondary::Secondary::poll_output) {
            let life = self.keepers[lane].life;
            match output {
                secondary::Output::Welcome { welcome, .. } => self.send_lane(lane, ToLane::Welcome(welcome)),
                secondary::Output::Ack { ack, .. } => self.send_lane(lane, ToLane::Ack(ack)),
                secondary::Output::KeyRefused { key, why, .. } => self.send_lane(lane, ToLane::KeyRefused(key, why)),
                secondary::Output::Refuse { .. } | secondary::Output::ClosePath { .. } => {
                    self.break_link(lane);
                    self.give(lane, Input::PathLost { path: PATH });
                }
                secondary::Output::Store { .. } => self.keepers[lane].store(),
                secondary::Output::SyncLog => {
                    let (end, stored) = (self.keepers[lane].end(), self.keepers[lane].stored);
                    let delay = self.dice.between(100, 10_000);
                    self.after(delay, Event::LogSynced { lane, life, end, stored });
                }
                secondary::Output::CheckKey { key } => later.push_back(key),
                secondary::Output::PersistGeneration { generation, .. } => {
                    self.keepers[lane].set_generation(generation);
                    let now = self.clock();
                    if let Some(machine) = &mut self.keepers[lane].machine {
                        machine.handle(now, secondary::Input::GenerationPersisted { generation });
                    }
                }
                _ => {}
            }
            if let Some(key) = later.pop_front() {
                let facts = self.keepers[lane].key_at(key).and_then(|rec| rec.key);
                let result = facts.map_or(Err(KeyRefusal::NoCapsule), |(epoch, start)| Ok(KeyFacts { epoch, start }));
                let now = self.clock();
                if let Some(machine) = &mut self.keepers[lane].machine {
                    machine.handle(now, secondary::Input::KeyChecked { key, result });
                }
            }
        }
        let Some(machine) = &self.keepers[lane].machine else { return Ok(()) };
        let cuts = machine.cuts();
        if self.keepers[lane].told != Some(cuts.revision()) {
            let cuts = cuts.clone();
            self.keepers[lane].told = Some(cuts.revision());
            let delay = self.way();
            self.after(delay, Event::Cuts { lane, cuts });
        }
        Ok(())
    }
}
