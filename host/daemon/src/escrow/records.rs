//! Records that an approved search found, as the escrow site opens them: whole or part by part, and each in the log, also if refused

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farseal_core::limits::RECORD_PAYLOAD_MAX;
use farseal_core::units::{Epoch, PairId, Sequence, WallTime};
use farseal_plugin::Digest;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::guest::GuestLayer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::desk::{Desk, fingerprint, for_whom};
use super::grants::Grant;
use super::parts::{PART_BYTES, Part};
use super::search::{AskedSearch, NotOpened, OpenedBlock, SealedBlock, SealedRecord, record_of};
use super::store::{Asked, EscrowStoreError};
use super::wire::{FromEscrow, Place, RequestState};
use crate::keys::capsule::KemSecret;
use crate::keys::card::PeerCard;
use crate::keys::descriptor::Terms;
use crate::keys::fingerprint::Fingerprint;
use crate::keys::wire::to_hex;
use crate::link::parts::{Coming, OutOfOrder};

/// How long components may work on one record; one call of theirs is cut off after a second.
const GUESTS_MAX: Duration = Duration::from_secs(8);
/// Components that one record may need: what overwrote a part of it may have been sealed by another.
const GUESTS_IN_RECORD_MAX: usize = 4;
/// Lines on which a record is under way in parts at once: each holds up to twice
/// [`SEALED_BYTES_MAX`](super::parts::SEALED_BYTES_MAX) of memory.
pub(super) const LONG_MAX: usize = 32;

/// What is under way on one line of a site: a record that comes in parts, and what was opened of the last one and goes in parts.
/// It ends with the line.
#[derive(Debug, Default)]
pub struct Line {
    coming: Coming,
    opened: Zeroizing<Vec<u8>>,
    place: Option<OwnedSemaphorePermit>,
}

impl Line {
    /// A part of a record. With the last one, all of it. One for which there is no place among [`LONG_MAX`] comes to nothing, like
    /// one out of order: both are sent again from their first part.
    pub(super) fn take(&mut self, places: &Arc<Semaphore>, part: &Part) -> Result<Option<Vec<u8>>, OutOfOrder> {
        if self.place.is_none() {
            self.place = Some(Arc::clone(places).try_acquire_owned().map_err(|_| OutOfOrder)?);
        }
        let added = part.add_to(&mut self.coming);
        if added.is_err() {
            *self = Self::default();
        }
        added
    }

    /// What does not fit a cell stays until the site has asked for the last part of it, or for something else.
    pub(super) fn opened(&mut self, opened: Result<Zeroizing<Vec<u8>>, NotOpened>) -> FromEscrow {
        match opened {
            Ok(bytes) if bytes.len() > PART_BYTES => {
                let first = Part::at(&bytes, 0);
                *self = Self { coming: Coming::default(), opened: bytes, place: self.place.take() };
                FromEscrow::OpenedPart(first)
            }
            other => {
                *self = Self::default();
                FromEscrow::Opened(other)
            }
        }
    }

    pub(super) fn opened_from(&mut self, from: u32) -> FromEscrow {
        let part = Part::at(&self.opened, usize::try_from(from).unwrap_or(usize::MAX));
        if part.bytes.is_empty() {
            return FromEscrow::Opened(Err(NotOpened::Interrupted));
        }
        if part.is_last() {
            *self = Self::default();
        }
        FromEscrow::OpenedPart(part)
    }
}

impl Desk {
    /// A record that came in parts.
    pub(super) fn open_whole(
        &self,
        site: &PeerCard,
        bytes: &[u8],
        now: WallTime,
    ) -> Result<Result<Zeroizing<Vec<u8>>, NotOpened>, EscrowStoreError> {
        match SealedRecord::decode(bytes) {
            Some(record) => self.open_record(site, &record, now),
            None => {
                self.note(site, now, "has a record opened that is none: it is refused".to_owned())?;
                Ok(Err(NotOpened::NotAuthentic))
            }
        }
    }

    /// Opens a record for the site that asked for a search, if it holds what was searched for. It is in the log before it leaves.
    pub(super) fn open_record(
        &self,
        site: &PeerCard,
        record: &SealedRecord,
        now: WallTime,
    ) -> Result<Result<Zeroizing<Vec<u8>>, NotOpened>, EscrowStoreError> {
        let requester = to_hex(&site.fingerprint().0);
        let mine = |asked: &Asked| asked.id == record.request && asked.requester == requester;
        let asked = self.requests()?.into_iter().find(mine);
        let opened = match &asked {
            Some(asked) if self.state(asked, now) == RequestState::Approved => self.judged(site, asked, record, now)?,
            Some(_) | None => Err(NotOpened::NotApproved),
        };
        let first = record.blocks.first().map_or(0, |block| block.lba.0);
        let pair = asked.map_or_else(String::new, |asked| format!(" of pair {}", asked.pair));
        let became = became(opened.as_ref().map(|(_, written)| *written));
        self.note(site, now, format!("request {}: the record at block {first}{pair} {became}", record.request))?;
        Ok(opened.map(|(bytes, _)| bytes))
    }

    fn judged(
        &self,
        site: &PeerCard,
        asked: &Asked,
        record: &SealedRecord,
        now: WallTime,
    ) -> Result<Result<Whole, NotOpened>, EscrowStoreError> {
        let (Some(search), Some(depositor)) = (&asked.search, fingerprint(&asked.depositor)) else {
            return Ok(Err(NotOpened::NotApproved));
        };
        // No more than a record has, whatever the blocks say of themselves.
        if record.blocks.len() > usize::try_from(search.record_blocks).unwrap_or(usize::MAX) {
            return Ok(Err(NotOpened::NoMatch));
        }
        let Some(grant) = self.grants.in_force(asked.id, now) else { return Ok(Err(NotOpened::NotApproved)) };
        let own = self.identity.kem();
        let Some(secret) = grant.secret.as_deref().or(own) else { return Ok(Err(NotOpened::NotApproved)) };
        Approved { desk: self, site, asked, search, depositor, grant: &grant, secret }.open(&record.blocks)
    }
}

/// A record that was opened, and when its blocks were written.
type Whole = (Zeroizing<Vec<u8>>, Written);

/// The records of the copy that hold the blocks of a record.
#[derive(Clone, Copy, Debug)]
struct Written {
    oldest: Option<Sequence>,
    newest: Option<Sequence>,
}

/// What became of a record, in the log's words. Blocks that were written at different times are usual, and are also what a site
/// sends that kept an older block with the value: the log shows it to whoever looks.
fn became(opened: Result<Written, &NotOpened>) -> String {
    match opened {
        Ok(Written { oldest: Some(oldest), newest: Some(newest) }) if oldest < newest => {
            format!(
                "is opened, its blocks from records {oldest} to {newest} of the copy: nothing shows that they belong together"
            )
        }
        Ok(Written { oldest: Some(record), .. }) => format!("is opened, from record {record} of the copy"),
        Ok(Written { oldest: None, .. }) => "is opened".to_owned(),
        Err(why) => format!("is refused: {why}"),
    }
}

/// A search that a person approved, and what opens the keys that were deposited for it.
struct Approved<'a> {
    desk: &'a Desk,
    site: &'a PeerCard,
    asked: &'a Asked,
    search: &'a AskedSearch,
    depositor: Fingerprint,
    grant: &'a Grant,
    secret: &'a KemSecret,
}

impl Approved<'_> {
    fn open(&self, sealed: &[SealedBlock]) -> Result<Result<Whole, NotOpened>, EscrowStoreError> {
        let most = usize::try_from(RECORD_PAYLOAD_MAX).unwrap_or(usize::MAX);
        // Most records are of one epoch.
        let (mut keys, mut guests, mut blocks, mut bytes) = (BTreeMap::new(), Guests::default(), Vec::new(), 0);
        for block in sealed {
            let key = match keys.entry(block.deposit) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => match self.key(block)? {
                    Some(found) => unknown.insert(found),
                    None => return Ok(Err(NotOpened::NotAuthentic)),
                },
            };
            let opened = match self.open_block(block, key, &mut guests) {
                Ok(opened) => opened,
                Err(why) => return Ok(Err(why)),
            };
            bytes += opened.bytes.len();
            blocks.push(opened);
            if bytes > most {
                return Ok(Err(NotOpened::TooLong));
            }
        }
        let sequences = || blocks.iter().map(|block| block.sequence);
        let written = Written { oldest: sequences().min(), newest: sequences().max() };
        Ok(record_of(&blocks, self.search).map(|bytes| (bytes, written)))
    }

    /// The key that lies in a block's deposit, if it is of the pair and one of those that the search was approved for.
    fn key(&self, block: &SealedBlock) -> Result<Option<SignedKey>, EscrowStoreError> {
        let kept = self.desk.store.find(block.deposit)?;
        let found = kept.and_then(|kept| for_whom(&kept, self.site, self.depositor)).filter(|deposit| {
            let scope = deposit.terms.scope;
            let place = Place { epoch: Epoch(scope.epoch), deposit: block.deposit };
            PairId(scope.pair) == self.asked.pair && self.grant.covers(&place)
        });
        Ok(found.and_then(|deposit| {
            let (deposit, depositor) = self.desk.verified(deposit, self.depositor)?;
            let terms = deposit.epoch_terms(&block.descriptor, depositor)?;
            Some(SignedKey { key: deposit.open(self.secret).ok()?, terms })
        }))
    }

    fn open_block(
        &self,
        sealed: &SealedBlock,
        with: &SignedKey,
        guests: &mut Guests,
    ) -> Result<OpenedBlock, NotOpened> {
        let guest = match with.terms.needs_layer().then_some(Digest(with.terms.component)) {
            None => None,
            Some(_) if guests.begun.elapsed() > GUESTS_MAX => return Err(NotOpened::TooSlow),
            Some(component) => Some(guests.get(self.desk, self.depositor, component).ok_or(NotOpened::NeedsComponent)?),
        };
        sealed.open(&with.key, &with.terms, self.search, guest)
    }
}

/// A key from its deposit, and what its site signed of the epoch.
struct SignedKey {
    key: EpochKey,
    terms: Terms,
}

/// The components that one record needs, each in an instance of its own.
struct Guests {
    begun: Instant,
    of: BTreeMap<Digest, Option<Box<dyn GuestLayer + Send>>>,
}

impl Default for Guests {
    fn default() -> Self {
        Self { begun: Instant::now(), of: BTreeMap::new() }
    }
}

impl Guests {
    fn get(&mut self, desk: &Desk, depositor: Fingerprint, component: Digest) -> Option<&mut dyn GuestLayer> {
        if !self.of.contains_key(&component) && self.of.len() < GUESTS_IN_RECORD_MAX {
            self.of.insert(component, desk.ciphers.layer(&desk.library, depositor, component));
        }
        Some(&mut **self.of.get_mut(&component)?.as_mut()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_where_blocks_of_an_opened_record_are_of_different_times() {
        let written = |oldest, newest| Written { oldest: Some(Sequence(oldest)), newest: Some(Sequence(newest)) };
        for (opened, said) in [
            (Ok(written(4, 9)), "its blocks from records 4 to 9 of the copy: nothing shows that they belong together"),
            (Ok(written(4, 4)), "is opened, from record 4 of the copy"),
            (Err(&NotOpened::NoMatch), "is refused: it does not hold"),
        ] {
            let line = became(opened);
            assert!(line.contains(said), "{line}");
        }
    }

    #[test]
    fn a_line_whose_parts_came_out_of_order_kept_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let whole = vec![7; PART_BYTES + 9];
        let [first, last] = [Part::at(&whole, 0), Part::at(&whole, PART_BYTES)];
        let (mut one, mut other) = (Line::default(), Line::default());
        assert_eq!(one.take(&places, &last), Err(OutOfOrder), "its first part is missing");
        assert_eq!(other.take(&places, &first), Ok(None));
        assert_eq!(one.take(&places, &first), Err(OutOfOrder), "there is no place");
        assert_eq!(other.take(&places, &last), Ok(Some(whole)));
        assert_eq!(one.take(&places, &first), Err(OutOfOrder), "what came whole is under way until it is answered");
        drop(other);
        assert_eq!(one.take(&places, &first), Ok(None));
    }
}
