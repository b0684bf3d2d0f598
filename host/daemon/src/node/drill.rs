//! A drill: for each epoch that the copy's live blocks need, the keeper proves that it opens one, without a byte of
//! plaintext on the link; and an escrow site that it opens the key, without showing it.

use std::collections::BTreeMap;
use std::sync::Arc;

use farseal_core::drill::{AskDrill, AskLive, Drilled, Live, LiveEpoch, Outcome};
use farseal_core::inspect::{Answer, Held, Inspect, Terms};
use farseal_core::units::{BlockCount, Epoch, Extent, Lba, Sequence};
use farseal_plugin::vault::schedule::EpochSchedule;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::pair::PairNode;
use super::question::{Asker, NoAnswer, random};
use crate::control::api::{DrillReport, DrilledEpoch, EscrowProof, Role};
use crate::control::operator::CommandError;
use crate::escrow::client::{ASKED_IN_A_CELL, EscrowLine};
use crate::escrow::wire::{FromEscrow, ToEscrow};
use crate::keyring::Unsealer;
use crate::keys::fingerprint::Fingerprint;
use crate::lane::Event as LaneEvent;
use crate::link::dial::Send;
use crate::plugins::PairPlugins;
use crate::replica::drill::proof;

/// How often a block is looked for again that initiators write meanwhile.
const TRIES: usize = 5;

impl PairNode {
    /// Blocks until every epoch was drilled.
    pub(super) async fn drill(&self) -> Result<DrillReport, CommandError> {
        let Some(lane) = self.writer() else { return Err(self.other_side("key drill", Role::Primary)) };
        self.must_not_be_verified("key drill")?;
        let (answers, plugins) = (Arc::clone(&self.makings.answers), Arc::clone(&self.plugins));
        let (escrow, keeper) = (self.makings.escrow_line(), self.peer.fingerprint());
        let drilled = tokio::task::spawn_blocking(move || {
            Driller { asker: Asker::new(lane, answers), plugins, escrow, keeper }.run()
        });
        let failed = |error: &dyn std::error::Error| CommandError::Failed { reason: error.to_string(), next: None };
        match drilled.await.map_err(|error| failed(&error))? {
            Ok(report) => Ok(report),
            Err(error @ (DrillError::NoAnswer(NoAnswer::NoLink) | DrillError::Busy)) => Err(self.unanswered(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// What live blocks need: how many of each epoch, and some of them.
type LiveEpochs = BTreeMap<Epoch, (BlockCount, Vec<Lba>)>;
/// A block opened with this site's keys, and the record that holds it; or why it is not.
type Own = Result<(Sequence, Zeroizing<Vec<u8>>), String>;

/// Why a drill comes to nothing.
#[derive(Debug, thiserror::Error)]
enum DrillError {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("the copy is catching up and no state of the volume: a drill would say nothing")]
    Busy,
    #[error("the remote's answer is refused: it is none")]
    Nonsense,
}

struct Driller {
    asker: Asker,
    plugins: Arc<PairPlugins>,
    escrow: Option<Arc<EscrowLine>>,
    /// The card of the copy's keeper.
    keeper: Fingerprint,
}

impl Driller {
    fn run(self) -> Result<DrillReport, DrillError> {
        let (through, epochs) = self.live()?;
        let proofs = self.escrow_proofs(epochs.keys().copied())?;
        let mut drilled = Vec::new();
        for (epoch, (blocks, samples)) in epochs {
            let escrow = proofs.get(&epoch).cloned();
            let asked = !escrow.as_ref().is_some_and(|proof| proof.alone);
            let trouble = if asked { self.prove(&samples)? } else { None };
            drilled.push(DrilledEpoch { epoch, blocks: blocks.0, trouble, escrow });
        }
        Ok(DrillReport { through, epochs: drilled })
    }

    /// What the escrow site proves of the epochs that it holds a deposit of.
    fn escrow_proofs(&self, epochs: impl Iterator<Item = Epoch>) -> Result<BTreeMap<Epoch, EscrowProof>, DrillError> {
        let Some(line) = &self.escrow else { return Ok(BTreeMap::new()) };
        let challenge = random()?;
        let mut awaited = Vec::new();
        for package in epochs.filter_map(|epoch| self.asker.lane.keyring.package(epoch)) {
            let Some(receipt) = package.receipt() else { continue };
            let alone = package.capsule_for(self.keeper).is_none();
            let terms = &package.descriptor().terms;
            let own = self.asker.lane.keyring.unwrap(&package);
            let own = own.map(|key| EpochSchedule::new(&key, &terms.scope()).drill(&challenge));
            awaited.push((Epoch(terms.epoch), receipt.deposit, alone, own));
        }
        let mut proofs = BTreeMap::new();
        for part in awaited.chunks(ASKED_IN_A_CELL) {
            let drills = part.iter().map(|(_, deposit, ..)| ToEscrow::Drill { deposit: *deposit, challenge });
            let answers = tokio::runtime::Handle::current().block_on(line.ask_in_one(drills.collect()));
            for (epoch, deposit, alone, own) in part {
                let trouble = match (&answers, own) {
                    (Err(error), _) => Some(error.to_string()),
                    (_, Err(error)) => Some(format!("this site does not open it: {error}")),
                    (Ok(answers), Ok(own)) => escrow_trouble(answers, *deposit, own),
                };
                proofs.insert(*epoch, EscrowProof { alone: *alone, trouble });
            }
        }
        Ok(proofs)
    }

    /// Every epoch that live blocks need, with some blocks of each.
    fn live(&self) -> Result<(Sequence, LiveEpochs), DrillError> {
        let mut epochs = LiveEpochs::new();
        let (mut from, mut seen) = (Lba(0), Sequence::NONE);
        while from.0 < self.asker.lane.settings.blocks.0 {
            let answer = self.asker.ask(|id| Send::AskLive(AskLive { id, from }))?;
            let Live { through, next, epochs: page } = Live::decode(&answer, from).ok_or(DrillError::Nonsense)?;
            if through == Sequence::NONE {
                return Err(DrillError::Busy);
            }
            for LiveEpoch { epoch, blocks, first } in page {
                let (sum, samples) = epochs.entry(epoch).or_default();
                sum.0 += blocks.0;
                if samples.len() < TRIES {
                    samples.push(first);
                }
            }
            (from, seen) = (next, through);
        }
        Ok((seen, epochs))
    }

    /// Has one of these blocks opened at both sites. Says what is wrong, if it is.
    fn prove(&self, samples: &[Lba]) -> Result<Option<String>, DrillError> {
        let mut trouble =
            "initiators write those blocks all the time: nothing of it could be looked at twice".to_owned();
        for lba in samples.iter().cycle().take(TRIES) {
            let (sequence, block) = match self.own(*lba)? {
                Ok(own) => own,
                Err(why) => {
                    trouble = why;
                    continue;
                }
            };
            let challenge = random()?;
            let answer = self.asker.ask(|id| Send::AskDrill(AskDrill { id, lba: *lba, challenge }))?;
            let drilled = Drilled::decode(&answer).ok_or(DrillError::Nonsense)?;
            if drilled.sequence != sequence {
                continue;
            }
            return Ok(match drilled.outcome {
                Outcome::Opened if drilled.proof == proof(&challenge, &block) => None,
                Outcome::Opened => Some("it opens to something else than here".to_owned()),
                failed @ (Outcome::Nothing
                | Outcome::Unreadable
                | Outcome::NotRecipient
                | Outcome::NoKey
                | Outcome::NotOpened) => Some(failed.to_string()),
            });
        }
        Ok(Some(trouble))
    }

    /// The block that the copy holds, opened with this site's keys.
    fn own(&self, lba: Lba) -> Result<Own, DrillError> {
        let extent = Extent::new(lba, BlockCount(1)).ok_or(DrillError::Nonsense)?;
        let challenge = random()?;
        let question = |id, done| LaneEvent::Inspect { inspect: Inspect { id, extent, challenge }, done };
        let answer = self.asker.ask_by(question)?;
        let settings = &self.asker.lane.settings;
        let terms = Terms {
            pair: settings.pair,
            volume: settings.volume,
            encrypted: settings.encrypted,
            block_bytes: settings.block_bytes,
        };
        let answer = Answer::decode(&answer, extent, &terms).map_err(|_| DrillError::Nonsense)?;
        let held = answer.runs.into_iter().next().map(|run| run.held);
        let part = match held {
            Some(Held::Record(part)) => part,
            Some(Held::Unreadable(why)) => return Ok(Err(why.to_string())),
            Some(Held::Nothing | Held::Base(_)) | None => return Ok(Err("no record holds that block now".into())),
        };
        let (keyring, plugins) = (Arc::clone(&self.asker.lane.keyring), Arc::clone(&self.plugins));
        let ledger = Arc::new(keyring.ledger());
        let (mut block, mut tags) = (Zeroizing::new(part.blocks), part.tags);
        let opened = Unsealer::new(keyring, ledger, plugins).open(&part.header, part.first, &mut block, &mut tags);
        if let Err(error) = opened {
            return Ok(Err(format!("this site does not open it: {error}")));
        }
        if block.is_empty() {
            block.resize(settings.block_bytes.as_usize(), 0);
        }
        Ok(Ok((part.header.sequence, block)))
    }
}

/// Why these answers are no proof that the escrow opens this deposit; `None`: they are one.
fn escrow_trouble(answers: &[FromEscrow], deposit: [u8; 32], own: &[u8; 32]) -> Option<String> {
    let said = answers.iter().find_map(|answer| {
        let FromEscrow::Drilled { deposit: of, proof } = answer else { return None };
        (*of == deposit).then_some(*proof)
    });
    match said {
        Some(Some(proof)) if proof.ct_eq(own).into() => None,
        Some(Some(_)) => Some("opens it to another key than here".into()),
        Some(None) => Some("opens nothing: it has no such deposit, or its key is shared out among people".into()),
        None => Some("gave no answer".into()),
    }
}
