//! A volume that no pair copies, served as it is.
//!
//! What waits for the disk (FLUSH, FUA, TRIM, WRITE_ZEROES) has a thread of its own for each volume: the thread of a connection
//! carries those of other volumes, too. A FLUSH is carried out after whatever was answered before it came.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use bytes::BytesMut;

use crate::lane::errno_of;
use crate::nbd::completion::{Outcome, Reply};
use crate::nbd::export::{Answer, Errno, Export, ExportInfo, Extent, Request, STATE_HOLE, STATE_ZERO};
use crate::store::StoreError;
use crate::store::home::Home;

/// Requests that may wait for the disk: eight connections' worth. One that finds no place waits where it came.
const WAITING_MAX: usize = 1024;

/// An export straight over a home.
#[derive(Debug)]
pub struct PlainVolume {
    home: Arc<dyn Home>,
    description: String,
    /// To the thread that waits for the disk, which ends with this; none if it could not be started.
    waiting: Option<SyncSender<Job>>,
}

/// What waits for the disk, and its answer.
#[derive(Debug)]
struct Job {
    work: Work,
    reply: Reply,
}

/// Zeroes first, if any, and then makes all that was written durable, if it has to be.
#[derive(Clone, Copy, Debug)]
struct Work {
    zeroes: Option<Zeroes>,
    durable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Zeroes {
    offset: u64,
    len: u32,
    punch: bool,
}

impl PlainVolume {
    #[must_use]
    pub fn new(home: Arc<dyn Home>, description: String) -> Self {
        let (waiting, jobs) = sync_channel(WAITING_MAX);
        let theirs = Arc::clone(&home);
        let thread = thread::Builder::new().name("plain-volume".into()).spawn(move || work_off(&*theirs, &jobs));
        if let Err(error) = &thread {
            tracing::warn!(%error, "a volume has no thread of its own: what waits for its disk holds up others");
        }
        Self { home, description, waiting: thread.is_ok().then_some(waiting) }
    }

    fn read(&self, offset: u64, len: u32) -> Result<Answer, StoreError> {
        let mut bytes = BytesMut::zeroed(usize::try_from(len).unwrap_or(usize::MAX));
        self.home.read(offset, &mut bytes)?;
        Ok(Answer::Data(bytes.freeze()))
    }

    fn allocation(&self, offset: u64, len: u32, one_only: bool) -> Result<Answer, StoreError> {
        let runs = self.home.allocated(offset, u64::from(len))?;
        let most = if one_only { 1 } else { runs.len() };
        let extents = runs.into_iter().take(most).map(|(len, data)| Extent {
            len: u32::try_from(len).unwrap_or(u32::MAX),
            flags: if data { 0 } else { STATE_HOLE | STATE_ZERO },
        });
        Ok(Answer::Extents(extents.collect()))
    }

    fn wait(&self, work: Work, reply: Reply) {
        let job = Job { work, reply };
        let left = match &self.waiting {
            Some(waiting) => waiting.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = left {
            carry_out(&*self.home, vec![job]);
        }
    }
}

/// Until the volume is gone.
fn work_off(home: &dyn Home, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        carry_out(home, [first].into_iter().chain(jobs.try_iter().take(WAITING_MAX)).collect());
    }
}

/// Carries jobs out in their order; one sync serves all that want one.
fn carry_out(home: &dyn Home, jobs: Vec<Job>) {
    let mut durable = Vec::new();
    for Job { work, reply } in jobs {
        let zeroed = match work.zeroes {
            Some(Zeroes { offset, len, punch }) => home.zero(offset, u64::from(len), punch),
            None => Ok(()),
        };
        match zeroed {
            Ok(()) if work.durable => durable.push(reply),
            ended => reply.done(outcome(ended.map(|()| Answer::Done))),
        }
    }
    if !durable.is_empty() {
        let synced = outcome(home.sync().map(|()| Answer::Done));
        durable.into_iter().for_each(|reply| reply.done(synced.clone()));
    }
}

fn outcome(result: Result<Answer, StoreError>) -> Outcome {
    result.map_err(|error| -> Errno {
        tracing::error!(%error, "a request failed");
        errno_of(&error)
    })
}

impl Export for PlainVolume {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            description: self.description.clone(),
            size: self.home.bytes(),
            read_only: false,
            preferred_block: 4096,
        }
    }

    fn submit(&self, request: Request, reply: Reply) {
        match request {
            Request::Read { offset, len } => reply.done(outcome(self.read(offset, len))),
            Request::Write { offset, data, fua } => match self.home.write(offset, &data) {
                Ok(()) if fua => self.wait(Work { zeroes: None, durable: true }, reply),
                ended => reply.done(outcome(ended.map(|()| Answer::Done))),
            },
            Request::Flush => self.wait(Work { zeroes: None, durable: true }, reply),
            Request::Trim { offset, len, fua } => {
                self.wait(Work { zeroes: Some(Zeroes { offset, len, punch: true }), durable: fua }, reply);
            }
            Request::WriteZeroes { offset, len, fua, no_hole, .. } => {
                self.wait(Work { zeroes: Some(Zeroes { offset, len, punch: !no_hole }), durable: fua }, reply);
            }
            Request::Cache { .. } => reply.done(Ok(Answer::Done)),
            Request::BlockStatus { offset, len, one_only, .. } => {
                reply.done(outcome(self.allocation(offset, len, one_only)));
            }
        }
    }
}
