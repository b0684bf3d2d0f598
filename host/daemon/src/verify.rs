//! Comparing a volume with its copy while both are in use: carries out what [`farseal_core::verify`] decides.
//!
//! A thread of its own asks the lane what is owed, has the copy asked for the sealed blocks, opens them with this site's
//! keys and compares them with the home. It takes its turn with initiators only where the lane notes what they write:
//! a look at a bitmap a range. The link carries its answers beside acknowledgements, at most one range at a time and no
//! faster than the verification's own rate. What a peer answers that is no answer ends the verification and nothing else.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farseal_core::inspect::{Answer, AnswerError, Held, Inspect, Part, Terms};
use farseal_core::primary::Begun;
use farseal_core::units::{BlockCount, ByteLen, Epoch, Extent, Lba, Millis, Now};
use farseal_core::verify::{Difference, End, Found, Input, Output, Plan, Verify};

use crate::clock::Clock;
use crate::control::api::{FoundStatus, VerifyEnd, VerifyStatus};
use crate::keyring::{UnsealError, Unsealer};
use crate::lane::{Compare, Event as LaneEvent, Lane};
use crate::plugins::PairPlugins;
use crate::replica::inspect::digest;
use crate::store::files;
use crate::volume::read_through;

/// How often it looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A thousand extents, each with a sentence.
const KEPT_BYTES_MAX: u64 = 4 << 20;

/// What the copy answers, from the link's paths to whoever waits for it.
#[derive(Debug, Default)]
pub struct Answers {
    /// The question that is open; 0: none.
    open: AtomicU64,
    sender: Mutex<Option<Sender<Came>>>,
}

/// The number of a question, and what the copy answers.
type Came = (u64, Vec<u8>);
/// A block as the copy has it, `None` where it reads as zeroes; or why it cannot be had.
type Opened = Result<Option<Vec<u8>>, Difference>;

/// A pair's verification: the one that runs, or what the last one found.
#[derive(Debug)]
pub struct Verification {
    path: PathBuf,
    status: Arc<Mutex<Option<VerifyStatus>>>,
    stop: Arc<AtomicBool>,
}

/// What a verification is made of.
pub struct Parts {
    pub name: String,
    pub lane: Arc<Lane>,
    pub plugins: Arc<PairPlugins>,
    pub clock: Clock,
    pub answers: Arc<Answers>,
    pub plan: Plan,
    /// Copy again what differs.
    pub repair: bool,
    /// Whatever the home holds should be in the copy.
    pub picks_all: bool,
}

/// One runs already.
#[derive(Debug)]
pub struct Runs;

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Answers {
    /// Takes in what came. Whatever was not asked for is dropped: there is never more than one answer in memory.
    pub fn came(&self, id: u64, answer: Vec<u8>) {
        if id != 0 && self.open.compare_exchange(id, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sender) = sender.as_ref() {
                let _ = sender.send((id, answer));
            }
        }
    }

    /// Whoever waits for answers from now on.
    pub(crate) fn listen(&self) -> Receiver<Came> {
        let (sender, answers) = channel();
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        answers
    }

    /// The one question that is open.
    pub(crate) fn expect(&self, id: u64) {
        self.open.store(id, Ordering::Release);
    }
}

impl Verification {
    /// With what the last one found, if that is known.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let path = directory.join("verify.json");
        let kept = files::read_if_there(&path, KEPT_BYTES_MAX).ok().flatten();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<VerifyStatus>(&bytes).ok());
        Self { path, status: Arc::new(Mutex::new(kept)), stop: Arc::default() }
    }

    #[must_use]
    pub fn status(&self) -> Option<VerifyStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the one that runs end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Starts one, unless one runs.
    pub fn start(&self, parts: Parts) -> Result<(), Runs> {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.as_ref().is_some_and(VerifyStatus::runs) {
            return Err(Runs);
        }
        self.stop.store(false, Ordering::Release);
        let began = parts.clock.now();
        let verify = Verify::new(began.instant, parts.plan);
        let runner = Runner {
            heard: parts.answers.listen(),
            verify,
            began,
            question: None,
            answer: None,
            unsealer: None,
            unpicked: BlockCount(0),
            status: Arc::clone(&self.status),
            stop: Arc::clone(&self.stop),
            path: self.path.clone(),
            parts,
        };
        *status = Some(runner.now(None));
        drop(status);
        std::thread::spawn(move || runner.run());
        Ok(())
    }
}

struct Runner {
    parts: Parts,
    heard: Receiver<Came>,
    verify: Verify,
    began: Now,
    question: Option<Inspect>,
    answer: Option<Answer>,
    /// For the epochs that were known when it was made.
    unsealer: Option<(Epoch, Unsealer)>,
    unpicked: BlockCount,
    status: Arc<Mutex<Option<VerifyStatus>>>,
    stop: Arc<AtomicBool>,
    path: PathBuf,
}

/// Why it ends before its end.
#[derive(Debug, thiserror::Error)]
enum Early {
    #[error("it was stopped")]
    Stopped,
    #[error("the link was down for too long")]
    NoLink,
    #[error("this site does not write any more, or its lane has stopped")]
    LaneGone,
    #[error("the remote's answer is refused: {0}")]
    Nonsense(#[from] AnswerError),
    #[error("the random source failed")]
    Random,
}

impl Runner {
    fn run(mut self) {
        let early = self.until_end().err();
        let mut status = self.now(Some(early.as_ref().map(ToString::to_string)));
        if self.parts.repair && !self.verify.to_owe().is_empty() {
            status.repaired = self.repair().is_some();
        }
        match &early {
            Some(why) => tracing::warn!(pair = self.parts.name, "the verification ended early: {why}"),
            None => tracing::info!(
                pair = self.parts.name,
                different = status.different.0,
                skipped = status.skipped.0,
                "the copy was verified"
            ),
        }
        let kept = serde_json::to_vec_pretty(&status).unwrap_or_default();
        if let Err(error) = files::write_atomically(&self.path, &kept) {
            tracing::warn!(pair = self.parts.name, %error, "what the verification found could not be kept");
        }
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    fn until_end(&mut self) -> Result<(), Early> {
        loop {
            while let Some(output) = self.verify.poll_output() {
                if let Some(end) = self.carry_out(output)? {
                    return match end {
                        End::Done => Ok(()),
                        End::NoLink => Err(Early::NoLink),
                    };
                }
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(Early::Stopped);
            }
            let now = self.parts.clock.now().instant;
            let due = self.verify.poll_timeout().map_or(LOOK_EVERY, |at| Duration::from_millis(at.since(now).0.max(1)));
            match self.heard.recv_timeout(due.min(LOOK_EVERY)) {
                Ok((id, bytes)) => self.heard(id, &bytes)?,
                Err(RecvTimeoutError::Timeout) => self.verify.handle(self.parts.clock.now().instant, Input::Tick),
                Err(RecvTimeoutError::Disconnected) => return Err(Early::LaneGone),
            }
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<Option<End>, Early> {
        let input = match output {
            Output::End(end) => return Ok(Some(end)),
            Output::Begin(extent) => {
                self.publish();
                let Begun { owed, acked } = self.ask_lane(|done| {
                    let begin = Compare::Begin { within: extent, done: Box::new(move |begun| _ = done.send(begun)) };
                    LaneEvent::Compare(begin)
                })?;
                Input::Begun { owed, acked }
            }
            Output::Ask { id, extent } => {
                let mut challenge = [0; 32];
                getrandom::fill(&mut challenge).map_err(|_| Early::Random)?;
                let inspect = Inspect { id, extent, challenge };
                self.question = Some(inspect);
                self.parts.answers.expect(id);
                let sent = self
                    .ask_lane(|done| LaneEvent::Inspect { inspect, done: Box::new(move |sent| _ = done.send(sent)) })?;
                if sent {
                    return Ok(None);
                }
                Input::NoAnswer
            }
            Output::Compare(extent) => {
                let found = match (self.answer.take(), self.question) {
                    (Some(answer), Some(question)) => self.compare(&question, answer)?,
                    _ => Vec::new(),
                };
                let (done, written) = channel();
                // Behind every write that the read of the home may have seen.
                self.parts.lane.intake.end_comparison(extent, Box::new(move |extents| _ = done.send(extents)));
                Input::Compared { found, written: written.recv().map_err(|_| Early::LaneGone)? }
            }
        };
        self.verify.handle(self.parts.clock.now().instant, input);
        Ok(None)
    }

    fn ask_lane<T>(&self, event: impl FnOnce(Sender<T>) -> LaneEvent) -> Result<T, Early> {
        self.parts.lane.ask(event).ok_or(Early::LaneGone)
    }

    fn heard(&mut self, id: u64, bytes: &[u8]) -> Result<(), Early> {
        let Some(question) = self.question.filter(|question| question.id == id && id == self.verify.asked()) else {
            return Ok(());
        };
        let settings = &self.parts.lane.settings;
        let terms = Terms {
            pair: settings.pair,
            volume: settings.volume,
            encrypted: settings.encrypted,
            block_bytes: settings.block_bytes,
        };
        let answer = Answer::decode(bytes, question.extent, &terms)?;
        let through = answer.through;
        self.answer = Some(answer);
        self.verify.handle(self.parts.clock.now().instant, Input::Answered { through });
        Ok(())
    }

    /// Which blocks of an answer are not what the home holds.
    fn compare(&mut self, question: &Inspect, answer: Answer) -> Result<Vec<Found>, Early> {
        let (home, mut found) = self.read_home(question.extent);
        let size = self.parts.lane.settings.block_bytes.as_usize();
        let mut at = question.extent.first();
        for run in answer.runs {
            let first = place(at.0 - question.extent.first().0) * size;
            let home = home.get(first..first + place(run.blocks.0) * size).unwrap_or_default();
            let each = (at.0..at.0 + run.blocks.0).map(Lba).zip(home.chunks(size));
            let zeroes = |block: &[u8]| block.iter().all(|byte| *byte == 0);
            match run.held {
                Held::Nothing => {
                    let lacking: Vec<Lba> = each.filter(|(_, block)| !zeroes(block)).map(|(lba, _)| lba).collect();
                    if self.parts.picks_all {
                        found.extend(lacking.into_iter().filter_map(|lba| one(lba, Difference::Missing)));
                    } else {
                        self.unpicked.0 += u64::try_from(lacking.len()).unwrap_or(0);
                    }
                }
                Held::Unreadable(why) => {
                    found.extend(each.filter_map(|(lba, _)| one(lba, Difference::Unreadable(why))));
                }
                Held::Base(digests) => {
                    let differing =
                        each.zip(digests).filter(|((_, block), there)| digest(&question.challenge, block) != *there);
                    found.extend(differing.filter_map(|((lba, _), _)| one(lba, Difference::Content)));
                }
                Held::Record(part) => {
                    let opened = self.open(*part, run.blocks)?;
                    for ((lba, block), opened) in each.zip(opened) {
                        let what = match opened {
                            Ok(Some(there)) if there == block => continue,
                            Ok(None) if zeroes(block) => continue,
                            Ok(_) => Difference::Content,
                            Err(what) => what,
                        };
                        found.extend(one(lba, what));
                    }
                }
            }
            at = Lba(at.0 + run.blocks.0);
        }
        Ok(found)
    }

    /// The blocks as an initiator would read them now, and those that cannot be read.
    fn read_home(&self, extent: Extent) -> (Vec<u8>, Vec<Found>) {
        let lane = &self.parts.lane;
        let block = lane.settings.block_bytes;
        let mut bytes = vec![0; place(extent.blocks().byte_len(block).0)];
        let read = |extent, into: &mut [u8]| read_through(&lane.buffer, &*lane.home, block, extent, into);
        let mut found = Vec::new();
        if read(extent, &mut bytes).is_err() {
            for (lba, into) in (extent.first().0..extent.end().0).map(Lba).zip(bytes.chunks_mut(block.as_usize())) {
                let unread = Extent::new(lba, BlockCount(1)).is_none_or(|extent| read(extent, into).is_err());
                found.extend(one(lba, Difference::NotReadHere).filter(|_| unread));
            }
        }
        (bytes, found)
    }

    /// Each block of a part, opened.
    fn open(&mut self, part: Part, count: BlockCount) -> Result<Vec<Opened>, Early> {
        let Part { header, first, tags, blocks } = part;
        let unsealer = self.unsealer()?;
        let size = header.block_bytes.as_usize();
        if blocks.is_empty() {
            let mut tags = tags;
            let opened = unsealer.open(&header, 0, &mut [], &mut tags).map_err(|error| difference(&error));
            return Ok((0..count.0).map(|_| opened.map(|()| None)).collect());
        }
        let (mut whole, mut all) = (blocks.clone(), tags.clone());
        if unsealer.open(&header, first, &mut whole, &mut all).is_ok() {
            return Ok(whole.chunks(size).map(|block| Ok(Some(block.to_vec()))).collect());
        }
        // One that does not open hides the others: each by itself.
        let each = (first..).zip(blocks.chunks(size).zip(tags.chunks(header.tag_bytes_each())));
        let open = |(index, (block, tag)): (u32, (&[u8], &[u8]))| {
            let (mut block, mut tag) = (block.to_vec(), tag.to_vec());
            let opened = unsealer.open(&header, index, &mut block, &mut tag);
            opened.map(|()| Some(block)).map_err(|error| difference(&error))
        };
        Ok(each.map(open).collect())
    }

    /// Knows every epoch of this site: a record that came meanwhile may be of a new one.
    fn unsealer(&mut self) -> Result<&mut Unsealer, Early> {
        let keyring = &self.parts.lane.keyring;
        let newest = keyring.newest();
        let unsealer = match self.unsealer.take().filter(|(of, _)| *of == newest) {
            Some((_, unsealer)) => unsealer,
            None => {
                let plugins = Arc::clone(&self.parts.plugins);
                Unsealer::new(Arc::clone(keyring), Arc::new(keyring.ledger()), plugins)
            }
        };
        Ok(&mut self.unsealer.insert((newest, unsealer)).1)
    }

    fn repair(&self) -> Option<()> {
        let map = self.verify.to_owe().clone();
        self.ask_lane(|done| LaneEvent::OweAgain { map, done: Box::new(move || _ = done.send(())) }).ok()
    }

    fn publish(&self) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.now(None));
    }

    /// As it is now; with an end, over.
    fn now(&self, end: Option<Option<String>>) -> VerifyStatus {
        let tally = self.verify.tally();
        let block = self.parts.plan.block_bytes;
        let bytes = |blocks: BlockCount| blocks.byte_len(block);
        let now = self.parts.clock.now();
        let spent = now.instant.since(self.began.instant).0.max(1);
        let rate = bytes(tally.compared).0.saturating_mul(1_000) / spent;
        let left = bytes(tally.planned).0.saturating_sub(bytes(tally.compared).0 + bytes(tally.skipped).0);
        let found = tally.found.iter().map(|found| FoundStatus {
            offset: BlockCount(found.extent.first().0).byte_len(block),
            len: bytes(found.extent.blocks()),
            what: found.what.to_string(),
        });
        VerifyStatus {
            began: self.began.wall,
            planned: bytes(tally.planned),
            compared: bytes(tally.compared),
            skipped: bytes(tally.skipped),
            unpicked: bytes(self.unpicked),
            rate: ByteLen(rate),
            time_left: left.saturating_mul(1_000).checked_div(rate).map(Millis).filter(|_| end.is_none()),
            different: bytes(tally.different),
            found: found.collect(),
            found_more: tally.found_more,
            repaired: false,
            end: end.map(|early| VerifyEnd { at: now.wall, early }),
        }
    }
}

fn one(lba: Lba, what: Difference) -> Option<Found> {
    Extent::new(lba, BlockCount(1)).map(|extent| Found { extent, what })
}

fn difference(error: &UnsealError) -> Difference {
    match error {
        UnsealError::NoPackage { epoch, .. } => Difference::NoKey(*epoch),
        UnsealError::NoEpoch(_) => Difference::NoEpoch,
        UnsealError::OtherBit { .. } | UnsealError::Key(_) | UnsealError::Open(_) | UnsealError::Layer { .. } => {
            Difference::NotAuthentic
        }
    }
}

/// A place within a range, which fits memory.
fn place(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
