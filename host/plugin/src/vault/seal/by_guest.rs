//! The part of a batch that a component computes: its nonces, and the samples that it has to open again.

use zeroize::Zeroizing;

use super::super::guest::{GuestLayer, GuestUnit};
use super::super::schedule::{LAYER_KEY_LEN, LayerKey, NONCE_LEN, NonceMask};
use super::super::unit::{BadLength, Unit};
use super::{OpenError, SealError};

/// Bytes at the start of a batch that a component has to open again before what it sealed is believed; the last
/// block of the batch is the other sample.
const GUEST_SAMPLE: usize = 64 * 1024;

/// Has the component seal a run, then open samples of it again: what it cannot undo is lost data, and is found out
/// before the run is called sealed.
pub(super) fn seal(run: &mut [Unit<'_>], key: &LayerKey, guest: &mut dyn GuestLayer) -> Result<(), SealError> {
    let nonces = Nonces::of(run, key.mask)?;
    let samples = Sample::of(run, key.mask)?;
    if samples.is_empty() {
        return Ok(());
    }
    guest.seal(&key.key, &mut nonces.units(run))?;
    for sample in samples {
        sample.check(run, &key.key, guest)?;
    }
    Ok(())
}

/// Has the component open a run that the outermost layer has proven.
pub(super) fn open(run: &mut [Unit<'_>], key: &LayerKey, guest: &mut dyn GuestLayer) -> Result<(), OpenError> {
    let nonces = Nonces::of(run, key.mask)?;
    let mut units = nonces.units(run);
    if units.is_empty() {
        return Ok(());
    }
    Ok(guest.open(&key.key, &mut units)?)
}

/// The nonces of every block of a run, unit after unit: one allocation for a batch.
struct Nonces {
    bytes: Vec<u8>,
    /// For each unit, where its nonces end.
    ends: Vec<usize>,
}

impl Nonces {
    fn of(run: &mut [Unit<'_>], mask: NonceMask) -> Result<Self, BadLength> {
        let mut nonces = Self { bytes: Vec::new(), ends: Vec::with_capacity(run.len()) };
        for unit in run {
            let (seq, block_len) = (unit.seq, unit.checked_block_len()?);
            for (block, bytes, _) in unit.blocks(block_len) {
                if !bytes.is_empty() {
                    nonces.bytes.extend_from_slice(&mask.nonce(seq, block));
                }
            }
            nonces.ends.push(nonces.bytes.len());
        }
        Ok(nonces)
    }

    /// What the component gets: every unit that has a body.
    fn units<'a>(&'a self, run: &'a mut [Unit<'_>]) -> Vec<GuestUnit<'a>> {
        let starts = std::iter::once(&0).chain(&self.ends);
        run.iter_mut()
            .zip(starts.zip(&self.ends))
            .filter(|(unit, _)| !unit.body.is_empty())
            .map(|(unit, (start, end))| GuestUnit {
                nonces: self.bytes.get(*start..*end).unwrap_or_default(),
                block_len: unit.block_len,
                body: &mut *unit.body,
            })
            .collect()
    }
}

/// Plain bytes kept aside while a component seals them.
struct Sample {
    seq: u64,
    block_len: u32,
    /// Which unit of the run, and which of its bytes.
    unit: usize,
    at: usize,
    nonces: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
}

impl Sample {
    /// The first blocks of the first unit, up to [`GUEST_SAMPLE`] bytes, and the last block of the last unit.
    fn of(run: &mut [Unit<'_>], mask: NonceMask) -> Result<Vec<Self>, BadLength> {
        let mut samples = Vec::with_capacity(2);
        let with_body = |unit: &Unit<'_>| !unit.body.is_empty();
        let (first, last) = (run.iter().position(with_body), run.iter().rposition(with_body));
        if let Some((index, unit)) = first.and_then(|index| Some((index, run.get_mut(index)?))) {
            let blocks = GUEST_SAMPLE / unit.checked_block_len()?;
            samples.push(Self::take(unit, mask, index, 0, blocks)?);
        }
        if let Some((index, unit)) = last.and_then(|index| Some((index, run.get_mut(index)?))) {
            let before = unit.body.len().div_ceil(unit.checked_block_len()?).saturating_sub(1);
            samples.push(Self::take(unit, mask, index, before, 1)?);
        }
        Ok(samples)
    }

    fn take(unit: &mut Unit<'_>, mask: NonceMask, index: usize, skip: usize, blocks: usize) -> Result<Self, BadLength> {
        let (seq, block_len) = (unit.seq, unit.checked_block_len()?);
        let mut sample = Self {
            seq,
            block_len: unit.block_len,
            unit: index,
            at: skip.saturating_mul(block_len),
            nonces: Vec::with_capacity(blocks.saturating_mul(NONCE_LEN)),
            plain: Zeroizing::new(Vec::with_capacity(unit.body.len().min(blocks.saturating_mul(block_len)))),
        };
        for (block, bytes, _) in unit.blocks(block_len).skip(skip).take(blocks) {
            sample.nonces.extend_from_slice(&mask.nonce(seq, block));
            sample.plain.extend_from_slice(bytes);
        }
        Ok(sample)
    }

    fn check(&self, run: &[Unit<'_>], key: &[u8; LAYER_KEY_LEN], guest: &mut dyn GuestLayer) -> Result<(), SealError> {
        let end = self.at.saturating_add(self.plain.len());
        let sealed = run.get(self.unit).and_then(|unit| unit.body.get(self.at..end)).unwrap_or_default();
        let mut opened = Zeroizing::new(sealed.to_vec());
        let unit = GuestUnit { nonces: &self.nonces, block_len: self.block_len, body: opened.as_mut_slice() };
        guest.open(key, &mut [unit])?;
        if *opened == *self.plain { Ok(()) } else { Err(SealError::GuestNotInverse { seq: self.seq }) }
    }
}
