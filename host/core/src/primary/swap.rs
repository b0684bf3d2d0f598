//! A planned change of sides: this site stops at one record that both hold, and the other goes on from there.
//!
//! ```text
//!   none ──HandOver──▶ Draining ──the cut has its place──▶ Cutting ──acknowledged──▶ Keeping ──durable──▶ Asking ──▶ done
//!    ▲  └─Quiesce─▶ Quiesced ─HandOver─▶ Draining             │                                          │  ▲
//!    └─ GoOn, too long, link down, behind, paused, late write ┘                            path lost, restart ┘
//! ```
//!
//! The lanes of a group are quiesced first, all of them: new writes wait, what was accepted flows, and a cut of the group
//! can be made over what all of them hold. Only when every copy has that cut does any of them hand over, so that
//! whatever is lost in between, the copies agree.
//!
//! Up to `Cutting` nothing has happened that the other site knows of, and this one goes on. From `Keeping` on it
//! never writes again under its generation: only the other site knows whether it has taken over, and says so in its
//! answer, or by refusing an attach with its newer generation. So there are never two that write; and the other
//! site's operator can have it take over if the question never reaches it. Where that site is lost for good, this one's
//! operator can have the lane end and another go on, above the generation that was handed over: see
//! [`crate::lineage::Lineage::taken_back`].

use serde::{Deserialize, Serialize};

use super::*;

/// How far a change of sides is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwapState {
    /// New writes wait until the other lanes of the group are as far.
    Quiesced,
    /// What was accepted goes to the other site; new writes wait.
    Draining,
    /// It is being made durable here that the other site goes on.
    Keeping,
    /// The other site is asked; only it knows who writes.
    Asking,
}

impl std::fmt::Display for SwapState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quiesced => "the group's other pairs were not as far in time",
            Self::Draining => "the other site did not have everything in time",
            Self::Keeping => "it could not be kept here",
            Self::Asking => "the other site was asked",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Until then; what was accepted goes on.
    Quiesced {
        until: Instant,
    },
    /// Every write up to here comes before the cut.
    Draining {
        after: Order,
        until: Instant,
    },
    /// The cut has this place.
    Cutting {
        at: Sequence,
        until: Instant,
    },
    Keeping(HandOver),
    /// Initiators' writes wait until then, and are refused from then on.
    Asking {
        hand_over: HandOver,
        asked: Option<Path>,
        until: Instant,
    },
}

impl Stage {
    /// After a restart: whether the other site has taken over is not known.
    pub(super) fn again(hand_over: HandOver) -> Self {
        Self::Asking { hand_over, asked: None, until: Instant(0) }
    }

    pub(super) fn state(&self) -> SwapState {
        match self {
            Self::Quiesced { .. } => SwapState::Quiesced,
            Self::Draining { .. } | Self::Cutting { .. } => SwapState::Draining,
            Self::Keeping(_) => SwapState::Keeping,
            Self::Asking { .. } => SwapState::Asking,
        }
    }
}

impl Primary {
    /// Can sides be changed now? Only while every record goes to the secondary in its order.
    pub(super) fn may_swap(&self) -> bool {
        self.settings.paired
            && self.link_up()
            && self.pause.is_none()
            && !self.transfer.is_full()
            && self.transfer.diverged().is_none()
            && !self.journal_failed
            && self.copying.state() == CopyState::InOrder
    }

    /// Told again, it stands still for as long again: it may have missed that an earlier change of sides came to nothing.
    pub(super) fn quiesce(&mut self, now: Now) {
        let stands = matches!(self.swap, None | Some(Stage::Quiesced { .. }));
        if !stands || self.fenced.is_some() {
            return;
        }
        if self.may_swap() {
            self.swap = Some(Stage::Quiesced { until: now.instant.plus(SWAP_HOLD_MAX) });
        } else {
            self.alarm(now, Alarm::SwapEnded(SwapState::Quiesced));
        }
    }

    /// The group does not change sides after all. What the other site may have been asked stays asked.
    pub(super) fn end_quiesce(&mut self) {
        if matches!(self.swap, Some(Stage::Quiesced { .. } | Stage::Draining { .. } | Stage::Cutting { .. })) {
            self.swap = None;
        }
    }

    pub(super) fn begin_swap(&mut self, now: Now) {
        if let Some(Stage::Quiesced { .. }) = self.swap {
            // The decision is made: as long again for the last records.
            let until = now.instant.plus(SWAP_HOLD_MAX);
            self.swap = Some(Stage::Draining { after: self.accepted, until });
            return;
        }
        if self.swap.is_some() || self.fenced.is_some() {
            return;
        }
        if self.may_swap() {
            let until = now.instant.plus(SWAP_HOLD_MAX);
            self.swap = Some(Stage::Draining { after: self.accepted, until });
        } else {
            self.alarm(now, Alarm::SwapEnded(SwapState::Draining));
        }
    }

    pub(super) fn swap_timeout(&self) -> Option<Instant> {
        match self.swap? {
            Stage::Quiesced { until } | Stage::Draining { until, .. } | Stage::Cutting { until, .. } => Some(until),
            Stage::Asking { until, .. } => Some(until),
            Stage::Keeping(_) => None,
        }
    }

    /// Nobody knows who writes, for longer than initiators should wait to hear it.
    pub(super) fn swap_hangs(&self) -> bool {
        matches!(self.swap, Some(Stage::Asking { until, .. }) if self.told >= until)
    }

    /// Writes that come all the same, because they were on their way: before the cut they have their place, between cut
    /// and question they end the swap, and after it they are refused.
    pub(super) fn takes_writes(&mut self) -> bool {
        match self.swap {
            None | Some(Stage::Quiesced { .. }) => true,
            Some(Stage::Draining { .. }) => {
                let after = Order(self.accepted.0 + 1);
                if let Some(Stage::Draining { after: last, .. }) = &mut self.swap {
                    *last = after;
                }
                true
            }
            Some(Stage::Cutting { .. }) => {
                self.swap = None;
                true
            }
            Some(Stage::Keeping(_) | Stage::Asking { .. }) => false,
        }
    }

    /// Commands that would change what is handed over wait for its end; before the cut has its place they end it.
    pub(super) fn swap_allows(&mut self, command: Command) -> bool {
        let harmless = match command {
            Command::RequestRotation
            | Command::Suspect(_)
            | Command::PolicyChanged
            | Command::SetMode(_)
            | Command::SetWay(_)
            | Command::SetLimits(_)
            | Command::Quiesce
            | Command::GoOn
            | Command::HandOver => true,
            Command::Pause | Command::Resume | Command::Rotate(_) | Command::CopyAll => false,
        };
        match self.swap {
            _ if harmless => true,
            None => true,
            Some(Stage::Quiesced { .. } | Stage::Draining { .. } | Stage::Cutting { .. }) => {
                self.swap = None;
                true
            }
            Some(Stage::Keeping(_) | Stage::Asking { .. }) => false,
        }
    }

    /// The cut is next: everything before it has its place.
    pub(super) fn swap_cut_due(&self) -> bool {
        matches!(self.swap, Some(Stage::Draining { after, .. }) if self.queue.is_empty() && self.planned >= after)
    }

    pub(super) fn swap_cut_placed(&mut self, at: Sequence) {
        if let Some(Stage::Draining { until, .. }) = self.swap {
            self.swap = Some(Stage::Cutting { at, until });
        }
    }

    /// Nothing may be placed behind the cut.
    pub(super) fn swap_is_cut(&self) -> bool {
        matches!(self.swap, Some(Stage::Cutting { .. } | Stage::Keeping(_) | Stage::Asking { .. }))
    }

    pub(super) fn run_swap(&mut self, now: Now) {
        match self.swap {
            None => {}
            Some(Stage::Quiesced { until }) if now.instant >= until || !self.may_swap() => {
                self.swap = None;
                self.alarm(now, Alarm::SwapEnded(SwapState::Quiesced));
            }
            Some(Stage::Draining { until, .. } | Stage::Cutting { until, .. })
                if now.instant >= until || !self.may_swap() =>
            {
                self.swap = None;
                self.alarm(now, Alarm::SwapEnded(SwapState::Draining));
            }
            Some(Stage::Cutting { at, .. }) if self.transfer.acked() == at => {
                let chain = self.transfer.acked_chain();
                let hand_over = HandOver { generation: self.settings.generation.next(), at, chain };
                self.swap = Some(Stage::Keeping(hand_over));
                self.outputs.push_back(Output::PersistHandOver { hand_over });
            }
            Some(Stage::Asking { hand_over, asked: None, until }) if self.transfer.diverged().is_none() => {
                if let Some(path) = self.transfer.any_path() {
                    self.swap = Some(Stage::Asking { hand_over, asked: Some(path), until });
                    self.outputs.push_back(Output::SendHandOver { path, hand_over });
                }
            }
            Some(
                Stage::Quiesced { .. }
                | Stage::Draining { .. }
                | Stage::Cutting { .. }
                | Stage::Keeping(_)
                | Stage::Asking { .. },
            ) => {}
        }
    }

    pub(super) fn on_hand_over_persisted(&mut self, now: Now) {
        if let Some(Stage::Keeping(hand_over)) = self.swap {
            let until = now.instant.plus(SWAP_HOLD_MAX);
            self.swap = Some(Stage::Asking { hand_over, asked: None, until });
        }
    }

    /// Nothing was asked: this site goes on.
    pub(super) fn on_hand_over_not_persisted(&mut self, now: Now) {
        if let Some(Stage::Keeping(_)) = self.swap {
            self.swap = None;
            self.alarm(now, Alarm::SwapEnded(SwapState::Keeping));
        }
    }

    pub(super) fn swap_path_lost(&mut self, path: Path) {
        if let Some(Stage::Asking { asked, .. }) = &mut self.swap
            && *asked == Some(path)
        {
            *asked = None;
        }
    }

    /// The secondary has a newer generation: the one that it was asked to take, or one of its own.
    pub(super) fn on_newer_generation(&mut self, now: Now, generation: Generation) {
        match self.swap {
            Some(Stage::Asking { hand_over, .. }) if hand_over.generation == generation => {
                if self.fenced.is_none() {
                    self.fenced = Some(generation);
                    for path in self.transfer.close() {
                        self.outputs.push_back(Output::ClosePath { path });
                    }
                    self.outputs.push_back(Output::HandedOver { hand_over });
                }
            }
            None | Some(_) => {
                if generation > self.settings.generation {
                    self.swap = None;
                    self.fence(now, generation);
                }
            }
        }
    }
}
