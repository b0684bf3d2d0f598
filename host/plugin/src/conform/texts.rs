//! Texts that somebody else wrote: empty, plain, and long ones of characters of every width, so that whoever cuts at a byte
//! cuts a character in two sooner or later.

use super::chance::Chance;

/// What people and other programs write.
const COMMON: [&str; 7] = ["", "audit", "rate 100", "pause", "\u{0}\u{e9}\u{7f}", "{\"a\":1}", "rate -1 resume"];

/// Of one to four bytes; a letter with its mark, two with a joiner, what has no width and what is written from the right; letters that
/// become longer in the other case, and a mark of the order of bytes.
const PIECES: [&str; 13] = [
    "a",
    "\u{e9}",
    "\u{20ac}",
    "\u{1f600}",
    "e\u{301}",
    "\u{1f469}\u{200d}\u{1f680}",
    "\u{200b}",
    "\u{5d0}",
    "\u{130}",
    "\u{df}",
    "\u{feff}",
    "\u{10000}",
    "\r\n",
];

/// In pieces: at and beside where people cut.
const LENGTHS: [u64; 12] = [1, 15, 16, 63, 64, 100, 127, 199, 200, 255, 500, 1_023];

/// A text of at most so many bytes, which are not fewer than the longest common one has.
pub(super) fn text(chance: &mut Chance, most: usize) -> String {
    if chance.below(2) == 0 {
        return chance.text(&COMMON).to_owned();
    }
    let offset = usize::try_from(chance.below(5)).unwrap_or(0);
    let mut text = "x".repeat(offset.min(most));
    let pieces = chance.pick(&LENGTHS).unwrap_or(1) + chance.below(3);
    let is_mixed = chance.below(3) == 0;
    let mut piece = chance.text(&PIECES);
    for _ in 0..pieces {
        if is_mixed {
            piece = chance.text(&PIECES);
        }
        if text.len() + piece.len() > most {
            break;
        }
        text.push_str(piece);
    }
    text
}

/// As [`text`], said again and again.
pub(super) fn repeated(chance: &mut Chance, most: usize) -> String {
    let text = text(chance, most);
    let room = most.checked_div(text.len()).unwrap_or(1);
    let times = usize::try_from(1 + chance.below(2_000)).unwrap_or(1);
    text.repeat(times.min(room))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// As many as the stories of one rule have, and fewer.
    fn texts() -> Vec<String> {
        let told = |turn| {
            let mut chance = Chance::new(1, "C-2", turn);
            (0..4).map(|_| text(&mut chance, 5_000)).collect::<Vec<_>>()
        };
        (0..40).flat_map(told).collect()
    }

    #[test]
    fn every_cut_up_to_a_thousand_bytes_is_in_the_middle_of_some_character() {
        let texts = texts();
        let is_safe = |at: &usize| texts.iter().all(|text| text.is_char_boundary(*at) || text.len() < *at);
        let safe: Vec<usize> = (1..1_000).filter(is_safe).collect();
        assert!(safe.is_empty(), "cut there, no text tells: {safe:?}");
        assert!(texts.iter().any(String::is_empty));
    }

    #[test]
    fn a_story_holds_each_text_as_it_is() {
        for text in texts() {
            let written = serde_yaml_ng::to_string(&text).unwrap();
            assert_eq!(serde_yaml_ng::from_str::<String>(&written).unwrap(), text);
        }
    }

    #[test]
    fn no_text_is_longer_than_it_may_be() {
        let mut chance = Chance::new(2, "C-2", 0);
        for most in [14, 64, 28_000].repeat(20) {
            assert!(text(&mut chance, most).len() <= most && repeated(&mut chance, most).len() <= most);
        }
    }
}
