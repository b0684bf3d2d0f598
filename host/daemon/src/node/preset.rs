//! Carries out a pair's presets: looks at the clock, pauses and resumes, and keeps durably whose pause it is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farseal_core::limits::PRESETS_MAX;
use farseal_core::preset::{Act, BadPreset, By, Preset, Presets, Turn};
use farseal_core::primary::{Command, PauseState};
use farseal_core::units::{Millis, WallTime};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::pair::PairNode;
use crate::config::sections::is_name;
use crate::control::api::{AddPreset, CommandReply, PauseStatus, PresetStatus, RemovePreset};
use crate::control::operator::CommandError;
use crate::store::{StoreError, files};

/// A wall clock may jump: it is looked at this often, whatever is due.
const LOOK_AT_LEAST: Duration = Duration::from_secs(2);
/// A file that holds more is not ours: a preset takes some 200 bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A pair's presets and their file.
#[derive(Debug)]
pub struct Schedule {
    file: PathBuf,
    presets: Mutex<Presets>,
    changed: Notify,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    presets: Presets,
}

/// Why presets cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PresetsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {source}; restore it, or remove it and add the presets again", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("{}: format {found}; this version reads format 1", path.display())]
    Format { path: PathBuf, found: u32 },
}

impl Schedule {
    /// Reads what an earlier run left in a pair's folder.
    pub fn open(directory: &Path) -> Result<Self, PresetsError> {
        let file = directory.join("presets.json");
        let presets = match files::read_if_there(&file, FILE_BYTES_MAX)? {
            None => Presets::default(),
            Some(bytes) => {
                let kept: Kept = serde_json::from_slice(&bytes)
                    .map_err(|source| PresetsError::Unreadable { path: file.clone(), source })?;
                if kept.format != 1 {
                    return Err(PresetsError::Format { path: file, found: kept.format });
                }
                kept.presets
            }
        };
        Ok(Self { file, presets: Mutex::new(presets), changed: Notify::new() })
    }

    /// Changes the presets; what is new is durable when this returns.
    fn change<T>(&self, change: impl FnOnce(&mut Presets) -> T) -> Result<T, StoreError> {
        let mut presets = self.presets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = presets.clone();
        let changed = change(&mut new);
        if new != *presets {
            let kept = Kept { format: 1, presets: new.clone() };
            files::write_atomically(&self.file, &serde_json::to_vec_pretty(&kept).unwrap_or_default())?;
            *presets = new;
            self.changed.notify_one();
        }
        Ok(changed)
    }

    fn now(&self) -> Presets {
        self.presets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PairNode {
    /// Follows the pair's presets until the node stops, whenever this site writes.
    pub async fn follow_presets(self: Arc<Self>) {
        let mut stop = self.shared.stop.subscribe();
        // A pause that was kept and not carried out, because the node ended in between.
        let held = self.schedule.now().hold().is_some();
        if held && !self.is_grouped() && self.is_paused().await == Some(false) {
            self.act(Act::Pause).await;
        }
        loop {
            let follows = self.follows_presets();
            if let Some(paused) = self.is_paused().await.filter(|_| follows) {
                let entropy = entropy();
                let now = self.shared.clock.now().wall;
                match self.schedule.change(|presets| presets.look(now, paused, entropy)) {
                    Ok(Some(act)) => self.act(act).await,
                    Ok(None) => {}
                    Err(error) => tracing::error!(pair = self.config.name, %error, "the presets cannot be kept"),
                }
            }
            let now = self.shared.clock.now().wall;
            let due = self.schedule.now().due().filter(|due| follows && *due > now);
            let due = due.map(|due| Duration::from_millis(due.since(now).0));
            let wait = due.map_or(LOOK_AT_LEAST, |due| due.min(LOOK_AT_LEAST));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.schedule.changed.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Among others it pauses and resumes with its group, and by itself only to end a pause of its own.
    fn follows_presets(&self) -> bool {
        !self.is_grouped() || self.schedule.now().hold().is_some()
    }

    /// Others are in its group; by the configuration, as long as the lead has said nothing of it.
    pub(super) fn is_grouped(&self) -> bool {
        match self.shared.site.status() {
            Some(site) => site.group_of(self.config.id).is_some(),
            None => self.shared.config.is_grouped(&self.config),
        }
    }

    async fn is_paused(&self) -> Option<bool> {
        Some(self.look().await.ok()?.status.pause != PauseState::Running)
    }

    async fn act(&self, act: Act) {
        let command = match act {
            Act::Pause => Command::Pause,
            Act::Resume => Command::Resume,
        };
        tracing::info!(pair = self.config.name, ?act, "by the presets, or because a pause is over");
        if let Err(error) = self.tell(command, "preset").await {
            tracing::warn!(pair = self.config.name, %error, "what is due by the presets could not be done");
        }
    }

    pub(super) fn add_preset(&self, new: &AddPreset) -> Result<CommandReply, CommandError> {
        let now = self.shared.clock.now().wall;
        let added = self.schedule.change(|presets| add(presets, new, now)).map_err(|error| not_kept(&error))?;
        added.map(CommandReply::new)
    }

    pub(super) fn remove_preset(&self, old: &RemovePreset) -> Result<CommandReply, CommandError> {
        let name = &self.config.name;
        let change = |presets: &mut Presets| remove(presets, old, &format!("pair {name}"), name);
        self.schedule.change(change).map_err(|error| not_kept(&error))?.map(CommandReply::new)
    }

    /// An operator pauses. Says whose pause it becomes his in place of.
    pub(super) fn hold(&self, by: Option<String>, span: Option<Millis>) -> Result<Option<String>, CommandError> {
        let now = self.shared.clock.now().wall;
        let held = |presets: &mut Presets| {
            let before = presets.hold().map(|hold| hold.by.clone());
            presets.pause(now, by, span);
            before.and_then(|by| if let By::Preset(name) = by { Some(name) } else { None })
        };
        self.schedule.change(held).map_err(|error| not_kept(&error))
    }

    /// A preset holds the pause: an operator may take it over.
    pub(super) fn is_held_by_preset(&self) -> bool {
        self.schedule.now().hold().is_some_and(|hold| matches!(hold.by, By::Preset(_)))
    }

    /// An operator resumes.
    pub(super) fn let_go(&self) -> Result<(), CommandError> {
        self.schedule.change(Presets::resume).map_err(|error| not_kept(&error))
    }

    pub(super) fn pause_status(&self) -> (Option<PauseStatus>, Vec<PresetStatus>) {
        let presets = self.schedule.now();
        (pause_shown(&presets), shown(&presets))
    }
}

/// Adds a preset of a pair or a group; what is said of it then.
pub(crate) fn add(presets: &mut Presets, add: &AddPreset, now: WallTime) -> Result<String, CommandError> {
    if !is_name(&add.name) {
        let reason = "1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', first a letter or digit".to_owned();
        return Err(CommandError::BadParameter { parameter: "name", reason });
    }
    let preset = match &add.preset {
        Preset::Interval { every, span, .. } => Preset::Interval { every: *every, span: *span, from: now },
        other @ (Preset::TimeOfDay { .. } | Preset::Irregular { .. }) => other.clone(),
    };
    let refused = |bad: BadPreset| CommandError::Refused { reason: bad.to_string(), next: None };
    presets.add(&add.name, preset).map_err(refused)?;
    Ok(format!("preset {} is in force; there may be {PRESETS_MAX} of them", add.name))
}

/// Removes a preset of `whose`, a pair or a group, which commands name by `target`.
pub(crate) fn remove(
    presets: &mut Presets,
    remove: &RemovePreset,
    whose: &str,
    target: &str,
) -> Result<String, CommandError> {
    if presets.remove(&remove.name) {
        return Ok(format!("preset {} is gone; a pause that it holds ends", remove.name));
    }
    let reason = format!("{whose} has no preset {:?}", remove.name);
    Err(CommandError::Refused { reason, next: Some(format!("`farseal preset list {target}`")) })
}

/// Whose pause it is, for a console.
pub(crate) fn pause_shown(presets: &Presets) -> Option<PauseStatus> {
    presets.hold().map(|hold| PauseStatus {
        by: hold.by.to_string(),
        since: hold.since,
        until: hold.until.or_else(|| until(presets, &hold.by)),
    })
}

/// What there is, for a console.
pub(crate) fn shown(presets: &Presets) -> Vec<PresetStatus> {
    let each = |(name, preset, turn): (&str, &Preset, Option<Turn>)| PresetStatus {
        name: name.to_owned(),
        preset: preset.clone(),
        holds: turn.is_some_and(|turn| turn.holds),
        until: turn.map(|turn| turn.until),
    };
    presets.list().map(each).collect()
}

/// When the window of the preset that holds ends.
fn until(presets: &Presets, by: &By) -> Option<WallTime> {
    let By::Preset(holder) = by else { return None };
    let turn = presets.list().find(|(name, ..)| name == holder).and_then(|(_, _, turn)| turn)?;
    turn.holds.then_some(turn.until)
}

fn not_kept(error: &StoreError) -> CommandError {
    CommandError::Failed {
        reason: error.to_string(),
        next: Some("mend the state folder's disk, then try again".into()),
    }
}

/// Without chance an irregular preset is a regular one: no reason to stop.
pub(crate) fn entropy() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}
