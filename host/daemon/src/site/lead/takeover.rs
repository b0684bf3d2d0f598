//! Takeovers of a group: all of its pairs at one cut, decided once and carried out by each, whenever it comes.

use std::collections::BTreeMap;

use farseal_core::group::{Common, CutName, Next, Reason, Round, Taking};
use farseal_core::units::{CutNumber, Instant, Millis, PairId};

use super::super::words::{Order, Reply, Unheard};
use super::{Lead, MemberId, Waiting, no_group, refused};
use crate::control::api::{CommandReply, ErrorCode, ErrorReply};

/// A takeover that is not decided yet.
pub(super) struct Asked {
    taking: Taking,
    /// The operator who waits for the answer.
    by: Option<(MemberId, u64)>,
    /// What the witness rule goes by, where it is nobody's word.
    unheard: Option<Box<Unheard>>,
    at: Option<CutName>,
    /// Why some cannot.
    obstacles: BTreeMap<PairId, String>,
    /// Which cut `at` is at each pair.
    cuts: BTreeMap<PairId, CutNumber>,
}

/// On what a group is to be taken over.
enum Why {
    /// An operator, who waits for the answer.
    Asked { by: MemberId, ask: u64, at: Option<CutName> },
    /// The main site's word.
    Word,
    /// Nobody's: by the witness rule.
    Silence { unheard: Box<Unheard>, until: Instant },
}

impl Why {
    fn reason(&self) -> Reason {
        match self {
            Self::Asked { .. } | Self::Word => Reason::Word,
            Self::Silence { until, .. } => Reason::Silence { until: *until },
        }
    }
}

impl Lead {
    /// All pairs at one cut, or none: each is asked first whether it can.
    pub(super) fn take_over(
        &mut self,
        member: MemberId,
        ask: u64,
        name: &str,
        at: Option<CutName>,
    ) -> Option<ErrorReply> {
        if let Err(refused) = self.may_take_over(name) {
            return Some(refused);
        }
        if self.is_being_taken(name, Reason::Word) {
            let message = format!("a takeover of group {name} is being prepared");
            return Some(refused(message, Some("wait for its answer".into())));
        }
        self.prepare_all(name, Why::Asked { by: member, ask, at });
        None
    }

    /// The main site declares a disaster: its word for one pair is its word for the group.
    pub(super) fn hear_word(&mut self, pair: PairId) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        // What is under way by a word already answers it when it is decided.
        if self.is_being_taken(&name, Reason::Word) {
            return;
        }
        tracing::warn!(group = name, "the main site declares a disaster of the group");
        match self.may_take_over(&name) {
            Ok(_) => self.prepare_all(&name, Why::Word),
            Err(refused) => {
                tracing::error!(group = name, "the group is not taken over: {}", refused.message);
                self.order(pair, Order::RefuseWord { pair });
            }
        }
    }

    /// One pair and its witness have not heard the main site. That is not the silence of the others: each is asked for its own.
    pub(super) fn hear_unheard(&mut self, pair: PairId, unheard: Unheard) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        let until = self.clock.now().instant.plus(unheard.good_for);
        if self.is_being_taken(&name, Reason::Silence { until }) {
            return;
        }
        let heard_by = self.names(&[pair]);
        tracing::warn!(group = name, "{heard_by} does not hear the main site: every pair is asked for its own lane");
        match self.may_take_over(&name) {
            Ok(_) => self.prepare_all(&name, Why::Silence { unheard: Box::new(unheard), until }),
            Err(refused) => {
                tracing::error!(group = name, next = refused.next, "by the witness rule: {}", refused.message)
            }
        }
    }

    /// What is under way does not give way to this.
    fn is_being_taken(&self, name: &str, to: Reason) -> bool {
        let now = self.clock.now().instant;
        self.asked.get(name).is_some_and(|asked| !asked.taking.gives_way(now, to))
    }

    fn prepare_all(&mut self, name: &str, why: Why) {
        let lanes: Vec<PairId> = self.lanes_of(name);
        let taking = Taking::new(why.reason(), self.round(), lanes.iter().copied().collect());
        let by_word = !matches!(why, Why::Asked { .. });
        let (by, unheard, at) = match why {
            Why::Asked { by, ask, at } => (Some((by, ask)), None, at),
            Why::Word => (None, None, None),
            Why::Silence { unheard, .. } => (None, Some(unheard), None),
        };
        let round = taking.round().0;
        for pair in lanes {
            let (at, unheard) = (at.clone(), unheard.clone());
            self.order(pair, Order::PrepareTakeOver { pair, round, at, by_word, unheard });
        }
        self.asked.insert(
            name.to_owned(),
            Asked { taking, by, unheard, at, obstacles: BTreeMap::new(), cuts: BTreeMap::new() },
        );
    }

    fn round(&mut self) -> Round {
        let round = Round(self.next_round);
        self.next_round += 1;
        round
    }

    fn lanes_of(&self, name: &str) -> Vec<PairId> {
        self.groups.get(name).into_iter().flat_map(|group| group.coordinator.lanes()).collect()
    }

    /// A node says whether one of its pairs can be taken over. With the last answer it is decided.
    pub(super) fn can_take_over(
        &mut self,
        (pair, round): (PairId, u64),
        obstacle: Option<String>,
        cut: Option<CutNumber>,
    ) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        let now = self.clock.now().instant;
        let Some(mut asked) = self.asked.remove(&name) else { return };
        let next = asked.taking.answered(now, pair, Round(round), obstacle.is_none());
        if asked.taking.round() == Round(round) {
            asked.obstacles.extend(obstacle.map(|why| (pair, why)));
            asked.cuts.extend(cut.map(|cut| (pair, cut)));
        }
        let refusal = match next {
            Next::Waits => {
                self.asked.insert(name, asked);
                return;
            }
            Next::LookAgain => match self.look_again(&name, &mut asked) {
                Ok(()) => {
                    self.asked.insert(name, asked);
                    return;
                }
                Err(refusal) => Some(refusal),
            },
            Next::Refuse => Some(self.told(&name, &asked.obstacles)),
            Next::TooOld => {
                let message =
                    format!("nothing of group {name} was taken over: the witness's statement is too old by now");
                Some(refused(message, Some("it is asked again while nobody hears the main site".into())))
            }
            Next::Decide => self.not_one_cut(&name, &asked).map_or_else(|| self.decide_takeover(&name, &asked), Some),
        };
        if let Some(refusal) = refusal {
            self.end_asked(&name, &asked, refusal);
        }
    }

    fn told(&self, name: &str, obstacles: &BTreeMap<PairId, String>) -> ErrorReply {
        let told = obstacles.iter().map(|(pair, why)| format!("{} ({why})", self.names(&[*pair])));
        let told = told.collect::<Vec<_>>().join(", ");
        let next = "`farseal recover points PAIR` and `farseal recover plan PAIR` say more of each";
        refused(format!("nothing of group {name} was taken over: {told}"), Some(next.into()))
    }

    /// A name that was given twice may be another cut at each pair: then their volumes would not belong together.
    fn not_one_cut(&self, name: &str, asked: &Asked) -> Option<ErrorReply> {
        let at = asked.at.as_ref()?;
        let lanes = self.lanes_of(name);
        let cut_of = |pair: &PairId| asked.cuts.get(pair).copied();
        let first = lanes.first().and_then(cut_of);
        if first.is_some() && lanes.iter().all(|pair| cut_of(pair) == first) {
            return None;
        }
        let told = lanes.iter().map(|pair| {
            let cut = cut_of(pair).map_or_else(|| "none that its node names".to_owned(), |cut| format!("cut {cut}"));
            format!("{cut} at {}", self.names(&[*pair]))
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let next = "`farseal status --site` shows the group's named cuts: ask for one whose name was given once, and keep all \
                    nodes of the site at one version";
        let message = format!("nothing of group {name} was taken over: {at} is not one cut of all its pairs: {told}");
        Some(refused(message, Some(next.into())))
    }

    /// Its node is gone: whatever it was asked, it does not answer.
    pub(super) fn cannot_be_asked(&mut self, pair: PairId) {
        let Some(known) = self.pairs.get(&pair) else { return };
        if let Some(round) = self.asked.get(&known.group).map(|asked| asked.taking.round().0) {
            self.can_take_over((pair, round), Some("its node cannot be reached any more".into()), None);
        }
    }

    /// All pairs can be taken over by the witness rule: each lane has a last word.
    fn look_again(&mut self, name: &str, asked: &mut Asked) -> Result<(), ErrorReply> {
        let silence = asked.unheard.as_ref().map_or(Millis(u64::MAX), |unheard| unheard.evidence.silence);
        let (lanes, _) = self.may_take_over(name)?;
        let round = self.round();
        asked.taking.look_again(round, lanes.iter().copied().collect());
        for pair in lanes {
            self.order(pair, Order::StillUnheard { pair, round: round.0, silence });
        }
        Ok(())
    }

    /// Nothing comes of it.
    fn end_asked(&mut self, name: &str, asked: &Asked, refusal: ErrorReply) {
        for pair in self.lanes_of(name) {
            if asked.at.is_some() {
                self.order(pair, Order::DropTakeOver { pair });
            }
            self.order(pair, Order::RefuseWord { pair });
        }
        match (asked.by, &asked.unheard) {
            (Some((by, ask)), _) => self.reply(by, ask, Reply::No(refusal)),
            (None, None) => {
                tracing::error!(group = name, next = refusal.next, "by the main site's word: {}", refusal.message);
            }
            (None, Some(_)) => {
                tracing::error!(group = name, next = refusal.next, "by the witness rule: {}", refusal.message);
            }
        }
    }

    /// The group's pairs, and the cut at which they would be taken over.
    fn may_take_over(&self, name: &str) -> Result<(Vec<PairId>, CutNumber), ErrorReply> {
        let Some(group) = self.groups.get(name) else { return Err(no_group(name)) };
        let lanes: Vec<PairId> = group.coordinator.lanes().collect();
        let missing: Vec<PairId> = lanes.iter().copied().filter(|pair| !self.reached.contains_key(pair)).collect();
        let writing: Vec<PairId> = lanes.iter().copied().filter(|pair| group.writes.get(pair) == Some(&true)).collect();
        let cut = group.common.cut();
        if let Some(cut) = group.record.taking_over {
            let message = format!("a takeover of group {name} at cut {cut} is under way");
            return Err(refused(message, Some("`farseal status --site` shows how far it is".into())));
        }
        if !writing.is_empty() {
            let message = format!("initiators write here to {} of group {name} already", self.names(&writing));
            let next = "`farseal takeover PAIR --alone` takes over one of the others, at its own state";
            return Err(refused(message, Some(next.into())));
        }
        if !missing.is_empty() {
            let message = format!("{} of group {name} cannot be reached: nothing was taken over", self.names(&missing));
            let next = "start their nodes; `farseal takeover PAIR --alone` takes over one pair without the others";
            return Err(refused(message, Some(next.into())));
        }
        let recovering: Vec<PairId> =
            lanes.iter().copied().filter(|pair| lanes.len() > 1 && !group.common.knows(*pair)).collect();
        if !recovering.is_empty() {
            let message = format!(
                "what the copies of {} of group {name} hold is not known yet after a restart: nothing was taken over",
                self.names(&recovering)
            );
            return Err(refused(message, Some("try again in a moment; the nodes' logs say what hinders them".into())));
        }
        if cut == CutNumber::NONE && lanes.len() > 1 {
            let message = format!("no cut of group {name} is held here by all its pairs: nothing was taken over");
            let next =
                "`farseal takeover PAIR --alone` takes over each by itself; they may disagree on what was written";
            return Err(refused(message, Some(next.into())));
        }
        Ok((lanes, cut))
    }

    /// The decision is durable before the first is told.
    fn decide_takeover(&mut self, name: &str, asked: &Asked) -> Option<ErrorReply> {
        // Since they were asked, anything may have happened.
        let (lanes, cut) = match self.may_take_over(name) {
            Ok(found) => found,
            Err(refused) => return Some(refused),
        };
        let group = self.groups.get_mut(name)?;
        let limit = group.common.limit();
        group.record.taking_over = Some(cut);
        group.record.open_at.clone_from(&asked.at);
        group.record.held = cut;
        let record = group.record.clone();
        if let Err(error) = self.store.put_group(name, &record) {
            if let Some(group) = self.groups.get_mut(name) {
                (group.record.taking_over, group.record.open_at) = (None, None);
            }
            let reply = ErrorReply { code: ErrorCode::Failed, message: error.to_string(), next: None };
            return Some(reply);
        }
        // Not before it is durable: the copies' cut grows while nothing is taken over.
        self.groups.get_mut(name)?.common.fix();
        tracing::warn!(group = name, cut = cut.0, "the group is taken over");
        if let Some((member, ask)) = asked.by {
            self.takeovers.push(Waiting { member, ask, group: name.to_owned(), command: "takeover", word: None });
        }
        for pair in lanes {
            self.order(pair, Order::Limit { pair, limit });
            self.order(pair, Order::TakeOver { pair, at: asked.at.clone() });
        }
        None
    }

    /// Every pair of a group that was taken over says that it writes here.
    pub(super) fn end_takeovers(&mut self) {
        let ended: Vec<(String, CutNumber, Option<CutName>, usize)> = self
            .groups
            .iter()
            .filter_map(|(name, group)| {
                let cut = group.record.taking_over?;
                let all = group.coordinator.lanes().all(|pair| group.writes.get(&pair) == Some(&true));
                all.then(|| (name.clone(), cut, group.record.open_at.clone(), group.writes.len()))
            })
            .collect();
        for (name, cut, open_at, pairs) in ended {
            self.record(&name, |record| (record.taking_over, record.open_at) = (None, None));
            if let Some(group) = self.groups.get_mut(&name) {
                // What comes next is a new history.
                group.common = Common::new(group.coordinator.lanes().collect(), cut, false);
            }
            let waiting = std::mem::take(&mut self.takeovers);
            let (done, rest) = waiting.into_iter().partition(|waiting| waiting.group == name);
            self.takeovers = rest;
            let done: Vec<Waiting> = done;
            for waiting in done {
                let at = if pairs > 1 { format!(" at cut {cut}") } else { String::new() };
                let open = open_at
                    .as_ref()
                    .map_or_else(String::new, |name| format!(", with the volumes as they were at {name}"));
                let mut reply = CommandReply::new(format!(
                    "this site writes now: all {pairs} pairs of group {name} were taken over{at}{open}"
                ));
                reply.next = Some("connect initiators to the exports; `farseal status --site` shows all pairs".into());
                self.reply(waiting.member, waiting.ask, Reply::Done(reply));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::{Arc, Mutex};

    use farseal_core::group::KeptCuts;
    use farseal_core::record::CutMark;
    use farseal_core::units::{Sequence, WallTime};

    use super::super::super::store::{Control, FileStore};
    use super::super::super::words::{Ask, GroupCommand, MemberPair, Part, Report};
    use super::super::{Member, Parts};
    use super::*;
    use crate::clock::Clock;

    const LANES: [PairId; 2] = [PairId([1; 16]), PairId([2; 16])];

    type Orders = Arc<Mutex<Vec<Order>>>;

    /// A lead whose one node keeps two copies of group `default`, which hold cut 1.
    fn lead(folder: &std::path::Path) -> (Lead, Orders) {
        let store = Box::new(FileStore::open(&folder.join("site.redb")).unwrap());
        let parts = Parts { node: "remote".into(), clock: Clock::start(), store, intervals: BTreeMap::new() };
        let (mut lead, orders) = (Lead::new(parts, Control::default()), Orders::default());
        let taken = Arc::clone(&orders);
        let downlink = Box::new(move |order| taken.lock().unwrap().push(order));
        let joined = Member { downlink, node: String::new(), pairs: [].into(), status: None };
        lead.members.insert(MemberId(0), joined);
        let mut cuts = KeptCuts::default();
        for mark in
            [CutMark::Boundary { cut: CutNumber(1), lanes: 2 }, CutMark::Confirmed { cut: CutNumber(1), lanes: 2 }]
        {
            cuts.see(mark, Sequence(1), WallTime(0));
        }
        let pairs = LANES.map(|id| MemberPair {
            id,
            name: format!("lane-{}", id.0[0]),
            group: "default".into(),
            part: Part::Keeps { cuts: Some(cuts.clone()) },
        });
        lead.hear(MemberId(0), Report::Hello { node: "remote".into(), pairs: pairs.into() });
        (lead, orders)
    }

    fn ask(lead: &mut Lead, command: GroupCommand) {
        let ask = Ask::Group { group: "default".into(), command };
        lead.hear(MemberId(0), Report::Ask { id: 7, ask });
    }

    /// What the lead orders once each pair has answered that the name is this cut there.
    fn answered(cuts: [Option<u64>; 2]) -> Vec<Order> {
        let folder = tempfile::tempdir().unwrap();
        let (mut lead, orders) = lead(folder.path());
        ask(&mut lead, GroupCommand::TakeOver { at: Some(CutName::new("noon").unwrap()) });
        let prepare = |order: &Order| {
            if let Order::PrepareTakeOver { pair, round, .. } = order { Some((*pair, *round)) } else { None }
        };
        let asked: Vec<_> = std::mem::take(&mut *orders.lock().unwrap()).iter().filter_map(prepare).collect();
        assert_eq!(asked.len(), 2);
        for ((pair, round), cut) in asked.into_iter().zip(cuts) {
            let cut = cut.map(CutNumber);
            lead.hear(MemberId(0), Report::CanTakeOver { pair, round, obstacle: None, cut });
        }
        std::mem::take(&mut *orders.lock().unwrap())
    }

    fn refusal(orders: &[Order]) -> Option<String> {
        orders.iter().find_map(|order| {
            let Order::Answer { reply: Reply::No(refused), .. } = order else { return None };
            Some(refused.message.clone())
        })
    }

    #[test]
    fn a_group_is_taken_over_at_a_name_that_is_one_cut_at_all_pairs_and_at_no_other() {
        let takes = |orders: &[Order]| orders.iter().filter(|order| matches!(order, Order::TakeOver { .. })).count();
        let orders = answered([Some(1), Some(1)]);
        assert_eq!((takes(&orders), refusal(&orders)), (2, None));
        for (cuts, says) in [
            ([Some(1), Some(2)], "noon is not one cut of all its pairs: cut 1 at lane-1, cut 2 at lane-2"),
            ([Some(1), None], "cut 1 at lane-1, none that its node names at lane-2"),
            ([None, None], "noon is not one cut of all its pairs"),
        ] {
            let orders = answered(cuts);
            assert_eq!(takes(&orders), 0, "{cuts:?}");
            assert!(refusal(&orders).unwrap().contains(says), "{cuts:?}: {:?}", refusal(&orders));
            let dropped = orders.iter().filter(|order| matches!(order, Order::DropTakeOver { .. })).count();
            assert_eq!(dropped, 2, "the points need not be kept");
        }
    }

    #[test]
    fn a_cut_gets_no_name_that_reads_as_another_point() {
        let folder = tempfile::tempdir().unwrap();
        let (mut lead, orders) = lead(folder.path());
        for (name, other) in [("1234", "a record's number"), ("15m-ago", "an age"), ("now", "the newest point")] {
            ask(&mut lead, GroupCommand::Cut { name: Some(CutName::new(name).unwrap()) });
            let refused = refusal(&std::mem::take(&mut *orders.lock().unwrap())).unwrap();
            assert!(refused.contains(other), "{name}: {refused}");
        }
        ask(&mut lead, GroupCommand::Cut { name: Some(CutName::new("noon").unwrap()) });
        let refused = refusal(&orders.lock().unwrap()).unwrap();
        assert!(refused.contains("this site keeps the copy"), "its name is none of the obstacles: {refused}");
    }
}
