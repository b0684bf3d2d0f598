//! Slots that come with the replica's records: which connection each one's mask is of, and the pieces of a key that some carry.

use std::collections::BTreeMap;

use farseal_core::carriage::{Mask, Nth, Pieces, SLOT_BYTES, Said, Slot};
use farseal_core::record::Framed;
use farseal_core::units::Path;

/// What is known of slots: in memory alone.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pieces: Pieces,
    /// The mask of each path that has slots, and how many came.
    paths: BTreeMap<Path, (Mask, u64)>,
}

impl Slots {
    /// A path begins. The first one brings nothing that goes on with what came before.
    pub(super) fn attached(&mut self, path: Path, mask: Option<Mask>, first: bool) {
        if first {
            self.pieces.forget();
        }
        match mask {
            Some(mask) => drop(self.paths.insert(path, (mask, 0))),
            None => drop(self.paths.remove(&path)),
        }
    }

    pub(super) fn lost(&mut self, path: Path, last: bool) {
        self.paths.remove(&path);
        if last {
            self.pieces.forget();
        }
    }

    pub(super) fn are_on(&self, path: Path) -> bool {
        self.paths.contains_key(&path)
    }

    /// Takes in the next slot that came over a path.
    pub(super) fn take(&mut self, path: Path, slot: Slot) -> Said {
        let Some((mask, came)) = self.paths.get_mut(&path) else { return Said::Missing };
        let nth = Nth(*came);
        *came += 1;
        self.pieces.take(mask, nth, slot)
    }
}

/// The first slot, the record behind it, and the rest; `None` where that is not what these bytes are.
pub(super) fn next(bytes: &[u8]) -> Option<(Slot, &[u8], &[u8])> {
    let (slot, rest) = bytes.split_first_chunk::<SLOT_BYTES>()?;
    let framed = Framed::decode(rest).ok()?;
    let (record, rest) = rest.split_at_checked(framed.header.record_bytes())?;
    Some((*slot, record, rest))
}
