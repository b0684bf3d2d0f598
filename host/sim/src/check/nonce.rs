//! No key, incarnation, sequence number and block ever seal two contents: not across crash, not across lost tails.

use std::collections::BTreeMap;

use farseal_core::record::Kind;
use farseal_core::units::Sequence;

use super::{Checker, Failure};
use crate::dice::mix;
use crate::model::Rec;
use crate::seal::{Sealer, Stamp};

/// Every nonce that was used, with what it sealed.
#[derive(Clone, Debug, Default)]
pub struct Nonces {
    sealed: BTreeMap<(Sealer, Sequence), (u64, Vec<Stamp>)>,
}

impl Nonces {
    /// A record was sealed, whether or not it reaches a disk.
    pub fn sealed(&mut self, rec: &Rec) -> Result<(), Failure> {
        if !rec.header.kind.is_sealed() {
            return Ok(());
        }
        let header = &rec.header;
        let stamps = if header.kind == Kind::Data { rec.stamps.clone() } else { Vec::new() };
        // A tag alone covers the header: another header under the same nonce is another content too.
        let content = (mix(u64::from(crc32c::crc32c(&header.encode(0)))), stamps);
        match self.sealed.get(&(rec.sealer, header.sequence)) {
            Some(before) if *before != content => Err(Failure::new(
                Checker::Nonce,
                format!("key {:x} sealed two contents at record {}", rec.sealer.key.0, header.sequence),
            )),
            Some(_) => Ok(()),
            None => {
                self.sealed.insert((rec.sealer, header.sequence), content);
                Ok(())
            }
        }
    }

    pub fn len(&self) -> usize {
        self.sealed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }
}
