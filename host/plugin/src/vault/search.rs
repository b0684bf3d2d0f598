//! Search tags: what lets whoever has the key of one field's one value find the blocks that hold it, and says nothing to anybody
//! else
//!
//! ```text
//! search key   = HKDF-Expand(epoch's PRK, "farseal v1 search", 32)
//! value key    = HMAC-SHA-256(search key, "farseal v1 search value" || form u8 || name length u8 || name || value)
//! search tag   = HMAC-SHA-256(value key, "farseal v1 search tag" || sequence u64be || block u32be || slot u8)[..16]
//! filler       = the same for the search key itself, where a field does not lie in the block
//! ```
//!
//! A place in an epoch's order comes once, so all tags are distinct, and to whoever has no key they are random bytes: neither equal values nor their frequency show.
//! Who has a value key finds the blocks with this value in this epoch, and learns nothing of other values, fields or epochs
//! nor of what the blocks hold.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes of a search tag.
pub const SEARCH_TAG_LEN: usize = 16;
/// Bytes of a key of this branch.
pub const VALUE_KEY_LEN: usize = 32;

const VALUE: &[u8] = b"farseal v1 search value";
const TAG: &[u8] = b"farseal v1 search tag";

/// Where a tag stands: in this record's block with this index, the tag with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagPlace {
    /// The record's place in the order.
    pub seq: u64,
    /// The block's index in the record.
    pub block: u32,
    /// The field's number in the layout.
    pub slot: u8,
}

/// Makes the tags and value keys of one epoch. It can open nothing.
pub struct SearchKey {
    mac: Hmac<Sha256>,
}

/// Finds one value of one field in one epoch.
pub struct ValueKey {
    key: Zeroizing<[u8; VALUE_KEY_LEN]>,
    mac: Hmac<Sha256>,
}

impl SearchKey {
    pub(super) fn new(key: &Zeroizing<[u8; VALUE_KEY_LEN]>) -> Self {
        Self { mac: keyed(key) }
    }

    /// The key of this value of the field with this name, in the form with this number.
    #[must_use]
    pub fn value_key(&self, name: &str, form: u8, value: &[u8]) -> ValueKey {
        let mut mac = self.mac.clone();
        // A name is 1 to 32 bytes, so its length always fits.
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        [VALUE, &[form, length], name.as_bytes(), value].iter().for_each(|part| mac.update(part));
        let mut key = Zeroizing::new([0; VALUE_KEY_LEN]);
        key.copy_from_slice(&mac.finalize().into_bytes());
        ValueKey::from_bytes(key)
    }

    /// What stands in the place of a tag that stands for nothing.
    #[must_use]
    pub fn filler(&self, place: TagPlace) -> [u8; SEARCH_TAG_LEN] {
        tag(&self.mac, place)
    }
}

impl ValueKey {
    /// Takes over a key that was made before.
    #[must_use]
    pub fn from_bytes(key: Zeroizing<[u8; VALUE_KEY_LEN]>) -> Self {
        let mac = keyed(&key);
        Self { key, mac }
    }

    /// The bytes, for a file that gives somebody the power to search; never for anything that prints.
    #[must_use]
    pub fn expose(&self) -> &[u8; VALUE_KEY_LEN] {
        &self.key
    }

    /// The tag that this value has at this place.
    #[must_use]
    pub fn tag(&self, place: TagPlace) -> [u8; SEARCH_TAG_LEN] {
        tag(&self.mac, place)
    }

    /// Is this the tag that this value has at this place? By chance once in 2^128.
    #[must_use]
    pub fn matches(&self, place: TagPlace, found: &[u8]) -> bool {
        self.tag(place).ct_eq(found).into()
    }
}

fn keyed(key: &[u8; VALUE_KEY_LEN]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any key length");
    mac
}

fn tag(mac: &Hmac<Sha256>, place: TagPlace) -> [u8; SEARCH_TAG_LEN] {
    let mut mac = mac.clone();
    mac.update(TAG);
    mac.update(&place.seq.to_be_bytes());
    mac.update(&place.block.to_be_bytes());
    mac.update(&[place.slot]);
    let whole = mac.finalize().into_bytes();
    let mut out = [0; SEARCH_TAG_LEN];
    for (to, from) in out.iter_mut().zip(whole) {
        *to = from;
    }
    out
}

/// Prints no byte of the key.
impl fmt::Debug for SearchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchKey").finish_non_exhaustive()
    }
}

/// Prints no byte of the key.
impl fmt::Debug for ValueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::epoch_key::EpochKey;
    use super::super::provider::Provider;
    use super::super::schedule::{EpochSchedule, KeyScope};
    use super::super::seal::{OpenError, Opener, Sealer};
    use super::super::stack::{Stack, StackIndex, StackList, Suite};
    use super::super::unit::{HEADER_LEN, Unit};
    use super::*;

    fn scope(epoch: u64) -> KeyScope {
        KeyScope { pair: [1; 16], generation: 1, epoch, incarnation: [2; 16] }
    }

    fn epoch_key() -> EpochKey {
        EpochKey::from_unwrapped(&Zeroizing::new([7; 32]))
    }

    fn search(epoch: u64) -> SearchKey {
        EpochSchedule::new(&epoch_key(), &scope(epoch)).search()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn bytes_of_the_search_branch_never_change() {
        let place = TagPlace { seq: 0x0102, block: 3, slot: 1 };
        let key = search(4).value_key("customer", 2, b"Meier");
        assert_eq!(hex(key.expose()), "d90216e8c111d7c8f45cea9d62a65111dd93d85c761ab7a7ff3d6cb40884efb2");
        assert_eq!(hex(&key.tag(place)), "5f80896a1980e8bca7a15aea8a5a154f");
        assert_eq!(hex(&search(4).filler(place)), "7b5831b2d3bea3f79d88cd3c6b8a8974");
    }

    #[test]
    fn no_key_of_the_search_branch_is_a_layer_key_or_the_check_value() {
        let schedule = EpochSchedule::new(&epoch_key(), &scope(1));
        let layer = Stack::single(Suite::Aes256Gcm).unwrap();
        let layer =
            schedule.layer(layer.outer().suite, &layer.outer().label, None, super::super::schedule::Span::of(1));
        let search = schedule.search();
        let place = TagPlace { seq: 1, block: 0, slot: 0 };
        for other in [*layer.key, schedule.key_check().0, schedule.drill(&[0; 32]), *epoch_key().expose()] {
            assert_ne!(search.filler(place), SearchKey::new(&Zeroizing::new(other)).filler(place));
            assert_ne!(*search.value_key("id", 1, b"").expose(), other);
        }
        assert_eq!(format!("{search:?} {:?}", search.value_key("id", 1, b"")), "SearchKey { .. } ValueKey { .. }");
    }

    #[test]
    fn equal_values_have_no_equal_tags() {
        let key = search(1).value_key("id", 1, b"same");
        let places = (0..20)
            .flat_map(|seq| (0..20).flat_map(move |block| (0..8).map(move |slot| TagPlace { seq, block, slot })));
        let mut tags: BTreeSet<_> = places.clone().map(|place| key.tag(place)).collect();
        tags.extend(places.map(|place| search(1).filler(place)));
        assert_eq!(tags.len(), 2 * 20 * 20 * 8);
    }

    proptest! {
        #[test]
        fn a_value_is_found_and_no_other_field_form_value_epoch_or_place_is(
            value: Vec<u8>, other: Vec<u8>, seq in 0..1_u64 << 48, block in 0..2048_u32, slot in 0..8_u8,
        ) {
            let place = TagPlace { seq, block, slot };
            let key = search(1).value_key("id", 1, &value);
            let tag = key.tag(place);
            prop_assert!(search(1).value_key("id", 1, &value).matches(place, &tag));
            prop_assert!(other == value || !search(1).value_key("id", 1, &other).matches(place, &tag));
            prop_assert!(!search(1).value_key("ie", 1, &value).matches(place, &tag));
            prop_assert!(!search(1).value_key("id", 2, &value).matches(place, &tag));
            prop_assert!(!search(2).value_key("id", 1, &value).matches(place, &tag));
            let others = [
                TagPlace { seq: seq + 1, ..place },
                TagPlace { block: block + 1, ..place },
                TagPlace { slot: slot + 1, ..place },
            ];
            prop_assert!(!others.iter().any(|place| key.matches(*place, &tag)));
            prop_assert!(!key.matches(place, &tag[1..]));
        }
    }

    /// Three blocks of 64 bytes with two search tags each.
    fn sealed() -> ([u8; HEADER_LEN], Vec<u8>, Vec<u8>) {
        let (header, mut body) = ([9; HEADER_LEN], vec![5; 3 * 64]);
        let mut tags: Vec<u8> = (0..3 * 48_u8).collect();
        let stacks = StackList::from(Stack::single(Suite::Aes256Gcm).unwrap());
        let mut sealer = Sealer::new(&epoch_key(), &scope(1), stacks, Provider::AwsLc);
        sealer.seal_batch(&mut [unit(&header, &mut body, &mut tags, 32, 0)], None).unwrap();
        (header, body, tags)
    }

    fn unit<'a>(
        header: &'a [u8; HEADER_LEN],
        body: &'a mut [u8],
        tags: &'a mut [u8],
        beside: usize,
        first_block: u32,
    ) -> Unit<'a> {
        Unit { header, seq: 8, stack: StackIndex(0), block_len: 64, first_block, body, beside, tags }
    }

    fn open(unit: Unit<'_>) -> Result<(), OpenError> {
        let stacks = StackList::from(Stack::single(Suite::Aes256Gcm).unwrap());
        Opener::new(&epoch_key(), &scope(1), stacks, Provider::Portable).open_batch(&mut [unit], None)
    }

    #[test]
    fn a_search_tag_that_was_changed_or_swapped_is_found_when_its_block_is_opened() {
        let (header, body, tags) = sealed();
        assert!(open(unit(&header, &mut body.clone(), &mut tags.clone(), 32, 0)).is_ok());
        for block in 0..3 {
            let (from, own) = (block * 64, block * 48);
            let (mut one, mut its) = (body[from..from + 64].to_vec(), tags[own..own + 48].to_vec());
            let index = u32::try_from(block).unwrap();
            assert!(open(unit(&header, &mut one, &mut its, 32, index)).is_ok(), "opened without its neighbours");
            for at in 16..48 {
                let (mut one, mut its) = (body[from..from + 64].to_vec(), tags[own..own + 48].to_vec());
                its[at] ^= 1;
                let refused = open(unit(&header, &mut one, &mut its, 32, index));
                assert!(
                    matches!(refused, Err(OpenError::NotAuthentic { seq: 8, block }) if block == index),
                    "byte {at}"
                );
            }
        }
        let mut swapped = tags.clone();
        let (first, second) = swapped.split_at_mut(48);
        first[16..48].swap_with_slice(&mut second[16..48]);
        let refused = open(unit(&header, &mut body.clone(), &mut swapped, 32, 0));
        assert!(matches!(refused, Err(OpenError::NotAuthentic { seq: 8, block: 0 })), "tags of neighbours");
        let mut within = tags.clone();
        let (first, second) = within[16..48].split_at_mut(16);
        first.swap_with_slice(second);
        let refused = open(unit(&header, &mut body.clone(), &mut within, 32, 0));
        assert!(matches!(refused, Err(OpenError::NotAuthentic { seq: 8, block: 0 })), "tags of one block");
    }

    #[test]
    fn search_tags_that_are_cut_off_or_where_none_can_be_are_refused() {
        let (header, body, tags) = sealed();
        let bare: Vec<u8> = tags.chunks(48).flat_map(|tags| tags[..16].to_vec()).collect();
        let refused = open(unit(&header, &mut body.clone(), &mut bare.clone(), 0, 0));
        assert!(matches!(refused, Err(OpenError::NotAuthentic { .. })));
        for (beside, len) in [(16, tags.len()), (32, 0), (144, 3 * 160)] {
            let refused = open(unit(&header, &mut body.clone(), &mut vec![0; len], beside, 0));
            assert!(matches!(refused, Err(OpenError::Length(_))), "{beside}");
        }
        let refused = open(unit(&header, &mut [], &mut [0; 32], 16, 0));
        assert!(matches!(refused, Err(OpenError::Length(_))), "without a body");
    }
}
