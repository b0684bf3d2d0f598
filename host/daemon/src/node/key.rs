//! What this node says of a pair's keys: numbers, stages and reasons, never a key.

use std::sync::Arc;

use farseal_core::aead_bound::Sealed;
use farseal_core::rotation::{How, KeyState, State as RotationState};
use farseal_core::stage::{EpochFacts, Stage};
use farseal_core::units::{ByteLen, Epoch, Sequence, WallTime};
use farseal_plugin::vault::stack::{Stack, Suite};
use farseal_plugin::wit::rotation::{Action, Decision};
use farseal_plugin::{Digest, RotationCall, RotationPolicy, StepFunction as _, escaped};
use serde::Serialize;

use super::pair::{PairNode, Side};
use crate::control::api::{
    BoundReport, CommandReply, DecisionReport, EpochReport, KeyCommand, KeyHistory, KeyReport, LimitsReport,
    NextCipher, PastEpoch, PluginSlot, PluginStanding, PolicyReport, RecipientReport, UnderWay,
};
use crate::control::operator::CommandError;
use crate::keys::descriptor::{How as DescribedHow, Terms};
use crate::keys::package::VerifiedEpoch;
use crate::lane::keybook::Entry;
use crate::lane::policy_journal::{Entry as Journalled, answer_to};
use crate::lane::{Lane, LaneView};
use crate::retired::RetiredError;

/// The advantage that the bound is reckoned for: one in 2^40, as the shipped policies do.
const GOAL: u32 = 40;
/// Decisions that are shown.
const DECISIONS_SHOWN: usize = 20;

impl PairNode {
    pub(super) async fn key(&self, command: KeyCommand) -> Result<CommandReply, CommandError> {
        match command {
            KeyCommand::Status => report("the key in force", &self.key_report().await?),
            KeyCommand::History => report("every epoch", &self.key_history().await?),
            KeyCommand::Drill => {
                let found = self.drill().await?;
                let failed = found.epochs.iter().filter(|epoch| epoch.trouble.is_some()).count();
                report(&format!("{} epochs drilled, {failed} failed", found.epochs.len()), &found)
            }
            KeyCommand::Retire(wanted) => {
                let found = self.retire(wanted).await?;
                report(&format!("keys up to epoch {}", found.through), &found)
            }
            KeyCommand::Policy => report("the rotation policy", &self.policy_report()?),
        }
    }

    async fn key_report(&self) -> Result<KeyReport, CommandError> {
        if !self.config.encrypted {
            let reason = format!("pair {} is not encrypted: there are no keys", self.config.name);
            return Err(CommandError::Refused { reason, next: None });
        }
        let Some(lane) = self.writer() else { return Ok(self.kept_report()) };
        let view = self.look().await?;
        let packages = lane.keyring.kept();
        let active = view.status.key;
        let package = active.and_then(|key| packages.iter().find(|package| epoch_of(package) == key.epoch));
        let now = self.shared.clock.now().wall;
        let epoch = active.zip(package).map(|(key, package)| EpochReport {
            age: Some(now.since(key.since)),
            sealed: key.bytes,
            suspect: key.state == KeyState::Suspect,
            ..epoch_report(package, Stage::Active)
        });
        let cipher = self.plugins.facts_of(PluginSlot::Cipher);
        let next_cipher = epoch.as_ref().zip(cipher).filter(|(epoch, facts)| epoch.cipher != facts.digest);
        Ok(KeyReport {
            seals: true,
            limits: Some(LimitsReport {
                age_max: view.limits.age_max,
                bytes_max: view.limits.bytes_max,
                interval_min: view.limits.interval_min,
            }),
            bound: package.and_then(|package| self.bound(&lane, &view, &package.descriptor().terms)),
            next_cipher: next_cipher.map(|(_, facts)| NextCipher { name: facts.about.name, digest: facts.digest }),
            under_way: under_way(&view, self.config.escrow.is_some()),
            keys_here: count(packages.len()),
            epoch,
        })
    }

    /// A keeper seals nothing: it holds what it was sent.
    fn kept_report(&self) -> KeyReport {
        let packages = match self.side() {
            Side::Secondary { replica, .. } => replica.keyring.kept(),
            Side::Primary(lane) => lane.keyring.kept(),
        };
        KeyReport {
            seals: false,
            epoch: packages.last().map(|package| epoch_report(package, Stage::Active)),
            limits: None,
            bound: None,
            next_cipher: None,
            under_way: None,
            keys_here: count(packages.len()),
        }
    }

    fn bound(&self, lane: &Lane, view: &LaneView, terms: &Terms) -> Option<BoundReport> {
        let gcm = |stack: &Stack| stack.layers().all(|layer| layer.suite == Suite::Aes256Gcm);
        if !terms.stacks.as_slice().iter().all(gcm) {
            return None;
        }
        let key = view.status.key?.bytes;
        let sealed = Sealed { life: lane.keybook.life(&view.keys), key, unit: self.config.block_bytes };
        Some(BoundReport {
            exponent: sealed.exponent(),
            life: sealed.life,
            key_bytes_max: sealed.key_bytes_max(GOAL),
            goal: GOAL,
        })
    }

    async fn key_history(&self) -> Result<KeyHistory, CommandError> {
        let now = self.shared.clock.now().wall;
        let failed = |error: RetiredError| CommandError::Failed { reason: error.to_string(), next: None };
        let retirings = self.retirings().map_err(failed)?;
        let Some(lane) = self.writer() else {
            let Side::Secondary { replica, .. } = self.side() else {
                return Ok(KeyHistory { now, epochs: Vec::new(), retirings });
            };
            let packages = replica.keyring.kept();
            let newest = packages.last().map(|package| epoch_of(package));
            let of = |package: &Arc<VerifiedEpoch>| {
                let stage = if Some(epoch_of(package)) == newest { Stage::Active } else { Stage::Retired };
                described(package, stage)
            };
            return Ok(KeyHistory { now, epochs: packages.iter().map(of).collect(), retirings });
        };
        let view = self.look().await?;
        let packages = lane.keyring.kept();
        let entries = lane.keybook.entries(&view.keys);
        let escrow = self.config.escrow.is_some();
        let mut epochs: Vec<PastEpoch> = entries.iter().map(|entry| past(entry, &packages, &view, escrow)).collect();
        // Of lanes that wrote no history yet.
        let older = packages.iter().filter(|package| entries.iter().all(|entry| entry.epoch != epoch_of(package)));
        epochs.extend(older.map(|package| described(package, Stage::Retired)));
        epochs.sort_by_key(|epoch| epoch.epoch);
        Ok(KeyHistory { now, epochs, retirings })
    }

    fn policy_report(&self) -> Result<PolicyReport, CommandError> {
        let gone = || CommandError::Failed { reason: "the place of the policy is empty".into(), next: None };
        let facts = self.plugins.facts_of(PluginSlot::Policy).ok_or_else(gone)?;
        let quarantined = self.plugins.breaker.standing(&facts.digest).quarantined_since.is_some();
        let entries = self.plugins.policy_journal.entries();
        let mut decisions = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            decisions.extend(entry.decisions.iter().map(|decision| decision_report(&entries, at, entry, decision)));
        }
        decisions.drain(..decisions.len().saturating_sub(DECISIONS_SHOWN));
        Ok(PolicyReport {
            name: facts.about.name,
            version: facts.about.version,
            digest: facts.digest,
            settings: facts.config,
            standing: if quarantined { PluginStanding::Quarantined } else { PluginStanding::InForce },
            calls: count(entries.len()),
            decisions,
        })
    }
}

pub(super) fn report(message: &str, report: &impl Serialize) -> Result<CommandReply, CommandError> {
    let failed = |error: serde_json::Error| CommandError::Failed { reason: error.to_string(), next: None };
    Ok(CommandReply { report: Some(serde_json::to_value(report).map_err(failed)?), ..CommandReply::new(message) })
}

pub(super) fn epoch_of(package: &VerifiedEpoch) -> Epoch {
    Epoch(package.descriptor().terms.epoch)
}

fn epoch_report(package: &VerifiedEpoch, stage: Stage) -> EpochReport {
    let descriptor = package.descriptor();
    let terms = &descriptor.terms;
    let recipients = descriptor.recipients.iter().map(|recipient| RecipientReport {
        role: recipient.role.to_string(),
        card: recipient.card.to_string(),
        kem: package.capsule_for(recipient.card).map_or("?", |capsule| capsule.kem().name()).into(),
    });
    EpochReport {
        epoch: Epoch(terms.epoch),
        stage,
        age: None,
        sealed: ByteLen(0),
        key: Sequence(terms.key_seq),
        start: Sequence(terms.start_seq),
        recipients: recipients.collect(),
        cipher: Digest(terms.component),
        suspect: false,
    }
}

fn under_way(view: &LaneView, escrow: bool) -> Option<UnderWay> {
    let (epoch, facts) = EpochFacts::under_way(&view.status.rotation, view.status.acked, escrow)?;
    let (how, waits_for) = match &view.status.rotation {
        RotationState::Idle => return None,
        RotationState::Preparing { how, .. } => {
            (*how, "its key to be drawn, beside a slot where a disguise keeps them".to_owned())
        }
        RotationState::Escrowing { how, .. } => (*how, "the receipt of the escrow site".to_owned()),
        RotationState::Waiting { how, .. } => (*how, "the slot that the disguise fixed".to_owned()),
        RotationState::Carrying { key, .. } => {
            (How::InBand, format!("the records before {key}, in whose slots it goes to the remote"))
        }
        RotationState::Draining { through, .. } => {
            (How::Pause, format!("the remote to hold everything up to record {through}; nothing is sealed meanwhile"))
        }
        RotationState::Delivering { how, key, start, .. } => {
            (*how, format!("the remote to acknowledge the key in record {key}; it would begin at record {start}"))
        }
        RotationState::Armed { how, start, .. } => (*how, format!("record {start}, the first that it seals")),
    };
    Some(UnderWay { epoch, stage: Stage::of(&facts), how, waits_for })
}

fn past(entry: &Entry, packages: &[Arc<VerifiedEpoch>], view: &LaneView, escrow: bool) -> PastEpoch {
    let package = packages.iter().find(|package| epoch_of(package) == entry.epoch);
    let coming = EpochFacts::under_way(&view.status.rotation, view.status.acked, escrow);
    // A crash took what became of it: its package is kept only if it had its place.
    let unheard = entry.in_force.is_none() && entry.void.is_none();
    let placed = unheard && package.is_some();
    let facts = match coming {
        Some((epoch, facts)) if epoch == entry.epoch => facts,
        Some(_) | None => EpochFacts {
            void: entry.void.is_some() || (unheard && !placed),
            destroyed: entry.destroyed.is_some(),
            escrowed: None,
            delivered: entry.in_force.is_some() || placed,
            start: entry.start,
            in_force: entry.in_force.is_some() || placed,
            last: entry.last.or(placed.then_some(Sequence::NONE)),
            acked: view.status.acked,
        },
    };
    PastEpoch {
        epoch: entry.epoch,
        stage: Stage::of(&facts),
        how: entry.how,
        by: Some(entry.by),
        reason: entry.reason.clone(),
        start: entry.start.or(package.map(|package| Sequence(package.descriptor().terms.start_seq))),
        made: entry.begun,
        in_force: entry.in_force,
        retired: entry.retired,
        void: entry.void,
        destroyed: entry.destroyed,
        sealed: entry.sealed,
    }
}

/// What the package says where no more is known.
fn described(package: &Arc<VerifiedEpoch>, stage: Stage) -> PastEpoch {
    let terms = &package.descriptor().terms;
    PastEpoch {
        epoch: Epoch(terms.epoch),
        stage,
        how: match terms.how {
            // A cover is never kept among the epochs.
            DescribedHow::InBand | DescribedHow::Cover => How::InBand,
            DescribedHow::Pause => How::Pause,
            DescribedHow::Start => How::AtOnce,
        },
        by: None,
        reason: None,
        start: Some(Sequence(terms.start_seq)),
        made: WallTime(terms.created_ms),
        in_force: None,
        retired: None,
        void: None,
        destroyed: None,
        sealed: ByteLen(0),
    }
}

fn decision_report(entries: &[Journalled], at: usize, entry: &Journalled, decision: &Decision) -> DecisionReport {
    let (now, event) = match &entry.call {
        RotationCall::Init { context } => (context.now, "init".to_owned()),
        RotationCall::Step { context, event, .. } => (context.now, RotationPolicy::event_words(event)),
    };
    DecisionReport {
        at: WallTime(now),
        event,
        decision: RotationPolicy::action_words(now, decision),
        why: escaped(match &decision.action {
            Action::Rotate(rotate) if !rotate.reason.is_empty() => &rotate.reason,
            Action::Rotate(_) | Action::WakeAt(_) | Action::Watch(_) | Action::Alert(_) | Action::Ext(_) => {
                &decision.why
            }
        }),
        answer: answer_to(entries, at, decision),
        instead: entry.instead.clone(),
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
