//! The witness rule at the site that keeps a copy: it listens, asks the escrow site, keeps what that says, and takes over.

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use farseal_core::group::OfferLimit;
use farseal_core::limits::WITNESS_ANSWER_MAX;
use farseal_core::secondary::Status as CopyStatus;
use farseal_core::units::{Instant, Millis, WallTime};
use farseal_core::witness::{Input, Output, Rule, Said};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::pair::PairNode;
use crate::escrow::client::EscrowLine;
use crate::escrow::wire::{FromEscrow, ToEscrow};
use crate::keys::wire::to_hex;
use crate::keys::witness::{Question, Statement};
use crate::replica::Event as ReplicaEvent;
use crate::store::files;

/// How often the link is looked at: the shortest silence is ten times as long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a takeover may take before the rule begins anew.
const TAKEOVER_MAX: Duration = Duration::from_secs(60);
/// A statement and what stands around it.
const EVIDENCE_BYTES_MAX: u64 = 4 << 10;

/// Why this site took over by itself: kept durably before it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Evidence {
    pub format: u32,
    /// When it was decided, by this site's clock.
    pub at: WallTime,
    /// For how long neither was to have heard the main site.
    pub silence: Millis,
    /// The witness's name here, and the fingerprint of its card.
    pub witness: String,
    pub card: String,
    /// For how long it had not heard the main site, by its own clock.
    pub unheard: Millis,
    /// Its signed statement, in hexadecimal digits.
    pub statement: String,
}

impl PairNode {
    /// Follows the rule whenever this site keeps the copy, until the node stops.
    pub(super) async fn follow_witness(self: Arc<Self>) {
        let (Some(silence), Some(line)) = (self.config.witness_silence, self.makings.escrow_line()) else { return };
        let (pair, mut stop) = (self.config.name.clone(), self.shared.stop.subscribe());
        let begin = || Rule::new(self.shared.clock.now().instant, silence);
        let mut rule = begin();
        tracing::info!(pair, witness = line.name, silence = silence.0, "the witness rule is in force");
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if !self.listen(&mut rule).await {
                // Here it is written: what comes after that is another copy.
                rule = begin();
                continue;
            }
            let Some(Output::Ask { question }) = rule.poll_output() else { continue };
            let answer = self.ask_witness(&line).await;
            // The main site may have come back meanwhile.
            if !self.listen(&mut rule).await {
                continue;
            }
            let now = self.shared.clock.now().instant;
            let Some((said, statement)) = answer else {
                rule.handle(now, Input::NoAnswer { question });
                continue;
            };
            tracing::warn!(pair, witness = line.name, ?said, "the main site is not heard here; the witness was asked");
            rule.handle(now, Input::Said { question, said });
            let Some(Output::Declare { question }) = rule.poll_output() else { continue };
            let evidence = self.evidence_of(&line, silence, (said, &statement));
            let kept = self.keep_evidence(&evidence);
            // And while its statement was made durable.
            if !self.listen(&mut rule).await {
                continue;
            }
            rule.handle(
                self.shared.clock.now().instant,
                if kept { Input::Kept { question } } else { Input::NoAnswer { question } },
            );
            if let Some(Output::TakeOver { unheard_since, until }) = rule.poll_output() {
                tracing::warn!(
                    pair,
                    witness = line.name,
                    unheard = evidence.unheard.0,
                    "neither this site nor the witness has heard the main site: this site takes over"
                );
                self.take_over_unheard(evidence, unheard_since, until).await;
                // Where nothing came of it, the silence goes on: what was heard since is told of by the copy's machine.
                rule = Rule::new(unheard_since, silence);
            }
        }
    }

    /// Tells the rule how the link and the copy are. `false`: there is no copy that could be taken over.
    async fn listen(&self, rule: &mut Rule) -> bool {
        let Some(status) = self.kept_copy().await else { return false };
        let now = self.shared.clock.now().instant;
        rule.handle(now, Input::Ready { ready: status.has_point() });
        rule.handle(now, Input::Heard { at: status.heard });
        rule.handle(now, Input::Link { up: status.linked });
        true
    }

    pub(super) async fn kept_copy(&self) -> Option<CopyStatus> {
        let status = if self.writer().is_none() { self.copy_status().await.ok().flatten() } else { None };
        status.filter(|status| !status.taken_over)
    }

    /// A genuine answer to a new question, in time.
    pub(super) async fn ask_witness(&self, line: &EscrowLine) -> Option<(Said, Statement)> {
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge).ok()?;
        let question = Question { pair: self.config.id, main: self.peer.fingerprint(), challenge };
        let asked = line.ask(ToEscrow::Witness(question));
        let answers = match timeout(Duration::from_millis(WITNESS_ANSWER_MAX.0), asked).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                tracing::warn!(
                    pair = self.config.name,
                    "the main site is not heard, and the witness says nothing: {error}"
                );
                return None;
            }
            Err(_) => return None,
        };
        let bytes = answers
            .into_iter()
            .find_map(|answer| if let FromEscrow::Witness(bytes) = answer { Some(bytes) } else { None });
        let own = self.shared.identity.card().fingerprint();
        let checked = Statement::decode(&bytes?).and_then(|said| Ok((said.verify(&line.card, &question, own)?, said)));
        checked
            .inspect_err(|error| {
                tracing::error!(pair = self.config.name, "a witness's statement counts for nothing: {error}")
            })
            .ok()
    }

    /// What the witness said just now, as it is kept.
    pub(super) fn evidence_of(
        &self,
        line: &EscrowLine,
        silence: Millis,
        (said, statement): (Said, &Statement),
    ) -> Evidence {
        let unheard = if let Said::Heard { ago, .. } = said { ago } else { Millis(0) };
        Evidence {
            format: 1,
            at: self.shared.clock.now().wall,
            silence,
            witness: line.name.clone(),
            card: line.card.fingerprint().to_string(),
            unheard,
            statement: to_hex(&statement.encode()),
        }
    }

    /// Keeps what the witness said, durably. `false`: it cannot be kept, and nothing is taken over.
    pub(super) fn keep_evidence(&self, evidence: &Evidence) -> bool {
        let _one = self.evidence_at_work();
        let kept =
            files::write_atomically(&self.evidence_file(), &serde_json::to_vec_pretty(evidence).unwrap_or_default());
        kept.inspect_err(|error| {
            tracing::error!(pair = self.config.name, %error, "the witness's statement cannot be kept: nothing is taken over");
        })
        .is_ok()
    }

    /// A pair by itself is taken over by its own machine, which has the last word on what was heard; a group by its lead, which asks
    /// every pair's machine.
    async fn take_over_unheard(&self, evidence: Evidence, unheard_since: Instant, until: Instant) {
        let statement = evidence.statement.clone();
        if self.is_grouped() {
            self.report_unheard(evidence, until);
        } else if let Ok(replica) = self.keeper("takeover") {
            let _ = replica.inbox.send(ReplicaEvent::Limit(OfferLimit::Everything));
            let _ = replica.inbox.send(ReplicaEvent::TakeOverUnheard { unheard_since, until });
        }
        let taken = async {
            while self.kept_copy().await.is_some() {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(TAKEOVER_MAX, taken).await.is_err() {
            self.forget_evidence_of(&statement);
            tracing::error!(
                pair = self.config.name,
                "the takeover by the witness rule did not come about; see what the lead says"
            );
        }
    }

    /// Nothing came of this statement. Another one, of an attempt since then, stays.
    fn forget_evidence_of(&self, statement: &str) {
        if self.kept_evidence().is_some_and(|kept| kept.statement == statement) {
            self.forget_evidence();
        }
    }

    /// What comes from here on is not by the rule: an earlier statement that nothing came of is not its reason.
    pub(super) fn forget_evidence(&self) {
        let _one = self.evidence_at_work();
        if let Err(error) = files::remove_durably(&self.evidence_file()) {
            tracing::warn!(pair = self.config.name, %error, "an old statement of the witness cannot be removed");
        }
    }

    fn evidence_file(&self) -> PathBuf {
        self.makings.directory().join("witness.json")
    }

    fn kept_evidence(&self) -> Option<Evidence> {
        let bytes = files::read_if_there(&self.evidence_file(), EVIDENCE_BYTES_MAX).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The pair's own rule, and its lead by another pair's, may keep a statement at the same time.
    fn evidence_at_work(&self) -> MutexGuard<'_, ()> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The statement on which this site took over then, if it was by the rule.
    pub(super) fn evidence(&self, taken_over: WallTime) -> Option<Evidence> {
        let evidence = self.kept_evidence()?;
        let most = u64::try_from(TAKEOVER_MAX.as_millis()).unwrap_or(u64::MAX);
        (evidence.at <= taken_over && taken_over.since(evidence.at).0 <= most).then_some(evidence)
    }
}
