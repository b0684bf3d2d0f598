//! The record layout that a pair may declare: how long the initiators' records are, and which bytes of one are key fields that a
//! search of the copy may ask for
//!
//! A record of an initiator is a run of whole seal units (blocks), so that it can be opened without its neighbours; the first
//! begins with the pair's first block. A key field lies in one of its blocks, so that a block's tags speak of that block alone.

use serde::{Deserialize, Serialize};

use crate::limits::{LAYOUT_FIELD_BYTES_MAX, LAYOUT_FIELDS_MAX, LAYOUT_NAME_BYTES_MAX, RECORD_PAYLOAD_MAX};
use crate::units::{BlockBytes, BlockCount, Extent, Lba};

/// Bytes of one search tag.
pub const SEARCH_TAG_BYTES: usize = 16;

/// How many search tags each block of a pair's records has: one for each declared field, whether it lies in the block or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct SearchTags(u8);

/// Why a number cannot be a count of search tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a block has 0 to {LAYOUT_FIELDS_MAX} search tags; got {0}")]
pub struct BadSearchTags(pub u8);

/// Which layout: two that differ anywhere have two ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LayoutId(pub [u8; 16]);

/// What the two sites compare of a layout, and how much room its tags take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayoutMark {
    pub id: LayoutId,
    pub tags: SearchTags,
}

/// When two values of a field are the same. The forms are numbered, and a number never changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The bytes as they are.
    Raw,
    /// Without the NUL bytes and spaces at the end.
    Text,
    /// As text, ASCII letters in lower case.
    TextNoCase,
    /// A number without a sign, its lowest byte first: 1 to 8 bytes.
    NumberLe,
    /// The same, its highest byte first.
    NumberBe,
}

/// A key field of a record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Field {
    /// What a search calls it: 1 to 32 characters of a-z, 0-9, - and _.
    pub name: String,
    /// Bytes of the record before it.
    pub offset: u32,
    /// Its bytes: 1 to 256.
    pub length: u32,
    pub form: Form,
}

/// How a pair's volume is made of records. Checked: see [`Layout::new`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    record_bytes: u32,
    block_bytes: BlockBytes,
    fields: Vec<Field>,
}

/// A field's value in the form in which two that count as the same are the same bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Canonical(Vec<u8>);

/// Why this is no layout.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadLayout {
    #[error(
        "a record of {record} bytes is not a run of whole blocks of {block} bytes, up to 1 MiB: a block is what is opened at once; \
         choose a block size that divides the record's"
    )]
    Record { record: u32, block: u32 },
    #[error("a layout has 1 to {LAYOUT_FIELDS_MAX} key fields, this one {0}")]
    Fields(usize),
    #[error("field {0:?}: a name has 1 to 32 characters of a-z, 0-9, - and _")]
    Name(String),
    #[error("field {0:?} is declared twice")]
    Twice(String),
    #[error(
        "field {name:?}: its bytes {offset}..{end} are not within a record of {record}, or not 1 to {most} of them"
    )]
    Place { name: String, offset: u32, end: u64, record: u32, most: u32 },
    #[error(
        "field {name:?}: it lies in two blocks of {block} bytes; choose larger blocks, or a part of it that lies in one"
    )]
    TwoBlocks { name: String, block: u32 },
}

/// Why a text is no value of a field.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadValue {
    #[error(
        "field {field:?} has {want} bytes, and this value {got}: give just as many, or as many pairs of digits after 0x"
    )]
    Length { field: String, want: u32, got: usize },
    #[error("field {field:?} has {most} bytes, and this value {got}")]
    TooLong { field: String, most: u32, got: usize },
    #[error("field {field:?}: 0x is followed by pairs of hexadecimal digits")]
    Hex { field: String },
    #[error("field {field:?} holds a whole number of {bytes} bytes, as in 4711 or 0x1267")]
    Number { field: String, bytes: u32 },
}

impl SearchTags {
    pub const NONE: Self = Self(0);

    pub fn new(count: u8) -> Result<Self, BadSearchTags> {
        if usize::from(count) <= LAYOUT_FIELDS_MAX { Ok(Self(count)) } else { Err(BadSearchTags(count)) }
    }

    pub fn get(self) -> u8 {
        self.0
    }

    /// Bytes of one block's search tags.
    pub fn bytes(self) -> usize {
        usize::from(self.0) * SEARCH_TAG_BYTES
    }
}

impl From<SearchTags> for u8 {
    fn from(tags: SearchTags) -> Self {
        tags.0
    }
}

impl TryFrom<u8> for SearchTags {
    type Error = BadSearchTags;

    fn try_from(count: u8) -> Result<Self, BadSearchTags> {
        Self::new(count)
    }
}

impl Form {
    pub const ALL: [Self; 5] = [Self::Raw, Self::Text, Self::TextNoCase, Self::NumberLe, Self::NumberBe];

    /// The number by which tags and search keys name it.
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 1,
            Self::Text => 2,
            Self::TextNoCase => 3,
            Self::NumberLe => 4,
            Self::NumberBe => 5,
        }
    }

    /// The word in configuration and commands.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Text => "text",
            Self::TextNoCase => "text-no-case",
            Self::NumberLe => "number-le",
            Self::NumberBe => "number-be",
        }
    }

    fn bytes_max(self) -> u32 {
        match self {
            Self::Raw | Self::Text | Self::TextNoCase => LAYOUT_FIELD_BYTES_MAX,
            Self::NumberLe | Self::NumberBe => 8,
        }
    }

    fn canonical(self, bytes: &[u8]) -> Canonical {
        Canonical(match self {
            Self::Raw => bytes.to_vec(),
            Self::Text => trimmed(bytes).to_vec(),
            Self::TextNoCase => trimmed(bytes).to_ascii_lowercase(),
            Self::NumberLe => number(bytes.iter().rev()),
            Self::NumberBe => number(bytes.iter()),
        })
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Eight bytes, the highest first, whatever the length of the field.
fn number<'a>(highest_first: impl Iterator<Item = &'a u8>) -> Vec<u8> {
    highest_first.fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).to_be_bytes().to_vec()
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    &bytes[..end]
}

impl Field {
    /// The value that an operator's text means: the field's bytes for [`Form::Raw`], as they are or as hexadecimal digits after 0x;
    /// a text; or a number.
    ///
    /// # Errors
    /// [`BadValue`].
    pub fn value(&self, text: &str) -> Result<Canonical, BadValue> {
        let (field, length) = (self.name.clone(), self.length);
        let most = usize::try_from(length).unwrap_or(usize::MAX);
        match self.form {
            Form::Raw => {
                let bytes = match text.strip_prefix("0x") {
                    Some(digits) => hex(digits).ok_or_else(|| BadValue::Hex { field: field.clone() })?,
                    None => text.as_bytes().to_vec(),
                };
                let got = bytes.len();
                if got == most { Ok(Canonical(bytes)) } else { Err(BadValue::Length { field, want: length, got }) }
            }
            Form::Text | Form::TextNoCase => {
                let value = self.form.canonical(text.as_bytes());
                let got = value.0.len();
                if got <= most { Ok(value) } else { Err(BadValue::TooLong { field, most: length, got }) }
            }
            Form::NumberLe | Form::NumberBe => {
                let read = match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => text.parse(),
                };
                let fits = |number: &u64| length >= 8 || *number >> (8 * length) == 0;
                let number = read.ok().filter(fits).ok_or(BadValue::Number { field, bytes: length })?;
                Ok(Canonical(number.to_be_bytes().to_vec()))
            }
        }
    }

    /// The value that these bytes of the field are.
    pub fn canonical(&self, bytes: &[u8]) -> Canonical {
        self.form.canonical(bytes)
    }

    fn check(&self, record: u32, block: u32) -> Result<(), BadLayout> {
        let (name, most) = (self.name.clone(), self.form.bytes_max());
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if !(1..=LAYOUT_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(BadLayout::Name(name.chars().take(LAYOUT_NAME_BYTES_MAX + 1).collect()));
        }
        let end = u64::from(self.offset) + u64::from(self.length);
        if !(1..=most).contains(&self.length) || end > u64::from(record) {
            return Err(BadLayout::Place { name, offset: self.offset, end, record, most });
        }
        if u64::from(self.offset / block) != (end - 1) / u64::from(block) {
            return Err(BadLayout::TwoBlocks { name, block });
        }
        Ok(())
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let whole = |pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2 && !pair.starts_with('+'));
    pairs.map(|pair| u8::from_str_radix(whole(pair)?, 16).ok()).collect()
}

impl Layout {
    /// Checks a layout over blocks of this size.
    ///
    /// # Errors
    /// [`BadLayout`] says what does not fit and what to choose.
    pub fn new(record_bytes: u32, block_bytes: BlockBytes, fields: Vec<Field>) -> Result<Self, BadLayout> {
        let block = block_bytes.get();
        if record_bytes == 0 || !record_bytes.is_multiple_of(block) || record_bytes > RECORD_PAYLOAD_MAX {
            return Err(BadLayout::Record { record: record_bytes, block });
        }
        if !(1..=LAYOUT_FIELDS_MAX).contains(&fields.len()) {
            return Err(BadLayout::Fields(fields.len()));
        }
        for (at, field) in fields.iter().enumerate() {
            field.check(record_bytes, block)?;
            if fields[..at].iter().any(|earlier| earlier.name == field.name) {
                return Err(BadLayout::Twice(field.name.clone()));
            }
        }
        Ok(Self { record_bytes, block_bytes, fields })
    }

    /// Bytes of a record.
    pub fn record_bytes(&self) -> u32 {
        self.record_bytes
    }

    pub fn block_bytes(&self) -> BlockBytes {
        self.block_bytes
    }

    /// The key fields, each at its number: the number of its tag in every block.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of this name, and its number.
    pub fn field(&self, name: &str) -> Option<(u8, &Field)> {
        (0..).zip(&self.fields).find(|(_, field)| field.name == name)
    }

    pub fn tags(&self) -> SearchTags {
        SearchTags(u8::try_from(self.fields.len()).unwrap_or(u8::MAX))
    }

    pub fn mark(&self) -> LayoutMark {
        LayoutMark { id: self.id(), tags: self.tags() }
    }

    /// Blocks of a record.
    pub fn record_blocks(&self) -> BlockCount {
        BlockCount(u64::from(self.record_bytes / self.block_bytes.get()))
    }

    /// The record that a block belongs to, as far as it lies in a volume of `blocks` blocks.
    pub fn record_of(&self, lba: Lba, blocks: BlockCount) -> Option<Extent> {
        let whole = self.record_blocks().0;
        let first = lba.0 / whole * whole;
        Extent::new(Lba(first), BlockCount(blocks.0.checked_sub(first)?.min(whole)))
    }

    /// Can a field with this number lie in the block at `lba`?
    pub fn is_in(&self, field: u8, lba: Lba) -> bool {
        self.fields.get(usize::from(field)).is_some_and(|field| self.block_of(field) == self.block_in_record(lba))
    }

    /// What each field's tag of the block at `lba` stands for: the field's value, or nothing where it lies in another block of the
    /// record.
    pub fn values<'a>(&'a self, lba: Lba, block: &'a [u8]) -> impl Iterator<Item = (&'a Field, Option<Canonical>)> {
        let at = self.block_in_record(lba);
        self.fields.iter().map(move |field| {
            let from = usize::try_from(field.offset % self.block_bytes.get()).unwrap_or(usize::MAX);
            let len = usize::try_from(field.length).unwrap_or(usize::MAX);
            let here = block.get(from..from.saturating_add(len)).filter(|_| self.block_of(field) == at);
            (field, here.map(|bytes| field.form.canonical(bytes)))
        })
    }

    fn block_in_record(&self, lba: Lba) -> u64 {
        lba.0 % self.record_blocks().0
    }

    fn block_of(&self, field: &Field) -> u64 {
        u64::from(field.offset / self.block_bytes.get())
    }

    /// The first 16 bytes of BLAKE3 over a fixed layout of everything that is declared.
    fn id(&self) -> LayoutId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"farseal record layout 1");
        hasher.update(&self.record_bytes.to_le_bytes());
        hasher.update(&self.block_bytes.get().to_le_bytes());
        for field in &self.fields {
            let name = field.name.as_bytes();
            hasher.update(&[field.form.code(), u8::try_from(name.len()).unwrap_or(u8::MAX)]);
            hasher.update(name);
            hasher.update(&field.offset.to_le_bytes());
            hasher.update(&field.length.to_le_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        LayoutId(id)
    }
}

impl Canonical {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Initiators' data: its length alone.
impl std::fmt::Debug for Canonical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Canonical({} bytes)", self.0.len())
    }
}

impl std::fmt::Display for LayoutId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str, offset: u32, length: u32, form: Form) -> Field {
        Field { name: name.into(), offset, length, form }
    }

    fn sector() -> BlockBytes {
        BlockBytes::new(512).unwrap()
    }

    #[test]
    fn a_layout_that_cannot_be_is_refused_by_name() {
        let id = || field("id", 0, 8, Form::NumberLe);
        let new = |record, fields| Layout::new(record, sector(), fields).map(|_| ());
        assert_eq!(new(1536, vec![id()]), Ok(()));
        for (record, fields, why) in [
            (256, vec![id()], "a record of 256 bytes is not a run of whole blocks of 512 bytes"),
            (2 << 20, vec![id()], "up to 1 MiB"),
            (512, vec![], "1 to 8 key fields, this one 0"),
            (512, vec![id(); 9], "1 to 8 key fields, this one 9"),
            (512, vec![id(), id()], "\"id\" is declared twice"),
            (512, vec![field("Id", 0, 8, Form::Raw)], "\"Id\": a name has"),
            (512, vec![field("n", 0, 9, Form::NumberBe)], "\"n\": its bytes 0..9"),
            (512, vec![field("n", 510, 4, Form::Raw)], "\"n\": its bytes 510..514 are not within a record of 512"),
            (512, vec![field("n", 0, 0, Form::Raw)], "\"n\": its bytes 0..0"),
            (1024, vec![field("n", 510, 4, Form::Raw)], "\"n\": it lies in two blocks of 512 bytes"),
            (512, vec![field("n", u32::MAX, u32::MAX, Form::Raw)], "\"n\": its bytes"),
        ] {
            let said = new(record, fields).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_value_means_the_bytes_that_an_application_writes() {
        let means = |form, length, text: &str| field("f", 0, length, form).value(text).map(|value| value.0);
        for (form, length, text, bytes) in [
            (Form::Raw, 3, "abc", &b"abc"[..]),
            (Form::Raw, 2, "0x00ff", b"\0\xff"),
            (Form::Text, 8, "Meier", b"Meier\0\0\0"),
            (Form::Text, 8, "Meier", b"Meier   "),
            (Form::TextNoCase, 8, "MEIER", b"meiER  \0"),
            (Form::NumberLe, 4, "258", b"\x02\x01\0\0"),
            (Form::NumberBe, 2, "0x102", b"\x01\x02"),
            (Form::NumberBe, 8, "18446744073709551615", b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        ] {
            assert_eq!(means(form, length, text), Ok(form.canonical(bytes).0), "{form} {text}");
        }
        for (form, length, text) in [
            (Form::Raw, 3, "ab"),
            (Form::Raw, 2, "0x0"),
            (Form::Raw, 1, "0x+1"),
            (Form::Text, 4, "Meier"),
            (Form::NumberLe, 2, "65536"),
            (Form::NumberLe, 2, "-1"),
        ] {
            assert!(means(form, length, text).is_err(), "{form} {text}");
        }
    }

    #[test]
    fn a_block_speaks_of_the_fields_that_lie_in_it_and_of_no_other() {
        let fields = vec![field("a", 4, 2, Form::Raw), field("b", 512, 2, Form::Raw)];
        let layout = Layout::new(1024, sector(), fields).unwrap();
        let block: Vec<u8> = (0..512_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let seen =
            |lba| layout.values(Lba(lba), &block).map(|(_, value)| value.map(|value| value.0)).collect::<Vec<_>>();
        assert_eq!(seen(6), [Some(vec![4, 5]), None]);
        assert_eq!(seen(7), [None, Some(vec![0, 1])]);
        assert!(
            layout.is_in(0, Lba(6)) && layout.is_in(1, Lba(7)) && !layout.is_in(0, Lba(7)) && !layout.is_in(2, Lba(7))
        );
        let record = |lba, blocks| layout.record_of(Lba(lba), BlockCount(blocks)).map(|extent| extent.to_string());
        assert_eq!(record(7, 100), Some("6+2".into()));
        assert_eq!(record(7, 7), Some("6+1".into()), "the volume ends in it");
        assert_eq!(record(7, 6), None);
    }

    #[test]
    fn the_id_of_a_layout_never_changes_and_differs_with_whatever_is_declared() {
        let base = vec![field("id", 0, 8, Form::NumberLe), field("name", 8, 32, Form::Text)];
        let of = |record, block, fields| Layout::new(record, BlockBytes::new(block).unwrap(), fields).unwrap().id();
        let id = of(1024, 512, base.clone());
        assert_eq!(id.to_string(), "51277aebeedf55ab681ed80dc2f7bce5");
        let changed = |change: fn(&mut Vec<Field>)| {
            let mut fields = base.clone();
            change(&mut fields);
            of(1024, 512, fields)
        };
        let all = [
            id,
            of(512, 512, base.clone()),
            of(1024, 1024, base.clone()),
            changed(|fields| fields.reverse()),
            changed(|fields| fields[0].form = Form::NumberBe),
            changed(|fields| fields[0].offset = 1),
            changed(|fields| fields[0].length = 7),
            changed(|fields| fields[0].name = "ic".into()),
            changed(|fields| fields.truncate(1)),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_found_by_what_it_is_whatever_its_order(number: u64, length in 1..=8_u32) {
            let number = if length == 8 { number } else { number % (1 << (8 * length)) };
            let take = usize::try_from(length).unwrap();
            let le = &number.to_le_bytes()[..take];
            let be = &number.to_be_bytes()[8 - take..];
            for (form, bytes) in [(Form::NumberLe, le), (Form::NumberBe, be)] {
                let value = field("n", 0, length, form).value(&number.to_string()).unwrap();
                prop_assert_eq!(&value, &form.canonical(bytes));
            }
        }

        #[test]
        fn no_text_panics(text: String, length in 1..=8_u32, form in 0..5_usize) {
            let _ = field("n", 0, length, Form::ALL[form]).value(&text);
        }
    }
}
