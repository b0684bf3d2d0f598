//! The link: paths that delay, stall, break and are made anew. Inside one connection nothing is lost or reordered, as in TCP.

use farseal_core::carriage::Slot;
use farseal_core::declare::Declare;
use farseal_core::frame::{Ack, Attach, Differs, HandOver, KeyRefusal, Refusal, Welcome};
use farseal_core::owed::OwedMap;
use farseal_core::retire::{Order, Proof};
use farseal_core::units::{Epoch, Generation, Path, Sequence};

/// One of the two sites.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    Primary,
    Secondary,
}

/// What goes over a path.
#[derive(Clone, Debug)]
pub enum Message {
    Attach(Attach),
    Welcome(Welcome),
    Refuse(Refusal),
    /// Whole records, verbatim.
    Records(Vec<u8>),
    /// As well, and what goes with each of them.
    Slotted {
        records: Vec<u8>,
        slots: Vec<Slot>,
    },
    Ack(Ack),
    KeyRefused {
        key: Sequence,
        why: KeyRefusal,
    },
    Differs(Differs),
    HandOver(HandOver),
    HandedOver(Generation),
    /// Which live blocks need these epochs?
    AskLive {
        through: Epoch,
    },
    Live {
        through: Epoch,
        at: Sequence,
        map: Box<OwedMap>,
    },
    Retire(Order),
    Declare(Declare),
    Retired(Proof),
    Nonsense,
}

/// One path and its connection.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Counts connections; what belongs to an older one is not delivered.
    pub session: u64,
    pub open: bool,
    /// Which sides still believe in the connection.
    pub primary_up: bool,
    pub secondary_up: bool,
    /// Nothing gets through: to the secondary, to the primary.
    pub cut: [bool; 2],
    /// When the last message of each direction arrives.
    pub busy_until: [u64; 2],
    /// A connection attempt is scheduled.
    pub dialling: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Link {
    pub lines: Vec<Line>,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }

    /// The direction of what is sent to this side.
    pub fn direction(self) -> usize {
        match self {
            Self::Secondary => 0,
            Self::Primary => 1,
        }
    }
}

impl Link {
    pub fn new(paths: u16) -> Self {
        Self { lines: (0..paths).map(|_| Line::default()).collect() }
    }

    pub fn line(&mut self, path: Path) -> &mut Line {
        &mut self.lines[usize::from(path.0)]
    }

    pub fn paths(&self) -> impl Iterator<Item = Path> + use<> {
        (0..u16::try_from(self.lines.len()).unwrap_or(u16::MAX)).map(Path)
    }
}
