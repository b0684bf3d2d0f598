//! What goes over a path between two sites: frames inside TLS, one pair to a path.
//!
//! ```text
//! frame = length of the rest (u32), kind (u8), version (u8), two zero bytes, body
//! ```
//!
//! | wire version | since | what |
//! |---|---|---|
//! | 1 | 0.1.0 | hello, attach, welcome, refuse, records, ack, key refused, component, ping, pong, lineage, differs, hand over, handed over, inspect, held, shape, ask live, ask drill, slotted records, in slots, ask old, ask retire |
//!
//! The primary connects, both say hello with 32 random bytes, the primary attaches to one pair, the secondary
//! welcomes it with what it holds, or refuses. After that the primary sends records and the secondary acknowledges.
//! Before its attach a primary tells its lineage, once there was a takeover; before its welcome a secondary tells
//! which granules its own history left different, until a resync has made them the same.
//! A primary that shapes its path says so right before its attach: from the attach's end on both directions are cells
//! ([`Shape`]), whose content is the frames.
//! One whose records have a slot each says so right before its attach, too: from then on they come as slotted records,
//! (slot, record)*, and in no other frame: see [`crate::carriage`].
//! Before its welcome a secondary names the components that it holds; the primary sends the others that its epochs need, in
//! parts, before the first record that needs them.
//! A primary that verifies the copy asks what the secondary's log holds of some blocks, and gets it sealed as it is.
//! One that drills asks which epochs live blocks need, and for a proof that a block opens: see [`crate::drill`].
//! A peer that sends anything else is dropped and counted; nothing is guessed.

use crate::bytes::Fields;
use crate::carriage::SLOT_BYTES;
use crate::chain::Chain;
use crate::declare::Declare;
use crate::drill::{AskDrill, AskLive};
use crate::inspect::Inspect;
use crate::layout::LayoutId;
use crate::limits::{
    ACK_RANGES_MAX, CELL_BYTES_MAX, CELL_BYTES_MIN, CELL_EVERY_US, COMPONENT_BYTES_MAX, DIFFERS_WORDS_MAX,
    FRAME_BYTES_MAX,
};
use crate::lineage::Lineage;
use crate::refresh::AskOld;
use crate::retire::AskRetire;
use crate::units::{BlockBytes, BlockCount, Generation, PairId, Sequence, VolumeId};
use crate::window::Range;

/// Bytes before a frame's body.
pub const PREFIX_BYTES: usize = 8;
/// The only version so far.
pub const VERSION: u8 = 1;

/// A frame's body. Records are passed on as bytes: they are verbatim what the journal holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Hello {
        challenge: [u8; 32],
    },
    Attach(Attach),
    Welcome(Welcome),
    Refuse(Refusal),
    /// One or more whole records.
    Records(Vec<u8>),
    Ack(Ack),
    /// The secondary cannot take the key in the record at `key`: the primary must void its epoch.
    KeyRefused {
        key: Sequence,
        why: KeyRefusal,
    },
    /// A component that seals or disguises epochs, kept at both sites by its digest.
    Component(ComponentPart),
    Ping {
        token: u64,
    },
    Pong {
        token: u64,
    },
    /// Where the primary's history comes from.
    Lineage(Lineage),
    Differs(Differs),
    /// The primary stops at this record and asks the secondary to write from there on.
    HandOver(HandOver),
    /// The secondary writes from here on, as this generation: durably so.
    HandedOver {
        generation: Generation,
    },
    /// What does the copy hold of these blocks?
    Inspect(Inspect),
    /// Which epochs do live blocks need?
    AskLive(AskLive),
    /// Can it open this block?
    AskDrill(AskDrill),
    /// Which blocks need keys that are to go?
    AskOld(AskOld),
    /// These keys are to go.
    AskRetire(Box<AskRetire>),
    /// The main site is lost: take over.
    Declare(Declare),
    /// The answer to the question of this number. What it says is read by whoever asked: see [`crate::inspect`],
    /// [`crate::drill`], [`crate::refresh`], [`crate::retire`] and [`crate::declare`].
    Held {
        id: u64,
        answer: Vec<u8>,
    },
    /// From the end of the next frame on, an attach, both sides send cells.
    Shape(Shape),
    /// One or more whole records, each behind its slot.
    Slotted(Vec<u8>),
    /// Records on this connection are slotted.
    InSlots,
}

/// A path of cells: of one length, at fixed times, whether there is something to say or not. A cell is the number of its
/// bytes that count (u32), those bytes of the stream of frames, and padding up to the cell's length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Microseconds between two cells of one direction.
    pub every_us: u32,
    /// Bytes of a cell from primary to secondary, and of one back.
    pub cell_bytes: u32,
    pub answer_bytes: u32,
}

impl Shape {
    /// Bytes of a cell before its content.
    pub const HEAD: usize = 4;

    /// The cells of a path that carries this many bytes a second, padding included; a sixteenth of it comes back.
    pub fn of(bytes_per_second: u64) -> Self {
        let cell = bytes_per_second.saturating_mul(u64::from(CELL_EVERY_US)) / 1_000_000;
        let within = |bytes: u64| u32::try_from(bytes).unwrap_or(CELL_BYTES_MAX).clamp(CELL_BYTES_MIN, CELL_BYTES_MAX);
        Self { every_us: CELL_EVERY_US, cell_bytes: within(cell), answer_bytes: within(cell / 16) }
    }

    fn is_sound(self) -> bool {
        let cells = [self.cell_bytes, self.answer_bytes];
        self.every_us == CELL_EVERY_US && cells.iter().all(|cell| (CELL_BYTES_MIN..=CELL_BYTES_MAX).contains(cell))
    }
}

/// A part of a component, in order; `of` 0 and no bytes from the secondary: it holds this one whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComponentPart {
    pub digest: [u8; 32],
    /// Bytes of the whole, at most [`COMPONENT_BYTES_MAX`].
    pub of: u32,
    /// Where these begin.
    pub from: u32,
    pub bytes: Vec<u8>,
}

impl ComponentPart {
    /// No bytes: whether the component is there, as a question or as an answer.
    pub fn none(digest: [u8; 32]) -> Self {
        Self { digest, of: 0, from: 0, bytes: Vec::new() }
    }

    /// What lies from here on, at most so many bytes; none behind the end.
    pub fn at(digest: [u8; 32], whole: &[u8], from: usize, most: usize) -> Self {
        let rest = whole.get(from..).unwrap_or_default();
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self { digest, of: number(whole.len()), from: number(from), bytes: rest[..rest.len().min(most)].to_vec() }
    }
}

/// Granules in which the secondary's base may differ from the history that the primary goes on with: bits of the dirty
/// map, in words from `first` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Differs {
    pub first: u64,
    pub words: Vec<u64>,
    /// Nothing differs but what this frame and those before it say.
    pub last: bool,
}

/// A planned change of sides, at one record that both sites hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// The one to come.
    pub generation: Generation,
    /// The last record of the one before, and the running hash there.
    pub at: Sequence,
    pub chain: Chain,
}

/// What the primary wants to copy. Everything in it must agree with the secondary's control information.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attach {
    pub pair: PairId,
    pub volume: VolumeId,
    pub generation: Generation,
    pub encrypted: bool,
    pub block_bytes: BlockBytes,
    pub blocks: BlockCount,
    /// Which of the link's paths this is, and of how many.
    pub path: u16,
    pub paths: u16,
    /// The record layout that the pair declares; its bytes are on the wire only where there is one.
    pub layout: Option<LayoutId>,
}

/// What the secondary holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The secondary's generation for the pair: the attach's, or the one before it.
    pub generation: Generation,
    pub ack: Ack,
}

/// What the secondary holds durably: everything up to `durable`, and the ranges above it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    pub durable: Sequence,
    /// The running hash up to `durable`.
    pub chain: Chain,
    pub ranges: Vec<Range>,
    /// It has no room for more.
    pub full: bool,
}

/// Why the secondary will not attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the peer does not know this pair; run `farseal pair accept` there")]
    UnknownPair,
    #[error("the peer's generation is {0}, newer than ours: this side was taken over from and is fenced")]
    Fenced(Generation),
    #[error("the peer has the pair's encrypt bit set otherwise: nothing is sent until both sites agree")]
    EncryptionDiffers,
    #[error("the peer's volume has another size: {0} blocks")]
    OtherSize(u64),
    #[error("the peer's volume has another block size or identity")]
    OtherVolume,
    #[error("the peer is not this pair's secondary now")]
    NotSecondary,
    #[error("the peer's log failed verification and accepts nothing; run `farseal scrub` there")]
    Damaged,
    #[error(
        "the peer declares another record layout for this pair, or none: write the same `layout` at both sites; nothing is sent until \
         they agree"
    )]
    LayoutDiffers,
    #[error("the peer has another link for this pair: write the same link = \"tls\" or \"san\" at both sites")]
    OtherLink,
}

/// Why a secondary cannot take a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum KeyRefusal {
    #[error("its carrier holds no key")]
    NoCapsule,
    #[error("its signature is not the primary's")]
    Forged,
    #[error("it is for another pair or another place in the order")]
    Misplaced,
    #[error("it is not for this recipient")]
    OtherRecipient,
    #[error("the capsule does not open, or its key is not the one described")]
    Unopenable,
    #[error("the escrow site's receipt is missing or not that site's")]
    NoReceipt,
    #[error(
        "the cipher component that its records need is not there: it comes before the key, and is kept by its digest"
    )]
    NoComponent,
    #[error("keys of its epoch were destroyed at the remote: the main site goes on from an old copy of its own state")]
    Destroyed,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(u32),
    #[error("wire version {0}; this version speaks 1")]
    Version(u8),
    #[error("frame kind {0} is not known to wire version 1")]
    Kind(u8),
    #[error("a frame of kind {0} whose body does not fit it")]
    Body(u8),
}

/// A frame's kind and how many bytes of body follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    kind: u8,
    pub body_bytes: u32,
}

const HELLO: u8 = 1;
const ATTACH: u8 = 2;
const WELCOME: u8 = 3;
const REFUSE: u8 = 4;
const RECORDS: u8 = 5;
const ACK: u8 = 6;
const KEY_REFUSED: u8 = 7;
const COMPONENT: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LINEAGE: u8 = 11;
const DIFFERS: u8 = 12;
const HAND_OVER: u8 = 13;
const HANDED_OVER: u8 = 14;
const INSPECT: u8 = 15;
const HELD: u8 = 16;
const SHAPE: u8 = 17;
const ASK_LIVE: u8 = 18;
const ASK_DRILL: u8 = 19;
const SLOTTED: u8 = 20;
const IN_SLOTS: u8 = 21;
const ASK_OLD: u8 = 22;
const ASK_RETIRE: u8 = 23;
const DECLARE: u8 = 24;

/// Bytes of an acknowledgement's body, whatever it says: its length tells an observer nothing.
const ACK_BYTES: usize = 8 + 32 + 1 + 1 + ACK_RANGES_MAX * 16;

impl Prefix {
    /// Parses the eight bytes before a body. The length is within the limit, so that it may be allocated.
    pub fn decode(bytes: [u8; PREFIX_BYTES]) -> Result<Self, FrameError> {
        let mut fields = Fields::new(&bytes);
        let (len, kind, version, reserved) = (fields.u32(), fields.u8(), fields.u8(), fields.u16());
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if !(HELLO..=DECLARE).contains(&kind) {
            return Err(FrameError::Kind(kind));
        }
        match len.checked_sub(4) {
            Some(body_bytes) if len <= FRAME_BYTES_MAX && reserved == 0 => Ok(Self { kind, body_bytes }),
            Some(_) if len > FRAME_BYTES_MAX => Err(FrameError::TooLong(len)),
            Some(_) | None => Err(FrameError::Body(kind)),
        }
    }

    /// The prefix of a frame of records with this many bytes, to be sent before them without a copy.
    pub fn records(body_bytes: u32) -> [u8; PREFIX_BYTES] {
        prefix(RECORDS, body_bytes)
    }

    /// The same for records behind their slots, the slots' bytes included.
    pub fn slotted(body_bytes: u32) -> [u8; PREFIX_BYTES] {
        prefix(SLOTTED, body_bytes)
    }

    pub fn is_records(self) -> bool {
        self.kind == RECORDS
    }
}

impl Frame {
    /// The whole frame, prefix included.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = self.body();
        let mut out = prefix(kind, u32::try_from(body.len()).unwrap_or(u32::MAX)).to_vec();
        out.extend(body);
        out
    }

    /// Parses a body that `prefix` announced.
    pub fn decode(prefix: Prefix, body: Vec<u8>) -> Result<Self, FrameError> {
        let malformed = FrameError::Body(prefix.kind);
        let mut fields = Fields::new(&body);
        let frame = match prefix.kind {
            HELLO => Self::Hello { challenge: fields.array() },
            ATTACH => Self::Attach(decode_attach(&mut fields, body.len()).ok_or(malformed)?),
            WELCOME => {
                let generation = Generation(fields.u64());
                Self::Welcome(Welcome { generation, ack: decode_ack(&mut fields).ok_or(malformed)? })
            }
            REFUSE => Self::Refuse(decode_refusal(&mut fields).ok_or(malformed)?),
            RECORDS => {
                return if body.is_empty() { Err(malformed) } else { Ok(Self::Records(body)) };
            }
            SLOTTED => {
                return if body.len() <= SLOT_BYTES { Err(malformed) } else { Ok(Self::Slotted(body)) };
            }
            IN_SLOTS => Self::InSlots,
            ACK => Self::Ack(decode_ack(&mut fields).ok_or(malformed)?),
            KEY_REFUSED => {
                let (key, why) = (Sequence(fields.u64()), fields.u8());
                let why = KeyRefusal::ALL.into_iter().find(|known| known.code() == why).ok_or(malformed)?;
                Self::KeyRefused { key, why }
            }
            COMPONENT => Self::Component(decode_component(&mut fields, body.len()).ok_or(malformed)?),
            PING => Self::Ping { token: fields.u64() },
            PONG => Self::Pong { token: fields.u64() },
            LINEAGE => Self::Lineage(Lineage::decode(&mut fields).ok_or(malformed)?),
            DIFFERS => Self::Differs(decode_differs(&mut fields, body.len()).ok_or(malformed)?),
            HAND_OVER => {
                let (generation, at) = (Generation(fields.u64()), Sequence(fields.u64()));
                Self::HandOver(HandOver { generation, at, chain: Chain(fields.array()) })
            }
            HANDED_OVER => Self::HandedOver { generation: Generation(fields.u64()) },
            INSPECT => Self::Inspect(Inspect::decode(&mut fields).ok_or(malformed)?),
            ASK_LIVE => Self::AskLive(AskLive::decode(&mut fields)),
            ASK_DRILL => Self::AskDrill(AskDrill::decode(&mut fields)),
            ASK_OLD => Self::AskOld(AskOld::decode(&mut fields)),
            ASK_RETIRE => Self::AskRetire(Box::new(AskRetire::decode(&mut fields))),
            DECLARE => Self::Declare(Declare::decode(&mut fields)),
            HELD => {
                let (id, rest) = (fields.u64(), body.len().saturating_sub(8));
                Self::Held { id, answer: fields.take(rest).to_vec() }
            }
            SHAPE => {
                let (every_us, cell_bytes, answer_bytes) = (fields.u32(), fields.u32(), fields.u32());
                let shape = Shape { every_us, cell_bytes, answer_bytes };
                if !shape.is_sound() {
                    return Err(malformed);
                }
                Self::Shape(shape)
            }
            other => return Err(FrameError::Kind(other)),
        };
        // One form for each: padding carries nothing between the sites.
        if fields.done() && frame.is_written_as(&body) { Ok(frame) } else { Err(malformed) }
    }

    fn is_written_as(&self, body: &[u8]) -> bool {
        matches!(self, Self::Component(_) | Self::Held { .. }) || self.body().1 == body
    }

    fn body(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Hello { challenge } => (HELLO, challenge.to_vec()),
            Self::Attach(attach) => (ATTACH, encode_attach(attach)),
            Self::Welcome(welcome) => {
                let mut out = welcome.generation.0.to_le_bytes().to_vec();
                encode_ack(&welcome.ack, &mut out);
                (WELCOME, out)
            }
            Self::Refuse(refusal) => (REFUSE, encode_refusal(*refusal)),
            Self::Records(bytes) => (RECORDS, bytes.clone()),
            Self::Slotted(bytes) => (SLOTTED, bytes.clone()),
            Self::InSlots => (IN_SLOTS, Vec::new()),
            Self::Ack(ack) => {
                let mut out = Vec::with_capacity(ACK_BYTES);
                encode_ack(ack, &mut out);
                (ACK, out)
            }
            Self::KeyRefused { key, why } => {
                let mut out = key.0.to_le_bytes().to_vec();
                out.push(why.code());
                (KEY_REFUSED, out)
            }
            Self::Component(ComponentPart { digest, of, from, bytes }) => {
                let head = [of.to_le_bytes(), from.to_le_bytes()].concat();
                (COMPONENT, [digest.as_slice(), &head, bytes].concat())
            }
            Self::Ping { token } => (PING, token.to_le_bytes().to_vec()),
            Self::Pong { token } => (PONG, token.to_le_bytes().to_vec()),
            Self::Lineage(lineage) => {
                let mut out = Vec::with_capacity(Lineage::BYTES);
                lineage.encode(&mut out);
                (LINEAGE, out)
            }
            Self::Differs(differs) => {
                let mut out = differs.first.to_le_bytes().to_vec();
                out.push(u8::from(differs.last));
                differs.words.iter().for_each(|word| out.extend(word.to_le_bytes()));
                (DIFFERS, out)
            }
            Self::HandOver(HandOver { generation, at, chain }) => {
                let mut out = generation.0.to_le_bytes().to_vec();
                out.extend(at.0.to_le_bytes());
                out.extend(chain.0);
                (HAND_OVER, out)
            }
            Self::HandedOver { generation } => (HANDED_OVER, generation.0.to_le_bytes().to_vec()),
            Self::Shape(shape) => {
                let words = [shape.every_us, shape.cell_bytes, shape.answer_bytes];
                (SHAPE, words.iter().flat_map(|word| word.to_le_bytes()).collect())
            }
            Self::Inspect(inspect) => (INSPECT, inspect.encode()),
            Self::AskLive(ask) => (ASK_LIVE, ask.encode()),
            Self::AskDrill(ask) => (ASK_DRILL, ask.encode()),
            Self::AskOld(ask) => (ASK_OLD, ask.encode()),
            Self::AskRetire(ask) => (ASK_RETIRE, ask.encode()),
            Self::Declare(declare) => (DECLARE, declare.encode()),
            Self::Held { id, answer } => (HELD, [id.to_le_bytes().as_slice(), answer].concat()),
        }
    }
}

impl KeyRefusal {
    const ALL: [Self; 8] = [
        Self::NoCapsule,
        Self::Forged,
        Self::Misplaced,
        Self::OtherRecipient,
        Self::Unopenable,
        Self::NoReceipt,
        Self::NoComponent,
        Self::Destroyed,
    ];

    fn code(self) -> u8 {
        match self {
            Self::NoCapsule => 1,
            Self::Forged => 2,
            Self::Misplaced => 3,
            Self::OtherRecipient => 4,
            Self::Unopenable => 5,
            Self::NoReceipt => 6,
            Self::NoComponent => 7,
            Self::Destroyed => 8,
        }
    }
}

fn prefix(kind: u8, body_bytes: u32) -> [u8; PREFIX_BYTES] {
    let mut out = [0; PREFIX_BYTES];
    out[0..4].copy_from_slice(&body_bytes.saturating_add(4).to_le_bytes());
    out[4] = kind;
    out[5] = VERSION;
    out
}

fn encode_attach(attach: &Attach) -> Vec<u8> {
    let mut out = Vec::with_capacity(ATTACH_BYTES + 16);
    out.extend(attach.pair.0);
    out.extend(attach.volume.0);
    out.extend(attach.generation.0.to_le_bytes());
    out.push(u8::from(attach.encrypted));
    out.extend(attach.block_bytes.get().to_le_bytes());
    out.extend(attach.blocks.0.to_le_bytes());
    out.extend(attach.path.to_le_bytes());
    out.extend(attach.paths.to_le_bytes());
    out.extend(attach.layout.iter().flat_map(|layout| layout.0));
    out
}

/// Of a pair without a record layout.
const ATTACH_BYTES: usize = 57;

fn decode_attach(fields: &mut Fields<'_>, body_bytes: usize) -> Option<Attach> {
    let (pair, volume) = (PairId(fields.array()), VolumeId(fields.array()));
    let generation = Generation(fields.u64());
    let encrypted = match fields.u8() {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Attach {
        pair,
        volume,
        generation,
        encrypted,
        block_bytes: BlockBytes::new(fields.u32()).ok()?,
        blocks: BlockCount(fields.u64()),
        path: fields.u16(),
        paths: fields.u16(),
        layout: (body_bytes > ATTACH_BYTES).then(|| LayoutId(fields.array())),
    })
}

fn encode_ack(ack: &Ack, out: &mut Vec<u8>) {
    let end = out.len() + ACK_BYTES;
    out.extend(ack.durable.0.to_le_bytes());
    out.extend(ack.chain.0);
    out.push(u8::from(ack.full));
    let ranges = &ack.ranges[..ack.ranges.len().min(ACK_RANGES_MAX)];
    out.push(u8::try_from(ranges.len()).unwrap_or(0));
    for range in ranges {
        out.extend(range.first.0.to_le_bytes());
        out.extend(range.last.0.to_le_bytes());
    }
    out.resize(end, 0);
}

fn decode_ack(fields: &mut Fields<'_>) -> Option<Ack> {
    let durable = Sequence(fields.u64());
    let chain = Chain(fields.array());
    let full = fields.u8();
    let count = usize::from(fields.u8());
    if full > 1 || count > ACK_RANGES_MAX {
        return None;
    }
    let (mut ranges, mut above) = (Vec::with_capacity(count), durable);
    for index in 0..ACK_RANGES_MAX {
        let range = Range { first: Sequence(fields.u64()), last: Sequence(fields.u64()) };
        if index >= count {
            continue;
        }
        if range.first <= above || range.last < range.first {
            return None;
        }
        above = range.last;
        ranges.push(range);
    }
    Some(Ack { durable, chain, ranges, full: full == 1 })
}

fn decode_differs(fields: &mut Fields<'_>, body_bytes: usize) -> Option<Differs> {
    let (first, last) = (fields.u64(), fields.u8());
    let rest = body_bytes.checked_sub(9)?;
    let count = rest / 8;
    if last > 1 || !rest.is_multiple_of(8) || count > DIFFERS_WORDS_MAX {
        return None;
    }
    Some(Differs { first, words: (0..count).map(|_| fields.u64()).collect(), last: last == 1 })
}

fn decode_component(fields: &mut Fields<'_>, body_bytes: usize) -> Option<ComponentPart> {
    let (digest, of, from) = (fields.array(), fields.u32(), fields.u32());
    let bytes = fields.take(body_bytes.checked_sub(40)?).to_vec();
    let end = u64::from(from) + u64::try_from(bytes.len()).ok()?;
    let fits = end <= u64::from(of) && u64::from(of) <= COMPONENT_BYTES_MAX && (bytes.is_empty() == (of == 0));
    fits.then_some(ComponentPart { digest, of, from, bytes })
}

fn encode_refusal(refusal: Refusal) -> Vec<u8> {
    let (code, number) = match refusal {
        Refusal::UnknownPair => (1u8, 0),
        Refusal::Fenced(generation) => (2, generation.0),
        Refusal::EncryptionDiffers => (3, 0),
        Refusal::OtherSize(blocks) => (4, blocks),
        Refusal::OtherVolume => (5, 0),
        Refusal::NotSecondary => (6, 0),
        Refusal::Damaged => (7, 0),
        Refusal::OtherLink => (8, 0),
        Refusal::LayoutDiffers => (9, 0),
    };
    let mut out = vec![code];
    out.extend(number.to_le_bytes());
    out
}

fn decode_refusal(fields: &mut Fields<'_>) -> Option<Refusal> {
    let (code, number) = (fields.u8(), fields.u64());
    match code {
        1 => Some(Refusal::UnknownPair),
        2 => Some(Refusal::Fenced(Generation(number))),
        3 => Some(Refusal::EncryptionDiffers),
        4 => Some(Refusal::OtherSize(number)),
        5 => Some(Refusal::OtherVolume),
        6 => Some(Refusal::NotSecondary),
        7 => Some(Refusal::Damaged),
        8 => Some(Refusal::OtherLink),
        9 => Some(Refusal::LayoutDiffers),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::retire::Order;
    use crate::units::{Epoch, Extent, Lba};

    fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        let prefix = Prefix::decode(bytes[..PREFIX_BYTES].try_into().unwrap())?;
        Frame::decode(prefix, bytes[PREFIX_BYTES..].to_vec())
    }

    fn samples() -> Vec<Frame> {
        let ack = Ack {
            durable: Sequence(7),
            chain: Chain([3; 32]),
            ranges: vec![Range { first: Sequence(9), last: Sequence(12) }],
            full: false,
        };
        let attach = Attach {
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(4),
            encrypted: true,
            block_bytes: BlockBytes::DEFAULT,
            blocks: BlockCount(1 << 20),
            path: 1,
            paths: 2,
            layout: None,
        };
        vec![
            Frame::Hello { challenge: [9; 32] },
            Frame::Attach(attach),
            Frame::Attach(Attach { layout: Some(LayoutId([8; 16])), ..attach }),
            Frame::Welcome(Welcome { generation: Generation(4), ack: ack.clone() }),
            Frame::Refuse(Refusal::Fenced(Generation(5))),
            Frame::Records(vec![1, 2, 3]),
            Frame::Ack(ack),
            Frame::KeyRefused { key: Sequence(3), why: KeyRefusal::Forged },
            Frame::Component(ComponentPart { digest: [5; 32], of: 100, from: 60, bytes: vec![0; 40] }),
            Frame::Component(ComponentPart { digest: [5; 32], of: 0, from: 0, bytes: Vec::new() }),
            Frame::Ping { token: 1 },
            Frame::Pong { token: 1 },
            Frame::Lineage(Lineage::at(Generation(2), Sequence(7), Chain([4; 32]))),
            Frame::Differs(Differs { first: 3, words: vec![1, u64::MAX], last: true }),
            Frame::HandOver(HandOver { generation: Generation(3), at: Sequence(9), chain: Chain([5; 32]) }),
            Frame::HandedOver { generation: Generation(3) },
            Frame::Shape(Shape::of(32 << 20)),
            Frame::Inspect(Inspect { id: 5, extent: Extent::new(Lba(7), BlockCount(9)).unwrap(), challenge: [6; 32] }),
            Frame::Held { id: 5, answer: vec![1, 2] },
            Frame::AskLive(AskLive { id: 5, from: Lba(4) }),
            Frame::AskDrill(AskDrill { id: 5, lba: Lba(4), challenge: [7; 32] }),
            Frame::AskOld(AskOld { id: 5, from: Lba(4), through: Epoch(3) }),
            Frame::AskRetire(Box::new(AskRetire { id: 5, order: [3; Order::BYTES], signature: [4; 64] })),
            Frame::Declare(Declare { id: 5, generation: Generation(3) }),
        ]
    }

    #[test]
    fn every_frame_comes_back_as_it_went() {
        for frame in samples() {
            assert_eq!(decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn an_acknowledgement_has_one_length() {
        let mut lengths: Vec<usize> = (0..=ACK_RANGES_MAX as u64)
            .map(|count| {
                let ranges = (0..count)
                    .map(|index| Range { first: Sequence(10 + index * 2), last: Sequence(10 + index * 2) })
                    .collect();
                Frame::Ack(Ack { durable: Sequence(1), chain: Chain::START, ranges, full: false }).encode().len()
            })
            .collect();
        lengths.dedup();
        assert_eq!(lengths.len(), 1);
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(Prefix::decode([0xff, 0xff, 0xff, 0x7f, 5, 1, 0, 0]), Err(FrameError::TooLong(0x7fff_ffff)));
        assert_eq!(Prefix::decode([9, 0, 0, 0, 5, 2, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(Prefix::decode([9, 0, 0, 0, 77, 1, 0, 0]), Err(FrameError::Kind(77)));
        assert_eq!(Prefix::decode([3, 0, 0, 0, 5, 1, 0, 0]), Err(FrameError::Body(5)));
        for frame in samples() {
            let mut long = frame.encode();
            long.push(0);
            let tail_is_content = matches!(frame, Frame::Records(_) | Frame::Held { .. });
            assert_eq!(decode(&long).is_ok(), tail_is_content, "{frame:?} with a byte too many");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_decodes_encodes_back(kind in HELLO..=ASK_DRILL, body in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(frame) = Frame::decode(Prefix { kind, body_bytes: 0 }, body) {
                prop_assert_eq!(decode(&frame.encode()), Ok(frame));
            }
        }
    }
}
