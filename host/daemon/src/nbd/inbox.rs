//! Bytes read ahead of the request they belong to: headers and small payloads, many per `recv`.

use crate::nbd::limits::INBOX_BYTES;

/// A buffer filled at its end and consumed at its front.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; INBOX_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Inbox {
    /// What was read and not consumed.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The next `N` bytes, if they are here.
    #[must_use]
    pub fn peek<const N: usize>(&self) -> Option<&[u8; N]> {
        self.unread().first_chunk()
    }

    /// Drops `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Moves as much as fits into `target`, and says how much.
    pub fn move_into(&mut self, target: &mut [u8]) -> usize {
        let count = target.len().min(self.unread().len());
        target[..count].copy_from_slice(&self.unread()[..count]);
        self.consume(count);
        count
    }

    /// Room for the next read of at most `most` bytes, after what is unread has moved to the front. Empty
    /// only where the buffer is full, which a part of one header never makes it.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let end = self.bytes.len().min(self.end + most);
        &mut self.bytes[self.end..end]
    }

    /// Says that a read put `count` bytes into [`room`](Self::room).
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_moves_to_the_front_and_nothing_is_lost() {
        let mut inbox = Inbox::default();
        let room = inbox.room(INBOX_BYTES);
        room.fill(1);
        room[INBOX_BYTES - 3..].copy_from_slice(&[7, 8, 9]);
        inbox.filled(INBOX_BYTES);
        inbox.consume(INBOX_BYTES - 3);
        assert_eq!(inbox.peek::<4>(), None);
        assert_eq!(inbox.room(INBOX_BYTES).len(), INBOX_BYTES - 3);
        inbox.room(INBOX_BYTES)[0] = 10;
        inbox.filled(1);
        assert_eq!(inbox.peek::<4>(), Some(&[7, 8, 9, 10]));
        let mut target = [0; 3];
        assert_eq!(inbox.move_into(&mut target), 3);
        assert_eq!((target, inbox.unread()), ([7, 8, 9], &[10][..]));
    }
}
