//! Disguise `slot`: keys go in slots beside the records that carry data, which the host cuts, masks and fills with chance
//! when there is nothing. Something is carried now and then, whether or not there is a key. What is made here is the
//! record that comes of it at the other site.

use farseal_sdk::disguise::chance::{Stream, exponential};
use farseal_sdk::disguise::{Disguise, IN_RECORDS, Seed, Seen, Slot, marked};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Plugin, Span};

farseal_sdk::settings! {
    /// How often something is carried.
    pub struct Settings {
        /// The mean time from one to the next.
        gap: Span = "2s",
    }
}

/// The host's limit.
const LONGEST_GAP: Span = Span::from_millis(3_600_000);
/// Planned at a time.
const SLOTS: usize = 16;

/// What a carrier begins with.
const MARK: marked::Mark = *b"FSSLOT01";

/// The disguise.
#[derive(Debug)]
pub struct Slotted;

impl Plugin for Slotted {
    const ABOUT: About = farseal_sdk::about!("Carries keys in slots beside the records of data.");
    const UNDERSTANDS: &'static [&'static str] = &[IN_RECORDS];
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let fits = (Span::from_millis(10)..=LONGEST_GAP).contains(&settings.gap);
        (!fits).then(|| wrong("gap", "outside 10ms to 1h", "for example \"2s\"")).into_iter().collect()
    }
}

impl Disguise for Slotted {
    /// What is carried shows in no length: only the times are drawn, independently of all traffic.
    fn plan(_recent: &[Seen], smallest: u32, seed: &Seed, settings: &Settings) -> Vec<Slot> {
        let mut chance = Stream::new(seed, b"slot: slots!");
        let mut slot = || {
            let gap = exponential(settings.gap.as_millis(), &mut chance);
            Slot { gap: gap.clamp(1, LONGEST_GAP.as_millis()), blocks: smallest }
        };
        std::iter::repeat_with(&mut slot).take(SLOTS).collect()
    }

    fn capacity(cover_bytes: usize, _settings: &Settings) -> usize {
        marked::capacity(cover_bytes)
    }

    fn embed(cover: &mut [u8], payload: &[u8], _seed: &Seed, _settings: &Settings) {
        marked::embed(&MARK, cover, payload);
    }

    fn extract(carrier: &[u8], _settings: &Settings) -> Option<Vec<u8>> {
        marked::extract(&MARK, carrier)
    }
}

farseal_sdk::export_disguise!(Slotted);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::disguise::{capacity, embed, extract, plan};

    use super::*;

    #[test]
    fn what_goes_in_comes_out_up_to_capacity() {
        for cover in [16, 17, 4096] {
            let most = usize::try_from(capacity::<Slotted>(cover, "{}").unwrap()).unwrap();
            let cover = vec![0xa5; usize::try_from(cover).unwrap()];
            for length in [0, 1, most] {
                let payload = vec![4; length.min(most)];
                let carrier = embed::<Slotted>(cover.clone(), &payload, &[7; 32], "{}").unwrap();
                assert_eq!(extract::<Slotted>(&carrier, "{}").unwrap(), Some(payload));
            }
            assert!(embed::<Slotted>(cover.clone(), &vec![4; most + 1], &[7; 32], "{}").is_err());
            assert_eq!(extract::<Slotted>(&cover, "{}").unwrap(), None);
        }
    }

    #[test]
    fn something_is_carried_at_the_mean_gap_whatever_was_seen() {
        let plan_of = |seen: &[Seen], seed: u8| plan::<Slotted>(seen, 2, &[seed; 32], r#"{"gap": "500ms"}"#).unwrap();
        let slots: Vec<Slot> = (0..100).flat_map(|seed| plan_of(&[], seed)).collect();
        assert!(slots.iter().all(|slot| slot.blocks == 2));
        let mean = slots.iter().map(|slot| slot.gap).sum::<u64>() / u64::try_from(slots.len()).unwrap();
        assert!((450..550).contains(&mean), "{mean} ms");
        assert_eq!(plan_of(&[Seen { gap: 5, blocks: 200 }], 1), plan_of(&[], 1));
    }

    #[test]
    fn a_gap_out_of_bounds_is_refused() {
        for gap in ["9ms", "2h"] {
            let refused = plan::<Slotted>(&[], 2, &[7; 32], &format!(r#"{{"gap": "{gap}"}}"#));
            assert!(format!("{:?}", refused.unwrap_err()).contains("10ms to 1h"));
        }
    }

    #[test]
    fn a_changed_carrier_holds_nothing() {
        let carrier = embed::<Slotted>(vec![0; 64], &[1; 40], &[7; 32], "{}").unwrap();
        for bit in 0..(marked::OVERHEAD + 40) * 8 {
            let mut changed = carrier.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(extract::<Slotted>(&changed, "{}").unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_the_carrier_is_refused() {
        let mut carrier = embed::<Slotted>(vec![0; 64], &[1; 8], &[7; 32], "{}").unwrap();
        carrier[MARK.len()] = 200;
        assert_eq!(extract::<Slotted>(&carrier, "{}").unwrap(), None);
    }
}
