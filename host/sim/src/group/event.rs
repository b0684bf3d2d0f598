//! What happens in a world of groups: to lanes, to keepers, to their links, and to the leads of both sites.

use farseal_core::declare::Declare;
use farseal_core::frame::{Ack, Attach, HandOver, KeyRefusal, Refusal, Welcome};
use farseal_core::group::{Input as GroupInput, KeptCuts, OfferLimit, Output as GroupOutput, Round};
use farseal_core::retire::Order;
use farseal_core::units::{Extent, Generation, Path, Sequence};

use super::lane::Rec;
use crate::seal::Stamp;

#[derive(Clone, Debug)]
pub enum Event {
    /// The next thing that an operator or an accident does.
    Operation,
    Initiator(usize),
    /// A group's presets look at the clock.
    Presets(usize),
    Lane {
        lane: usize,
        life: u64,
        event: LaneEvent,
    },
    Keeper {
        lane: usize,
        life: u64,
        event: KeeperEvent,
    },
    LaneBack(usize),
    KeeperBack(usize),
    Connect {
        lane: usize,
        path: Path,
    },
    ToKeeper {
        lane: usize,
        path: Path,
        session: u64,
        message: Box<ToKeeper>,
    },
    ToLane {
        lane: usize,
        path: Path,
        session: u64,
        message: ToLane,
    },
    /// Over the interconnect of the writing site.
    Order {
        lane: usize,
        session: u64,
        order: GroupOutput,
    },
    Report {
        lane: usize,
        session: u64,
        report: GroupInput,
    },
    Join(usize),
    Look {
        lane: usize,
        session: u64,
    },
    /// A lane's node knows whether the lane can change sides.
    Prepared {
        lane: usize,
        session: u64,
    },
    /// Something happens in the middle of a group's change of sides.
    InTheMiddle(usize),
    /// The same of a disaster that it declares.
    InTheDisaster(usize),
    /// A disaster's word comes to a copy long after it was said.
    LateWord {
        lane: usize,
        word: Declare,
    },
    /// The writing site is lost: its group's copies are taken over.
    TakeWhatIsLeft(usize),
    LeadTick {
        group: usize,
        life: u64,
    },
    LeadBack,
    Reserved {
        group: usize,
        life: u64,
    },
    /// Over the interconnect of the keeping site.
    Cuts {
        lane: usize,
        life: u64,
        cuts: KeptCuts,
    },
    /// A copy has heard a disaster's word.
    Word {
        lane: usize,
        life: u64,
    },
    /// Its lead asks it, and it answers, with all that it holds where that is known.
    CanItBeTaken {
        lane: usize,
        life: u64,
        round: Round,
        look: Look,
    },
    /// What its witness said is durable.
    SaysIfItCan {
        lane: usize,
        life: u64,
        round: Round,
        can: bool,
    },
    CanBeTaken {
        lane: usize,
        life: u64,
        cuts: Option<KeptCuts>,
        round: Round,
        can: bool,
    },
    /// A main node speaks to its witness; a copy's node looks at its lane, and tells its lead that it is silent.
    Beat(usize),
    Listen {
        lane: usize,
        life: u64,
    },
    Unheard {
        lane: usize,
        life: u64,
    },
    KeepingLeadBack,
}

/// What a copy looks at that is asked whether it can be taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Nothing: it is somebody's word.
    None,
    /// Its lane and what its witness heard.
    First,
    /// Its lane, right before the decision.
    Last,
}

/// A completion of something that a lane's driver began.
#[derive(Clone, Debug)]
pub enum LaneEvent {
    Appended,
    Synced {
        end: usize,
        through: Sequence,
    },
    CopyRead {
        extent: Extent,
        stamps: Vec<Stamp>,
    },
    /// That it hands over is durable.
    HandOverKept,
    /// The other site says that it writes.
    HandedOver {
        generation: Generation,
    },
    /// It keeps the other site's copy from now on.
    Turned,
    /// Its copy has answered the word of a disaster.
    WordAnswered {
        id: u64,
        taken: bool,
    },
    LookForFence {
        id: u64,
    },
    Tick,
}

/// The same of a keeper's driver, and what its site's lead tells it.
#[derive(Clone, Debug)]
pub enum KeeperEvent {
    LogSynced { end: usize, stored: u64 },
    KeyChecked { key: Sequence },
    Limit(OfferLimit),
    TakeOver(OfferLimit),
    RefuseWord,
}

#[derive(Clone, Debug)]
pub enum ToKeeper {
    Attach(Attach),
    Records(Vec<Rec>),
    HandOver(HandOver),
    Declare(Declare),
    Retire(Order),
}

#[derive(Clone, Debug)]
pub enum ToLane {
    Welcome(Welcome),
    Refuse(Refusal),
    Ack(Ack),
    KeyRefused(Sequence, KeyRefusal),
}
