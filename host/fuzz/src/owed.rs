//! Target: a dirty map as a disk gives it back.

use farseal_core::owed::OwedMap;
use farseal_core::units::{BlockBytes, BlockCount, Sequence};

const VOLUME: BlockCount = BlockCount(3000);
const HEADER_BYTES: usize = 32;

/// The first byte says whether the checksum is mended first: what lies behind it is read by nobody otherwise.
pub(crate) fn run(data: &[u8]) {
    let Some((mend, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if mend % 4 != 0 && bytes.len() >= HEADER_BYTES {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..HEADER_BYTES - 4]), &bytes[HEADER_BYTES..]);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok((mut map, given_up)) = OwedMap::decode_with(&bytes, VOLUME, BlockBytes::DEFAULT) else { return };
    let again = given_up.map_or_else(|| map.encode(), |given_up| map.encode_with(&given_up));
    assert_eq!(again, bytes, "what decodes encodes to the same bytes");
    let mut copied = 0;
    while let Some(extent) = map.next_copy(u64::from(mend % 20) + 1) {
        assert!(extent.end().0 <= VOLUME.0, "a copy inside the volume");
        copied += 1;
        map.copied_in(extent, Sequence(copied));
    }
    map.acknowledged(Sequence(copied));
    assert!(map.is_empty(), "all of it can be copied: {} blocks are owed for ever", map.owed().0);
}
