//! Each record is sealed by, and so opens with, exactly the key of the epoch in which its sequence number falls.

use farseal_core::ledger::Ledger;
use farseal_core::units::{Epoch, Sequence};

use super::{Checker, Failure};
use crate::seal::KeyId;
use crate::world::World;

/// Every record from `first` to `last`, by this site's ledger.
pub fn check(
    world: &World,
    ledger: &Ledger,
    keys: impl Fn(Epoch) -> Option<KeyId>,
    records: impl Iterator<Item = Sequence>,
    site: &str,
) -> Result<(), Failure> {
    if world.rollback.happened() {
        return Ok(());
    }
    for sequence in records {
        let Some(rec) = world.model.get(sequence).filter(|rec| rec.header.kind.is_sealed()) else { continue };
        let entry = ledger.epoch_of(sequence);
        let key = entry.and_then(|entry| keys(entry.epoch));
        if key != Some(rec.sealer.key) {
            let epoch = entry.map_or(Epoch::NONE, |entry| entry.epoch);
            return Err(Failure::new(
                Checker::Epoch,
                format!(
                    "{:?} record {sequence} is sealed by key {:x}; {site} opens it with epoch {epoch}, key {:x}",
                    rec.header.kind,
                    rec.sealer.key.0,
                    key.unwrap_or_default().0
                ),
            ));
        }
    }
    Ok(())
}
