//! What the kernel says of a process that keeps its keys to itself. A test program of its own: the change is for good.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal::keys::memory::keep_out_of_core_dumps;
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

#[test]
fn core_dumps_are_off_afterwards() {
    keep_out_of_core_dumps().unwrap();
    let limit = getrlimit(Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
}
