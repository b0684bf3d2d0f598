//! A hostile link and a hostile copy: a run of genuine records is tampered with in one way, in one place, and somebody must
//! notice and say what; nothing of it may be served.
//!
//! The tamperer has no key and can do whatever else there is, checksums included. Three places: on the *link*, in the
//! *store* of a remote that is down, and in the *answer* of a remote that serves what it likes. On the link and in the
//! store the primary may still be there, which compares every acknowledgement, or it is lost at once and nobody but who
//! opens the copy looks. [`By`] says who noticed first. Two places more are the words between the sites: what a primary
//! says when it attaches, and what a remote says that it holds.
//!
//! What nobody sees who opens a copy alone: a tail that is missing, a copy that is an old one as a whole, an old block for a
//! new one, and what is not sealed in the place of what was (covers and gaps stand in the order, and anybody can make
//! them). All that is served then was written once, and is out of date. For that a later mark is needed, a sequence number
//! with its running hash, which the primary has of everything that was acknowledged.

pub mod change;
pub mod genuine;
pub mod remote;

use std::collections::BTreeMap;
use std::fmt;

use farseal_core::flow::Flow;
use farseal_core::frame::{Ack, Frame, Welcome};
use farseal_core::primary::{self, Mode, Primary, Unacked};
use farseal_core::record::{Framed, Kind};
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::secondary::{Input, Output};
use farseal_core::units::{BlockBytes, BlockCount, ByteLen, Generation, Millis, PairId, Sequence};

use self::change::{Change, Sources, flip_stream};
use self::genuine::{BLOCKS, Genuine, RECORDS};
use self::remote::{By, GENERATION, NOW, PATH, Reason, Remote, attach, frames, open_answer};
use crate::dice::Dice;
use crate::disk::{to_usize, wide};
use crate::world::{PAIR, VOLUME, block_bytes};

/// Records of a run: two frames and some.
const RUN: u64 = 8;
/// How often a place is sought where a change can be made.
const TRIES: u64 = 64;
/// Of those that are not noticed, so many are told.
const UNDETECTED_TOLD: usize = 20;

/// Where it is tampered with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    Link,
    /// The primary is lost before an acknowledgement reaches it.
    LinkAndLoss,
    Store,
    StoreAndLoss,
    Answer,
    Attach,
    Ack,
}

impl Place {
    pub const ALL: [Self; 7] =
        [Self::Link, Self::LinkAndLoss, Self::Store, Self::StoreAndLoss, Self::Answer, Self::Attach, Self::Ack];

    /// The changes that make sense here.
    pub fn takes(self, change: Change) -> bool {
        match self {
            Self::Link | Self::LinkAndLoss => true,
            Self::Store | Self::StoreAndLoss => change != Change::Repeat,
            Self::Answer => !matches!(
                change,
                Change::Tear | Change::FarAhead | Change::OtherKey | Change::OtherKeyRenumbered | Change::FlipKey
            ),
            Self::Attach => matches!(
                change,
                Change::StripFlag | Change::OtherPair | Change::OtherGeneration | Change::Relocate | Change::FlipHeader
            ),
            Self::Ack => {
                matches!(change, Change::FlipBit | Change::FarAhead | Change::RollBack | Change::OtherGeneration)
            }
        }
    }
}

/// Sums over tamperings: by way and place, who noticed first.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub count: u64,
    seen: BTreeMap<(Change, Place), BTreeMap<By, u64>>,
    /// Records that were opened and are as they were written.
    pub opened: u64,
    /// What nobody noticed, or what was served all the same: the first of them.
    pub undetected: Vec<Undetected>,
}

/// A tampering that nobody noticed, or that was served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undetected {
    pub seed: u64,
    pub number: u64,
    pub what: String,
}

impl fmt::Display for Undetected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tampering {} of seed {}: {}", self.number, self.seed, self.what)
    }
}

/// Tampers so many times with what this seed writes.
pub fn run(seed: u64, count: u64, tally: &mut Tally) {
    let genuine = Genuine::write(seed, PAIR, GENERATION);
    let other_pair = Genuine::write(seed, PairId([0xee; 16]), GENERATION);
    let before = Genuine::write(seed, PAIR, Generation(1));
    let sources = Sources { genuine: &genuine, other_pair: &other_pair, before: &before };
    let ways: Vec<(Change, Place)> = Change::ALL
        .into_iter()
        .flat_map(|change| {
            Place::ALL.into_iter().filter(move |place| place.takes(change)).map(move |place| (change, place))
        })
        .collect();
    for number in 0..count {
        let mut dice = Dice::new(seed ^ number.rotate_left(20), 31);
        let Some((change, place)) = ways.get(to_usize(number % wide(ways.len()))).copied() else { continue };
        tally.count += 1;
        match tamper(change, place, &sources, &mut dice) {
            Ok((noticed, opened)) => {
                tally.opened += opened;
                *tally.seen.entry((change, place)).or_default().entry(noticed.by()).or_default() += 1;
            }
            Err(what) if tally.undetected.len() < UNDETECTED_TOLD => {
                tally.undetected.push(Undetected { seed, number, what: format!("{change:?} at {place:?}: {what}") });
            }
            Err(_) => {}
        }
    }
}

/// One tampering: the first reason that anybody gave, and how many records were opened.
fn tamper(change: Change, place: Place, from: &Sources<'_>, dice: &mut Dice) -> Result<(Reason, u64), String> {
    match place {
        Place::Attach => return attached(change, from, dice).map(|reason| (reason, 0)),
        Place::Ack => return acknowledged(change, from, dice).map(|reason| (reason, 0)),
        Place::Link | Place::LinkAndLoss | Place::Store | Place::StoreAndLoss | Place::Answer => {}
    }
    for _ in 0..TRIES {
        let base = Sequence(dice.between(20, RECORDS - RUN));
        let whole = genuine_run(from.genuine, base);
        if place == Place::Answer && change == Change::Repeat {
            if let Some(found) = old_block(from.genuine, base) {
                return found.map(|reason| (reason, 1));
            }
            continue;
        }
        let mut run = whole.clone();
        let streamed =
            matches!(place, Place::Link | Place::LinkAndLoss) && matches!(change, Change::FlipBit | Change::Tear);
        if !streamed && change.make(&mut run, base.next(), from, dice).is_none() {
            continue;
        }
        if !streamed && run == whole {
            continue;
        }
        return match place {
            Place::Answer => answered(from.genuine, base, &whole, &run).map(|reason| (reason, 0)),
            Place::Store | Place::StoreAndLoss => stored(from.genuine, base, run, place == Place::Store),
            Place::Link | Place::LinkAndLoss | Place::Attach | Place::Ack => {
                let mut stream = frames(&run);
                if change == Change::FlipBit {
                    flip_stream(&mut stream, dice);
                } else if change == Change::Tear {
                    stream.truncate(to_usize(dice.below(wide(stream.len()))));
                }
                travelled(from.genuine, base, &stream, place == Place::Link)
            }
        };
    }
    Err("no place was found for it".into())
}

fn genuine_run(genuine: &Genuine, base: Sequence) -> Vec<Vec<u8>> {
    (1..=RUN).filter_map(|step| genuine.get(base.plus(step))).map(|whole| whole.bytes.clone()).collect()
}

/// It happens on the way.
fn travelled(genuine: &Genuine, base: Sequence, stream: &[u8], primary_lives: bool) -> Result<(Reason, u64), String> {
    let mut remote = Remote::start(genuine, base, Vec::new()).map_err(|reason| format!("{reason:?}"))?;
    let mut writer = writer(genuine, base, base);
    greet(&mut remote, primary_lives.then_some(&mut writer));
    remote.noticed.clear();
    remote.stream(stream);
    remote.look_for_holes();
    if primary_lives {
        listen(&mut remote, &mut writer);
        let last = base.plus(RUN);
        let acked = writer.status().acked;
        if acked < last {
            remote.noticed.push(Reason::NotAcknowledged(acked));
        }
        if writer.status().diverged.is_none() && remote.is_genuine() {
            // The path is made anew, and what was not acknowledged comes again.
            let noticed = std::mem::take(&mut remote.noticed);
            remote.tell(Input::PathLost { path: PATH });
            greet(&mut remote, Some(&mut writer));
            remote.stream(&frames(&genuine_run(genuine, base)));
            listen(&mut remote, &mut writer);
            if writer.status().acked != last || remote.machine.durable() != (last, genuine.chain(last)) {
                return Err(format!("the pair does not go on after {noticed:?}"));
            }
            remote.noticed = noticed;
        }
    }
    judge(remote, base, primary_lives)
}

/// It happens to the log of a node that is down.
fn stored(genuine: &Genuine, base: Sequence, log: Vec<Vec<u8>>, primary_lives: bool) -> Result<(Reason, u64), String> {
    let mut remote = match Remote::start(genuine, base, log) {
        Ok(remote) => remote,
        // It does not start over what is damaged.
        Err(reason) => return Ok((reason, 0)),
    };
    remote.look_for_holes();
    if primary_lives {
        let mut writer = writer(genuine, base, base.plus(RUN));
        greet(&mut remote, Some(&mut writer));
    }
    judge(remote, base, primary_lives)
}

/// An operator takes over, and everything is opened. Who noticed first?
fn judge(mut remote: Remote<'_>, base: Sequence, primary_lives: bool) -> Result<(Reason, u64), String> {
    remote.tell(Input::TakeOver);
    let served = remote.open_all();
    if let Some(sequence) = served.falsely {
        return Err(format!("record {sequence} is served as it was never written; noticed: {:?}", remote.noticed));
    }
    remote.hold_against(base.plus(RUN));
    match remote.noticed.first() {
        Some(reason) if primary_lives && reason.by() == By::LaterMark => {
            Err(format!("the primary was there and did not notice: {reason:?}"))
        }
        Some(reason) => Ok((reason.clone(), served.records)),
        None => Err("nobody noticed".into()),
    }
}

/// A remote that answers for a record with something else.
fn answered(genuine: &Genuine, base: Sequence, whole: &[Vec<u8>], run: &[Vec<u8>]) -> Result<Reason, String> {
    let at = whole.iter().zip(run).position(|(one, other)| one != other).unwrap_or(run.len());
    let asked = base.next().plus(wide(at));
    let Some(answer) = run.get(at) else { return Ok(Reason::NotAcknowledged(asked)) };
    let framed = match Framed::decode(answer) {
        Ok(framed) => framed,
        Err(error) => return Ok(Reason::Record(error)),
    };
    let header = framed.header;
    if !framed.body_matches(&answer[farseal_core::record::HEADER_BYTES..]) {
        return Ok(Reason::Torn(farseal_core::journal::Tear::RecordBody(asked)));
    }
    if header.sequence != asked {
        return Ok(Reason::OtherRecord { asked, given: header.sequence });
    }
    if (header.pair, header.volume) != (PAIR, VOLUME) {
        return Ok(Reason::Alarm(farseal_core::secondary::Alarm::Misplaced));
    }
    if !header.kind.is_sealed() {
        // Nothing is opened, and so nothing is served; that it stands there is what a mark tells.
        return Ok(Reason::OtherThanMark { mark: asked, found: header.sequence });
    }
    let epoch = genuine.ledger(base.plus(RUN)).epoch_of(asked).map(|entry| entry.epoch);
    let Some(sealer) = epoch.and_then(|epoch| genuine.keys.get(&epoch)) else { return Ok(Reason::NoEpoch(asked)) };
    match open_answer(genuine, &header, answer, *sealer) {
        Ok(true) => Err("nothing was changed".into()),
        Ok(false) => Err(format!("record {asked} opens as it was never written")),
        Err(why) => Ok(Reason::Unopened(asked, why)),
    }
}

/// A remote whose index names an older record for a block, which opens as it should: it was written once. Who knows how far
/// the order went, and with what running hash, knows better.
fn old_block(genuine: &Genuine, base: Sequence) -> Option<Result<Reason, String>> {
    let mut newer = (1..=RUN).filter_map(|step| genuine.get(base.plus(step)));
    let newer = newer.find(|whole| whole.header.kind == Kind::Data)?;
    let block = newer.header.lba;
    let covers = |whole: &&genuine::Whole| {
        whole.header.kind == Kind::Data && whole.header.extent().is_some_and(|extent| extent.contains(block))
    };
    let older = genuine.records.iter().take(to_usize(base.0)).rev().find(covers)?;
    let epoch = genuine.ledger(base).epoch_of(older.header.sequence)?.epoch;
    let opens = open_answer(genuine, &older.header, &older.bytes, *genuine.keys.get(&epoch)?);
    Some(match opens {
        Ok(true) => Ok(Reason::OtherThanMark { mark: newer.header.sequence, found: older.header.sequence }),
        other => Err(format!("an old block, authentic as it is, gives {other:?}")),
    })
}

/// A primary that says of itself what is not so.
#[expect(clippy::wildcard_enum_match_arm, reason = "`Place::takes` names the changes that come here")]
fn attached(change: Change, from: &Sources<'_>, dice: &mut Dice) -> Result<Reason, String> {
    let base = Sequence(dice.between(20, RECORDS - RUN));
    let mut remote = Remote::start(from.genuine, base, Vec::new()).map_err(|reason| format!("{reason:?}"))?;
    let mut said = attach();
    match change {
        Change::StripFlag => said.encrypted = false,
        Change::OtherPair => said.pair.0[to_usize(dice.below(16))] ^= 1 << dice.below(8),
        Change::OtherGeneration => said.generation = Generation(dice.below(GENERATION.0)),
        Change::Relocate => said.blocks = BlockCount(said.blocks.0 ^ dice.between(1, 1 << 40)),
        _ => said.block_bytes = BlockBytes::DEFAULT,
    }
    remote.stream(&Frame::Attach(said).encode());
    // And sends all the same.
    remote.stream(&frames(&genuine_run(from.genuine, base)));
    if !remote.log.is_empty() || !remote.answers.is_empty() {
        return Err("a peer was let in that says what is not so".into());
    }
    remote.noticed.first().cloned().ok_or_else(|| "nobody noticed".into())
}

/// A remote that says of its copy what is not so.
#[expect(clippy::wildcard_enum_match_arm, reason = "`Place::takes` names the changes that come here")]
fn acknowledged(change: Change, from: &Sources<'_>, dice: &mut Dice) -> Result<Reason, String> {
    let base = Sequence(dice.between(20, RECORDS - RUN));
    let held = base.plus(dice.between(1, RUN));
    let mut writer = writer(from.genuine, base, held);
    let (mut durable, mut chain, mut generation) = (held, from.genuine.chain(held), GENERATION);
    match change {
        Change::FlipBit => chain.0[to_usize(dice.below(32))] ^= 1 << dice.below(8),
        Change::FarAhead => durable = base.plus(RUN + dice.between(1, 1 << 40)),
        Change::RollBack => {
            durable = Sequence(dice.below(held.0));
            chain = from.genuine.chain(durable);
        }
        _ => generation = Generation(GENERATION.0 + dice.between(1, 1 << 20)),
    }
    writer.handle(NOW, primary::Input::Attaching { path: PATH });
    let ack = Ack { durable, chain, ranges: Vec::new(), full: false };
    writer.handle(NOW, primary::Input::Welcomed { path: PATH, welcome: Welcome { generation, ack } });
    while writer.poll_output().is_some() {}
    writer.status().diverged.map(Reason::Diverged).ok_or_else(|| "the primary believes it".into())
}

/// The primary over a journal that ends with the run; the remote is known to hold everything up to `acked`.
fn writer(genuine: &Genuine, base: Sequence, acked: Sequence) -> Primary {
    let last = base.plus(RUN);
    let above = (acked.0 + 1..=last.0).filter_map(|sequence| genuine.get(Sequence(sequence)));
    let unacked = above.map(|whole| Unacked {
        sequence: whole.header.sequence,
        kind: whole.header.kind,
        bytes: ByteLen(wide(whole.bytes.len())),
        chain: genuine.chain(whole.header.sequence),
        extent: whole.header.extent(),
        wall: whole.header.wall,
    });
    let recovered = primary::Recovered {
        last,
        chain: genuine.chain(last),
        acked,
        acked_chain: genuine.chain(acked),
        unacked: unacked.collect(),
        homed: last,
        ..primary::Recovered::fresh()
    };
    let settings = primary::Settings {
        layout: None,
        pair: PAIR,
        volume: VOLUME,
        generation: GENERATION,
        encrypted: true,
        block_bytes: block_bytes(),
        blocks: BlockCount(BLOCKS),
        mode: Mode::Async,
        paired: true,
        key_limits: KeyLimits { interval_min: Millis(100), age_max: Millis(1 << 30), bytes_max: ByteLen(1 << 40) },
        escrowed: false,
        in_slots: false,
        pause_hidden: true,
        shaped: true,
        rotate_how: How::InBand,
        journal_bytes_max: ByteLen(1 << 30),
        unordered: None,
        flow: Flow::default(),
    };
    Primary::new(NOW, settings, recovered)
}

/// The primary attaches and hears what the remote holds.
fn greet(remote: &mut Remote<'_>, writer: Option<&mut Primary>) {
    remote.stream(&Frame::Attach(attach()).encode());
    if let Some(writer) = writer {
        writer.handle(NOW, primary::Input::Attaching { path: PATH });
        listen(remote, writer);
    }
}

/// What the remote has said so far reaches the primary.
fn listen(remote: &mut Remote<'_>, writer: &mut Primary) {
    for answer in std::mem::take(&mut remote.answers) {
        if let Output::Welcome { path, welcome } = answer {
            writer.handle(NOW, primary::Input::Welcomed { path, welcome });
        } else if let Output::Ack { path, ack } = answer {
            writer.handle(NOW, primary::Input::Acked { path, ack });
        }
    }
    while let Some(output) = writer.poll_output() {
        if let primary::Output::Alarm(primary::Alarm::Diverged(divergence)) = output {
            remote.noticed.push(Reason::Diverged(divergence));
        }
    }
}

impl Tally {
    /// What never happened: ways of tampering in their places.
    pub fn never(&self) -> Vec<(Change, Place)> {
        let all = Change::ALL.into_iter().flat_map(|change| Place::ALL.map(|place| (change, place)));
        all.filter(|way| way.1.takes(way.0) && !self.seen.contains_key(way)).collect()
    }

    /// Who never noticed anything.
    pub fn blind(&self) -> Vec<By> {
        let all = [
            By::Frame,
            By::Header,
            By::Checksum,
            By::EncryptBit,
            By::ControlInformation,
            By::Window,
            By::KeyCheck,
            By::RunningHash,
            By::Mark,
            By::Opening,
            By::LaterMark,
        ];
        all.into_iter().filter(|by| !self.seen.values().any(|seen| seen.contains_key(by))).collect()
    }

    /// Who noticed this change in this place.
    pub fn by(&self, change: Change, place: Place) -> Vec<By> {
        self.seen.get(&(change, place)).map(|seen| seen.keys().copied().collect()).unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} tamperings; {} records opened, each as it was written", self.count, self.opened)?;
        for ((change, place), seen) in &self.seen {
            let seen: Vec<String> = seen.iter().map(|(by, count)| format!("{by:?} {count}")).collect();
            writeln!(f, "  {:<24} {:<14} {}", format!("{change:?}"), format!("{place:?}"), seen.join(", "))?;
        }
        match (self.never().as_slice(), self.blind().as_slice()) {
            ([], []) => Ok(()),
            (never, blind) => writeln!(f, "never: {never:?} {blind:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use farseal_core::record::{HEADER_BYTES, Header};

    use super::*;
    use crate::seal::{Sealer, open};

    #[test]
    fn what_was_not_tampered_with_is_not_noticed() {
        let genuine = Genuine::write(3, PAIR, GENERATION);
        let (base, nobody) = (Sequence(60), Err("nobody noticed".into()));
        let run = genuine_run(&genuine, base);
        assert_eq!(travelled(&genuine, base, &frames(&run), true), nobody);
        assert_eq!(travelled(&genuine, base, &frames(&run), false), nobody);
        assert_eq!(stored(&genuine, base, run.clone(), true), nobody);
        assert_eq!(stored(&genuine, base, run, false), nobody);
    }

    #[test]
    fn who_takes_a_records_own_word_for_the_encrypt_bit_serves_what_was_never_written() {
        let genuine = Genuine::write(3, PAIR, GENERATION);
        let whole = genuine.records.iter().find(|whole| whole.header.kind == Kind::Data);
        let Some(whole) = whole else { panic!("a history has data") };
        let (mut bytes, header) = (whole.bytes.clone(), Header { encrypted: false, ..whole.header });
        let stamp = HEADER_BYTES + header.tag_bytes() + 16;
        bytes[stamp] ^= 0xff;
        let believed = open(&header, &bytes, header.encrypted, Sealer::default());
        assert!(believed.is_ok_and(|stamps| stamps != whole.stamps));
        assert!(open(&header, &bytes, true, Sealer::default()).is_err());
    }
}
