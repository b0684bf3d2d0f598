//! The lane's thread: it owns the [`Primary`], takes what comes a whole inbox at a time, and carries out what is decided.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use farseal_core::carriage::Carriage;
use farseal_core::frame::HandOver;
use farseal_core::limits::COMMIT_BYTES_MAX;
use farseal_core::primary::{Command, Input, Primary, Room, Settings};
use farseal_core::units::{Extent, Path, Sequence, Ticket};
use farseal_plugin::Digest;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::keyring::Keyring;
use crate::lane::buffer::Buffer;
use crate::lane::commit::Committer;
use crate::lane::intake::Intake;
use crate::lane::keybook::KeyBook;
use crate::lane::keywork::KeyWork;
use crate::lane::outbox::Outbox;
use crate::lane::policywork::PolicyWork;
use crate::lane::state::LaneState;
use crate::lane::{Compare, Done, Event, LaneView, Parts, PathJobs, Request, commit, destage, recover};
use crate::link::dial::Send;
use crate::nbd::completion::Reply;
use crate::plugins::PairPlugins;
use crate::store::home::Home;
use crate::store::journal::{Journal, JournalReader};
use crate::store::{StoreError, wide};

mod events;
mod outputs;
mod records;
mod writes;

/// How many events are taken from the inbox before what follows from them is done: a commit's worth, as are
/// [`COMMIT_BYTES_MAX`] of their bytes.
const INBOX_BATCH: usize = 1024;

/// A commit on its way to the journal.
enum Commit {
    Planned(commit::Plan),
    Sealed(commit::Sealed),
}

pub(super) struct Runner {
    clock: Clock,
    settings: Settings,
    primary: Primary,
    journal: Journal,
    journal_reader: JournalReader,
    committer: Committer,
    /// Commits under way, oldest first: one that cannot be sealed or appended holds those behind it back.
    commits: VecDeque<Commit>,
    stalled: bool,
    buffer: Arc<Buffer>,
    intake: Arc<Intake>,
    /// A group's cut is open, as far as the inbox says: what is placed here is withheld.
    holding: bool,
    home: Arc<dyn Home>,
    writes: BTreeMap<Ticket, Bytes>,
    /// Writes that are copies of what home holds already, or gets from an earlier write.
    copies: BTreeSet<Ticket>,
    reader: Sender<Extent>,
    /// The newest write that core has been told of.
    heard: Ticket,
    /// Reads at once that found a write which core has not been told of: read again when it has.
    early_copies: Vec<Extent>,
    replies: BTreeMap<Ticket, Reply>,
    /// Requests that wait for room.
    backlog: VecDeque<Request>,
    syncer: Sender<()>,
    destager: Sender<destage::Job>,
    destage_queue: VecDeque<destage::Write>,
    outbox: Outbox,
    /// The key record whose pieces go in slots, or went.
    carriage: Option<Arc<Carriage>>,
    paths: BTreeMap<Path, PathJobs>,
    /// The components that need not be sent over a path.
    shipped: BTreeMap<Path, BTreeSet<Digest>>,
    wanted_paths: watch::Sender<u16>,
    keyring: Arc<Keyring>,
    keybook: Arc<KeyBook>,
    /// What the escrow site was told last.
    marked: Sequence,
    plugins: Arc<PairPlugins>,
    keywork: KeyWork,
    policy: PolicyWork,
    operators: VecDeque<Done>,
    /// What a verification asks, answered when core has heard everything before it.
    comparisons: Vec<Compare>,
    /// What the lane tells itself.
    inbox: Sender<Event>,
    /// Who asked for a change of sides that waits for the door.
    swaps: Vec<(Command, Done)>,
    handed_over: Arc<dyn Fn(HandOver) + std::marker::Send + Sync>,
    state: LaneState,
    directory: PathBuf,
    last_seal_fault: Option<String>,
    name: String,
}

impl Runner {
    #[expect(clippy::too_many_arguments, reason = "what the lane was started with, and what it started")]
    pub(super) fn new(
        parts: Parts,
        found: recover::Found,
        inbox: &Sender<Event>,
        buffer: Arc<Buffer>,
        intake: Arc<Intake>,
        reader: Sender<Extent>,
        wanted_paths: watch::Sender<u16>,
        keybook: Arc<KeyBook>,
    ) -> Self {
        let recover::Found { mut journal, recovered, chain, state } = found;
        journal.begin(parts.settings.generation, parts.incarnation);
        let syncer = destage::start_syncer(journal.syncer(), inbox.clone());
        let destager = destage::start(Arc::clone(&parts.home), Arc::clone(&buffer), inbox.clone());
        let policy = PolicyWork::start(&parts, inbox.clone());
        let keywork = parts.keywork.clone().with_inbox(inbox.clone());
        let committer = Committer::new(&parts, chain);
        let mut primary = Primary::new(parts.clock.now(), parts.settings, recovered);
        primary.handle(parts.clock.now(), Input::JournalBytes { bytes: journal.bytes() });
        if let Some(through) = state.seed.as_ref().and_then(|seed| seed.shipped) {
            primary.await_seed(through);
        }
        Self {
            clock: parts.clock,
            settings: parts.settings,
            primary,
            journal_reader: journal.reader(),
            journal,
            committer,
            commits: VecDeque::new(),
            stalled: false,
            buffer,
            intake,
            holding: false,
            home: parts.home,
            writes: BTreeMap::new(),
            copies: BTreeSet::new(),
            reader,
            heard: Ticket(0),
            early_copies: Vec::new(),
            replies: BTreeMap::new(),
            backlog: VecDeque::new(),
            syncer,
            destager,
            destage_queue: VecDeque::new(),
            outbox: Outbox::default(),
            carriage: None,
            paths: BTreeMap::new(),
            shipped: BTreeMap::new(),
            wanted_paths,
            keyring: parts.keyring,
            keybook,
            marked: Sequence::NONE,
            plugins: parts.plugins,
            keywork,
            policy,
            operators: VecDeque::new(),
            comparisons: Vec::new(),
            inbox: inbox.clone(),
            swaps: Vec::new(),
            handed_over: parts.handed_over,
            state,
            directory: parts.directory,
            last_seal_fault: None,
            name: parts.name,
        }
    }

    pub(super) fn run(mut self, events: &Receiver<Event>) {
        self.carry_out();
        // Before there is room for the first write; from then on when the mode changes.
        self.intake.set_answering(self.primary.answers_at_once());
        loop {
            self.intake.pacer.set_delay(self.primary.pace_us());
            let open = self.backlog.is_empty() && self.swaps.is_empty() && self.primary.room() == Room::Open;
            self.intake.set_room(open);
            self.intake.set_standing(self.primary.standing());
            let first = match self.wait(events) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut inputs = Vec::new();
            let mut stop = false;
            let mut bytes = 0;
            let mut next = first;
            let mut taken = 0;
            while let Some(event) = next.take() {
                taken += 1;
                stop |= matches!(event, Event::Stop);
                if let Event::Request(Request::Write { data, .. })
                | Event::Placed { data, .. }
                | Event::CopyRead { read: Ok(Some(data)), .. } = &event
                {
                    bytes += wide(data.len());
                }
                self.take_in(event, &mut inputs);
                // Also what gives no input: whoever asks again with each answer must not keep everybody else waiting.
                if taken < INBOX_BATCH && bytes < COMMIT_BYTES_MAX {
                    next = events.try_recv().ok();
                }
            }
            inputs.push(Input::Tick);
            self.primary.handle_all(self.clock.now(), inputs);
            self.serve_comparisons();
            std::mem::take(&mut self.early_copies).into_iter().for_each(|extent| self.read_at_once(extent));
            self.carry_out();
            self.serve_backlog();
            self.mark();
            if stop {
                break;
            }
        }
        self.finish(events);
    }

    /// Once for everything that came together, and only where there is an escrow site.
    fn mark(&mut self) {
        let Some(deposits) = self.keywork.deposits() else { return };
        let (acked, chain) = self.primary.acked();
        if self.marked != acked {
            self.marked = acked;
            deposits.mark(acked, chain);
        }
    }

    fn wait(&self, events: &Receiver<Event>) -> Result<Event, RecvTimeoutError> {
        let now = self.clock.now();
        let timeout = match self.primary.poll_timeout(now) {
            Some((at, _)) => Duration::from_millis(at.since(now.instant).0.max(1)),
            None => Duration::from_secs(3600),
        };
        events.recv_timeout(timeout)
    }

    /// What is accepted becomes durable, so that a clean stop leaves nothing to lose.
    fn finish(mut self, events: &Receiver<Event>) {
        self.intake.close();
        let mut inputs = Vec::new();
        while let Ok(event) = events.try_recv() {
            self.take_in(event, &mut inputs);
        }
        self.primary.handle_all(self.clock.now(), inputs);
        self.carry_out();
        let ticket = self.ticket();
        let (sender, flushed) = channel();
        self.replies.insert(
            ticket,
            Reply::calling(move |outcome| {
                let _ = sender.send(outcome.is_ok());
            }),
        );
        self.primary.handle(self.clock.now(), Input::Flush { ticket });
        self.carry_out();
        while flushed.try_recv().is_err() {
            let Ok(event) = events.recv_timeout(Duration::from_secs(5)) else { break };
            let mut inputs = Vec::new();
            self.take_in(event, &mut inputs);
            inputs.push(Input::Tick);
            self.primary.handle_all(self.clock.now(), inputs);
            self.carry_out();
        }
        for jobs in self.paths.values() {
            let _ = jobs.send(Send::Close);
        }
    }
    fn serve_comparisons(&mut self) {
        for compare in std::mem::take(&mut self.comparisons) {
            match compare {
                Compare::Begin { within, done } => done(self.primary.begin_comparison(within)),
                Compare::End { within, done } => done(self.primary.end_comparison(within)),
            }
        }
    }
    fn save_state(&mut self) {
        if let Err(error) = self.state.save(&self.directory) {
            self.note_fault("save the lane's state", &error);
        }
    }

    fn view(&self) -> LaneView {
        let status = self.primary.status();
        LaneView {
            rotation_due: status.wake_at,
            status,
            keys: self.primary.keys(),
            limits: self.primary.key_limits(),
            journal_bytes: self.journal.bytes().0,
            flow: self.primary.flow(self.clock.now()),
            last_seal_fault: self.last_seal_fault.clone(),
            seed: self.state.seed.clone(),
        }
    }

    fn note_fault(&self, doing: &str, error: &StoreError) {
        tracing::error!(pair = self.name, %error, "could not {doing}");
    }

    fn ticket(&self) -> Ticket {
        self.intake.ticket()
    }
}
