//! The log's manifest: which segments there are when compaction has put others in their place.
//!
//! ```text
//! log.manifest   "FSG1", version u32, pair (16), counts u64 x 4, then
//!                compacted segments (number u32, 1 while what they replace is still read, bytes u64, blocks u64),
//!                segments that they replace and that are to go (number u32),
//!                runs of segments that are gone (first u32, last u32),
//!                the state, crc32c of everything before
//! ```
//!
//! Replaced at once. It also keeps the state of the order as of its writing: records that are gone cannot be counted
//! again when the index is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use farseal_core::units::PairId;

use super::{COMPACTED, LogError, segment_path};
use crate::store::words::{TooShort, Words};
use crate::store::{StoreError, files, wide};

const MAGIC: [u8; 4] = *b"FSG1";
const VERSION: u32 = 1;
/// 2^32 segments at 24 bytes could not be written in a lifetime; more than 1 GiB is not read.
const BYTES_MAX: u64 = 1 << 30;

/// A segment that compaction wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) bytes: u64,
    /// Blocks of data when it was written.
    pub(super) blocks: u64,
    /// The index may still read what it replaces.
    pub(super) fresh: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Manifest {
    pub(super) compacted: BTreeMap<u32, Listed>,
    /// Still there, and read by nobody once the index has moved to the fresh ones.
    pub(super) replaced: BTreeSet<u32>,
    /// Numbers of plain segments that are gone: first and last of each run.
    pub(super) gone: BTreeMap<u32, u32>,
    pub(super) state: Option<Vec<u8>>,
    /// Not what is on disk, which is damaged.
    pub(super) anew: bool,
}

impl Manifest {
    /// Reads the manifest in `dir`; an empty one where there is none. A damaged one is made anew from what lies in the
    /// folder: nothing that the index reads is ever missing there.
    pub(super) fn load(dir: &Path, pair: PairId) -> Result<Self, LogError> {
        let path = path(dir);
        let Some(bytes) = files::read_if_there(&path, BYTES_MAX)? else {
            return Ok(Self::lost(dir, &path)?.unwrap_or_default());
        };
        match decode(&bytes, pair) {
            Ok(manifest) => Ok(manifest),
            Err(Unreadable::Version(found)) => Err(LogError::Version { path, found }),
            Err(Unreadable::OtherPair(found)) => Err(LogError::OtherPair { path, expected: pair, found }),
            Err(Unreadable::Damaged) => {
                tracing::warn!(path = %path.display(), "the log's manifest is damaged: it is made anew from the segments that are there");
                Ok(Self::found_in(dir)?)
            }
        }
    }

    pub(super) fn save(&self, dir: &Path, pair: PairId) -> Result<(), StoreError> {
        files::write_atomically(&path(dir), &self.encode(pair))
    }

    /// Is this number one of those that are gone?
    pub(super) fn is_gone(&self, number: u32) -> bool {
        self.gone.range(..=number).next_back().is_some_and(|(_, last)| number <= *last)
    }

    /// Nothing more is read from the segments that were replaced. Says which these are.
    pub(super) fn drop_replaced(&mut self) -> BTreeSet<u32> {
        let replaced = std::mem::take(&mut self.replaced);
        for number in &replaced {
            if number & COMPACTED == 0 {
                self.note_gone(*number);
            } else {
                self.compacted.remove(number);
            }
        }
        self.compacted.values_mut().for_each(|segment| segment.fresh = false);
        replaced
    }

    fn note_gone(&mut self, number: u32) {
        if self.is_gone(number) {
            return;
        }
        let last = self.gone.remove(&(number + 1)).unwrap_or(number);
        match self.gone.range_mut(..number).next_back() {
            Some((_, before)) if *before + 1 == number => *before = last,
            _ => {
                self.gone.insert(number, last);
            }
        }
    }

    /// Where there is no manifest, but segments that were compacted and none of those that they took the place of, there was one.
    /// Beside all that it was made from, a compacted segment is what a crash left of the first compaction.
    fn lost(dir: &Path, path: &Path) -> Result<Option<Self>, StoreError> {
        if !dir.is_dir() {
            return Ok(None);
        }
        let found = Self::found_in(dir)?;
        let was_there = !found.compacted.is_empty() && !found.gone.is_empty();
        if was_there {
            tracing::warn!(path = %path.display(), "the log's manifest is gone: it is made anew from the segments that are there");
        }
        Ok(Some(found).filter(|_| was_there))
    }

    fn found_in(dir: &Path) -> Result<Self, StoreError> {
        let mut manifest = Self { anew: true, ..Self::default() };
        let mut next = 0;
        for (number, _) in files::numbered(dir, 8, "fsl")? {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            (next..number).for_each(|gone| manifest.note_gone(gone));
            next = number.saturating_add(1);
        }
        for (number, path) in files::numbered(dir, 8, "fsc")? {
            let metadata = path.metadata().map_err(|source| StoreError::io(&path, "find its size", source))?;
            let segment = Listed { bytes: metadata.len(), blocks: 0, fresh: false };
            manifest.compacted.insert(u32::try_from(number).unwrap_or_default() | COMPACTED, segment);
        }
        Ok(manifest)
    }

    fn encode(&self, pair: PairId) -> Vec<u8> {
        let state = self.state.as_deref().unwrap_or_default();
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(pair.0);
        for count in [self.compacted.len(), self.replaced.len(), self.gone.len(), state.len()] {
            out.extend(wide(count).to_le_bytes());
        }
        for (number, segment) in &self.compacted {
            out.extend(number.to_le_bytes());
            out.extend(u32::from(segment.fresh).to_le_bytes());
            out.extend(segment.bytes.to_le_bytes());
            out.extend(segment.blocks.to_le_bytes());
        }
        self.replaced.iter().for_each(|number| out.extend(number.to_le_bytes()));
        for (first, last) in &self.gone {
            out.extend(first.to_le_bytes());
            out.extend(last.to_le_bytes());
        }
        out.extend(state);
        let crc = crc32c::crc32c(&out);
        out.extend(crc.to_le_bytes());
        out
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("log.manifest")
}

/// The files of segments that no manifest names: what a crash left of a compaction.
pub(super) fn strays(dir: &Path, manifest: &Manifest) -> Result<Vec<PathBuf>, StoreError> {
    let compacted = files::numbered(dir, 8, "fsc")?.into_iter().filter(|(number, _)| {
        let number = u32::try_from(*number).unwrap_or_default() | COMPACTED;
        !manifest.compacted.contains_key(&number)
    });
    let plain = files::numbered(dir, 8, "fsl")?
        .into_iter()
        .filter(|(number, _)| u32::try_from(*number).is_ok_and(|number| manifest.is_gone(number)));
    Ok(compacted.chain(plain).map(|(_, path)| path).collect())
}

/// Checks that what the manifest names is there.
pub(super) fn check(dir: &Path, manifest: &Manifest) -> Result<(), LogError> {
    for (number, segment) in &manifest.compacted {
        let path = segment_path(dir, *number);
        let len = match path.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LogError::MissingCompacted { path });
            }
            Err(source) => return Err(StoreError::io(&path, "find its size", source).into()),
        };
        if len < segment.bytes {
            return Err(LogError::MissingCompacted { path });
        }
    }
    Ok(())
}

enum Unreadable {
    Damaged,
    Version(u8),
    OtherPair(PairId),
}

impl From<TooShort> for Unreadable {
    fn from(_: TooShort) -> Self {
        Self::Damaged
    }
}

fn decode(bytes: &[u8], pair: PairId) -> Result<Manifest, Unreadable> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Unreadable::Damaged)?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
        return Err(Unreadable::Damaged);
    }
    let mut words = Words(body);
    if words.array()? != MAGIC {
        return Err(Unreadable::Damaged);
    }
    let version = words.u32()?;
    if version != VERSION {
        return Err(Unreadable::Version(u8::try_from(version).unwrap_or(u8::MAX)));
    }
    let found = PairId(words.array()?);
    if found != pair {
        return Err(Unreadable::OtherPair(found));
    }
    let (compacted, replaced, gone, state) = (words.u64()?, words.u64()?, words.u64()?, words.u64()?);
    let mut manifest = Manifest::default();
    for _ in 0..compacted {
        let (number, fresh) = (words.u32()?, words.u32()? != 0);
        let segment = Listed { fresh, bytes: words.u64()?, blocks: words.u64()? };
        manifest.compacted.insert(number, segment);
    }
    for _ in 0..replaced {
        manifest.replaced.insert(words.u32()?);
    }
    for _ in 0..gone {
        manifest.gone.insert(words.u32()?, words.u32()?);
    }
    if wide(words.0.len()) != state {
        return Err(Unreadable::Damaged);
    }
    manifest.state = (state > 0).then(|| words.0.to_vec());
    Ok(manifest)
}
