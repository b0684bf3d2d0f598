//! Where the coming cover records go, and how long they are: drawn from what was seen lately, so that neither a length
//! nor an order nor a gap sets a key apart.

use farseal_sdk::Span;
use farseal_sdk::disguise::chance::{Stream, exponential};
use farseal_sdk::disguise::{Seen, Slot};

use crate::Settings;

/// The host's limit.
pub(crate) const LONGEST_GAP: Span = Span::from_millis(3_600_000);

/// The next slots. Depends on nothing but the arguments.
///
/// Lengths come in runs as long as the runs seen: a walk along `recent` that jumps elsewhere with one chance in four,
/// so that which length follows which is kept as well. The mean gap is the settings'; its shape is that of the gaps
/// seen, or exponential, as of independent arrivals, where nothing was seen.
pub(crate) fn plan(recent: &[Seen], smallest: u32, chance: &mut Stream, settings: &Settings) -> Vec<Slot> {
    let longest = settings.longest.max(smallest);
    let mean_seen = mean_gap(recent);
    let mut at = jump(recent, chance);
    let mut slots = Vec::new();
    for _ in 0..settings.slots {
        let blocks = recent.get(at).map_or(smallest, |seen| seen.blocks).clamp(smallest, longest);
        let gap = match recent.get(jump(recent, chance)) {
            Some(seen) if mean_seen > 0 => scaled(seen.gap, settings.gap.as_millis(), mean_seen),
            _ => exponential(settings.gap.as_millis(), chance),
        };
        slots.push(Slot { gap: gap.clamp(1, LONGEST_GAP.as_millis()), blocks });
        at = if chance.below(4) == 0 { jump(recent, chance) } else { following(at, recent.len()) };
    }
    slots
}

fn jump(recent: &[Seen], chance: &mut Stream) -> usize {
    usize::try_from(chance.below(u64::try_from(recent.len()).unwrap_or(0))).unwrap_or(0)
}

const fn following(at: usize, count: usize) -> usize {
    if at + 1 < count { at + 1 } else { 0 }
}

/// Milliseconds; 0 when nothing was seen, or everything at once.
fn mean_gap(recent: &[Seen]) -> u64 {
    let total = recent.iter().fold(0_u64, |total, seen| total.saturating_add(seen.gap));
    total.checked_div(u64::try_from(recent.len()).unwrap_or(0)).unwrap_or(0)
}

/// `gap`, stretched so that gaps of mean `from` get the mean `to`.
fn scaled(gap: u64, to: u64, from: u64) -> u64 {
    let stretched = u128::from(gap) * u128::from(to) / u128::from(from);
    u64::try_from(stretched).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::Settings as _;

    use super::*;

    fn slots_of(recent: &[Seen], smallest: u32, seed: u8, config: &str) -> Vec<Slot> {
        plan(recent, smallest, &mut Stream::new(&[seed; 32], b"cover: slots"), &Settings::parse(config).unwrap())
    }

    /// Many plans' slots.
    fn many(recent: &[Seen], config: &str) -> Vec<Slot> {
        (0..100).flat_map(|seed| slots_of(recent, 1, seed, config)).collect()
    }

    #[test]
    fn lengths_are_drawn_as_often_as_they_were_seen() {
        let mut recent = vec![Seen { gap: 5, blocks: 8 }; 30];
        recent.extend([Seen { gap: 900, blocks: 1 }; 10]);
        let slots = many(&recent, "{}");
        let short = slots.iter().filter(|slot| slot.blocks == 1).count();
        assert!(slots.iter().all(|slot| [1, 8].contains(&slot.blocks)));
        assert!((250..550).contains(&short), "{short} of {} for a quarter", slots.len());
    }

    #[test]
    fn the_mean_gap_is_the_settings_with_and_without_traffic() {
        for recent in [vec![], vec![Seen { gap: 5, blocks: 8 }, Seen { gap: 95, blocks: 2 }]] {
            let slots = many(&recent, r#"{"gap": "2s"}"#);
            let mean = slots.iter().map(|slot| slot.gap).sum::<u64>() / u64::try_from(slots.len()).unwrap();
            assert!((1_800..2_200).contains(&mean), "{mean} ms");
        }
    }

    #[test]
    fn limits_hold_whatever_was_seen() {
        let wild = [Seen { gap: u64::MAX, blocks: u32::MAX }, Seen { gap: 0, blocks: 0 }];
        for recent in [&wild[..], &[]] {
            for smallest in [1, 2, 256] {
                let slots = slots_of(recent, smallest, 3, r#"{"slots": 64}"#);
                assert_eq!(slots.len(), 64);
                for slot in slots {
                    assert!((smallest..=256).contains(&slot.blocks));
                    assert!((1..=3_600_000).contains(&slot.gap));
                }
            }
        }
    }

    #[test]
    fn one_seed_one_plan() {
        let recent = [Seen { gap: 5, blocks: 8 }, Seen { gap: 7, blocks: 9 }];
        assert_eq!(slots_of(&recent, 1, 1, "{}"), slots_of(&recent, 1, 1, "{}"));
        assert_ne!(slots_of(&recent, 1, 1, "{}"), slots_of(&recent, 1, 2, "{}"));
    }
}
