//! What initiators asked and were answered, and whether an image can have come from it.
//!
//! Every write is split into its blocks. One write precedes another when it was answered before the other was sent.
//! With X what is visible, D what must be there, and I the latest time at which something in X or D was sent, an image
//! is a cut of the order that holds D exactly if, for each block and its visible write v, no write to that block that
//! is in D or was answered before I lies wholly after v.

use std::collections::BTreeMap;
use std::fmt;

/// Bytes of a block: the pair's seal unit.
pub(crate) const BLOCK: usize = 4096;
/// Every stamped block begins with it.
const MAGIC: u64 = 0x4641_5253_4348_414F;
/// Violations that are told one by one.
const TOLD_MAX: usize = 8;

/// A write, counted from 1; 0 is the state before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct WriteId(pub(crate) u64);

/// A moment on the one counter that every request's sending and every answer takes a number from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Tick(pub(crate) u64);

/// What a block shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Write(WriteId),
    /// Not what any write of this run put there, whole.
    Torn,
}

/// What must be in an image.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    /// What was answered with FUA, or before an answered flush was sent.
    Flushed,
    /// What was answered before this moment.
    AnsweredBefore(Tick),
}

#[derive(Debug, Clone, Copy)]
struct Write {
    first: u64,
    blocks: u64,
    fua: bool,
    sent: Tick,
    answered: Option<Tick>,
}

#[derive(Debug, Clone, Copy)]
struct Flush {
    sent: Tick,
    answered: Option<Tick>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    block: u64,
    seen: Seen,
    sent: Tick,
}

/// Everything since the last settled image.
#[derive(Debug)]
pub(crate) struct History {
    run: u64,
    now: Tick,
    last_id: WriteId,
    writes: BTreeMap<WriteId, Write>,
    flushes: Vec<Flush>,
    reads: Vec<Read>,
    /// What each block showed at the start: durable, and older than every write here.
    base: Vec<WriteId>,
}

/// How much a judgement covered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Judged {
    pub(crate) writes: usize,
    pub(crate) unanswered: usize,
    pub(crate) due: usize,
    /// Answered, not promised to outlive a crash, and gone: proof that the crash took something.
    pub(crate) lost: usize,
    pub(crate) flushes: usize,
    pub(crate) reads: usize,
}

/// An image that cannot be: what is wrong, block by block.
#[derive(Debug)]
pub(crate) struct Violations(pub(crate) Vec<String>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} violations", self.0.len())?;
        self.0.iter().take(TOLD_MAX).try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl History {
    pub(crate) fn new(run: u64, blocks: usize) -> Self {
        Self {
            run,
            now: Tick(0),
            last_id: WriteId(0),
            writes: BTreeMap::new(),
            flushes: Vec::new(),
            reads: Vec::new(),
            base: vec![WriteId(0); blocks],
        }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.base.len()
    }

    pub(crate) fn tick(&mut self) -> Tick {
        self.now.0 += 1;
        self.now
    }

    /// A write is about to be sent.
    pub(crate) fn write(&mut self, first: u64, blocks: u64, fua: bool) -> WriteId {
        self.last_id.0 += 1;
        let write = Write { first, blocks, fua, sent: self.tick(), answered: None };
        self.writes.insert(self.last_id, write);
        self.last_id
    }

    /// A write was answered without error. One answered with an error stays a "maybe".
    pub(crate) fn written(&mut self, id: WriteId) {
        let now = self.tick();
        if let Some(write) = self.writes.get_mut(&id) {
            write.answered = Some(now);
        }
    }

    /// A flush is about to be sent; what to name it by.
    pub(crate) fn flush(&mut self) -> usize {
        let sent = self.tick();
        self.flushes.push(Flush { sent, answered: None });
        self.flushes.len() - 1
    }

    pub(crate) fn flushed(&mut self, flush: usize) {
        let now = self.tick();
        if let Some(flush) = self.flushes.get_mut(flush) {
            flush.answered = Some(now);
        }
    }

    pub(crate) fn read(&mut self, block: u64, seen: Seen, sent: Tick) {
        self.reads.push(Read { block, seen, sent });
    }

    pub(crate) fn stamp(&self, id: WriteId, first: u64, data: &mut [u8]) {
        for (block, bytes) in (first..).zip(data.chunks_exact_mut(BLOCK)) {
            stamp(self.run, id, block, bytes);
        }
    }

    /// Which write a block's bytes come from.
    pub(crate) fn seen(&self, block: u64, bytes: &[u8]) -> Seen {
        let word = |index: usize| {
            bytes.get(index * 8..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_be_bytes(*word))
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Seen::Write(WriteId(0));
        }
        let id = WriteId(word(2));
        let mut expected = [0; BLOCK];
        stamp(self.run, id, block, &mut expected);
        if bytes == expected { Seen::Write(id) } else { Seen::Torn }
    }

    /// Whether an image, and every read that was answered, can have come from this history.
    pub(crate) fn judge(&self, image: &[Seen], due: Due) -> Result<Judged, Violations> {
        let mut wrong = Vec::new();
        let flushed = self.flushes.iter().filter(|flush| flush.answered.is_some()).map(|flush| flush.sent).max();
        let is_due = |write: &Write| match (due, write.answered) {
            (_, None) => false,
            (Due::Flushed, Some(at)) => write.fua || flushed.is_some_and(|flushed| at < flushed),
            (Due::AnsweredBefore(moment), Some(at)) => at < moment,
        };
        let mut latest = self.writes.values().filter(|write| is_due(write)).map(|write| write.sent).max();
        for (block, seen) in (0..).zip(image) {
            match self.place(block, *seen) {
                Ok(Some(write)) => latest = latest.max(Some(write.sent)),
                Ok(None) => {}
                Err(what) => wrong.push(what),
            }
        }
        for (id, write) in &self.writes {
            let due = is_due(write);
            if !due && write.answered.is_none_or(|at| Some(at) >= latest) {
                continue;
            }
            for block in write.first..write.first + write.blocks {
                let Some(seen) = usize::try_from(block).ok().and_then(|block| image.get(block)) else { continue };
                let lies_after = match self.place(block, *seen) {
                    Ok(Some(visible)) => visible.answered.is_some_and(|answered| answered < write.sent),
                    Ok(None) => true,
                    Err(_) => false,
                };
                if lies_after {
                    let why = if due { "had to be there" } else { "precedes something visible or due" };
                    wrong.push(format!("block {block} shows {seen:?}; {id:?} {why}: {write:?}"));
                }
            }
        }
        self.judge_reads(&mut wrong);
        if !wrong.is_empty() {
            wrong.push(format!(
                "latest sent of what is visible or due: {latest:?}; last answered flush sent: {flushed:?}"
            ));
            return Err(Violations(wrong));
        }
        Ok(Judged {
            writes: self.writes.len(),
            unanswered: self.writes.values().filter(|write| write.answered.is_none()).count(),
            due: self.writes.values().filter(|write| is_due(write)).count(),
            lost: self.writes.values().filter(|write| write.answered.is_some() && self.is_lost(write, image)).count(),
            flushes: self.flushes.iter().filter(|flush| flush.answered.is_some()).count(),
            reads: self.reads.len(),
        })
    }

    /// Some block shows what was answered before this write was sent.
    fn is_lost(&self, write: &Write, image: &[Seen]) -> bool {
        (write.first..write.first + write.blocks).any(|block| {
            let seen = usize::try_from(block).ok().and_then(|block| image.get(block));
            seen.is_some_and(|seen| match self.place(block, *seen) {
                Ok(Some(visible)) => visible.answered.is_some_and(|answered| answered < write.sent),
                Ok(None) => true,
                Err(_) => false,
            })
        })
    }

    /// A read shows nothing that was wholly overwritten when it was sent.
    fn judge_reads(&self, wrong: &mut Vec<String>) {
        let mut by_block: BTreeMap<u64, Vec<(WriteId, &Write)>> = BTreeMap::new();
        for (id, write) in &self.writes {
            for block in write.first..write.first + write.blocks {
                by_block.entry(block).or_default().push((*id, write));
            }
        }
        for read in &self.reads {
            let visible = match self.place(read.block, read.seen) {
                Ok(visible) => visible.map_or(Some(Tick(0)), |write| write.answered),
                Err(what) => {
                    wrong.push(format!("a read at {:?}: {what}", read.sent));
                    continue;
                }
            };
            let newer = by_block.get(&read.block).into_iter().flatten().find(|(_, write)| {
                visible.is_some_and(|visible| visible < write.sent) && write.answered.is_some_and(|at| at < read.sent)
            });
            if let Some((id, write)) = newer {
                wrong.push(format!("{read:?} does not show {id:?}: {write:?}"));
            }
        }
    }

    /// The write that a block shows; none for what it showed at the start.
    fn place(&self, block: u64, seen: Seen) -> Result<Option<&Write>, String> {
        let Seen::Write(id) = seen else { return Err(format!("block {block} is what no write put there")) };
        let base = usize::try_from(block).ok().and_then(|block| self.base.get(block));
        if base == Some(&id) {
            return Ok(None);
        }
        match self.writes.get(&id) {
            Some(write) if (write.first..write.first + write.blocks).contains(&block) => Ok(Some(write)),
            Some(write) => Err(format!("block {block} shows {id:?}, which wrote elsewhere: {write:?}")),
            None => Err(format!("block {block} shows {id:?}, older than {base:?}, which was settled there")),
        }
    }

    /// The image becomes the start of what follows. It must be durable.
    pub(crate) fn settle(&mut self, image: &[Seen]) {
        for (base, seen) in self.base.iter_mut().zip(image) {
            if let Seen::Write(id) = seen {
                *base = *id;
            }
        }
        self.writes.clear();
        self.flushes.clear();
        self.reads.clear();
    }
}

/// Run, write and block, then bytes that follow from them (splitmix64): no bit of it can change unseen.
fn stamp(run: u64, id: WriteId, block: u64, bytes: &mut [u8]) {
    let (words, _) = bytes.as_chunks_mut::<8>();
    let mut random = Random(run ^ id.0.rotate_left(20) ^ block.rotate_left(44));
    for (index, word) in words.iter_mut().enumerate() {
        *word = match index {
            0 => MAGIC,
            1 => run,
            2 => id.0,
            3 => block,
            _ => random.next(),
        }
        .to_be_bytes();
    }
}

/// Splitmix64: what a seed makes.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to one below.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(ids: [u64; 2]) -> Vec<Seen> {
        ids.map(|id| Seen::Write(WriteId(id))).to_vec()
    }

    /// Write 1 to block 0, answered; a flush, answered; write 2 to block 0 and write 3 to block 1, both answered.
    fn history() -> History {
        let mut history = History::new(7, 2);
        let one = history.write(0, 1, false);
        history.written(one);
        let flush = history.flush();
        history.flushed(flush);
        let two = history.write(0, 1, false);
        history.written(two);
        let three = history.write(1, 1, false);
        history.written(three);
        history
    }

    #[test]
    fn a_cut_is_legal_from_the_flush_on() {
        let history = history();
        for cut in [[1, 0], [2, 0], [2, 3]] {
            assert!(history.judge(&image(cut), Due::Flushed).is_ok(), "{cut:?}");
        }
    }

    #[test]
    fn what_was_flushed_cannot_be_missing_and_a_later_write_brings_the_earlier() {
        let history = history();
        for hole in [[0, 0], [1, 3], [0, 3]] {
            assert!(history.judge(&image(hole), Due::Flushed).is_err(), "{hole:?}");
        }
    }

    #[test]
    fn what_was_answered_in_time_cannot_be_missing() {
        let history = history();
        assert!(history.judge(&image([2, 0]), Due::AnsweredBefore(Tick(u64::MAX))).is_err());
        assert!(history.judge(&image([2, 3]), Due::AnsweredBefore(Tick(u64::MAX))).is_ok());
    }

    #[test]
    fn concurrent_writes_may_come_in_either_order_or_not_at_all() {
        let mut history = History::new(7, 2);
        history.write(0, 2, false);
        history.write(0, 2, false);
        for any in [[0, 0], [1, 1], [2, 2], [1, 2], [2, 0]] {
            assert!(history.judge(&image(any), Due::Flushed).is_ok(), "{any:?}");
        }
    }

    #[test]
    fn a_settled_image_does_not_go_back() {
        let mut history = history();
        history.settle(&image([2, 3]));
        assert!(history.judge(&image([1, 3]), Due::Flushed).is_err());
        assert!(history.judge(&image([2, 3]), Due::Flushed).is_ok());
    }

    #[test]
    fn a_read_of_what_was_overwritten_is_found() {
        let mut history = history();
        let sent = history.tick();
        history.read(0, Seen::Write(WriteId(1)), sent);
        assert!(history.judge(&image([2, 3]), Due::Flushed).is_err());
    }

    #[test]
    fn a_changed_bit_is_seen() {
        let history = History::new(7, 2);
        let mut bytes = [0; BLOCK];
        history.stamp(WriteId(5), 1, &mut bytes);
        assert_eq!(history.seen(1, &bytes), Seen::Write(WriteId(5)));
        assert_eq!(history.seen(0, &bytes), Seen::Torn);
        bytes[BLOCK - 1] ^= 1;
        assert_eq!(history.seen(1, &bytes), Seen::Torn);
    }
}
