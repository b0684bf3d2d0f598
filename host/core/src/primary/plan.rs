//! Giving places: which records the next commit holds, and in which order.
//!
//! What rotation and copying demand comes first, then initiators' writes as they were accepted.

use super::slots::ShamDelivery;
use super::*;

impl Primary {
    pub(super) fn plan_commits(&mut self, now: Now) {
        self.give_places(now);
        let keyless = matches!(self.held, Some(Held::NoKey | Held::HardLimit));
        self.keyless_since = keyless.then(|| self.keyless_since.unwrap_or(now.instant));
    }

    fn give_places(&mut self, now: Now) {
        while self.commits.len() < COMMITS_IN_FLIGHT_MAX && !self.journal_failed && self.stall.is_none() {
            let records = self.plan_records(now);
            let discarded = std::mem::take(&mut self.discard_after_commit);
            let discarded = discarded.into_iter().map(|epoch| Output::DiscardEpoch { epoch });
            let Some(first) = records.first() else {
                self.outputs.extend(discarded);
                return;
            };
            let restart = (first.kind == Kind::Gap).then_some(self.transfer.acked_chain());
            let bytes = records.iter().map(|record| self.record_bytes(record)).sum();
            self.outputs.push_back(Output::Commit { records: records.clone(), durable: self.synced, restart });
            self.outputs.extend(discarded);
            self.commits.push_back(Commit { records, bytes: ByteLen(bytes), restart, order: self.planned });
        }
    }

    /// The records of one commit: what rotation and copying demand, then initiators' writes.
    pub(super) fn plan_records(&mut self, now: Now) -> Vec<Planned> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        self.held = None;
        if self.swap_is_cut() {
            return records;
        }
        while records.len() < COMMIT_RECORDS_MAX && bytes < COMMIT_BYTES_MAX {
            // A commit has one key to seal it, and a gap begins a segment.
            let starts = self.rotation.starts(self.next) || self.schedule.starts(self.next);
            let boundary = self.copying.gap_due() || starts;
            if self.copying.awaits_map() || (boundary && !records.is_empty()) || self.swap_is_cut() {
                break;
            }
            if self.next.0 > SEQUENCE_MAX {
                self.alarm(now, Alarm::SequenceEnd);
                // What has its place becomes durable before the rest is refused.
                if records.is_empty() && self.commits.is_empty() && self.synced == self.next.previous() {
                    self.fail_journal(now);
                }
                break;
            }
            if let Some(Ended::InForce(epoch)) = self.rotation.reached(now, self.next) {
                self.outputs.push_back(Output::EpochInForce { epoch });
                self.carry_anew(now);
                self.tell_policy(PolicyEvent::Rotated(epoch));
                self.answer_decision(Outcome::Applied);
            }
            self.begin_shams(now);
            if self.copying.gap_due() {
                self.copying.gap_placed(self.next);
                self.group.given_up();
                records.push(self.plan_marker(now, Epoch::NONE, Kind::Gap));
                continue;
            }
            let due = self.rotation.due(now, self.next, self.transfer.acked());
            if let Due::Drop { epoch } = due {
                self.give_up_key(now, epoch);
                continue;
            }
            let Some(planned) = self.plan_slot(now, due).or_else(|| self.plan_due(now, due)) else {
                break;
            };
            bytes += self.record_bytes(&planned);
            records.push(planned);
        }
        records
    }

    pub(super) fn plan_due(&mut self, now: Now, due: Due) -> Option<Planned> {
        let epoch = self.rotation.active().map_or(Epoch::NONE, |key| key.epoch);
        match due {
            Due::Ordinary { epoch } if self.is_at_sham() => self.plan_carried_sham(now, epoch),
            Due::Ordinary { epoch } => match self.sham_delivery(now) {
                ShamDelivery::InTime => self.plan_ordinary(now, epoch),
                ShamDelivery::Awaited => None,
                // As long as a key's void.
                ShamDelivery::GivenUp => Some(self.plan_own_cut(now, epoch)),
            },
            Due::Key { epoch, blocks, how: _ } => Some(self.plan_key(now, epoch, blocks, 0)),
            Due::CarriedKey { .. } if !self.ordinary_waits(now) => None,
            Due::CarriedKey { carried: true } => self.plan_carried(now),
            Due::CarriedKey { carried: false } => {
                self.miss_carried_key(now);
                self.plan_ordinary(now, epoch)
            }
            Due::LastPlace { .. } if !self.ordinary_waits(now) => None,
            // Initiators notice a wait of a round trip less than an old key that stays: they are answered meanwhile.
            Due::LastPlace { .. } if self.link_up() && self.rotation.wait_for_delivery(now) => {
                self.held = Some(Held::Delivery);
                None
            }
            Due::Drop { .. } => None,
            Due::Void { epoch: void } | Due::LastPlace { epoch: void } => {
                if let RotationState::Delivering { key, .. } = self.rotation.state() {
                    self.voided.insert(*key);
                }
                self.rotation.voided();
                self.give_up_key(now, void);
                Some(Planned { aux: void.0, ..self.place(now, Kind::Void, epoch, Source::Header) })
            }
            // A cut would close the gap that is open; what stands between key and start need only be something.
            Due::PauseCut if self.copying.gap_open() => Some(self.plan_cover(now, epoch)),
            Due::PauseCut => Some(self.plan_own_cut(now, epoch)),
            // Covers need no key: they walk the order up to the start of the one that comes.
            Due::Hold(Held::HardLimit) if self.next < self.armed_start() => Some(self.plan_cover(now, epoch)),
            Due::Hold(held) => {
                if held == Held::HardLimit {
                    self.alarm(now, Alarm::HardLimit);
                }
                self.held = Some(held);
                None
            }
        }
    }

    pub(super) fn ordinary_waits(&mut self, now: Now) -> bool {
        let pausing =
            self.may_pause() && self.pause.is_some_and(|pause| pause.cut.is_none() && self.planned >= pause.after);
        let due = self.cut_mark_due() || self.swap_cut_due();
        !self.queue.is_empty() || pausing || self.copying.closes() || due || self.slot_waits(now)
    }

    pub(super) fn plan_ordinary(&mut self, now: Now, epoch: Epoch) -> Option<Planned> {
        if self.copying.cut_due(self.next) {
            return Some(self.plan_marker(now, epoch, Kind::Cut));
        }
        let may_pause = self.may_pause();
        if let Some(mark) = self.take_cut_mark() {
            return Some(self.plan_cut(now, epoch, mark));
        }
        if may_pause
            && let Some(pause) = &mut self.pause
            && pause.cut.is_none()
            && self.planned >= pause.after
            && self.copying.gap_open()
        {
            // No cut may stand in an open gap: the secondary keeps the state before it.
            pause.cut = Some(self.next.previous());
        }
        if may_pause
            && let Some(pause) = &mut self.pause
            && pause.cut.is_none()
            && self.planned >= pause.after
        {
            pause.cut = Some(self.next);
            return Some(self.plan_marker(now, epoch, Kind::Cut));
        }
        if self.swap_cut_due() {
            self.swap_cut_placed(self.next);
            return Some(self.plan_marker(now, epoch, Kind::Cut));
        }
        let Some(accepted) = self.queue.front().copied() else {
            return self.plan_filler(now, epoch);
        };
        let most = match accepted.content {
            Content::Written(What::Data) | Content::Copied(What::Data) => self.record_blocks_max(),
            Content::Written(_) | Content::Copied(_) => u64::from(u32::MAX),
        };
        let blocks = BlockCount(accepted.rest.blocks().0.min(most));
        let extent = Extent::new(accepted.rest.first(), blocks)?;
        let left = BlockCount(accepted.rest.blocks().0 - blocks.0);
        self.queued_bytes -=
            self.weight(accepted.content, accepted.rest.blocks()) - self.weight(accepted.content, left);
        match Extent::new(extent.end(), left) {
            Some(rest) => {
                if let Some(front) = self.queue.front_mut() {
                    front.rest = rest;
                    front.skip.0 += blocks.0;
                }
            }
            None => {
                self.queue.pop_front();
                self.planned = accepted.order;
            }
        }
        let kind = match accepted.content {
            Content::Written(What::Data) | Content::Copied(What::Data) => Kind::Data,
            Content::Written(What::Zero) | Content::Copied(What::Zero) => Kind::Zero,
            Content::Written(What::Trim) | Content::Copied(What::Trim) => Kind::Trim,
        };
        let weight = self.weight(accepted.content, blocks);
        self.buffered_bytes += weight;
        self.buffered.push_back((self.next, weight));
        self.rotation.sealed(ByteLen(self.payload_bytes(accepted.content, blocks)), blocks.0);
        if matches!(accepted.content, Content::Copied(_)) {
            self.copying.copied_in(extent, self.next);
        }
        let source = Source::Buffer { ticket: accepted.ticket, skip: accepted.skip };
        Some(Planned { extent: Some(extent), ..self.place(now, kind, epoch, source) })
    }

    pub(super) fn record_blocks_max(&self) -> u64 {
        u64::from(RECORD_BLOCKS_MAX).min(u64::from(RECORD_PAYLOAD_MAX) / self.settings.block_bytes.as_u64())
    }

    /// A gap opens a resync, a cut closes it.
    pub(super) fn plan_marker(&mut self, now: Now, epoch: Epoch, kind: Kind) -> Planned {
        let aux = if kind == Kind::Gap {
            self.transfer.acked().next().0
        } else {
            self.cuts += 1;
            self.cuts
        };
        Planned { aux, ..self.place(now, kind, epoch, Source::Header) }
    }

    /// The key record of a rotation, `gap` records further from its start than it need be.
    pub(super) fn plan_key(&mut self, now: Now, epoch: Epoch, blocks: u32, gap: u64) -> Planned {
        let in_flight = self.in_flight();
        let start = self.rotation.placed(now, self.next, in_flight, gap);
        let how = match self.rotation.state() {
            RotationState::Delivering { how, .. } | RotationState::Armed { how, .. } => *how,
            RotationState::Idle
            | RotationState::Preparing { .. }
            | RotationState::Escrowing { .. }
            | RotationState::Waiting { .. }
            | RotationState::Carrying { .. }
            | RotationState::Draining { .. } => How::AtOnce,
        };
        Planned { body_blocks: blocks, ..self.place(now, Kind::Key, epoch, Source::Capsules { start, how }) }
    }

    fn plan_own_cut(&mut self, now: Now, epoch: Epoch) -> Planned {
        self.cuts += 1;
        self.plan_cut(now, epoch, CutMark::Own(self.cuts))
    }

    /// Records that the secondary has not acknowledged; nothing is under way while the link is down.
    pub(super) fn in_flight(&self) -> u64 {
        if self.link_up() { self.next.since(self.transfer.acked().next()) } else { 0 }
    }

    /// With nothing else to seal, cover records walk the order up to a delivered key's start: at once, unless the slots
    /// of a standing schedule do. A key that came in other records' slots waits for ordinary ones.
    pub(super) fn plan_filler(&mut self, now: Now, epoch: Epoch) -> Option<Planned> {
        let walks = !self.schedule.is_standing() && !self.settings.in_slots && self.next < self.armed_start();
        walks.then(|| self.plan_cover(now, epoch))
    }

    fn plan_cover(&mut self, now: Now, epoch: Epoch) -> Planned {
        Planned { body_blocks: 1, ..self.place(now, Kind::Cover, epoch, Source::Random) }
    }

    /// The start of a key that comes in-band and that the secondary holds; before every record where there is none.
    fn armed_start(&self) -> Sequence {
        match self.rotation.state() {
            RotationState::Armed { start, how: How::InBand, .. } => *start,
            RotationState::Idle
            | RotationState::Preparing { .. }
            | RotationState::Escrowing { .. }
            | RotationState::Waiting { .. }
            | RotationState::Carrying { .. }
            | RotationState::Draining { .. }
            | RotationState::Delivering { .. }
            | RotationState::Armed { .. } => Sequence::NONE,
        }
    }

    pub(super) fn place(&mut self, now: Now, kind: Kind, epoch: Epoch, source: Source) -> Planned {
        let sequence = self.next;
        self.next = sequence.next();
        Planned { sequence, kind, epoch, extent: None, body_blocks: 0, wall: now.wall, aux: 0, source }
    }

    pub(super) fn record_bytes(&self, planned: &Planned) -> u64 {
        let blocks = match planned.kind {
            Kind::Data => planned.extent.map_or(0, |extent| extent.blocks().0),
            Kind::Key | Kind::Cover => u64::from(planned.body_blocks),
            Kind::Zero | Kind::Trim | Kind::Void | Kind::Cut | Kind::Gap => 0,
        };
        let (header, tags) = (wide(HEADER_BYTES), tag_bytes_each(planned.kind, self.settings.search_tags()));
        header + blocks.max(1) * wide(tags) + BlockCount(blocks).byte_len(self.settings.block_bytes).0
    }
}
