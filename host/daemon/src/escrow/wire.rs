//! What goes between a site and its escrow: messages in cells of one size, one cell back for each.
//!
//! ```text
//! cell     = "fsec" | version u8 | messages | zeroes up to CELL_BYTES
//! message  = length of what follows u16be, at least 1 | kind u8 | body
//! ```
//!
//! A site sends a cell at each beat, full or empty, and the escrow answers each with one. So the line shows neither that a key
//! is deposited nor when. Integers are big-endian.
//!
//! | version | since | messages |
//! |---|---|---|
//! | 1 | 0.1.0 | deposit, request, fetch, drill, destroy, component, ask component, mark, witness, beat, request search, open, open part, ask opened; receipt, refused, state, release, drilled, destroyed, kept, component, witness, search key, opened, opened part, more |

use farseal_core::chain::Chain;
use farseal_core::frame::ComponentPart;
use farseal_core::limits::COMPONENT_BYTES_MAX;
use farseal_core::units::{Epoch, Generation, Millis, PairId, Sequence};

use zeroize::Zeroizing;

use super::mark::Mark;
use super::parts::Part;
use super::search::{AskedSearch, NotOpened, SealedRecord};
use crate::keys::deposit::{DEPOSIT_LEN_MAX, RECEIPT_LEN};
use crate::keys::fingerprint::Fingerprint;
use crate::keys::release::RELEASE_LEN_MAX;
use crate::keys::wire::{Reader, Short};
use crate::keys::witness::{Question, STATEMENT_LEN};

/// Bytes of every cell: eleven deposits of hybrid keys, or as many releases.
pub const CELL_BYTES: usize = 16 << 10;
/// Bytes of a component in one cell.
pub const COMPONENT_PART_BYTES: usize = 15 << 10;
/// Bytes of a reason that a person gives.
pub const REASON_BYTES_MAX: usize = 256;
const MAGIC: &[u8; 4] = b"fsec";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 1;

/// From a site to its escrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToEscrow {
    /// The bytes of a [`crate::keys::deposit::Deposit`].
    Deposit(Vec<u8>),
    /// Asks a person at the escrow for keys.
    Request(Request),
    /// What became of a request; once it is approved, the keys after this one of it.
    Fetch { request: u64, after: Option<Place> },
    /// Does the escrow still open this deposit? It shows that without showing the key.
    Drill { deposit: [u8; 32], challenge: [u8; 32] },
    /// No block is sealed under this deposit's key any more: destroy it.
    Destroy { deposit: [u8; 32] },
    /// A part of a component that the site's epochs need, in order; `of` 0 and no bytes: is it kept?
    Component(ComponentPart),
    /// A component from here on.
    AskComponent { digest: [u8; 32], from: u32 },
    /// How far a pair's copy is durable, as its writing site knows. Nothing is answered.
    Mark { pair: PairId, mark: Mark },
    /// When was a pair's main site heard last?
    Witness(Question),
    /// How often this site speaks over its line, first on every line. Nothing is answered.
    Beat { every: Millis },
    /// Asks a person for what finds a value in the epochs of a request, and for the opening of what it finds.
    RequestSearch(Request, AskedSearch),
    /// A record that an approved search found.
    Open(SealedRecord),
    /// A part of one that does not fit a cell, in order.
    OpenPart(Part),
    /// From here on, what was opened of the last one.
    AskOpened { from: u32 },
}

impl ToEscrow {
    /// The answer is as long as a cell, or takes the machine's work.
    #[must_use]
    pub const fn asks_for_much(&self) -> bool {
        matches!(self, Self::AskComponent { .. } | Self::Open(_) | Self::OpenPart(_) | Self::AskOpened { .. })
    }

    /// It says nothing of when a key changes, and a person waits for it.
    #[must_use]
    pub fn goes_at_once(&self) -> bool {
        match self {
            Self::Fetch { .. }
            | Self::Drill { .. }
            | Self::AskComponent { .. }
            | Self::Witness(_)
            | Self::Open(_)
            | Self::OpenPart(_)
            | Self::AskOpened { .. } => true,
            Self::Deposit(_)
            | Self::Request(_)
            | Self::RequestSearch(..)
            | Self::Destroy { .. }
            | Self::Component(_)
            | Self::Mark { .. }
            | Self::Beat { .. } => false,
        }
    }
}

/// Where a deposit stands among a pair's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub epoch: Epoch,
    pub deposit: [u8; 32],
}

/// Keys that a site asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub pair: PairId,
    /// The card of the site that deposited them.
    pub depositor: Fingerprint,
    /// From the first of these to the last, both included.
    pub first: Epoch,
    pub last: Epoch,
    /// How far the copy goes that they are to open, so that it can be told how old it is.
    pub copy: Mark,
    /// In the words of whoever asks.
    pub reason: String,
}

/// From an escrow to a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromEscrow {
    /// The bytes of a [`crate::keys::deposit::Receipt`].
    Receipt(Vec<u8>),
    /// A deposit is not taken.
    Refused { deposit: [u8; 32], why: DepositRefusal },
    /// How a request stands.
    State { request: u64, state: RequestState },
    /// The bytes of a [`crate::keys::release::Release`], and where it stands.
    Release { place: Place, bytes: Vec<u8> },
    /// Every key of the request was sent.
    Complete { request: u64 },
    /// The request was not even taken up.
    NotTaken(RequestRefusal),
    /// SHA-256("farseal v1 drill" || challenge || drill key), with a key derived from the epoch key for nothing else; or why not.
    Drilled { deposit: [u8; 32], proof: Option<[u8; 32]> },
    /// The deposit is gone, durably.
    Destroyed { deposit: [u8; 32] },
    /// Whether a component is kept whole, durably.
    Kept { digest: [u8; 32], whole: bool },
    /// A part of a component; `of` 0: nobody sent it.
    Component(ComponentPart),
    /// The bytes of a [`crate::keys::witness::Statement`].
    Witness(Vec<u8>),
    /// The bytes of a [`crate::keys::search_release::SearchRelease`], and where its epoch's deposit stands.
    SearchKey { place: Place, bytes: Vec<u8> },
    /// The record that was to be opened, or why it is not.
    Opened(Result<Zeroizing<Vec<u8>>, NotOpened>),
    /// A part of it, where it does not fit a cell.
    OpenedPart(Part),
    /// The next part of the record that is to be opened is waited for.
    More,
}

/// Why a deposit is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DepositRefusal {
    #[error("it is no deposit that this version reads")]
    Unreadable,
    #[error("it is not signed by the site that sends it")]
    Forged,
    #[error("it is for another escrow")]
    OtherEscrow,
    #[error("its capsule does not open, or holds another key than it says")]
    Unopenable,
    #[error("its key was destroyed on purpose")]
    Destroyed,
    #[error("the escrow has no room")]
    Full,
}

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// Nobody has said yes or no.
    Waiting,
    Approved,
    Denied,
    /// Approved once, and the time to fetch is over, or the escrow was restarted.
    Expired,
    /// There is no request of this number by this site.
    Unknown,
}

/// Why a request is not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefusal {
    #[error("the escrow holds no key of this pair for this site")]
    NothingForYou,
    #[error("too many requests wait for an answer already")]
    TooMany,
    #[error("it cannot be read, or the escrow's disk failed")]
    Failed,
}

/// Why bytes are no cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    #[error("this is no escrow's line: the peer is no escrow, or no site")]
    Magic,
    #[error("escrow protocol version {0}; this version speaks 1")]
    Version(u8),
    #[error("message kind {0} is not known to version 1")]
    Kind(u8),
    #[error("a message of kind {0} whose body does not fit it")]
    Body(u8),
    #[error("a message is cut off by its cell's end")]
    Cut,
}

/// A message that goes into a cell.
pub trait Message: Sized {
    fn write(&self, bytes: &mut Vec<u8>);
    /// # Errors
    /// [`CellError`].
    fn read(kind: u8, body: &[u8]) -> Result<Self, CellError>;
}

/// Fills a cell from the front of a queue, as far as whole messages fit.
pub fn fill<M: Message>(queue: &mut std::collections::VecDeque<M>) -> Zeroizing<Vec<u8>> {
    let mut cell = Zeroizing::new(Vec::with_capacity(CELL_BYTES));
    cell.extend_from_slice(MAGIC);
    cell.push(VERSION);
    while let Some(message) = queue.front() {
        let mut bytes = Zeroizing::new(Vec::with_capacity(CELL_BYTES));
        bytes.extend_from_slice(&[0, 0]);
        message.write(&mut bytes);
        // Every message is far below 64 KiB: the longest are a deposit and a release.
        let length = u16::try_from(bytes.len() - 2).unwrap_or(u16::MAX);
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        if cell.len() + bytes.len() > CELL_BYTES {
            break;
        }
        cell.extend_from_slice(&bytes);
        queue.pop_front();
    }
    cell.resize(CELL_BYTES, 0);
    cell
}

/// The messages of a cell.
///
/// # Errors
/// [`CellError`].
pub fn messages<M: Message>(cell: &[u8]) -> Result<Vec<M>, CellError> {
    let (head, mut rest) = cell.split_at_checked(HEAD_BYTES).ok_or(CellError::Cut)?;
    if &head[..MAGIC.len()] != MAGIC {
        return Err(CellError::Magic);
    }
    if head[MAGIC.len()] != VERSION {
        return Err(CellError::Version(head[MAGIC.len()]));
    }
    let mut found = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            break;
        }
        let (message, after) = after.split_at_checked(length).ok_or(CellError::Cut)?;
        let (kind, body) = message.split_first().ok_or(CellError::Cut)?;
        found.push(M::read(*kind, body)?);
        rest = after;
    }
    Ok(found)
}

impl Message for ToEscrow {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Deposit(deposit) => {
                bytes.push(1);
                bytes.extend_from_slice(deposit);
            }
            Self::Request(request) => {
                bytes.push(2);
                request.write(bytes);
            }
            Self::Fetch { request, after } => {
                bytes.push(3);
                bytes.extend_from_slice(&request.to_be_bytes());
                after.iter().for_each(|place| place.write(bytes));
            }
            Self::Drill { deposit, challenge } => {
                bytes.push(4);
                bytes.extend_from_slice(deposit);
                bytes.extend_from_slice(challenge);
            }
            Self::Destroy { deposit } => {
                bytes.push(5);
                bytes.extend_from_slice(deposit);
            }
            Self::Component(part) => write_part(6, part, bytes),
            Self::AskComponent { digest, from } => {
                bytes.push(7);
                bytes.extend_from_slice(digest);
                bytes.extend_from_slice(&from.to_be_bytes());
            }
            Self::Mark { pair, mark } => {
                bytes.push(8);
                bytes.extend_from_slice(&pair.0);
                write_mark(mark, bytes);
            }
            Self::Witness(Question { pair, main, challenge }) => {
                bytes.push(9);
                bytes.extend_from_slice(&pair.0);
                bytes.extend_from_slice(&main.0);
                bytes.extend_from_slice(challenge);
            }
            Self::Beat { every } => {
                bytes.push(10);
                bytes.extend_from_slice(&every.0.to_be_bytes());
            }
            Self::RequestSearch(request, search) => {
                bytes.push(11);
                bytes.extend_from_slice(&search.encode());
                request.write(bytes);
            }
            Self::Open(record) => {
                bytes.push(12);
                record.write(bytes);
            }
            Self::OpenPart(part) => {
                bytes.push(13);
                part.write(bytes);
            }
            Self::AskOpened { from } => {
                bytes.push(14);
                bytes.extend_from_slice(&from.to_be_bytes());
            }
        }
    }

    fn read(kind: u8, body: &[u8]) -> Result<Self, CellError> {
        let mut reader = Reader::new(body);
        let mut whole = || -> Result<Option<Self>, Short> {
            Ok(Some(match kind {
                1 if body.len() <= DEPOSIT_LEN_MAX => Self::Deposit(reader.bytes(body.len())?.to_vec()),
                2 => match Request::read(&mut reader)? {
                    Some(request) => Self::Request(request),
                    None => return Ok(None),
                },
                3 => {
                    let request = reader.u64()?;
                    let after = if reader.rest().is_empty() { None } else { Some(Place::read(&mut reader)?) };
                    Self::Fetch { request, after }
                }
                4 => Self::Drill { deposit: reader.array()?, challenge: reader.array()? },
                5 => Self::Destroy { deposit: reader.array()? },
                6 => match read_part(&mut reader)? {
                    Some(part) => Self::Component(part),
                    None => return Ok(None),
                },
                7 => Self::AskComponent { digest: reader.array()?, from: reader.u32()? },
                8 => Self::Mark { pair: PairId(reader.array()?), mark: read_mark(&mut reader)? },
                9 => {
                    let (pair, main) = (PairId(reader.array()?), Fingerprint(reader.array()?));
                    Self::Witness(Question { pair, main, challenge: reader.array()? })
                }
                10 => Self::Beat { every: Millis(reader.u64()?) },
                11 => match (AskedSearch::read(&mut reader)?, Request::read(&mut reader)?) {
                    (Some(search), Some(request)) => Self::RequestSearch(request, search),
                    _ => return Ok(None),
                },
                12 => match SealedRecord::read(&mut reader)? {
                    Some(record) => Self::Open(record),
                    None => return Ok(None),
                },
                13 => match Part::read(&mut reader)? {
                    Some(part) => Self::OpenPart(part),
                    None => return Ok(None),
                },
                14 => Self::AskOpened { from: reader.u32()? },
                _ => return Ok(None),
            }))
        };
        finish(kind, (1..=14).contains(&kind), whole(), reader.rest().is_empty())
    }
}

impl Message for FromEscrow {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Receipt(receipt) => {
                bytes.push(1);
                bytes.extend_from_slice(receipt);
            }
            Self::Refused { deposit, why } => {
                bytes.extend_from_slice(&[2, why.code()]);
                bytes.extend_from_slice(deposit);
            }
            Self::State { request, state } => {
                bytes.extend_from_slice(&[3, state.code()]);
                bytes.extend_from_slice(&request.to_be_bytes());
            }
            Self::Release { place, bytes: release } => {
                bytes.push(4);
                place.write(bytes);
                bytes.extend_from_slice(release);
            }
            Self::Complete { request } => {
                bytes.push(5);
                bytes.extend_from_slice(&request.to_be_bytes());
            }
            Self::NotTaken(why) => bytes.extend_from_slice(&[6, why.code()]),
            Self::Drilled { deposit, proof } => {
                bytes.push(7);
                bytes.extend_from_slice(deposit);
                proof.iter().for_each(|proof| bytes.extend_from_slice(proof));
            }
            Self::Destroyed { deposit } => {
                bytes.push(8);
                bytes.extend_from_slice(deposit);
            }
            Self::Kept { digest, whole } => {
                bytes.extend_from_slice(&[9, u8::from(*whole)]);
                bytes.extend_from_slice(digest);
            }
            Self::Component(part) => write_part(10, part, bytes),
            Self::Witness(statement) => {
                bytes.push(11);
                bytes.extend_from_slice(statement);
            }
            Self::SearchKey { place, bytes: release } => {
                bytes.push(12);
                place.write(bytes);
                bytes.extend_from_slice(release);
            }
            Self::Opened(opened) => {
                bytes.push(13);
                match opened {
                    Ok(record) => {
                        bytes.push(0);
                        bytes.extend_from_slice(record);
                    }
                    Err(why) => bytes.push(why.code()),
                }
            }
            Self::OpenedPart(part) => {
                bytes.push(14);
                part.write(bytes);
            }
            Self::More => bytes.push(15),
        }
    }

    fn read(kind: u8, body: &[u8]) -> Result<Self, CellError> {
        let mut reader = Reader::new(body);
        let mut whole = || -> Result<Option<Self>, Short> {
            Ok(Some(match kind {
                1 if body.len() == RECEIPT_LEN => Self::Receipt(reader.bytes(RECEIPT_LEN)?.to_vec()),
                2 => {
                    let Some(why) = DepositRefusal::of(reader.u8()?) else { return Ok(None) };
                    Self::Refused { deposit: reader.array()?, why }
                }
                3 => {
                    let Some(state) = RequestState::of(reader.u8()?) else { return Ok(None) };
                    Self::State { request: reader.u64()?, state }
                }
                4 => {
                    let place = Place::read(&mut reader)?;
                    let bytes = reader.bytes(reader.rest().len())?;
                    if bytes.len() > RELEASE_LEN_MAX {
                        return Ok(None);
                    }
                    Self::Release { place, bytes: bytes.to_vec() }
                }
                5 => Self::Complete { request: reader.u64()? },
                6 => match RequestRefusal::of(reader.u8()?) {
                    Some(why) => Self::NotTaken(why),
                    None => return Ok(None),
                },
                7 => {
                    let deposit = reader.array()?;
                    let proof = if reader.rest().is_empty() { None } else { Some(reader.array()?) };
                    Self::Drilled { deposit, proof }
                }
                8 => Self::Destroyed { deposit: reader.array()? },
                9 => match reader.u8()? {
                    whole @ 0..=1 => Self::Kept { digest: reader.array()?, whole: whole == 1 },
                    _ => return Ok(None),
                },
                10 => match read_part(&mut reader)? {
                    Some(part) => Self::Component(part),
                    None => return Ok(None),
                },
                12 => {
                    let place = Place::read(&mut reader)?;
                    let bytes = reader.bytes(reader.rest().len())?;
                    if bytes.len() > RELEASE_LEN_MAX {
                        return Ok(None);
                    }
                    Self::SearchKey { place, bytes: bytes.to_vec() }
                }
                13 => match reader.u8()? {
                    0 => Self::Opened(Ok(reader.bytes(reader.rest().len())?.to_vec().into())),
                    why => match NotOpened::of(why) {
                        Some(why) => Self::Opened(Err(why)),
                        None => return Ok(None),
                    },
                },
                14 => match Part::read(&mut reader)? {
                    Some(part) => Self::OpenedPart(part),
                    None => return Ok(None),
                },
                15 => Self::More,
                11 if body.len() == STATEMENT_LEN => Self::Witness(reader.bytes(STATEMENT_LEN)?.to_vec()),
                _ => return Ok(None),
            }))
        };
        finish(kind, (1..=15).contains(&kind), whole(), reader.rest().is_empty())
    }
}

fn write_mark(mark: &Mark, bytes: &mut Vec<u8>) {
    for number in [mark.generation.0, mark.through.0] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&mark.chain.0);
}

fn read_mark(reader: &mut Reader<'_>) -> Result<Mark, Short> {
    let (generation, through) = (Generation(reader.u64()?), Sequence(reader.u64()?));
    Ok(Mark { generation, through, chain: Chain(reader.array()?) })
}

fn write_part(kind: u8, part: &ComponentPart, bytes: &mut Vec<u8>) {
    bytes.push(kind);
    bytes.extend_from_slice(&part.digest);
    bytes.extend_from_slice(&part.of.to_be_bytes());
    bytes.extend_from_slice(&part.from.to_be_bytes());
    bytes.extend_from_slice(&part.bytes);
}

/// `None`: it is longer than a part or a component is, or lies outside of it.
fn read_part(reader: &mut Reader<'_>) -> Result<Option<ComponentPart>, Short> {
    let (digest, of, from) = (reader.array()?, reader.u32()?, reader.u32()?);
    let bytes = reader.bytes(reader.rest().len())?;
    let end = u64::from(from) + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let sound = bytes.len() <= COMPONENT_PART_BYTES && u64::from(of) <= COMPONENT_BYTES_MAX && end <= u64::from(of);
    Ok(sound.then(|| ComponentPart { digest, of, from, bytes: bytes.to_vec() }))
}

/// All of the body was read, and all of it made sense.
fn finish<M>(kind: u8, known: bool, read: Result<Option<M>, Short>, all: bool) -> Result<M, CellError> {
    match read {
        _ if !known => Err(CellError::Kind(kind)),
        Ok(Some(message)) if all => Ok(message),
        Ok(_) | Err(Short { .. }) => Err(CellError::Body(kind)),
    }
}

impl Request {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.pair.0);
        bytes.extend_from_slice(&self.depositor.0);
        for number in [self.first.0, self.last.0] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        write_mark(&self.copy, bytes);
        bytes.extend_from_slice(cut(&self.reason, REASON_BYTES_MAX).as_bytes());
    }

    /// Up to the end. `None`: its reason is too long, or no text.
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Short> {
        let (pair, depositor) = (PairId(reader.array()?), Fingerprint(reader.array()?));
        let (first, last) = (Epoch(reader.u64()?), Epoch(reader.u64()?));
        let copy = read_mark(reader)?;
        let reason = reader.bytes(reader.rest().len())?;
        let sound = |text: &&str| text.len() <= REASON_BYTES_MAX && !text.contains(char::is_control);
        let reason = std::str::from_utf8(reason).ok().filter(sound);
        Ok(reason.map(|reason| Self { pair, depositor, first, last, copy, reason: reason.to_owned() }))
    }
}

impl Place {
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.epoch.0.to_be_bytes());
        bytes.extend_from_slice(&self.deposit);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self { epoch: Epoch(reader.u64()?), deposit: reader.array()? })
    }
}

/// Numbers on the wire, in the order of the list, from 1.
macro_rules! numbered {
    ($type:ident: $($name:ident),*) => {
        impl $type {
            const ALL: &[Self] = &[$(Self::$name),*];

            fn code(self) -> u8 {
                let at = Self::ALL.iter().position(|known| *known == self).unwrap_or(0);
                u8::try_from(at + 1).unwrap_or(0)
            }

            fn of(code: u8) -> Option<Self> {
                Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
            }
        }
    };
}
numbered!(DepositRefusal: Unreadable, Forged, OtherEscrow, Unopenable, Destroyed, Full);
numbered!(RequestState: Waiting, Approved, Denied, Expired, Unknown);
numbered!(RequestRefusal: NothingForYou, TooMany, Failed);
numbered!(NotOpened: NotApproved, NoMatch, NotAuthentic, NeedsComponent, Interrupted, TooLong, TooSlow);

/// The beginning of a text, in whole characters.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        any::<(u64, [u8; 32])>().prop_map(|(epoch, deposit)| Place { epoch: Epoch(epoch), deposit })
    }

    fn part() -> impl Strategy<Value = ComponentPart> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..COMPONENT_PART_BYTES);
        (any::<[u8; 32]>(), 0..1_000_000u32, bytes).prop_map(|(digest, from, bytes)| {
            let of = from + u32::try_from(bytes.len()).unwrap();
            ComponentPart { digest, of, from, bytes }
        })
    }

    fn long_part() -> impl Strategy<Value = Part> {
        let bytes = proptest::collection::vec(any::<u8>(), 1..crate::escrow::parts::PART_BYTES);
        (0..1_000_000u32, bytes).prop_map(|(from, bytes)| Part {
            of: from + u32::try_from(bytes.len()).unwrap(),
            from,
            bytes: bytes.into(),
        })
    }

    fn mark() -> impl Strategy<Value = Mark> {
        any::<(u64, u64, [u8; 32])>().prop_map(|(generation, through, chain)| Mark {
            generation: Generation(generation),
            through: Sequence(through),
            chain: Chain(chain),
        })
    }

    fn sealed() -> impl Strategy<Value = SealedRecord> {
        let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
        let block = (any::<([u8; 32], [u8; 32], u64, u32)>(), bytes(200), bytes(144), bytes(4096)).prop_map(
            |((deposit, part, lba, block), descriptor, tags, bytes)| {
                let mut header = [0; farseal_core::record::HEADER_BYTES];
                header[..32].copy_from_slice(&part);
                let lba = farseal_core::units::Lba(lba);
                crate::escrow::search::SealedBlock { deposit, descriptor, header, lba, block, tags, bytes }
            },
        );
        (any::<u64>(), proptest::collection::vec(block, 1..4))
            .prop_map(|(request, blocks)| SealedRecord { request, blocks })
    }

    fn to_escrow() -> impl Strategy<Value = ToEscrow> {
        let request = (any::<([u8; 16], [u8; 32], [u64; 2])>(), mark(), "[a-z ]{0,256}").prop_map(
            |((pair, depositor, [first, last]), copy, reason)| {
                ToEscrow::Request(Request {
                    pair: PairId(pair),
                    depositor: Fingerprint(depositor),
                    first: Epoch(first),
                    last: Epoch(last),
                    copy,
                    reason,
                })
            },
        );
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..=DEPOSIT_LEN_MAX).prop_map(ToEscrow::Deposit),
            request,
            (any::<u64>(), proptest::option::of(place()))
                .prop_map(|(request, after)| ToEscrow::Fetch { request, after }),
            any::<([u8; 32], [u8; 32])>().prop_map(|(deposit, challenge)| ToEscrow::Drill { deposit, challenge }),
            any::<[u8; 32]>().prop_map(|deposit| ToEscrow::Destroy { deposit }),
            part().prop_map(ToEscrow::Component),
            any::<([u8; 32], u32)>().prop_map(|(digest, from)| ToEscrow::AskComponent { digest, from }),
            (any::<[u8; 16]>(), mark()).prop_map(|(pair, mark)| ToEscrow::Mark { pair: PairId(pair), mark }),
            any::<([u8; 16], [u8; 32], [u8; 32])>().prop_map(|(pair, main, challenge)| {
                ToEscrow::Witness(Question { pair: PairId(pair), main: Fingerprint(main), challenge })
            }),
            any::<u64>().prop_map(|every| ToEscrow::Beat { every: Millis(every) }),
            sealed().prop_map(ToEscrow::Open),
            long_part().prop_map(ToEscrow::OpenPart),
            any::<u32>().prop_map(|from| ToEscrow::AskOpened { from }),
            (any::<([u8; 16], [u8; 32], u8, u32)>(), mark(), "[a-z]{1,32}", "[ -~]{0,256}").prop_map(
                |((pair, depositor, slot, blocks), copy, field, value)| {
                    let (pair, depositor) = (PairId(pair), Fingerprint(depositor));
                    let request = Request {
                        pair,
                        depositor,
                        first: Epoch(3),
                        last: Epoch(9),
                        copy,
                        reason: value[..value.len() / 2].into(),
                    };
                    let form = farseal_core::layout::Form::Text;
                    let record_blocks = blocks.max(1);
                    ToEscrow::RequestSearch(
                        request,
                        AskedSearch { field, form, slot, record_blocks, value: value.into_bytes() },
                    )
                }
            ),
        ]
    }

    fn from_escrow() -> impl Strategy<Value = FromEscrow> {
        let refusals = proptest::sample::select(DepositRefusal::ALL);
        let states = proptest::sample::select(RequestState::ALL);
        prop_oneof![
            proptest::collection::vec(any::<u8>(), RECEIPT_LEN).prop_map(FromEscrow::Receipt),
            (any::<[u8; 32]>(), refusals).prop_map(|(deposit, why)| FromEscrow::Refused { deposit, why }),
            (any::<u64>(), states).prop_map(|(request, state)| FromEscrow::State { request, state }),
            (place(), proptest::collection::vec(any::<u8>(), 0..=RELEASE_LEN_MAX))
                .prop_map(|(place, bytes)| FromEscrow::Release { place, bytes }),
            any::<u64>().prop_map(|request| FromEscrow::Complete { request }),
            proptest::sample::select(RequestRefusal::ALL).prop_map(FromEscrow::NotTaken),
            any::<([u8; 32], Option<[u8; 32]>)>().prop_map(|(deposit, proof)| FromEscrow::Drilled { deposit, proof }),
            any::<[u8; 32]>().prop_map(|deposit| FromEscrow::Destroyed { deposit }),
            any::<([u8; 32], bool)>().prop_map(|(digest, whole)| FromEscrow::Kept { digest, whole }),
            part().prop_map(FromEscrow::Component),
            proptest::collection::vec(any::<u8>(), STATEMENT_LEN).prop_map(FromEscrow::Witness),
            (place(), proptest::collection::vec(any::<u8>(), 0..=RELEASE_LEN_MAX))
                .prop_map(|(place, bytes)| FromEscrow::SearchKey { place, bytes }),
            proptest::collection::vec(any::<u8>(), 0..9_000).prop_map(|bytes| FromEscrow::Opened(Ok(bytes.into()))),
            long_part().prop_map(FromEscrow::OpenedPart),
            Just(FromEscrow::More),
            proptest::sample::select(NotOpened::ALL).prop_map(|why| FromEscrow::Opened(Err(why))),
        ]
    }

    fn through_cells<M: Message>(all: Vec<M>) -> Vec<M> {
        let mut queue = VecDeque::from(all);
        let mut came = Vec::new();
        while !queue.is_empty() {
            let cell = fill(&mut queue);
            assert_eq!(cell.len(), CELL_BYTES);
            came.extend(messages::<M>(&cell).unwrap());
        }
        came
    }

    proptest! {
        #[test]
        fn what_goes_in_cells_comes_out_in_order(
            to in proptest::collection::vec(to_escrow(), 0..40),
            from in proptest::collection::vec(from_escrow(), 0..40),
        ) {
            prop_assert_eq!(through_cells(to.clone()), to);
            prop_assert_eq!(through_cells(from.clone()), from);
        }

        #[test]
        fn no_bytes_are_more_than_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let cell = [MAGIC.as_slice(), &[VERSION], &bytes].concat();
            let _ = messages::<ToEscrow>(&cell);
            let _ = messages::<FromEscrow>(&cell);
            let _ = messages::<ToEscrow>(&bytes);
        }
    }

    #[test]
    fn other_protocols_and_versions_are_named() {
        assert_eq!(messages::<ToEscrow>(b"FSR1\x01....").unwrap_err(), CellError::Magic);
        assert_eq!(messages::<ToEscrow>(b"fsec\x02").unwrap_err(), CellError::Version(2));
        assert_eq!(messages::<ToEscrow>(b"fsec\x01\0\x01\x63").unwrap_err(), CellError::Kind(0x63));
        assert_eq!(messages::<ToEscrow>(b"fsec\x01\0\x02\x05\x01").unwrap_err(), CellError::Body(5));
        assert_eq!(messages::<ToEscrow>(b"fsec\x01\0\x09\x05").unwrap_err(), CellError::Cut);
        assert_eq!(messages::<ToEscrow>(b"fsec\x01\0\0\0\0").unwrap(), Vec::new());
    }
}
