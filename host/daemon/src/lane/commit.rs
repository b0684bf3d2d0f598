//! Commits: the records that core planned, sealed once, in one allocation that journal and link share.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use farseal_core::chain::{Chain, Digest};
use farseal_core::journal::CommitHeader;
use farseal_core::layout::Layout;
use farseal_core::primary::{Planned, Settings, Source};
use farseal_core::record::{HEADER_BYTES, Header, Kind, TAG_BYTES};
use farseal_core::rotation::How;
use farseal_core::units::{Epoch, Incarnation, Sequence, Ticket};
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::schedule::EpochSchedule;
use farseal_plugin::vault::seal::{SealError, Sealer};
use farseal_plugin::vault::search::SearchKey;
use farseal_plugin::vault::stack::StackIndex;
use farseal_plugin::vault::unit::Unit;
use farseal_plugin::wit::cipher::{Batch, RecordKind, Shape};
use farseal_plugin::{Cipher, CipherUnavailable, CipherWorker, Plugin as _};

use super::Parts;
use super::keywork::Prepared;
use crate::clock::Clock;
use crate::control::api::PluginSlot;
use crate::keyring::{Keyring, KeyringError};
use crate::keys::card::PeerCard;
use crate::keys::deposit::Receipt;
use crate::keys::descriptor::{How as DescribedHow, Role, Terms};
use crate::keys::identity::Identity;
use crate::keys::package::{RefusedEpoch, SealEpochError, SealedEpoch, VerifiedEpoch};
use crate::plugins::PairPlugins;
use crate::search;

/// What core asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub records: Vec<Planned>,
    pub durable: Sequence,
    pub restart: Option<Chain>,
}

/// A commit that may be appended, and sent once it is durable.
#[derive(Debug)]
pub struct Sealed {
    pub header: CommitHeader,
    pub planned: Vec<Planned>,
    pub records: Vec<Bytes>,
    pub digests: Vec<Digest>,
    pub chain_before: Chain,
    pub restart: bool,
    /// Writes whose last block is in this commit.
    pub finished: Vec<Ticket>,
}

/// Why nothing could be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealFault {
    #[error(transparent)]
    Cipher(#[from] CipherUnavailable),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the pair has no cipher")]
    NoCipher,
    #[error("the key of epoch {0} is not in memory")]
    NoKey(Epoch),
    #[error(transparent)]
    Package(#[from] SealEpochError),
    #[error("this node's own key package was refused: {0}")]
    OwnPackage(#[from] RefusedEpoch),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("no disguise can carry the key of epoch {epoch} in {bytes} bytes")]
    NoCarrier { epoch: Epoch, bytes: usize },
    #[error("the random source failed")]
    NoEntropy,
    #[error("a record of {0} bytes does not fit the formats")]
    TooLong(usize),
}

/// A key record, or the cover in its stead: what it is made of.
struct Made {
    planned: Planned,
    stack: StackIndex,
    cipher: Arc<Cipher>,
    wrapped: Wrapped,
    carrier: Vec<u8>,
}

/// What a key record says.
struct Wrapped {
    terms: Terms,
    package: VerifiedEpoch,
    payload: Vec<u8>,
    /// A cover's own, which no record is sealed under.
    sham: Option<EpochKey>,
}

/// Seals for one lane.
pub struct Committer {
    settings: Settings,
    chain: Chain,
    plugins: Arc<PairPlugins>,
    worker: Option<CipherWorker>,
    guest: Option<Box<dyn GuestLayer + Send>>,
    sealers: BTreeMap<Epoch, Sealer>,
    /// What key fields lie in the blocks, and what makes their tags.
    layout: Option<Layout>,
    search_keys: BTreeMap<Epoch, SearchKey>,
    /// A cipher seals whole epochs, also when another is put in its place meanwhile.
    ciphers: BTreeMap<Epoch, Arc<Cipher>>,
    prepared: BTreeMap<Epoch, Prepared>,
    /// One stack for every record of an epoch below a sequence number: (epoch, stack, below).
    standing: Option<(Epoch, StackIndex, Sequence)>,
    keyring: Arc<Keyring>,
    identity: Arc<Identity>,
    recipients: Vec<(Role, PeerCard)>,
    /// The key record that was built ahead of its place.
    carried: Option<Arc<Made>>,
    /// The escrow site's last receipt: what a cover of a pair with an escrow shows.
    receipt: Option<Receipt>,
    incarnation: Incarnation,
}

impl Committer {
    #[must_use]
    pub fn new(parts: &Parts, chain: Chain) -> Self {
        Self {
            settings: parts.settings,
            chain,
            plugins: Arc::clone(&parts.plugins),
            worker: None,
            guest: None,
            sealers: BTreeMap::new(),
            layout: parts.layout.clone(),
            search_keys: BTreeMap::new(),
            ciphers: BTreeMap::new(),
            prepared: BTreeMap::new(),
            standing: None,
            keyring: Arc::clone(&parts.keyring),
            identity: Arc::clone(&parts.identity),
            recipients: parts.recipients.clone(),
            carried: None,
            receipt: None,
            incarnation: parts.incarnation,
        }
    }

    /// A key that may be placed.
    pub fn prepared(&mut self, prepared: Prepared) {
        self.prepared.insert(prepared.epoch, prepared);
    }

    /// The escrow site holds a key that may be placed.
    pub fn escrowed(&mut self, epoch: Epoch, receipt: Receipt) {
        self.receipt = Some(receipt);
        if let Some(prepared) = self.prepared.get_mut(&epoch) {
            prepared.receipt = Some(receipt);
        }
    }

    /// A key that never comes into force.
    pub fn discard(&mut self, epoch: Epoch) {
        self.prepared.remove(&epoch);
        self.sealers.remove(&epoch);
        self.search_keys.remove(&epoch);
        self.ciphers.remove(&epoch);
    }

    /// Older keys seal nothing any more.
    pub fn in_force(&mut self, epoch: Epoch) {
        self.sealers.retain(|known, _| *known >= epoch);
        self.search_keys.retain(|known, _| *known >= epoch);
        self.ciphers.retain(|known, _| *known >= epoch);
        self.worker = None;
        self.guest = None;
    }

    /// What [`Committer::in_force`] costs, for nothing.
    pub fn as_in_force(&mut self) {
        self.standing = None;
        self.worker = None;
        self.guest = None;
    }

    /// Builds and seals every record of the plan.
    ///
    /// Nothing is changed by a failure but for a key record's package, which may be on disk already: the same key
    /// record, to the byte, is in the plan when it is sealed again.
    pub fn seal(&mut self, clock: &Clock, plan: &Plan, writes: &BTreeMap<Ticket, Bytes>) -> Result<Sealed, SealFault> {
        let stacks = self.choose_stacks(clock, plan)?;
        let headers: Vec<Header> =
            plan.records.iter().zip(&stacks).map(|(planned, stack)| self.header(planned, *stack)).collect();
        let total: usize = headers.iter().map(Header::record_bytes).sum();
        let mut buffer = BytesMut::with_capacity(total);
        let (mut finished, mut keys) = (Vec::new(), Vec::new());
        for (planned, header) in plan.records.iter().zip(&headers) {
            buffer.extend_from_slice(&[0; HEADER_BYTES]);
            match planned.source {
                Source::Buffer { ticket, skip } => {
                    buffer.resize(buffer.len() + header.tag_bytes(), 0);
                    let data = writes.get(&ticket).map_or(&[][..], |data| &data[..]);
                    let from = usize::try_from(skip.byte_len(self.settings.block_bytes).0).unwrap_or(usize::MAX);
                    if header.kind.has_blocks() {
                        buffer.extend_from_slice(data.get(from..from + header.payload_bytes()).unwrap_or_default());
                        if from + header.payload_bytes() >= data.len() {
                            finished.push(ticket);
                        }
                    }
                }
                Source::Capsules { .. } => {
                    let made = self.carried_or_made(clock, planned, header)?;
                    self.carried = Some(Arc::clone(&made));
                    self.keep_key(&made)?;
                    buffer.extend_from_slice(&made.carrier);
                    keys.push(made);
                }
                Source::Sham { .. } => {
                    let made = self.carried_or_made(clock, planned, header)?;
                    self.forget_sham(&made)?;
                    buffer.extend_from_slice(&made.carrier);
                }
                Source::Header => buffer.resize(buffer.len() + header.body_bytes(), 0),
                Source::Random => buffer.extend_from_slice(&random(header.body_bytes())?),
            }
        }
        if buffer.len() != total {
            return Err(SealFault::TooLong(total));
        }
        self.write_search_tags(&plan.records, &headers, &mut buffer)?;
        self.seal_in_place(&plan.records, &headers, &mut buffer)?;
        // Behind all that a cipher's fault can keep from being sealed: the plan is tried again as it is.
        keys.iter().try_for_each(|made| self.take_key(made))?;
        self.frame(plan, &headers, buffer.freeze(), finished)
    }

    /// A key record of a place to come, or the cover in its stead, whole: the same bytes when it is planned there. Nothing is
    /// kept of it before that.
    ///
    /// # Errors
    /// [`SealFault`]: it cannot be carried, and is tried again where it stands.
    pub fn carry(&mut self, clock: &Clock, planned: &Planned) -> Result<Vec<u8>, SealFault> {
        self.carried = None;
        let stack = self.standing.map_or(StackIndex(0), |(_, stack, _)| stack);
        let header = self.header(planned, stack);
        let made = self.made(clock, planned, &header)?;
        let record = [header.encode(crc32c::crc32c(&made.carrier)).as_slice(), &made.carrier].concat();
        self.carried = Some(Arc::new(made));
        Ok(record)
    }

    fn header(&self, planned: &Planned, stack: StackIndex) -> Header {
        let stack = self.carried_as(planned).map_or(stack, |carried| carried.stack);
        let blocks = planned.extent.map_or(0, |extent| u32::try_from(extent.blocks().0).unwrap_or(u32::MAX));
        Header {
            kind: planned.kind,
            encrypted: self.settings.encrypted,
            stack: stack.0,
            search_tags: self.settings.search_tags(),
            pair: self.settings.pair,
            volume: self.settings.volume,
            generation: self.settings.generation,
            sequence: planned.sequence,
            lba: planned.extent.map_or(Default::default(), |extent| extent.first()),
            blocks: if planned.extent.is_some() { blocks } else { planned.body_blocks },
            block_bytes: self.settings.block_bytes,
            wall: planned.wall,
            aux: planned.aux,
        }
    }

    /// What a search finds the blocks by, from their content before it is sealed. Behind a key's or a cover's tags stand random bytes.
    fn write_search_tags(&self, planned: &[Planned], headers: &[Header], buffer: &mut [u8]) -> Result<(), SealFault> {
        let Some(layout) = &self.layout else { return Ok(()) };
        let mut rest = buffer;
        for (planned, header) in planned.iter().zip(headers) {
            let (record, after) = std::mem::take(&mut rest).split_at_mut(header.record_bytes());
            rest = after;
            if header.kind == Kind::Data {
                let key = self.search_keys.get(&planned.epoch).ok_or(SealFault::NoKey(planned.epoch))?;
                search::write_tags(layout, key, header, &mut record[HEADER_BYTES..]);
            }
        }
        Ok(())
    }

    /// Seals runs of one epoch, each in one batch.
    fn seal_in_place(
        &mut self,
        planned: &[Planned],
        headers: &[Header],
        buffer: &mut BytesMut,
    ) -> Result<(), SealFault> {
        if !self.settings.encrypted {
            return Ok(());
        }
        let bytes: Vec<[u8; HEADER_BYTES]> = headers.iter().map(|header| header.encode(0)).collect();
        let mut runs: Vec<(Epoch, Vec<Unit<'_>>)> = Vec::new();
        let mut rest = &mut buffer[..];
        for ((planned, header), bytes) in planned.iter().zip(headers).zip(&bytes) {
            let (record, after) = std::mem::take(&mut rest).split_at_mut(header.record_bytes());
            rest = after;
            if !header.kind.is_sealed() {
                continue;
            }
            let (tags, body) = record[HEADER_BYTES..].split_at_mut(header.tag_bytes());
            let unit = Unit {
                header: bytes,
                seq: header.sequence.0,
                stack: StackIndex(header.stack),
                block_len: header.block_bytes.get(),
                first_block: 0,
                body,
                beside: header.tag_bytes_each() - TAG_BYTES,
                tags,
            };
            match runs.last_mut() {
                Some((epoch, units)) if *epoch == planned.epoch => units.push(unit),
                Some(_) | None => runs.push((planned.epoch, vec![unit])),
            }
        }
        for (epoch, mut units) in runs {
            let sealer = self.sealers.get_mut(&epoch).ok_or(SealFault::NoKey(epoch))?;
            let guest = self.guest.as_mut().map(|guest| &mut **guest as &mut dyn GuestLayer);
            sealer.seal_batch(&mut units, guest)?;
        }
        Ok(())
    }

    /// Writes the final headers and cuts the commit into its records.
    fn frame(
        &mut self,
        plan: &Plan,
        headers: &[Header],
        sealed: Bytes,
        finished: Vec<Ticket>,
    ) -> Result<Sealed, SealFault> {
        // The one owner of the buffer until the records are cut, so that taking it back copies nothing.
        let total = sealed.len();
        let mut buffer = sealed.try_into_mut().map_err(|_| SealFault::TooLong(total))?;
        let mut digests = Vec::with_capacity(headers.len());
        let mut at = 0;
        for header in headers {
            let record = &mut buffer[at..at + header.record_bytes()];
            let (head, body) = record.split_at_mut(HEADER_BYTES);
            let bytes = header.encode(crc32c::crc32c(body));
            head.copy_from_slice(&bytes);
            digests.push(Digest::of(&bytes, &body[..header.tag_bytes()]));
            at += header.record_bytes();
        }
        let mut rest = buffer.freeze();
        let records: Vec<Bytes> = headers.iter().map(|header| rest.split_to(header.record_bytes())).collect();
        let chain_before = plan.restart.unwrap_or(self.chain);
        self.chain = digests.iter().fold(chain_before, |chain, digest| chain.after(*digest));
        let header = CommitHeader {
            first: plan.records.first().map_or(Sequence::NONE, |planned| planned.sequence),
            records: u32::try_from(records.len()).map_err(|_| SealFault::TooLong(total))?,
            bytes: u32::try_from(total).map_err(|_| SealFault::TooLong(total))?,
            durable: plan.durable,
        };
        Ok(Sealed {
            header,
            planned: plan.records.clone(),
            records,
            digests,
            chain_before,
            restart: plan.restart.is_some(),
            finished,
        })
    }

    /// Asks the cipher once for the whole batch, unless its last answer still stands.
    fn choose_stacks(&mut self, clock: &Clock, plan: &Plan) -> Result<Vec<StackIndex>, SealFault> {
        let none = vec![StackIndex(0); plan.records.len()];
        let Some(last) = plan.records.last().filter(|_| self.settings.encrypted) else { return Ok(none) };
        // A key record's own epoch seals nothing in it; the plan is for what the others are sealed under.
        let epoch =
            plan.records.iter().rfind(|planned| planned.kind != Kind::Key).map_or(Epoch::NONE, |planned| planned.epoch);
        if epoch == Epoch::NONE {
            return Ok(none);
        }
        if let Some((standing, stack, below)) = self.standing
            && standing == epoch
            && last.sequence < below
            && plan.records.iter().all(|planned| planned.epoch == epoch || planned.kind == Kind::Key)
        {
            return Ok(vec![stack; plan.records.len()]);
        }
        let now = clock.now().wall.0;
        if self.worker.is_none() {
            let cipher = self.ciphers.get(&epoch).ok_or(SealFault::NoKey(epoch))?;
            self.guest = cipher.is_raw().then(|| Box::new(Arc::clone(cipher).worker()) as Box<_>);
            self.worker = Some(Arc::clone(cipher).worker());
        }
        let Some(worker) = self.worker.as_mut() else { return Ok(none) };
        let batch = Batch {
            epoch: epoch.0,
            first_sequence: plan.records.first().map_or(0, |planned| planned.sequence.0),
            block_bytes: self.settings.block_bytes.get(),
            records: plan.records.iter().map(shape).collect(),
        };
        let answer = match self.plugins.cipher.plan_batch(now, worker, &batch) {
            Ok(answer) => answer.value,
            Err(unavailable) => {
                self.worker = None;
                return Err(unavailable.into());
            }
        };
        match answer.choices.as_slice() {
            [one] => {
                self.standing = Some((epoch, StackIndex(*one), Sequence(answer.valid_below)));
                Ok(vec![StackIndex(*one); plan.records.len()])
            }
            each => Ok(each.iter().map(|stack| StackIndex(*stack)).collect()),
        }
    }

    fn carried_as(&self, planned: &Planned) -> Option<&Arc<Made>> {
        self.carried.as_ref().filter(|carried| carried.planned == *planned)
    }

    fn carried_or_made(&self, clock: &Clock, planned: &Planned, header: &Header) -> Result<Arc<Made>, SealFault> {
        match self.carried_as(planned) {
            Some(carried) => Ok(Arc::clone(carried)),
            None => Ok(Arc::new(self.made(clock, planned, header)?)),
        }
    }

    /// The signed package, hidden in random bytes. A cover's is made as a key's, of a key that is drawn for it.
    fn made(&self, clock: &Clock, planned: &Planned, header: &Header) -> Result<Made, SealFault> {
        let bytes = header.body_bytes();
        let cipher = self.plugins.cipher.current().ok_or(SealFault::NoCipher)?;
        let wrapped = match planned.source {
            Source::Capsules { start, how } => self.wrapped_key(clock, planned, start, how, &cipher)?,
            Source::Sham { start } => self.wrapped_sham(clock, planned, start, &cipher)?,
            Source::Buffer { .. } | Source::Header | Source::Random => return Err(SealFault::NoKey(planned.epoch)),
        };
        let carrier = match (self.embedded(clock, &wrapped.payload, bytes)?, &wrapped.sham) {
            (Some(carrier), _) => carrier,
            // What no disguise can carry is not needed: chance will do.
            (None, Some(_)) => random(bytes)?,
            (None, None) => return Err(SealFault::NoCarrier { epoch: planned.epoch, bytes }),
        };
        Ok(Made { planned: *planned, stack: StackIndex(header.stack), cipher, wrapped, carrier })
    }

    /// A key record gets its place: its package is durable here first.
    fn keep_key(&self, made: &Made) -> Result<(), SealFault> {
        let epoch = made.planned.epoch;
        if !self.prepared.contains_key(&epoch) {
            return Err(SealFault::NoKey(epoch));
        }
        Ok(self.keyring.keep(made.wrapped.package.clone())?)
    }

    /// From here on its key can seal.
    fn take_key(&mut self, made: &Made) -> Result<(), SealFault> {
        let epoch = made.planned.epoch;
        let prepared = self.prepared.remove(&epoch).ok_or(SealFault::NoKey(epoch))?;
        let terms = &made.wrapped.terms;
        self.search_keys.insert(epoch, EpochSchedule::new(&prepared.key, &terms.scope()).search());
        self.sealers.insert(epoch, sealer(&prepared.key, terms));
        self.ciphers.insert(epoch, Arc::clone(&made.cipher));
        Ok(())
    }

    /// The same of a cover, and nothing comes of it: neither site does less for one.
    fn forget_sham(&self, made: &Made) -> Result<(), SealFault> {
        self.keyring.keep_cover(&made.wrapped.package)?;
        drop(made.wrapped.sham.as_ref().map(|key| sealer(key, &made.wrapped.terms)));
        Ok(())
    }

    fn wrapped_key(
        &self,
        clock: &Clock,
        planned: &Planned,
        start: Sequence,
        how: How,
        cipher: &Cipher,
    ) -> Result<Wrapped, SealFault> {
        let prepared = self.prepared.get(&planned.epoch).ok_or(SealFault::NoKey(planned.epoch))?;
        let terms = self.terms(clock, planned, start, how, cipher);
        self.wrapped(terms, &prepared.key, prepared.receipt.as_ref())
    }

    fn wrapped_sham(
        &self,
        clock: &Clock,
        planned: &Planned,
        start: Sequence,
        cipher: &Cipher,
    ) -> Result<Wrapped, SealFault> {
        let key = EpochKey::generate(&seed()?).map_err(|_| SealFault::NoEntropy)?;
        let terms = Terms { how: DescribedHow::Cover, ..self.terms(clock, planned, start, How::InBand, cipher) };
        let wrapped = self.wrapped(terms, &key, self.receipt.as_ref())?;
        Ok(Wrapped { sham: Some(key), ..wrapped })
    }

    fn wrapped(&self, terms: Terms, key: &EpochKey, receipt: Option<&Receipt>) -> Result<Wrapped, SealFault> {
        let recipients: Vec<(Role, &PeerCard)> = self.recipients.iter().map(|(role, card)| (*role, card)).collect();
        let package = SealedEpoch::seal(terms.clone(), key, &self.identity, &recipients, receipt)?;
        let payload = package.encode();
        Ok(Wrapped { terms, package: self.keyring.verify(package, None)?, payload, sham: None })
    }

    /// The payload hidden in random bytes; `None` where no disguise can carry it.
    fn embedded(&self, clock: &Clock, payload: &[u8], bytes: usize) -> Result<Option<Vec<u8>>, SealFault> {
        let (cover, seed) = (random(bytes)?, seed()?);
        let answer = self.plugins.disguise.embed(clock.now().wall.0, &cover, payload, &seed);
        self.plugins.say_who_answered(
            PluginSlot::Disguise,
            &answer.by,
            "a key travels in a plain carrier, undisguised",
        );
        Ok(answer.value.filter(|carrier| carrier.len() == bytes))
    }

    fn terms(&self, clock: &Clock, planned: &Planned, start: Sequence, how: How, cipher: &Cipher) -> Terms {
        Terms {
            pair: self.settings.pair.0,
            generation: self.settings.generation.0,
            epoch: planned.epoch.0,
            key_seq: planned.sequence.0,
            start_seq: start.0,
            incarnation: self.incarnation.0,
            how: match how {
                How::InBand => DescribedHow::InBand,
                How::Pause => DescribedHow::Pause,
                How::AtOnce => DescribedHow::Start,
            },
            stacks: cipher.stacks().clone(),
            component: cipher.facts().digest.0,
            created_ms: clock.now().wall.0,
            previous: self.keyring.newest_hash(),
        }
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("epochs", &self.sealers.len()).finish_non_exhaustive()
    }
}

fn sealer(key: &EpochKey, terms: &Terms) -> Sealer {
    Sealer::new(key, &terms.scope(), terms.stacks.clone(), Provider::AwsLc)
}

fn shape(planned: &Planned) -> Shape {
    let kind = match planned.kind {
        Kind::Data => RecordKind::Data,
        Kind::Zero | Kind::Trim => RecordKind::Zeroes,
        Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => RecordKind::Cover,
    };
    let (first, blocks) = planned.extent.map_or((0, planned.body_blocks.max(1)), |extent| {
        (extent.first().0, u32::try_from(extent.blocks().0).unwrap_or(u32::MAX))
    });
    Shape { kind, first, blocks }
}

fn random(len: usize) -> Result<Vec<u8>, SealFault> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).map_err(|_| SealFault::NoEntropy)?;
    Ok(bytes)
}

fn seed() -> Result<[u8; 32], SealFault> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| SealFault::NoEntropy)?;
    Ok(seed)
}
