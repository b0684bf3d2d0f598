//! A payload in the clear behind a mark, its length and a check: for disguises that hide when a key goes, or nothing, but not its bytes
//!
//! ```text
//! mark (8), length (u32, little-endian), CRC-32 of the payload (u32), payload, what the cover had there
//! ```

/// What a carrier begins with.
pub type Mark = [u8; MARK];

const MARK: usize = 8;
const LENGTH: usize = 4;
const CHECK: usize = 4;
/// Bytes of a cover that are not payload.
pub const OVERHEAD: usize = MARK + LENGTH + CHECK;
/// The longest payload: sixteen times what a key needs.
const LONGEST_PAYLOAD: usize = 64 << 10;

/// The most payload bytes that a cover of this length carries; exact.
#[must_use]
pub fn capacity(cover_bytes: usize) -> usize {
    cover_bytes.saturating_sub(OVERHEAD).min(LONGEST_PAYLOAD)
}

/// Puts `payload`, which is at most [`capacity`], in `cover`, in place.
pub fn embed(mark: &Mark, cover: &mut [u8], payload: &[u8]) {
    let Ok(length) = u32::try_from(payload.len()) else { return };
    let Some((head, body)) = cover.split_first_chunk_mut::<OVERHEAD>() else { return };
    let Some(place) = body.get_mut(..payload.len()) else { return };
    head[..MARK].copy_from_slice(mark);
    head[MARK..MARK + LENGTH].copy_from_slice(&length.to_le_bytes());
    head[MARK + LENGTH..].copy_from_slice(&crc32(payload).to_le_bytes());
    place.copy_from_slice(payload);
}

/// The payload behind this mark, or `None` where there is none, or another than was put there.
#[must_use]
pub fn extract(mark: &Mark, carrier: &[u8]) -> Option<Vec<u8>> {
    let (found, rest) = carrier.split_first_chunk::<MARK>()?;
    let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (check, body) = rest.split_first_chunk::<CHECK>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if found != mark || length > LONGEST_PAYLOAD {
        return None;
    }
    let payload = body.get(..length)?;
    (crc32(payload).to_le_bytes() == *check).then(|| payload.to_vec())
}

/// CRC-32 as in ISO 3309: a carrier that was damaged is not taken for another.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_check_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of CRC-32");
    }
}
