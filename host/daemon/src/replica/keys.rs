//! The replica's key records: where those lie that are not checked yet, and the thread that checks them.
//!
//! Covers are checked as keys are, with the same work before they are acknowledged: what comes of it is thrown away. They are remembered apart from what waits for the index, which may have no room for them: until they are durable and
//! asked for, so a window of them at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use farseal_core::frame::KeyRefusal;
use farseal_core::record::{Framed, HEADER_BYTES, Header, Kind};
use farseal_core::secondary::KeyFacts;
use farseal_core::units::{Epoch, Sequence};

use super::Event;
use crate::keyring::Keyring;
use crate::keys::descriptor::How;
use crate::keys::package::{OpenEpochError, RefusedEpoch, SealedEpoch, VerifiedEpoch};
use crate::plugins::PairPlugins;
use crate::store::log::{Location, LogReader};

/// Key records that are stored and not asked for.
#[derive(Debug, Default)]
pub(super) struct Unchecked(BTreeMap<Sequence, (Header, Location)>);

/// A key record that is to be checked.
#[derive(Debug)]
pub(super) enum Question {
    /// It is durable, and what comes of it is waited for. `armed` is the newest epoch that has its place in the order.
    Stored { key: Sequence, header: Header, location: Location, armed: Epoch },
    /// It was carried here whole and has no place yet. Nobody waits; what is found need not be found again when it stands.
    Ahead(Vec<u8>),
}

impl Unchecked {
    /// One that a restart found. What a gap gave up of them is checked, too.
    pub(super) fn found(&mut self, header: &Header, location: Location) {
        if matches!(header.kind, Kind::Key | Kind::Cover) {
            self.0.insert(header.sequence, (*header, location));
        }
    }

    /// One that came. What a gap gives up is not asked for any more.
    pub(super) fn stored(&mut self, header: &Header, location: Location) {
        self.found(header, location);
        if header.kind == Kind::Gap {
            self.0.retain(|key, _| key.0 < header.aux || *key >= header.sequence);
        }
    }

    /// It is asked for once.
    pub(super) fn take(&mut self, key: Sequence, armed: Epoch) -> Option<Question> {
        self.0.remove(&key).map(|(header, location)| Question::Stored { key, header, location, armed })
    }

    /// The log ends at `end` again.
    pub(super) fn discard(&mut self, end: Location) {
        self.0.retain(|_, (_, location)| *location < end);
    }
}

/// Starts the thread that checks keys: extract, verify, unwrap, keep.
pub(super) fn start_checker(
    name: String,
    reader: LogReader,
    keyring: Arc<Keyring>,
    plugins: Arc<PairPlugins>,
    inbox: Sender<Event>,
) -> Sender<Question> {
    let (requests, queue) = channel::<Question>();
    std::thread::spawn(move || {
        // The key that was tried last before it stood.
        let mut ahead: Option<(blake3::Hash, KeyFacts)> = None;
        for question in queue {
            let (key, header, location, armed) = match question {
                Question::Stored { key, header, location, armed } => (key, header, location, armed),
                Question::Ahead(record) => {
                    ahead = tried(&keyring, &plugins, &record).map(|facts| (blake3::hash(&record), facts));
                    continue;
                }
            };
            let result = match reader.read(location) {
                Ok((_, carrier)) => match &ahead {
                    Some((hash, facts)) if is_record(hash, &header, &carrier) => Ok(*facts),
                    Some(_) | None => check(&keyring, &plugins, &header, &carrier, armed),
                },
                Err(_) => Err(KeyRefusal::NoCapsule),
            };
            if let (Err(why), Kind::Key) = (&result, header.kind) {
                tracing::warn!(pair = name, "the key in record {key} is refused: {why}");
            }
            if inbox.send(Event::KeyChecked { key, result }).is_err() {
                break;
            }
        }
    });
    requests
}

/// A key record, or the cover in its stead, that has no place yet. One that is refused is refused again where it stands, and said so there. What an
/// epoch's package is on disk is not changed before a record that stands does it.
fn tried(keyring: &Keyring, plugins: &PairPlugins, record: &[u8]) -> Option<KeyFacts> {
    let framed = Framed::decode(record).ok()?;
    let body = record.get(HEADER_BYTES..)?;
    if !matches!(framed.header.kind, Kind::Key | Kind::Cover) || !framed.body_matches(body) {
        return None;
    }
    let (verified, facts) = described(keyring, plugins, &framed.header, body).ok()?;
    openable(keyring, plugins, &verified).ok()?;
    let kept = if framed.header.kind == Kind::Cover {
        keyring.keep_cover(&verified)
    } else if keyring.package(facts.epoch).is_some() {
        return None;
    } else {
        keyring.keep(verified)
    };
    kept.ok()?;
    Some(facts)
}

/// Is this the record of that hash?
fn is_record(hash: &blake3::Hash, header: &Header, body: &[u8]) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header.encode(crc32c::crc32c(body))).update(body);
    hasher.finalize() == *hash
}

fn check(
    keyring: &Keyring,
    plugins: &PairPlugins,
    header: &Header,
    carrier: &[u8],
    armed: Epoch,
) -> Result<KeyFacts, KeyRefusal> {
    let (verified, facts) = described(keyring, plugins, header, carrier)?;
    let destroyed = keyring.destroyed();
    if header.kind == Kind::Key && destroyed.floor.takes(facts.epoch).is_err() {
        // What a restart reads again of the log was checked before its key was destroyed: its place in the order is all it has.
        return if header.sequence <= destroyed.at { Ok(facts) } else { Err(KeyRefusal::Destroyed) };
    }
    // What the other one sealed is in the copy and opens with its package alone: a main site, which may be anybody's by now, is not to
    // destroy it.
    if header.kind == Kind::Key && facts.epoch <= armed && keyring.has_another(&verified) {
        return Err(KeyRefusal::Misplaced);
    }
    openable(keyring, plugins, &verified)?;
    // Without its package on disk the key could not be had again: the record is not acknowledged then.
    let kept = if header.kind == Kind::Cover { keyring.keep_cover(&verified) } else { keyring.keep(verified) };
    kept.map_err(|_| KeyRefusal::Unopenable)?;
    Ok(facts)
}

/// What a carrier holds, signed for this place.
fn described(
    keyring: &Keyring,
    plugins: &PairPlugins,
    header: &Header,
    carrier: &[u8],
) -> Result<(VerifiedEpoch, KeyFacts), KeyRefusal> {
    let package = plugins.revealed(carrier, |payload| SealedEpoch::decode(payload).ok());
    let package = package.ok_or(KeyRefusal::NoCapsule)?;
    let verified = keyring.verify(package, None).map_err(|refused| match refused {
        RefusedEpoch::OtherPair { .. } => KeyRefusal::Misplaced,
        RefusedEpoch::Forged { .. } | RefusedEpoch::Replayed { .. } | RefusedEpoch::CapsuleChanged { .. } => {
            KeyRefusal::Forged
        }
        RefusedEpoch::NoReceipt { .. } | RefusedEpoch::Receipt { .. } => KeyRefusal::NoReceipt,
    })?;
    let terms = &verified.descriptor().terms;
    let facts = KeyFacts { epoch: Epoch(terms.epoch), start: Sequence(terms.start_seq) };
    let cover = header.kind == Kind::Cover;
    let misplaced = terms.key_seq != header.sequence.0 || terms.generation != header.generation.0;
    if misplaced || cover != (terms.how == How::Cover) {
        return Err(KeyRefusal::Misplaced);
    }
    Ok((verified, facts))
}

/// Can its records be opened, here or by what the escrow site holds?
fn openable(keyring: &Keyring, plugins: &PairPlugins, verified: &VerifiedEpoch) -> Result<(), KeyRefusal> {
    let terms = &verified.descriptor().terms;
    if terms.needs_layer() && plugins.components.load(farseal_plugin::Digest(terms.component)).is_err() {
        return Err(KeyRefusal::NoComponent);
    }
    match keyring.unwrap(verified) {
        Ok(_) => Ok(()),
        // With a receipt that was checked just now.
        Err(OpenEpochError::WithEscrow { .. }) if keyring.escrow().is_some() => Ok(()),
        Err(OpenEpochError::OtherRecipient { .. } | OpenEpochError::WithEscrow { .. }) => {
            Err(KeyRefusal::OtherRecipient)
        }
        Err(OpenEpochError::Capsule { .. } | OpenEpochError::OtherKey { .. } | OpenEpochError::Released { .. }) => {
            Err(KeyRefusal::Unopenable)
        }
    }
}
