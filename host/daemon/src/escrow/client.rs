//! A site's end of the line to its escrow: a cell at each beat, full or empty, and each answered with one.
//!
//! The beat goes on whether there is anything to say or not, so nobody who watches the line learns when a key is deposited.
//! Exceptions: what waits when a line comes up goes at once, because that moment shows anyway; and so do the keys that a
//! recovery fetches, and the one cell of a drill.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farseal_core::units::{Millis, PairId, Sequence};
use farseal_plugin::Digest;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::mark::Mark;
use super::shipping::Shipping;
use super::wire::{CELL_BYTES, CellError, DepositRefusal, FromEscrow, ToEscrow, fill, messages};
use crate::keys::card::PeerCard;
use crate::keys::deposit::{Deposit, Receipt};
use crate::keys::tls::{server_name, wrong_peer};
use crate::link::session::HANDSHAKE_MAX;

/// First and longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How long an escrow may take for its answer to a cell: it opens eleven capsules and syncs its disk.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long after a line came up what is to be said goes at once.
const OPENING: Duration = Duration::from_secs(5);
/// Deposits in one cell: as many as surely fit.
const DEPOSITS_IN_A_CELL: usize = 11;

/// What becomes of a deposit. Called once.
pub type DepositDone = Box<dyn FnOnce(Result<Receipt, DepositRefusal>) + Send>;

/// A site's line to an escrow.
#[derive(Debug)]
pub struct EscrowLine {
    /// What the configuration calls the escrow.
    pub name: String,
    pub card: PeerCard,
    jobs: UnboundedSender<Job>,
    state: Arc<Mutex<LineState>>,
    marks: Arc<Marks>,
    /// Held while a record is opened there.
    opening: tokio::sync::Mutex<()>,
}

/// The newest mark of each pair, and whether the escrow has it.
type Marks = Mutex<BTreeMap<PairId, (Mark, bool)>>;

/// Orders about one deposit each that fit a cell, as their answers do.
pub const ASKED_IN_A_CELL: usize = 128;

/// What a console shows of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineState {
    pub up: bool,
    /// Why it is not.
    pub trouble: Option<String>,
    /// Deposits without a receipt.
    pub waiting: usize,
}

/// Why an escrow gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("the escrow cannot be reached: {0}")]
    Down(String),
    #[error("the line to the escrow broke before it answered; ask again")]
    Broke,
}

enum Job {
    Deposit(Box<Deposit>, DepositDone),
    Keep(Digest, Vec<u8>),
    /// What fits one cell.
    Ask(Vec<ToEscrow>, Asker),
}

/// Whoever waits for an answer.
type Asker = oneshot::Sender<Result<Vec<FromEscrow>, NoAnswer>>;

/// What it takes to reach an escrow.
#[derive(Debug)]
pub struct Reach {
    pub name: String,
    pub card: PeerCard,
    /// Tried one after the other.
    pub addresses: Vec<String>,
    pub tls: Arc<ClientConfig>,
    pub beat: Duration,
    pub stop: watch::Receiver<bool>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deposit(deposit, _) => f.debug_tuple("Deposit").field(deposit).finish(),
            Self::Keep(digest, _) => f.debug_tuple("Keep").field(digest).finish(),
            Self::Ask(messages, _) => f.debug_tuple("Ask").field(messages).finish(),
        }
    }
}

impl EscrowLine {
    /// Starts the line, which reconnects for ever.
    #[must_use]
    pub fn start(runtime: &tokio::runtime::Handle, reach: Reach) -> Self {
        let (jobs, queue) = unbounded_channel();
        let state = Arc::<Mutex<LineState>>::default();
        let (name, card, marks) = (reach.name.clone(), reach.card.clone(), Arc::<Marks>::default());
        let task = Task {
            reach,
            queue,
            state: Arc::clone(&state),
            marks: Arc::clone(&marks),
            deposits: BTreeMap::new(),
            order: VecDeque::new(),
            asks: VecDeque::new(),
            shipping: Shipping::default(),
            beat_said: false,
        };
        runtime.spawn(task.run());
        Self { name, card, jobs, state, marks, opening: tokio::sync::Mutex::default() }
    }

    /// Deposits a key; `done` hears of the receipt, which is checked, however long that takes.
    pub fn deposit(&self, deposit: Deposit, done: DepositDone) {
        let _ = self.jobs.send(Job::Deposit(Box::new(deposit), done));
    }

    /// Has the escrow keep a component: part by part, in cells that would be empty.
    pub fn keep(&self, digest: Digest, component: Vec<u8>) {
        let _ = self.jobs.send(Job::Keep(digest, component));
    }

    /// How far a pair's copy is durable: goes with one of the next cells that has room.
    pub fn mark(&self, pair: PairId, mark: Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.get(&pair).is_none_or(|(known, _)| *known != mark) {
            marks.insert(pair, (mark, false));
        }
    }

    /// How far the escrow was told that a pair's copy is durable.
    #[must_use]
    pub fn marked(&self, pair: PairId) -> Option<Sequence> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(&pair).filter(|(_, said)| *said).map(|(mark, _)| mark.through)
    }

    /// Asks something else than to take a deposit.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn ask(&self, message: ToEscrow) -> Result<Vec<FromEscrow>, NoAnswer> {
        self.ask_in_one(vec![message]).await
    }

    /// Asks several things that fit one cell, as their answers do.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn ask_in_one(&self, messages: Vec<ToEscrow>) -> Result<Vec<FromEscrow>, NoAnswer> {
        let (sender, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::Ask(messages, sender));
        answer.await.unwrap_or(Err(NoAnswer::Broke))
    }

    pub(super) fn opening(&self) -> &tokio::sync::Mutex<()> {
        &self.opening
    }

    #[must_use]
    pub fn state(&self) -> LineState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Task {
    reach: Reach,
    queue: UnboundedReceiver<Job>,
    state: Arc<Mutex<LineState>>,
    marks: Arc<Marks>,
    /// Without a receipt, by hash; and in the order in which they came.
    deposits: BTreeMap<[u8; 32], (Vec<u8>, DepositDone)>,
    order: VecDeque<[u8; 32]>,
    asks: VecDeque<(Vec<ToEscrow>, Asker)>,
    shipping: Shipping,
    /// The escrow knows how often this line speaks.
    beat_said: bool,
}

/// Why a line is not up.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("the escrow has no addresses: add addresses = [\"HOST:PORT\"] to its [[peer]]")]
    NoAddress,
    #[error("cannot reach {address}: {source}")]
    Unreachable { address: String, source: std::io::Error },
    #[error("{0}")]
    Tls(String),
    #[error("the escrow did not answer in {} s", ANSWER_WAIT.as_secs())]
    Slow,
    #[error("the line broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Cell(#[from] CellError),
}

impl Task {
    async fn run(mut self) {
        let mut wait = RETRY_FIRST;
        let mut stop = self.reach.stop.clone();
        let mut addresses = self.reach.addresses.clone().into_iter().cycle();
        loop {
            let connected = tokio::select! {
                connected = connect(&self.reach, addresses.next()) => connected,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let error = match connected {
                Ok(stream) => {
                    wait = RETRY_FIRST;
                    tracing::info!(escrow = self.reach.name, "the line to the escrow is up");
                    self.note(true, None);
                    self.forget_said_marks();
                    self.beat_said = false;
                    tokio::select! {
                        ended = self.talk(stream) => ended,
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                }
                Err(error) => error,
            };
            let text = error.to_string();
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.as_ref() != Some(&text) {
                tracing::warn!(escrow = self.reach.name, "{text}");
            }
            self.note(false, Some(text));
            self.fail_asks();
            self.shipping.begin_anew();
            let until = Instant::now() + wait;
            wait = (wait * 2).min(RETRY_LONGEST);
            // Whoever asks does not wait for the next attempt: it is made for him.
            while self.asks.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => break,
                    job = self.queue.recv() => if !self.take(job) { return },
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        }
    }

    /// One cell at each beat until the line breaks.
    async fn talk(&mut self, mut stream: TlsStream<TcpStream>) -> LineError {
        let opened = Instant::now();
        let mut beat = interval(self.reach.beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let at_once = self.asks.front().is_some_and(|(asks, _)| asks.iter().all(ToEscrow::goes_at_once))
                || (opened.elapsed() < OPENING && !(self.order.is_empty() && self.asks.is_empty()));
            if !at_once {
                tokio::select! {
                    _ = beat.tick() => {}
                    job = self.queue.recv() => {
                        self.take(job);
                        continue;
                    }
                }
            }
            while let Ok(job) = self.queue.try_recv() {
                self.take(Some(job));
            }
            if let Err(error) = self.exchange(&mut stream).await {
                return error;
            }
        }
    }

    /// Sends one cell and takes the answer. An ask has a cell of its own, so that its answer is the next cell's.
    async fn exchange(&mut self, stream: &mut TlsStream<TcpStream>) -> Result<(), LineError> {
        let ask = self.asks.pop_front();
        let mut queue: VecDeque<ToEscrow> = match &ask {
            Some((messages, _)) => messages.clone().into(),
            None => {
                let first = self.order.iter().take(DEPOSITS_IN_A_CELL);
                first
                    .filter_map(|hash| self.deposits.get(hash))
                    .map(|(bytes, _)| ToEscrow::Deposit(bytes.clone()))
                    .collect()
            }
        };
        if queue.is_empty() {
            queue.extend(self.shipping.next().map(ToEscrow::Component));
        }
        // An ask has its cell for itself.
        let marks = if ask.is_none() { self.unsaid_marks() } else { Vec::new() };
        if ask.is_none() && !std::mem::replace(&mut self.beat_said, true) {
            queue.push_front(ToEscrow::Beat {
                every: Millis(u64::try_from(self.reach.beat.as_millis()).unwrap_or(u64::MAX)),
            });
        }
        queue.extend(marks.iter().map(|(pair, mark)| ToEscrow::Mark { pair: *pair, mark: *mark }));
        let cell = fill(&mut queue);
        let left: Vec<PairId> = queue.iter().filter_map(marked).collect();
        let talked = timeout(ANSWER_WAIT, async {
            stream.write_all(&cell).await?;
            stream.flush().await?;
            let mut cell = vec![0; CELL_BYTES];
            stream.read_exact(&mut cell).await?;
            Ok(messages::<FromEscrow>(&cell)?)
        });
        let came = match talked.await.unwrap_or(Err(LineError::Slow)) {
            Ok(came) => came,
            Err(error) => {
                ask.into_iter().for_each(|(_, done)| _ = done.send(Err(NoAnswer::Broke)));
                return Err(error);
            }
        };
        let said = marks.iter().filter(|(pair, _)| !left.contains(pair));
        said.for_each(|(pair, mark)| self.said_mark(*pair, mark));
        for message in &came {
            if let FromEscrow::Kept { digest, whole } = message {
                self.shipping.answered(Digest(*digest), *whole);
            }
        }
        let (deposits, answers): (Vec<_>, Vec<_>) = came
            .into_iter()
            .partition(|message| matches!(message, FromEscrow::Receipt(_) | FromEscrow::Refused { .. }));
        deposits.into_iter().for_each(|message| self.deposited(message));
        ask.into_iter().for_each(|(_, done)| _ = done.send(Ok(answers.clone())));
        self.note(true, None);
        Ok(())
    }

    fn unsaid_marks(&self) -> Vec<(PairId, Mark)> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.iter().filter(|(_, (_, said))| !said).map(|(pair, (mark, _))| (*pair, *mark)).collect()
    }

    /// What the escrow heard last it may have lost.
    fn forget_said_marks(&self) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.values_mut().for_each(|(_, said)| *said = false);
    }

    fn said_mark(&self, pair: PairId, mark: &Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, said)) = marks.get_mut(&pair).filter(|(known, _)| known == mark) {
            *said = true;
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "whoever asked gets the others")]
    fn deposited(&mut self, message: FromEscrow) {
        let (hash, outcome) = match message {
            FromEscrow::Receipt(bytes) => match Receipt::decode(&bytes) {
                Ok(receipt) if receipt.verify(&self.reach.card, receipt.deposit).is_ok() => {
                    (receipt.deposit, Ok(receipt))
                }
                Ok(_) | Err(_) => {
                    return tracing::error!(
                        escrow = self.reach.name,
                        "a receipt that the escrow did not sign came over its line"
                    );
                }
            },
            FromEscrow::Refused { deposit, why } => (deposit, Err(why)),
            _ => return,
        };
        // One that is not awaited was answered before: over a line that broke meanwhile.
        if let Some((_, done)) = self.deposits.remove(&hash) {
            self.order.retain(|waiting| *waiting != hash);
            done(outcome);
        }
    }

    /// `false` when nobody is left to ask anything.
    fn take(&mut self, job: Option<Job>) -> bool {
        match job {
            None => return false,
            Some(Job::Deposit(deposit, done)) => {
                let hash = deposit.hash();
                self.deposits.insert(hash, (deposit.encode(), done));
                self.order.push_back(hash);
            }
            Some(Job::Keep(digest, bytes)) => self.shipping.add(digest, bytes),
            Some(Job::Ask(messages, done)) => self.asks.push_back((messages, done)),
        }
        true
    }

    /// Whoever asks while the escrow cannot be reached hears so.
    fn fail_asks(&mut self) {
        let trouble = self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone().unwrap_or_default();
        for (_, done) in self.asks.drain(..) {
            let _ = done.send(Err(NoAnswer::Down(trouble.clone())));
        }
    }

    fn note(&self, up: bool, trouble: Option<String>) {
        let waiting = self.deposits.len();
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = LineState { up, trouble, waiting };
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "one of many kinds")]
fn marked(message: &ToEscrow) -> Option<PairId> {
    match message {
        ToEscrow::Mark { pair, .. } => Some(*pair),
        _ => None,
    }
}

async fn connect(reach: &Reach, address: Option<String>) -> Result<TlsStream<TcpStream>, LineError> {
    let address = address.ok_or(LineError::NoAddress)?;
    let dial = async {
        let unreachable = |source| LineError::Unreachable { address: address.clone(), source };
        let socket = TcpStream::connect(&address).await.map_err(unreachable)?;
        socket.set_nodelay(true).map_err(unreachable)?;
        let connector = TlsConnector::from(Arc::clone(&reach.tls));
        connector
            .connect(server_name(&reach.card), socket)
            .await
            .map_err(|error| LineError::Tls(wrong_peer(&error).map_or_else(|| error.to_string(), ToString::to_string)))
    };
    timeout(HANDSHAKE_MAX, dial).await.unwrap_or(Err(LineError::Slow))
}
