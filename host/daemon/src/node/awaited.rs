//! A takeover by the main site's word whose keys are with the escrow site: it is decided, and opens when a person there has said yes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farseal_core::units::WallTime;
use tokio::time::sleep;

use super::makings::Makings;
use super::pair::{PairNode, Taken};
use crate::arrival::Image;
use crate::control::operator::CommandError;
use crate::keyring::Keyring;
use crate::lane::state::LaneState;
use crate::recovery::account::Beginning;
use crate::replica::HandOver;
use crate::role::lane_folder;

/// An escrow site that cannot be reached is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// What the person at the escrow site reads.
const DECLARED: &str = "the main site declared a disaster; this site has taken over";
const UNHEARD: &str = "neither this site nor its witness heard the main site; this site has taken over";
/// After what keeps a copy that was taken over from being opened.
pub(super) const MEND_AND_RESTART: &str = "mend that and restart the node: it opens then";

/// What is opened when the keys are here.
#[derive(Debug)]
pub struct Awaited {
    pub hand_over: HandOver,
    pub keyring: Arc<Keyring>,
    pub taken: Arc<Mutex<Option<Taken>>>,
    pub image: Option<Image>,
}

impl Makings {
    /// Opens what was taken over, or has its keys asked for first.
    pub(super) fn open_or_await(&self, awaited: Awaited) {
        let missing = awaited.keyring.missing().len();
        // What was opened by search before a restart holds what initiators wrote since, whatever strategy came into force.
        let goes_on = || self.has_search_keys() && self.has_opened(&awaited.hand_over);
        if missing == 0 || goes_on() || self.opens_by_search_alone() {
            return self.open(&awaited);
        }
        tracing::warn!(
            pair = self.config.name,
            missing,
            "this site has taken over, and opens the copy when the escrow site has released its keys"
        );
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = Some(awaited);
        (self.keys_wanted)();
    }

    /// Keys came: with the last of them the copy opens, or with those of a search where nothing else would be opened. Says whether
    /// nothing is awaited any more.
    pub(super) fn open_awaited(&self) -> bool {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks = awaited.as_ref().is_some_and(|awaited| !awaited.keyring.missing().is_empty());
        if lacks && !self.opens_by_search_alone() {
            return false;
        }
        awaited.take().iter().for_each(|awaited| self.open(awaited));
        true
    }

    /// When the takeover began whose keys are awaited, as it was kept then.
    fn awaited_since(&self) -> Option<WallTime> {
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let hand_over = &awaited.as_ref()?.hand_over;
        let kept = Beginning::load(&self.directory().join(lane_folder(hand_over.generation)));
        Some(kept.map_or(hand_over.beginning.at, |kept| kept.at))
    }

    /// It was open once, before a restart.
    fn has_opened(&self, hand_over: &HandOver) -> bool {
        LaneState::exists(&self.directory().join(lane_folder(hand_over.generation)))
    }

    fn open(&self, Awaited { hand_over, keyring, taken, image }: &Awaited) {
        match self.bring_up(keyring, hand_over, image.as_ref()) {
            Ok(up) => *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(up),
            Err(error) => {
                let why = format!("this site has taken over, and the copy could not be opened: {error:#}");
                tracing::error!(pair = self.config.name, "{why}; {MEND_AND_RESTART}");
                *self.unopened.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
        }
    }
}

impl PairNode {
    /// Asks the escrow site for the keys of a takeover and waits for them. Who is denied has to ask by hand.
    pub(super) async fn bring_keys(self: Arc<Self>) {
        let pair = &self.config.name;
        let by_witness = self.makings.awaited_since().is_some_and(|began| self.evidence(began).is_some());
        let reason = if by_witness { UNHEARD } else { DECLARED };
        loop {
            let brought = match self.request_keys(reason.into()).await {
                Ok(_) => self.fetch_keys(true).await,
                Err(error) => Err(error),
            };
            match brought {
                _ if self.makings.open_awaited() => return,
                Err(error @ CommandError::Refused { .. }) => {
                    return tracing::error!(pair, "the copy stays closed: {error}; ask with `farseal escrow request`");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(pair, "the escrow site is asked again: {error}"),
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Why a copy that was taken over could not be opened.
    pub(super) fn unopened(&self) -> Option<String> {
        self.makings.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a copy that was taken over is not open yet.
    pub(super) fn awaits_keys(&self) -> Option<String> {
        let awaited = self.makings.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = awaited.as_ref()?.keyring.missing().len();
        Some(format!("it opens when the escrow site has released the keys of {missing} epochs"))
    }
}
