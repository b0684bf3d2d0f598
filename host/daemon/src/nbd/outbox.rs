//! Replies waiting to be written: headers in one buffer, bodies by reference, one vectored write for all.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::nbd::limits::{OUTBOX_SLACK, WRITE_SLICES};

/// What to send, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The bytes of all heads in order; those before `head` are written.
    heads: Vec<u8>,
    head: usize,
    parts: VecDeque<Part>,
    /// Ends of replies, as places in the stream, with the payload bytes each releases.
    ends: VecDeque<(u64, usize)>,
    queued: u64,
    written: u64,
}

#[derive(Debug)]
enum Part {
    /// The next bytes of `heads`.
    Head(usize),
    Body(Bytes),
    Zeroes(usize),
}

/// What a write released.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Replies that are now written in full.
    pub replies: usize,
    /// Their payload bytes.
    pub bytes: usize,
}

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

impl Outbox {
    /// Whether all is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.queued - self.written
    }

    /// Appends what `encode` appends.
    pub fn head(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.heads.len();
        encode(&mut self.heads);
        let added = self.heads.len() - before;
        self.count(added);
        if let Some(Part::Head(len)) = self.parts.back_mut() {
            *len += added;
        } else if added > 0 {
            self.parts.push_back(Part::Head(added));
        }
    }

    /// Appends data without copying it.
    pub fn body(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.count(bytes.len());
            self.parts.push_back(Part::Body(bytes));
        }
    }

    /// Appends zeroes.
    pub fn zeroes(&mut self, len: usize) {
        if len > 0 {
            self.count(len);
            self.parts.push_back(Part::Zeroes(len));
        }
    }

    /// Ends a reply that releases `bytes` of payload when it is written.
    pub fn end_reply(&mut self, bytes: usize) {
        self.ends.push_back((self.queued, bytes));
    }

    /// Points `slices` at what comes next, and says how many are in use.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; WRITE_SLICES]) -> usize {
        let mut head = self.head;
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(match part {
                Part::Head(len) => {
                    head += len;
                    &self.heads[head - len..head]
                }
                Part::Body(bytes) => bytes,
                Part::Zeroes(len) => &ZEROES[..(*len).min(ZEROES.len())],
            });
            used += 1;
            // The rest of a long run of zeroes comes before the next part.
            if matches!(part, Part::Zeroes(len) if *len > ZEROES.len()) {
                break;
            }
        }
        used
    }

    /// Removes `count` written bytes.
    pub fn advance(&mut self, count: usize) -> Released {
        let mut left = count;
        while left > 0 {
            let Some(part) = self.parts.front_mut() else {
                break;
            };
            let step = left.min(part.len());
            left -= step;
            if matches!(part, Part::Head(_)) {
                self.head += step;
            }
            part.advance(step);
            if part.len() == 0 {
                self.parts.pop_front();
            }
        }
        self.written += u64::try_from(count).unwrap_or(u64::MAX);
        self.close_up();
        self.release()
    }

    fn release(&mut self) -> Released {
        let mut released = Released::default();
        while let Some((_, bytes)) = self.ends.pop_front_if(|(end, _)| *end <= self.written) {
            released.replies += 1;
            released.bytes += bytes;
        }
        released
    }

    /// Forgets written heads, at no cost when all are.
    fn close_up(&mut self) {
        if self.head == self.heads.len() {
            self.heads.clear();
            self.head = 0;
        } else if self.head > OUTBOX_SLACK {
            self.heads.drain(..self.head);
            self.head = 0;
        }
    }

    fn count(&mut self, len: usize) {
        self.queued += u64::try_from(len).unwrap_or(u64::MAX);
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Head(len) | Self::Zeroes(len) => *len,
            Self::Body(bytes) => bytes.len(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Head(len) | Self::Zeroes(len) => *len -= count,
            Self::Body(bytes) => bytes.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the sizes of parts and writes, the stream is the parts in order and each reply is
        /// released once, with its last byte.
        #[test]
        fn partial_writes_lose_nothing(
            parts in prop::collection::vec((0_u8..4, 1_usize..200_000), 1..20),
            steps in prop::collection::vec(1_usize..150_000, 1..40),
        ) {
            let (mut outbox, mut expected, mut replies, mut value) = (Outbox::default(), Vec::new(), 0, 0_u8);
            for (kind, len) in parts {
                value = value.wrapping_add(1);
                match kind {
                    0 => { outbox.head(|out| out.resize(out.len() + len, value)); expected.resize(expected.len() + len, value); }
                    1 => { outbox.body(Bytes::from(vec![value; len])); expected.resize(expected.len() + len, value); }
                    2 => { outbox.zeroes(len); expected.resize(expected.len() + len, 0); }
                    _ => { outbox.end_reply(len); replies += 1; }
                }
            }
            let (mut sent, mut released) = (Vec::new(), 0);
            for step in steps.iter().cycle() {
                if outbox.is_empty() { break; }
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
                let used = outbox.slices(&mut slices);
                let flat: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert!(!flat.is_empty());
                let count = flat.len().min(*step);
                sent.extend_from_slice(&flat[..count]);
                released += outbox.advance(count).replies;
            }
            released += outbox.advance(0).replies;
            prop_assert_eq!(released, replies);
            prop_assert!(sent == expected);
        }
    }
}
