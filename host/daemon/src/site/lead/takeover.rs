//! Takeovers of a group: all of its pairs at one cut, decided once and carried out by each, whenever it comes.

use farseal_core::group::Common;
use farseal_core::units::{CutNumber, PairId};

use super::super::words::{Order, Reply};
use super::{Lead, MemberId, Waiting, refused};
use crate::control::api::{CommandReply, ErrorCode, ErrorReply};

impl Lead {
    /// All pairs at one cut, or none: the decision is durable before the first is told.
    pub(super) fn take_over(&mut self, member: MemberId, ask: u64, name: &str) -> Option<ErrorReply> {
        let group = self.groups.get(name)?;
        let lanes: Vec<PairId> = group.coordinator.lanes().collect();
        let missing: Vec<PairId> = lanes.iter().copied().filter(|pair| !self.reached.contains_key(pair)).collect();
        let writing: Vec<PairId> = lanes.iter().copied().filter(|pair| group.writes.get(pair) == Some(&true)).collect();
        let cut = group.common.cut();
        if let Some(cut) = group.record.taking_over {
            let message = format!("a takeover of group {name} at cut {cut} is under way");
            return Some(refused(message, Some("`farseal status --site` shows how far it is".into())));
        }
        if !writing.is_empty() {
            let message = format!("initiators write here to {} of group {name} already", self.names(&writing));
            let next = "`farseal takeover PAIR --alone` takes over one of the others, at its own state";
            return Some(refused(message, Some(next.into())));
        }
        if !missing.is_empty() {
            let message = format!("{} of group {name} cannot be reached: nothing was taken over", self.names(&missing));
            let next = "start their nodes; `farseal takeover PAIR --alone` takes over one pair without the others";
            return Some(refused(message, Some(next.into())));
        }
        let recovering: Vec<PairId> =
            lanes.iter().copied().filter(|pair| lanes.len() > 1 && !group.common.knows(*pair)).collect();
        if !recovering.is_empty() {
            let message = format!(
                "what the copies of {} of group {name} hold is not known yet after a restart: nothing was taken over",
                self.names(&recovering)
            );
            return Some(refused(message, Some("try again in a moment; the nodes' logs say what hinders them".into())));
        }
        if cut == CutNumber::NONE && lanes.len() > 1 {
            let message = format!("no cut of group {name} is held here by all its pairs: nothing was taken over");
            let next =
                "`farseal takeover PAIR --alone` takes over each by itself; they may disagree on what was written";
            return Some(refused(message, Some(next.into())));
        }
        let group = self.groups.get_mut(name)?;
        group.common.fix();
        let limit = group.common.limit();
        group.record.taking_over = Some(cut);
        group.record.held = cut;
        let record = group.record.clone();
        if let Err(error) = self.store.put_group(name, &record) {
            if let Some(group) = self.groups.get_mut(name) {
                group.record.taking_over = None;
            }
            let reply = ErrorReply { code: ErrorCode::Failed, message: error.to_string(), next: None };
            return Some(reply);
        }
        tracing::warn!(group = name, cut = cut.0, "the group is taken over");
        self.takeovers.push(Waiting { member, ask, group: name.to_owned(), command: "takeover", word: None });
        for pair in lanes {
            self.order(pair, Order::Limit { pair, limit });
            self.order(pair, Order::TakeOver { pair });
        }
        None
    }

    /// Every pair of a group that was taken over says that it writes here.
    pub(super) fn end_takeovers(&mut self) {
        let ended: Vec<(String, CutNumber, usize)> = self
            .groups
            .iter()
            .filter_map(|(name, group)| {
                let cut = group.record.taking_over?;
                let all = group.coordinator.lanes().all(|pair| group.writes.get(&pair) == Some(&true));
                all.then(|| (name.clone(), cut, group.writes.len()))
            })
            .collect();
        for (name, cut, pairs) in ended {
            self.record(&name, |record| record.taking_over = None);
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
                let mut reply = CommandReply::new(format!(
                    "this site writes now: all {pairs} pairs of group {name} were taken over{at}"
                ));
                reply.next = Some("connect initiators to the exports; `farseal status --site` shows all pairs".into());
                self.reply(waiting.member, waiting.ask, Reply::Done(reply));
            }
        }
    }
}
