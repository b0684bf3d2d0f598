//! Cut numbers that are never given twice, whatever crashes: a stretch of them is durable before the first is used.

use crate::limits::CUTS_RESERVED;
use crate::units::CutNumber;

/// The numbers of one site's lead, for all its groups: a pair that moves to another group then finds no number there
/// that its own order holds already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    last: CutNumber,
    /// Durably taken: a restart goes on above it.
    reserved: CutNumber,
}

impl Numbers {
    /// After a restart that finds numbers up to here taken.
    pub fn after(reserved: CutNumber) -> Self {
        Self { last: reserved, reserved }
    }

    /// A lane's order holds this number: another lead gave it, or this one before its store was lost.
    pub fn seen(&mut self, cut: CutNumber) {
        self.last = self.last.max(cut);
    }

    /// The next number, if it is durably taken; else what must be made durable first.
    pub fn give(&mut self) -> Result<CutNumber, CutNumber> {
        let next = self.last.next();
        if next > self.reserved {
            return Err(CutNumber(self.last.0.saturating_add(CUTS_RESERVED)));
        }
        self.last = next;
        Ok(next)
    }

    /// Numbers up to here are durably taken.
    pub fn reserved(&mut self, through: CutNumber) {
        self.reserved = self.reserved.max(through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_durably_taken_before_it_is_given_and_no_restart_gives_it_again() {
        let mut numbers = Numbers::after(CutNumber(0));
        let Err(through) = numbers.give() else { panic!("it was given before it was taken") };
        numbers.reserved(through);
        let given: Vec<_> = std::iter::from_fn(|| numbers.give().ok()).collect();
        assert_eq!((given.first(), given.last()), (Some(&CutNumber(1)), Some(&CutNumber(CUTS_RESERVED))));
        let mut restarted = Numbers::after(through);
        restarted.reserved(CutNumber(2 * CUTS_RESERVED));
        assert_eq!(restarted.give(), Ok(CutNumber(CUTS_RESERVED + 1)));
        restarted.seen(CutNumber(1_500));
        assert_eq!(restarted.give(), Ok(CutNumber(1_501)));
        restarted.seen(CutNumber(9_000));
        assert_eq!(restarted.give(), Err(CutNumber(9_000 + CUTS_RESERVED)));
    }
}
