//! Disguise `cover`: a standing thin stream of cover records, drawn from what real records looked like lately. Now and
//! then one of them carries a key; which one, nothing on the wire tells.
//!
//! A carrier is made of the seed, which looks like chance because it is, and of everything else masked with a stream
//! that follows from the seed:
//!
//! ```text
//! 0        32       48      52          52 + length
//! | seed   | check  | length | payload  | the cover's own bytes |
//!          `------- masked ------------'
//! ```

mod slots;
mod whitening;

use farseal_sdk::disguise::chance::Stream;
use farseal_sdk::disguise::{Disguise, Seed, Seen, Slot};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Plugin, Span};

use whitening::check;

farseal_sdk::settings! {
    /// How thick the stream of cover is.
    pub struct Settings {
        /// The mean time between cover records.
        gap: Span = "2s",
        /// Slots planned at a time, 1 to 64.
        slots: u32 = 16,
        /// The longest cover record in blocks, 1 to 256.
        longest: u32 = 256,
    }
}

const SEED: usize = 32;
const CHECK: usize = 16;
const LENGTH: usize = 4;
/// What a carrier holds besides the payload.
const OVERHEAD: usize = SEED + CHECK + LENGTH;
/// The longest payload: sixteen times what a key needs, and what the fuel of a call is enough for by far.
const LONGEST_PAYLOAD: usize = 64 << 10;

/// The disguise.
#[derive(Debug)]
pub struct Cover;

impl Plugin for Cover {
    const ABOUT: About = farseal_sdk::about!("Sends cover records that look like recent traffic; some carry a key.");
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if !(Span::from_millis(10)..=slots::LONGEST_GAP).contains(&settings.gap) {
            found.push(wrong("gap", "outside 10ms to 1h", "for example \"2s\""));
        }
        if !(1..=64).contains(&settings.slots) {
            found.push(wrong("slots", "outside 1 to 64", "for example 16"));
        }
        if !(1..=256).contains(&settings.longest) {
            found.push(wrong("longest", "outside 1 to 256", "for example 64"));
        }
        found
    }
}

impl Disguise for Cover {
    fn plan(recent: &[Seen], smallest: u32, seed: &Seed, settings: &Settings) -> Vec<Slot> {
        slots::plan(recent, smallest, &mut Stream::new(seed, b"cover: slots"), settings)
    }

    fn capacity(cover_bytes: usize, _settings: &Settings) -> usize {
        cover_bytes.saturating_sub(OVERHEAD).min(LONGEST_PAYLOAD)
    }

    fn embed(cover: &mut [u8], payload: &[u8], seed: &Seed, _settings: &Settings) {
        let Ok(length) = u32::try_from(payload.len()) else { return };
        let Some((head, body)) = cover.split_first_chunk_mut::<OVERHEAD>() else { return };
        let Some(place) = body.get_mut(..payload.len()) else { return };
        let length = length.to_le_bytes();
        head[..SEED].copy_from_slice(seed);
        head[SEED..SEED + CHECK].copy_from_slice(&check(seed, &[&length, payload]));
        head[SEED + CHECK..].copy_from_slice(&length);
        place.copy_from_slice(payload);
        let mut stream = Stream::new(seed, b"cover: white");
        stream.mask(&mut head[SEED..]);
        stream.mask(place);
    }

    fn extract(carrier: &[u8], _settings: &Settings) -> Option<Vec<u8>> {
        let (seed, rest) = carrier.split_first_chunk::<SEED>()?;
        let (head, body) = rest.split_first_chunk::<{ CHECK + LENGTH }>()?;
        let mut stream = Stream::new(seed, b"cover: white");
        let mut head = *head;
        stream.mask(&mut head);
        let (checked, length) = head.split_first_chunk::<CHECK>()?;
        let length: [u8; LENGTH] = length.try_into().ok()?;
        let length_of_payload = usize::try_from(u32::from_le_bytes(length)).ok()?;
        if length_of_payload > LONGEST_PAYLOAD {
            return None;
        }
        let mut payload = body.get(..length_of_payload)?.to_vec();
        stream.mask(&mut payload);
        (check(seed, &[&length, &payload]) == *checked).then_some(payload)
    }
}

farseal_sdk::export_disguise!(Cover);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_sdk::disguise::{capacity, embed, extract};

    use super::*;

    /// Bytes that look like chance and follow from a number.
    fn noise(length: usize, number: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Stream::new(&[number; 32], b"test's noise").mask(&mut bytes);
        bytes
    }

    #[test]
    fn what_goes_in_comes_out_up_to_capacity() {
        for cover in [52, 53, 100, 4096, 65_536, 1 << 20] {
            let most = usize::try_from(capacity::<Cover>(cover, "{}").unwrap()).unwrap();
            let cover = noise(usize::try_from(cover).unwrap(), 1);
            for length in [0, 1, most / 2, most] {
                let payload = vec![4; length.min(most)];
                let carrier = embed::<Cover>(cover.clone(), &payload, &[7; 32], "{}").unwrap();
                assert_eq!(carrier.len(), cover.len());
                assert_eq!(extract::<Cover>(&carrier, "{}").unwrap(), Some(payload));
            }
            assert!(embed::<Cover>(cover, &vec![4; most + 1], &[7; 32], "{}").is_err());
        }
        for cover in [0, 31, 51] {
            assert_eq!(capacity::<Cover>(cover, "{}").unwrap(), 0);
        }
    }

    #[test]
    fn plain_covers_and_changed_carriers_hold_nothing() {
        for number in 0..200 {
            assert_eq!(extract::<Cover>(&noise(4096, number), "{}").unwrap(), None);
        }
        let payload = [5; 40];
        let carrier = embed::<Cover>(noise(120, 1), &payload, &[7; 32], "{}").unwrap();
        for bit in 0..(OVERHEAD + payload.len()) * 8 {
            let mut changed = carrier.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(extract::<Cover>(&changed, "{}").unwrap(), None, "bit {bit}");
        }
    }

    /// A P-256 point begins with 4 and capsules of one kind begin alike: neither may show.
    #[test]
    fn structure_of_the_payload_does_not_show() {
        let payload = [0; 1500];
        let mut ones = 0;
        for seed in 0..32 {
            let seed: Seed = noise(32, seed).try_into().unwrap();
            let carrier = embed::<Cover>(vec![0; 1552], &payload, &seed, "{}").unwrap();
            ones += carrier.iter().map(|byte| byte.count_ones()).sum::<u32>();
        }
        let bits = 32 * 1552 * 8;
        // Six standard deviations of a fair coin.
        assert!(ones.abs_diff(bits / 2) < 3 * bits.isqrt(), "{ones} of {bits} bits");
    }

    #[test]
    fn a_cover_too_short_for_anything_is_left_alone() {
        let carrier = embed::<Cover>(vec![9; 51], &[], &[7; 32], "{}").unwrap();
        assert_eq!(carrier, vec![9; 51]);
        assert_eq!(extract::<Cover>(&carrier, "{}").unwrap(), None);
    }
}
