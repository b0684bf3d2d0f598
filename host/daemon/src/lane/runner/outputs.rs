//! What the [`Primary`](farseal_core::primary::Primary) decided, carried out in its order.

use farseal_core::primary::{Input, Output, PolicyEvent, ReplyError, Wish};
use farseal_core::units::Sequence;

use super::{Commit, Runner};
use crate::control::api::RotationWord;
use crate::lane::{commit, destage, policy_journal, state};
use crate::link::dial::Send;
use crate::nbd::completion::Batch;
use crate::nbd::export::{Answer, Errno};

impl Runner {
    pub(super) fn carry_out(&mut self) {
        let mut batch = Batch::default();
        while let Some(output) = self.primary.poll_output() {
            self.carry_out_one(output, &mut batch);
        }
    }

    fn carry_out_one(&mut self, output: Output, batch: &mut Batch) {
        match output {
            Output::Reply { ticket, result } => {
                if let Some(reply) = self.replies.remove(&ticket) {
                    reply.done_in(
                        batch,
                        result.map(|()| Answer::Done).map_err(|error| match error {
                            ReplyError::NoSpace => Errno::NoSpc,
                            ReplyError::Io => Errno::Io,
                            ReplyError::Fenced => Errno::Shutdown,
                        }),
                    );
                }
            }
            Output::Commit { records, durable, restart } => {
                // Initiators that were answered need not wait for the sealing.
                drop(std::mem::take(batch));
                self.commits.push_back(Commit::Planned(commit::Plan { records, durable, restart }));
                if !self.stalled {
                    self.run_commits();
                }
            }
            Output::RetryCommit => self.run_commits(),
            Output::SyncJournal => drop(self.syncer.send(())),
            Output::Destage { through } => {
                let ready = self.destage_queue.partition_point(|write| write.sequence <= through);
                let writes = self.destage_queue.drain(..ready).collect();
                let _ = self.destager.send(destage::Job::Destage { writes, through });
            }
            Output::SyncHome => {
                let through = self.primary.status().destaged;
                let _ = self.destager.send(destage::Job::Sync { through });
            }
            Output::TrimJournal { through } => {
                let trimmed = self.journal.trim(through);
                if let Err(error) = trimmed {
                    self.note_fault("trim the journal", &error);
                }
                let bytes = self.journal.bytes();
                self.primary.handle(self.clock.now(), Input::JournalBytes { bytes });
            }
            Output::ReadForCopy { extent, at_once: false } => drop(self.reader.send(extent)),
            Output::ReadForCopy { extent, at_once: true } => self.read_at_once(extent),
            Output::DiscardCopy { ticket } => {
                self.copies.remove(&ticket);
                self.writes.remove(&ticket);
            }
            Output::PersistOwed { stamp, acked, acked_chain } => {
                self.state.acked = acked;
                self.state.acked_chain = acked_chain;
                let saved = self
                    .primary
                    .encode_owed()
                    .map_or(Ok(()), |bytes| state::save_owed(&self.directory, &bytes))
                    .and_then(|()| self.state.save(&self.directory));
                let input = match saved {
                    Ok(()) => Input::OwedPersisted { stamp },
                    Err(error) => {
                        self.note_fault("save the dirty map", &error);
                        Input::OwedPersistFailed { stamp }
                    }
                };
                self.primary.handle(self.clock.now(), input);
            }
            Output::DropOwed => {
                if let Err(error) = state::drop_owed(&self.directory) {
                    self.note_fault("remove the dirty map", &error);
                }
            }
            Output::Send { path, range, slots } => self.send(path, range, slots),
            Output::CarryKey { number, planned } => self.carry(number, &planned),
            Output::ClosePath { path } => {
                if let Some(jobs) = self.paths.remove(&path) {
                    let _ = jobs.send(Send::Close);
                }
            }
            Output::PrepareEpoch { epoch, how, by } => {
                let (word, reason) = match by {
                    Wish::Policy(id) => {
                        (RotationWord::Policy, policy_journal::reason(&self.plugins.policy_journal, id))
                    }
                    Wish::Operator => (RotationWord::Operator, self.keybook.take_wish()),
                    Wish::FirstKey => (RotationWord::FirstKey, None),
                    Wish::HostLimit => (RotationWord::HostLimit, None),
                    Wish::CatchUp => (RotationWord::CatchUp, None),
                };
                self.keybook.begun(epoch, how, word, reason, self.clock.now().wall);
                let recent = self.outbox.recent();
                self.keywork.prepare(epoch, how, recent, self.clock.now().instant);
            }
            Output::DiscardEpoch { epoch } => {
                self.keybook.void(epoch, self.clock.now().wall);
                self.committer.discard(epoch);
                if let Err(error) = self.keyring.discard(epoch) {
                    tracing::warn!(pair = self.name, %error, "an epoch's package could not be removed");
                }
            }
            Output::EpochInForce { epoch } => {
                let start = self.keyring.terms(epoch).map_or(Sequence::NONE, |terms| Sequence(terms.start_seq));
                self.keybook.in_force(epoch, start, &self.primary.keys(), self.clock.now().wall);
                self.committer.in_force(epoch);
            }
            Output::PlanSlots => self.keywork.plan_slots(self.outbox.recent()),
            Output::ShamInForce => {
                self.committer.as_in_force();
                let (keys, limits) = (self.primary.keys(), self.primary.key_limits());
                self.keybook.as_in_force(&keys);
                self.policy.rehearse(self.clock.now(), keys, limits, self.primary.link_up());
            }
            Output::AskPolicy { event } => self.policy.ask(
                self.clock.now(),
                if event == PolicyEvent::Requested { self.keybook.take_requests() } else { Vec::new() },
                event,
                self.primary.keys(),
                self.primary.key_limits(),
                self.primary.link_up(),
            ),
            Output::CommandAnswered(answer) => {
                if let Some(done) = self.operators.pop_front() {
                    done(answer);
                }
            }
            Output::PersistFence { generation } => {
                self.state.fenced = Some(generation);
                self.save_state();
            }
            Output::PersistHandOver { hand_over } => {
                self.state.handing_over = Some(hand_over);
                let input = match self.state.save(&self.directory) {
                    Ok(()) => Input::HandOverPersisted,
                    Err(error) => {
                        self.note_fault("keep that this site hands over", &error);
                        self.state.handing_over = None;
                        self.save_state();
                        Input::HandOverPersistFailed
                    }
                };
                self.primary.handle(self.clock.now(), input);
            }
            Output::SendHandOver { path, hand_over } => {
                if let Some(jobs) = self.paths.get(&path) {
                    let _ = jobs.send(Send::HandOver(hand_over));
                }
            }
            Output::HandedOver { hand_over } => (self.handed_over)(hand_over),
            Output::SeedArrived => {
                self.state.seed = None;
                self.save_state();
                tracing::info!(pair = self.name, "the remote has the seed");
            }
            Output::PersistMode { mode } => {
                // Before the operator hears of it.
                self.intake.set_answering(self.primary.answers_at_once());
                self.state.chosen = Some(state::ChosenMode { mode, instead_of: self.settings.mode });
                self.save_state();
            }
            Output::PersistWay { way } => {
                self.state.way = Some(state::Instead { chosen: way, instead_of: self.settings.flow.way });
                self.save_state();
                self.wanted_paths.send_replace(way.paths);
            }
            Output::PersistLimits { limits } => {
                self.state.limits = Some(state::Instead { chosen: limits, instead_of: self.settings.flow.limits });
                self.save_state();
            }
            Output::PersistPause { paused } => {
                self.state.paused = paused;
                self.save_state();
            }
            Output::Alarm(alarm) => tracing::warn!(pair = self.name, "{alarm}"),
        }
    }
}
