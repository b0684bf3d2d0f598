//! The one source of chance: xoshiro256**, seeded by splitmix64, one stream for each part of the world.

/// A stream of numbers that a seed and a name decide.
#[derive(Clone, Debug)]
pub struct Dice {
    state: [u64; 4],
}

/// One step of splitmix64; also the hash of fake seals and the coin of whatever must be decided by a name.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    /// A stream of its own for each part, so that leaving one kind of fault out does not change the rest.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut at = mix(seed) ^ mix(stream.wrapping_mul(0x1234_5678_9abc_def1));
        let mut state = [0; 4];
        for word in &mut state {
            at = mix(at);
            *word = at;
        }
        Self { state }
    }

    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw().checked_rem(end).unwrap_or(0)
    }

    /// From `first` up to but not including `end`.
    pub fn between(&mut self, first: u64, end: u64) -> u64 {
        first + self.below(end.saturating_sub(first))
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_stream_decide_everything() {
        let draw = |seed, stream| {
            let mut dice = Dice::new(seed, stream);
            [dice.draw(), dice.draw(), dice.draw()]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }
}
