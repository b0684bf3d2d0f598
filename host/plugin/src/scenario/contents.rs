//! Bytes of a story: what is hidden or sealed, and under which seeds and keys. With a number of its own a story has contents that
//! differ from one another; without one, those of the accepted transcripts.

/// See the head of this file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contents(Option<u64>);

impl Contents {
    pub(super) const fn new(number: Option<u64>) -> Self {
        Self(number)
    }

    /// Something to hide or to seal, where bytes that are no chance are as likely: that is where mistakes are.
    pub(super) fn data(self, what: &str, at: usize, length: usize, usual: u8) -> Vec<u8> {
        let Some(number) = self.0 else { return vec![usual; length] };
        let drawn = drawn(number, what, at, length);
        let counted = (0_u8..=255).cycle();
        match drawn_byte(number, what, at) % 6 {
            0 => vec![0; length],
            1 => vec![0xff; length],
            2 => counted.take(length).collect(),
            3 => drawn.iter().enumerate().map(|(at, byte)| if at < length / 2 { *byte } else { 0 }).collect(),
            _ => drawn,
        }
    }

    /// A seed or a key: the edges now and then, and chance else.
    pub(super) fn key(self, what: &str, at: usize, usual: u8) -> [u8; 32] {
        let Some(number) = self.0 else { return [usual; 32] };
        let mut key = [0; 32];
        match drawn_byte(number, what, at) % 8 {
            0 => {}
            1 => key.fill(0xff),
            _ => key.copy_from_slice(&drawn(number, what, at, 32)),
        }
        key
    }

    /// Bytes without a pattern, the same ones each time. Unlike data a cover is chance by the contract.
    pub(super) fn noise(self, at: usize, length: usize) -> Vec<u8> {
        match self.0 {
            Some(number) => drawn(number, "cover", at, length),
            None => stream(b"farseal scenario cover", length),
        }
    }

    /// Whether it has contents that differ.
    pub(super) const fn is_varied(self) -> bool {
        self.0.is_some()
    }
}

fn drawn(number: u64, what: &str, at: usize, length: usize) -> Vec<u8> {
    stream(format!("farseal scenario {number} {what} {at}").as_bytes(), length)
}

/// Which of the forms the content has.
fn drawn_byte(number: u64, what: &str, at: usize) -> u8 {
    stream(format!("farseal scenario {number} form of {what} {at}").as_bytes(), 1).first().copied().unwrap_or(0)
}

/// BLAKE3's output of the length.
fn stream(name: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(name).finalize_xof().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn with_a_number_contents_differ_and_are_the_same_each_time() {
        let contents = Contents::new(Some(7));
        let data = || (0..64).map(|at| contents.data("payload", at, 40, 0xa5)).collect::<Vec<_>>();
        let (first, again) = (data(), data());
        assert_eq!(first, again);
        assert!(first.contains(&vec![0; 40]) && first.contains(&vec![0xff; 40]));
        let different: BTreeSet<_> = first.into_iter().collect();
        assert!(different.len() > 20, "{different:?}");
        let keys: BTreeSet<_> = (0..64).map(|at| contents.key("seed", at, 7)).collect();
        assert!(keys.len() > 20 && keys.contains(&[0; 32]) && keys.contains(&[0xff; 32]), "{keys:?}");
        assert_ne!(contents.noise(1, 40), Contents::new(Some(8)).noise(1, 40));
    }

    #[test]
    fn without_a_number_they_are_as_they_were() {
        let contents = Contents::new(None);
        assert_eq!((contents.data("payload", 3, 2, 0xa5), contents.key("seed", 3, 7)), (vec![0xa5; 2], [7; 32]));
        assert_eq!(contents.noise(1, 8), contents.noise(2, 8));
    }
}
