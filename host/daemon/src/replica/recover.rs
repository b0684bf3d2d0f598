//! What a replica's start makes of its folder: the state of the order as a checkpoint kept it, and the log from there on.
//!
//! The log shows its records one by one. Those that were offered go to the index at once, the others to the backlog; only
//! those that the order has not reached, which come between two checkpoints, are collected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use farseal_core::chain::{Chain, Digest};
use farseal_core::group::{KeptCuts, OfferLimit};
use farseal_core::ledger::Ledger;
use farseal_core::points::Hole;
use farseal_core::record::Header;
use farseal_core::secondary::{Recovered, Secondary, Settings};
use farseal_core::units::{CutNumber, Sequence};
use serde::{Deserialize, Serialize};

use super::backlog::{Backlog, Limits};
use super::points::{self, Beside};
use super::retire::Retire;
use super::{Amount, Event, Parts, Runner, StartError, compact, inspect, keys, start_syncer};
use crate::store::files;
use crate::store::index::Index;
use crate::store::log::{Location, Log, Logged, Order};

/// What the index's checkpoint says of the order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub contiguous: Sequence,
    pub chain: Chain,
    /// Everything up to here is in the index.
    pub indexed: Sequence,
    /// Everything up to here may be: it is never offered less afterwards.
    #[serde(default)]
    pub offered: Sequence,
    pub ledger: Ledger,
    pub gap_open_after: Option<Sequence>,
    /// How far the group let it be offered.
    #[serde(default)]
    pub group_through: Sequence,
    #[serde(default)]
    pub group_cut: CutNumber,
    #[serde(default)]
    pub group_cuts: KeptCuts,
    /// The running hash there.
    #[serde(default)]
    pub gap_chain: Option<Chain>,
    /// Where the copy was no state of the volume.
    #[serde(default)]
    pub holes: Vec<Hole>,
    /// Every record that is not in the index lies here or later; packed.
    pub scan_from: u64,
}

/// What the log shows, and where it goes.
pub(super) struct Found<'a> {
    checkpoint: &'a Checkpoint,
    /// The index was empty: it gets everything.
    anew: bool,
    /// What a takeover did not open does not count.
    last: Sequence,
    index: &'a mut Index,
    pub backlog: Backlog,
    keys: keys::Unchecked,
    /// Above the checkpoint's contiguous mark.
    above: Vec<(Header, Digest)>,
}

impl Checkpoint {
    /// Before the first record.
    pub(super) fn of(begin: &Recovered) -> Self {
        Self {
            contiguous: begin.contiguous,
            chain: begin.chain,
            indexed: begin.contiguous,
            offered: begin.contiguous,
            ledger: Ledger::default(),
            group_through: Sequence::NONE,
            group_cut: CutNumber::NONE,
            group_cuts: KeptCuts::default(),
            gap_open_after: begin.gap_open_after,
            gap_chain: Some(begin.gap_chain),
            holes: Vec::new(),
            scan_from: Location::START.pack(),
        }
    }

    /// Without an index's checkpoint: as the log's manifest has it, if records are gone, else from the beginning.
    fn anew(directory: &Path, settings: Settings, begin: &Recovered) -> Result<Self, StartError> {
        let log = directory.join("log");
        let state = match Log::order(&log, settings.pair)? {
            Order::Whole => return Ok(Self::of(begin)),
            Order::Since(state) => state,
        };
        state.and_then(|state| serde_json::from_slice(&state).ok()).ok_or(StartError::NoState(log))
    }

    /// Checkpoints of an earlier version say only what the index has.
    pub(super) fn offered(&self) -> Sequence {
        self.offered.max(self.indexed)
    }
}

impl<'a> Found<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        anew: bool,
        last: Sequence,
        limits: Limits,
        index: &'a mut Index,
    ) -> Self {
        let (backlog, keys) = (Backlog::new(limits, checkpoint.offered()), keys::Unchecked::default());
        Self { checkpoint, anew, last, index, backlog, keys, above: Vec::new() }
    }

    pub(super) fn take(&mut self, logged: &Logged) {
        let Logged { header, digest, location, .. } = logged;
        let (sequence, checkpoint) = (header.sequence, self.checkpoint);
        if sequence > self.last {
            return;
        }
        if sequence > checkpoint.contiguous {
            self.above.push((*header, *digest));
            self.keys.found(header, *location);
        }
        if sequence > checkpoint.offered() {
            self.backlog.add(header, *location);
        } else if self.anew || sequence > checkpoint.indexed {
            self.index.apply(header, *location);
        }
    }
}

impl Runner {
    pub(super) fn recover(parts: Parts, inbox: Sender<Event>) -> Result<Self, StartError> {
        let directory = parts.directory;
        files::create_private_dir(&directory)?;
        let control = parts.control;
        let settings = parts.settings;
        let from_base = control.keeps.as_ref().map(|keeps| Recovered::keeper_of(&control.history(), keeps.differs));
        let begin = from_base.unwrap_or_else(Recovered::fresh);
        let (mut index, blob) = open_index(&directory, &parts.name, settings)?;
        let known = blob.and_then(|blob| serde_json::from_slice::<Checkpoint>(&blob).ok());
        let anew = known.is_none();
        let checkpoint = known.map_or_else(|| Checkpoint::anew(&directory, settings, &begin), Ok)?;
        let from = if anew { Location::START } else { Location::unpack(checkpoint.scan_from) };
        let last = control.taken_over_at.unwrap_or(Sequence(u64::MAX));
        let mut found = Found::new(&checkpoint, anew, last, Limits::standard(), &mut index);
        let log = Log::open(&directory.join("log"), settings.pair, from, &mut |logged| found.take(&logged))?;
        let Found { backlog, keys, above, .. } = found;
        if anew {
            compact::index_again(&log, checkpoint.offered(), &mut index)?;
        } else {
            compact::finish(&log, &mut index)?;
        }
        // What a takeover opened is opened again, and no more.
        let (limit, group_through) = match (control.taken_over_at, parts.grouped) {
            (Some(at), _) => (OfferLimit::Cut(checkpoint.group_cut), at),
            (None, true) => (OfferLimit::Cut(checkpoint.group_cut), checkpoint.group_through),
            (None, false) => (OfferLimit::Everything, checkpoint.group_through),
        };
        let recovered = Recovered {
            generation: control.generation,
            taken_over: control.taken_over_at.is_some(),
            contiguous: checkpoint.contiguous,
            chain: checkpoint.chain,
            above,
            offered: Some(checkpoint.offered()),
            ledger: checkpoint.ledger,
            gap_open_after: checkpoint.gap_open_after,
            limit,
            group_through,
            group_cut: checkpoint.group_cut,
            cuts: checkpoint.group_cuts,
            gap_chain: checkpoint.gap_chain.unwrap_or(begin.gap_chain),
            differs_after: begin.differs_after,
            holes: checkpoint.holes,
        };
        let mut beside = Beside::open(&directory, parts.terms, control.opened_at, &log, &index)?;
        points::finish(&log, &mut beside)?;
        let syncer = start_syncer(&log, inbox.clone());
        let compaction = compact::Compaction::new(inbox.clone());
        let retire = Retire::of(parts.retired);
        let inspector = inspect::start(log.reader(), parts.base, settings.block_bytes);
        let keyring = Arc::clone(&parts.keyring);
        let checker = keys::start_checker(parts.name.clone(), log.reader(), keyring, Arc::clone(&parts.plugins), inbox);
        Ok(Self {
            name: parts.name,
            pair_directory: parts.pair_directory,
            directory,
            settings,
            keyring: parts.keyring,
            plugins: parts.plugins,
            secondary: Secondary::new(parts.clock.now(), settings, recovered),
            clock: parts.clock,
            control,
            log,
            index: Some(index),
            backlog,
            read_again_at: None,
            keys,
            since_checkpoint: Amount::default(),
            in_turn: Amount::default(),
            kept: from,
            compaction,
            beside,
            opening: None,
            retire,
            waits: None,
            paths: BTreeMap::new(),
            slots: super::slots::Slots::default(),
            stores: 0,
            syncer,
            checker,
            inspector,
            cuts: parts.cuts,
            cuts_told: None,
            taken_over: Some(parts.taken_over),
            grouped: parts.grouped,
            with_escrow: parts.with_escrow,
            word: parts.word,
            words: Vec::new(),
        })
    }
}

/// A damaged index is built again from the log.
fn open_index(directory: &Path, name: &str, settings: Settings) -> Result<(Index, Option<Vec<u8>>), StartError> {
    let place = directory.join("index");
    match Index::open(&place, settings.blocks) {
        Ok(opened) => Ok(opened),
        Err(error) if error.rebuild() => {
            tracing::warn!(pair = name, %error, "the index is built again from the log");
            Ok((Index::anew(&place, settings.blocks)?, None))
        }
        Err(error) => Err(error.into()),
    }
}
