//! A lane's link: one to four paths that delay, reorder, duplicate, break and are made anew.

use farseal_core::frame::{Attach, Refusal};
use farseal_core::primary::{self, Input};
use farseal_core::secondary;
use farseal_core::units::{BlockCount, Generation, Path};

use super::event::{Event, ToKeeper, ToLane};
use super::{BLOCKS, World, pair};
use crate::world::{Outcome, VOLUME, block_bytes};

/// One path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// Of another connection nothing arrives.
    session: u64,
    up: bool,
}

impl World {
    pub(super) fn paths(&self, lane: usize) -> impl Iterator<Item = Path> + use<> {
        (0..u16::try_from(self.lines[lane].len()).unwrap_or(1)).map(Path)
    }

    fn line(&mut self, lane: usize, path: Path) -> &mut Line {
        &mut self.lines[lane][usize::from(path.0)]
    }

    pub(super) fn is_of(&self, lane: usize, path: Path, session: u64) -> bool {
        self.lines[lane][usize::from(path.0)].session == session
    }

    pub(super) fn connect(&mut self, lane: usize, path: Path) -> Outcome {
        if self.line(lane, path).up || self.lanes[lane].is_over() {
            return Ok(());
        }
        if self.lanes[lane].machine.is_none() || self.keepers[lane].machine.is_none() {
            self.after(20_000, Event::Connect { lane, path });
            return Ok(());
        }
        let line = self.line(lane, path);
        line.up = true;
        line.session += 1;
        self.tell_lane(lane, Input::Attaching { path })?;
        let attach = Attach {
            pair: pair(lane),
            volume: VOLUME,
            generation: Generation(1),
            encrypted: false,
            block_bytes: block_bytes(),
            blocks: BlockCount(BLOCKS),
            path: path.0,
            paths: u16::try_from(self.lines[lane].len()).unwrap_or(1),
        };
        self.send_keeper(lane, path, ToKeeper::Attach(attach));
        Ok(())
    }

    pub(super) fn break_path(&mut self, lane: usize, path: Path) {
        let line = self.line(lane, path);
        if std::mem::replace(&mut line.up, false) {
            line.session += 1;
            let delay = self.dice.between(1_000, 300_000);
            self.after(delay, Event::Connect { lane, path });
        }
    }

    /// Both ends hear at once that this path is gone.
    pub(super) fn unlink(&mut self, lane: usize, path: Path) -> Outcome {
        self.break_path(lane, path);
        self.tell_lane(lane, Input::PathLost { path })?;
        self.tell_keeper(lane, secondary::Input::PathLost { path })
    }

    pub(super) fn send_keeper(&mut self, lane: usize, path: Path, message: ToKeeper) {
        let (session, delay) = (self.line(lane, path).session, self.dice.between(50, 8_000));
        if matches!(message, ToKeeper::Records(_)) && self.dice.chance(20) {
            let again = delay + self.dice.between(50, 8_000);
            self.after(again, Event::ToKeeper { lane, path, session, message: Box::new(message.clone()) });
        }
        self.after(delay, Event::ToKeeper { lane, path, session, message: Box::new(message) });
    }

    pub(super) fn send_lane(&mut self, lane: usize, path: Path, message: ToLane) {
        let (session, delay) = (self.line(lane, path).session, self.dice.between(50, 8_000));
        self.after(delay, Event::ToLane { lane, path, session, message });
    }

    pub(super) fn keeper_receives(&mut self, lane: usize, path: Path, message: ToKeeper) -> Outcome {
        match message {
            ToKeeper::Attach(attach) => self.tell_keeper(lane, secondary::Input::Attach { path, attach }),
            ToKeeper::HandOver(hand_over) => self.tell_keeper(lane, secondary::Input::HandOver { path, hand_over }),
            ToKeeper::Retire(order) => self.judge_order(lane, &order),
            ToKeeper::Records(records) => {
                for rec in records {
                    let (header, digest) = (rec.header, rec.digest);
                    self.keepers[lane].incoming = Some(rec);
                    self.tell_keeper(lane, secondary::Input::Record { path, header, digest })?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn lane_receives(&mut self, lane: usize, path: Path, message: ToLane) -> Outcome {
        match message {
            ToLane::Welcome(welcome) => self.tell_lane(lane, Input::Welcomed { path, welcome }),
            ToLane::Ack(ack) => self.tell_lane(lane, Input::Acked { path, ack }),
            ToLane::KeyRefused(key, why) => self.tell_lane(lane, Input::KeyRefused { key, why }),
            ToLane::Refuse(refusal) => {
                self.break_path(lane, path);
                self.tell_lane(lane, Input::PathLost { path })?;
                match refusal {
                    Refusal::Fenced(generation) => self.tell_lane(lane, Input::Fenced { generation }),
                    Refusal::UnknownPair
                    | Refusal::EncryptionDiffers
                    | Refusal::OtherSize(_)
                    | Refusal::OtherVolume
                    | Refusal::NotSecondary
                    | Refusal::Damaged
                    | Refusal::OtherLink => Ok(()),
                }
            }
        }
    }

    /// The copy holds what its lane wrote, or will not any more.
    pub(super) fn is_copied(&self, lane: usize) -> bool {
        let over = self.lanes[lane].turned || self.lanes[lane].gone;
        over || self.lanes[lane].machine.as_ref().is_some_and(|machine| {
            let status = machine.status();
            let stopped = status.pause != primary::PauseState::Running || status.diverged.is_some();
            status.acked == status.last || stopped
        })
    }
}
