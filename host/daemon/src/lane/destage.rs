//! Destaging and syncing: the lane's two blocking threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use farseal_core::primary::{Planned, Source};
use farseal_core::record::Kind;
use farseal_core::units::{BlockBytes, Extent, Sequence, Ticket};

use super::Event;
use super::buffer::Buffer;
use crate::store::StoreError;
use crate::store::home::Home;
use crate::store::journal::Syncer;

/// A record's content on its way home.
#[derive(Debug)]
pub struct Write {
    pub sequence: Sequence,
    ticket: Ticket,
    extent: Extent,
    offset: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Data(Bytes),
    Zeroes { len: u64, punch: bool },
}

/// What the destager is given.
#[derive(Debug)]
pub enum Job {
    Destage { writes: Vec<Write>, through: Sequence },
    Sync { through: Sequence },
}

impl Write {
    /// What a committed record changes at home, if anything.
    #[must_use]
    pub fn of(planned: &Planned, writes: &BTreeMap<Ticket, Bytes>, block: BlockBytes) -> Option<Self> {
        let (Source::Buffer { ticket, skip }, Some(extent)) = (planned.source, planned.extent) else { return None };
        let len = extent.blocks().byte_len(block).0;
        let content = match planned.kind {
            Kind::Data => {
                let from = usize::try_from(skip.byte_len(block).0).ok()?;
                let until = from.checked_add(usize::try_from(len).ok()?)?;
                let data = writes.get(&ticket)?;
                Content::Data(data.slice(from..until.min(data.len())))
            }
            Kind::Zero => Content::Zeroes { len, punch: false },
            Kind::Trim => Content::Zeroes { len, punch: true },
            Kind::Key | Kind::Cover | Kind::Void | Kind::Cut | Kind::Gap => return None,
        };
        Some(Self { sequence: planned.sequence, ticket, extent, offset: extent.first().0 * block.as_u64(), content })
    }

    fn carry_out(&self, home: &dyn Home) -> Result<(), StoreError> {
        match &self.content {
            Content::Data(bytes) => home.write(self.offset, bytes),
            Content::Zeroes { len, punch } => home.zero(self.offset, *len, *punch),
        }
    }
}

/// Starts the thread that writes to home. It ends when the sender is dropped.
pub fn start(home: Arc<dyn Home>, buffer: Arc<Buffer>, inbox: Sender<Event>) -> Sender<Job> {
    let (jobs, queue) = channel();
    std::thread::spawn(move || {
        let mut failed: Vec<Write> = Vec::new();
        for job in queue {
            let event = match job {
                Job::Destage { writes, through } => {
                    failed.extend(writes);
                    let result = destage(&*home, &buffer, &mut failed);
                    Event::Destaged { through, result }
                }
                Job::Sync { through } => Event::HomeSynced { through, result: home.sync() },
            };
            if inbox.send(event).is_err() {
                break;
            }
        }
    });
    jobs
}

/// Writes in order. What fails stays at the front, and is tried again with the next job.
fn destage(home: &dyn Home, buffer: &Buffer, writes: &mut Vec<Write>) -> Result<(), StoreError> {
    let mut done = 0;
    let result = writes.iter().try_for_each(|write| {
        write.carry_out(home)?;
        buffer.destaged(write.ticket, write.extent);
        done += 1;
        Ok(())
    });
    writes.drain(..done);
    result
}

/// Starts the thread that makes the journal durable. Requests that come while one runs are one request.
pub fn start_syncer(syncer: Syncer, inbox: Sender<Event>) -> Sender<()> {
    let (requests, queue): (Sender<()>, Receiver<()>) = channel();
    std::thread::spawn(move || {
        while queue.recv().is_ok() {
            if inbox.send(Event::Synced(syncer.sync())).is_err() {
                break;
            }
        }
    });
    requests
}
