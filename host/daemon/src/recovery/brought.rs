//! Blocks that the escrow site opened for a search, on their way into the image: of keys that are not here

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use farseal_core::units::{BlockCount, Extent, Lba, Sequence};
use zeroize::Zeroizing;

use super::CopySource;
use crate::escrow::search::SealedBlock;

/// Has a record opened elsewhere, where its keys are not here.
#[derive(Clone)]
pub struct Bring(Arc<dyn Fn(Extent) + Send + Sync>);

impl Bring {
    pub fn new(bring: impl Fn(Extent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(bring))
    }

    pub(super) fn bring(&self, record: Extent) {
        (self.0)(record);
    }
}

impl std::fmt::Debug for Bring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bring")
    }
}

/// Blocks of one record, each as of the record of the copy that holds it.
#[derive(Debug, Default)]
pub struct Brought(Mutex<BTreeMap<Lba, Opened>>);

/// Of which record of the copy it is, and what it holds.
type Opened = (Sequence, Zeroizing<Vec<u8>>);

/// A record's blocks as they lie in the copy, and of which record of the copy each is. Blocks that were never written are left out.
type Sealed = (Vec<SealedBlock>, Vec<(Lba, Sequence)>);

impl Brought {
    pub fn put(&self, lba: Lba, sequence: Sequence, bytes: &[u8]) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.insert(lba, (sequence, Zeroizing::new(bytes.to_vec())));
    }

    /// They are in the image, or are not to be.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Reads blocks of this record of the copy, if they are all here.
    pub(super) fn read(&self, extent: Extent, sequence: Sequence, into: &mut [u8]) -> bool {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = into.len() / usize::try_from(extent.blocks().0).unwrap_or(usize::MAX).max(1);
        let lbas = (extent.first().0..extent.end().0).map(Lba);
        let here = |lba: Lba| blocks.get(&lba).filter(|(of, bytes)| *of == sequence && bytes.len() == size);
        if blocks.is_empty() || size == 0 || !lbas.clone().all(|lba| here(lba).is_some()) {
            return false;
        }
        for (part, (_, bytes)) in into.chunks_mut(size).zip(lbas.filter_map(here)) {
            part.copy_from_slice(bytes);
        }
        true
    }
}

impl CopySource {
    /// What the escrow site opened.
    #[must_use]
    pub fn brought(&self) -> &Brought {
        &self.brought
    }

    /// A record's blocks as they lie in the copy, and the sequence of each; nothing where the keys of all of them are here.
    pub fn sealed(&self, record: Extent) -> Result<Option<Sealed>, String> {
        let index = self.index();
        let (mut places, mut closed) = (Vec::new(), false);
        for lba in (record.first().0..record.end().0).map(Lba) {
            // One that was never written reads as zeroes, and needs nobody.
            let Some(place) = index.lookup(lba) else { continue };
            let epoch = self.epoch_of(place.sequence).ok_or("no key record says which key it needs")?;
            let package = self.keyring.package(epoch).ok_or("its key package is not here")?;
            closed |= self.keyring.lacks_key_of(epoch, &package);
            places.push((lba, place, package));
        }
        if !closed {
            return Ok(None);
        }
        let (mut blocks, mut sequences) = (Vec::new(), Vec::new());
        for (lba, place, package) in places {
            let one = Extent::new(lba, BlockCount(1)).ok_or("it lies outside of the volume")?;
            let part = place.part(&self.reader, one).map_err(|error| error.to_string())?;
            let part = part.ok_or("it is not in the log")?;
            let deposit = package.receipt().map(|receipt| receipt.deposit).ok_or("its key was never deposited")?;
            sequences.push((lba, place.sequence));
            blocks.push(SealedBlock {
                deposit,
                descriptor: package.descriptor().encode(),
                header: part.header.encode(0),
                lba,
                block: place.block,
                tags: part.tags.to_vec(),
                bytes: part.blocks.to_vec(),
            });
        }
        Ok(Some((blocks, sequences)))
    }
}
