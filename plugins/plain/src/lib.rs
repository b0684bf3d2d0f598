//! Disguise `plain`: none, and no standing schedule. A key goes at once, in a record of its own, as short as it can be: for a link that nobody
//! watches, and for comparison. An observer who knows the traffic sees it.

use farseal_sdk::disguise::{Disguise, Seed, Seen, Slot, marked};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// What a carrier begins with.
const MARK: marked::Mark = *b"FSPLAIN1";

/// The disguise.
#[derive(Debug)]
pub struct Plain;

impl Plugin for Plain {
    const ABOUT: About = farseal_sdk::about!("Hides nothing: a key goes at once, in a record of its own.");
    type Settings = NoSettings;
}

impl Disguise for Plain {
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

farseal_sdk::export_disguise!(Plain);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::disguise::{capacity, embed, extract, plan};

    use super::*;

    #[test]
    fn what_goes_in_comes_out_up_to_capacity() {
        for cover in [16, 17, 4096] {
            let most = usize::try_from(capacity::<Plain>(cover, "{}").unwrap()).unwrap();
            let cover = vec![0xa5; usize::try_from(cover).unwrap()];
            for length in [0, 1, most] {
                let payload = vec![4; length.min(most)];
                let carrier = embed::<Plain>(cover.clone(), &payload, &[7; 32], "{}").unwrap();
                assert_eq!(extract::<Plain>(&carrier, "{}").unwrap(), Some(payload));
            }
            assert!(embed::<Plain>(cover.clone(), &vec![4; most + 1], &[7; 32], "{}").is_err());
            assert_eq!(extract::<Plain>(&cover, "{}").unwrap(), None);
        }
    }

    #[test]
    fn no_schedule_is_kept() {
        assert!(plan::<Plain>(&[], 2, &[7; 32], "{}").unwrap().is_empty());
    }

    #[test]
    fn a_changed_carrier_holds_nothing() {
        let carrier = embed::<Plain>(vec![0; 64], &[1; 40], &[7; 32], "{}").unwrap();
        for bit in 0..(marked::OVERHEAD + 40) * 8 {
            let mut changed = carrier.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(extract::<Plain>(&changed, "{}").unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_the_carrier_is_refused() {
        let mut carrier = embed::<Plain>(vec![0; 64], &[1; 8], &[7; 32], "{}").unwrap();
        carrier[MARK.len()] = 200;
        assert_eq!(extract::<Plain>(&carrier, "{}").unwrap(), None);
    }
}
