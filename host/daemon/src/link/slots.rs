//! Slots beside the records of a connection: filled on the way out, each masked by its turn, and read by the replica.

use std::sync::Arc;

use farseal_core::carriage::{Carriage, Mask, Nth, SLOT_BYTES, Slot};

/// Random bytes that are drawn at a time: what idle slots of half a megabyte of small records need.
const DRAWN_BYTES: usize = 64 << 10;

/// What the slots of a batch of records say.
#[derive(Clone, Debug)]
pub enum Told {
    Nothing,
    /// A piece with each record, from this one on, as far as there are any.
    Pieces(Arc<Carriage>, u16),
    /// With the first record: what was carried stands.
    Stands(Arc<Carriage>),
}

/// Fills the slots of one connection.
pub struct Filler {
    mask: Mask,
    filled: u64,
    drawn: Vec<u8>,
}

impl std::fmt::Debug for Filler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filler").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl Filler {
    #[must_use]
    pub fn new(mask: Mask) -> Self {
        Self { mask, filled: 0, drawn: Vec::new() }
    }

    /// A slot for each of so many records.
    ///
    /// # Errors
    /// The random source failed.
    pub fn fill(&mut self, records: usize, told: &Told) -> Result<Vec<Slot>, getrandom::Error> {
        (0..records).map(|at| self.next(at, told)).collect()
    }

    /// Chance is drawn for every slot, needed or not: none takes less work than another for it.
    fn next(&mut self, at: usize, told: &Told) -> Result<Slot, getrandom::Error> {
        let nth = Nth(self.filled);
        self.filled += 1;
        let idle = self.draw()?;
        let said = match told {
            Told::Nothing => None,
            Told::Pieces(carriage, first) => {
                let index = u16::try_from(usize::from(*first) + at).ok();
                index.and_then(|index| carriage.piece(&self.mask, nth, index))
            }
            Told::Stands(carriage) => (at == 0).then(|| carriage.stands(&self.mask, nth)),
        };
        Ok(said.unwrap_or(idle))
    }

    fn draw(&mut self) -> Result<Slot, getrandom::Error> {
        if self.drawn.is_empty() {
            self.drawn.resize(DRAWN_BYTES, 0);
            getrandom::fill(&mut self.drawn)?;
        }
        let from = self.drawn.len().saturating_sub(SLOT_BYTES);
        let mut slot = [0; SLOT_BYTES];
        slot.iter_mut().zip(self.drawn.drain(from..)).for_each(|(place, byte)| *place = byte);
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::carriage::{CarriageNumber, Pieces, Said};

    use super::*;

    #[test]
    fn what_a_connection_fills_in_comes_out_at_its_other_end() {
        let mask = Mask::new(&[1; 32], &[2; 32]);
        let (mut filler, mut pieces) = (Filler::new(mask.clone()), Pieces::default());
        let carriage = Arc::new(Carriage::new(CarriageNumber(1), vec![7; 4_208]).unwrap());
        let mut slots = filler.fill(3_000, &Told::Nothing).unwrap();
        slots.extend(filler.fill(100, &Told::Pieces(Arc::clone(&carriage), 0)).unwrap());
        slots.extend(filler.fill(100, &Told::Pieces(Arc::clone(&carriage), 100)).unwrap());
        slots.extend(filler.fill(2, &Told::Stands(carriage)).unwrap());
        let said = (0..).zip(slots).map(|(nth, slot)| pieces.take(&mask, Nth(nth), slot));
        let said: Vec<Said> = said.filter(|said| *said != Said::Nothing).collect();
        assert_eq!(said, [Said::Whole(vec![7; 4_208]), Said::Stands(vec![7; 4_208])]);
    }
}
