//! Inputs from inputs: flips, cuts, repeats, interesting numbers, pieces of others. A function of its dice.

/// Chance that a seed decides: splitmix64 over a counter.
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// Inputs do not grow beyond this: what a bug needs is rarely long, and time is short.
const BYTES_MAX: usize = 64 << 10;

/// Numbers at which lengths and counts go wrong.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.draw().checked_rem(end).unwrap_or(0)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.draw().to_le_bytes()[0]
    }
}

/// A descendant of `input`; `other` gives pieces.
#[must_use]
pub fn mutate(dice: &mut Dice, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(6) {
        once(dice, &mut bytes, other);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn once(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(11) {
        0 | 1 => {
            let bit = 1 << dice.below(8);
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bit);
        }
        2 => {
            let new = dice.byte();
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = new);
        }
        3 => bytes.insert(at, dice.byte()),
        4 => {
            let end = (at + 1 + dice.below(8)).min(bytes.len());
            drop(bytes.drain(at.min(end)..end));
        }
        5 => bytes.truncate(at),
        6 => {
            let end = (at + dice.below(64)).min(bytes.len());
            let piece = bytes[at.min(end)..end].to_vec();
            let to = dice.below(bytes.len() + 1);
            drop(bytes.splice(to..to, piece));
        }
        7 | 8 => {
            let from = dice.below(other.len() + 1);
            let end = (from + dice.below(128)).min(other.len());
            let over = if dice.below(2) == 0 { at } else { (at + end - from).min(bytes.len()) };
            drop(bytes.splice(at..over, other[from..end].iter().copied()));
        }
        9 => number(dice, bytes, at),
        _ => {
            let step = dice.byte() % 17;
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = byte.wrapping_add(step).wrapping_sub(8));
        }
    }
}

/// A number at which lengths go wrong, or one beside it, in either order of bytes.
fn number(dice: &mut Dice, bytes: &mut [u8], at: usize) {
    let number = NUMBERS[dice.below(NUMBERS.len())].wrapping_add(dice.draw() % 3).wrapping_sub(1);
    let width = [1, 2, 4, 8][dice.below(4)];
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    let text = if dice.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
    if let Some(place) = bytes.get_mut(at..at + width) {
        place.copy_from_slice(text);
    }
}
