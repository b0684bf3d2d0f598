//! A group by the witness rule: one pair's node asks for it, and each pair's node says whether its own lane has been silent, too.

use farseal_core::units::{Instant, Millis};
use farseal_core::witness::{Hindrance, Listened, is_silent_for_witness};

use super::pair::PairNode;
use super::witness::Evidence;
use crate::control::operator::CommandError;
use crate::site::words::{Report, Unheard};

impl PairNode {
    /// Has the lead take the group over. It asks every pair, this one as well, and has to be through before `until`.
    pub(super) fn report_unheard(&self, evidence: Evidence, until: Instant) {
        let good_for = until.since(self.shared.clock.now().instant);
        let unheard = Box::new(Unheard { main: self.peer.fingerprint().to_string(), evidence, good_for });
        if !self.shared.site.report(Report::Unheard { pair: self.config.id, unheard }) {
            tracing::error!(
                pair = self.config.name,
                "the main site is not heard, and this site's lead cannot be reached"
            );
        }
    }

    /// Before a takeover of this pair's group by the witness rule. What it is by is durable here then, as at the pair that asks.
    pub(crate) async fn prepare_unheard(&self, unheard: &Unheard) -> Result<(), CommandError> {
        let silence = unheard.evidence.silence;
        self.is_unheard(silence).await?;
        let evidence = if self.peer.fingerprint().to_string() == unheard.main {
            Evidence { at: self.shared.clock.now().wall, ..unheard.evidence.clone() }
        } else {
            self.own_evidence(silence).await?
        };
        if self.keep_evidence(&evidence) {
            Ok(())
        } else {
            Err(refused("the witness's statement cannot be kept; its node's log says why".into()))
        }
    }

    /// Where this pair's own rule waits for longer than that of the pair that asks, it does so here, too.
    fn its_silence(&self, asked: Millis) -> Millis {
        self.config.witness_silence.map_or(asked, |own| own.max(asked))
    }

    /// Whether its lane has been silent: what came and went counts.
    pub(crate) async fn is_unheard(&self, silence: Millis) -> Result<(), CommandError> {
        let silence = self.its_silence(silence);
        let status =
            self.kept_copy().await.ok_or_else(|| refused("it keeps no copy that could be taken over".into()))?;
        let listened = Listened { linked: status.linked, heard: status.heard };
        listened.is_silent(self.shared.clock.now().instant, silence).map_err(|why| self.hinders(why))
    }

    /// Of another main node than the one that the statement speaks of.
    async fn own_evidence(&self, silence: Millis) -> Result<Evidence, CommandError> {
        let silence = self.its_silence(silence);
        let no_word = || refused("its main node is another, and no witness says that it is silent as well".into());
        let line = self.makings.escrow_line().ok_or_else(no_word)?;
        let (said, statement) = self.ask_witness(&line).await.ok_or_else(no_word)?;
        is_silent_for_witness(said, silence).map_err(|why| self.hinders(why))?;
        Ok(self.evidence_of(&line, silence, (said, &statement)))
    }

    fn hinders(&self, why: Hindrance) -> CommandError {
        tracing::warn!(pair = self.config.name, "the group is not to be taken over by the witness rule: {why}");
        refused(why.to_string())
    }
}

fn refused(reason: String) -> CommandError {
    CommandError::Refused { reason, next: None }
}
