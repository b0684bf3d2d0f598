//! The index on disk: chunk images that are never overwritten while a root names them, and a root that is replaced at
//! once.
//!
//! ```text
//! index.chunks   images of 4096 bytes: 256 x (order u64, location u64)
//! index.root     "FSI1", version u32, blocks u64, counts u64 x 3, then
//!                chunks (number, image, crc32c: u32 each), runs of zeroes (first, end, order, location: u64 each),
//!                the state, crc32c of everything before
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use farseal_core::limits::VOLUME_BLOCKS_MAX;
use farseal_core::units::BlockCount;

use super::index::{CHUNK_BLOCKS, Chunk, IndexError, Slot};
use super::words::{TooShort, Words};
use super::zeroes::Zeroes;
use super::{StoreError, files, narrow, wide};

const IMAGE_BYTES: usize = 4096;
const ROOT_HEADER_BYTES: usize = 40;
const MAGIC: [u8; 4] = *b"FSI1";
const VERSION: u32 = 1;
/// 2^32 chunks could not be held in memory either; 16 GiB of root are not read.
const ROOT_BYTES_MAX: u64 = 16 << 30;
/// Images written with one call.
const BATCH_IMAGES: usize = 256;

/// A checkpoint as it was read.
pub(super) struct Loaded {
    pub(super) chunks: Vec<(u32, [Slot; 256])>,
    pub(super) zeroes: Zeroes,
    pub(super) state: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Checkpoint {
    root: PathBuf,
    path: PathBuf,
    file: File,
    blocks: u64,
    /// What the root on disk names: the image of each chunk and its checksum.
    images: BTreeMap<u32, (u32, u32)>,
    /// Images that no root names, highest first.
    free: Vec<u32>,
    /// Images that the file has room for.
    end: u32,
}

impl Checkpoint {
    pub(super) fn open(dir: &Path, blocks: BlockCount) -> Result<(Self, Option<Loaded>), IndexError> {
        let mut checkpoint = Self::empty(dir, blocks)?;
        let Some(root) = files::read_if_there(&checkpoint.root, ROOT_BYTES_MAX)? else {
            return Ok((checkpoint, None));
        };
        let (zeroes, state) = checkpoint.decode_root(&root)?;
        let chunks = checkpoint.read_images()?;
        checkpoint.find_free();
        Ok((checkpoint, Some(Loaded { chunks, zeroes, state })))
    }

    pub(super) fn anew(dir: &Path, blocks: BlockCount) -> Result<Self, IndexError> {
        files::create_private_dir(dir)?;
        files::remove_durably(&dir.join("index.root"))?;
        files::remove_durably(&dir.join("index.chunks"))?;
        Self::empty(dir, blocks)
    }

    fn empty(dir: &Path, blocks: BlockCount) -> Result<Self, IndexError> {
        files::create_private_dir(dir)?;
        let (root, path) = (dir.join("index.root"), dir.join("index.chunks"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StoreError::io(&path, "open the index", source))?;
        let blocks = blocks.0.min(VOLUME_BLOCKS_MAX.0);
        Ok(Self { root, path, file, blocks, images: BTreeMap::new(), free: Vec::new(), end: 0 })
    }

    /// Writes what changed (`None`: the chunk is gone), then the root.
    pub(super) fn write<'a>(
        &mut self,
        changed: impl Iterator<Item = (u32, Option<&'a Chunk>)>,
        zeroes: &Zeroes,
        state: &[u8],
    ) -> Result<(), StoreError> {
        let mut images = self.images.clone();
        let mut taken = Vec::new();
        let mut freed = Vec::new();
        let written = self.write_images(changed, &mut images, &mut taken, &mut freed);
        if let Err(error) = written {
            self.free.extend(taken);
            self.free.sort_unstable_by(|a, b| b.cmp(a));
            return Err(error);
        }
        let root = encode_root(self.blocks, &images, zeroes, state);
        // Should this fail, nobody knows which root is on disk: what either names is not used again until a restart.
        files::write_atomically(&self.root, &root)?;
        self.images = images;
        self.free.extend(freed);
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        Ok(())
    }

    fn write_images<'a>(
        &mut self,
        changed: impl Iterator<Item = (u32, Option<&'a Chunk>)>,
        images: &mut BTreeMap<u32, (u32, u32)>,
        taken: &mut Vec<u32>,
        freed: &mut Vec<u32>,
    ) -> Result<(), StoreError> {
        let mut batch: Vec<u8> = Vec::new();
        let mut batch_at = 0;
        for (number, chunk) in changed {
            if let Some((old, _)) = images.remove(&number) {
                freed.push(old);
            }
            let Some(chunk) = chunk else {
                continue;
            };
            let image = self.free.pop().unwrap_or_else(|| {
                self.end += 1;
                self.end - 1
            });
            taken.push(image);
            let neighbour = u64::from(batch_at) + wide(batch.len() / IMAGE_BYTES) == u64::from(image);
            if !neighbour || batch.len() >= BATCH_IMAGES * IMAGE_BYTES {
                self.write_batch(batch_at, &batch)?;
                batch.clear();
                batch_at = image;
            }
            let bytes = encode_chunk(chunk);
            batch.extend_from_slice(&bytes);
            images.insert(number, (image, crc32c::crc32c(&bytes)));
        }
        self.write_batch(batch_at, &batch)?;
        if taken.is_empty() {
            return Ok(());
        }
        self.file.sync_data().map_err(|source| StoreError::SyncFailed { path: self.path.clone(), source })
    }

    fn write_batch(&self, image: u32, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, u64::from(image) * wide(IMAGE_BYTES))
            .map_err(|source| StoreError::io(&self.path, "write the index", source))
    }

    fn decode_root(&mut self, bytes: &[u8]) -> Result<(Zeroes, Vec<u8>), IndexError> {
        let damaged = |what| IndexError::Damaged { path: self.root.clone(), what };
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(damaged("it is too short"))?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return Err(damaged("its bytes do not match their checksum"));
        }
        let mut words = Words(body);
        let (magic, version) = (words.u32()?, words.u32()?);
        if magic != u32::from_le_bytes(MAGIC) {
            return Err(damaged("it is no index"));
        }
        if version != VERSION {
            return Err(IndexError::Version { path: self.root.clone(), found: version });
        }
        let (found, chunks, runs, state) = (words.u64()?, words.u64()?, words.u64()?, words.u64()?);
        if found != self.blocks {
            return Err(IndexError::OtherSize { path: self.root.clone(), expected: self.blocks, found });
        }
        for _ in 0..chunks {
            let (number, image, crc) = (words.u32()?, words.u32()?, words.u32()?);
            if u64::from(number) * CHUNK_BLOCKS >= self.blocks {
                return Err(damaged("it names a chunk past the volume's end"));
            }
            self.images.insert(number, (image, crc));
        }
        let mut zeroes = Zeroes::default();
        for _ in 0..runs {
            let (first, end) = (words.u64()?, words.u64()?);
            zeroes.overlay(first, end, Slot { order: words.u64()?, location: words.u64()? });
        }
        if wide(words.0.len()) != state {
            return Err(damaged("its counts do not fit its length"));
        }
        Ok((zeroes, words.0.to_vec()))
    }

    /// Reads every image that the root names, in the order of the file.
    fn read_images(&self) -> Result<Vec<(u32, [Slot; 256])>, IndexError> {
        let mut by_image: Vec<(u32, u32, u32)> =
            self.images.iter().map(|(number, (image, crc))| (*image, *crc, *number)).collect();
        by_image.sort_unstable();
        let mut chunks = Vec::with_capacity(by_image.len());
        let mut buffer = vec![0; BATCH_IMAGES * IMAGE_BYTES];
        for batch in by_image.chunk_by(|(a, _, _), (b, _, _)| a + 1 == *b) {
            for batch in batch.chunks(BATCH_IMAGES) {
                let bytes = &mut buffer[..batch.len() * IMAGE_BYTES];
                let at = batch.first().map_or(0, |(image, _, _)| u64::from(*image) * wide(IMAGE_BYTES));
                match self.file.read_exact_at(bytes, at) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return Err(self.damaged("a chunk lies past its end"));
                    }
                    Err(source) => return Err(StoreError::io(&self.path, "read the index", source).into()),
                }
                for ((_, crc, number), bytes) in batch.iter().zip(bytes.chunks_exact(IMAGE_BYTES)) {
                    if *crc != crc32c::crc32c(bytes) {
                        return Err(self.damaged("a chunk's bytes do not match their checksum"));
                    }
                    chunks.push((*number, decode_chunk(bytes)));
                }
            }
        }
        Ok(chunks)
    }

    fn find_free(&mut self) {
        let mut used: Vec<u32> = self.images.values().map(|(image, _)| *image).collect();
        used.sort_unstable();
        let mut next = 0;
        for image in used {
            self.free.extend(next..image);
            next = image + 1;
        }
        self.end = next;
        self.free.reverse();
    }

    fn damaged(&self, what: &'static str) -> IndexError {
        IndexError::Damaged { path: self.path.clone(), what }
    }
}

impl From<TooShort> for IndexError {
    fn from(_: TooShort) -> Self {
        Self::Damaged { path: PathBuf::from("index.root"), what: "its counts do not fit its length" }
    }
}

fn encode_root(blocks: u64, images: &BTreeMap<u32, (u32, u32)>, zeroes: &Zeroes, state: &[u8]) -> Vec<u8> {
    let runs = zeroes.iter().count();
    let mut out = Vec::with_capacity(ROOT_HEADER_BYTES + images.len() * 12 + runs * 32 + state.len() + 4);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    for count in [blocks, wide(images.len()), wide(runs), wide(state.len())] {
        out.extend(count.to_le_bytes());
    }
    for (number, (image, crc)) in images {
        for word in [number, image, crc] {
            out.extend(word.to_le_bytes());
        }
    }
    for (first, end, slot) in zeroes.iter() {
        for word in [first, end, slot.order, slot.location] {
            out.extend(word.to_le_bytes());
        }
    }
    out.extend(state);
    let crc = crc32c::crc32c(&out);
    out.extend(crc.to_le_bytes());
    out
}

fn encode_chunk(chunk: &Chunk) -> [u8; IMAGE_BYTES] {
    let mut out = [0; IMAGE_BYTES];
    for (slot, bytes) in chunk.slots.iter().zip(out.chunks_exact_mut(16)) {
        bytes[..8].copy_from_slice(&slot.order.to_le_bytes());
        bytes[8..].copy_from_slice(&slot.location.to_le_bytes());
    }
    out
}

fn decode_chunk(bytes: &[u8]) -> [Slot; 256] {
    let mut slots = [Slot::default(); 256];
    for (slot, bytes) in slots.iter_mut().zip(bytes.chunks_exact(16)) {
        let (order, location) = bytes.split_at(narrow(8));
        slot.order = u64::from_le_bytes(order.try_into().unwrap_or_default());
        slot.location = u64::from_le_bytes(location.try_into().unwrap_or_default());
    }
    slots
}
