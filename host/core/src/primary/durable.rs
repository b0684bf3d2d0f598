//! From planned to durable: what the journal and the volume's home took, who is told, and what may leave the journal.

use super::*;

impl Primary {
    /// Answers what waits for durability, in order.
    pub(super) fn answer_durable(&mut self) {
        self.in_journal.advance(self.synced);
        self.at_remote.advance(self.transfer.acked());
        while let Some(waiting) = self.waiting.front().copied() {
            let result = if self.fenced.is_some() {
                Err(ReplyError::Fenced)
            } else if self.journal_failed {
                Err(ReplyError::Io)
            } else if self.is_reached(waiting) {
                Ok(())
            } else if let Some(error) = self.hopeless() {
                Err(error)
            } else {
                break;
            };
            self.waiting.pop_front();
            self.outputs.push_back(Output::Reply { ticket: waiting.ticket, result });
        }
    }

    fn is_reached(&self, waiting: Waiting) -> bool {
        if self.group.withholds(waiting.order) {
            return false;
        }
        let both = if self.remote_follows() { self.at_remote.reached } else { self.in_journal.reached };
        match (self.mode, waiting.durable) {
            (Mode::Async | Mode::SyncFlush, false) => true,
            (Mode::Async, true) => waiting.order <= self.in_journal.reached,
            (Mode::SyncFlush, true) | (Mode::Sync, _) => waiting.order <= both,
        }
    }

    /// Every record goes to the secondary as it comes, and its acknowledgement can be waited for.
    fn remote_follows(&self) -> bool {
        self.link_up()
            && self.pause.is_none()
            && !self.transfer.is_full()
            && self.transfer.diverged().is_none()
            && self.copying.state() == CopyState::InOrder
            && self.ack_wait.is_none_or(|wait| self.told < wait.since.plus(ACK_PATIENCE))
    }

    /// A secondary whose disk hangs takes records, answers pings and acknowledges nothing.
    fn watch_acks(&mut self, now: Now) {
        let acked = self.transfer.acked();
        let waits = self.mode != Mode::Async && self.link_up() && self.transfer.sent() > acked;
        let since = self.ack_wait.filter(|wait| wait.acked == acked).map_or(now.instant, |wait| wait.since);
        self.ack_wait = waits.then_some(AckWait { acked, since });
    }

    /// Says when the mode is no longer kept, and answers those who waited for what does not come.
    pub(super) fn run_mode(&mut self, now: Now) {
        self.watch_acks(now);
        let kept = self.mode == Mode::Async || self.remote_follows();
        if self.mode_kept && !kept {
            self.alarm(now, Alarm::ModeNotKept(self.mode));
        }
        self.mode_kept = kept;
        self.answer_durable();
    }

    pub(super) fn on_committed(&mut self, now: Now, digests: &[Digest]) {
        let Some(commit) = self.commits.pop_front() else {
            return;
        };
        assert_eq!(commit.records.len(), digests.len(), "the driver reports each record of its oldest commit");
        self.stall = None;
        for (record, digest) in commit.records.iter().zip(digests) {
            let before = commit.restart.filter(|_| record.kind == Kind::Gap).unwrap_or(self.chain);
            self.chain = before.after(*digest);
            if record.kind == Kind::Gap && self.copying.gap_opened(record.sequence) {
                self.transfer.give_up();
            }
            if self.copying.sends() {
                let bytes = ByteLen(self.record_bytes(record));
                self.transfer.push(Unacked {
                    sequence: record.sequence,
                    kind: record.kind,
                    bytes,
                    chain: self.chain,
                    extent: record.extent,
                    wall: record.wall,
                });
            }
            self.appended = record.sequence;
        }
        self.appended_bytes_unsynced += commit.bytes.0;
        self.journal_bytes.0 += commit.bytes.0;
        self.flow.filled(now, commit.bytes);
        self.in_journal.expect(self.appended, commit.order);
        // What is not on its way is not waited for one by one.
        if !self.copying.sends() {
            self.at_remote.expected.pop_back();
        }
        self.at_remote.expect(self.appended, commit.order);
    }

    pub(super) fn on_commit_failed(&mut self, now: Now, fault: StoreFault) {
        let since = self.stall.map_or(now.instant, |stall| stall.since);
        match fault {
            StoreFault::Full => self.alarm(now, Alarm::JournalFull),
            StoreFault::Unsealed => self.alarm(now, Alarm::CannotSeal),
            StoreFault::Failed => return self.fail_journal(now),
        }
        self.stall = Some(Stall { fault, since, retry_at: now.instant.plus(STORE_RETRY_INTERVAL) });
    }

    pub(super) fn journal_full(&self) -> bool {
        self.stall.is_some_and(|stall| stall.fault == StoreFault::Full)
    }

    /// What those are told who wait for durability, once the journal has taken nothing for too long, or there was no key to seal
    /// with. What was accepted stays accepted, and becomes durable when the journal takes it.
    pub(super) fn hopeless(&self) -> Option<ReplyError> {
        let too_long = |since: Instant| self.told >= since.plus(STALL_PATIENCE);
        match self.stall.filter(|stall| too_long(stall.since)) {
            Some(stall) if stall.fault == StoreFault::Full => Some(ReplyError::NoSpace),
            Some(_) => Some(ReplyError::Io),
            None => self.keyless_since.filter(|since| too_long(*since)).map(|_| ReplyError::Io),
        }
    }

    pub(super) fn fail_journal(&mut self, now: Now) {
        if !self.journal_failed {
            self.journal_failed = true;
            self.alarm(now, Alarm::JournalFailed);
        }
    }

    pub(super) fn retry_stalled(&mut self, now: Now) {
        if let Some(stall) = &mut self.stall
            && now.instant >= stall.retry_at
            && !self.commits.is_empty()
        {
            stall.retry_at = now.instant.plus(STORE_RETRY_INTERVAL);
            self.outputs.push_back(Output::RetryCommit);
        }
        if self.home_stalled_until.is_some_and(|at| now.instant >= at) {
            self.home_stalled_until = None;
        }
    }

    /// Somebody waits for durability, the secondary waits for records, or the lazy interval is over.
    pub(super) fn run_journal_sync(&mut self, now: Now) {
        if self.sync_under_way || self.journal_failed || self.synced >= self.appended {
            return;
        }
        let wanted = !self.waiting.is_empty()
            || (self.link_up() && self.copying.sends())
            || self.appended_bytes_unsynced >= COMMIT_BYTES_MAX
            || self.rotation_waits()
            || self.swap.is_some()
            || now.instant >= self.last_sync.plus(LAZY_SYNC_INTERVAL);
        if wanted {
            self.sync_under_way = true;
            self.last_sync = now.instant;
            self.appended_bytes_unsynced = 0;
            self.outputs.push_back(Output::SyncJournal);
        }
    }

    pub(super) fn rotation_waits(&self) -> bool {
        matches!(self.rotation.state(), RotationState::Delivering { .. } | RotationState::Draining { .. })
    }

    pub(super) fn on_journal_synced(&mut self, through: Sequence) {
        self.sync_under_way = false;
        self.synced = self.synced.max(through.min(self.appended));
    }

    pub(super) fn run_home(&mut self, now: Now) {
        if self.home_failed {
            return;
        }
        if !self.destage_under_way && self.home_stalled_until.is_none() && self.destaged < self.synced {
            self.destage_under_way = true;
            self.outputs.push_back(Output::Destage { through: self.synced });
        }
        let due = self.home_dirty_bytes >= HOME_DIRTY_BYTES_MAX.0
            || now.instant >= self.last_home_sync.plus(HOME_SYNC_INTERVAL)
            || self.journal_full()
            || self.journal_bytes.0 >= self.settings.journal_bytes_max.0 / 2;
        if due && !self.home_sync_under_way && self.homed < self.destaged {
            self.home_sync_under_way = true;
            self.last_home_sync = now.instant;
            self.home_dirty_bytes = 0;
            self.outputs.push_back(Output::SyncHome);
        }
    }

    pub(super) fn on_destaged(&mut self, through: Sequence) {
        self.destage_under_way = false;
        self.destaged = self.destaged.max(through.min(self.synced));
        while let Some((sequence, bytes)) = self.buffered.front().copied() {
            if sequence > self.destaged {
                break;
            }
            self.buffered.pop_front();
            self.buffered_bytes -= bytes;
            self.home_dirty_bytes += bytes + 1;
        }
    }

    pub(super) fn on_destage_failed(&mut self, now: Now, fault: StoreFault) {
        self.destage_under_way = false;
        match fault {
            StoreFault::Full | StoreFault::Unsealed => {
                self.home_stalled_until = Some(now.instant.plus(STORE_RETRY_INTERVAL))
            }
            StoreFault::Failed => self.home_failed = true,
        }
        self.alarm(now, Alarm::Home(fault));
    }

    pub(super) fn on_home_synced(&mut self, through: Sequence) {
        self.home_sync_under_way = false;
        self.homed = self.homed.max(through.min(self.destaged));
    }

    pub(super) fn run_trim(&mut self) {
        let released = if self.settings.paired {
            self.transfer.acked().max(self.copying.covered_through())
        } else {
            Sequence(u64::MAX)
        };
        let through = self.homed.min(released);
        if through > self.trimmed {
            self.trimmed = through;
            self.outputs.push_back(Output::TrimJournal { through });
        }
    }
}
