//! The replica's part in retiring keys: which blocks need them, whether they may go by this site's own index, and the log without their records.
//!
//! Nothing that the writing site says of live blocks is believed: the index is looked through, a page between two events, and
//! the rule of [`farseal_core::retire`] has the word. Then, in this order, so that no crash leaves records without
//! what a restart needs of them: the checkpoint is beyond the keys, the floor is durable, the packages go, and what the
//! log still holds of key records goes with the segments that hold them.

use std::collections::BTreeSet;

use farseal_core::compaction::Room;
use farseal_core::drill::LIVE_SCAN_BLOCKS;
use farseal_core::record::Kind;
use farseal_core::refresh::{AskOld, Old, Page};
use farseal_core::retire::{Answer as Said, AskRetire, Holding, Order, OrderRefused, Proof, Refusal, Verdict};
use farseal_core::secondary::Input;
use farseal_core::units::{BlockCount, Epoch, Extent, Lba, Path, Sequence};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::{Event, Runner};
use crate::keys::wire::to_hex;
use crate::link::listen::Answer;
use crate::retired::{Destroyed, Retired, Retiring, Signed};
use crate::role::keeps_branches;
use crate::store::log::{Location, LogReader, ReadError};

/// Segments that are written anew in one pass: 1 GiB.
const REWRITTEN_AT_ONCE: usize = 8;

/// Plain segments that hold key records which are to go.
#[derive(Debug)]
pub struct Holders(Result<BTreeSet<u32>, ReadError>);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Retire {
    pub retired: Retired,
    scan: Option<Scan>,
    sweep: Sweep,
}

/// A look through the index for the oldest epoch that live blocks need. They only grow fewer meanwhile: what comes is of
/// epochs that stay.
#[derive(Debug)]
struct Scan {
    through: Epoch,
    next: Lba,
    oldest: Option<(Epoch, BlockCount)>,
}

/// Of the log.
#[derive(Debug, Default)]
enum Sweep {
    #[default]
    None,
    /// A thread looks for segments that hold keys.
    Looking,
    /// These are to be written anew.
    Rewriting(BTreeSet<u32>),
    Failed(Refusal),
}

impl Runner {
    /// A page of the blocks that need keys which are to go.
    pub(super) fn show_old(&mut self, path: Path, ask: AskOld, permit: OwnedSemaphorePermit) {
        let (Some(answers), Some(index)) = (self.paths.get(&path), &self.index) else {
            return self.give(Input::Nonsense { path });
        };
        let old = if self.backlog.is_reading() {
            Old::not_now(&ask)
        } else {
            let mut page = Page::new(&ask);
            let places = Extent::new(ask.from, ask.blocks(self.settings.blocks)).map(|extent| index.places(extent));
            for (blocks, place) in places.unwrap_or_default() {
                if !page.take(blocks, place.map(|place| place.sequence), self.secondary.ledger()) {
                    break;
                }
            }
            page.end(&ask, self.backlog.indexed())
        };
        let _ = answers.send(Answer::Held { id: ask.id, answer: old.encode(), permit });
    }

    /// An order to retire, which comes again until it is carried out.
    pub(super) fn retire(&mut self, path: Path, ask: &AskRetire, permit: OwnedSemaphorePermit) {
        let Some(answers) = self.paths.get(&path).cloned() else { return self.give(Input::Nonsense { path }) };
        let said = self.obey(ask).unwrap_or_else(|refusal| {
            tracing::warn!(pair = self.name, "an order to retire keys is refused: {refusal}");
            Said::Refused(refusal)
        });
        let _ = answers.send(Answer::Held { id: ask.id, answer: said.encode(), permit });
    }

    fn obey(&mut self, ask: &AskRetire) -> Result<Said, Refusal> {
        self.keyring.signer().signing.verify(&ask.order, &ask.signature).map_err(|_| Refusal::Forged)?;
        let order = Order::decode(&ask.order).ok_or(Refusal::NoOrder)?;
        // Whatever else is against it is said before the index is looked through.
        if let Verdict::Again(_) = self.holding(None).judge(&order)? {
            return self.swept(&order, ask);
        }
        let scanned = self.retire.scan.as_ref().filter(|scan| scan.through == order.through);
        match scanned {
            Some(scan) if scan.next.0 >= self.settings.blocks.0 => {
                let oldest = scan.oldest;
                self.retire.scan = None;
                if let Verdict::Raise(_) = self.holding(oldest).judge(&order)?
                    && self.points_let_go(&order)?
                {
                    self.raise(&order, ask)?;
                }
            }
            Some(_) => {}
            None => self.retire.scan = Some(Scan { through: order.through, next: Lba(0), oldest: None }),
        }
        Ok(Said::UnderWay)
    }

    fn holding(&self, oldest_live: Option<(Epoch, BlockCount)>) -> Holding<'_> {
        Holding {
            pair: self.settings.pair,
            generation: self.control.generation,
            floor: self.retire.retired.destroyed.floor,
            ledger: self.secondary.ledger(),
            indexed: self.backlog.indexed(),
            offered: self.secondary.fork().0,
            oldest_live,
            own_history: self.secondary.base_differs() || keeps_branches(&self.pair_directory),
            taken_over: self.control.taken_over_at.is_some(),
        }
    }

    /// Earlier points may need the keys, too. Pins have the word; the window begins anew, and is waited for.
    fn points_let_go(&mut self, order: &Order) -> Result<bool, Refusal> {
        let needs = self.pinned_needs();
        if let Some((point, epoch)) = needs.into_iter().find(|(_, epoch)| *epoch <= order.through) {
            return Err(OrderRefused::Pinned { point, epoch }.into());
        }
        let needed = self.window_needs().is_some_and(|epoch| epoch <= order.through);
        Ok(!needed || self.window_begins_now())
    }

    /// From here on these keys are gone, whatever crashes.
    fn raise(&mut self, order: &Order, ask: &AskRetire) -> Result<(), Refusal> {
        if !self.checkpoint() {
            return Err(Refusal::Store);
        }
        let at = self.secondary.durable().0;
        self.remember(order, ask, None, at)?;
        let destroyed = self.retire.retired.destroyed;
        tracing::warn!(pair = self.name, through = %order.through, "keys are destroyed, by the writing site's order");
        self.keyring.destroy(destroyed).map_err(|error| self.failed("remove the keys", &error))?;
        self.sweep();
        Ok(())
    }

    /// The proof, once no record is left that carries what was to go.
    fn swept(&mut self, order: &Order, ask: &AskRetire) -> Result<Said, Refusal> {
        let floor = self.retire.retired.destroyed.floor;
        if self.retire.retired.swept < floor {
            if let Sweep::Failed(refusal) = self.retire.sweep {
                self.retire.sweep = Sweep::None;
                return Err(refusal);
            }
            self.sweep();
            if let Sweep::Rewriting(segments) = &self.retire.sweep {
                // What the window holds is not written anew.
                let before = self.compacts_before().segment;
                if segments.last().is_none_or(|last| *last < before) || self.window_begins_now() {
                    self.compact(Room::Enough);
                }
            }
            return Ok(Said::UnderWay);
        }
        // What a crash, or a failing disk, left of them.
        self.keyring.destroy(self.retire.retired.destroyed).map_err(|error| self.failed("remove the keys", &error))?;
        let proof = Proof { order: Sha256::digest(ask.order).into(), floor };
        let message = proof.encode();
        let signature = self.keyring.sign(&message);
        let signed = Signed { message: to_hex(&message), signature: to_hex(&signature) };
        self.remember(order, ask, Some(signed), self.retire.retired.destroyed.at)?;
        Ok(Said::Destroyed { proof, signature })
    }

    fn remember(&mut self, order: &Order, ask: &AskRetire, proof: Option<Signed>, at: Sequence) -> Result<(), Refusal> {
        let mut retired = self.retire.retired.clone();
        let when = self.clock.now().wall;
        let order_signed = Signed { message: to_hex(&ask.order), signature: to_hex(&ask.signature) };
        retired.add(Retiring { through: order.through, when, order: order_signed, proof, deposits: 0 }, at);
        retired.save(&self.pair_directory).map_err(|error| self.failed("keep the floor of the keys", &error))?;
        self.retire.retired = retired;
        Ok(())
    }

    fn failed(&self, doing: &str, error: &dyn std::error::Error) -> Refusal {
        tracing::error!(pair = self.name, %error, "could not {doing}");
        Refusal::Store
    }

    /// Is there a page of the index to look through?
    pub(super) fn scans(&self) -> bool {
        self.index.is_some() && self.retire.scan.as_ref().is_some_and(|scan| scan.next.0 < self.settings.blocks.0)
    }

    /// One page.
    pub(super) fn scan_on(&mut self) {
        let (Some(scan), Some(index)) = (&mut self.retire.scan, &self.index) else { return };
        let left = self.settings.blocks.0.saturating_sub(scan.next.0).min(LIVE_SCAN_BLOCKS);
        let places = Extent::new(scan.next, BlockCount(left)).map(|extent| index.places(extent)).unwrap_or_default();
        for (blocks, place) in places {
            let Some(place) = place else { continue };
            let epoch = self.secondary.ledger().epoch_at(place.sequence);
            match &mut scan.oldest {
                Some((oldest, count)) if *oldest == epoch => count.0 += blocks.0,
                Some((oldest, _)) if *oldest < epoch => {}
                oldest => *oldest = Some((epoch, blocks)),
            }
        }
        scan.next.0 += left;
    }

    /// Looks for the segments whose key records are to go, if they were not looked for: also after a restart.
    pub(super) fn sweep(&mut self) {
        let (retired, sweep) = (&self.retire.retired, &self.retire.sweep);
        if retired.swept >= retired.destroyed.floor || !matches!(sweep, Sweep::None) || self.index.is_none() {
            return;
        }
        // So that the newest segment is one that no record is added to, and the index on disk knows all of it.
        let rolled = self.log.begin_segment().and_then(|()| self.log.syncer().sync().map(drop));
        if let Err(error) = rolled {
            return self.log_failed("begin a segment of the log", &error);
        }
        if !self.checkpoint() {
            return;
        }
        let Destroyed { floor, at } = self.retire.retired.destroyed;
        let stays = self.secondary.ledger().entries().find(|entry| floor.takes(entry.epoch).is_ok());
        let before = stays.map_or(at.next(), |entry| entry.key);
        let (reader, end, inbox) = (self.log.reader(), self.log.end(), self.compaction.inbox());
        let look = move || drop(inbox.send(Event::KeyHolders(Holders(key_holders(&reader, end, before)))));
        match std::thread::Builder::new().name(format!("sweep-{}", self.name)).spawn(look) {
            Ok(_) => self.retire.sweep = Sweep::Looking,
            Err(error) => tracing::error!(pair = self.name, %error, "the log could not be searched for keys"),
        }
    }

    pub(super) fn key_holders(&mut self, found: Holders) {
        match found.0 {
            Ok(segments) if segments.is_empty() => {
                self.retire.sweep = Sweep::None;
                self.retire.retired.swept = self.retire.retired.destroyed.floor;
                match self.retire.retired.save(&self.pair_directory) {
                    Ok(()) => tracing::info!(pair = self.name, "no key that was retired is left in the log"),
                    Err(error) => _ = self.failed("keep how far the log is without keys", &error),
                }
            }
            Ok(segments) => {
                self.retire.sweep = Sweep::Rewriting(segments);
                self.compact(Room::Enough);
            }
            Err(error) => {
                tracing::error!(pair = self.name, %error, "the log could not be searched for keys");
                self.retire.sweep = Sweep::Failed(Refusal::Store);
            }
        }
    }

    /// A pass is over: is anything left? What is not in the index yet is looked for when the order comes again.
    pub(super) fn swept_on(&mut self) {
        if matches!(self.retire.sweep, Sweep::Rewriting(_)) {
            self.retire.sweep = Sweep::None;
            self.sweep();
        }
    }
}

impl Retire {
    /// After a restart.
    pub(super) fn of(retired: Retired) -> Self {
        Self { retired, ..Self::default() }
    }

    /// Of these segments, those that must be written anew for the keys that they hold, some at a time: what is written beside the old ones takes
    /// room until they go.
    pub(super) fn must_go(&mut self, full: &[u32], spoiled: &[u32]) -> Vec<u32> {
        let Sweep::Rewriting(segments) = &self.sweep else { return Vec::new() };
        if let Some(segment) = segments.iter().find(|segment| spoiled.contains(segment)) {
            self.sweep = Sweep::Failed(Refusal::Damaged { segment: *segment });
            return Vec::new();
        }
        segments.iter().copied().filter(|segment| full.contains(segment)).take(REWRITTEN_AT_ONCE).collect()
    }
}

/// The plain segments before `end` that hold a key record, or a cover, with a number below `before`. Compacted ones hold none.
fn key_holders(reader: &LogReader, end: Location, before: Sequence) -> Result<BTreeSet<u32>, ReadError> {
    let (mut walk, mut found) = (reader.walk(Location::START), BTreeSet::new());
    while let Some((header, location)) = walk.record()? {
        if location.segment >= end.segment {
            break;
        }
        if matches!(header.kind, Kind::Key | Kind::Cover) && header.sequence < before {
            found.insert(location.segment);
        }
    }
    Ok(found)
}
