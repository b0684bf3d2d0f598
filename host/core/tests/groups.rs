//! Small stories of consistency groups: who makes a cut and when, what a lane withholds for it, what a keeper offers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "groups/coordinator.rs"]
mod coordinator;
#[path = "groups/keeper.rs"]
mod keeper;
#[path = "groups/lane.rs"]
mod lane;
#[path = "support/pair.rs"]
mod pair;
