//! Page-aligned payload buffers that are used again.
//!
//! A fresh MiB costs 256 page faults, as much as copying it; so buffers come back when the last
//! [`Bytes`] that shares them is dropped, wherever that happens. Memory is zeroed once, when it is
//! first allocated.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::nbd::limits::{MAX_PAYLOAD, POOL_BYTES};

const PAGE: usize = 4096;

/// Free buffers by size class. Cloning shares the pool.
#[derive(Clone, Default)]
pub struct Pool {
    free: Arc<Mutex<Free>>,
}

#[derive(Default)]
struct Free {
    /// Class `n` holds buffers of `PAGE << n` bytes.
    classes: [Vec<Storage>; CLASSES],
    bytes: usize,
}

/// From one page to [`MAX_PAYLOAD`].
const CLASSES: usize = (MAX_PAYLOAD as usize / PAGE).ilog2() as usize + 1;

impl Pool {
    /// A buffer of `len` bytes whose contents are undefined: zeroes, or what an earlier user left.
    /// The caller overwrites all of it.
    #[must_use]
    pub fn take(&self, len: usize) -> Buffer {
        let pages = len.div_ceil(PAGE).max(1).next_power_of_two();
        let class = pages.ilog2() as usize;
        let storage = self.reuse(class).unwrap_or_else(|| Storage::allocate(pages));
        Buffer { storage: Some(storage), len, pool: self.clone() }
    }

    fn reuse(&self, class: usize) -> Option<Storage> {
        let mut free = self.lock();
        let storage = free.classes.get_mut(class)?.pop()?;
        free.bytes = free.bytes.saturating_sub(PAGE << class);
        Some(storage)
    }

    /// Keeps `storage`, or frees it where the pool holds enough.
    fn give(&self, storage: Storage) {
        let bytes = storage.capacity();
        let class = (bytes / PAGE).ilog2() as usize;
        let mut free = self.lock();
        if free.bytes + bytes > POOL_BYTES || class >= CLASSES {
            drop(free);
            return;
        }
        free.bytes += bytes;
        free.classes[class].push(storage);
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} bytes free)", self.lock().bytes)
    }
}

/// A buffer of its own, to fill and then [`freeze`](Self::freeze).
pub struct Buffer {
    /// Present until the drop.
    storage: Option<Storage>,
    len: usize,
    pool: Pool,
}

impl Buffer {
    /// Shares the buffer for reading, without copying. It returns to the pool with its last user.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.storage.as_ref().map_or(&[], |storage| &storage.bytes()[..self.len])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.storage.as_mut().map_or(&mut [], |storage| &mut storage.bytes_mut()[..self.len])
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(storage) = self.storage.take() {
            self.pool.give(storage);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// Memory that starts on a page.
enum Storage {
    Page(Box<Page>),
    /// A run of pages within a slightly longer allocation.
    Run {
        memory: Vec<u8>,
        start: usize,
    },
}

#[repr(align(4096))]
struct Page([u8; PAGE]);

impl Storage {
    fn allocate(pages: usize) -> Self {
        if pages == 1 {
            return Self::Page(Box::new(Page([0; PAGE])));
        }
        let memory = vec![0; (pages + 1) * PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self::Run { memory, start }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Page(_) => PAGE,
            Self::Run { memory, .. } => memory.len() - PAGE,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Page(page) => &page.0,
            Self::Run { memory, start } => &memory[*start..],
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Page(page) => &mut page.0,
            Self::Run { memory, start } => &mut memory[*start..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_on_a_page_and_have_the_length_asked_for() {
        let pool = Pool::default();
        for len in [0, 1, 511, 4095, 4096, 4097, 65_536, 1 << 20, (1 << 20) + 1] {
            let buffer = pool.take(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().align_offset(PAGE), 0, "{len}");
        }
    }

    #[test]
    fn a_buffer_returns_with_its_last_user() {
        let pool = Pool::default();
        let mut buffer = pool.take(8192);
        buffer.fill(7);
        let place = buffer.as_ptr();
        let bytes = buffer.freeze();
        let slice = bytes.slice(100..200);
        drop(bytes);
        assert_ne!(pool.take(8192).as_ptr(), place);
        assert_eq!(slice, vec![7; 100]);
        drop(slice);
        let first = pool.take(8192);
        let second = pool.take(8192);
        assert!(first.as_ptr() == place || second.as_ptr() == place);
    }

    #[test]
    fn the_pool_keeps_a_bounded_number_of_free_bytes() {
        let pool = Pool::default();
        let taken: Vec<Buffer> = (0..5).map(|_| pool.take(MAX_PAYLOAD as usize)).collect();
        drop(taken);
        assert_eq!(pool.lock().bytes, POOL_BYTES);
    }
}
