//! Putting another plugin in a place while the pair goes on: checked, tried, compared, and only then in force; and back.

use std::path::PathBuf;
use std::sync::Arc;

use farseal_core::primary::Command;
use farseal_plugin::conform::{self, Effort};
use farseal_plugin::{
    Cipher, Contrast, Difference, Disguise, LoadError, PluginHost, Recovery, RotationPolicy, Slot, StepFunction,
    contrast_ciphers, contrast_disguises, replay_diff,
};
use tokio::sync::oneshot;

use super::pair::PairNode;
use crate::config::PluginChoice;
use crate::control::api::{CommandReply, PluginCommand, PluginSlot, Swap, SwapReport};
use crate::control::operator::CommandError;
use crate::lane::Event as LaneEvent;
use crate::lane::policywork::{Carried, PolicySwap};
use crate::plugins::chosen::{Place, Put};
use crate::plugins::journal::StepJournal;
use crate::plugins::{self, PairPlugins, PluginsError, proven};
use crate::recovery::Sweep;

/// Stories for each rule of the contract before a component is put in: a second or two; `farseal plugin conform` tries
/// more. One rule after the other: the node has other things to do.
const TRIAL: Effort = Effort { stories: 4, seed: 1, fuel: Some(conform::FUEL), threads: 1 };

/// Calls that are shown one by one: where two strategies part, they seldom meet again.
const DIFFERENCES_SHOWN: usize = 64;

/// A component that may be put in.
enum Loaded {
    Cipher(Arc<Cipher>),
    Policy(Arc<RotationPolicy>),
    Disguise(Arc<Disguise>),
    Recovery(Arc<Recovery>),
}

/// How a component is put in.
struct How {
    /// The operator's file. None where it comes back: it was here before, so what is known of it since, a rule that it breaks among it, is
    /// said and shuts no way back. Where the configuration demands the result of the kit, that is what counts, as at a start.
    file: Option<PathBuf>,
    /// Only to say what would follow.
    dry_run: bool,
    /// It may decide otherwise than what is in its place.
    accept: bool,
}

impl PairNode {
    pub(super) async fn plugin(&self, command: PluginCommand) -> Result<CommandReply, CommandError> {
        match command {
            PluginCommand::RollBack { slot } => self.roll_back(slot).await,
            PluginCommand::Release { slot } => self.release(slot),
        }
    }

    /// Puts the component of a file in a place, or says what would follow.
    pub(super) async fn swap(&self, swap: Swap) -> Result<CommandReply, CommandError> {
        let _one = self.plugins.swapping.lock().await;
        let now = self.put_now(swap.slot)?;
        let config = swap.config.clone().unwrap_or_else(|| now.config.clone());
        let choice = PluginChoice {
            component: swap.component.display().to_string(),
            path: swap.component.clone(),
            sha256: Some(swap.sha256),
            grants: swap.grants.clone(),
            config: config.clone(),
            conformance: None,
        };
        let new = Put { digest: swap.sha256, grants: swap.grants, config };
        let name = format!("{}.{}", self.config.name, swap.slot);
        let file = swap.component.clone();
        let demanded = self.config.plugin(swap.slot).conformance.is_some();
        let (bytes, result) = blocking(move || -> Result<_, PluginsError> {
            let bytes = plugins::read(&name, &choice)?;
            let prove = || proven::read(&name, &proven::beside(&choice.path), Some(&choice.path), swap.sha256);
            let result = demanded.then(prove).transpose()?;
            Ok((bytes, result))
        })
        .await?
        .map_err(|error| refused(&error))?;
        if let Some(result) = result.filter(|_| !swap.dry_run) {
            let kept = self.plugins.proofs.keep(swap.sha256, &result);
            kept.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        }
        let how = How { file: Some(file), dry_run: swap.dry_run, accept: swap.accept };
        self.put(swap.slot, now, new, bytes, how).await
    }

    async fn roll_back(&self, slot: PluginSlot) -> Result<CommandReply, CommandError> {
        let _one = self.plugins.swapping.lock().await;
        let Some(place) = self.plugins.put_by_operator(slot, self.config.plugin(slot)) else {
            let reason =
                format!("nothing was put in the place of the {slot} since the configuration said what it says");
            return Err(CommandError::Refused { reason, next: None });
        };
        if self.config.plugin(slot).conformance.is_some() {
            let name = format!("{}.{slot}", self.config.name);
            let proven = self.plugins.proofs.check(&name, place.before.digest);
            proven.map_err(|error| refused(&PluginsError::from(error)))?;
        }
        let bytes = self.plugins.components.load(place.before.digest);
        let bytes = bytes.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        let how = How { file: None, dry_run: false, accept: true };
        self.put(slot, place.now, place.before, bytes, how).await
    }

    fn release(&self, slot: PluginSlot) -> Result<CommandReply, CommandError> {
        let now = self.put_now(slot)?;
        if self.plugins.breaker.release(&now.digest) {
            return Ok(CommandReply::new(format!("the {slot} is called again; what it did wrong is forgotten")));
        }
        Err(self.wrong_state("plugin release", "calling it", None))
    }

    /// What is in a place: an operator's, or the configuration's.
    fn put_now(&self, slot: PluginSlot) -> Result<Put, CommandError> {
        let configured = self.config.plugin(slot);
        let put = self.plugins.put_by_operator(slot, configured).map(|place| place.now);
        put.or_else(|| Put::configured(configured)).ok_or_else(|| CommandError::Failed {
            reason: format!("the configuration pins no digest for the {slot}"),
            next: Some("add sha256 = \"..\", as `farseal plugin inspect` prints it".into()),
        })
    }

    async fn put(
        &self,
        slot: PluginSlot,
        now: Put,
        new: Put,
        bytes: Vec<u8>,
        how: How,
    ) -> Result<CommandReply, CommandError> {
        let How { file, dry_run, accept } = how;
        let (name, host) = (format!("{}.{slot}", self.config.name), Arc::clone(&self.shared.plugins));
        let (plugins, put) = (Arc::clone(&self.plugins), new.clone());
        let tried = blocking(move || -> Result<_, CommandError> {
            let file = file.map(|file| file.display().to_string());
            let refused = |reason: String, next: Option<String>| {
                let reason = match &file {
                    Some(file) => format!("{file}: {reason}"),
                    None => reason,
                };
                CommandError::Refused { reason, next }
            };
            let loaded = load(&host, slot, &name, &bytes, &put).map_err(|error| refused(error.to_string(), None))?;
            let trial = try_rules(&host, &name, &bytes, &put).map_err(|error| refused(error.to_string(), None))?;
            let Trial { rules, tries, broken } = trial;
            if let (Some(reason), Some(file)) = (&broken, &file) {
                let next = format!(
                    "`farseal plugin conform {file} --settings '{}'` shows the story; this is for the plugin's author",
                    put.config
                );
                return Err(refused(reason.clone(), Some(next)));
            }
            let compared = compare(&plugins, &loaded);
            let kept = if dry_run { Ok(put.digest) } else { plugins.components.keep(&bytes) };
            kept.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
            let calls = u64::try_from(compared.calls).unwrap_or(u64::MAX);
            let Compared { differences, contrasts, .. } = compared;
            let (old, new) = (now.digest, put.digest);
            let report = SwapReport { old, new, rules, tries, calls, differences, contrasts, put: false };
            Ok((loaded, report, now, broken))
        });
        let (loaded, mut report, now, broken) = tried.await??;
        self.must_carry_keys_alike(&loaded)?;
        let differing = report.differences.len();
        let mut details = said(slot, &report, broken.as_deref());
        if dry_run {
            return answer("it would be taken; nothing was changed".into(), details, None, &report);
        }
        if differing > 0 && !accept {
            let reason = format!("it decides otherwise in {differing} of {} journalled calls", report.calls);
            let next = Some("look at them with --dry-run; --yes puts it in all the same".into());
            return Err(CommandError::Refused { reason, next });
        }
        let configured = self.config.plugin(slot);
        let before = self.plugins.put_by_operator(slot, configured);
        let instead_of = Put::configured(configured).unwrap_or_else(|| now.clone());
        let place = Place { instead_of: instead_of.clone(), now: new, before: now.clone() };
        let failed = |error: crate::store::StoreError| CommandError::Failed { reason: error.to_string(), next: None };
        self.plugins.keep_choice(slot, place).map_err(failed)?;
        if let Err(error) = self.install(loaded, &mut details).await {
            let place = before.unwrap_or(Place { instead_of, now: now.clone(), before: now });
            self.plugins.keep_choice(slot, place).map_err(failed)?;
            return Err(error);
        }
        report.put = true;
        let next = (slot == PluginSlot::Cipher && self.writer().is_some()).then(|| {
            format!("`farseal key rotate {}` begins that epoch; `farseal key status` shows both", self.config.name)
        });
        let since = match slot {
            PluginSlot::Cipher => "from the next epoch on: what is sealed until then is sealed by the one before",
            PluginSlot::Policy | PluginSlot::Disguise | PluginSlot::Recovery => "from the next call on",
        };
        answer(
            format!("it is in force {since}, and after a restart, until the configuration changes"),
            details,
            next,
            &report,
        )
    }

    /// Where keys travel was told to the remote when the link began, and stays so until the node's next start.
    fn must_carry_keys_alike(&self, loaded: &Loaded) -> Result<(), CommandError> {
        let (Loaded::Disguise(new), Some(lane)) = (loaded, self.writer()) else { return Ok(()) };
        let places = |in_records| if in_records { "in the slots of other records" } else { "in records of their own" };
        if new.is_in_records() == lane.settings.in_slots {
            return Ok(());
        }
        let (now, then) = (places(lane.settings.in_slots), places(new.is_in_records()));
        Err(CommandError::Refused {
            reason: format!(
                "keys of this pair travel {now} until the node's next start, and would travel {then} with it"
            ),
            next: Some("write it into the configuration as `disguise` and restart the node".into()),
        })
    }

    async fn install(&self, loaded: Loaded, details: &mut Vec<String>) -> Result<(), CommandError> {
        match loaded {
            Loaded::Cipher(new) => drop(self.plugins.cipher.install(Some(new))),
            Loaded::Disguise(new) => drop(self.plugins.disguise.install(Some(new))),
            Loaded::Recovery(new) => {
                self.plugins.recovery.install(Some(new));
                if let Some(taken) = self.taken() {
                    // It may have stopped: a strategy that begins later begins by itself.
                    let _ = taken.sweeper.send(Sweep::Changed);
                }
            }
            Loaded::Policy(new) => return self.install_policy(new, details).await,
        }
        Ok(())
    }

    /// Between two calls, with the state of the one before where it can go on from that.
    async fn install_policy(&self, new: Arc<RotationPolicy>, details: &mut Vec<String>) -> Result<(), CommandError> {
        let Some(lane) = self.writer() else {
            self.plugins.policy.install(Some(new));
            return Ok(());
        };
        let gone = || CommandError::Failed {
            reason: "the lane has stopped".into(),
            next: Some("see the node's log, mend the cause and restart the node".into()),
        };
        let (sender, carried) = oneshot::channel();
        let swap = PolicySwap { new, done: Box::new(move |carried| drop(sender.send(carried))) };
        lane.inbox.send(LaneEvent::SwapPolicy(swap)).map_err(|_| gone())?;
        let carried = carried.await.map_err(|_| gone())?;
        let carried = carried.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        details.push(match carried {
            Carried::State => "it goes on from the state of the one before".into(),
            Carried::Afresh(None) => "it begins afresh: there was no state".into(),
            Carried::Afresh(Some(why)) => afresh(&why),
        });
        self.tell(Command::PolicyChanged, "plugin swap").await
    }
}

/// Between policies of different names this is the rule, and no failure.
fn afresh(why: &str) -> String {
    format!(
        "it begins afresh, without what the one before remembered ({}). Keys, their ages and the host's limits are not the policy's, and stay. \
         What the one before still held back is forgotten: ask again for a key that is to change out of turn",
        farseal_plugin::escaped(why)
    )
}

/// What is known of how a candidate differs from what is in its place.
#[derive(Default)]
struct Compared {
    /// Journalled calls that both made.
    calls: usize,
    differences: Vec<Difference>,
    contrasts: Vec<Contrast>,
}

fn compare(plugins: &PairPlugins, loaded: &Loaded) -> Compared {
    match loaded {
        Loaded::Policy(new) => replayed(&plugins.policy, &plugins.policy_journal, new),
        Loaded::Recovery(new) => replayed(&plugins.recovery, &plugins.recovery_journal, new),
        Loaded::Cipher(new) => contrasted(plugins.cipher.current().map(|old| contrast_ciphers(&old, new))),
        Loaded::Disguise(new) => contrasted(plugins.disguise.current().map(|old| contrast_disguises(&old, new))),
    }
}

fn replayed<P: StepFunction>(slot: &Slot<P>, journal: &StepJournal<P>, new: &P) -> Compared {
    let Some(old) = slot.current() else { return Compared::default() };
    let facts = old.facts();
    let calls = journal.calls_of(facts.digest, &facts.config);
    Compared { calls: calls.len(), differences: replay_diff(&calls, &*old, new), contrasts: Vec::new() }
}

fn contrasted(contrasts: Option<Vec<Contrast>>) -> Compared {
    Compared { contrasts: contrasts.unwrap_or_default(), ..Compared::default() }
}

fn load(host: &PluginHost, slot: PluginSlot, name: &str, bytes: &[u8], put: &Put) -> Result<Loaded, PluginsError> {
    Ok(match slot {
        PluginSlot::Cipher => Loaded::Cipher(Arc::new(plugins::load_bytes(host, name, bytes, put)?)),
        PluginSlot::Policy => Loaded::Policy(Arc::new(plugins::load_bytes(host, name, bytes, put)?)),
        PluginSlot::Disguise => Loaded::Disguise(Arc::new(plugins::load_bytes(host, name, bytes, put)?)),
        PluginSlot::Recovery => Loaded::Recovery(Arc::new(plugins::load_bytes(host, name, bytes, put)?)),
    })
}

/// What came of trying the contract's rules: how many, how often in all, and the first that is broken.
struct Trial {
    rules: u64,
    tries: u64,
    broken: Option<String>,
}

fn try_rules(host: &PluginHost, name: &str, bytes: &[u8], put: &Put) -> Result<Trial, LoadError> {
    let found = conform::conform(host, name, bytes, &put.config, TRIAL)?;
    let broken = found.verdicts.iter().find_map(|each| Some((each.rule, each.broken.as_ref()?)));
    let broken = broken.map(|(rule, broken)| {
        format!("it breaks a rule of the contract: {rule}: {}", farseal_plugin::escaped(&broken.said))
    });
    let tries = found.verdicts.iter().map(|each| u64::from(each.tried)).sum();
    Ok(Trial { rules: u64::try_from(found.verdicts.len()).unwrap_or(u64::MAX), tries, broken })
}

/// What was found, a line each.
fn said(slot: PluginSlot, report: &SwapReport, broken: Option<&str>) -> Vec<String> {
    let kept = broken.map_or_else(|| "none is broken".to_owned(), |broken| format!("{broken}. It was here before"));
    let mut lines = vec![
        format!("{} in the place of {}", report.new.short(), report.old.short()),
        format!("{} rules of the contract tried, {} times in all; {kept}", report.rules, report.tries),
    ];
    if matches!(slot, PluginSlot::Cipher | PluginSlot::Disguise) {
        lines.push(format!(
            "a {slot}'s calls are not journalled; compared is what both make of the same made-up traffic:"
        ));
        lines.extend(report.contrasts.iter().map(contrast));
        return lines;
    }
    if report.calls == 0 {
        lines.push(format!("no call of the {slot} in force is journalled here: there are no decisions to compare"));
        return lines;
    }
    let differing = u64::try_from(report.differences.len()).unwrap_or(u64::MAX);
    let agreed = report.calls.saturating_sub(differing);
    lines.push(format!("{agreed} of {} journalled calls are decided as before, {differing} otherwise", report.calls));
    for each in report.differences.iter().take(DIFFERENCES_SHOWN) {
        let words = |words: &[String]| if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
        let (old, new) = (words(&each.old), words(&each.new));
        let at = farseal_plugin::scenario::units::instant(each.at);
        lines.push(format!("call {} at {at}, {}: {old} before, {new} now", each.call, each.event));
    }
    let more = report.differences.len().saturating_sub(DIFFERENCES_SHOWN);
    if more > 0 {
        lines.push(format!("and {more} calls more"));
    }
    lines
}

fn contrast(found: &Contrast) -> String {
    let Contrast { what, old, new } = found;
    if old == new { format!("{what}: {old}, as before") } else { format!("{what}: {old} before, {new} now") }
}

fn answer(
    message: String,
    details: Vec<String>,
    next: Option<String>,
    report: &SwapReport,
) -> Result<CommandReply, CommandError> {
    let failed = |error: serde_json::Error| CommandError::Failed { reason: error.to_string(), next: None };
    Ok(CommandReply { message, details, next, report: Some(serde_json::to_value(report).map_err(failed)?) })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CommandError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })
}

fn refused(error: &PluginsError) -> CommandError {
    CommandError::Refused { reason: error.to_string(), next: None }
}
