//! What an operator can change of how a pair's copying flows, while it does.

use farseal_core::flow::Way;
use farseal_core::limits::PATHS_MAX;
use farseal_core::primary::Command;

use super::pair::PairNode;
use crate::control::api::{CommandReply, FlowStatus, SetTransfer};
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

    /// The flow in the operator's words.
    pub(super) fn flow_status(&self, view: &LaneView) -> FlowStatus {
        let flow = &view.flow;
        FlowStatus { transfer: flow.way.transfer, carrier: flow.carrier.map(|path| path.0) }
    }
}
