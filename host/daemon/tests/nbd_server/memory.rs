//! An export in memory that can hold back its answers, and a server on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farseal::nbd::export::{
    Answer, BASE_ALLOCATION, Errno, Export, ExportInfo, Extent, Piece, Reply, Request, STATE_HOLE, STATE_ZERO,
};
use farseal::nbd::pool::Pool;
use farseal::nbd::registry::Registry;
use farseal::nbd::server::{Config, Endpoint, Listen, Server};
use farseal::nbd::tls::TlsMode;

const PAGE: usize = 4096;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    changed: Condvar,
    read_only: bool,
}

#[derive(Default)]
struct State {
    data: Vec<u8>,
    /// By page.
    allocated: Vec<bool>,
    holding: bool,
    held: Vec<(Request, Reply)>,
    submitted: usize,
    flushes: usize,
}

impl Memory {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self::sized(size))
    }

    pub(crate) fn read_only(size: usize) -> Arc<Self> {
        Arc::new(Self { read_only: true, ..Self::sized(size) })
    }

    fn sized(size: usize) -> Self {
        let state = State { data: vec![0; size], allocated: vec![false; size.div_ceil(PAGE)], ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    pub(crate) fn contents(&self) -> Vec<u8> {
        self.state.lock().unwrap().data.clone()
    }

    pub(crate) fn flushes(&self) -> usize {
        self.state.lock().unwrap().flushes
    }

    /// From here on, requests stay unanswered.
    pub(crate) fn hold(&self) {
        self.state.lock().unwrap().holding = true;
    }

    /// Waits until so many requests were submitted in all.
    pub(crate) fn await_submitted(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, PATIENCE, |state| state.submitted < count).unwrap();
        assert!(state.submitted >= count, "only {} requests were submitted", state.submitted);
    }

    pub(crate) fn submitted(&self) -> usize {
        self.state.lock().unwrap().submitted
    }

    /// What is held back, to be answered by the test or by [`Memory::carry_out`].
    pub(crate) fn take_held(&self) -> Vec<(Request, Reply)> {
        let mut state = self.state.lock().unwrap();
        state.holding = false;
        std::mem::take(&mut state.held)
    }

    pub(crate) fn carry_out(&self, request: &Request) -> Result<Answer, Errno> {
        self.state.lock().unwrap().carry_out(request)
    }
}

impl Export for Memory {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            description: "in memory".to_owned(),
            size: self.state.lock().unwrap().data.len().try_into().unwrap(),
            read_only: self.read_only,
            preferred_block: 4096,
        }
    }

    fn contexts(&self) -> Vec<String> {
        vec![BASE_ALLOCATION.to_owned(), "farseal:test".to_owned()]
    }

    fn submit(&self, request: Request, reply: Reply) {
        let mut state = self.state.lock().unwrap();
        state.submitted += 1;
        if state.holding {
            state.held.push((request, reply));
        } else {
            reply.done(state.carry_out(&request));
        }
        self.changed.notify_all();
    }
}

impl State {
    fn carry_out(&mut self, request: &Request) -> Result<Answer, Errno> {
        match *request {
            Request::Read { offset, len } => {
                return Ok(Answer::Pieces(self.pieces(place(offset), span(len))));
            }
            Request::Write { offset, ref data, .. } => {
                self.data[place(offset)..][..data.len()].copy_from_slice(data);
                self.allocate(place(offset), data.len(), true);
            }
            Request::Flush => self.flushes += 1,
            Request::WriteZeroes { fast: true, .. } => return Err(Errno::NotSup),
            Request::Trim { offset, len, .. } | Request::WriteZeroes { offset, len, .. } => {
                self.data[place(offset)..][..span(len)].fill(0);
                let start = place(offset).next_multiple_of(PAGE);
                let end = (place(offset) + span(len)) / PAGE * PAGE;
                self.allocate(start, end.saturating_sub(start), false);
            }
            Request::Cache { .. } => {}
            Request::BlockStatus { context, offset, len, .. } => {
                let pieces = self.pieces(place(offset), span(len)).into_iter();
                let extent = |piece| match piece {
                    Piece::Data(bytes) => Extent { len: bytes.len().try_into().unwrap(), flags: context.0 * 16 },
                    Piece::Zero(len) => Extent { len, flags: context.0 * 16 + (STATE_HOLE | STATE_ZERO) },
                };
                return Ok(Answer::Extents(pieces.map(extent).collect()));
            }
        }
        Ok(Answer::Done)
    }

    fn allocate(&mut self, offset: usize, len: usize, allocated: bool) {
        if len > 0 {
            self.allocated[offset / PAGE..(offset + len).div_ceil(PAGE)].fill(allocated);
        }
    }

    /// The range page by page, to make the server join them.
    fn pieces(&self, mut offset: usize, len: usize) -> Vec<Piece> {
        let (end, mut pieces) = (offset + len, Vec::new());
        while offset < end {
            let next = ((offset / PAGE + 1) * PAGE).min(end);
            pieces.push(if self.allocated[offset / PAGE] {
                Piece::Data(Bytes::copy_from_slice(&self.data[offset..next]))
            } else {
                Piece::Zero((next - offset).try_into().unwrap())
            });
            offset = next;
        }
        pieces
    }
}

fn place(offset: u64) -> usize {
    offset.try_into().unwrap()
}

fn span(len: u32) -> usize {
    len.try_into().unwrap()
}

/// A server on a free port of the loopback, serving `export` as "disk".
pub(crate) fn serve(export: Arc<Memory>, tls: TlsMode) -> (Server, SocketAddr, Registry) {
    serve_with(export, tls, Config::default())
}

pub(crate) fn serve_with(export: Arc<Memory>, tls: TlsMode, config: Config) -> (Server, SocketAddr, Registry) {
    let registry = Registry::default();
    registry.add("disk", export).unwrap();
    let endpoint = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let config = Config { listen: vec![Listen { endpoint, tls }], ..config };
    let server = Server::start(&config, registry.clone(), Pool::default()).unwrap();
    let Endpoint::Tcp(address) = server.endpoints()[0] else { panic!("a TCP endpoint") };
    (server, address, registry)
}

/// Stops in order, from a test that is not async.
pub(crate) fn stop(server: Server) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(server.stop());
}

/// Waits until the counter has this value.
pub(crate) fn await_counter(server: &Server, name: &str, expected: u64) {
    let value = || server.counters().snapshot().iter().find(|(counter, _)| *counter == name).unwrap().1;
    let deadline = std::time::Instant::now() + PATIENCE;
    while value() != expected {
        assert!(std::time::Instant::now() < deadline, "{name} is {}, expected {expected}", value());
        std::thread::yield_now();
    }
}
