//! Events of the lane's inbox as inputs of the [`Primary`](farseal_core::primary::Primary).

use farseal_core::primary::{Command, Input, What};
use farseal_plugin::Digest;

use super::Runner;
use crate::lane::{Event, state};
use crate::link::dial::Send;
use crate::store::StoreError;

impl Runner {
    pub(super) fn take_in(&mut self, event: Event, inputs: &mut Vec<Input>) {
        match event {
            Event::Request(request) => self.take_request(request, inputs),
            Event::Placed { ticket, extent, data, fua, reply } => {
                self.intake.heard(data.len());
                self.writes.insert(ticket, data);
                self.replies.extend(reply.map(|reply| (ticket, reply)));
                self.hear(ticket, What::Data, extent, fua, inputs);
            }
            Event::CopyRead { extent, read } => {
                let input = self.copy_read(extent, read);
                inputs.push(input);
            }
            Event::Synced(Ok(through)) => inputs.push(Input::JournalSynced { through }),
            Event::Synced(Err(error)) => {
                self.note_fault("sync the journal", &error);
                inputs.push(Input::JournalSyncFailed);
            }
            Event::Destaged { through, result } => inputs.push(match result {
                Ok(()) => Input::Destaged { through },
                Err(error) => {
                    self.note_fault("destage", &error);
                    Input::DestageFailed { fault: error.fault() }
                }
            }),
            Event::HomeSynced { through, result } => match result {
                Ok(()) => {
                    self.state.homed = through;
                    self.save_state();
                    inputs.push(Input::HomeSynced { through });
                }
                Err(error) => {
                    self.note_fault("sync home", &error);
                    inputs.push(Input::HomeSyncFailed);
                }
            },
            Event::Attaching { path } => inputs.push(Input::Attaching { path }),
            Event::Welcomed { path, welcome, components, jobs } => {
                self.paths.insert(path, jobs);
                self.shipped.insert(path, components.into_iter().collect());
                let sealed = self.keyring.kept();
                let raw = sealed.iter().map(|package| &package.descriptor().terms).filter(|terms| terms.needs_layer());
                raw.for_each(|terms| self.ship(path, Digest(terms.component)));
                inputs.push(Input::Welcomed { path, welcome });
            }
            Event::PathLost { path } => {
                self.paths.remove(&path);
                self.shipped.remove(&path);
                inputs.push(Input::PathLost { path });
            }
            Event::Acked { path, ack } => {
                self.outbox.acknowledged(ack.durable);
                inputs.push(Input::Acked { path, ack });
            }
            Event::KeyRefused { key, why } => inputs.push(Input::KeyRefused { key, why }),
            Event::Said(event, permit) => {
                self.take_in(*event, inputs);
                drop(permit);
            }
            Event::Fenced { generation } => inputs.push(Input::Fenced { generation }),
            Event::EpochPrepared(prepared) => {
                let (epoch, slot) = (prepared.epoch, prepared.slot);
                self.committer.prepared(prepared);
                inputs.push(Input::EpochPrepared { epoch, slot });
            }
            Event::EpochEscrowed { epoch, receipt } => {
                self.committer.escrowed(epoch, receipt);
                inputs.push(Input::EpochEscrowed { epoch });
            }
            Event::SlotsPlanned(Some(slots)) => inputs.push(Input::SlotsPlanned { slots }),
            Event::SlotsPlanned(None) => inputs.push(Input::SlotsNotPlanned),
            Event::EpochFailed { epoch } => {
                self.keybook.void(epoch, self.clock.now().wall);
                inputs.push(Input::EpochFailed { epoch });
            }
            Event::PolicyDecided(decisions) => inputs.push(Input::PolicyDecided { decisions }),
            Event::SwapPolicy(swap) => self.policy.swap(swap),
            Event::Differs(differs) => inputs.push(Input::Differs { differs }),
            Event::HandedOver { generation } => inputs.push(Input::HandedOver { generation }),
            // Not before what it ends.
            Event::Operator { command: Command::GoOn, done } if !self.swaps.is_empty() => {
                self.swaps.push((Command::GoOn, done));
            }
            Event::Operator { command: command @ (Command::HandOver | Command::Quiesce), done } => {
                // Whatever connections have placed by now is in the inbox before the event that is sent here.
                self.intake.close();
                self.swaps.push((command, done));
                let _ = self.inbox.send(Event::DoorClosed);
            }
            Event::DoorClosed => {
                for (command, done) in self.swaps.drain(..) {
                    self.operators.push_back(done);
                    inputs.push(Input::Operator(command));
                }
            }
            Event::OpenCut { cut, lanes } => {
                self.holding = lanes > 1;
                inputs.push(Input::OpenCut { cut, lanes });
            }
            Event::ReleaseCut { cut } => {
                self.holding = false;
                inputs.push(Input::ReleaseCut { cut });
            }
            Event::ConfirmCut { cut, lanes, name } => inputs.push(Input::ConfirmCut { cut, lanes, name }),
            Event::Operator { command, done } => {
                if let Command::Suspect(_) = command {
                    self.keywork.forget_ahead();
                }
                self.operators.push_back(done);
                inputs.push(Input::Operator(command));
            }
            Event::Compare(compare) => self.comparisons.push(compare),
            Event::Inspect { inspect, done } => {
                let path = self.paths.values().next();
                done(path.is_some_and(|jobs| jobs.send(Send::Inspect(inspect)).is_ok()));
            }
            Event::Ask { question, done } => {
                let path = self.paths.values().next();
                done(path.is_some_and(|jobs| jobs.send(question).is_ok()));
            }
            Event::OweAgain { map, done } => {
                inputs.push(Input::OweAgain { map });
                done();
            }
            Event::BeginSegment { first, done } => done(self.journal.begin_segment(first)),
            Event::Seed { seed, done } => self.take_seed(seed, inputs, done),
            Event::Owed { within, done } => done(self.primary.owed_runs(within)),
            Event::Look { done } => done(self.view()),
            Event::Stop => {}
        }
    }

    fn take_seed(
        &mut self,
        seed: Option<state::Seed>,
        inputs: &mut Vec<Input>,
        done: Box<dyn FnOnce(Result<(), StoreError>) + std::marker::Send>,
    ) {
        let before = std::mem::replace(&mut self.state.seed, seed);
        if let Err(error) = self.state.save(&self.directory) {
            self.state.seed = before;
            return done(Err(error));
        }
        match self.state.seed.as_ref().map(|seed| seed.shipped) {
            None => inputs.push(Input::SeedLost),
            Some(Some(through)) => self.primary.await_seed(through),
            Some(None) => {}
        }
        done(Ok(()));
    }
}
