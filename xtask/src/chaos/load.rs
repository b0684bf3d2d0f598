//! Overlapping stamped writes, flushes and reads over several connections, each with many requests under way.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::history::{BLOCK, History, Random, Seen, Tick, WriteId};
use crate::nbd_client::Client;

/// Connections; a flush on one covers what was answered on the others.
const CONNECTIONS: u64 = 2;
/// Blocks of the longest write.
const LONGEST: u64 = 16;
/// Blocks at the volume's start that get half of all writes.
const HOT: u64 = 48;
/// `NBD_CMD_FLAG_FUA`.
const FUA: u16 = 1;

/// What happened so far, shared with whoever judges it.
pub(crate) type Shared = Arc<Mutex<History>>;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A live server that owes an answer for so long has lost it.
/// A flush on a full disk is answered after 20 s, before Linux would time a SCSI command out.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Runs until it is stopped or the server goes away.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    overdue: Arc<AtomicUsize>,
    errors: Arc<Mutex<BTreeMap<u32, u64>>>,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Write(WriteId),
    Flush(usize),
    Read { block: u64, sent: Tick },
}

/// One connection.
struct Line {
    history: Shared,
    stop: Arc<AtomicBool>,
    overdue: Arc<AtomicUsize>,
    errors: Arc<Mutex<BTreeMap<u32, u64>>>,
    asked: Mutex<BTreeMap<u64, Asked>>,
    answered: Condvar,
    gone: AtomicBool,
}

impl Load {
    /// Each connection flushes after so many requests, of the three as the seed draws.
    pub(crate) fn start(
        socket: &Path,
        export: &str,
        history: &Shared,
        random: &mut Random,
        flush_every: [u64; 3],
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (errors, overdue) = (Arc::default(), Arc::default());
        let mut threads = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = Client::connect(socket, export)?;
            let (mut sends, mut receives) = (client.stream()?, client.stream()?);
            let line = Arc::new(Line {
                history: Arc::clone(history),
                stop: Arc::clone(&stop),
                overdue: Arc::clone(&overdue),
                errors: Arc::clone(&errors),
                asked: Mutex::default(),
                answered: Condvar::new(),
                gone: AtomicBool::new(false),
            });
            let seed = Random(random.next());
            let other = Arc::clone(&line);
            threads.push(std::thread::spawn(move || {
                // The server's end is the end of the load, wherever it strikes.
                let _ = line.send(&mut sends, seed, flush_every);
                // Ends the connection, after which the other thread sees its end.
                drop(client);
            }));
            threads.push(std::thread::spawn(move || {
                let _ = other.receive(&mut receives);
                other.gone.store(true, Ordering::Release);
                other.answered.notify_all();
            }));
        }
        Ok(Self { stop, threads, overdue, errors })
    }

    /// Which errors were answered so far, and how often.
    pub(crate) fn errors(&self) -> BTreeMap<u32, u64> {
        locked(&self.errors).clone()
    }

    /// Sends nothing more, takes every answer that still comes. Says which errors were answered, and how often, and
    /// how many requests a living server did not answer.
    pub(crate) fn stop(self) -> (BTreeMap<u32, u64>, usize) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads {
            let _ = thread.join();
        }
        (locked(&self.errors).clone(), self.overdue.load(Ordering::Relaxed))
    }
}

impl Line {
    fn send(&self, stream: &mut UnixStream, mut random: Random, flush_every: [u64; 3]) -> Result<()> {
        let depth = usize::try_from(4 + random.below(5))?;
        let flush_every = flush_every[usize::try_from(random.below(3))?];
        let blocks = u64::try_from(locked(&self.history).blocks())?;
        for cookie in 1.. {
            if !self.wait_for_room(depth) {
                break;
            }
            let mut request = Vec::new();
            if random.one_in(flush_every) {
                let flush = locked(&self.history).flush();
                self.ask(cookie, Asked::Flush(flush));
                encode(&mut request, 0, 3, cookie, 0, 0);
            } else if random.one_in(16) {
                let block = if random.one_in(2) { random.below(HOT) } else { random.below(blocks) };
                let sent = locked(&self.history).tick();
                self.ask(cookie, Asked::Read { block, sent });
                encode(&mut request, 0, 0, cookie, block, 1);
            } else {
                let longest = if random.one_in(4) { LONGEST } else { 3 };
                let long = 1 + random.below(longest);
                let first = if random.one_in(2) { random.below(HOT) } else { random.below(blocks - LONGEST) };
                let fua = random.one_in(64);
                let mut data = vec![0; usize::try_from(long)? * BLOCK];
                let mut history = locked(&self.history);
                let id = history.write(first, long, fua);
                history.stamp(id, first, &mut data);
                drop(history);
                self.ask(cookie, Asked::Write(id));
                encode(&mut request, if fua { FUA } else { 0 }, 1, cookie, first, long);
                request.extend(data);
            }
            stream.write_all(&request)?;
        }
        let stopped = Instant::now();
        while !locked(&self.asked).is_empty() && !self.gone.load(Ordering::Acquire) {
            drop(self.wait_for_answer(locked(&self.asked)));
            if stopped.elapsed() > ANSWER_MAX {
                let owed = locked(&self.asked).clone();
                println!("UNANSWERED for {} s by a server that lives: {owed:?}", ANSWER_MAX.as_secs());
                self.overdue.fetch_add(owed.len(), Ordering::Relaxed);
                break;
            }
        }
        Ok(())
    }

    /// Waits until fewer than so many requests are under way. False when nothing more is to be sent.
    fn wait_for_room(&self, depth: usize) -> bool {
        let mut asked = locked(&self.asked);
        while asked.len() >= depth && !self.gone.load(Ordering::Acquire) {
            asked = self.wait_for_answer(asked);
        }
        !self.stop.load(Ordering::Acquire) && !self.gone.load(Ordering::Acquire)
    }

    fn wait_for_answer<'a>(&self, asked: MutexGuard<'a, BTreeMap<u64, Asked>>) -> MutexGuard<'a, BTreeMap<u64, Asked>> {
        self.answered.wait_timeout(asked, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0
    }

    fn ask(&self, cookie: u64, what: Asked) {
        locked(&self.asked).insert(cookie, what);
    }

    fn receive(&self, stream: &mut UnixStream) -> Result<()> {
        let mut data = vec![0; BLOCK];
        loop {
            let mut reply = [0; 16];
            stream.read_exact(&mut reply)?;
            let error = u32::from_be_bytes(*reply[4..].first_chunk().context("an error")?);
            let cookie = u64::from_be_bytes(*reply[8..].first_chunk().context("a cookie")?);
            let what = *locked(&self.asked).get(&cookie).context("an answer to nothing")?;
            if error != 0 {
                *locked(&self.errors).entry(error).or_default() += 1;
            } else if let Asked::Read { block, sent } = what {
                stream.read_exact(&mut data)?;
                let mut history = locked(&self.history);
                let seen = history.seen(block, &data);
                history.read(block, seen, sent);
            } else {
                let mut history = locked(&self.history);
                match what {
                    Asked::Write(id) => history.written(id),
                    Asked::Flush(flush) => history.flushed(flush),
                    Asked::Read { .. } => {}
                }
            }
            locked(&self.asked).remove(&cookie);
            self.answered.notify_all();
        }
    }
}

/// The NBD project's doc/proto.md, "Request message"; places in blocks.
fn encode(request: &mut Vec<u8>, flags: u16, command: u16, cookie: u64, first: u64, blocks: u64) {
    let bytes = blocks * BLOCK as u64;
    request.extend(0x2560_9513_u32.to_be_bytes());
    request.extend(flags.to_be_bytes());
    request.extend(command.to_be_bytes());
    request.extend(cookie.to_be_bytes());
    request.extend((first * BLOCK as u64).to_be_bytes());
    request.extend(u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes());
}

/// Reads a whole volume.
pub(crate) fn read_image(socket: &Path, export: &str, history: &Shared) -> Result<Vec<Seen>> {
    let mut client = Client::connect(socket, export)?;
    let blocks = locked(history).blocks();
    let mut image = Vec::with_capacity(blocks);
    let mut chunk = vec![0; 64 * BLOCK];
    for first in (0..blocks).step_by(64) {
        let len = (blocks - first).min(64) * BLOCK;
        client.read(u64::try_from(first * BLOCK)?, &mut chunk[..len])?;
        let history = locked(history);
        image.extend((first as u64..).zip(chunk[..len].chunks(BLOCK)).map(|(block, bytes)| history.seen(block, bytes)));
    }
    Ok(image)
}
