//! The node's clocks, read in one place.

use std::time::{Instant as Started, SystemTime, UNIX_EPOCH};

use farseal_core::units::{Instant, Now, WallTime};

/// Milliseconds since the process started, beside the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Started,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self { started: Started::now() }
    }

    #[must_use]
    pub fn now(&self) -> Now {
        let instant = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { instant: Instant(instant), wall: wall_time() }
    }
}

/// Milliseconds since 1970; 0 for a clock set before that.
#[must_use]
pub fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
