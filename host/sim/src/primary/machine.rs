//! What the primary's machine says, carried out; and completions of what was begun.

use farseal_core::flow::Transfer;
use farseal_core::primary::{Alarm, Divergence, Input, Output, Primary, StoreFault, What};
use farseal_core::rotation::How;
use farseal_core::units::ByteLen;

use super::{Buffered, MapOperation, PrimaryEvent, TICK_MS_MAX};
use crate::check::{Checker, Failure};
use crate::disk::{to_usize, wide};
use crate::faults::Fault;
use crate::link::{Message, Side};
use crate::mutation::Mutation;
use crate::stats::Sometimes;
use crate::world::{Event, Outcome, World, block_bytes};

impl World {
    pub fn tell_primary(&mut self, input: Input) -> Outcome {
        let now = self.clock();
        self.trace.note(self.now, || format!("  primary <- {input:?}"));
        let Some(machine) = &mut self.primary.machine else { return Ok(()) };
        machine.handle(now, input);
        self.carry_out_primary()
    }

    pub(super) fn carry_out_primary(&mut self) -> Outcome {
        while let Some(output) = self.primary.machine.as_mut().and_then(Primary::poll_output) {
            self.trace.note(self.now, || format!("  primary -> {output:?}"));
            self.primary_does(output)?;
        }
        let now = self.clock();
        let Some(machine) = &self.primary.machine else { return Ok(()) };
        self.owed_may_have_changed = true;
        if self.settings.mutation == Some(Mutation::TicksLost) {
            return Ok(());
        }
        let timeout = machine.poll_timeout(now);
        if timeout.is_some_and(|(_, why)| why.contains("throttle")) {
            self.stats.see(Sometimes::Throttled);
        }
        if let Some((at, _)) = timeout
            && self.primary.tick_at.is_none_or(|before| at < before)
        {
            self.primary.tick_at = Some(at);
            // A policy that talks nonsense may set its timer further than microseconds can be counted.
            let delay = at.since(now.instant).0.clamp(1, TICK_MS_MAX) * 1000;
            let life = self.primary.life;
            self.after(delay, Event::Tick { side: Side::Primary, life });
        }
        Ok(())
    }

    fn primary_does(&mut self, output: Output) -> Outcome {
        let life = self.primary.life;
        let soon = |event| Event::Primary { life, event };
        match output {
            Output::Reply { ticket, result } => self.reply(ticket, result.is_ok()),
            Output::Commit { records, durable, restart } => self.commit(&records, durable, restart),
            Output::RetryCommit => {
                self.primary.held = false;
                if self.settings.mutation == Some(Mutation::SealedAgain) {
                    self.seal_again()?;
                }
                self.append_next();
                Ok(())
            }
            Output::SyncJournal => {
                let (mark, through) = (self.primary.tape.mark(), self.model.last());
                let event = if self.faults.strikes(Fault::JournalSyncFails) {
                    PrimaryEvent::SyncFailed { mark, through }
                } else {
                    PrimaryEvent::Synced { mark, through }
                };
                let delay = self.sync_delay(3_000);
                self.after(delay, soon(event));
                Ok(())
            }
            Output::Destage { through } => {
                let delay = self.disk_delay(1_000);
                self.after(delay, soon(PrimaryEvent::Destaged { through }));
                Ok(())
            }
            Output::SyncHome => {
                let event = PrimaryEvent::HomeSynced { mark: self.primary.home.mark(), through: self.primary.destaged };
                let delay = self.sync_delay(5_000);
                self.after(delay, soon(event));
                Ok(())
            }
            Output::TrimJournal { through } => {
                self.primary.tape.trim(through);
                let bytes = ByteLen(self.primary.tape.bytes());
                self.tell_primary_later(Input::JournalBytes { bytes })
            }
            Output::ReadForCopy { extent, at_once } => {
                // The disk reads at one instant of the time that it takes: the first, which is the hardest case.
                let image = match self.settings.mutation {
                    Some(Mutation::CopyReadWithoutTheBuffer) => self.primary.home.image(),
                    _ => self.primary.read_all(),
                };
                let from = to_usize(extent.first().0);
                let stamps = image[from..from + to_usize(extent.blocks().0)].to_vec();
                if at_once {
                    self.stats.see(Sometimes::CopyReadAtOnce);
                    return self.primary_event(PrimaryEvent::CopyRead { extent, stamps });
                }
                let delay = self.disk_delay(4_000);
                self.after(delay, soon(PrimaryEvent::CopyRead { extent, stamps }));
                Ok(())
            }
            Output::DiscardCopy { ticket } => {
                self.stats.see(Sometimes::CopyDiscarded);
                let site = &mut self.primary;
                if let Some(place) = site.buffer.iter().position(|entry| entry.ticket == ticket)
                    && let Some(entry) = site.buffer.remove(place)
                {
                    site.buffered_bytes -= wide(entry.stamps.len()) * block_bytes().as_u64();
                }
                Ok(())
            }
            Output::PersistOwed { stamp, acked, acked_chain } => {
                let bytes = self.primary.machine.as_ref().and_then(Primary::encode_owed);
                let bytes = bytes.unwrap_or_default();
                self.map_operation(MapOperation::Write { stamp, bytes, acked, acked_chain });
                Ok(())
            }
            Output::DropOwed => {
                self.stats.see(Sometimes::ResyncEnded);
                self.map_operation(MapOperation::Remove);
                Ok(())
            }
            Output::Send { path, range, slots } => {
                let path = self.carrier(path)?;
                self.send_records(path, range.first, range.last, slots)
            }
            Output::ClosePath { path } => {
                self.close_path(path, Side::Primary);
                Ok(())
            }
            Output::PrepareEpoch { epoch, how, .. } => {
                match how {
                    How::InBand => self.stats.see(Sometimes::RotationInBand),
                    How::Pause => self.stats.see(Sometimes::RotationPause),
                    How::AtOnce => self.stats.see(Sometimes::RotationAtOnce),
                }
                let (now, limits) = (self.clock().instant, self.primary.settings.key_limits);
                self.ceilings.begun(now, limits, life, how)?;
                let most = if self.faults.strikes(Fault::EpochSlow) { 10_000_000 } else { 20_000 };
                let delay = self.dice_life.between(10, most);
                self.after(delay, soon(PrimaryEvent::EpochReady { epoch }));
                Ok(())
            }
            Output::PlanSlots => {
                let most = if self.faults.strikes(Fault::EpochSlow) { 10_000_000 } else { 20_000 };
                let delay = self.disguise.dice.between(10, most);
                self.after(delay, soon(PrimaryEvent::SlotsPlanned));
                Ok(())
            }
            Output::CarryKey { number, planned } => {
                let rec = self.seal(&planned)?;
                self.slots.carry(number, planned, rec)
            }
            Output::ShamInForce => {
                self.stats.see(Sometimes::ShamInForce);
                Ok(())
            }
            Output::AskPolicy { event: _ } => {
                let delay = self.dice_life.between(10, 50_000);
                self.after(delay, soon(PrimaryEvent::PolicyDecides));
                Ok(())
            }
            Output::PersistFence { generation } => {
                if self.crash_around_the_fence() {
                    // It learns it again.
                    return Ok(());
                }
                self.sides.knows = true;
                self.primary.fenced =
                    Some(generation).filter(|_| self.settings.mutation != Some(Mutation::FenceForgotten));
                Ok(())
            }
            Output::PersistHandOver { hand_over } => {
                self.primary.handing = Some(hand_over);
                if self.settings.mutation == Some(Mutation::HandOverNotKept) {
                    return self.tell_primary(Input::HandOverPersisted);
                }
                // Now and then it takes long enough for a crash to come between.
                let crashes = self.faults.has(Fault::CrashPrimary) || self.faults.has(Fault::CrashBoth);
                let most = if crashes && self.dice_disk.chance(500) { 1_000_000 } else { 3_000 };
                let delay = self.disk_delay(most);
                self.after(delay, soon(PrimaryEvent::HandOverKept));
                Ok(())
            }
            Output::SendHandOver { path, hand_over } => {
                self.send(path, Side::Secondary, Message::HandOver(hand_over));
                Ok(())
            }
            Output::HandedOver { hand_over } => self.handed_over(&hand_over),
            Output::PersistMode { mode } => {
                self.primary.mode = Some(mode);
                Ok(())
            }
            Output::PersistWay { way } => {
                self.primary.carrier = None;
                self.primary.chosen.way = Some(way);
                self.stats.see(match way.transfer {
                    Transfer::Ordered => Sometimes::TransferOrdered,
                    Transfer::Scheduled => Sometimes::TransferScheduled,
                });
                Ok(())
            }
            Output::PersistLimits { limits } => {
                self.primary.chosen.limits = Some(limits);
                self.stats.see(Sometimes::ThrottleChanged);
                Ok(())
            }
            Output::PersistPause { paused } => {
                self.primary.paused = paused;
                self.stats.see(Sometimes::PausedByOperator);
                Ok(())
            }
            Output::Alarm(alarm) => {
                match alarm {
                    Alarm::JournalFull => self.stats.see(Sometimes::JournalFull),
                    Alarm::SecondaryFull => self.stats.see(Sometimes::SecondaryFull),
                    Alarm::EpochVoid(_) => self.stats.see(Sometimes::RotationVoided),
                    Alarm::KeyRefused { .. } => self.stats.see(Sometimes::KeyRefused),
                    Alarm::EscrowSilent(_) => self.stats.see(Sometimes::EscrowLate),
                    Alarm::HardLimit => self.stats.see(Sometimes::HeldAtHardLimit),
                    Alarm::Behind => self.stats.see(Sometimes::JournalOverflow),
                    Alarm::JournalFailed | Alarm::Home(StoreFault::Failed) => self.primary.broken = true,
                    // Not a false one: a disk was set back.
                    Alarm::Diverged(_) if self.rollback.happened() => {}
                    Alarm::Diverged(Divergence::Fenced(_)) if self.sides.forked.is_some() => {
                        self.stats.see(Sometimes::Fenced);
                    }
                    Alarm::SwapEnded(_) => self.stats.see(Sometimes::SwapGivenUp),
                    Alarm::SequenceEnd => {
                        self.stats.see(Sometimes::SequenceEnd);
                        self.order_ended = true;
                    }
                    Alarm::Diverged(divergence) => {
                        return Err(Failure::new(Checker::Liveness, format!("false alarm: {divergence}")));
                    }
                    Alarm::Home(StoreFault::Full | StoreFault::Unsealed)
                    | Alarm::HighWater
                    | Alarm::EpochNotPrepared(_)
                    | Alarm::CannotSeal
                    | Alarm::SeedAwaited
                    | Alarm::ModeNotKept(_) => {}
                }
                Ok(())
            }
            Output::EpochInForce { epoch } => {
                self.primary.in_force = Some(epoch);
                self.ceilings.in_force(self.clock().instant, life, epoch);
                Ok(())
            }
            Output::DiscardEpoch { .. } | Output::SeedArrived | Output::CommandAnswered(_) => Ok(()),
        }
    }

    /// An input that follows from an output: after the outputs that stand before it.
    fn tell_primary_later(&mut self, input: Input) -> Outcome {
        let now = self.clock();
        if let Some(machine) = &mut self.primary.machine {
            machine.handle(now, input);
        }
        Ok(())
    }

    pub fn primary_event(&mut self, event: PrimaryEvent) -> Outcome {
        match event {
            PrimaryEvent::Appended => self.appended(),
            PrimaryEvent::Synced { mark, through } => {
                if self.settings.mutation != Some(Mutation::SyncLies) {
                    self.primary.tape.synced(mark);
                }
                self.primary.durable_on_disk = self.primary.durable_on_disk.max(through);
                self.tell_primary(Input::JournalSynced { through })
            }
            PrimaryEvent::SyncFailed { mark, through } => {
                if self.drops() {
                    self.primary.tape.sync_dropped(mark);
                }
                if self.settings.mutation == Some(Mutation::JournalSyncRetried) {
                    return self.primary_event(PrimaryEvent::Synced { mark, through });
                }
                self.primary.broken = true;
                self.tell_primary(Input::JournalSyncFailed)
            }
            PrimaryEvent::Destaged { through } => self.destaged(through),
            PrimaryEvent::HomeSynced { mark, through } => {
                if self.faults.strikes(Fault::HomeSyncFails) {
                    if self.drops() {
                        self.primary.home.sync_dropped(&mark);
                    }
                    if self.settings.mutation != Some(Mutation::HomeSyncRetried) {
                        return self.tell_primary(Input::HomeSyncFailed);
                    }
                }
                self.primary.home.synced(&mark);
                self.primary.homed = self.primary.homed.max(through);
                self.tell_primary(Input::HomeSynced { through })
            }
            PrimaryEvent::MapDone => match self.do_map_operation() {
                Some((stamp, true)) => self.tell_primary(Input::OwedPersisted { stamp }),
                Some((stamp, false)) => self.tell_primary(Input::OwedPersistFailed { stamp }),
                None => Ok(()),
            },
            PrimaryEvent::HandOverKept => {
                self.primary.handing_over = self.primary.handing.take();
                self.tell_primary(Input::HandOverPersisted)
            }
            PrimaryEvent::EpochReady { epoch } => self.epoch_ready(epoch),
            PrimaryEvent::Escrowed { epoch } => {
                self.primary.receipts.insert(epoch);
                self.stats.see(Sometimes::KeyEscrowed);
                self.tell_primary(Input::EpochEscrowed { epoch })
            }
            PrimaryEvent::EscrowRefused { epoch } => self.tell_primary(Input::EpochFailed { epoch }),
            PrimaryEvent::SlotsPlanned => {
                let input = self.disguise.answer();
                self.tell_primary(input)
            }
            PrimaryEvent::PolicyDecides => {
                let wall = self.clock().wall;
                let decisions = self.policy.decide(wall, &mut self.dice_life);
                self.tell_primary(Input::PolicyDecided { decisions })
            }
            PrimaryEvent::CopyRead { extent, stamps } => {
                if self.faults.strikes(Fault::CopyReadFails) {
                    return self.tell_primary(Input::CopyReadFailed { extent });
                }
                self.stats.see(Sometimes::CopyRead);
                let ticket = self.ticket();
                let empty = stamps.iter().all(|stamp| *stamp == 0);
                let (what, stamps) = if empty { (What::Zero, Vec::new()) } else { (What::Data, stamps) };
                if empty {
                    self.stats.see(Sometimes::CopyOfZeroes);
                }
                self.primary.buffered_bytes += wide(stamps.len()) * block_bytes().as_u64();
                self.primary.buffer.push_back(Buffered { ticket, extent, stamps, order: None, last: None });
                self.tell_primary(Input::CopyRead { ticket, what, extent })
            }
        }
    }
}
