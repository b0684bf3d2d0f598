//! Disguise `slot`: keys go in slots beside the records that carry data, which the host cuts, masks and fills with chance
//! when there is no key. What is made here is the record that comes of it at the other site.

use farseal_sdk::disguise::{Disguise, IN_RECORDS, Seed, Seen, Slot, marked};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// What a carrier begins with.
const MARK: marked::Mark = *b"FSSLOT01";

/// The disguise.
#[derive(Debug)]
pub struct Slotted;

impl Plugin for Slotted {
    const ABOUT: About = farseal_sdk::about!("Carries keys in slots beside the records of data.");
    const UNDERSTANDS: &'static [&'static str] = &[IN_RECORDS];
    type Settings = NoSettings;
}

impl Disguise for Slotted {
    fn plan(_recent: &[Seen], _smallest: u32, _seed: &Seed, _settings: &NoSettings) -> Vec<Slot> {
        Vec::new()
    }

    fn capacity(cover_bytes: usize, _settings: &NoSettings) -> usize {
        marked::capacity(cover_bytes)
    }

    fn embed(cover: &mut [u8], payload: &[u8], _seed: &Seed, _settings: &NoSettings) {
        marked::embed(&MARK, cover, payload);
    }

    fn extract(carrier: &[u8], _settings: &NoSettings) -> Option<Vec<u8>> {
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
    fn no_schedule_is_kept() {
        assert!(plan::<Slotted>(&[], 2, &[7; 32], "{}").unwrap().is_empty());
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
