//! No key seals past the host's limits, whatever the policy says, and however the operator set them.
//!
//! The limits that count are the pair's, within the absolute ones. A key may be over its bytes by the record that takes it
//! there, and by no other; it never seals at its greatest age. The one exception has no content: where the next key is on
//! its way already when the limit is reached, and does not arrive, a void must stand before the one that takes its place.

use std::collections::BTreeMap;

use farseal_core::limits::{KEY_AGE_MAX, KEY_BYTES_MAX, ROTATION_INTERVAL_MIN};
use farseal_core::record::Kind;
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{Epoch, Instant};

use super::{Checker, Failure};
use crate::disk::wide;
use crate::model::Rec;

/// What each key has been used for, by life and epoch.
#[derive(Clone, Debug, Default)]
pub struct Ceilings {
    uses: BTreeMap<(u32, Epoch), Use>,
    begun: Option<(u32, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    since: Instant,
    bytes: u64,
    /// The void that may stand at the limit has been sealed.
    voided: bool,
}

impl Ceilings {
    pub fn in_force(&mut self, now: Instant, life: u32, epoch: Epoch) {
        self.uses.insert((life, epoch), Use::since(now));
    }

    /// A rotation begins. One that nobody waits for may come at any time: at the limit itself, and for an operator.
    pub fn begun(&mut self, now: Instant, limits: KeyLimits, life: u32, how: How) -> Result<(), Failure> {
        let last = self.begun.replace((life, now)).filter(|(of, _)| *of == life && how != How::AtOnce);
        let least = limits.interval_min.max(ROTATION_INTERVAL_MIN);
        match last.map(|(_, at)| now.since(at)).filter(|waited| *waited < least) {
            Some(waited) => {
                let (waited, least) = (waited.0, least.0);
                Err(Failure::new(Checker::Ceiling, format!("a rotation after {waited} ms; the interval is {least} ms")))
            }
            None => Ok(()),
        }
    }

    /// A record was sealed.
    pub fn sealed(&mut self, now: Instant, limits: KeyLimits, life: u32, rec: &Rec) -> Result<(), Failure> {
        if !rec.header.kind.is_sealed() {
            return Ok(());
        }
        let (sequence, epoch) = (rec.header.sequence, rec.epoch);
        let fail =
            |what: String| Err(Failure::new(Checker::Ceiling, format!("record {sequence}, epoch {epoch}: {what}")));
        // Whether it may seal at all is the epoch checker's to say.
        let used = self.uses.entry((life, epoch)).or_insert(Use::since(now));
        let (age, oldest) = (now.since(used.since), limits.age_max.min(KEY_AGE_MAX));
        let most = limits.bytes_max.min(KEY_BYTES_MAX);
        let over = age >= oldest || used.bytes >= most.0;
        if over && rec.header.kind == Kind::Void && !std::mem::replace(&mut used.voided, true) {
            return Ok(());
        }
        if age >= oldest {
            return fail(format!("sealed by a key of {} ms; its greatest age is {} ms", age.0, oldest.0));
        }
        if used.bytes >= most.0 {
            return fail(format!("sealed by a key that has sealed {} bytes; {} are the most", used.bytes, most.0));
        }
        if rec.header.kind == Kind::Data {
            used.bytes += wide(rec.header.payload_bytes());
        }
        Ok(())
    }
}

impl Use {
    fn since(since: Instant) -> Self {
        Self { since, bytes: 0, voided: false }
    }
}
