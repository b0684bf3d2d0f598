//! Disguise `slot`: keys go in slots beside the records that carry data, which the host cuts, masks and fills with chance
//! when there is no key. What is made here is the record that comes of it at the other site.

use farseal_sdk::disguise::{Disguise, IN_RECORDS, Seed, Seen, Slot};
use farseal_sdk::settings::NoSettings;
use farseal_sdk::{About, Plugin};

/// What a carrier begins with.
const MAGIC: [u8; 8] = *b"FSSLOT01";
const LENGTH: usize = 4;
const CHECK: usize = 4;
const OVERHEAD: usize = MAGIC.len() + LENGTH + CHECK;
/// The longest payload: sixteen times what a key needs.
const LONGEST_PAYLOAD: usize = 64 << 10;

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
        cover_bytes.saturating_sub(OVERHEAD).min(LONGEST_PAYLOAD)
    }

    fn embed(cover: &mut [u8], payload: &[u8], _seed: &Seed, _settings: &NoSettings) {
        let Ok(length) = u32::try_from(payload.len()) else { return };
        let Some((head, body)) = cover.split_first_chunk_mut::<OVERHEAD>() else { return };
        let Some(place) = body.get_mut(..payload.len()) else { return };
        head[..MAGIC.len()].copy_from_slice(&MAGIC);
        head[MAGIC.len()..MAGIC.len() + LENGTH].copy_from_slice(&length.to_le_bytes());
        head[MAGIC.len() + LENGTH..].copy_from_slice(&crc32(payload).to_le_bytes());
        place.copy_from_slice(payload);
    }

    fn extract(carrier: &[u8], _settings: &NoSettings) -> Option<Vec<u8>> {
        let (magic, rest) = carrier.split_first_chunk::<{ MAGIC.len() }>()?;
        let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
        let (check, body) = rest.split_first_chunk::<CHECK>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if *magic != MAGIC || length > LONGEST_PAYLOAD {
            return None;
        }
        let payload = body.get(..length)?;
        (crc32(payload).to_le_bytes() == *check).then(|| payload.to_vec())
    }
}

/// CRC-32 as in ISO 3309: a carrier that was damaged is not taken for another.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    })
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
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of CRC-32");
        let carrier = embed::<Slotted>(vec![0; 64], &[1; 40], &[7; 32], "{}").unwrap();
        for bit in 0..(OVERHEAD + 40) * 8 {
            let mut changed = carrier.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(extract::<Slotted>(&changed, "{}").unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_the_carrier_is_refused() {
        let mut carrier = embed::<Slotted>(vec![0; 64], &[1; 8], &[7; 32], "{}").unwrap();
        carrier[MAGIC.len()] = 200;
        assert_eq!(extract::<Slotted>(&carrier, "{}").unwrap(), None);
    }
}
