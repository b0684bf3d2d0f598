//! The lead's driver: one thread owns every group's machines, tells members what they decide, and keeps what must not be
//! forgotten.

mod answers;
mod presets;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use farseal_core::group::{Command, Common, Coordinator, Event, Input, Numbers, Output, Phase, Settings};
use farseal_core::limits::{CUT_INTERVAL, GROUP_LANES_MAX};
use farseal_core::units::{Instant, Millis, Now, PairId, Ticket};

use self::presets::Word;
use super::store::{Control, ControlError, ControlStore, GroupRecord, KnownPair};
use super::words::{
    Ask, GroupCommand, GroupPair, GroupStatus, MemberPair, Named, Order, Part, Reply, Report, SiteStatus, SiteView,
};
use crate::clock::Clock;
use crate::control::api::{CommandReply, ErrorCode, ErrorReply, NodeStatus};
use crate::node::{points, preset};

/// How often members are told how the site is, and hear that the lead is there.
const STATUS_EVERY: Millis = Millis(250);
/// How often the last cut that keepers were told of is kept: after a restart they say themselves what they hold.
const HELD_EVERY: Millis = Millis(10_000);

/// A member's connection, as the lead counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MemberId(pub u64);

/// Takes orders to a member; never waits.
pub type Downlink = Box<dyn Fn(Order) + Send>;

/// Something for the lead's thread.
pub enum ToLead {
    Joined { member: MemberId, downlink: Downlink },
    Report { member: MemberId, report: Report },
    Left { member: MemberId },
    Stop,
}

/// What a lead is made of.
pub struct Parts {
    pub node: String,
    pub clock: Clock,
    pub store: Box<dyn ControlStore>,
    /// Between two cuts, for each group that says; [`CUT_INTERVAL`] for the others.
    pub intervals: BTreeMap<String, Option<Millis>>,
}

impl std::fmt::Debug for ToLead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToLead")
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Starts the lead's thread on what its store holds.
///
/// # Errors
/// [`ControlError`].
pub fn start(parts: Parts, inbox: Receiver<ToLead>) -> Result<(), ControlError> {
    let control = parts.store.load()?;
    let mut lead = Lead::new(parts, control);
    std::thread::spawn(move || lead.run(&inbox));
    Ok(())
}

struct Member {
    downlink: Downlink,
    node: String,
    pairs: BTreeSet<PairId>,
    status: Option<NodeStatus>,
}

struct Group {
    record: GroupRecord,
    coordinator: Coordinator,
    common: Common,
    interval: Option<Millis>,
    /// What each pair of the group does here, of those that were heard of since the lead started.
    writes: BTreeMap<PairId, bool>,
    held_kept_at: Instant,
    /// Why pairs cannot change sides, as their nodes said last.
    obstacles: BTreeMap<PairId, String>,
    due: presets::Due,
}

/// Who waits for an answer.
struct Waiting {
    member: MemberId,
    ask: u64,
    group: String,
    command: &'static str,
    /// What it means for the group's pause once it is done.
    word: Option<Word>,
}

struct Lead {
    node: String,
    clock: Clock,
    store: Box<dyn ControlStore>,
    intervals: BTreeMap<String, Option<Millis>>,
    numbers: Numbers,
    pairs: BTreeMap<PairId, KnownPair>,
    groups: BTreeMap<String, Group>,
    members: BTreeMap<MemberId, Member>,
    /// Where each pair is reached.
    reached: BTreeMap<PairId, MemberId>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Takeovers that members carry out, by group.
    takeovers: Vec<Waiting>,
    /// Takeovers for which the pairs are asked whether they can, by group.
    asked: BTreeMap<String, takeover::Asked>,
    /// Of the next question whether they can. It begins with the time: what was answered to a lead before this one is of another.
    next_round: u64,
    next_ticket: u64,
    status_at: Instant,
}

impl Lead {
    fn new(parts: Parts, control: Control) -> Self {
        let now = parts.clock.now();
        let mut lead = Self {
            node: parts.node,
            clock: parts.clock,
            store: parts.store,
            intervals: parts.intervals,
            numbers: Numbers::after(control.reserved),
            pairs: control.pairs,
            groups: BTreeMap::new(),
            members: BTreeMap::new(),
            reached: BTreeMap::new(),
            waiting: BTreeMap::new(),
            takeovers: Vec::new(),
            asked: BTreeMap::new(),
            next_round: now.wall.0,
            next_ticket: 0,
            status_at: now.instant,
        };
        for (name, record) in control.groups {
            lead.add_group(now, &name, record);
        }
        lead.set_lanes();
        lead
    }

    fn run(&mut self, inbox: &Receiver<ToLead>) {
        loop {
            let now = self.clock.now().instant;
            let due = self.groups.values().filter_map(|group| group.coordinator.poll_timeout()).min();
            let due = due.into_iter().chain(self.presets_due()).min();
            let due = due.unwrap_or(self.status_at).min(self.status_at);
            // Rounded up: waking before the millisecond is over would do nothing.
            let wait = Duration::from_millis(due.since(now).0.saturating_add(1));
            let mut next = match inbox.recv_timeout(wait) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(event) = next.take() {
                if matches!(event, ToLead::Stop) {
                    return self.keep_held();
                }
                self.take(event);
                next = inbox.try_recv().ok();
            }
            let names: Vec<String> = self.groups.keys().cloned().collect();
            names.iter().for_each(|name| self.tell(name, Input::Tick));
            self.follow_presets();
            self.tell_status();
        }
    }

    fn take(&mut self, event: ToLead) {
        match event {
            ToLead::Joined { member, downlink } => {
                let joined = Member { downlink, node: String::new(), pairs: BTreeSet::new(), status: None };
                self.members.insert(member, joined);
            }
            ToLead::Report { member, report } => self.hear(member, report),
            ToLead::Left { member } => self.left(member),
            ToLead::Stop => {}
        }
    }

    fn hear(&mut self, member: MemberId, report: Report) {
        match report {
            Report::Hello { node, pairs } => self.hello(member, node, pairs),
            Report::Stands { pair, standing } => self.tell_of(pair, Input::Stands { lane: pair, standing }),
            Report::Opened { pair, cut } => self.tell_of(pair, Input::Opened { lane: pair, cut }),
            Report::Released { pair, cut, whole } => self.tell_of(pair, Input::Released { lane: pair, cut, whole }),
            Report::Cuts { pair, cuts } => {
                let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
                let Some(group) = self.groups.get_mut(&name) else { return };
                if group.common.heard(pair, cuts) {
                    self.keep_named(&name);
                    self.tell_limit(&name);
                }
            }
            Report::Ready { pair, obstacle } => self.ready(pair, obstacle),
            Report::CanTakeOver { pair, round, obstacle, cut } => self.can_take_over((pair, round), obstacle, cut),
            Report::Declared { pair, refusal } => self.declared(pair, refusal),
            Report::Word { pair } => self.hear_word(pair),
            Report::Unheard { pair, unheard } => self.hear_unheard(pair, *unheard),
            Report::Node(status) => {
                if let Some(member) = self.members.get_mut(&member) {
                    member.status = Some(*status);
                }
            }
            Report::Ask { id, ask } => self.asked(member, id, ask),
        }
    }

    /// A member says which pairs it has. Those that it had before and does not name are no longer of the site.
    fn hello(&mut self, member: MemberId, node: String, pairs: Vec<MemberPair>) {
        let now = self.clock.now();
        let named: BTreeSet<PairId> = pairs.iter().map(|pair| pair.id).collect();
        let gone = self.pairs.iter().filter(|(id, known)| known.node == node && !named.contains(id));
        let gone: Vec<PairId> = gone.map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|pair| self.forget(pair));
        // A node that joins twice has left without a word.
        let before = self.members.iter().find(|(id, other)| **id != member && other.node == node);
        if let Some((before, _)) = before {
            self.left(*before);
        }
        let Some(joined) = self.members.get_mut(&member) else { return };
        (joined.node, joined.pairs) = (node.clone(), named);
        for pair in &pairs {
            let known = KnownPair { name: pair.name.clone(), node: node.clone(), group: pair.group.clone() };
            if self.pairs.get(&pair.id) != Some(&known) {
                if self.pairs.len() >= GROUP_LANES_MAX {
                    tracing::error!(pair = pair.name, "the site has too many pairs: this one is in no group");
                    continue;
                }
                if let Err(error) = self.store.put_pair(pair.id, Some(&known)) {
                    tracing::error!(pair = pair.name, %error, "the site's control information could not be kept");
                    continue;
                }
                self.pairs.insert(pair.id, known);
            }
            if !self.groups.contains_key(&pair.group) {
                self.add_group(now, &pair.group, GroupRecord::default());
            }
            self.reached.insert(pair.id, member);
        }
        self.set_lanes();
        for pair in pairs {
            self.pair_joined(pair);
        }
        self.end_takeovers();
    }

    fn pair_joined(&mut self, pair: MemberPair) {
        let Some(group) = self.groups.get_mut(&pair.group) else { return };
        match pair.part {
            Part::Writes { standing } => {
                let before = group.writes.insert(pair.id, true);
                let again = before == Some(true) && self.reached_before(&pair.group, pair.id);
                let input = if again {
                    Input::Stands { lane: pair.id, standing }
                } else {
                    Input::Joined { lane: pair.id, standing }
                };
                self.tell(&pair.group, input);
            }
            Part::Keeps { cuts } => {
                let wrote = group.writes.insert(pair.id, false) == Some(true);
                match cuts {
                    Some(cuts) => _ = group.common.heard(pair.id, cuts),
                    None => group.common.forget(pair.id),
                }
                let (taking_over, open_at) = (group.record.taking_over.is_some(), group.record.open_at.clone());
                let (declared, turning) =
                    (group.record.declared.is_some(), matches!(group.record.phase, Phase::Turning { .. }));
                if declared {
                    self.record(&pair.group, |record| record.declared = None);
                }
                if wrote || turning {
                    self.tell(&pair.group, Input::Turned { lane: pair.id });
                }
                self.tell_limit(&pair.group);
                if taking_over {
                    self.order(pair.id, Order::TakeOver { pair: pair.id, at: open_at });
                }
            }
        }
    }

    /// The coordinator knows the lane in this session: another pair of its node has changed its part.
    fn reached_before(&self, group: &str, pair: PairId) -> bool {
        let now = self.clock.now();
        let group = self.groups.get(group);
        group.is_some_and(|group| !group.coordinator.status(now).missing.contains(&pair))
    }

    fn left(&mut self, member: MemberId) {
        let Some(gone) = self.members.remove(&member) else { return };
        if !gone.node.is_empty() {
            tracing::warn!(node = gone.node, "a node of the site cannot be reached");
        }
        for pair in gone.pairs {
            if self.reached.get(&pair) == Some(&member) {
                self.reached.remove(&pair);
                self.cannot_be_asked(pair);
                self.tell_of(pair, Input::Left { lane: pair });
            }
        }
        self.waiting.retain(|_, waiting| waiting.member != member);
        self.takeovers.retain(|waiting| waiting.member != member);
    }

    fn forget(&mut self, pair: PairId) {
        if let Err(error) = self.store.put_pair(pair, None) {
            return tracing::error!(%error, "the site's control information could not be kept");
        }
        self.reached.remove(&pair);
        if let Some(known) = self.pairs.remove(&pair) {
            tracing::info!(pair = known.name, group = known.group, "a pair is no longer of the site");
        }
        self.groups.values_mut().for_each(|group| _ = group.writes.remove(&pair));
    }

    fn add_group(&mut self, now: Now, name: &str, record: GroupRecord) {
        let interval = self.intervals.get(name).copied().unwrap_or(Some(CUT_INTERVAL));
        let coordinator = Coordinator::new(now, Settings { interval }, BTreeSet::new(), record.phase);
        let cut = record.taking_over.unwrap_or(record.held);
        let common = Common::new(BTreeSet::new(), cut, record.taking_over.is_some());
        let group = Group {
            record,
            coordinator,
            common,
            interval,
            writes: BTreeMap::new(),
            held_kept_at: now.instant,
            obstacles: BTreeMap::new(),
            due: presets::Due::default(),
        };
        self.groups.insert(name.to_owned(), group);
    }

    /// Every group has the pairs that name it.
    fn set_lanes(&mut self) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            let lanes: BTreeSet<PairId> =
                self.pairs.iter().filter(|(_, known)| known.group == name).map(|(id, _)| *id).collect();
            let Some(group) = self.groups.get_mut(&name) else { continue };
            group.common.set_lanes(&lanes);
            group.writes.retain(|pair, _| lanes.contains(pair));
            self.tell(&name, Input::Lanes(lanes));
            self.tell_limit(&name);
        }
    }

    fn tell_of(&mut self, pair: PairId, input: Input) {
        if let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) {
            self.tell(&name, input);
        }
    }

    /// Has a group's coordinator take something in, and does what it decides.
    fn tell(&mut self, name: &str, input: Input) {
        let now = self.clock.now();
        let Some(group) = self.groups.get_mut(name) else { return };
        group.coordinator.handle(now, &mut self.numbers, input);
        while let Some(output) = self.groups.get_mut(name).and_then(|group| group.coordinator.poll_output()) {
            self.carry_out(now, name, output);
        }
    }

    fn carry_out(&mut self, now: Now, name: &str, output: Output) {
        match output {
            Output::Reserve { through } => match self.store.reserve(through) {
                Ok(()) => {
                    self.numbers.reserved(through);
                    if let Some(group) = self.groups.get_mut(name) {
                        group.coordinator.handle(now, &mut self.numbers, Input::Reserved);
                    }
                }
                Err(error) => {
                    tracing::error!(group = name, %error, "no cut is made: its number could not be kept");
                    if let Some(group) = self.groups.get_mut(name) {
                        group.coordinator.handle(now, &mut self.numbers, Input::NotReserved);
                    }
                }
            },
            Output::Open { lane, cut, lanes } => self.order(lane, Order::Open { pair: lane, cut, lanes }),
            Output::Release { lane, cut } => self.order(lane, Order::Release { pair: lane, cut }),
            Output::Confirm { lane, cut, lanes, name } => {
                self.order(lane, Order::Confirm { pair: lane, cut, lanes, name });
            }
            Output::Pause { lane } => self.order(lane, Order::Pause { pair: lane }),
            Output::Resume { lane } => self.order(lane, Order::Resume { pair: lane }),
            Output::PrepareTurn { lane } => self.order(lane, Order::PrepareTurn { pair: lane }),
            Output::Quiesce { lane } => self.order(lane, Order::Quiesce { pair: lane }),
            Output::GoOn { lane } => self.order(lane, Order::GoOn { pair: lane }),
            Output::Declare { lane } => self.order(lane, Order::Declare { pair: lane }),
            Output::HandOver { lane } => self.order(lane, Order::HandOver { pair: lane }),
            Output::Persist { phase } => {
                if !self.record(name, |record| record.phase = phase)
                    && let Some(group) = self.groups.get_mut(name)
                {
                    group.coordinator.handle(now, &mut self.numbers, Input::NotPersisted);
                }
            }
            Output::Named { name: called, cut, wall } => {
                self.record(name, |record| record.add_named(Named { name: called, cut, wall }));
            }
            Output::Answer { ticket, result } => self.answer(name, ticket, result),
            Output::Event(event) => self.say(name, &event),
        }
    }

    /// Says whether it is durable; what is not is with the next change that is.
    fn record(&mut self, name: &str, change: impl FnOnce(&mut GroupRecord)) -> bool {
        let Some(group) = self.groups.get_mut(name) else { return false };
        change(&mut group.record);
        if let Err(error) = self.store.put_group(name, &group.record) {
            tracing::error!(group = name, %error, "the site's control information could not be kept");
            return false;
        }
        true
    }

    fn say(&self, name: &str, event: &Event) {
        let copied_from = |pairs: &[PairId]| self.names(pairs);
        // At the site that keeps, the writers are at the other one.
        if !self.groups.get(name).is_some_and(|group| group.writes.values().any(|writes| *writes)) {
            return;
        }
        match event {
            Event::Abandoned { cut, late, in_a_row } => {
                let late = copied_from(late);
                tracing::warn!(group = name, cut = cut.0, in_a_row, late, "a cut was given up; it is never offered");
            }
            Event::Waits { missing, not_in_order } => {
                let (missing, not_in_order) = (copied_from(missing), copied_from(not_in_order));
                tracing::warn!(group = name, missing, not_in_order, "no cut is made of the group until all follow");
            }
            Event::PausedAnew { cut } => tracing::warn!(
                group = name,
                cut = cut.0,
                "a restart left the pause at this cut unfinished: the pairs go on, and stop at another one"
            ),
            Event::Complete => tracing::info!(group = name, "all pairs of the group follow"),
        }
    }

    fn names(&self, pairs: &[PairId]) -> String {
        let name = |pair: &PairId| self.pairs.get(pair).map_or_else(|| pair.to_string(), |known| known.name.clone());
        pairs.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    fn order(&self, pair: PairId, order: Order) {
        if let Some(member) = self.reached.get(&pair).and_then(|member| self.members.get(member)) {
            (member.downlink)(order);
        }
    }

    /// The names that came with cuts which the group holds now outlive the copies' own lists.
    fn keep_named(&mut self, name: &str) {
        let Some(group) = self.groups.get(name) else { return };
        let known = |cut| group.record.named.iter().any(|named| named.cut == cut);
        let named = group.common.status().named.into_iter();
        let new: Vec<_> = named.filter(|named| named.cut <= group.common.cut() && !known(named.cut)).collect();
        if !new.is_empty() {
            self.record(name, |record| {
                for named in new {
                    record.add_named(Named { name: named.name, cut: named.cut, wall: named.wall });
                }
            });
        }
    }

    /// Tells every keeper how far it may offer.
    fn tell_limit(&mut self, name: &str) {
        let now = self.clock.now().instant;
        let Some(group) = self.groups.get_mut(name) else { return };
        let limit = group.common.limit();
        let keepers: Vec<PairId> = group.writes.iter().filter(|(_, writes)| !**writes).map(|(id, _)| *id).collect();
        let keep = now >= group.held_kept_at.plus(HELD_EVERY) && group.common.cut() > group.record.held;
        for pair in keepers {
            self.order(pair, Order::Limit { pair, limit });
        }
        if keep {
            self.keep_held_of(name);
        }
    }

    fn keep_held_of(&mut self, name: &str) {
        let now = self.clock.now().instant;
        let Some(group) = self.groups.get_mut(name) else { return };
        group.held_kept_at = now;
        let cut = group.common.cut();
        self.record(name, |record| record.held = record.held.max(cut));
    }

    fn keep_held(&mut self) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        names.iter().for_each(|name| self.keep_held_of(name));
    }

    fn asked(&mut self, member: MemberId, ask: u64, wanted: Ask) {
        match wanted {
            Ask::View => {
                let nodes = self.members.values().filter_map(|member| member.status.clone()).collect();
                let view = SiteView { site: self.status(), nodes };
                self.reply(member, ask, Reply::View(Box::new(view)));
            }
            Ask::Group { group, command } => {
                let refusal = if self.groups.contains_key(&group) {
                    self.command(member, ask, &group, command)
                } else {
                    Some(no_group(&group))
                };
                if let Some(refusal) = refusal {
                    self.reply(member, ask, Reply::No(refusal));
                }
            }
        }
    }

    /// Says what stands against it; else it is answered, now or when it is done.
    fn command(&mut self, member: MemberId, ask: u64, group: &str, command: GroupCommand) -> Option<ErrorReply> {
        let name = command.name();
        let (wanted, word) = match command {
            GroupCommand::TakeOver { at } => return self.take_over(member, ask, group, at),
            GroupCommand::Forget { pair } => return self.forget_pair(member, ask, group, &pair),
            GroupCommand::AddPreset(_) | GroupCommand::RemovePreset(_) => {
                return self.change_presets(member, ask, group, command);
            }
            GroupCommand::Cut { name } => {
                if let Some((name, other)) = name.as_ref().and_then(|name| Some((name, points::reads_as(name)?))) {
                    let message =
                        format!("{name} is no name for a cut: where a point is asked for, it reads as {other}");
                    return Some(refused(message, Some("choose a name such as before-upgrade".into())));
                }
                (Command::Cut { name }, None)
            }
            GroupCommand::Pause { by, span, .. } => {
                let word = Word::Pause { by, span };
                if self.is_paused_by_preset(group) {
                    self.take_pause_over(member, ask, group, &word);
                    return None;
                }
                (Command::Pause, Some(word))
            }
            GroupCommand::Resume => (Command::Resume, Some(Word::Resume)),
            GroupCommand::SwapSides => (Command::Turn, None),
            GroupCommand::Declare => (Command::Declare, None),
        };
        self.want(member, ask, group, wanted, (name, word))
    }

    /// Hands a command to the group's coordinator; it answers when it is done.
    fn want(
        &mut self,
        member: MemberId,
        ask: u64,
        name: &str,
        command: Command,
        (command_name, word): (&'static str, Option<Word>),
    ) -> Option<ErrorReply> {
        let group = self.groups.get(name)?;
        if !group.writes.values().any(|writes| *writes) {
            let message = format!("this site keeps the copy of group {name}");
            return Some(refused(message, Some("run it at the site that writes".into())));
        }
        let ticket = self.waits(Waiting { member, ask, group: name.to_owned(), command: command_name, word });
        self.tell(name, Input::Wanted { ticket, command });
        None
    }

    /// A node says whether one of its pairs can change sides.
    fn ready(&mut self, pair: PairId, obstacle: Option<String>) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        let ready = obstacle.is_none();
        if let Some(group) = self.groups.get_mut(&name) {
            match obstacle {
                Some(why) => _ = group.obstacles.insert(pair, why),
                None => _ = group.obstacles.remove(&pair),
            }
        }
        self.tell(&name, Input::Ready { lane: pair, ready });
    }

    /// A node says what became of the word of a disaster at the copy of one of its pairs.
    fn declared(&mut self, pair: PairId, refusal: Option<String>) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        let taken = refusal.is_none();
        if let (Some(group), Some(why)) = (self.groups.get_mut(&name), refusal) {
            group.obstacles.insert(pair, why);
        }
        self.tell(&name, Input::Declared { lane: pair, taken });
    }

    fn forget_pair(&mut self, member: MemberId, ask: u64, name: &str, pair: &str) -> Option<ErrorReply> {
        let found = self.pairs.iter().find(|(_, known)| known.group == name && known.name == pair);
        let Some((id, known)) = found.map(|(id, known)| (*id, known.clone())) else {
            return Some(refused(format!("group {name} has no pair {pair:?}"), None));
        };
        if self.reached.contains_key(&id) {
            let next = format!("take it out of the configuration of {} and restart that node", known.node);
            return Some(refused(format!("pair {pair} is there, at node {}", known.node), Some(next)));
        }
        self.forget(id);
        self.set_lanes();
        self.reply(
            member,
            ask,
            Reply::Done(CommandReply::new(format!("group {name} no longer waits for pair {pair}"))),
        );
        None
    }

    fn reply(&self, member: MemberId, id: u64, reply: Reply) {
        if let Some(member) = self.members.get(&member) {
            (member.downlink)(Order::Answer { id, reply });
        }
    }

    fn tell_status(&mut self) {
        let now = self.clock.now().instant;
        if now < self.status_at {
            return;
        }
        self.status_at = now.plus(STATUS_EVERY);
        let status = self.status();
        for member in self.members.values() {
            (member.downlink)(Order::Status(status.clone()));
        }
    }

    fn status(&self) -> SiteStatus {
        let now = self.clock.now();
        let nodes = self.members.values().map(|member| member.node.clone()).filter(|node| !node.is_empty());
        let groups = self.groups.iter().map(|(name, group)| {
            let lanes: BTreeSet<PairId> = group.coordinator.lanes().collect();
            let pair = |id: &PairId| {
                let known = self.pairs.get(id)?;
                // After a restart a copy is there when it is known what it holds.
                let told = group.writes.get(id) == Some(&true) || group.common.knows(*id);
                let there = self.reached.contains_key(id) && told;
                Some(GroupPair { id: *id, name: known.name.clone(), node: known.node.clone(), there })
            };
            let writes = group.writes.values().any(|writes| *writes);
            let keeps = group.writes.values().any(|writes| !*writes);
            GroupStatus {
                name: name.clone(),
                pairs: lanes.iter().filter_map(pair).collect(),
                interval: group.interval,
                writes: writes.then(|| group.coordinator.status(now)),
                keeps: keeps.then(|| group.common.status()),
                taking_over: group.record.taking_over,
                named: group.record.named.clone(),
                pause: preset::pause_shown(&group.record.presets),
                presets: preset::shown(&group.record.presets),
            }
        });
        SiteStatus {
            lead: self.node.clone(),
            at: now.wall,
            nodes: nodes.collect(),
            groups: groups.filter(|group| !group.pairs.is_empty()).collect(),
        }
    }
}

fn refused(message: String, next: Option<String>) -> ErrorReply {
    ErrorReply { code: ErrorCode::Refused, message, next }
}

fn no_group(name: &str) -> ErrorReply {
    let next = Some("`farseal status --site` lists the groups".to_owned());
    ErrorReply { code: ErrorCode::NotFound, message: format!("there is no group {name:?} at this site"), next }
}

/// The lead's own member speaks to it without a wire.
#[must_use]
pub fn local_uplink(inbox: Sender<ToLead>, member: MemberId) -> super::Uplink {
    Box::new(move |report| drop(inbox.send(ToLead::Report { member, report })))
}
