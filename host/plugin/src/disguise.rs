//! Disguises: plans of slots, and carriers that are checked in a second instance before anything is sent.

use crate::bindings::key_disguise::exports::farseal::plugin::disguise::{Seen, Slot};
use crate::fault::{CallError, Called, FaultClass};
use crate::host::sealed::Assemble;
use crate::host::{Parts, Plugin};
use crate::kind::Kind;
use crate::limits;
use crate::load_error::Problem;
use crate::store::fault;
use crate::world::{DisguiseWorld, Facts, Guest};

/// A loaded disguise. Calls may run at the same time; none sees another.
#[derive(Debug)]
pub struct Disguise {
    guest: Guest<DisguiseWorld>,
    facts: Facts,
}

impl Plugin for Disguise {
    const KIND: Kind = Kind::Disguise;

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Assemble for Disguise {
    fn assemble(parts: Parts<'_>) -> Result<Self, Problem> {
        let (guest, facts) = parts.guest(limits::DISGUISE)?;
        Ok(Self { guest, facts })
    }
}

/// The extension by which a disguise says that its keys go in the slots of other records.
const IN_RECORDS: &str = "in-records";

impl Disguise {
    /// In-band keys go in the slots of other records, each of which has one then.
    #[must_use]
    pub fn is_in_records(&self) -> bool {
        self.facts.about.understands.iter().any(|name| name == IN_RECORDS)
    }

    /// The coming slots. `smallest` is the least number of blocks that can carry a key, 1 to 256.
    ///
    /// # Errors
    /// A refusal or a fault of the disguise; [`CallError::Input`] when the arguments pass the contract's bounds.
    pub fn plan(&self, recent: &[Seen], smallest: u32, seed: &[u8; 32]) -> Result<Called<Vec<Slot>>, CallError> {
        const FUNCTION: &str = "disguise.plan";
        if recent.len() > limits::SEEN {
            return Err(CallError::Input { function: FUNCTION, what: "more than 256 transfers to look at" });
        }
        if !(1..=limits::SLOT_BLOCKS).contains(&smallest) {
            return Err(CallError::Input { function: FUNCTION, what: "the smallest slot is not 1 to 256 blocks" });
        }
        let config = &self.facts.config;
        let called = self.guest.call(FUNCTION, |exports, store| {
            exports.farseal_plugin_disguise().call_plan(store, recent, smallest, seed, config)
        })?;
        match broken_plan(&called.value, smallest) {
            Some(rule) => Err(fault(called, FaultClass::Protocol, FUNCTION, rule)),
            None => Ok(called),
        }
    }

    /// The most payload bytes that a cover of this length carries.
    ///
    /// # Errors
    /// As for [`Disguise::plan`].
    pub fn capacity(&self, cover_bytes: u32) -> Result<Called<u32>, CallError> {
        const FUNCTION: &str = "disguise.capacity";
        let config = &self.facts.config;
        let called = self.guest.call(FUNCTION, |exports, store| {
            exports.farseal_plugin_disguise().call_capacity(store, cover_bytes, config)
        })?;
        if called.value > cover_bytes {
            let detail = format!(
                "says that {cover_bytes} bytes carry {}; a cover carries less than its own length",
                called.value
            );
            return Err(fault(called, FaultClass::Invariant, FUNCTION, detail));
        }
        Ok(called)
    }

    /// Hides `payload` in `cover`. The carrier is as long as the cover and was opened again in another instance.
    ///
    /// # Errors
    /// As for [`Disguise::plan`]; a carrier that breaks R-22 is a fault of class `invariant`.
    pub fn embed(&self, cover: &[u8], payload: &[u8], seed: &[u8; 32]) -> Result<Called<Vec<u8>>, CallError> {
        const FUNCTION: &str = "disguise.embed";
        check_cover(FUNCTION, cover)?;
        if payload.len() > cover.len() {
            return Err(CallError::Input { function: FUNCTION, what: "the payload is longer than the cover" });
        }
        let config = &self.facts.config;
        let called = self.guest.call(FUNCTION, |exports, store| {
            exports.farseal_plugin_disguise().call_embed(store, cover, payload, seed, config)
        })?;
        if called.value.len() != cover.len() {
            let detail = format!("the carrier has {} bytes, the cover has {} (R-22)", called.value.len(), cover.len());
            return Err(fault(called, FaultClass::Invariant, FUNCTION, detail));
        }
        let found = match self.extract(&called.value) {
            Ok(found) => found.value,
            Err(error) => {
                let detail = format!("the carrier cannot be read again: {error} (R-22)");
                return Err(fault(called, FaultClass::Invariant, FUNCTION, detail));
            }
        };
        if found.as_deref() != Some(payload) {
            let detail = "a second instance does not find the payload in the carrier (R-22)";
            return Err(fault(called, FaultClass::Invariant, FUNCTION, detail));
        }
        Ok(called)
    }

    /// The payload of a carrier, or `None` where there is none of this disguise's making.
    ///
    /// # Errors
    /// As for [`Disguise::plan`].
    pub fn extract(&self, carrier: &[u8]) -> Result<Called<Option<Vec<u8>>>, CallError> {
        const FUNCTION: &str = "disguise.extract";
        check_cover(FUNCTION, carrier)?;
        let config = &self.facts.config;
        let called = self
            .guest
            .call(FUNCTION, |exports, store| exports.farseal_plugin_disguise().call_extract(store, carrier, config))?;
        if called.value.as_ref().is_some_and(|payload| payload.len() > carrier.len()) {
            return Err(fault(called, FaultClass::Invariant, FUNCTION, "the payload found is longer than its carrier"));
        }
        Ok(called)
    }
}

fn check_cover(function: &'static str, cover: &[u8]) -> Result<(), CallError> {
    if cover.len() > limits::COVER_BYTES {
        return Err(CallError::Input { function, what: "the cover is longer than 16 MiB" });
    }
    Ok(())
}

fn broken_plan(slots: &[Slot], smallest: u32) -> Option<String> {
    if slots.len() > limits::SLOTS {
        return Some(format!("{} slots in one plan; at most {} are allowed", slots.len(), limits::SLOTS));
    }
    slots.iter().find_map(|slot| {
        if !(smallest..=limits::SLOT_BLOCKS).contains(&slot.blocks) {
            return Some(format!(
                "a slot of {} blocks; {smallest} to {} are allowed",
                slot.blocks,
                limits::SLOT_BLOCKS
            ));
        }
        (slot.gap > limits::SLOT_GAP_MS).then(|| format!("a gap of {} ms; at most an hour is allowed", slot.gap))
    })
}
