//! The flow of a pair's copying at the primary: what an operator chose of it, and what a console shows.

use serde::Serialize;

use super::*;

/// What is in force.
#[derive(Debug)]
pub(super) struct Flowing {
    way: Way,
}

/// What a console shows of the flow.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FlowStatus {
    pub way: Way,
    /// The path that carries records, or did last; where the transfer is ordered, the others stand by.
    pub carrier: Option<Path>,
}

impl Flowing {
    pub(super) fn new(configured: Flow, chosen: Chosen) -> Self {
        Self { way: chosen.way.unwrap_or(configured.way) }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }
}

impl Primary {
    /// The numbers of the flow, as of now.
    pub fn flow(&self, _now: Now) -> FlowStatus {
        FlowStatus { way: self.flow.way, carrier: self.transfer.current() }
    }

    /// What is on its way stays there; what is sent from now on goes as asked. Paths beyond the wanted ones are closed.
    pub(super) fn set_way(&mut self, way: Way) {
        if self.flow.way == way {
            return;
        }
        self.flow.way = way;
        for path in self.transfer.paths_beyond(way.paths) {
            self.transfer.path_lost(path);
            self.outputs.push_back(Output::ClosePath { path });
        }
        self.outputs.push_back(Output::PersistWay { way });
    }
}
