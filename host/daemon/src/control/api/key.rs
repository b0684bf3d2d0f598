//! A pair's keys, as its operator sees them: never a key, only what became of each.

use farseal_core::rotation::How;
use farseal_core::stage::Stage;
use farseal_core::units::{ByteLen, Epoch, Millis, Sequence, WallTime};
use farseal_plugin::Digest;
use serde::{Deserialize, Serialize};

use super::{PluginStanding, RotationWord};

/// Parameters of `key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeyCommand {
    /// The key in force, and what the rotation under way waits for: [`KeyReport`].
    Status,
    /// What became of each epoch: [`KeyHistory`].
    History,
    /// Who decides when the key changes, and what it decided: [`PolicyReport`].
    Policy,
    /// Have the keeper prove, for each epoch that live blocks need, that it can open them: [`DrillReport`].
    Drill,
    /// One step of destroying the keys of epochs that are over: [`RetireReport`].
    Retire(Retire),
}

/// Which keys are to go, and where the steps before this one have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Retire {
    /// The last epoch to go; every one before the one in force, unless a word says otherwise.
    pub through: Option<Epoch>,
    /// Those that have been over for so long.
    pub older_than: Option<Millis>,
    /// Only look.
    pub dry_run: bool,
    /// The block that this step begins with, and whether those before found nothing.
    pub from: u64,
    pub clean: bool,
}

/// What a step of retiring came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RetireReport {
    /// The last epoch that goes.
    pub through: Epoch,
    /// What it did.
    pub step: RetireStep,
    /// Blocks of the copy that were found to need one of these keys, and are sent again.
    pub blocks: u64,
    /// Where the next step begins, and whether all since the volume's first block found nothing.
    pub next: u64,
    pub clean: bool,
    /// Blocks of the volume: where a pass ends.
    pub volume: u64,
}

/// What a step of retiring did, or waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetireStep {
    /// It looked through a part of the copy.
    Looked,
    /// What was sent again is on its way.
    CatchingUp,
    /// This site's journal still holds records of these epochs.
    Journal,
    /// The remote looks through its index, or writes parts of its log anew.
    Remote,
    /// The remote has destroyed them; the escrow site cannot be asked.
    Escrow { reason: String },
    /// Every site has, and so many deposits are gone.
    Destroyed { deposits: u64 },
}

/// Keys that were destroyed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RetiringReport {
    /// The last epoch that went.
    pub through: Epoch,
    /// By this site's clock.
    pub when: WallTime,
    /// SHA-256 of the order as it was signed.
    pub order: String,
    /// The keeper's proof: `false` if what is kept of it is not what was signed; `None` before it came.
    pub proof: Option<bool>,
    /// Deposits that the escrow site destroyed.
    pub deposits: u64,
}

/// What a drill came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DrillReport {
    /// The copy's index holds everything up to here.
    pub through: Sequence,
    /// Every epoch that live blocks need, oldest first.
    pub epochs: Vec<DrilledEpoch>,
}

/// An epoch that live blocks need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DrilledEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Blocks that nothing but its key opens.
    pub blocks: u64,
    /// Why the keeper could not prove that it opens them; `None`: it did, or is not to.
    pub trouble: Option<String>,
    /// The pair has an escrow site: what it proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escrow: Option<EscrowProof>,
}

/// What an escrow site proved of an epoch's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EscrowProof {
    /// It alone holds the key: the keeper was not asked.
    pub alone: bool,
    /// Why it could not prove that it opens its deposit; `None`: it did.
    pub trouble: Option<String>,
}

/// The key in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyReport {
    /// Here: does this site seal, or keep?
    pub seals: bool,
    /// The epoch that seals; at a keeper the newest that it holds. `None` before the first.
    pub epoch: Option<EpochReport>,
    /// The host's limits around the policy; `None` at a keeper.
    pub limits: Option<LimitsReport>,
    /// What the AEAD bound says; `None` at a keeper, and for a cipher that is not AES-256-GCM alone.
    pub bound: Option<BoundReport>,
    /// The cipher that seals from the next epoch on, where it is another than the one in force.
    pub next_cipher: Option<NextCipher>,
    /// The rotation that is under way.
    pub under_way: Option<UnderWay>,
    /// Epochs whose keys can be had here.
    pub keys_here: u64,
}

/// An epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EpochReport {
    /// Its number.
    pub epoch: Epoch,
    /// Where it stands.
    pub stage: Stage,
    /// Since it came into force; `None` where that is not known.
    pub age: Option<Millis>,
    /// Payload that it sealed, as far as it is known here.
    pub sealed: ByteLen,
    /// The record that carries it, and the first that it seals.
    pub key: Sequence,
    pub start: Sequence,
    /// Who can open it.
    pub recipients: Vec<RecipientReport>,
    /// The cipher component that chose its stacks.
    pub cipher: Digest,
    /// Somebody said that others may know it.
    pub suspect: bool,
}

/// Someone who can open an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecipientReport {
    /// What for: `own`, `secondary`, `escrow`.
    pub role: String,
    /// That of its card.
    pub card: String,
    /// How the key was wrapped for it.
    pub kem: String,
}

/// The host's limits; at age or bytes sealing stops until there is a new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LimitsReport {
    /// Of one key.
    pub age_max: Millis,
    /// Of one key.
    pub bytes_max: ByteLen,
    /// Between the beginnings of two rotations.
    pub interval_min: Millis,
}

/// What an observer of all that the pair ever sealed gains over guessing: at most `2^-exponent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BoundReport {
    /// Now.
    pub exponent: u32,
    /// Payload of the pair's life, as far as it was counted at this site.
    pub life: ByteLen,
    /// With that much under the key in force it is still at most `2^-goal`.
    pub key_bytes_max: ByteLen,
    /// See above.
    pub goal: u32,
}

/// A cipher that was put in its place and seals nothing yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NextCipher {
    /// What it calls itself.
    pub name: String,
    /// What its bytes are.
    pub digest: Digest,
}

/// A rotation that is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnderWay {
    /// The epoch to come.
    pub epoch: Epoch,
    /// Where it stands.
    pub stage: Stage,
    /// How it comes into force.
    pub how: How,
    /// What it waits for, in plain words.
    pub waits_for: String,
}

/// What became of each epoch, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyHistory {
    /// When this was made.
    pub now: WallTime,
    pub epochs: Vec<PastEpoch>,
    /// What was destroyed together, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retirings: Vec<RetiringReport>,
}

/// An epoch in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PastEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Where it stands.
    pub stage: Stage,
    /// How it came, in-band, in a pause, or at once.
    pub how: How,
    /// On whose word; `None` where this site did not make it.
    pub by: Option<RotationWord>,
    /// In their words.
    pub reason: Option<String>,
    /// The first record that it seals.
    pub start: Option<Sequence>,
    /// When it was made, came into force, gave way to the next, was given up, was destroyed.
    pub made: WallTime,
    pub in_force: Option<WallTime>,
    pub retired: Option<WallTime>,
    pub void: Option<WallTime>,
    pub destroyed: Option<WallTime>,
    /// Payload that it sealed, as far as it is known here.
    pub sealed: ByteLen,
}

/// Who decides when the key changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyReport {
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What its bytes are.
    pub digest: Digest,
    /// Its settings: a JSON object.
    pub settings: String,
    /// Whether it answers.
    pub standing: PluginStanding,
    /// Calls that the journal holds.
    pub calls: u64,
    /// Its last decisions, oldest first.
    pub decisions: Vec<DecisionReport>,
}

/// A decision, and what the host made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DecisionReport {
    /// When the policy was asked.
    pub at: WallTime,
    /// What had happened.
    pub event: String,
    /// What it decided.
    pub decision: String,
    /// Why, in its own words.
    pub why: String,
    /// `applied`, `refused: ..`, `clamped: ..`.
    pub answer: String,
    /// The host's own policy decided in its place, because of this.
    pub instead: Option<String>,
}
