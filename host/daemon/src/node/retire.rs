//! Retiring keys: the copy's blocks that need them are sent again under the key in force, then every site destroys them, and says so under its signature.
//!
//! Whoever asks does so step by step: each step looks, or waits, or carries one thing out, and may be the last that is asked for.
//! Nothing is destroyed before the keeper has said that by its own index nothing needs it, and then in this
//! order: at the keeper, at the escrow site, here.

use std::sync::Arc;

use farseal_core::owed::OwedMap;
use farseal_core::primary::CopyState;
use farseal_core::refresh::{AskOld, Old};
use farseal_core::retire::{Answer, AskRetire, Floor, Order, Proof, Refusal, Wish};
use farseal_core::units::{BlockCount, ByteLen, Epoch, Extent, Lba, Sequence};
use sha2::{Digest as _, Sha256};

use super::pair::{PairNode, Side};
use super::question::{Asker, NoAnswer, random};
use crate::control::api::{Retire, RetireReport, RetireStep, RetiringReport, Role};
use crate::control::operator::CommandError;
use crate::escrow::client::{ASKED_IN_A_CELL, EscrowLine};
use crate::escrow::wire::{FromEscrow, ToEscrow};
use crate::keys::card::PeerCard;
use crate::keys::wire::{from_hex, to_hex};
use crate::lane::{Event as LaneEvent, Lane};
use crate::link::dial::Send;
use crate::retired::{Destroyed, Retired, RetiredError, Retiring, Signed};
use crate::role::keeps_branches;
use crate::store::StoreError;
use crate::store::journal::Begins;

/// What is sent again at once: the copy offers nothing newer until all of it is there, and each time begins with a new key.
const AGAIN_BYTES: ByteLen = ByteLen(1 << 30);
/// Pages that one step looks at: 64 GiB of blocks of 4 KiB.
const PAGES_MAX: usize = 64;

/// Why a step comes to nothing.
#[derive(Debug, thiserror::Error)]
enum RetireError {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("the remote's answer is refused: it is none, or of another version of farseal")]
    Nonsense,
    #[error("the remote's proof is refused: {0}")]
    NoProof(&'static str),
    #[error("the remote destroys nothing: {0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Retired(#[from] RetiredError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the lane has stopped")]
    LaneGone,
}

/// One step.
struct Stepper {
    asker: Asker,
    wanted: Retire,
    through: Epoch,
    retired: Retired,
    directory: std::path::PathBuf,
    peer: PeerCard,
    escrow: Option<Arc<EscrowLine>>,
    now: farseal_core::units::WallTime,
}

/// What is signed, and by which card it was.
struct Proven {
    order: Signed,
    proof: Signed,
}

impl PairNode {
    pub(super) async fn retire(&self, wanted: Retire) -> Result<RetireReport, CommandError> {
        let Some(lane) = self.writer() else { return Err(self.other_side("key retire", Role::Primary)) };
        let directory = self.makings.directory();
        let failed = |error: &dyn std::error::Error| CommandError::Failed { reason: error.to_string(), next: None };
        let retired = Retired::load(&directory).map_err(|error| failed(&error))?;
        let through = self.last_to_go(&lane, &wanted, retired.destroyed.floor).await?;
        let Retire { from: next, clean, dry_run, .. } = wanted;
        let volume = lane.settings.blocks.0;
        let report = |step| RetireReport { through, step, blocks: 0, next, clean, volume };
        let status = self.look().await?.status;
        if status.link_paths == 0 || status.diverged.is_some() {
            return Err(self.unanswered(&NoAnswer::NoLink));
        }
        if status.copy != CopyState::InOrder && !dry_run {
            return Ok(report(RetireStep::CatchingUp));
        }
        let (answers, peer) = (Arc::clone(&self.makings.answers), self.peer.clone());
        let (escrow, now) = (self.makings.escrow_line(), self.shared.clock.now().wall);
        let stepped = tokio::task::spawn_blocking(move || {
            let asker = Asker::new(Arc::clone(&lane), answers);
            let stepper = Stepper { asker, wanted, through, retired, directory, peer, escrow, now };
            let done = stepper.step()?;
            if let RetireStep::Destroyed { .. } = done.step {
                lane.keybook.destroyed(Epoch(through.0.saturating_add(1)), now);
            }
            Ok(done)
        });
        match stepped.await.map_err(|error| failed(&error))? {
            Ok(report) => Ok(report),
            Err(error @ RetireError::NoAnswer(NoAnswer::NoLink)) => Err(self.unanswered(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The last epoch that the operator may have destroyed, if this site is one that can.
    async fn last_to_go(&self, lane: &Lane, wanted: &Retire, floor: Floor) -> Result<Epoch, CommandError> {
        let name = &self.config.name;
        let refused = |reason: String, next: Option<String>| Err(CommandError::Refused { reason, next });
        if !self.config.encrypted {
            return refused(format!("pair {name} is not encrypted: there are no keys"), None);
        }
        self.must_not_be_verified("key retire")?;
        if let Side::Secondary { .. } = self.side() {
            let reason = "this site's volume lies over the copy that it took over, which needs its keys".into();
            return refused(reason, Some("have the other site write again: `farseal swap`".into()));
        }
        if keeps_branches(&self.makings.directory()) {
            let next = Some(format!("`farseal branches {name}`: delete what is not needed any more"));
            return refused("a branch is kept here, and needs its keys".into(), next);
        }
        let view = self.look().await?;
        if view.seed.is_some() {
            return refused("the first copy travels on a disk, with its keys".into(), None);
        }
        let in_force = view.status.key.map(|key| key.epoch);
        let wish = match (wanted.through, wanted.older_than) {
            (Some(through), _) => Wish::Through(through),
            (None, None) => Wish::BeforeInForce,
            (None, Some(age)) => {
                let now = self.shared.clock.now().wall;
                let gone_by = |entry: &&crate::lane::keybook::Entry| {
                    entry.retired.is_some_and(|retired| now.since(retired) >= age) && Some(entry.epoch) < in_force
                };
                let entries = lane.keybook.entries(&view.keys);
                let Some(newest) = entries.iter().filter(gone_by).map(|entry| entry.epoch).max() else {
                    return refused("no epoch has been over for so long".into(), None);
                };
                Wish::Through(newest)
            }
        };
        wish.last(in_force, floor).map_err(|why| {
            let next = Some(format!("`farseal key history {name}` lists the epochs"));
            CommandError::Refused { reason: why.to_string(), next }
        })
    }

    /// What was retired here, with whether what was signed for it still says so.
    pub(super) fn retirings(&self) -> Result<Vec<RetiringReport>, RetiredError> {
        let retired = Retired::load(&self.makings.directory())?;
        let own = self.shared.identity.card();
        let report = |retiring: &Retiring| RetiringReport {
            through: retiring.through,
            when: retiring.when,
            order: digest_of(&retiring.order).map(|digest| to_hex(&digest)).unwrap_or_default(),
            proof: retiring.proof.as_ref().map(|proof| {
                let proven = Proven { order: retiring.order.clone(), proof: proof.clone() };
                proven.holds(own, &self.peer, retiring.through) || proven.holds(&self.peer, own, retiring.through)
            }),
            deposits: retiring.deposits,
        };
        Ok(retired.retirings.iter().map(report).collect())
    }
}

impl Stepper {
    fn step(self) -> Result<RetireReport, RetireError> {
        let volume = self.lane().settings.blocks;
        let mut report = RetireReport {
            through: self.through,
            step: RetireStep::Looked,
            blocks: 0,
            next: self.wanted.from,
            clean: self.wanted.clean || self.wanted.from == 0,
            volume: volume.0,
        };
        let mut again = OwedMap::empty(volume, self.lane().settings.block_bytes);
        let mut seen = Sequence::NONE;
        for _ in 0..PAGES_MAX {
            let from = Lba(report.next);
            if from.0 >= volume.0 || again.owed().byte_len(self.lane().settings.block_bytes) >= AGAIN_BYTES {
                break;
            }
            let question = |id| AskOld { id, from, through: self.through };
            let answer = self.asker.ask(|id| Send::AskOld(question(id)))?;
            let old = Old::decode(&answer, &question(0), volume).ok_or(RetireError::Nonsense)?;
            if old.through == Sequence::NONE {
                return Ok(RetireReport { step: RetireStep::CatchingUp, ..report });
            }
            for (first, blocks) in old.runs {
                report.blocks += blocks.0;
                Extent::new(first, blocks).into_iter().for_each(|extent| again.mark(extent));
            }
            (report.next, seen) = (old.next.0, old.through);
        }
        report.clean &= report.blocks == 0;
        if self.wanted.dry_run {
            return Ok(report);
        }
        if report.blocks > 0 {
            self.send_again(again)?;
        } else if report.next >= volume.0 && report.clean {
            report.step = self.destroy(seen)?;
        }
        Ok(report)
    }

    fn lane(&self) -> &Lane {
        &self.asker.lane
    }

    fn tell<T>(&self, event: impl FnOnce(std::sync::mpsc::Sender<T>) -> LaneEvent) -> Result<T, RetireError> {
        self.lane().ask(event).ok_or(RetireError::LaneGone)
    }

    fn send_again(&self, map: OwedMap) -> Result<(), RetireError> {
        self.tell(|done| LaneEvent::OweAgain { map, done: Box::new(move || _ = done.send(())) })
    }

    /// Nothing of the copy needs these keys any more; `at`: by its index up to here.
    fn destroy(&self, at: Sequence) -> Result<RetireStep, RetireError> {
        let (lane, through) = (self.lane(), self.through);
        let stays = lane.keyring.ledger().entries().find(|entry| entry.epoch > through).map(|entry| entry.start);
        let Some(stays) = stays else { return Err(RetireError::Nonsense) };
        // This site's own journal is opened with its keys after a crash.
        let segments = self.tell(|done| LaneEvent::BeginSegment {
            first: stays,
            done: Box::new(move |segments| _ = done.send(segments)),
        })?;
        if let Some(Begins { oldest, newest }) = segments.filter(|begins| begins.oldest < stays) {
            if oldest == newest || newest < stays {
                // Nothing may come for long: one record more, so that the segment before it can go.
                let mut map = OwedMap::empty(lane.settings.blocks, lane.settings.block_bytes);
                Extent::new(Lba(0), BlockCount(1)).into_iter().for_each(|extent| map.mark(extent));
                self.send_again(map)?;
            }
            return Ok(RetireStep::Journal);
        }
        let Some(proven) = self.keeper_destroys(at)? else { return Ok(RetireStep::Remote) };
        let deposits = match self.escrow_destroys() {
            Ok(deposits) => deposits,
            Err(reason) => return Ok(RetireStep::Escrow { reason }),
        };
        let (order, proof, when) = (proven.order, Some(proven.proof), self.now);
        let mut retired = self.retired.clone();
        retired.add(Retiring { through, when, order, proof, deposits }, stays.previous());
        retired.swept = retired.destroyed.floor;
        retired.save(&self.directory)?;
        let Destroyed { floor, .. } = retired.destroyed;
        lane.keyring.destroy(retired.destroyed)?;
        tracing::warn!(pair = lane.settings.pair.to_string(), through = %floor.epoch(), "keys are destroyed at every site");
        Ok(RetireStep::Destroyed { deposits })
    }

    /// `None`: it is at it.
    fn keeper_destroys(&self, at: Sequence) -> Result<Option<Proven>, RetireError> {
        let settings = &self.lane().settings;
        let (pair, generation, through) = (settings.pair, settings.generation, self.through);
        let order = Order { pair, generation, through, at, nonce: random()? };
        let message = order.encode();
        let signature = self.lane().keyring.sign(&message);
        let ask = |id| Send::AskRetire(Box::new(AskRetire { id, order: message, signature }));
        let answer = Answer::decode(&self.asker.ask(ask)?).ok_or(RetireError::Nonsense)?;
        match answer {
            Answer::UnderWay => Ok(None),
            Answer::Refused(refusal) => Err(refusal.into()),
            Answer::Destroyed { proof, signature: proven_by } => {
                let proof_message = proof.encode();
                let (order, proof) = (signed(&message, &signature), signed(&proof_message, &proven_by));
                let proven = Proven { order, proof };
                if !proven.holds(self.lane().keyring.signer(), &self.peer, through) {
                    return Err(RetireError::NoProof("it is not signed by the remote, or is of another order"));
                }
                Ok(Some(proven))
            }
        }
    }

    /// How many deposits the escrow site says to have destroyed; or why it cannot be asked.
    fn escrow_destroys(&self) -> Result<u64, String> {
        let Some(line) = &self.escrow else { return Ok(0) };
        let packages = self.lane().keyring.kept();
        let gone = packages.iter().filter(|package| package.descriptor().terms.epoch <= self.through.0);
        let deposits: Vec<[u8; 32]> = gone.filter_map(|package| Some(package.receipt()?.deposit)).collect();
        let mut destroyed = 0;
        for part in deposits.chunks(ASKED_IN_A_CELL) {
            let orders = part.iter().map(|deposit| ToEscrow::Destroy { deposit: *deposit }).collect();
            let answers = tokio::runtime::Handle::current().block_on(line.ask_in_one(orders));
            for answer in answers.map_err(|error| error.to_string())? {
                let FromEscrow::Destroyed { deposit } = answer else { continue };
                destroyed += u64::from(part.contains(&deposit));
            }
        }
        Ok(destroyed)
    }
}

impl Proven {
    /// Is the order signed by this writer, and the proof of it by this keeper?
    fn holds(&self, writer: &PeerCard, keeper: &PeerCard, through: Epoch) -> bool {
        let checked = |signed: &Signed, card: &PeerCard| {
            let (message, signature) = (from_hex(&signed.message)?, from_hex(&signed.signature)?);
            card.signing.verify(&message, signature.as_slice().try_into().ok()?).ok()?;
            Some(message)
        };
        let (Some(order), Some(proof)) = (checked(&self.order, writer), checked(&self.proof, keeper)) else {
            return false;
        };
        let digest = Sha256::digest(&order).into();
        let found = Order::decode(&order).filter(|order| order.through == through).zip(Proof::decode(&proof));
        found.is_some_and(|(order, proof)| proof.answers(&order, &digest))
    }
}

fn signed(message: &[u8], signature: &[u8]) -> Signed {
    Signed { message: to_hex(message), signature: to_hex(signature) }
}

fn digest_of(order: &Signed) -> Option<[u8; 32]> {
    Some(Sha256::digest(from_hex(&order.message)?).into())
}
