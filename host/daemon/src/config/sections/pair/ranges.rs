//! What of a volume a pair copies: ranges of it, which no other pair copies.

use farseal_core::units::BlockBytes;

use super::super::super::problem::ConfigError;
use super::super::super::read::{Field, Table};
use crate::config::Volume;
use crate::range::{ByteRange, RANGE_FORM, RangeError};

/// Ranges that one pair may name: each is looked up with every request that spans several.
const RANGES_MAX: usize = 64;

/// A range, or a list of them; in the order of the volume.
pub(super) fn ranges(table: &mut Table<'_, '_>, block: BlockBytes) -> Result<Vec<ByteRange>, ConfigError> {
    let Some(field) = table.take("range") else { return Ok(Vec::new()) };
    let each = if field.text(RANGE_FORM).is_ok() { vec![field.clone()] } else { field.list(RANGE_FORM)? };
    if each.len() > RANGES_MAX {
        let allowed = format!("at most {RANGES_MAX} ranges");
        return Err(field.wrong("these are too many", &allowed, "make fewer and longer ranges, or several pairs"));
    }
    let mut ranges: Vec<ByteRange> = Vec::new();
    for each in each {
        let range = each.parsed(RANGE_FORM, |text| text.parse::<ByteRange>().map_err(|error: RangeError| error))?;
        if !range.start.is_multiple_of(block.as_u64()) || !range.end.is_multiple_of(block.as_u64()) {
            let allowed = format!("ends that are multiples of block-bytes, {}", block.get());
            return Err(each.wrong("it does not begin and end with a block", &allowed, "round both ends"));
        }
        if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
            let wrong = format!("it overlaps {other} of the same pair");
            return Err(each.wrong(&wrong, "ranges that have nothing in common", "make one range of the two"));
        }
        ranges.push(range);
    }
    ranges.sort();
    Ok(ranges)
}

/// Who copies what of which volume.
#[derive(Debug, Default)]
pub(super) struct Copied(Vec<Claim>);

#[derive(Debug)]
struct Claim {
    volume: String,
    pair: String,
    /// None: all of it.
    ranges: Vec<ByteRange>,
}

impl Copied {
    /// A pair copies these ranges of a volume, or all of it.
    pub(super) fn add(
        &mut self,
        table: &Table<'_, '_>,
        field: &Field<'_, '_>,
        (pair, ranges): (&str, &[ByteRange]),
        volume: &Volume,
    ) -> Result<(), ConfigError> {
        if let Some((range, size)) = ranges.iter().zip(volume.size).find(|(range, size)| range.end > size.0) {
            let allowed = format!("ranges inside of volume {}, which has {} bytes", volume.name, size.0);
            let fix = format!("correct the end of {range}, or the volume's size");
            return Err(table.missing("range", &allowed, &fix));
        }
        for other in self.0.iter().filter(|claim| claim.volume == volume.name) {
            let whole = ranges.is_empty() || other.ranges.is_empty();
            let common = ranges.iter().find_map(|range| {
                let theirs = other.ranges.iter().find(|theirs| theirs.overlaps(range))?;
                Some(format!("range {range} of pair {pair} and {theirs} of pair {} overlap", other.pair))
            });
            let common = common.or_else(|| {
                whole.then(|| format!("pairs {} and {pair} both copy it, and one of them all of it", other.pair))
            });
            if let Some(wrong) = common {
                let allowed = "one pair for a volume, or several with range = \"FROM..TO\" that have nothing in common";
                return Err(field.wrong(&wrong, allowed, "change the range of one of the two pairs, or its volume"));
            }
        }
        let (volume, pair, ranges) = (volume.name.clone(), pair.to_owned(), ranges.to_vec());
        self.0.push(Claim { volume, pair, ranges });
        Ok(())
    }
}
