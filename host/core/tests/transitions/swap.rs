//! Every event in every stage of a planned change of sides.

use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Ack, Welcome};
use farseal_core::limits::SWAP_HOLD_MAX;
use farseal_core::primary::{Command, Input, Output, Primary, Recovered, Room, What};
use farseal_core::rotation::Slot;
use farseal_core::units::{BlockCount, Epoch, Extent, Generation, Instant, Lba, Path, Ticket};

use super::pair::{at, settings};
use super::{Step, snapshot, table};

struct Site {
    primary: Primary,
    committing: Vec<usize>,
    digests: u8,
    does: Vec<String>,
}

impl Site {
    fn tell(&mut self, ms: u64, input: Input) {
        self.primary.handle(at(ms), input);
        while let Some(output) = self.primary.poll_output() {
            match output {
                Output::Commit { records, .. } => {
                    self.committing.push(records.len());
                    let kinds: Vec<String> = records.iter().map(|record| format!("{:?}", record.kind)).collect();
                    self.does.push(format!("commit {}", kinds.join("+")));
                }
                Output::Reply { ticket, result } => self.does.push(format!("reply {}: {result:?}", ticket.0)),
                Output::PersistHandOver { hand_over } => {
                    self.does.push(format!("keep: generation {} at {}", hand_over.generation, hand_over.at));
                }
                Output::SendHandOver { hand_over, .. } => self.does.push(format!("ask: at {}", hand_over.at)),
                Output::HandedOver { hand_over } => self.does.push(format!("handed over at {}", hand_over.at)),
                Output::Alarm(alarm) => self.does.push(format!("alarm: {alarm}")),
                Output::ClosePath { .. } => self.does.push("close path".into()),
                Output::PersistFence { generation } => self.does.push(format!("fenced by generation {generation}")),
                Output::PersistOwed { .. } => self.does.push("persist map".into()),
                Output::RetryCommit
                | Output::SyncJournal
                | Output::Destage { .. }
                | Output::SyncHome
                | Output::TrimJournal { .. }
                | Output::ReadForCopy { .. }
                | Output::DiscardCopy { .. }
                | Output::DropOwed
                | Output::SeedArrived
                | Output::Send { .. }
                | Output::CarryKey { .. }
                | Output::PrepareEpoch { .. }
                | Output::DiscardEpoch { .. }
                | Output::EpochInForce { .. }
                | Output::PlanSlots
                | Output::ShamInForce
                | Output::AskPolicy { .. }
                | Output::CommandAnswered(_)
                | Output::PersistPause { .. }
                | Output::PersistMode { .. }
                | Output::PersistLimits { .. }
                | Output::PersistWay { .. } => {}
            }
        }
    }

    /// The journal has everything.
    fn settle(&mut self) {
        while !self.committing.is_empty() {
            let count = self.committing.remove(0);
            let digests = (0..count).map(|_| self.digest()).collect();
            self.tell(0, Input::Committed { digests });
        }
        let through = self.primary.status().last;
        self.tell(0, Input::JournalSynced { through });
    }

    fn digest(&mut self) -> Digest {
        self.digests += 1;
        Digest([self.digests; 32])
    }

    fn held(&self) -> Ack {
        let durable = self.primary.status().durable;
        let chain = (1..=durable.0)
            .fold(Chain::START, |chain, sequence| chain.after(Digest([u8::try_from(sequence).unwrap(); 32])));
        Ack { durable, chain, ranges: Vec::new(), full: false }
    }

    fn welcome(&mut self, path: u16) {
        let (path, ack) = (Path(path), self.held());
        self.tell(0, Input::Attaching { path });
        self.tell(0, Input::Welcomed { path, welcome: Welcome { generation: Generation(1), ack } });
    }

    fn write(&mut self) {
        let extent = Extent::new(Lba(3), BlockCount(1)).unwrap();
        self.tell(0, Input::Write { ticket: Ticket(50), what: What::Data, extent, fua: true });
    }

    fn stage(&self, name: &str) -> String {
        let status = self.primary.status();
        let room = match self.primary.room() {
            Room::Open => "writes",
            Room::Wait => "writes wait",
            Room::Fenced => "fenced",
            Room::Full | Room::Failed => "stopped",
        };
        let swap = status.swap.map_or("none".to_owned(), |swap| format!("{swap:?}"));
        if name.is_empty() { format!("{swap}, {room}") } else { format!("{name} ({swap}, {room})") }
    }
}

fn site(recovered: Recovered) -> Site {
    let primary = Primary::new(at(0), settings(BlockCount(16)), recovered);
    let mut site = Site { primary, committing: Vec::new(), digests: 0, does: Vec::new() };
    site.tell(0, Input::EpochPrepared { epoch: Epoch(1), slot: Slot { at: Instant(0), blocks: 1, chance: 0 } });
    site.settle();
    site
}

fn copying() -> Site {
    let mut site = site(Recovered::fresh());
    site.welcome(0);
    site
}

/// A write is on its way to the journal.
fn draining() -> Site {
    let mut site = copying();
    for ticket in 1..=3 {
        let extent = Extent::new(Lba(ticket), BlockCount(1)).unwrap();
        site.tell(0, Input::Write { ticket: Ticket(ticket), what: What::Data, extent, fua: false });
    }
    site.tell(0, Input::Operator(Command::HandOver));
    site
}

/// It waits for the other lanes of its group.
fn quiesced() -> Site {
    let mut site = copying();
    site.tell(0, Input::Operator(Command::Quiesce));
    site
}

fn cutting() -> Site {
    let mut site = draining();
    site.settle();
    site
}

fn keeping() -> Site {
    let mut site = cutting();
    let ack = site.held();
    site.tell(0, Input::Acked { path: Path(0), ack });
    site
}

fn asking() -> Site {
    let mut site = keeping();
    site.tell(0, Input::HandOverPersisted);
    site
}

/// Restarted in the middle: nobody can be asked yet.
fn restarted() -> Site {
    let mut before = keeping();
    let held = before.held();
    let mut hand_over = None;
    while let Some(output) = before.primary.poll_output() {
        if let Output::PersistHandOver { hand_over: kept } = output {
            hand_over = Some(kept);
        }
    }
    let generation = Generation(2);
    let hand_over =
        hand_over.unwrap_or(farseal_core::frame::HandOver { generation, at: held.durable, chain: held.chain });
    let recovered = Recovered {
        last: held.durable,
        chain: held.chain,
        acked: held.durable,
        acked_chain: held.chain,
        homed: held.durable,
        newest_epoch: Epoch(1),
        handing_over: Some(hand_over),
        ..Recovered::fresh()
    };
    let primary = Primary::new(at(0), settings(BlockCount(16)), recovered);
    let mut site = Site { primary, committing: Vec::new(), digests: before.digests, does: Vec::new() };
    site.tell(0, Input::EpochPrepared { epoch: Epoch(2), slot: Slot { at: Instant(0), blocks: 1, chance: 0 } });
    site
}

type State = (&'static str, fn() -> Site);
type Event = (&'static str, fn(&mut Site));

fn events() -> Vec<Event> {
    vec![
        ("operator swaps", |site| site.tell(0, Input::Operator(Command::HandOver))),
        ("the group gathers", |site| site.tell(0, Input::Operator(Command::Quiesce))),
        ("the group goes on", |site| site.tell(0, Input::Operator(Command::GoOn))),
        ("write", Site::write),
        ("journal has everything", Site::settle),
        ("secondary has everything", |site| {
            site.settle();
            let ack = site.held();
            site.tell(0, Input::Acked { path: Path(0), ack });
        }),
        ("kept", |site| site.tell(0, Input::HandOverPersisted)),
        ("not kept", |site| site.tell(0, Input::HandOverPersistFailed)),
        ("handed over", |site| site.tell(0, Input::HandedOver { generation: Generation(2) })),
        ("refused: generation 2", |site| site.tell(0, Input::Fenced { generation: Generation(2) })),
        ("refused: generation 3", |site| site.tell(0, Input::Fenced { generation: Generation(3) })),
        ("path lost", |site| site.tell(0, Input::PathLost { path: Path(0) })),
        ("another path up", |site| site.welcome(1)),
        ("operator pauses", |site| site.tell(0, Input::Operator(Command::Pause))),
        ("operator copies all", |site| site.tell(0, Input::Operator(Command::CopyAll))),
        ("the time for it is over", |site| site.tell(SWAP_HOLD_MAX.0, Input::Tick)),
    ]
}

#[test]
fn every_event_in_every_stage_of_a_change_of_sides() {
    let states: [State; 7] = [
        ("copying", copying),
        ("quiesced", quiesced),
        ("draining", draining),
        ("cut placed", cutting),
        ("keeping", keeping),
        ("asking", asking),
        ("restarted", restarted),
    ];
    let mut steps = Vec::new();
    for (name, state) in states {
        for (event, apply) in events() {
            let mut site = state();
            let before = site.stage(name);
            site.does.clear();
            apply(&mut site);
            let after = site.stage("");
            let after = if before.ends_with(&format!("({after})")) { before.clone() } else { after };
            steps.push(Step { state: before, event, after, does: site.does.join("; ") });
        }
    }
    snapshot("swap", &table(&steps));
}

#[test]
fn a_lane_that_is_told_again_to_stand_still_does_so_for_as_long_again() {
    let mut site = quiesced();
    site.tell(3_000, Input::Operator(Command::Quiesce));
    site.tell(SWAP_HOLD_MAX.0 + 2_999, Input::Tick);
    assert_eq!(site.primary.room(), Room::Wait, "the group counts from its last word");
    site.tell(SWAP_HOLD_MAX.0 + 3_000, Input::Tick);
    assert_eq!(site.primary.room(), Room::Open);
}
