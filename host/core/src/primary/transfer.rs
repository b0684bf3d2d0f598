//! Transfer: what is sent over which path, what has been acknowledged, and do the sites still agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::carry::{Carried, Veil};
use super::*;
use crate::flow::Transfer as Kinds;
use crate::given_up::GivenUp;

/// How the sites were found to disagree. The pair stops; nobody's data is overwritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
pub enum Divergence {
    #[error("the secondary holds records up to {theirs} that it acknowledged up to {ours}: its store was rolled back")]
    RolledBack { ours: Sequence, theirs: Sequence },
    #[error("the secondary holds record {theirs}, the journal ends at {ours}: this site was rolled back")]
    Ahead { ours: Sequence, theirs: Sequence },
    #[error("the running hashes differ at record {0}: one site holds other records")]
    Chain(Sequence),
    #[error(
        "the secondary is at record {0}, which this site does not know that it sent: one of the sites was set back"
    )]
    Unsent(Sequence),
    #[error("the secondary's generation is {0}: this site was taken over from")]
    Fenced(Generation),
}

#[derive(Debug)]
pub(super) struct Transfer {
    paths: BTreeSet<Path>,
    /// How far the secondary was known to be when each path asked to attach.
    attaching: BTreeMap<Path, Sequence>,
    next_path: usize,
    /// The path that carries records, or did last.
    current: Option<Path>,
    /// The paths on which something that is not acknowledged may be on its way.
    carrying: BTreeSet<Path>,
    /// Above the acknowledged mark, in order; gaps leave holes.
    unacked: VecDeque<Unacked>,
    unacked_bytes: u64,
    acked: Sequence,
    acked_chain: Chain,
    /// What was sent and given up: the secondary may be there still. `None`: an older version kept none of it.
    given_up: Option<GivenUp>,
    /// Of what is unacknowledged, everything up to here may have been sent at some time.
    reached: Sequence,
    /// What the secondary holds above its mark; not sent again.
    held: Vec<Range>,
    /// Everything up to here is on its way.
    sent: Sequence,
    in_flight_bytes: u64,
    /// The secondary has no room: nothing is sent until it says that it tries again.
    full: bool,
    diverged: Option<Divergence>,
    /// A key record on its way in the slots of others, before it has its place.
    pub(super) carriage: Option<Carried>,
    /// One that has it, and is not sent as such.
    pub(super) veil: Option<Veil>,
}

impl Transfer {
    /// What a restart found unacknowledged may have been sent, all of it.
    pub(super) fn new(acked: Sequence, acked_chain: Chain, unacked: Vec<Unacked>, given_up: Option<GivenUp>) -> Self {
        let reached = unacked.last().map_or(acked, |record| record.sequence);
        let unacked_bytes = unacked.iter().map(|record| record.bytes.0).sum();
        Self {
            paths: BTreeSet::new(),
            attaching: BTreeMap::new(),
            next_path: 0,
            current: None,
            carrying: BTreeSet::new(),
            unacked: unacked.into(),
            unacked_bytes,
            acked,
            acked_chain,
            given_up,
            reached,
            held: Vec::new(),
            sent: acked,
            in_flight_bytes: 0,
            full: false,
            diverged: None,
            carriage: None,
            veil: None,
        }
    }

    pub(super) fn acked(&self) -> Sequence {
        self.acked
    }

    pub(super) fn acked_chain(&self) -> Chain {
        self.acked_chain
    }

    pub(super) fn sent(&self) -> Sequence {
        self.sent
    }

    pub(super) fn paths(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn diverged(&self) -> Option<Divergence> {
        self.diverged
    }

    pub(super) fn unacked(&self) -> impl Iterator<Item = &Unacked> {
        self.unacked.iter()
    }

    pub(super) fn lag(&self) -> (u64, u64, Option<WallTime>) {
        (wide(self.unacked.len()), self.unacked_bytes, self.unacked.front().map(|record| record.wall))
    }

    pub(super) fn push(&mut self, record: Unacked) {
        self.unacked_bytes += record.bytes.0;
        self.unacked.push_back(record);
    }

    /// Records below a gap are not sent any more; the dirty map owes what they held. The secondary may get, or have,
    /// those that were sent.
    pub(super) fn give_up(&mut self) {
        let reached = self.reached;
        let gone = self.unacked.drain(..).filter(|record| record.sequence <= reached);
        match &mut self.given_up {
            Some(given_up) => gone.for_each(|record| given_up.push(record.sequence, record.chain)),
            None => drop(gone),
        }
        self.unacked_bytes = 0;
        self.in_flight_bytes = 0;
        self.held.clear();
        self.sent = self.acked;
        (self.carriage, self.veil) = (None, None);
    }

    /// Nothing more of the order is sent until a gap opens it again.
    pub(super) fn stop_sending(&mut self) {
        self.give_up();
    }

    /// What was sent on it may be lost: all of it is owed again, but for what the secondary said it holds. A path that
    /// stood by takes nothing with it.
    pub(super) fn path_lost(&mut self, path: Path) {
        self.paths.remove(&path);
        if self.carrying.contains(&path) {
            self.rewind();
        }
    }

    /// The path is up. What an earlier connection of it took with it is owed again.
    fn path_up(&mut self, path: Path) {
        self.path_lost(path);
        self.paths.insert(path);
    }

    /// The paths that are up and not among the first so many.
    pub(super) fn paths_beyond(&self, paths: u16) -> Vec<Path> {
        self.paths.range(Path(paths)..).copied().collect()
    }

    /// The path that carries records in order; none while there is none.
    pub(super) fn current(&self) -> Option<Path> {
        self.current.filter(|path| self.paths.contains(path))
    }

    pub(super) fn attaching(&mut self, path: Path) {
        self.attaching.insert(path, self.acked);
    }

    /// Takes over where the secondary is, if this site has brought it there: the records between are given up and the
    /// map owes them.
    pub(super) fn adopt(&mut self, ack: &Ack) -> Result<(), Divergence> {
        if let Some(given_up) = &self.given_up {
            match given_up.at(ack.durable) {
                Some(chain) if chain == ack.chain => {}
                Some(_) => return Err(Divergence::Chain(ack.durable)),
                None => return Err(Divergence::Unsent(ack.durable)),
            }
        }
        (self.acked, self.acked_chain) = (ack.durable, ack.chain);
        self.sent = self.sent.max(ack.durable);
        self.forget_given_up();
        Ok(())
    }

    /// What the map on disk is kept with: where the secondary may be. `None` where that is not known.
    pub(super) fn may_be_at(&self) -> Option<GivenUp> {
        let mut first = GivenUp::default();
        first.push(self.acked, self.acked_chain);
        self.given_up.as_ref().map(|given_up| first.and(given_up))
    }

    /// A resync is over: the secondary is where the journal says.
    pub(super) fn know_again(&mut self) {
        self.given_up.get_or_insert_default();
    }

    fn forget_given_up(&mut self) {
        if let Some(given_up) = &mut self.given_up {
            given_up.forget_through(self.acked);
        }
    }

    /// What was acknowledged was not by the secondary, which is where it says; nothing above it is sent.
    pub(super) fn forget(&mut self, ack: &Ack) {
        self.give_up();
        (self.acked, self.acked_chain, self.sent) = (ack.durable, ack.chain, ack.durable);
        self.reached = ack.durable;
    }

    fn rewind(&mut self) {
        self.sent = self.acked;
        self.in_flight_bytes = 0;
        self.carrying.clear();
        // What was carried may be lost. A key that has its place goes as it is: that the connection broke shows anyway.
        (self.carriage, self.veil) = (None, None);
    }

    /// Takes in how far the secondary is, or says how the sites disagree.
    fn advance(&mut self, ack: &Ack, last: Sequence) -> Result<(), Divergence> {
        if ack.durable < self.acked {
            // An older acknowledgement of another path says nothing new.
            return Ok(());
        }
        if ack.durable > last {
            return Err(Divergence::Ahead { ours: last, theirs: ack.durable });
        }
        let chain = if ack.durable == self.acked {
            Some(self.acked_chain)
        } else {
            let at = self.unacked.partition_point(|record| record.sequence < ack.durable);
            self.unacked.get(at).filter(|record| record.sequence == ack.durable).map(|record| record.chain)
        };
        if chain != Some(ack.chain) {
            return Err(Divergence::Chain(ack.durable));
        }
        self.acked = ack.durable;
        self.acked_chain = ack.chain;
        while self.unacked.front().is_some_and(|record| record.sequence <= ack.durable) {
            if let Some(record) = self.unacked.pop_front() {
                self.unacked_bytes -= record.bytes.0;
                if record.sequence <= self.sent {
                    self.in_flight_bytes = self.in_flight_bytes.saturating_sub(record.bytes.0);
                }
            }
        }
        self.sent = self.sent.max(ack.durable);
        self.held.clone_from(&ack.ranges);
        self.forget_given_up();
        Ok(())
    }

    fn holds(&self, sequence: Sequence) -> bool {
        self.held.iter().any(|range| range.first <= sequence && sequence <= range.last)
    }

    /// The next run of records to send and its bytes, at most a quarter of a frame and one record.
    fn next_run(&mut self, through: Sequence) -> Option<(Range, ByteLen, Slots)> {
        let mut run: Option<Range> = None;
        let (mut bytes, mut records) = (0, 0);
        let from = self.unacked.partition_point(|record| record.sequence <= self.sent);
        // Not from the mark: after a gap the numbers between were given up.
        let base = self.unacked.front().map_or(self.acked, |record| record.sequence.previous());
        for record in self.unacked.iter().skip(from) {
            let veiled = self.veil.is_some_and(|veil| veil.key == record.sequence);
            // A veiled key is told of with what stands behind it.
            let fits = record.sequence <= through
                && !(veiled && record.sequence == through)
                && bytes < u64::from(crate::limits::FRAME_BYTES_MAX) / 4
                && self.in_flight_bytes < WINDOW_BYTES_MAX.0
                && record.sequence.since(base) < WINDOW_RECORDS_MAX;
            if !fits || (run.is_some() && (veiled || self.holds(record.sequence))) {
                break;
            }
            self.sent = record.sequence;
            // What the secondary holds above its mark fills the window too, so that an acknowledgement takes out what was put in.
            self.in_flight_bytes += record.bytes.0;
            if veiled || self.holds(record.sequence) {
                continue;
            }
            bytes += record.bytes.0;
            records += 1;
            match &mut run {
                Some(range) => range.last = record.sequence,
                None => run = Some(Range { first: record.sequence, last: record.sequence }),
            }
        }
        self.reached = self.reached.max(self.sent);
        let run = run?;
        let slots = self.fill_slots(run, records);
        Some((run, ByteLen(bytes), slots))
    }

    /// One that is up.
    pub(super) fn any_path(&self) -> Option<Path> {
        self.paths.first().copied()
    }

    pub(super) fn close(&mut self) -> BTreeSet<Path> {
        std::mem::take(&mut self.paths)
    }

    /// In order, the same path for as long as it lives; else each in its turn.
    fn pick_path(&mut self, transfer: Kinds) -> Option<Path> {
        let path = match transfer {
            Kinds::Ordered => self.current().or_else(|| self.paths.first().copied())?,
            Kinds::Scheduled => {
                let path = self.paths.iter().nth(self.next_path.checked_rem(self.paths.len())?).copied()?;
                self.next_path = self.next_path.wrapping_add(1);
                path
            }
        };
        self.current = Some(path);
        self.carrying.insert(path);
        Some(path)
    }
}

impl Primary {
    pub(super) fn on_welcomed(&mut self, now: Now, path: Path, welcome: &Welcome) {
        if self.transfer.diverged.is_some() || path.0 >= self.flow.way().paths {
            self.outputs.push_back(Output::ClosePath { path });
            return;
        }
        if welcome.generation > self.settings.generation {
            return self.on_newer_generation(now, welcome.generation);
        }
        if self.lacks_seed(now, path, welcome) {
            return;
        }
        // A mark below the one that is known now is only old; below what was known when the path asked, it is a loss.
        let ours = self.transfer.attaching.remove(&path).unwrap_or(Sequence::NONE);
        if welcome.ack.durable < ours {
            let theirs = welcome.ack.durable;
            return self.diverge(now, Divergence::RolledBack { ours, theirs });
        }
        if let Err(divergence) = self.follow(&welcome.ack) {
            return self.diverge(now, divergence);
        }
        self.transfer.path_up(path);
        self.note_seed_arrived();
        self.note_acknowledged(now);
        self.note_full(now, welcome.ack.full);
    }

    pub(super) fn on_acked(&mut self, now: Now, path: Path, ack: &Ack) {
        if !self.transfer.paths.contains(&path) {
            return;
        }
        if let Err(divergence) = self.follow(ack) {
            return self.diverge(now, divergence);
        }
        self.note_acknowledged(now);
        self.note_full(now, ack.full);
    }

    /// Takes in where the secondary is, by what is under way or by what was given up.
    fn follow(&mut self, ack: &Ack) -> Result<(), Divergence> {
        if self.joins_elsewhere(ack) {
            self.transfer.adopt(ack)?;
            self.rebase();
            return Ok(());
        }
        self.transfer.advance(ack, self.synced)
    }

    fn note_full(&mut self, now: Now, full: bool) {
        if full && !self.transfer.full {
            self.alarm(now, Alarm::SecondaryFull);
        }
        self.transfer.full = full;
    }

    fn note_acknowledged(&mut self, now: Now) {
        let acked = self.transfer.acked;
        self.rotation.acknowledged(acked);
        self.group.acknowledged(acked);
        self.voided = self.voided.split_off(&acked.next());
        let (cleared, ended) = self.copying.acknowledged(acked);
        self.flow.copied(now, cleared);
        if ended {
            self.transfer.know_again();
            self.outputs.push_back(Output::DropOwed);
        }
    }

    /// The other site writes now. What is here is kept; nothing is added to it, and no FLUSH is answered well: what it
    /// would cover is not what initiators will find at the other site.
    pub(super) fn fence(&mut self, now: Now, generation: Generation) {
        if self.fenced.is_none() {
            self.fenced = Some(generation);
            self.outputs.push_back(Output::PersistFence { generation });
            self.diverge(now, Divergence::Fenced(generation));
        }
    }

    fn diverge(&mut self, now: Now, divergence: Divergence) {
        self.transfer.diverged = Some(divergence);
        self.alarm(now, Alarm::Diverged(divergence));
        for path in std::mem::take(&mut self.transfer.paths) {
            self.outputs.push_back(Output::ClosePath { path });
        }
    }

    /// Sends what is durable, inside the window and the throttle, unless the operator paused or the order says that it is not for sending.
    pub(super) fn run_transfer(&mut self, now: Now) {
        if !self.settings.paired {
            // Nobody else has to hold a key before it seals.
            self.rotation.acknowledged(self.synced);
            self.transfer.acked = self.synced;
            self.transfer.sent = self.synced;
            return;
        }
        if !self.copying.sends() || self.transfer.full {
            return;
        }
        let through = self.pause.and_then(|pause| pause.cut).map_or(self.synced, |cut| cut.min(self.synced));
        if let Some(cut) = self.pause.and_then(|pause| pause.cut) {
            self.transfer.unveil(cut);
        }
        while !self.transfer.paths.is_empty() && self.flow.may_send(now) {
            let Some((range, bytes, slots)) = self.transfer.next_run(through) else {
                return;
            };
            let Some(path) = self.transfer.pick_path(self.flow.way().transfer) else {
                return;
            };
            self.flow.sends(bytes);
            self.outputs.push_back(Output::Send { path, range, slots });
        }
    }
}
