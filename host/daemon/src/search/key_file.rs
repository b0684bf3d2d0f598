//! A search key in a file: the power to find one value of one field in chosen epochs, and to open nothing
//!
//! ```text
//! farseal search key 1
//! pair <32 hexadecimal digits>
//! layout <32 hexadecimal digits>
//! field <name>
//! epoch <number> <64 hexadecimal digits>      one line an epoch, rising
//! ```

use std::collections::BTreeMap;

use farseal_core::layout::{Layout, LayoutId};
use farseal_core::units::{Epoch, PairId};
use farseal_plugin::vault::search::{VALUE_KEY_LEN, ValueKey};
use zeroize::Zeroizing;

/// Bytes of a file at most: some 12 000 epochs.
pub const KEY_FILE_BYTES_MAX: u64 = 1 << 20;
const TITLE: &str = "farseal search key 1";

/// What is in the file.
#[derive(Debug)]
pub struct KeyFile {
    pub pair: PairId,
    pub layout: LayoutId,
    pub field: String,
    pub keys: BTreeMap<Epoch, ValueKey>,
}

/// Why a file is of no use here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyFile {
    #[error("this is no search key: its first line is not {TITLE:?}")]
    Title,
    #[error("line {0} of the search key cannot be read: export it again with `farseal recover search-key`")]
    Line(usize),
    #[error("the search key is for another pair, {0}")]
    OtherPair(PairId),
    #[error("the search key was made for another record layout: export it again with `farseal recover search-key`")]
    OtherLayout,
    #[error("the search key holds no epoch")]
    Empty,
}

impl KeyFile {
    /// The file's text, which holds the keys.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        // In one allocation, so that no copy of a key is left behind.
        let mut text = Zeroizing::new(String::with_capacity(200 + self.field.len() + self.keys.len() * 100));
        for part in [
            TITLE,
            "\npair ",
            &self.pair.to_string(),
            "\nlayout ",
            &self.layout.to_string(),
            "\nfield ",
            &self.field,
            "\n",
        ] {
            text.push_str(part);
        }
        for (epoch, key) in &self.keys {
            text.push_str(&format!("epoch {epoch} "));
            for byte in key.expose() {
                for digit in [byte >> 4, byte & 15] {
                    text.extend(char::from_digit(u32::from(digit), 16));
                }
            }
            text.push('\n');
        }
        text
    }

    /// Reads a file's text for a pair with this layout.
    ///
    /// # Errors
    /// [`BadKeyFile`].
    pub fn decode(text: &str, pair: PairId, layout: &Layout) -> Result<Self, BadKeyFile> {
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(BadKeyFile::Title);
        }
        let mut named = |number: usize, name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            line.and_then(|line| line.strip_prefix(' ')).ok_or(BadKeyFile::Line(number))
        };
        let its_pair = PairId(digits(named(2, "pair")?).ok_or(BadKeyFile::Line(2))?);
        let its_layout = LayoutId(digits(named(3, "layout")?).ok_or(BadKeyFile::Line(3))?);
        let field = named(4, "field")?.to_owned();
        if its_pair != pair {
            return Err(BadKeyFile::OtherPair(its_pair));
        }
        if its_layout != layout.mark().id || layout.field(&field).is_none() {
            return Err(BadKeyFile::OtherLayout);
        }
        let mut keys = BTreeMap::new();
        for (number, line) in (5..).zip(lines) {
            let (epoch, key) = epoch_line(line).ok_or(BadKeyFile::Line(number))?;
            if keys.last_key_value().is_some_and(|(last, _)| *last >= epoch) {
                return Err(BadKeyFile::Line(number));
            }
            keys.insert(epoch, key);
        }
        if keys.is_empty() { Err(BadKeyFile::Empty) } else { Ok(Self { pair, layout: its_layout, field, keys }) }
    }

    /// The epochs that it opens the tags of: the first and the last.
    #[must_use]
    pub fn span(&self) -> (Epoch, Epoch) {
        let first = self.keys.first_key_value().map_or(Epoch::NONE, |(epoch, _)| *epoch);
        (first, self.keys.last_key_value().map_or(Epoch::NONE, |(epoch, _)| *epoch))
    }
}

fn epoch_line(line: &str) -> Option<(Epoch, ValueKey)> {
    let (epoch, key) = line.strip_prefix("epoch ")?.split_once(' ')?;
    let key = Zeroizing::new(digits::<VALUE_KEY_LEN>(key)?);
    Some((Epoch(epoch.parse().ok().filter(|epoch| *epoch > 0)?), ValueKey::from_bytes(key)))
}

fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::layout::{Field, Form};
    use farseal_core::units::BlockBytes;

    use super::*;

    const PAIR: PairId = PairId([7; 16]);

    fn layout(name: &str) -> Layout {
        let field = Field { name: name.into(), offset: 0, length: 8, form: Form::Raw };
        Layout::new(4096, BlockBytes::DEFAULT, vec![field]).unwrap()
    }

    fn file() -> KeyFile {
        let key = |byte| ValueKey::from_bytes(Zeroizing::new([byte; VALUE_KEY_LEN]));
        let keys = [(Epoch(3), key(1)), (Epoch(9), key(0xab))].into();
        KeyFile { pair: PAIR, layout: layout("id").mark().id, field: "id".into(), keys }
    }

    #[test]
    fn a_search_key_comes_back_as_it_was_written() {
        let text = file().encode();
        let read = KeyFile::decode(&text, PAIR, &layout("id")).unwrap();
        assert_eq!((*read.encode()).as_str(), text.as_str());
        assert_eq!(read.span(), (Epoch(3), Epoch(9)));
        assert!(!format!("{read:?}").contains("abab"), "no byte of a key is printed");
    }

    #[test]
    fn a_search_key_of_something_else_is_refused_by_name() {
        let text = file().encode();
        let refused = |text: &str, pair, layout: &Layout| KeyFile::decode(text, pair, layout).unwrap_err();
        assert_eq!(refused(&text, PairId([8; 16]), &layout("id")), BadKeyFile::OtherPair(PAIR));
        assert_eq!(refused(&text, PAIR, &layout("no")), BadKeyFile::OtherLayout);
        assert_eq!(refused("secret", PAIR, &layout("id")), BadKeyFile::Title);
        assert_eq!(refused(&text.replace("epoch 9", "epoch 3"), PAIR, &layout("id")), BadKeyFile::Line(6));
        assert_eq!(refused(&text[..text.len() - 3], PAIR, &layout("id")), BadKeyFile::Line(6));
        let none = text.lines().take(4).collect::<Vec<_>>().join("\n");
        assert_eq!(refused(&none, PAIR, &layout("id")), BadKeyFile::Empty);
        for cut in 0..text.len() {
            let _ = KeyFile::decode(&text[..cut], PAIR, &layout("id"));
        }
    }
}
