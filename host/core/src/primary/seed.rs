//! A first copy that travels on a disk: what its acknowledgements are worth until the remote has it.
//!
//! While a seed is exported the lane copies to a secondary in its own node, by the rules of any other. What that one
//! acknowledged is on a disk, not at the remote: from the end of the export until the real secondary attaches with at
//! least that much, one that holds less is not served, and whoever gives the seed up owes everything.

use super::*;

impl Primary {
    /// Everything up to here was acknowledged by a disk on its way: the secondary is not served before it has that much.
    /// To be called before any path is up.
    pub fn await_seed(&mut self, through: Sequence) {
        self.seed = Some(through);
    }

    /// The seed that is awaited.
    pub fn awaited_seed(&self) -> Option<Sequence> {
        self.seed
    }

    /// Is this secondary one that has not got the seed? Its path is closed; nothing of it is believed.
    pub(super) fn lacks_seed(&mut self, now: Now, path: Path, welcome: &Welcome) -> bool {
        let lacks = self.seed.is_some_and(|through| welcome.ack.durable < through);
        if lacks {
            self.alarm(now, Alarm::SeedAwaited);
            self.outputs.push_back(Output::ClosePath { path });
        }
        lacks
    }

    /// The secondary has what was shipped, and its running hash agrees.
    pub(super) fn note_seed_arrived(&mut self) {
        if self.seed.take_if(|through| *through <= self.transfer.acked()).is_some() {
            self.outputs.push_back(Output::SeedArrived);
        }
    }

    /// What a disk acknowledged counts for nothing: the secondary is owed everything, from its beginning on.
    pub(super) fn lose_seed(&mut self) {
        self.seed = None;
        let nothing = Ack { durable: Sequence::NONE, chain: Chain::START, ranges: Vec::new(), full: false };
        self.transfer.forget(&nothing);
        self.owe_everything();
    }
}
