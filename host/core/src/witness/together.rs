//! A whole group by the silence of one of its pairs: what each pair of it says to that, by what it heard itself (R27).
//!
//! What one pair's copy and its witness did not hear says nothing of the other pairs' lanes, nor of the other main nodes. So each is
//! asked, and one that heard anything hinders it for all.

use super::{Said, unheard_for};
use crate::units::{Instant, Millis};

/// What a pair's own copy heard of the main site, at its node, by that node's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listened {
    /// There is a path to the main site, or one waits for its welcome.
    pub linked: bool,
    /// When it was heard last, or since when this copy listens.
    pub heard: Instant,
}

/// Why the silence of another pair is not that of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Hindrance {
    #[error("its own lane hears the main site")]
    Linked,
    #[error("its own lane heard the main site, or began to listen, {} ms ago", ago.0)]
    Heard { ago: Millis },
    #[error("its witness heard its main node {} ms ago", ago.0)]
    WitnessHeard { ago: Millis },
    #[error("its witness never heard its main node, and cannot tell whether that is silent")]
    WitnessNeverHeard,
}

impl Listened {
    /// What came and went counts, as it does for a pair by itself.
    ///
    /// # Errors
    /// [`Hindrance`]: this lane heard the main site in that time.
    pub fn is_silent(self, now: Instant, silence: Millis) -> Result<(), Hindrance> {
        let ago = now.since(self.heard);
        if self.linked {
            Err(Hindrance::Linked)
        } else if ago < silence {
            Err(Hindrance::Heard { ago })
        } else {
            Ok(())
        }
    }
}

/// What a witness says of this pair's own main node, which is not the one that another pair's witness spoke of.
///
/// # Errors
/// [`Hindrance`]: that node was heard, or nobody can tell.
pub fn is_silent_for_witness(said: Said, silence: Millis) -> Result<(), Hindrance> {
    match (said, unheard_for(said, silence)) {
        (_, Ok(())) => Ok(()),
        (Said::NeverHeard, Err(_)) => Err(Hindrance::WitnessNeverHeard),
        (Said::Heard { ago, .. }, Err(_)) => Err(Hindrance::WitnessHeard { ago }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Millis = Millis(60_000);

    #[test]
    fn a_lane_that_heard_the_main_site_in_that_time_hinders_the_takeover_of_its_group() {
        let listened = |linked, heard| Listened { linked, heard: Instant(heard) };
        for (what, lane, expected) in [
            ("silent for the whole time", listened(false, 40_000), Ok(())),
            ("silent for longer", listened(false, 0), Ok(())),
            ("it hears it now", listened(true, 0), Err(Hindrance::Linked)),
            ("it came and went", listened(false, 40_001), Err(Hindrance::Heard { ago: Millis(59_999) })),
            ("it has just gone", listened(false, 100_000), Err(Hindrance::Heard { ago: Millis(0) })),
            ("heard after the look", listened(false, 100_001), Err(Hindrance::Heard { ago: Millis(0) })),
        ] {
            assert_eq!(lane.is_silent(Instant(100_000), SILENCE), expected, "{what}");
        }
    }

    #[test]
    fn another_main_node_needs_the_word_of_a_witness_that_knows_it() {
        let said = |ago, gap| Said::Heard { ago: Millis(ago), gap: Millis(gap) };
        for (what, said, expected) in [
            ("silent for the whole time", said(60_000, 1_000), Ok(())),
            ("heard lately", said(59_999, 1_000), Err(Hindrance::WitnessHeard { ago: Millis(59_999) })),
            ("heard seldom", said(60_000, 20_001), Err(Hindrance::WitnessHeard { ago: Millis(60_000) })),
            ("never heard", Said::NeverHeard, Err(Hindrance::WitnessNeverHeard)),
        ] {
            assert_eq!(is_silent_for_witness(said, SILENCE), expected, "{what}");
        }
    }
}
