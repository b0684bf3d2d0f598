//! The data buffer: what initiators wrote and home does not have yet. Reads look here first.
//!
//! The lane's thread and its [intake](super::intake) write it, connections read it. Each block's entry says which write
//! it is of, so that destaging an older write never takes a newer one away. The lock is held for look-ups only, never
//! over I/O.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use farseal_core::units::{BlockBytes, BlockCount, Extent, Lba, Ticket};

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes of one block.
    Data(Bytes),
    Zeroes,
}

/// A run of blocks as a reader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These bytes, whole blocks.
    Data(Bytes),
    /// This many blocks of zeroes.
    Zeroes(BlockCount),
    /// This many blocks that home has.
    Home(BlockCount),
}

/// Blocks written and not yet destaged.
#[derive(Debug)]
pub struct Buffer {
    block_bytes: BlockBytes,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: BTreeMap<Lba, (Ticket, Content)>,
    /// Runs of zeroes longer than a few blocks, by their first block; later writes win over them by ticket.
    zeroes: BTreeMap<Ticket, Extent>,
}

/// A zeroed run up to this long is kept block by block.
const SHORT_ZEROES: u64 = 256;

impl Buffer {
    #[must_use]
    pub fn new(block_bytes: BlockBytes) -> Self {
        Self { block_bytes, state: RwLock::default() }
    }

    /// Keeps a write of whole blocks.
    pub fn write(&self, ticket: Ticket, first: Lba, data: &Bytes) {
        let size = self.block_bytes.as_usize();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (index, start) in (0..data.len()).step_by(size).enumerate() {
            let lba = Lba(first.0 + u64::try_from(index).unwrap_or(u64::MAX));
            let block = data.slice(start..(start + size).min(data.len()));
            state.blocks.insert(lba, (ticket, Content::Data(block)));
        }
    }

    /// Keeps a run of zeroes.
    pub fn zero(&self, ticket: Ticket, extent: Extent) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if extent.blocks().0 <= SHORT_ZEROES {
            for lba in extent.first().0..extent.end().0 {
                state.blocks.insert(Lba(lba), (ticket, Content::Zeroes));
            }
        } else {
            state.zeroes.insert(ticket, extent);
        }
    }

    /// The newest write that any of the blocks is of.
    #[must_use]
    pub fn newest(&self, extent: Extent) -> Option<Ticket> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let written = state.blocks.range(extent.first()..extent.end()).map(|(_, (ticket, _))| *ticket);
        let zeroed = state.zeroes.iter().filter(|(_, zeroes)| zeroes.overlaps(extent)).map(|(ticket, _)| *ticket);
        written.chain(zeroed).max()
    }

    /// What the blocks hold, in order.
    #[must_use]
    pub fn read(&self, extent: Extent) -> Vec<Found> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Found> = Vec::new();
        if state.blocks.is_empty() && state.zeroes.is_empty() {
            return vec![Found::Home(extent.blocks())];
        }
        let long: Vec<(Ticket, Extent)> = state
            .zeroes
            .iter()
            .filter(|(_, zeroes)| zeroes.overlaps(extent))
            .map(|(ticket, zeroes)| (*ticket, *zeroes))
            .collect();
        let mut written = state.blocks.range(extent.first()..extent.end()).peekable();
        for lba in (extent.first().0..extent.end().0).map(Lba) {
            let block = written.next_if(|(at, _)| **at == lba).map(|(_, entry)| entry);
            let zeroed = long.iter().rev().find(|(_, zeroes)| zeroes.contains(lba)).map(|(ticket, _)| *ticket);
            let block = block.filter(|(ticket, _)| zeroed.is_none_or(|zeroed| *ticket > zeroed));
            match (block, zeroed) {
                (Some((_, Content::Data(bytes))), _) => found.push(Found::Data(bytes.clone())),
                (Some((_, Content::Zeroes)), _) | (None, Some(_)) => match found.last_mut() {
                    Some(Found::Zeroes(count)) => count.0 += 1,
                    Some(_) | None => found.push(Found::Zeroes(BlockCount(1))),
                },
                (None, None) => match found.last_mut() {
                    Some(Found::Home(count)) => count.0 += 1,
                    Some(_) | None => found.push(Found::Home(BlockCount(1))),
                },
            }
        }
        found
    }

    /// Home holds this write: its blocks go, but for those that were written again.
    pub fn destaged(&self, ticket: Ticket, extent: Extent) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.zeroes.get(&ticket).is_some_and(|zeroes| *zeroes == extent) {
            state.zeroes.remove(&ticket);
        }
        if extent.blocks().0 > SHORT_ZEROES * 16 {
            let gone: Vec<Lba> = state
                .blocks
                .range(extent.first()..extent.end())
                .filter(|(_, (of, _))| *of == ticket)
                .map(|(lba, _)| *lba)
                .collect();
            for lba in gone {
                state.blocks.remove(&lba);
            }
            return;
        }
        for lba in (extent.first().0..extent.end().0).map(Lba) {
            if state.blocks.get(&lba).is_some_and(|(of, _)| *of == ticket) {
                state.blocks.remove(&lba);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn extent(first: u64, blocks: u64) -> Extent {
        Extent::new(Lba(first), BlockCount(blocks)).unwrap()
    }

    fn block(byte: u8, blocks: usize) -> Bytes {
        Bytes::from(vec![byte; blocks * 512])
    }

    fn shown(buffer: &Buffer, first: u64, blocks: u64) -> String {
        let pieces: Vec<String> = buffer
            .read(extent(first, blocks))
            .into_iter()
            .map(|found| match found {
                Found::Data(bytes) => format!("{}", bytes[0]),
                Found::Zeroes(count) => format!("0x{}", count.0),
                Found::Home(count) => format!("home x{}", count.0),
            })
            .collect();
        pieces.join(" ")
    }

    #[test]
    fn the_newest_write_is_read_and_an_older_one_does_not_take_it_away() {
        let buffer = Buffer::new(BlockBytes::new(512).unwrap());
        buffer.write(Ticket(1), Lba(10), &block(1, 3));
        buffer.write(Ticket(2), Lba(11), &block(2, 1));
        assert_eq!(shown(&buffer, 9, 5), "home x1 1 2 1 home x1");
        buffer.destaged(Ticket(1), extent(10, 3));
        assert_eq!(shown(&buffer, 9, 5), "home x2 2 home x2");
        buffer.destaged(Ticket(2), extent(11, 1));
        assert_eq!(shown(&buffer, 9, 5), "home x5");
    }

    #[test]
    fn long_zeroes_hide_what_came_before_and_not_what_comes_after() {
        let buffer = Buffer::new(BlockBytes::new(512).unwrap());
        buffer.write(Ticket(1), Lba(10), &block(1, 1));
        buffer.zero(Ticket(2), extent(0, 100_000));
        buffer.write(Ticket(3), Lba(12), &block(3, 1));
        assert_eq!(shown(&buffer, 9, 5), "0x3 3 0x1");
        buffer.destaged(Ticket(1), extent(10, 1));
        buffer.destaged(Ticket(2), extent(0, 100_000));
        assert_eq!(shown(&buffer, 9, 5), "home x3 3 home x1");
    }
}
