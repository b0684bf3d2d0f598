//! What an operator can change of how a pair's copying flows, while it does.

use farseal_core::flow::{Limits, Way};
use farseal_core::limits::PATHS_MAX;
use farseal_core::primary::Command;

use super::pair::PairNode;
use crate::config::units::rate_text;
use crate::control::api::{CommandReply, CopyStatus, FlowStatus, SetRate, SetTransfer, Throttle};
use crate::control::operator::CommandError;
use crate::lane::LaneView;

impl PairNode {
    pub(super) async fn set_transfer(&self, wanted: SetTransfer) -> Result<CommandReply, CommandError> {
        let now = self.look().await?.flow.way;
        let way = Way { transfer: wanted.transfer, paths: wanted.paths.unwrap_or(now.paths) };
        if !(1..=PATHS_MAX).contains(&way.paths) {
            let reason = format!("a link has 1 to {PATHS_MAX} paths; {} were asked for", way.paths);
            return Err(CommandError::BadParameter { parameter: "paths", reason });
        }
        let message = format!("records go {}, over {} path(s)", way.transfer, way.paths);
        if way == now {
            return Ok(CommandReply::new(format!("{message}, already")));
        }
        self.tell(Command::SetWay(way), "transfer").await?;
        Ok(CommandReply::new(message))
    }

    pub(super) async fn throttle(&self, wanted: Throttle) -> Result<CommandReply, CommandError> {
        let now = self.look().await?.flow.limits;
        let limits = Limits {
            link: SetRate::over(wanted.link, now.link),
            resync: SetRate::over(wanted.resync, now.resync),
            initial_copy: SetRate::over(wanted.initial_copy, now.initial_copy),
        };
        if limits != now {
            self.tell(Command::SetLimits(limits), "throttle").await?;
        }
        let [link, resync, initial] = [limits.link, limits.resync, limits.initial_copy].map(rate_text);
        Ok(CommandReply::new(format!("at most: link {link}, resync {resync}, initial copy {initial}")))
    }

    /// The flow in the operator's words.
    pub(super) fn flow_status(&self, view: &LaneView) -> FlowStatus {
        let flow = &view.flow;
        let (pause, presets) = self.pause_status();
        FlowStatus {
            transfer: flow.way.transfer,
            carrier: flow.carrier.map(|path| path.0),
            limits: flow.limits,
            high_water: flow.journal.high_water,
            fill_rate: flow.journal.fill_rate,
            time_left: flow.journal.time_left,
            pace_us: flow.journal.pace_us,
            high_waters: flow.journal.high_waters,
            overflows: flow.journal.overflows,
            copy: flow.copy.map(|copy| CopyStatus {
                kind: copy.kind,
                total: copy.total,
                done: copy.done,
                rate: copy.rate,
                time_left: copy.time_left,
            }),
            pause,
            presets,
        }
    }
}
