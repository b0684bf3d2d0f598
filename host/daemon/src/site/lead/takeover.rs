//! Takeovers of a group: all of its pairs at one cut, decided once and carried out by each, whenever it comes.

use std::collections::{BTreeMap, BTreeSet};

use farseal_core::group::{Common, CutName};
use farseal_core::units::{CutNumber, Instant, PairId};

use super::super::words::{Order, Reply, Unheard};
use super::{Lead, MemberId, Waiting, no_group, refused};
use crate::control::api::{CommandReply, ErrorCode, ErrorReply};

/// A takeover that is not decided yet.
#[derive(Clone)]
pub(super) struct Asked {
    why: Why,
    /// What the answers name.
    round: u64,
    at: Option<CutName>,
    /// Pairs that have not said whether they can.
    waits: BTreeSet<PairId>,
    /// Why some cannot.
    obstacles: BTreeMap<PairId, String>,
}

/// On what a group is taken over.
#[derive(Clone)]
enum Why {
    /// An operator, who waits for the answer.
    Asked { by: MemberId, ask: u64 },
    /// The main site's word.
    Word,
    /// Nobody's: by the witness rule, on a statement that is good until then.
    Silence { unheard: Box<Unheard>, until: Instant, last_look: bool },
}

impl Asked {
    /// Somebody's. Silence gives way to a word, which does what that may not; what the pairs still answer to it is of another round.
    fn is_by_word(&self) -> bool {
        !matches!(self.why, Why::Silence { .. })
    }

    /// Whatever the pairs still answer, nothing comes of it.
    fn is_over(&self, now: Instant) -> bool {
        matches!(self.why, Why::Silence { until, .. } if now >= until)
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
        if self.asked.get(name).is_some_and(Asked::is_by_word) {
            let message = format!("a takeover of group {name} is being prepared");
            return Some(refused(message, Some("wait for its answer".into())));
        }
        self.prepare_all(name, Why::Asked { by: member, ask }, at);
        None
    }

    /// The main site declares a disaster: its word for one pair is its word for the group.
    pub(super) fn hear_word(&mut self, pair: PairId) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        // What is under way by a word already answers it when it is decided.
        if self.asked.get(&name).is_some_and(Asked::is_by_word) {
            return;
        }
        tracing::warn!(group = name, "the main site declares a disaster of the group");
        match self.may_take_over(&name) {
            Ok(_) => self.prepare_all(&name, Why::Word, None),
            Err(refused) => {
                tracing::error!(group = name, "the group is not taken over: {}", refused.message);
                self.order(pair, Order::RefuseWord { pair });
            }
        }
    }

    /// One pair and its witness have not heard the main site. That is not the silence of the others: each is asked for its own.
    pub(super) fn hear_unheard(&mut self, pair: PairId, unheard: Unheard) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        // A pair that never answered holds nothing up for longer than the statement is good for.
        if self.asked.get(&name).is_some_and(|asked| !asked.is_over(self.clock.now().instant)) {
            return;
        }
        let heard_by = self.names(&[pair]);
        tracing::warn!(group = name, "{heard_by} does not hear the main site: every pair is asked for its own lane");
        match self.may_take_over(&name) {
            Ok(_) => {
                let until = self.clock.now().instant.plus(unheard.good_for);
                let why = Why::Silence { unheard: Box::new(unheard), until, last_look: false };
                self.prepare_all(&name, why, None);
            }
            Err(refused) => {
                tracing::error!(group = name, next = refused.next, "by the witness rule: {}", refused.message)
            }
        }
    }

    fn prepare_all(&mut self, name: &str, why: Why, at: Option<CutName>) {
        let lanes: Vec<PairId> = self.lanes_of(name);
        let (by_word, unheard) = match &why {
            Why::Asked { .. } => (false, None),
            Why::Word => (true, None),
            Why::Silence { unheard, .. } => (true, Some(unheard.clone())),
        };
        let (round, waits) = (self.round(), lanes.iter().copied().collect());
        let asked = Asked { why, round, at: at.clone(), waits, obstacles: BTreeMap::new() };
        self.asked.insert(name.to_owned(), asked);
        for pair in lanes {
            let (at, unheard) = (at.clone(), unheard.clone());
            self.order(pair, Order::PrepareTakeOver { pair, round, at, by_word, unheard });
        }
    }

    fn round(&mut self) -> u64 {
        let round = self.next_round;
        self.next_round += 1;
        round
    }

    fn lanes_of(&self, name: &str) -> Vec<PairId> {
        self.groups.get(name).into_iter().flat_map(|group| group.coordinator.lanes()).collect()
    }

    /// A node says whether one of its pairs can be taken over. With the last answer it is decided.
    pub(super) fn can_take_over(&mut self, pair: PairId, round: u64, obstacle: Option<String>) {
        let Some(name) = self.pairs.get(&pair).map(|known| known.group.clone()) else { return };
        let Some(asked) = self.asked.get_mut(&name).filter(|asked| asked.round == round) else { return };
        if !asked.waits.remove(&pair) {
            return;
        }
        asked.obstacles.extend(obstacle.map(|why| (pair, why)));
        if !asked.waits.is_empty() {
            return;
        }
        let Some(asked) = self.asked.remove(&name) else { return };
        let refusal = if !asked.obstacles.is_empty() {
            let told = asked.obstacles.iter().map(|(pair, why)| format!("{} ({why})", self.names(&[*pair])));
            let told = told.collect::<Vec<_>>().join(", ");
            let next = "`farseal recover points PAIR` and `farseal recover plan PAIR` say more of each";
            Some(refused(format!("nothing of group {name} was taken over: {told}"), Some(next.into())))
        } else if matches!(asked.why, Why::Silence { last_look: false, .. }) {
            self.look_again(&name, asked.clone())
        } else {
            self.decide_takeover(&name, &asked)
        };
        if let Some(refusal) = refusal {
            self.end_asked(&name, &asked, refusal);
        }
    }

    /// Its node is gone: whatever it was asked, it does not answer.
    pub(super) fn cannot_be_asked(&mut self, pair: PairId) {
        let Some(known) = self.pairs.get(&pair) else { return };
        if let Some(round) = self.asked.get(&known.group).map(|asked| asked.round) {
            self.can_take_over(pair, round, Some("its node cannot be reached any more".into()));
        }
    }

    /// All pairs can be taken over by the witness rule. To find that out took time, so each lane has a last word. Between it and the
    /// decision is a round in this site, and one write.
    fn look_again(&mut self, name: &str, mut asked: Asked) -> Option<ErrorReply> {
        let Why::Silence { unheard, last_look, .. } = &mut asked.why else { return None };
        *last_look = true;
        let silence = unheard.evidence.silence;
        let lanes = match self.may_take_over(name) {
            Ok((lanes, _)) => lanes,
            Err(refused) => return Some(refused),
        };
        let round = self.round();
        (asked.round, asked.waits) = (round, lanes.iter().copied().collect());
        self.asked.insert(name.to_owned(), asked);
        for pair in lanes {
            self.order(pair, Order::StillUnheard { pair, round, silence });
        }
        None
    }

    /// Nothing comes of it.
    fn end_asked(&mut self, name: &str, asked: &Asked, refusal: ErrorReply) {
        for pair in self.lanes_of(name) {
            if asked.at.is_some() {
                self.order(pair, Order::DropTakeOver { pair });
            }
            self.order(pair, Order::RefuseWord { pair });
        }
        match asked.why {
            Why::Asked { by, ask } => self.reply(by, ask, Reply::No(refusal)),
            Why::Word => {
                tracing::error!(group = name, next = refusal.next, "by the main site's word: {}", refusal.message)
            }
            Why::Silence { .. } => {
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
        if asked.is_over(self.clock.now().instant) {
            let message = format!("nothing of group {name} was taken over: the witness's statement is too old by now");
            return Some(refused(message, Some("it is asked again while nobody hears the main site".into())));
        }
        let group = self.groups.get_mut(name)?;
        group.common.fix();
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
        tracing::warn!(group = name, cut = cut.0, "the group is taken over");
        if let Why::Asked { by: member, ask } = asked.why {
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
