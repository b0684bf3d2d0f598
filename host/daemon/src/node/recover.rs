//! What a takeover would open now, and whether the keys and components that it needs are at hand: asked before anything is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use farseal_core::drill::Live;
use farseal_core::secondary::Status;
use farseal_core::units::{BlockCount, Epoch, Lba, Sequence, WallTime};

use super::pair::PairNode;
use super::points::LookedAt;
use crate::control::api::{KeyAtHand, PlannedEpoch, PluginSlot, RecoverPlan};
use crate::control::operator::CommandError;
use crate::keyring::Keyring;
use crate::keys::package::OpenEpochError;
use crate::plugins::PairPlugins;
use crate::replica::{Event as ReplicaEvent, Replica};

impl PairNode {
    pub(super) async fn recover_plan(&self, at: Option<&str>) -> Result<RecoverPlan, CommandError> {
        let replica = self.keeper("recover plan")?;
        if self.taken().is_some() {
            let would = Some(format!("farseal status {}", self.config.name));
            return Err(self.wrong_state("recover plan", "taken over already", would));
        }
        let status = replica.ask(|done| ReplicaEvent::Look { done }).await.ok_or_else(stopped)?;
        let point = self.find_point(&replica, at).await?;
        let newest = status.durable == status.offered;
        let (through, live, made) = match point {
            // Behind a gap or a group's cut there is more: when the point was made is not when the newest record was.
            None if newest || status.base_differs => {
                (status.offered, self.live_epochs(&replica).await?, status.durable_wall.filter(|_| newest))
            }
            point => {
                let LookedAt { sequence, epochs, made } = self.look_at(&replica, point).await?;
                (sequence, epochs, made)
            }
        };
        let (keyring, plugins) = (Arc::clone(&replica.keyring), Arc::clone(&self.plugins));
        let encrypted = self.config.encrypted;
        let looked = tokio::task::spawn_blocking(move || {
            let planned = |(epoch, blocks)| planned(&keyring, &plugins, epoch, blocks);
            live.into_iter().map(planned).collect::<Vec<_>>()
        });
        let epochs = looked.await.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        let recovery = self.plugins.facts_of(PluginSlot::Recovery);
        Ok(RecoverPlan {
            now: self.shared.clock.now().wall,
            blocks: epochs.iter().map(|epoch| epoch.blocks).sum(),
            epochs: if encrypted { epochs } else { Vec::new() },
            recovery: recovery.map(|facts| facts.about.name).unwrap_or_default(),
            ..of_status(status, through, made)
        })
    }

    /// How many live blocks each epoch sealed; [`Epoch::NONE`] for those of no known one.
    async fn live_epochs(&self, replica: &Replica) -> Result<BTreeMap<Epoch, BlockCount>, CommandError> {
        let (mut epochs, mut from) = (BTreeMap::<Epoch, BlockCount>::new(), Lba(0));
        while from.0 < self.blocks.0 {
            let page: Option<Live> = replica.ask(|done| ReplicaEvent::Live { from, done }).await.ok_or_else(stopped)?;
            let Some(page) = page.filter(|page| page.through != Sequence::NONE) else {
                let next = Some(format!("`farseal recover plan {}` again", self.config.name));
                return Err(CommandError::Refused { reason: "the index is being brought up to date".into(), next });
            };
            from = tally(&mut epochs, page);
        }
        Ok(epochs)
    }
}

/// Adds what a page says of each epoch. Says where the next page begins.
pub(super) fn tally(epochs: &mut BTreeMap<Epoch, BlockCount>, page: Live) -> Lba {
    for live in page.epochs {
        epochs.entry(live.epoch).or_default().0 += live.blocks.0;
    }
    page.next
}

fn of_status(status: Status, through: Sequence, made: Option<WallTime>) -> RecoverPlan {
    RecoverPlan {
        now: WallTime(0),
        generation: status.generation,
        through,
        at: made,
        held: status.durable,
        chain: status.chain.to_string(),
        catching_up: status.gap_open,
        own_history: status.base_differs,
        cut: status.group_cut.0,
        blocks: 0,
        epochs: Vec::new(),
        recovery: String::new(),
    }
}

fn planned(keyring: &Keyring, plugins: &PairPlugins, epoch: Epoch, blocks: BlockCount) -> PlannedEpoch {
    let missing = |why: String| PlannedEpoch {
        epoch,
        blocks: blocks.0,
        key: KeyAtHand::Missing { why },
        component: None,
        component_here: true,
    };
    if epoch == Epoch::NONE {
        return missing("no key record says which key these blocks need".into());
    }
    let Some(package) = keyring.package(epoch) else {
        return missing("its key package is not here".into());
    };
    let key = match keyring.unwrap(&package) {
        Ok(_) => KeyAtHand::Here,
        Err(OpenEpochError::WithEscrow { .. }) => KeyAtHand::WithEscrow,
        Err(error) => KeyAtHand::Missing { why: error.to_string() },
    };
    let terms = &package.descriptor().terms;
    let component = terms.needs_layer().then_some(farseal_plugin::Digest(terms.component));
    let component_here = component.is_none_or(|digest| plugins.components.load(digest).is_ok());
    PlannedEpoch { epoch, blocks: blocks.0, key, component, component_here }
}

pub(super) fn stopped() -> CommandError {
    let next = Some("see the node's log, mend the cause and restart the node".into());
    CommandError::Failed { reason: "the copy's thread has stopped".into(), next }
}
