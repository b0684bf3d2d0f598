//! A search that a site asks the escrow for: what is looked for, and a record that is to be opened because it holds it.
//!
//! The escrow releases search keys for an approved search, and no data key. A record that the search found is sent to it, sealed,
//! and opened there if one of its search tags says that it holds the value: so the site opens the matches and nothing else,
//! whatever software it runs. Of a record of several blocks the site says which belong together, and no tag binds them: parts of
//! a record may be written at different times. The escrow sees what it opens, and keeps none of it.

use farseal_core::layout::Form;
use farseal_core::record::{Framed, HEADER_BYTES, Kind, TAG_BYTES};
use farseal_core::units::{Lba, Sequence};
use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::seal::Opener;
use farseal_plugin::vault::search::{SEARCH_TAG_LEN, SearchKey, TagPlace, ValueKey};
use farseal_plugin::vault::stack::StackIndex;
use farseal_plugin::vault::unit::Unit;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::keys::descriptor::Terms;
use crate::keys::wire::{Reader, Short, to_hex};

/// Bytes of a field's name and of a value at most, as a layout's.
const NAME_MAX: usize = 32;
const VALUE_MAX: usize = 256;
/// Bytes of a sealed record that one cell holds, with what stands around it; a longer one goes in parts.
pub const RECORD_BYTES_MAX: usize = 15 << 10;
const HASHED: &[u8] = b"farseal v1 asked search";

/// What is looked for: one value of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AskedSearch {
    pub field: String,
    pub form: Form,
    /// The field's number in the layout.
    pub slot: u8,
    /// Blocks of a record.
    pub record_blocks: u32,
    /// In the form's one way of writing it.
    pub value: Vec<u8>,
}

/// A block of a record as it lies in the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBlock {
    /// Of the epoch's deposit.
    pub deposit: [u8; 32],
    /// The epoch's descriptor, which names the ciphers.
    pub descriptor: Vec<u8>,
    /// The record's header.
    pub header: [u8; HEADER_BYTES],
    /// The block's place in the volume, and its index in the record; 0 in one that says that its blocks read as zeroes.
    pub lba: Lba,
    pub block: u32,
    /// Its tag and its search tags.
    pub tags: Vec<u8>,
    /// Nothing of a block that reads as zeroes.
    pub bytes: Vec<u8>,
}

/// A record that an approved search found, to be opened: all blocks of it that were ever written, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    pub request: u64,
    pub blocks: Vec<SealedBlock>,
}

/// Why a record is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("the search is not approved there, or its time is over: approve it again")]
    NotApproved,
    #[error("it does not hold what was searched for, by its tags")]
    NoMatch,
    #[error("it is not what was sealed, or of an epoch that was not asked for")]
    NotAuthentic,
    #[error(
        "its cipher runs in a component that the main site did not send there, or that does not load: ask for its epoch's key"
    )]
    NeedsComponent,
    #[error("another record came between its parts, or the line broke: search again")]
    Interrupted,
    #[error("it is longer than a record can be")]
    TooLong,
    #[error("its cipher's component is too slow there to open the whole record in time: ask for its epoch's key")]
    TooSlow,
}

impl AskedSearch {
    /// What a release names it by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new().chain_update(HASHED).chain_update(self.encode()).finalize().into()
    }

    /// The value as the person at the escrow reads it: made of the very bytes that find it, as whoever asks could show another.
    #[must_use]
    pub fn shown(&self) -> String {
        let number = || Some(u64::from_be_bytes(self.value.as_slice().try_into().ok()?).to_string());
        let text = || std::str::from_utf8(&self.value).ok().filter(|text| !text.starts_with("0x"));
        let readable = match self.form {
            Form::NumberLe | Form::NumberBe => number(),
            Form::Raw | Form::Text | Form::TextNoCase => text().map(|text| text.escape_debug().to_string()),
        };
        readable.unwrap_or_else(|| format!("0x{}", to_hex(&self.value)))
    }

    /// What finds it in an epoch.
    #[must_use]
    pub fn value_key(&self, epoch: &SearchKey) -> ValueKey {
        epoch.value_key(&self.field, self.form.code(), &self.value)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.form.code(), self.slot];
        bytes.extend_from_slice(&self.record_blocks.to_be_bytes());
        for text in [self.field.as_bytes(), &self.value] {
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(text);
        }
        bytes
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Short> {
        let (form, slot, record_blocks) = (reader.u8()?, reader.u8()?, reader.u32()?);
        let forms = [Form::Raw, Form::Text, Form::TextNoCase, Form::NumberLe, Form::NumberBe];
        let form = forms.into_iter().find(|known| known.code() == form);
        let mut part = |most: usize| -> Result<Option<Vec<u8>>, Short> {
            let length = usize::from(reader.u16()?);
            let bytes = reader.bytes(length)?;
            Ok((length <= most).then(|| bytes.to_vec()))
        };
        let (field, value) = (part(NAME_MAX)?, part(VALUE_MAX)?);
        let field = field.and_then(|bytes| String::from_utf8(bytes).ok());
        let (Some(form), Some(field), Some(value)) = (form, field, value) else { return Ok(None) };
        let sound = !field.is_empty() && !field.contains(char::is_control) && record_blocks > 0;
        Ok(sound.then_some(Self { field, form, slot, record_blocks, value }))
    }
}

impl SealedRecord {
    /// Bytes of it in a cell.
    #[must_use]
    pub fn len(&self) -> usize {
        let each = |block: &SealedBlock| {
            32 + 2 + block.descriptor.len() + HEADER_BYTES + 8 + 4 + 2 + block.tags.len() + 4 + block.bytes.len()
        };
        8 + self.blocks.iter().map(each).sum::<usize>()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.request.to_be_bytes());
        for block in &self.blocks {
            bytes.extend_from_slice(&block.deposit);
            let length = |part: &[u8]| u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
            bytes.extend_from_slice(&length(&block.descriptor));
            bytes.extend_from_slice(&block.descriptor);
            bytes.extend_from_slice(&block.header);
            bytes.extend_from_slice(&block.lba.0.to_be_bytes());
            bytes.extend_from_slice(&block.block.to_be_bytes());
            bytes.extend_from_slice(&length(&block.tags));
            bytes.extend_from_slice(&block.tags);
            // A block of 64 KiB is one more than two bytes count.
            bytes.extend_from_slice(&u32::try_from(block.bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(&block.bytes);
        }
    }

    /// As it goes in parts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.write(&mut bytes);
        bytes
    }

    /// `None`: it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read(&mut Reader::new(bytes)).ok().flatten()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Short> {
        let request = reader.u64()?;
        let mut blocks = Vec::new();
        while !reader.rest().is_empty() {
            let deposit = reader.array()?;
            let length = usize::from(reader.u16()?);
            let descriptor = reader.bytes(length)?.to_vec();
            let (header, lba, block) = (reader.array()?, Lba(reader.u64()?), reader.u32()?);
            let length = usize::from(reader.u16()?);
            let tags = reader.bytes(length)?.to_vec();
            let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
            let bytes = reader.bytes(length)?.to_vec();
            blocks.push(SealedBlock { deposit, descriptor, header, lba, block, tags, bytes });
        }
        Ok((!blocks.is_empty()).then_some(Self { request, blocks }))
    }
}

/// One block, opened, and whether its tag says that it holds the value.
pub(super) struct OpenedBlock {
    pub(super) lba: Lba,
    /// Of the record of the copy that holds it.
    pub(super) sequence: Sequence,
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) matches: bool,
}

impl SealedBlock {
    /// Opens it with its epoch's key and terms, and with the component that its cipher runs in.
    pub(super) fn open(
        &self,
        key: &farseal_plugin::vault::epoch_key::EpochKey,
        terms: &Terms,
        search: &AskedSearch,
        guest: Option<&mut dyn GuestLayer>,
    ) -> Result<OpenedBlock, NotOpened> {
        let header = Framed::decode(&self.header).map_err(|_| NotOpened::NotAuthentic)?.header;
        let scope = &terms.scope();
        let held = header.extent().filter(|held| held.contains(self.lba));
        let placed = held.is_some_and(|held| match header.kind {
            Kind::Data => self.lba.0 - held.first().0 == u64::from(self.block),
            Kind::Zero | Kind::Trim => self.block == 0 && self.bytes.is_empty(),
            Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => false,
        });
        let sound = placed && header.pair.0 == scope.pair && self.tags.len() == header.tag_bytes_each();
        if !sound || self.tags.len() < TAG_BYTES {
            return Err(NotOpened::NotAuthentic);
        }
        if terms.needs_layer() && guest.is_none() {
            return Err(NotOpened::NeedsComponent);
        }
        // Room for all of the block from the start: growing would leave a part of it behind where it was.
        let block_bytes = header.block_bytes.as_usize();
        let mut bytes = Zeroizing::new(Vec::with_capacity(block_bytes.max(self.bytes.len())));
        bytes.extend_from_slice(&self.bytes);
        let mut tags = self.tags.clone();
        let mut units = [Unit {
            header: &header.encode(0),
            seq: header.sequence.0,
            stack: StackIndex(header.stack),
            block_len: header.block_bytes.get(),
            first_block: self.block,
            body: &mut bytes,
            beside: self.tags.len() - TAG_BYTES,
            tags: &mut tags,
        }];
        let mut opener = Opener::new(key, scope, terms.stacks.clone(), Provider::AwsLc);
        opener.open_batch(&mut units, guest).map_err(|_| NotOpened::NotAuthentic)?;
        let own = search.value_key(&farseal_plugin::vault::schedule::EpochSchedule::new(key, scope).search());
        let place = TagPlace { seq: header.sequence.0, block: self.block, slot: search.slot };
        let at = TAG_BYTES + usize::from(search.slot) * SEARCH_TAG_LEN;
        let matches = self.tags.get(at..at + SEARCH_TAG_LEN).is_some_and(|tag| own.matches(place, tag));
        bytes.resize(block_bytes, 0);
        Ok(OpenedBlock { lba: self.lba, sequence: header.sequence, bytes, matches })
    }
}

/// The bytes of a record whose blocks were opened, if it is one record and holds the value.
pub(super) fn record_of(blocks: &[OpenedBlock], search: &AskedSearch) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let whole = u64::from(search.record_blocks);
    let first = blocks.first().map_or(0, |block| block.lba.0);
    // A record's blocks lie within one multiple of its length: else any block could come along with a match. One that was never
    // written is not there.
    let in_one = blocks.iter().all(|block| block.lba.0 / whole == first / whole);
    let in_order = blocks.is_sorted_by(|one, next| one.lba < next.lba);
    if !in_one || !in_order || !blocks.iter().any(|block| block.matches) {
        return Err(NotOpened::NoMatch);
    }
    let mut record = Zeroizing::new(Vec::with_capacity(blocks.iter().map(|block| block.bytes.len()).sum()));
    blocks.iter().for_each(|block| record.extend_from_slice(&block.bytes));
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_of_one_record_come_along_with_the_one_that_holds_the_value() {
        let search =
            |record_blocks| AskedSearch { field: "id".into(), form: Form::Raw, slot: 0, record_blocks, value: vec![7] };
        let block =
            |lba, matches| OpenedBlock { lba: Lba(lba), sequence: Sequence(5), bytes: vec![1, 2].into(), matches };
        let opened = |blocks: Vec<OpenedBlock>, each| record_of(&blocks, &search(each)).map(|record| record.to_vec());
        assert_eq!(opened(vec![block(4, true)], 1), Ok(vec![1, 2]));
        assert_eq!(opened(vec![block(4, false), block(5, true)], 2), Ok(vec![1, 2, 1, 2]));
        assert_eq!(opened(vec![block(4, true), block(7, false)], 4), Ok(vec![1, 2, 1, 2]), "two were never written");
        for (what, blocks, each) in [
            ("no match", vec![block(4, false)], 1),
            ("another record with it", vec![block(4, true), block(5, false)], 1),
            ("over the end of its record", vec![block(5, true), block(6, false)], 2),
            ("from elsewhere", vec![block(4, true), block(9, false)], 6),
            ("twice", vec![block(4, true), block(4, false)], 2),
            ("out of order", vec![block(5, true), block(4, false)], 2),
            ("nothing", Vec::new(), 1),
        ] {
            assert_eq!(opened(blocks, each), Err(NotOpened::NoMatch), "{what}");
        }
        assert_ne!(search(1).hash(), search(2).hash());
    }

    #[test]
    fn a_person_reads_the_value_that_is_looked_for_and_no_other() {
        let shown = |form, value: &[u8]| {
            AskedSearch { field: "id".into(), form, slot: 0, record_blocks: 1, value: value.to_vec() }.shown()
        };
        for (form, value, expected) in [
            (Form::Text, b"Meier".as_slice(), "Meier"),
            (Form::NumberLe, &700_u64.to_be_bytes(), "700"),
            (Form::NumberBe, b"short", "0x73686f7274"),
            (Form::Raw, &[0xff, 0], "0xff00"),
            (Form::Raw, b"0xff00", "0x307866663030"),
            (Form::TextNoCase, "a\u{202e}b\n".as_bytes(), "a\\u{202e}b\\n"),
        ] {
            assert_eq!(shown(form, value), expected);
        }
    }
}
