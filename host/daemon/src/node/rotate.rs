//! An operator asks for a new key: of the policy, or without it.

use std::time::Duration;

use farseal_core::primary::Command;
use farseal_core::rotation::{How, Refused, State as RotationState};
use farseal_core::units::{Epoch, Millis};
use farseal_plugin::Plugin as _;
use tokio::time::{Instant, sleep};

use super::key;
use super::operate::{LOOK_EVERY, PATIENCE, not_begun};
use super::pair::PairNode;
use crate::control::api::{CommandReply, Role, Rotate};
use crate::control::operator::CommandError;
use crate::lane::Lane;
use crate::lane::looks::{Heard, Looks};

/// A policy that was asked for a key and wanted one, and whose key did not come into force, is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Between a policy's answer and the beginning of its rotation.
const BEGINS_WITHIN: Duration = Duration::from_millis(200);
/// A policy that looks again so soon is waited for.
const SOON: Duration = Duration::from_secs(3);
/// How often the wait for a key looks again where a disguise hides it: the machine has enough to do at the command already.
const LOOK_HIDDEN: Duration = Duration::from_millis(500);

impl PairNode {
    /// How long the host's least interval since the last key still is.
    async fn until_next_rotation(&self) -> Result<Duration, CommandError> {
        let Some(key) = self.look().await?.status.key else { return Ok(Duration::ZERO) };
        let (since, now) = (key.since, self.shared.clock.now().wall);
        Ok(Duration::from_millis(self.config.key_limits.interval_min.0.saturating_sub(now.since(since).0)))
    }

    /// An epoch that no key has is somebody's slip: the policy would make nothing of it.
    pub(super) async fn suspect(&self, epoch: Epoch) -> Result<CommandReply, CommandError> {
        let newest =
            self.writer().and_then(|lane| lane.keyring.kept().iter().map(|package| key::epoch_of(package)).max());
        if let Some(newest) = newest.filter(|newest| !(Epoch::NONE.next()..=*newest).contains(&epoch)) {
            let reason = format!("no key has epoch {epoch}; the newest has {newest}");
            return Err(CommandError::BadParameter { parameter: "epoch", reason });
        }
        self.tell(Command::Suspect(epoch), "suspect").await?;
        Ok(CommandReply::new("the policy was told that the key may be known to others"))
    }

    pub(super) async fn rotate(&self, rotate: Rotate) -> Result<CommandReply, CommandError> {
        let Some(lane) = self.writer() else { return Err(self.other_side("rotate", Role::Primary)) };
        let mut before = lane.keybook.in_force_now();
        // Whoever knows the key may know the one that is on its way now.
        let mut is_drawn_before = rotate.suspect && self.look().await?.status.rotation != RotationState::Idle;
        if let Some(reason) = &rotate.reason {
            tracing::info!(pair = self.config.name, reason = %farseal_plugin::escaped(reason), "an operator asks for a new key");
        }
        if let (true, Some(epoch)) = (rotate.suspect, before) {
            self.tell(Command::Suspect(epoch), "rotate").await?;
        }
        let command = match (rotate.force, rotate.how) {
            _ if rotate.suspect => Command::Rotate(How::AtOnce),
            (false, None) => Command::RequestRotation,
            (_, Some(How::Pause)) => Command::Rotate(How::Pause),
            (_, Some(How::InBand)) => Command::Rotate(How::InBand),
            (true, None) => Command::Rotate(self.config.rotate),
            (_, Some(How::AtOnce)) => {
                return Err(CommandError::BadParameter {
                    parameter: "how",
                    reason: "`in-band` or `pause`; a key at once is the host's own business".into(),
                });
            }
        };
        if command == Command::RequestRotation {
            return self.request(&lane, before, rotate.reason.as_deref()).await;
        }
        let deadline = Instant::now() + PATIENCE;
        let earlier = lane.keybook.wish(rotate.reason.clone());
        while let Err(refused) = self.order(command, "rotate").await? {
            match refused {
                Refused::TooSoon { wait, .. } if Instant::now() + Duration::from_millis(wait.0) < deadline => {
                    sleep(Duration::from_millis(wait.0)).await;
                }
                Refused::UnderWay(_) if is_drawn_before && Instant::now() < deadline => {
                    sleep(LOOK_EVERY).await;
                    before = lane.keybook.in_force_now();
                    is_drawn_before = self.look().await?.status.rotation != RotationState::Idle;
                }
                // The policy heard of the suspicion and was quicker.
                Refused::UnderWay(_) if rotate.suspect => break,
                Refused::TooSoon { .. } | Refused::UnderWay(_) | Refused::LinkDown | Refused::Visible => {
                    lane.keybook.wish(earlier);
                    return Err(not_begun(refused));
                }
            }
        }
        let mut given_up = before;
        loop {
            if let Some(changed) = self.look_for_change(&lane, before).await? {
                return Ok(changed);
            }
            // A key that was not delivered before its start is void; each further one has more room.
            let void = lane.keybook.void_now();
            if void > given_up {
                let _ = lane.keybook.wish(rotate.reason.clone());
                match self.tell(command, "rotate").await {
                    Ok(()) => given_up = void,
                    Err(error) => {
                        tracing::debug!(pair = self.config.name, %error, "the rotation is not begun again yet");
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(CommandError::NotYet { what: "the rotation".into() });
            }
        }
    }

    /// Asks the policy, once; again only where it wanted a key and nothing came of that.
    async fn request(
        &self,
        lane: &Lane,
        before: Option<Epoch>,
        reason: Option<&str>,
    ) -> Result<CommandReply, CommandError> {
        let deadline = Instant::now() + PATIENCE;
        // What the policy asks for too soon is refused, and nobody would hear of it.
        let wait = self.until_next_rotation().await?;
        if wait >= PATIENCE {
            let interval = self.config.key_limits.interval_min;
            let wait = Millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            return Err(not_begun(Refused::TooSoon { interval, wait }));
        }
        sleep(wait).await;
        loop {
            let mut hears = lane.keybook.request(reason).ok_or_else(|| CommandError::Refused {
                reason: "others asked the policy for a key, and it has not answered them yet".into(),
                next: Some(
                    "ask again when they have their answer, or with --force: that does not ask the policy".into(),
                ),
            })?;
            self.tell(Command::RequestRotation, "rotate").await?;
            let (mut heard, mut since) = (None, Instant::now());
            loop {
                if let Some(changed) = self.look_for_change(lane, before).await? {
                    return Ok(changed);
                }
                if Instant::now() >= deadline {
                    return Err(CommandError::NotYet { what: "the rotation".into() });
                }
                let Some(word) = &heard else {
                    (heard, since) = (hears.try_recv().ok(), Instant::now());
                    continue;
                };
                let patience = match word {
                    Heard::Holds(looks, _) if !self.looks_soon(looks) => BEGINS_WITHIN,
                    Heard::Holds(..) => SOON + BEGINS_WITHIN,
                    Heard::Rotates => ASK_AGAIN,
                };
                // A key on its way is waited for, whoever asked for it.
                if since.elapsed() < patience || self.look().await?.status.rotation != RotationState::Idle {
                    continue;
                }
                match word {
                    Heard::Holds(looks, why) => return Err(self.held(looks, why.clone())),
                    Heard::Rotates => break,
                }
            }
        }
    }

    /// After a while: the answer, where the key is another than before.
    async fn look_for_change(&self, lane: &Lane, before: Option<Epoch>) -> Result<Option<CommandReply>, CommandError> {
        sleep(if self.config.is_disguised() { LOOK_HIDDEN } else { LOOK_EVERY }).await;
        if lane.keybook.in_force_now() != before {
            return Ok(Some(CommandReply::new("the key has changed")));
        }
        if self.writer().is_none() {
            return Err(self.other_side("rotate", Role::Primary));
        }
        Ok(None)
    }

    fn looks_soon(&self, looks: &Looks) -> bool {
        let now = self.shared.clock.now().wall;
        looks.at.is_some_and(|at| Duration::from_millis(at.since(now).0) <= SOON)
    }

    fn held(&self, looks: &Looks, why: Option<String>) -> CommandError {
        let policy = self.plugins.policy.current();
        let policy = policy.map_or_else(|| "-".into(), |policy| farseal_plugin::escaped(&policy.facts().about.name));
        let looks = looks.words(self.shared.clock.now().wall);
        CommandError::Held { pair: self.config.name.clone(), policy, looks, why }
    }
}
