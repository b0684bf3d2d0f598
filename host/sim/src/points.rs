//! The copy's earlier points: a window that follows the time, pins, and a log from which what no point needs is taken away.

use std::collections::{BTreeMap, BTreeSet};

use farseal_core::compaction::{Retained, Version, is_needed};
use farseal_core::group::CutName;
use farseal_core::points::{Known, Moment, Pin, PointError, Points as Book, Terms, Why};
use farseal_core::units::{ByteLen, Millis, Sequence, WallTime};

use crate::check::{self, Checker, Failure};
use crate::dice::Dice;
use crate::disk::to_usize;
use crate::model::write;
use crate::mutation::Mutation;
use crate::stats::Sometimes;
use crate::world::{Outcome, World};

/// What outlives a process of the keeper.
#[derive(Debug)]
pub struct Points {
    dice: Dice,
    terms: Terms,
    book: Book,
    pinned: u64,
    /// Versions of blocks that compaction took away: the record's number, the block.
    dropped: BTreeSet<(Sequence, u64)>,
}

impl Points {
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 21);
        let span = Millis([200, 2_000, 10_000, 60_000][to_usize(dice.below(4))]);
        let terms = Terms { span, size: dice.chance(200).then(|| ByteLen(dice.between(50, 400))) };
        Self { dice, terms, book: Book::default(), pinned: 0, dropped: BTreeSet::new() }
    }
}

impl World {
    /// The copy offers everything up to here, at a moment of its first history.
    pub fn follow_points(&mut self, through: Sequence) -> Outcome {
        let first = self.secondary.keeps.is_none() && !self.secondary.taken_over && !self.rollback.happened();
        if !first || through < self.secondary.offered {
            return Ok(());
        }
        self.move_window(through);
        if self.points.dice.chance(100) {
            self.pin_or_let_go(through);
        }
        if self.points.dice.chance(150) {
            self.take_away(through);
            let oldest = self.known(through).oldest();
            let point = Sequence(self.points.dice.between(oldest.0, through.0 + 1));
            self.open_point(point, through)?;
            let pins: Vec<Sequence> = self.points.book.pins().iter().map(|pin| pin.sequence).collect();
            for pin in pins {
                self.open_point(pin, through)?;
            }
        }
        Ok(())
    }

    fn move_window(&mut self, through: Sequence) {
        let now = self.clock().wall;
        let moment = Moment { sequence: through, at: now, made: now, from: through.0, end: through.0 };
        let points = &mut self.points;
        if points.book.moments().is_empty() {
            points.book = Book::beginning(Moment { sequence: Sequence::NONE, from: 0, end: 0, ..moment });
        }
        points.book.note(moment);
        let room = |moment: &Moment| ByteLen(through.0.saturating_sub(moment.from));
        if let Some((to, why)) = points.book.due(&points.terms, now, room) {
            points.book.advance(&to, why, now);
            self.stats.see(Sometimes::WindowMoved);
        }
        if self.points.dice.chance(10)
            && let Some(to) = self.points.book.gives_way(|_| true)
        {
            self.points.book.advance(&to, Some(Why::NoRoom), now);
        }
    }

    fn pin_or_let_go(&mut self, through: Sequence) {
        let oldest = self.known(through).oldest();
        let sequence = Sequence(self.points.dice.between(oldest.0, through.0 + 1));
        let first = self.points.book.pins().first().map(|pin| pin.name.clone());
        if let Some(name) = first.filter(|_| self.points.dice.chance(300)) {
            self.points.book.unpin(&name);
        } else if self.known(through).point(sequence).is_ok()
            && let Ok(name) = CutName::new(&format!("p{}", self.points.pinned))
            && self.points.book.may_pin(&name).is_ok()
        {
            self.points.pinned += 1;
            self.points.book.pin(Pin { name, sequence, at: WallTime(0) });
        }
    }

    fn known(&self, newest: Sequence) -> Known<'_> {
        Known {
            points: &self.points.book,
            window: true,
            holes: self.secondary.machine.as_ref().map_or(&[], |machine| machine.holes()),
            cuts: &[],
            begins: Sequence::NONE,
            newest,
            made: WallTime(0),
        }
    }

    /// Compaction, as thorough as it may be.
    fn take_away(&mut self, through: Sequence) {
        let pins: Vec<Sequence> = self.points.book.pins().iter().map(|pin| pin.sequence).collect();
        let oldest = self.known(through).oldest();
        let retained = match self.settings.mutation {
            Some(Mutation::WindowNotKept) => Retained { oldest: through, points: &pins },
            Some(Mutation::PinsNotKept) => Retained { oldest, points: &[] },
            _ => Retained { oldest, points: &pins },
        };
        let mut standing: BTreeMap<u64, Sequence> = BTreeMap::new();
        for sequence in self.secondary.held(through) {
            let Some((header, _)) = self.secondary.read(sequence) else { continue };
            for lba in header.extent().into_iter().flat_map(|extent| extent.first().0..extent.end().0) {
                let Some(from) = standing.insert(lba, sequence) else { continue };
                if !is_needed(Version { from, until: Some(sequence) }, &retained) {
                    self.points.dropped.insert((from, lba));
                }
            }
        }
    }

    /// A point opens as the volume was then, or is none for a reason.
    fn open_point(&mut self, point: Sequence, newest: Sequence) -> Outcome {
        match self.known(newest).point(point) {
            Ok(_) => {}
            Err(PointError::CatchingUp { before, after, .. }) if before < point && point < after => {
                self.stats.see(Sometimes::PointWhileCatchingUp);
                return Ok(());
            }
            Err(error) => return Err(Failure::new(Checker::Recoverable, format!("point {point}: {error}"))),
        }
        let mut image = vec![0; self.secondary.index.len()];
        let mut standing: BTreeMap<u64, Sequence> = BTreeMap::new();
        for sequence in self.secondary.held(point) {
            let Some((header, stamps)) = self.secondary.read(sequence) else { continue };
            let Some(extent) = header.extent() else { continue };
            write(&mut image, extent, &stamps);
            standing.extend((extent.first().0..extent.end().0).map(|lba| (lba, sequence)));
        }
        let gone = standing.iter().find(|(lba, sequence)| self.points.dropped.contains(&(**sequence, **lba)));
        if let Some((lba, sequence)) = gone {
            return Err(Failure::new(
                Checker::Recoverable,
                format!("point {point} reads block {lba} of record {sequence}, which was compacted away"),
            ));
        }
        if point < newest {
            self.stats.see(Sometimes::EarlierPointOpened);
        }
        check::recoverable::at_point(self, point, &image)
    }
}
