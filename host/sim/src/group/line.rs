//! A lane's link: one to four paths that delay, repeat, break and are made anew, where only another path's words are overtaken.

use farseal_core::frame::{Attach, Refusal};
use farseal_core::primary::{self, Input};
use farseal_core::secondary;
use farseal_core::units::{BlockCount, Generation, Path};

use super::event::{Event, ToKeeper, ToLane};
use super::{BLOCKS, World, pair};
use crate::world::{Outcome, VOLUME, block_bytes};

const TO_KEEPER: usize = 0;
const TO_LANE: usize = 1;

/// One path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// Of another connection nothing arrives.
    session: u64,
    up: bool,
    /// No connection is made before.
    cut_until: u64,
    /// When the last message arrives: at the keeper, at the lane.
    busy_until: [u64; 2],
}

impl Line {
    /// Another connection begins or the one that was is over: what it carried holds nothing up.
    fn renew(&mut self) {
        self.session += 1;
        self.busy_until = [0; 2];
    }

    /// How long until what is sent now arrives: not before what was sent earlier.
    fn arrives_after(&mut self, direction: usize, now: u64, delay: u64) -> u64 {
        let at = (now + delay).max(self.busy_until[direction]);
        self.busy_until[direction] = at;
        at - now
    }
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

    pub(super) fn is_up(&self, lane: usize, path: Path) -> bool {
        self.lines[lane][usize::from(path.0)].up
    }

    /// Nothing goes over it for so long.
    pub(super) fn cut_path(&mut self, lane: usize, path: Path, span: u64) {
        self.line(lane, path).cut_until = self.now + span;
    }

    pub(super) fn connect(&mut self, lane: usize, path: Path) -> Outcome {
        if self.line(lane, path).up || self.lanes[lane].is_over() {
            return Ok(());
        }
        let cut = self.healed.is_none() && self.line(lane, path).cut_until > self.now;
        if cut || self.lanes[lane].machine.is_none() || self.keepers[lane].machine.is_none() {
            self.after(20_000, Event::Connect { lane, path });
            return Ok(());
        }
        let line = self.line(lane, path);
        line.up = true;
        line.renew();
        self.tell_lane(lane, Input::Attaching { path })?;
        let attach = Attach {
            layout: None,
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
            line.renew();
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
        let twice = matches!(message, ToKeeper::Records(_)) && self.dice.chance(20);
        for message in std::iter::once(message.clone()).chain(twice.then_some(message)) {
            let (now, delay) = (self.now, self.dice.between(50, 8_000));
            let line = self.line(lane, path);
            let (session, delay) = (line.session, line.arrives_after(TO_KEEPER, now, delay));
            self.after(delay, Event::ToKeeper { lane, path, session, message: Box::new(message) });
        }
    }

    pub(super) fn send_lane(&mut self, lane: usize, path: Path, message: ToLane) {
        let (now, delay) = (self.now, self.dice.between(50, 8_000));
        let line = self.line(lane, path);
        let (session, delay) = (line.session, line.arrives_after(TO_LANE, now, delay));
        self.after(delay, Event::ToLane { lane, path, session, message });
    }

    pub(super) fn keeper_receives(&mut self, lane: usize, path: Path, message: ToKeeper) -> Outcome {
        // An order that was made up comes over no path.
        if self.is_up(lane, path) {
            self.silences.heard_us[lane] = self.now;
        }
        match message {
            ToKeeper::Attach(attach) => self.tell_keeper(lane, secondary::Input::Attach { path, attach }),
            ToKeeper::HandOver(hand_over) => self.tell_keeper(lane, secondary::Input::HandOver { path, hand_over }),
            ToKeeper::Retire(order) => self.judge_order(lane, &order),
            ToKeeper::Declare(word) => self.word_comes(lane, word),
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
                    | Refusal::OtherLink
                    | Refusal::LayoutDiffers => Ok(()),
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

#[cfg(test)]
mod tests {
    use farseal_core::chain::Chain;
    use farseal_core::frame::{Ack, Welcome};
    use farseal_core::units::Sequence;

    use super::*;
    use crate::trace::Trace;

    fn ack(durable: u64) -> Ack {
        Ack { durable: Sequence(durable), chain: Chain::START, ranges: Vec::new(), full: false }
    }

    /// A lane that hears an acknowledgement of a path that it takes for down does not count it, and hears no other: its
    /// resync never ended (group seed 4168).
    #[test]
    fn no_acknowledgement_overtakes_the_welcome_of_its_own_path() {
        for seed in 1..200 {
            let mut world = World::new(seed, None, Trace::new(false, false));
            let welcome = Welcome { generation: Generation(1), ack: ack(0) };
            world.send_lane(0, Path(0), ToLane::Welcome(welcome));
            (1..4).for_each(|durable| world.send_lane(0, Path(0), ToLane::Ack(ack(durable))));
            let heard = world.queue.into_values().filter_map(|event| {
                let Event::ToLane { message, .. } = event else { return None };
                match message {
                    ToLane::Welcome(Welcome { ack, .. }) | ToLane::Ack(ack) => Some(ack.durable.0),
                    ToLane::KeyRefused(..) | ToLane::Refuse(_) => None,
                }
            });
            assert_eq!(heard.collect::<Vec<_>>(), [0, 1, 2, 3], "seed {seed}");
        }
    }
}
